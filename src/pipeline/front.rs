//! The front end of any model: what its encoder gets of a window of samples.

use crate::checkpoint::Opened;
use crate::error::Result;
use crate::features::{FrontEnd, LogMel, WaveFrontEnd};
use crate::pipeline::chunk::ChunkConfig;
use crate::units::SampleRate;

/// Samples to features.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there is one of it, not many")]
pub enum Front {
    /// Log-mel features.
    Spectral(FrontEnd),
    /// The samples themselves.
    Wave(WaveFrontEnd),
}

/// What normalisation knows of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// All of it.
    Whole,
    /// Of every frame, what came before it: as in a stream.
    Running,
}

/// How a model takes time and memory.
#[derive(Debug, Clone, Copy)]
pub struct Geometry {
    /// Samples from one step to the next.
    pub step_samples: usize,
    /// How long recordings are cut, unless said otherwise.
    pub chunks: ChunkConfig,
    /// Bytes of activations for each frame.
    pub frame_bytes: usize,
}

impl Front {
    /// The front end of a model.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config)
    pub fn new(opened: &Opened) -> Result<Self> {
        Ok(match opened {
            Opened::Spectral(directory) => Self::Spectral(FrontEnd::new(directory.config.front_end.clone())?),
            Opened::Wave(directory) => Self::Wave(directory.config.wave_front_end.clone()),
        })
    }

    /// Normalised features of a window, without frames that are no part of it. A front end of samples knows no `past`.
    pub fn compute(&self, samples: &[f32], past: Past) -> LogMel {
        match self {
            Self::Spectral(front_end) => {
                let (mut features, mut scratch) = (LogMel::default(), front_end.scratch());
                match past {
                    Past::Whole => front_end.compute_into(samples, &mut scratch, &mut features),
                    Past::Running => front_end.compute_running_into(samples, &mut scratch, &mut features),
                }
                features.truncate(front_end.valid_frames(samples.len()));
                features
            }
            Self::Wave(front_end) => front_end.compute(samples),
        }
    }
}

impl Geometry {
    /// Of a model.
    pub fn new(opened: &Opened) -> Self {
        match opened {
            Opened::Spectral(directory) => {
                let encoder = &directory.config.encoder;
                let step_samples = directory.config.front_end.hop * encoder.subsampling.factor();
                let per_step = 4 * (10 * encoder.d_model + 3 * encoder.d_ff);
                Self {
                    step_samples,
                    chunks: chunks(encoder.receptive_field(), step_samples),
                    frame_bytes: per_step.div_ceil(encoder.subsampling.factor()),
                }
            }
            Opened::Wave(directory) => {
                let encoder = &directory.config.wave_encoder;
                // The first convolution's output is the largest thing there is: it, its windows and its norm.
                let first = encoder.convolutions.first().map_or(1, |c| 16 * c.width / c.stride.max(1));
                Self { step_samples: encoder.step_samples(), chunks: ChunkConfig::default(), frame_bytes: first.max(1) }
            }
        }
    }
}

/// Windows for a model: where its context is limited, all of it, so that the output is that of the recording as a whole.
fn chunks(receptive_field: Option<(usize, usize)>, step_samples: usize) -> ChunkConfig {
    let default = ChunkConfig::default();
    let Some((left, right)) = receptive_field else { return default };
    let context_seconds = SampleRate::HZ_16000.seconds(left.max(right).saturating_mul(step_samples));
    ChunkConfig { context_seconds, longest_seconds: default.longest_seconds.max(4.0 * context_seconds) }
}
