//! Training: a run configuration in, a model folder out.
//!
//! ```text
//! RunConfig -> Speech (manifests, cache) -> Preparer on loader threads -> HostBatch -> step (loss, gradients) -> Optimizer
//!                                            checkpoint, JSONL log, curves, dev WER along the way -> ModelDirectory
//! ```

pub mod batch;
mod clusters;
pub mod config;
pub mod context;
pub mod evaluate;
mod exact;
pub mod journal;
pub mod languages;
pub mod optimizer;
pub mod plot;
mod prepare;
pub mod run;
pub mod schedule;
pub mod state;
pub mod step;
pub mod study;
pub mod window;

pub use config::RunConfig;
pub use run::{Outcome, run};
