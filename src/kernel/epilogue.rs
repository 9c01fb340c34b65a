//! What happens to a product on its way out: bias and activation.

use super::activation::{Activation, Pointwise, with_pointwise};
use super::cpu::Tier;
use super::simd::tiered;

/// What happens to a product before it is stored: `activation(old + product + bias)`.
#[derive(Debug, Clone, Copy)]
pub struct Epilogue<'a> {
    /// One value per output column.
    pub bias: Option<&'a [f32]>,
    /// Applied last.
    pub activation: Activation,
}

impl Epilogue<'_> {
    /// The product as it is.
    pub const NONE: Self = Self { bias: None, activation: Activation::Identity };
}

#[inline(always)]
fn activate_body<const FMA: bool, const LANES: usize, P: Pointwise>(values: &mut [f32]) {
    values.iter_mut().for_each(|x| *x = P::value::<FMA>(*x));
}
tiered!(fn activate_slice[P: Pointwise](values: &mut [f32]) = activate_body);

/// Applies `activation` to every value on the calling thread, with the instructions of `tier`.
pub(super) fn activate(activation: Activation, values: &mut [f32], tier: Tier) {
    if activation != Activation::Identity {
        with_pointwise!(activation, activate_slice(tier.vector(), values));
    }
}
