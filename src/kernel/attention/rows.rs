//! What attention does to one row of scores, compiled for every instruction tier.

use std::ops::Range;

use crate::kernel::cpu::Tier;
use crate::kernel::math;
use crate::kernel::matrix::Matrix;
use crate::kernel::simd::tiered;

#[inline(always)]
fn max_body<const FMA: bool, const LANES: usize>(row: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    math::reduce(math::fold(row, f32::NEG_INFINITY, larger), larger)
}

/// `x <- e^(scale * x - shift)` and the sum of the results.
#[inline(always)]
fn exp_body<const FMA: bool, const LANES: usize>(row: &mut [f32], scale: f32, shift: f32) -> f32 {
    let mut lanes = [0.0f32; 32];
    let (chunks, tail) = row.as_chunks_mut::<32>();
    for chunk in chunks {
        for i in 0..32 {
            chunk[i] = math::exp::<FMA>(math::fma::<FMA>(chunk[i], scale, -shift));
            lanes[i] += chunk[i];
        }
    }
    for (lane, x) in lanes.iter_mut().zip(tail) {
        *x = math::exp::<FMA>(math::fma::<FMA>(*x, scale, -shift));
        *lane += *x;
    }
    math::reduce(lanes, |a, b| a + b)
}

#[inline(always)]
fn softmax_body<const FMA: bool, const LANES: usize>(row: &mut [f32], scale: f32) -> (f32, f32) {
    let max = max_body::<FMA, LANES>(row);
    (max, exp_body::<FMA, LANES>(row, scale, scale * max))
}
tiered!(fn softmax_row(row: &mut [f32], scale: f32) -> (f32, f32) = softmax_body);
tiered!(fn exp_row(row: &mut [f32], scale: f32, shift: f32) -> f32 = exp_body);

/// `grad <- p * (grad - sum(p * grad)) * scale`.
#[inline(always)]
fn gradient_body<const FMA: bool, const LANES: usize>(p: &[f32], grad: &mut [f32], scale: f32) {
    let mut lanes = [0.0f32; 32];
    let (p_chunks, p_tail) = p.as_chunks::<32>();
    let (chunks, tail) = grad.as_chunks::<32>();
    for (p, grad) in p_chunks.iter().zip(chunks) {
        for i in 0..32 {
            lanes[i] = math::fma::<FMA>(p[i], grad[i], lanes[i]);
        }
    }
    for ((lane, p), grad) in lanes.iter_mut().zip(p_tail).zip(tail) {
        *lane = math::fma::<FMA>(*p, *grad, *lane);
    }
    let mean = math::reduce(lanes, |a, b| a + b);
    for (grad, p) in grad.iter_mut().zip(p) {
        *grad = p * (*grad - mean) * scale;
    }
}
tiered!(fn gradient_row(p: &[f32], grad: &mut [f32], scale: f32) = gradient_body);

#[inline(always)]
fn add_body<const FMA: bool, const LANES: usize>(row: &mut [f32], more: &[f32]) {
    row.iter_mut().zip(more).for_each(|(x, y)| *x += y);
}
tiered!(fn add_row(row: &mut [f32], more: &[f32]) = add_body);

/// Zeros outside `seen`; returns the part inside.
fn inside(row: &mut [f32], seen: Range<usize>) -> &mut [f32] {
    row[..seen.start].fill(0.0);
    row[seen.end..].fill(0.0);
    &mut row[seen]
}

/// Turns scores into `e^(scale * (score - max))` where `seen`, zero elsewhere; returns the largest score and the sum.
pub(super) fn softmax(row: &mut [f32], seen: Range<usize>, scale: f32, tier: Tier) -> (f32, f32) {
    softmax_row(tier.vector(), inside(row, seen), scale)
}

/// Turns scores into probabilities `e^(scale * score - lse)` where `seen`, zero elsewhere.
pub(super) fn probabilities(row: &mut [f32], seen: Range<usize>, scale: f32, lse: f32, tier: Tier) {
    exp_row(tier.vector(), inside(row, seen), scale, lse);
}

/// Turns the gradient of a row's probabilities `p` into that of its unscaled scores; zero outside `seen`.
pub(super) fn gradient(p: &[f32], grad: &mut [f32], seen: Range<usize>, scale: f32, tier: Tier) {
    gradient_row(tier.vector(), &p[seen.clone()], inside(grad, seen), scale);
}

/// `row += more`, over the length of `row`.
pub(super) fn add(row: &mut [f32], more: &[f32], tier: Tier) {
    add_row(tier.vector(), row, more);
}

/// Rows of `x` plus `bias`, contiguous.
pub(super) fn add_bias(x: Matrix<'_>, bias: &[f32], out: &mut [f32]) {
    for (row, out) in out.chunks_exact_mut(bias.len()).enumerate() {
        out.iter_mut().zip(x.row(row)).zip(bias).for_each(|((out, x), bias)| *out = x + bias);
    }
}

/// `out = factor * x`.
pub(super) fn scaled(x: &[f32], factor: f32, out: &mut [f32]) {
    out.iter_mut().zip(x).for_each(|(out, x)| *out = factor * x);
}
