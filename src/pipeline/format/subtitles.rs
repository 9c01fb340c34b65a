//! Subtitles: `srt`, `vtt`, with or without the spoken word underlined.

use std::io::{self, Write};
use std::ops::Range;

use super::{FormatOptions, label, milliseconds, one_line};
use crate::pipeline::segment::{Cue, cues};
use crate::pipeline::transcript::{Segment, Transcript};

/// A cue as it is written; never without text.
pub(super) struct Shown {
    /// Milliseconds.
    pub start: u64,
    pub end: u64,
    /// What stands on each line, the speaker's name in front of the first.
    pub lines: Vec<String>,
}

/// How a format writes words.
struct Style {
    /// A word or a text, made safe for the format.
    escape: fn(&str) -> String,
    /// What stands in front of the first line for a speaker of this (escaped) name.
    voice: fn(&str) -> String,
    /// Whether the name takes room on the screen.
    name_is_shown: bool,
}

const SRT: Style = Style { escape: arrowless, voice: |name| format!("{name}: "), name_is_shown: true };

/// WebVTT (W3C, 3.2): `&`, `<` and `>` are escaped, a speaker is a `<v>` span up to the end of the cue.
const VTT: Style = Style {
    escape: |text| arrowless(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"),
    voice: |name| format!("<v {name}>"),
    name_is_shown: false,
};

/// One line without `-->`, which would be read as times.
fn arrowless(text: &str) -> String {
    let mut text = one_line(text);
    while text.contains("-->") {
        text = text.replace("-->", "->");
    }
    text
}

/// The cues of a transcript as SubRip and lyrics show them.
pub(super) fn shown(transcript: &Transcript, options: &FormatOptions) -> Vec<Shown> {
    styled(transcript, options, &SRT)
}

/// SubRip: a number from 1, `HH:MM:SS,mmm --> HH:MM:SS,mmm`, the text, an empty line.
pub(super) fn srt(transcript: &Transcript, options: &FormatOptions, out: &mut impl Write) -> io::Result<()> {
    for (i, cue) in styled(transcript, options, &SRT).iter().enumerate() {
        let time = |t: u64| format!("{:02}:{:02}:{:02},{:03}", t / 3_600_000, t / 60_000 % 60, t / 1000 % 60, t % 1000);
        writeln!(out, "{}\n{} --> {}\n{}\n", i + 1, time(cue.start), time(cue.end), cue.lines.join("\n"))?;
    }
    Ok(())
}

/// WebVTT: a header, then `[HH:]MM:SS.mmm --> [HH:]MM:SS.mmm`, the text, an empty line.
pub(super) fn vtt(transcript: &Transcript, options: &FormatOptions, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "WEBVTT\n")?;
    for cue in styled(transcript, options, &VTT) {
        let hours = |t: u64| if t >= 3_600_000 { format!("{:02}:", t / 3_600_000) } else { String::new() };
        let time = |t: u64| format!("{}{:02}:{:02}.{:03}", hours(t), t / 60_000 % 60, t / 1000 % 60, t % 1000);
        writeln!(out, "{} --> {}\n{}\n", time(cue.start), time(cue.end), cue.lines.join("\n"))?;
    }
    Ok(())
}

fn styled(transcript: &Transcript, options: &FormatOptions, style: &Style) -> Vec<Shown> {
    let name_width = |segment: &Segment| if style.name_is_shown { label(segment).chars().count() } else { 0 };
    let cues = cues(transcript, &options.limits(), name_width);
    let mut shown = Vec::with_capacity(cues.len());
    for cue in &cues {
        // A cue of no length is never seen, and no WebVTT.
        let times = milliseconds(cue.start)..milliseconds(cue.end).max(milliseconds(cue.start) + 1);
        if options.highlight_words {
            highlighted(transcript, cue, times, style, &mut shown);
        } else {
            shown.push(Shown { start: times.start, end: times.end, lines: text(transcript, cue, None, style) });
        }
    }
    shown.retain(|cue| !cue.lines.is_empty());
    shown
}

/// The cue once for each of its words, underlined, and once for each gap between them (openai/whisper's shape).
fn highlighted(transcript: &Transcript, cue: &Cue, times: Range<u64>, style: &Style, shown: &mut Vec<Shown>) {
    let mut at = times.start;
    let mut show = |from: u64, to: u64, word: Option<usize>| {
        if from < to {
            shown.push(Shown { start: from, end: to, lines: text(transcript, cue, word, style) });
        }
    };
    for i in cue.words() {
        let start = milliseconds(transcript.words[i].start).clamp(at, times.end);
        let end = milliseconds(transcript.words[i].end).clamp(start, times.end);
        show(at, start, None);
        show(start, end, Some(i));
        at = end;
    }
    show(at, times.end, None);
}

/// The lines of a cue with the word `marked` underlined; none where nothing in them can be seen.
fn text(transcript: &Transcript, cue: &Cue, marked: Option<usize>, style: &Style) -> Vec<String> {
    let segment = &transcript.segments[cue.segment];
    let word = |i: usize| {
        let word = (style.escape)(&transcript.words[i].word);
        if marked == Some(i) && !word.is_empty() { format!("<u>{word}</u>") } else { word }
    };
    let joined = |line: Range<usize>| line.map(word).filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ");
    let mut lines: Vec<String> = cue.lines.iter().cloned().map(joined).collect();
    if lines.is_empty() {
        lines.push((style.escape)(&segment.text));
    }
    lines.retain(|line| !line.is_empty());
    if let (Some(name), Some(first)) = (&segment.speaker, lines.first_mut()) {
        first.insert_str(0, &(style.voice)(&(style.escape)(name)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_and_markup_cannot_break_a_cue() {
        assert_eq!(arrowless("a --> b ----> c\n\nd"), "a -> b -> c  d");
        assert_eq!((VTT.escape)("R&D <b> -->"), "R&amp;D &lt;b&gt; -&gt;");
    }
}
