//! Element-wise activations and the gated linear unit.

use burn::tensor::{Tensor, activation as burn_activation};

use crate::kernel::activation::{self as kernel, Activation};
use crate::kernel::memory::to_be_written;
use crate::model::ops::fused::{self, Fused, Host, Kept};

/// Applies `kind` to every element.
pub fn activate<const D: usize>(x: Tensor<D>, kind: Activation) -> Tensor<D> {
    if kind != Activation::Identity && fused::available(&x.device()) {
        return fused::apply!(FusedActivation(kind); x);
    }
    match kind {
        Activation::Identity => x,
        Activation::Relu => burn_activation::relu(x),
        Activation::Silu => burn_activation::silu(x),
        Activation::Gelu => burn_activation::gelu(x),
        Activation::Sigmoid => burn_activation::sigmoid(x),
    }
}

/// Gated linear unit over the last dimension: `[.., 2 c]` to `[.., c]`, first half times the sigmoid of the second.
pub fn glu(x: Tensor<3>) -> Tensor<3> {
    if fused::available(&x.device()) {
        return fused::apply!(FusedGlu; x);
    }
    burn_activation::glu(x, 2)
}

#[derive(Debug)]
struct FusedActivation(Activation);

impl Fused for FusedActivation {
    fn forward(&self, inputs: &[Host<'_>], _kept: Option<&mut Kept>) -> (Vec<f32>, Vec<usize>) {
        let mut y = to_be_written(inputs[0].values.len());
        self.0.forward(inputs[0].values, &mut y);
        (y, inputs[0].shape.to_vec())
    }

    fn backward(&self, inputs: &[Host<'_>], _kept: &Kept, grad: &[f32], _wanted: &[bool]) -> Vec<Vec<f32>> {
        let mut grad_x = to_be_written(grad.len());
        self.0.backward(inputs[0].values, grad, &mut grad_x);
        vec![grad_x]
    }
}

#[derive(Debug)]
struct FusedGlu;

impl Fused for FusedGlu {
    fn forward(&self, inputs: &[Host<'_>], _kept: Option<&mut Kept>) -> (Vec<f32>, Vec<usize>) {
        let mut shape = inputs[0].shape.to_vec();
        shape[2] /= 2;
        let mut y = to_be_written(inputs[0].values.len() / 2);
        kernel::glu(inputs[0].values, shape[2], None, &mut y);
        (y, shape)
    }

    fn backward(&self, inputs: &[Host<'_>], _kept: &Kept, grad: &[f32], _wanted: &[bool]) -> Vec<Vec<f32>> {
        let mut grad_x = to_be_written(inputs[0].values.len());
        kernel::glu_backward(inputs[0].values, inputs[0].shape[2] / 2, None, grad, &mut grad_x);
        vec![grad_x]
    }
}
