//! Noise on recordings, to see what a model makes of it.

use crate::kernel::rng::SplitMix;

/// `samples` with white noise `snr_db` dB below their mean power; the same for the same `seed`.
pub fn with_white_noise(samples: &[f32], snr_db: f64, seed: u64) -> Vec<f32> {
    let mut rng = SplitMix::stream(0, seed);
    let power = samples.iter().map(|s| s * s).sum::<f32>() / samples.len().max(1) as f32;
    let level = (power / 10f32.powf(snr_db as f32 / 10.0)).sqrt();
    samples.iter().map(|s| s + level * rng.next_normal()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_the_power_that_was_asked_for() {
        let clean: Vec<f32> = (0..20_000).map(|i| (i as f32 * 0.1).sin()).collect();
        let noisy = with_white_noise(&clean, 10.0, 3);
        let power = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v * v)).sum::<f64>();
        let ratio = power(&mut clean.iter().copied()) / power(&mut clean.iter().zip(&noisy).map(|(a, b)| b - a));
        assert!((10.0 * ratio.log10() - 10.0).abs() < 0.2, "{ratio}");
        assert_eq!(noisy, with_white_noise(&clean, 10.0, 3));
        assert_ne!(noisy, with_white_noise(&clean, 10.0, 4));
        assert!(with_white_noise(&[], 10.0, 0).is_empty());
    }
}
