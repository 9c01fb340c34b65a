//! Two-layer feed-forwards: one for all rows, or one of several chosen per row.

use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData};

use crate::kernel::activation::Activation;
use crate::model::arithmetic::Packed;
use crate::model::ops::activation::activate;
use crate::model::ops::experts_fused::{FusedExperts, PackedExperts};
use crate::model::ops::fused;
use crate::model::pass::Pass;

/// Rows sorted by the expert they go to: what the fast dispatch works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grouping {
    /// Slot numbers (`row * top_k + choice`), expert after expert, in row order within one.
    pub order: Vec<usize>,
    /// Expert `e` owns `order[offsets[e]..offsets[e + 1]]`.
    pub offsets: Vec<usize>,
    /// Choices per row.
    pub top_k: usize,
    /// Rows of the input, dead ones included.
    pub rows: usize,
}

impl Grouping {
    /// Sorts `choices` `[rows, top_k]` (an expert, or `None` for a dead row) by expert.
    pub fn new(choices: &[Option<usize>], experts: usize, top_k: usize) -> Self {
        let mut offsets = vec![0; experts + 1];
        for expert in choices.iter().flatten() {
            offsets[expert + 1] += 1;
        }
        for e in 0..experts {
            offsets[e + 1] += offsets[e];
        }
        let mut next = offsets.clone();
        let mut order = vec![0; offsets[experts]];
        for (slot, expert) in choices.iter().enumerate() {
            if let Some(e) = *expert {
                order[next[e]] = slot;
                next[e] += 1;
            }
        }
        Self { order, offsets, top_k, rows: choices.len() / top_k }
    }

    /// One expert for all `rows`, in order: a dense feed-forward.
    pub fn identity(rows: usize) -> Self {
        Self { order: Vec::new(), offsets: vec![0, rows], top_k: 1, rows }
    }

    /// Whether slots are rows in order (see [`Grouping::identity`]).
    pub fn is_identity(&self) -> bool {
        self.order.is_empty() && self.offsets == [0, self.rows]
    }

    /// The experts of every row, rising; none for dead rows.
    pub fn experts_of_rows(&self) -> Vec<Vec<usize>> {
        let mut rows = vec![Vec::new(); self.rows];
        for (expert, ends) in self.offsets.windows(2).enumerate() {
            for i in ends[0]..ends[1] {
                rows[if self.is_identity() { i } else { self.order[i] / self.top_k }].push(expert);
            }
        }
        rows
    }

    /// Rows each expert works on.
    pub fn load(&self) -> Vec<usize> {
        self.offsets.windows(2).map(|w| w[1] - w[0]).collect()
    }
}

/// Weights of the experts of one layer.
#[derive(Debug, Clone)]
pub struct ExpertWeights {
    /// `[experts, d_model, d_ff]`
    pub up: Tensor<3>,
    /// `[experts, d_ff]`
    pub up_bias: Tensor<2>,
    /// `[experts, d_ff, d_model]`
    pub down: Tensor<3>,
    /// `[experts, d_model]`
    pub down_bias: Tensor<2>,
}

/// `act(x W_up + b_up) W_down + b_down` with the weights of each row's expert, computing the chosen experts only.
///
/// # Shapes
/// - `x`: `[rows, d_model]`
/// - returns `[rows * top_k, d_model]`, one row for each choice; dead rows are 0
pub fn expert_feed_forward(x: Tensor<2>, weights: ExpertWeights, grouping: Arc<Grouping>, act: Activation, pass: &Pass) -> Tensor<2> {
    if fused::available(&x.device()) {
        let op = FusedExperts::new(grouping, act, pass.precision());
        return fused::apply!(op; x, weights.up, weights.up_bias, weights.down, weights.down_bias);
    }
    composed(x, weights, &grouping, act)
}

/// [`expert_feed_forward`] with matrices packed before: inference on the CPU.
///
/// # Shapes
/// - `up_bias`: `[experts, d_ff]`; `down_bias`: `[experts, d_model]`
pub fn packed_feed_forward(
    x: Tensor<2>,
    [up, down]: [Packed; 2],
    [up_bias, down_bias]: [Tensor<2>; 2],
    grouping: Arc<Grouping>,
    act: Activation,
    pass: &Pass,
) -> Tensor<2> {
    let op = PackedExperts { experts: FusedExperts::new(grouping, act, pass.precision()), up, down };
    fused::apply!(op; x, up_bias, down_bias)
}

/// Groups rows by expert with Burn's select and assign.
fn composed(x: Tensor<2>, weights: ExpertWeights, grouping: &Grouping, act: Activation) -> Tensor<2> {
    if grouping.is_identity() {
        return one_expert(x, &weights, 0, act);
    }
    let device = x.device();
    let [_, d_model] = x.dims();
    let mut y = Tensor::<2>::zeros([grouping.rows * grouping.top_k, d_model], &device);
    for (e, span) in grouping.offsets.windows(2).enumerate() {
        let slots = &grouping.order[span[0]..span[1]];
        if slots.is_empty() {
            continue;
        }
        let index = |f: &dyn Fn(usize) -> usize| {
            let values: Vec<i64> = slots.iter().map(|&s| f(s) as i64).collect();
            Tensor::<1, Int>::from_data(TensorData::new(values, [slots.len()]), &device)
        };
        let rows = x.clone().select(0, index(&|s| s / grouping.top_k));
        let out = one_expert(rows, &weights, e, act);
        y = y.select_assign(0, index(&|s| s), out, burn::tensor::IndexingUpdateOp::Add);
    }
    y
}

/// The feed-forward of expert `e` on all `rows`.
fn one_expert(rows: Tensor<2>, weights: &ExpertWeights, e: usize, act: Activation) -> Tensor<2> {
    let matrix = |t: &Tensor<3>| t.clone().slice(e..e + 1).squeeze_dim::<2>(0);
    let bias = |t: &Tensor<2>| t.clone().slice(e..e + 1);
    let hidden = activate(rows.matmul(matrix(&weights.up)) + bias(&weights.up_bias), act);
    hidden.matmul(matrix(&weights.down)) + bias(&weights.down_bias)
}

/// The oracle: every row on its own, one expert at a time.
#[doc(hidden)]
pub fn expert_feed_forward_naive(
    x: Tensor<2>,
    weights: ExpertWeights,
    choices: &[Option<usize>],
    top_k: usize,
    act: Activation,
) -> Tensor<2> {
    let [rows, d_model] = x.dims();
    let outputs = (0..rows * top_k).map(|slot| match choices[slot] {
        Some(e) => one_expert(x.clone().slice(slot / top_k..slot / top_k + 1), &weights, e, act),
        None => Tensor::zeros([1, d_model], &x.device()),
    });
    Tensor::cat(outputs.collect(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grouping_sorts_by_expert_and_skips_dead_rows() {
        let g = Grouping::new(&[Some(1), None, Some(0), Some(1)], 3, 1);
        assert_eq!(g.order, [2, 0, 3]);
        assert_eq!(g.offsets, [0, 1, 3, 3]);
        assert_eq!(g.load(), [1, 2, 0]);
    }
}
