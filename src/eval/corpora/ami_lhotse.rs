//! AMI as Lhotse's recipe cuts and cleans it (`normalize_text="kaldi"`, `max_words_per_segment=30`).

use super::ami::{Segment, Speaker, Word};
use super::draft::Draft;
use super::{Labels, Utterance};
use crate::audio::Channel;
use crate::units::SampleRate;

/// A piece with more words is cut at commas.
const MOST_WORDS: usize = 30;

/// A word with its times.
#[derive(Debug, Clone, Copy)]
struct Timed<'a> {
    start: f64,
    end: f64,
    text: &'a str,
}

/// Takes the segments of one speaker in.
pub(super) fn add(speaker: &Speaker, segments: &[Segment], words: &[Word], draft: &mut Draft) {
    let number = |text: &Option<String>| text.as_deref().and_then(|t| t.trim().parse::<f64>().ok());
    let timed = words.iter().filter(|word| word.is_word && !word.text.is_empty());
    let timed: Vec<Timed> =
        timed.filter_map(|word| Some(Timed { start: number(&word.start)?, end: number(&word.end)?, text: &word.text })).collect();
    let mut number = 0;
    for segment in segments {
        let (Some(start), Some(end)) = (segment.start, segment.end) else { continue };
        let inside: Vec<Timed> = timed.iter().filter(|word| word.start >= start && word.end <= end).copied().collect();
        for piece in split(&inside) {
            let (Some(first), Some(last)) = (piece.first(), piece.last()) else { continue };
            let (start, end) = (first.start, last.end);
            let spoken = piece.iter().filter(|word| {
                // Times to a tenth of a millisecond, lengths to a sample.
                let rounded = |t: f64| (t * 1e4).round() / 1e4;
                let length = rounded(word.end).min(end) - rounded(word.start).max(start);
                SampleRate::HZ_16000.samples(length) > 0
            });
            let texts: Vec<String> = spoken.map(|word| normalize(word.text)).filter(|text| !text.is_empty()).collect();
            let id = format!("{}-{}-{number}", speaker.meeting, speaker.channel);
            number += 1;
            if SampleRate::HZ_16000.samples(end - start) == 0 {
                draft.drop_by("piece without length");
                continue;
            }
            if texts.is_empty() {
                draft.drop_by("piece without words");
                continue;
            }
            draft.add(Utterance {
                id,
                audio: speaker.audio.clone(),
                channel: Channel::Mix,
                start,
                end: Some(end),
                reference: texts.join(" "),
                speaker: Some(speaker.name.clone()),
                set: None,
                labels: Labels::default(),
                recording: speaker.meeting.clone(),
                duration: None,
            });
        }
    }
}

/// Cuts at full stops, and long pieces at commas, pieces between commas joined again up to the limit. The marks cut at are left out.
fn split<'a>(words: &[Timed<'a>]) -> Vec<Vec<Timed<'a>>> {
    let parts = |words: &[Timed<'a>], mark: &str| -> Vec<Vec<Timed<'a>>> {
        words.split(|word| word.text == mark).filter(|part| !part.is_empty()).map(<[_]>::to_vec).collect()
    };
    let mut pieces = Vec::new();
    for sentence in parts(words, ".") {
        if sentence.len() <= MOST_WORDS {
            pieces.push(sentence);
            continue;
        }
        let mut joined: Vec<Vec<Timed>> = Vec::new();
        for part in parts(&sentence, ",") {
            match joined.last_mut() {
                Some(last) if last.len() + part.len() <= MOST_WORDS => last.extend(part),
                _ => joined.push(part),
            }
        }
        pieces.extend(joined);
    }
    pieces
}

/// Upper case; what is no letter, digit or apostrophe is a space.
fn normalize(text: &str) -> String {
    let kept: String =
        text.to_uppercase().chars().map(|c| if c.is_ascii_uppercase() || c.is_ascii_digit() || c == '\'' { c } else { ' ' }).collect();
    let kept = kept.split_whitespace().collect::<Vec<_>>().join(" ");
    let kept = kept.replace("MM HMM", "MM-HMM").replace("UH HUH", "UH-HUH");
    let words: Vec<&str> = kept.split(' ').collect();
    let mut out: Vec<String> = Vec::new();
    let mut rest = words.into_iter().peekable();
    while let Some(word) = rest.next() {
        let okay = word == "O" && rest.next_if_eq(&"K").is_some();
        out.push(if okay { "OK".into() } else { word.into() });
    }
    out.join(" ").trim().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cleaned_as_lhotse_does() {
        for (text, expected) in [("O_K", "OK"), ("Mm-hmm", "MM-HMM"), ("X_M_L", "X M L"), ("it's", "IT'S"), (".", ""), ("café", "CAF")] {
            assert_eq!(normalize(text), expected);
        }
    }
}
