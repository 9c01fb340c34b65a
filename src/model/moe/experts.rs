//! The experts of one layer.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::kernel::activation::Activation;
use crate::model::init::Init;
use crate::model::moe::language::{LanguageMatrices, LanguageSizes, LowRank, synthesized};
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
    /// What languages change.
    pub languages: Option<LanguageMatrices>,
}

impl Experts {
    /// Experts drawn like linear layers, biases 0.
    pub fn new(experts: usize, d_model: usize, d_ff: usize, init: &mut Init) -> Self {
        Self {
            up: init.fan_in([experts, d_model, d_ff], d_model),
            up_bias: init.constant([experts, d_ff], 0.0),
            down: init.fan_in([experts, d_ff, d_model], d_ff),
            down_bias: init.constant([experts, d_model], 0.0),
            languages: None,
        }
    }

    /// The same experts with modules that do not change them yet.
    pub fn with_languages(self, sizes: LanguageSizes, init: &mut Init) -> Self {
        let [experts, d_model, d_ff] = self.up.dims();
        Self { languages: Some(LanguageMatrices::new(sizes, experts, d_model, d_ff, init)), ..self }
    }

    /// The experts with the module of a slot (`None`: the shared one) in their weights and no modules any more.
    pub fn folded(self, slot: Option<usize>) -> Self {
        let Some(matrices) = self.languages else { return self };
        let (up, down) = (matrices.up.change(slot), matrices.down.change(slot));
        Self { up: self.up.map(|w| w + up), down: self.down.map(|w| w + down), languages: None, ..self }
    }

    /// The stacked weights as a pass uses them.
    pub fn synthesized(&self, pass: &Pass) -> ExpertWeights {
        synthesized(self.weights(), self.languages.as_ref(), pass)
    }

    /// Parameters that do not work on a step for which `chosen` experts do.
    pub fn idle_params(&self, chosen: usize) -> usize {
        let experts = self.up.dims()[0];
        let modules = self.languages.as_ref().map_or(0, Module::num_params);
        let own = self.num_params() - modules;
        own / experts * (experts - chosen) + self.languages.as_ref().map_or(0, |l| l.idle_params(chosen))
    }

    /// The stacked weights, without what languages change.
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
        /// The experts of a module lie in its second dimension.
        fn turned_second(param: Param<Tensor<4>>) -> Param<Tensor<4>> {
            param.map(|weights| {
                let last = weights.dims()[1] - 1;
                Tensor::cat(vec![weights.clone().narrow(1, last, 1), weights.narrow(1, 0, last)], 1)
            })
        }
        let turned_low = |low: LowRank| LowRank { flat: turned_second(low.flat), vertical: turned_second(low.vertical) };
        Self {
            up: turned(self.up),
            up_bias: turned(self.up_bias),
            down: turned(self.down),
            down_bias: turned(self.down_bias),
            languages: self.languages.map(|l| LanguageMatrices { up: turned_low(l.up), down: turned_low(l.down) }),
        }
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
            _ => expert_feed_forward(x, self.synthesized(pass), grouping, act, pass),
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
