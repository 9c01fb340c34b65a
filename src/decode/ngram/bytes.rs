//! Bytes of a model, in memory or mapped from its file, and reads that no offset can make fail.

use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::kernel::mapping::Mapping;

/// A part of a model: a vector of its own or a range of a mapped file.
#[derive(Debug, Clone)]
pub(super) enum Bytes {
    Owned(Arc<Vec<u8>>),
    Mapped(Arc<Mapping>, Range<usize>),
}

impl Bytes {
    /// The whole of a mapped file.
    pub(super) fn mapped(mapping: Mapping) -> Self {
        let all = 0..mapping.len();
        Self::Mapped(Arc::new(mapping), all)
    }

    /// A part of these bytes; `None` if they end before it does.
    pub(super) fn part(&self, from: usize, length: usize) -> Option<Self> {
        let end = from.checked_add(length).filter(|&end| end <= self.len())?;
        Some(match self {
            Self::Owned(bytes) => Self::Owned(Arc::new(bytes[from..end].to_vec())),
            Self::Mapped(mapping, range) => Self::Mapped(mapping.clone(), range.start + from..range.start + end),
        })
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Owned(Arc::new(bytes))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Mapped(mapping, range) => mapping.get(range.clone()).unwrap_or_default(),
        }
    }
}

/// Takes parts off the front of a binary file.
pub(super) struct Parts<'a> {
    path: &'a Path,
    /// What the file is, for messages.
    format: &'static str,
    bytes: &'a Bytes,
    at: usize,
}

impl<'a> Parts<'a> {
    /// Starts at byte `at`, at the latest at the end.
    pub(super) fn new(path: &'a Path, format: &'static str, bytes: &'a Bytes, at: usize) -> Self {
        Self { path, format, bytes, at: at.min(bytes.len()) }
    }

    /// Offset of the next part.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Bytes from here to the end.
    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// An error about this file.
    pub(super) fn refuse(&self, reason: impl std::fmt::Display) -> Error {
        Error::config(self.path, format!("{}: {reason}", self.format))
    }

    /// The next part; its length is `None` where it is too large to be counted.
    pub(super) fn take(&mut self, what: &str, length: Option<u64>) -> Result<Bytes> {
        let part = length.and_then(|length| self.bytes.part(self.at, usize::try_from(length).ok()?));
        let part = part.ok_or_else(|| {
            let needed = length.map_or_else(|| "more bytes than can be counted".into(), |length| format!("{length} bytes"));
            self.refuse(format!("cut short in {what}: {needed} wanted at byte {} of {}", self.at, self.bytes.len()))
        })?;
        self.at += part.len();
        Ok(part)
    }
}

/// The little-endian `u64` at a byte offset; 0 past the end.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |&eight| u64::from_le_bytes(eight))
}

/// The little-endian `u32` at a byte offset; 0 past the end.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |&four| u32::from_le_bytes(four))
}

/// The little-endian `f32` at a byte offset; 0 past the end.
pub(super) fn f32_at(bytes: &[u8], at: usize) -> f32 {
    f32::from_bits(u32_at(bytes, at))
}

/// Bits that numbers up to `max` take.
pub(super) fn bits_for(max: u64) -> u32 {
    u64::BITS - max.leading_zeros()
}

/// `count` bits (at most 57) from bit `at`, least significant first; bits past the end are 0.
pub(super) fn bits_at(bytes: &[u8], at: u64, count: u32) -> u64 {
    let byte = (at >> 3) as usize;
    let word = match bytes.get(byte..).and_then(<[u8]>::first_chunk) {
        Some(&eight) => u64::from_le_bytes(eight),
        None => (byte..bytes.len().min(byte.saturating_add(8))).rev().fold(0, |word, i| word << 8 | u64::from(bytes[i])),
    };
    (word >> (at & 7)) & ((1 << count) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_read_across_bytes_and_past_the_end() {
        let bytes = [0b1010_0101, 0xff, 0x00, 0x81];
        assert_eq!(bits_at(&bytes, 0, 4), 0b0101);
        assert_eq!(bits_at(&bytes, 4, 8), 0b1111_1010);
        assert_eq!(bits_at(&bytes, 24, 57), 0x81);
        assert_eq!(bits_at(&bytes, 31, 57), 1);
        assert_eq!(bits_at(&bytes, 32, 57), 0);
        assert_eq!(bits_at(&bytes, u64::MAX, 57), 0);
        let long: Vec<u8> = (1..=16).collect();
        for at in 0..100 {
            let bit = |i: u64| u64::from(long.get((i >> 3) as usize).map_or(0, |b| b >> (i & 7) & 1));
            let expected = (0..57).fold(0, |all, i| all | bit(at + i) << i);
            assert_eq!(bits_at(&long, at, 57), expected, "{at}");
        }
        assert_eq!((u64_at(&long, 9), u32_at(&long, 13), u32_at(&long, 12)), (0, 0, 0x100f_0e0d));
        assert_eq!([0, 1, 2, 255, 256].map(bits_for), [0, 1, 2, 8, 9]);
    }
}
