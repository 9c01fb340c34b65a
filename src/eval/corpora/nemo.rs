//! NeMo manifests: a JSON object per line, `{audio_filepath, text, duration[, offset, speaker, lang, accent, sex]}`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::draft::Draft;
use super::{Labels, Layout, ProblemKind, Rules, Utterance, files};
use crate::audio::Channel;
use crate::error::Result;

pub(super) const LAYOUT: Layout = Layout {
    id: "nemo",
    looks_for: "a .json or .jsonl file (or one named for the split) whose lines have audio_filepath",
    rules: &["split"],
    present: |root, _| Ok(!manifests(root)?.is_empty()),
    read,
};

/// A line; other keys are allowed.
#[derive(Deserialize)]
struct Line {
    audio_filepath: String,
    text: Option<String>,
    duration: Option<f64>,
    offset: Option<f64>,
    speaker: Option<serde_json::Value>,
    /// Ours: the set the line belongs to.
    set: Option<String>,
    id: Option<String>,
    lang: Option<String>,
    accent: Option<String>,
    #[serde(alias = "gender")]
    sex: Option<String>,
}

/// The manifests at a path: the file itself, or files of the folder whose first line is one of a manifest.
fn manifests(root: &Path) -> Result<Vec<PathBuf>> {
    let candidates = files::json_lines(root)?;
    Ok(candidates.into_iter().filter(|path| files::first_object(path).is_some_and(|o| o.contains_key("audio_filepath"))).collect())
}

fn read(root: &Path, rules: &Rules, draft: &mut Draft) -> Result<()> {
    let Some(path) = files::one_for_split(root, manifests(root)?, rules)? else { return Ok(()) };
    let folder = path.parent().unwrap_or(root);
    for (number, text) in files::numbered(&files::read_text(&path)?) {
        let line: Line = match serde_json::from_str(text) {
            Ok(line) => line,
            Err(e) => {
                draft.bad_line(&path, number, e.to_string());
                continue;
            }
        };
        let start = line.offset.unwrap_or(0.0);
        let stem = files::stem(Path::new(&line.audio_filepath));
        let id = line.id.unwrap_or_else(|| if line.offset.is_some() { format!("{stem}-{:07.0}", start * 100.0) } else { stem.clone() });
        let place = || format!("{}:{number}", path.display());
        let Some(reference) = line.text else {
            draft.problem(ProblemKind::MissingTranscript, place(), "no text");
            continue;
        };
        // Sharded sets name members of tar files: `audio__OP_0..511_CL_.tar`.
        if shard(&line.audio_filepath) {
            draft.problem(ProblemKind::UnsupportedSource, place(), format!("{}: unpack the shards", line.audio_filepath));
            continue;
        }
        let end = match (line.offset, line.duration) {
            (Some(offset), Some(duration)) => Some(offset + duration),
            (None | Some(_), _) => None,
        };
        draft.add(Utterance {
            id,
            audio: files::resolve(folder, &line.audio_filepath),
            channel: Channel::Mix,
            start,
            end,
            reference,
            speaker: line.speaker.map(|s| s.as_str().map_or_else(|| s.to_string(), str::to_string)),
            set: line.set,
            labels: Labels { lang: line.lang, accent: line.accent, sex: line.sex },
            recording: stem,
            duration: line.duration,
        });
    }
    Ok(())
}

fn shard(path: &str) -> bool {
    path.contains("_OP_") && path.contains("_CL_") || path.contains(".tar/")
}
