//! Layer norm, alone or with an activation after it.

use burn::nn::LayerNorm;
use burn::tensor::Tensor;

use crate::kernel::activation::Activation;
use crate::kernel::memory::to_be_written;
use crate::kernel::norm::LayerNorm as Kernel;
use crate::model::ops::activation::activate;
use crate::model::ops::fused::{self, Fused, Host, Kept};

/// Normalises the last dimension of `x`, then scales and shifts it.
pub fn layer_norm(x: Tensor<3>, norm: &LayerNorm) -> Tensor<3> {
    layer_norm_activate(x, norm, Activation::Identity)
}

/// [`layer_norm`], then `activation`.
pub fn layer_norm_activate(x: Tensor<3>, norm: &LayerNorm, activation: Activation) -> Tensor<3> {
    let device = x.device();
    match &norm.beta {
        Some(beta) if fused::available(&device) => {
            let op = FusedNorm { epsilon: norm_epsilon(), activation };
            fused::apply!(op; x, norm.gamma.val(), beta.val())
        }
        _ => activate(norm.forward(x), activation),
    }
}

/// Epsilon of every layer norm of the model.
fn norm_epsilon() -> f32 {
    crate::model::convolution::NORM_EPSILON as f32
}

#[derive(Debug)]
struct FusedNorm {
    epsilon: f32,
    activation: Activation,
}

impl FusedNorm {
    fn kernel<'a>(&self, inputs: &[Host<'a>]) -> Kernel<'a> {
        Kernel { gamma: inputs[1].values, beta: inputs[2].values, eps: self.epsilon, activation: self.activation }
    }
}

impl Fused for FusedNorm {
    fn forward(&self, inputs: &[Host<'_>], kept: Option<&mut Kept>) -> (Vec<f32>, Vec<usize>) {
        let x = inputs[0];
        let mut y = to_be_written(x.values.len());
        let mut stats = vec![[0.0f32; 2]; x.values.len() / inputs[1].values.len()];
        self.kernel(inputs).forward(x.values, &mut y, &mut stats);
        if let Some(kept) = kept {
            kept.push(stats.into_flattened());
        }
        (y, x.shape.to_vec())
    }

    fn backward(&self, inputs: &[Host<'_>], kept: &Kept, grad: &[f32], _wanted: &[bool]) -> Vec<Vec<f32>> {
        let width = inputs[1].values.len();
        let (mut grad_x, mut grad_gamma, mut grad_beta) = (to_be_written(grad.len()), vec![0.0; width], vec![0.0; width]);
        let (stats, _) = kept[0].as_chunks::<2>();
        self.kernel(inputs).backward(inputs[0].values, stats, grad, &mut grad_x, &mut grad_gamma, &mut grad_beta);
        vec![grad_x, grad_gamma, grad_beta]
    }
}
