//! File to transcript.

use std::path::{Path, PathBuf};

use burn::tensor::Device;

use crate::audio::Limits;
use crate::checkpoint::ModelDirectory;
use crate::decode::Hypothesis;
use crate::decode::ctc::greedy;
use crate::error::{Error, Result};
use crate::features::FrontEnd;
use crate::kernel::gemm::Precision;
use crate::model::asr::AsrModel;
use crate::pipeline::chunk::{ChunkConfig, Chunker};
use crate::pipeline::feed::{Feed, Listened, feed};
use crate::pipeline::listen::{Outcome, listen};
use crate::pipeline::pool::{Encoding, Spent, consume};
use crate::pipeline::region::Stretch;
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
    step_samples: usize,
    chunker: Chunker,
    limits: Limits,
}

/// Frames that go through the encoder together: four windows of 20 s.
const BATCH_FRAMES: usize = 8000;

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
        let step_samples = front_end.config().hop * factor;
        let chunker = Chunker::new(&ChunkConfig::default(), step_samples)?;
        Ok(Self { model, front_end, tokenizer: directory.tokenizer, device, precision, step_samples, chunker, limits: Limits::default() })
    }

    /// Transcribes one file (`-`: standard input).
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::UnsupportedAudio`], [`Error::CorruptAudio`], [`Error::LimitExceeded`]
    pub fn transcribe(&self, path: &Path) -> Result<Transcript> {
        let mut result = None;
        self.transcribe_all(&[path], |_, transcript| result = Some(transcript), |_| ());
        result.unwrap_or_else(|| Err(Error::config("transcriber", "the recording was lost")))
    }

    /// Transcribes many files: while the encoder works on one, the next ones are decoded. `done` gets each file's number and transcript as
    /// soon as it is complete, not always in order; `progress` the seconds of audio recognised since its last call.
    pub fn transcribe_all<P: AsRef<Path> + Sync>(
        &self,
        paths: &[P],
        mut done: impl FnMut(usize, Result<Transcript>),
        progress: impl FnMut(f64),
    ) -> Spent {
        self.run(
            |feed| {
                for (recording, path) in paths.iter().enumerate() {
                    let outcome = match listen(path.as_ref(), &self.limits, self.chunker.clone(), feed, recording) {
                        Ok(Outcome::Stopped) => return,
                        Ok(Outcome::Ended(listened)) => Ok(listened),
                        Err(error) => Err(error),
                    };
                    if feed.end(recording, outcome).is_err() {
                        return;
                    }
                }
            },
            |recording, outcome| {
                done(recording, outcome.map(|(listened, words)| transcript(paths[recording].as_ref(), listened, words)));
            },
            progress,
        )
    }

    /// Transcribes mono samples in [-1, 1] at 16 kHz.
    pub fn transcribe_samples(&self, samples: &[f32]) -> Transcript {
        let mut result = None;
        let produce = |feed: &Feed<'_>| {
            let (mut chunker, mut windows) = (self.chunker.clone(), Vec::new());
            chunker.start(0);
            chunker.step(samples, &mut windows);
            chunker.flush(&mut windows);
            let sent = windows.iter().try_for_each(|window| feed.window(0, window));
            let listened = Listened { duration: SampleRate::HZ_16000.seconds(samples.len()), warnings: Vec::new() };
            // Whoever does not listen any more does not mind.
            let _ = sent.and_then(|()| feed.end(0, Ok(listened)));
        };
        self.run(
            produce,
            |_, outcome| {
                if let Ok((listened, words)) = outcome {
                    result = Some(transcript(Path::new(""), listened, words));
                }
            },
            |_| (),
        );
        result.unwrap_or_else(|| transcript(Path::new(""), Listened::default(), Vec::new()))
    }

    /// Runs a producer of windows beside the encoder.
    fn run(
        &self,
        produce: impl FnOnce(&Feed<'_>) + Send,
        done: impl FnMut(usize, Result<(Listened, Vec<Vec<Word>>)>),
        progress: impl FnMut(f64),
    ) -> Spent {
        let (feed, receiver) = feed(&self.front_end);
        let encoding = Encoding {
            model: &self.model,
            device: &self.device,
            precision: self.precision,
            batch_frames: BATCH_FRAMES,
            step_samples: self.step_samples,
            blank: self.tokenizer.blank(),
        };
        std::thread::scope(|scope| {
            scope.spawn(move || produce(&feed));
            consume(&encoding, &receiver, |stretch| self.words(stretch), done, progress)
        })
    }

    /// Decodes a stretch of log-probabilities.
    fn words(&self, stretch: &Stretch) -> Vec<Word> {
        let hypothesis = greedy(&stretch.log_probs, stretch.steps(), stretch.vocab, self.tokenizer.blank());
        let seconds_per_step = SampleRate::HZ_16000.seconds(self.step_samples);
        let start = SampleRate::HZ_16000.seconds(stretch.position);
        let words = words(&self.tokenizer, &hypothesis, seconds_per_step);
        words.into_iter().map(|w| Word { start: w.start + start, end: w.end + start, ..w }).collect()
    }
}

/// A file's transcript from the words of its regions.
fn transcript(path: &Path, listened: Listened, words: Vec<Vec<Word>>) -> Transcript {
    let words: Vec<Word> = words.into_iter().flatten().collect();
    Transcript {
        schema_version: SCHEMA_VERSION,
        file: path.display().to_string(),
        duration: listened.duration,
        text: words.iter().map(|w| w.word.as_str()).collect::<Vec<_>>().join(" "),
        words,
        warnings: listened.warnings,
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
