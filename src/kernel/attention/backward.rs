//! Gradients of attention, from recomputed probabilities.

use super::*;

/// Groups the batch is cut into for gradients of positions, which all rows of the batch share. A constant, so that the sums do not depend
/// on the number of threads.
const GROUPS: usize = 4;

/// Gradients of [`Positions::Relative`], overwritten.
#[derive(Debug)]
pub struct RelativeGradients<'g> {
    /// `[2 steps - 1, d_model]`
    pub p: &'g mut [f32],
    /// `[d_model]`
    pub u: &'g mut [f32],
    /// `[d_model]`
    pub v: &'g mut [f32],
}

/// Where one head of one group of the batch sums its gradients of positions; empty without relative positions.
struct PositionSums<'s> {
    p: &'s mut [f32],
    u: &'s mut [f32],
    v: &'s mut [f32],
}

/// Scratch of one (batch, head), parts of one buffer.
struct Scratch<'s> {
    p: &'s mut [f32],
    grad_p: &'s mut [f32],
    positions: &'s mut [f32],
    grad_q: &'s mut [f32],
    grad_q_position: &'s mut [f32],
    grad_k: &'s mut [f32],
    grad_v: &'s mut [f32],
}

/// Cuts `lengths.len()` parts off `buffer`.
fn cut<const N: usize>(mut buffer: &mut [f32], lengths: [usize; N]) -> [&mut [f32]; N] {
    lengths.map(|len| {
        let (part, rest) = std::mem::take(&mut buffer).split_at_mut(len);
        buffer = rest;
        part
    })
}

impl Attention<'_> {
    /// Computes the gradients for a [`forward`](Self::forward) with the same `qkv` that wrote `lse`.
    ///
    /// # Shapes
    /// - `grad_out`: `[batch, steps, d_model]`; not read at or past the lengths
    /// - `grad_qkv`: `[batch, steps, 3 * d_model]`, overwritten
    /// - `relative`: given exactly when the positions are relative
    pub fn backward(&self, qkv: &[f32], lse: &[f32], grad_out: &[f32], grad_qkv: &mut [f32], relative: Option<RelativeGradients<'_>>) {
        self.check(qkv);
        let batch = self.lengths.len();
        assert_eq!(grad_qkv.len(), qkv.len(), "gradient of queries, keys, values");
        assert_eq!(grad_out.len(), batch * self.steps * self.d_model, "gradient of the output");
        assert_eq!(lse.len(), batch * self.steps * self.heads, "log-sum-exp");
        let grad_qkv = Shared::new(grad_qkv);
        let Some(relative) = relative else {
            assert!(!matches!(self.positions, Positions::Relative { .. }), "relative positions have gradients");
            let none = || PositionSums { p: &mut [], u: &mut [], v: &mut [] };
            let single = (0..batch).map(|b| b..b + 1);
            return self.for_each(single, |b, head| self.head(b.start, head).backward(qkv, lse, grad_out, grad_qkv, none()));
        };
        assert!(matches!(self.positions, Positions::Relative { .. }), "gradients of positions need relative positions");
        assert!(relative.u.len() == self.d_model && relative.v.len() == self.d_model, "gradients of the position biases");
        let (d_head, distances) = (self.d_head(), (2 * self.steps).saturating_sub(1));
        assert_eq!(relative.p.len(), distances * self.d_model, "gradient of the positions");
        let group = batch.div_ceil(GROUPS).max(1);
        let sums_len = (distances + 2) * d_head;
        let mut sums = vec![0.0; batch.div_ceil(group) * self.heads * sums_len];
        let shared = Shared::new(&mut sums);
        let groups = (0..batch).step_by(group).map(|first| first..(first + group).min(batch));
        self.for_each(groups, |b, head| {
            // SAFETY: the sums of one group and head belong to one task.
            let sums = unsafe { shared.piece((b.start / group * self.heads + head) * sums_len, sums_len) };
            let [p, u, v] = cut(sums, [distances * d_head, d_head, d_head]);
            for b in b {
                let sums = PositionSums { p: &mut *p, u: &mut *u, v: &mut *v };
                self.head(b, head).backward(qkv, lse, grad_out, grad_qkv, sums);
            }
        });
        relative.p.fill(0.0);
        relative.u.fill(0.0);
        relative.v.fill(0.0);
        for (i, sums) in sums.chunks_exact(sums_len).enumerate() {
            let columns = i % self.heads * d_head..(i % self.heads + 1) * d_head;
            let (p, biases) = sums.split_at(distances * d_head);
            let rows = relative.p.chunks_exact_mut(self.d_model).zip(p.chunks_exact(d_head));
            rows.for_each(|(to, from)| accumulate(&mut to[columns.clone()], from));
            accumulate(&mut relative.u[columns.clone()], &biases[..d_head]);
            accumulate(&mut relative.v[columns], &biases[d_head..]);
        }
    }
}

fn accumulate(to: &mut [f32], from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
}

impl Head<'_> {
    fn backward(&self, qkv: &[f32], lse: &[f32], grad_out: &[f32], grad_qkv: Shared, mut sums: PositionSums<'_>) {
        let attention = self.attention;
        let (d_head, tier, scale) = (attention.d_head(), attention.compute.tier, attention.scale());
        let blocks = self.blocks(0);
        let relative = matches!(attention.positions, Positions::Relative { .. });
        let score_floats = largest(&blocks, |b| b.queries.len() * b.stride());
        let position_floats = if relative { largest(&blocks, |b| b.queries.len() * b.distance_stride()) } else { 0 };
        let rows_floats = largest(&blocks, |b| b.queries.len() * d_head);
        let all_floats = self.length * d_head;
        let lse = &lse[(self.batch * attention.heads + self.head) * attention.steps..][..self.length];
        let grad_out = self.columns(grad_out);
        // SAFETY: this head's columns of the three thirds of this batch row are written by this task alone, one piece at a time.
        let grad_row = |step: usize, third: usize| unsafe {
            let row = (self.batch * attention.steps + step) * 3 * attention.d_model;
            grad_qkv.piece(row + third * attention.d_model + self.head * d_head, d_head)
        };
        let parts = [score_floats, score_floats, position_floats, rows_floats, rows_floats, all_floats, all_floats, self.input_floats()];
        with_floats(parts.iter().sum(), |scratch| {
            let [p, grad_p, positions, grad_q, grad_q_position, grad_k, grad_v, input_scratch] = cut(scratch, parts);
            grad_k.fill(0.0);
            grad_v.fill(0.0);
            let mut scratch = Scratch { p, grad_p, positions, grad_q, grad_q_position, grad_k, grad_v };
            let inputs = self.inputs(qkv, input_scratch);
            let table = matches!(attention.positions, Positions::Rotary).then(|| rotary::table(d_head, self.length));
            let store = |step: usize, third: usize, from: &[f32]| match &table {
                Some(table) if third < 2 => table.rotate_back(step, from, grad_row(step, third)),
                _ => grad_row(step, third).copy_from_slice(from),
            };
            let [packed_kt, packed_vt, packed_k] = [inputs.k.transposed(), inputs.v.transposed(), inputs.k].map(|x| self.pack(x, &blocks));
            for block in &blocks {
                let (rows, stride, width) = (block.queries.len(), block.stride(), block.keys.len());
                let keys = operand(&packed_kt, block.keys_of(inputs.k).transposed());
                self.scores(block, &inputs, keys, scratch.p, scratch.positions);
                let grad_out = grad_out.rows(block.queries.clone());
                let values = operand(&packed_vt, block.keys_of(inputs.v).transposed());
                self.product(MatrixMut::strided(scratch.grad_p, rows, width, stride), Write::Overwrite, grad_out, values);
                for (row, step) in block.queries.clone().enumerate() {
                    let (p, grad) = (&mut scratch.p[row * stride..][..width], &mut scratch.grad_p[row * stride..][..width]);
                    rows::probabilities(p, self.seen(block, step), scale, lse[step], tier);
                    rows::gradient(p, grad, self.seen(block, step), scale, tier);
                }
                let p = Matrix::strided(scratch.p, rows, width, stride, 1);
                let grad_scores = Matrix::strided(scratch.grad_p, rows, width, stride, 1);
                let keys = block.keys.start * d_head..block.keys.end * d_head;
                let grad_v = MatrixMut::new(&mut scratch.grad_v[keys.clone()], width, d_head);
                self.product(grad_v, Write::Accumulate, p.transposed(), grad_out.into());
                let grad_k = MatrixMut::new(&mut scratch.grad_k[keys], width, d_head);
                let q = inputs.q.rows(block.queries.clone());
                self.product(grad_k, Write::Accumulate, grad_scores.transposed(), q.into());
                let grad_q = &mut scratch.grad_q[..rows * d_head];
                let keys = operand(&packed_k, block.keys_of(inputs.k));
                self.product(MatrixMut::new(grad_q, rows, d_head), Write::Overwrite, grad_scores, keys);
                self.position_gradients(block, &inputs, &mut scratch, &mut sums);
                for (step, grad) in block.queries.clone().zip(scratch.grad_q.chunks_exact(d_head)) {
                    store(step, 0, grad);
                }
            }
            for step in 0..self.length {
                store(step, 1, &scratch.grad_k[step * d_head..][..d_head]);
                store(step, 2, &scratch.grad_v[step * d_head..][..d_head]);
            }
        });
        for step in self.length..attention.steps {
            (0..3).for_each(|third| grad_row(step, third).fill(0.0));
        }
    }

    /// From the gradient of a block's scores: sums those of positions and biases, and adds the position term's to `grad_q`.
    fn position_gradients(&self, block: &Block, inputs: &Inputs<'_>, scratch: &mut Scratch<'_>, sums: &mut PositionSums<'_>) {
        let Positions::Relative { p, .. } = self.attention.positions else { return };
        let d_head = self.attention.d_head();
        let (stride, width) = (block.stride(), block.keys.len());
        for (first, strip) in block.strips() {
            let (rows, wide, distances) = (strip.queries.len(), strip.distance_stride(), strip.distances(self.attention.steps));
            for row in 0..rows {
                let to = &mut scratch.positions[row * wide..(row + 1) * wide];
                to.fill(0.0);
                to[rows - 1 - row..][..width].copy_from_slice(&scratch.grad_p[(first + row) * stride..][..width]);
            }
            let grad = Matrix::strided(scratch.positions, rows, distances.len(), wide, 1);
            let q = inputs.q_position.rows(strip.queries.clone());
            let to = &mut sums.p[distances.start * d_head..distances.end * d_head];
            self.product(MatrixMut::new(to, distances.len(), d_head), Write::Accumulate, grad.transposed(), q.into());
            let p = self.positions(p).rows(distances);
            let grad_q = &mut scratch.grad_q_position[..rows * d_head];
            self.product(MatrixMut::new(grad_q, rows, d_head), Write::Overwrite, grad, p.into());
            let contents = scratch.grad_q[first * d_head..].chunks_exact_mut(d_head);
            for (content, position) in contents.zip(grad_q.chunks_exact(d_head)) {
                accumulate(sums.u, content);
                accumulate(sums.v, position);
                accumulate(content, position);
            }
        }
    }
}
