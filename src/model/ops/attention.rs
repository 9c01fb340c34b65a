//! Multi-head self-attention between projected queries, keys and values.

use burn::tensor::{Bool, Device, Tensor, TensorData, activation};

use crate::kernel::attention::{Attention, AttentionMask, Positions, RelativeGradients};
use crate::kernel::gemm::{Compute, Parallel};
use crate::kernel::memory::to_be_written;
use crate::model::lengths::Lengths;
use crate::model::ops::fused::{self, Fused, Host, Kept};
use crate::model::pass::Pass;

/// What attention computes beside the plain product.
#[derive(Debug, Clone, Copy)]
pub struct AttentionSpec<'a> {
    /// Number of heads.
    pub heads: usize,
    /// Valid steps per row.
    pub lengths: &'a Lengths,
    /// Rotate queries and keys by their positions.
    pub rotary: bool,
    /// Which keys a query sees.
    pub mask: AttentionMask,
    /// Queries start at this step: those before it are the past of a stream, attended to and no more. Inference only, where it is not 0.
    pub first_query: usize,
}

/// Parameters of Transformer-XL relative attention.
#[derive(Debug, Clone)]
pub struct Relative {
    /// Content bias `[heads, d_head]`.
    pub u: Tensor<2>,
    /// Position bias `[heads, d_head]`.
    pub v: Tensor<2>,
    /// Projected sinusoids of positions `steps - 1 .. -(steps - 1)`: `[2 steps - 1, d_model]`.
    pub positions: Tensor<2>,
}

/// Softmax attention; keys in the padding are never attended to.
///
/// # Shapes
/// - `qkv`: `[batch, steps, 3 d_model]`: queries, keys, values side by side, head after head
/// - returns `[batch, steps - first_query, d_model]`; rows in the padding are arbitrary but finite
///
/// # Numerics
/// Scores are scaled by `1 / sqrt(d_head)`; softmax in f32.
pub fn attention(qkv: Tensor<3>, spec: AttentionSpec<'_>, relative: Option<Relative>, pass: &Pass) -> Tensor<3> {
    if !fused::available(&qkv.device()) {
        return composed(qkv, spec, relative);
    }
    let compute = Compute::new(pass.precision(), Parallel::Rayon);
    let AttentionSpec { heads, lengths, rotary, mask, first_query } = spec;
    let op = FusedAttention { heads, lengths: lengths.clone(), rotary, mask, first_query, compute };
    match relative {
        None => fused::apply!(op; qkv),
        Some(Relative { u, v, positions }) => fused::apply!(op; qkv, u, v, positions),
    }
}

fn composed(qkv: Tensor<3>, spec: AttentionSpec<'_>, relative: Option<Relative>) -> Tensor<3> {
    let device = qkv.device();
    let [batch, steps, width] = qkv.dims();
    let d_model = width / 3;
    let d_head = d_model / spec.heads;
    let qkv = spec.lengths.clear_padding(qkv);
    let part = |i: usize| {
        qkv.clone().slice([0..batch, 0..steps, i * d_model..(i + 1) * d_model]).reshape([batch, steps, spec.heads, d_head]).swap_dims(1, 2)
    };
    let (mut q, mut k, v) = (part(0), part(1), part(2));
    if spec.rotary {
        let (cos, sin) = rotary_tables(steps, d_head, &device);
        q = rotate(q, cos.clone(), sin.clone());
        k = rotate(k, cos, sin);
    }
    let scores = match relative {
        None => q.matmul(k.swap_dims(2, 3)),
        Some(Relative { u, v, positions }) => {
            let bias = |b: Tensor<2>| b.reshape([1, spec.heads, 1, d_head]);
            let content = (q.clone() + bias(u)).matmul(k.swap_dims(2, 3));
            let positions = positions.reshape([1, 2 * steps - 1, spec.heads, d_head]).swap_dims(1, 2);
            let position = (q + bias(v)).matmul(positions.swap_dims(2, 3));
            content + relative_shift(position)
        }
    };
    let scores = scores.div_scalar((d_head as f64).sqrt());
    let hidden = spec.lengths.has_padding() || spec.mask != AttentionMask::Full;
    let scores = if hidden { scores.mask_fill(hidden_keys(&spec, &device), -1e9) } else { scores };
    let all = activation::softmax(scores, 3).matmul(v).swap_dims(1, 2).reshape([batch, steps, d_model]);
    if spec.first_query == 0 { all } else { all.slice([0..batch, spec.first_query..steps, 0..d_model]) }
}

/// True where a query does not see a key: `[batch, heads, steps, steps]`.
fn hidden_keys(spec: &AttentionSpec<'_>, device: &Device) -> Tensor<4, Bool> {
    let (batch, steps) = (spec.lengths.batch(), spec.lengths.padded());
    let mut hidden = vec![true; batch * steps * steps];
    for (row, &length) in hidden.chunks_exact_mut((steps * steps).max(1)).zip(spec.lengths.valid()) {
        for (query, keys) in row.chunks_exact_mut(steps).enumerate() {
            // A query in the padding sees what the last valid one sees: its output is dropped, but must stay finite.
            keys[spec.mask.keys(query.min(length.saturating_sub(1)), length)].fill(false);
        }
    }
    Tensor::<4, Bool>::from_data(TensorData::new(hidden, [batch, 1, steps, steps]), device).expand([batch, spec.heads, steps, steps])
}

fn rotary_tables(steps: usize, d_head: usize, device: &Device) -> (Tensor<4>, Tensor<4>) {
    let half = d_head / 2;
    let angle = |t: usize, i: usize| t as f64 * 1e4f64.powf(-2.0 * i as f64 / d_head as f64);
    let table = |f: fn(f64) -> f64| {
        let values: Vec<f32> = (0..steps).flat_map(|t| (0..half).map(move |i| f(angle(t, i)) as f32)).collect();
        Tensor::from_data(TensorData::new(values, [1, 1, steps, half]), device)
    };
    (table(f64::cos), table(f64::sin))
}

/// Rotates the first half of every head against the second: `(a cos - b sin, a sin + b cos)`.
fn rotate(x: Tensor<4>, cos: Tensor<4>, sin: Tensor<4>) -> Tensor<4> {
    let [batch, heads, steps, d_head] = x.dims();
    let half = d_head / 2;
    let a = x.clone().slice([0..batch, 0..heads, 0..steps, 0..half]);
    let b = x.slice([0..batch, 0..heads, 0..steps, half..d_head]);
    Tensor::cat(vec![a.clone() * cos.clone() - b.clone() * sin.clone(), a * sin + b * cos], 3)
}

/// Row `t` of `[batch, heads, steps, 2 steps - 1]` shifted so that column `s` holds relative position `t - s`.
fn relative_shift(x: Tensor<4>) -> Tensor<4> {
    let [batch, heads, steps, count] = x.dims();
    let zeros = Tensor::zeros([batch, heads, steps, 1], &x.device());
    let x = Tensor::cat(vec![zeros, x], 3).reshape([batch, heads, count + 1, steps]);
    x.slice([0..batch, 0..heads, 1..count + 1, 0..steps]).reshape([batch, heads, steps, count]).slice([
        0..batch,
        0..heads,
        0..steps,
        0..steps,
    ])
}

#[derive(Debug)]
struct FusedAttention {
    heads: usize,
    lengths: Lengths,
    rotary: bool,
    mask: AttentionMask,
    first_query: usize,
    compute: Compute,
}

impl FusedAttention {
    fn kernel<'a>(&'a self, inputs: &[Host<'a>]) -> Attention<'a> {
        let positions = match inputs {
            [_, u, v, p] => Positions::Relative { p: p.values, u: u.values, v: v.values },
            _ if self.rotary => Positions::Rotary,
            _ => Positions::None,
        };
        Attention {
            steps: inputs[0].shape[1],
            heads: self.heads,
            d_model: inputs[0].shape[2] / 3,
            lengths: self.lengths.valid(),
            mask: self.mask,
            positions,
            compute: self.compute,
        }
    }
}

impl Fused for FusedAttention {
    fn forward(&self, inputs: &[Host<'_>], kept: Option<&mut Kept>) -> (Vec<f32>, Vec<usize>) {
        let kernel = self.kernel(inputs);
        let rows = kernel.lengths.len() * kernel.steps;
        let (mut y, mut log_sums) = (to_be_written(rows * kernel.d_model), to_be_written(rows * kernel.heads));
        let first = self.first_query;
        kernel.forward_from(first, inputs[0].values, &mut y, &mut log_sums);
        if let Some(kept) = kept {
            assert_eq!(first, 0, "a pass with a past has no gradient");
            kept.push(log_sums);
        }
        if first > 0 {
            y = y.chunks_exact(kernel.steps * kernel.d_model).flat_map(|row| &row[first * kernel.d_model..]).copied().collect();
        }
        (y, vec![kernel.lengths.len(), kernel.steps - first, kernel.d_model])
    }

    fn backward(&self, inputs: &[Host<'_>], kept: &Kept, grad: &[f32], _wanted: &[bool]) -> Vec<Vec<f32>> {
        let mut grads: Vec<Vec<f32>> = inputs.iter().map(|i| to_be_written(i.values.len())).collect();
        let kernel = self.kernel(inputs);
        match grads.as_mut_slice() {
            [qkv] => kernel.backward(inputs[0].values, &kept[0], grad, qkv, None),
            [qkv, u, v, p] => kernel.backward(inputs[0].values, &kept[0], grad, qkv, Some(RelativeGradients { p, u, v })),
            _ => unreachable!("qkv alone or with u, v and positions"),
        }
        grads
    }
}
