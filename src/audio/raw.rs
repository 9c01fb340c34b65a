//! Samples from a pipe as they come: plain PCM, or a WAV header and PCM as `arecord` sends it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::block::{Block, Take};
use super::limits::Limits;
use super::pcm::{Encoding, Order, PcmHeader};
use super::riff::{self, Riff};
use crate::error::{Error, Result};
use crate::units::SampleRate;

/// Most bytes taken at once; a pipe gives what it has.
const BYTES: usize = 8192;

/// How the samples of a pipe are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawFormat(Encoding);

impl Default for RawFormat {
    /// 16-bit integers, little-endian.
    fn default() -> Self {
        Self(Encoding::Int { bytes: 2, order: Order::Little })
    }
}

impl FromStr for RawFormat {
    type Err = Error;

    /// `s16le` and its relatives, in the spellings of ffmpeg (`s16le`) and ALSA (`S16_LE`).
    fn from_str(name: &str) -> Result<Self> {
        let plain: String = name.to_ascii_lowercase().chars().filter(|c| c.is_ascii_alphanumeric()).collect();
        let int = |bytes, order| Encoding::Int { bytes, order };
        let float = |bytes, order| Encoding::Float { bytes, order };
        let encoding = match plain.as_str() {
            "u8" => Encoding::Unsigned8,
            "s8" => int(1, Order::Little),
            "s16le" | "s16" => int(2, Order::Little),
            "s16be" => int(2, Order::Big),
            "s243le" | "s24le" => int(3, Order::Little),
            "s243be" | "s24be" => int(3, Order::Big),
            "s32le" | "s32" => int(4, Order::Little),
            "s32be" => int(4, Order::Big),
            "floatle" | "f32le" | "f32" => float(4, Order::Little),
            "floatbe" | "f32be" => float(4, Order::Big),
            "float64le" | "f64le" => float(8, Order::Little),
            "float64be" | "f64be" => float(8, Order::Big),
            "mulaw" => Encoding::MuLaw,
            "alaw" => Encoding::ALaw,
            _ => {
                let known = "u8, s8, s16le, s24le, s32le, f32le, f64le, their big-endian relatives, mulaw, alaw";
                return Err(Error::config("format", format!("{name:?} is none of {known}")));
            }
        };
        Ok(Self(encoding))
    }
}

/// What is known of a pipe beforehand; a WAV header in it counts more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawShape {
    /// Samples per second.
    pub rate: SampleRate,
    /// Of each sample.
    pub format: RawFormat,
    /// Interleaved; their mean is heard.
    pub channels: usize,
    /// Whether a WAV header is looked for.
    pub header: Header,
}

/// What may stand before the samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// A WAV header, perhaps.
    Perhaps,
    /// Nothing.
    None,
}

/// A pipe of samples.
pub struct RawStream {
    name: PathBuf,
    from: Box<dyn Read + Send>,
    header: PcmHeader,
    /// Bytes of a frame that is not complete.
    pending: Vec<u8>,
    block: Block,
    /// Bytes that are left, where a header says.
    left: u64,
}

impl RawStream {
    /// Opens a file, a fifo or standard input (`-`); waits for its first bytes.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::LimitExceeded`] for an impossible rate, and what the header of a WAV file can be wrong with.
    pub fn open(path: &Path, shape: RawShape, limits: &Limits) -> Result<Self> {
        let from: Box<dyn Read + Send> =
            if path.as_os_str() == "-" { Box::new(io::stdin()) } else { Box::new(File::open(path).map_err(|e| Error::io(path, e))?) };
        Self::new(path, from, shape, limits)
    }

    /// Reads from anything.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn new(name: &Path, mut from: Box<dyn Read + Send>, shape: RawShape, limits: &Limits) -> Result<Self> {
        limits.check(name, shape.rate, shape.channels)?;
        let mut head = Vec::new();
        from.by_ref().take(4).read_to_end(&mut head).map_err(|e| Error::io(name, e))?;
        let plain = PcmHeader { encoding: shape.format.0, sample_rate: shape.rate, channels: shape.channels, frames: None };
        let (header, pending) = if shape.header == Header::Perhaps && [&b"RIFF"[..], b"RF64", b"RIFX"].contains(&head.as_slice()) {
            match riff::read_header(name, limits, &mut head.as_slice().chain(&mut from))? {
                Riff::Pcm(header) => (header, Vec::new()),
                Riff::Compressed(tag) => {
                    let reason = format!("WAV with format {tag}: a pipe must be plain samples");
                    return Err(Error::UnsupportedAudio { path: name.into(), reason });
                }
            }
        } else {
            (plain, head)
        };
        let frame = (header.encoding.bytes() * header.channels) as u64;
        let left = header.frames.map_or(u64::MAX, |frames| frames.saturating_mul(frame));
        Ok(Self { name: name.into(), from, header, pending, block: Block::new(Take::Mean), left })
    }

    /// Samples per second.
    pub fn sample_rate(&self) -> SampleRate {
        self.header.sample_rate
    }

    /// Waits for samples and gives what came, the mean of the channels; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn next_block(&mut self) -> Result<Option<&[f32]>> {
        let frame = self.header.encoding.bytes() * self.header.channels;
        let mut bytes = [0; BYTES];
        loop {
            let whole = self.pending.len() / frame * frame;
            if whole > 0 {
                self.block.clear();
                self.header.encoding.read(&self.pending[..whole], self.header.channels, self.block.target(self.header.channels));
                self.pending.drain(..whole);
                break;
            }
            let most = usize::try_from(self.left).unwrap_or(BYTES).min(BYTES);
            let count = match self.from.read(&mut bytes[..most]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other.map_err(|e| Error::io(&self.name, e))?,
            };
            if count == 0 {
                return Ok(None);
            }
            self.left -= count as u64;
            self.pending.extend_from_slice(&bytes[..count]);
        }
        Ok(self.block.planes().first().map(Vec::as_slice))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time, as a pipe may.
    struct Drip(Vec<u8>, usize);

    impl Read for Drip {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            let n = to.len().min(self.0.len()).min(1 + self.1 % 7);
            self.1 += 1;
            to[..n].copy_from_slice(&self.0[..n]);
            self.0.drain(..n);
            Ok(n)
        }
    }

    fn all(bytes: Vec<u8>, format: &str, channels: usize) -> (SampleRate, Vec<f32>) {
        let shape = RawShape { rate: SampleRate(8_000), format: format.parse().unwrap(), channels, header: Header::Perhaps };
        let mut stream = RawStream::new(Path::new("-"), Box::new(Drip(bytes, 0)), shape, &Limits::default()).unwrap();
        let mut samples = Vec::new();
        while let Some(block) = stream.next_block().unwrap() {
            samples.extend_from_slice(block);
        }
        (stream.sample_rate(), samples)
    }

    #[test]
    fn formats_and_channels() {
        let bytes: Vec<u8> = [16384i16, 0, -16384, -16384].iter().flat_map(|x| x.to_le_bytes()).chain([1]).collect();
        assert_eq!(all(bytes.clone(), "s16le", 1), (SampleRate(8_000), vec![0.5, 0.0, -0.5, -0.5]));
        assert_eq!(all(bytes, "S16_LE", 2).1, [0.25, -0.5]);
        let floats: Vec<u8> = [0.25f32, -1.0].iter().flat_map(|x| x.to_be_bytes()).collect();
        assert_eq!(all(floats, "FLOAT_BE", 1).1, [0.25, -1.0]);
        assert_eq!(all(vec![0, 0, 64, 0, 0, 192], "S24_3LE", 1).1, [0.5, -0.5]);
        assert!("s17".parse::<RawFormat>().is_err());
    }

    #[test]
    fn a_wav_header_counts_more() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let wave = crate::audio::Waveform { samples: vec![0.5, -0.25, 0.0], sample_rate: SampleRate(22_050) };
        crate::audio::write_wav(file.path(), &wave, crate::audio::WavFormat::Int16).unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        assert_eq!(all(bytes, "f32le", 2), (SampleRate(22_050), wave.samples));
    }
}
