//! File to transcript.

use std::path::{Path, PathBuf};

use burn::tensor::Device;

use crate::audio::{Limits, Reader};
use crate::checkpoint::ModelDirectory;
use crate::decode::Hypothesis;
use crate::decode::ctc::greedy;
use crate::error::{Error, Result};
use crate::features::FrontEnd;
use crate::kernel::gemm::Precision;
use crate::model::asr::AsrModel;
use crate::pipeline::batch::{Recognition, recognize};
use crate::pipeline::chunk::pieces;
use crate::pipeline::transcript::{SCHEMA_VERSION, Transcript, Word};
use crate::text::Tokenizer;
use crate::units::SampleRate;

/// A loaded model with everything around it.
#[derive(Debug)]
pub struct Transcriber {
    model: AsrModel,
    front_end: FrontEnd,
    tokenizer: Tokenizer,
    device: Device,
    precision: Precision,
    seconds_per_step: f64,
    limits: Limits,
}

/// Pieces of a long recording that go through the encoder together.
const PIECES_AT_ONCE: usize = 4;

/// Name of the model that is used when none is named.
const DEFAULT_MODEL: &str = "base";

/// The model folder: `named`, else `$OMNISCRIBE_MODEL`, else `models/base` under the current folder, the program's or one above it.
///
/// # Errors
/// [`Error::Config`] with the places that were looked at.
pub fn find_model(named: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = named {
        return Ok(path.to_path_buf());
    }
    if let Some(path) = std::env::var_os("OMNISCRIBE_MODEL") {
        return Ok(path.into());
    }
    let program = std::env::current_exe().ok();
    let above = program.iter().flat_map(|p| p.ancestors().skip(1).take(4));
    let places: Vec<PathBuf> = std::iter::once(Path::new("")).chain(above).map(|p| p.join("models").join(DEFAULT_MODEL)).collect();
    let found = places.iter().find(|p| p.join("config.json").is_file());
    found.cloned().ok_or_else(|| {
        let looked: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
        Error::config("model", format!("no model folder at {}: name one with --model", looked.join(", ")))
    })
}

impl Transcriber {
    /// Loads the model folder `path` onto `device`.
    ///
    /// # Errors
    /// As [`ModelDirectory::open`] and [`ModelDirectory::model`].
    pub fn open(path: &Path, device: Device, precision: Precision) -> Result<Self> {
        let directory = ModelDirectory::open(path)?;
        let model = directory.model(&device)?;
        let front_end = FrontEnd::new(directory.config.front_end.clone())?;
        let factor = directory.config.encoder.subsampling.factor();
        let seconds_per_step = (front_end.config().hop * factor) as f64 / f64::from(SampleRate::HZ_16000.0);
        Ok(Self { model, front_end, tokenizer: directory.tokenizer, device, precision, seconds_per_step, limits: Limits::default() })
    }

    /// Transcribes one file (`-`: standard input).
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::UnsupportedAudio`], [`Error::CorruptAudio`], [`Error::LimitExceeded`]
    pub fn transcribe(&self, path: &Path) -> Result<Transcript> {
        let mut reader = Reader::open(path, &self.limits)?;
        let waveform = reader.read_to_end_at(SampleRate::HZ_16000)?;
        let mut transcript = self.transcribe_samples(&waveform.samples);
        transcript.file = path.display().to_string();
        transcript.warnings = reader.warnings();
        Ok(transcript)
    }

    /// Transcribes mono samples in [-1, 1] at 16 kHz; long recordings in pieces, see [`pieces`].
    pub fn transcribe_samples(&self, samples: &[f32]) -> Transcript {
        let mut text = String::new();
        let mut all = Vec::new();
        for group in pieces(samples).chunks(PIECES_AT_ONCE) {
            let features: Vec<_> = group.iter().map(|piece| self.front_end.compute(&samples[piece.clone()])).collect();
            let Recognition { log_probs, vocab } = recognize(&self.model, &features, self.precision, &self.device);
            for (piece, log_probs) in group.iter().zip(&log_probs) {
                let hypothesis = greedy(log_probs, log_probs.len() / vocab, vocab, self.tokenizer.blank());
                let words = words(&self.tokenizer, &hypothesis, self.seconds_per_step);
                let shift = SampleRate::HZ_16000.seconds(piece.start);
                all.extend(words.into_iter().map(|w| Word { start: w.start + shift, end: w.end + shift, ..w }));
                let part = self.tokenizer.decode(&hypothesis.tokens);
                if !text.is_empty() && !part.is_empty() {
                    text.push(' ');
                }
                text.push_str(&part);
            }
        }
        Transcript {
            schema_version: SCHEMA_VERSION,
            file: String::new(),
            duration: SampleRate::HZ_16000.seconds(samples.len()),
            text,
            words: all,
            warnings: Vec::new(),
        }
    }
}

/// Groups tokens into words: a token that decodes to something with a space before it starts a new one.
fn words(tokenizer: &Tokenizer, hypothesis: &Hypothesis, seconds_per_step: f64) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut open = false;
    for ((&token, &step), &log_prob) in hypothesis.tokens.iter().zip(&hypothesis.steps).zip(&hypothesis.token_log_probs) {
        let piece = tokenizer.piece(token).replace('\u{2581}', " ");
        if piece.starts_with(' ') {
            open = false;
        }
        let letters = piece.trim();
        if letters.is_empty() {
            continue;
        }
        let (start, end) = (step as f64 * seconds_per_step, (step + 1) as f64 * seconds_per_step);
        let confidence = f64::from(log_prob).exp();
        match words.last_mut().filter(|_| open) {
            Some(word) => {
                word.word.push_str(letters);
                word.end = end;
                word.confidence = word.confidence.min(confidence);
            }
            None => words.push(Word { word: letters.into(), start, end, confidence }),
        }
        open = !piece.ends_with(' ');
    }
    words
}
