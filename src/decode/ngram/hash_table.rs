//! Open addressing with linear probing over plain bytes: the layout of KenLM's probing tables.
//!
//! A bucket is a 64-bit key, 0 where it is empty, and its value; a key starts at bucket `key % buckets`.

use super::bytes::{Bytes, u64_at};

/// MurmurHash64A with seed 0: how KenLM names a word.
pub(super) fn hash_word(word: &[u8]) -> u64 {
    const M: u64 = 0xc6a4_a793_5bd1_e995;
    const R: u32 = 47;
    let (blocks, tail) = word.as_chunks::<8>();
    let mut hash = (word.len() as u64).wrapping_mul(M);
    for &block in blocks {
        let mut k = u64::from_le_bytes(block).wrapping_mul(M);
        k = (k ^ k >> R).wrapping_mul(M);
        hash = (hash ^ k).wrapping_mul(M);
    }
    if !tail.is_empty() {
        hash ^= tail.iter().rev().fold(0, |k, &byte| k << 8 | u64::from(byte));
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ hash >> R).wrapping_mul(M);
    hash ^ hash >> R
}

/// Key of an n-gram one word longer to the left than the one of key `hash`. The key of a unigram is its id.
pub(super) fn extend_key(hash: u64, word: u32) -> u64 {
    hash.wrapping_mul(8_978_948_897_894_561_157) ^ (1 + u64::from(word)).wrapping_mul(17_894_857_484_156_487_943)
}

/// A table to look up in.
#[derive(Debug, Clone)]
pub(super) struct Table {
    bytes: Bytes,
    /// Bytes of a bucket.
    stride: usize,
    buckets: u64,
}

impl Table {
    /// A table of as many whole buckets as `bytes` hold.
    pub(super) fn new(bytes: Bytes, stride: usize) -> Self {
        let buckets = (bytes.len() / stride) as u64;
        Self { bytes, stride, buckets }
    }

    /// The bytes of a key's value.
    pub(super) fn find(&self, key: u64) -> Option<&[u8]> {
        let bytes: &[u8] = &self.bytes;
        let mut bucket = key.checked_rem(self.buckets).filter(|_| key != 0)?;
        for _ in 0..self.buckets {
            let at = bucket as usize * self.stride;
            match u64_at(bytes, at) {
                0 => return None,
                found if found == key => return bytes.get(at + 8..at + self.stride),
                _ => bucket = if bucket + 1 == self.buckets { 0 } else { bucket + 1 },
            }
        }
        None
    }
}

/// A table to fill. It is at most two thirds full.
#[derive(Debug)]
pub(super) struct Growing {
    bytes: Vec<u8>,
    stride: usize,
    used: usize,
}

impl Growing {
    pub(super) fn new(stride: usize) -> Self {
        Self { bytes: vec![0; 16 * stride], stride, used: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.used
    }

    /// The value of a key, zeros for a new one; the flag says whether it is new. The key must not be 0.
    pub(super) fn find_or_insert(&mut self, key: u64) -> (&mut [u8], bool) {
        if 3 * (self.used + 1) > 2 * (self.bytes.len() / self.stride) {
            self.grow();
        }
        let at = self.slot(key);
        let new = u64_at(&self.bytes, at) == 0;
        if new {
            self.bytes[at..at + 8].copy_from_slice(&key.to_le_bytes());
            self.used += 1;
        }
        (&mut self.bytes[at + 8..at + self.stride], new)
    }

    /// The value of a key that is there.
    pub(super) fn find(&mut self, key: u64) -> Option<&mut [u8]> {
        let at = self.slot(key);
        (key != 0 && u64_at(&self.bytes, at) == key).then(|| &mut self.bytes[at + 8..at + self.stride])
    }

    pub(super) fn finish(self) -> Table {
        Table::new(self.bytes.into(), self.stride)
    }

    /// Where a key is, or the empty bucket where it would go.
    fn slot(&self, key: u64) -> usize {
        let buckets = self.bytes.len() / self.stride;
        let mut bucket = (key % buckets as u64) as usize;
        loop {
            let found = u64_at(&self.bytes, bucket * self.stride);
            if found == 0 || found == key {
                return bucket * self.stride;
            }
            bucket = if bucket + 1 == buckets { 0 } else { bucket + 1 };
        }
    }

    fn grow(&mut self) {
        let old = std::mem::take(&mut self.bytes);
        self.bytes = vec![0; 2 * old.len()];
        for bucket in old.chunks_exact(self.stride).filter(|bucket| u64_at(bucket, 0) != 0) {
            let at = self.slot(u64_at(bucket, 0));
            self.bytes[at..at + self.stride].copy_from_slice(bucket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_hash_as_published() {
        // MurmurHash64A of the reference implementation, seed 0.
        assert_eq!(hash_word(b""), 0);
        let distinct: std::collections::HashSet<u64> = (0..100).map(|n| hash_word(&vec![b'a'; n])).collect();
        assert_eq!(distinct.len(), 100);
    }

    #[test]
    fn finds_what_was_put_in() {
        let mut growing = Growing::new(12);
        let keys: Vec<u64> = (1..1000).map(|i| extend_key(i % 7, i as u32) | 1).collect();
        for (i, &key) in keys.iter().enumerate() {
            let (value, new) = growing.find_or_insert(key);
            assert!(new);
            value.copy_from_slice(&(i as u32).to_le_bytes());
        }
        assert!(!growing.find_or_insert(keys[3]).1);
        assert_eq!(growing.len(), keys.len());
        let table = growing.finish();
        for (i, &key) in keys.iter().enumerate() {
            assert_eq!(table.find(key), Some(&(i as u32).to_le_bytes()[..]));
        }
        assert_eq!((table.find(2), table.find(0)), (None, None));
    }

    #[test]
    fn full_and_empty_tables_end_the_search() {
        let full = Table::new([7u64, 9].map(u64::to_le_bytes).concat().into(), 8);
        assert_eq!((full.find(9), full.find(8)), (Some(&[][..]), None));
        assert_eq!(Table::new(Vec::new().into(), 12).find(5), None);
    }
}
