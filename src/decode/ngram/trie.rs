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

    /// Bits of a probability and of a backoff.
    fn bits(&self) -> (u32, u32) {
        match self {
            Self::Plain => (31, 32),
            Self::Quantized { probs, backoffs } => (probs.len().max(1).ilog2(), backoffs.len().max(1).ilog2()),
        }
    }
}

/// The array of one order.
#[derive(Debug, Clone)]
pub(super) struct Array {
    bytes: Bytes,
    entries: u64,
    /// Ids are below.
    words: u64,
    word_bits: u32,
    values: Values,
    /// Bits of a probability and of a backoff.
    value_bits: (u32, u32),
    /// `None` in the highest order.
    pointers: Option<Pointers>,
    record_bits: u64,
}

impl Array {
    pub(super) fn new(bytes: Bytes, entries: u64, (words, word_bits): (u64, u32), values: Values, pointers: Option<Pointers>) -> Self {
        let record_bits = u64::from(record_bits(word_bits, &values, pointers.as_ref()));
        Self { bytes, entries, words, word_bits, value_bits: values.bits(), values, pointers, record_bits }
    }

    /// The record of a word among `begin..end`.
    fn find(&self, bytes: &[u8], (begin, end): (u64, u64), word: WordId) -> Option<u64> {
        let end = end.min(self.entries);
        let word_at = |record: u64| bits_at(bytes, record * self.record_bits, self.word_bits);
        let found = lower_bound(begin, end, (0, self.words), u64::from(word), word_at);
        (found < end && word_at(found) == u64::from(word)).then_some(found)
    }

    /// log10 probability and backoff of a record.
    fn middle_values(&self, bytes: &[u8], record: u64) -> (f32, f32) {
        let at = record * self.record_bits + u64::from(self.word_bits);
        match &self.values {
            Values::Plain => (negative(bits_at(bytes, at, 31)), f32::from_bits(bits_at(bytes, at + 31, 32) as u32)),
            Values::Quantized { probs, backoffs } => {
                let (prob_bits, backoff_bits) = self.value_bits;
                let both = bits_at(bytes, at, prob_bits + backoff_bits);
                let place = |table: &[f32], index: u64| table.get(index as usize).copied().unwrap_or_default();
                (place(probs, both >> backoff_bits), place(backoffs, both & ((1 << backoff_bits) - 1)))
            }
        }
    }

    /// log10 probability of a record of the highest order.
    fn longest_value(&self, bytes: &[u8], record: u64) -> f32 {
        let value = bits_at(bytes, record * self.record_bits + u64::from(self.word_bits), self.value_bits.0);
        match &self.values {
            Values::Plain => negative(value),
            Values::Quantized { probs, .. } => probs.get(value as usize).copied().unwrap_or_default(),
        }
    }

    /// Where the children of a record start and end.
    fn children(&self, bytes: &[u8], record: u64) -> (u64, u64) {
        let Some(pointers) = &self.pointers else { return (0, 0) };
        let low = pointers.inline_bits();
        let at = (record + 1) * self.record_bits - u64::from(low);
        let (begin, end) = (bits_at(bytes, at, low), bits_at(bytes, at + self.record_bits, low));
        match pointers {
            Pointers::Inline(_) => (begin, end),
            Pointers::Split { starts, .. } => {
                let starts: &[u8] = starts;
                let len = (starts.len() / 8) as u64;
                let start_at = |high: u64| u64_at(starts, 8 * high as usize);
                let above = lower_bound(0, len, (0, self.entries + 1), record + 1, start_at);
                let mut next = above;
                while next < len && start_at(next) <= record + 1 {
                    next += 1;
                }
                let high = |above: u64| above.saturating_sub(1) << low;
                (high(above) | begin, high(next) | end)
            }
        }
    }
}

/// A negative number without its sign, given it back.
fn negative(bits: u64) -> f32 {
    f32::from_bits(bits as u32 | 1 << 31)
}

/// Bits of a record of these parts.
pub(super) fn record_bits(word_bits: u32, values: &Values, pointers: Option<&Pointers>) -> u32 {
    let (prob_bits, backoff_bits) = values.bits();
    match pointers {
        Some(pointers) => word_bits + prob_bits + backoff_bits + pointers.inline_bits(),
        None => word_bits + prob_bits,
    }
}

/// Guesses by even spacing before the search goes on by halves.
const GUESSES: u32 = 8;

/// The first of the places `low..high` whose number is at least `key`, `high` if none is. The numbers ascend, and lie in `values` (the end
/// excluded) more or less evenly: a guess of the place is much better than the middle.
fn lower_bound(mut low: u64, mut high: u64, values: (u64, u64), key: u64, number_at: impl Fn(u64) -> u64) -> u64 {
    let (mut least, mut most) = values;
    let mut guesses = 0;
    while low < high {
        let span = high - low;
        let place = if span > 8 && guesses < GUESSES && least < key && key < most {
            guesses += 1;
            let ahead = (key - least) as f64 * span as f64 / (most - least) as f64;
            low + (ahead as u64).min(span - 1)
        } else {
            low + span / 2
        };
        let found = number_at(place);
        if found < key {
            (low, least) = (place + 1, found);
        } else {
            (high, most) = (place, found);
            if found == key && (place == low || number_at(place - 1) < key) {
                return place;
            }
        }
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
        let entry = Entry { prob: f32_at(&self.unigrams, at), backoff: f32_at(&self.unigrams, at + 4), extends_left: node.0 < node.1 };
        (entry, node)
    }

    fn middle(&self, below: usize, node: &mut (u64, u64), word: WordId) -> Option<Entry> {
        let array = &self.arrays[below];
        let bytes: &[u8] = &array.bytes;
        let record = array.find(bytes, *node, word)?;
        let (prob, backoff) = array.middle_values(bytes, record);
        *node = array.children(bytes, record);
        Some(Entry { prob, backoff, extends_left: node.0 < node.1 })
    }

    fn longest(&self, node: &(u64, u64), word: WordId) -> Option<f32> {
        let array = self.arrays.last()?;
        let bytes: &[u8] = &array.bytes;
        let record = array.find(bytes, *node, word)?;
        Some(array.longest_value(bytes, record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lower_bounds_of_even_and_uneven_numbers() {
        let even: Vec<u64> = (0..500).map(|i| 7 * i + i % 3).collect();
        let uneven: Vec<u64> = (0..500).map(|i| i * i / 3).collect();
        let twice: Vec<u64> = (0..500).map(|i| i / 20 * 60).collect();
        let same = vec![5; 100];
        for numbers in [&even, &uneven, &twice, &same, &vec![], &vec![3]] {
            for key in 0..4000 {
                let place = |low: u64| lower_bound(low, numbers.len() as u64, (0, 4000), key, |i| numbers[i as usize]);
                let expected = numbers.partition_point(|&number| number < key) as u64;
                assert_eq!(place(0), expected, "{key}");
                if numbers.len() > 10 {
                    assert_eq!(place(10), expected.max(10), "{key}");
                }
            }
        }
    }

    #[test]
    fn pointers_are_split_where_that_is_smaller() {
        let bits = |records: u64, max: u64| {
            let (low, starts) = split(records, max, 25);
            (records * u64::from(low) + 64 * starts, records * u64::from(super::super::bytes::bits_for(max)) + 64)
        };
        for (records, max) in [(1_000_000, 4_000_000), (10, 1_000_000), (1, 0), (5, 5)] {
            let (split, whole) = bits(records, max);
            assert!(split <= whole, "{records} {max}: {split} {whole}");
        }
        assert_eq!(split(1000, 0, 25), (0, 1));
    }
}
