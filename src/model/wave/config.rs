//! What a wav2vec 2.0 encoder is made of.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::config::ActivationConfig;

/// The encoder, from samples to states: everything needed to build it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaveConfig {
    /// Convolutions over the waveform, in order; none pads.
    pub convolutions: Vec<ConvolutionLayer>,
    /// Biases on them.
    pub convolution_bias: bool,
    /// Norms after them.
    pub extractor_norm: ExtractorNorm,
    /// Activation after them.
    pub extractor_activation: ActivationConfig,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Number of Transformer blocks.
    pub n_layers: usize,
    /// Attention heads; divides `d_model`.
    pub n_heads: usize,
    /// Hidden width of the feed-forwards.
    pub d_ff: usize,
    /// Activation inside feed-forwards.
    pub activation: ActivationConfig,
    /// The convolution that tells where a step is.
    pub position: PositionConvolution,
    /// Where the norms of a block stand.
    pub norm_order: NormOrder,
}

/// A convolution over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvolutionLayer {
    /// Output channels.
    pub width: usize,
    /// Taps.
    pub kernel: usize,
    /// Positions from one output to the next.
    pub stride: usize,
}

/// Norms of the convolutions over the waveform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExtractorNorm {
    /// After the first one, over time within each channel (base models).
    FirstLayerByChannel,
    /// After every one, over the channels of each position (large models).
    EveryLayer,
}

/// The grouped convolution over steps whose output is added to its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PositionConvolution {
    /// Taps.
    pub kernel: usize,
    /// Groups of channels; divides `d_model`.
    pub groups: usize,
}

/// Where the norms of a block stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormOrder {
    /// Before each branch, and one after the last block (large models).
    Before,
    /// After each sum, and one before the first block (base models).
    After,
}

impl WaveConfig {
    /// Steps that come from `samples`: the only length rule of the encoder.
    pub fn output_len(&self, samples: usize) -> usize {
        self.convolutions.iter().fold(samples, |n, c| if n < c.kernel { 0 } else { (n - c.kernel) / c.stride + 1 })
    }

    /// Samples from one step to the next.
    pub fn step_samples(&self) -> usize {
        self.convolutions.iter().map(|c| c.stride).product()
    }

    /// Checks every rule that construction relies on.
    ///
    /// # Errors
    /// [`Error::Config`] naming field, value and rule.
    pub fn validate(&self) -> Result<()> {
        let rule = |holds: bool, what: String| if holds { Ok(()) } else { Err(Error::config("encoder", what)) };
        for (name, value, most) in [
            ("convolutions", self.convolutions.len(), 32),
            ("d_model", self.d_model, 16_384),
            ("n_layers", self.n_layers, 512),
            ("n_heads", self.n_heads, 1024),
            ("d_ff", self.d_ff, 131_072),
            ("position.kernel", self.position.kernel, 4096),
            ("position.groups", self.position.groups, 4096),
        ] {
            rule((1..=most).contains(&value), format!("wave_encoder.{name} = {value}: must lie in 1..={most}"))?;
        }
        for ConvolutionLayer { width, kernel, stride } in &self.convolutions {
            let good = (1..=16_384).contains(width) && (1..=1024).contains(kernel) && (1..=*kernel).contains(stride);
            rule(good, format!("wave_encoder.convolutions: width {width}, kernel {kernel}, stride {stride}: stride must not pass kernel"))?;
        }
        rule(self.step_samples() <= 1 << 20, "wave_encoder.convolutions: strides multiply to more than 2^20".into())?;
        for (name, divisor) in [("n_heads", self.n_heads), ("position.groups", self.position.groups)] {
            let what = format!("wave_encoder.{name} = {divisor}: must divide wave_encoder.d_model = {}", self.d_model);
            rule(self.d_model.is_multiple_of(divisor), what)?;
        }
        Ok(())
    }
}
