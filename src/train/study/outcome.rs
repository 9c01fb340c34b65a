//! What a cell leaves once it is done, beside its log and the result of its measurement.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::checkpoint::safetensors_file::write_atomically;
use crate::error::{Error, Result};
use crate::eval::report::RunResult;
use crate::train::config::RunConfig;
use crate::train::journal::Line;

/// A cell that is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// The complete run.
    pub run: RunConfig,
    /// The processor it was measured on.
    pub cpu: String,
    /// Training loss per token over audio hours, nats.
    pub loss_curve: Vec<(f64, f64)>,
    /// WER of all dev utterances over audio hours, fraction.
    pub wer_curve: Vec<(f64, f64)>,
    /// Hours of audio per hour of training, median over the log.
    pub training_speed: f64,
    /// Hours of audio per hour of features, encoder and greedy search on the dev sets.
    pub recognition_speed: f64,
}

impl Outcome {
    /// From the log of a run and the measurement of its model.
    pub fn of(run: RunConfig, log: &[Line], result: &RunResult) -> Self {
        let loss = |l: &Line| if let Line::Train { audio_hours, loss, .. } = l { Some((*audio_hours, *loss)) } else { None };
        let wer = |l: &Line| if let Line::Dev { audio_hours, all, .. } = l { Some((*audio_hours, *all)) } else { None };
        let speed = |l: &Line| if let Line::Train { speed, .. } = l { Some(*speed) } else { None };
        Self {
            run,
            cpu: result.provenance.cpu.clone(),
            loss_curve: log.iter().filter_map(loss).collect(),
            wer_curve: log.iter().filter_map(wer).collect(),
            training_speed: median(log.iter().filter_map(speed).collect()),
            recognition_speed: result.speed.rtfx_compute,
        }
    }

    /// Reads the file of a cell; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Config`]
    pub fn read(path: &Path) -> Result<Option<Self>> {
        match std::fs::read_to_string(path) {
            Ok(text) => serde_json::from_str(&text).map(Some).map_err(|e| Error::config(path, e.to_string())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(path, error)),
        }
    }

    /// Writes it.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string(self).map_err(|e| Error::config(path, e.to_string()))?;
        write_atomically(path, (text + "\n").as_bytes())
    }
}

/// The value in the middle; 0 of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
