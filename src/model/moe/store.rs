//! Experts that are not all in memory: a layer asks for those it needs and runs them one by one.

use std::fmt::Debug;
use std::sync::Arc;

use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};

use crate::kernel::activation::Activation;
use crate::model::lengths::Lengths;
use crate::model::moe::router::Routing;
use crate::model::ops::experts::{ExpertWeights, Grouping, expert_feed_forward};
use crate::model::pass::Pass;

/// Lends experts to layers.
pub trait ExpertStore: Debug + Send + Sync {
    /// A pass begins: what its first block will read. A hint, from which a store may guess which experts will be asked for.
    ///
    /// # Shapes
    /// `x`: `[batch, steps, d_model]`
    fn begin(&self, x: &Tensor<3>, lengths: &Lengths);

    /// Gives each of the experts `needed` of layer `layer` (from 0) to `each`, once, in any order. The weights are those of one expert
    /// (`experts` = 1 in their shapes) and may be gone when `each` returns.
    fn lend(&self, layer: usize, needed: &[usize], each: &mut dyn FnMut(usize, &ExpertWeights));
}

/// [`crate::model::ops::experts::expert_feed_forward`] with experts out of a store.
///
/// # Shapes
/// - `x`: `[rows, d_model]`
/// - returns `[rows * top_k, d_model]`, one row for each choice; dead rows are 0
pub fn lent_feed_forward(
    store: &dyn ExpertStore,
    layer: usize,
    x: &Tensor<2>,
    routing: &Routing,
    act: Activation,
    pass: &Pass,
) -> Tensor<2> {
    let (device, grouping) = (x.device(), &routing.grouping);
    let [_, d_model] = x.dims();
    let needed: Vec<usize> = grouping.load().iter().enumerate().filter(|(_, load)| **load > 0).map(|(e, _)| e).collect();
    let mut y = Some(Tensor::<2>::zeros([grouping.rows * grouping.top_k, d_model], &device));
    store.lend(layer, &needed, &mut |e, weights| {
        let slots = &grouping.order[grouping.offsets[e]..grouping.offsets[e + 1]];
        let index = |f: &dyn Fn(usize) -> usize| {
            let values: Vec<i64> = slots.iter().map(|&s| f(s) as i64).collect();
            Tensor::<1, Int>::from_data(TensorData::new(values, [slots.len()]), &device)
        };
        let rows = x.clone().select(0, index(&|s| s / grouping.top_k));
        let out = expert_feed_forward(rows, weights.clone(), Arc::new(Grouping::identity(slots.len())), act, pass);
        y = y.take().map(|y| y.select_assign(0, index(&|s| s), out, IndexingUpdateOp::Add));
    });
    y.expect("the sum is put back after every expert")
}
