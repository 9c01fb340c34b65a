//! Frames to steps.

use burn::module::{Module, Param};
use burn::nn::{LayerNorm, Linear};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Tensor, activation, module};

use crate::kernel::activation::Activation;
use crate::model::attention::new_linear;
use crate::model::config::SubsamplingConfig;
use crate::model::convolution::new_layer_norm;
use crate::model::init::Init;
use crate::model::lengths::Lengths;
use crate::model::ops::activation::activate;
use crate::model::ops::dropout::dropout;
use crate::model::ops::linear::linear;
use crate::model::ops::norm::layer_norm;
use crate::model::pass::Pass;

impl SubsamplingConfig {
    /// Steps that come from `frames`: the only length rule of the encoder.
    ///
    /// Stacking: `ceil(frames / factor)`, per utterance. Convolution: one `(n - 1) / 2 + 1` for each halving.
    pub fn output_len(&self, frames: usize) -> usize {
        match *self {
            Self::Stacking { factor, .. } => frames.div_ceil(factor),
            Self::Convolution { factor, .. } => (0..factor.ilog2()).fold(frames, |n, _| n.div_ceil(2)),
        }
    }

    /// Frames per step.
    pub fn factor(&self) -> usize {
        match *self {
            Self::Stacking { factor, .. } | Self::Convolution { factor, .. } => factor,
        }
    }
}

/// The subsampling stage.
#[derive(Module, Debug)]
pub enum Subsampling {
    /// Neighbouring frames side by side.
    Stacking(Stacking),
    /// Depthwise-striding convolutions.
    Convolution(StridingConvolution),
}

/// Frame stacking and a projection.
#[derive(Module, Debug)]
pub struct Stacking {
    /// `[factor mels, hidden]`, with SiLU after it.
    pub hidden: Option<Linear>,
    /// `[factor mels or hidden, d_model]`
    pub project: Linear,
    /// Norm after the projection, where there is a hidden layer.
    pub norm: Option<LayerNorm>,
    factor: usize,
    dropout: f64,
}

/// Convolutions of stride 2 over frames and mels.
///
/// # Reference
/// Rekesh et al. 2023, arXiv:2305.05084 (FastConformer).
#[derive(Module, Debug)]
pub struct StridingConvolution {
    /// First full convolution `[channels, 1, 3, 3]` and its bias.
    pub first: Kernel,
    /// Pairs of depthwise `[channels, 1, 3, 3]` and pointwise `[channels, channels, 1, 1]`.
    pub rest: Vec<DepthwisePair>,
    /// `[channels reduced_mels, d_model]`
    pub project: Linear,
}

/// A depthwise convolution of stride 2 and the pointwise one after it.
#[derive(Module, Debug)]
pub struct DepthwisePair {
    /// `[channels, 1, 3, 3]`
    pub depthwise: Kernel,
    /// `[channels, channels, 1, 1]`
    pub pointwise: Kernel,
}

/// Weight and bias of a two-dimensional convolution.
#[derive(Module, Debug)]
pub struct Kernel {
    /// `[out, in / groups, height, width]`
    pub weight: Param<Tensor<4>>,
    /// `[out]`
    pub bias: Param<Tensor<1>>,
}

impl Kernel {
    fn new(shape: [usize; 4], init: &mut Init) -> Self {
        let fan_in = shape[1] * shape[2] * shape[3];
        Self { weight: init.fan_in(shape, fan_in), bias: init.fan_in([shape[0]], fan_in) }
    }

    /// Convolves `[batch, in, height, width]`.
    pub fn forward(&self, x: Tensor<4>, stride: usize, padding: usize, groups: usize) -> Tensor<4> {
        let options = ConvOptions::new([stride, stride], [padding, padding], [1, 1], groups);
        module::conv2d(x, self.weight.val(), Some(self.bias.val()), options)
    }
}

impl Subsampling {
    /// The stage for `config`.
    pub fn new(config: &SubsamplingConfig, mels: usize, d_model: usize, dropout: f64, init: &mut Init) -> Self {
        match *config {
            SubsamplingConfig::Stacking { factor, hidden } => Self::Stacking(Stacking {
                hidden: hidden.map(|h| new_linear(factor * mels, h, true, init)),
                project: new_linear(hidden.unwrap_or(factor * mels), d_model, hidden.is_some(), init),
                norm: hidden.map(|_| new_layer_norm(d_model, init)),
                factor,
                dropout,
            }),
            SubsamplingConfig::Convolution { factor, channels } => {
                let halvings = factor.ilog2() as usize;
                Self::Convolution(StridingConvolution {
                    first: Kernel::new([channels, 1, 3, 3], init),
                    rest: (1..halvings)
                        .map(|_| DepthwisePair {
                            depthwise: Kernel::new([channels, 1, 3, 3], init),
                            pointwise: Kernel::new([channels, channels, 1, 1], init),
                        })
                        .collect(),
                    project: new_linear(channels * config.output_len(mels), d_model, true, init),
                })
            }
        }
    }

    /// Turns frames into steps; the caller maps lengths by [`SubsamplingConfig::output_len`].
    ///
    /// # Shapes
    /// - `x`: `[batch, frames, mels]`
    /// - `lengths`: valid frames
    /// - returns `[batch, output_len(frames), d_model]`
    pub fn forward(&self, x: Tensor<3>, lengths: &Lengths, pass: &Pass) -> Tensor<3> {
        let x = lengths.clear_padding(x);
        match self {
            Self::Stacking(stage) => stage.forward(x, pass),
            Self::Convolution(stage) => stage.forward(x, lengths, pass),
        }
    }
}

impl Stacking {
    /// Zero-pads the end to whole stacks, each `frame 0 mels, frame 1 mels, ..`.
    fn forward(&self, x: Tensor<3>, pass: &Pass) -> Tensor<3> {
        let [batch, frames, mels] = x.dims();
        let steps = frames.div_ceil(self.factor);
        let missing = steps * self.factor - frames;
        let x = if missing > 0 { Tensor::cat(vec![x.clone(), Tensor::zeros([batch, missing, mels], &x.device())], 1) } else { x };
        let mut x = x.reshape([batch, steps, self.factor * mels]);
        if let Some(hidden) = &self.hidden {
            x = activate(linear(x, hidden, pass), Activation::Silu);
        }
        x = linear(x, &self.project, pass);
        match &self.norm {
            Some(norm) => dropout(layer_norm(x, norm), self.dropout, pass),
            None => x,
        }
    }
}

impl StridingConvolution {
    fn forward(&self, x: Tensor<3>, lengths: &Lengths, pass: &Pass) -> Tensor<3> {
        let [batch, frames, mels] = x.dims();
        let channels = self.first.weight.dims()[0];
        let mut lengths = lengths.map(|n| n.div_ceil(2));
        let x = x.reshape([batch, 1, frames, mels]);
        let mut x = activation::relu(clear_time(self.first.forward(x, 2, 1, 1), &lengths));
        for pair in &self.rest {
            lengths = lengths.map(|n| n.div_ceil(2));
            let y = clear_time(pair.depthwise.forward(x, 2, 1, channels), &lengths);
            x = activation::relu(clear_time(pair.pointwise.forward(y, 1, 0, 1), &lengths));
        }
        let [_, _, steps, bands] = x.dims();
        linear(x.swap_dims(1, 2).reshape([batch, steps, channels * bands]), &self.project, pass)
    }
}

/// Zeroes padded positions of `[batch, channels, time, bands]`.
fn clear_time(x: Tensor<4>, lengths: &Lengths) -> Tensor<4> {
    if !lengths.has_padding() {
        return x;
    }
    let shape = x.dims();
    let dead = lengths.live(&x.device()).equal_elem(0.0).reshape([shape[0], 1, shape[2], 1]);
    x.mask_fill(dead.expand(shape), 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacking_rounds_up_per_utterance() {
        let rule = SubsamplingConfig::Stacking { factor: 4, hidden: None };
        assert_eq!([10, 8, 4, 1, 0].map(|n| rule.output_len(n)), [3, 2, 1, 1, 0]);
    }

    #[test]
    fn convolution_halves_repeatedly() {
        let rule = SubsamplingConfig::Convolution { factor: 8, channels: 1 };
        for n in 1..200usize {
            let torch = (0..3).fold(n, |l, _| (l + 2 - 3) / 2 + 1);
            assert_eq!(rule.output_len(n), torch, "{n}");
        }
    }
}
