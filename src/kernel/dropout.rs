//! Dropout whose mask is a function of a seed and the element's position: nothing is stored for the backward pass.

use super::math::fma;
use super::rng::SplitMix;
use super::rows::{self, part};
use super::simd::{Tier, tiered};

/// Zeroes elements with probability `p` and scales the others by `1 / (1 - p)`.
///
/// The same seed gives the same mask on every machine, in any number of threads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    /// Probability in `[0, 1]` that an element is dropped.
    pub p: f32,
    /// Chooses the mask; take another for every layer and step.
    pub seed: u64,
}

/// 32 random bits for position `index` under two keys: a multiply-xorshift mix (constants from the search for low-bias
/// 32-bit hashes by C. Wellons, "lowbias32") with a key before and a key inside, so that masks of different keys are
/// not shifts of each other.
#[inline(always)]
fn bits(index: u32, keys: [u32; 2]) -> u32 {
    let mut h = index.wrapping_add(keys[0]);
    h = (h ^ (h >> 16)).wrapping_mul(0x7FEB_352D);
    h ^= keys[1];
    h = (h ^ (h >> 15)).wrapping_mul(0x846C_A68B);
    h = (h ^ (h >> 16)).wrapping_mul(0x7FEB_352D);
    h ^ (h >> 15)
}

#[inline(always)]
fn mask_body<const FMA: bool, const LANES: usize>(x: &[f32], keys: [u32; 2], threshold: u32, scale: f32, out: &mut [f32]) {
    for (i, (o, &v)) in out.iter_mut().zip(x).enumerate() {
        *o = if bits(i as u32, keys) >= threshold { v * scale } else { 0.0 };
    }
}
tiered!(fn mask_part(x: &[f32], keys: [u32; 2], threshold: u32, scale: f32, out: &mut [f32]) = mask_body);

#[inline(always)]
fn add_body<const FMA: bool, const LANES: usize>(residual: &[f32], x: &[f32], keys: [u32; 2], threshold: u32, scale: f32, out: &mut [f32]) {
    for (i, ((o, &r), &v)) in out.iter_mut().zip(residual).zip(x).enumerate() {
        *o = if bits(i as u32, keys) >= threshold { fma::<FMA>(v, scale, r) } else { r };
    }
}
tiered!(fn add_part(residual: &[f32], x: &[f32], keys: [u32; 2], threshold: u32, scale: f32, out: &mut [f32]) = add_body);

#[inline(always)]
fn axpy_body<const FMA: bool, const LANES: usize>(residual: &[f32], x: &[f32], scale: f32, out: &mut [f32]) {
    for ((o, &r), &v) in out.iter_mut().zip(residual).zip(x) {
        *o = fma::<FMA>(v, scale, r);
    }
}
tiered!(fn axpy_part(residual: &[f32], x: &[f32], scale: f32, out: &mut [f32]) = axpy_body);

impl Dropout {
    /// No dropout: what evaluation uses.
    pub const OFF: Self = Self { p: 0.0, seed: 0 };

    /// `out = scale * dropout(x)`. The backward pass is the same call on the gradient.
    pub fn apply(&self, x: &[f32], scale: f32, out: &mut [f32]) {
        self.apply_on(Tier::best(), x, scale, out);
    }

    /// `out = residual + scale * dropout(x)`. Backward: `residual` gets the gradient as it is, `x` gets
    /// [`Dropout::apply`] of it with the same scale.
    pub fn add(&self, residual: &[f32], x: &[f32], scale: f32, out: &mut [f32]) {
        self.add_on(Tier::best(), residual, x, scale, out);
    }

    fn apply_on(&self, tier: Tier, x: &[f32], scale: f32, out: &mut [f32]) {
        assert_eq!(x.len(), out.len(), "elements");
        let (threshold, scale) = (self.threshold(), scale * self.gain());
        rows::for_chunks(out, rows::TASK, |i, out| match threshold {
            Some(threshold) => mask_part(tier, part(x, i, rows::TASK, out.len()), self.keys(i), threshold, scale, out),
            None => out.fill(0.0),
        });
    }

    fn add_on(&self, tier: Tier, residual: &[f32], x: &[f32], scale: f32, out: &mut [f32]) {
        assert!(x.len() == out.len() && residual.len() == out.len(), "elements");
        let (threshold, scale) = (self.threshold(), scale * self.gain());
        rows::for_chunks(out, rows::TASK, |i, out| {
            let (residual, x) = (part(residual, i, rows::TASK, out.len()), part(x, i, rows::TASK, out.len()));
            match threshold {
                Some(0) => axpy_part(tier, residual, x, scale, out),
                Some(threshold) => add_part(tier, residual, x, self.keys(i), threshold, scale, out),
                None => out.copy_from_slice(residual),
            }
        });
    }

    /// Elements whose bits are below this are dropped; `None`: all are.
    fn threshold(&self) -> Option<u32> {
        (self.p < 1.0).then(|| (f64::from(self.p) * 2f64.powi(32)) as u32)
    }

    fn gain(&self) -> f32 {
        if self.p < 1.0 { 1.0 / (1.0 - self.p) } else { 0.0 }
    }

    /// Keys of one chunk of [`rows::TASK`] elements.
    fn keys(&self, chunk: usize) -> [u32; 2] {
        let key = SplitMix::stream(self.seed, chunk as u64).next_u64();
        [key as u32, (key >> 32) as u32]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: usize = 6 * rows::TASK + 77;

    fn mask(p: f32, seed: u64) -> Vec<bool> {
        let mut out = vec![0.0; N];
        Dropout { p, seed }.apply(&vec![1.0; N], 1.0, &mut out);
        out.iter().map(|&v| v != 0.0).collect()
    }

    /// Correlation of two fair masks in standard deviations.
    fn z(a: &[bool], b: &[bool]) -> f64 {
        let same = a.iter().zip(b).filter(|(a, b)| a == b).count() as f64;
        let n = a.len().min(b.len()) as f64;
        (same - n / 2.0) / (n / 4.0).sqrt()
    }

    #[test]
    fn keeps_the_right_share_and_the_mean() {
        for p in [0.0, 0.1, 0.5, 0.9] {
            let mut out = vec![0.0; N];
            Dropout { p, seed: 7 }.apply(&vec![1.0; N], 1.0, &mut out);
            let kept = out.iter().filter(|&&v| v != 0.0).count() as f64 / N as f64;
            let deviation = (f64::from(p * (1.0 - p)) / N as f64).sqrt();
            assert!((kept - 1.0 + f64::from(p)).abs() <= 4.0 * deviation, "{p}: {kept}");
            assert!(out.iter().all(|&v| v == 0.0 || (v - 1.0 / (1.0 - p)).abs() < 1e-6));
        }
        let mut out = vec![1.0; 9];
        Dropout { p: 1.0, seed: 7 }.apply(&[1.0; 9], 1.0, &mut out);
        assert_eq!(out, [0.0; 9]);
    }

    #[test]
    fn masks_look_independent_of_position_seed_and_chunk() {
        let base = mask(0.5, 1);
        for lag in [1, 2, 3, 16, 64, 192, 256, 1024, rows::TASK] {
            assert!(z(&base, &base[lag..]).abs() < 4.5, "lag {lag}: {}", z(&base, &base[lag..]));
        }
        for seed in 2..40 {
            let other = mask(0.5, seed);
            assert!(z(&base, &other).abs() < 4.5, "seed {seed}");
            for lag in [1, 7, 16] {
                assert!(z(&base, &other[lag..]).abs() < 4.5 && z(&base[lag..], &other).abs() < 4.5, "seed {seed} lag {lag}");
            }
        }
        // Runs of 8 take every pattern about equally often (chi-square with 255 degrees of freedom).
        let mut counts = [0.0f64; 256];
        for c in base.as_chunks::<8>().0 {
            counts[c.iter().fold(0, |k, &b| 2 * k + usize::from(b))] += 1.0;
        }
        let expected = (N / 8) as f64 / 256.0;
        let chi: f64 = counts.iter().map(|c| (c - expected).powi(2) / expected).sum();
        assert!((150.0..370.0).contains(&chi), "{chi}");
    }

    #[test]
    fn tiers_agree_and_the_residual_form_is_the_sum() {
        let dropout = Dropout { p: 0.3, seed: 11 };
        let x: Vec<f32> = (0..N).map(|i| (i % 101) as f32 - 50.0).collect();
        let residual: Vec<f32> = (0..N).map(|i| (i % 17) as f32).collect();
        let mut golden = vec![0.0; N];
        dropout.apply_on(Tier::PORTABLE, &x, 0.5, &mut golden);
        for tier in Tier::available() {
            let (mut out, mut sum) = (vec![0.0; N], vec![0.0; N]);
            dropout.apply_on(tier, &x, 0.5, &mut out);
            assert_eq!(out, golden);
            dropout.add_on(tier, &residual, &x, 0.5, &mut sum);
            assert!(sum.iter().zip(&residual).zip(&golden).all(|((s, r), g)| (s - r - g).abs() < 1e-5));
            Dropout::OFF.add_on(tier, &residual, &x, 0.5, &mut sum);
            assert!(sum.iter().zip(&residual).zip(&x).all(|((s, r), x)| *s == r + 0.5 * x));
        }
        let mut sum = vec![0.0; N];
        Dropout { p: 1.0, seed: 1 }.add(&residual, &x, 0.5, &mut sum);
        assert_eq!(sum, residual);
    }
}
