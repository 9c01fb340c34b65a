//! N-grams in a reversed trie of bit-packed sorted arrays: the layout of KenLM's trie models and of the compact file.
//!
//! The children of an n-gram are the longer n-grams that end in it, sorted by the word they add on the left. Each order is one array of
//! records of the same number of bits: word, values, and where the children start in the next array; they end where those of the next
//! record start, so that each array has one record more than n-grams.

use super::bytes::{Bytes, bits_at, f32_at, u64_at};
use super::search::{Entry, Search};
use super::{UNKNOWN, WordId};

/// Bytes of a unigram: log10 probability, backoff, start of its children (64 bits).
pub(super) const UNIGRAM_BYTES: usize = 16;
/// Bytes that follow each array, so that a read of 8 bytes at its end stays inside.
pub(super) const ARRAY_PADDING: u64 = 8;

/// Where the children of a record start.
#[derive(Debug, Clone)]
pub(super) enum Pointers {
    /// All bits are in the record.
    Inline(u32),
    /// The low bits are in the record. `starts` has, for each value of the high bits, the first record that has at least that value
    /// (64 bits each; Raj & Whittaker 2003).
    Split { low: u32, starts: Bytes },
}

impl Pointers {
    fn inline_bits(&self) -> u32 {
        match self {
            Self::Inline(bits) | Self::Split { low: bits, .. } => *bits,
        }
    }
}

/// How the values of an order are stored.
#[derive(Debug, Clone)]
pub(super) enum Values {
    /// 31 bits of probability (the sign is known), 32 of backoff.
    Plain,
    /// Numbers of entries in tables; the backoff comes first. Tables hold as many entries as their bits can name.
    Quantized { probs: Vec<f32>, backoffs: Vec<f32> },
}

impl Values {
    /// Tables read from bytes: `prob_bits` and `backoff_bits` name their entries.
    pub(super) fn tables(bytes: &[u8], at: &mut usize, prob_bits: u32, backoff_bits: Option<u32>) -> Self {
        let mut table = |bits: u32| {
            let values = (0..1usize << bits).map(|i| f32_at(bytes, *at + 4 * i)).collect();
            *at += 4 << bits;
            values
        };
        let probs = table(prob_bits);
        Self::Quantized { probs, backoffs: backoff_bits.map(table).unwrap_or_default() }
    }

    fn backoff_bits(&self) -> u32 {
        match self {
            Self::Plain => 32,
            Self::Quantized { backoffs, .. } => backoffs.len().max(1).ilog2(),
        }
    }

    fn prob_bits(&self) -> u32 {
        match self {
            Self::Plain => 31,
            Self::Quantized { probs, .. } => probs.len().max(1).ilog2(),
        }
    }

    /// log10 probability and backoff of the record whose values start at bit `at`.
    fn read(&self, bytes: &[u8], at: u64) -> (f32, f32) {
        match self {
            Self::Plain => {
                let prob = f32::from_bits(bits_at(bytes, at, 31) as u32 | 1 << 31);
                (prob, f32::from_bits(bits_at(bytes, at + 31, 32) as u32))
            }
            Self::Quantized { probs, backoffs } => {
                let (prob_bits, backoff_bits) = (self.prob_bits(), self.backoff_bits());
                let both = bits_at(bytes, at, prob_bits + backoff_bits);
                let place = |table: &[f32], index: u64| table.get(index as usize).copied().unwrap_or_default();
                (place(probs, both >> backoff_bits), place(backoffs, both & ((1 << backoff_bits) - 1)))
            }
        }
    }

    /// log10 probability of the record of the highest order whose value starts at bit `at`.
    fn read_longest(&self, bytes: &[u8], at: u64) -> f32 {
        match self {
            Self::Plain => f32::from_bits(bits_at(bytes, at, 31) as u32 | 1 << 31),
            Self::Quantized { probs, .. } => probs.get(bits_at(bytes, at, self.prob_bits()) as usize).copied().unwrap_or_default(),
        }
    }
}

/// The array of one order.
#[derive(Debug, Clone)]
pub(super) struct Array {
    pub(super) bytes: Bytes,
    pub(super) entries: u64,
    pub(super) word_bits: u32,
    pub(super) values: Values,
    /// `None` in the highest order.
    pub(super) pointers: Option<Pointers>,
}

impl Array {
    /// Bits of a record.
    pub(super) fn record_bits(&self) -> u32 {
        record_bits(self.word_bits, &self.values, self.pointers.as_ref())
    }

    /// The record of a word among `begin..end`.
    fn find(&self, (begin, end): (u64, u64), word: WordId) -> Option<u64> {
        let bits = u64::from(self.record_bits());
        let bytes: &[u8] = &self.bytes;
        let (mut low, mut high) = (begin, end.min(self.entries));
        while low < high {
            let middle = low + (high - low) / 2;
            let found = bits_at(bytes, middle * bits, self.word_bits);
            match found.cmp(&u64::from(word)) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// Where the children of a record start and end.
    fn children(&self, record: u64) -> (u64, u64) {
        let Some(pointers) = &self.pointers else { return (0, 0) };
        let bits = u64::from(self.record_bits());
        let low = pointers.inline_bits();
        let at = (record + 1) * bits - u64::from(low);
        let (begin, end) = (bits_at(&self.bytes, at, low), bits_at(&self.bytes, at + bits, low));
        match pointers {
            Pointers::Inline(_) => (begin, end),
            Pointers::Split { starts, .. } => {
                let above = first_above(starts, record);
                let mut next = above;
                while next < (starts.len() / 8) && u64_at(starts, 8 * next) <= record + 1 {
                    next += 1;
                }
                let high = |above: usize| (above.saturating_sub(1) as u64) << low;
                (high(above) | begin, high(next) | end)
            }
        }
    }
}

/// Bits of a record of these parts.
pub(super) fn record_bits(word_bits: u32, values: &Values, pointers: Option<&Pointers>) -> u32 {
    match pointers {
        Some(pointers) => word_bits + values.prob_bits() + values.backoff_bits() + pointers.inline_bits(),
        None => word_bits + values.prob_bits(),
    }
}

/// Number of ascending 64-bit numbers that are at most `record`.
fn first_above(starts: &[u8], record: u64) -> usize {
    let (mut low, mut high) = (0, starts.len() / 8);
    while low < high {
        let middle = (low + high) / 2;
        if u64_at(starts, 8 * middle) <= record { low = middle + 1 } else { high = middle }
    }
    low
}

/// Bits of a pointer that stay in the record when the others go to a table of starts, and the entries of that table: as few bits in all as
/// `records` pointers up to `max` can take with at most `limit` bits in the table.
pub(super) fn split(records: u64, max: u64, limit: u32) -> (u32, u64) {
    let bits = super::bytes::bits_for(max);
    let cost = |high: u32| i128::from(max.checked_shr(bits - high).unwrap_or(0)) * 64 - i128::from(records) * i128::from(high);
    let high = (0..=bits.min(limit)).min_by_key(|&high| cost(high)).unwrap_or(0);
    (bits - high, max.checked_shr(bits - high).unwrap_or(0) + 1)
}

/// Bytes of the array of an order, its padding included. `None` if they are too many to count.
pub(super) fn array_bytes(entries: u64, record_bits: u32) -> Option<u64> {
    entries.checked_add(1)?.checked_mul(u64::from(record_bits))?.div_ceil(8).checked_add(ARRAY_PADDING)
}

/// The trie.
#[derive(Debug, Clone)]
pub(super) struct Trie {
    /// One record of [`UNIGRAM_BYTES`] for each word and one more for the end of the last children.
    pub(super) unigrams: Bytes,
    pub(super) words: usize,
    /// Orders 2 and up.
    pub(super) arrays: Vec<Array>,
}

impl Search for Trie {
    /// Where the children start and end.
    type Node = (u64, u64);

    fn unigram(&self, word: WordId) -> (Entry, (u64, u64)) {
        let at = UNIGRAM_BYTES * if (word as usize) < self.words { word } else { UNKNOWN } as usize;
        let node = (u64_at(&self.unigrams, at + 8), u64_at(&self.unigrams, at + 8 + UNIGRAM_BYTES));
        let entry = Entry {
            prob: f32_at(&self.unigrams, at),
            backoff: f32_at(&self.unigrams, at + 4),
            extends_left: node.0 < node.1,
        };
        (entry, node)
    }

    fn middle(&self, below: usize, node: &mut (u64, u64), word: WordId) -> Option<Entry> {
        let array = &self.arrays[below];
        let record = array.find(*node, word)?;
        let (prob, backoff) = array.values.read(&array.bytes, record * u64::from(array.record_bits()) + u64::from(array.word_bits));
        *node = array.children(record);
        Some(Entry { prob, backoff, extends_left: node.0 < node.1 })
    }

    fn longest(&self, node: &(u64, u64), word: WordId) -> Option<f32> {
        let array = self.arrays.last()?;
        let record = array.find(*node, word)?;
        Some(array.values.read_longest(&array.bytes, record * u64::from(array.record_bits()) + u64::from(array.word_bits)))
    }
}
