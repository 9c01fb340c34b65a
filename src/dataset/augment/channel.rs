//! Level, overdrive and telephone line.

use serde::{Deserialize, Serialize};

use super::amplitude;
use super::codec::mu_law;
use super::convolve::{Convolver, band_pass};
use crate::dataset::rng::Rng;
use crate::dataset::{Span, check_probability, check_span};
use crate::error::Result;

/// Change of level.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GainConfig {
    /// Share of rows.
    pub probability: f32,
    /// Gain, dB.
    pub db: Span,
}

impl Default for GainConfig {
    fn default() -> Self {
        Self { probability: 0.0, db: [-20.0, 6.0] }
    }
}

impl GainConfig {
    /// Checks every value against its range.
    ///
    /// # Errors
    /// [`crate::Error::Config`]: a value out of range.
    pub fn validate(&self) -> Result<()> {
        check_probability("gain.probability", self.probability)?;
        check_span("gain.db", self.db, -80.0, 40.0)
    }

    pub(super) fn apply(&self, samples: &mut [f32], rng: &mut Rng) {
        if rng.chance(self.probability) {
            let gain = amplitude(rng.within(self.db));
            samples.iter_mut().for_each(|x| *x *= gain);
        }
    }
}

/// Overdriven input: what exceeds a level is cut off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClippingConfig {
    /// Share of rows.
    pub probability: f32,
    /// The level, as a share of the clip's peak.
    pub level: Span,
}

impl Default for ClippingConfig {
    fn default() -> Self {
        Self { probability: 0.0, level: [0.1, 0.7] }
    }
}

impl ClippingConfig {
    /// Checks every value against its range.
    ///
    /// # Errors
    /// [`crate::Error::Config`]: a value out of range.
    pub fn validate(&self) -> Result<()> {
        check_probability("clipping.probability", self.probability)?;
        check_span("clipping.level", self.level, 0.001, 1.0)
    }

    pub(super) fn apply(&self, samples: &mut [f32], rng: &mut Rng) {
        if rng.chance(self.probability) {
            let level = rng.within(self.level) * samples.iter().fold(0.0_f32, |peak, x| peak.max(x.abs()));
            samples.iter_mut().for_each(|x| *x = x.clamp(-level, level));
        }
    }
}

/// Telephone line: band-pass, 8 kHz, mu-law.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelephoneConfig {
    /// Share of rows.
    pub probability: f32,
    /// Lower edge of the band, Hz.
    pub low_hz: Span,
    /// Upper edge of the band, Hz.
    pub high_hz: Span,
    /// Of those rows, share that is also coded in 8-bit mu-law (G.711).
    pub mu_law: f32,
}

impl Default for TelephoneConfig {
    fn default() -> Self {
        Self { probability: 0.0, low_hz: [200.0, 350.0], high_hz: [3200.0, 3700.0], mu_law: 0.7 }
    }
}

/// Taps on each side of the band-pass: edges 220 Hz wide (Hamming, 3.3 / taps of 16 kHz). Applied before and after the 8 kHz stage.
const HALF_TAPS: usize = 120;

impl TelephoneConfig {
    /// Checks every value against its range.
    ///
    /// # Errors
    /// [`crate::Error::Config`]: a value out of range.
    pub fn validate(&self) -> Result<()> {
        check_probability("telephone.probability", self.probability)?;
        check_probability("telephone.mu_law", self.mu_law)?;
        check_span("telephone.low_hz", self.low_hz, 0.0, 1000.0)?;
        check_span("telephone.high_hz", self.high_hz, 1500.0, 3800.0)
    }

    pub(super) fn apply(&self, samples: &mut [f32], rng: &mut Rng, convolver: &mut Convolver) {
        if !rng.chance(self.probability) {
            return;
        }
        let (low, high) = (rng.within(self.low_hz), rng.within(self.high_hz));
        let mut taps = band_pass(f64::from(low) / 16_000.0, f64::from(high) / 16_000.0, HALF_TAPS);
        convolver.convolve(samples, &taps, HALF_TAPS);
        let coded = rng.chance(self.mu_law);
        for pair in samples.chunks_mut(2) {
            if coded {
                pair[0] = mu_law(pair[0], 8);
            }
            if let Some(odd) = pair.get_mut(1) {
                *odd = 0.0;
            }
        }
        // Half of the samples carry the signal now.
        taps.iter_mut().for_each(|h| *h *= 2.0);
        convolver.convolve(samples, &taps, HALF_TAPS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::augment::power;

    fn tone(hz: f32) -> Vec<f32> {
        (0..8000).map(|n| 0.2 * (std::f32::consts::TAU * hz * n as f32 / 16_000.0).sin()).collect()
    }

    #[test]
    fn gain_is_in_decibels() {
        let mut x = [0.1, -0.2];
        GainConfig { probability: 1.0, db: [-20.0, -20.0] }.apply(&mut x, &mut Rng::new(0, &[]));
        assert!((x[0] - 0.01).abs() < 1e-6 && (x[1] + 0.02).abs() < 1e-6);
    }

    #[test]
    fn clipping_cuts_at_a_share_of_the_peak() {
        let mut x = [0.1, -0.8, 0.5];
        ClippingConfig { probability: 1.0, level: [0.5, 0.5] }.apply(&mut x, &mut Rng::new(0, &[]));
        assert_eq!(x, [0.1, -0.4, 0.4]);
    }

    #[test]
    fn the_telephone_passes_speech_and_nothing_else() {
        for mu_law in [0.0, 1.0] {
            let config = TelephoneConfig { probability: 1.0, mu_law, ..TelephoneConfig::default() };
            let level = |hz: f32| {
                let (clean, mut x) = (tone(hz), tone(hz));
                config.apply(&mut x, &mut Rng::new(1, &[]), &mut Convolver::default());
                10.0 * (power(&x[500..7500]) / power(&clean[500..7500])).log10()
            };
            for hz in [600.0, 1000.0, 2800.0] {
                assert!(level(hz).abs() < 0.2, "{hz} Hz: {} dB", level(hz));
            }
            for hz in [50.0, 4500.0, 7000.0] {
                assert!(level(hz) < -30.0, "{hz} Hz: {} dB", level(hz));
            }
        }
    }

    #[test]
    fn the_telephone_does_not_delay() {
        let mut x = vec![0.0; 2001];
        x[1000] = 0.5;
        TelephoneConfig { probability: 1.0, ..TelephoneConfig::default() }.apply(&mut x, &mut Rng::new(1, &[]), &mut Convolver::default());
        let peak = (0..2001).max_by(|&a, &b| x[a].abs().total_cmp(&x[b].abs())).unwrap();
        assert_eq!(peak, 1000);
    }
}
