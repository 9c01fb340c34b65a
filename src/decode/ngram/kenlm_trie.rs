//! The trie layouts of KenLM's binary files: plain, quantised, with array-compressed pointers, with both.

use super::Storage;
use super::bytes::{Parts, bits_for, u64_at};
use super::kenlm::Header;
use super::trie::{Array, Pointers, Trie, UNIGRAM_BYTES, Values, array_bytes, record_bits, split};
use super::vocabulary::Vocabulary;
use crate::error::Result;

/// Version of the trie layouts, of the quantiser's tables and of the pointers' tables.
const VERSIONS: [u32; 3] = [1, 2, 0];
/// Most bits of a quantised value.
const MAX_BITS: u32 = 25;

/// Reads one of the layouts; `kind` is KenLM's number, 2 to 5.
pub(super) fn read(header: &Header, parts: &mut Parts, kind: u32) -> Result<(Vocabulary, Storage)> {
    let check = |parts: &Parts, what: &str, found: u32, supported: u32| {
        if found == supported { Ok(()) } else { Err(parts.refuse(format!("{what} version {found}, this build reads {supported}"))) }
    };
    check(parts, "trie layout", header.version, VERSIONS[0])?;
    let (quantized, split_pointers) = (kind & 1 == 1, kind >= 4);
    let counts = &header.counts;
    let order = counts.len();

    let listed = u64_at(&parts.take("the vocabulary's header", Some(8))?, 0);
    let hashes = parts.take("the vocabulary", Some(8 * counts[0]))?;
    let used = listed.checked_mul(8).and_then(|used| hashes.part(0, usize::try_from(used).ok()?));
    let vocabulary = Vocabulary::sorted(used.ok_or_else(|| parts.refuse(format!("{listed} words, but {} unigrams", counts[0])))?);

    let mut values = vec![Values::Plain; order - 1];
    if quantized {
        let head = parts.take("the quantiser's header", Some(8))?;
        check(parts, "quantiser", u32::from(head[0]), VERSIONS[1])?;
        let [prob_bits, backoff_bits] = [head[1], head[2]].map(u32::from);
        if !(1..=MAX_BITS).contains(&prob_bits) || !(1..=MAX_BITS).contains(&backoff_bits) {
            return Err(parts.refuse(format!("{prob_bits} and {backoff_bits} bits of quantisation, 1 to {MAX_BITS} are possible")));
        }
        let (prob_bytes, backoff_bytes) = (4u64 << prob_bits, 4u64 << backoff_bits);
        let tables = parts.take("the quantiser's tables", Some((order as u64 - 1) * prob_bytes + (order as u64 - 2) * backoff_bytes))?;
        let mut at = 0;
        for (i, values) in values.iter_mut().enumerate() {
            *values = Values::tables(&tables, &mut at, prob_bits, (i + 2 < order).then_some(backoff_bits));
        }
    }

    let unigrams = parts.take("the unigrams", Some(UNIGRAM_BYTES as u64 * (counts[0] + 2)))?;
    let word_bits = bits_for(counts[0]);
    let mut arrays = Vec::with_capacity(order - 1);
    let mut limit = 0;
    for (i, values) in values.into_iter().enumerate() {
        let (what, entries) = (format!("the {}-grams", i + 2), counts[i + 1]);
        let pointers = match counts.get(i + 2) {
            None => None,
            Some(&next) if !split_pointers => Some(Pointers::Inline(bits_for(next))),
            Some(&next) => {
                let start = parts.at();
                let head = parts.take(&what, Some(8))?;
                if i == 0 {
                    check(parts, "pointer table", u32::from(head[0]), VERSIONS[2])?;
                    limit = u32::from(head[1]);
                }
                let (low, length) = split(entries + 1, next, limit);
                // The table is aligned within a room that is 7 bytes longer than header and table.
                let aligned = start.next_multiple_of(8);
                parts.take(&what, Some((aligned - start) as u64))?;
                let starts = parts.take(&what, length.checked_mul(8))?;
                parts.take(&what, Some((start + 7 - aligned) as u64))?;
                Some(Pointers::Split { low, starts })
            }
        };
        let bytes = parts.take(&what, array_bytes(entries, record_bits(word_bits, &values, pointers.as_ref())))?;
        arrays.push(Array::new(bytes, entries, (counts[0], word_bits), values, pointers));
    }
    let words = vocabulary.len();
    Ok((vocabulary, Storage::Trie(Trie { unigrams, words, arrays })))
}
