//! What low-rate coding leaves behind: mu-law with few bits, adaptive differential PCM, and a transform coder that drops and coarsens bands.

use realfft::num_complex::Complex32;
use serde::{Deserialize, Serialize};

use super::convolve::Convolver;
use crate::dataset::rng::Rng;
use crate::dataset::{Span, check_probability, check_span, refuse};
use crate::error::Result;

/// Low-rate coding. `mu_law`, `adpcm` and `transform` are relative shares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CodecConfig {
    /// Share of rows.
    pub probability: f32,
    /// Share of mu-law.
    pub mu_law: f32,
    /// Bits per sample of mu-law, least and most.
    pub mu_law_bits: [u32; 2],
    /// Share of adaptive differential PCM.
    pub adpcm: f32,
    /// Bits per sample of adaptive differential PCM, least and most.
    pub adpcm_bits: [u32; 2],
    /// Share of transform coding, as MP3 and its successors do.
    pub transform: f32,
    /// Its upper band edge, Hz.
    pub cutoff_hz: Span,
    /// Its signal to coding noise in every band, dB; near 0 most weak components vanish.
    pub snr_db: Span,
}

impl Default for CodecConfig {
    fn default() -> Self {
        Self {
            probability: 0.0,
            mu_law: 1.0,
            mu_law_bits: [5, 8],
            adpcm: 1.0,
            adpcm_bits: [2, 4],
            transform: 2.0,
            cutoff_hz: [3500.0, 7500.0],
            snr_db: [3.0, 18.0],
        }
    }
}

/// Frame of the transform coder: 32 ms, halves overlap.
const FRAME: usize = 512;
/// Upper edges of its bands in bins of 31.25 Hz, roughly critical bands.
const BANDS: [usize; 20] = [4, 8, 12, 16, 20, 25, 30, 36, 42, 50, 58, 68, 80, 94, 110, 130, 154, 184, 220, 257];

impl CodecConfig {
    /// Checks every value against its range.
    ///
    /// # Errors
    /// [`crate::Error::Config`]: a value out of range, or no share is positive.
    pub fn validate(&self) -> Result<()> {
        check_probability("codec.probability", self.probability)?;
        for (field, share) in [("codec.mu_law", self.mu_law), ("codec.adpcm", self.adpcm), ("codec.transform", self.transform)] {
            if !(share >= 0.0 && share.is_finite()) {
                return Err(refuse(field, share, "a share must be 0 or more"));
            }
        }
        if self.mu_law + self.adpcm + self.transform <= 0.0 {
            return Err(refuse("codec.mu_law", self.mu_law, "mu_law, adpcm and transform must not all be 0"));
        }
        for (field, bits) in [("codec.mu_law_bits", self.mu_law_bits), ("codec.adpcm_bits", self.adpcm_bits)] {
            if !(2 <= bits[0] && bits[0] <= bits[1] && bits[1] <= 12) {
                return Err(refuse(field, bits, "must be [low, high] with 2 <= low <= high <= 12"));
            }
        }
        check_span("codec.cutoff_hz", self.cutoff_hz, 1000.0, 8000.0)?;
        check_span("codec.snr_db", self.snr_db, -10.0, 60.0)
    }

    pub(super) fn apply(&self, samples: &mut [f32], rng: &mut Rng, convolver: &mut Convolver) {
        if !rng.chance(self.probability) {
            return;
        }
        let mut bits = |range: [u32; 2]| range[0] + rng.below((range[1] - range[0] + 1) as usize) as u32;
        let (mu_law_bits, adpcm_bits) = (bits(self.mu_law_bits), bits(self.adpcm_bits));
        match rng.pick(&[self.mu_law, self.adpcm, self.transform]) {
            Some(0) => samples.iter_mut().for_each(|x| *x = mu_law(*x, mu_law_bits)),
            Some(1) => adpcm(samples, adpcm_bits),
            _ => transform(samples, rng.within(self.cutoff_hz), rng.within(self.snr_db), convolver),
        }
    }
}

/// Nearest whole number for |x| < 2^22: adding and taking away 1.5 * 2^23 leaves no fraction. `f32::round` is a library call on plain x86-64.
fn nearest(x: f32) -> f32 {
    const BIG: f32 = 12_582_912.0;
    (x + BIG) - BIG
}

/// One sample through mu-law companding (mu = 255) with `bits` bits; levels beyond 1 are clipped.
pub(super) fn mu_law(x: f32, bits: u32) -> f32 {
    // ln(256)
    const RANGE: f32 = 5.545_177_5;
    let steps = ((1_u32 << (bits - 1)) - 1) as f32;
    let code = nearest((1.0 + 255.0 * x.abs().min(1.0)).ln() / RANGE * steps);
    ((code / steps * RANGE).exp() - 1.0) / 255.0 * x.signum()
}

/// Differential PCM with Jayant's adaptive step: small codes narrow it, large ones widen it.
fn adpcm(samples: &mut [f32], bits: u32) {
    let half = 1_usize << (bits - 2);
    // The shape of Jayant's multipliers for differential PCM (Bell Syst. Tech. J. 52, 1973): one factor for the lower half of the
    // magnitudes, rising ones above, steeper for more bits.
    let (shrink, growth) = match bits {
        2 => (0.8, 0.6),
        3 => (0.9, 0.75),
        _ => (0.9, 1.4),
    };
    let multiplier = |i: usize| if i < half { shrink } else { 1.0 + growth * (i + 1 - half) as f32 / half as f32 };
    let multipliers: Vec<f32> = (0..2 * half).map(multiplier).collect();
    let most = (2 * half - 1) as f32;
    let (mut predicted, mut step) = (0.0_f32, 0.002_f32);
    for x in samples {
        let difference = *x - predicted;
        // Magnitudes 0.5, 1.5, .. of the step.
        let magnitude = (difference.abs() / step).min(most) as usize;
        predicted = (0.99 * predicted + (magnitude as f32 + 0.5) * step * difference.signum()).clamp(-4.0, 4.0);
        step = (step * multipliers[magnitude]).clamp(1e-5, 1.0);
        *x = predicted;
    }
}

/// Sine-windowed FFT frames, every band rounded to a step that gives `snr_db` in it, nothing above `cutoff_hz`.
fn transform(samples: &mut [f32], cutoff_hz: f32, snr_db: f32, convolver: &mut Convolver) {
    const HOP: usize = FRAME / 2;
    let window: Vec<f32> = (0..FRAME).map(|n| (std::f32::consts::PI * (n as f32 + 0.5) / FRAME as f32).sin()).collect();
    let last = ((cutoff_hz / 16_000.0 * FRAME as f32) as usize + 1).min(FRAME / 2 + 1);
    // Uniform rounding noise has power step^2 / 12 in each of the two parts of a bin.
    let coarseness = super::amplitude(-snr_db) * 6_f32.sqrt();
    let (mut block, mut spectrum) = (vec![0.0; FRAME], vec![Complex32::default(); FRAME / 2 + 1]);
    let mut out = vec![0.0; samples.len() + FRAME];
    let plan = convolver.plan(FRAME);
    // Frame i covers samples (i - 1) * HOP on; `out` starts HOP earlier than `samples`.
    for i in 0..=samples.len().div_ceil(HOP) {
        for (n, (x, w)) in block.iter_mut().zip(&window).enumerate() {
            *x = (i * HOP + n).checked_sub(HOP).and_then(|at| samples.get(at)).map_or(0.0, |s| s * w);
        }
        plan.forward(&mut block, &mut spectrum);
        let mut low = 0;
        for high in BANDS {
            let band = &mut spectrum[low..high];
            let step = coarseness * (band.iter().map(Complex32::norm_sqr).sum::<f32>() / band.len() as f32).sqrt();
            if step > 0.0 {
                let per_step = 1.0 / step;
                band.iter_mut().for_each(|c| *c = Complex32::new(nearest(c.re * per_step) * step, nearest(c.im * per_step) * step));
            }
            low = high;
        }
        spectrum[last..].fill(Complex32::default());
        plan.inverse(&mut spectrum, &mut block);
        let frame = out[i * HOP..].iter_mut().zip(&block).zip(&window);
        frame.for_each(|((y, x), w)| *y += x * w / FRAME as f32);
    }
    samples.copy_from_slice(&out[HOP..HOP + samples.len()]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::augment::power;

    fn speech_like(samples: usize) -> Vec<f32> {
        let mut rng = Rng::new(4, &[]);
        let mut held = 0.0;
        (0..samples)
            .map(|n| {
                held = 0.9 * held + 0.05 * rng.normal();
                held * (0.5 + 0.5 * (n as f32 * 0.001).sin())
            })
            .collect()
    }

    fn snr(clean: &[f32], coded: &[f32]) -> f32 {
        let noise: Vec<f32> = clean.iter().zip(coded).map(|(a, b)| a - b).collect();
        10.0 * (power(clean) / power(&noise)).log10()
    }

    #[test]
    fn more_bits_give_a_better_signal() {
        let clean = speech_like(16_000);
        let mu: Vec<f32> = [4, 6, 8].map(|bits| snr(&clean, &clean.iter().map(|&x| mu_law(x, bits)).collect::<Vec<_>>())).to_vec();
        // G.711: 37 to 38 dB in its working range.
        assert!((mu[2] - 37.5).abs() < 1.5 && mu[1] < mu[2] - 9.0 && mu[0] < mu[1] - 9.0, "{mu:?}");
        let adaptive = [2, 3, 4].map(|bits| {
            let mut x = clean.clone();
            adpcm(&mut x, bits);
            snr(&clean, &x)
        });
        assert!(adaptive[0] > 3.0 && adaptive[1] > adaptive[0] + 2.0 && adaptive[2] > adaptive[1] + 2.0, "{adaptive:?}");
    }

    #[test]
    fn mu_law_is_odd_and_clips() {
        assert_eq!(mu_law(0.0, 8), 0.0);
        assert_eq!(mu_law(0.3, 8), -mu_law(-0.3, 8));
        assert!((mu_law(3.0, 8) - 1.0).abs() < 1e-5);
    }

    #[test]
    fn the_transform_coder_keeps_its_signal_to_noise_ratio_and_cutoff() {
        for n in [1, 255, 256, 257, 10_000] {
            let clean = speech_like(n);
            let mut x = clean.clone();
            transform(&mut x, 8000.0, 60.0, &mut Convolver::default());
            assert!(snr(&clean, &x) > 50.0, "{n}: {}", snr(&clean, &x));
        }
        let clean = speech_like(16_000);
        let mut x = clean.clone();
        transform(&mut x, 8000.0, 12.0, &mut Convolver::default());
        assert!((snr(&clean, &x) - 12.0).abs() < 3.0, "{}", snr(&clean, &x));
        let mut tone: Vec<f32> = (0..8000).map(|n| (std::f32::consts::TAU * 6000.0 * n as f32 / 16_000.0).sin()).collect();
        transform(&mut tone, 4000.0, 20.0, &mut Convolver::default());
        assert!(power(&tone[600..7400]) < 1e-4, "{}", power(&tone[600..7400]));
    }
}
