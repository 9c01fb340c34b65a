//! The experts of one layer.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::kernel::activation::Activation;
use crate::model::init::Init;
use crate::model::moe::router::Routing;
use crate::model::ops::experts::{ExpertWeights, Grouping, expert_feed_forward, packed_feed_forward};
use crate::model::pass::Pass;

/// `experts` feed-forwards of one layer, their weights stacked.
#[derive(Module, Debug)]
pub struct Experts {
    /// `[experts, d_model, d_ff]`
    pub up: Param<Tensor<3>>,
    /// `[experts, d_ff]`
    pub up_bias: Param<Tensor<2>>,
    /// `[experts, d_ff, d_model]`
    pub down: Param<Tensor<3>>,
    /// `[experts, d_model]`
    pub down_bias: Param<Tensor<2>>,
}

impl Experts {
    /// Experts drawn like linear layers, biases 0.
    pub fn new(experts: usize, d_model: usize, d_ff: usize, init: &mut Init) -> Self {
        Self {
            up: init.fan_in([experts, d_model, d_ff], d_model),
            up_bias: init.constant([experts, d_ff], 0.0),
            down: init.fan_in([experts, d_ff, d_model], d_ff),
            down_bias: init.constant([experts, d_model], 0.0),
        }
    }

    /// The stacked weights.
    pub fn weights(&self) -> ExpertWeights {
        ExpertWeights { up: self.up.val(), up_bias: self.up_bias.val(), down: self.down.val(), down_bias: self.down_bias.val() }
    }

    /// The experts renumbered: each does the work of the one before it, the first that of the last.
    pub fn exchanged(self) -> Self {
        fn turned<const D: usize>(param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|weights| {
                let last = weights.dims()[0] - 1;
                Tensor::cat(vec![weights.clone().narrow(0, last, 1), weights.narrow(0, 0, last)], 0)
            })
        }
        if self.up.dims()[0] < 2 {
            return self;
        }
        Self { up: turned(self.up), up_bias: turned(self.up_bias), down: turned(self.down), down_bias: turned(self.down_bias) }
    }

    /// Each row through the experts chosen for it, scaled by their gates and summed: `y_t = sum_k w_{t,k} FFN_{e_k}(x_t)`; dead rows give 0.
    ///
    /// # Shapes
    /// `x`, returns: `[rows, d_model]`
    pub fn forward(&self, x: Tensor<2>, routing: &Routing, act: Activation, pass: &Pass) -> Tensor<2> {
        combine(self.feed_forward(x, routing.grouping.clone(), act, pass), routing)
    }

    /// Each row through the experts chosen for it.
    ///
    /// # Shapes
    /// - `x`: `[rows, d_model]`
    /// - returns `[rows * top_k, d_model]`, one row for each choice; dead rows are 0
    pub fn feed_forward(&self, x: Tensor<2>, grouping: Arc<Grouping>, act: Activation, pass: &Pass) -> Tensor<2> {
        match (pass.packed(self.up.id), pass.packed(self.down.id)) {
            (Some(up), Some(down)) => packed_feed_forward(x, [up, down], [self.up_bias.val(), self.down_bias.val()], grouping, act, pass),
            _ => expert_feed_forward(x, self.weights(), grouping, act, pass),
        }
    }
}

/// The outputs of the chosen experts scaled by their gates and summed.
///
/// # Shapes
/// `y`: `[rows * top_k, d_model]`; returns `[rows, d_model]`
pub fn combine(y: Tensor<2>, routing: &Routing) -> Tensor<2> {
    let y = y * routing.weights.clone();
    match routing.grouping.top_k {
        1 => y,
        k => {
            let [slots, d_model] = y.dims();
            y.reshape([slots / k, k, d_model]).sum_dim(1).squeeze_dim(1)
        }
    }
}
