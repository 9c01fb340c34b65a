//! Waveform to log-mel features: one front end, configured, for Kaldi, icefall, Whisper, NeMo and our own models.
//!
//! ```text
//! samples -> framing -> DC removal, pre-emphasis, window (stft) -> power spectrum (stft) -> mel -> logarithm -> normalize
//! ```
//!
//! [`FrontEnd`] computes whole clips, [`FrontEndStream`] the same frames from pieces of any size; both run the same
//! per-frame arithmetic, so the frames are equal bit for bit. Normalisation is a step of its own ([`Normalization::apply`] with
//! [`Statistics`]), because the chunks of a long recording share the statistics of the whole.
//!
//! Features are time-major: `LogMel::values` is `[frames, mels]`, row after row. Samples must be finite.

mod config;
mod framing;
mod log_mel;
mod logarithm;
mod mel;
mod normalize;
mod stft;
mod stream;
mod wave;
mod window;

pub use config::{FrontEndConfig, PreEmphasis};
pub use framing::{Framing, LastFrame, Padding};
pub use log_mel::{FrontEnd, LogMel};
pub use logarithm::{Floor, LogBase, LogScale};
pub use mel::{MelNorm, MelScale, MelTriangles};
pub use normalize::{Normalization, Running, Statistics, normalize_waveform};
pub use stft::Scratch;
pub use stream::FrontEndStream;
pub use wave::WaveFrontEnd;
pub use window::Window;
