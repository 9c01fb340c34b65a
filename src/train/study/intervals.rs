//! How sure a rate over several seeds is: seeds and speakers drawn anew, both at once.
//!
//! Two kinds are compared on the same draws: runs of one seed saw the same data in the same order, and heard the same utterances. With few seeds
//! the spread between them is known badly, and such an interval is rather too narrow than too wide; the values of the seeds stand beside it.

use serde::{Deserialize, Serialize};

use crate::eval::bootstrap::{Resampling, percentiles};
use crate::kernel::rng::SplitMix;

/// Counts of a set, `[seeds][groups][N]`; a group is what varies independently (a speaker, else an utterance).
pub type SetCounts<const N: usize> = Vec<Vec<[usize; N]>>;

/// A rate with its 95 % interval, fractions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Of each seed.
    pub of_seeds: Vec<f64>,
    /// Their mean.
    pub mean: f64,
    /// 2.5th percentile over draws of seeds and speakers.
    pub low: f64,
    /// 97.5th percentile.
    pub high: f64,
}

/// How much one kind differs from another.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Difference of the means, fraction; negative where the kind makes fewer errors.
    pub absolute: f64,
    /// That, relative to the other kind.
    pub relative: f64,
    /// 2.5th percentile of the absolute difference.
    pub low: f64,
    /// 97.5th percentile.
    pub high: f64,
    /// Share of draws on the other side of 0, two-tailed.
    pub p: f64,
}

/// Values of `statistic` (of the sums of each set) over draws of seeds, the same for all sets, and of the groups of each set; sorted.
fn draws<const N: usize>(sets: &[SetCounts<N>], resampling: Resampling, statistic: impl Fn(&[[usize; N]]) -> f64) -> Vec<f64> {
    let mut rng = SplitMix::new(resampling.seed);
    let mut below = |n: usize| ((rng.next_u64() >> 32) as usize * n) >> 32;
    let seeds = sets.first().map_or(0, Vec::len);
    let mut values: Vec<f64> = (0..resampling.resamples)
        .map(|_| {
            let drawn: Vec<usize> = (0..seeds).map(|_| below(seeds)).collect();
            let sums: Vec<[usize; N]> = sets
                .iter()
                .map(|set| {
                    let groups = set.first().map_or(0, Vec::len);
                    let mut sum = [0; N];
                    for _ in 0..groups {
                        let group = below(groups);
                        for &seed in &drawn {
                            sum.iter_mut().zip(set[seed][group]).for_each(|(s, n)| *s += n);
                        }
                    }
                    sum
                })
                .collect();
            statistic(&sums)
        })
        .collect();
    values.sort_by(f64::total_cmp);
    values
}

fn rate(errors: usize, words: usize) -> f64 {
    errors as f64 / words.max(1) as f64
}

/// Unweighted mean over sets.
fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len().max(1) as f64;
    values.sum::<f64>() / n
}

/// Sum over the groups of one seed.
fn total<const N: usize>(groups: &[[usize; N]]) -> [usize; N] {
    groups.iter().fold([0; N], |mut sum, counts| {
        sum.iter_mut().zip(counts).for_each(|(s, n)| *s += n);
        sum
    })
}

/// Mean over sets of errors over words; counts are `[errors, words]`.
pub fn error_rate(sets: &[SetCounts<2>], resampling: Resampling) -> Rate {
    let seeds = sets.first().map_or(0, Vec::len);
    let of_seed = |seed: usize| mean(sets.iter().map(|set| total(&set[seed])).map(|[errors, words]| rate(errors, words)));
    let of_seeds: Vec<f64> = (0..seeds).map(of_seed).collect();
    let (low, high) =
        percentiles(&draws(sets, resampling, |sums| mean(sums.iter().map(|&[errors, words]| rate(errors, words))))).unwrap_or_default();
    Rate { mean: mean(of_seeds.iter().copied()), of_seeds, low, high }
}

/// The first kind against the second; counts are `[errors, words]` of the first, then of the second.
pub fn difference(sets: &[SetCounts<4>], resampling: Resampling) -> Difference {
    let both = |sums: &[[usize; 4]]| {
        let first = mean(sums.iter().map(|s| rate(s[0], s[1])));
        (first, mean(sums.iter().map(|s| rate(s[2], s[3]))))
    };
    let all: Vec<[usize; 4]> = sets.iter().map(|set| total(&set.iter().map(|groups| total(groups)).collect::<Vec<_>>())).collect();
    let (first, second) = both(&all);
    let values = draws(sets, resampling, |sums| {
        let (first, second) = both(sums);
        first - second
    });
    let (low, high) = percentiles(&values).unwrap_or_default();
    let share = |side: &dyn Fn(f64) -> bool| values.iter().filter(|v| side(**v)).count() as f64 / values.len().max(1) as f64;
    let p = (2.0 * share(&|v| v <= 0.0).min(share(&|v| v >= 0.0))).min(1.0);
    Difference { absolute: first - second, relative: (first - second) / second.max(f64::MIN_POSITIVE), low, high, p }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_their_spread() {
        // One set, two seeds of two speakers: 10 % and 30 %.
        let set = vec![vec![[1, 10], [1, 10]], vec![[3, 10], [3, 10]]];
        let found = error_rate(std::slice::from_ref(&set), Resampling::default());
        assert_eq!(found.of_seeds, [0.1, 0.3]);
        assert!((found.mean - 0.2).abs() < 1e-12);
        // Speakers are alike: all the spread is between seeds, and a quarter of the draws takes one of them twice.
        assert_eq!((found.low, found.high), (0.1, 0.3));
        let even = error_rate(&[set, vec![vec![[0, 10]], vec![[0, 10]]]], Resampling::default());
        assert!((even.mean - 0.1).abs() < 1e-12, "sets count alike: {even:?}");
    }

    #[test]
    fn a_difference_is_paired() {
        // Speakers differ wildly, the kinds by one error each: certain, although the rates themselves are not.
        let groups: Vec<[usize; 4]> = (0..20).map(|i| [i, 20, i + 1, 20]).collect();
        let found = difference(&[vec![groups.clone(), groups.clone()]], Resampling::default());
        assert!((found.absolute + 0.05).abs() < 1e-12 && (found.low - found.high).abs() < 1e-12 && found.p == 0.0, "{found:?}");
        assert!((found.relative + 0.05 / 0.525).abs() < 1e-12);
        let same: Vec<[usize; 4]> = (0..20).map(|i| [i, 20, i, 20]).collect();
        assert_eq!(difference(&[vec![same]], Resampling::default()).p, 1.0);
    }
}
