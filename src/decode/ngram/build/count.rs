//! Text to counted n-grams of the highest order.

use std::collections::{HashMap, HashSet};

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

    /// By word: whether the model is to have it, the marks always.
    pub(super) fn keep(&self, counts: &[u64], min_count: u64, limit: Option<&[String]>) -> Vec<bool> {
        let limit: Option<HashSet<&str>> = limit.map(|words| words.iter().map(String::as_str).collect());
        let mut keep = vec![true; counts.len()];
        for (word, &id) in &self.ids {
            let listed = limit.as_ref().is_none_or(|limit| limit.contains(&**word));
            keep[id as usize] = MARKS.contains(&&**word) || (listed && counts[id as usize] >= min_count);
        }
        keep
    }

    /// The spellings by id.
    pub(super) fn into_texts(self) -> Vec<String> {
        let mut texts = vec![String::new(); self.ids.len()];
        self.ids.into_iter().for_each(|(word, id)| texts[id as usize] = word.into());
        texts
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
        for word in sentence.split(|c: char| c.is_ascii_whitespace() || c == '\0').filter(|word| !word.is_empty() && !MARKS.contains(word)) {
            let too_many = || Error::LimitExceeded { what: "words of a language model".into(), limit: u64::from(u32::MAX) - 2, got: u64::from(u32::MAX) };
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

    /// The words, how often each occurs, and the n-grams from the last word to the first, sorted.
    pub(super) fn finish(self) -> Result<(WordList, Vec<u64>, Sorted)> {
        Ok((self.words, self.counts, self.ngrams.finish()?))
    }
}
