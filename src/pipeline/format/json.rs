//! JSON: our own shape, openai/whisper's, and the OpenAI API's `verbose_json`.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde::Serialize;

use super::milliseconds;
use crate::pipeline::transcript::{Segment, Transcript, Word};

/// The transcript itself: [`Transcript`] in its `schema_version`, on one line.
pub(super) fn json(transcript: &Transcript, out: &mut impl Write) -> io::Result<()> {
    line(transcript, out)
}

/// Any value as one line.
pub(super) fn line(value: &impl Serialize, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    writeln!(out)
}

/// The result of openai/whisper's `transcribe`, with the other fields of the OpenAI API's `verbose_json` beside it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verbose<'a> {
    task: &'static str,
    language: &'a str,
    duration: f64,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<Vec<ApiWord<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    segments: Option<Vec<VerboseSegment>>,
    usage: Usage,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct ApiWord<'a> {
    word: &'a str,
    start: f64,
    end: f64,
}

impl<'a> ApiWord<'a> {
    fn new(word: &'a Word) -> Self {
        Self { word: &word.word, start: seconds(word.start), end: seconds(word.end) }
    }
}

/// What the API bills by.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Usage {
    r#type: &'static str,
    seconds: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct VerboseSegment {
    id: usize,
    /// Start in frames of 10 ms, where whisper gives the start of its window.
    seek: u64,
    start: f64,
    end: f64,
    text: String,
    /// Whisper's tokens: there are none.
    tokens: [u32; 0],
    /// Decoding does not sample.
    temperature: f64,
    avg_logprob: f64,
    compression_ratio: f64,
    no_speech_prob: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    speaker: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<Vec<VerboseWord>>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct VerboseWord {
    /// With the space before it.
    word: String,
    start: f64,
    end: f64,
    probability: f64,
}

/// Which times the OpenAI API's `timestamp_granularities[]` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiTimes {
    /// `segment`, the default.
    Segments,
    /// `word`
    Words,
    /// Both.
    Both,
}

/// The body of the OpenAI API's answer to `response_format=verbose_json` (openapi.yaml, `CreateTranscriptionResponseVerboseJson`): no
/// field more, the language by its English name.
pub fn api_verbose_json(transcript: &Transcript, times: ApiTimes) -> Verbose<'_> {
    let language = transcript.language.as_deref().map_or("unknown", language_name);
    let mut verbose = Verbose { language, text: transcript.text.clone(), ..verbose_json(transcript) };
    for segment in verbose.segments.iter_mut().flatten() {
        (segment.speaker, segment.words) = (None, None);
    }
    match times {
        ApiTimes::Segments => verbose.words = None,
        ApiTimes::Words => verbose.segments = None,
        ApiTimes::Both => {}
    }
    verbose
}

/// The transcript in the shape of openai/whisper's JSON (`text`, `segments` with their `words`, `language` by its code), and what the
/// OpenAI API adds (`task`, `duration`, `words`, `usage`).
///
/// What whisper measures on its decoder is given its meaning here: `avg_logprob` is the mean natural logarithm of the words' confidences,
/// `no_speech_prob` the probability that no word of the segment was spoken if words were right or wrong independently of each other,
/// `seek` the segment's start in frames of 10 ms; `tokens` is empty and `temperature` 0. `compression_ratio` is whisper's: bytes of the
/// text by bytes of it compressed (zlib).
pub fn verbose_json(transcript: &Transcript) -> Verbose<'_> {
    Verbose {
        task: "transcribe",
        language: transcript.language.as_deref().unwrap_or(UNDETERMINED),
        duration: seconds(transcript.duration),
        text: spaced(&transcript.text),
        words: Some(transcript.words.iter().map(ApiWord::new).collect()),
        segments: Some(transcript.segments.iter().enumerate().map(|(id, s)| verbose_segment(id, s, transcript.words_of(s))).collect()),
        usage: Usage { r#type: "duration", seconds: milliseconds(transcript.duration).div_ceil(1000) },
    }
}

fn verbose_segment(id: usize, segment: &Segment, words: &[Word]) -> VerboseSegment {
    let confidences = || words.iter().map(|w| w.confidence).chain(words.is_empty().then_some(segment.confidence));
    let logs: Vec<f64> = confidences().map(|c| c.clamp(LEAST_PROBABILITY, 1.0).ln()).collect();
    let word = |w: &Word| VerboseWord {
        word: spaced(&w.word),
        start: seconds(w.start),
        end: seconds(w.end),
        probability: thousandths(w.confidence),
    };
    VerboseSegment {
        id,
        seek: milliseconds(segment.start) / 10,
        start: seconds(segment.start),
        end: seconds(segment.end),
        text: spaced(&segment.text),
        tokens: [],
        temperature: 0.0,
        avg_logprob: thousandths(logs.iter().sum::<f64>() / logs.len() as f64),
        compression_ratio: thousandths(compression_ratio(&segment.text)),
        no_speech_prob: thousandths(confidences().map(|c| 1.0 - c.clamp(0.0, 1.0)).product()),
        speaker: segment.speaker.clone(),
        words: Some(words.iter().map(word).collect()),
    }
}

/// ISO 639-2 for a language that is not known.
const UNDETERMINED: &str = "und";

/// Keeps logarithms finite.
const LEAST_PROBABILITY: f64 = 1e-10;

/// With the space before it that whisper's tokens have.
fn spaced(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" {text}") }
}

/// To the millisecond, as everywhere.
fn seconds(seconds: f64) -> f64 {
    milliseconds(seconds) as f64 / 1000.0
}

fn thousandths(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn compression_ratio(text: &str) -> f64 {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    // Memory takes every byte.
    let compressed = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish());
    compressed.map_or(0.0, |bytes| text.len() as f64 / bytes.len() as f64)
}

/// The English name the API uses for a language, of those there is speech data for; other codes as they are.
fn language_name(code: &str) -> &str {
    const NAMES: [(&str, &str); 8] = [
        ("en", "english"),
        ("de", "german"),
        ("es", "spanish"),
        ("fr", "french"),
        ("it", "italian"),
        ("nl", "dutch"),
        ("pl", "polish"),
        ("pt", "portuguese"),
    ];
    NAMES.iter().find(|(c, _)| *c == code).map_or(code, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pipeline::segment::Limits;
    use crate::pipeline::transcript::Track;

    fn transcript() -> Transcript {
        let word = |word: &str, start: f64, confidence: f64| Word { word: word.into(), start, end: start + 0.3, confidence };
        let words = vec![word("hello", 0.1 + 0.2, 0.5), word("there", 0.7, 0.8), word("bye", 3.0, 0.0)];
        let mut transcript = Transcript::new(8.47, vec![Track { words, ..Track::default() }], &Limits::segments());
        transcript.language = Some("en".into());
        transcript
    }

    fn keys(value: &Value) -> Vec<&str> {
        value.as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn whisper_and_api_shapes() {
        let whisper = serde_json::to_value(verbose_json(&transcript())).unwrap();
        assert_eq!(whisper["text"], " hello there bye");
        assert_eq!(whisper["language"], "en");
        assert_eq!(whisper["segments"][0]["words"][0], json!({"word": " hello", "start": 0.3, "end": 0.6, "probability": 0.5}));
        let api = serde_json::to_value(api_verbose_json(&transcript(), ApiTimes::Segments)).unwrap();
        assert_eq!(keys(&api), ["duration", "language", "segments", "task", "text", "usage"]);
        let ten = ["avg_logprob", "compression_ratio", "end", "id", "no_speech_prob", "seek", "start", "temperature", "text", "tokens"];
        assert_eq!(keys(&api["segments"][0]), ten);
        assert_eq!((&api["language"], &api["text"], &api["usage"]["seconds"]), (&json!("english"), &json!("hello there bye"), &json!(9)));
        let words = serde_json::to_value(api_verbose_json(&transcript(), ApiTimes::Words)).unwrap();
        assert_eq!(keys(&words), ["duration", "language", "task", "text", "usage", "words"]);
        assert_eq!(words["words"][2], json!({"word": "bye", "start": 3.0, "end": 3.3}));
    }

    #[test]
    fn what_is_not_heard_from_a_decoder_follows_from_confidence() {
        let value = serde_json::to_value(verbose_json(&transcript())).unwrap();
        let segment = &value["segments"][0];
        assert_eq!(segment["avg_logprob"], json!(-0.458)); // (ln 0.5 + ln 0.8) / 2
        assert_eq!(segment["no_speech_prob"], json!(0.1)); // 0.5 * 0.2
        assert_eq!(value["segments"][1]["avg_logprob"], json!(-23.026)); // ln 1e-10
        assert_eq!(value["segments"][1]["seek"], json!(300));
        assert_eq!(compression_ratio(""), 0.0);
        assert!(compression_ratio(&"again and ".repeat(50)) > 10.0);
    }
}
