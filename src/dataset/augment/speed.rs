//! Speed perturbation: the clip played faster or slower, by windowed-sinc interpolation at any ratio.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::dataset::rng::Rng;
use crate::dataset::{Span, check_probability, check_span};
use crate::error::Result;

/// How the speed is changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpeedKind {
    /// The waveform is resampled: pitch and formants move along.
    #[default]
    Resample,
    /// Feature frames are interpolated ([`crate::dataset::spec_augment::resample_frames`]): only the tempo changes.
    Frames,
}

/// Change of speed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpeedConfig {
    /// Share of rows.
    pub probability: f32,
    /// Speed, uniform; 1.1 makes a clip 10 % shorter. From 0.5 to 2.
    pub factor: Span,
    /// How.
    pub kind: SpeedKind,
}

impl Default for SpeedConfig {
    fn default() -> Self {
        Self { probability: 0.0, factor: [0.9, 1.1], kind: SpeedKind::Resample }
    }
}

impl SpeedConfig {
    /// Checks every value against its range.
    ///
    /// # Errors
    /// [`crate::Error::Config`]: probability outside 0..=1, factor outside 0.5..=2.
    pub fn validate(&self) -> Result<()> {
        check_probability("speed.probability", self.probability)?;
        check_span("speed.factor", self.factor, 0.5, 2.0)
    }

    /// The speed of a row: 1 where it is not changed.
    pub fn draw(&self, rng: &mut Rng) -> f32 {
        let chosen = rng.chance(self.probability);
        let factor = rng.within(self.factor);
        if chosen { factor } else { 1.0 }
    }
}

/// Number of samples after a change of speed.
pub fn resampled_len(samples: usize, speed: f32) -> usize {
    if speed == 1.0 { samples } else { (samples as f64 / f64::from(speed)).round() as usize }
}

/// Zero crossings of the sinc on each side at cutoff 1: 32 taps. At speed 1 or less the response is flat (0.1 dB) up to 6.8 kHz.
const HALF_WIDTH: f64 = 16.0;
/// Cutoff as a share of the lower Nyquist frequency: half of the window's transition lies above it.
const CUTOFF: f64 = 0.95;
/// Tabulated positions between two samples; taps are interpolated linearly between them, an error of (pi / PHASES)^2 / 8 = -82 dB at most.
const PHASES: usize = 128;

/// Windowed-sinc interpolation with its buffers.
#[derive(Default)]
pub struct Resampler {
    padded: Vec<f32>,
    /// `[PHASES + 1, taps]`
    table: Vec<f32>,
    tabulated: Option<f32>,
}

impl Resampler {
    /// Replaces `out` by `samples` played at `speed`: sample `n` of the output is the input at `n * speed`. Silence surrounds the clip.
    pub fn resample(&mut self, samples: &[f32], speed: f32, out: &mut Vec<f32>) {
        let cutoff = CUTOFF * (1.0 / f64::from(speed)).min(1.0);
        let side = ((HALF_WIDTH * f64::from(speed).max(1.0)) as usize).next_multiple_of(4);
        self.tabulate(cutoff, side, speed.max(1.0));
        self.padded.clear();
        self.padded.resize(side, 0.0);
        self.padded.extend_from_slice(samples);
        self.padded.resize(self.padded.len() + side + 1, 0.0);
        let taps = 2 * side;
        out.clear();
        out.extend((0..resampled_len(samples.len(), speed)).map(|n| {
            let at = n as f64 * f64::from(speed);
            // The taps reach from `side - 1` samples before floor(at) to `side` after it; `padded` starts `side` before sample 0.
            let first = at as usize + 1;
            let phase = at.fract() * PHASES as f64;
            let (row, share) = (phase as usize, phase.fract() as f32);
            let rows = &self.table[row * taps..(row + 2) * taps];
            interpolate(&self.padded[first..first + taps], &rows[..taps], &rows[taps..], share)
        }));
    }

    fn tabulate(&mut self, cutoff: f64, side: usize, slowest: f32) {
        if self.tabulated == Some(slowest) {
            return;
        }
        self.tabulated = Some(slowest);
        self.table.clear();
        for phase in 0..=PHASES {
            let fraction = phase as f64 / PHASES as f64;
            self.table.extend((0..2 * side).map(|k| {
                let t = k as f64 - (side as f64 - 1.0) - fraction;
                let window = (PI * t / (2.0 * side as f64)).cos().powi(2);
                let x = PI * cutoff * t;
                let sinc = if x.abs() < 1e-9 { 1.0 } else { x.sin() / x };
                (cutoff * sinc * window) as f32
            }));
        }
    }
}

/// Sum of `x` times taps interpolated between two table rows; the lengths are equal multiples of 8.
fn interpolate(x: &[f32], low: &[f32], high: &[f32], share: f32) -> f32 {
    let mut sums = [0.0_f32; 8];
    for ((x, low), high) in x.chunks_exact(8).zip(low.chunks_exact(8)).zip(high.chunks_exact(8)) {
        for i in 0..8 {
            sums[i] += x[i] * (low[i] + share * (high[i] - low[i]));
        }
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hz: f64, samples: usize) -> Vec<f32> {
        (0..samples).map(|n| (2.0 * PI * hz * n as f64 / 16_000.0).sin() as f32).collect()
    }

    #[test]
    fn a_tone_stays_a_tone_at_the_scaled_frequency() {
        let mut resampler = Resampler::default();
        for speed in [0.5_f32, 0.83, 0.9, 1.0, 1.07, 1.1, 1.5, 2.0] {
            for hz in [60.0, 440.0, 3000.0, 6800.0_f64] {
                if hz * f64::from(speed.max(1.0)) > 6800.0 {
                    continue;
                }
                let mut out = Vec::new();
                resampler.resample(&tone(hz, 8000), speed, &mut out);
                assert_eq!(out.len(), resampled_len(8000, speed));
                let expected = tone(hz * f64::from(speed), out.len());
                let middle = 200..out.len() - 200;
                let worst = middle.map(|i| (out[i] - expected[i]).abs()).fold(0.0, f32::max);
                // Ripple of the Hann-windowed sinc in its passband: 0.1 dB at the edge, below -50 dB elsewhere.
                let limit = if hz == 6800.0 { 1.2e-2 } else { 3e-3 };
                assert!(worst < limit, "{hz} Hz at {speed}: {worst}");
            }
        }
    }

    #[test]
    fn what_would_alias_is_removed() {
        let mut out = Vec::new();
        Resampler::default().resample(&tone(7000.0, 8000), 1.5, &mut out);
        let worst = out[200..out.len() - 200].iter().fold(0.0_f32, |m, x| m.max(x.abs()));
        assert!(worst < 3e-3, "{worst}");
    }

    #[test]
    fn edges() {
        let mut out = vec![1.0];
        Resampler::default().resample(&[], 1.1, &mut out);
        assert!(out.is_empty());
        Resampler::default().resample(&[0.5], 0.5, &mut out);
        assert_eq!(out.len(), 2);
        assert_eq!(resampled_len(11, 1.1), 10);
    }

    #[test]
    fn refuses_what_it_cannot_do() {
        assert!(SpeedConfig { factor: [0.4, 1.0], ..SpeedConfig::default() }.validate().is_err());
        assert!(SpeedConfig { factor: [1.1, 0.9], ..SpeedConfig::default() }.validate().is_err());
        assert!(SpeedConfig { factor: [f32::NAN, 1.0], ..SpeedConfig::default() }.validate().is_err());
        assert!(SpeedConfig { probability: 1.1, ..SpeedConfig::default() }.validate().is_err());
        assert!(SpeedConfig::default().validate().is_ok());
    }
}
