//! KenLM's binary files (format version 5): the header, and which layout follows.
//!
//! ```text
//! header | vocabulary hashes | n-grams | spellings, if the file has them
//! ```
//! All numbers are little-endian. Sizes follow from the header's counts, so that a file that is cut short is noticed before any part is
//! read.

use std::path::Path;

use super::bytes::{Bytes, Parts, f32_at, u32_at, u64_at};
use super::{Format, MAX_ORDER, NgramModel, kenlm_probing, kenlm_trie, too_high};
use crate::error::{Error, Result};

/// How the files start, before the version.
pub(super) const MAGIC: &[u8] = b"mmap lm http://kheafield.com/code";
const MAGIC_VERSION: &[u8] = b"mmap lm http://kheafield.com/code format version ";
const VERSION: u32 = 5;
/// Bytes of magic and test values.
const SANITY_BYTES: usize = 88;
const FIXED_BYTES: usize = 20;

/// What sizes follow from.
pub(super) struct Header {
    /// N-grams of each order.
    pub(super) counts: Vec<u64>,
    /// Buckets per entry of hash tables.
    pub(super) multiplier: f32,
    /// Version of the layout.
    pub(super) version: u32,
}

/// Opens a mapped file that starts with [`MAGIC`].
///
/// # Errors
/// [`Error::FormatVersion`], [`Error::LimitExceeded`] for the order, [`Error::Config`] for anything else: says what is wrong and where.
pub(super) fn open(path: &Path, bytes: &Bytes) -> Result<NgramModel> {
    let order = bytes.get(SANITY_BYTES).map_or(0, |&order| usize::from(order));
    let start = (SANITY_BYTES + FIXED_BYTES + 8 * order).next_multiple_of(8);
    let mut parts = Parts::new(path, "KenLM binary", bytes, start);
    let Some(version) = bytes.strip_prefix(MAGIC_VERSION) else {
        return Err(parts.refuse("its building was not finished"));
    };
    let digits: String = version.iter().take_while(|b| b.is_ascii_digit()).take(9).map(|&b| char::from(b)).collect();
    let found = digits.parse().unwrap_or(0);
    if found != VERSION {
        return Err(Error::FormatVersion { path: path.to_path_buf(), found, supported: VERSION });
    }
    let sane = f32_at(bytes, 56) == 0.0
        && f32_at(bytes, 60) == 1.0
        && f32_at(bytes, 64) == -0.5
        && u32_at(bytes, 68) == 1
        && u32_at(bytes, 72) == u32::MAX
        && u64_at(bytes, 80) == 1;
    if !sane || bytes.len() < start {
        return Err(parts.refuse("the header is cut short, or was written on another architecture"));
    }
    if !(2..=MAX_ORDER).contains(&order) {
        return Err(too_high(path, order));
    }
    let fixed = &bytes[SANITY_BYTES..SANITY_BYTES + FIXED_BYTES];
    let (kind, has_words) = (u32_at(fixed, 8), fixed[12] != 0);
    let counts: Vec<u64> = (0..order).map(|i| u64_at(bytes, SANITY_BYTES + FIXED_BYTES + 8 * i)).collect();
    // Ids are 32 bits; the bound also keeps the arithmetic of sizes from overflowing.
    if counts[0] >= u64::from(u32::MAX) || counts.iter().any(|&count| count >= 1 << 56) {
        return Err(parts.refuse(format!("counts {counts:?} are out of range")));
    }
    let header = Header { counts, multiplier: f32_at(fixed, 4), version: u32_at(fixed, 16) };
    let (vocabulary, storage) = match kind {
        0 => kenlm_probing::read(&header, &mut parts)?,
        1 => return Err(parts.refuse("models with rest costs are not supported: build it as `probing` or `trie`")),
        2..=5 => kenlm_trie::read(&header, &mut parts, kind)?,
        _ => return Err(parts.refuse(format!("model type {kind} is not one that this build reads"))),
    };
    let format = if kind == 0 { Format::KenlmProbing } else { Format::KenlmTrie };
    let vocabulary = if has_words {
        let words = parts.take("the words", Some(parts.left() as u64))?;
        vocabulary.with_spellings(words).map_err(|reason| parts.refuse(format!("{reason} (cut short?)")))?
    } else {
        vocabulary
    };
    NgramModel::new(path, format, vocabulary, storage, header.counts)
}
