//! Word and character error rates, totals and their uncertainty.

use std::hash::Hash;
use std::iter::Sum;
use std::ops::AddAssign;

use super::alignment::{Edit, align};

/// Errors of a hypothesis against its reference; add them up for a corpus.
///
/// Counts of words after a named [`Normalizer`](crate::text::Normalizer), or of characters for a character error rate. The sum of the
/// three kinds is the edit distance; how it splits among them may differ between tools, here it is jiwer's split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct WordErrors {
    /// Words heard as another.
    pub substitutions: usize,
    /// Words heard that were not said.
    pub insertions: usize,
    /// Words not heard.
    pub deletions: usize,
    /// Words said.
    pub reference_words: usize,
}

impl WordErrors {
    /// All errors.
    pub fn errors(&self) -> usize {
        self.substitutions + self.insertions + self.deletions
    }

    /// Words heard right.
    pub fn hits(&self) -> usize {
        self.reference_words - self.substitutions - self.deletions
    }

    /// Errors per reference word, a fraction that may pass 1. Without reference words: the number of insertions, as jiwer has it.
    pub fn wer(&self) -> f64 {
        self.errors() as f64 / self.reference_words.max(1) as f64
    }
}

impl AddAssign for WordErrors {
    fn add_assign(&mut self, other: Self) {
        self.substitutions += other.substitutions;
        self.insertions += other.insertions;
        self.deletions += other.deletions;
        self.reference_words += other.reference_words;
    }
}

impl Sum for WordErrors {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut total, one| {
            total += one;
            total
        })
    }
}

/// Counts the errors of `hypothesis` against `reference`, element by element.
pub fn count<T: Eq + Hash>(reference: &[T], hypothesis: &[T]) -> WordErrors {
    let mut errors = WordErrors { reference_words: reference.len(), ..WordErrors::default() };
    for chunk in align(reference, hypothesis) {
        match chunk.edit {
            Edit::Equal => {}
            Edit::Substitute => errors.substitutions += chunk.reference.len(),
            Edit::Delete => errors.deletions += chunk.reference.len(),
            Edit::Insert => errors.insertions += chunk.hypothesis.len(),
        }
    }
    errors
}

/// Word errors of two normalised texts; words are what white space separates.
pub fn word_errors(reference: &str, hypothesis: &str) -> WordErrors {
    count(&words(reference), &words(hypothesis))
}

/// Character errors of two normalised texts: spaces count, except at the ends. [`WordErrors::wer`] of it is the character error rate.
pub fn character_errors(reference: &str, hypothesis: &str) -> WordErrors {
    count(&characters(reference), &characters(hypothesis))
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

fn characters(text: &str) -> Vec<char> {
    text.trim().chars().collect()
}

/// Bounds of a score.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Interval {
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

/// 95 % bootstrap interval (percentiles) of the WER over `groups` drawn with replacement.
///
/// A group is what varies independently: an utterance, or better all utterances of a speaker. The same seed gives the same interval.
/// `None` without groups or resamples.
pub fn bootstrap(groups: &[WordErrors], resamples: usize, seed: u64) -> Option<Interval> {
    if groups.is_empty() || resamples == 0 {
        return None;
    }
    let mut state = seed;
    let mut rates: Vec<f64> = (0..resamples)
        .map(|_| {
            let (mut errors, mut reference_words) = (0, 0);
            for _ in groups {
                // The high half of the product maps 64 random bits onto 0..len.
                let group = &groups[((u128::from(random(&mut state)) * groups.len() as u128) >> 64) as usize];
                errors += group.errors();
                reference_words += group.reference_words;
            }
            errors as f64 / reference_words.max(1) as f64
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    let percentile = |p: f64| rates[(p * (resamples - 1) as f64).round() as usize];
    Some(Interval { low: percentile(0.025), high: percentile(0.975) })
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

    #[test]
    fn kinds_of_errors() {
        let errors = word_errors("the cat sat on a mat", " the  cat sit on mat now it");
        assert_eq!(errors.errors(), 4);
        assert_eq!(errors.reference_words, 6);
        assert_eq!(errors.hits() + errors.substitutions + errors.insertions, 7);
    }

    #[test]
    fn rates() {
        assert_eq!(word_errors("", "").wer(), 0.0);
        assert_eq!(word_errors("", "a b").wer(), 2.0);
        assert_eq!(word_errors("a b c d", "a b").wer(), 0.5);
        assert_eq!(character_errors(" a b ", "a b").wer(), 0.0);
        assert_eq!(character_errors("ab", "a b").wer(), 0.5);
    }

    #[test]
    fn totals_weigh_by_words() {
        let total: WordErrors = [word_errors("a", "b"), word_errors("a b c", "a b c")].into_iter().sum();
        assert_eq!(total.wer(), 0.25);
    }

    #[test]
    fn the_interval_holds_the_rate_and_repeats() {
        let groups: Vec<_> = (0..200).map(|i| WordErrors { substitutions: i % 3, reference_words: 10, ..WordErrors::default() }).collect();
        let rate = groups.iter().copied().sum::<WordErrors>().wer();
        let interval = bootstrap(&groups, 1000, 7).unwrap();
        assert!(interval.low < rate && rate < interval.high && interval.high - interval.low < 0.03, "{interval:?}");
        assert_eq!(bootstrap(&groups, 1000, 7), Some(interval));
        assert_ne!(bootstrap(&groups, 1000, 8), Some(interval));
        assert_eq!(bootstrap(&groups[..1], 10, 0), Some(Interval { low: 0.0, high: 0.0 }));
        assert_eq!(bootstrap(&[], 10, 0), None);
    }
}
