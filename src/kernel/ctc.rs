//! Connectionist temporal classification: loss and gradient from raw logits.
//!
//! Only the emissions of the target's own labels enter the recursion. It runs in f64 log space whatever the logits'
//! type, with blanks and labels in separate arrays so that every step is a few vector operations; the backward
//! variables are the forward variables of the reversed problem.

use rayon::prelude::*;

use super::math::{self, LOG_ZERO};
use super::simd::{Tier, tiered};
use super::softmax::{row_exp, row_max, row_scale, row_sum_exp};

/// f64 values that the recursion handles together; rows are padded to a multiple.
const LANES: usize = 8;

/// Element type of the logits and their gradient: `f32`, or `f64` for reference values.
pub trait Real: Copy + Send + Sync + sealed::Row {}
impl Real for f32 {}
impl Real for f64 {}

mod sealed {
    use super::Tier;

    /// What the loss does with rows of logits.
    pub trait Row: Sized {
        const ZERO: Self;
        fn to_f64(self) -> f64;
        fn from_f64(v: f64) -> Self;
        /// Largest element.
        fn max(tier: Tier, row: &[Self]) -> Self;
        /// Sum of `e^(x - max)`, each term also written to `out` if given.
        fn exp(tier: Tier, row: &[Self], max: Self, out: Option<&mut [Self]>) -> f64;
        /// Multiplies the row.
        fn scale(tier: Tier, row: &mut [Self], factor: f64);
    }
}
use sealed::Row;

impl Row for f32 {
    const ZERO: Self = 0.0;
    fn to_f64(self) -> f64 {
        self.into()
    }
    fn from_f64(v: f64) -> Self {
        v as Self
    }
    fn max(tier: Tier, row: &[Self]) -> Self {
        row_max(tier, row)
    }
    fn exp(tier: Tier, row: &[Self], max: Self, out: Option<&mut [Self]>) -> f64 {
        match out {
            Some(out) => row_exp(tier, row, max, out),
            None => row_sum_exp(tier, row, max),
        }
        .into()
    }
    fn scale(tier: Tier, row: &mut [Self], factor: f64) {
        row_scale(tier, row, factor as Self);
    }
}

impl Row for f64 {
    const ZERO: Self = 0.0;
    fn to_f64(self) -> f64 {
        self
    }
    fn from_f64(v: f64) -> Self {
        v
    }
    fn max(_tier: Tier, row: &[Self]) -> Self {
        row.iter().copied().fold(Self::NEG_INFINITY, Self::max)
    }
    fn exp(_tier: Tier, row: &[Self], max: Self, out: Option<&mut [Self]>) -> f64 {
        match out {
            Some(out) => {
                out.iter_mut().zip(row).for_each(|(o, &v)| *o = (v - max).exp());
                out.iter().sum()
            }
            None => row.iter().map(|&v| (v - max).exp()).sum(),
        }
    }
    fn scale(_tier: Tier, row: &mut [Self], factor: f64) {
        row.iter_mut().for_each(|v| *v *= factor);
    }
}

/// Shape of a batch of logits `[batch, steps, vocab]` and which symbol is the blank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ctc {
    /// Steps of the longest member.
    pub steps: usize,
    /// Symbols, blank included.
    pub vocab: usize,
    /// Index of the blank.
    pub blank: usize,
}

impl Ctc {
    /// Negative log-likelihood (natural log) of each target, and the gradient of their sum.
    ///
    /// # Shapes
    /// - `logits`: `[batch, steps, vocab]`, not normalised
    /// - `lengths`: `[batch]`; logits at or past the length are not read and get gradient 0
    /// - `targets`: `[batch]` slices of symbols below `vocab`
    /// - `grad`: as `logits`, overwritten with the derivative of the sum of the finite losses
    /// - returns `[batch]`; infinity (with gradient 0) where no alignment exists
    ///
    /// # Numerics
    /// Exponentials and sums over the vocabulary in the logits' type, the recursion in f64. NaN logits give a NaN loss.
    ///
    /// # Reference
    /// Graves et al. 2006, sections 4 and 5. Differs: log space, gradient through the softmax in one piece.
    pub fn loss<R: Real, T: AsRef<[u32]> + Sync>(
        &self,
        logits: &[R],
        lengths: &[usize],
        targets: &[T],
        grad: Option<&mut [R]>,
    ) -> Vec<f64> {
        self.loss_on(Tier::best(), logits, lengths, targets, grad)
    }

    fn loss_on<R: Real, T: AsRef<[u32]> + Sync>(
        &self,
        tier: Tier,
        logits: &[R],
        lengths: &[usize],
        targets: &[T],
        grad: Option<&mut [R]>,
    ) -> Vec<f64> {
        let size = self.steps * self.vocab;
        assert!(logits.len() == lengths.len() * size && targets.len() == lengths.len(), "logits [batch, steps, vocab], targets [batch]");
        assert!(self.blank < self.vocab && lengths.iter().all(|&l| l <= self.steps), "blank below vocab, lengths within steps");
        assert!(targets.iter().all(|t| t.as_ref().iter().all(|&s| (s as usize) < self.vocab)), "targets below vocab {}", self.vocab);
        if size == 0 {
            return targets.iter().map(|t| if t.as_ref().is_empty() { 0.0 } else { f64::INFINITY }).collect();
        }
        let one = |b: usize, grad: Option<&mut [R]>| {
            let target = targets[b].as_ref();
            Utterance { tier, vocab: self.vocab, blank: self.blank, logits: &logits[b * size..][..lengths[b] * self.vocab], target }
                .loss(grad)
        };
        match grad {
            Some(grad) => {
                assert_eq!(grad.len(), logits.len(), "grad as logits");
                grad.par_chunks_mut(size).enumerate().map(|(b, grad)| one(b, Some(grad))).collect()
            }
            None => (0..lengths.len()).into_par_iter().map(|b| one(b, None)).collect(),
        }
    }
}

/// Fewest steps that can spell `target`: a blank must part equal neighbours.
pub fn min_steps(target: &[u32]) -> usize {
    target.len() + target.windows(2).filter(|w| w[0] == w[1]).count()
}

struct Utterance<'a, R> {
    tier: Tier,
    vocab: usize,
    blank: usize,
    /// Valid steps only.
    logits: &'a [R],
    target: &'a [u32],
}

/// Log-probabilities of a target's symbols at every step, and which labels may follow each other without a blank.
struct Emissions {
    /// Padded number of labels plus one.
    width: usize,
    /// `[steps]`.
    blank: Vec<f64>,
    /// `[steps, width]`, [`LOG_ZERO`] past the target.
    labels: Vec<f64>,
    /// `[width]`: 0 where label i may follow label i - 1 directly, else [`LOG_ZERO`].
    skip: Vec<f64>,
}

/// Forward variables: row t holds `width` blanks, [`LANES`] times log zero, `width` labels.
struct Lattice {
    rows: Vec<f64>,
    stride: usize,
    labels: usize,
}

impl Lattice {
    /// Blanks and labels at `step`, padded.
    fn row(&self, step: usize) -> [&[f64]; 2] {
        let row = &self.rows[step * self.stride..(step + 1) * self.stride];
        [&row[..self.labels - LANES], &row[self.labels..]]
    }
}

/// One step of the recursion: `now` from `past`, both rows of a [`Lattice`].
#[inline(always)]
fn advance_body<const FMA: bool, const L: usize>(past: &[f64], now: &mut [f64], blank: f64, labels: &[f64], skip: &[f64]) {
    let width = labels.len();
    let (now_blanks, now_labels) = now.split_at_mut(width);
    let past_blanks = past[..width].as_chunks::<LANES>().0;
    let past_labels = past[width + LANES..].as_chunks::<LANES>().0;
    // One to the left: the label before.
    let before = past[width + LANES - 1..].as_chunks::<LANES>().0;
    let given = labels.as_chunks::<LANES>().0.iter().zip(skip.as_chunks::<LANES>().0);
    let now_labels = now_labels[LANES..].as_chunks_mut::<LANES>().0;
    let now = now_blanks.as_chunks_mut::<LANES>().0.iter_mut().zip(now_labels);
    for ((((now_b, now_l), b), (l, p)), (e, s)) in now.zip(past_blanks).zip(past_labels.iter().zip(before)).zip(given) {
        for j in 0..LANES {
            now_b[j] = math::log_add::<FMA>(b[j], p[j]) + blank;
        }
        for j in 0..LANES {
            now_l[j] = math::log_add3::<FMA>(l[j], b[j], p[j] + s[j]) + e[j];
        }
    }
}
tiered!(fn advance(past: &[f64], now: &mut [f64], blank: f64, labels: &[f64], skip: &[f64]) = advance_body);

/// Posteriors of blanks and labels at one step, `exp(forward[i] + backward[n - 1 - i] - emission[i] + nll)`; each pair
/// is [blanks, labels]. Both variables hold the step's emission, so one is taken off.
#[inline(always)]
fn occupancy_body<const FMA: bool, const L: usize>(
    forward: [&[f64]; 2],
    backward: [&[f64]; 2],
    blank: f64,
    labels: &[f64],
    nll: f64,
    out: [&mut [f64]; 2],
) {
    let [out_blanks, out_labels] = out;
    let count = labels.len();
    out_blanks[count + 1..].fill(LOG_ZERO);
    out_labels[count..].fill(LOG_ZERO);
    for ((o, f), b) in out_blanks.iter_mut().zip(&forward[0][..=count]).zip(backward[0][..=count].iter().rev()) {
        *o = f + b - blank + nll;
    }
    for (((o, f), b), e) in out_labels.iter_mut().zip(forward[1]).zip(backward[1][..count].iter().rev()).zip(labels) {
        *o = f + b - e + nll;
    }
    for out in [out_blanks, out_labels] {
        for o in out.as_chunks_mut::<LANES>().0 {
            for o in o {
                *o = math::exp64::<FMA>(*o);
            }
        }
    }
}
tiered!(fn occupancy(
    forward: [&[f64]; 2], backward: [&[f64]; 2], blank: f64, labels: &[f64], nll: f64, out: [&mut [f64]; 2]
) = occupancy_body);

impl<R: Real> Utterance<'_, R> {
    fn loss(&self, grad: Option<&mut [R]>) -> f64 {
        let steps = self.logits.len() / self.vocab;
        let possible = steps >= min_steps(self.target);
        if steps == 0 || !possible {
            grad.into_iter().for_each(|g| g.fill(R::ZERO));
            return if possible { 0.0 } else { f64::INFINITY };
        }
        let Some(grad) = grad else {
            let sums = self.normalise(None);
            let (_, nll) = self.lattice(&self.emissions(&sums, false));
            return nll;
        };
        let (live, rest) = grad.split_at_mut(steps * self.vocab);
        rest.fill(R::ZERO);
        let sums = self.normalise(Some(live));
        let (forward, backward) = rayon::join(
            || {
                let emissions = self.emissions(&sums, false);
                let (lattice, nll) = self.lattice(&emissions);
                (emissions, lattice, nll)
            },
            || self.lattice(&self.emissions(&sums, true)).0,
        );
        let (emissions, forward, nll) = forward;
        if nll == f64::INFINITY {
            live.fill(R::ZERO);
            return nll;
        }
        let count = super::rows::per_task(self.vocab);
        super::rows::for_chunks(live, count * self.vocab, |i, grad| {
            let mut scratch = vec![0.0; 2 * emissions.width];
            for (j, grad) in grad.chunks_exact_mut(self.vocab).enumerate() {
                let step = i * count + j;
                R::scale(self.tier, grad, 1.0 / sums[step].1);
                self.subtract_occupancy(&emissions, &forward, &backward, nll, [step, steps - 1 - step], &mut scratch, grad);
            }
        });
        nll
    }

    /// Per step: the log of the softmax's denominator, and the denominator after the maximum is taken out. Leaves
    /// `e^(x - max)` in `out`.
    fn normalise(&self, out: Option<&mut [R]>) -> Vec<(f64, f64)> {
        let row = |row: &[R], out: Option<&mut [R]>| {
            let max = R::max(self.tier, row);
            let sum = R::exp(self.tier, row, max, out);
            (max.to_f64() + sum.ln(), sum)
        };
        let count = super::rows::per_task(self.vocab);
        let mut sums = vec![(0.0, 0.0); self.logits.len() / self.vocab];
        match out {
            Some(out) => super::rows::for_chunks2(out, count * self.vocab, &mut sums, count, |i, out, sums| {
                let rows = self.logits[i * count * self.vocab..].chunks_exact(self.vocab);
                for ((x, out), sum) in rows.zip(out.chunks_exact_mut(self.vocab)).zip(sums) {
                    *sum = row(x, Some(out));
                }
            }),
            None => sums
                .par_iter_mut()
                .zip(self.logits.par_chunks_exact(self.vocab))
                .with_min_len(count)
                .for_each(|(sum, x)| *sum = row(x, None)),
        }
        sums
    }

    /// Emissions of the target, or of the whole problem back to front.
    fn emissions(&self, sums: &[(f64, f64)], backwards: bool) -> Emissions {
        let (steps, count) = (sums.len(), self.target.len());
        let width = (count + 1).next_multiple_of(LANES);
        let symbol = |i: usize| self.target[if backwards { count - 1 - i } else { i }] as usize;
        let mut labels = vec![LOG_ZERO; steps * width];
        let mut blank = vec![0.0; steps];
        for (t, (labels, blank)) in labels.chunks_exact_mut(width).zip(&mut blank).enumerate() {
            let t = if backwards { steps - 1 - t } else { t };
            let row = &self.logits[t * self.vocab..][..self.vocab];
            // Minus infinity (a masked symbol) becomes the finite log zero; NaN stays.
            let log_prob = |symbol: usize| {
                let v = row[symbol].to_f64() - sums[t].0;
                if v < LOG_ZERO { LOG_ZERO } else { v }
            };
            *blank = log_prob(self.blank);
            (0..count).for_each(|i| labels[i] = log_prob(symbol(i)));
        }
        let mut skip = vec![LOG_ZERO; width];
        (1..count).filter(|&i| symbol(i) != symbol(i - 1)).for_each(|i| skip[i] = 0.0);
        Emissions { width, blank, labels, skip }
    }

    /// Forward variables of all steps, and the negative log-likelihood.
    fn lattice(&self, e: &Emissions) -> (Lattice, f64) {
        let (steps, width, count) = (e.blank.len(), e.width, self.target.len());
        let stride = 2 * width + LANES;
        let mut rows = vec![LOG_ZERO; steps * stride];
        rows[0] = e.blank[0];
        rows[width + LANES] = e.labels[0];
        for t in 1..steps {
            let (past, now) = rows.split_at_mut(t * stride);
            advance(self.tier, &past[(t - 1) * stride..], &mut now[..stride], e.blank[t], &e.labels[t * width..][..width], &e.skip);
        }
        let last = &rows[(steps - 1) * stride..];
        let label = if count == 0 { LOG_ZERO } else { last[width + LANES + count - 1] };
        let log_likelihood = math::log_add::<false>(last[count], label);
        // Any real path is far above log zero, any impossible one near it or below.
        let nll = if log_likelihood < 0.1 * LOG_ZERO { f64::INFINITY } else { -log_likelihood };
        (Lattice { rows, stride, labels: width + LANES }, nll)
    }

    /// Takes the posterior of each symbol at one step from the gradient's row, which holds the softmax.
    /// `at`: the step in the forward and in the backward lattice; `scratch`: `[2, width]`.
    #[allow(clippy::too_many_arguments)]
    fn subtract_occupancy(
        &self,
        e: &Emissions,
        forward: &Lattice,
        backward: &Lattice,
        nll: f64,
        at: [usize; 2],
        scratch: &mut [f64],
        grad: &mut [R],
    ) {
        let count = self.target.len();
        let (blanks, labels) = scratch.split_at_mut(e.width);
        let emitted = &e.labels[at[0] * e.width..][..count];
        occupancy(self.tier, forward.row(at[0]), backward.row(at[1]), e.blank[at[0]], emitted, nll, [&mut *blanks, &mut *labels]);
        let subtract = |v: &mut R, p: f64| *v = R::from_f64(v.to_f64() - p);
        subtract(&mut grad[self.blank], blanks[..=count].iter().sum());
        for (&symbol, &p) in self.target.iter().zip(&*labels) {
            subtract(&mut grad[symbol as usize], p);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::rng::SplitMix;

    fn random(n: usize, scale: f32, seed: u64) -> Vec<f32> {
        let mut rng = SplitMix::new(seed);
        (0..n).map(|_| rng.next_normal() * scale).collect()
    }

    /// Sum over every path of the probability of those that collapse to `target`.
    fn brute_force(logits: &[f64], vocab: usize, blank: usize, target: &[u32]) -> f64 {
        let steps = logits.len() / vocab;
        let probabilities: Vec<f64> = logits
            .chunks(vocab)
            .flat_map(|row| {
                let sum: f64 = row.iter().map(|v| v.exp()).sum();
                row.iter().map(move |v| v.exp() / sum)
            })
            .collect();
        let mut total = 0.0;
        for code in 0..vocab.pow(steps as u32) {
            let path: Vec<usize> = (0..steps).map(|t| code / vocab.pow(t as u32) % vocab).collect();
            let mut collapsed = Vec::new();
            for (t, &s) in path.iter().enumerate() {
                if s != blank && (t == 0 || path[t - 1] != s) {
                    collapsed.push(s as u32);
                }
            }
            if collapsed == target {
                total += path.iter().enumerate().map(|(t, &s)| probabilities[t * vocab + s]).product::<f64>();
            }
        }
        -total.ln()
    }

    #[test]
    fn loss_and_gradient_match_brute_force() {
        let (steps, vocab, blank) = (5, 3, 1);
        let targets: [&[u32]; 5] = [&[0, 2], &[], &[2, 2], &[0, 2, 0], &[2, 2, 2, 2]];
        let logits: Vec<f64> = random(5 * steps * vocab, 1.5, 1).iter().map(|&v| v.into()).collect();
        let narrow: Vec<f32> = logits.iter().map(|&v| v as f32).collect();
        let lengths = [5, 4, 5, 5, 5];
        let ctc = Ctc { steps, vocab, blank };
        let value = |logits: &[f64], b: usize| brute_force(&logits[b * steps * vocab..][..lengths[b] * vocab], vocab, blank, targets[b]);
        for tier in Tier::available() {
            let (mut grad, mut narrow_grad) = (vec![9.0; logits.len()], vec![9.0; logits.len()]);
            let nll = ctc.loss_on(tier, &logits, &lengths, &targets, Some(&mut grad));
            let narrow_nll = ctc.loss_on(tier, &narrow, &lengths, &targets, Some(&mut narrow_grad));
            assert_eq!(nll, ctc.loss_on(tier, &logits, &lengths, &targets, None));
            for b in 0..4 {
                let golden = value(&logits, b);
                assert!(
                    (nll[b] - golden).abs() < 1e-12 * golden && (narrow_nll[b] - golden).abs() < 1e-6 * golden,
                    "{tier:?} {b}: {} {golden}",
                    nll[b]
                );
            }
            assert!(nll[4] == f64::INFINITY && narrow_nll[4] == f64::INFINITY);
            for i in 0..logits.len() {
                let b = i / (steps * vocab);
                let shifted = |by: f64| {
                    let mut moved = logits.clone();
                    moved[i] += by;
                    value(&moved, b)
                };
                let golden = if b == 4 { 0.0 } else { (shifted(1e-5) - shifted(-1e-5)) / 2e-5 };
                assert!((grad[i] - golden).abs() < 1e-9, "{tier:?} {i}: {} {golden}", grad[i]);
                assert!((f64::from(narrow_grad[i]) - golden).abs() < 1e-6, "{tier:?} {i}: {} {golden}", narrow_grad[i]);
            }
        }
    }

    #[test]
    fn padding_is_not_read_and_masked_symbols_have_no_path() {
        let ctc = Ctc { steps: 6, vocab: 5, blank: 0 };
        let mut logits = random(2 * 6 * 5, 1.0, 2);
        logits[4 * 5..6 * 5].fill(f32::NAN);
        // The second member may never emit symbol 3.
        (0..6).for_each(|t| logits[30 + t * 5 + 3] = f32::NEG_INFINITY);
        for tier in Tier::available() {
            let mut grad = vec![9.0; 60];
            let nll = ctc.loss_on(tier, &logits, &[4, 6], &[vec![1, 3], vec![1, 3]], Some(&mut grad));
            assert!(nll[0].is_finite() && nll[1] == f64::INFINITY, "{nll:?}");
            assert!(grad[..20].iter().all(|g| g.is_finite()) && grad[20..].iter().all(|&g| g == 0.0));
            let possible = ctc.loss_on(tier, &logits, &[4, 6], &[vec![1], vec![1, 2]], Some(&mut grad));
            assert!(possible[1].is_finite() && grad[30..].iter().all(|g| g.is_finite()), "{possible:?} {grad:?}");
            for row in grad[30..].chunks(5) {
                assert!(row.iter().sum::<f32>().abs() < 1e-6 && row[3] == 0.0);
            }
        }
    }

    #[test]
    fn a_nan_logit_gives_a_nan_loss() {
        let ctc = Ctc { steps: 3, vocab: 40, blank: 0 };
        for at in [0, 39, 45, 119] {
            let mut logits = random(120, 1.0, 3);
            logits[at] = f32::NAN;
            for tier in Tier::available() {
                assert!(ctc.loss_on(tier, &logits, &[3], &[[1u32]], None)[0].is_nan(), "{tier:?} {at}");
            }
        }
    }

    #[test]
    fn empty_batches_and_lengths() {
        let none: [&[u32]; 0] = [];
        assert!(Ctc { steps: 3, vocab: 4, blank: 0 }.loss::<f32, _>(&[], &[], &none, None).is_empty());
        let empty: [&[u32]; 2] = [&[], &[1]];
        assert_eq!(Ctc { steps: 0, vocab: 4, blank: 0 }.loss::<f32, _>(&[], &[0, 0], &empty, Some(&mut [])), [0.0, f64::INFINITY]);
        assert_eq!(min_steps(&[1, 1, 2, 2, 2]), 8);
    }
}
