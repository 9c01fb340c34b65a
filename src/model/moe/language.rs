//! Language-specific matrix synthesis: a low-rank change of the weights of feed-forwards for each language, and one that all share.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::model::init::Init;
use crate::model::ops::experts::ExpertWeights;
use crate::model::pass::Pass;

/// Standard deviation of `W_v` at the start, as in the authors' code. `W_h` is 0, and so is the change.
const DEVIATION: f32 = 0.01;

/// The changes of both matrices of one feed-forward, or of the experts of one layer.
///
/// # Reference
/// Xu et al. 2023, arXiv:2305.13993, language-wise. Differs: on the experts of a mixture each expert has its own, and what names a slot may be an
/// accent or a domain; both are combinations of our own.
#[derive(Module, Debug)]
pub struct LanguageMatrices {
    /// Of the first matrix.
    pub up: LowRank,
    /// Of the second.
    pub down: LowRank,
}

/// `W_v W_h` for each slot, in our order (input first): `x (W_v W_h)^T = (x flat) vertical`.
#[derive(Module, Debug)]
pub struct LowRank {
    /// `W_h` transposed, `[slots, experts, d_input, rank]`.
    pub flat: Param<Tensor<4>>,
    /// `W_v` transposed, `[slots, experts, rank, d_output]`.
    pub vertical: Param<Tensor<4>>,
}

/// Slots, and the rank of their changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LanguageSizes {
    /// Modules and the shared slot.
    pub slots: usize,
    /// Rank of a change.
    pub rank: usize,
}

impl LowRank {
    fn new(sizes: LanguageSizes, experts: usize, d_input: usize, d_output: usize, init: &mut Init) -> Self {
        let LanguageSizes { slots, rank } = sizes;
        Self {
            flat: init.constant([slots, experts, d_input, rank], 0.0),
            vertical: init.normal([slots, experts, rank, d_output], DEVIATION),
        }
    }

    /// The change of a slot, `None` the shared one.
    ///
    /// # Shapes
    /// returns `[experts, d_input, d_output]`
    pub fn change(&self, slot: Option<usize>) -> Tensor<3> {
        let slots = self.flat.dims()[0];
        let slot = slot.unwrap_or(slots - 1);
        let of = |factor: &Param<Tensor<4>>| factor.val().narrow(0, slot, 1).squeeze_dim::<3>(0);
        of(&self.flat).matmul(of(&self.vertical))
    }
}

impl LanguageMatrices {
    /// Changes of 0 for `experts` feed-forwards of these widths.
    pub fn new(sizes: LanguageSizes, experts: usize, d_model: usize, d_ff: usize, init: &mut Init) -> Self {
        Self { up: LowRank::new(sizes, experts, d_model, d_ff, init), down: LowRank::new(sizes, experts, d_ff, d_model, init) }
    }

    /// The weights of a slot, `None` the shared one: `W + W_v W_h`, biases as they are.
    pub fn synthesize(&self, weights: ExpertWeights, slot: Option<usize>) -> ExpertWeights {
        ExpertWeights { up: weights.up + self.up.change(slot), down: weights.down + self.down.change(slot), ..weights }
    }

    /// Parameters that do not work on a step for which `chosen` experts do: the other slots, and the other experts of its own.
    pub fn idle_params(&self, chosen: usize) -> usize {
        let [slots, experts, ..] = self.up.flat.dims();
        let all = self.num_params();
        all - all / slots / experts * chosen
    }
}

/// The weights for a pass: changed where there are modules.
pub fn synthesized(weights: ExpertWeights, languages: Option<&LanguageMatrices>, pass: &Pass) -> ExpertWeights {
    match languages {
        Some(matrices) => matrices.synthesize(weights, pass.slot()),
        None => weights,
    }
}
