//! NIST's formats for `sclite`: `ctm` (words) and `stm` (segments).
//!
//! Columns are separated by spaces, so spaces inside a name are written as `_`; a recording without a channel is channel 1.

use std::io::{self, Write};

use super::{decimal_seconds, milliseconds, recording};
use crate::pipeline::transcript::{Segment, Transcript, Word};

/// `<file> <channel> <start> <duration> <word> <confidence>`, by channel and start.
pub(super) fn ctm(transcript: &Transcript, out: &mut impl Write) -> io::Result<()> {
    let file = column(&recording(transcript));
    let mut rows: Vec<(u32, u64, &Word)> = Vec::new();
    for segment in &transcript.segments {
        rows.extend(transcript.words_of(segment).iter().map(|word| (channel(segment), milliseconds(word.start), word)));
    }
    rows.sort_by_key(|&(channel, start, _)| (channel, start));
    for (channel, start, word) in rows {
        let duration = decimal_seconds(milliseconds(word.end).saturating_sub(start));
        let confidence = milliseconds(word.confidence).min(1000);
        for text in spoken(&word.word) {
            let (start, confidence) = (decimal_seconds(start), decimal_seconds(confidence));
            writeln!(out, "{file} {channel} {start} {duration} {text} {confidence}")?;
        }
    }
    Ok(())
}

/// `<file> <channel> <speaker> <start> <end> text`, by channel and start.
pub(super) fn stm(transcript: &Transcript, out: &mut impl Write) -> io::Result<()> {
    let file = column(&recording(transcript));
    let mut segments: Vec<&Segment> = transcript.segments.iter().collect();
    segments.sort_by_key(|s| (channel(s), milliseconds(s.start)));
    for segment in segments {
        let channel = channel(segment);
        let speaker = segment.speaker.as_ref().map_or_else(|| format!("{file}-{channel}"), |name| column(name));
        let (start, end) = (milliseconds(segment.start), milliseconds(segment.end));
        let text = spoken(&segment.text).collect::<Vec<_>>().join(" ");
        writeln!(out, "{file} {channel} {speaker} {} {} {text}", decimal_seconds(start), decimal_seconds(end.max(start)))?;
    }
    Ok(())
}

fn channel(segment: &Segment) -> u32 {
    segment.channel.unwrap_or(1)
}

/// A name as one column; never empty, never the start of a comment.
fn column(name: &str) -> String {
    let name = name.split(|c: char| c.is_whitespace() || c.is_control()).collect::<Vec<_>>().join("_");
    if name.is_empty() || name.starts_with(";;") { format!("_{name}") } else { name }
}

/// The words of a text that a scorer reads as words: what its own notation means otherwise (`{a / b}` alternatives, `(word)` optional,
/// `<label>`, `;;` comment) has no escape and loses those signs.
fn spoken(text: &str) -> impl Iterator<Item = String> + '_ {
    let kept = |part: &str| part.replace(['{', '}', '(', ')', '<', '>'], "").trim_start_matches(';').to_string();
    text.split(|c: char| c.is_whitespace() || c.is_control()).map(kept).filter(|word| !word.is_empty() && word != "/" && word != "@")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notation_of_the_scorer_is_never_written() {
        let words = |text: &str| spoken(text).collect::<Vec<_>>();
        assert_eq!(words("<o> {a / b} (maybe) ;;no\u{0}x it's"), ["o", "a", "b", "maybe", "no", "x", "it's"]);
        assert_eq!(column("my call\t2"), "my_call_2");
        assert_eq!((column(""), column(";;x")), ("_".into(), "_;;x".into()));
    }
}
