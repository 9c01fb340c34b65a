//! Multi-head self-attention on a packed query-key-value buffer, forward and backward, without a `[batch, heads, steps, steps]` array.
//!
//! A task is one (batch, head): it walks blocks of query rows whose scores fit the second-level cache. The backward pass recomputes the
//! probabilities from the saved log-sum-exp of each row.

use std::ops::Range;

use rayon::prelude::*;

use super::gemm::{Compute, Epilogue, Matrix, MatrixMut, Operand, PackedMatrix, Parallel, Write, gemm};
use super::pack::with_floats;

mod backward;
mod mask;
#[cfg(test)]
mod reference;
mod rotary;
mod rows;

pub use backward::RelativeGradients;
pub use mask::AttentionMask;

/// Scores of one block of query rows: 512 KiB.
const BLOCK_SCORES: usize = 128 * 1024;
/// Query rows of a strip: `r` rows span `r - 1` more distances than keys, so fewer rows waste less of the position product.
const STRIP: usize = 64;

/// How scores know where a key is.
#[derive(Debug, Clone, Copy)]
pub enum Positions<'a> {
    /// They do not.
    None,
    /// Queries and keys are rotated by angles `step * 10000^(-2 i / d_head)`: element `i` of a head's first half with element `i` of its
    /// second half (arXiv:2104.09864).
    Rotary,
    /// Scores are `(q + u) . k + (q + v) . p` of the distance query - key (Transformer-XL, arXiv:1901.02860).
    Relative {
        /// `[2 steps - 1, d_model]`: projected positions of the distances `steps - 1` down to `-(steps - 1)`.
        p: &'a [f32],
        /// `[d_model]`: bias of the query for the content term.
        u: &'a [f32],
        /// `[d_model]`: bias of the query for the position term.
        v: &'a [f32],
    },
}

/// One attention: `softmax((q . k + positions) / sqrt(d_head)) . v` for each head.
///
/// # Shapes
/// - `qkv`: `[batch, steps, 3 * d_model]`, queries, keys, values; head `h` has columns `h * d_head..(h + 1) * d_head` of each third
/// - `lengths`: `[batch]`, at most `steps`; steps at or past the length are never read, get zeros and zero gradients
///
/// # Numerics
/// Products in the precision of `compute`; softmax in f32.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// Padded steps per row of the batch.
    pub steps: usize,
    /// Heads; divides `d_model`.
    pub heads: usize,
    /// Width of the model.
    pub d_model: usize,
    /// Valid steps of each row of the batch.
    pub lengths: &'a [usize],
    /// Which keys a query sees.
    pub mask: AttentionMask,
    /// How scores know distances.
    pub positions: Positions<'a>,
    /// Precision, threads, instructions.
    pub compute: Compute,
}

/// A buffer that tasks write disjoint pieces of.
#[derive(Clone, Copy)]
struct Shared {
    data: *mut f32,
    len: usize,
}

// SAFETY: only `piece` reaches the data, and its callers keep to disjoint pieces.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    fn new(data: &mut [f32]) -> Self {
        Self { data: data.as_mut_ptr(), len: data.len() }
    }

    /// # Safety
    /// The buffer is still borrowed mutably by whoever made this, and no other piece in use overlaps `start..start + len`.
    unsafe fn piece<'p>(self, start: usize, len: usize) -> &'p mut [f32] {
        assert!(start + len <= self.len);
        // SAFETY: inside the buffer (asserted), exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), len) }
    }
}

/// One (batch, head) of an attention.
struct Head<'a> {
    attention: &'a Attention<'a>,
    batch: usize,
    head: usize,
    length: usize,
}

impl<'a> Attention<'a> {
    /// Computes the output and what the backward pass needs.
    ///
    /// # Shapes
    /// - `qkv`: `[batch, steps, 3 * d_model]`
    /// - `out`: `[batch, steps, d_model]`, written
    /// - `lse`: `[batch, heads, steps]`, written: natural log of the sum of exponentials of each row's scaled scores
    pub fn forward(&self, qkv: &[f32], out: &mut [f32], lse: &mut [f32]) {
        self.forward_from(0, qkv, out, lse);
    }

    /// [`Self::forward`] for the queries from step `first` on: the steps before it are there to be attended to, their outputs are zeros.
    pub fn forward_from(&self, first: usize, qkv: &[f32], out: &mut [f32], lse: &mut [f32]) {
        self.check(qkv);
        assert_eq!(out.len(), self.lengths.len() * self.steps * self.d_model, "output");
        assert_eq!(lse.len(), self.lengths.len() * self.steps * self.heads, "log-sum-exp");
        let (out, lse) = (Shared::new(out), Shared::new(lse));
        let single = (0..self.lengths.len()).map(|b| b..b + 1);
        self.for_each(single, |batch, head| self.head(batch.start, head).forward(first, qkv, out, lse));
    }

    /// Calls `f` for every head and every range of the batch, the longest first.
    fn for_each(&self, batches: impl Iterator<Item = Range<usize>>, f: impl Fn(Range<usize>, usize) + Send + Sync) {
        let mut tasks: Vec<_> = batches.flat_map(|b| (0..self.heads).map(move |head| (b.clone(), head))).collect();
        tasks.sort_by_key(|(b, _)| std::cmp::Reverse(self.lengths[b.clone()].iter().sum::<usize>()));
        match self.compute.parallel {
            Parallel::Rayon => tasks.into_par_iter().with_max_len(1).for_each(|(b, head)| f(b, head)),
            Parallel::Single => tasks.into_iter().for_each(|(b, head)| f(b, head)),
        }
    }

    fn head(&'a self, batch: usize, head: usize) -> Head<'a> {
        Head { attention: self, batch, head, length: self.lengths[batch] }
    }

    fn d_head(&self) -> usize {
        self.d_model / self.heads
    }

    fn scale(&self) -> f32 {
        1.0 / (self.d_head() as f32).sqrt()
    }

    fn check(&self, qkv: &[f32]) {
        assert!(self.heads > 0 && self.d_model.is_multiple_of(self.heads), "{} heads in {}", self.heads, self.d_model);
        assert_eq!(qkv.len(), self.lengths.len() * self.steps * 3 * self.d_model, "queries, keys, values");
        assert!(self.lengths.iter().all(|length| *length <= self.steps), "lengths over {} steps", self.steps);
        match self.positions {
            Positions::None => {}
            Positions::Rotary => assert!(self.d_head().is_multiple_of(2), "rotation needs an even head width"),
            Positions::Relative { p, u, v } => {
                assert_eq!(p.len(), (2 * self.steps).saturating_sub(1) * self.d_model, "positions");
                assert!(u.len() == self.d_model && v.len() == self.d_model, "position biases");
            }
        }
        if let AttentionMask::Chunked { chunk, .. } = self.mask {
            assert!(chunk > 0, "a chunk has at least one step");
        }
    }
}

/// A block of query rows and the keys they see between them.
#[derive(Debug, Clone)]
struct Block {
    queries: Range<usize>,
    keys: Range<usize>,
}

impl Block {
    /// Row stride of this block's scores: whole cache lines.
    fn stride(&self) -> usize {
        self.keys.len().next_multiple_of(16)
    }

    /// The rows of `x` `[length, d_head]` at the block's keys.
    fn keys_of<'m>(&self, x: Matrix<'m>) -> Matrix<'m> {
        x.rows(self.keys.clone())
    }

    /// The block in pieces of [`STRIP`] query rows, each with its first row's number in the block.
    fn strips(&self) -> impl Iterator<Item = (usize, Self)> {
        self.queries.clone().step_by(STRIP).map(|first| {
            let queries = first..(first + STRIP).min(self.queries.end);
            (first - self.queries.start, Self { queries, keys: self.keys.clone() })
        })
    }

    /// Rows of `p` that the distances of a strip span; row `i` of the strip starts at offset `queries.len() - 1 - i` of them.
    fn distances(&self, steps: usize) -> Range<usize> {
        let first = steps - self.queries.end + self.keys.start;
        first..first + self.keys.len() + self.queries.len() - 1
    }

    /// Row stride of the position scores of a strip.
    fn distance_stride(&self) -> usize {
        (self.keys.len() + self.queries.len() - 1).next_multiple_of(16)
    }

    /// Scratch for the position scores of a strip.
    fn strip_floats(&self) -> usize {
        STRIP * (self.keys.len() + STRIP).next_multiple_of(16)
    }
}

/// The largest `f` of `blocks`.
fn largest(blocks: &[Block], f: impl Fn(&Block) -> usize) -> usize {
    blocks.iter().map(f).max().unwrap_or(0)
}

/// The whole operand where it was packed, else what the block needs of it.
fn operand<'o>(packed: &'o Option<PackedMatrix>, part: Matrix<'o>) -> Operand<'o> {
    packed.as_ref().map_or(Operand::View(part), Operand::Packed)
}

/// Values needed beside the views into `qkv`: rotated or biased copies, `[length, d_head]` each.
struct Inputs<'b> {
    /// Queries of the content term.
    q: Matrix<'b>,
    /// Queries of the position term (relative positions only).
    q_position: Matrix<'b>,
    k: Matrix<'b>,
    v: Matrix<'b>,
}

impl<'a> Head<'a> {
    /// Third `which` (query, key, value) of this head in a buffer like `qkv`.
    fn third<'q>(&self, qkv: &'q [f32], which: usize) -> Matrix<'q> {
        let (d_model, d_head) = (self.attention.d_model, self.attention.d_head());
        let start = self.batch * self.attention.steps * 3 * d_model + which * d_model + self.head * d_head;
        Matrix::strided(qkv.get(start..).unwrap_or_default(), self.length, d_head, 3 * d_model, 1)
    }

    /// This head's columns of a `[batch, steps, d_model]` buffer.
    fn columns<'q>(&self, x: &'q [f32]) -> Matrix<'q> {
        let (d_model, d_head) = (self.attention.d_model, self.attention.d_head());
        let start = self.batch * self.attention.steps * d_model + self.head * d_head;
        Matrix::strided(x.get(start..).unwrap_or_default(), self.length, d_head, d_model, 1)
    }

    /// Projected positions of this head, `[2 steps - 1, d_head]`.
    fn positions(&self, p: &'a [f32]) -> Matrix<'a> {
        let (d_model, d_head) = (self.attention.d_model, self.attention.d_head());
        Matrix::strided(&p[self.head * d_head..], 2 * self.attention.steps - 1, d_head, d_model, 1)
    }

    /// This head's part of a `[d_model]` vector.
    fn part<'v>(&self, x: &'v [f32]) -> &'v [f32] {
        let d_head = self.attention.d_head();
        &x[self.head * d_head..(self.head + 1) * d_head]
    }

    /// Values of scratch that [`Head::inputs`] wants.
    fn input_floats(&self) -> usize {
        2 * self.length * self.attention.d_head()
    }

    fn inputs<'b>(&self, qkv: &'b [f32], scratch: &'b mut [f32]) -> Inputs<'b> {
        let d_head = self.attention.d_head();
        let (q, k, v) = (self.third(qkv, 0), self.third(qkv, 1), self.third(qkv, 2));
        let (first, second) = scratch.split_at_mut(self.length * d_head);
        match self.attention.positions {
            Positions::None => Inputs { q, q_position: q, k, v },
            Positions::Rotary => {
                let table = rotary::table(d_head, self.length);
                table.rotate(q, first);
                table.rotate(k, second);
                let (q, k) = (Matrix::new(first, self.length, d_head), Matrix::new(second, self.length, d_head));
                Inputs { q, q_position: q, k, v }
            }
            Positions::Relative { u, v: bias, .. } => {
                rows::add_bias(q, self.part(u), first);
                rows::add_bias(q, self.part(bias), second);
                let q = Matrix::new(first, self.length, d_head);
                Inputs { q, q_position: Matrix::new(second, self.length, d_head), k, v }
            }
        }
    }

    /// Query rows from `start` on in even blocks whose scores fit [`BLOCK_SCORES`].
    fn blocks(&self, mut start: usize) -> Vec<Block> {
        let mask = self.attention.mask;
        let mut blocks: Vec<Block> = Vec::new();
        while start < self.length {
            let first = mask.keys(start, self.length);
            let fits = |end: usize| (end - start) * (mask.keys(end - 1, self.length).end - first.start) <= BLOCK_SCORES;
            // Rows of a block share the keys of all: with a narrow window, fewer rows waste less.
            let most = (BLOCK_SCORES / first.len()).clamp(16, first.len().clamp(STRIP, 4 * STRIP));
            let left = self.length - start;
            let longest = left.div_ceil(left.div_ceil(most));
            let mut end = (start + longest).min(self.length);
            while end - start > 16 && !fits(end) {
                end = (end - 16).max(start + 16);
            }
            blocks.push(Block { queries: start..end, keys: first.start..mask.keys(end - 1, self.length).end });
            start = end;
        }
        blocks
    }

    /// Unscaled scores of `block` into `scores` (row stride [`Block::stride`]); `position_scores` is scratch for relative positions.
    fn scores(&self, block: &Block, inputs: &Inputs<'_>, keys: Operand<'_>, scores: &mut [f32], position_scores: &mut [f32]) {
        let (rows, stride) = (block.queries.len(), block.stride());
        let q = inputs.q.rows(block.queries.clone());
        self.product(MatrixMut::strided(scores, rows, block.keys.len(), stride), Write::Overwrite, q, keys);
        let Positions::Relative { p, .. } = self.attention.positions else { return };
        for (first, strip) in block.strips() {
            let p = self.positions(p).rows(strip.distances(self.attention.steps));
            let (rows, wide) = (strip.queries.len(), strip.distance_stride());
            let out = MatrixMut::strided(position_scores, rows, p.shape().0, wide);
            self.product(out, Write::Overwrite, inputs.q_position.rows(strip.queries.clone()), p.transposed().into());
            for row in 0..rows {
                let scores = &mut scores[(first + row) * stride..][..block.keys.len()];
                rows::add(scores, &position_scores[row * wide + rows - 1 - row..], self.attention.compute.tier);
            }
        }
    }

    fn product(&self, c: MatrixMut<'_>, write: Write, a: Matrix<'_>, b: Operand<'_>) {
        let compute = Compute { parallel: Parallel::Single, ..self.attention.compute };
        gemm(c, write, a, b, Epilogue::NONE, compute);
    }

    /// `b` packed, where all blocks use all of it and packing is of use; else `None`: each block takes the rows it needs.
    fn pack(&self, b: Matrix<'_>, blocks: &[Block]) -> Option<PackedMatrix> {
        let compute = self.attention.compute;
        (compute.is_bf16() && blocks.len() > 1 && self.attention.mask == AttentionMask::Full).then(|| PackedMatrix::pack(b, compute))
    }

    fn forward(&self, from: usize, qkv: &[f32], out: Shared, lse: Shared) {
        let attention = self.attention;
        let (d_head, tier, scale) = (attention.d_head(), attention.compute.tier, attention.scale());
        let blocks = self.blocks(from);
        let score_floats = largest(&blocks, |b| b.queries.len() * b.stride());
        let relative = matches!(attention.positions, Positions::Relative { .. });
        let position_floats = if relative { largest(&blocks, Block::strip_floats) } else { 0 };
        let sum_floats = largest(&blocks, |b| b.queries.len() * (d_head + 1));
        // SAFETY (all pieces below): a head's columns of the output and its rows of `lse` belong to this task alone.
        let out_row =
            |step: usize| unsafe { out.piece((self.batch * attention.steps + step) * attention.d_model + self.head * d_head, d_head) };
        let lse = unsafe { lse.piece((self.batch * attention.heads + self.head) * attention.steps, attention.steps) };
        with_floats(self.input_floats() + score_floats + position_floats + sum_floats, |scratch| {
            let (scratch, input_scratch) = scratch.split_at_mut(score_floats + position_floats + sum_floats);
            let (scores, rest) = scratch.split_at_mut(score_floats);
            let (position_scores, sums) = rest.split_at_mut(position_floats);
            let inputs = self.inputs(qkv, input_scratch);
            let (packed_k, packed_v) = (self.pack(inputs.k.transposed(), &blocks), self.pack(inputs.v, &blocks));
            for block in &blocks {
                let (rows, stride) = (block.queries.len(), block.stride());
                let keys = operand(&packed_k, block.keys_of(inputs.k).transposed());
                self.scores(block, &inputs, keys, scores, position_scores);
                let (weighted, totals) = sums.split_at_mut(rows * d_head);
                for (row, step) in block.queries.clone().enumerate() {
                    let seen = self.seen(block, step);
                    let (max, total) = rows::softmax(&mut scores[row * stride..][..block.keys.len()], seen, scale, tier);
                    lse[step] = scale * max + total.ln();
                    totals[row] = 1.0 / total;
                }
                let values = operand(&packed_v, block.keys_of(inputs.v));
                let p = Matrix::strided(scores, rows, block.keys.len(), stride, 1);
                self.product(MatrixMut::new(weighted, rows, d_head), Write::Overwrite, p, values);
                for (row, step) in block.queries.clone().enumerate() {
                    rows::scaled(&weighted[row * d_head..][..d_head], totals[row], out_row(step));
                }
            }
        });
        (0..from.min(self.length)).chain(self.length..attention.steps).for_each(|step| out_row(step).fill(0.0));
        lse[..from.min(self.length)].fill(0.0);
        lse[self.length..].fill(0.0);
    }

    /// The columns of `block` that `step` sees.
    fn seen(&self, block: &Block, step: usize) -> Range<usize> {
        let keys = self.attention.mask.keys(step, self.length);
        keys.start - block.keys.start..keys.end - block.keys.start
    }
}

#[cfg(test)]
mod tests {
    use super::reference::Exact;
    use super::*;
    use crate::kernel::cpu::Tier;
    use crate::kernel::gemm::Precision;
    use crate::kernel::rng::SplitMix;

    /// f32 outputs, relative to the largest value.
    const F32_TOLERANCE: f64 = 1e-5;
    /// f32 gradients, relative to the largest: two more products and a difference of probabilities' means.
    const GRADIENT_TOLERANCE: f64 = 2e-5;
    /// bfloat16 keeps 8 bits; outputs and gradients by root mean square, relative to the f32 ones.
    const BF16_TOLERANCE: f64 = 8e-3;

    const MASKS: [AttentionMask; 4] = [
        AttentionMask::Full,
        AttentionMask::Window { left: 3, right: 1 },
        AttentionMask::Chunked { chunk: 4, left_chunks: 1 },
        AttentionMask::Window { left: 40, right: 0 },
    ];

    struct Case {
        steps: usize,
        heads: usize,
        d_model: usize,
        lengths: Vec<usize>,
        qkv: Vec<f32>,
        grad_out: Vec<f32>,
        p: Vec<f32>,
        u: Vec<f32>,
        v: Vec<f32>,
    }

    /// Everything an attention computes.
    #[derive(Debug, Clone, PartialEq)]
    struct Results {
        out: Vec<f32>,
        qkv: Vec<f32>,
        p: Vec<f32>,
        u: Vec<f32>,
        v: Vec<f32>,
    }

    impl Case {
        fn new(steps: usize, heads: usize, d_model: usize, lengths: &[usize]) -> Self {
            let mut rng = SplitMix::new(steps as u64);
            let mut noise = |len: usize| (0..len).map(|_| rng.next_normal()).collect::<Vec<f32>>();
            let batch = lengths.len();
            Self {
                steps,
                heads,
                d_model,
                lengths: lengths.to_vec(),
                qkv: noise(batch * steps * 3 * d_model),
                grad_out: noise(batch * steps * d_model),
                p: noise((2 * steps - 1) * d_model),
                u: noise(d_model),
                v: noise(d_model),
            }
        }

        fn positions(&self) -> [Positions<'_>; 3] {
            [Positions::None, Positions::Rotary, Positions::Relative { p: &self.p, u: &self.u, v: &self.v }]
        }

        fn attention<'a>(&'a self, mask: AttentionMask, positions: Positions<'a>, compute: Compute) -> Attention<'a> {
            Attention { steps: self.steps, heads: self.heads, d_model: self.d_model, lengths: &self.lengths, mask, positions, compute }
        }

        fn run(&self, attention: &Attention<'_>) -> Results {
            let nan = |len: usize| vec![f32::NAN; len];
            let mut out = nan(self.grad_out.len());
            let mut lse = nan(self.lengths.len() * self.steps * self.heads);
            attention.forward(&self.qkv, &mut out, &mut lse);
            let [mut qkv, mut p, mut u, mut v] = [&self.qkv, &self.p, &self.u, &self.v].map(|x| nan(x.len()));
            let relative = matches!(attention.positions, Positions::Relative { .. });
            let gradients = relative.then_some(RelativeGradients { p: &mut p, u: &mut u, v: &mut v });
            attention.backward(&self.qkv, &lse, &self.grad_out, &mut qkv, gradients);
            if !relative {
                [&mut p, &mut u, &mut v].into_iter().for_each(|x| x.fill(0.0));
            }
            Results { out, qkv, p, u, v }
        }

        fn exact(&self) -> Exact {
            let [qkv, p, u, v] = [&self.qkv, &self.p, &self.u, &self.v].map(|x| x.iter().map(|x| f64::from(*x)).collect());
            Exact { qkv, p, u, v }
        }

        /// Index into `x` with `width` values per step is at a valid step.
        fn is_valid(&self, index: usize, width: usize) -> bool {
            let row = index / width;
            row % self.steps < self.lengths[row / self.steps]
        }
    }

    fn greatest(x: &[f32]) -> f64 {
        x.iter().fold(0.0, |m, x| f64::from(x.abs()).max(m))
    }

    fn f32_compute(tier: Tier) -> Compute {
        Compute { precision: Precision::F32, parallel: Parallel::Rayon, tier }
    }

    /// Picks one input of the definition.
    type Field = fn(&mut Exact) -> &mut Vec<f64>;

    fn check_gradient(case: &Case, attention: &Attention<'_>, got: &Results, stride: usize) {
        const STEP: f64 = 1e-4;
        let exact = case.exact();
        let loss = |x: &Exact| {
            let out = reference::forward(attention, x);
            out.iter().zip(&case.grad_out).map(|(o, g)| o * f64::from(*g)).sum::<f64>()
        };
        let fields: [(&str, &[f32], Field); 4] =
            [("qkv", &got.qkv, |x| &mut x.qkv), ("p", &got.p, |x| &mut x.p), ("u", &got.u, |x| &mut x.u), ("v", &got.v, |x| &mut x.v)];
        for (name, gradient, field) in fields {
            if name != "qkv" && !matches!(attention.positions, Positions::Relative { .. }) {
                continue;
            }
            let size = greatest(gradient);
            for i in (0..gradient.len()).step_by(stride) {
                let mut shifted = exact.clone();
                field(&mut shifted)[i] += STEP;
                let up = loss(&shifted);
                field(&mut shifted)[i] -= 2.0 * STEP;
                let want = (up - loss(&shifted)) / (2.0 * STEP);
                let error = (f64::from(gradient[i]) - want).abs() / size;
                assert!(error < GRADIENT_TOLERANCE, "{:?} {name}[{i}] {} want {want}", attention.mask, gradient[i]);
            }
        }
    }

    #[test]
    fn outputs_and_gradients_match_the_definition() {
        let case = Case::new(9, 2, 12, &[7, 0, 9, 1]);
        for mask in MASKS {
            for positions in case.positions() {
                for tier in Tier::available() {
                    let attention = case.attention(mask, positions, f32_compute(tier));
                    let got = case.run(&attention);
                    let want = reference::forward(&attention, &case.exact());
                    for (i, want) in want.iter().enumerate() {
                        let error = (f64::from(got.out[i]) - want).abs() / greatest(&got.out);
                        assert!(error < F32_TOLERANCE, "{mask:?} {positions:?} {tier:?} [{i}] {} want {want}", got.out[i]);
                    }
                    check_gradient(&case, &attention, &got, if tier == Tier::detected() { 1 } else { 7 });
                }
            }
        }
    }

    #[test]
    fn blocks_of_long_sequences_match_the_definition() {
        let case = Case::new(700, 1, 8, &[700, 430]);
        for mask in
            [AttentionMask::Full, AttentionMask::Window { left: 100, right: 30 }, AttentionMask::Chunked { chunk: 64, left_chunks: 2 }]
        {
            for positions in case.positions() {
                let attention = case.attention(mask, positions, f32_compute(Tier::detected()));
                assert!(attention.head(0, 0).blocks(0).len() > 1);
                let got = case.run(&attention);
                let want = reference::forward(&attention, &case.exact());
                let error = want.iter().zip(&got.out).map(|(w, g)| (w - f64::from(*g)).abs()).fold(0.0, f64::max);
                assert!(error / greatest(&got.out) < F32_TOLERANCE, "{mask:?} {error}");
                check_gradient(&case, &attention, &got, 4_999);
            }
        }
    }

    #[test]
    fn bfloat16_stays_close_to_f32() {
        let case = Case::new(300, 2, 96, &[300, 211]);
        let bf16 = Compute::new(Precision::Bf16, Parallel::Rayon);
        let rms = |x: &[f32], y: &[f32]| {
            let sum: f64 = x.iter().zip(y).map(|(x, y)| f64::from(x - y).powi(2)).sum();
            (sum / y.iter().map(|y| f64::from(*y).powi(2)).sum::<f64>().max(1e-30)).sqrt()
        };
        for mask in [AttentionMask::Full, AttentionMask::Window { left: 50, right: 20 }] {
            for positions in case.positions() {
                let want = case.run(&case.attention(mask, positions, f32_compute(Tier::detected())));
                let got = case.run(&case.attention(mask, positions, bf16));
                let pairs = [(&got.out, &want.out), (&got.qkv, &want.qkv), (&got.p, &want.p), (&got.u, &want.u), (&got.v, &want.v)];
                let errors = pairs.map(|(got, want)| rms(got, want));
                assert!(errors.iter().all(|e| *e < BF16_TOLERANCE), "{mask:?} {errors:?}");
            }
        }
    }

    #[test]
    fn padding_does_not_leak_and_gets_zeros() {
        let clean = Case::new(70, 2, 32, &[40, 70, 0, 33]);
        for precision in [Precision::F32, Precision::Bf16] {
            for mask in MASKS {
                for positions in 0..3 {
                    let compute = Compute::new(precision, Parallel::Rayon);
                    let mut dirty = Case::new(70, 2, 32, &[40, 70, 0, 33]);
                    for i in 0..dirty.qkv.len() {
                        if !clean.is_valid(i, 3 * clean.d_model) {
                            dirty.qkv[i] = f32::NAN;
                        }
                    }
                    for i in 0..dirty.grad_out.len() {
                        if !clean.is_valid(i, clean.d_model) {
                            dirty.grad_out[i] = f32::NAN;
                        }
                    }
                    let want = clean.run(&clean.attention(mask, clean.positions()[positions], compute));
                    let got = dirty.run(&dirty.attention(mask, dirty.positions()[positions], compute));
                    assert_eq!(got, want, "{mask:?}");
                    let padded = |x: &[f32], width: usize| (0..x.len()).filter(|i| !clean.is_valid(*i, width)).all(|i| x[i] == 0.0);
                    assert!(padded(&got.out, clean.d_model) && padded(&got.qkv, 3 * clean.d_model));
                }
            }
        }
    }

    #[test]
    fn an_utterance_alone_is_the_same_as_in_a_batch_on_any_number_of_threads() {
        let batch = Case::new(90, 2, 32, &[90, 41]);
        for precision in [Precision::F32, Precision::Bf16] {
            for positions in 0..2 {
                let run = |case: &Case, parallel| {
                    case.run(&case.attention(AttentionMask::Full, case.positions()[positions], Compute::new(precision, parallel)))
                };
                let both = run(&batch, Parallel::Rayon);
                assert_eq!(both, run(&batch, Parallel::Single));
                let (mut alone, d) = (Case::new(41, 2, 32, &[41]), 32);
                alone.qkv.copy_from_slice(&batch.qkv[90 * 3 * d..131 * 3 * d]);
                alone.grad_out.copy_from_slice(&batch.grad_out[90 * d..131 * d]);
                let one = run(&alone, Parallel::Rayon);
                assert_eq!(one.out, both.out[90 * d..131 * d]);
                assert_eq!(one.qkv, both.qkv[90 * 3 * d..131 * 3 * d]);
            }
        }
    }
}
