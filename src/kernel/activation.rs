//! Point-wise activations and the gated linear unit, with their gradients.

use super::math;
use super::rows::{self, Padding, part};
use super::simd::{Tier, tiered};

/// A point-wise non-linearity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x`
    Identity,
    /// `max(x, 0)`; slope 0 at 0
    Relu,
    /// `x * sigmoid(x)`
    Silu,
    /// `x * Phi(x)` with the exact normal distribution (erf), not the tanh formula
    Gelu,
    /// `1 / (1 + e^-x)`
    Sigmoid,
}

/// An activation as a type, so that loops over it vectorise.
pub(super) trait Pointwise: Copy + Send + Sync {
    /// The value at `x`.
    fn value<const FMA: bool>(x: f32) -> f32;
    /// The derivative at `x`.
    fn slope<const FMA: bool>(x: f32) -> f32;
}

#[derive(Clone, Copy)]
pub(super) struct Identity;
#[derive(Clone, Copy)]
pub(super) struct Relu;
#[derive(Clone, Copy)]
pub(super) struct Silu;
#[derive(Clone, Copy)]
pub(super) struct Gelu;
#[derive(Clone, Copy)]
pub(super) struct Sigmoid;

impl Pointwise for Identity {
    #[inline(always)]
    fn value<const FMA: bool>(x: f32) -> f32 {
        x
    }
    #[inline(always)]
    fn slope<const FMA: bool>(_x: f32) -> f32 {
        1.0
    }
}

impl Pointwise for Relu {
    #[inline(always)]
    fn value<const FMA: bool>(x: f32) -> f32 {
        if x < 0.0 { 0.0 } else { x }
    }
    #[inline(always)]
    fn slope<const FMA: bool>(x: f32) -> f32 {
        if x > 0.0 { 1.0 } else { 0.0 }
    }
}

impl Pointwise for Silu {
    #[inline(always)]
    fn value<const FMA: bool>(x: f32) -> f32 {
        x / (1.0 + math::exp::<FMA>(-x))
    }
    #[inline(always)]
    fn slope<const FMA: bool>(x: f32) -> f32 {
        let s = math::sigmoid::<FMA>(x);
        s * math::fma::<FMA>(x, 1.0 - s, 1.0)
    }
}

impl Pointwise for Gelu {
    #[inline(always)]
    fn value<const FMA: bool>(x: f32) -> f32 {
        x * math::normal::<FMA>(x).0
    }
    #[inline(always)]
    fn slope<const FMA: bool>(x: f32) -> f32 {
        let (cumulative, density) = math::normal::<FMA>(x);
        math::fma::<FMA>(x, density, cumulative)
    }
}

impl Pointwise for Sigmoid {
    #[inline(always)]
    fn value<const FMA: bool>(x: f32) -> f32 {
        math::sigmoid::<FMA>(x)
    }
    #[inline(always)]
    fn slope<const FMA: bool>(x: f32) -> f32 {
        let s = math::sigmoid::<FMA>(x);
        s * (1.0 - s)
    }
}

/// Calls `$function::<P>` with the type of an [`Activation`].
macro_rules! with_pointwise {
    ($activation:expr, $function:ident($($arg:expr),* $(,)?)) => {
        match $activation {
            $crate::kernel::activation::Activation::Identity => $function::<$crate::kernel::activation::Identity>($($arg),*),
            $crate::kernel::activation::Activation::Relu => $function::<$crate::kernel::activation::Relu>($($arg),*),
            $crate::kernel::activation::Activation::Silu => $function::<$crate::kernel::activation::Silu>($($arg),*),
            $crate::kernel::activation::Activation::Gelu => $function::<$crate::kernel::activation::Gelu>($($arg),*),
            $crate::kernel::activation::Activation::Sigmoid => $function::<$crate::kernel::activation::Sigmoid>($($arg),*),
        }
    };
}
pub(super) use with_pointwise;

#[inline(always)]
fn forward_body<const FMA: bool, const LANES: usize, P: Pointwise>(x: &[f32], out: &mut [f32]) {
    for (o, &x) in out.iter_mut().zip(x) {
        *o = P::value::<FMA>(x);
    }
}
tiered!(fn forward_part[P: Pointwise](x: &[f32], out: &mut [f32]) = forward_body);

#[inline(always)]
fn in_place_body<const FMA: bool, const LANES: usize, P: Pointwise>(x: &mut [f32]) {
    for x in x {
        *x = P::value::<FMA>(*x);
    }
}
tiered!(fn in_place_part[P: Pointwise](x: &mut [f32]) = in_place_body);

#[inline(always)]
fn backward_body<const FMA: bool, const LANES: usize, P: Pointwise>(x: &[f32], grad_out: &[f32], grad_in: &mut [f32]) {
    for ((o, &x), &g) in grad_in.iter_mut().zip(x).zip(grad_out) {
        *o = g * P::slope::<FMA>(x);
    }
}
tiered!(fn backward_part[P: Pointwise](x: &[f32], grad_out: &[f32], grad_in: &mut [f32]) = backward_body);

impl Activation {
    /// Writes the activation of every element of `x` to `out`, which is as long.
    pub fn forward(self, x: &[f32], out: &mut [f32]) {
        self.forward_on(Tier::best(), x, out);
    }

    /// As [`Activation::forward`], over `x` itself.
    pub fn forward_in_place(self, x: &mut [f32]) {
        if self != Self::Identity {
            rows::for_chunks(x, rows::TASK, |_, x| with_pointwise!(self, in_place_part(Tier::best(), x)));
        }
    }

    /// Writes `grad_out * slope(x)` to `grad_in`; all three are as long.
    pub fn backward(self, x: &[f32], grad_out: &[f32], grad_in: &mut [f32]) {
        self.backward_on(Tier::best(), x, grad_out, grad_in);
    }

    fn forward_on(self, tier: Tier, x: &[f32], out: &mut [f32]) {
        assert_eq!(x.len(), out.len(), "elements");
        rows::for_chunks(out, rows::TASK, |i, out| {
            with_pointwise!(self, forward_part(tier, part(x, i, rows::TASK, out.len()), out));
        });
    }

    fn backward_on(self, tier: Tier, x: &[f32], grad_out: &[f32], grad_in: &mut [f32]) {
        assert!(x.len() == grad_in.len() && grad_out.len() == grad_in.len(), "elements");
        rows::for_chunks(grad_in, rows::TASK, |i, grad_in| {
            let (x, grad_out) = (part(x, i, rows::TASK, grad_in.len()), part(grad_out, i, rows::TASK, grad_in.len()));
            with_pointwise!(self, backward_part(tier, x, grad_out, grad_in));
        });
    }
}

#[inline(always)]
fn glu_body<const FMA: bool, const LANES: usize>(x: &[f32], out: &mut [f32]) {
    let (values, gates) = x.split_at(out.len());
    for ((o, &a), &b) in out.iter_mut().zip(values).zip(gates) {
        *o = a / (1.0 + math::exp::<FMA>(-b));
    }
}
tiered!(fn glu_row(x: &[f32], out: &mut [f32]) = glu_body);

#[inline(always)]
fn glu_backward_body<const FMA: bool, const LANES: usize>(x: &[f32], grad_out: &[f32], grad_in: &mut [f32]) {
    let (values, gates) = x.split_at(grad_out.len());
    let (grad_values, grad_gates) = grad_in.split_at_mut(grad_out.len());
    for ((((ga, gb), &a), &b), &g) in grad_values.iter_mut().zip(grad_gates).zip(values).zip(gates).zip(grad_out) {
        let s = math::sigmoid::<FMA>(b);
        *ga = g * s;
        *gb = g * a * (s * (1.0 - s));
    }
}
tiered!(fn glu_backward_row(x: &[f32], grad_out: &[f32], grad_in: &mut [f32]) = glu_backward_body);

/// Gated linear unit: the first half of each row times the sigmoid of the second.
///
/// # Shapes
/// - `x`: `[rows, 2 * width]`
/// - `padding`: rows it calls padding come out as zeros, whatever they hold
/// - `out`: `[rows, width]`
pub fn glu(x: &[f32], width: usize, padding: Option<Padding<'_>>, out: &mut [f32]) {
    glu_on(Tier::best(), x, width, padding, out);
}

fn glu_on(tier: Tier, x: &[f32], width: usize, padding: Option<Padding<'_>>, out: &mut [f32]) {
    assert!(x.len() == 2 * out.len() && out.len().is_multiple_of(width), "x [rows, 2 * width], out [rows, width]");
    let count = rows::per_task(2 * width);
    rows::for_chunks(out, count * width, |i, out| {
        for (j, out) in out.chunks_mut(width).enumerate() {
            let row = i * count + j;
            if padding.is_none_or(|p| p.is_live(row)) {
                glu_row(tier, part(x, row, 2 * width, 2 * width), out);
            } else {
                out.fill(0.0);
            }
        }
    });
}

/// Gradient of [`glu`]; rows of padding get zeros.
///
/// # Shapes
/// - `x`, `grad_in`: `[rows, 2 * width]`
/// - `grad_out`: `[rows, width]`
pub fn glu_backward(x: &[f32], width: usize, padding: Option<Padding<'_>>, grad_out: &[f32], grad_in: &mut [f32]) {
    glu_backward_on(Tier::best(), x, width, padding, grad_out, grad_in);
}

fn glu_backward_on(tier: Tier, x: &[f32], width: usize, padding: Option<Padding<'_>>, grad_out: &[f32], grad_in: &mut [f32]) {
    assert!(
        x.len() == 2 * grad_out.len() && grad_in.len() == x.len() && grad_out.len().is_multiple_of(width),
        "x, grad_in [rows, 2 * width]"
    );
    let count = rows::per_task(2 * width);
    rows::for_chunks(grad_in, count * 2 * width, |i, grad_in| {
        for (j, grad_in) in grad_in.chunks_mut(2 * width).enumerate() {
            let row = i * count + j;
            if padding.is_none_or(|p| p.is_live(row)) {
                glu_backward_row(tier, part(x, row, 2 * width, 2 * width), part(grad_out, row, width, width), grad_in);
            } else {
                grad_in.fill(0.0);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::rng::SplitMix;

    const ALL: [Activation; 5] = [Activation::Identity, Activation::Relu, Activation::Silu, Activation::Gelu, Activation::Sigmoid];

    fn random(n: usize, scale: f32, seed: u64) -> Vec<f32> {
        let mut rng = SplitMix::new(seed);
        (0..n).map(|_| rng.next_normal() * scale).collect()
    }

    fn sigmoid(x: f64) -> f64 {
        1.0 / (1.0 + (-x).exp())
    }

    /// Phi by Simpson's rule from 0: good to 1e-12 for |x| < 12.
    fn phi(x: f64) -> f64 {
        let density = |t: f64| (-t * t / 2.0).exp() / std::f64::consts::TAU.sqrt();
        let n = 4000;
        let h = x / f64::from(n);
        let sum: f64 = (0..=n)
            .map(|i| {
                density(f64::from(i) * h)
                    * if i == 0 || i == n {
                        1.0
                    } else if i % 2 == 1 {
                        4.0
                    } else {
                        2.0
                    }
            })
            .sum();
        0.5 + sum * h / 3.0
    }

    fn reference(a: Activation, x: f64) -> f64 {
        match a {
            Activation::Identity => x,
            Activation::Relu => x.max(0.0),
            Activation::Silu => x * sigmoid(x),
            Activation::Gelu => x * phi(x),
            Activation::Sigmoid => sigmoid(x),
        }
    }

    #[test]
    fn values_and_slopes_match_f64() {
        // f32 arithmetic on values up to 12: a few units in the last place.
        const TOLERANCE: f64 = 2e-6;
        for n in [0, 1, 15, 33, 515] {
            let (x, g) = (random(n, 3.0, 1), random(n, 1.0, 2));
            for a in ALL {
                for tier in Tier::available() {
                    let (mut out, mut grad) = (vec![0.0; n], vec![0.0; n]);
                    a.forward_on(tier, &x, &mut out);
                    a.backward_on(tier, &x, &g, &mut grad);
                    let mut in_place = x.clone();
                    a.forward_in_place(&mut in_place);
                    for i in 0..n {
                        let v = f64::from(x[i]);
                        let (r, h) = (reference(a, v), 1e-4);
                        let slope = (reference(a, v + h) - reference(a, v - h)) / (2.0 * h);
                        assert!((f64::from(out[i]) - r).abs() < TOLERANCE, "{a:?} {tier:?} at {v}: {} {r}", out[i]);
                        assert!((f64::from(in_place[i]) - r).abs() < TOLERANCE, "{a:?} in place");
                        if a != Activation::Relu || v.abs() > h {
                            let limit = TOLERANCE * f64::from(g[i].abs()).max(1.0);
                            assert!(
                                (f64::from(grad[i]) - slope * f64::from(g[i])).abs() < limit,
                                "{a:?} {tier:?} slope at {v}: {} {slope}",
                                grad[i]
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn extremes_stay_finite_and_nan_is_not_hidden() {
        let x = [1e30, -1e30, 200.0, -200.0, 0.0, f32::NAN];
        for a in ALL {
            for tier in Tier::available() {
                let (mut out, mut grad) = (vec![0.0; 6], vec![0.0; 6]);
                a.forward_on(tier, &x, &mut out);
                a.backward_on(tier, &x, &[1.0; 6], &mut grad);
                assert!(out[..5].iter().all(|v| v.is_finite()), "{a:?} {tier:?} {out:?}");
                assert!(grad[2..5].iter().all(|v| v.is_finite()), "{a:?} {tier:?} {grad:?}");
                assert!(out[5].is_nan(), "{a:?} {tier:?}");
                if !matches!(a, Activation::Identity | Activation::Relu) {
                    assert!(grad[5].is_nan() && out[3].abs() < 1e-30, "{a:?} {tier:?} {out:?} {grad:?}");
                }
            }
        }
    }

    #[test]
    fn large_arrays_use_every_chunk() {
        let x = random(5 * rows::TASK + 3, 1.0, 4);
        let mut out = vec![0.0; x.len()];
        Activation::Silu.forward(&x, &mut out);
        let worst = x.iter().zip(&out).map(|(&x, &o)| (f64::from(o) - reference(Activation::Silu, x.into())).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-6, "{worst:e}");
    }

    #[test]
    fn glu_and_its_gradient_match_f64() {
        let lengths = [3, 0, 5];
        for width in [1, 7, 40] {
            let rows = 15;
            let mut x = random(rows * 2 * width, 2.0, 5);
            let g = random(rows * width, 1.0, 6);
            let padding = Padding { steps: 5, lengths: &lengths };
            for row in 0..rows {
                if !padding.is_live(row) {
                    x[row * 2 * width..][..2 * width].fill(f32::NAN);
                }
            }
            for tier in Tier::available() {
                let (mut out, mut grad) = (vec![9.0; rows * width], vec![9.0; rows * 2 * width]);
                glu_on(tier, &x, width, Some(padding), &mut out);
                glu_backward_on(tier, &x, width, Some(padding), &g, &mut grad);
                for row in 0..rows {
                    for i in 0..width {
                        let at = row * 2 * width + i;
                        let (a, b, g) = (f64::from(x[at]), f64::from(x[at + width]), f64::from(g[row * width + i]));
                        let s = sigmoid(b);
                        let expected = if padding.is_live(row) { [a * s, g * s, g * a * s * (1.0 - s)] } else { [0.0; 3] };
                        for (ours, golden) in [out[row * width + i], grad[at], grad[at + width]].into_iter().zip(expected) {
                            assert!((f64::from(ours) - golden).abs() < 2e-6, "{tier:?} row {row}: {ours} {golden}");
                        }
                    }
                }
            }
        }
    }
}
