//! Bytes to [`Waveform`]: any audio file, pipe or memory block becomes mono samples at a known rate.
//!
//! ```text
//! path, "-", bytes -> source -> sniff -+-> packets (Symphonia, Opus) -+-> Reader -> Resampler -> Waveform
//!                                      '-> pcm (WAV, SPHERE, AU)     -'
//! ```
//! Everything that comes from a file is checked against [`Limits`] before memory is taken for it; damage in the middle of a
//! file costs the damaged packets, is replaced by silence so that times stay true, and is listed by [`Reader::warnings`].

mod au;
mod block;
mod caf;
mod channels;
mod limits;
mod matroska;
#[cfg(feature = "mic")]
pub mod mic;
mod mp4;
mod opus;
mod opus_packet;
mod packets;
mod pcm;
mod raw;
mod read;
mod recording;
mod resample;
mod riff;
pub mod ring;
mod shorten;
mod sniff;
mod source;
mod sphere;
pub mod vad;
mod warnings;
mod write;

pub use channels::{Channel, Channels, Content, Tracks};
pub use limits::Limits;
pub use raw::{Header, RawFormat, RawShape, RawStream};
pub use read::{Reader, decode, read, read_at};
pub use recording::Recording;
pub use resample::{Resampler, resample};
pub use write::{WavFormat, write_wav};

use crate::units::SampleRate;

/// What [`Reader`] decodes: containers, and the codings in them.
pub const FORMATS: [(&str, &str); 9] = [
    ("WAV, RF64, Wave64", "PCM 8 to 32 bits, float, mu-law, A-law, ADPCM"),
    ("FLAC", "FLAC"),
    ("MP3 and relatives", "MPEG audio layers 1 to 3"),
    ("Ogg", "Vorbis, Opus, FLAC"),
    ("Matroska, WebM", "Opus, Vorbis, AAC, FLAC, MP3, PCM"),
    ("MP4, M4A, MOV", "AAC (LC), ALAC, MP3, PCM"),
    ("AIFF, CAF", "PCM, ALAC, AAC"),
    ("AU", "PCM, mu-law, A-law"),
    ("NIST SPHERE", "PCM, mu-law, A-law, plain or packed with shorten"),
];

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

/// A decoder of one stream: hands out blocks of samples at one rate.
trait Blocks: Send {
    /// Replaces `block` with the next samples (never none); `false` at the end, after which it stays `false`.
    fn next(&mut self, block: &mut block::Block, warnings: &mut warnings::Warnings) -> crate::error::Result<bool>;

    /// Rate of the block handed out last, or the header's before the first.
    fn sample_rate(&self) -> SampleRate;

    /// Number of samples per channel the header promises, where it does.
    fn promised(&self) -> Option<u64>;
}
