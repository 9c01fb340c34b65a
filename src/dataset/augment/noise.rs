//! Additive noise at a random signal-to-noise ratio: generated with a random spectral slope, babble of other utterances, or recordings.

use std::ops::Range;

use realfft::num_complex::Complex32;
use serde::{Deserialize, Serialize};

use super::{Clips, Convolver, Sounds, Workspace, amplitude, power};
use crate::dataset::rng::Rng;
use crate::dataset::{Span, check_probability, check_span, refuse};
use crate::error::Result;

/// Background noise. `coloured`, `babble` and `recorded` are relative shares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NoiseConfig {
    /// Share of rows.
    pub probability: f32,
    /// Mean power of the clip over mean power of the noise, dB.
    pub snr_db: Span,
    /// Share of generated noise.
    pub coloured: f32,
    /// Its power falls as frequency to the minus this: 0 white, 1 pink, 2 brown.
    pub slope: Span,
    /// Share of other utterances talking at once.
    pub babble: f32,
    /// How many of them, least and most.
    pub voices: [usize; 2],
    /// Share of recordings.
    pub recorded: f32,
}

impl Default for NoiseConfig {
    fn default() -> Self {
        Self { probability: 0.0, snr_db: [5.0, 30.0], coloured: 1.0, slope: [0.0, 2.0], babble: 0.0, voices: [2, 6], recorded: 0.0 }
    }
}

/// Level differences between the voices of a babble, dB.
const VOICE_DB: Span = [-6.0, 0.0];
/// Longest period of generated noise: 2 s; a longer clip hears it again.
const MOST_PERIOD: usize = 32_768;
/// Generated noise has nothing below this, Hz: brown noise would be mostly inaudible rumble.
const LOWEST_HZ: f32 = 30.0;

impl NoiseConfig {
    /// Checks every value against its range.
    ///
    /// # Errors
    /// [`crate::Error::Config`]: a value out of range, or no share is positive.
    pub fn validate(&self) -> Result<()> {
        check_probability("noise.probability", self.probability)?;
        check_span("noise.snr_db", self.snr_db, -30.0, 100.0)?;
        check_span("noise.slope", self.slope, -2.0, 4.0)?;
        for (field, share) in [("noise.coloured", self.coloured), ("noise.babble", self.babble), ("noise.recorded", self.recorded)] {
            if !(share >= 0.0 && share.is_finite()) {
                return Err(refuse(field, share, "a share must be 0 or more"));
            }
        }
        if self.coloured + self.babble + self.recorded <= 0.0 {
            return Err(refuse("noise.coloured", self.coloured, "coloured, babble and recorded must not all be 0"));
        }
        if !(1 <= self.voices[0] && self.voices[0] <= self.voices[1] && self.voices[1] <= 100) {
            return Err(refuse("noise.voices", self.voices, "must be [low, high] with 1 <= low <= high <= 100"));
        }
        Ok(())
    }

    pub(super) fn apply(&self, samples: &mut [f32], sounds: &Sounds, own: usize, rng: &mut Rng, workspace: &mut Workspace) -> Result<()> {
        if !rng.chance(self.probability) {
            return Ok(());
        }
        let snr_db = rng.within(self.snr_db);
        let kind = rng.pick(&[self.coloured, self.babble, self.recorded]);
        let mut noise = std::mem::take(&mut workspace.sound);
        noise.clear();
        noise.resize(samples.len(), 0.0);
        match (kind, &sounds.voices, &sounds.noises) {
            (Some(1), Some(voices), _) => babble(&mut noise, voices.as_ref(), self.voices, own, rng, &mut workspace.other)?,
            (Some(2), _, Some(noises)) => recorded(&mut noise, noises.as_ref(), rng, &mut workspace.other)?,
            _ => coloured(&mut noise, rng.within(self.slope), rng, &mut workspace.convolver),
        }
        let (signal, level) = (power(samples), power(&noise));
        if signal > 0.0 && level > 0.0 {
            let gain = (signal / level).sqrt() * amplitude(-snr_db);
            samples.iter_mut().zip(&noise).for_each(|(x, n)| *x += gain * n);
        }
        workspace.sound = noise;
        Ok(())
    }
}

/// Fills `noise` with noise whose power falls as frequency^-slope: random complex bins, one inverse FFT, repeated.
fn coloured(noise: &mut [f32], slope: f32, rng: &mut Rng, convolver: &mut Convolver) {
    let size = noise.len().next_power_of_two().clamp(1024, MOST_PERIOD);
    let lowest = (LOWEST_HZ * size as f32 / 16_000.0).ceil() as usize;
    let mut spectrum = vec![Complex32::default(); size / 2 + 1];
    let (mut level, mut until) = (1.0, 0);
    for (k, bin) in spectrum.iter_mut().enumerate().skip(lowest.max(1)) {
        if k >= until {
            // The level is held over 1/32 of the frequency: 0.13 dB per step at slope 1, and few powers to compute.
            (level, until) = ((k as f32).powf(-0.5 * slope), k + 1 + k / 32);
        }
        *bin = Complex32::new(level * rng.normal(), level * rng.normal());
    }
    let mut block = vec![0.0; size];
    convolver.plan(size).inverse(&mut spectrum, &mut block);
    let start = rng.below(size);
    noise.iter_mut().zip(block.iter().cycle().skip(start)).for_each(|(n, x)| *n = *x);
}

/// Adds random stretches of other utterances at similar levels.
fn babble(noise: &mut [f32], voices: &dyn Clips, count: [usize; 2], own: usize, rng: &mut Rng, clip: &mut Vec<f32>) -> Result<()> {
    for _ in 0..count[0] + rng.below(count[1] - count[0] + 1) {
        // One fewer to choose from, and those from `own` on move up by one: never the row's own utterance.
        let choices = voices.count() - usize::from(own < voices.count());
        let index = rng.below(choices);
        let index = if index >= own { index + 1 } else { index };
        let gain_db = rng.within(VOICE_DB);
        let (from, at) = stretch(voices.samples(index), noise.len(), rng);
        voices.read(index, from, clip)?;
        let gain = amplitude(gain_db) / power(clip).sqrt().max(1e-6);
        noise[at..].iter_mut().zip(clip.iter()).for_each(|(n, x)| *n += gain * x);
    }
    Ok(())
}

/// Part of a clip of `clip` samples to put into `room` samples, and where: a random part of a long clip, a random place for a short one.
fn stretch(clip: usize, room: usize, rng: &mut Rng) -> (Range<usize>, usize) {
    if clip >= room {
        let start = rng.below(clip - room + 1);
        (start..start + room, 0)
    } else {
        (0..clip, rng.below(room - clip + 1))
    }
}

/// Fills `noise` from one recording: a random part of a long one; a short one again and again with pauses up to its own length.
fn recorded(noise: &mut [f32], noises: &dyn Clips, rng: &mut Rng, clip: &mut Vec<f32>) -> Result<()> {
    let index = rng.below(noises.count());
    let total = noises.samples(index);
    let (from, mut at) = stretch(total, noise.len(), rng);
    noises.read(index, from, clip)?;
    // Copies follow the first place and, going back from it, fill what lies before.
    at %= total.max(1);
    while at < noise.len() && !clip.is_empty() {
        noise[at..].iter_mut().zip(clip.iter()).for_each(|(n, x)| *n = *x);
        at += total + rng.below(total + 1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn tone(samples: usize) -> Vec<f32> {
        (0..samples).map(|n| 0.1 * (n as f32 * 0.3).sin()).collect()
    }

    fn only(coloured: f32, babble: f32, recorded: f32) -> NoiseConfig {
        NoiseConfig { probability: 1.0, snr_db: [10.0, 10.0], coloured, babble, recorded, ..NoiseConfig::default() }
    }

    fn sounds() -> Sounds {
        let mut rng = Rng::new(9, &[]);
        let noises: Vec<Vec<f32>> = [300, 50_000].map(|n| (0..n).map(|_| rng.normal()).collect()).to_vec();
        let voices: Vec<Vec<f32>> = (1..4).map(|i| (0..10_000).map(|n| (n as f32 * 0.1 * i as f32).sin()).collect()).collect();
        Sounds { noises: Some(Arc::new(noises)), voices: Some(Arc::new(voices)), ..Sounds::default() }
    }

    #[test]
    fn every_kind_has_the_signal_to_noise_ratio_asked_for() {
        for config in [only(1.0, 0.0, 0.0), only(0.0, 1.0, 0.0), only(0.0, 0.0, 1.0)] {
            for seed in 0..20 {
                let clean = tone(20_000);
                let mut noisy = clean.clone();
                config.apply(&mut noisy, &sounds(), 1, &mut Rng::new(seed, &[]), &mut Workspace::default()).unwrap();
                let noise: Vec<f32> = noisy.iter().zip(&clean).map(|(a, b)| a - b).collect();
                let snr = 10.0 * (power(&clean) / power(&noise)).log10();
                assert!((snr - 10.0).abs() < 0.05, "{config:?}: {snr}");
            }
        }
    }

    #[test]
    fn slope_is_the_fall_of_power() {
        for slope in [0.0, 1.0, 2.0] {
            let mut noise = vec![0.0; 32_768];
            coloured(&mut noise, slope, &mut Rng::new(5, &[]), &mut Convolver::default());
            let mut spectrum = vec![Complex32::default(); 16_385];
            Convolver::default().plan(32_768).forward(&mut noise, &mut spectrum);
            let band = |range: Range<usize>| spectrum[range.clone()].iter().map(|c| c.norm_sqr()).sum::<f32>() / range.len() as f32;
            let fall_db = 10.0 * (band(1000..1100) / band(8000..8800)).log10();
            assert!((fall_db - 10.0 * slope * 8_f32.log10()).abs() < 0.8, "slope {slope}: {fall_db} dB over 3 octaves");
        }
    }

    #[test]
    fn babble_is_never_the_clip_itself() {
        let voices: Vec<Vec<f32>> = vec![vec![0.0; 100], vec![1.0; 100], vec![0.0; 100]];
        for seed in 0..50 {
            let mut noise = vec![0.0; 100];
            babble(&mut noise, &voices, [1, 3], 1, &mut Rng::new(seed, &[]), &mut Vec::new()).unwrap();
            assert!(noise.iter().all(|&x| x == 0.0));
            babble(&mut noise, &voices, [30, 30], 0, &mut Rng::new(seed, &[]), &mut Vec::new()).unwrap();
            assert!(noise.iter().any(|&x| x > 0.0));
        }
    }

    #[test]
    fn silence_stays_silence() {
        let mut silence = vec![0.0; 5000];
        only(1.0, 0.0, 0.0).apply(&mut silence, &sounds(), 0, &mut Rng::new(0, &[]), &mut Workspace::default()).unwrap();
        assert!(silence.iter().all(|&x| x == 0.0));
    }
}
