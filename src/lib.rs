//! Speech recognition in one crate: any audio file to text, and the training of the models that do it.
//!
//! # The signal path is the module list
//!
//! ```text
//! bytes --audio--> Waveform --features--> LogMel --model--> log-probabilities --decode--> Hypothesis --text--> words
//!                  samples                frames            steps                          tokens
//!
//! main -> cli -> train ----> eval -> pipeline -> { audio  features  model  decode  text } -> units, error
//!                  |                     \----> checkpoint -> { model::config, text, features }
//!                  +-> dataset                          model, decode, train, cli -> kernel
//!          +-> analyze --> eval, pipeline, checkpoint, compress
//!          +-> compress -> eval, pipeline, checkpoint
//!          \-> offload ------> pipeline, checkpoint
//! ```
//!
//! A stream ([`pipeline::stream`]) runs the same stages chunk by chunk: each has `step`, `flush`, `reset` and `delay`.
//!
//! Siblings in braces do not know each other; they meet in [`pipeline`]. [`kernel`] is plain slices and the only `unsafe`. A test
//! (`tests/it/architecture.rs`) holds the tree to this.
//!
//! # Words
//!
//! - *sample*: a PCM value; *frame*: a feature vector; *step*: an encoder output position (`batch`, `samples`, `frames`, `steps`, `mels`,
//!   `d_model`, `heads`, `vocab`, `experts`, `top_k` are the letters of shapes; `rows` is `batch * steps`).
//! - *router*: chooses an expert for each step. In an Omni-router encoder one router serves all layers of a group. It is owned once, by
//!   [`model::encoder::Encoder`], and lent to every block: a copy in each block would drift apart at the first optimiser step.
//! - *module* (of languages): a low-rank change of the feed-forwards for one language, accent or domain. It lies in a *slot*; the last slot is
//!   shared by all, and learns from the others.
//! - *fused*: a kernel with a hand-written gradient that stands in for many small Burn operations on the CPU ([`model::ops`]). The composed
//!   form runs on every other device and is what the fused one is tested against.
//!
//! # Use
//!
//! ```no_run
//! use burn::tensor::Device;
//! use omniscribe::{Precision, Transcriber};
//!
//! # fn main() -> omniscribe::Result<()> {
//! let transcriber = Transcriber::open("models/base".as_ref(), Device::flex(), Precision::Bf16)?;
//! println!("{}", transcriber.transcribe("assets/river.wav".as_ref())?.text);
//! # Ok(())
//! # }
//! ```

pub mod analyze;
pub mod audio;
pub mod checkpoint;
pub mod cli;
pub mod compress;
pub mod dataset;
pub mod decode;
pub mod error;
pub mod eval;
pub mod features;
pub mod kernel;
pub mod model;
pub mod offload;
pub mod pipeline;
pub mod text;
pub mod train;
pub mod units;

pub use audio::Waveform;
pub use checkpoint::ModelDirectory;
pub use error::{Error, Result};
pub use kernel::gemm::Precision;
pub use pipeline::transcriber::Transcriber;
pub use pipeline::transcript::{Transcript, Word};
