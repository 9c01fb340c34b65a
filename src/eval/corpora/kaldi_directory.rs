//! A Kaldi data directory: `wav.scp`, `text`, and where there are any `segments`, `utt2spk`, `utt2dur`.

use std::collections::HashMap;
use std::path::Path;

use super::draft::Draft;
use super::{Labels, Layout, ProblemKind, Rules, Utterance, files, kaldi_pipe};
use crate::error::Result;

pub(super) const LAYOUT: Layout = Layout {
    id: "kaldi",
    looks_for: "wav.scp and text",
    rules: &[],
    present: |root, _| Ok(root.join("wav.scp").is_file() && root.join("text").is_file()),
    read,
};

/// Part of a recording.
struct Segment<'a> {
    recording: &'a str,
    start: f64,
    end: Option<f64>,
}

/// Splits a line after its first word.
fn keyed(line: &str) -> (&str, &str) {
    line.trim().split_once(char::is_whitespace).map_or((line.trim(), ""), |(key, value)| (key, value.trim()))
}

/// A file of `key value` lines; empty where it is missing.
fn optional(root: &Path, name: &str) -> Result<String> {
    let path = root.join(name);
    if path.is_file() { files::read_text(&path) } else { Ok(String::new()) }
}

fn read(root: &Path, _: &Rules, draft: &mut Draft) -> Result<()> {
    let wav = files::read_text(&root.join("wav.scp"))?;
    let mut sources = HashMap::new();
    for (_, line) in files::numbered(&wav) {
        let (recording, value) = keyed(line);
        match kaldi_pipe::parse(value) {
            Ok(source) => drop(sources.insert(recording, Some(source))),
            Err(reason) => {
                draft.problem(ProblemKind::UnsupportedSource, recording, reason);
                sources.insert(recording, None);
            }
        }
    }
    let (speakers, durations) = (optional(root, "utt2spk")?, optional(root, "utt2dur")?);
    let speakers: HashMap<&str, &str> = files::numbered(&speakers).map(|(_, line)| keyed(line)).collect();
    let durations: HashMap<&str, &str> = files::numbered(&durations).map(|(_, line)| keyed(line)).collect();
    let segments_path = root.join("segments");
    let segmented = segments_path.is_file();
    let text = optional(root, "segments")?;
    let mut segments = HashMap::new();
    for (line, text) in files::numbered(&text) {
        match segment(text) {
            Ok((id, segment)) => drop(segments.insert(id, segment)),
            Err(reason) => draft.bad_line(&segments_path, line, reason),
        }
    }
    let text = files::read_text(&root.join("text"))?;
    for (_, line) in files::numbered(&text) {
        let (id, reference) = keyed(line);
        let part = match (segments.remove(id), segmented) {
            (Some(segment), _) => segment,
            (None, false) => Segment { recording: id, start: 0.0, end: None },
            (None, true) => {
                draft.problem(ProblemKind::MissingAudio, id, "no such line in segments");
                continue;
            }
        };
        let Some(source) = sources.get(part.recording) else {
            draft.problem(ProblemKind::MissingAudio, id, format!("no line {} in wav.scp", part.recording));
            continue;
        };
        // What cannot be opened is listed once, with its recording.
        let Some(source) = source else { continue };
        draft.add(Utterance {
            id: id.into(),
            audio: files::resolve(root, &source.file),
            channel: source.channel,
            start: part.start,
            end: part.end,
            reference: reference.into(),
            speaker: speakers.get(id).map(|s| s.to_string()),
            set: None,
            labels: Labels::default(),
            recording: part.recording.into(),
            duration: durations.get(id).and_then(|d| d.parse().ok()),
        });
    }
    let mut left: Vec<&str> = segments.into_keys().collect();
    left.sort_unstable();
    left.into_iter().for_each(|id| draft.problem(ProblemKind::MissingTranscript, id, "in segments, not in text"));
    Ok(())
}

/// `utterance recording start end`, an end of -1 being that of the recording.
fn segment(line: &str) -> Result<(&str, Segment<'_>), String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (&[id, recording, start, end] | &[id, recording, start, end, _]) = fields.as_slice() else {
        return Err(format!("{} fields, not 4", fields.len()));
    };
    let number = |text: &str| text.parse::<f64>().map_err(|_| format!("{text:?} is not a time"));
    let (start, end) = (number(start)?, number(end)?);
    Ok((id, Segment { recording, start, end: (end != -1.0).then_some(end) }))
}
