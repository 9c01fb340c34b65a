//! Whether one system is better than another on the same utterances: paired bootstrap, matched pairs (MAPSSWE), McNemar.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::aligner::Aligner;
use super::alignment::{Chunk, Edit};
use super::bootstrap::{Groups, Interval, Resampling, percentiles, rate, resample};
use super::score::Scored;
use super::summary::by_name;
use super::wer::WordErrors;
use crate::error::{Error, Result};

/// Two results on the same utterances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// Set by set, in the order of the first result.
    pub sets: Vec<Paired>,
    /// All sets together; its name is empty.
    pub all: Paired,
    /// Utterances that only the first result has, as set and id; they take no part.
    pub only_first: Vec<(String, String)>,
    /// Utterances that only the second result has.
    pub only_second: Vec<(String, String)>,
}

/// The tests on one set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paired {
    /// Name of the set.
    pub name: String,
    /// Utterances that both results have.
    pub utterances: usize,
    /// Word errors of the first and the second result.
    pub words: [WordErrors; 2],
    /// Second word error rate minus first.
    pub difference: f64,
    /// The difference over the first word error rate; `None` where that is 0.
    pub relative_change: Option<f64>,
    /// Paired bootstrap.
    pub bootstrap: Option<PairedBootstrap>,
    /// Matched pairs of segments.
    pub mapsswe: Mapsswe,
    /// Utterances right and wrong.
    pub mcnemar: McNemar,
}

/// Both results drawn with the same utterances (Bisani and Ney 2004, doi:10.1109/ICASSP.2004.1326009).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairedBootstrap {
    /// Of the difference, second word error rate minus first.
    pub interval: Interval,
    /// Share of the draws in which the second result is better; a draw without difference counts half.
    pub improvement: f64,
}

/// Matched pairs of sentence segments (Gillick and Cox 1989, doi:10.1109/ICASSP.1989.266481) as NIST's `sc_stats -t mapsswe` has it.
///
/// A segment reaches from one stretch of two or more words that both systems got right, or an end of the utterance, to the next, and has
/// an error of at least one system. Over the segments, the errors of the first system minus those of the second are tested against mean 0.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapsswe {
    /// Number of segments.
    pub segments: usize,
    /// Mean of the difference, first minus second: positive where the second is better.
    pub mean: f64,
    /// Its standard deviation over the segments.
    pub std: f64,
    /// Mean over standard error; 0 where all differences are equal.
    pub z: f64,
    /// Probability of a |Z| as large without a difference, two-tailed normal.
    pub p: f64,
}

/// McNemar's test on utterances right and wrong, exact and two-tailed, as NIST's `sc_stats -t mcn` has it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct McNemar {
    /// Utterances only the first result has right.
    pub only_first_right: usize,
    /// Utterances only the second result has right.
    pub only_second_right: usize,
    /// Probability of so uneven a split, or more so, of as many tosses of a coin.
    pub p: f64,
}

/// Compares two results; utterances are matched by set and id, and their counts are what `aligner` gives.
///
/// # Errors
/// - [`Error::Config`]: nothing in common, an utterance twice in one result, or different references, except through alternatives of sclite's markup
/// - [`Error::LimitExceeded`]: see [`Aligner::align`]
pub fn compare(first: &[Scored], second: &[Scored], aligner: Aligner, resampling: Resampling) -> Result<Comparison> {
    let key = |u: &Scored| (u.set.clone(), u.id.clone());
    let refuse = |reason: String| Error::config("comparison", reason);
    let mut matches = HashMap::with_capacity(second.len());
    for utterance in second {
        if matches.insert((&utterance.set, &utterance.id), utterance).is_some() {
            return Err(refuse(format!("utterance {:?} of set {:?} is twice in the second result", utterance.id, utterance.set)));
        }
    }
    let (mut only_first, mut common, mut seen) = (vec![], vec![], HashSet::with_capacity(first.len()));
    for a in first {
        let (set, id) = (&a.set, &a.id);
        if !seen.insert((set, id)) {
            return Err(refuse(format!("utterance {id:?} of set {set:?} is twice in the first result")));
        }
        match matches.remove(&(set, id)) {
            Some(b) if a.reference != b.reference => {
                return Err(refuse(format!("utterance {id:?} of set {set:?}: reference {:?} and {:?}", a.reference, b.reference)));
            }
            Some(b) => common.push((a, Pair::of(a, b, aligner)?)),
            None => only_first.push(key(a)),
        }
    }
    if common.is_empty() {
        return Err(refuse("the results have no utterance in common".into()));
    }
    let by_set = by_name(&common, |(a, _): &(&Scored, Pair)| Some(&a.set));
    let strata: Vec<(Groups, Vec<&Pair>)> =
        by_set.iter().map(|(_, set)| (Groups::of(set.iter().map(|(a, _)| *a)), set.iter().map(|(_, pair)| pair).collect())).collect();
    let of_one = |(stratum, (name, _)): (&_, &(&str, _))| Paired::of(name, std::slice::from_ref(stratum), resampling);
    let sets = strata.iter().zip(&by_set).map(of_one).collect();
    let only_second = second.iter().filter(|b| matches.contains_key(&(&b.set, &b.id))).map(key).collect();
    Ok(Comparison { sets, all: Paired::of("", &strata, resampling), only_first, only_second })
}

/// One utterance in both results.
struct Pair {
    words: [WordErrors; 2],
    /// Errors of both systems in every segment.
    segments: Vec<[usize; 2]>,
}

impl Pair {
    fn of(a: &Scored, b: &Scored, aligner: Aligner) -> Result<Self> {
        let [a, b] = [aligner.align(&a.reference, &a.hypothesis)?, aligner.align(&b.reference, &b.hypothesis)?];
        let words = [a.errors(), b.errors()];
        // Where the two took different alternatives of the reference there are no common words to cut at.
        let segments = if a.reference == b.reference {
            segments(&a.chunks, &b.chunks, a.reference.len())
        } else {
            Some(words.map(|w| w.errors())).filter(|errors| *errors != [0; 2]).into_iter().collect()
        };
        Ok(Self { words, segments })
    }

    fn right(&self) -> [bool; 2] {
        self.words.map(|words| words.errors() == 0)
    }
}

/// Errors of one system along the reference.
struct Errors {
    /// Words inserted before each reference word, and after the last.
    inserted: Vec<usize>,
    wrong: Vec<bool>,
}

impl Errors {
    fn of(chunks: &[Chunk], words: usize) -> Self {
        let mut errors = Self { inserted: vec![0; words + 1], wrong: vec![false; words] };
        for Chunk { edit, reference, hypothesis } in chunks {
            match edit {
                Edit::Equal => {}
                Edit::Insert => errors.inserted[reference.start] += hypothesis.len(),
                Edit::Substitute | Edit::Delete => errors.wrong[reference.clone()].fill(true),
            }
        }
        errors
    }
}

/// Good words that end a segment, NIST's `DEFAULT_MIN_NUM_GOOD`.
const GOOD_WORDS: usize = 2;

/// Cuts an utterance of `words` reference words into segments with errors and counts both systems' errors in each.
fn segments(a: &[Chunk], b: &[Chunk], words: usize) -> Vec<[usize; 2]> {
    let systems = [Errors::of(a, words), Errors::of(b, words)];
    let mut segments = vec![];
    // Errors of the segment under way, and good words since the last of them.
    let (mut under_way, mut good): (Option<[usize; 2]>, usize) = (None, 0);
    for at in 0..=words {
        let inserted = [0, 1].map(|s| systems[s].inserted[at]);
        let wrong = [0, 1].map(|s| usize::from(at < words && systems[s].wrong[at]));
        if inserted != [0; 2] {
            good = 0;
        }
        let errors = [inserted[0] + wrong[0], inserted[1] + wrong[1]];
        if errors != [0; 2] {
            let sum = under_way.get_or_insert([0; 2]);
            sum.iter_mut().zip(errors).for_each(|(sum, errors)| *sum += errors);
        }
        if wrong != [0; 2] {
            good = 0;
        } else if at < words {
            good += 1;
            if good >= GOOD_WORDS {
                segments.extend(under_way.take());
            }
        }
    }
    segments.extend(under_way);
    segments
}

impl Paired {
    fn of(name: &str, strata: &[(Groups, Vec<&Pair>)], resampling: Resampling) -> Self {
        let pairs = || strata.iter().flat_map(|(_, pairs)| pairs.iter().copied());
        let words = [0, 1].map(|system| pairs().map(|pair| pair.words[system]).sum::<WordErrors>());
        let difference = words[1].wer() - words[0].wer();
        Self {
            name: name.into(),
            utterances: pairs().count(),
            words,
            difference,
            relative_change: (words[0].wer() > 0.0).then(|| difference / words[0].wer()),
            bootstrap: PairedBootstrap::of(strata, resampling),
            mapsswe: Mapsswe::of(pairs().flat_map(|pair| &pair.segments)),
            mcnemar: McNemar::of(pairs().map(Pair::right)),
        }
    }
}

impl PairedBootstrap {
    fn of(strata: &[(Groups, Vec<&Pair>)], resampling: Resampling) -> Option<Self> {
        let counts = |pair: &&Pair| {
            let [a, b] = pair.words;
            [a.errors(), a.reference_words, b.errors(), b.reference_words]
        };
        let sums: Vec<_> = strata.iter().map(|(groups, pairs)| groups.sums(pairs.iter().map(counts))).collect();
        let differences = resample(&sums, resampling, |sums| {
            let sum = |i: usize| sums.iter().map(|sum| sum[i]).sum();
            rate([sum(2), sum(3)]) - rate([sum(0), sum(1)])
        });
        let (low, high) = percentiles(&differences)?;
        let unit = strata.iter().map(|(groups, _)| groups.unit).max()?;
        let units = strata.iter().map(|(groups, _)| groups.count).sum();
        let better: f64 = differences
            .iter()
            .map(|&d| {
                if d < 0.0 {
                    1.0
                } else if d > 0.0 {
                    0.0
                } else {
                    0.5
                }
            })
            .sum();
        let interval = Interval { low, high, unit, units, resamples: resampling.resamples };
        Some(Self { interval, improvement: better / differences.len() as f64 })
    }
}

impl Mapsswe {
    fn of<'a>(segments: impl Iterator<Item = &'a [usize; 2]> + Clone) -> Self {
        let differences = || segments.clone().map(|&[a, b]| a as f64 - b as f64);
        let count = differences().count();
        if count == 0 {
            return Self { p: 1.0, ..Self::default() };
        }
        let mean = differences().sum::<f64>() / count as f64;
        let squares: f64 = differences().map(|d| (d - mean).powi(2)).sum();
        let std = if count > 1 { (squares / (count - 1) as f64).sqrt() } else { 0.0 };
        let z = if std > 0.0 { mean / (std / (count as f64).sqrt()) } else { 0.0 };
        Self { segments: count, mean, std, z, p: erfc(z.abs() / std::f64::consts::SQRT_2) }
    }
}

impl McNemar {
    fn of(right: impl Iterator<Item = [bool; 2]>) -> Self {
        let (mut a, mut b) = (0, 0);
        for pair in right {
            a += usize::from(pair == [true, false]);
            b += usize::from(pair == [false, true]);
        }
        Self { only_first_right: a, only_second_right: b, p: both_tails(a.min(b), a + b) }
    }
}

/// Twice the probability of at most `heads` heads in `tosses` of a coin, at most 1.
fn both_tails(heads: usize, tosses: usize) -> f64 {
    // ln(tosses choose k) - tosses ln 2, from k to k + 1.
    let mut ln_probability = -(tosses as f64) * std::f64::consts::LN_2;
    let mut sum = 0.0;
    for k in 0..=heads {
        sum += ln_probability.exp();
        ln_probability += ((tosses - k) as f64 / (k + 1) as f64).ln();
    }
    (2.0 * sum).min(1.0)
}

/// Complementary error function of `x >= 0`: below 2 by the series of erf, above by the continued fraction (Abramowitz and Stegun 7.1.6,
/// 7.1.14).
fn erfc(x: f64) -> f64 {
    let scale = (-x * x).exp() / std::f64::consts::PI.sqrt();
    if x < 2.0 {
        let (mut term, mut sum, mut n) = (2.0 * x, 2.0 * x, 0.0);
        while term > 1e-17 * sum {
            n += 1.0;
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
        }
        1.0 - scale * sum
    } else {
        // 60 levels are exact to the last digits from 2 on.
        scale / (1..=60).rev().fold(x, |rest, level| x + f64::from(level) / 2.0 / rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_those_of_the_tables() {
        // scipy.special.erfc.
        for (x, expected) in [
            (0.0, 1.0),
            (0.5, 0.4795001221869535),
            (1.0, 0.15729920705028513),
            (1.9, 0.007209570764742524),
            (2.0, 0.004677734981047266),
            (2.1, 0.0029794666563329896),
            (4.0, 1.541725790028002e-8),
            (9.0, 4.13703174651381e-37),
        ] {
            assert!((erfc(x) - expected).abs() <= 1e-12 * expected.max(1e-4), "{x}: {} {expected}", erfc(x));
        }
        // scipy.stats.binomtest(k, n).pvalue.
        for (k, n, expected) in [(0, 0, 1.0), (0, 5, 0.0625), (3, 10, 0.34375), (5, 10, 1.0), (40, 100, 0.056887933640980784)] {
            assert!((both_tails(k, n) - expected).abs() < 1e-12, "{k} of {n}: {}", both_tails(k, n));
        }
    }

    /// Chunks of a string of C, S, D and I.
    fn chunks(path: &str) -> Vec<Chunk> {
        let mut chunks = crate::eval::alignment::Chunks::default();
        for step in path.chars() {
            match step {
                'C' => chunks.push(Edit::Equal, 1, 1),
                'S' => chunks.push(Edit::Substitute, 1, 1),
                'D' => chunks.push(Edit::Delete, 1, 0),
                _ => chunks.push(Edit::Insert, 0, 1),
            }
        }
        chunks.done
    }

    #[test]
    fn segments_are_cut_at_two_good_words() {
        for (a, b, expected) in [
            ("CCCC", "CCCC", vec![]),
            ("SCCS", "CCCC", vec![[1, 0], [1, 0]]),
            ("SCSC", "CCCC", vec![[2, 0]]),
            ("SCCC", "CCCS", vec![[1, 0], [0, 1]]),
            ("SCC", "CCS", vec![[1, 1]]),
            ("CICC", "CCC", vec![[1, 0]]),
            ("SCICD", "SCCC", vec![[3, 1]]),
            ("CCCI", "CCCII", vec![[1, 2]]),
            ("", "II", vec![[0, 2]]),
            ("ICCI", "CC", vec![[1, 0], [1, 0]]),
        ] {
            let words = a.chars().filter(|&c| c != 'I').count();
            assert_eq!(segments(&chunks(a), &chunks(b), words), expected, "{a} {b}");
        }
    }

    fn scored(id: usize, reference: &str, hypothesis: &str) -> Scored {
        let words = crate::eval::wer::word_errors(reference, hypothesis);
        Scored {
            set: "x".into(),
            id: id.to_string(),
            reference: reference.into(),
            hypothesis: hypothesis.into(),
            words,
            ..Scored::default()
        }
    }

    #[test]
    fn a_better_system_is_found_and_a_copy_is_not() {
        let reference = "a b c d e f g h";
        let bad: Vec<_> = (0..100).map(|i| scored(i, reference, if i % 2 == 0 { "a b x d e f g h" } else { reference })).collect();
        let good: Vec<_> = (0..100).map(|i| scored(i, reference, if i % 10 == 0 { "a b x d e f g h" } else { reference })).collect();
        let test = |a: &[Scored], b: &[Scored]| compare(a, b, Aligner::Levenshtein, Resampling::default()).unwrap();
        let better = test(&bad, &good).all;
        assert_eq!((better.words[0].errors(), better.words[1].errors(), better.utterances), (50, 10, 100));
        assert_eq!(better.relative_change, Some(-0.8));
        let bootstrap = better.bootstrap.unwrap();
        assert!(bootstrap.improvement == 1.0 && bootstrap.interval.high < 0.0, "{bootstrap:?}");
        assert_eq!((better.mapsswe.segments, better.mapsswe.mean), (50, 0.8));
        assert!(better.mapsswe.z > 10.0 && better.mapsswe.p < 1e-10);
        assert_eq!((better.mcnemar.only_first_right, better.mcnemar.only_second_right), (0, 40));
        assert!(test(&good, &bad).all.mapsswe.z < -10.0);

        let same = test(&bad, &bad).all;
        assert_eq!((same.difference, same.mapsswe.z, same.mapsswe.p, same.mcnemar.p), (0.0, 0.0, 1.0, 1.0));
        assert_eq!(same.bootstrap.unwrap().improvement, 0.5);
    }

    #[test]
    fn utterances_are_matched_or_named() {
        let compared = |a: &[Scored], b: &[Scored]| compare(a, b, Aligner::Levenshtein, Resampling::default());
        let both = compared(&[scored(1, "a", "a"), scored(2, "b", "b")], &[scored(3, "c", "c"), scored(1, "a", "b")]).unwrap();
        assert_eq!(both.only_first, [("x".to_string(), "2".to_string())]);
        assert_eq!(both.only_second, [("x".to_string(), "3".to_string())]);
        assert_eq!((both.sets.len(), both.all.utterances), (1, 1));
        for (a, b, says) in [
            (vec![scored(1, "a", "a")], vec![scored(1, "b", "a")], "reference \"a\" and \"b\""),
            (vec![scored(1, "a", "a")], vec![scored(2, "a", "a")], "no utterance in common"),
            (vec![scored(1, "a", "a"), scored(1, "a", "a")], vec![scored(1, "a", "a")], "twice in the first"),
            (vec![scored(1, "a", "a")], vec![scored(1, "a", "a"), scored(1, "a", "a")], "twice in the second"),
        ] {
            let error = compared(&a, &b).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
