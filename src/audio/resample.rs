//! Change of sampling rate: FFT filter bank of rubato, its delay removed, whole clips and streams alike.

use audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler as _, WindowFunction};

use crate::error::{Error, Result};
use crate::units::SampleRate;

/// Block length aimed at, in samples of the lower of the two rates: sets the steepness of the filter (a pass band to 93 % of
/// the lower Nyquist frequency) and the delay (half a block).
const BLOCK: usize = 640;

/// Highest rate accepted, in Hz: bounds the filter, whose length is the rate itself where the two have no common divisor.
const MAX_RATE: u32 = 768_000;

/// Resamples a whole clip.
///
/// Returns `ceil(samples.len() * to / from)` samples, aligned with the input (delay 0).
///
/// # Errors
/// As [`Resampler::new`].
pub fn resample(samples: &[f32], from: SampleRate, to: SampleRate) -> Result<Vec<f32>> {
    let mut resampler = Resampler::new(from, to)?;
    let mut out = Vec::with_capacity((samples.len() as u64 * u64::from(to.0)).div_ceil(from.0.into()) as usize);
    resampler.step(samples, &mut out);
    resampler.flush(&mut out);
    Ok(out)
}

/// A stream being resampled: however the input is cut into steps, the output is the same as [`resample`]'s.
pub struct Resampler {
    from: SampleRate,
    to: SampleRate,
    /// `None` where the rates are equal.
    filter: Option<Filter>,
    /// Samples taken and given since the last reset.
    taken: u64,
    given: u64,
}

struct Filter {
    fft: Fft<f32>,
    /// Input waiting for a full block.
    pending: Vec<f32>,
    block_in: usize,
    /// Output of one block.
    block: Vec<f32>,
    /// Samples of the filter's own delay still to be dropped.
    skip: usize,
}

impl Resampler {
    /// A resampler between two rates.
    ///
    /// # Errors
    /// [`Error::Config`] for a rate of zero, [`Error::LimitExceeded`] for one over 768 kHz.
    pub fn new(from: SampleRate, to: SampleRate) -> Result<Self> {
        for rate in [from, to] {
            if rate.0 == 0 {
                return Err(Error::config("resampler", "a sampling rate is 0 Hz"));
            }
            if rate.0 > MAX_RATE {
                return Err(Error::LimitExceeded { what: "sampling rate in Hz".into(), limit: MAX_RATE.into(), got: rate.0.into() });
            }
        }
        let filter = if from == to { None } else { Some(Filter::new(from, to)?) };
        Ok(Self { from, to, filter, taken: 0, given: 0 })
    }

    /// Takes input and appends the output that is ready.
    pub fn step(&mut self, samples: &[f32], out: &mut Vec<f32>) {
        self.taken += samples.len() as u64;
        let before = out.len();
        match &mut self.filter {
            None => out.extend_from_slice(samples),
            Some(filter) => filter.step(samples, out),
        }
        self.given += (out.len() - before) as u64;
    }

    /// Ends the stream: appends what is left, so that `ceil(taken * to / from)` samples were given in all, and resets.
    pub fn flush(&mut self, out: &mut Vec<f32>) {
        let due = (u128::from(self.taken) * u128::from(self.to.0)).div_ceil(self.from.0.into()) as u64;
        if let Some(filter) = &mut self.filter {
            let mut rest = usize::try_from(due - self.given.min(due)).unwrap_or(usize::MAX);
            let silence = vec![0.0; filter.block_in];
            while rest > 0 {
                let before = out.len();
                filter.step(&silence, out);
                let new = (out.len() - before).min(rest);
                out.truncate(before + new);
                rest -= new;
            }
        }
        self.reset();
    }

    /// Forgets the stream.
    pub fn reset(&mut self) {
        (self.taken, self.given) = (0, 0);
        if let Some(filter) = &mut self.filter {
            filter.fft.reset();
            filter.pending.clear();
            filter.skip = filter.fft.output_delay();
        }
    }

    /// Most output samples that may be outstanding: after `n` samples taken, at least `n * to / from - delay()` were given.
    pub fn delay(&self) -> usize {
        self.filter.as_ref().map_or(0, |f| f.block.len() + f.fft.output_delay())
    }
}

impl Filter {
    fn new(from: SampleRate, to: SampleRate) -> Result<Self> {
        let (a, b) = (from.0 as usize, to.0 as usize);
        let divisor = gcd(a, b);
        let (a, b) = (a / divisor, b / divisor);
        // An even number of smallest blocks: half a block, the delay, is then a whole number of samples at both rates.
        let blocks = BLOCK.div_ceil(a.min(b)).next_multiple_of(2);
        let block_in = blocks * a;
        let fft = Fft::new_custom(from.0 as usize, to.0 as usize, block_in, 1, 1, WindowFunction::BlackmanHarris2, FixedSync::Both)
            .map_err(|e| Error::config("resampler", e.to_string()))?;
        debug_assert_eq!(fft.input_frames_next(), block_in);
        let block = vec![0.0; fft.output_frames_next()];
        let skip = fft.output_delay();
        Ok(Self { fft, pending: Vec::with_capacity(block_in), block_in, block, skip })
    }

    fn step(&mut self, mut samples: &[f32], out: &mut Vec<f32>) {
        if !self.pending.is_empty() {
            let (head, rest) = samples.split_at(samples.len().min(self.block_in - self.pending.len()));
            self.pending.extend_from_slice(head);
            samples = rest;
            if self.pending.len() < self.block_in {
                return;
            }
            let pending = std::mem::take(&mut self.pending);
            self.block(&pending, out);
            self.pending = pending;
            self.pending.clear();
        }
        let mut blocks = samples.chunks_exact(self.block_in);
        for block in &mut blocks {
            self.block(block, out);
        }
        self.pending.extend_from_slice(blocks.remainder());
    }

    /// Filters one whole block.
    fn block(&mut self, input: &[f32], out: &mut Vec<f32>) {
        let frames = self.block.len();
        // Both buffers have the sizes the resampler asked for, so neither step can fail.
        let (Ok(input), Ok(mut output)) =
            (InterleavedSlice::new(input, 1, input.len()), InterleavedSlice::new_mut(&mut self.block, 1, frames))
        else {
            unreachable!("one channel of {frames} frames");
        };
        let done = self.fft.process_into_buffer(&input, &mut output, None);
        assert!(done.is_ok(), "block sizes are the resampler's own: {done:?}");
        let skip = self.skip.min(frames);
        self.skip -= skip;
        out.extend_from_slice(&self.block[skip..]);
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: [u32; 9] = [8_000, 11_025, 12_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000];

    fn tone(rate: u32, hz: f64, n: usize) -> Vec<f32> {
        (0..n).map(|i| (0.5 * (std::f64::consts::TAU * hz * i as f64 / f64::from(rate)).sin()) as f32).collect()
    }

    #[test]
    fn length_and_alignment() {
        for rate in RATES {
            for n in [0, 1, 7, 1_000, 20_011] {
                let out = resample(&tone(rate, 440.0, n), SampleRate(rate), SampleRate::HZ_16000).unwrap();
                assert_eq!(out.len(), (n * 16_000).div_ceil(rate as usize), "{rate} Hz, {n} samples");
            }
            let n = rate as usize;
            let out = resample(&tone(rate, 440.0, n), SampleRate(rate), SampleRate::HZ_16000).unwrap();
            let ideal = tone(16_000, 440.0, 16_000);
            let worst = out[2_000..14_000].iter().zip(&ideal[2_000..14_000]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            // A shift of 0.05 samples would be 4e-3 here.
            assert!(worst < 1e-4, "{rate} Hz: {worst}");
        }
    }

    #[test]
    fn bad_rates_are_errors() {
        assert!(Resampler::new(SampleRate(0), SampleRate(16_000)).is_err());
        assert!(Resampler::new(SampleRate(u32::MAX), SampleRate(16_000)).is_err());
        // No common divisor: long blocks, but it works.
        assert_eq!(resample(&[0.1; 100], SampleRate(44_101), SampleRate(16_000)).unwrap().len(), 37);
    }

    #[test]
    fn delay_is_an_upper_bound() {
        for rate in RATES {
            let mut r = Resampler::new(SampleRate(rate), SampleRate::HZ_16000).unwrap();
            let (mut out, mut taken) = (Vec::new(), 0usize);
            for step in [1, 100, 3, 4_000, 17, 999].iter().cycle().take(40) {
                r.step(&vec![0.0; *step], &mut out);
                taken += step;
                assert!(out.len() + r.delay() >= taken * 16_000 / rate as usize, "{rate} Hz after {taken}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_steps_give_the_same(rate in proptest::sample::select(&RATES[..]), steps in proptest::collection::vec(0usize..5_000, 1..12)) {
            let n: usize = steps.iter().sum();
            let input = tone(rate, 1_234.0, n);
            let whole = resample(&input, SampleRate(rate), SampleRate::HZ_16000).unwrap();
            let mut resampler = Resampler::new(SampleRate(rate), SampleRate::HZ_16000).unwrap();
            // Twice: flush resets.
            for _ in 0..2 {
                let (mut out, mut at) = (Vec::new(), 0);
                for step in &steps {
                    resampler.step(&input[at..at + step], &mut out);
                    at += step;
                }
                resampler.flush(&mut out);
                proptest::prop_assert_eq!(&out, &whole);
            }
        }
    }
}
