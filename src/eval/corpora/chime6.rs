//! CHiME-6: `transcriptions/eval/S01.json` and the worn microphones, `audio/eval/S01_P01.wav`, left and right. CHiME-5, where the times
//! are objects with one clock for each device, is read the same way.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::draft::Draft;
use super::{Chime6Channels, Chime6Sessions, Labels, Layout, ProblemKind, Rules, Split, Utterance, files};
use crate::audio::Channel;
use crate::error::{Error, Result};

pub(super) const LAYOUT: Layout = Layout {
    id: "chime6",
    looks_for: "transcriptions/eval/S*.json (dev for split = dev) beside audio/, in CHiME6/ or not",
    rules: &["split", "chime6-channels", "chime6-sessions"],
    present: |root, rules| Ok(base(root, rules).is_some()),
    read,
};

fn split_name(rules: &Rules) -> &'static str {
    if rules.split == Split::Dev { "dev" } else { "eval" }
}

fn base(root: &Path, rules: &Rules) -> Option<PathBuf> {
    let places = ["", "CHiME6", "CHiME5"];
    let transcriptions = |place: &str| root.join(place).join("transcriptions").join(split_name(rules));
    places.into_iter().find(|place| transcriptions(place).is_dir()).map(|place| root.join(place))
}

fn sessions(rules: &Rules) -> &'static [&'static str] {
    match (rules.split, rules.chime6_sessions) {
        (Split::Dev, _) => &["S02", "S09"],
        (Split::Test, Chime6Sessions::Chime6) => &["S01", "S21"],
        (Split::Test, Chime6Sessions::Chime7) => &["S01", "S19", "S20", "S21"],
    }
}

/// One segment as written.
#[derive(Deserialize)]
struct Segment {
    session_id: Option<String>,
    speaker: Option<String>,
    location: Option<String>,
    start_time: Time,
    end_time: Time,
    words: Option<String>,
}

/// `H:MM:SS.ss`; in CHiME-5 one for each device, the worn microphones' under `original`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Time {
    One(String),
    Each(HashMap<String, String>),
}

impl Time {
    fn seconds(&self) -> Option<f64> {
        let text = match self {
            Self::One(text) => text,
            Self::Each(clocks) => clocks.get("original")?,
        };
        let mut parts = text.trim().split(':').map(|part| part.parse::<f64>().ok());
        let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
        parts.next().is_none().then_some(hours * 3600.0 + minutes * 60.0 + seconds)
    }
}

fn read(root: &Path, rules: &Rules, draft: &mut Draft) -> Result<()> {
    let Some(base) = base(root, rules) else { return Ok(()) };
    // S19 and S20 were training sessions once.
    let find = |name: String, below: &str| {
        let places = [split_name(rules), "eval", "train", "dev"].map(|split| base.join(below).join(split).join(&name));
        let first = places[0].clone();
        places.into_iter().find(|path| path.is_file()).unwrap_or(first)
    };
    for session in sessions(rules) {
        let path = find(format!("{session}.json"), "transcriptions");
        if !path.is_file() {
            draft.problem(ProblemKind::MissingTranscript, *session, path.display().to_string());
            continue;
        }
        let text = files::read_text(&path)?;
        let segments: Vec<serde_json::Value> = serde_json::from_str(&text).map_err(|e| Error::config(&path, e.to_string()))?;
        for (n, segment) in segments.into_iter().enumerate() {
            let place = format!("{}: segment {}", path.display(), n + 1);
            let segment = match Segment::deserialize(segment) {
                Ok(segment) => segment,
                Err(e) => {
                    draft.problem(ProblemKind::BadLine, place, e.to_string());
                    continue;
                }
            };
            let (Some(speaker), Some(words)) = (&segment.speaker, &segment.words) else {
                draft.drop_by("no speaker or words");
                continue;
            };
            let (Some(start), Some(end)) = (segment.start_time.seconds(), segment.end_time.seconds()) else {
                draft.problem(ProblemKind::ImpossibleTimes, place, "a time is not H:MM:SS.ss");
                continue;
            };
            if words.contains("[redacted]") {
                draft.drop_by("[redacted]");
                continue;
            }
            if end <= start {
                draft.drop_by("end before start");
                continue;
            }
            let session = segment.session_id.as_deref().unwrap_or(session);
            let audio = find(format!("{session}_{speaker}.wav"), "audio");
            let location = segment.location.as_deref().unwrap_or("NOLOCATION").to_uppercase();
            for (suffix, channel) in channels(rules.chime6_channels) {
                draft.add(Utterance {
                    // The id of Kaldi's recipe.
                    id: format!("{speaker}_{session}_{location}{suffix}-{:07.0}-{:07.0}", start * 100.0, end * 100.0),
                    audio: audio.clone(),
                    channel: *channel,
                    start,
                    end: Some(end),
                    reference: clean(words),
                    speaker: Some(speaker.clone()),
                    set: None,
                    labels: Labels::default(),
                    recording: session.into(),
                    duration: None,
                });
            }
        }
    }
    Ok(())
}

fn channels(rule: Chime6Channels) -> &'static [(&'static str, Channel)] {
    const LEFT: (&str, Channel) = (".L", Channel::Nth(0));
    const RIGHT: (&str, Channel) = (".R", Channel::Nth(1));
    match rule {
        Chime6Channels::Mix => &[("", Channel::Mix)],
        Chime6Channels::LeftAndRight => &[LEFT, RIGHT],
        Chime6Channels::Left => &[LEFT],
        Chime6Channels::Right => &[RIGHT],
    }
}

/// The words as Kaldi's recipe makes them: no punctuation, lower case, `[inaudible 0:01:02]` shortened, lone dashes dropped.
fn clean(words: &str) -> String {
    let kept: String = words.chars().filter(|c| !"\".?,:;!".contains(*c)).collect();
    let kept = kept.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
    let mut out = String::with_capacity(kept.len());
    let mut rest = kept.as_str();
    while let Some((before, after)) = rest.split_once("[inaudible") {
        out.push_str(before);
        let marks = after.trim_start_matches(|c: char| c == '-' || c == ' ' || c.is_ascii_digit());
        // Only a closed mark is shortened.
        (out, rest) = match marks.strip_prefix(']') {
            Some(rest) => (out + "[inaudible]", rest),
            None => (out + "[inaudible", after),
        };
    }
    out.push_str(rest);
    // Kaldi sees the words behind the id and a space.
    format!(" {out}").replace(" - ", " ").replace("mm-", "mm").trim().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cleaned_as_kaldi_does() {
        assert_eq!(clean("Yeah, \"sure\" -- I'm  OK! Right?"), "yeah sure -- i'm ok right");
        assert_eq!(clean("[inaudible 0:01:02.05] what - no - mm-hmm. [inaudible x]"), "[inaudible] what no mmhmm [inaudible x]");
        assert_eq!(clean("[laughs] [inaudible"), "[laughs] [inaudible");
    }

    #[test]
    fn times_of_both_challenges() {
        let time = |json: &str| serde_json::from_str::<Time>(json).unwrap().seconds();
        assert_eq!(time("\"1:10:05.55\""), Some(4205.55));
        assert_eq!(time("{\"original\": \"0:00:01.5\", \"U01\": \"0:00:02.5\"}"), Some(1.5));
        assert_eq!(time("\"10:05.55\""), None);
        assert_eq!(time("{\"U01\": \"0:00:02.5\"}"), None);
    }
}
