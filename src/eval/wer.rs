//! Word and character error rates and their totals.

use std::hash::Hash;
use std::iter::Sum;
use std::ops::AddAssign;

use super::alignment::{Chunk, Edit, edits};

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
    /// Counts what an alignment shows. Optional words that one side lacks count as said and right, as sclite has it.
    pub fn of(chunks: &[Chunk]) -> Self {
        let mut errors = Self::default();
        for Chunk { edit, reference, hypothesis } in chunks {
            errors.reference_words += reference.len();
            match edit {
                Edit::Equal if reference.is_empty() => errors.reference_words += hypothesis.len(),
                Edit::Equal => {}
                Edit::Substitute => errors.substitutions += reference.len(),
                Edit::Delete => errors.deletions += reference.len(),
                Edit::Insert => errors.insertions += hypothesis.len(),
            }
        }
        errors
    }

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
    for edit in edits(reference, hypothesis) {
        match edit {
            Edit::Equal => {}
            Edit::Substitute => errors.substitutions += 1,
            Edit::Delete => errors.deletions += 1,
            Edit::Insert => errors.insertions += 1,
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

/// Words of a text, in order.
pub(super) fn words(text: &str) -> Vec<&str> {
    if !text.is_ascii() {
        return text.split_whitespace().collect();
    }
    let mut words = Vec::with_capacity(text.len() / 5 + 1);
    let mut start = 0;
    for (at, byte) in text.bytes().chain([b' ']).enumerate() {
        if matches!(byte, b' ' | b'\t'..=b'\r') {
            if start < at {
                words.push(&text[start..at]);
            }
            start = at + 1;
        }
    }
    words
}

fn characters(text: &str) -> Vec<char> {
    text.trim().chars().collect()
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
    fn words_are_split_alike_in_ascii_and_beyond() {
        let text = "\u{b}a  b\tc\r\nd \u{c}e\u{1c}f ";
        assert_eq!(words(text), ["a", "b", "c", "d", "e\u{1c}f"]);
        assert_eq!(words(&format!("{text}é"))[..5], words(text)[..]);
        assert!(words("").is_empty() && words(" \n").is_empty());
    }

    #[test]
    fn counts_are_those_of_the_alignment() {
        let (a, b) = ("a b c a d e b c a".split(' ').collect::<Vec<_>>(), "b a c d d c b a a e".split(' ').collect::<Vec<_>>());
        assert_eq!(count(&a, &b), WordErrors::of(&crate::eval::alignment::align(&a, &b)));
    }

    #[test]
    fn totals_weigh_by_words() {
        let total: WordErrors = [word_errors("a", "b"), word_errors("a b c", "a b c")].into_iter().sum();
        assert_eq!(total.wer(), 0.25);
    }
}
