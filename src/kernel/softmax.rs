//! Softmax and log-softmax over rows.

use super::math;
use super::rows::{self, part};
use super::simd::{Tier, tiered};

#[inline(always)]
fn max_body<const FMA: bool, const LANES: usize>(row: &[f32]) -> f32 {
    // A NaN may be passed over here; it then shows in the sum of exponentials.
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    math::reduce(math::fold(row, f32::NEG_INFINITY, larger), larger)
}
tiered!(
    /// Largest element, minus infinity for an empty row.
    pub(super) fn row_max(row: &[f32]) -> f32 = max_body
);

#[inline(always)]
fn exp_body<const FMA: bool, const LANES: usize>(row: &[f32], max: f32, out: &mut [f32]) -> f32 {
    let mut lanes = [0.0f32; 32];
    let (chunks, tail) = row.as_chunks::<32>();
    let (out_chunks, out_tail) = out.as_chunks_mut::<32>();
    for (chunk, out) in chunks.iter().zip(out_chunks) {
        for i in 0..32 {
            out[i] = math::exp::<FMA>(chunk[i] - max);
            lanes[i] += out[i];
        }
    }
    for ((lane, out), &v) in lanes.iter_mut().zip(out_tail).zip(tail) {
        *out = math::exp::<FMA>(v - max);
        *lane += *out;
    }
    math::reduce(lanes, |a, b| a + b)
}
tiered!(
    /// Writes `e^(x - max)` of a row and returns the sum.
    pub(super) fn row_exp(row: &[f32], max: f32, out: &mut [f32]) -> f32 = exp_body
);

#[inline(always)]
fn sum_exp_body<const FMA: bool, const LANES: usize>(row: &[f32], max: f32) -> f32 {
    math::reduce(math::fold(row, 0.0, |sum, v| sum + math::exp::<FMA>(v - max)), |a, b| a + b)
}
tiered!(
    /// Sum of `e^(x - max)` of a row.
    pub(super) fn row_sum_exp(row: &[f32], max: f32) -> f32 = sum_exp_body
);

#[inline(always)]
fn scale_body<const FMA: bool, const LANES: usize>(row: &mut [f32], factor: f32) {
    for v in row {
        *v *= factor;
    }
}
tiered!(
    /// Multiplies a row by a factor.
    pub(super) fn row_scale(row: &mut [f32], factor: f32) = scale_body
);

#[inline(always)]
fn shift_body<const FMA: bool, const LANES: usize>(row: &[f32], max: f32, log_sum: f32, out: &mut [f32]) {
    // Two steps keep the difference of close logits exact where `max + log_sum` would round.
    for (o, &v) in out.iter_mut().zip(row) {
        *o = (v - max) - log_sum;
    }
}
tiered!(fn row_shift(row: &[f32], max: f32, log_sum: f32, out: &mut [f32]) = shift_body);

/// Softmax of each row of `x` `[rows, width]` into `out`, of the same shape. A row of only minus infinity gives NaN.
pub fn softmax(x: &[f32], width: usize, out: &mut [f32]) {
    softmax_on(Tier::best(), x, width, out);
}

fn softmax_on(tier: Tier, x: &[f32], width: usize, out: &mut [f32]) {
    assert!(x.len() == out.len() && x.len().is_multiple_of(width), "x, out [rows, width]");
    let chunk = rows::per_task(width) * width;
    rows::for_chunks(out, chunk, |i, out| {
        for (row, out) in part(x, i, chunk, out.len()).chunks(width).zip(out.chunks_mut(width)) {
            let sum = row_exp(tier, row, row_max(tier, row), out);
            row_scale(tier, out, 1.0 / sum);
        }
    });
}

/// Natural logarithm of the softmax of each row of `x` `[rows, width]` into `out`, of the same shape.
pub fn log_softmax(x: &[f32], width: usize, out: &mut [f32]) {
    log_softmax_on(Tier::best(), x, width, out);
}

fn log_softmax_on(tier: Tier, x: &[f32], width: usize, out: &mut [f32]) {
    assert!(x.len() == out.len() && x.len().is_multiple_of(width), "x, out [rows, width]");
    let chunk = rows::per_task(width) * width;
    rows::for_chunks(out, chunk, |i, out| {
        for (row, out) in part(x, i, chunk, out.len()).chunks(width).zip(out.chunks_mut(width)) {
            let max = row_max(tier, row);
            let log_sum = row_sum_exp(tier, row, max).ln();
            row_shift(tier, row, max, log_sum, out);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::rng::SplitMix;

    #[test]
    fn rows_match_f64() {
        let mut rng = SplitMix::new(3);
        for (rows, width) in [(1, 1), (3, 29), (5, 32), (2, 100), (70, 1025)] {
            for scale in [1.0, 30.0] {
                let x: Vec<f32> = (0..rows * width).map(|_| rng.next_normal() * scale + 1000.0).collect();
                for tier in Tier::available() {
                    let (mut p, mut l) = (vec![0.0; x.len()], vec![0.0; x.len()]);
                    softmax_on(tier, &x, width, &mut p);
                    log_softmax_on(tier, &x, width, &mut l);
                    for (row, (p, l)) in x.chunks(width).zip(p.chunks(width).zip(l.chunks(width))) {
                        let max = row.iter().map(|&v| f64::from(v)).fold(f64::NEG_INFINITY, f64::max);
                        let log_sum = row.iter().map(|&v| (f64::from(v) - max).exp()).sum::<f64>().ln();
                        for i in 0..width {
                            let golden = f64::from(row[i]) - max - log_sum;
                            assert!((f64::from(l[i]) - golden).abs() < 1e-6 * golden.abs().max(1.0), "{tier:?} {} {golden}", l[i]);
                            assert!((f64::from(p[i]) - golden.exp()).abs() < 1e-6, "{tier:?} {} {}", p[i], golden.exp());
                        }
                        assert!((p.iter().sum::<f32>() - 1.0).abs() < 1e-5);
                    }
                }
            }
        }
    }

    #[test]
    fn masked_entries_get_exactly_zero() {
        let mut x = vec![0.5; 40];
        x[7] = f32::NEG_INFINITY;
        for tier in Tier::available() {
            let mut p = vec![0.0; 40];
            softmax_on(tier, &x, 40, &mut p);
            assert_eq!(p[7], 0.0);
            assert!((p[0] - 1.0 / 39.0).abs() < 1e-7);
        }
    }
}
