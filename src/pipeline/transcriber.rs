//! File to transcript.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use burn::tensor::Device;

use crate::audio::vad::VadOptions;
use crate::audio::{Channels, Limits};
use crate::checkpoint::Opened;
use crate::decode::Hypothesis;
use crate::decode::lexicon::Lexicon;
use crate::error::{Error, Result};
use crate::features::FrontEnd;
use crate::kernel::gemm::Precision;
use crate::model::arithmetic::Arithmetic;
use crate::model::asr::AsrModel;
use crate::model::pass::Chunk;
use crate::model::recognizer::AnyModel;
use crate::pipeline::calibration::{CalibrationConfig, Logistic};
use crate::pipeline::chunk::{ChunkConfig, Chunker};
use crate::pipeline::context::chunk_of;
use crate::pipeline::decoder::{Decoder, Decoding};
use crate::pipeline::feed::{Feed, Listened, feed};
use crate::pipeline::front::{Front, Geometry, Past};
use crate::pipeline::gate::Gate;
use crate::pipeline::language::{Hearing, Modules};
use crate::pipeline::listen::{Listening, Outcome, listen};
use crate::pipeline::pool::{Encoding, Spent, consume};
use crate::pipeline::region::Stretch;
use crate::pipeline::segment;
use crate::pipeline::transcript::{Track, Transcript, Word};
use crate::pipeline::words::words;
use crate::pipeline::writing::Writing;
use crate::text::Tokenizer;
use crate::units::SampleRate;

pub use crate::pipeline::find::find_model;

/// A loaded model with everything around it.
#[derive(Debug)]
pub struct Transcriber {
    pub(super) name: String,
    pub(super) model: AnyModel,
    pub(super) hearing: Hearing,
    pub(super) language: Option<String>,
    geometry: Geometry,
    front_end: Front,
    pub(super) tokenizer: Tokenizer,
    pub(super) decoder: Mutex<Decoder>,
    pub(super) calibration: CalibrationConfig,
    pub(super) confidence: Logistic,
    pub(super) lexicon: Option<Arc<Lexicon>>,
    writing: Writing,
    pub(super) device: Device,
    pub(super) arithmetic: Arithmetic,
    pub(super) step_samples: usize,
    listening: Listening,
    chunk: Option<Chunk>,
    batch_frames: usize,
}

/// Memory for the activations of a batch, unless said otherwise.
const BATCH_BYTES: usize = 64 << 20;

impl Transcriber {
    /// Loads the model at `path` onto `device`: a folder of ours, a published one (Parakeet-CTC, wav2vec 2.0, HuBERT), or a `.nemo` file. Decodes as the folder suggests ([`Decoding::of_model`]).
    ///
    /// # Errors
    /// As [`Opened::open`], `model` of what it opens, [`Decoding::of_model`] and [`CalibrationConfig::read`].
    pub fn open(path: &Path, device: Device, precision: Precision) -> Result<Self> {
        let opened = Opened::open(path)?;
        let model = match &opened {
            Opened::Spectral(directory) => AnyModel::Spectral(directory.model(&device)?),
            Opened::Wave(directory) => AnyModel::Wave(directory.model(&device)?),
        };
        Self::with_model(path, &opened, model, device, precision)
    }

    /// As [`Self::open`], with a model made of what was opened at `path`.
    ///
    /// # Errors
    /// As [`Decoding::of_model`] and [`CalibrationConfig::read`].
    pub fn with_model(path: &Path, opened: &Opened, model: AnyModel, device: Device, precision: Precision) -> Result<Self> {
        let (front_end, geometry) = (Front::new(opened)?, Geometry::new(opened));
        let step_samples = geometry.step_samples;
        let chunker = Chunker::new(&geometry.chunks, step_samples)?;
        let decoding = Decoding::of_model(path)?;
        let decoder = Mutex::new(Decoder::new(opened.tokenizer(), &decoding)?);
        let calibration = CalibrationConfig::read(path)?.unwrap_or_default();
        let confidence = calibration.of(&decoding);
        let lexicon = decoding.lexicon();
        let writing = Writing::default();
        let batch_frames = BATCH_BYTES / geometry.frame_bytes;
        // Modules change the weights from pass to pass; a chosen one is packed once it is part of them.
        let (model, arithmetic) = if model.languages().is_some() { (model, precision.into()) } else { model.packed(precision, &device) };
        let (name, tokenizer) = (opened.name().to_string(), opened.tokenizer().clone());
        let listening = Listening { channels: Channels::Mix, voice_activity: None, chunker, limits: Limits::default() };
        Ok(Self {
            name,
            model,
            hearing: Hearing::default(),
            language: None,
            geometry,
            front_end,
            tokenizer,
            decoder,
            calibration,
            confidence,
            lexicon,
            writing,
            device,
            arithmetic,
            step_samples,
            listening,
            chunk: None,
            batch_frames,
        })
    }

    /// Decodes in another way.
    ///
    /// # Errors
    /// As [`Decoder::new`].
    pub fn with_decoding(self, decoding: &Decoding) -> Result<Self> {
        let decoder = Mutex::new(Decoder::new(&self.tokenizer, decoding)?);
        let confidence = self.calibration.of(decoding);
        Ok(Self { decoder, confidence, lexicon: decoding.lexicon(), ..self })
    }

    /// Cuts long recordings in another way.
    ///
    /// # Errors
    /// As [`Chunker::new`].
    pub fn with_chunks(self, config: &ChunkConfig) -> Result<Self> {
        let chunker = Chunker::new(config, self.step_samples)?;
        Ok(Self { listening: Listening { chunker, ..self.listening }, ..self })
    }

    /// Hears as a stream does in chunks of `chunk_ms` milliseconds: with its limited context and its running normalisation, but many recordings
    /// at once. A window then begins like a stream, so windows are longer: a minute, with 6 s of context.
    ///
    /// # Errors
    /// As [`chunk_of`].
    pub fn with_stream_context(self, chunk_ms: u32) -> Result<Self> {
        let chunk = chunk_of(self.spectral()?.0.encoder.config(), self.step_samples, chunk_ms)?;
        Self { chunk: Some(chunk), ..self }.with_chunks(&ChunkConfig { longest_seconds: 60.0, context_seconds: 6.0 })
    }

    /// The parts of a model that hears log-mel features.
    ///
    /// # Errors
    /// [`Error::Config`] where it hears samples.
    pub(super) fn spectral(&self) -> Result<(&AsrModel, &FrontEnd)> {
        match (&self.model, &self.front_end) {
            (AnyModel::Spectral(model), Front::Spectral(front_end)) => Ok((model, front_end)),
            _ => Err(Error::config("chunk", "this model hears samples, not features: it does not stream")),
        }
    }

    /// Writes words in another way than the model says them.
    pub fn with_writing(self, writing: Writing) -> Self {
        Self { writing, ..self }
    }

    /// Listens to other channels than the mix.
    pub fn with_channels(self, channels: Channels) -> Self {
        Self { listening: Listening { channels, ..self.listening }, ..self }
    }

    /// Drops what is no speech, or (`None`) nothing. Libraries hear everything unless they ask for this.
    ///
    /// # Errors
    /// As [`crate::audio::vad::Vad::new`].
    pub fn with_voice_activity(self, options: Option<VadOptions>) -> Result<Self> {
        Gate::new(options.as_ref(), self.listening.chunker.clone())?;
        Ok(Self { listening: Listening { voice_activity: options, ..self.listening }, ..self })
    }

    /// How long recordings are cut for this model, unless said otherwise.
    pub fn chunk_config(&self) -> ChunkConfig {
        self.geometry.chunks
    }

    /// Lets about `bytes` of activations into a batch, but one window at least.
    pub fn with_batch_memory(self, bytes: usize) -> Self {
        let batch_frames = bytes / self.geometry.frame_bytes;
        Self { batch_frames, ..self }
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Parameters of the model, and how many of them work on one step: of the experts of a layer, one.
    pub fn parameters(&self) -> (u64, u64) {
        self.model.parameters()
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Samples of audio at 16 kHz for each step of log-probabilities.
    pub fn step_samples(&self) -> usize {
        self.step_samples
    }

    /// Transcribes one file (`-`: standard input).
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::UnsupportedAudio`], [`Error::CorruptAudio`], [`Error::LimitExceeded`]
    pub fn transcribe(&self, path: &Path) -> Result<Transcript> {
        let mut result = None;
        self.transcribe_all(&[path], &AtomicBool::new(false), |_, transcript| result = Some(transcript), |_| ());
        result.unwrap_or_else(|| Err(Error::config(path, "the recording was lost between two threads")))
    }

    /// Transcribes many files: while the encoder works on one, the next ones are decoded.
    ///
    /// `done` gets each file's number and transcript as soon as it is complete, not always in order; `progress` the seconds of audio recognised
    /// since its last call. Once `stop` is set, no more audio is read: files that are not complete by then are never `done`.
    pub fn transcribe_all<P: AsRef<Path> + Sync>(
        &self,
        paths: &[P],
        stop: &AtomicBool,
        mut done: impl FnMut(usize, Result<Transcript>),
        progress: impl FnMut(f64),
    ) -> Spent {
        let most = self.listening.limits.channels;
        let produce = |feed: &Feed<'_>| {
            for (file, path) in paths.iter().enumerate() {
                let outcome = listen(path.as_ref(), &self.listening, feed, stop, |track| file * most + track);
                let sent = match outcome {
                    Ok(Outcome::Ended) => Ok(()),
                    Ok(Outcome::Stopped) => return,
                    Err(error) => feed.end(file * most, Err(error)),
                };
                if sent.is_err() {
                    return;
                }
            }
        };
        let mut open: HashMap<usize, Vec<(Listened, Vec<Word>)>> = HashMap::new();
        let heard = |recording: usize, outcome: Result<(Listened, Vec<Vec<Word>>)>| {
            let file = recording / most;
            match outcome {
                Err(error) => done(file, Err(error)),
                Ok((listened, words)) => {
                    let tracks = open.entry(file).or_default();
                    let all = listened.tracks;
                    tracks.push((listened, words.into_iter().flatten().collect()));
                    if tracks.len() == all {
                        let tracks = open.remove(&file).unwrap_or_default();
                        done(file, Ok(self.transcript(paths[file].as_ref(), tracks)));
                    }
                }
            }
        };
        self.run(produce, |stretch| self.words(stretch), heard, progress)
    }

    /// What the model hears in mono samples in [-1, 1] at 16 kHz: log-probabilities, region after region.
    pub fn log_probs(&self, samples: &[f32]) -> Vec<Stretch> {
        let mut result = Vec::new();
        let heard = |_, outcome: Result<(Listened, Vec<Stretch>)>| result = outcome.map(|(_, stretches)| stretches).unwrap_or_default();
        self.run(|feed| self.produce_samples(samples, feed), Stretch::clone, heard, |_| ());
        result
    }

    /// Transcribes mono samples in [-1, 1] at 16 kHz.
    pub fn transcribe_samples(&self, samples: &[f32]) -> Transcript {
        let mut result = (Listened::default(), Vec::new());
        let heard = |_, outcome: Result<(Listened, Vec<Vec<Word>>)>| {
            if let Ok((listened, words)) = outcome {
                result = (listened, words.into_iter().flatten().collect());
            }
        };
        self.run(|feed| self.produce_samples(samples, feed), |stretch| self.words(stretch), heard, |_| ());
        self.transcript(Path::new(""), vec![result])
    }

    fn produce_samples(&self, samples: &[f32], feed: &Feed<'_>) {
        // What a gate refuses was refused when the options were set.
        let Ok(mut gate) = Gate::new(self.listening.voice_activity.as_ref(), self.listening.chunker.clone()) else { return };
        let mut windows = Vec::new();
        gate.step(samples, &mut windows);
        gate.flush(&mut windows);
        let sent = windows.iter().try_for_each(|window| feed.window(0, window));
        let listened = Listened { duration: SampleRate::HZ_16000.seconds(samples.len()), tracks: 1, ..Listened::default() };
        // Whoever does not listen any more does not mind.
        let _ = sent.and_then(|()| feed.end(0, Ok(listened)));
    }

    /// Runs a producer of windows beside the encoder; `decode` says what is made of the log-probabilities of a stretch of speech.
    pub(crate) fn run<T>(
        &self,
        produce: impl FnOnce(&Feed<'_>) + Send,
        decode: impl FnMut(&Stretch) -> T,
        done: impl FnMut(usize, Result<(Listened, Vec<T>)>),
        progress: impl FnMut(f64),
    ) -> Spent {
        self.run_by(self.modules(&[]), produce, decode, done, progress)
    }

    /// As [`Self::run`], by the modules that `modules` says.
    pub(crate) fn run_by<T>(
        &self,
        modules: Modules<'_>,
        produce: impl FnOnce(&Feed<'_>) + Send,
        decode: impl FnMut(&Stretch) -> T,
        done: impl FnMut(usize, Result<(Listened, Vec<T>)>),
        progress: impl FnMut(f64),
    ) -> Spent {
        let past = if self.chunk.is_some() { Past::Running } else { Past::Whole };
        let (feed, receiver) = feed(&self.front_end, past);
        let encoding = Encoding {
            model: &self.model,
            device: &self.device,
            arithmetic: &self.arithmetic,
            chunk: self.chunk,
            batch_frames: self.batch_frames,
            step_samples: self.step_samples,
            blank: self.tokenizer.blank(),
            modules,
        };
        std::thread::scope(|scope| {
            let producer = scope.spawn(move || {
                produce(&feed);
                feed.spent()
            });
            let spent = consume(&encoding, &receiver, decode, done, progress);
            let (audio, features) = producer.join().unwrap_or_default();
            Spent { audio, features, ..spent }
        })
    }

    /// A new chunker for a region.
    pub(crate) fn chunker(&self) -> Chunker {
        self.listening.chunker.clone()
    }

    /// Searches the text of a stretch of log-probabilities.
    pub(crate) fn hypothesis(&self, stretch: &Stretch) -> Hypothesis {
        // A panic in another thread leaves the search in some state: each decoding resets it first.
        self.decoder.lock().unwrap_or_else(std::sync::PoisonError::into_inner).decode(stretch)
    }

    /// A file's transcript from the words of its tracks.
    fn transcript(&self, path: &Path, tracks: Vec<(Listened, Vec<Word>)>) -> Transcript {
        let duration = tracks.iter().map(|(listened, _)| listened.duration).fold(0.0, f64::max);
        let language = self.language_of(tracks.iter().map(|(listened, _)| listened));
        let warnings = tracks.iter().flat_map(|(listened, _)| listened.warnings.clone()).collect();
        let track = |(listened, words): (Listened, Vec<Word>)| Track {
            speaker: listened.channel.map(|channel| format!("Channel {channel}")),
            channel: listened.channel,
            words,
        };
        let transcript = Transcript::new(duration, tracks.into_iter().map(track).collect(), &segment::Limits::segments());
        Transcript { file: path.display().to_string(), model: self.name.clone(), language, warnings, ..transcript }
    }

    /// The words of a stretch of log-probabilities, as the lexicon writes them where there is one.
    fn words(&self, stretch: &Stretch) -> Vec<Word> {
        let mut words = self.uncalibrated_words(&self.hypothesis(stretch), stretch);
        words.iter_mut().for_each(|word| word.confidence = self.confidence.apply(word.confidence));
        if let Some(lexicon) = &self.lexicon {
            words.iter_mut().for_each(|word| word.word = lexicon.written(&word.word).to_string());
        }
        self.writing.apply(words)
    }

    /// The words of a hypothesis as the search gives them.
    pub(crate) fn uncalibrated_words(&self, hypothesis: &Hypothesis, stretch: &Stretch) -> Vec<Word> {
        words(&self.tokenizer, hypothesis, stretch, self.step_samples)
    }

    /// What makes probabilities of confidences for the search in use; the model folder says it.
    pub fn confidence_curve(&self) -> Logistic {
        self.confidence
    }

    /// How a recording is heard of which nothing may be left out.
    pub(crate) fn listening_to_everything(&self) -> Listening {
        Listening { voice_activity: None, channels: Channels::Mix, ..self.listening.clone() }
    }
}
