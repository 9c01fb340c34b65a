//! Layer normalisation, plain or with an activation on top, with its gradient; and batch normalisation as evaluation
//! needs it, a scale and a shift per channel.

use super::activation::{Activation, Pointwise, with_pointwise};
use super::math::{fma, fold, reduce};
use super::rows::{self, part};
use super::simd::{Tier, tiered};

/// Normalises rows to mean 0 and variance 1, then applies `gamma`, `beta` and an activation.
///
/// # Numerics
/// f32; the variance is the mean square of the centred row (two passes), so a large mean costs no accuracy.
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm<'a> {
    /// Scale, `[width]`.
    pub gamma: &'a [f32],
    /// Shift, `[width]`.
    pub beta: &'a [f32],
    /// Added to the variance.
    pub eps: f32,
    /// Applied to the normalised row.
    pub activation: Activation,
}

/// Rows whose contribution to the parameter gradients is summed together; fixed, so that the result does not depend
/// on the number of threads.
const BLOCK: usize = 64;

#[inline(always)]
fn row_stats(row: &[f32], eps: f32) -> [f32; 2] {
    let count = row.len() as f32;
    let mean = reduce(fold(row, 0.0, |sum, v| sum + v), |a, b| a + b) / count;
    let square = |sum, v: f32| sum + (v - mean) * (v - mean);
    let variance = reduce(fold(row, 0.0, square), |a, b| a + b) / count;
    [mean, 1.0 / (variance + eps).sqrt()]
}

#[inline(always)]
fn forward_body<const FMA: bool, const LANES: usize, P: Pointwise>(
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    eps: f32,
    out: &mut [f32],
    stats: &mut [[f32; 2]],
) {
    let width = gamma.len();
    for ((row, out), kept) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)).zip(stats) {
        let [mean, rstd] = row_stats(row, eps);
        for (((o, &v), &g), &b) in out.iter_mut().zip(row).zip(gamma).zip(beta) {
            *o = P::value::<FMA>(fma::<FMA>((v - mean) * rstd, g, b));
        }
        *kept = [mean, rstd];
    }
}
tiered!(fn forward_rows[P: Pointwise](
    x: &[f32], gamma: &[f32], beta: &[f32], eps: f32, out: &mut [f32], stats: &mut [[f32; 2]]
) = forward_body);

/// Rows of one block: writes `grad_x` and adds to `partial` = [grad_gamma, grad_beta]. `slopes` is scratch of one row.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn backward_body<const FMA: bool, const LANES: usize, P: Pointwise>(
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    stats: &[[f32; 2]],
    grad_out: &[f32],
    grad_x: &mut [f32],
    partial: &mut [f32],
    slopes: &mut [f32],
) {
    let width = gamma.len();
    let (grad_gamma, grad_beta) = partial.split_at_mut(width);
    let rows = x.chunks_exact(width).zip(grad_out.chunks_exact(width)).zip(grad_x.chunks_exact_mut(width)).zip(stats);
    for (((row, grad_row), grad_x), &[mean, rstd]) in rows {
        // Gradient at the activation's input, and what the row's mean and deviation pass on of it.
        let slope = |v: f32, gamma: f32, beta: f32, g: f32| {
            let normal = (v - mean) * rstd;
            (g * P::slope::<FMA>(fma::<FMA>(normal, gamma, beta)), normal)
        };
        let mut sums = [[0.0f32; 16]; 2];
        let ((v, v_tail), (gr, gr_tail)) = (row.as_chunks::<16>(), grad_row.as_chunks::<16>());
        let ((ga, ga_tail), (be, be_tail)) = (gamma.as_chunks::<16>(), beta.as_chunks::<16>());
        let (sl, sl_tail) = slopes.as_chunks_mut::<16>();
        for ((((sl, v), gr), ga), be) in sl.iter_mut().zip(v).zip(gr).zip(ga).zip(be) {
            for i in 0..16 {
                let (s, normal) = slope(v[i], ga[i], be[i], gr[i]);
                sl[i] = s;
                let scaled = s * ga[i];
                sums[0][i] += scaled;
                sums[1][i] = fma::<FMA>(scaled, normal, sums[1][i]);
            }
        }
        for i in 0..v_tail.len() {
            let (s, normal) = slope(v_tail[i], ga_tail[i], be_tail[i], gr_tail[i]);
            sl_tail[i] = s;
            sums[0][i] += s * ga_tail[i];
            sums[1][i] = fma::<FMA>(s * ga_tail[i], normal, sums[1][i]);
        }
        let [sum, dot] = sums.map(|lanes| lanes.iter().sum::<f32>() / width as f32);
        let parameters = grad_gamma.iter_mut().zip(&mut *grad_beta).zip(gamma);
        for (((out, &s), &v), ((gg, gb), &g)) in grad_x.iter_mut().zip(&*slopes).zip(row).zip(parameters) {
            let normal = (v - mean) * rstd;
            *out = rstd * (fma::<FMA>(s, g, -sum) - normal * dot);
            *gg = fma::<FMA>(s, normal, *gg);
            *gb += s;
        }
    }
}
tiered!(fn backward_rows[P: Pointwise](
    x: &[f32], gamma: &[f32], beta: &[f32], stats: &[[f32; 2]], grad_out: &[f32], grad_x: &mut [f32],
    partial: &mut [f32], slopes: &mut [f32],
) = backward_body);

impl LayerNorm<'_> {
    /// Normalises every row.
    ///
    /// # Shapes
    /// - `x`, `out`: `[rows, width]`
    /// - `stats`: `[rows]`, receives the mean and the reciprocal standard deviation that [`LayerNorm::backward`] wants
    pub fn forward(&self, x: &[f32], out: &mut [f32], stats: &mut [[f32; 2]]) {
        self.forward_on(Tier::best(), x, out, stats);
    }

    /// Gradients of [`LayerNorm::forward`], all written (nothing is accumulated).
    ///
    /// # Shapes
    /// - `x`, `grad_out`, `grad_x`: `[rows, width]`
    /// - `stats`: `[rows]`, from the forward pass
    /// - `grad_gamma`, `grad_beta`: `[width]`
    pub fn backward(
        &self,
        x: &[f32],
        stats: &[[f32; 2]],
        grad_out: &[f32],
        grad_x: &mut [f32],
        grad_gamma: &mut [f32],
        grad_beta: &mut [f32],
    ) {
        self.backward_on(Tier::best(), x, stats, grad_out, grad_x, [grad_gamma, grad_beta]);
    }

    fn forward_on(&self, tier: Tier, x: &[f32], out: &mut [f32], stats: &mut [[f32; 2]]) {
        let Self { gamma, beta, eps, activation } = *self;
        let width = gamma.len();
        assert!(beta.len() == width && x.len() == out.len() && x.len() == stats.len() * width, "x, out [rows, width], stats [rows]");
        let count = rows::per_task(width);
        rows::for_chunks2(out, count * width, stats, count, |i, out, stats| {
            let x = part(x, i, count * width, out.len());
            with_pointwise!(activation, forward_rows(tier, x, gamma, beta, eps, out, stats));
        });
    }

    fn backward_on(
        &self,
        tier: Tier,
        x: &[f32],
        stats: &[[f32; 2]],
        grad_out: &[f32],
        grad_x: &mut [f32],
        grad_parameters: [&mut [f32]; 2],
    ) {
        let Self { gamma, beta, activation, .. } = *self;
        let width = gamma.len();
        let [grad_gamma, grad_beta] = grad_parameters;
        assert!(
            x.len() == stats.len() * width && x.len() == grad_out.len() && x.len() == grad_x.len(),
            "x, grad_out, grad_x [rows, width]"
        );
        assert!(beta.len() == width && grad_gamma.len() == width && grad_beta.len() == width, "parameters [width]");
        let mut partials = vec![0.0f32; stats.len().div_ceil(BLOCK) * 2 * width];
        rows::for_chunks2(grad_x, BLOCK * width, &mut partials, 2 * width, |i, grad_x, partial| {
            let (x, grad_out) = (part(x, i, BLOCK * width, grad_x.len()), part(grad_out, i, BLOCK * width, grad_x.len()));
            let stats = &stats[i * BLOCK..i * BLOCK + grad_x.len() / width];
            let mut slopes = vec![0.0; width];
            with_pointwise!(activation, backward_rows(tier, x, gamma, beta, stats, grad_out, grad_x, partial, &mut slopes));
        });
        grad_gamma.fill(0.0);
        grad_beta.fill(0.0);
        for partial in partials.chunks_exact(2 * width) {
            for (sums, partial) in [(&mut *grad_gamma, &partial[..width]), (&mut *grad_beta, &partial[width..])] {
                sums.iter_mut().zip(partial).for_each(|(s, p)| *s += p);
            }
        }
    }
}

#[inline(always)]
fn affine_body<const FMA: bool, const LANES: usize, P: Pointwise>(x: &[f32], scale: &[f32], shift: &[f32], out: &mut [f32]) {
    for (row, out) in x.chunks_exact(scale.len()).zip(out.chunks_exact_mut(scale.len())) {
        for (((o, &v), &s), &b) in out.iter_mut().zip(row).zip(scale).zip(shift) {
            *o = P::value::<FMA>(fma::<FMA>(v, s, b));
        }
    }
}
tiered!(fn affine_rows[P: Pointwise](x: &[f32], scale: &[f32], shift: &[f32], out: &mut [f32]) = affine_body);

/// `out = activation(x * scale + shift)` with one scale and shift per channel.
///
/// # Shapes
/// - `x`, `out`: `[rows, channels]`
/// - `scale`, `shift`: `[channels]`, e.g. from [`fold_batch_norm`]
pub fn scale_shift(x: &[f32], scale: &[f32], shift: &[f32], activation: Activation, out: &mut [f32]) {
    scale_shift_on(Tier::best(), x, scale, shift, activation, out);
}

fn scale_shift_on(tier: Tier, x: &[f32], scale: &[f32], shift: &[f32], activation: Activation, out: &mut [f32]) {
    let width = scale.len();
    assert!(x.len() == out.len() && x.len().is_multiple_of(width) && shift.len() == width, "x, out [rows, channels]");
    let chunk = rows::per_task(width) * width;
    rows::for_chunks(out, chunk, |i, out| {
        with_pointwise!(activation, affine_rows(tier, part(x, i, chunk, out.len()), scale, shift, out));
    });
}

/// Scale and shift equal to batch normalisation by running statistics; all slices `[channels]`.
pub fn fold_batch_norm(gamma: &[f32], beta: &[f32], mean: &[f32], variance: &[f32], eps: f32) -> (Vec<f32>, Vec<f32>) {
    let scale: Vec<f32> = gamma.iter().zip(variance).map(|(&g, &v)| g / (v + eps).sqrt()).collect();
    let shift = scale.iter().zip(beta).zip(mean).map(|((&s, &b), &m)| b - m * s).collect();
    (scale, shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::rng::SplitMix;

    const EPS: f64 = 1e-5;

    fn random(n: usize, scale: f32, shift: f32, seed: u64) -> Vec<f32> {
        let mut rng = SplitMix::new(seed);
        (0..n).map(|_| rng.next_normal() * scale + shift).collect()
    }

    fn wide(x: &[f32]) -> Vec<f64> {
        x.iter().map(|&v| v.into()).collect()
    }

    fn activate(a: Activation, x: f64) -> f64 {
        match a {
            Activation::Silu => x / (1.0 + (-x).exp()),
            _ => x,
        }
    }

    fn reference(x: &[f64], gamma: &[f64], beta: &[f64], a: Activation) -> Vec<f64> {
        let width = gamma.len();
        let mut out = Vec::new();
        for row in x.chunks(width) {
            let mean = row.iter().sum::<f64>() / width as f64;
            let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / width as f64;
            out.extend((0..width).map(|i| activate(a, (row[i] - mean) / (variance + EPS).sqrt() * gamma[i] + beta[i])));
        }
        out
    }

    fn close(what: &str, ours: &[f32], golden: &[f64], tolerance: f64) {
        assert_eq!(ours.len(), golden.len());
        for (i, (&o, &g)) in ours.iter().zip(golden).enumerate() {
            assert!((f64::from(o) - g).abs() <= tolerance * g.abs().max(1.0), "{what} at {i}: {o} {g}");
        }
    }

    #[test]
    fn forward_matches_f64() {
        for (rows, width, shift) in [(1, 1, 0.0), (3, 7, 1.0), (5, 192, 0.0), (70, 515, 100.0)] {
            let x = random(rows * width, 2.0, shift, 1);
            let (gamma, beta) = (random(width, 0.3, 1.0, 2), random(width, 0.5, 0.0, 3));
            for activation in [Activation::Identity, Activation::Silu] {
                let golden = reference(&wide(&x), &wide(&gamma), &wide(&beta), activation);
                for tier in Tier::available() {
                    let (mut out, mut stats) = (vec![0.0; x.len()], vec![[0.0; 2]; rows]);
                    LayerNorm { gamma: &gamma, beta: &beta, eps: EPS as f32, activation }.forward_on(tier, &x, &mut out, &mut stats);
                    // A mean of 100 in f32 loses 7 bits of the centred values.
                    close(&format!("{tier:?} {activation:?} {width}"), &out, &golden, if shift > 10.0 { 3e-5 } else { 5e-6 });
                }
            }
        }
    }

    #[test]
    fn gradients_match_finite_differences() {
        for (rows, width) in [(2, 3), (67, 33), (130, 16)] {
            let x = random(rows * width, 1.5, 0.2, 4);
            let (gamma, beta, g) = (random(width, 0.3, 1.0, 5), random(width, 0.5, 0.0, 6), random(rows * width, 1.0, 0.0, 7));
            for activation in [Activation::Identity, Activation::Silu] {
                let norm = LayerNorm { gamma: &gamma, beta: &beta, eps: EPS as f32, activation };
                let loss = |x: &[f64], gamma: &[f64], beta: &[f64]| -> f64 {
                    reference(x, gamma, beta, activation).iter().zip(&g).map(|(y, &g)| y * f64::from(g)).sum()
                };
                let inputs = [wide(&x), wide(&gamma), wide(&beta)];
                let difference = |which: usize, at: usize| {
                    let shifted = |by: f64| {
                        let mut moved = inputs.clone();
                        moved[which][at] += by;
                        loss(&moved[0], &moved[1], &moved[2])
                    };
                    (shifted(1e-4) - shifted(-1e-4)) / 2e-4
                };
                for tier in Tier::available() {
                    let (mut out, mut stats) = (vec![0.0; x.len()], vec![[0.0; 2]; rows]);
                    norm.forward_on(tier, &x, &mut out, &mut stats);
                    let (mut gx, mut gg, mut gb) = (vec![9.0; x.len()], vec![9.0; width], vec![9.0; width]);
                    norm.backward_on(tier, &x, &stats, &g, &mut gx, [&mut gg, &mut gb]);
                    for i in (0..x.len()).step_by(x.len().div_ceil(97)) {
                        let golden = difference(0, i);
                        assert!((f64::from(gx[i]) - golden).abs() < 2e-5, "{tier:?} {activation:?} x {i}: {} {golden}", gx[i]);
                    }
                    for i in 0..width {
                        for (which, ours) in [(1, gg[i]), (2, gb[i])] {
                            let golden = difference(which, i);
                            assert!(
                                (f64::from(ours) - golden).abs() < 3e-5 * golden.abs().max(1.0),
                                "{tier:?} {which} {i}: {ours} {golden}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn parameter_gradients_do_not_depend_on_threads() {
        let (rows, width) = (1000, 96);
        let (x, g) = (random(rows * width, 1.0, 0.0, 8), random(rows * width, 1.0, 0.0, 9));
        let (gamma, beta) = (vec![1.1; width], vec![0.1; width]);
        let norm = LayerNorm { gamma: &gamma, beta: &beta, eps: 1e-5, activation: Activation::Silu };
        let run = |threads| {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
                let (mut out, mut stats) = (vec![0.0; x.len()], vec![[0.0; 2]; rows]);
                norm.forward(&x, &mut out, &mut stats);
                let (mut gx, mut gg, mut gb) = (vec![0.0; x.len()], vec![0.0; width], vec![0.0; width]);
                norm.backward(&x, &stats, &g, &mut gx, &mut gg, &mut gb);
                (out, gx, gg, gb)
            })
        };
        assert!(run(1) == run(3));
    }

    #[test]
    fn folded_batch_norm_is_batch_norm() {
        let (rows, width) = (9, 37);
        let x = random(rows * width, 2.0, 0.0, 10);
        let (gamma, beta, mean) = (random(width, 1.0, 0.0, 11), random(width, 1.0, 0.0, 12), random(width, 1.0, 0.0, 13));
        let variance: Vec<f32> = random(width, 1.0, 0.0, 14).iter().map(|v| v * v + 0.1).collect();
        let (scale, shift) = fold_batch_norm(&gamma, &beta, &mean, &variance, 1e-3);
        let golden: Vec<f64> = (0..x.len())
            .map(|at| {
                let i = at % width;
                let [x, g, b, m, v] = [x[at], gamma[i], beta[i], mean[i], variance[i]].map(f64::from);
                activate(Activation::Silu, (x - m) / (v + 1e-3).sqrt() * g + b)
            })
            .collect();
        for tier in Tier::available() {
            let mut out = vec![0.0; x.len()];
            scale_shift_on(tier, &x, &scale, &shift, Activation::Silu, &mut out);
            close("batch norm", &out, &golden, 1e-5);
        }
    }
}
