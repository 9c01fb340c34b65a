//! Lhotse manifests, JSON lines, gzipped or not: cuts, or recordings with supervisions.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::draft::Draft;
use super::{Labels, Layout, ProblemKind, Rules, Utterance, files, kaldi_pipe};
use crate::audio::Channel;
use crate::error::{Error, Result};

pub(super) const LAYOUT: Layout = Layout {
    id: "lhotse",
    looks_for: "a .jsonl or .jsonl.gz file of cuts, or one of supervisions beside one of recordings (or those named for the split)",
    rules: &["split"],
    present: |root, _| Ok(json_files(root)?.iter().any(|(_, holds)| *holds != Holds::Recordings)),
    read,
};

/// What the lines of a manifest are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    Cuts,
    Supervisions,
    Recordings,
}

/// A channel or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Channels {
    One(usize),
    Many(Vec<usize>),
}

#[derive(Deserialize)]
struct Source {
    #[serde(rename = "type")]
    kind: String,
    channels: Vec<usize>,
    source: Value,
}

#[derive(Deserialize)]
struct Recording {
    id: String,
    sources: Vec<Source>,
    transforms: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct Supervision {
    id: String,
    recording_id: String,
    start: f64,
    duration: f64,
    channel: Option<Channels>,
    text: Option<String>,
    speaker: Option<String>,
}

#[derive(Deserialize)]
struct Cut {
    #[serde(rename = "type")]
    kind: Option<String>,
    id: String,
    start: Option<f64>,
    duration: Option<f64>,
    #[serde(default)]
    supervisions: Vec<Supervision>,
    recording: Option<Recording>,
}

/// The manifests at a path with what they hold.
fn json_files(root: &Path) -> Result<Vec<(PathBuf, Holds)>> {
    let kind = |path: &Path| {
        let object = files::first_object(path)?;
        let has = |key| object.contains_key(key);
        match () {
            () if has("supervisions") || object.get("type").and_then(Value::as_str).is_some_and(|t| t.ends_with("Cut")) => {
                Some(Holds::Cuts)
            }
            () if has("recording_id") && has("start") => Some(Holds::Supervisions),
            () if has("sources") && has("sampling_rate") => Some(Holds::Recordings),
            () => None,
        }
    };
    Ok(files::json_lines(root)?.into_iter().filter_map(|path| kind(&path).map(|holds| (path, holds))).collect())
}

fn read(root: &Path, rules: &Rules, draft: &mut Draft) -> Result<()> {
    let found = json_files(root)?;
    let of = |wanted: Holds| found.iter().filter(|(_, holds)| *holds == wanted).map(|(path, _)| path.clone()).collect::<Vec<_>>();
    if let Some(cuts) = files::one_for_split(root, of(Holds::Cuts), rules)? {
        return read_cuts(&cuts, draft);
    }
    let Some(supervisions) = files::one_for_split(root, of(Holds::Supervisions), rules)? else { return Ok(()) };
    // Recipes name the pair alike.
    let name = supervisions.file_name().unwrap_or_default().to_string_lossy().replace("supervisions", "recordings");
    let twin = supervisions.with_file_name(name);
    let recordings = match twin != supervisions && twin.is_file() {
        true => Some(twin),
        false => files::one_for_split(root, of(Holds::Recordings), rules)?,
    };
    let Some(recordings) = recordings else {
        return Err(Error::config(supervisions, "no manifest of recordings beside it"));
    };
    let mut known = HashMap::new();
    each_line::<Recording>(&recordings, draft, |recording, _| drop(known.insert(recording.id.clone(), recording)))?;
    let folder = recordings.parent().unwrap_or(root).to_path_buf();
    each_line::<Supervision>(&supervisions, draft, |supervision, draft| match known.get(&supervision.recording_id) {
        Some(recording) => add(&folder, recording, supervision, None, draft),
        None => {
            let detail = format!("no recording {}", supervision.recording_id);
            draft.problem(ProblemKind::MissingAudio, supervision.id, detail);
        }
    })
}

/// Parses every line and hands it on; what does not parse is a problem.
fn each_line<T: for<'a> Deserialize<'a>>(path: &Path, draft: &mut Draft, mut take: impl FnMut(T, &mut Draft)) -> Result<()> {
    for (number, line) in files::numbered(&files::read_text(path)?) {
        match serde_json::from_str(line) {
            Ok(parsed) => take(parsed, draft),
            Err(e) => draft.bad_line(path, number, e.to_string()),
        }
    }
    Ok(())
}

fn read_cuts(path: &Path, draft: &mut Draft) -> Result<()> {
    let folder = path.parent().unwrap_or(path).to_path_buf();
    each_line::<Cut>(path, draft, |cut, draft| {
        let kind = cut.kind.as_deref().unwrap_or("MonoCut");
        let ("MonoCut" | "MultiCut", Some(recording), Some(start), Some(duration)) = (kind, &cut.recording, cut.start, cut.duration) else {
            return draft.problem(ProblemKind::UnsupportedSource, cut.id, format!("a {kind}, or one without audio"));
        };
        if cut.supervisions.is_empty() {
            draft.drop_by("cut without supervisions");
        }
        for supervision in cut.supervisions {
            add(&folder, recording, supervision, Some((start, duration)), draft);
        }
    })
}

/// Takes one supervision in; its times are relative to the cut, where there is one, and end with it.
fn add(folder: &Path, recording: &Recording, supervision: Supervision, cut: Option<(f64, f64)>, draft: &mut Draft) {
    let (from, length) = cut.unwrap_or((0.0, f64::MAX));
    let start = from + supervision.start.max(0.0);
    let end = from + (supervision.start + supervision.duration).min(length);
    let (audio, channel) = match source(folder, recording, supervision.channel.as_ref()) {
        Ok(found) => found,
        Err(reason) => return draft.problem(ProblemKind::UnsupportedSource, supervision.id, reason),
    };
    let Some(reference) = supervision.text else {
        return draft.problem(ProblemKind::MissingTranscript, supervision.id, "no text");
    };
    draft.add(Utterance {
        id: supervision.id,
        audio,
        channel,
        start,
        end: Some(end),
        reference,
        speaker: supervision.speaker,
        set: None,
        labels: Labels::default(),
        recording: recording.id.clone(),
        duration: None,
    });
}

/// The file and its channel that hold the channels of a supervision.
fn source(folder: &Path, recording: &Recording, wanted: Option<&Channels>) -> std::result::Result<(PathBuf, Channel), String> {
    // Resampling is done on reading in any case.
    let names = recording.transforms.iter().flatten().map(|t| t.get("name").and_then(Value::as_str).unwrap_or("unnamed"));
    if let Some(name) = names.into_iter().find(|name| *name != "Resample") {
        return Err(format!("the recording is changed by {name}"));
    }
    let wanted: &[usize] = match wanted {
        None => &[],
        Some(Channels::One(channel)) => std::slice::from_ref(channel),
        Some(Channels::Many(channels)) => channels,
    };
    let holds = |source: &&Source| wanted.iter().all(|channel| source.channels.contains(channel));
    let source = recording.sources.iter().find(holds).ok_or_else(|| format!("no one file has channels {wanted:?}"))?;
    let text = source.source.as_str().unwrap_or_default();
    let (file, inner) = match source.kind.as_str() {
        "file" => (text.to_string(), Channel::Mix),
        "command" => kaldi_pipe::parse(&format!("{text}|")).map(|source| (source.file, source.channel))?,
        other => return Err(format!("audio of type {other:?}")),
    };
    let channel = match wanted {
        _ if source.channels.len() < 2 => inner,
        [one] => Channel::Nth(source.channels.iter().position(|channel| channel == one).unwrap_or(0)),
        several if several.is_empty() || several.len() == source.channels.len() => Channel::Mix,
        several => return Err(format!("channels {several:?} of a file with {}", source.channels.len())),
    };
    Ok((files::resolve(folder, &file), channel))
}
