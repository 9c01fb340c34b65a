//! What an encoder is made of: a complete, strict description that is saved with every model.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::kernel::activation::Activation;
use crate::kernel::attention::AttentionMask;
use crate::model::pass::Chunk;

mod feed_forward;
mod language;

pub use feed_forward::{ClusterStatistics, ExpertGroup, ExpertGroups, FeedForwardConfig, MemoryWeighting, RouterKind};
pub use language::{LanguageConfig, LanguageField, LanguagePlaces, SHARED};

/// The encoder, from feature frames to states: everything needed to build it and nothing that depends on a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderConfig {
    /// Mel bands per feature frame.
    pub mels: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Number of blocks.
    pub n_layers: usize,
    /// Attention heads; divides `d_model`.
    pub n_heads: usize,
    /// Hidden width of one feed-forward (of one expert).
    pub d_ff: usize,
    /// Activation inside feed-forwards.
    pub activation: ActivationConfig,
    /// Dropout on residual branches while training.
    pub dropout: f64,
    /// Biases on the attention projections.
    pub attention_bias: bool,
    /// Multiply the subsampled input by `sqrt(d_model)`.
    pub scale_input: bool,
    /// Frames to steps.
    pub subsampling: SubsamplingConfig,
    /// How the encoder knows where a step is.
    pub position: PositionConfig,
    /// What a step attends to.
    pub context: ContextConfig,
    /// Transformer or Conformer.
    pub block: BlockConfig,
    /// Dense or mixture of experts.
    pub feed_forward: FeedForwardConfig,
    /// A CTC head in the middle.
    pub intermediate: Option<IntermediateConfig>,
    /// Low-rank matrices on the feed-forwards for each language (accent, domain).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub languages: Option<LanguageConfig>,
}

/// Activation of feed-forwards, as spelled in configuration files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivationConfig {
    /// `max(x, 0)`.
    Relu,
    /// `x * sigmoid(x)`.
    Silu,
    /// Exact (erf) Gaussian error linear unit.
    Gelu,
}

impl From<ActivationConfig> for Activation {
    fn from(a: ActivationConfig) -> Self {
        match a {
            ActivationConfig::Relu => Self::Relu,
            ActivationConfig::Silu => Self::Silu,
            ActivationConfig::Gelu => Self::Gelu,
        }
    }
}

/// How frames become steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum SubsamplingConfig {
    /// `factor` neighbouring frames side by side, then a projection (Omni-router paper).
    Stacking {
        /// Frames per step.
        factor: usize,
        /// Width of a SiLU layer between the stack and the model, with a layer norm after it.
        hidden: Option<usize>,
    },
    /// Depthwise-striding convolutions (FastConformer).
    Convolution {
        /// Frames per step: 2, 4 or 8.
        factor: usize,
        /// Channels of the convolutions.
        channels: usize,
    },
}

/// Position information.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum PositionConfig {
    /// None at all.
    None,
    /// Continuous augmented positional embedding, added once at the input.
    Cape {
        /// Multiplies every frequency.
        freq_scale: f64,
        /// Position of step `t` is `t * delta`.
        delta: f64,
        /// Multiplies the content before the embedding is added.
        content_scale: f64,
        /// Subtract the mean position of the live steps.
        normalize: bool,
        /// Training: one shift per utterance, uniform in +- this.
        max_global_shift: f64,
        /// Training: one shift per step, uniform in +- this times `delta`.
        max_local_shift: f64,
        /// Training: positions scaled by `exp(u)`, u uniform in +- ln of this (1 = off).
        max_global_scaling: f64,
    },
    /// Transformer-XL relative positions inside attention.
    Relative,
    /// Rotary positions inside attention (arXiv:2104.09864), first half of a head against the second, base 10000.
    Rotary,
}

/// What a step attends to. Limited context makes the output of a window of a recording independent of what lies far from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ContextConfig {
    /// The whole utterance.
    Full,
    /// Its neighbours, in every layer.
    Window {
        /// Steps before it.
        left: usize,
        /// Steps after it.
        right: usize,
    },
    /// The whole utterance, or, chosen for each pass, its own chunk and what came before it: a model that also streams.
    Chunks {
        /// Sizes of chunks in steps that the model was trained for, rising.
        sizes: Vec<usize>,
        /// Steps before its chunk that attention reaches, rounded down to whole chunks.
        left: usize,
    },
}

impl From<&ContextConfig> for AttentionMask {
    fn from(context: &ContextConfig) -> Self {
        match *context {
            ContextConfig::Full | ContextConfig::Chunks { .. } => Self::Full,
            ContextConfig::Window { left, right } => Self::Window { left, right },
        }
    }
}

impl ContextConfig {
    /// The context of chunks of `steps` steps; `None` where the encoder has no such context.
    pub fn chunk(&self, steps: usize) -> Option<Chunk> {
        match self {
            Self::Chunks { sizes, left } if sizes.contains(&steps) => Some(Chunk { steps, left_chunks: left / steps }),
            _ => None,
        }
    }

    /// Sizes of the chunks it can be run in, in steps.
    pub fn chunk_sizes(&self) -> &[usize] {
        match self {
            Self::Chunks { sizes, .. } => sizes,
            _ => &[],
        }
    }
}

/// The kind of block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum BlockConfig {
    /// Pre-norm attention and feed-forward.
    Transformer,
    /// Half-step feed-forwards around attention and a depthwise convolution.
    Conformer {
        /// Taps of the depthwise convolution (odd).
        kernel: usize,
        /// Norm after the depthwise convolution.
        norm: ConvolutionNorm,
        /// Biases on the convolutions.
        convolution_bias: bool,
    },
}

/// Norm inside the convolution module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConvolutionNorm {
    /// Layer norm over channels: the same for any batch.
    Layer,
    /// Batch norm by stored statistics (published checkpoints); it is not trained here.
    Batch,
}

/// A second use of the CTC head after a middle layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntermediateConfig {
    /// Layers (counted from 1) after which the head is applied.
    pub layers: Vec<usize>,
    /// Feed the posteriors back into the residual stream (Nozaki and Komatsu 2021, arXiv:2104.02724).
    pub self_condition: bool,
}

impl EncoderConfig {
    /// How many steps before and after a step its output depends on; `None` where that is the whole utterance.
    ///
    /// Attention and convolution of every layer add up. One step on each side is for the frames that subsampling and the spectrum's window read
    /// beyond the step's own.
    pub fn receptive_field(&self) -> Option<(usize, usize)> {
        let ContextConfig::Window { left, right } = self.context else { return None };
        if matches!(self.position, PositionConfig::Cape { normalize: true, .. }) || self.knows_utterance() {
            return None;
        }
        let half = match self.block {
            BlockConfig::Transformer => 0,
            BlockConfig::Conformer { kernel, .. } => kernel / 2,
        };
        let side = |attention: usize| self.n_layers.saturating_mul(attention.saturating_add(half)).saturating_add(1);
        Some((side(left), side(right)))
    }

    /// Whether routers read statistics of the whole utterance.
    fn knows_utterance(&self) -> bool {
        matches!(self.feed_forward, FeedForwardConfig::Adaptive { statistics: ClusterStatistics::Utterance, .. })
    }

    /// Checks every rule that construction relies on.
    ///
    /// # Errors
    /// [`Error::Config`] naming field, value and rule.
    pub fn validate(&self) -> Result<()> {
        let rule = |holds: bool, what: String| if holds { Ok(()) } else { Err(Error::config("encoder", what)) };
        for (name, value, most) in [
            ("mels", self.mels, 1024),
            ("d_model", self.d_model, 16_384),
            ("n_layers", self.n_layers, 512),
            ("n_heads", self.n_heads, 1024),
            ("d_ff", self.d_ff, 131_072),
        ] {
            rule((1..=most).contains(&value), format!("encoder.{name} = {value}: must lie in 1..={most}"))?;
        }
        rule(
            self.d_model.is_multiple_of(self.n_heads),
            format!("encoder.n_heads = {}: must divide encoder.d_model = {}", self.n_heads, self.d_model),
        )?;
        rule((0.0..1.0).contains(&self.dropout), format!("encoder.dropout = {}: must lie in 0..1", self.dropout))?;
        match self.subsampling {
            SubsamplingConfig::Stacking { factor, hidden } => {
                rule((1..=64).contains(&factor), format!("encoder.subsampling.factor = {factor}: must lie in 1..=64"))?;
                rule(hidden.is_none_or(|h| (1..=65_536).contains(&h)), "encoder.subsampling.hidden: must lie in 1..=65536".into())?;
            }
            SubsamplingConfig::Convolution { factor, channels } => {
                rule([2, 4, 8].contains(&factor), format!("encoder.subsampling.factor = {factor}: must be 2, 4 or 8"))?;
                rule((1..=4096).contains(&channels), format!("encoder.subsampling.channels = {channels}: must lie in 1..=4096"))?;
            }
        }
        let head = self.d_model / self.n_heads;
        match self.position {
            PositionConfig::Rotary => {
                rule(head.is_multiple_of(2), format!("encoder.position rotary: d_model / n_heads = {head} must be even"))?;
            }
            PositionConfig::Relative | PositionConfig::Cape { .. } => {
                rule(self.d_model.is_multiple_of(2), format!("encoder.d_model = {}: must be even for sinusoids", self.d_model))?;
            }
            PositionConfig::None => {}
        }
        if let PositionConfig::Cape { freq_scale, delta, content_scale, max_global_shift, max_local_shift, max_global_scaling, .. } =
            self.position
        {
            for (name, value, least) in [
                ("freq_scale", freq_scale, 0.0),
                ("delta", delta, 0.0),
                ("content_scale", content_scale, 0.0),
                ("max_global_shift", max_global_shift, 0.0),
                ("max_local_shift", max_local_shift, 0.0),
                ("max_global_scaling", max_global_scaling, 1.0),
            ] {
                rule(value.is_finite() && value >= least, format!("encoder.position.{name} = {value}: must be at least {least}"))?;
            }
        }
        if let BlockConfig::Conformer { kernel, .. } = self.block {
            rule(kernel % 2 == 1 && kernel < 1000, format!("encoder.block.kernel = {kernel}: must be odd and under 1000"))?;
        }
        if let ContextConfig::Chunks { sizes, left } = &self.context {
            rule(
                !sizes.is_empty() && sizes.is_sorted_by(|a, b| a < b) && (1..=4096).contains(&sizes[0]) && sizes.last() <= Some(&4096),
                format!("encoder.context.sizes = {sizes:?}: must rise and lie in 1..=4096"),
            )?;
            let largest = sizes.last().copied().unwrap_or(1);
            rule((largest..=1 << 20).contains(left), format!("encoder.context.left = {left}: must lie in {largest}..=1048576"))?;
            rule(
                !matches!(self.position, PositionConfig::Cape { normalize: true, .. }),
                "encoder.position.normalize: a stream cannot know the mean position".into(),
            )?;
            rule(
                !self.knows_utterance(),
                "encoder.feed_forward.statistics: a stream cannot know those of its utterance: use running ones".into(),
            )?;
        }
        self.feed_forward.validate(self.n_layers)?;
        if let Some(languages) = &self.languages {
            languages.validate(self)?;
        }
        if let Some(intermediate) = &self.intermediate {
            rule(
                !intermediate.layers.is_empty() && intermediate.layers.iter().all(|l| (1..self.n_layers).contains(l)),
                format!("encoder.intermediate.layers = {:?}: each must lie in 1..{}", intermediate.layers, self.n_layers),
            )?;
        }
        Ok(())
    }
}
