//! SPHERE and shorten: streams written by an encoder of the tests' own are read back exactly, channel by channel.

use std::path::{Path, PathBuf};

use omniscribe::audio::{Channel, Limits, Reader, Tracks};
use omniscribe::{Error, Result};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

/// Functions of the bit stream.
const DIFF: [u32; 4] = [0, 1, 2, 3];
const QUIT: u32 = 4;
const BLOCKSIZE: u32 = 5;
const BITSHIFT: u32 = 6;
const QLPC: u32 = 7;
const ZERO: u32 = 8;
const VERBATIM: u32 = 9;

/// Sample types of the bit stream.
const ULAW_LEVELS: u32 = 0;
const S8: u32 = 1;
const U8: u32 = 2;
const S16_BIG: u32 = 3;
const U16_BIG: u32 = 4;
pub const S16: u32 = 5;
const U16: u32 = 6;
const ULAW_LINEAR: u32 = 7;
pub const ULAW_LEVELS_2: u32 = 8;
const ALAW_LEVELS: u32 = 9;
const ALAW_LINEAR: u32 = 10;

/// Bits, most significant first.
#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    used: usize,
}

impl Writer {
    fn bit(&mut self, bit: u32) {
        if self.used.is_multiple_of(8) {
            self.bytes.push(0);
        }
        *self.bytes.last_mut().unwrap() |= (bit as u8) << (7 - self.used % 8);
        self.used += 1;
    }

    fn unsigned(&mut self, n: u32, value: u32) {
        (0..value >> n).for_each(|_| self.bit(0));
        self.bit(1);
        (0..n).rev().for_each(|i| self.bit(value >> i & 1));
    }

    fn signed(&mut self, n: u32, value: i32) {
        self.unsigned(n + 1, if value < 0 { (!value as u32) << 1 | 1 } else { (value as u32) << 1 });
    }

    fn field(&mut self, value: u32) {
        let n = 32 - value.leading_zeros();
        self.unsigned(2, n);
        self.unsigned(n, value);
    }
}

/// How a stream is written.
#[derive(Debug, Clone)]
pub struct Packing {
    version: u8,
    kind: u32,
    block: usize,
    means: usize,
    order: usize,
    /// Taken in turn, one per block.
    functions: Vec<u32>,
    /// Bits all values of a frame are shifted down by, taken in turn; must be possible.
    shifts: Vec<u32>,
    /// Bytes put in front as a verbatim section.
    verbatim: Vec<u8>,
}

impl Packing {
    pub fn plain(version: u8, kind: u32) -> Self {
        let (means, functions) = (if version < 2 { 0 } else { 4 }, [DIFF.as_slice(), &[QLPC]].concat());
        Self { version, kind, block: 64, means, order: 3, functions, shifts: vec![0], verbatim: Vec::new() }
    }
}

/// Packs channels of equal length; `values[c][i]` before the shift. `shifted` turns a value into what is coded at a shift.
pub fn pack(packing: &Packing, values: &[Vec<i32>], shifted: impl Fn(i32, u32) -> i32) -> Vec<u8> {
    let mut w = Writer { bytes: [b"ajkg".as_slice(), &[packing.version]].concat(), used: 40 };
    let fields = [packing.kind, values.len() as u32, packing.block as u32, packing.order as u32, packing.means as u32, 2];
    fields.into_iter().for_each(|field| w.field(field));
    // Two bytes of a skipped header.
    (0..2).for_each(|_| w.unsigned(7, 65));
    if !packing.verbatim.is_empty() {
        w.unsigned(2, VERBATIM);
        w.unsigned(5, packing.verbatim.len() as u32);
        packing.verbatim.iter().for_each(|&byte| w.unsigned(8, byte.into()));
    }
    let first_mean = match packing.kind {
        U8 => 0x80,
        U16 | U16_BIG => 0x8000,
        _ => 0,
    };
    let history = packing.order.max(3);
    let mut pasts = vec![vec![0i32; history]; values.len()];
    let mut means = vec![vec![first_mean; packing.means.max(1)]; values.len()];
    let (mut shift, mut block, mut turn) = (0, packing.block, 0);
    let mut functions = packing.functions.iter().cycle();
    let length = values[0].len();
    let mut start = 0;
    while start < length {
        let wanted = packing.shifts[turn % packing.shifts.len()];
        turn += 1;
        if wanted != shift {
            shift = wanted;
            w.unsigned(2, BITSHIFT);
            w.unsigned(2, shift);
        }
        if length - start < block {
            block = length - start;
            w.unsigned(2, BLOCKSIZE);
            w.field(block as u32);
        }
        for (channel, all) in values.iter().enumerate() {
            let x: Vec<i32> = all[start..start + block].iter().map(|&v| shifted(v, shift)).collect();
            let function = if x.iter().all(|&v| v == 0) { ZERO } else { *functions.next().unwrap() };
            let (past, means) = (&mut pasts[channel], &mut means[channel]);
            let count = means.len() as i64;
            let sum: i64 = means.iter().map(|&m| i64::from(m)).sum();
            let mean = match packing {
                Packing { means: 0, .. } => first_mean,
                Packing { version: 1, .. } => (sum / count) as i32,
                _ => ((sum + count / 2) / count) as i32 >> shift,
            };
            let line = [past.as_slice(), &x].concat();
            let coefficients: Vec<i32> = [50, -25, 7][..packing.order.min(3)].to_vec();
            let residual = |i: usize| match function {
                0 => line[i] - mean,
                1 => line[i] - line[i - 1],
                2 => line[i] - 2 * line[i - 1] + line[i - 2],
                3 => line[i] - 3 * line[i - 1] + 3 * line[i - 2] - line[i - 3],
                _ => {
                    let half = if packing.version < 2 { 0 } else { 32 };
                    let terms = coefficients.iter().enumerate().map(|(j, c)| c * (line[i - 1 - j] - mean));
                    line[i] - mean - ((terms.sum::<i32>() + half) >> 5)
                }
            };
            w.unsigned(2, function);
            if function != ZERO {
                let residuals: Vec<i32> = (history..line.len()).map(residual).collect();
                let largest = residuals.iter().map(|r| r.unsigned_abs()).max().unwrap();
                let low = (32 - largest.leading_zeros()).saturating_sub(2);
                w.unsigned(3, low);
                if function == QLPC {
                    w.unsigned(2, coefficients.len() as u32);
                    coefficients.iter().for_each(|&c| w.signed(5, c));
                }
                residuals.iter().for_each(|&r| w.signed(low, r));
            }
            if packing.means > 0 {
                let sum: i64 = x.iter().map(|&v| i64::from(v)).sum();
                means.rotate_left(1);
                *means.last_mut().unwrap() = match packing.version {
                    1 => (sum / block as i64) as i32,
                    _ => ((sum + block as i64 / 2) / block as i64 * (1 << shift)) as i32,
                };
            }
            past.copy_from_slice(&line[line.len() - history..]);
        }
        start += block;
    }
    w.unsigned(2, QUIT);
    while w.bytes.len() % 4 != 1 {
        w.bytes.push(0);
    }
    w.bytes
}

/// A SPHERE file.
pub fn sphere(coding: &str, width: usize, rate: u32, channels: usize, frames: usize, data: &[u8]) -> Vec<u8> {
    let order = if width == 1 { "1" } else { "01" };
    let fields = format!(
        "database_id -s4 TEST\nchannel_count -i {channels}\nsample_count -i {frames}\nsample_rate -i {rate}\nsample_n_bytes -i {width}\n\
         sample_byte_format -s{} {order}\nsample_sig_bits -i {}\nsample_coding -s{} {coding}\nend_head\n",
        order.len(),
        8 * width,
        coding.len()
    );
    let mut file = format!("NIST_1A\n   1024\n{fields}").into_bytes();
    file.resize(1024, b' ');
    file.extend_from_slice(data);
    file
}

/// The samples of a channel of a file at the file's own rate, with the warnings.
pub fn listen(path: &Path, channel: Channel) -> Result<(Vec<f32>, Vec<String>)> {
    let limits = Limits::default();
    let rate = Reader::open(path, &limits)?.sample_rate();
    let mut tracks = Tracks::open(path, channel.into(), rate, &limits)?;
    let mut samples = Vec::new();
    while let Some(block) = tracks.next_block()? {
        samples.extend_from_slice(&block[0]);
    }
    Ok((samples, tracks.warnings()))
}

/// Every channel of a file (by itself) and their mean.
fn channels(file: Vec<u8>, count: usize) -> (Vec<Vec<f32>>, Vec<f32>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.sph");
    std::fs::write(&path, file).unwrap();
    let read = |channel| {
        let (samples, warnings) = listen(&path, channel).unwrap();
        assert_eq!(warnings, Vec::<String>::new());
        samples
    };
    let all = (0..count).map(|n| read(Channel::Nth(n))).collect();
    assert!(matches!(listen(&path, Channel::Nth(count)), Err(Error::Config { .. })));
    (all, read(Channel::Mix))
}

/// A tune of `n` samples in `low..=high`, another for each `voice`, with a silence in it.
pub fn tune(n: usize, voice: usize, low: i32, high: i32) -> Vec<i32> {
    let (middle, swing) = (f64::from(low + high) / 2.0, f64::from(high - low) / 2.0);
    let sound = |i: usize| {
        let t = i as f64;
        let loud = (t / 150.0).sin().powi(2);
        let wave = ((t * (0.02 + 0.013 * voice as f64)).sin() * 0.8 + (t * 0.9).sin() * 0.2) * loud;
        ((middle + swing * wave).round() as i32).clamp(low, high)
    };
    (0..n).map(|i| if (300..500).contains(&i) { ((low + high) / 2).max(0) } else { sound(i) }).collect()
}

/// ITU-T G.711, table 2a/2b: the level (16-bit scale) of a mu-law code, and of an A-law code, written from the segment end points.
fn mu_law(code: u8) -> f32 {
    let (segment, step) = (u32::from(!code >> 4 & 7), f32::from(!code & 15));
    let level = (33.0 + 2.0 * step) * 2f32.powi(segment as i32) - 33.0;
    (if code & 0x80 == 0 { -level } else { level }) * 4.0
}

fn a_law(code: u8) -> f32 {
    let (segment, step) = (i32::from((code ^ 0x55) >> 4 & 7), f32::from((code ^ 0x55) & 15));
    let level = if segment == 0 { 2.0 * step + 1.0 } else { (2.0 * step + 33.0) * 2f32.powi(segment - 1) };
    (if code & 0x80 == 0 { -level } else { level }) * 8.0
}

/// A case: the sample type, the SPHERE coding and width, the range of values, and the sample each value stands for.
type Case = (u32, &'static str, usize, (i32, i32), fn(i32) -> f32);

fn mu_law_of_level(level: i32) -> u8 {
    (if level < 0 { 127 + level } else { 255 - level }) as u8
}

fn cases() -> Vec<Case> {
    let pcm = "pcm,embedded-shorten-v2.00";
    let ulaw = "ulaw,embedded-shorten-v2.00";
    let mu_law_word = "mu-law,embedded-shorten-v1.09";
    let alaw = "alaw,embedded-shorten-v2.00";
    vec![
        (S16, pcm, 2, (-20_000, 21_000), |v| v as f32 / 32_768.0),
        (S16_BIG, "pcm,embedded-shorten-v1.09", 2, (-32_768, 32_767), |v| v as f32 / 32_768.0),
        (U16, pcm, 2, (0, 65_535), |v| (v - 32_768) as f32 / 32_768.0),
        (U16_BIG, pcm, 2, (30_000, 40_000), |v| (v - 32_768) as f32 / 32_768.0),
        (S8, pcm, 1, (-128, 127), |v| v as f32 / 128.0),
        (U8, pcm, 1, (0, 255), |v| (v - 128) as f32 / 128.0),
        (ULAW_LINEAR, ulaw, 1, (-4_000, 4_000), |v| (v * 8) as f32 / 32_768.0),
        (ALAW_LINEAR, alaw, 1, (-4_000, 4_000), |v| (v * 8) as f32 / 32_768.0),
        (ULAW_LEVELS, ulaw, 1, (-127, 127), |v| mu_law(mu_law_of_level(v)) / 32_768.0),
        // The later type puts minus zero between: level -1 is 0x7f, and -2 is what -1 was.
        (ULAW_LEVELS_2, mu_law_word, 1, (-128, 127), |v| {
            mu_law(if v == -1 { 0x7f } else { mu_law_of_level(v + i32::from(v < 0)) }) / 32_768.0
        }),
        (ALAW_LEVELS, alaw, 1, (-128, 127), |v| a_law((if v < 0 { !v } else { v | 0x80 }) as u8 ^ 0x55) / 32_768.0),
        (U8, alaw, 1, (0, 255), |v| a_law(v as u8) / 32_768.0),
        (S8, ulaw, 1, (-128, 127), |v| mu_law(v as u8) / 32_768.0),
    ]
}

#[test]
fn every_type_version_and_function_is_read_back_exactly() {
    for (kind, coding, width, (low, high), sample) in cases() {
        for version in [1, 2, 3] {
            for count in [1, 2, 3] {
                for (means, order, verbatim) in [(0, 0, vec![]), (1, 3, vec![1, 2, 255]), (4, 12, vec![])] {
                    let values: Vec<Vec<i32>> = (0..count).map(|c| tune(1_000, c, low, high)).collect();
                    let functions = if order == 0 { DIFF.to_vec() } else { vec![0, QLPC, 1, 3, QLPC, 2] };
                    let packing = Packing { means, order, functions, verbatim, ..Packing::plain(version, kind) };
                    let what = format!("{packing:?} {coding} x {count}");
                    let file = sphere(coding, width, 8_000, count, 1_000, &pack(&packing, &values, |v, _| v));
                    let (each, mean) = channels(file, count);
                    let expected: Vec<Vec<f32>> = values.iter().map(|v| v.iter().map(|&v| sample(v)).collect()).collect();
                    assert!(each == expected, "{what}");
                    for (i, m) in mean.iter().enumerate() {
                        let sum: f32 = expected.iter().map(|e| e[i]).sum();
                        // One rounding of the product and one of each sum.
                        assert!((m - sum / count as f32).abs() < 4.0 * f32::EPSILON, "{what} at {i}");
                    }
                }
            }
        }
    }
}

#[test]
fn shifted_blocks_keep_their_zeros() {
    for version in [1, 2] {
        // Multiples of 8: shifts up to 3 are possible, and change within the file.
        let values: Vec<Vec<i32>> = (0..2).map(|c| tune(1_000, c, -2_000, 2_000).iter().map(|v| v * 8).collect()).collect();
        let packing = Packing { shifts: vec![3, 0, 2, 2, 1], functions: vec![0, QLPC, 1, 2, 3], ..Packing::plain(version, S16) };
        let file = sphere("pcm,embedded-shorten-v2.00", 2, 16_000, 2, 1_000, &pack(&packing, &values, |v, shift| v >> shift));
        let (each, _) = channels(file, 2);
        for (ours, values) in each.iter().zip(&values) {
            assert!(ours.iter().zip(values).all(|(o, &v)| *o == v as f32 / 32_768.0));
        }
    }
}

/// The level that stands for each mu-law code at a shift, found by reading all levels of one block.
fn codes_of_levels(shift: u32) -> Vec<(i32, u8)> {
    let levels: Vec<i32> = (-128..=127).collect();
    let packing = Packing { block: 256, shifts: vec![shift], functions: vec![1], ..Packing::plain(2, ULAW_LEVELS) };
    let data = pack(&packing, std::slice::from_ref(&levels), |v, _| v);
    let (each, _) = channels(sphere("ulaw,embedded-shorten-v2.00", 1, 8_000, 1, 256, &data), 1);
    let code = |x: f32| (0..=255u8).find(|&code| mu_law(code) / 32_768.0 == x && code != 0x7f).unwrap();
    let codes: Vec<u8> = each[0].iter().map(|&x| code(x)).collect();
    levels.into_iter().zip(codes).collect()
}

/// SHA-256 of the level-to-code tables of shorten 2.0 at shifts 0 to 12, 256 bytes each with minus zero (0x7f) written as 0xff.
///
/// Of the array `ulaw_outward` in `bitshift.h` of sph2pipe 2.5 (Linguistic Data Consortium); the reader computes its own.
const TABLES_OF_SHORTEN: &str = "a4826fd8f5254f35ca9573bbc741cfe0080ebd98a6282db8d56a656ff63e62a8";

#[test]
fn shifted_mu_law_levels_are_those_of_the_published_coder() {
    let mut hash = Sha256::new();
    for shift in 0..=12 {
        let codes: Vec<u8> = codes_of_levels(shift).into_iter().map(|(_, code)| code).collect();
        hash.update(codes);
    }
    assert_eq!(format!("{:x}", hash.finalize()), TABLES_OF_SHORTEN);
}

#[test]
fn plain_codings_by_channel() {
    let values: Vec<Vec<i32>> = (0..2).map(|c| tune(600, c, -30_000, 30_000)).collect();
    let interleaved: Vec<i32> = (0..600).flat_map(|i| [values[0][i], values[1][i]]).collect();
    let pcm: Vec<u8> = interleaved.iter().flat_map(|&v| (v as i16).to_le_bytes()).collect();
    let (each, mean) = channels(sphere("pcm", 2, 8_000, 2, 600, &pcm), 2);
    for (ours, values) in each.iter().zip(&values) {
        assert!(ours.iter().zip(values).all(|(o, &v)| *o == v as f32 / 32_768.0));
    }
    assert!(mean.iter().zip(&each[0]).zip(&each[1]).all(|((m, a), b)| *m == (a + b) * 0.5));
    for (coding, law) in [("ulaw", mu_law as fn(u8) -> f32), ("mu-law", mu_law), ("alaw", a_law)] {
        let codes: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
        let (each, _) = channels(sphere(coding, 1, 8_000, 2, 256, &codes), 2);
        for (c, ours) in each.iter().enumerate() {
            assert!(ours.iter().enumerate().all(|(i, &o)| o == law(codes[2 * i + c]) / 32_768.0), "{coding} channel {c}");
        }
    }
}

#[test]
fn damage_is_said_and_what_came_before_is_kept() {
    let values = vec![tune(2_000, 0, -20_000, 20_000)];
    let good = sphere("pcm,embedded-shorten-v2.00", 2, 8_000, 1, 2_000, &pack(&Packing::plain(2, S16), &values, |v, _| v));
    let name = Path::new("x.wv1");
    let limits = Limits::default();
    // Cut in the middle.
    let mut reader = Reader::from_bytes(name, good[..good.len() / 2].to_vec(), &limits).unwrap();
    let samples = reader.read_to_end().unwrap().samples;
    assert!(samples.len() > 500 && samples.len() < 1_900 && samples.len().is_multiple_of(64), "{}", samples.len());
    assert!(samples.iter().zip(&values[0]).all(|(o, &v)| *o == v as f32 / 32_768.0));
    let warnings = reader.warnings().join("; ");
    assert!(warnings.contains("cut") && warnings.contains("less than its header says"), "{warnings}");
    // Headers that cannot be: what is changed, and what is said.
    let header = |coding: &str, channels: usize, stream: &[u8]| {
        let file = sphere(coding, 2, 8_000, channels, 2_000, stream);
        Reader::from_bytes(name, file, &limits).map(|_| ()).unwrap_err()
    };
    let stream = &good[1024..];
    let said = |error: Error, wanted: &str| assert!(error.to_string().contains(wanted), "{error} lacks {wanted:?}");
    said(header("pcm,embedded-shorten-v2.00", 2, stream), "1 channel(s) in the stream, 2 in the SPHERE header");
    said(header("pcm,embedded-shorten-v2.00", 1, b"ajkG\x02aaaaaaa"), "does not start with \"ajkg\"");
    said(header("pcm,embedded-shorten-v2.00", 1, b"ajkg\x07aaaaaaa"), "version 7");
    said(header("pcm,embedded-shorten-v2.00", 1, b"ajkg\x02"), "unexpected end of file");
    said(header("pcm,embedded-wavpack-v1.00", 1, stream), "embedded-wavpack");
    let odd = |kind, block, order, means| {
        let mut w = Writer { bytes: b"ajkg\x02".to_vec(), used: 40 };
        [kind, 1, block, order, means, 0].into_iter().for_each(|field| w.field(field));
        header("pcm,embedded-shorten-v2.00", 1, &[w.bytes.as_slice(), &[0xff; 64]].concat())
    };
    said(odd(11, 256, 0, 4), "sample type 11");
    said(odd(S16, 0, 0, 4), "blocks of no samples");
    assert!(matches!(odd(S16, 1 << 20, 0, 4), Error::LimitExceeded { .. }));
    assert!(matches!(odd(S16, 256, 1 << 20, 4), Error::LimitExceeded { .. }));
    assert!(matches!(odd(S16, 256, 0, 1 << 20), Error::LimitExceeded { .. }));
}

#[test]
fn sample_count_ends_the_reading() {
    let values = vec![tune(640, 0, -5_000, 5_000)];
    let data = pack(&Packing::plain(2, S16), &values, |v, _| v);
    let (each, _) = channels(sphere("pcm,embedded-shorten-v2.00", 2, 8_000, 1, 601, &data), 1);
    assert_eq!(each[0].len(), 601);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn random_bytes_never_break_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..600), version in 1u8..4, coding in 0usize..3) {
        let coding = ["pcm,embedded-shorten-v2.00", "ulaw,embedded-shorten-v2.00", "alaw,embedded-shorten-v1.09"][coding];
        let stream = [b"ajkg".as_slice(), &[version], &bytes].concat();
        for count in [1, 2] {
            let file = sphere(coding, 2, 8_000, count, 1 << 20, &stream);
            if let Ok(mut reader) = Reader::from_bytes(Path::new("x"), file, &Limits { seconds: 600.0, ..Limits::default() }) {
                while let Ok(Some(block)) = reader.next_block() {
                    prop_assert!(block.iter().all(|x| x.is_finite() && x.abs() <= 1.0));
                }
            }
        }
    }

    #[test]
    fn flipped_and_cut_streams_never_break_the_reader(at in 0usize..4_000, flip in 1u8..=255, cut in 0usize..4_000, kind in 0usize..13) {
        read_damaged(at, flip, cut, kind);
    }
}

/// Reads a stream with a byte flipped and its end cut off; what comes is in range and no longer than the header says.
fn read_damaged(at: usize, flip: u8, cut: usize, kind: usize) {
    let (kind, coding, width, (low, high), _) = cases().swap_remove(kind);
    let values = vec![tune(800, 0, low, high), tune(800, 1, low, high)];
    let mut data = pack(&Packing::plain(2, kind), &values, |v, _| v);
    let at = at % data.len();
    data[at] ^= flip;
    data.truncate(data.len() - cut % data.len() / 2);
    if let Ok(mut reader) = Reader::from_bytes(Path::new("x"), sphere(coding, width, 8_000, 2, 800, &data), &Limits::default()) {
        let mut total = 0;
        while let Ok(Some(block)) = reader.next_block() {
            total += block.len();
            assert!(block.iter().all(|x| x.is_finite() && x.abs() <= 1.0));
        }
        assert!(total <= 800);
    }
}

/// A flip that asks 16-bit samples to be shifted by more bits than companded levels could be.
#[test]
fn samples_without_levels_may_be_shifted_further() {
    read_damaged(3846, 134, 0, 2);
}

/// 16-bit little-endian samples of one channel of a file, hashed.
fn digest(path: &Path, channel: usize) -> String {
    let (samples, _) = listen(path, Channel::Nth(channel)).unwrap();
    let bytes: Vec<u8> = samples.iter().flat_map(|x| ((x * 32_768.0) as i16).to_le_bytes()).collect();
    format!("{:x}", Sha256::digest(bytes))
}

/// Files of the `test` folder of sph2pipe 2.5, packed by NIST's own tools, with the SHA-256 of each channel as 16-bit samples that
/// sph2pipe itself gives (`sph2pipe -f raw -p -c N`).
const PACKED_BY_NIST: [(&str, &[&str]); 7] = {
    const PCM_A: &str = "11d7d57dcf7501a8db11b5c22b1c447334ce9bf1bebdc29666a10c4da7e066c4";
    const PCM_B: &str = "2875214c45ec4a8b5eae409310836971da8783e0de2438c71199e027d504f334";
    const MU_A: &str = "a1765215520f187e0db23270591c8837f052ed47eda115b0da11f81bf48311e4";
    const MU_B: &str = "f9f527dd596aca17c3c1cbbe898771a54f8bd5da483d6d2829eb000d35768bd7";
    const A_A: &str = "835b3c3f9599ca5dee4eec066e229e94e7448708be9692d616a27b92b2c475fc";
    const A_B: &str = "642917a56067f70dda499419b82bea7b7118ab69e6a3ca9b0829d2310197a18e";
    [
        ("123_1pcbe_shn.sph", &[PCM_A]),
        ("123_1pcle_shn.sph", &[PCM_A]),
        ("123_1ulaw_shn.sph", &[MU_A]),
        ("123_2alaw.sph", &[A_A, A_B]),
        ("123_2pcbe_shn.sph", &[PCM_A, PCM_B]),
        ("123_2pcle_shn.sph", &[PCM_A, PCM_B]),
        ("123_2ulaw_shn.sph", &[MU_A, MU_B]),
    ]
};

#[test]
#[ignore = "needs OMNISCRIBE_SPH2PIPE_TESTS, the folder test/ of the sph2pipe 2.5 distribution"]
fn files_packed_by_nist_read_as_sph2pipe_reads_them() {
    let folder = PathBuf::from(std::env::var_os("OMNISCRIBE_SPH2PIPE_TESTS").expect("OMNISCRIBE_SPH2PIPE_TESTS"));
    for (file, channels) in PACKED_BY_NIST {
        for (n, expected) in channels.iter().enumerate() {
            assert_eq!(digest(&folder.join(file), n), *expected, "{file} channel {n}");
        }
    }
}

#[test]
#[ignore = "needs ffmpeg"]
fn ffmpeg_reads_the_test_streams_alike() {
    let folder = tempfile::tempdir().unwrap();
    for (version, shifts) in [(1, vec![0]), (2, vec![0]), (2, vec![2, 0, 1])] {
        for count in [1, 2] {
            let values: Vec<Vec<i32>> = (0..count).map(|c| tune(4_000, c, -5_000, 5_000).iter().map(|v| v * 4).collect()).collect();
            let packing = Packing { shifts: shifts.clone(), block: 256, ..Packing::plain(version, S16) };
            let path = folder.path().join("x.sph");
            let data = pack(&packing, &values, |v, shift| v >> shift);
            std::fs::write(&path, sphere("pcm,embedded-shorten-v2.00", 2, 8_000, count, 4_000, &data)).unwrap();
            let mut command = std::process::Command::new("ffmpeg");
            let output = command.args(["-v", "error", "-i"]).arg(&path).args(["-f", "s16le", "-"]).output().expect("ffmpeg");
            let theirs: Vec<i32> = output.stdout.as_chunks().0.iter().map(|&b| i16::from_le_bytes(b).into()).collect();
            let ours: Vec<i32> = (0..4_000).flat_map(|i| values.iter().map(move |v| v[i])).collect();
            assert!(theirs == ours, "version {version}, shifts {shifts:?}, {count} channel(s): {} of {}", theirs.len(), ours.len());
        }
    }
}
