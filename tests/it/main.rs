//! One test binary: every file in `tests/` of its own would link Burn again.

// Tests report what they measured, and a failed unwrap is a failed test.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod align;
mod align_speech;
mod analyze;
mod architecture;
mod audio;
mod cards;
mod channels;
mod cli;
mod clusters;
mod commands;
mod compress;
mod corpora;
mod ctc_loss;
mod dataset;
mod decode;
mod features;
mod formats;
mod host_files;
mod hosts;
mod instructions;
mod inverse;
mod knobs;
mod languages;
mod listen;
mod long;
mod model;
mod modularity;
mod moe;
mod ngram;
mod offload;
mod oracle;
mod program;
mod report;
mod results;
mod scoring;
mod sphere;
mod strata;
mod stream;
mod study;
mod text;
mod training;
mod vad;
