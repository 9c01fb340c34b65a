//! Augmentation of features `[frames, mels]`, row-major and normalised: vocal-tract warp, SpecAugment masks, noise, and tempo.

use serde::{Deserialize, Serialize};

use super::rng::{Purpose, RowKey};
use super::{Span, check_probability, check_span, refuse};
use crate::error::Result;

/// What masked values become.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fill {
    /// 0, the mean of normalised features.
    #[default]
    Zero,
    /// The mean of the clip.
    Mean,
}

/// SpecAugment (Park et al. 2019, arXiv:1904.08779) without its time warp, a warp of the mel axis, and noise on the features. Off by default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpecAugmentConfig {
    /// Number of masks over mels.
    pub freq_masks: usize,
    /// Widest mask over mels; widths are uniform from 0.
    pub freq_mask_mels: usize,
    /// Most masks over frames.
    pub time_masks: usize,
    /// One mask per this many frames, at least one and at most `time_masks`; 0: always `time_masks`.
    pub frames_per_time_mask: usize,
    /// Widest mask over frames.
    pub time_mask_frames: usize,
    /// Widest mask over frames as a share of the clip.
    pub time_mask_share: f32,
    /// What masked values become.
    pub fill: Fill,
    /// Share of rows whose mel axis is warped.
    pub warp_probability: f32,
    /// Mel `m` of the output is mel `m * warp` of the input: over 1 moves formants down.
    pub warp: Span,
    /// Share of rows with Gaussian noise on every value, masked ones included.
    pub noise_probability: f32,
    /// Its standard deviation.
    pub noise: Span,
}

impl Default for SpecAugmentConfig {
    fn default() -> Self {
        Self {
            freq_masks: 0,
            freq_mask_mels: 15,
            time_masks: 0,
            frames_per_time_mask: 150,
            time_mask_frames: 25,
            time_mask_share: 0.125,
            fill: Fill::Zero,
            warp_probability: 0.0,
            warp: [0.9, 1.1],
            noise_probability: 0.0,
            noise: [0.0, 0.3],
        }
    }
}

/// Share of the mel axis that is warped linearly; the rest is stretched so that the last mel stays in place.
const WARP_KNEE: f32 = 0.8;

impl SpecAugmentConfig {
    /// Checks every value against its range.
    ///
    /// # Errors
    /// [`crate::Error::Config`]: a value out of range.
    pub fn validate(&self) -> Result<()> {
        for (field, count) in [("freq_masks", self.freq_masks), ("time_masks", self.time_masks)] {
            if count > 1000 {
                return Err(refuse(field, count, "must be at most 1000"));
            }
        }
        check_probability("time_mask_share", self.time_mask_share)?;
        check_probability("warp_probability", self.warp_probability)?;
        check_probability("noise_probability", self.noise_probability)?;
        check_span("warp", self.warp, WARP_KNEE, 1.0 / WARP_KNEE)?;
        check_span("noise", self.noise, 0.0, 10.0)
    }

    /// Augments the features of one row in place.
    ///
    /// # Shapes
    /// - `features`: `[frames, mels]`; `mels` >= 1, padding not included
    pub fn apply(&self, key: RowKey, features: &mut [f32], mels: usize) {
        let frames = features.len() / mels;
        if frames == 0 {
            return;
        }
        let stage = |number: u64| key.rng(Purpose::Features).fork(number);
        let mut rng = stage(1);
        if rng.chance(self.warp_probability) {
            warp_mels(features, mels, rng.within(self.warp));
        }
        let fill = match self.fill {
            Fill::Zero => 0.0,
            Fill::Mean => (features.iter().map(|&x| f64::from(x)).sum::<f64>() / features.len() as f64) as f32,
        };
        let mut rng = stage(2);
        for _ in 0..self.freq_masks {
            let width = rng.below(self.freq_mask_mels.min(mels) + 1);
            let start = rng.below(mels - width + 1);
            features.chunks_exact_mut(mels).for_each(|frame| frame[start..start + width].fill(fill));
        }
        let mut rng = stage(3);
        let widest = self.time_mask_frames.min((self.time_mask_share * frames as f32) as usize);
        let masks = match self.frames_per_time_mask {
            0 => self.time_masks,
            per => (frames / per).max(1).min(self.time_masks),
        };
        for _ in 0..masks {
            let width = rng.below(widest + 1);
            let start = rng.below(frames - width + 1);
            features[start * mels..(start + width) * mels].fill(fill);
        }
        let mut rng = stage(4);
        if rng.chance(self.noise_probability) {
            let level = rng.within(self.noise);
            features.iter_mut().for_each(|x| *x += level * rng.normal());
        }
    }
}

/// Warps the mel axis of `[frames, mels]` in place, interpolating linearly: output mel `m` is input mel `m * factor` up to a knee, and from there
/// on straight to the last mel, so that nothing is read outside the axis. `factor` must lie in 0.8..=1.25.
pub fn warp_mels(features: &mut [f32], mels: usize, factor: f32) {
    let top = (mels - 1) as f32;
    // The knee of the output lies where the input's is at WARP_KNEE or below.
    let knee = WARP_KNEE * top * (1.0 / factor).min(1.0);
    let source = |m: usize| {
        let m = m as f32;
        let at = if m <= knee { m * factor } else { knee * factor + (m - knee) * (top - knee * factor) / (top - knee) };
        let at = at.clamp(0.0, top);
        let low = at as usize;
        (low, (low + 1).min(mels - 1), at - low as f32)
    };
    let sources: Vec<_> = (0..mels).map(source).collect();
    let mut before = vec![0.0; mels];
    for frame in features.chunks_exact_mut(mels) {
        before.copy_from_slice(frame);
        frame.iter_mut().zip(&sources).for_each(|(y, &(low, high, share))| *y = before[low] + share * (before[high] - before[low]));
    }
}

/// Number of frames after a change of tempo.
pub fn resampled_frames(frames: usize, speed: f32) -> usize {
    if speed == 1.0 { frames } else { (frames as f64 / f64::from(speed)).round() as usize }
}

/// Replaces `out` by `features` `[frames, mels]` at another tempo, [`resampled_frames`] of them: first and last frame stay, those between are
/// interpolated linearly.
pub fn resample_frames(features: &[f32], mels: usize, speed: f32, out: &mut Vec<f32>) {
    let frames = features.len() / mels;
    let count = resampled_frames(frames, speed);
    out.clear();
    out.reserve(count * mels);
    for i in 0..count {
        let at = if count > 1 { i as f64 * (frames - 1) as f64 / (count - 1) as f64 } else { 0.0 };
        let low = (at as usize).min(frames - 1);
        let (share, high) = ((at - low as f64) as f32, (low + 1).min(frames - 1));
        let (a, b) = (&features[low * mels..(low + 1) * mels], &features[high * mels..(high + 1) * mels]);
        out.extend(a.iter().zip(b).map(|(a, b)| a + share * (b - a)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(utterance: usize) -> RowKey {
        RowKey { seed: 1, epoch: 0, utterance, repeat: 0 }
    }

    #[test]
    fn masks_keep_their_caps() {
        let config = SpecAugmentConfig {
            freq_masks: 2,
            freq_mask_mels: 5,
            time_masks: 3,
            frames_per_time_mask: 0,
            time_mask_frames: 50,
            time_mask_share: 0.1,
            ..SpecAugmentConfig::default()
        };
        let (frames, mels) = (200, 20);
        let (mut most_mels, mut most_frames) = (0, 0);
        for i in 0..500 {
            let mut x = vec![1.0; frames * mels];
            config.apply(key(i), &mut x, mels);
            let full_frames = x.chunks(mels).filter(|f| f.iter().all(|&v| v == 0.0)).count();
            let full_mels = (0..mels).filter(|&m| x.iter().skip(m).step_by(mels).all(|&v| v == 0.0)).count();
            (most_frames, most_mels) = (most_frames.max(full_frames), most_mels.max(full_mels));
            assert!(full_frames <= 60 && full_mels <= 10);
        }
        assert!(most_frames > 45 && most_mels > 8, "{most_frames} {most_mels}");
    }

    #[test]
    fn the_number_of_time_masks_follows_the_length() {
        let config = SpecAugmentConfig {
            time_masks: 4,
            frames_per_time_mask: 100,
            time_mask_frames: 1,
            time_mask_share: 1.0,
            ..SpecAugmentConfig::default()
        };
        let most = |frames: usize| {
            (0..200)
                .map(|i| {
                    let mut x = vec![1.0; frames];
                    config.apply(key(i), &mut x, 1);
                    x.iter().filter(|&&v| v == 0.0).count()
                })
                .max()
        };
        assert_eq!([most(50), most(250), most(1000)], [Some(1), Some(2), Some(4)]);
    }

    #[test]
    fn fills_with_the_mean() {
        let config = SpecAugmentConfig { freq_masks: 5, freq_mask_mels: 4, fill: Fill::Mean, ..SpecAugmentConfig::default() };
        let mut x: Vec<f32> = (0..40).map(|i| i as f32).collect();
        config.apply(key(0), &mut x, 4);
        assert!(x.iter().enumerate().all(|(i, &v)| v == i as f32 || v == 19.5) && x.contains(&19.5));
    }

    #[test]
    fn warp_reads_where_it_says() {
        for factor in [0.8, 0.9, 1.0, 1.1, 1.25] {
            let mels = 80;
            let mut x: Vec<f32> = (0..2 * mels).map(|i| (i % mels) as f32).collect();
            warp_mels(&mut x, mels, factor);
            assert!((x[20] - 20.0 * factor).abs() < 1e-3 && x[0] == 0.0 && (x[mels - 1] - 79.0).abs() < 1e-3, "{factor}: {x:?}");
            assert!(x[..mels].windows(2).all(|w| w[0] <= w[1]));
            assert_eq!(x[..mels], x[mels..]);
        }
        let mut one = [3.0];
        warp_mels(&mut one, 1, 1.1);
        assert_eq!(one, [3.0]);
    }

    #[test]
    fn tempo_interpolates_between_the_ends() {
        let x: Vec<f32> = (0..11).flat_map(|i| [i as f32, -(i as f32)]).collect();
        let mut out = Vec::new();
        resample_frames(&x, 2, 1.1, &mut out);
        assert_eq!(out.len(), 20);
        assert!((out[18] - 10.0).abs() < 1e-6 && (out[2] - 10.0 / 9.0).abs() < 1e-6 && (out[3] + 10.0 / 9.0).abs() < 1e-6);
        resample_frames(&x[..2], 2, 1.5, &mut out);
        assert_eq!(out, [0.0, 0.0]);
        resample_frames(&[], 2, 1.5, &mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn nothing_breaks_on_tiny_clips() {
        let config = SpecAugmentConfig {
            freq_masks: 2,
            time_masks: 10,
            frames_per_time_mask: 0,
            warp_probability: 1.0,
            noise_probability: 1.0,
            ..SpecAugmentConfig::default()
        };
        for frames in 0..4 {
            for mels in 1..4 {
                config.apply(key(frames), &mut vec![1.0; frames * mels], mels);
            }
        }
    }
}
