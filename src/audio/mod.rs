//! Bytes to [`Waveform`]: any audio file, pipe or memory block becomes mono samples at a known rate.
//!
//! ```text
//! path, "-", bytes -> source -> sniff -+-> packets (Symphonia, Opus) -+-> Reader -> Resampler -> Waveform
//!                                      '-> pcm (WAV, SPHERE, AU)     -'
//! ```
//! Everything that comes from a file is checked against [`Limits`] before memory is taken for it; damage in the middle of a
//! file costs the damaged packets, is replaced by silence so that times stay true, and is listed by [`Reader::warnings`].

mod au;
mod caf;
mod limits;
mod matroska;
mod mp4;
mod opus;
mod opus_packet;
mod packets;
mod pcm;
mod read;
mod resample;
mod riff;
mod sniff;
mod source;
mod sphere;
mod warnings;
mod write;

pub use limits::Limits;
pub use read::{Reader, decode, read, read_at};
pub use resample::{Resampler, resample};
pub use write::{WavFormat, write_wav};

use crate::units::SampleRate;

/// Mono PCM.
///
/// # Units
/// Full scale is 1.0: every sample a [`Reader`] gives is finite and in [-1, 1].
#[derive(Debug, Clone, PartialEq)]
pub struct Waveform {
    /// The samples, one channel.
    pub samples: Vec<f32>,
    /// Samples per second.
    pub sample_rate: SampleRate,
}

impl Waveform {
    /// Duration in seconds.
    pub fn seconds(&self) -> f64 {
        self.sample_rate.seconds(self.samples.len())
    }
}

/// A decoder of one stream: hands out blocks of mono samples at one rate.
trait Blocks: Send {
    /// Replaces `mono` with the next block (never empty); `false` at the end, after which it stays `false`.
    fn next(&mut self, mono: &mut Vec<f32>, warnings: &mut warnings::Warnings) -> crate::error::Result<bool>;

    /// Rate of the block handed out last, or the header's before the first.
    fn sample_rate(&self) -> SampleRate;

    /// Number of samples per channel the header promises, where it does.
    fn promised(&self) -> Option<u64>;
}
