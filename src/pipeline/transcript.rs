//! What a recording was understood as.

use std::ops::Range;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::segment::{self, Limits};

/// Version of the JSON shape.
pub const SCHEMA_VERSION: u32 = 2;

/// The transcript of one recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transcript {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The file, as named by the caller.
    pub file: String,
    /// The model that listened.
    pub model: String,
    /// ISO 639-1 code of the language, where it is known.
    pub language: Option<String>,
    /// Length of the audio, seconds.
    #[serde(serialize_with = "to_thousandths")]
    pub duration: f64,
    /// Everything that was said: the texts of the segments, a space between them.
    pub text: String,
    /// Stretches of speech by start.
    pub segments: Vec<Segment>,
    /// The words, segment by segment: in the order of time within a channel.
    pub words: Vec<Word>,
    /// What was wrong with the audio but did not prevent decoding.
    pub warnings: Vec<String>,
}

/// A stretch of one speaker's speech.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// Start of the first word, seconds.
    #[serde(serialize_with = "to_thousandths")]
    pub start: f64,
    /// End of the last word, seconds.
    #[serde(serialize_with = "to_thousandths")]
    pub end: f64,
    /// The words, a space between them.
    pub text: String,
    /// Which of [`Transcript::words`]; `[first, one past the last]` in JSON.
    #[serde(serialize_with = "to_pair", deserialize_with = "from_pair")]
    pub words: Range<usize>,
    /// Who speaks, where channels are told apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speaker: Option<String>,
    /// The channel from 1, where channels are told apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<u32>,
    /// Mean confidence of the words.
    #[serde(serialize_with = "to_thousandths")]
    pub confidence: f64,
}

/// A word with its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Word {
    /// The word.
    pub word: String,
    /// Where it starts, seconds.
    #[serde(serialize_with = "to_thousandths")]
    pub start: f64,
    /// Where it ends, seconds.
    #[serde(serialize_with = "to_thousandths")]
    pub end: f64,
    /// Probability that it is right, in [0, 1].
    #[serde(serialize_with = "to_thousandths")]
    pub confidence: f64,
}

/// The words of one channel, or of the mix of all.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Track {
    /// Who speaks on it, where channels are told apart.
    pub speaker: Option<String>,
    /// The channel from 1, where channels are told apart.
    pub channel: Option<u32>,
    /// The words in order of time.
    pub words: Vec<Word>,
}

impl Transcript {
    /// The words of all tracks in segments, merged by time. File, model, language and warnings are left for the caller to fill.
    pub fn new(duration: f64, tracks: Vec<Track>, limits: &Limits) -> Self {
        let mut pieces: Vec<(Segment, Vec<Word>)> = Vec::new();
        for track in tracks {
            let cuts = segment::split(&track.words, limits);
            let mut words = track.words.into_iter();
            for cut in cuts {
                let words: Vec<Word> = words.by_ref().take(cut.len()).collect();
                let segment = Segment {
                    start: words.first().map_or(0.0, |w| w.start),
                    end: words.last().map_or(0.0, |w| w.end),
                    text: words.iter().map(|w| w.word.as_str()).collect::<Vec<_>>().join(" "),
                    words: 0..words.len(),
                    speaker: track.speaker.clone(),
                    channel: track.channel,
                    confidence: words.iter().map(|w| w.confidence).sum::<f64>() / words.len() as f64,
                };
                pieces.push((segment, words));
            }
        }
        // Stable: at the same start the earlier channel comes first.
        pieces.sort_by(|(a, _), (b, _)| a.start.total_cmp(&b.start));
        let (mut segments, mut words) = (Vec::with_capacity(pieces.len()), Vec::new());
        for (segment, own) in pieces {
            segments.push(Segment { words: words.len()..words.len() + own.len(), ..segment });
            words.extend(own);
        }
        let text = segments.iter().map(|s| s.text.as_str()).collect::<Vec<_>>().join(" ");
        Self {
            schema_version: SCHEMA_VERSION,
            file: String::new(),
            model: String::new(),
            language: None,
            duration,
            text,
            segments,
            words,
            warnings: Vec::new(),
        }
    }

    /// The words of `segment`; none where its range does not fit, as in a transcript that was read from elsewhere.
    pub fn words_of(&self, segment: &Segment) -> &[Word] {
        self.words.get(segment.words.clone()).unwrap_or_default()
    }
}

/// Times to the millisecond and probabilities to a thousandth: what lies below is not known.
pub(super) fn to_thousandths<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((value * 1000.0).round() / 1000.0)
}

fn to_pair<S: Serializer>(range: &Range<usize>, serializer: S) -> Result<S::Ok, S::Error> {
    [range.start, range.end].serialize(serializer)
}

fn from_pair<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Range<usize>, D::Error> {
    let [start, end] = <[usize; 2]>::deserialize(deserializer)?;
    Ok(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(word: &str, start: f64, end: f64) -> Word {
        Word { word: word.into(), start, end, confidence: 0.5 }
    }

    fn two_channels() -> Transcript {
        let track = |channel: u32, words| Track { speaker: Some(format!("Channel {channel}")), channel: Some(channel), words };
        let left = vec![word("hello", 0.0, 0.4), word("there", 0.5, 0.9), word("bye", 5.0, 5.3)];
        let right = vec![word("yes", 1.25, 1.5), word("indeed", 1.6, 2.1)];
        Transcript::new(6.0, vec![track(1, left), track(2, right)], &Limits::segments())
    }

    #[test]
    fn channels_are_merged_by_time_and_words_follow_their_segments() {
        let transcript = two_channels();
        assert_eq!(transcript.text, "hello there yes indeed bye");
        let seen: Vec<_> = transcript.segments.iter().map(|s| (s.channel, s.text.as_str(), s.start, s.end)).collect();
        assert_eq!(seen, [(Some(1), "hello there", 0.0, 0.9), (Some(2), "yes indeed", 1.25, 2.1), (Some(1), "bye", 5.0, 5.3)]);
        let words: Vec<_> = transcript.segments.iter().flat_map(|s| transcript.words_of(s)).map(|w| w.word.as_str()).collect();
        assert_eq!(words.join(" "), transcript.text);
        assert_eq!(transcript.segments[1].speaker.as_deref(), Some("Channel 2"));
    }

    #[test]
    fn json_round_trip() {
        let transcript = two_channels();
        let json = serde_json::to_string(&transcript).unwrap();
        assert_eq!(serde_json::from_str::<Transcript>(&json).unwrap(), transcript);
        assert!(json.contains(r#""words":[2,4]"#), "{json}");
        let long = Word { start: 0.1 + 0.2, ..word("x", 0.0, 1.0) };
        assert_eq!(serde_json::to_value(&long).unwrap()["start"].to_string(), "0.3");
    }

    #[test]
    fn a_range_that_does_not_fit_has_no_words() {
        let mut transcript = two_channels();
        transcript.segments[0].words = 4..9;
        assert!(transcript.words_of(&transcript.segments[0]).is_empty());
        let json = serde_json::to_string(&transcript).unwrap();
        assert!(json.contains("[4,9]"));
    }

    #[test]
    fn nothing_said() {
        let transcript = Transcript::new(3.0, vec![Track::default()], &Limits::segments());
        assert_eq!((transcript.text.as_str(), transcript.segments.len(), transcript.words.len()), ("", 0, 0));
    }
}
