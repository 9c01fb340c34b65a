//! Transcripts as files: every format a program downstream may want, written from one [`Transcript`].

mod json;
mod nist;
mod plain;
mod subtitles;
mod textgrid;

use std::io::{self, Write};
use std::path::Path;

pub use json::{ApiTimes, api_verbose_json, verbose_json};

use super::segment::{Limits, LineLimits};
use super::transcript::{Segment, Transcript};
use crate::error::{Error, Result};

/// A file format of transcripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// A line of text for each segment.
    Txt,
    /// [`Transcript`] as one line of JSON.
    Json,
    /// JSON in the shape of openai/whisper, with the fields of the OpenAI API's `verbose_json` beside it.
    VerboseJson,
    /// SubRip subtitles.
    Srt,
    /// WebVTT subtitles.
    Vtt,
    /// Start and end in milliseconds and text, separated by tabs, with a header.
    Tsv,
    /// Start and end in milliseconds and quoted text, separated by commas, with a header.
    Csv,
    /// Lyrics: `[mm:ss.cc]text`.
    Lrc,
    /// NIST's words with times, for `sclite`.
    Ctm,
    /// NIST's segments with times, for `sclite`.
    Stm,
    /// Praat's long text format, with a tier of segments and one of words for each speaker.
    TextGrid,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 11] = [
        Self::Txt,
        Self::Json,
        Self::VerboseJson,
        Self::Srt,
        Self::Vtt,
        Self::Tsv,
        Self::Csv,
        Self::Lrc,
        Self::Ctm,
        Self::Stm,
        Self::TextGrid,
    ];

    /// Its name on the command line.
    pub fn id(self) -> &'static str {
        match self {
            Self::Txt => "txt",
            Self::Json => "json",
            Self::VerboseJson => "verbose_json",
            Self::Srt => "srt",
            Self::Vtt => "vtt",
            Self::Tsv => "tsv",
            Self::Csv => "csv",
            Self::Lrc => "lrc",
            Self::Ctm => "ctm",
            Self::Stm => "stm",
            Self::TextGrid => "textgrid",
        }
    }

    /// What follows the last point of its file names; different for each format, so that several can lie side by side.
    pub fn extension(self) -> &'static str {
        match self {
            Self::VerboseJson => "verbose.json",
            Self::TextGrid => "TextGrid",
            other => other.id(),
        }
    }

    /// The format called `id`, in any case.
    pub fn from_id(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|f| f.id().eq_ignore_ascii_case(id))
    }

    /// The formats of a list such as `srt,vtt,json`, each once in the order given; `all` is every one.
    ///
    /// # Errors
    /// [`Error::Config`] with the name that is none.
    pub fn parse_list(list: &str) -> Result<Vec<Self>> {
        let mut formats = Vec::new();
        for id in list.split(',').map(str::trim) {
            let named = if id.eq_ignore_ascii_case("all") { Self::ALL.to_vec() } else { Self::from_id(id).into_iter().collect() };
            if named.is_empty() {
                let known = Self::ALL.map(Self::id).join(", ");
                return Err(Error::config("output format", format!("{id:?} is none of {known}, all")));
            }
            named.into_iter().for_each(|f| {
                if !formats.contains(&f) {
                    formats.push(f)
                }
            });
        }
        Ok(formats)
    }
}

/// How subtitles (`srt`, `vtt`, `lrc`) are cut and shown; the other formats show segments and words as they are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FormatOptions {
    /// Most characters of a line; without, each cue is one line.
    pub max_line_width: Option<usize>,
    /// Most lines of a cue; without, as many as its segment needs.
    pub max_line_count: Option<usize>,
    /// Most words of a line.
    pub max_words_per_line: Option<usize>,
    /// Whether every word gets a cue of its own in which it is underlined (`srt`, `vtt`).
    pub highlight_words: bool,
    /// Most characters per second a reader follows: cues that are read slower than spoken stay longer where silence follows.
    pub reading_speed_cps: Option<f64>,
    /// Longest cue, seconds.
    pub max_cue_seconds: Option<f64>,
    /// A cue stays this long where silence follows, seconds.
    pub min_cue_seconds: Option<f64>,
    /// A gap of this length between words ends a cue, seconds.
    pub gap_seconds: Option<f64>,
}

impl Default for FormatOptions {
    /// What subtitlers work by: two lines of 42 characters, 5/6 s to 7 s, 20 characters per second (Netflix's timed text style guide).
    fn default() -> Self {
        Self {
            max_line_width: Some(42),
            max_line_count: Some(2),
            reading_speed_cps: Some(20.0),
            max_cue_seconds: Some(7.0),
            min_cue_seconds: Some(5.0 / 6.0),
            ..Self::whole_segments()
        }
    }
}

impl FormatOptions {
    /// A cue for each segment, on one line, as openai/whisper writes by default.
    pub fn whole_segments() -> Self {
        Self {
            max_line_width: None,
            max_line_count: None,
            max_words_per_line: None,
            highlight_words: false,
            reading_speed_cps: None,
            max_cue_seconds: None,
            min_cue_seconds: None,
            gap_seconds: None,
        }
    }

    /// Checks what came from outside.
    ///
    /// # Errors
    /// [`Error::Config`] with option, value and rule.
    pub fn validate(&self) -> Result<()> {
        let rule = |option: &str, value: String, rule: &str| Err(Error::config("subtitle options", format!("{option} is {value}: {rule}")));
        for (option, value) in [
            ("max_line_width", self.max_line_width),
            ("max_line_count", self.max_line_count),
            ("max_words_per_line", self.max_words_per_line),
        ] {
            if value == Some(0) {
                return rule(option, "0".into(), "at least 1");
            }
        }
        for (option, value) in [
            ("reading_speed_cps", self.reading_speed_cps),
            ("max_cue_seconds", self.max_cue_seconds),
            ("min_cue_seconds", self.min_cue_seconds),
            ("gap_seconds", self.gap_seconds),
        ] {
            if let Some(value) = value.filter(|v| !v.is_finite() || *v <= 0.0) {
                return rule(option, value.to_string(), "a finite number over 0");
            }
        }
        match (self.min_cue_seconds, self.max_cue_seconds) {
            (Some(min), Some(max)) if min > max => rule("min_cue_seconds", min.to_string(), &format!("at most max_cue_seconds, {max}")),
            _ => Ok(()),
        }
    }

    /// The bounds of a cue.
    fn limits(&self) -> Limits {
        let lines = LineLimits {
            width: self.max_line_width.unwrap_or(usize::MAX),
            count: if self.max_line_width.is_none() { 1 } else { self.max_line_count.unwrap_or(usize::MAX) },
            words: self.max_words_per_line.unwrap_or(usize::MAX),
            label: 0,
        };
        Limits {
            pause: self.gap_seconds.unwrap_or(f64::INFINITY),
            max_seconds: self.max_cue_seconds.unwrap_or(f64::INFINITY),
            min_seconds: self.min_cue_seconds.unwrap_or(0.0),
            reading_speed: self.reading_speed_cps.unwrap_or(f64::INFINITY),
            lines,
        }
    }
}

/// Writes a transcript in one format, UTF-8 with `\n` line ends.
///
/// Times that are negative or no numbers are written as 0, those past ten thousand years as that. A line break inside a word or text is written as a space.
///
/// # Errors
/// What `out` returns.
pub fn write(transcript: &Transcript, format: Format, options: &FormatOptions, out: &mut impl Write) -> io::Result<()> {
    match format {
        Format::Txt => plain::txt(transcript, out),
        Format::Tsv => plain::tsv(transcript, out),
        Format::Csv => plain::csv(transcript, out),
        Format::Lrc => plain::lrc(transcript, options, out),
        Format::Json => json::json(transcript, out),
        Format::VerboseJson => json::line(&verbose_json(transcript), out),
        Format::Srt => subtitles::srt(transcript, options, out),
        Format::Vtt => subtitles::vtt(transcript, options, out),
        Format::Ctm => nist::ctm(transcript, out),
        Format::Stm => nist::stm(transcript, out),
        Format::TextGrid => textgrid::textgrid(transcript, out),
    }
}

/// The latest time that is written, milliseconds: ten thousand years. Sums of a few of them stay far inside of `u64`.
const LATEST: u64 = 10_000 * 366 * 24 * 3_600_000;

/// Milliseconds, rounded to the nearest, halves to the even one as Python does; at most [`LATEST`].
fn milliseconds(seconds: f64) -> u64 {
    // A cast of what is negative or no number gives 0, of what is too large the largest.
    ((seconds * 1000.0).round_ties_even() as u64).min(LATEST)
}

/// A time as seconds and thousandths.
fn decimal_seconds(milliseconds: u64) -> String {
    format!("{}.{:03}", milliseconds / 1000, milliseconds % 1000)
}

/// Text on one line: line breaks and control characters other than tabs are spaces, none at the ends.
fn one_line(text: &str) -> String {
    text.trim().replace(|c: char| (c.is_control() && c != '\t') || matches!(c, '\u{2028}' | '\u{2029}'), " ")
}

/// The text of a segment on one line, behind the name of its speaker where channels are told apart.
fn labelled(segment: &Segment) -> String {
    format!("{}{}", label(segment), one_line(&segment.text))
}

/// `Name: ` where a speaker is known.
fn label(segment: &Segment) -> String {
    segment.speaker.as_ref().map_or(String::new(), |name| format!("{}: ", one_line(name)))
}

/// The name of the recording: its file's, without folders and extension.
fn recording(transcript: &Transcript) -> String {
    Path::new(&transcript.file).file_stem().map_or(String::new(), |stem| stem.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_bounded() {
        for (seconds, expected) in [(-1.0, 0), (f64::NAN, 0), (f64::NEG_INFINITY, 0), (0.0005, 0), (0.0015, 2), (1e9, 1_000_000_000_000)] {
            assert_eq!(milliseconds(seconds), expected, "{seconds}");
        }
        assert_eq!([1e18, f64::MAX, f64::INFINITY].map(milliseconds), [LATEST; 3]);
    }

    #[test]
    fn names_are_found_again() {
        for format in Format::ALL {
            assert_eq!(Format::from_id(format.id()), Some(format));
            assert_eq!(Format::from_id(&format.id().to_uppercase()), Some(format));
        }
        let mut extensions = Format::ALL.map(Format::extension);
        extensions.sort_unstable();
        assert!(extensions.windows(2).all(|e| e[0] != e[1]));
        assert_eq!(Format::parse_list("srt, VTT,srt,json").unwrap(), [Format::Srt, Format::Vtt, Format::Json]);
        assert_eq!(Format::parse_list("all").unwrap(), Format::ALL);
        for bad in ["", "srt,", "docx", "txt;srt"] {
            let error = Format::parse_list(bad).unwrap_err().to_string();
            assert!(error.contains("verbose_json"), "{error}");
        }
    }

    #[test]
    fn options_are_checked() {
        let good = FormatOptions::default();
        assert!(good.validate().is_ok() && FormatOptions::whole_segments().validate().is_ok());
        let bad = [
            FormatOptions { max_line_width: Some(0), ..good },
            FormatOptions { max_line_count: Some(0), ..good },
            FormatOptions { max_words_per_line: Some(0), ..good },
            FormatOptions { reading_speed_cps: Some(0.0), ..good },
            FormatOptions { max_cue_seconds: Some(f64::NAN), ..good },
            FormatOptions { gap_seconds: Some(-1.0), ..good },
            FormatOptions { min_cue_seconds: Some(9.0), ..good },
        ];
        for options in bad {
            let error = options.validate().unwrap_err().to_string();
            assert!(error.contains("subtitle options: "), "{error}");
        }
    }

    #[test]
    fn rounding_is_pythons() {
        assert_eq!([0.0005, 0.0015, 0.9995, 0.99949, 3599.9996].map(milliseconds), [0, 2, 1000, 999, 3_600_000]);
        assert_eq!([-1.0, f64::NAN, f64::NEG_INFINITY].map(milliseconds), [0, 0, 0]);
        assert_eq!(decimal_seconds(61_007), "61.007");
        assert_eq!(one_line(" a\tb\nc\u{0}d\u{2028}\u{a0}e "), "a\tb c d \u{a0}e");
    }
}
