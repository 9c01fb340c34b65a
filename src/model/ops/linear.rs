//! `x W + b`.

use burn::nn::Linear;
use burn::tensor::Tensor;

use crate::kernel::epilogue::Epilogue;
use crate::kernel::gemm::{Compute, Parallel, Write, gemm};
use crate::kernel::matrix::{Matrix, MatrixMut};
use crate::kernel::memory::to_be_written;
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
    let op = FusedLinear { bias: layer.bias.is_some(), compute: Compute::new(pass.precision(), Parallel::Rayon) };
    fused::apply!(op; x, layer.weight.val(), bias)
}

#[derive(Debug)]
struct FusedLinear {
    bias: bool,
    compute: Compute,
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
        let (d_in, d_out) = (weight.shape[0], weight.shape[1]);
        let rows = x.values.len() / d_in;
        let mut y = to_be_written(rows * d_out);
        let epilogue = Epilogue { bias: self.bias.then_some(bias.values), ..Epilogue::NONE };
        let (a, b) = (Matrix::new(x.values, rows, d_in), Matrix::new(weight.values, d_in, d_out));
        gemm(MatrixMut::new(&mut y, rows, d_out), Write::Overwrite, a, b, epilogue, self.compute);
        let mut shape = x.shape.to_vec();
        if let Some(last) = shape.last_mut() {
            *last = d_out;
        }
        (y, shape)
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
