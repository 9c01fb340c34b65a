//! Two-dimensional convolution over time and mels with channels last: the depthwise kernel with its gradients, and the
//! rearrangement (`im2col`) that turns a dense convolution into one matrix product.

use rayon::prelude::*;

use super::simd::{LINE, Line, Tier, Wide, wide_tiers};

/// Parts of the batch whose contributions to the weight gradient are summed apart; fixed, so that the result does not
/// depend on the number of threads.
const PARTS: usize = 8;

/// Where a convolution looks: every pair is [time, mels].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Taps.
    pub kernel: [usize; 2],
    /// Input positions from one output to the next.
    pub stride: [usize; 2],
    /// Zeros before the first position, and room for as many after the last.
    pub padding: [usize; 2],
}

impl Window {
    /// Output positions for `size` input positions along `axis` (0 time, 1 mels); none for none.
    pub fn output_len(&self, axis: usize, size: usize) -> usize {
        if size == 0 {
            return 0;
        }
        (size + 2 * self.padding[axis]).checked_sub(self.kernel[axis]).map_or(0, |room| room / self.stride[axis] + 1)
    }

    fn check(&self) {
        assert!((0..2).all(|axis| self.padding[axis] < self.kernel[axis] && self.stride[axis] > 0), "padding below kernel, stride above 0");
    }

    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Taps of output `at` that fall on `0..size`, and the input position of the first of them.
    fn reach(&self, axis: usize, at: usize, size: usize) -> (std::ops::Range<usize>, usize) {
        let (start, padding) = (at * self.stride[axis], self.padding[axis]);
        let first = padding.saturating_sub(start);
        let last = (size + padding).saturating_sub(start).min(self.kernel[axis]);
        (first..last.max(first), start + first - padding.min(start + first))
    }

    /// Pairs (output, tap) that read input `at`, for `outputs` outputs.
    fn readers(&self, axis: usize, at: usize, outputs: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
        let (position, stride) = (at + self.padding[axis], self.stride[axis]);
        let taps = position % stride..self.kernel[axis].min(position + 1);
        taps.step_by(stride).map(move |tap| ((position - tap) / stride, tap)).filter(move |&(output, _)| output < outputs)
    }
}

/// Shape of an input `[batch, steps, mels, channels]` and the valid steps of each member.
#[derive(Debug, Clone, Copy)]
pub struct Grid<'a> {
    /// Steps of the longest member.
    pub steps: usize,
    /// Positions along the second axis.
    pub mels: usize,
    /// Channels.
    pub channels: usize,
    /// `[batch]`; what lies at or past the length counts as zero.
    pub lengths: &'a [usize],
}

impl Grid<'_> {
    /// Elements of one step.
    fn row(&self) -> usize {
        self.mels * self.channels
    }

    fn len(&self) -> usize {
        self.lengths.len() * self.steps * self.row()
    }
}

/// Patches of `x` as rows of a matrix: times a `[kernel, kernel, channels] x [out_channels]` weight they give the convolution.
///
/// # Shapes
/// - `x`: `[batch, steps, mels, channels]`
/// - `out`: `[batch, out_steps, out_mels, kernel time, kernel mels, channels]`; rows past a member's own output length
///   are zero
pub fn im2col(x: &[f32], grid: Grid<'_>, window: Window, out: &mut [f32]) {
    let (steps, mels, patch) = (window.output_len(0, grid.steps), window.output_len(1, grid.mels), window.taps() * grid.channels);
    window.check();
    assert!(x.len() == grid.len() && out.len() == grid.lengths.len() * steps * mels * patch, "x and out as their shapes");
    if out.is_empty() {
        return;
    }
    let columns = window.kernel[1] * grid.channels;
    out.par_chunks_mut(mels * patch).enumerate().for_each(|(row, out)| {
        out.fill(0.0);
        let (b, step) = (row / steps, row % steps);
        if step >= window.output_len(0, grid.lengths[b]) {
            return;
        }
        let (taps, first) = window.reach(0, step, grid.lengths[b]);
        for (mel, out) in out.chunks_exact_mut(patch).enumerate() {
            let (reach, from) = window.reach(1, mel, grid.mels);
            let count = reach.len() * grid.channels;
            for (i, tap) in taps.clone().enumerate() {
                let source = &x[((b * grid.steps + first + i) * grid.mels + from) * grid.channels..][..count];
                out[tap * columns + reach.start * grid.channels..][..count].copy_from_slice(source);
            }
        }
    });
}

/// The adjoint of [`im2col`], which turns the gradient of the patches into that of `x`; `grad_x` is overwritten and zero
/// past the lengths.
pub fn col2im(patches: &[f32], grid: Grid<'_>, window: Window, grad_x: &mut [f32]) {
    let (steps, mels, patch) = (window.output_len(0, grid.steps), window.output_len(1, grid.mels), window.taps() * grid.channels);
    window.check();
    assert!(grad_x.len() == grid.len() && patches.len() == grid.lengths.len() * steps * mels * patch, "patches and grad_x as their shapes");
    if grad_x.is_empty() {
        return;
    }
    grad_x.par_chunks_mut(grid.row()).enumerate().for_each(|(row, grad_x)| {
        grad_x.fill(0.0);
        let (b, step) = (row / grid.steps, row % grid.steps);
        if step >= grid.lengths[b] {
            return;
        }
        for (output, tap) in window.readers(0, step, window.output_len(0, grid.lengths[b])) {
            for mel in 0..mels {
                let (reach, from) = window.reach(1, mel, grid.mels);
                let at = ((b * steps + output) * mels + mel) * patch + (tap * window.kernel[1] + reach.start) * grid.channels;
                let count = reach.len() * grid.channels;
                grad_x[from * grid.channels..][..count].iter_mut().zip(&patches[at..at + count]).for_each(|(g, p)| *g += p);
            }
        }
    });
}

/// A convolution of each channel by itself:
/// `out[t, m, c] = bias[c] + sum weight[c, i, j] * x[t * stride + i - padding, m * stride + j - padding, c]`.
///
/// Lengths as in [`super::depthwise::Depthwise`]: input past them counts as zero, output past their own output length is
/// zero and its gradient is not read.
#[derive(Debug, Clone, Copy)]
pub struct Depthwise2d<'a> {
    /// `[channels, kernel time, kernel mels]`.
    pub weight: &'a [f32],
    /// `[channels]`.
    pub bias: Option<&'a [f32]>,
    /// Taps, strides and padding.
    pub window: Window,
}

/// A tap and where the input that it meets begins.
type Pair = [usize; 2];

/// `out = start + sum_pairs weight[pair.0] * x[pair.1 ..]` over all channels; `weight` is `[taps][blocks]` lines.
#[inline(always)]
fn gather_body<V: Wide, const T: usize>(weight: &[Line], start: &[Line], pairs: &[Pair], x: &[f32], out: &mut [f32]) {
    let (blocks, channels) = (start.len(), out.len());
    let (full, rest) = out.as_chunks_mut::<LINE>();
    let (tiles, single) = full.as_chunks_mut::<T>();
    let covered = tiles.len() * T;
    for (tile, out) in tiles.iter_mut().enumerate() {
        let first = tile * T;
        let mut sums: [V; T] = std::array::from_fn(|j| V::load(&start[first + j]));
        for &[tap, at] in pairs {
            let weight = weight[tap * blocks + first..].first_chunk::<T>();
            let x = x[at..at + channels].as_chunks::<LINE>().0[first..].first_chunk::<T>();
            if let (Some(weight), Some(x)) = (weight, x) {
                for j in 0..T {
                    sums[j] = V::load(&x[j]).mul_add(V::load(&weight[j]), sums[j]);
                }
            }
        }
        out.iter_mut().zip(sums).for_each(|(out, sum)| sum.store(out));
    }
    for (block, out) in (covered..).zip(single) {
        let mut sum = V::load(&start[block]);
        for &[tap, at] in pairs {
            let x = &x[at..at + channels].as_chunks::<LINE>().0[block];
            sum = V::load(x).mul_add(V::load(&weight[tap * blocks + block]), sum);
        }
        sum.store(out);
    }
    let block = channels / LINE;
    for (i, out) in rest.iter_mut().enumerate() {
        *out = start[block][i] + pairs.iter().map(|&[tap, at]| weight[tap * blocks + block][i] * x[at + block * LINE + i]).sum::<f32>();
    }
}
wide_tiers!(fn gather(weight: &[Line], start: &[Line], pairs: &[Pair], x: &[f32], out: &mut [f32]) = gather_body);

/// Adds `grad * x[pair.1 ..]` to the sums of each pair's tap; `sums` is `[taps][blocks]` lines.
#[inline(always)]
fn scatter_body<V: Wide, const T: usize>(grad: &[f32], pairs: &[Pair], x: &[f32], sums: &mut [Line]) {
    let blocks = grad.len().div_ceil(LINE);
    let (full, rest) = grad.as_chunks::<LINE>();
    for &[tap, at] in pairs {
        let sums = &mut sums[tap * blocks..(tap + 1) * blocks];
        let (x, x_rest) = x[at..at + grad.len()].as_chunks::<LINE>();
        for ((sum, grad), x) in sums.iter_mut().zip(full).zip(x) {
            V::load(x).mul_add(V::load(grad), V::load(sum)).store(sum);
        }
        for ((sum, g), x) in sums.iter_mut().skip(full.len()).flatten().zip(rest).zip(x_rest) {
            *sum += g * x;
        }
    }
}
wide_tiers!(fn scatter(grad: &[f32], pairs: &[Pair], x: &[f32], sums: &mut [Line]) = scatter_body);

impl Depthwise2d<'_> {
    /// Convolves `x` `[batch, steps, mels, channels]` into `out` `[batch, out_steps, out_mels, channels]`.
    pub fn forward(&self, x: &[f32], grid: Grid<'_>, out: &mut [f32]) {
        self.forward_on(Tier::best(), x, grid, out);
    }

    /// Gradients of [`Depthwise2d::forward`], all written (nothing is accumulated).
    ///
    /// # Shapes
    /// - `x`, `grad_x`: `[batch, steps, mels, channels]`; `grad_x` is zero past the lengths
    /// - `grad_out`: `[batch, out_steps, out_mels, channels]`
    /// - `grad_weight`: `[channels, kernel time, kernel mels]`
    /// - `grad_bias`: `[channels]`
    pub fn backward(
        &self,
        x: &[f32],
        grid: Grid<'_>,
        grad_out: &[f32],
        grad_x: &mut [f32],
        grad_weight: &mut [f32],
        grad_bias: &mut [f32],
    ) {
        self.backward_on(Tier::best(), x, grid, grad_out, grad_x, [grad_weight, grad_bias]);
    }

    fn check(&self, grid: Grid<'_>, x: usize, out: usize) -> [usize; 2] {
        let shape = [self.window.output_len(0, grid.steps), self.window.output_len(1, grid.mels)];
        assert!(
            self.weight.len() == grid.channels * self.window.taps() && self.bias.is_none_or(|b| b.len() == grid.channels),
            "weight [channels, kernel, kernel]"
        );
        self.window.check();
        assert!(grid.lengths.iter().all(|&l| l <= grid.steps), "lengths within {} steps", grid.steps);
        assert!(x == grid.len() && out == grid.lengths.len() * shape[0] * shape[1] * grid.channels, "x and out as their shapes");
        shape
    }

    /// `[taps][blocks]` lines.
    fn packed(&self, channels: usize) -> Vec<Line> {
        let taps = self.window.taps();
        let blocks = channels.div_ceil(LINE);
        let mut packed = vec![[0.0; LINE]; taps * blocks];
        for (channel, weight) in self.weight.chunks_exact(taps).enumerate() {
            for (tap, &w) in weight.iter().enumerate() {
                packed[tap * blocks + channel / LINE][channel % LINE] = w;
            }
        }
        packed
    }

    /// Taps and input offsets of one output position of batch member `b`.
    fn pairs(&self, grid: Grid<'_>, b: usize, [step, mel]: [usize; 2], pairs: &mut Vec<Pair>) {
        let ((taps, first), (reach, from)) = (self.window.reach(0, step, grid.lengths[b]), self.window.reach(1, mel, grid.mels));
        pairs.clear();
        for (i, tap) in taps.enumerate() {
            let at = (b * grid.steps + first + i) * grid.mels + from;
            pairs.extend(reach.clone().enumerate().map(|(j, column)| [tap * self.window.kernel[1] + column, (at + j) * grid.channels]));
        }
    }

    fn forward_on(&self, tier: Tier, x: &[f32], grid: Grid<'_>, out: &mut [f32]) {
        let [steps, mels] = self.check(grid, x.len(), out.len());
        if out.is_empty() {
            return;
        }
        let weight = self.packed(grid.channels);
        let mut start = vec![[0.0; LINE]; grid.channels.div_ceil(LINE)];
        if let Some(bias) = self.bias {
            start.as_flattened_mut()[..bias.len()].copy_from_slice(bias);
        }
        out.par_chunks_mut(mels * grid.channels).enumerate().for_each_init(Vec::new, |pairs, (row, out)| {
            let (b, step) = (row / steps, row % steps);
            if step >= self.window.output_len(0, grid.lengths[b]) {
                out.fill(0.0);
                return;
            }
            for (mel, out) in out.chunks_exact_mut(grid.channels).enumerate() {
                self.pairs(grid, b, [step, mel], pairs);
                gather(tier, &weight, &start, pairs, x, out);
            }
        });
    }

    fn backward_on(&self, tier: Tier, x: &[f32], grid: Grid<'_>, grad_out: &[f32], grad_x: &mut [f32], grad_parameters: [&mut [f32]; 2]) {
        let [steps, mels] = self.check(grid, x.len(), grad_out.len());
        let ([grad_weight, grad_bias], channels, taps) = (grad_parameters, grid.channels, self.window.taps());
        assert!(
            grad_x.len() == x.len() && grad_weight.len() == self.weight.len() && grad_bias.len() == channels,
            "gradients as their values"
        );
        let (weight, none) = (self.packed(channels), vec![[0.0; LINE]; channels.div_ceil(LINE)]);
        grad_x.par_chunks_mut(grid.row().max(1)).enumerate().for_each_init(Vec::new, |pairs, (row, grad_x)| {
            let (b, step) = (row / grid.steps, row % grid.steps);
            let live = self.window.output_len(0, grid.lengths[b]);
            if step >= grid.lengths[b] {
                grad_x.fill(0.0);
                return;
            }
            for (mel, grad_x) in grad_x.chunks_exact_mut(channels).enumerate() {
                pairs.clear();
                for (output, tap) in self.window.readers(0, step, live) {
                    let row = (b * steps + output) * mels;
                    let columns = self.window.readers(1, mel, mels);
                    pairs.extend(columns.map(|(m, column)| [tap * self.window.kernel[1] + column, (row + m) * channels]));
                }
                gather(tier, &weight, &none, pairs, grad_out, grad_x);
            }
        });
        let live: Vec<[usize; 2]> =
            grid.lengths.iter().enumerate().flat_map(|(b, &l)| (0..self.window.output_len(0, l)).map(move |step| [b, step])).collect();
        let parts: Vec<&[[usize; 2]]> = live.chunks(live.len().div_ceil(PARTS).max(1)).collect();
        // For each part: the taps' sums, then the gradient's own (a tap on an input of ones).
        let blocks = channels.div_ceil(LINE);
        let size = ((taps + 1) * blocks).max(1);
        let ones = vec![1.0; channels];
        let mut sums = vec![[0.0; LINE]; parts.len() * size];
        sums.par_chunks_mut(size).zip(&parts).for_each(|(sums, part)| {
            let mut pairs = Vec::new();
            for &[b, step] in *part {
                for mel in 0..mels {
                    let grad = &grad_out[((b * steps + step) * mels + mel) * channels..][..channels];
                    self.pairs(grid, b, [step, mel], &mut pairs);
                    scatter(tier, grad, &pairs, x, sums);
                    scatter(tier, grad, &[[taps, 0]], &ones, sums);
                }
            }
        });
        let total = |tap: usize, channel: usize| -> f32 {
            sums.chunks_exact(size).map(|part| part[tap * blocks + channel / LINE][channel % LINE]).sum()
        };
        for (channel, (weight, bias)) in grad_weight.chunks_exact_mut(taps).zip(grad_bias).enumerate() {
            weight.iter_mut().enumerate().for_each(|(tap, w)| *w = total(tap, channel));
            *bias = total(taps, channel);
        }
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

    fn windows() -> [Window; 5] {
        let window = |kernel, stride, padding| Window { kernel, stride, padding };
        [
            window([3, 3], [2, 2], [1, 1]),
            window([3, 3], [1, 1], [0, 1]),
            window([1, 1], [1, 1], [0, 0]),
            window([2, 5], [3, 1], [1, 2]),
            window([3, 3], [2, 2], [0, 0]),
        ]
    }

    /// Every product of the convolution: (input, output, tap) positions without channels.
    fn products(grid: Grid<'_>, window: Window) -> Vec<[usize; 3]> {
        let (steps, mels) = (window.output_len(0, grid.steps), window.output_len(1, grid.mels));
        let mut all = Vec::new();
        for (b, &length) in grid.lengths.iter().enumerate() {
            for (t, m) in (0..window.output_len(0, length)).flat_map(|t| (0..mels).map(move |m| (t, m))) {
                for (i, j) in (0..window.kernel[0]).flat_map(|i| (0..window.kernel[1]).map(move |j| (i, j))) {
                    let from = |at: usize, tap: usize, axis: usize| (at * window.stride[axis] + tap).checked_sub(window.padding[axis]);
                    if let (Some(row), Some(column)) = (from(t, i, 0), from(m, j, 1))
                        && row < length
                        && column < grid.mels
                    {
                        all.push([(b * grid.steps + row) * grid.mels + column, (b * steps + t) * mels + m, i * window.kernel[1] + j]);
                    }
                }
            }
        }
        all
    }

    /// Fills what lies past the lengths with NaN.
    fn spoil(x: &mut [f32], steps: usize, row: usize, lengths: impl Iterator<Item = usize>) {
        for (x, length) in x.chunks_mut(steps * row).zip(lengths) {
            x[length * row..].fill(f32::NAN);
        }
    }

    #[test]
    fn depthwise_and_its_gradients_match_the_definition() {
        for window in windows() {
            for (channels, lengths) in [(1, &[5, 0, 9][..]), (21, &[9, 4]), (32, &[7]), (176, &[9, 5])] {
                let grid = Grid { steps: 9, mels: 8, channels, lengths };
                let taps = window.taps();
                let (weight, bias) = (random(channels * taps, 1), random(channels, 2));
                let conv = Depthwise2d { weight: &weight, bias: Some(&bias), window };
                let (steps, mels) = (window.output_len(0, 9), window.output_len(1, 8));
                let (mut x, mut g) = (random(grid.len(), 3), random(lengths.len() * steps * mels * channels, 4));
                spoil(&mut x, 9, grid.row(), lengths.iter().copied());
                spoil(&mut g, steps, mels * channels, lengths.iter().map(|&l| window.output_len(0, l)));
                let mut golden = [vec![0.0f64; g.len()], vec![0.0; x.len()], vec![0.0; weight.len()], vec![0.0; channels]];
                for (at, &v) in g.iter().enumerate().filter(|(_, v)| !v.is_nan()) {
                    golden[0][at] = bias[at % channels].into();
                    golden[3][at % channels] += f64::from(v);
                }
                for [input, output, tap] in products(grid, window) {
                    for c in 0..channels {
                        let (i, o, w) = (input * channels + c, output * channels + c, c * taps + tap);
                        let [xv, gv, wv] = [x[i], g[o], weight[w]].map(f64::from);
                        golden[0][o] += xv * wv;
                        golden[1][i] += gv * wv;
                        golden[2][w] += gv * xv;
                    }
                }
                for tier in Tier::available() {
                    let mut ours = golden.each_ref().map(|v| vec![9.0f32; v.len()]);
                    let [out, gx, gw, gb] = &mut ours;
                    conv.forward_on(tier, &x, grid, out);
                    conv.backward_on(tier, &x, grid, &g, gx, [gw, gb]);
                    for (what, (ours, golden)) in ["out", "grad_x", "grad_weight", "grad_bias"].iter().zip(ours.iter().zip(&golden)) {
                        for (i, (&o, &r)) in ours.iter().zip(golden).enumerate() {
                            assert!((f64::from(o) - r).abs() < 2e-5, "{tier:?} {window:?} {channels} {what} {i}: {o} {r}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn patches_hold_every_product_once_and_col2im_is_the_adjoint() {
        for window in windows() {
            let grid = Grid { steps: 9, mels: 8, channels: 3, lengths: &[9, 0, 6] };
            let mut x = random(grid.len(), 5);
            spoil(&mut x, 9, grid.row(), grid.lengths.iter().copied());
            let size = 3 * window.output_len(0, 9) * window.output_len(1, 8) * window.taps() * 3;
            let (mut patches, mut golden) = (vec![9.0; size], vec![0.0; size]);
            let (g, mut grad, mut grad_golden) = (random(size, 6), vec![9.0; x.len()], vec![0.0f32; x.len()]);
            im2col(&x, grid, window, &mut patches);
            col2im(&g, grid, window, &mut grad);
            for [input, output, tap] in products(grid, window) {
                for c in 0..3 {
                    let at = (output * window.taps() + tap) * 3 + c;
                    golden[at] = x[input * 3 + c];
                    grad_golden[input * 3 + c] += g[at];
                }
            }
            assert_eq!(patches, golden, "{window:?}");
            assert!(grad.iter().zip(&grad_golden).all(|(a, b)| (a - b).abs() < 1e-5), "{window:?}");
        }
    }
}
