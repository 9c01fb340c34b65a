//! Encoders that hear the waveform: wav2vec 2.0 and HuBERT with a CTC head.
//!
//! ```text
//! samples -> convolutions without padding (x320) -> norm, projection -> + positional convolution -> Transformer blocks -> head
//! ```
//!
//! Padding of a batch changes nothing here, unlike in the published implementations: every statistic is taken over an utterance alone.

mod config;
mod extractor;

use burn::module::{Module, Param};
use burn::nn::{LayerNorm, Linear};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, module};

pub use config::{ConvolutionLayer, ExtractorNorm, NormOrder, PositionConvolution, WaveConfig};
pub use extractor::Windowed;

use crate::error::Result;
use crate::kernel::activation::Activation;
use crate::model::asr::AsrOutput;
use crate::model::attention::{SelfAttention, new_linear};
use crate::model::config::{BlockConfig, ContextConfig, EncoderConfig, FeedForwardConfig, PositionConfig, SubsamplingConfig};
use crate::model::convolution::new_layer_norm;
use crate::model::feed_forward::Dense;
use crate::model::init::Init;
use crate::model::lengths::Lengths;
use crate::model::ops::activation::activate;
use crate::model::ops::linear::linear;
use crate::model::ops::norm::layer_norm;
use crate::model::pass::Pass;

/// Samples to CTC logits.
#[derive(Module, Debug)]
pub struct WaveModel {
    /// Convolutions over the waveform.
    pub extractor: Vec<Windowed>,
    /// Norm of what they give.
    pub feature_norm: LayerNorm,
    /// `[width, d_model]`
    pub project: Linear,
    /// The convolution that tells where a step is.
    pub position: GroupedConvolution,
    /// Norm before the first block, or after the last one.
    pub norm: LayerNorm,
    /// The Transformer.
    pub blocks: Vec<WaveBlock>,
    /// CTC head `[d_model, vocab]`.
    pub head: Linear,
    #[module(skip)]
    config: WaveConfig,
}

/// A convolution over steps in groups of channels, padded to keep their number.
#[derive(Module, Debug)]
pub struct GroupedConvolution {
    /// `[d_model, d_model / groups, kernel]`
    pub weight: Param<Tensor<3>>,
    /// `[d_model]`
    pub bias: Param<Tensor<1>>,
}

/// A Transformer layer with its norms before or after its branches.
#[derive(Module, Debug)]
pub struct WaveBlock {
    /// Self-attention.
    pub attention: SelfAttention,
    /// Its norm.
    pub attention_norm: LayerNorm,
    /// Feed-forward.
    pub feed_forward: Dense,
    /// Its norm.
    pub feed_forward_norm: LayerNorm,
}

impl WaveModel {
    /// A model with fresh weights on `device`; equal seeds give equal weights.
    ///
    /// # Errors
    /// [`crate::Error::Config`] if `config` breaks a rule.
    pub fn new(config: &WaveConfig, vocab: usize, seed: u64, device: &Device) -> Result<Self> {
        Self::with_init(config, vocab, &mut Init::new(device, seed))
    }

    /// A model whose weights are not there yet: for loading.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn blank(config: &WaveConfig, vocab: usize, device: &Device) -> Result<Self> {
        Self::with_init(config, vocab, &mut Init::blank(device))
    }

    fn with_init(config: &WaveConfig, vocab: usize, init: &mut Init) -> Result<Self> {
        config.validate()?;
        let d = config.d_model;
        let mut inputs = 1;
        let mut extractor = Vec::with_capacity(config.convolutions.len());
        for (i, layer) in config.convolutions.iter().enumerate() {
            extractor.push(Windowed::new(layer, inputs, config.convolution_bias, config.extractor_norm, i == 0, init));
            inputs = layer.width;
        }
        let PositionConvolution { kernel, groups } = config.position;
        let attention = attention_config(config);
        Ok(Self {
            extractor,
            feature_norm: new_layer_norm(inputs, init),
            project: new_linear(inputs, d, true, init),
            position: GroupedConvolution {
                weight: init.fan_in([d, d / groups, kernel], d / groups * kernel),
                bias: init.constant([d], 0.0),
            },
            norm: new_layer_norm(d, init),
            blocks: (0..config.n_layers)
                .map(|_| WaveBlock {
                    attention: SelfAttention::new(&attention, init),
                    attention_norm: new_layer_norm(d, init),
                    feed_forward: Dense::new(d, config.d_ff, init),
                    feed_forward_norm: new_layer_norm(d, init),
                })
                .collect(),
            head: new_linear(d, vocab, true, init),
            config: config.clone(),
        })
    }

    /// What the encoder is made of.
    pub fn config(&self) -> &WaveConfig {
        &self.config
    }

    /// Classes of the CTC head, the blank included.
    pub fn vocab(&self) -> usize {
        self.head.weight.dims()[1]
    }

    /// Runs the model.
    ///
    /// # Shapes
    /// - `samples`: `[batch, samples, 1]`, whatever in the padding
    /// - `lengths`: valid samples; utterances that are shorter than one step give none
    pub fn forward(&self, samples: Tensor<3>, lengths: &Lengths, pass: &Pass) -> AsrOutput {
        self.forward_with(samples, lengths, pass, |_, _| ())
    }

    /// Runs the model; `see` gets what every stage gives, under its name.
    ///
    /// # Shapes
    /// As [`Self::forward`].
    pub fn forward_with(&self, samples: Tensor<3>, lengths: &Lengths, pass: &Pass, mut see: impl FnMut(&str, &Tensor<3>)) -> AsrOutput {
        let device = samples.device();
        let batch = lengths.batch();
        let steps = lengths.map(|n| self.config.output_len(n));
        if steps.padded() == 0 {
            let logits = Tensor::zeros([batch, 0, self.vocab()], &device);
            return AsrOutput { logits, lengths: steps, intermediate: vec![], routed: vec![], languages: None };
        }
        let mut x = lengths.clear_padding(samples);
        let mut lengths = lengths.clone();
        for (i, layer) in self.extractor.iter().enumerate() {
            lengths = lengths.map(|n| layer.output_len(n));
            x = layer.forward(x, &lengths, self.config.extractor_activation.into(), pass);
            see(&format!("conv{i}"), &x);
        }
        x = linear(layer_norm(x, &self.feature_norm), &self.project, pass);
        see("feature_projection", &x);
        x = lengths.clear_padding(x);
        let place = activate(self.position.forward(x.clone(), self.config.position.groups), self.config.extractor_activation.into());
        see("pos_conv_embed", &place);
        x = x + place;
        let order = self.config.norm_order;
        if order == NormOrder::After {
            x = layer_norm(x, &self.norm);
            see("layer_norm", &x);
        }
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(x, &lengths, order, self.config.activation.into(), pass);
            see(&format!("layer{i}"), &x);
        }
        if order == NormOrder::Before {
            x = layer_norm(x, &self.norm);
            see("layer_norm", &x);
        }
        AsrOutput { logits: linear(x, &self.head, pass), lengths, intermediate: vec![], routed: vec![], languages: None }
    }
}

impl GroupedConvolution {
    /// # Shapes
    /// `x`, returns: `[batch, steps, d_model]`
    fn forward(&self, x: Tensor<3>, groups: usize) -> Tensor<3> {
        let [batch, steps, d_model] = x.dims();
        let [_, _, kernel] = self.weight.dims();
        let options = ConvOptions::new([1], [kernel / 2], [1], groups);
        let y = module::conv1d(x.swap_dims(1, 2), self.weight.val(), Some(self.bias.val()), options);
        // An even kernel gives one position too many, at the end.
        y.slice([0..batch, 0..d_model, 0..steps]).swap_dims(1, 2)
    }
}

impl WaveBlock {
    fn forward(&self, x: Tensor<3>, lengths: &Lengths, order: NormOrder, activation: Activation, pass: &Pass) -> Tensor<3> {
        match order {
            NormOrder::Before => {
                let x = x.clone() + self.attention.forward(layer_norm(x, &self.attention_norm), lengths, pass);
                x.clone() + self.feed_forward.forward(layer_norm(x, &self.feed_forward_norm), activation, pass)
            }
            NormOrder::After => {
                let x = layer_norm(x.clone() + self.attention.forward(x, lengths, pass), &self.attention_norm);
                layer_norm(x.clone() + self.feed_forward.forward(x, activation, pass), &self.feed_forward_norm)
            }
        }
    }
}

/// What attention needs to know.
fn attention_config(config: &WaveConfig) -> EncoderConfig {
    EncoderConfig {
        mels: 1,
        d_model: config.d_model,
        n_layers: config.n_layers,
        n_heads: config.n_heads,
        d_ff: config.d_ff,
        activation: config.activation,
        dropout: 0.0,
        attention_bias: true,
        scale_input: false,
        subsampling: SubsamplingConfig::Stacking { factor: 1, hidden: None },
        position: PositionConfig::None,
        context: ContextConfig::Full,
        block: BlockConfig::Transformer,
        feed_forward: FeedForwardConfig::Dense,
        intermediate: None,
        languages: None,
    }
}
