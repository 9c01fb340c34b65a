//! Text to counted n-grams of the highest order.

use std::collections::{HashMap, HashSet};

use super::super::hash_table::hash_word;
use super::super::{MAX_ORDER, UNKNOWN, WordId};
use super::rows::{Row, Same, Sorted, Sorter};
use super::{END, START};
use crate::error::{Error, Result};

/// What is not a word.
const MARKS: [&str; 3] = ["<unk>", "<s>", "</s>"];

/// Words by id in the order of arrival, after the marks.
#[derive(Debug)]
pub(super) struct WordList {
    ids: HashMap<Box<str>, WordId>,
}

impl WordList {
    fn id(&mut self, word: &str) -> Option<WordId> {
        if let Some(&id) = self.ids.get(word) {
            return Some(id);
        }
        let id = WordId::try_from(self.ids.len()).ok().filter(|&id| id < WordId::MAX - 1)?;
        self.ids.insert(word.into(), id);
        Some(id)
    }
}

/// The words of a model.
#[derive(Debug)]
pub(super) struct Lexicon {
    /// Spellings: the marks, then the words in the order of their hashes. Ids of neighbours in a trie are then spread evenly, which a
    /// search can use.
    pub(super) texts: Vec<String>,
    /// Whether the model is to have a word; it has the marks.
    pub(super) keep: Vec<bool>,
    /// Places in this order by id of arrival.
    pub(super) places: Vec<WordId>,
}

impl Lexicon {
    fn new(words: WordList, counts: &[u64], min_count: u64, limit: Option<&[String]>) -> Self {
        let limit: Option<HashSet<&str>> = limit.map(|words| words.iter().map(String::as_str).collect());
        let mut words: Vec<(Box<str>, WordId)> = words.ids.into_iter().collect();
        words.sort_by_cached_key(|(word, id)| (*id > END, if *id > END { hash_word(word.as_bytes()) } else { 0 }, *id));
        let keep = |(word, id): &(Box<str>, WordId)| {
            let listed = limit.as_ref().is_none_or(|limit| limit.contains(&**word));
            *id <= END || (listed && counts[*id as usize] >= min_count)
        };
        let mut places = vec![UNKNOWN; words.len()];
        words.iter().zip(0..).for_each(|((_, id), place)| places[*id as usize] = place);
        Self { keep: words.iter().map(keep).collect(), texts: words.into_iter().map(|(word, _)| word.into()).collect(), places }
    }
}

/// Counts n-grams.
#[derive(Debug)]
pub(super) struct Counter {
    order: usize,
    words: WordList,
    /// Occurrences by word.
    counts: Vec<u64>,
    ngrams: Sorter,
    sentences: u64,
}

impl Counter {
    pub(super) fn new(order: usize, bytes: usize) -> Self {
        let ids = MARKS.iter().zip(0..).map(|(&mark, id)| (mark.into(), id)).collect();
        let ngrams = Sorter::new(order, bytes, Same::Sum);
        Self { order, words: WordList { ids }, counts: vec![0; MARKS.len()], ngrams, sentences: 0 }
    }

    /// Words and sentences so far.
    pub(super) fn seen(&self) -> (u64, u64) {
        (self.counts[END as usize + 1..].iter().sum(), self.sentences)
    }

    pub(super) fn add(&mut self, sentence: &str) -> Result<()> {
        let mut recent = [UNKNOWN; MAX_ORDER];
        recent[..self.order].fill(START);
        for word in sentence.split(|c: char| c.is_ascii_whitespace() || c == '\0').filter(|word| !word.is_empty() && !MARKS.contains(word))
        {
            let too_many = || Error::LimitExceeded {
                what: "words of a language model".into(),
                limit: u64::from(u32::MAX) - 2,
                got: u64::from(u32::MAX),
            };
            let id = self.words.id(word).ok_or_else(too_many)?;
            self.push(&mut recent, id)?;
        }
        self.push(&mut recent, END)?;
        self.sentences += 1;
        Ok(())
    }

    /// Counts a word after those before it.
    fn push(&mut self, recent: &mut [WordId; MAX_ORDER], id: WordId) -> Result<()> {
        if id as usize >= self.counts.len() {
            self.counts.push(0);
        }
        self.counts[id as usize] += 1;
        recent[..self.order].rotate_right(1);
        recent[0] = id;
        self.ngrams.push(Row::counted(*recent, 1))
    }

    /// The words, and the n-grams from the last word to the first, by ids of arrival, sorted.
    pub(super) fn finish(self, min_count: u64, limit: Option<&[String]>) -> Result<(Lexicon, Sorted)> {
        Ok((Lexicon::new(self.words, &self.counts, min_count, limit), self.ngrams.finish()?))
    }
}
