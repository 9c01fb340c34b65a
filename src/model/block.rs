//! One layer of the encoder: Transformer or Conformer.

use burn::module::Module;
use burn::nn::LayerNorm;
use burn::tensor::Tensor;

use crate::kernel::activation::Activation;
use crate::model::attention::SelfAttention;
use crate::model::config::{BlockConfig, EncoderConfig, LanguagePlaces};
use crate::model::convolution::{Convolution, new_layer_norm};
use crate::model::feed_forward::{Dense, FeedForward, Lent, Routed};
use crate::model::init::Init;
use crate::model::lengths::Lengths;
use crate::model::moe::language::LanguageSizes;
use crate::model::moe::strata::Adding;
use crate::model::ops::dropout::add_branch;
use crate::model::ops::norm::layer_norm;
use crate::model::pass::Pass;

/// A layer of the encoder.
#[derive(Module, Debug)]
pub struct Block {
    /// First half of a Conformer: half-step feed-forward.
    pub opening: Option<Opening>,
    /// Norm before attention.
    pub attention_norm: LayerNorm,
    /// Self-attention.
    pub attention: SelfAttention,
    /// Convolution of a Conformer.
    pub convolution: Option<ConvolutionBranch>,
    /// Norm before the feed-forward.
    pub feed_forward_norm: LayerNorm,
    /// The feed-forward: dense or experts.
    pub feed_forward: FeedForward,
    /// Norm at the end of a Conformer block.
    pub out_norm: Option<LayerNorm>,
    #[module(skip)]
    activation: Activation,
    dropout: f64,
}

/// The first feed-forward of a Conformer block.
#[derive(Module, Debug)]
pub struct Opening {
    /// Norm before it.
    pub norm: LayerNorm,
    /// Always dense.
    pub feed_forward: Dense,
}

/// The convolution of a Conformer block.
#[derive(Module, Debug)]
pub struct ConvolutionBranch {
    /// Norm before it.
    pub norm: LayerNorm,
    /// The module.
    pub module: Convolution,
}

impl Block {
    /// A block around `feed_forward`.
    pub fn new(config: &EncoderConfig, feed_forward: impl FnOnce(&mut Init) -> FeedForward, init: &mut Init) -> Self {
        let d = config.d_model;
        let conformer = match config.block {
            BlockConfig::Transformer => None,
            BlockConfig::Conformer { kernel, norm, convolution_bias } => Some((kernel, norm, convolution_bias)),
        };
        Self {
            opening: conformer.is_some().then(|| Opening { norm: new_layer_norm(d, init), feed_forward: Dense::new(d, config.d_ff, init) }),
            attention_norm: new_layer_norm(d, init),
            attention: SelfAttention::new(config, init),
            convolution: conformer.map(|(kernel, norm, bias)| ConvolutionBranch {
                norm: new_layer_norm(d, init),
                module: Convolution::new(d, kernel, norm, bias, init),
            }),
            feed_forward_norm: new_layer_norm(d, init),
            feed_forward: feed_forward(init),
            out_norm: conformer.is_some().then(|| new_layer_norm(d, init)),
            activation: config.activation.into(),
            dropout: config.dropout,
        }
    }

    /// The same block with modules that change nothing yet.
    pub fn with_languages(self, places: LanguagePlaces, sizes: LanguageSizes, init: &mut Init) -> Self {
        let opening = match places {
            LanguagePlaces::All => self.opening.map(|o| Opening { feed_forward: o.feed_forward.with_languages(sizes, init), ..o }),
            LanguagePlaces::Last => self.opening,
        };
        Self { opening, feed_forward: self.feed_forward.with_languages(sizes, init), ..self }
    }

    /// The block with the module of a slot (`None`: the shared one) in its weights and no modules any more.
    pub fn folded(self, slot: Option<usize>) -> Self {
        let opening = self.opening.map(|o| Opening { feed_forward: o.feed_forward.folded(slot), ..o });
        Self { opening, feed_forward: self.feed_forward.folded(slot), ..self }
    }

    /// Parameters that do not work on a step for which `chosen` experts do.
    pub fn idle_params(&self, chosen: usize) -> usize {
        self.opening.as_ref().map_or(0, |o| o.feed_forward.idle_params()) + self.feed_forward.idle_params(chosen)
    }

    /// One layer, with what the encoder lends it.
    ///
    /// Transformer: `x + A(LN(x))`, `x + F(LN(x))`. Conformer: `x + F1(LN(x))/2`, `x + A(LN(x))`, `x + C(LN(x))`, `x + F2(LN(x))/2`, LN.
    ///
    /// # Shapes
    /// `x`, returns: `[batch, steps, d_model]`
    pub fn forward(&self, x: Tensor<3>, lengths: &Lengths, lent: Lent, pass: &Pass) -> (Tensor<3>, Option<Routed>) {
        let attend = |attention: &SelfAttention, x| attention.forward(x, lengths, pass);
        self.forward_with(x, lengths, lent, pass, attend, |module, x| module.forward(x, lengths, pass))
    }

    /// One layer in which `attend` and `convolve` stand for the two stages where steps meet.
    pub(crate) fn forward_with(
        &self,
        mut x: Tensor<3>,
        lengths: &Lengths,
        lent: Lent,
        pass: &Pass,
        attend: impl FnOnce(&SelfAttention, Tensor<3>) -> Tensor<3>,
        convolve: impl FnOnce(&Convolution, Tensor<3>) -> Tensor<3>,
    ) -> (Tensor<3>, Option<Routed>) {
        if let Some(Opening { norm, feed_forward }) = &self.opening {
            let branch = feed_forward.forward(layer_norm(x.clone(), norm), self.activation, pass);
            x = add_branch(x, branch, 0.5, self.dropout, pass);
        }
        let branch = attend(&self.attention, layer_norm(x.clone(), &self.attention_norm));
        x = add_branch(x, branch, 1.0, self.dropout, pass);
        if let Some(ConvolutionBranch { norm, module }) = &self.convolution {
            let branch = convolve(module, layer_norm(x.clone(), norm));
            x = add_branch(x, branch, 1.0, self.dropout, pass);
        }
        let input = layer_norm(x.clone(), &self.feed_forward_norm);
        let step = if self.opening.is_some() { 0.5 } else { 1.0 };
        let routed = if let FeedForward::Strata(layer) = &self.feed_forward {
            let adding = Adding { activation: self.activation, step, dropout: self.dropout };
            let (y, climb) = layer.forward(x, input, lengths, lent.router, adding, pass);
            x = y;
            Some(Routed { routing: climb.first, loss: climb.loss, paths: Some(climb.paths), spread: None })
        } else {
            let (branch, routed) = self.feed_forward.forward(input, lengths, lent, self.activation, pass);
            x = add_branch(x, branch, step, self.dropout, pass);
            routed
        };
        if let Some(norm) = &self.out_norm {
            x = layer_norm(x, norm);
        }
        (x, routed)
    }
}
