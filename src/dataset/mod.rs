//! Training data on the host: manifests and their filters, the decoded-audio cache, batch plans, augmentation and the prefetcher.
//!
//! ```text
//! manifest (JSONL) -> Corpus (weights, filters, report) -> PcmCache (decoded once) -> Planner (epoch, buckets, speed) -> BatchPlan
//!                                                                                                                          |
//!              host batch <- Loader (threads, in order) <- spec_augment <- features <- Augmenter (wave) <- PcmCache::read <-+
//! ```
//!
//! Every random choice is a function of (seed, epoch, utterance, repeat): neither order nor threads change a sample, and a position
//! (epoch, batch) is all it takes to resume.

pub mod augment;
pub mod bucket;
pub mod cache;
pub mod corpus;
mod fingerprint;
pub mod loader;
pub mod manifest;
pub mod rng;
pub mod spec_augment;

pub use augment::{AugmentConfig, Augmenter, Sounds};
pub use bucket::{BatchPlan, BucketConfig, Epoch, EpochReport, Planner, Position, Row};
pub use cache::{BuildReport, PcmCache, Progress};
pub use corpus::{Clip, Corpus, CorpusReport, DropReason, FilterConfig, SourceConfig};
pub use loader::Loader;
pub use manifest::{Entry, TextRule};
pub use rng::{Purpose, Rng, RowKey};
pub use spec_augment::SpecAugmentConfig;

use crate::error::{Error, Result};

/// Lower and upper end of a uniform draw, written `[low, high]` in a config.
pub type Span = [f32; 2];

/// Refuses a configuration value: names the field, the value and the rule.
pub(crate) fn refuse(field: &str, value: impl std::fmt::Debug, rule: &str) -> Error {
    Error::config("run configuration", format!("{field} = {value:?}: {rule}"))
}

/// Checks that a probability lies in 0..=1.
pub(crate) fn check_probability(field: &str, value: f32) -> Result<()> {
    if (0.0..=1.0).contains(&value) { Ok(()) } else { Err(refuse(field, value, "must be from 0 to 1")) }
}

/// Checks that a span is ordered and within `low..=high`.
pub(crate) fn check_span(field: &str, span: Span, low: f32, high: f32) -> Result<()> {
    if low <= span[0] && span[0] <= span[1] && span[1] <= high {
        Ok(())
    } else {
        Err(refuse(field, span, &format!("must be [low, high] with {low} <= low <= high <= {high}")))
    }
}
