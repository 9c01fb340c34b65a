//! The checkpoint of a run: one file, replaced whole, from which a run goes on as if it had never stopped.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::checkpoint::safetensors_file::{self, Storage};
use crate::dataset::Position;
use crate::error::{Error, Result};
use crate::train::exact;
use crate::train::optimizer::Optimizer;
use crate::train::window::Window;

/// Where a run stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Steps taken.
    pub step: u64,
    /// Batches taken, for the seeds of dropout.
    pub batch: u64,
    /// The next batch: epoch.
    pub epoch: u64,
    /// The next batch: number within the epoch.
    pub batch_in_epoch: usize,
    /// Seconds of audio seen.
    #[serde(with = "exact")]
    pub seconds: f64,
    /// What the next log line is made of.
    #[serde(default)]
    pub window: Window,
}

impl Progress {
    /// The next batch.
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, batch: self.batch_in_epoch }
    }
}

const KEY: &str = "progress";

/// Saves weights, moments, averages and progress.
///
/// # Errors
/// [`Error::Io`]
pub fn save(path: &Path, optimizer: &Optimizer, progress: &Progress) -> Result<()> {
    let json = serde_json::to_string(progress).map_err(|e| Error::io(path, e.into()))?;
    safetensors_file::save(path, &optimizer.state(), Storage::F32, HashMap::from([(KEY.to_string(), json)]))
}

/// Restores a run; `None` if there is no checkpoint.
///
/// # Errors
/// [`Error::Io`], [`Error::Checkpoint`]: it belongs to another model
pub fn load(path: &Path, optimizer: &mut Optimizer) -> Result<Option<Progress>> {
    if !path.exists() {
        return Ok(None);
    }
    let (tensors, metadata) = safetensors_file::load(path)?;
    let wrong = |mismatched: Vec<String>| Error::Checkpoint { path: path.into(), missing: vec![], unused: vec![], mismatched };
    let text = metadata.get(KEY).ok_or_else(|| wrong(vec!["no training progress in the file".into()]))?;
    let progress: Progress = serde_json::from_str(text).map_err(|e| wrong(vec![format!("training progress: {e}")]))?;
    optimizer.restore(tensors, progress.step).map_err(wrong)?;
    Ok(Some(progress))
}
