//! Waveform augmentation: what happens between a mouth and a recogniser, in that order.
//!
//! speed, reverberation, noise, gain, clipping, telephone channel, codec. Each stage draws from its own stream of the row's randomness, so a row
//! sounds the same in any order, on any thread, and whatever the other stages are set to.

pub mod channel;
pub mod codec;
pub mod convolve;
pub mod noise;
pub mod reverb;
pub mod speed;

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

pub use channel::{ClippingConfig, GainConfig, TelephoneConfig};
pub use codec::CodecConfig;
pub use convolve::Convolver;
pub use noise::NoiseConfig;
pub use reverb::ReverbConfig;
pub use speed::{SpeedConfig, SpeedKind};

use super::bucket::Row;
use super::refuse;
use super::rng::Purpose;
use crate::error::Result;

/// A numbered collection of sounds at 16 kHz, read on demand.
pub trait Clips: Send + Sync {
    /// Number of clips.
    fn count(&self) -> usize;
    /// Samples of a clip.
    fn samples(&self, index: usize) -> usize;
    /// Replaces `out` by a part of a clip.
    ///
    /// # Errors
    /// Whatever reading it gives.
    fn read(&self, index: usize, range: Range<usize>, out: &mut Vec<f32>) -> Result<()>;
}

impl Clips for Vec<Vec<f32>> {
    fn count(&self) -> usize {
        self.len()
    }

    fn samples(&self, index: usize) -> usize {
        self[index].len()
    }

    fn read(&self, index: usize, range: Range<usize>, out: &mut Vec<f32>) -> Result<()> {
        out.clear();
        out.extend_from_slice(&self[index][range]);
        Ok(())
    }
}

/// Recorded sounds the augmentation may use.
#[derive(Clone, Default)]
pub struct Sounds {
    /// Background noise.
    pub noises: Option<Arc<dyn Clips>>,
    /// The utterances of the corpus, by their index in it: babble is made of others than the row's own.
    pub voices: Option<Arc<dyn Clips>>,
    /// Impulse responses of rooms.
    pub rooms: Arc<Vec<Vec<f32>>>,
}

/// Every stage with its probability; all are off by default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentConfig {
    /// Change of speed; drawn by the planner, because it changes lengths.
    pub speed: SpeedConfig,
    /// Room.
    pub reverb: ReverbConfig,
    /// Background.
    pub noise: NoiseConfig,
    /// Level.
    pub gain: GainConfig,
    /// Overdriven input.
    pub clipping: ClippingConfig,
    /// Telephone line.
    pub telephone: TelephoneConfig,
    /// Low-rate coding.
    pub codec: CodecConfig,
}

impl AugmentConfig {
    /// Checks every stage.
    ///
    /// # Errors
    /// [`crate::Error::Config`] naming field, value and rule.
    pub fn validate(&self) -> Result<()> {
        self.speed.validate()?;
        self.reverb.validate()?;
        self.noise.validate()?;
        self.gain.validate()?;
        self.clipping.validate()?;
        self.telephone.validate()?;
        self.codec.validate()
    }
}

/// Buffers and FFT plans of one call at a time.
#[derive(Default)]
pub(crate) struct Workspace {
    convolver: Convolver,
    speed: speed::Resampler,
    sound: Vec<f32>,
    other: Vec<f32>,
}

/// Applies an [`AugmentConfig`]; shared between threads.
pub struct Augmenter {
    config: AugmentConfig,
    sounds: Sounds,
    /// As many as threads have called at once. They hold no state that a result could depend on.
    workspaces: Mutex<Vec<Workspace>>,
}

impl Augmenter {
    /// An augmenter with the sounds its configuration needs.
    ///
    /// # Errors
    /// [`crate::Error::Config`]: a stage breaks its rules, or needs sounds that were not given.
    pub fn new(config: AugmentConfig, sounds: Sounds) -> Result<Self> {
        config.validate()?;
        let none = |clips: &Option<Arc<dyn Clips>>| clips.as_ref().is_none_or(|c| c.count() == 0);
        let noise = &config.noise;
        if noise.probability > 0.0 && noise.recorded > 0.0 && none(&sounds.noises) {
            return Err(refuse("noise.recorded", noise.recorded, "needs recordings of noise"));
        }
        if noise.probability > 0.0 && noise.babble > 0.0 && sounds.voices.as_ref().is_none_or(|c| c.count() < 2) {
            return Err(refuse("noise.babble", noise.babble, "needs at least two utterances"));
        }
        if config.reverb.probability > 0.0 && config.reverb.recorded > 0.0 && sounds.rooms.is_empty() {
            return Err(refuse("reverb.recorded", config.reverb.recorded, "needs recorded impulse responses"));
        }
        Ok(Self { config, sounds, workspaces: Mutex::default() })
    }

    /// The configuration.
    pub fn config(&self) -> &AugmentConfig {
        &self.config
    }

    /// Augments the samples of `row`'s utterance in place; their number changes only with the row's speed, to [`speed::resampled_len`].
    ///
    /// Levels above 1 are possible: nothing is clipped unless a stage does it.
    ///
    /// # Errors
    /// Whatever reading a recorded sound gives.
    pub fn apply(&self, row: &Row, samples: &mut Vec<f32>) -> Result<()> {
        let idle = || self.workspaces.lock().unwrap_or_else(PoisonError::into_inner);
        let mut workspace = idle().pop().unwrap_or_default();
        let result = self.apply_with(row, samples, &mut workspace);
        idle().push(workspace);
        result
    }

    fn apply_with(&self, row: &Row, samples: &mut Vec<f32>, workspace: &mut Workspace) -> Result<()> {
        let config = &self.config;
        if config.speed.kind == SpeedKind::Resample && row.speed != 1.0 {
            workspace.speed.resample(samples, row.speed, &mut workspace.sound);
            std::mem::swap(samples, &mut workspace.sound);
        }
        if samples.is_empty() {
            return Ok(());
        }
        let stage = |number: u64| row.key.rng(Purpose::Wave).fork(number);
        config.reverb.apply(samples, &self.sounds.rooms, &mut stage(1), workspace);
        config.noise.apply(samples, &self.sounds, row.key.utterance, &mut stage(2), workspace)?;
        config.gain.apply(samples, &mut stage(3));
        config.clipping.apply(samples, &mut stage(4));
        config.telephone.apply(samples, &mut stage(5), &mut workspace.convolver);
        config.codec.apply(samples, &mut stage(6), &mut workspace.convolver);
        Ok(())
    }
}

/// Mean square; 0 for no samples.
pub(crate) fn power(samples: &[f32]) -> f32 {
    // Eight running sums: independent additions, so that the loop vectorises and large clips lose no precision.
    let mut sums = [0.0_f32; 8];
    let chunks = samples.chunks_exact(8);
    let rest: f32 = chunks.remainder().iter().map(|x| x * x).sum();
    chunks.for_each(|chunk| sums.iter_mut().zip(chunk).for_each(|(sum, x)| *sum += x * x));
    (sums.iter().sum::<f32>() + rest) / samples.len().max(1) as f32
}

/// Factor of `db` decibels on an amplitude.
pub(crate) fn amplitude(db: f32) -> f32 {
    10_f32.powf(db / 20.0)
}
