//! The fast dispatch: rows gathered by expert, two grouped products, rows scattered back; and its gradient.

use std::sync::Arc;

use crate::kernel::activation::Activation;
use crate::kernel::epilogue::Epilogue;
use crate::kernel::gemm::{Compute, Operand, PackedMatrix, Parallel, Precision, Write, gemm_grouped, gemm_grouped_outer};
use crate::kernel::matrix::{Matrix, MatrixMut};
use crate::kernel::memory::to_be_written;
use crate::model::arithmetic::Packed;
use crate::model::ops::experts::Grouping;
use crate::model::ops::fused::{Fused, Host, Kept};
use crate::model::ops::linear::column_sums;

/// [`super::experts::expert_feed_forward`] as one operation.
#[derive(Debug)]
pub struct FusedExperts {
    grouping: Arc<Grouping>,
    act: Activation,
    compute: Compute,
}

/// Sizes read off the inputs.
#[derive(Clone, Copy)]
struct Sizes {
    d_model: usize,
    d_ff: usize,
    slots: usize,
}

impl FusedExperts {
    /// The operation for one routing.
    pub fn new(grouping: Arc<Grouping>, act: Activation, precision: Precision) -> Self {
        Self { grouping, act, compute: Compute::new(precision, Parallel::Rayon) }
    }

    fn sizes(&self, inputs: &[Host<'_>]) -> Sizes {
        let slots = self.grouping.offsets.last().copied().unwrap_or(0);
        Sizes { d_model: inputs[1].shape[1], d_ff: inputs[1].shape[2], slots }
    }

    /// Rows `row(slot)` of `[.., width]`, in the order of the experts.
    fn gather(&self, values: &[f32], width: usize, row: impl Fn(usize) -> usize) -> Vec<f32> {
        let mut gathered = Vec::with_capacity(self.grouping.order.len() * width);
        for &slot in &self.grouping.order {
            gathered.extend_from_slice(&values[row(slot) * width..][..width]);
        }
        gathered
    }

    /// Adds sorted rows onto rows `row(slot)` of a zeroed `[rows, width]`.
    fn scatter(&self, sorted: &[f32], width: usize, rows: usize, row: impl Fn(usize) -> usize) -> Vec<f32> {
        let mut out = vec![0.0f32; rows * width];
        for (&slot, values) in self.grouping.order.iter().zip(sorted.chunks_exact(width)) {
            out[row(slot) * width..][..width].iter_mut().zip(values).for_each(|(o, v)| *o += v);
        }
        out
    }

    /// `a . weights[e]` for the rows of every expert.
    fn product(&self, a: Matrix<'_>, weights: &[Operand<'_>], bias: Option<&[f32]>, act: Activation, columns: usize) -> Vec<f32> {
        let (rows, _) = a.shape();
        let mut out = to_be_written(rows * columns);
        let epilogue = |e: usize| Epilogue { bias: bias.map(|b| &b[e * columns..][..columns]), activation: act };
        gemm_grouped(MatrixMut::new(&mut out, rows, columns), Write::Overwrite, a, &self.grouping.offsets, weights, epilogue, self.compute);
        out
    }

    /// The forward pass that leaves nothing behind.
    fn infer(&self, x: &Host<'_>, up: (&[Operand<'_>], &[f32]), down: (&[Operand<'_>], &[f32])) -> (Vec<f32>, Vec<usize>) {
        let top_k = self.grouping.top_k;
        let [.., d_model] = x.shape[..] else { unreachable!("rows of d_model") };
        let slots = self.grouping.offsets.last().copied().unwrap_or(0);
        let d_ff = up.1.len() / up.0.len().max(1);
        let gathered = (!self.grouping.is_identity()).then(|| self.gather(x.values, d_model, |s| s / top_k));
        let x = Matrix::new(gathered.as_deref().unwrap_or(x.values), slots, d_model);
        let hidden = self.product(x, up.0, Some(up.1), self.act, d_ff);
        let y = self.product(Matrix::new(&hidden, slots, d_ff), down.0, Some(down.1), Activation::Identity, d_model);
        let rows = self.grouping.rows * top_k;
        let y = if gathered.is_some() { self.place(&y, d_model) } else { y };
        (y, vec![rows, d_model])
    }

    /// Sorted rows back at their slots; 0 at those of dead rows.
    fn place(&self, sorted: &[f32], width: usize) -> Vec<f32> {
        let slots = self.grouping.rows * self.grouping.top_k;
        let mut out = if self.grouping.order.len() == slots { to_be_written(slots * width) } else { vec![0.0; slots * width] };
        for (&slot, values) in self.grouping.order.iter().zip(sorted.chunks_exact(width)) {
            out[slot * width..][..width].copy_from_slice(values);
        }
        out
    }

    /// `a^T . b` over the rows of every expert, stacked.
    fn outer(&self, a: &[f32], columns_a: usize, b: &[f32], columns_b: usize) -> Vec<f32> {
        let (rows, experts) = (a.len() / columns_a, self.grouping.offsets.len() - 1);
        let mut out = to_be_written(experts * columns_a * columns_b);
        let c = MatrixMut::new(&mut out, experts * columns_a, columns_b);
        let (a, b) = (Matrix::new(a, rows, columns_a), Matrix::new(b, rows, columns_b));
        gemm_grouped_outer(c, Write::Overwrite, a, b, &self.grouping.offsets, self.compute);
        out
    }

    /// Column sums over the rows of every expert, stacked.
    fn bias_gradients(&self, grad: &[f32], columns: usize) -> Vec<f32> {
        self.grouping.offsets.windows(2).flat_map(|w| column_sums(&grad[w[0] * columns..w[1] * columns], columns)).collect()
    }
}

/// One `[rows, columns]` matrix for each expert.
fn stack<'a>(weights: &'a Host<'_>, rows: usize, columns: usize) -> Vec<Matrix<'a>> {
    weights.values.chunks_exact(rows * columns).map(|w| Matrix::new(w, rows, columns)).collect()
}

fn views<'a>(matrices: impl IntoIterator<Item = Matrix<'a>>) -> Vec<Operand<'a>> {
    matrices.into_iter().map(Operand::View).collect()
}

/// The operands of a call that has none packed before: 8-bit ones are packed now.
fn pack_now(weights: &[Matrix<'_>], compute: Compute) -> Vec<PackedMatrix> {
    let is_needed = compute.precision == Precision::Int8;
    weights.iter().filter(|_| is_needed).map(|w| PackedMatrix::pack(*w, compute)).collect()
}

/// Views, or what [`pack_now`] made of them.
fn operands<'a>(weights: &[Matrix<'a>], packed: &'a [PackedMatrix]) -> Vec<Operand<'a>> {
    if packed.is_empty() { weights.iter().map(|w| Operand::View(*w)).collect() } else { packed.iter().map(Operand::from).collect() }
}

/// With matrices packed before: inference only.
#[derive(Debug)]
pub struct PackedExperts {
    /// What is not in the matrices.
    pub experts: FusedExperts,
    /// `[d_model, d_ff]` for each expert.
    pub up: Packed,
    /// `[d_ff, d_model]` for each expert.
    pub down: Packed,
}

impl Fused for PackedExperts {
    fn forward(&self, inputs: &[Host<'_>], _kept: Option<&mut Kept>) -> (Vec<f32>, Vec<usize>) {
        let [x, up_bias, down_bias] = inputs else { unreachable!("x, biases") };
        let (up, down): (Vec<_>, Vec<_>) = (self.up.iter().map(Operand::from).collect(), self.down.iter().map(Operand::from).collect());
        self.experts.infer(x, (&up, up_bias.values), (&down, down_bias.values))
    }

    fn backward(&self, _inputs: &[Host<'_>], _kept: &Kept, _grad: &[f32], _wanted: &[bool]) -> Vec<Vec<f32>> {
        unreachable!("weights are packed for inference")
    }
}

impl Fused for FusedExperts {
    fn forward(&self, inputs: &[Host<'_>], kept: Option<&mut Kept>) -> (Vec<f32>, Vec<usize>) {
        let Sizes { d_model, d_ff, slots } = self.sizes(inputs);
        let (up, down) = (stack(&inputs[1], d_model, d_ff), stack(&inputs[3], d_ff, d_model));
        let (packed_up, packed_down) = (pack_now(&up, self.compute), pack_now(&down, self.compute));
        let (up, down) = (operands(&up, &packed_up), operands(&down, &packed_down));
        let Some(kept) = kept else { return self.infer(&inputs[0], (&up, inputs[2].values), (&down, inputs[4].values)) };
        let top_k = self.grouping.top_k;
        let gathered = (!self.grouping.is_identity()).then(|| self.gather(inputs[0].values, d_model, |s| s / top_k));
        let x = Matrix::new(gathered.as_deref().unwrap_or(inputs[0].values), slots, d_model);
        let raw = self.product(x, &up, Some(inputs[2].values), Activation::Identity, d_ff);
        let mut hidden = to_be_written(raw.len());
        self.act.forward(&raw, &mut hidden);
        let y = self.product(Matrix::new(&hidden, slots, d_ff), &down, Some(inputs[4].values), Activation::Identity, d_model);
        kept.extend([raw, hidden]);
        let rows = self.grouping.rows * top_k;
        let y = if gathered.is_some() { self.place(&y, d_model) } else { y };
        (y, vec![rows, d_model])
    }

    fn backward(&self, inputs: &[Host<'_>], kept: &Kept, grad: &[f32], _wanted: &[bool]) -> Vec<Vec<f32>> {
        let Sizes { d_model, d_ff, slots } = self.sizes(inputs);
        let top_k = self.grouping.top_k;
        let dispatched = !self.grouping.is_identity();
        let gathered = dispatched.then(|| (self.gather(inputs[0].values, d_model, |s| s / top_k), self.gather(grad, d_model, |s| s)));
        let (x, grad) = gathered.as_ref().map_or((inputs[0].values, grad), |(x, g)| (x, g));
        let (raw, hidden) = (&kept[0], &kept[1]);
        let up = views(stack(&inputs[1], d_model, d_ff).into_iter().map(Matrix::transposed));
        let down = views(stack(&inputs[3], d_ff, d_model).into_iter().map(Matrix::transposed));
        let grad_hidden = self.product(Matrix::new(grad, slots, d_model), &down, None, Activation::Identity, d_ff);
        let mut grad_raw = to_be_written(raw.len());
        self.act.backward(raw, &grad_hidden, &mut grad_raw);
        let grad_x = self.product(Matrix::new(&grad_raw, slots, d_ff), &up, None, Activation::Identity, d_model);
        let grad_x = if dispatched { self.scatter(&grad_x, d_model, self.grouping.rows, |s| s / top_k) } else { grad_x };
        vec![
            grad_x,
            self.outer(x, d_model, &grad_raw, d_ff),
            self.bias_gradients(&grad_raw, d_ff),
            self.outer(hidden, d_ff, grad, d_model),
            self.bias_gradients(grad, d_model),
        ]
    }
}
