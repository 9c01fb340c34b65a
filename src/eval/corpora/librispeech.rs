//! LibriSpeech: `test-clean/{speaker}/{chapter}/{speaker}-{chapter}-{n}.flac` beside `{speaker}-{chapter}.trans.txt`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::draft::Draft;
use super::{Labels, Layout, ProblemKind, Rules, Split, Utterance, files};
use crate::audio::Channel;
use crate::error::Result;

pub(super) const CLEAN: Layout = Layout {
    id: "librispeech-clean",
    looks_for: "test-clean/{speaker}/{chapter}/*.trans.txt (dev-clean for split = dev), in LibriSpeech/ or not",
    rules: &["split"],
    present: |root, rules| Ok(part(root, rules, "clean").is_some()),
    read: |root, rules, draft| read(root, rules, "clean", draft),
};

pub(super) const OTHER: Layout = Layout {
    id: "librispeech-other",
    looks_for: "test-other/{speaker}/{chapter}/*.trans.txt (dev-other for split = dev), in LibriSpeech/ or not",
    rules: &["split"],
    present: |root, rules| Ok(part(root, rules, "other").is_some()),
    read: |root, rules, draft| read(root, rules, "other", draft),
};

/// The folder of the part: under `root`, or `root` itself.
fn part(root: &Path, rules: &Rules, half: &str) -> Option<PathBuf> {
    let name = format!("{}-{half}", if rules.split == Split::Dev { "dev" } else { "test" });
    if root.file_name().is_some_and(|own| own == name.as_str()) && root.is_dir() {
        return Some(root.to_path_buf());
    }
    files::first_of(root, &[&name, &format!("LibriSpeech/{name}")]).filter(|path| path.is_dir())
}

fn read(root: &Path, rules: &Rules, half: &str, draft: &mut Draft) -> Result<()> {
    let Some(part) = part(root, rules, half) else { return Ok(()) };
    let (transcripts, others): (Vec<PathBuf>, Vec<PathBuf>) =
        files::walk(&part)?.into_iter().partition(|path| files::lower_name(path).ends_with(".trans.txt"));
    let mut named = HashSet::new();
    for transcript in &transcripts {
        let folder = transcript.parent().unwrap_or(&part);
        let chapter = files::stem(transcript).trim_end_matches(".trans").to_string();
        for (_, line) in files::numbered(&files::read_text(transcript)?) {
            let (id, text) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
            let audio = files::audio_named(folder, id, "flac");
            named.insert(audio.clone());
            draft.add(Utterance {
                id: id.into(),
                audio,
                channel: Channel::Mix,
                start: 0.0,
                end: None,
                reference: text.into(),
                speaker: id.split_once('-').map(|(speaker, _)| speaker.into()),
                set: None,
                labels: Labels::default(),
                recording: chapter.clone(),
                duration: None,
            });
        }
    }
    for audio in others.iter().filter(|path| files::is_audio(path) && !named.contains(*path)) {
        draft.problem(ProblemKind::MissingTranscript, files::stem(audio), audio.display().to_string());
    }
    Ok(())
}
