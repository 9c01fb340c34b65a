//! The hash-table layout of KenLM's binary files.

use super::Storage;
use super::bytes::{Parts, u32_at};
use super::hash_table::Table;
use super::kenlm::Header;
use super::probing::Probing;
use super::vocabulary::Vocabulary;
use crate::error::Result;

/// Bytes of a bucket: hash and id of a word.
const WORD_BYTES: usize = 12;
/// Bytes of a bucket: hash, probability, backoff.
const MIDDLE_BYTES: usize = 16;
/// Bytes of a bucket: hash, probability.
const LONGEST_BYTES: usize = 12;

/// Reads what follows the header.
pub(super) fn read(header: &Header, parts: &mut Parts) -> Result<(Vocabulary, Storage)> {
    if header.version != 0 {
        return Err(parts.refuse(format!("probing layout version {}, this build reads 0", header.version)));
    }
    if !(header.multiplier >= 1.0 && header.multiplier.is_finite()) {
        return Err(parts.refuse(format!("probing multiplier {} is not 1 or more", header.multiplier)));
    }
    // KenLM computes the buckets in f32.
    let buckets = |count: u64| (count + 1).max((header.multiplier * count as f32) as u64);
    let table = |what: &str, parts: &mut Parts, count: u64, stride: usize| {
        Ok(Table::new(parts.take(what, buckets(count).checked_mul(stride as u64))?, stride))
    };
    let head = parts.take("the vocabulary's header", Some(8))?;
    if u32_at(&head, 0) != 0 {
        return Err(parts.refuse(format!("probing vocabulary version {}, this build reads 0", u32_at(&head, 0))));
    }
    let words = u32_at(&head, 4) as usize;
    if words == 0 || words as u64 > header.counts[0] + 1 {
        return Err(parts.refuse(format!("{words} words, but {} unigrams", header.counts[0])));
    }
    let vocabulary = Vocabulary::probing(table("the vocabulary", parts, header.counts[0], WORD_BYTES)?, words);
    // One more than counted, in case the ARPA file had no <unk>.
    let unigrams = parts.take("the unigrams", Some(8 * (header.counts[0] + 1)))?;
    let (longest, middles) = header.counts[1..].split_last().map_or((0, &[][..]), |(last, middles)| (*last, middles));
    let middles = middles.iter().zip(2..).map(|(&count, order)| table(&format!("the {order}-grams"), parts, count, MIDDLE_BYTES));
    let middles = middles.collect::<Result<_>>()?;
    let longest = table("the n-grams of the highest order", parts, longest, LONGEST_BYTES)?;
    Ok((vocabulary, Storage::Probing(Probing { unigrams, middles, longest: Some(longest), words })))
}
