//! The encoder: subsampling, blocks, and the routers the blocks share.

use std::sync::Arc;

use burn::module::Module;
use burn::nn::LayerNorm;
use burn::tensor::Tensor;

use crate::error::Result;
use crate::model::block::Block;
use crate::model::config::{BlockConfig, EncoderConfig, FeedForwardConfig, RouterKind};
use crate::model::convolution::new_layer_norm;
use crate::model::feed_forward::{Dense, ExpertLayer, FeedForward, Lent, Routed};
use crate::model::init::Init;
use crate::model::lengths::Lengths;
use crate::model::moe::clusters::ClusterScale;
use crate::model::moe::experts::Experts;
use crate::model::moe::language::LanguageSizes;
use crate::model::moe::memory::{MemorySizes, ProductKeyMemory};
use crate::model::moe::router::{Gate, Router};
use crate::model::moe::store::ExpertStore;
use crate::model::moe::strata::{StrataLayer, gate_columns};
use crate::model::ops::norm::layer_norm;
use crate::model::pass::Pass;
use crate::model::position::add_cape;
use crate::model::subsampling::Subsampling;

/// Feature frames to states. Owns each shared router once and lends it to the blocks of its group.
#[derive(Module, Debug)]
pub struct Encoder {
    /// Frames to steps.
    pub subsampling: Subsampling,
    /// One router for each group of layers that shares one (Omni-router); empty for dense and Switch.
    pub routers: Vec<Router>,
    /// The layers.
    pub blocks: Vec<Block>,
    /// Norm after the last Transformer block.
    pub final_norm: Option<LayerNorm>,
    #[module(skip)]
    config: EncoderConfig,
    #[module(skip)]
    group_router: Vec<Option<usize>>,
    #[module(skip)]
    store: Option<Arc<dyn ExpertStore>>,
}

/// What the encoder gives.
#[derive(Debug)]
pub struct EncoderOutput {
    /// `[batch, steps, d_model]`
    pub states: Tensor<3>,
    /// Valid steps.
    pub lengths: Lengths,
    /// Routing of every layer, `None` for dense ones.
    pub routed: Vec<Option<Routed>>,
}

impl Encoder {
    /// An encoder with fresh weights.
    ///
    /// # Errors
    /// [`crate::Error::Config`] if `config` breaks a rule.
    pub fn new(config: &EncoderConfig, init: &mut Init) -> Result<Self> {
        config.validate()?;
        let (d, m) = (config.d_model, config.d_ff);
        let subsampling = Subsampling::new(&config.subsampling, config.mels, d, config.dropout, init);
        let mut routers = Vec::new();
        let mut group_router = vec![None; config.n_layers];
        let mut experts_of = vec![1; config.n_layers];
        let sharing = match &config.feed_forward {
            FeedForwardConfig::Experts { router, .. }
            | FeedForwardConfig::Adaptive { router, .. }
            | FeedForwardConfig::Sigma { router, .. }
            | FeedForwardConfig::Strata { router, .. } => Some(*router),
            FeedForwardConfig::Dense | FeedForwardConfig::Memory { .. } => None,
        };
        if let Some(groups) = config.feed_forward.groups() {
            let mut shared = Vec::new();
            for group in &groups.0 {
                let own = sharing == Some(RouterKind::Omni) && group.experts > 1;
                shared.push(own.then_some(routers.len()));
                if own {
                    routers.push(new_router(config, group.experts, init));
                }
            }
            for (layer, (group, experts)) in groups.by_layer().into_iter().enumerate() {
                experts_of[layer] = experts;
                group_router[layer] = shared[group];
            }
        }
        if let FeedForwardConfig::Strata { router: RouterKind::Omni, strata } = &config.feed_forward {
            routers.push(Router::new(d, gate_columns(strata), false, 0.0, init));
            group_router.fill(Some(0));
        }
        let blocks = experts_of
            .iter()
            .enumerate()
            .map(|(i, &n)| {
                let feed_forward = |init: &mut Init| match (&config.feed_forward, n) {
                    (FeedForwardConfig::Memory { layers, subkeys, query, heads, top_k, weighting }, _) if layers.contains(&(i + 1)) => {
                        let sizes = MemorySizes { subkeys: *subkeys, query: *query, heads: *heads, top_k: *top_k };
                        FeedForward::Memory(ProductKeyMemory::new(d, sizes, *weighting, init))
                    }
                    (FeedForwardConfig::Strata { router, strata }, _) => {
                        FeedForward::Strata(StrataLayer::new(d, m, strata, *router == RouterKind::Switch, init))
                    }
                    (_, 1) => FeedForward::Dense(Dense::new(d, m, init)),
                    _ => FeedForward::Experts(ExpertLayer {
                        experts: Experts::new(n, d, m, init),
                        router: (sharing == Some(RouterKind::Switch)).then(|| new_router(config, n, init)),
                        clusters: match (&config.feed_forward, experts_of[..i].iter().rfind(|&&below| below > 1)) {
                            (FeedForwardConfig::Adaptive { statistics, .. }, Some(&below)) => {
                                Some(ClusterScale::new(*statistics, below, d, init))
                            }
                            _ => None,
                        },
                    }),
                };
                Block::new(config, feed_forward, init)
            })
            .collect();
        let final_norm = matches!(config.block, BlockConfig::Transformer).then(|| new_layer_norm(d, init));
        Ok(Self { subsampling, routers, blocks, final_norm, config: config.clone(), group_router, store: None })
    }

    /// Takes the experts of all layers out of `store` instead of the layers' own weights, which then need not be there.
    pub fn lend_experts(&mut self, store: Arc<dyn ExpertStore>) {
        self.store = Some(store);
    }

    /// What the encoder is made of.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// Parameters that do not work on a given step: of every layer's experts, all but those chosen (of strata, all but
    /// one: a step that climbs slowly uses more); of a memory, the rows not read; of languages, all but one.
    pub fn idle_params(&self) -> usize {
        let chosen = match self.config.feed_forward {
            FeedForwardConfig::Sigma { top_k, .. } => top_k,
            _ => 1,
        };
        self.blocks.iter().map(|block| block.idle_params(chosen)).sum()
    }

    /// The encoder with the modules that its configuration wants. They change nothing yet, and are drawn after everything else: the other weights
    /// are those of an encoder without them.
    pub(crate) fn with_languages(mut self, init: &mut Init) -> Self {
        let Some(languages) = self.config.languages.clone() else { return self };
        let sizes = LanguageSizes { slots: languages.slots(), rank: languages.rank };
        let added = self.blocks.into_iter().enumerate().map(|(i, block)| {
            if languages.layers.contains(&(i + 1)) { block.with_languages(languages.places, sizes, init) } else { block }
        });
        self.blocks = added.collect();
        self
    }

    /// The encoder with the module of a slot (`None`: the shared one) in its weights and no modules any more.
    pub fn folded(mut self, slot: Option<usize>) -> Self {
        self.blocks = self.blocks.into_iter().map(|block| block.folded(slot)).collect();
        self.config.languages = None;
        self
    }

    /// The encoder with the experts of one layer (counted from 0), or of all, exchanged ([`Experts::exchanged`]) while the routers stay.
    pub fn with_exchanged_experts(mut self, layer: Option<usize>) -> Self {
        let exchange = |(i, mut block): (usize, Block)| {
            block.feed_forward = match block.feed_forward {
                FeedForward::Experts(own) if layer.is_none_or(|l| l == i) => {
                    FeedForward::Experts(ExpertLayer { experts: own.experts.exchanged(), ..own })
                }
                other => other,
            };
            block
        };
        self.blocks = self.blocks.into_iter().enumerate().map(exchange).collect();
        self
    }

    /// Encodes a batch.
    ///
    /// # Shapes
    /// - `features`: `[batch, frames, mels]`, whatever in the padding
    /// - `lengths`: valid frames
    pub fn forward(&self, features: Tensor<3>, lengths: &Lengths, pass: &Pass) -> EncoderOutput {
        self.forward_with(features, lengths, pass, |_, x| x)
    }

    /// Encodes a batch; `after` sees the stream after each layer (counted from 1) and gives what goes on.
    pub fn forward_with(
        &self,
        features: Tensor<3>,
        lengths: &Lengths,
        pass: &Pass,
        mut after: impl FnMut(usize, Tensor<3>) -> Tensor<3>,
    ) -> EncoderOutput {
        let x = self.subsampling.forward(features, lengths, pass);
        let lengths = lengths.map(|n| self.config.subsampling.output_len(n));
        let mut x = self.placed(x, &lengths, 0, pass);
        let mut routed: Vec<Option<Routed>> = Vec::with_capacity(self.blocks.len());
        for (i, block) in self.blocks.iter().enumerate() {
            let below = routed.iter().rev().flatten().next();
            let (y, choice) = block.forward(x, &lengths, self.lent(i, below), pass);
            routed.push(choice);
            x = after(i + 1, y);
        }
        EncoderOutput { states: self.normalized(x), lengths, routed }
    }

    /// What the first block reads: the output of subsampling, scaled, with positions from `first` on. Shows it to the store of experts.
    pub(crate) fn placed(&self, x: Tensor<3>, lengths: &Lengths, first: usize, pass: &Pass) -> Tensor<3> {
        let x = if self.config.scale_input { x.mul_scalar((self.config.d_model as f64).sqrt()) } else { x };
        let x = add_cape(x, lengths, first, &self.config.position, pass);
        if let Some(store) = &self.store {
            store.begin(&x, lengths);
        }
        x
    }

    /// What a layer (counted from 0) is lent; `below` is the routing of the nearest routed layer below it.
    pub(crate) fn lent<'a>(&'a self, layer: usize, below: Option<&'a Routed>) -> Lent<'a> {
        Lent {
            router: self.group_router[layer].map(|router| &self.routers[router]),
            labels: below.map(Routed::labels),
            store: self.store.as_deref(),
            layer,
        }
    }

    /// The final norm, where the blocks do not end with one.
    pub fn normalized(&self, x: Tensor<3>) -> Tensor<3> {
        match &self.final_norm {
            Some(norm) => layer_norm(x, norm),
            None => x,
        }
    }
}

/// A router over `experts` experts, as `config` wants it.
fn new_router(config: &EncoderConfig, experts: usize, init: &mut Init) -> Router {
    let d = config.d_model;
    match config.feed_forward {
        FeedForwardConfig::Experts { router_bias, jitter, .. } => Router::new(d, experts, router_bias, jitter, init),
        FeedForwardConfig::Adaptive { .. } => Router::new(d, experts, false, 0.0, init),
        FeedForwardConfig::Sigma { top_k, expert_dropout, .. } => {
            Router::new(d, experts, false, 0.0, init).with_gate(Gate::Sigmoid { top_k, dropout: expert_dropout })
        }
        FeedForwardConfig::Dense | FeedForwardConfig::Memory { .. } | FeedForwardConfig::Strata { .. } => {
            unreachable!("only experts are routed to")
        }
    }
}
