//! N-grams in hash tables, as in KenLM's probing models.
//!
//! The sign of a stored log-probability is free: it is set where no longer n-gram ends in this one. A backoff of minus zero means that no
//! longer n-gram starts with this one.

use super::bytes::{Bytes, f32_at};
use super::hash_table::{Table, extend_key};
use super::search::{Entry, Search};
use super::{UNKNOWN, WordId};

/// Unigrams by id, longer n-grams by the hash of their ids from the last word to the first.
#[derive(Debug, Clone)]
pub(super) struct Probing {
    /// `(log10 probability, backoff)` by id.
    pub(super) unigrams: Bytes,
    /// Orders 2 to the last but one: `(log10 probability, backoff)`.
    pub(super) middles: Vec<Table>,
    /// The last order (log10 probability); `None` in a unigram model.
    pub(super) longest: Option<Table>,
    pub(super) words: usize,
}

fn entry(value: &[u8]) -> Entry {
    let prob = f32_at(value, 0);
    Entry { prob: -prob.abs(), backoff: f32_at(value, 4), extends_left: prob.is_sign_positive() }
}

impl Search for Probing {
    type Node = u64;

    fn unigram(&self, word: WordId) -> (Entry, u64) {
        let word = if (word as usize) < self.words { word } else { UNKNOWN };
        (entry(self.unigrams.get(8 * word as usize..).unwrap_or_default()), u64::from(word))
    }

    fn middle(&self, below: usize, node: &mut u64, word: WordId) -> Option<Entry> {
        *node = extend_key(*node, word);
        self.middles[below].find(*node).map(entry)
    }

    fn longest(&self, node: &u64, word: WordId) -> Option<f32> {
        let value = self.longest.as_ref()?.find(extend_key(*node, word))?;
        Some(-f32_at(value, 0).abs())
    }
}
