//! The feed-forward of a block: dense, or experts chosen by a router.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::kernel::activation::Activation;
use crate::model::init::Init;
use crate::model::lengths::Lengths;
use crate::model::moe::balance::RouterLoss;
use crate::model::moe::clusters::{ClusterScale, Labels, Spread};
use crate::model::moe::experts::{Experts, combine};
use crate::model::moe::language::{LanguageMatrices, LanguageSizes, synthesized};
use crate::model::moe::memory::ProductKeyMemory;
use crate::model::moe::router::{Router, Routing};
use crate::model::moe::store::{ExpertStore, lent_feed_forward};
use crate::model::moe::strata::StrataLayer;
use crate::model::ops::experts::{ExpertWeights, Grouping, expert_feed_forward, packed_feed_forward};
use crate::model::pass::Pass;

/// Feed-forward of one block, without its norm and residual.
#[derive(Module, Debug)]
pub enum FeedForward {
    /// The same weights for every step.
    Dense(Dense),
    /// Experts; the router is the block's own (Switch) or lent by the encoder (Omni).
    Experts(ExpertLayer),
    /// A product-key memory.
    Memory(ProductKeyMemory),
    /// Experts in strata, with residuals and norms of their own.
    Strata(StrataLayer),
}

/// A dense two-layer feed-forward.
#[derive(Module, Debug)]
pub struct Dense {
    /// `[d_model, d_ff]`
    pub up: Param<Tensor<2>>,
    /// `[d_ff]`
    pub up_bias: Param<Tensor<1>>,
    /// `[d_ff, d_model]`
    pub down: Param<Tensor<2>>,
    /// `[d_model]`
    pub down_bias: Param<Tensor<1>>,
    /// What languages change.
    pub languages: Option<LanguageMatrices>,
}

/// Experts and, for Switch, their own router.
#[derive(Module, Debug)]
pub struct ExpertLayer {
    /// The experts of this layer.
    pub experts: Experts,
    /// A router of this layer alone; `None` where the encoder lends a shared one.
    pub router: Option<Router>,
    /// What scales the router's input, where it adapts to clusters.
    pub clusters: Option<ClusterScale>,
}

/// What an encoder lends a layer for its routing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lent<'a> {
    /// The router its group shares.
    pub router: Option<&'a Router>,
    /// Choices of the routed layer below, if there is one.
    pub labels: Option<Labels<'a>>,
    /// Where its experts are, if not in the layer itself.
    pub store: Option<&'a dyn ExpertStore>,
    /// The number of the layer (from 0).
    pub layer: usize,
}

/// What a feed-forward says about its routing while training or analysed.
#[derive(Debug, Clone)]
pub struct Routed {
    /// Choices and probabilities.
    pub routing: Routing,
    /// Auxiliary losses; outside training only the load.
    pub loss: RouterLoss,
    /// Stratified experts: the way of every row through the strata.
    pub paths: Option<Vec<Vec<usize>>>,
    /// Spread of the clusters of this batch, where running statistics follow it.
    pub spread: Option<Spread>,
}

impl Routed {
    /// The first choices, as clusters for the layer above.
    pub fn labels(&self) -> Labels<'_> {
        Labels { of_rows: &self.routing.choices, clusters: self.routing.probs.dims()[1] }
    }

    /// The experts that worked on each row: in the order of its way through strata, else in ascending order; none in the padding.
    pub fn visited(&self) -> Vec<Vec<usize>> {
        self.paths.clone().unwrap_or_else(|| self.routing.grouping.experts_of_rows())
    }

    /// Experts that worked on a step, on average over the live ones.
    pub fn experts_per_step(&self) -> f64 {
        self.loss.load.iter().sum::<usize>() as f64 / self.routing.live_rows.max(1) as f64
    }
}

impl Dense {
    /// Drawn like linear layers, biases 0.
    pub fn new(d_model: usize, d_ff: usize, init: &mut Init) -> Self {
        Self {
            up: init.fan_in([d_model, d_ff], d_model),
            up_bias: init.constant([d_ff], 0.0),
            down: init.fan_in([d_ff, d_model], d_ff),
            down_bias: init.constant([d_model], 0.0),
            languages: None,
        }
    }

    /// The same with modules that do not change it yet.
    pub fn with_languages(self, sizes: LanguageSizes, init: &mut Init) -> Self {
        let [d_model, d_ff] = self.up.dims();
        Self { languages: Some(LanguageMatrices::new(sizes, 1, d_model, d_ff, init)), ..self }
    }

    /// The feed-forward with the module of a slot (`None`: the shared one) in its weights and no modules any more.
    pub fn folded(self, slot: Option<usize>) -> Self {
        let Some(matrices) = self.languages else { return self };
        let [up, down] = [&matrices.up, &matrices.down].map(|low| low.change(slot).squeeze_dim::<2>(0));
        Self { up: self.up.map(|w| w + up), down: self.down.map(|w| w + down), languages: None, ..self }
    }

    /// Parameters that do not work on a given step: the modules of other slots.
    pub fn idle_params(&self) -> usize {
        self.languages.as_ref().map_or(0, |l| l.idle_params(1))
    }

    /// `act(x W_up + b_up) W_down + b_down`.
    ///
    /// # Shapes
    /// `x`, returns: `[batch, steps, d_model]`
    pub fn forward(&self, x: Tensor<3>, act: Activation, pass: &Pass) -> Tensor<3> {
        let [batch, steps, d_model] = x.dims();
        let rows = batch * steps;
        let [_, d_ff] = self.up.dims();
        let (up_bias, down_bias) = (self.up_bias.val().reshape([1, d_ff]), self.down_bias.val().reshape([1, d_model]));
        let (x, grouping) = (x.reshape([rows, d_model]), Arc::new(Grouping::identity(rows)));
        let y = match (pass.packed(self.up.id), pass.packed(self.down.id)) {
            (Some(up), Some(down)) => packed_feed_forward(x, [up, down], [up_bias, down_bias], grouping, act, pass),
            _ => {
                let (up, down) = (self.up.val().reshape([1, d_model, d_ff]), self.down.val().reshape([1, d_ff, d_model]));
                let weights = synthesized(ExpertWeights { up, up_bias, down, down_bias }, self.languages.as_ref(), pass);
                expert_feed_forward(x, weights, grouping, act, pass)
            }
        };
        y.reshape([batch, steps, d_model])
    }
}

impl FeedForward {
    /// The same with modules that do not change it yet; a memory has none.
    pub fn with_languages(self, sizes: LanguageSizes, init: &mut Init) -> Self {
        match self {
            Self::Dense(dense) => Self::Dense(dense.with_languages(sizes, init)),
            Self::Experts(layer) => Self::Experts(ExpertLayer { experts: layer.experts.with_languages(sizes, init), ..layer }),
            Self::Strata(layer) => Self::Strata(layer.with_experts(|experts| experts.with_languages(sizes, init))),
            Self::Memory(memory) => Self::Memory(memory),
        }
    }

    /// The feed-forward with the module of a slot (`None`: the shared one) in its weights and no modules any more.
    pub fn folded(self, slot: Option<usize>) -> Self {
        match self {
            Self::Dense(dense) => Self::Dense(dense.folded(slot)),
            Self::Experts(layer) => Self::Experts(ExpertLayer { experts: layer.experts.folded(slot), ..layer }),
            Self::Strata(layer) => Self::Strata(layer.with_experts(|experts| experts.folded(slot))),
            Self::Memory(memory) => Self::Memory(memory),
        }
    }

    /// Parameters that do not work on a step for which `chosen` experts do (of strata, one).
    pub fn idle_params(&self, chosen: usize) -> usize {
        match self {
            Self::Dense(dense) => dense.idle_params(),
            Self::Experts(layer) => layer.experts.idle_params(chosen),
            Self::Strata(layer) => layer.experts.idle_params(chosen),
            Self::Memory(memory) => memory.idle_params(),
        }
    }

    /// Runs the feed-forward with what the encoder lends it.
    ///
    /// # Shapes
    /// `x`, returns: `[batch, steps, d_model]`; padded steps give 0 where experts are routed
    ///
    /// # Panics
    /// If the layer has experts and neither its own router nor a shared one: a bug of the constructor. If it is stratified: the block runs it.
    pub fn forward(&self, x: Tensor<3>, lengths: &Lengths, lent: Lent, act: Activation, pass: &Pass) -> (Tensor<3>, Option<Routed>) {
        match self {
            Self::Dense(dense) => {
                if let Some(probe) = pass.probe() {
                    let [batch, steps, d_model] = x.dims();
                    probe.see(lent.layer, &x.clone().reshape([batch * steps, d_model]), None);
                }
                (dense.forward(x, act, pass), None)
            }
            Self::Experts(layer) => {
                let router = layer.router.as_ref().or(lent.router).expect("a layer with experts has a router");
                let [batch, steps, d_model] = x.dims();
                let x = x.reshape([batch * steps, d_model]);
                let (read, spread) = match (&layer.clusters, lent.labels) {
                    (Some(clusters), Some(labels)) => clusters.scale(&x, labels, lengths),
                    _ => (x.clone(), None),
                };
                let routing = router.route(read, lengths, pass);
                if let Some(probe) = pass.probe() {
                    probe.see(lent.layer, &x, Some(&routing));
                }
                let y = match lent.store {
                    Some(store) => combine(lent_feed_forward(store, lent.layer, &x, &routing, act, pass), &routing),
                    None => layer.experts.forward(x, &routing, act, pass),
                };
                let y = y.reshape([batch, steps, d_model]);
                let loss = if pass.is_training() { router.loss(&routing) } else { RouterLoss::load_only(&routing) };
                (y, Some(Routed { routing, loss, paths: None, spread }))
            }
            Self::Memory(memory) => (memory.forward(x), None),
            Self::Strata(_) => unreachable!("the block runs a stratified layer, which adds to the stream itself"),
        }
    }
}
