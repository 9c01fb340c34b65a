//! One test binary: every file in `tests/` of its own would link Burn again.

// Tests report what they measured, and a failed unwrap is a failed test.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod architecture;
mod audio;
mod cli;
mod ctc_loss;
mod dataset;
mod features;
mod knobs;
mod model;
mod moe;
mod oracle;
mod results;
mod text;
mod training;
