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
///
/// A scorer puts a word where its middle lies, and a segment ends before its end: where a word of no length lies there, the segment is a
/// millisecond longer, and what would start in that millisecond starts after it.
pub(super) fn stm(transcript: &Transcript, out: &mut impl Write) -> io::Result<()> {
    let file = column(&recording(transcript));
    let mut segments: Vec<&Segment> = transcript.segments.iter().collect();
    segments.sort_by_key(|s| (channel(s), milliseconds(s.start)));
    // Channel and end of the segment that was made longer last.
    let mut longer = None;
    for segment in segments {
        let channel = channel(segment);
        let speaker = segment.speaker.as_ref().map_or_else(|| format!("{file}-{channel}"), |name| column(name));
        let start = milliseconds(segment.start);
        let start = if longer == Some((channel, start + 1)) { start + 1 } else { start };
        let mut end = milliseconds(segment.end).max(start);
        if transcript.words_of(segment).iter().any(|word| milliseconds(word.start) == end) {
            end += 1;
            longer = Some((channel, end));
        }
        let text = spoken(&segment.text).collect::<Vec<_>>().join(" ");
        writeln!(out, "{file} {channel} {speaker} {} {} {text}", decimal_seconds(start), decimal_seconds(end))?;
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

    /// Every word of `ctm` has its middle inside the segment of `stm` that it belongs to.
    #[test]
    fn words_of_no_length_lie_in_their_segment() {
        let word = |word: &str, start, end| Word { word: word.into(), start, end, confidence: 1.0 };
        let words = vec![word("a", 0.1, 0.5), word("b", 1.9, 1.9), word("c", 1.9, 2.4), word("d", 5.0, 5.0), word("e", 5.0, 5.0)];
        let segment = |words: [usize; 2], start, end, text: &str| Segment {
            start,
            end,
            text: text.into(),
            words: words[0]..words[1],
            confidence: 1.0,
            speaker: None,
            channel: None,
        };
        let segments = vec![segment([0, 2], 0.1, 1.9, "a b"), segment([2, 3], 1.9, 2.4, "c"), segment([3, 5], 5.0, 5.0, "d e")];
        let mut transcript = crate::pipeline::transcript::Transcript::new(6.0, Vec::new(), &crate::pipeline::segment::Limits::segments());
        (transcript.file, transcript.words, transcript.segments) = ("x.wav".into(), words, segments);
        let mut written = Vec::new();
        stm(&transcript, &mut written).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), "x 1 x-1 0.100 1.901 a b\nx 1 x-1 1.901 2.400 c\nx 1 x-1 5.000 5.001 d e\n");
    }

    #[test]
    fn notation_of_the_scorer_is_never_written() {
        let words = |text: &str| spoken(text).collect::<Vec<_>>();
        assert_eq!(words("<o> {a / b} (maybe) ;;no\u{0}x it's"), ["o", "a", "b", "maybe", "no", "x", "it's"]);
        assert_eq!(column("my call\t2"), "my_call_2");
        assert_eq!((column(""), column(";;x")), ("_".into(), "_;;x".into()));
    }
}
