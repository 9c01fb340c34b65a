//! One test binary: every file in `tests/` of its own would link Burn again.

mod audio;
mod ctc_loss;
mod dataset;
mod features;
mod oracle;
mod text;
