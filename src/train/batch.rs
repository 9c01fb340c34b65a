//! From a batch plan to features and targets on the host; runs on loader threads.

use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::audio::{self, Limits};
use crate::dataset::augment::{Augmenter, Clips, Sounds, SpeedKind};
use crate::dataset::corpus::CachedClips;
use crate::dataset::spec_augment::resample_frames;
use crate::dataset::{BatchPlan, Clip, Corpus, DropReason, FilterConfig, PcmCache, Progress, Row, SourceConfig, SpecAugmentConfig};
use crate::error::{Error, Result};
use crate::features::{FrontEnd, LogMel, Scratch};
use crate::model::pass::Chunk;
use crate::text::{TextForm, Tokenizer};
use crate::train::context::ContextDraw;
use crate::units::SampleRate;

/// A batch ready for the device.
#[derive(Debug, Clone, PartialEq)]
pub struct HostBatch {
    /// Normalised features `[rows, frames, mels]`, zeros in the padding.
    pub features: Vec<f32>,
    /// Padded frames per row.
    pub frames: usize,
    /// Valid frames per row.
    pub lengths: Vec<usize>,
    /// Tokens per row.
    pub targets: Vec<Vec<u32>>,
    /// Unpadded audio, seconds.
    pub seconds: f64,
    /// The context it is trained with; `None` is the encoder's own.
    pub chunk: Option<Chunk>,
    /// Where in the order of batches this one stands.
    pub plan: BatchPlan,
}

/// The utterances of some manifests with their audio decoded.
#[derive(Debug)]
pub struct Speech {
    /// Manifest lines that are used.
    pub corpus: Corpus,
    /// Audio of each, in order.
    pub clips: Arc<[Clip]>,
    /// Where the audio is.
    pub cache: Arc<PcmCache>,
}

/// Decodes `path` to 16 kHz mono.
fn decode(path: &Path) -> Result<Vec<f32>> {
    Ok(audio::read_at(path, SampleRate::HZ_16000, &Limits::default())?.samples)
}

impl Speech {
    /// Reads manifests and decodes their audio into the cache (or finds it there). Utterances whose text leaves nothing to say are dropped.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Manifest`], [`Error::Config`]
    pub fn load(
        sources: &[SourceConfig],
        filter: &FilterConfig,
        form: TextForm,
        cache: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self> {
        let mut corpus = Corpus::load(sources, filter)?;
        corpus.retain(DropReason::EmptyText, |u| filter.keep_empty_text || form.target(&u.entry.text).is_some());
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let (cache, report) = PcmCache::build(cache, &corpus.audio_files(), threads, &decode, progress)?;
        for (path, reason) in &report.failed {
            log(format_args!("left out {}: {reason}", path.display()));
        }
        let clips = corpus.locate(&cache).into();
        Ok(Self { corpus, clips, cache: Arc::new(cache) })
    }

    /// The clips as sounds for augmentation.
    pub fn sounds(&self) -> CachedClips {
        CachedClips::new(self.cache.clone(), self.clips.clone())
    }

    /// Samples of utterance `index`.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::CorruptAudio`]
    pub fn read(&self, index: usize, out: &mut Vec<f32>) -> Result<()> {
        self.cache.read(&self.clips[index].audio, self.clips[index].samples.clone(), out)
    }
}

/// A line on standard error: training reports while it runs.
pub(crate) fn log(line: std::fmt::Arguments<'_>) {
    eprintln!("{line}");
}

/// Noise clips and impulse responses of a manifest (`kind` = `noise`, `rir`).
///
/// # Errors
/// [`Error::Io`], [`Error::Manifest`], and what decoding gives.
pub fn read_sounds(manifest: &Path, voices: Arc<dyn Clips>) -> Result<Sounds> {
    let mut noises: Vec<Vec<f32>> = Vec::new();
    let mut rooms = Vec::new();
    for entry in crate::dataset::manifest::read(manifest, crate::dataset::TextRule::Optional)? {
        let samples = decode(&entry.audio)?;
        match entry.kind.as_deref() {
            Some("rir") => rooms.push(samples),
            _ => noises.push(samples),
        }
    }
    Ok(Sounds { noises: Some(Arc::new(noises)), voices: Some(voices), rooms: Arc::new(rooms) })
}

/// Builds host batches.
pub struct Preparer {
    clips: Arc<dyn Clips>,
    targets: Vec<Vec<u32>>,
    augmenter: Augmenter,
    spec_augment: SpecAugmentConfig,
    front_end: FrontEnd,
    contexts: ContextDraw,
    speed: SpeedKind,
    idle: Mutex<Vec<Buffers>>,
}

/// Buffers of one thread.
struct Buffers {
    scratch: Scratch,
    samples: Vec<f32>,
    mel: LogMel,
    stretched: Vec<f32>,
}

impl Preparer {
    /// A preparer for utterances `clips` with `targets` in the same order.
    pub fn new(
        clips: Arc<dyn Clips>,
        targets: Vec<Vec<u32>>,
        augmenter: Augmenter,
        spec_augment: SpecAugmentConfig,
        front_end: FrontEnd,
        contexts: ContextDraw,
    ) -> Self {
        let speed = augmenter.config().speed.kind;
        Self { clips, targets, augmenter, spec_augment, front_end, contexts, speed, idle: Mutex::new(Vec::new()) }
    }

    /// The batch of a plan; depends on the plan alone.
    ///
    /// # Errors
    /// Whatever reading audio gives.
    pub fn prepare(&self, plan: &BatchPlan) -> Result<HostBatch> {
        let mut buffers = self.take();
        let chunk = self.contexts.draw(plan.position);
        let mels = self.front_end.config().mels;
        let mut features = vec![0.0f32; plan.rows.len() * plan.frames * mels];
        let mut lengths = Vec::with_capacity(plan.rows.len());
        for (row, out) in plan.rows.iter().zip(features.chunks_exact_mut((plan.frames * mels).max(1))) {
            self.row(row, &mut buffers, mels, chunk)?;
            let values = if buffers.stretched.is_empty() { &buffers.mel.values } else { &buffers.stretched };
            let frames = (values.len() / mels).min(plan.frames);
            out[..frames * mels].copy_from_slice(&values[..frames * mels]);
            lengths.push(frames);
        }
        if let Ok(mut idle) = self.idle.lock() {
            idle.push(buffers);
        }
        let targets = plan.rows.iter().map(|r| self.targets[r.key.utterance].clone()).collect();
        let seconds = lengths.iter().sum::<usize>() as f64 * self.front_end.config().hop as f64 / f64::from(SampleRate::HZ_16000.0);
        Ok(HostBatch { features, frames: plan.frames, lengths, targets, seconds, chunk, plan: plan.clone() })
    }

    /// Features of one row in `buffers.mel`, or in `buffers.stretched` where the row's speed is a matter of frames.
    fn row(&self, row: &Row, buffers: &mut Buffers, mels: usize, chunk: Option<Chunk>) -> Result<()> {
        let index = row.key.utterance;
        self.clips.read(index, 0..self.clips.samples(index), &mut buffers.samples)?;
        self.augmenter.apply(row, &mut buffers.samples)?;
        if chunk.is_some() {
            self.front_end.compute_running_into(&buffers.samples, &mut buffers.scratch, &mut buffers.mel);
        } else {
            self.front_end.compute_into(&buffers.samples, &mut buffers.scratch, &mut buffers.mel);
        }
        buffers.mel.truncate(self.front_end.valid_frames(buffers.samples.len()));
        buffers.stretched.clear();
        let features = if self.speed == SpeedKind::Frames && row.speed != 1.0 {
            resample_frames(&buffers.mel.values, mels, row.speed, &mut buffers.stretched);
            &mut buffers.stretched
        } else {
            &mut buffers.mel.values
        };
        self.spec_augment.apply(row.key, features, mels);
        Ok(())
    }

    fn take(&self) -> Buffers {
        let idle = self.idle.lock().ok().and_then(|mut idle| idle.pop());
        idle.unwrap_or_else(|| Buffers {
            scratch: self.front_end.scratch(),
            samples: Vec::new(),
            mel: LogMel { values: Vec::new(), frames: 0, mels: self.front_end.config().mels },
            stretched: Vec::new(),
        })
    }
}

/// Tokens of every utterance; one that the tokenizer cannot spell is an error that names it.
///
/// # Errors
/// [`Error::Manifest`]
pub fn encode_targets(corpus: &Corpus, form: TextForm, tokenizer: &Tokenizer, sources: &[SourceConfig]) -> Result<Vec<Vec<u32>>> {
    let encode = |u: &crate::dataset::corpus::Utterance| {
        let text = form.target(&u.entry.text).unwrap_or_default();
        tokenizer.encode(&text).map_err(|e| Error::Manifest {
            path: sources.get(u.source).map(|s| s.path.clone()).unwrap_or_default(),
            line: u.entry.line,
            reason: e.to_string(),
        })
    };
    corpus.utterances.iter().map(encode).collect()
}

/// Mean and standard deviation of every mel band over about `clips` utterances, evenly chosen.
///
/// # Errors
/// Whatever reading audio gives.
pub fn feature_statistics(speech: &Speech, front_end: &FrontEnd, clips: usize) -> Result<(Vec<f32>, Vec<f32>)> {
    let mels = front_end.config().mels;
    let (mut sums, mut squares, mut frames) = (vec![0.0f64; mels], vec![0.0f64; mels], 0usize);
    let mut samples = Vec::new();
    let stride = (speech.clips.len() / clips.max(1)).max(1);
    for index in (0..speech.clips.len()).step_by(stride) {
        speech.read(index, &mut samples)?;
        let mel = front_end.log_mel(&samples);
        for row in mel.values.chunks_exact(mels) {
            for (i, v) in row.iter().enumerate() {
                sums[i] += f64::from(*v);
                squares[i] += f64::from(*v) * f64::from(*v);
            }
        }
        frames += mel.frames;
    }
    let n = frames.max(1) as f64;
    let mean: Vec<f32> = sums.iter().map(|s| (s / n) as f32).collect();
    let std = squares.iter().zip(&sums).map(|(q, s)| ((q / n - (s / n).powi(2)).max(1e-8)).sqrt() as f32).collect();
    Ok((mean, std))
}
