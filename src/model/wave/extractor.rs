//! The convolutions over the waveform.

use burn::module::Module;
use burn::nn::{LayerNorm, Linear};
use burn::tensor::Tensor;

use crate::kernel::activation::Activation;
use crate::model::attention::new_linear;
use crate::model::convolution::{NORM_EPSILON, new_layer_norm};
use crate::model::init::Init;
use crate::model::lengths::Lengths;
use crate::model::ops::activation::activate;
use crate::model::ops::linear::linear;
use crate::model::ops::norm::layer_norm_activate;
use crate::model::pass::Pass;
use crate::model::wave::config::{ConvolutionLayer, ExtractorNorm};

/// One convolution over time, without padding, as a linear layer on every window, with its norm and activation.
#[derive(Module, Debug)]
pub struct Windowed {
    /// `[kernel inputs, width]`
    pub convolution: Linear,
    /// Norm after it.
    pub norm: Option<LayerNorm>,
    kernel: usize,
    stride: usize,
    by_channel: bool,
}

impl Windowed {
    /// The convolution `layer` on `inputs` channels; `first`: of the whole stack.
    pub fn new(layer: &ConvolutionLayer, inputs: usize, bias: bool, norm: ExtractorNorm, first: bool, init: &mut Init) -> Self {
        let normed = norm == ExtractorNorm::EveryLayer || first;
        Self {
            convolution: new_linear(layer.kernel * inputs, layer.width, bias, init),
            norm: normed.then(|| new_layer_norm(layer.width, init)),
            kernel: layer.kernel,
            stride: layer.stride,
            by_channel: norm == ExtractorNorm::FirstLayerByChannel,
        }
    }

    /// Positions that come from `n`.
    pub fn output_len(&self, n: usize) -> usize {
        if n < self.kernel { 0 } else { (n - self.kernel) / self.stride + 1 }
    }

    /// Convolves, normalises and activates. A valid output position reads valid input positions alone.
    ///
    /// # Shapes
    /// - `x`: `[batch, positions, inputs]`, at least `kernel` positions
    /// - `lengths`: valid positions of the output
    /// - returns `[batch, output_len(positions), width]`
    pub fn forward(&self, x: Tensor<3>, lengths: &Lengths, activation: Activation, pass: &Pass) -> Tensor<3> {
        let y = linear(self.windows(x), &self.convolution, pass);
        match &self.norm {
            Some(norm) if self.by_channel => activate(norm_over_time(y, norm, lengths), activation),
            Some(norm) => layer_norm_activate(y, norm, activation),
            None => activate(y, activation),
        }
    }

    /// Every window side by side: `[batch, outputs, kernel inputs]`. Blocks of `stride` positions are taken whole, as many as cover the kernel.
    fn windows(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, positions, inputs] = x.dims();
        let outputs = self.output_len(positions);
        let parts = self.kernel.div_ceil(self.stride);
        let needed = (outputs + parts - 1) * self.stride;
        let x = if needed > positions {
            Tensor::cat(vec![x.clone(), Tensor::zeros([batch, needed - positions, inputs], &x.device())], 1)
        } else {
            x.slice([0..batch, 0..needed])
        };
        let blocks = x.reshape([batch, outputs + parts - 1, self.stride * inputs]);
        let part = |i: usize| {
            let width = (self.kernel - i * self.stride).min(self.stride) * inputs;
            blocks.clone().slice([0..batch, i..i + outputs, 0..width])
        };
        Tensor::cat((0..parts).map(part).collect(), 2)
    }
}

/// Group norm with a group for each channel: statistics over the valid positions of each utterance.
///
/// # Shapes
/// `x`, returns: `[batch, positions, channels]`
fn norm_over_time(x: Tensor<3>, norm: &LayerNorm, lengths: &Lengths) -> Tensor<3> {
    let device = x.device();
    let [batch, positions, channels] = x.dims();
    let counts: Vec<f32> = lengths.valid().iter().map(|&n| 1.0 / n.max(1) as f32).collect();
    let scale = Tensor::<1>::from_floats(counts.as_slice(), &device).reshape([batch, 1, 1]);
    let mean = lengths.clear_padding(x.clone()).sum_dim(1) * scale.clone();
    let centred = lengths.clear_padding(x - mean);
    let variance = centred.clone().square().sum_dim(1) * scale;
    let y = centred / variance.add_scalar(NORM_EPSILON).sqrt();
    let gamma = norm.gamma.val().reshape([1, 1, channels]);
    let beta = norm.beta.as_ref().map_or_else(|| Tensor::zeros([channels], &device), |b| b.val()).reshape([1, 1, channels]);
    debug_assert_eq!(y.dims(), [batch, positions, channels]);
    y * gamma + beta
}
