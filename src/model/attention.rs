//! Self-attention with its projections.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};

use crate::kernel::attention::AttentionMask;
use crate::model::config::{EncoderConfig, PositionConfig};
use crate::model::init::Init;
use crate::model::lengths::Lengths;
use crate::model::ops::attention::{AttentionSpec, Relative, attention};
use crate::model::ops::linear::linear;
use crate::model::pass::Pass;
use crate::model::position::relative_sinusoids;

/// Multi-head self-attention; plain, rotary or Transformer-XL relative.
#[derive(Module, Debug)]
pub struct SelfAttention {
    /// Queries, keys and values: `[d_model, 3 d_model]`.
    pub qkv: Linear,
    /// `[d_model, d_model]`
    pub out: Linear,
    /// Relative positions, if the encoder has them.
    pub relative: Option<RelativePositions>,
    heads: usize,
    rotary: bool,
    #[module(skip)]
    mask: AttentionMask,
}

/// Parameters of relative attention.
#[derive(Module, Debug)]
pub struct RelativePositions {
    /// Projection of the sinusoids, no bias: `[d_model, d_model]`.
    pub project: Linear,
    /// Content bias `[heads, d_head]`.
    pub u: Param<Tensor<2>>,
    /// Position bias `[heads, d_head]`.
    pub v: Param<Tensor<2>>,
}

/// A linear layer drawn from `init`.
pub(crate) fn new_linear(d_input: usize, d_output: usize, bias: bool, init: &mut Init) -> Linear {
    Linear { weight: init.fan_in([d_input, d_output], d_input), bias: bias.then(|| init.fan_in([d_output], d_input)) }
}

impl SelfAttention {
    /// Projections for `config`.
    pub fn new(config: &EncoderConfig, init: &mut Init) -> Self {
        let (d, heads) = (config.d_model, config.n_heads);
        let relative = matches!(config.position, PositionConfig::Relative).then(|| RelativePositions {
            project: new_linear(d, d, false, init),
            u: init.constant([heads, d / heads], 0.0),
            v: init.constant([heads, d / heads], 0.0),
        });
        Self {
            qkv: new_linear(d, 3 * d, config.attention_bias, init),
            out: new_linear(d, d, config.attention_bias, init),
            relative,
            heads,
            rotary: matches!(config.position, PositionConfig::Rotary),
            mask: (&config.context).into(),
        }
    }

    /// Attends within every utterance.
    ///
    /// # Shapes
    /// `x`, returns: `[batch, steps, d_model]`
    pub fn forward(&self, x: Tensor<3>, lengths: &Lengths, pass: &Pass) -> Tensor<3> {
        let [_, steps, _] = x.dims();
        let positions = self.positions(steps, &x.device(), pass);
        self.attend(linear(x, &self.qkv, pass), lengths, 0, positions, pass)
    }

    /// Projected sinusoids for `steps` steps, `[2 steps - 1, d_model]`; `None` without relative positions.
    pub(crate) fn positions(&self, steps: usize, device: &Device, pass: &Pass) -> Option<Tensor<2>> {
        let relative = self.relative.as_ref()?;
        let [_, d_model] = relative.project.weight.dims();
        Some(linear(relative_sinusoids(steps, d_model, device), &relative.project, pass))
    }

    /// Attention of the queries from step `first_query` on, and the projection after it; `positions` as [`Self::positions`] gives them.
    ///
    /// # Shapes
    /// - `qkv`: `[batch, steps, 3 d_model]`
    /// - returns `[batch, steps - first_query, d_model]`
    pub(crate) fn attend(
        &self,
        qkv: Tensor<3>,
        lengths: &Lengths,
        first_query: usize,
        positions: Option<Tensor<2>>,
        pass: &Pass,
    ) -> Tensor<3> {
        let relative = self.relative.as_ref().zip(positions).map(|(r, positions)| Relative { u: r.u.val(), v: r.v.val(), positions });
        let mask = pass.chunk().map_or(self.mask, |chunk| AttentionMask::Chunked { chunk: chunk.steps, left_chunks: chunk.left_chunks });
        let spec = AttentionSpec { heads: self.heads, lengths, rotary: self.rotary, mask, first_query };
        linear(attention(qkv, spec, relative, pass), &self.out, pass)
    }
}
