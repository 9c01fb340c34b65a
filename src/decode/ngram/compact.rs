//! The compact file: a trie with quantised values and split pointers, its words, and a checksum.
//!
//! ```text
//! magic (16 bytes) | version | order | bits of a value | 0 (32 bits each) | n-grams of each order, bytes of the words (64 bits each)
//! words, each with a zero byte | unigrams | for each order from 2: tables of values, array, starts of the pointers' high bits
//! SHA-256 of all that
//! ```
//! All numbers are little-endian; arrays and their parts are those of the `trie` module. Ids are in the order of the words' hashes, which
//! spreads them evenly. The same text and options give the same bytes.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::bytes::{Bytes, Parts, bits_for, u32_at, u64_at};
use super::trie::{Array, Pointers, Trie, UNIGRAM_BYTES, Values, array_bytes, record_bits, split};
use super::vocabulary::Vocabulary;
use super::{Format, MAX_ORDER, NgramModel, Storage, too_high};
use crate::error::{Error, Result};

/// How the files start.
pub(super) const MAGIC: &[u8; 16] = b"omniscribe ngram";
/// The version that is written and read.
pub(super) const VERSION: u32 = 1;
/// Bits that quantised values may have.
pub(super) const BITS: std::ops::RangeInclusive<u32> = 2..=16;
/// Most bits of a pointer that go to the table of starts.
pub(super) const SPLIT_LIMIT: u32 = 25;
const CHECKSUM_BYTES: usize = 32;

/// Opens a mapped file that starts with [`MAGIC`].
///
/// # Errors
/// [`Error::FormatVersion`], [`Error::LimitExceeded`] for the order, [`Error::Config`] for anything else: says what is wrong and where.
pub(super) fn open(path: &Path, bytes: &Bytes) -> Result<NgramModel> {
    let mut parts = Parts::new(path, "compact language model", bytes, MAGIC.len());
    let head = parts.take("the header", Some(16))?;
    let [version, order, bits] = [0, 4, 8].map(|at| u32_at(&head, at));
    if version != VERSION {
        return Err(Error::FormatVersion { path: path.to_path_buf(), found: version, supported: VERSION });
    }
    if !(1..=MAX_ORDER).contains(&(order as usize)) {
        return Err(too_high(path, order as usize));
    }
    if !BITS.contains(&bits) {
        return Err(parts.refuse(format!("{bits} bits of quantisation: {} to {} are possible", BITS.start(), BITS.end())));
    }
    let sizes = parts.take("the counts", Some(8 * u64::from(order + 1)))?;
    let counts: Vec<u64> = (0..order as usize).map(|i| u64_at(&sizes, 8 * i)).collect();
    if counts[0] == 0 || counts[0] > u64::from(u32::MAX) || counts.iter().any(|&count| count >= 1 << 56) {
        return Err(parts.refuse(format!("counts {counts:?} are out of range")));
    }
    let spellings = parts.take("the words", Some(u64_at(&sizes, 8 * order as usize)))?;
    let unigrams = parts.take("the unigrams", Some(UNIGRAM_BYTES as u64 * (counts[0] + 1)))?;
    let word_bits = bits_for(counts[0] - 1);
    let mut arrays = Vec::new();
    for (i, &entries) in counts.iter().enumerate().skip(1) {
        let what = format!("the {}-grams", i + 1);
        let next = counts.get(i + 1);
        let tables = parts.take(&what, Some((4 << bits) * (1 + u64::from(next.is_some()))))?;
        let values = Values::tables(&tables, &mut 0, bits, next.map(|_| bits));
        let (low, starts) = next.map_or((0, 0), |&next| split(entries + 1, next, SPLIT_LIMIT));
        let mut pointers = next.map(|_| Pointers::Inline(low));
        let array = parts.take(&what, array_bytes(entries, record_bits(word_bits, &values, pointers.as_ref())))?;
        if next.is_some() {
            pointers = Some(Pointers::Split { low, starts: parts.take(&what, starts.checked_mul(8))? });
        }
        arrays.push(Array::new(array, entries, (counts[0], word_bits), values, pointers));
    }
    let end = parts.at();
    let checksum = parts.take("the checksum", Some(CHECKSUM_BYTES as u64))?;
    if parts.left() > 0 {
        return Err(parts.refuse(format!("{} bytes after its end at byte {}", parts.left(), parts.at())));
    }
    if Sha256::digest(&bytes[..end])[..] != checksum[..] {
        return Err(parts.refuse("the checksum is wrong: the file is damaged"));
    }
    let vocabulary = Vocabulary::spelled(spellings).map_err(|reason| parts.refuse(reason))?;
    let words = vocabulary.len();
    if words as u64 != counts[0] {
        return Err(parts.refuse(format!("{words} words, but {} unigrams", counts[0])));
    }
    NgramModel::new(path, Format::Compact, vocabulary, Storage::Trie(Trie { unigrams, words, arrays }), counts)
}
