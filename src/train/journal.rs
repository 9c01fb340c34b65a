//! The run's log: one JSON object per line, appended; what the curves are drawn from.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Line {
    /// Means over the steps since the line before.
    Train {
        /// Steps taken.
        step: u64,
        /// Audio hours seen.
        audio_hours: f64,
        /// Epoch of the last batch.
        epoch: u64,
        /// CTC loss of the last head per token, nats.
        #[serde(deserialize_with = "or_nan")]
        loss: f64,
        /// Of the middle heads.
        #[serde(deserialize_with = "or_nan")]
        intermediate: f64,
        /// Load balance, 1 when even.
        #[serde(deserialize_with = "or_nan")]
        balance: f64,
        /// Global gradient norm before clipping.
        norm: f64,
        /// Learning rate.
        lr: f64,
        /// Share of steps by expert, for every MoE layer.
        load: Vec<Vec<f64>>,
        /// Hours of audio per hour of wall time.
        speed: f64,
        /// Steps left out because the gradient was not finite.
        skipped: u64,
        /// Divergence between the passes with the module and with the shared one, nats per encoder step, where there are languages.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        divergence: Option<f64>,
        /// Share of the utterances whose module was identified, where there are languages.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        identified: Option<f64>,
    },
    /// WER of the averaged weights.
    Dev {
        /// Steps taken.
        step: u64,
        /// Audio hours seen.
        audio_hours: f64,
        /// WER by set, as a fraction.
        wer: BTreeMap<String, f64>,
        /// WER of all together.
        all: f64,
    },
}

/// The log file.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Opens the log for a run that stands at `step`: later lines (of a run killed after its checkpoint) are cut off.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn open(path: &Path, step: u64) -> Result<Self> {
        let kept = |l: &&str| serde_json::from_str::<Line>(l).is_ok_and(|l| l.step() <= step);
        let text: String = text(path)?.lines().filter(kept).map(|l| format!("{l}\n")).collect();
        crate::checkpoint::safetensors_file::write_atomically(path, text.as_bytes())?;
        let file = OpenOptions::new().append(true).open(path).map_err(|e| Error::io(path, e))?;
        Ok(Self { path: path.into(), file })
    }

    /// Appends a line.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn write(&mut self, line: &Line) -> Result<()> {
        let text = encode(&self.path, line)?;
        self.file.write_all(text.as_bytes()).map_err(|e| Error::io(&self.path, e))
    }
}

fn encode(path: &Path, line: &Line) -> Result<String> {
    serde_json::to_string(line).map(|s| s + "\n").map_err(|e| Error::io(path, e.into()))
}

impl Line {
    /// Steps taken when it was written.
    pub fn step(&self) -> u64 {
        match self {
            Self::Train { step, .. } | Self::Dev { step, .. } => *step,
        }
    }
}

/// Reads a log; a missing file is an empty log, an unfinished last line is left out.
///
/// # Errors
/// [`Error::Io`]
pub fn read(path: &Path) -> Result<Vec<Line>> {
    Ok(text(path)?.lines().filter_map(|l| serde_json::from_str(l).ok()).collect())
}

fn text(path: &Path) -> Result<String> {
    match std::fs::read_to_string(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        other => other.map_err(|e| Error::io(path, e)),
    }
}

/// JSON has no NaN: a loss that was not finite is written as `null`.
fn or_nan<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_after_the_checkpoint_are_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let line = |step| Line::Dev { step, audio_hours: 1.0, wer: BTreeMap::new(), all: 0.5 };
        let mut journal = Journal::open(&path, 0).unwrap();
        (1..=3).for_each(|s| journal.write(&line(s)).unwrap());
        drop(journal);
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"event\":\"dev\",\"st").unwrap();
        let mut journal = Journal::open(&path, 2).unwrap();
        journal.write(&line(5)).unwrap();
        assert_eq!(read(&path).unwrap(), [line(1), line(2), line(5)]);
    }

    #[test]
    fn lines_with_a_loss_that_is_not_finite_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let (loss, intermediate, balance, load) = (f64::NAN, f64::INFINITY, f64::NAN, Vec::new());
        let line = Line::Train {
            step: 1,
            audio_hours: 0.1,
            epoch: 0,
            loss,
            intermediate,
            balance,
            norm: 0.0,
            lr: 1.0,
            load,
            speed: 1.0,
            skipped: 1,
            divergence: None,
            identified: None,
        };
        Journal::open(&path, 0).unwrap().write(&line).unwrap();
        drop(Journal::open(&path, 1).unwrap());
        assert!(matches!(read(&path).unwrap()[..], [Line::Train { step: 1, loss, skipped: 1, .. }] if loss.is_nan()));
    }
}
