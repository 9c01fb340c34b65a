//! Shorten, the lossless coder inside SPHERE files: linear prediction, Rice-coded residuals (versions 1 to 3).
//!
//! The bit stream is that of T. Robinson, "SHORTEN: Simple lossless and near-lossless waveform compression", Cambridge University
//! Engineering Department CUED/F-INFENG/TR.156, 1994, with the running mean of version 2. Integers are Rice codes `u(n)`: a run of
//! zeros closed by a one, then `n` low bits; signed ones `s(n)` fold the sign into the lowest bit of `u(n + 1)`; header fields `U` are
//! `u(n)` with `n` sent before as `u(2)`.

mod bits;

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::Blocks;
use super::block::{Block, Target};
use super::limits::{Limits, exceeded};
use super::pcm::{Encoding, PcmHeader, a_law, mu_law};
use super::warnings::Warnings;
use crate::error::{Error, Result};
use crate::units::SampleRate;
use bits::{Bits, Step, Stop};

/// First bytes of a stream, before its version.
const MAGIC: &[u8; 4] = b"ajkg";
/// Samples of history kept before a block where the prediction order is lower: the polynomial predictors need three.
const LEAST_HISTORY: usize = 3;
/// Highest prediction order of the published encoder.
const MOST_ORDER: u32 = 64;
/// Largest block accepted; encoders write 256.
const MOST_BLOCK: u32 = 65_535;
/// Most block means averaged; encoders write 0 or 4.
const MOST_MEANS: u32 = 1024;
/// Most bytes of a header stored in the stream: SPHERE streams have none, other files some tens.
const MOST_SKIPPED: u32 = 1 << 16;
/// Most low bits of a residual.
const MOST_RESIDUAL_BITS: u32 = 30;
/// Fraction bits of a prediction coefficient.
const COEFFICIENT_BITS: u32 = 5;

/// What the decoded integers stand for, by the stream's file type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    Signed8,
    Unsigned8,
    Signed16,
    Unsigned16,
    /// Types 7 and 10: a companded file coded near-losslessly as 13-bit linear.
    Linear13,
    /// Types 0 and 8: codes of 8-bit companded samples in order of their level. The second has the negative zero in its place.
    Levels {
        negative_zero: bool,
    },
    /// Type 9: A-law in order of level.
    ALawLevels,
}

impl Values {
    /// Of a file type; high-low and low-high order differ only in the file that was packed.
    fn from_type(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Levels { negative_zero: false },
            1 => Self::Signed8,
            2 => Self::Unsigned8,
            3 | 5 => Self::Signed16,
            4 | 6 => Self::Unsigned16,
            7 | 10 => Self::Linear13,
            8 => Self::Levels { negative_zero: true },
            9 => Self::ALawLevels,
            _ => return None,
        })
    }

    /// Mean before the first block.
    fn first_mean(self) -> i32 {
        match self {
            Self::Unsigned8 => 0x80,
            Self::Unsigned16 => 0x8000,
            _ => 0,
        }
    }
}

/// One channel: the block being decoded behind its history, and the means of the last blocks.
struct Track {
    samples: Vec<i32>,
    means: Vec<i32>,
}

/// A shorten stream placed at its magic, behind a SPHERE header.
pub(super) struct Shorten<R> {
    name: PathBuf,
    header: PcmHeader,
    bits: Bits<R>,
    version: u8,
    values: Values,
    history: usize,
    block: usize,
    shift: u32,
    /// Companded code of each level at the present shift.
    codes: [u8; 256],
    tracks: Vec<Track>,
    left: u64,
    ended: bool,
}

impl<R: Read> Shorten<R> {
    /// Reads the stream's header.
    ///
    /// # Errors
    /// [`Error::CorruptAudio`] for a header that is cut or contradicts the SPHERE header, [`Error::UnsupportedAudio`] for another
    /// version or sample type, [`Error::LimitExceeded`], [`Error::Io`].
    pub fn open(name: &Path, limits: &Limits, header: PcmHeader, from: R) -> Result<Self> {
        let corrupt = |reason: String| Error::CorruptAudio { path: name.into(), at: None, reason: format!("shorten: {reason}") };
        let unsupported = |reason: String| Error::UnsupportedAudio { path: name.into(), reason: format!("shorten {reason}") };
        let stopped = |stop: Stop| match stop {
            Stop::Io(e) => Error::io(name, e),
            Stop::Damaged(reason) => corrupt(reason.into()),
            Stop::End => corrupt("the stream is empty".into()),
        };
        let mut bits = Bits::new(from);
        for &byte in MAGIC {
            if bits.take(8).map_err(stopped)? != u32::from(byte) {
                return Err(corrupt("the stream does not start with \"ajkg\"".into()));
            }
        }
        let version = bits.take(8).map_err(stopped)? as u8;
        if !(1..=3).contains(&version) {
            return Err(unsupported(format!("version {version}")));
        }
        let mut field = || bits.header_field().map_err(stopped);
        let (kind, channels, block, order, means, skipped) = (field()?, field()?, field()?, field()?, field()?, field()?);
        let values = Values::from_type(kind).ok_or_else(|| unsupported(format!("sample type {kind}")))?;
        if channels as usize != header.channels {
            return Err(corrupt(format!("{channels} channel(s) in the stream, {} in the SPHERE header", header.channels)));
        }
        limits.check(name, header.sample_rate, header.channels)?;
        for (what, limit, got) in [
            ("samples in a shorten block", MOST_BLOCK, block),
            ("shorten prediction order", MOST_ORDER, order),
            ("shorten block means", MOST_MEANS, means),
            ("bytes of header in a shorten stream", MOST_SKIPPED, skipped),
        ] {
            if got > limit {
                return Err(exceeded(name, what, limit.into(), got.into()));
            }
        }
        if block == 0 {
            return Err(corrupt("blocks of no samples".into()));
        }
        for _ in 0..skipped {
            bits.unsigned(7).map_err(stopped)?;
        }
        let history = LEAST_HISTORY.max(order as usize);
        let track = || Track { samples: vec![0; history + block as usize], means: vec![values.first_mean(); means as usize] };
        Ok(Self {
            name: name.into(),
            bits,
            version,
            values,
            history,
            block: block as usize,
            shift: 0,
            codes: codes_by_level(0),
            tracks: (0..channels).map(|_| track()).collect(),
            left: header.frames.unwrap_or(u64::MAX),
            header,
            ended: false,
        })
    }

    /// Decodes one block of every channel into `out`.
    fn advance(&mut self, out: &mut Block) -> Step<()> {
        let mut at = 0;
        while at < self.tracks.len() {
            match self.bits.unsigned(2)? {
                function @ (0..=3 | 7 | 8) => {
                    self.decode_block(at, function)?;
                    self.hand_out(at, out)?;
                    at += 1;
                }
                4 => return Err(Stop::End),
                5 => {
                    let block = self.bits.header_field()?;
                    if at > 0 || !(1..=MOST_BLOCK).contains(&block) {
                        return Err(Stop::Damaged("an impossible block size"));
                    }
                    self.block = block as usize;
                    self.tracks.iter_mut().for_each(|t| t.samples.resize(self.history + block as usize, 0));
                }
                6 => {
                    self.shift = self.bits.unsigned(2)?;
                    if self.shift > 31 || (matches!(self.values, Values::Levels { .. }) && self.shift > MOST_LEVEL_SHIFT) {
                        return Err(Stop::Damaged("an impossible shift"));
                    }
                    // Only levels have codes, and only their shift is bounded by them.
                    if matches!(self.values, Values::Levels { .. }) {
                        self.codes = codes_by_level(self.shift);
                    }
                }
                9 => {
                    for _ in 0..self.bits.unsigned(5)? {
                        self.bits.unsigned(8)?;
                    }
                }
                _ => return Err(Stop::Damaged("an unknown function")),
            }
        }
        Ok(())
    }

    /// Decodes the next block of channel `at` into `tracks[at].samples[history..]`.
    fn decode_block(&mut self, at: usize, function: u32) -> Step<()> {
        const ZERO: u32 = 8;
        let (bits, track, history, block) = (&mut self.bits, &mut self.tracks[at], self.history, self.block);
        let low = if function == ZERO { 0 } else { bits.unsigned(3)? };
        if low > MOST_RESIDUAL_BITS {
            return Err(Stop::Damaged("an impossible residual size"));
        }
        let mean = match track.means[..] {
            [] => self.values.first_mean(),
            _ => mean_of(&track.means, self.version) >> if self.version < 2 { 0 } else { self.shift },
        };
        let x = &mut track.samples[..history + block];
        match function {
            0 => (history..x.len()).try_for_each(|i| bits.signed(low).map(|r| x[i] = r.wrapping_add(mean)))?,
            1 => (history..x.len()).try_for_each(|i| bits.signed(low).map(|r| x[i] = r.wrapping_add(x[i - 1])))?,
            2 => (history..x.len()).try_for_each(|i| {
                let slope = x[i - 1].wrapping_sub(x[i - 2]);
                bits.signed(low).map(|r| x[i] = r.wrapping_add(x[i - 1]).wrapping_add(slope))
            })?,
            3 => (history..x.len()).try_for_each(|i| {
                let bend = x[i - 1].wrapping_sub(x[i - 2]).wrapping_mul(3);
                bits.signed(low).map(|r| x[i] = r.wrapping_add(bend).wrapping_add(x[i - 3]))
            })?,
            ZERO => x[history..].fill(0),
            _ => {
                let order = bits.unsigned(2)? as usize;
                if order > history {
                    return Err(Stop::Damaged("an impossible prediction order"));
                }
                let coefficients = (0..order).map(|_| bits.signed(COEFFICIENT_BITS)).collect::<Step<Vec<i32>>>()?;
                let half = if self.version < 2 { 0 } else { 1i64 << COEFFICIENT_BITS };
                x[history - order..history].iter_mut().for_each(|v| *v = v.wrapping_sub(mean));
                for i in history..x.len() {
                    let terms = coefficients.iter().zip(x[i - order..i].iter().rev());
                    let sum = terms.fold(half, |sum, (&c, &v)| sum.wrapping_add(i64::from(c).wrapping_mul(v.into())));
                    x[i] = bits.signed(low)?.wrapping_add((sum >> COEFFICIENT_BITS) as i32);
                }
                x[history..].iter_mut().for_each(|v| *v = v.wrapping_add(mean));
            }
        }
        if let [_, ..] = track.means[..] {
            let half = if self.version < 2 { 0 } else { block as i64 / 2 };
            let mean = (half + x[history..].iter().map(|&v| i64::from(v)).sum::<i64>()) / block as i64;
            track.means.rotate_left(1);
            let last = track.means.len() - 1;
            track.means[last] = if self.version < 2 { mean as i32 } else { (mean << self.shift) as i32 };
        }
        Ok(())
    }

    /// Hands the block of channel `at` on as samples in [-1, 1], and keeps its end as history.
    fn hand_out(&mut self, at: usize, out: &mut Block) -> Step<()> {
        let (history, block) = (self.history, self.block);
        if at == 0 {
            out.clear();
        }
        let channels = self.tracks.len();
        let values = &self.tracks[at].samples[history..history + block];
        match out.target(channels) {
            Target::Each(planes) => {
                for &v in values {
                    planes[at].push(self.sample(v)?);
                }
            }
            Target::Mean(mono) => {
                mono.resize(block, 0.0);
                for (sum, &v) in mono.iter_mut().zip(values) {
                    *sum += self.sample(v)? / channels as f32;
                }
            }
        }
        self.tracks[at].samples.copy_within(block..block + history, 0);
        Ok(())
    }

    /// A decoded value as a sample in [-1, 1].
    fn sample(&self, value: i32) -> Step<f32> {
        let shifted = value.wrapping_shl(self.shift);
        let companded = |code: u8| if self.header.encoding == Encoding::ALaw { a_law(code) } else { mu_law(code) };
        let plain = matches!(self.header.encoding, Encoding::Int { .. });
        Ok(match self.values {
            Values::Signed16 => shifted as f32 / 32_768.0,
            Values::Unsigned16 => shifted.wrapping_sub(0x8000) as f32 / 32_768.0,
            Values::Linear13 => shifted.wrapping_shl(3) as f32 / 32_768.0,
            Values::Signed8 if plain => shifted as f32 / 128.0,
            Values::Unsigned8 if plain => shifted.wrapping_sub(0x80) as f32 / 128.0,
            Values::Signed8 | Values::Unsigned8 => companded(shifted as u8),
            Values::Levels { negative_zero: true } if value == -1 => companded(NEGATIVE_ZERO),
            Values::Levels { negative_zero } => {
                let level = value.wrapping_add(128 + i32::from(negative_zero && value < 0));
                let code = usize::try_from(level).ok().and_then(|level| self.codes.get(level));
                companded(*code.ok_or(Stop::Damaged("a level outside the companding law"))?)
            }
            Values::ALawLevels => a_law((if shifted < 0 { !shifted } else { shifted | 0x80 }) as u8 ^ 0x55),
        })
    }
}

impl<R: Read + Send> Blocks for Shorten<R> {
    fn next(&mut self, block: &mut Block, warnings: &mut Warnings) -> Result<bool> {
        block.clear();
        if self.ended || self.left == 0 {
            return Ok(false);
        }
        match self.advance(block) {
            Ok(()) => {
                block.finish();
                block.trim(0, usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= block.len() as u64;
                return Ok(true);
            }
            Err(Stop::Io(e)) if e.kind() != ErrorKind::UnexpectedEof => return Err(Error::io(&self.name, e)),
            Err(Stop::Io(_)) => warnings.stopped = Some("the shorten stream is cut".into()),
            Err(Stop::Damaged(reason)) => warnings.stopped = Some(format!("{reason} in the shorten stream")),
            Err(Stop::End) => {}
        }
        block.clear();
        self.ended = true;
        Ok(false)
    }

    fn sample_rate(&self) -> SampleRate {
        self.header.sample_rate
    }

    fn promised(&self) -> Option<u64> {
        self.header.frames
    }
}

/// Mean of the last blocks' means (at least one), rounded as the version does.
fn mean_of(means: &[i32], version: u8) -> i32 {
    let count = means.len() as i64;
    let half = if version < 2 { 0 } else { count / 2 };
    ((half + means.iter().map(|&m| i64::from(m)).sum::<i64>()) / count) as i32
}

/// Most bits that a level can be shifted: at 12 only zero and the extremes remain.
const MOST_LEVEL_SHIFT: u32 = 12;
/// The mu-law code of minus zero.
const NEGATIVE_ZERO: u8 = 0x7f;

/// The mu-law codes of levels -128..=127 when all samples of a block are multiples of `2^shift`.
///
/// The codes that a multiple of `2^shift` (on the 13-bit scale) encodes to are packed around zero in the order of their level; the
/// others follow outwards, so that the map stays one to one.
fn codes_by_level(shift: u32) -> [u8; 256] {
    let mut reached = [false; 256];
    let step = 8i32 << shift;
    for multiple in -(32_768 / step)..=32_767 / step {
        reached[usize::from(mu_law_code(multiple * step))] = true;
    }
    let negative = |wanted: bool| (0..128u8).filter(move |&code| reached[usize::from(code)] == wanted);
    let positive = |wanted: bool| (128..=255u8).rev().filter(move |&code| reached[usize::from(code)] == wanted);
    let mut codes = [0; 256];
    let order = negative(false).chain(negative(true)).chain(positive(true)).chain(positive(false));
    codes.iter_mut().zip(order).for_each(|(slot, code)| *slot = code);
    codes
}

/// ITU-T G.711 mu-law code of a 16-bit sample.
fn mu_law_code(sample: i32) -> u8 {
    let sign = if sample < 0 { 0x80 } else { 0 };
    let magnitude = sample.abs().min(32_635) + 0x84;
    let exponent = magnitude.ilog2() - 7;
    !(sign | (exponent << 4) as u8 | (magnitude >> (exponent + 3) & 15) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mu_law_codes_are_their_own_inverse() {
        // Every code but minus zero: its level encodes back to it.
        for code in (0..=255u8).filter(|&code| code != NEGATIVE_ZERO) {
            assert_eq!(mu_law_code((mu_law(code) * 32_768.0) as i32), code);
        }
    }

    #[test]
    fn levels_are_one_to_one_and_in_order() {
        for shift in 0..=MOST_LEVEL_SHIFT {
            let codes = codes_by_level(shift);
            let mut sorted = codes;
            sorted.sort_unstable();
            assert!(sorted.iter().enumerate().all(|(i, &code)| usize::from(code) == i), "shift {shift}");
            assert_eq!((codes[128], mu_law(codes[128])), (0xff, 0.0));
        }
        // Without a shift, levels -127..=127 are the codes in order of loudness, and minus zero comes last.
        let codes = codes_by_level(0);
        assert!(codes[1..].windows(2).all(|w| mu_law(w[0]) < mu_law(w[1])));
        assert_eq!(codes[0], NEGATIVE_ZERO);
        // At the largest shift only zero and the loudest negative code are multiples.
        assert_eq!((codes_by_level(12)[127], codes_by_level(12)[129]), (0x00, 0xfe));
    }

    #[test]
    fn codes_of_known_bits() {
        let bits = |bytes: &'static [u8]| Bits::new(bytes);
        // u(2): 001 10 = 2 zeros, then 10: (2 << 2) | 2.
        assert_eq!(bits(&[0b0011_0000]).unsigned(2).unwrap(), 10);
        // s(1): folded 0, 1, 2, 3 in u(2) are 0, -1, 1, -2.
        let mut b = bits(&[0b1001_0111, 0b0111_0000]);
        assert_eq!([0; 4].map(|_| b.signed(1).unwrap()), [0, -1, 1, -2]);
        assert!(matches!(bits(&[0; 64]).unsigned(0), Err(Stop::Io(_))));
        // A full window: 64 zeros are passed in one step.
        let mut long = [0u8; 9];
        long[8] = 0x80;
        let mut b = Bits::new(&long[..]);
        assert_eq!(b.unsigned(0).unwrap(), 64);
    }
}
