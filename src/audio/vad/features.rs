//! What the voice-activity detector hears of a frame of 32 ms: levels, periodicity, the shape of the spectrum.

use std::f32::consts::TAU;
use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};

/// Samples of a frame.
pub(super) const WINDOW: usize = 512;
/// Samples from frame to frame; frame `t` is centred on sample `t * HOP`.
pub(super) const HOP: usize = 256;
/// Bands of the spectrum.
pub(super) const BANDS: usize = 16;
/// Numbers the classifier judges a frame by.
pub(super) const FEATURES: usize = 10;

/// First bin of each band and the end of the last: even steps of the mel scale from 94 Hz to 7 kHz.
const EDGES: [usize; BANDS + 1] = [3, 7, 12, 17, 23, 30, 37, 47, 57, 69, 83, 99, 117, 139, 163, 191, 224];
/// Bins the pitch is looked for in: up to 3.5 kHz.
const PITCH_BINS: std::ops::Range<usize> = 3..112;
/// Periods of voices, samples: 400 to 80 Hz.
const LAGS: std::ops::RangeInclusive<usize> = 40..=200;
/// The bin at 1 kHz.
const KILOHERTZ: usize = 32;
/// Levels below count as this, dB.
const LEAST: f32 = -80.0;
/// Powers below count as this.
const LEAST_POWER: f32 = 1e-12;
/// The autocorrelation of the window is not divided out below this, where it says little.
const LEAST_SHAPE: f32 = 0.2;

/// A frame on its own.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    /// Level of each band, dB of full scale.
    pub bands: [f32; BANDS],
    /// Level of all bands, dB of full scale.
    pub level: f32,
    /// Largest autocorrelation at the period of a voice, 0 to 1.
    pub period: f32,
    /// Geometric by arithmetic mean of the bins, dB: 0 for a flat spectrum.
    pub flatness: f32,
    /// Level below 1 kHz over the level above, dB.
    pub tilt: f32,
}

impl Frame {
    /// The levels of the bands over their mean.
    pub fn outline(&self) -> [f32; BANDS] {
        let mean = self.bands.iter().sum::<f32>() / BANDS as f32;
        self.bands.map(|b| b - mean)
    }
}

/// Makes frames.
pub(super) struct Analysis {
    forward: Arc<dyn RealToComplex<f32>>,
    inverse: Arc<dyn ComplexToReal<f32>>,
    /// Hann window, scaled so that the powers of all bins add up to the mean square of the frame.
    window: Vec<f32>,
    /// For each of [`LAGS`], what the autocorrelation of the window takes away.
    shape: Vec<f32>,
    samples: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
    scratch: Vec<Complex<f32>>,
    power: Vec<f32>,
}

impl Analysis {
    pub fn new() -> Self {
        let mut planner = RealFftPlanner::new();
        let (forward, inverse) = (planner.plan_fft_forward(WINDOW), planner.plan_fft_inverse(WINDOW));
        let hann: Vec<f32> = (0..WINDOW).map(|i| 0.5 - 0.5 * (TAU * i as f32 / WINDOW as f32).cos()).collect();
        let product = |lag: usize| hann.iter().zip(&hann[lag..]).map(|(a, b)| a * b).sum::<f32>();
        let energy = product(0);
        let shape = LAGS.map(|lag| (product(lag) / energy).max(LEAST_SHAPE)).collect();
        let scale = (2.0 / (WINDOW as f32 * energy)).sqrt();
        let scratch = forward.get_scratch_len().max(inverse.get_scratch_len());
        Self {
            spectrum: forward.make_output_vec(),
            power: vec![0.0; WINDOW / 2 + 1],
            samples: vec![0.0; WINDOW],
            scratch: vec![Complex::default(); scratch],
            window: hann.into_iter().map(|w| w * scale).collect(),
            forward,
            inverse,
            shape,
        }
    }

    /// The frame of [`WINDOW`] samples.
    pub fn frame(&mut self, samples: &[f32]) -> Frame {
        self.samples.iter_mut().zip(samples).zip(&self.window).for_each(|((to, x), w)| *to = x * w);
        let done = self.forward.process_with_scratch(&mut self.samples, &mut self.spectrum, &mut self.scratch);
        debug_assert!(done.is_ok(), "buffers have the sizes of the plan");
        self.power.iter_mut().zip(&self.spectrum).for_each(|(p, z)| *p = z.norm_sqr());
        let power = &self.power;
        let whole = &power[EDGES[0]..EDGES[BANDS]];
        let sum = |bins: &[f32]| bins.iter().sum::<f32>();
        let (low, high) = (sum(&power[EDGES[0]..KILOHERTZ]), sum(&power[KILOHERTZ..EDGES[BANDS]]));
        Frame {
            bands: std::array::from_fn(|b| decibel(sum(&power[EDGES[b]..EDGES[b + 1]])).max(LEAST)),
            level: decibel(sum(whole)).max(LEAST),
            flatness: mean_decibel(whole) - decibel(sum(whole) / whole.len() as f32),
            tilt: decibel(low) - decibel(high),
            period: self.period(),
        }
    }

    /// `max r(lag) / r(0) / w(lag)` over [`LAGS`]: `r` the autocorrelation of the frame, `w` that of its window.
    fn period(&mut self) -> f32 {
        for (bin, (z, p)) in self.spectrum.iter_mut().zip(&self.power).enumerate() {
            *z = Complex::new(if PITCH_BINS.contains(&bin) { *p } else { 0.0 }, 0.0);
        }
        let done = self.inverse.process_with_scratch(&mut self.spectrum, &mut self.samples, &mut self.scratch);
        debug_assert!(done.is_ok(), "buffers have the sizes of the plan");
        // The plan gives 512 times the inverse transform.
        let energy = self.samples[0].max(LEAST_POWER * WINDOW as f32);
        let ratios = self.samples[LAGS].iter().zip(&self.shape).map(|(r, w)| r / energy / w);
        ratios.fold(0.0, f32::max).min(1.0)
    }
}

/// `10 log10`
fn decibel(power: f32) -> f32 {
    10.0 * power.max(LEAST_POWER).log10()
}

/// Mean of [`decibel`] over bins: a logarithm for every 16 of them.
fn mean_decibel(bins: &[f32]) -> f32 {
    let product = |part: &[f32]| part.iter().map(|&p| f64::from(p.max(LEAST_POWER))).product::<f64>();
    10.0 * (bins.chunks(16).map(|part| product(part).log10()).sum::<f64>() / bins.len() as f64) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_is_periodic_and_has_its_level() {
        let tone: Vec<f32> = (0..WINDOW).map(|i| 0.1 * (TAU * 250.0 * i as f32 / 16_000.0).sin()).collect();
        let frame = Analysis::new().frame(&tone);
        assert!((frame.level + 23.01).abs() < 0.1, "{frame:?}");
        assert!(frame.period > 0.99 && frame.flatness < -40.0 && frame.tilt > 40.0, "{frame:?}");
    }

    #[test]
    fn silence_is_finite() {
        let frame = Analysis::new().frame(&[0.0; WINDOW]);
        assert_eq!((frame.level, frame.period, frame.tilt), (LEAST, 0.0, 0.0));
        assert!(frame.flatness.abs() < 1e-3);
    }
}
