//! References and hypotheses in the files NIST's `sclite` scores: `trn`, and `stm` with `ctm`.
//!
//! `sctk sclite -e utf-8 -s -r ref.trn trn -h hyp.trn trn -i spu_id` counts what [`Aligner::Sclite`] counts; with `-D -F`, what
//! [`Aligner::ScliteMarkup`] counts. One set to a file: ids are unique in a set only. Utterances that failed are left out.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;

use super::journal::Utterance;
use crate::eval::aligner::Aligner;

/// Which text of an utterance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// What was said.
    Reference,
    /// What was heard.
    Hypothesis,
}

impl Side {
    fn words(self, utterance: &Utterance, aligner: Aligner) -> Vec<String> {
        let text = match self {
            Self::Reference => &utterance.normalized_reference,
            Self::Hypothesis => &utterance.normalized_hypothesis,
        };
        let write = if aligner == Aligner::ScliteMarkup { str::to_string } else { plain };
        text.split_whitespace().map(write).collect()
    }
}

/// `words (speaker-id)` lines. sclite's markup in the texts stays markup if the aligner reads it.
pub fn trn(utterances: &[Utterance], side: Side, aligner: Aligner) -> String {
    let scored = utterances.iter().filter(|u| u.error.is_none());
    scored.fold(String::new(), |mut text, u| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} ({}-{})", side.words(u, aligner).join(" "), speaker(u), name(&u.id, "_.-"));
        text
    })
}

/// Segment time marked references: `file channel speaker begin end <label> words` lines in the order sclite wants.
pub fn stm(utterances: &[Utterance], aligner: Aligner) -> String {
    segments(utterances).iter().fold(String::new(), |mut text, s| {
        let words = Side::Reference.words(s.utterance, aligner).join(" ");
        let (speaker, label) = (speaker(s.utterance), name(&s.utterance.set, "_.-"));
        let _ = writeln!(text, "{} {} {speaker} {:.3} {:.3} <{label}> {words}", s.file, s.channel, s.start, s.end);
        text
    })
}

/// Time marked hypotheses: `file channel start duration word` lines. The words of an utterance share its time equally: sclite needs the times
/// to tell the segments apart, no more.
pub fn ctm(utterances: &[Utterance], aligner: Aligner) -> String {
    segments(utterances).iter().fold(String::new(), |mut text, s| {
        let words = Side::Hypothesis.words(s.utterance, aligner);
        let step = (s.end - s.start) / words.len() as f64;
        for (i, word) in words.iter().enumerate() {
            let _ = writeln!(text, "{} {} {:.4} {step:.4} {word}", s.file, s.channel, s.start + i as f64 * step);
        }
        text
    })
}

/// An utterance on the time axis of its file.
struct Segment<'a> {
    file: String,
    channel: String,
    start: f64,
    end: f64,
    utterance: &'a Utterance,
}

/// Shortest segment in sclite's files, seconds.
const SHORTEST: f64 = 0.01;

/// Segments sorted by file, channel and time. Where two on one channel overlap (speakers talking at once), the later gets a channel of its own,
/// `1.2`: sclite could not tell whose words are whose.
fn segments(utterances: &[Utterance]) -> Vec<Segment<'_>> {
    let scored = utterances.iter().filter(|u| u.error.is_none());
    let mut segments: Vec<Segment> = scored
        .map(|u| {
            let stem = || Path::new(&u.audio).file_stem().unwrap_or_default().to_string_lossy();
            let file = u.recording.as_deref().map_or_else(stem, Into::into);
            let start = u.start.unwrap_or(0.0);
            let end = u.end.unwrap_or(start + u.seconds).max(start + SHORTEST);
            let channel = u.channel.as_deref().map_or("1".into(), |c| name(c, "_.-"));
            Segment { file: name(&file, "_.-"), channel, start, end, utterance: u }
        })
        .collect();
    let by_time = |a: &Segment, b: &Segment| a.start.total_cmp(&b.start).then(a.end.total_cmp(&b.end));
    segments.sort_by(by_time);
    // Where each lane of a channel is free again.
    let mut lanes = HashMap::<(String, String), Vec<f64>>::new();
    for segment in &mut segments {
        let free = lanes.entry((segment.file.clone(), segment.channel.clone())).or_default();
        let lane = free.iter().position(|&from| from <= segment.start).unwrap_or_else(|| {
            free.push(0.0);
            free.len() - 1
        });
        free[lane] = segment.end;
        if lane > 0 {
            segment.channel = format!("{}.{}", segment.channel, lane + 1);
        }
    }
    segments.sort_by(|a, b| (&a.file, &a.channel).cmp(&(&b.file, &b.channel)).then(by_time(a, b)));
    segments
}

/// Speaker, else recording: sclite takes what stands before the first `-` or `_`, so neither may be in it.
fn speaker(utterance: &Utterance) -> String {
    let known = utterance.speaker.as_deref().or(utterance.recording.as_deref());
    known.filter(|s| !s.is_empty()).map_or("unknown".into(), |s| name(s, "."))
}

/// `text` with everything but letters, digits and `kept` as `%` and two hex digits a byte: nothing in it ends a field.
fn name(text: &str, kept: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || kept.contains(c) {
            out.push(c);
        } else {
            let _ = write!(out, "%{byte:02x}");
        }
        out
    })
}

/// A word with sclite's own signs (`{ a / b }` alternatives, `@` nothing, `;;` comment) as their full-width forms; the count stays the same.
fn plain(word: &str) -> String {
    let full_width = |c| match c {
        '{' => '\u{ff5b}',
        '}' => '\u{ff5d}',
        '@' => '\u{ff20}',
        ';' => '\u{ff1b}',
        c => c,
    };
    word.chars().map(full_width).collect()
}
