//! How sure a word error rate is: bootstrap over what varies independently.
//!
//! After Bisani and Ney 2004 (doi:10.1109/ICASSP.2004.1326009), with speakers or recordings drawn instead of utterances where they are
//! known: utterances of one speaker are alike, and drawing them one by one understates the interval.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::score::Scored;
use super::wer::WordErrors;

/// What is drawn with replacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// All utterances of a speaker.
    Speaker,
    /// All utterances of a recording.
    Recording,
    /// One utterance.
    Utterance,
}

/// 95 % bootstrap interval (percentiles).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// 2.5th percentile.
    pub low: f64,
    /// 97.5th percentile.
    pub high: f64,
    /// What was drawn with replacement; of several sets with different units, the finest.
    pub unit: Unit,
    /// How many of it there are.
    pub units: usize,
    /// Times drawn.
    pub resamples: usize,
}

/// How to draw. The same settings give the same interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resampling {
    /// Times to draw.
    pub resamples: usize,
    /// Seed of the random numbers.
    pub seed: u64,
}

impl Default for Resampling {
    fn default() -> Self {
        Self { resamples: 1000, seed: 0 }
    }
}

/// A set's utterances in groups that vary independently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    /// What a group is.
    pub unit: Unit,
    /// For each utterance, the number of its group, counted from 0.
    pub of: Vec<usize>,
    /// How many groups there are.
    pub count: usize,
}

impl Groups {
    /// Speakers if every utterance has one and there are several, else recordings likewise, else utterances.
    pub fn of<'a>(utterances: impl Iterator<Item = &'a Scored> + Clone) -> Self {
        let by = |unit: Unit, name: fn(&Scored) -> Option<&str>| {
            let mut numbers = HashMap::new();
            let number = |u: &'a Scored| {
                let next = numbers.len();
                name(u).map(|name| *numbers.entry(name).or_insert(next))
            };
            let of: Vec<usize> = utterances.clone().map(number).collect::<Option<_>>()?;
            Some(Self { unit, of, count: numbers.len() }).filter(|groups| groups.count > 1)
        };
        by(Unit::Speaker, |u| u.speaker.as_deref()).or_else(|| by(Unit::Recording, |u| u.recording.as_deref())).unwrap_or_else(|| {
            let count = utterances.clone().count();
            Self { unit: Unit::Utterance, of: (0..count).collect(), count }
        })
    }

    /// Sums of `values`, one for each utterance, over each group.
    pub fn sums<const N: usize>(&self, values: impl Iterator<Item = [usize; N]>) -> Vec<[usize; N]> {
        let mut sums = vec![[0; N]; self.count];
        for (&group, value) in self.of.iter().zip(values) {
            add(&mut sums[group], value);
        }
        sums
    }
}

fn add<const N: usize>(sum: &mut [usize; N], value: [usize; N]) {
    sum.iter_mut().zip(value).for_each(|(sum, value)| *sum += value);
}

/// Values of `statistic` when every stratum's groups are drawn with replacement, sorted.
///
/// The statistic sees one sum over the drawn groups for each stratum. Empty without groups.
pub fn resample<const N: usize>(strata: &[Vec<[usize; N]>], resampling: Resampling, statistic: impl Fn(&[[usize; N]]) -> f64) -> Vec<f64> {
    if strata.iter().all(Vec::is_empty) {
        return vec![];
    }
    let mut state = resampling.seed;
    let mut sums = vec![[0; N]; strata.len()];
    let mut values: Vec<f64> = (0..resampling.resamples)
        .map(|_| {
            for (sum, groups) in sums.iter_mut().zip(strata) {
                *sum = [0; N];
                for _ in groups {
                    // The high half of the product maps 64 random bits onto 0..len.
                    add(sum, groups[((u128::from(random(&mut state)) * groups.len() as u128) >> 64) as usize]);
                }
            }
            statistic(&sums)
        })
        .collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The 2.5th and 97.5th percentile of sorted values; `None` without any.
pub fn percentiles(sorted: &[f64]) -> Option<(f64, f64)> {
    let at = |p: f64| sorted.get((p * sorted.len().saturating_sub(1) as f64).round() as usize).copied();
    Some((at(0.025)?, at(0.975)?))
}

/// Errors and words of one side, as [`resample`] adds them up.
pub fn counts(words: &WordErrors) -> [usize; 2] {
    [words.errors(), words.reference_words]
}

/// Errors over words of one sum.
pub fn rate([errors, words]: [usize; 2]) -> f64 {
    errors as f64 / words.max(1) as f64
}

/// Interval of the word error rate of one set; `None` without utterances or resamples.
pub fn interval<'a>(utterances: impl Iterator<Item = &'a Scored> + Clone, resampling: Resampling) -> Option<Interval> {
    let groups = Groups::of(utterances.clone());
    let sums = groups.sums(utterances.map(|u| counts(&u.words)));
    let (low, high) = percentiles(&resample(&[sums], resampling, |sums| rate(sums[0])))?;
    Some(Interval { low, high, unit: groups.unit, units: groups.count, resamples: resampling.resamples })
}

/// SplitMix64 (Steele et al. 2014, doi:10.1145/2660193.2660195).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(i: usize, speaker: Option<&str>, recording: Option<&str>) -> Scored {
        let words = WordErrors { substitutions: i % 3, reference_words: 10, ..WordErrors::default() };
        let [speaker, recording] = [speaker, recording].map(|name| name.map(String::from));
        Scored { id: i.to_string(), speaker, recording, words, ..Scored::default() }
    }

    #[test]
    fn the_interval_holds_the_rate_and_repeats() {
        let all: Vec<_> = (0..200).map(|i| scored(i, None, None)).collect();
        let rate = all.iter().map(|u| u.words).sum::<WordErrors>().wer();
        let with = |seed| interval(all.iter(), Resampling { resamples: 1000, seed });
        let interval_7 = with(7).unwrap();
        assert!(interval_7.low < rate && rate < interval_7.high && interval_7.high - interval_7.low < 0.03, "{interval_7:?}");
        assert_eq!(with(7), Some(interval_7));
        assert_ne!(with(8), Some(interval_7));
        assert_eq!((interval_7.unit, interval_7.units), (Unit::Utterance, 200));
        assert_eq!(interval(all[..0].iter(), Resampling::default()), None);
        assert_eq!(interval(all.iter(), Resampling { resamples: 0, seed: 0 }), None);
    }

    #[test]
    fn the_normal_approximation_agrees() {
        // 3000 utterances of 10 words, errors 0, 1, 2 alike: standard error of the rate sqrt(2/3) / 10 / sqrt(3000), 95 % is 1.96 of it.
        let all: Vec<_> = (0..3000).map(|i| scored(i, None, None)).collect();
        let interval = interval(all.iter(), Resampling { resamples: 4000, seed: 1 }).unwrap();
        let half = 1.96 * (2.0 / 3.0_f64).sqrt() / 10.0 / 3000.0_f64.sqrt();
        assert!((interval.low - (0.1 - half)).abs() < 0.1 * half && (interval.high - (0.1 + half)).abs() < 0.1 * half, "{interval:?}");
    }

    #[test]
    fn groups_are_the_coarsest_that_every_utterance_has() {
        let unit = |all: &[Scored]| (Groups::of(all.iter()).unit, Groups::of(all.iter()).count);
        let both = |i: usize| scored(i, Some(["a", "b"][i % 2]), Some(["x", "y", "z"][i % 3]));
        assert_eq!(unit(&[both(0), both(1), both(2), both(3)]), (Unit::Speaker, 2));
        assert_eq!(unit(&[both(0), both(1), scored(2, None, Some("z"))]), (Unit::Recording, 3));
        assert_eq!(unit(&[both(0), both(2)]), (Unit::Recording, 2), "one speaker says nothing");
        assert_eq!(unit(&[both(0), scored(1, None, None)]), (Unit::Utterance, 2));
        assert_eq!(unit(&[]), (Unit::Utterance, 0));
    }

    #[test]
    fn alike_utterances_of_a_speaker_widen_the_interval() {
        let speakers: Vec<String> = (0..10).map(|s| s.to_string()).collect();
        let make = |known: bool| (0..200).map(move |i| (i, known)).collect::<Vec<_>>();
        let width = |known| {
            let all: Vec<_> = make(known).into_iter().map(|(i, known)| scored(i / 20, known.then_some(&speakers[i / 20]), None)).collect();
            let interval = interval(all.iter(), Resampling::default()).unwrap();
            interval.high - interval.low
        };
        assert!(width(true) > 3.0 * width(false));
    }

    #[test]
    fn strata_are_drawn_apart() {
        let strata = [vec![[1, 1]; 5], vec![[0, 1]; 7]];
        let values = resample(&strata, Resampling { resamples: 10, seed: 3 }, |sums| sums[0][0] as f64 + 100.0 * sums[1][1] as f64);
        assert_eq!(values, [705.0; 10]);
    }
}
