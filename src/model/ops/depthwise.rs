//! Depthwise convolution over steps.

use burn::tensor::ops::ConvOptions;
use burn::tensor::{Tensor, module};

use crate::kernel::depthwise::Depthwise;
use crate::kernel::memory::to_be_written;
use crate::model::lengths::Lengths;
use crate::model::ops::fused::{self, Fused, Host, Kept, absent};

/// Convolves every channel of `x` with its own taps, centred; padded steps count as zeros, and in chunks of `chunk` steps so does what lies
/// past the end of a step's own chunk.
///
/// # Shapes
/// - `x`: `[batch, steps, channels]`
/// - `weight`: `[channels, taps]`, taps odd
/// - `bias`: `[channels]`
/// - returns `[batch, steps, channels]`
pub fn depthwise(x: Tensor<3>, weight: Tensor<2>, bias: Option<Tensor<1>>, lengths: &Lengths, chunk: Option<usize>) -> Tensor<3> {
    let device = x.device();
    if fused::available(&device) {
        let op = FusedDepthwise { bias: bias.is_some(), lengths: lengths.clone(), chunk };
        return fused::apply!(op; x, weight, bias.unwrap_or_else(|| absent(&device)));
    }
    let [channels, taps] = weight.dims();
    let [batch, steps, _] = x.dims();
    let x = lengths.clear_padding(x).swap_dims(1, 2);
    let convolve = |x: Tensor<3>, padding: usize| {
        let options = ConvOptions::new([1], [padding], [1], channels);
        module::conv1d(x, weight.clone().reshape([channels, 1, taps]), bias.clone(), options).swap_dims(1, 2)
    };
    let half = taps / 2;
    let Some(chunk) = chunk else { return convolve(x, half) };
    // Every chunk is a convolution of its own: what was before it, the chunk, zeros.
    let before = Tensor::zeros([batch, channels, half], &device);
    let x = Tensor::cat(vec![before, x], 2);
    let outputs = (0..steps).step_by(chunk).map(|first| {
        let end = (first + chunk).min(steps);
        let seen = x.clone().slice([0..batch, 0..channels, first..end + half]);
        convolve(Tensor::cat(vec![seen, Tensor::zeros([batch, channels, half], &device)], 2), 0)
    });
    Tensor::cat(outputs.collect(), 1)
}

#[derive(Debug)]
struct FusedDepthwise {
    bias: bool,
    lengths: Lengths,
    chunk: Option<usize>,
}

impl FusedDepthwise {
    fn kernel<'a>(&self, inputs: &[Host<'a>]) -> Depthwise<'a> {
        let taps = inputs[1].shape[1];
        let bias = self.bias.then_some(inputs[2].values);
        Depthwise { weight: inputs[1].values, bias, kernel: taps, left: taps / 2, right: taps / 2, chunk: self.chunk }
    }
}

impl Fused for FusedDepthwise {
    fn forward(&self, inputs: &[Host<'_>], _kept: Option<&mut Kept>) -> (Vec<f32>, Vec<usize>) {
        let x = inputs[0];
        let mut y = to_be_written(x.values.len());
        self.kernel(inputs).forward(x.values, x.shape[1], self.lengths.valid(), &mut y);
        (y, x.shape.to_vec())
    }

    fn backward(&self, inputs: &[Host<'_>], _kept: &Kept, grad: &[f32], _wanted: &[bool]) -> Vec<Vec<f32>> {
        let x = inputs[0];
        let mut grad_x = to_be_written(x.values.len());
        let mut grad_weight = vec![0.0; inputs[1].values.len()];
        let mut grad_bias = vec![0.0; x.shape[2]];
        let lengths = self.lengths.valid();
        self.kernel(inputs).backward(x.values, x.shape[1], lengths, grad, &mut grad_x, &mut grad_weight, &mut grad_bias);
        vec![grad_x, grad_weight, grad_bias]
    }
}
