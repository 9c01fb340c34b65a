//! Experts in memory only while they are needed: a hard budget, and a guess of what comes next.
//!
//! ```text
//! features -> subsampling -> x --predictor--> which experts each layer will need
//!                            |                        | plan
//!                            v                        v
//!                          layers <--lend-- ExpertCache <--fetch (a thread)-- ExpertFile (memory-mapped)
//! ```
//!
//! The router runs as ever and decides which expert a step goes to. A wrong guess costs time: the layer waits until the right expert is read.
//! The output is that of the model with all experts in memory, whatever the budget.
//!
//! # Reference
//! SiDA-MoE, arXiv:2310.18859. Differs: there the guess replaces the router, and memory has no bound.

pub mod cache;
pub mod ledger;
pub mod loss;
pub mod predictor;
pub mod train;

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;

use crate::checkpoint::experts::{ExpertFile, without_experts};
use crate::checkpoint::{ModelDirectory, Opened};
use crate::error::{Error, Result};
use crate::kernel::gemm::Precision;
use crate::model::recognizer::AnyModel;
use crate::offload::cache::{ExpertCache, Prefetch, Settings};
use crate::offload::predictor::{PREDICTOR, Predictor};
use crate::pipeline::transcriber::Transcriber;

/// Loads the model at `path` but for its experts, which come and go within `settings.budget` bytes.
///
/// # Errors
/// As [`Transcriber::open`] and [`ExpertFile::open`]; [`Error::Config`] for a budget that does not hold one expert, or a predictor that is not
/// there or belongs to another model.
pub fn open(path: &Path, device: Device, precision: Precision, settings: Settings) -> Result<(Transcriber, Arc<ExpertCache>)> {
    let directory = ModelDirectory::open(path)?;
    let file = ExpertFile::open(&directory)?;
    let largest = (0..directory.config.encoder.n_layers).map(|layer| file.bytes(layer)).max().unwrap_or(0);
    if settings.budget < largest {
        let reason = format!("{} bytes do not hold one expert of {largest} bytes", settings.budget);
        return Err(Error::config("--expert-memory", reason));
    }
    let predictor = match settings.prefetch {
        Prefetch::Predicted => Some(Predictor::open(&path.join(PREDICTOR), &directory)?),
        Prefetch::Nothing | Prefetch::Previous | Prefetch::Popular => None,
    };
    let cache = ExpertCache::start(file, device.clone(), settings, predictor);
    let mut model = without_experts(&directory, &device)?;
    model.encoder.lend_experts(cache.clone());
    let transcriber = Transcriber::with_model(path, &Opened::Spectral(directory), AnyModel::Spectral(model), device, precision)?;
    Ok((transcriber, cache))
}
