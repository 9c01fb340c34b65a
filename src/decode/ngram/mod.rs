//! Backoff n-gram language models: ARPA text, KenLM's binary files and a compact file of our own, read natively.
//!
//! Scores are KenLM's: the longest n-gram that matches gives the probability, the contexts that did not match charge their backoff. All
//! formats share one walk (`search`): from the word to be scored to the left, one more word of context at a time.

mod arpa;
pub mod build;
mod bytes;
mod compact;
mod hash_table;
mod kenlm;
mod kenlm_probing;
mod kenlm_trie;
mod probing;
mod search;
mod trie;
mod vocabulary;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::Path;

use crate::error::{Error, Result};

use bytes::Bytes;
use probing::Probing;
use trie::Trie;
use vocabulary::Vocabulary;

/// A word by number; 0 is `<unk>`.
pub type WordId = u32;

/// The word that stands for all words a model does not know.
pub const UNKNOWN: WordId = 0;

/// Highest order that is read or built.
pub const MAX_ORDER: usize = 7;

const LONGEST_CONTEXT: usize = MAX_ORDER - 1;

/// What a model remembers of the words before: as few of them as can matter to any word to come.
///
/// Two states are equal if their words are; then every continuation scores the same.
#[derive(Clone, Copy)]
pub struct State {
    /// Latest word first.
    words: [WordId; LONGEST_CONTEXT],
    /// log10 backoff of the latest word, the latest two, ...
    backoffs: [f32; LONGEST_CONTEXT],
    length: u8,
}

impl State {
    const EMPTY: Self = Self { words: [UNKNOWN; LONGEST_CONTEXT], backoffs: [0.0; LONGEST_CONTEXT], length: 0 };

    /// The words remembered, the latest first.
    pub fn context(&self) -> &[WordId] {
        &self.words[..usize::from(self.length)]
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.context() == other.context()
    }
}

impl Eq for State {}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.context().hash(hasher);
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("State").field(&self.context()).finish()
    }
}

/// The structure that holds the n-grams.
#[derive(Debug)]
enum Storage {
    Probing(Probing),
    Trie(Trie),
}

/// The formats of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// ARPA text.
    Arpa,
    /// KenLM's binary of hash tables.
    KenlmProbing,
    /// KenLM's binary of a trie, in any of its four layouts.
    KenlmTrie,
    /// The compact binary that this crate writes.
    Compact,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Arpa => "ARPA",
            Self::KenlmProbing => "KenLM probing",
            Self::KenlmTrie => "KenLM trie",
            Self::Compact => "compact",
        })
    }
}

/// An n-gram language model.
#[derive(Debug)]
pub struct NgramModel {
    format: Format,
    vocabulary: Vocabulary,
    storage: Storage,
    counts: Vec<u64>,
    start: State,
    end: WordId,
}

impl NgramModel {
    /// Opens a model in any of the formats, told apart by how the file starts; ARPA text may be gzipped.
    ///
    /// # Errors
    /// - [`Error::Io`]: the file cannot be read
    /// - [`Error::Manifest`]: a line of an ARPA file is wrong; names it
    /// - [`Error::Config`]: a binary file is cut short, or is not what its header says
    pub fn open(path: &Path) -> Result<Self> {
        let mut head = Vec::new();
        let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
        std::io::Read::read_to_end(&mut std::io::Read::take(file, kenlm::MAGIC.len() as u64), &mut head).map_err(|e| Error::io(path, e))?;
        let mapped = || crate::kernel::mapping::map(path).map(Bytes::mapped).map_err(|e| Error::io(path, e));
        if head.starts_with(kenlm::MAGIC) {
            kenlm::open(path, &mapped()?)
        } else if head.starts_with(compact::MAGIC) {
            compact::open(path, &mapped()?)
        } else {
            arpa::read(path)
        }
    }

    /// A model of the parts; finds the sentence marks.
    fn new(path: &Path, format: Format, vocabulary: Vocabulary, storage: Storage, counts: Vec<u64>) -> Result<Self> {
        if counts.is_empty() || counts.len() > MAX_ORDER {
            return Err(too_high(path, counts.len()));
        }
        let end = vocabulary.id("</s>").unwrap_or(UNKNOWN);
        let start = vocabulary.id("<s>");
        let mut model = Self { format, vocabulary, storage, counts, start: State::EMPTY, end };
        if let Some(id) = start.filter(|_| model.order() > 1) {
            model.start = model.score_log10(&State::EMPTY, id).1;
            (model.start.words[0], model.start.length) = (id, 1);
        }
        Ok(model)
    }

    /// What the model was read from.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Words of an n-gram of the highest order.
    pub fn order(&self) -> usize {
        self.counts.len()
    }

    /// N-grams of each order, from 1, as the file says.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// The id of a word; `None` for a word that is not in the vocabulary.
    pub fn word(&self, text: &str) -> Option<WordId> {
        self.vocabulary.id(text)
    }

    /// The spelling of a word; `None` where the format does not hold it.
    pub fn text(&self, word: WordId) -> Option<&str> {
        self.vocabulary.word(word)
    }

    /// The vocabulary in the order of ids, `<unk>`, `<s>` and `</s>` included; nothing where the format does not hold it.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.vocabulary.words()
    }

    /// Number of words, `<unk>` and sentence marks included.
    pub fn vocabulary_len(&self) -> usize {
        self.vocabulary.len()
    }

    /// The state at the start of a sentence: after `<s>`, without context where the model has none.
    pub fn start(&self) -> State {
        self.start
    }

    /// The state without context.
    pub fn empty(&self) -> State {
        State::EMPTY
    }

    /// Natural logarithm of p(word | state), and the state after the word. A word out of range counts as `<unk>`.
    pub fn score(&self, state: &State, word: WordId) -> (f32, State) {
        let (log10, next) = self.score_log10(state, word);
        (log10 * std::f32::consts::LN_10, next)
    }

    /// Natural logarithm of p(</s> | state).
    pub fn score_end(&self, state: &State) -> f32 {
        self.score(state, self.end).0
    }

    fn score_log10(&self, state: &State, word: WordId) -> (f32, State) {
        match &self.storage {
            Storage::Probing(probing) => search::score(probing, self.order(), state, word),
            Storage::Trie(trie) => search::score(trie, self.order(), state, word),
        }
    }
}

/// The error for an order that is not read.
fn too_high(path: &Path, order: usize) -> Error {
    Error::LimitExceeded { what: format!("{}: order of the language model", path.display()), limit: MAX_ORDER as u64, got: order as u64 }
}
