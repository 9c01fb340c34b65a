//! Dropout and the residual sum it is part of.

use burn::tensor::{Tensor, TensorData};

use crate::kernel::dropout::Dropout;
use crate::kernel::memory::{copy, to_be_written};
use crate::model::ops::fused::{self, Fused, Host, Kept};
use crate::model::pass::Pass;

/// `residual + scale * dropout(branch)`, all of one shape.
pub fn add_branch(residual: Tensor<3>, branch: Tensor<3>, scale: f64, rate: f64, pass: &Pass) -> Tensor<3> {
    let dropout = draw(rate, pass);
    if fused::available(&branch.device()) {
        return fused::apply!(FusedAdd { dropout, scale: scale as f32 }; residual, branch);
    }
    residual + masked(branch, dropout).mul_scalar(scale)
}

/// Zeroes elements with probability `rate` while training and scales the rest by `1 / (1 - rate)`.
pub fn dropout(x: Tensor<3>, rate: f64, pass: &Pass) -> Tensor<3> {
    let dropout = draw(rate, pass);
    if dropout == Dropout::OFF {
        return x;
    }
    if fused::available(&x.device()) {
        return fused::apply!(FusedDropout(dropout); x);
    }
    masked(x, dropout)
}

/// The mask of this layer in this pass; every random layer draws a seed, used or not.
fn draw(rate: f64, pass: &Pass) -> Dropout {
    match pass.seed() {
        Some(seed) if rate > 0.0 => Dropout { p: rate as f32, seed },
        _ => Dropout::OFF,
    }
}

/// The composed form: the same mask, made on the host.
fn masked(x: Tensor<3>, dropout: Dropout) -> Tensor<3> {
    if dropout == Dropout::OFF {
        return x;
    }
    let shape = x.dims();
    let ones = vec![1.0f32; shape.iter().product()];
    let mut mask = vec![0.0; ones.len()];
    dropout.apply(&ones, 1.0, &mut mask);
    let mask = Tensor::<3>::from_data(TensorData::new(mask, shape), &x.device());
    x * mask
}

#[derive(Debug)]
struct FusedAdd {
    dropout: Dropout,
    scale: f32,
}

impl Fused for FusedAdd {
    fn forward(&self, inputs: &[Host<'_>], _kept: Option<&mut Kept>) -> (Vec<f32>, Vec<usize>) {
        let mut y = to_be_written(inputs[0].values.len());
        self.dropout.add(inputs[0].values, inputs[1].values, self.scale, &mut y);
        (y, inputs[0].shape.to_vec())
    }

    fn backward(&self, _inputs: &[Host<'_>], _kept: &Kept, grad: &[f32], _wanted: &[bool]) -> Vec<Vec<f32>> {
        let mut grad_branch = to_be_written(grad.len());
        self.dropout.apply(grad, self.scale, &mut grad_branch);
        vec![copy(grad), grad_branch]
    }
}

#[derive(Debug)]
struct FusedDropout(Dropout);

impl Fused for FusedDropout {
    fn forward(&self, inputs: &[Host<'_>], _kept: Option<&mut Kept>) -> (Vec<f32>, Vec<usize>) {
        let mut y = to_be_written(inputs[0].values.len());
        self.0.apply(inputs[0].values, 1.0, &mut y);
        (y, inputs[0].shape.to_vec())
    }

    fn backward(&self, _inputs: &[Host<'_>], _kept: &Kept, grad: &[f32], _wanted: &[bool]) -> Vec<Vec<f32>> {
        let mut grad_x = to_be_written(grad.len());
        self.0.apply(grad, 1.0, &mut grad_x);
        vec![grad_x]
    }
}
