//! `x W + b`.

use burn::nn::Linear;
use burn::tensor::Tensor;

use crate::kernel::epilogue::Epilogue;
use crate::kernel::gemm::{Compute, Operand, Parallel, Write, gemm};
use crate::kernel::matrix::{Matrix, MatrixMut};
use crate::kernel::memory::to_be_written;
use crate::model::arithmetic::Packed;
use crate::model::ops::fused::{self, Fused, Host, Kept, absent};
use crate::model::pass::Pass;

/// Applies a linear layer to the last dimension of `x`, in the precision of the pass.
///
/// # Shapes
/// - `x`: `[.., d_input]`
/// - returns `[.., d_output]`
pub fn linear<const D: usize>(x: Tensor<D>, layer: &Linear, pass: &Pass) -> Tensor<D> {
    if !fused::available(&x.device()) {
        return layer.forward(x);
    }
    let bias = layer.bias.as_ref().map_or_else(|| absent(&x.device()), |b| b.val());
    let compute = Compute::new(pass.precision(), Parallel::Rayon);
    match pass.packed(layer.weight.id) {
        Some(weight) => fused::apply!(PackedLinear { weight, bias: layer.bias.is_some(), compute }; x, bias),
        None => fused::apply!(FusedLinear { bias: layer.bias.is_some(), compute }; x, layer.weight.val(), bias),
    }
}

#[derive(Debug)]
struct FusedLinear {
    bias: bool,
    compute: Compute,
}

/// With the weight packed before: inference only.
#[derive(Debug)]
struct PackedLinear {
    weight: Packed,
    bias: bool,
    compute: Compute,
}

impl Fused for PackedLinear {
    fn forward(&self, inputs: &[Host<'_>], _kept: Option<&mut Kept>) -> (Vec<f32>, Vec<usize>) {
        let [x, bias] = inputs else { unreachable!("x, bias") };
        product(x, Operand::from(&self.weight[0]), self.bias.then_some(bias.values), self.compute)
    }

    fn backward(&self, _inputs: &[Host<'_>], _kept: &Kept, _grad: &[f32], _wanted: &[bool]) -> Vec<Vec<f32>> {
        unreachable!("weights are packed for inference")
    }
}

/// `x . weight + bias`, over the last dimension of `x`, and its shape.
fn product(x: &Host<'_>, weight: Operand<'_>, bias: Option<&[f32]>, compute: Compute) -> (Vec<f32>, Vec<usize>) {
    let (d_in, d_out) = weight.shape();
    let rows = x.values.len() / d_in.max(1);
    let mut y = to_be_written(rows * d_out);
    let epilogue = Epilogue { bias, ..Epilogue::NONE };
    gemm(MatrixMut::new(&mut y, rows, d_out), Write::Overwrite, Matrix::new(x.values, rows, d_in), weight, epilogue, compute);
    let mut shape = x.shape.to_vec();
    if let Some(last) = shape.last_mut() {
        *last = d_out;
    }
    (y, shape)
}

/// Sums of the columns of `[rows, width]`.
pub(super) fn column_sums(values: &[f32], width: usize) -> Vec<f32> {
    let mut sums = vec![0.0f32; width];
    for row in values.chunks_exact(width) {
        sums.iter_mut().zip(row).for_each(|(s, v)| *s += v);
    }
    sums
}

impl Fused for FusedLinear {
    fn forward(&self, inputs: &[Host<'_>], _kept: Option<&mut Kept>) -> (Vec<f32>, Vec<usize>) {
        let [x, weight, bias] = inputs else { unreachable!("x, weight, bias") };
        let weight = Matrix::new(weight.values, weight.shape[0], weight.shape[1]);
        product(x, weight.into(), self.bias.then_some(bias.values), self.compute)
    }

    fn backward(&self, inputs: &[Host<'_>], _kept: &Kept, grad: &[f32], wanted: &[bool]) -> Vec<Vec<f32>> {
        let [x, weight, _] = inputs else { unreachable!("x, weight, bias") };
        let (d_in, d_out) = (weight.shape[0], weight.shape[1]);
        let rows = x.values.len() / d_in;
        let grad_matrix = Matrix::new(grad, rows, d_out);
        let mut grad_x = Vec::new();
        if wanted[0] {
            grad_x = to_be_written(x.values.len());
            let weight = Matrix::new(weight.values, d_in, d_out).transposed();
            gemm(MatrixMut::new(&mut grad_x, rows, d_in), Write::Overwrite, grad_matrix, weight, Epilogue::NONE, self.compute);
        }
        let mut grad_weight = Vec::new();
        if wanted[1] {
            grad_weight = to_be_written(d_in * d_out);
            let x = Matrix::new(x.values, rows, d_in).transposed();
            gemm(MatrixMut::new(&mut grad_weight, d_in, d_out), Write::Overwrite, x, grad_matrix, Epilogue::NONE, self.compute);
        }
        let grad_bias = if wanted[2] { column_sums(grad, d_out) } else { Vec::new() };
        vec![grad_x, grad_weight, grad_bias]
    }
}
