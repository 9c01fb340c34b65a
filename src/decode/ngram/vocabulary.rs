//! Words and their ids.

use super::bytes::{Bytes, u32_at, u64_at};
use super::hash_table::{Growing, Table, hash_word};
use super::{UNKNOWN, WordId};

/// How ids are found.
#[derive(Debug, Clone)]
enum Index {
    /// Hash to id.
    Probing(Table),
    /// Ascending 64-bit hashes; the id of a word is its place, from 1.
    Sorted(Bytes),
}

/// Spellings in the order of ids, each followed by a zero byte.
#[derive(Debug, Clone)]
struct Spellings {
    bytes: Bytes,
    /// One past the end of each word.
    ends: Vec<u64>,
}

/// Words and their ids; 0 is `<unk>`.
#[derive(Debug, Clone)]
pub(super) struct Vocabulary {
    index: Index,
    spellings: Option<Spellings>,
    len: usize,
}

impl Vocabulary {
    /// The vocabulary of a hash table with 32-bit ids as values.
    pub(super) fn probing(table: Table, len: usize) -> Self {
        Self { index: Index::Probing(table), spellings: None, len }
    }

    /// The vocabulary of ascending hashes; `<unk>` has none.
    pub(super) fn sorted(hashes: Bytes) -> Self {
        let len = hashes.len() / 8 + 1;
        Self { index: Index::Sorted(hashes), spellings: None, len }
    }

    /// The vocabulary of spellings in the order of ids, each followed by a zero byte; the first is `<unk>`. An error says which word is bad.
    pub(super) fn spelled(bytes: Bytes) -> Result<Self, String> {
        let mut words = Words::default();
        for word in bytes.split_inclusive(|&b| b == 0).skip(1) {
            let text = word.strip_suffix(&[0]).unwrap_or(word);
            let text = std::str::from_utf8(text).map_err(|_| format!("word {} is not UTF-8", words.len()))?;
            words.insert(text).ok_or_else(|| format!("word {} (`{text}`) is there twice", words.len()))?;
        }
        let len = words.len();
        Self::probing(words.table.finish(), len).with_spellings(bytes)
    }

    /// Adds the spellings. An error says how they do not fit.
    pub(super) fn with_spellings(mut self, bytes: Bytes) -> Result<Self, String> {
        let ends: Vec<u64> = bytes.iter().zip(0..).filter(|(b, _)| **b == 0).map(|(_, at)| at).collect();
        if ends.len() != self.len {
            return Err(format!("{} words spelled out for {} ids", ends.len(), self.len));
        }
        if !bytes.starts_with(b"<unk>\0") {
            return Err("the first word is not <unk>".into());
        }
        self.spellings = Some(Spellings { bytes, ends });
        Ok(self)
    }

    /// Number of words, `<unk>` included.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The id of a word; `None` for one that is not there.
    pub(super) fn id(&self, word: &str) -> Option<WordId> {
        if word == "<unk>" || word == "<UNK>" {
            return Some(UNKNOWN);
        }
        let hash = hash_word(word.as_bytes());
        let id = match &self.index {
            Index::Probing(table) => u32_at(table.find(hash)?, 0),
            Index::Sorted(hashes) => {
                let (mut low, mut high) = (0, self.len - 1);
                while low < high {
                    let middle = (low + high) / 2;
                    if u64_at(hashes, 8 * middle) < hash { low = middle + 1 } else { high = middle }
                }
                (low < self.len - 1 && u64_at(hashes, 8 * low) == hash).then_some(low as u32 + 1)?
            }
        };
        // Two words may share a hash: the spelling decides.
        let certain = (id as usize) < self.len && self.word(id).is_none_or(|found| found == word);
        certain.then_some(id)
    }

    /// The spelling of an id; `None` where the format does not hold it.
    pub(super) fn word(&self, id: WordId) -> Option<&str> {
        let Spellings { bytes, ends } = self.spellings.as_ref()?;
        let end = *ends.get(id as usize)? as usize;
        let start = (id as usize).checked_sub(1).map_or(0, |before| ends[before] as usize + 1);
        std::str::from_utf8(bytes.get(start..end)?).ok()
    }

    /// All spellings the format holds, by id.
    pub(super) fn words(&self) -> impl Iterator<Item = &str> {
        let spelled = if self.spellings.is_some() { self.len } else { 0 };
        (0..spelled as WordId).filter_map(|id| self.word(id))
    }
}

/// A vocabulary that grows; ids in the order of arrival.
#[derive(Debug)]
pub(super) struct Words {
    table: Growing,
    bytes: Vec<u8>,
}

impl Default for Words {
    fn default() -> Self {
        Self { table: Growing::new(12), bytes: b"<unk>\0".to_vec() }
    }
}

impl Words {
    pub(super) fn len(&self) -> usize {
        self.table.len() + 1
    }

    /// Adds a word; `None` if it is there already, or holds a zero byte. `<unk>` is there from the start.
    pub(super) fn insert(&mut self, word: &str) -> Option<WordId> {
        let id = WordId::try_from(self.len()).ok()?;
        let hash = hash_word(word.as_bytes());
        if word == "<unk>" || word == "<UNK>" || word.is_empty() || hash == 0 || word.contains('\0') {
            return None;
        }
        let (value, new) = self.table.find_or_insert(hash);
        if !new {
            return None;
        }
        value.copy_from_slice(&id.to_le_bytes());
        self.bytes.extend_from_slice(word.as_bytes());
        self.bytes.push(0);
        Some(id)
    }

    /// The id of a word.
    pub(super) fn id(&mut self, word: &str) -> Option<WordId> {
        if word == "<unk>" || word == "<UNK>" {
            return Some(UNKNOWN);
        }
        self.table.find(hash_word(word.as_bytes())).map(|value| u32_at(value, 0))
    }

    pub(super) fn finish(self) -> Result<Vocabulary, String> {
        let len = self.len();
        Vocabulary::probing(self.table.finish(), len).with_spellings(self.bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_both_ways() {
        let mut words = Words::default();
        assert_eq!([words.insert("a"), words.insert("bé"), words.insert("a"), words.insert("<UNK>")], [Some(1), Some(2), None, None]);
        assert_eq!([words.id("a"), words.id("c"), words.id("<unk>")], [Some(1), None, Some(0)]);
        let bytes = words.bytes.clone();
        for vocabulary in [words.finish().unwrap(), Vocabulary::spelled(bytes.into()).unwrap()] {
            assert_eq!(vocabulary.words().collect::<Vec<_>>(), ["<unk>", "a", "bé"]);
            assert_eq!(["a", "bé", "c", "", "<unk>"].map(|w| vocabulary.id(w)), [Some(1), Some(2), None, None, Some(0)]);
            assert_eq!((vocabulary.word(2), vocabulary.word(3)), (Some("bé"), None));
        }
    }

    #[test]
    fn sorted_hashes() {
        let mut hashes: Vec<u64> = ["x", "y", "z"].iter().map(|w| hash_word(w.as_bytes())).collect();
        hashes.sort_unstable();
        let vocabulary = Vocabulary::sorted(hashes.iter().flat_map(|h| h.to_le_bytes()).collect::<Vec<_>>().into());
        for word in ["x", "y", "z"] {
            let place = hashes.iter().position(|&h| h == hash_word(word.as_bytes())).unwrap();
            assert_eq!(vocabulary.id(word), Some(place as u32 + 1));
        }
        assert_eq!((vocabulary.id("w"), vocabulary.words().count()), (None, 0));
    }

    #[test]
    fn bad_spellings_are_refused() {
        for (bytes, says) in [
            (&b"a\0"[..], "first word"),
            (b"<unk>\0a\0a\0", "twice"),
            (b"<unk>\0\xff\0", "UTF-8"),
            (b"<unk>\0a", "spelled out"),
            (b"", "spelled out"),
        ] {
            let said = Vocabulary::spelled(bytes.to_vec().into()).unwrap_err();
            assert!(said.contains(says), "{said}");
        }
    }
}
