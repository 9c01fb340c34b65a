//! The front end of models that hear the waveform itself (wav2vec 2.0, HuBERT).

use serde::{Deserialize, Serialize};

use super::log_mel::LogMel;
use super::normalize::normalize_waveform;
use crate::error::{Error, Result};

/// What is done to a waveform before such a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaveFrontEnd {
    /// Sampling rate in Hz.
    pub sample_rate: u32,
    /// Bring every utterance to mean 0 and variance 1.
    pub normalize: bool,
}

impl WaveFrontEnd {
    /// Checks every field against its rule.
    ///
    /// # Errors
    /// [`Error::Config`] with field, value and rule.
    pub fn validate(&self) -> Result<()> {
        if self.sample_rate == 0 {
            return Err(Error::config("front end", "sample_rate: 0: must be at least 1 Hz"));
        }
        Ok(())
    }

    /// The waveform as features of one band: every sample is a frame.
    pub fn compute(&self, samples: &[f32]) -> LogMel {
        let mut values = samples.to_vec();
        if self.normalize {
            normalize_waveform(&mut values);
        }
        LogMel { frames: values.len(), values, mels: 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_frames() {
        let as_is = WaveFrontEnd { sample_rate: 16_000, normalize: false };
        assert_eq!(as_is.compute(&[0.5, -0.25]), LogMel { values: vec![0.5, -0.25], frames: 2, mels: 1 });
        let normalized = WaveFrontEnd { normalize: true, ..as_is.clone() }.compute(&[3.0, 5.0]);
        assert!((normalized.values[0] + 1.0).abs() < 1e-4 && (normalized.values[1] - 1.0).abs() < 1e-4);
        assert!(WaveFrontEnd { sample_rate: 0, ..as_is }.validate().is_err());
    }
}
