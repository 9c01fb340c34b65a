//! Where a step is: CAPE at the input, sinusoids for relative attention.

use burn::tensor::{Device, Tensor, TensorData};

use crate::kernel::rng::SplitMix;
use crate::model::config::PositionConfig;
use crate::model::lengths::Lengths;
use crate::model::pass::Pass;

/// Adds the continuous augmented positional embedding to `x` `[batch, steps, d_model]`, whose first step is step `first` of its utterance; other kinds of position leave `x` alone.
///
/// `PE[t, i] = sin(pos_t * freq_i + (pi/2)(i mod 2))`, `freq_i = freq_scale * exp(-2 floor(i/2) ln(1e4) / d)`; padded steps get 0.
///
/// # Reference
/// Likhomanenko et al. 2021, arXiv:2106.03143. Differs: none.
pub fn add_cape(x: Tensor<3>, lengths: &Lengths, first: usize, config: &PositionConfig, pass: &Pass) -> Tensor<3> {
    let PositionConfig::Cape { content_scale, .. } = *config else { return x };
    let [batch, steps, d_model] = x.dims();
    let device = x.device();
    let table = cape_table(lengths, first, d_model, config, pass.seed());
    let embedding = Tensor::<3>::from_data(TensorData::new(table, [batch, steps, d_model]), &device);
    x.mul_scalar(content_scale) + embedding
}

/// The embedding of [`add_cape`], row-major `[batch, steps, d_model]`; `seed` switches the training augmentation on.
fn cape_table(lengths: &Lengths, first: usize, d_model: usize, config: &PositionConfig, seed: Option<u64>) -> Vec<f32> {
    let &PositionConfig::Cape { freq_scale, delta, normalize, max_global_shift, max_local_shift, max_global_scaling, .. } = config else {
        return vec![0.0; lengths.batch() * lengths.padded() * d_model];
    };
    let frequencies: Vec<f64> = (0..d_model).map(|i| freq_scale * (-2.0 * (i / 2) as f64 * 1e4f64.ln() / d_model as f64).exp()).collect();
    let mut rng = seed.map(SplitMix::new);
    let mut symmetric = |range: f64| rng.as_mut().map_or(0.0, |r| (2.0 * f64::from(r.next_f32()) - 1.0) * range);
    let mut table = vec![0.0f32; lengths.batch() * lengths.padded() * d_model];
    for (row, &valid) in lengths.valid().iter().enumerate() {
        let mean = if normalize && valid > 0 { delta * (valid - 1) as f64 / 2.0 } else { 0.0 };
        let shift = symmetric(max_global_shift);
        let scale = symmetric(max_global_scaling.ln()).exp();
        for t in 0..valid {
            let local = symmetric(max_local_shift) * delta;
            let position = ((first + t) as f64 * delta - mean + shift + local) * scale;
            let start = (row * lengths.padded() + t) * d_model;
            for (i, (out, frequency)) in table[start..start + d_model].iter_mut().zip(&frequencies).enumerate() {
                let phase = if i % 2 == 1 { std::f64::consts::FRAC_PI_2 } else { 0.0 };
                *out = (position * frequency + phase).sin() as f32;
            }
        }
    }
    table
}

/// Sinusoids of relative positions `steps - 1` down to `-(steps - 1)`: `[2 steps - 1, d_model]`, sine and cosine interleaved.
///
/// # Reference
/// Dai et al. 2019, arXiv:1901.02860, in the layout of NVIDIA's FastConformer.
pub fn relative_sinusoids(steps: usize, d_model: usize, device: &Device) -> Tensor<2> {
    let count = (2 * steps).saturating_sub(1);
    let mut table = Vec::with_capacity(count * d_model);
    for row in 0..count {
        let position = steps as f64 - 1.0 - row as f64;
        for i in 0..d_model {
            let angle = position * (-2.0 * (i / 2) as f64 * 1e4f64.ln() / d_model as f64).exp();
            table.push(if i % 2 == 0 { angle.sin() } else { angle.cos() } as f32);
        }
    }
    Tensor::from_data(TensorData::new(table, [count, d_model]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cape(freq_scale: f64, delta: f64, normalize: bool) -> PositionConfig {
        PositionConfig::Cape {
            freq_scale,
            delta,
            content_scale: 1.0,
            normalize,
            max_global_shift: 0.5,
            max_local_shift: 0.5,
            max_global_scaling: 1.4,
        }
    }

    fn close(ours: &[f32], golden: &[f64]) {
        for (i, (a, b)) in ours.iter().zip(golden).enumerate() {
            assert!((f64::from(*a) - b).abs() < 1e-6, "{i}: {a} {b}");
        }
    }

    #[test]
    fn cape_golden_values() {
        let table = cape_table(&Lengths::new(vec![2], 3), 0, 4, &cape(1.0, 1.0, false), None);
        close(&table, &[0.0, 1.0, 0.0, 1.0, 0.841470985, 0.540302306, 0.00999983333, 0.99995, 0.0, 0.0, 0.0, 0.0]);
        let table = cape_table(&Lengths::new(vec![3], 3), 0, 4, &cape(30.0, 0.03, true), None);
        close(
            &table,
            &[-0.78332691, 0.621609968, -0.0089998785, 0.9999595, 0.0, 1.0, 0.0, 1.0, 0.78332691, 0.621609968, 0.0089998785, 0.9999595],
        );
    }

    #[test]
    fn cape_augments_in_training_only_and_repeats() {
        let lengths = Lengths::new(vec![5, 3], 5);
        let config = cape(1.0, 1.0, false);
        let table = |seed| cape_table(&lengths, 0, 8, &config, seed);
        assert_eq!(table(Some(1)), table(Some(1)));
        assert_ne!(table(Some(1)), table(None));
        assert_ne!(table(Some(1)), table(Some(2)));
    }
}
