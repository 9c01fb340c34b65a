//! Praat's long text format: for each speaker a tier of segments and one of words, without gaps and without overlaps.

use std::io::{self, Write};

use super::{decimal_seconds, milliseconds, one_line};
use crate::pipeline::transcript::{Segment, Transcript};

/// A stretch of a tier, milliseconds.
struct Interval {
    start: u64,
    end: u64,
    text: String,
}

/// A tier and its name.
struct Tier {
    name: String,
    intervals: Vec<Interval>,
}

/// Writes the tiers over the whole recording. What has no length is given a millisecond, what overlaps is cut at the next start.
pub(super) fn textgrid(transcript: &Transcript, out: &mut impl Write) -> io::Result<()> {
    let ends = transcript.segments.iter().map(|s| s.end).chain(transcript.words.iter().map(|w| w.end));
    // Room for the last word, and for a millisecond of each that was squeezed.
    let end = ends.chain([transcript.duration, 0.001]).map(milliseconds).max().unwrap_or(1);
    let tiers: Vec<Tier> = tiers(transcript).into_iter().map(|t| Tier { intervals: filled(t.intervals, end), ..t }).collect();
    let end = tiers.iter().filter_map(|t| t.intervals.last()).map(|i| i.end).fold(end, u64::max);
    let last = decimal_seconds(end);
    writeln!(out, "File type = \"ooTextFile\"\nObject class = \"TextGrid\"\n")?;
    writeln!(out, "xmin = 0\nxmax = {last}\ntiers? <exists>\nsize = {}\nitem []:", tiers.len())?;
    for (i, tier) in tiers.iter().enumerate() {
        writeln!(out, "    item [{}]:\n        class = \"IntervalTier\"\n        name = {}", i + 1, quoted(&tier.name))?;
        writeln!(out, "        xmin = 0\n        xmax = {last}\n        intervals: size = {}", tier.intervals.len())?;
        for (i, Interval { start, end, text }) in tier.intervals.iter().enumerate() {
            let (start, end) = (decimal_seconds(*start), decimal_seconds(*end));
            writeln!(out, "        intervals [{}]:\n            xmin = {start}\n            xmax = {end}", i + 1)?;
            writeln!(out, "            text = {}", quoted(text))?;
        }
    }
    Ok(())
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", one_line(text).replace('"', "\"\""))
}

/// Segments and words of each speaker, in the order in which they first speak.
fn tiers(transcript: &Transcript) -> Vec<Tier> {
    let mut speakers: Vec<(Option<u32>, &Option<String>)> = Vec::new();
    let of = |s: &'_ Segment| (s.channel, s.speaker.clone());
    for segment in &transcript.segments {
        if !speakers.contains(&(segment.channel, &segment.speaker)) {
            speakers.push((segment.channel, &segment.speaker));
        }
    }
    if speakers.is_empty() {
        speakers.push((None, &None));
    }
    let mut tiers = Vec::new();
    for (channel, speaker) in speakers {
        let own = || transcript.segments.iter().filter(|s| of(s) == (channel, speaker.clone()));
        let name = |what: &str| speaker.as_ref().map_or(what.to_string(), |speaker| format!("{speaker} - {what}"));
        let interval =
            |start: f64, end: f64, text: &str| Interval { start: milliseconds(start), end: milliseconds(end), text: text.into() };
        let segments = own().map(|s| interval(s.start, s.end, &s.text)).collect();
        let words = own().flat_map(|s| transcript.words_of(s)).map(|w| interval(w.start, w.end, &w.word)).collect();
        tiers.push(Tier { name: name("segments"), intervals: segments });
        tiers.push(Tier { name: name("words"), intervals: words });
    }
    tiers
}

/// The intervals by start, made disjoint and of some length, with empty ones between them up to `end`.
fn filled(mut intervals: Vec<Interval>, end: u64) -> Vec<Interval> {
    intervals.sort_by_key(|i| i.start);
    let starts: Vec<u64> = intervals.iter().skip(1).map(|i| i.start).chain([u64::MAX]).collect();
    let mut tier: Vec<Interval> = Vec::with_capacity(2 * intervals.len() + 1);
    let mut at = 0;
    for (interval, next) in intervals.into_iter().zip(starts) {
        let start = interval.start.max(at);
        if start > at {
            tier.push(Interval { start: at, end: start, text: String::new() });
        }
        at = interval.end.min(next).max(start + 1);
        tier.push(Interval { start, end: at, ..interval });
    }
    if at < end || tier.is_empty() {
        tier.push(Interval { start: at, end, text: String::new() });
    }
    tier
}
