//! Scores: how far hypotheses are from references.

pub mod alignment;
pub mod wer;

pub use wer::WordErrors;
