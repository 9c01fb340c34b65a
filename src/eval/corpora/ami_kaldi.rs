//! AMI as Kaldi's recipe s5b cuts and cleans it (`ami_split_segments.pl`, `ami_ihm_scoring_data_prep.sh`).

use std::collections::{BTreeSet, HashMap};

use super::ami::{Segment, Speaker, Word};
use super::draft::Draft;
use super::{AmiCommas, Labels, ProblemKind, Utterance};
use crate::audio::Channel;

/// A piece with more words is cut at a comma.
const MOST_WORDS: usize = 30;
/// Longest segment cut: the work grows with the square of its commas. The longest published one has some hundreds of words.
const MOST_TOKENS: usize = 20_000;

/// Start and end in hundredths of a second.
type Times = (i64, i64);

/// A moment as written, and as a number.
#[derive(Debug, Clone)]
struct Moment {
    text: String,
    seconds: f64,
}

impl Moment {
    fn parse(text: &str) -> Option<Self> {
        let seconds = text.trim().parse().ok().filter(|t: &f64| t.is_finite())?;
        Some(Self { text: text.trim().into(), seconds })
    }

    /// Hundredths of a second, cut off.
    fn hundredths(&self) -> i64 {
        (self.seconds * 100.0) as i64
    }
}

/// A comma (or another mark inside a sentence) that a piece can be cut at; `label` stands for it in the text.
struct Comma {
    label: String,
    at: Moment,
}

/// Takes the segments of one speaker in.
pub(super) fn add(speaker: &Speaker, segments: &[Segment], words: &[Word], commas: AmiCommas, draft: &mut Draft) {
    let order: HashMap<&str, usize> = words.iter().enumerate().map(|(i, word)| (word.id.as_str(), i)).collect();
    let mut pieces: BTreeSet<(Times, String)> = BTreeSet::new();
    for segment in segments {
        let span = segment.span.as_ref().and_then(|(first, last)| words.get(*order.get(first.as_str())?..=*order.get(last.as_str())?));
        // Segments over nothing but sounds are not in Kaldi's export.
        let Some(span) = span.filter(|span| span.iter().any(|word| word.is_word)) else {
            draft.drop_by("segment without words");
            continue;
        };
        let place = || format!("{}.{} at {}", speaker.meeting, speaker.name, segment.start.unwrap_or_default());
        if span.len() > MOST_TOKENS {
            draft.problem(ProblemKind::BadLine, place(), format!("a segment of {} words", span.len()));
            continue;
        }
        match split(span) {
            Some(cut) => {
                for ((start, end), text) in cut {
                    let text = normalize(&text, commas);
                    if start >= end {
                        draft.drop_by("piece without length");
                    } else if text.is_empty() {
                        draft.drop_by("piece without words");
                    } else {
                        pieces.insert(((start, end), text));
                    }
                }
            }
            None => draft.drop_by("times of punctuation do not match"),
        }
    }
    // In the order of ids, and like Kaldi without an overlap of two segments of one speaker.
    let mut last_end = 0;
    for ((start, end), text) in pieces {
        let from = if last_end > start { last_end } else { start };
        last_end = end;
        draft.add(Utterance {
            id: format!("AMI_{}_H0{}_{}_{start:07}_{end:07}", speaker.meeting, speaker.channel, speaker.name),
            audio: speaker.audio.clone(),
            channel: Channel::Mix,
            start: from as f64 / 100.0,
            end: Some(end as f64 / 100.0),
            reference: text,
            speaker: Some(speaker.name.clone()),
            set: None,
            labels: Labels::default(),
            recording: speaker.meeting.clone(),
            duration: None,
        });
    }
}

/// Cuts one segment at full stops and question marks, and long pieces at commas. `None` where marks and their times do not match.
fn split(span: &[Word]) -> Option<Vec<(Times, String)>> {
    let times = |of: fn(&Word) -> &Option<String>| span.iter().filter_map(move |word| of(word).as_deref().and_then(Moment::parse));
    let start = times(|word| &word.start).min_by(|a, b| a.seconds.total_cmp(&b.seconds))?;
    let end = times(|word| &word.end).max_by(|a, b| a.seconds.total_cmp(&b.seconds))?;
    let is_mark = |text: &str| matches!(text, "." | "," | "?" | "!" | ":");
    let marks = span.iter().filter(|word| is_mark(&word.text)).count();
    let marked: Vec<Moment> =
        span.iter().filter(|word| word.is_punctuation).filter_map(|word| Moment::parse(word.start.as_deref()?)).collect();
    if marked.len() != marks {
        return None;
    }
    // The text with labelled commas (",0", "!1") and plain full stops, and where each of them is.
    let (mut stops, mut commas, mut tokens) = (vec![start], Vec::new(), Vec::new());
    let mut moments = marked.into_iter();
    for word in span.iter().filter(|word| !word.text.is_empty()) {
        if !is_mark(&word.text) {
            tokens.push(word.text.to_uppercase());
            continue;
        }
        let at = moments.next()?;
        if matches!(word.text.as_str(), "." | "?") {
            stops.push(at);
            tokens.push(word.text.clone());
        } else {
            let label = format!("{}{}", word.text, commas.len());
            tokens.push(label.clone());
            commas.push(Comma { label, at });
        }
    }
    stops.push(end);
    // Kaldi sorts the times as text.
    commas.sort_by(|a, b| a.at.text.cmp(&b.at.text));
    let joined = tokens.join(" ");
    let mut sentences: Vec<&str> = joined.split(['.', '?']).collect();
    while sentences.last().is_some_and(|last| last.is_empty()) {
        sentences.pop();
    }
    let never = Moment { text: "0".into(), seconds: 0.0 };
    let mut pieces: Vec<(Times, String)> = Vec::new();
    // A stop inside a word makes more sentences than there are times: the last have none, and are dropped for it.
    for (i, sentence) in sentences.into_iter().enumerate() {
        let (from, to) = (stops.get(i).unwrap_or(&never), stops.get(i + 1).unwrap_or(&never));
        let mut waiting = vec![(sentence.to_string(), from, to)];
        while let Some((text, from, to)) = waiting.pop() {
            let comma = if text.split_whitespace().count() > MOST_WORDS { nearest(&commas, from, to) } else { None };
            let Some(comma) = comma else {
                let times = (from.hundredths(), to.hundredths());
                // Of two pieces with the same times the later stays.
                pieces.retain(|(known, _)| *known != times);
                pieces.push((times, text));
                continue;
            };
            match text.split_once(&format!("{} ", comma.label)) {
                Some((before, after)) => {
                    waiting.push((after.into(), &comma.at, to));
                    waiting.push((before.into(), from, &comma.at));
                }
                // The comma ends the text, or is that of another sentence: only the time moves.
                None => waiting.push((text, from, &comma.at)),
            }
        }
    }
    Some(pieces)
}

/// The mark strictly inside an interval that is nearest to its middle, if it is nearer than the start and is a comma: where `!` or `:` is
/// nearest, Kaldi's script gives up.
fn nearest<'a>(commas: &'a [Comma], from: &Moment, to: &Moment) -> Option<&'a Comma> {
    let middle = (to.seconds + from.seconds) / 2.0;
    let (mut best, mut found) = (from.seconds, None);
    for comma in commas {
        let at = comma.at.seconds;
        if at == from.seconds {
            continue;
        }
        if at == to.seconds {
            break;
        }
        if (middle - at).abs() / 2.0 < (middle - best).abs() / 2.0 {
            (best, found) = (at, Some(comma));
        }
    }
    found.filter(|comma: &&Comma| comma.label.starts_with(','))
}

/// The text of a piece: no labels of marks, no hyphens, spelled letters as `X. M. L`.
fn normalize(text: &str, commas: AmiCommas) -> String {
    let text = without_labels(text);
    let text = match commas {
        AmiCommas::Kaldi => without_comma_words(&text),
        AmiCommas::Fixed => comma_words_apart(&text),
    };
    let text = text.replace('-', " ").replace('_', ". ");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.replace("MM HMM", "MM-HMM").replace("UH HUH", "UH-HUH")
}

/// Drops marks that are followed by digits, with them.
fn without_labels(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        let bare = after.trim_start_matches(|c: char| c.is_ascii_digit());
        if matches!(c, '.' | ',' | '?' | '!' | ':') && bare.len() < after.len() {
            rest = bare;
        } else {
            kept.push(c);
            rest = after;
        }
    }
    kept
}

fn is_letter(c: char) -> bool {
    c.is_ascii_uppercase() || c == '\''
}

/// Replaces `[A-Z']+,[A-Z']+` by a space: Kaldi's script loses both words.
fn without_comma_words(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(',') {
        let head = before.trim_end_matches(is_letter);
        let tail = after.trim_start_matches(is_letter);
        if head.len() < before.len() && tail.len() < after.len() {
            kept.push_str(head);
            kept.push(' ');
            rest = tail;
        } else {
            kept.push_str(before);
            kept.push(',');
            rest = after;
        }
    }
    kept + rest
}

/// The same commas as spaces.
fn comma_words_apart(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(',') {
        kept.push_str(before);
        let between = before.ends_with(is_letter) && after.starts_with(is_letter);
        kept.push(if between { ' ' } else { ',' });
        rest = after;
    }
    kept + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_with_the_bug_and_without() {
        let both = |text: &str| (normalize(text, AmiCommas::Kaldi), normalize(text, AmiCommas::Fixed));
        assert_eq!(both(" UM,I THINK ,0 SO !1 "), ("THINK SO".into(), "UM I THINK SO".into()));
        assert_eq!(both("A,B,C X_M_L MM-HMM UH-HUH ANTI-TRUST -").0, ",C X. M. L MM-HMM UH-HUH ANTI TRUST");
        assert_eq!(both("A,B,C").1, "A B C");
        assert_eq!(both("-").0, "");
    }
}
