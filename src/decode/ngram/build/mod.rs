//! Training: modified Kneser-Ney smoothing, interpolated (Chen & Goodman 1998), as a chain of sorts and passes (Heafield et al. 2013).
//!
//! ```text
//! text -> count: n-grams of the highest order, by suffix
//!      -> adjust: all orders; a shorter n-gram counts the words seen before it (the occurrences where it starts a sentence)
//!      -> discount: by context; what each count is discounted by, and how much every context leaves to shorter n-grams
//!      -> interpolate: by suffix again; probabilities from the shortest n-gram to the longest
//!      -> ARPA text, compact file
//! ```
//!
//! Rows that do not fit the memory given go to temporary files. Beside that memory a build holds the vocabulary, the n-grams of one context,
//! 256 KiB for each temporary file that is open, and, to write a compact file, 4 bytes per n-gram of its largest order.

mod adjust;
mod arpa;
mod compact;
mod count;
mod discount;
pub mod exclude;
mod interpolate;
mod rows;
pub mod text;

use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};

use super::MAX_ORDER;
use adjust::Adjusted;
use count::{Counter, Lexicon};
use rows::Spool;

pub use discount::Discount;
pub use exclude::Exclusion;

/// Ids of the sentence marks.
const START: u32 = 1;
const END: u32 = 2;

/// Shares of the memory given: rows sorted in one pass, rows kept for the last passes.
const SORT_SHARE: f64 = 0.4;
const KEEP_SHARE: f64 = 0.1;

/// What to build.
#[derive(Debug, Clone)]
pub struct BuildConfig {
    /// Words of the longest n-grams, 1 to [`MAX_ORDER`].
    pub order: usize,
    /// N-grams of each order seen this often or less are left out; must not decrease; the last one holds for the orders after it.
    pub prune: Vec<u64>,
    /// Words seen less often are left out, with their n-grams.
    pub min_count: u64,
    /// If set, all other words are left out, with their n-grams.
    pub limit_vocabulary: Option<Vec<String>>,
    /// Discounts of counts 1, 2 and more for orders whose own cannot be estimated; without, such an order is an error.
    pub fallback: Option<[f64; 3]>,
    /// Bytes for n-grams in memory, see [the module](self).
    pub memory: usize,
}

impl Default for BuildConfig {
    fn default() -> Self {
        Self { order: 3, prune: vec![0], min_count: 1, limit_vocabulary: None, fallback: None, memory: 1 << 30 }
    }
}

/// What was seen of one order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OrderReport {
    /// N-grams seen.
    pub seen: u64,
    /// N-grams in the model.
    pub kept: u64,
    /// What counts are discounted by.
    pub discount: Discount,
}

/// Takes in text.
#[derive(Debug)]
pub struct Builder {
    config: BuildConfig,
    counter: Counter,
}

impl Builder {
    /// # Errors
    /// [`Error::Config`] for an order or a threshold out of range.
    pub fn new(config: BuildConfig) -> Result<Self> {
        let refuse = |reason: String| Err(Error::config("language model", reason));
        if !(1..=MAX_ORDER).contains(&config.order) {
            return refuse(format!("order = {}: must be 1 to {MAX_ORDER}", config.order));
        }
        if config.prune.is_empty() || config.prune.len() > config.order || !config.prune.is_sorted() {
            return refuse(format!("prune = {:?}: must be at most {} numbers that do not decrease", config.prune, config.order));
        }
        if let Some(discounts) = config.fallback
            && discounts.iter().zip(1..).any(|(&d, count)| !(0.0..=f64::from(count)).contains(&d))
        {
            return refuse(format!("fallback = {discounts:?}: must be from 0 to 1, 2 and 3"));
        }
        let counter = Counter::new(config.order, share(&config, SORT_SHARE));
        Ok(Self { config, counter })
    }

    /// Counts a sentence: words between spaces, tabs or other ASCII white space. `<s>`, `</s>` and `<unk>` are not words and are skipped.
    ///
    /// # Errors
    /// [`Error::Io`] for temporary files, [`Error::LimitExceeded`] for more words than ids.
    pub fn add(&mut self, sentence: &str) -> Result<()> {
        self.counter.add(sentence)
    }

    /// Words and sentences so far.
    pub fn seen(&self) -> (u64, u64) {
        self.counter.seen()
    }

    /// Estimates the model.
    ///
    /// # Errors
    /// [`Error::Io`] for temporary files, [`Error::Config`] if there is no text, or too little of it to estimate discounts from.
    pub fn finish(self) -> Result<Estimate> {
        if self.counter.seen().0 == 0 {
            return Err(Error::config("language model", "there is no text to build from"));
        }
        let Self { config, counter } = self;
        let (mut lexicon, ngrams) = counter.finish(config.min_count, config.limit_vocabulary.as_deref())?;
        let Adjusted { by_context, statistics } = adjust::adjust(ngrams, &config, &mut lexicon)?;
        let mut report = Vec::with_capacity(config.order);
        for (statistics, order) in statistics.iter().zip(1..) {
            let discount = Discount::estimate(statistics.count_of_counts, order, config.fallback)?;
            report.push(OrderReport { seen: statistics.seen, kept: statistics.kept, discount });
        }
        let discounts: Vec<Discount> = report.iter().map(|order| order.discount).collect();
        let discounted = discount::apply(by_context, &discounts, &config)?;
        let orders = interpolate::interpolate(discounted, report[0].kept, &config)?;
        Ok(Estimate { lexicon, orders, report })
    }
}

/// An estimated model, to be written.
#[derive(Debug)]
pub struct Estimate {
    lexicon: Lexicon,
    /// By order: n-grams from the last word to the first, sorted; probability, and backoff weight or [`interpolate::NO_CONTEXT`].
    orders: Vec<Spool>,
    report: Vec<OrderReport>,
}

impl Estimate {
    /// What was seen and kept, by order.
    pub fn report(&self) -> &[OrderReport] {
        &self.report
    }

    /// Writes ARPA text.
    ///
    /// # Errors
    /// [`Error::Io`], of `path` or of temporary files.
    pub fn write_arpa(&mut self, path: &Path, out: &mut dyn Write) -> Result<()> {
        arpa::write(self, path, out)
    }

    /// Writes the compact binary, probabilities and backoffs as numbers of `bits` bits.
    ///
    /// # Errors
    /// [`Error::Io`], of `path` or of temporary files; [`Error::Config`] for bits that are not 2 to 16.
    pub fn write_compact(&mut self, bits: u32, path: &Path, out: &mut dyn Write) -> Result<()> {
        compact::write(self, bits, path, out)
    }
}

/// A share of the memory, in bytes.
fn share(config: &BuildConfig, share: f64) -> usize {
    (config.memory as f64 * share) as usize
}

/// Shares of bytes for the orders, which have the more n-grams the higher they are.
fn split_bytes(bytes: usize, order: usize, of: usize) -> usize {
    bytes / (of * (of + 1) / 2) * order
}
