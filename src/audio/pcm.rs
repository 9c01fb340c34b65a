//! Plain samples behind a header of our own parsing: integers, floats, mu-law and A-law, interleaved.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::Blocks;
use super::block::{Block, Target};
use super::warnings::Warnings;
use crate::error::{Error, Result};
use crate::units::SampleRate;

/// Byte order of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Little,
    Big,
}

/// How one sample is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// 8-bit with 128 for zero.
    Unsigned8,
    /// Two's complement of 1 to 4 bytes.
    Int { bytes: usize, order: Order },
    /// IEEE 754 of 4 or 8 bytes.
    Float { bytes: usize, order: Order },
    /// G.711 mu-law.
    MuLaw,
    /// G.711 A-law.
    ALaw,
}

impl Encoding {
    /// Bytes of one sample.
    pub fn bytes(self) -> usize {
        match self {
            Self::Int { bytes, .. } | Self::Float { bytes, .. } => bytes,
            Self::Unsigned8 | Self::MuLaw | Self::ALaw => 1,
        }
    }

    /// Appends every whole frame of interleaved samples.
    pub fn read(self, bytes: &[u8], channels: usize, to: Target<'_>) {
        const FULL: f64 = 2_147_483_648.0;
        match self {
            // The formats files mostly have, each with its loop of constant width.
            Self::Int { bytes: 2, order: Order::Little } => read(bytes, channels, to, |b| f32::from(i16::from_le_bytes(b)) / 32768.0),
            Self::Int { bytes: 2, order: Order::Big } => read(bytes, channels, to, |b| f32::from(i16::from_be_bytes(b)) / 32768.0),
            Self::Int { bytes: 3, order: Order::Little } => {
                read(bytes, channels, to, |[a, b, c]| i32::from_le_bytes([0, a, b, c]) as f32 / FULL as f32)
            }
            Self::Int { bytes: 3, order: Order::Big } => {
                read(bytes, channels, to, |[a, b, c]| i32::from_be_bytes([a, b, c, 0]) as f32 / FULL as f32)
            }
            Self::Int { bytes: 4, order: Order::Little } => read(bytes, channels, to, |b| (f64::from(i32::from_le_bytes(b)) / FULL) as f32),
            Self::Int { bytes: 4, order: Order::Big } => read(bytes, channels, to, |b| (f64::from(i32::from_be_bytes(b)) / FULL) as f32),
            Self::Int { .. } => read(bytes, channels, to, |[b]| f32::from(b as i8) / 128.0),
            Self::Unsigned8 => read(bytes, channels, to, |[b]| (f32::from(b) - 128.0) / 128.0),
            Self::Float { bytes: 8, order: Order::Little } => read(bytes, channels, to, |b| f64::from_le_bytes(b) as f32),
            Self::Float { bytes: 8, order: Order::Big } => read(bytes, channels, to, |b| f64::from_be_bytes(b) as f32),
            Self::Float { order: Order::Little, .. } => read(bytes, channels, to, f32::from_le_bytes),
            Self::Float { order: Order::Big, .. } => read(bytes, channels, to, f32::from_be_bytes),
            Self::MuLaw => read(bytes, channels, to, |[b]| mu_law(b)),
            Self::ALaw => read(bytes, channels, to, |[b]| a_law(b)),
        }
    }
}

/// [`Encoding::read`] for samples of `WIDTH` bytes.
fn read<const WIDTH: usize>(bytes: &[u8], channels: usize, to: Target<'_>, sample: impl Fn([u8; WIDTH]) -> f32) {
    let (samples, _) = bytes.as_chunks::<WIDTH>();
    let mono = match to {
        Target::Mean(mono) => mono,
        Target::Each(planes) => {
            let whole = samples.len() / channels * channels;
            for (i, plane) in planes.iter_mut().enumerate() {
                plane.extend(samples[..whole].iter().skip(i).step_by(channels).map(|&b| sample(b)));
            }
            return;
        }
    };
    if channels == 1 {
        mono.extend(samples.iter().map(|&b| sample(b)));
        return;
    }
    let scale = 1.0 / channels as f32;
    mono.extend(samples.chunks_exact(channels).map(|frame| frame.iter().map(|&b| sample(b)).sum::<f32>() * scale));
}

/// ITU-T G.711 mu-law, scaled so that 2^15 of the 16-bit convention is 1.0.
pub(super) fn mu_law(code: u8) -> f32 {
    let code = !code;
    let (exponent, mantissa) = (u32::from(code >> 4) & 7, i32::from(code & 15));
    let magnitude = (((mantissa << 3) + 0x84) << exponent) - 0x84;
    (if code & 0x80 != 0 { -magnitude } else { magnitude }) as f32 / 32768.0
}

/// ITU-T G.711 A-law, scaled so that 2^15 of the 16-bit convention is 1.0.
pub(super) fn a_law(code: u8) -> f32 {
    let code = code ^ 0x55;
    let (exponent, mantissa) = (u32::from(code >> 4) & 7, i32::from(code & 15));
    let magnitude = if exponent == 0 { (mantissa << 4) + 8 } else { ((mantissa << 4) + 0x108) << (exponent - 1) };
    (if code & 0x80 != 0 { magnitude } else { -magnitude }) as f32 / 32768.0
}

/// What a header says about the samples that follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PcmHeader {
    pub encoding: Encoding,
    pub sample_rate: SampleRate,
    pub channels: usize,
    /// Samples per channel, where the header says.
    pub frames: Option<u64>,
}

/// Samples per channel in a block.
const BLOCK: usize = 4096;

/// Interleaved samples from a reader placed after the header.
pub(super) struct Pcm<R> {
    name: PathBuf,
    header: PcmHeader,
    from: R,
    left: u64,
    bytes: Vec<u8>,
}

impl<R: Read> Pcm<R> {
    /// Starts reading at the first sample; the header has been checked against the limits.
    pub fn new(name: &Path, header: PcmHeader, from: R) -> Self {
        let left = header.frames.unwrap_or(u64::MAX);
        Self { name: name.into(), header, from, left, bytes: Vec::new() }
    }
}

impl<R: Read + Send> Blocks for Pcm<R> {
    fn next(&mut self, block: &mut Block, _: &mut Warnings) -> Result<bool> {
        block.clear();
        let (width, channels) = (self.header.encoding.bytes(), self.header.channels);
        let frames = self.left.min(BLOCK as u64);
        self.bytes.clear();
        let want = frames * (width * channels) as u64;
        self.from.by_ref().take(want).read_to_end(&mut self.bytes).map_err(|e| Error::io(&self.name, e))?;
        self.header.encoding.read(&self.bytes, channels, block.target(channels));
        self.left = if (self.bytes.len() as u64) < want { 0 } else { self.left - frames };
        Ok(!block.is_empty())
    }

    fn sample_rate(&self) -> SampleRate {
        self.header.sample_rate
    }

    fn promised(&self) -> Option<u64> {
        self.header.frames
    }
}

#[cfg(test)]
mod tests {
    use super::super::block::Take;
    use super::*;

    #[test]
    fn g711_known_codes() {
        assert_eq!(mu_law(0xff), 0.0);
        assert_eq!(mu_law(0x80), 32124.0 / 32768.0);
        assert_eq!(mu_law(0x00), -32124.0 / 32768.0);
        assert_eq!(a_law(0xd5), 8.0 / 32768.0);
        assert_eq!(a_law(0x2a), -32256.0 / 32768.0);
    }

    #[test]
    fn integers_and_floats_of_both_orders() {
        let one = |encoding: Encoding, bytes: &[u8]| {
            let mut mono = Vec::new();
            encoding.read(bytes, 1, Target::Mean(&mut mono));
            mono
        };
        let int = |bytes, order| Encoding::Int { bytes, order };
        for order in [Order::Little, Order::Big] {
            for (width, value) in [(1usize, i32::MIN), (2, 1 << 30), (3, -(1 << 30)), (4, 1 << 29)] {
                let mut bytes = value.to_be_bytes()[..width].to_vec();
                if order == Order::Little {
                    bytes.reverse();
                }
                assert_eq!(one(int(width, order), &bytes), [(f64::from(value) / 2_147_483_648.0) as f32], "{width} {order:?}");
            }
        }
        assert_eq!(one(Encoding::Unsigned8, &[0, 128, 192]), [-1.0, 0.0, 0.5]);
        let float = |bytes, order| Encoding::Float { bytes, order };
        assert_eq!(one(float(4, Order::Big), &0.25f32.to_be_bytes()), [0.25]);
        assert_eq!(one(float(4, Order::Little), &0.25f32.to_le_bytes()), [0.25]);
        assert_eq!(one(float(8, Order::Big), &0.25f64.to_be_bytes()), [0.25]);
        assert_eq!(one(float(8, Order::Little), &(-0.25f64).to_le_bytes()), [-0.25]);
    }

    #[test]
    fn channels_are_averaged_or_kept_and_a_cut_frame_is_dropped() {
        let header = PcmHeader {
            encoding: Encoding::Int { bytes: 2, order: Order::Little },
            sample_rate: SampleRate(8_000),
            channels: 2,
            frames: Some(100),
        };
        let bytes: Vec<u8> = [16384i16, 0, -16384, 16384].iter().flat_map(|x| x.to_le_bytes()).chain([7, 7, 7]).collect();
        let (mean, each) = (vec![vec![0.25, 0.0]], vec![vec![0.5, -0.5], vec![0.0, 0.5]]);
        for (take, planes) in [(Take::Mean, mean), (Take::Each, each)] {
            let mut pcm = Pcm::new(Path::new("x"), header.clone(), &bytes[..]);
            let mut block = Block::new(take);
            assert!(pcm.next(&mut block, &mut Warnings::default()).unwrap());
            assert_eq!(block.planes(), planes);
            assert!(!pcm.next(&mut block, &mut Warnings::default()).unwrap());
        }
    }
}
