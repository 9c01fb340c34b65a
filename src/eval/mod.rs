//! Scores: how far hypotheses are from references, how sure that is, and which of two systems is better.
//!
//! ```text
//! texts --score::Scoring (normaliser, mapping file, aligner)--> Scored --summary--> sets, speakers, mean, intervals, confusions
//!                                                                     \--significance--> two results compared
//! ```

pub mod aligner;
pub mod alignment;
pub mod bench;
pub mod bootstrap;
pub mod calibration;
mod compounds;
pub mod corpora;
pub mod glm;
mod network;
pub mod report;
pub mod routing;
pub mod score;
pub mod significance;
pub mod summary;
pub mod tune;
pub mod wer;

pub use aligner::Aligner;
pub use glm::Glm;
pub use score::{Scored, Scoring};
pub use wer::WordErrors;
