//! Depthwise convolution over time with channels last, and its gradients.
//!
//! Work is done on blocks of 16 channels: a stretch of time is copied next to each other ("packed", 64 bytes a step,
//! zeros where there is no input), so that taps are register-sized loads from L1 with no edge cases.

use std::cell::Cell;
use std::ops::Range;

use rayon::prelude::*;

use super::simd::{LINE as BLOCK, Line, Tier, Wide, wide_tiers};

mod sees;

use sees::Sees;

/// Steps, or taps of the weight gradient, are padded to a multiple: what the widest tier holds in registers.
const TILE: usize = super::simd::MAX_TILE;
/// Output steps of one task.
const CHUNK: usize = 64;
/// Parts of the batch whose contributions to the weight gradient are summed apart; fixed, so that the result does not
/// depend on the number of threads.
const PARTS: usize = 8;

/// A depthwise convolution of stride 1: `out[t, c] = bias[c] + sum_k weight[c, k] * x[t + k - left, c]`.
///
/// Input at or past a length counts as zero, whatever it holds. Output at or past the length's own output length is
/// zero and its gradient is not read, so that an utterance gives the same in any batch.
#[derive(Debug, Clone, Copy)]
pub struct Depthwise<'a> {
    /// `[channels, kernel]`.
    pub weight: &'a [f32],
    /// `[channels]`.
    pub bias: Option<&'a [f32]>,
    /// Taps.
    pub kernel: usize,
    /// Zeros before the first step, less than `kernel`; `kernel - 1` with `right` 0 is causal.
    pub left: usize,
    /// Zeros after the last valid step, less than `kernel`.
    pub right: usize,
    /// Steps of a chunk: an output step takes input past the end of its own chunk for zero (`left + right + 1 == kernel` only).
    pub chunk: Option<usize>,
}

/// Lines from one packed block to the next: odd, so that a step's lines of all blocks do not share a cache set.
fn stride(lines: usize) -> usize {
    lines | 1
}

/// Copies steps `first..first + lines` of one utterance `[.., channels]` to `packed`: `lines` lines for each block of
/// channels. Zeros outside the `seen` steps and past the last channel.
#[inline(always)]
fn pack_body<V: Wide, const T: usize>(x: &[f32], channels: usize, first: isize, seen: Range<usize>, lines: usize, packed: &mut [Line]) {
    let zero = V::load(&[0.0; BLOCK]);
    for i in 0..lines {
        let step = first + i as isize;
        if step < seen.start as isize || step >= seen.end as isize {
            packed[i..].iter_mut().step_by(lines).for_each(|to| zero.store(to));
            continue;
        }
        let (full, rest) = x[step as usize * channels..][..channels].as_chunks::<BLOCK>();
        let mut to = packed[i..].iter_mut().step_by(lines);
        for (line, to) in full.iter().zip(&mut to) {
            V::load(line).store(to);
        }
        if let Some(to) = to.next().filter(|_| !rest.is_empty()) {
            *to = [0.0; BLOCK];
            to[..rest.len()].copy_from_slice(rest);
        }
    }
}

/// The inverse of [`pack`] for valid steps.
#[inline(always)]
fn unpack_body<V: Wide, const T: usize>(packed: &[Line], lines: usize, channels: usize, out: &mut [f32]) {
    for (i, row) in out.chunks_exact_mut(channels).enumerate() {
        let (full, rest) = row.as_chunks_mut::<BLOCK>();
        let mut from = packed[i..].iter().step_by(lines);
        for (to, line) in full.iter_mut().zip(&mut from) {
            V::load(line).store(to);
        }
        if let Some(line) = from.next().filter(|_| !rest.is_empty()) {
            rest.copy_from_slice(&line[..rest.len()]);
        }
    }
}

wide_tiers!(fn pack(x: &[f32], channels: usize, first: isize, seen: Range<usize>, lines: usize, packed: &mut [Line]) = pack_body);
wide_tiers!(fn unpack(packed: &[Line], lines: usize, channels: usize, out: &mut [f32]) = unpack_body);

thread_local! {
    /// Packed input and output of the task that runs on this thread.
    static SCRATCH: Cell<[Vec<Line>; 2]> = const { Cell::new([Vec::new(), Vec::new()]) };
}

/// Runs `f` on two scratch arrays of at least these lengths, holding anything. `f` must not wait for other tasks.
fn with_scratch(lengths: [usize; 2], f: impl FnOnce(&mut [Line], &mut [Line])) {
    let mut scratch = SCRATCH.take();
    for (lines, length) in scratch.iter_mut().zip(lengths) {
        if lines.len() < length {
            lines.resize(length, [0.0; BLOCK]);
        }
    }
    let [a, b] = &mut scratch;
    f(&mut a[..lengths[0]], &mut b[..lengths[1]]);
    SCRATCH.set(scratch);
}

/// `sums[j] = start + sum_k weight[k] * x[j + k]` for one tile of `T` steps. `x` has `weight.len() + T - 1` lines.
#[inline(always)]
fn tile<V: Wide, const T: usize>(weight: &[Line], x: &[Line], start: V) -> [V; T] {
    let mut sums = [start; T];
    for (w, x) in weight.iter().zip(x.windows(T)) {
        let w = V::load(w);
        for j in 0..T {
            sums[j] = V::load(&x[j]).mul_add(w, sums[j]);
        }
    }
    sums
}

/// One chunk of output steps of one channel block; `x` starts at the first tap of the first output.
#[inline(always)]
fn correlate_body<V: Wide, const T: usize>(weight: &[Line], start: &Line, x: &[Line], out: &mut [Line]) {
    let start = V::load(start);
    for (first, out) in (0..).step_by(T).zip(out.chunks_exact_mut(T)) {
        for (out, sum) in out.iter_mut().zip(tile::<V, T>(weight, &x[first..], start)) {
            sum.store(out);
        }
    }
}

/// Adds `sum_t grad[t] * x[t + k]` to `sums[k]` for every tap (a correlation with the gradient for weights, the taps
/// in the place of the output steps) and `sum_t grad[t]` to `total`.
#[inline(always)]
fn taps_body<V: Wide, const T: usize>(grad: &[Line], x: &[Line], sums: &mut [Line], total: &mut Line) {
    let zero = V::load(&[0.0; BLOCK]);
    for (first, sums) in (0..).step_by(T).zip(sums.chunks_exact_mut(T)) {
        for (sum, part) in sums.iter_mut().zip(tile::<V, T>(grad, &x[first..], zero)) {
            V::load(sum).add(part).store(sum);
        }
    }
    // Four sums, since each addition waits for the one before it.
    let mut lanes = [zero; 4];
    let (fours, rest) = grad.as_chunks::<4>();
    for four in fours {
        for i in 0..4 {
            lanes[i] = lanes[i].add(V::load(&four[i]));
        }
    }
    for line in rest {
        lanes[0] = lanes[0].add(V::load(line));
    }
    V::load(total).add(lanes[0].add(lanes[1]).add(lanes[2].add(lanes[3]))).store(total);
}

wide_tiers!(fn correlate_chunk(weight: &[Line], start: &Line, x: &[Line], out: &mut [Line]) = correlate_body);
wide_tiers!(fn taps_chunk(grad: &[Line], x: &[Line], sums: &mut [Line], total: &mut Line) = taps_body);

/// `[blocks][kernel]` lines of a `[channels, kernel]` weight, in order or back to front.
fn pack_weight(weight: &[f32], kernel: usize, backwards: bool) -> Vec<Line> {
    let channels = weight.len() / kernel;
    let mut packed = vec![[0.0; BLOCK]; channels.div_ceil(BLOCK) * kernel];
    for (channel, taps) in weight.chunks_exact(kernel).enumerate() {
        for (k, &w) in taps.iter().enumerate() {
            let k = if backwards { kernel - 1 - k } else { k };
            packed[channel / BLOCK * kernel + k][channel % BLOCK] = w;
        }
    }
    packed
}

/// Where the steps of an input and an output `[batch, steps, channels]` lie: their number and how many are valid.
struct Span<'a> {
    steps: usize,
    live: &'a [usize],
}

impl Depthwise<'_> {
    /// Output steps for `steps` input steps.
    pub fn output_len(&self, steps: usize) -> usize {
        (steps + self.left + self.right + 1).saturating_sub(self.kernel)
    }

    /// Convolves.
    ///
    /// # Shapes
    /// - `x`: `[batch, steps, channels]`
    /// - `lengths`: `[batch]`, valid steps of each member
    /// - `out`: `[batch, output_len(steps), channels]`
    pub fn forward(&self, x: &[f32], steps: usize, lengths: &[usize], out: &mut [f32]) {
        self.forward_on(Tier::best(), x, steps, lengths, out);
    }

    /// Gradients of [`Depthwise::forward`], all written (nothing is accumulated).
    ///
    /// # Shapes
    /// - `x`, `grad_x`: `[batch, steps, channels]`; `grad_x` is zero past the lengths
    /// - `grad_out`: `[batch, output_len(steps), channels]`
    /// - `grad_weight`: `[channels, kernel]`
    /// - `grad_bias`: `[channels]`
    #[allow(clippy::too_many_arguments)]
    pub fn backward(
        &self,
        x: &[f32],
        steps: usize,
        lengths: &[usize],
        grad_out: &[f32],
        grad_x: &mut [f32],
        grad_weight: &mut [f32],
        grad_bias: &mut [f32],
    ) {
        self.backward_on(Tier::best(), x, steps, lengths, grad_out, grad_x, [grad_weight, grad_bias]);
    }

    fn channels(&self) -> usize {
        self.weight.len() / self.kernel
    }

    fn check(&self, steps: usize, lengths: &[usize], x: usize, out: usize) {
        let channels = self.channels();
        assert!(
            self.left < self.kernel && self.right < self.kernel,
            "padding {} and {} below kernel {}",
            self.left,
            self.right,
            self.kernel
        );
        assert!(
            self.weight.len() == channels * self.kernel && self.bias.is_none_or(|b| b.len() == channels),
            "weight [channels, kernel], bias [channels]"
        );
        assert!(
            self.chunk.is_none_or(|chunk| chunk > 0 && self.left + self.right + 1 == self.kernel),
            "chunks have steps, and as many steps come out as go in"
        );
        assert!(lengths.iter().all(|&l| l <= steps), "lengths within {steps} steps");
        assert_eq!(x, lengths.len() * steps * channels, "x [batch, steps, channels]");
        assert_eq!(out, lengths.len() * self.output_len(steps) * channels, "out [batch, output_len, channels]");
    }

    /// Valid output steps of each member; none where there is no input.
    fn output_lengths(&self, lengths: &[usize]) -> Vec<usize> {
        lengths.iter().map(|&l| if l == 0 { 0 } else { self.output_len(l) }).collect()
    }

    fn forward_on(&self, tier: Tier, x: &[f32], steps: usize, lengths: &[usize], out: &mut [f32]) {
        self.check(steps, lengths, x.len(), out.len());
        let weight = pack_weight(self.weight, self.kernel, false);
        let live = self.output_lengths(lengths);
        let (from, to) = (Span { steps, live: lengths }, Span { steps: self.output_len(steps), live: &live });
        let sees = self.chunk.map_or(Sees::All, Sees::UntilChunkEnd);
        self.correlate(tier, &weight, self.bias, (self.left, sees), x, from, out, to);
    }

    /// Correlates what each output step sees of every channel of `x` with its taps, shifted `left` steps.
    #[allow(clippy::too_many_arguments)]
    fn correlate(
        &self,
        tier: Tier,
        weight: &[Line],
        bias: Option<&[f32]>,
        (left, sees): (usize, Sees),
        x: &[f32],
        from: Span<'_>,
        out: &mut [f32],
        to: Span<'_>,
    ) {
        let (channels, kernel) = (self.channels(), self.kernel);
        if out.is_empty() {
            return;
        }
        let start = |block: usize| {
            let mut line = [0.0; BLOCK];
            if let Some(bias) = bias {
                line.iter_mut().zip(&bias[block * BLOCK..]).for_each(|(line, &b)| *line = b);
            }
            line
        };
        let task = |b: usize, chunk: usize, out: &mut [f32]| {
            let first = chunk * CHUNK;
            let live = to.live[b].saturating_sub(first).min(out.len() / channels);
            let (valid, rest) = out.split_at_mut(live * channels);
            rest.fill(0.0);
            if live == 0 {
                return;
            }
            let x = &x[b * from.steps * channels..(b + 1) * from.steps * channels];
            let blocks = channels.div_ceil(BLOCK);
            for piece in sees.pieces(first..first + live) {
                let padded = piece.len().next_multiple_of(TILE);
                let (lines, sum_lines) = (stride(padded + kernel - 1), stride(padded));
                with_scratch([blocks * lines, blocks * sum_lines], |packed, sums| {
                    pack(tier, x, channels, piece.start as isize - left as isize, sees.steps(piece.start, from.live[b]), lines, packed);
                    for (block, weight) in weight.chunks_exact(kernel).enumerate() {
                        let (x, sums) = (&packed[block * lines..(block + 1) * lines], &mut sums[block * sum_lines..][..padded]);
                        correlate_chunk(tier, weight, &start(block), x, sums);
                    }
                    unpack(tier, sums, sum_lines, channels, &mut valid[(piece.start - first) * channels..(piece.end - first) * channels]);
                });
            }
        };
        out.par_chunks_mut(to.steps * channels).enumerate().for_each(|(b, out)| {
            out.par_chunks_mut(CHUNK * channels).enumerate().for_each(|(chunk, out)| task(b, chunk, out));
        });
    }

    #[allow(clippy::too_many_arguments)]
    fn backward_on(
        &self,
        tier: Tier,
        x: &[f32],
        steps: usize,
        lengths: &[usize],
        grad_out: &[f32],
        grad_x: &mut [f32],
        grad_parameters: [&mut [f32]; 2],
    ) {
        self.check(steps, lengths, x.len(), grad_out.len());
        let channels = self.channels();
        let [grad_weight, grad_bias] = grad_parameters;
        assert!(
            grad_x.len() == x.len() && grad_weight.len() == self.weight.len() && grad_bias.len() == channels,
            "gradients as their values"
        );
        let live = self.output_lengths(lengths);
        let output = self.output_len(steps);
        // The gradient of a correlation is one with the taps back to front.
        let weight = pack_weight(self.weight, self.kernel, true);
        let (from, to) = (Span { steps: output, live: &live }, Span { steps, live: lengths });
        let sees = self.chunk.map_or(Sees::All, Sees::FromChunkStart);
        self.correlate(tier, &weight, None, (self.kernel - 1 - self.left, sees), grad_out, from, grad_x, to);
        self.parameters(tier, x, Span { steps, live: lengths }, grad_out, Span { steps: output, live: &live }, grad_weight, grad_bias);
    }

    /// Gradients of weight and bias.
    #[allow(clippy::too_many_arguments)]
    fn parameters(
        &self,
        tier: Tier,
        x: &[f32],
        from: Span<'_>,
        grad: &[f32],
        to: Span<'_>,
        grad_weight: &mut [f32],
        grad_bias: &mut [f32],
    ) {
        let (channels, kernel) = (self.channels(), self.kernel);
        let sees = self.chunk.map_or(Sees::All, Sees::UntilChunkEnd);
        let tasks = |live: usize| (0..live).step_by(CHUNK).flat_map(move |t| sees.pieces(t..(t + CHUNK).min(live)));
        let pieces: Vec<(usize, Range<usize>)> =
            to.live.iter().enumerate().flat_map(|(b, &live)| tasks(live).map(move |piece| (b, piece))).collect();
        let parts: Vec<_> = pieces.chunks(pieces.len().div_ceil(PARTS).max(1)).collect();
        let (taps, blocks) = (kernel.next_multiple_of(TILE), channels.div_ceil(BLOCK));
        // For each part and block: the taps' sums, then the gradient's own.
        let mut sums = vec![[0.0; BLOCK]; parts.len() * blocks * (taps + 1)];
        sums.par_chunks_mut(blocks * (taps + 1)).zip(&parts).for_each(|(sums, part)| {
            with_scratch([blocks * stride(CHUNK + taps), blocks * stride(CHUNK)], |lines, grads| {
                for (b, piece) in *part {
                    let (b, first, count) = (*b, piece.start, piece.len());
                    let x = &x[b * from.steps * channels..(b + 1) * from.steps * channels];
                    let grad = &grad[b * to.steps * channels..(b + 1) * to.steps * channels];
                    let (width, grad_width) = (stride(count + taps), stride(count));
                    pack(tier, grad, channels, first as isize, 0..to.live[b], grad_width, grads);
                    pack(tier, x, channels, first as isize - self.left as isize, sees.steps(first, from.live[b]), width, lines);
                    for (i, sums) in sums.chunks_exact_mut(taps + 1).enumerate() {
                        let (sums, total) = sums.split_at_mut(taps);
                        let grads = &grads[i * grad_width..][..count];
                        taps_chunk(tier, grads, &lines[i * width..(i + 1) * width], sums, &mut total[0]);
                    }
                }
            });
        });
        grad_weight.par_chunks_mut(BLOCK * kernel).zip(grad_bias.par_chunks_mut(BLOCK)).enumerate().for_each(|(block, (weight, bias))| {
            let mut total = vec![[0.0; BLOCK]; taps + 1];
            for part in sums.chunks_exact(blocks * (taps + 1)) {
                for (total, part) in total.iter_mut().zip(&part[block * (taps + 1)..]) {
                    total.iter_mut().zip(part).for_each(|(t, p)| *t += p);
                }
            }
            for (i, weight) in weight.chunks_exact_mut(kernel).enumerate() {
                weight.iter_mut().zip(&total).for_each(|(w, sum)| *w = sum[i]);
            }
            bias.copy_from_slice(&total[taps][..bias.len()]);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::rng::SplitMix;

    fn random(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = SplitMix::new(seed);
        (0..n).map(|_| rng.next_normal()).collect()
    }

    struct Case {
        lengths: Vec<usize>,
        steps: usize,
        channels: usize,
        kernel: usize,
        left: usize,
        right: usize,
        chunk: Option<usize>,
    }

    fn cases() -> Vec<Case> {
        let chunked = |chunk, case: Case| Case { chunk: Some(chunk), ..case };
        let case = |lengths: &[usize], channels, kernel, left, right| Case {
            chunk: None,
            steps: lengths.iter().copied().max().unwrap() + 2,
            lengths: lengths.to_vec(),
            channels,
            kernel,
            left,
            right,
        };
        vec![
            case(&[5, 0, 3], 3, 3, 1, 1),
            case(&[1], 1, 1, 0, 0),
            case(&[70, 129], 20, 31, 15, 15),
            case(&[10, 64], 16, 15, 14, 0),
            case(&[9, 20], 33, 4, 1, 2),
            case(&[4, 12], 17, 9, 0, 0),
            case(&[200], 40, 9, 4, 4),
            case(&[150, 30, 700], 552, 5, 2, 2),
            chunked(1, case(&[9, 4], 5, 5, 2, 2)),
            chunked(4, case(&[70, 0, 129], 20, 15, 7, 7)),
            chunked(10, case(&[33, 200], 18, 9, 4, 4)),
            chunked(64, case(&[150, 64], 16, 31, 15, 15)),
            chunked(1000, case(&[70, 129], 20, 31, 15, 15)),
        ]
    }

    /// Output and gradients by definition, in f64.
    fn reference(c: &Case, conv: &Depthwise<'_>, x: &[f32], g: &[f32]) -> [Vec<f64>; 4] {
        let out_steps = conv.output_len(c.steps);
        let mut out = vec![0.0; g.len()];
        let (mut gx, mut gw, mut gb) = (vec![0.0; x.len()], vec![0.0; c.channels * c.kernel], vec![0.0; c.channels]);
        for (b, &length) in c.lengths.iter().enumerate() {
            let live = if length == 0 { 0 } else { (length + c.left + c.right + 1).saturating_sub(c.kernel) };
            for t in 0..live {
                for channel in 0..c.channels {
                    let at = (b * out_steps + t) * c.channels + channel;
                    out[at] += f64::from(conv.bias.map_or(0.0, |bias| bias[channel]));
                    gb[channel] += f64::from(g[at]);
                    for k in 0..c.kernel {
                        let end = c.chunk.map_or(length, |chunk| length.min((t / chunk + 1) * chunk));
                        let Some(from) = (t + k).checked_sub(c.left).filter(|&s| s < end) else { continue };
                        let source = (b * c.steps + from) * c.channels + channel;
                        let w = channel * c.kernel + k;
                        out[at] += f64::from(conv.weight[w]) * f64::from(x[source]);
                        gx[source] += f64::from(conv.weight[w]) * f64::from(g[at]);
                        gw[w] += f64::from(g[at]) * f64::from(x[source]);
                    }
                }
            }
        }
        [out, gx, gw, gb]
    }

    #[test]
    fn output_and_gradients_match_the_definition() {
        for c in cases() {
            let (weight, bias) = (random(c.channels * c.kernel, 1), random(c.channels, 2));
            for bias in [None, Some(&bias[..])] {
                let conv = Depthwise { weight: &weight, bias, kernel: c.kernel, left: c.left, right: c.right, chunk: c.chunk };
                let mut x = random(c.lengths.len() * c.steps * c.channels, 3);
                let mut g = random(c.lengths.len() * conv.output_len(c.steps) * c.channels, 4);
                // Whatever lies in the padding must not be read.
                for (b, &length) in c.lengths.iter().enumerate() {
                    x[(b * c.steps + length) * c.channels..(b + 1) * c.steps * c.channels].fill(f32::NAN);
                    let (steps, live) = (conv.output_len(c.steps), if length == 0 { 0 } else { conv.output_len(length) });
                    g[(b * steps + live) * c.channels..(b + 1) * steps * c.channels].fill(f32::NAN);
                }
                let golden = reference(&c, &conv, &x, &g);
                for tier in Tier::available() {
                    let mut ours = golden.each_ref().map(|v| vec![9.0f32; v.len()]);
                    let [out, gx, gw, gb] = &mut ours;
                    conv.forward_on(tier, &x, c.steps, &c.lengths, out);
                    conv.backward_on(tier, &x, c.steps, &c.lengths, &g, gx, [gw, gb]);
                    for (what, (ours, golden)) in ["out", "grad_x", "grad_weight", "grad_bias"].iter().zip(ours.iter().zip(&golden)) {
                        for (i, (&o, &r)) in ours.iter().zip(golden).enumerate() {
                            assert!((f64::from(o) - r).abs() < 3e-5, "{tier:?} kernel {} {what} {i}: {o} {r}", c.kernel);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn an_utterance_alone_equals_itself_in_a_batch() {
        let (channels, kernel) = (24, 15);
        let (weight, bias) = (random(channels * kernel, 5), random(channels, 6));
        let conv = Depthwise { weight: &weight, bias: Some(&bias), kernel, left: 7, right: 7, chunk: None };
        let x = random(2 * 90 * channels, 7);
        let (mut both, mut alone) = (vec![0.0; x.len()], vec![0.0; 40 * channels]);
        conv.forward(&x, 90, &[90, 40], &mut both);
        conv.forward(&x[90 * channels..][..40 * channels], 40, &[40], &mut alone);
        assert_eq!(&both[90 * channels..][..40 * channels], &alone[..]);
    }
}
