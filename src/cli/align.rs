//! `omniscribe align`: where in a recording the words of its text are.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::checkpoint::safetensors_file::write_atomically;
use crate::cli::device::{self, DeviceChoice};
use crate::cli::language::LanguageArgument;
use crate::cli::precision::Dtype;
use crate::error::Error;
use crate::pipeline::alignment::{Place, PlacedText, align_file};
use crate::pipeline::format::{Format, FormatOptions, write};
use crate::pipeline::segment::Limits;
use crate::pipeline::transcriber::{Transcriber, find_model};
use crate::pipeline::transcript::{Segment, Track, Transcript, Word};

/// Flags of `omniscribe align`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The recording; `-` reads standard input
    audio: PathBuf,
    /// The text, UTF-8; `-` reads standard input
    text: PathBuf,
    /// Model folder (default: $OMNISCRIBE_MODEL, else models/base here or beside the program)
    #[arg(short, long)]
    model: Option<PathBuf>,
    /// json, or any format of `transcribe` (ctm, textgrid, srt, ..): a segment for each line of the text
    #[arg(short, long, visible_alias = "output-format", alias = "output_format", default_value = "json")]
    format: String,
    /// Where to write (default: standard output)
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Where to compute
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceChoice,
    /// Precision of matrix products on the CPU
    #[arg(long, value_enum, default_value = "bf16")]
    dtype: Dtype,
    #[command(flatten)]
    language: LanguageArgument,
}

/// Longest text, bytes: some hundred hours of speech.
const MOST_TEXT: u64 = 64 << 20;

/// Aligns; words that are not in the recording are reported, and are no failure.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let [format] = Format::parse_list(&arguments.format)?[..] else {
        return Err(Error::config("--format", "one format at a time").into());
    };
    if arguments.audio == Path::new("-") && arguments.text == Path::new("-") {
        return Err(Error::config("-", "standard input is either the recording or the text").into());
    }
    let text = read_text(&arguments.text)?;
    let folder = find_model(arguments.model.as_deref())?;
    let transcriber = Transcriber::open(&folder, device::open(arguments.device)?, arguments.dtype.precision())?;
    let transcriber = arguments.language.apply(transcriber)?;
    let placed = align_file(&transcriber, &arguments.audio, &text)?;
    let mut bytes = Vec::new();
    if format == Format::Json {
        serde_json::to_writer(&mut bytes, &shape(&placed, &arguments.audio))?;
        bytes.push(b'\n');
    } else {
        write(&transcript(&placed, &arguments.audio, transcriber.name()), format, &FormatOptions::whole_segments(), &mut bytes)?;
    }
    match &arguments.output {
        Some(path) => write_atomically(path, &bytes)?,
        None => std::io::stdout().lock().write_all(&bytes)?,
    }
    let missing: Vec<&str> = placed.words.iter().filter(|w| w.place == Place::Missing).map(|w| w.word.as_str()).collect();
    if !missing.is_empty() {
        let shown = missing.iter().take(12).copied().collect::<Vec<_>>().join(" ");
        let more = if missing.len() > 12 { " .." } else { "" };
        eprintln!("note: {} of {} words are not in the recording: {shown}{more}", missing.len(), placed.words.len());
    }
    Ok(ExitCode::SUCCESS)
}

fn read_text(path: &Path) -> crate::error::Result<String> {
    let io = |e| Error::io(path, e);
    let mut text = String::new();
    let from: Box<dyn Read> =
        if path == Path::new("-") { Box::new(std::io::stdin()) } else { Box::new(std::fs::File::open(path).map_err(io)?) };
    from.take(MOST_TEXT + 1).read_to_string(&mut text).map_err(io)?;
    if text.len() as u64 > MOST_TEXT {
        return Err(Error::LimitExceeded { what: format!("{}: bytes of text", path.display()), limit: MOST_TEXT, got: text.len() as u64 });
    }
    Ok(text)
}

/// Every word in order, each with its place or the reason why it has none.
fn shape(placed: &PlacedText, audio: &Path) -> serde_json::Value {
    let thousandths = |x: f64| (x * 1000.0).round() / 1000.0;
    let words = placed.words.iter().map(|w| match w.place {
        Place::At { start, end, confidence } => {
            json!({"word": w.word, "line": w.line + 1, "start": thousandths(start), "end": thousandths(end), "confidence": thousandths(confidence)})
        }
        Place::Missing => json!({"word": w.word, "line": w.line + 1, "missing": true}),
        Place::Silent => json!({"word": w.word, "line": w.line + 1, "silent": true}),
    });
    json!({
        "schema_version": 1, "file": audio.display().to_string(), "duration": thousandths(placed.duration),
        "words": words.collect::<Vec<_>>(),
        "extra": placed.extra.iter().map(|&(start, end)| json!({"start": thousandths(start), "end": thousandths(end)})).collect::<Vec<_>>(),
    })
}

/// The words that were found, a segment for each line of the text.
fn transcript(placed: &PlacedText, audio: &Path, model: &str) -> Transcript {
    let found = placed.words.iter().filter_map(|w| match w.place {
        Place::At { start, end, confidence } => Some((w.line, Word { word: w.word.clone(), start, end, confidence })),
        _ => None,
    });
    let (lines, words): (Vec<usize>, Vec<Word>) = found.unzip();
    let mut segments = Vec::new();
    let mut start = 0;
    for line in lines.chunk_by(|a, b| a == b) {
        let range = start..start + line.len();
        start = range.end;
        let own = &words[range.clone()];
        segments.push(Segment {
            start: own[0].start,
            end: own[own.len() - 1].end,
            text: own.iter().map(|w| w.word.as_str()).collect::<Vec<_>>().join(" "),
            words: range,
            speaker: None,
            channel: None,
            confidence: own.iter().map(|w| w.confidence).sum::<f64>() / own.len() as f64,
        });
    }
    let whole = Transcript::new(placed.duration, vec![Track { words, ..Track::default() }], &Limits::segments());
    let text = segments.iter().map(|s| s.text.as_str()).collect::<Vec<_>>().join(" ");
    Transcript { file: audio.display().to_string(), model: model.into(), segments, text, ..whole }
}
