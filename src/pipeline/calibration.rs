//! Confidences that say how often words are right: a logistic curve for each kind of search, kept beside the model.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::checkpoint::safetensors_file::write_atomically;
use crate::error::{Error, Result};
use crate::pipeline::decoder::Decoding;

/// Version of the file's layout.
const FORMAT_VERSION: u32 = 1;

/// Keeps log-odds finite: confidences nearer to 0 or 1 count as this far away.
const LEAST: f64 = 1e-6;

/// Moves log-odds `x` to `slope * x + intercept`. A slope alone (one over a temperature) only pulls towards or away from a half; a search whose
/// words are wrong more often than they look needs the intercept.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logistic {
    /// Factor of the log-odds, above 0: the order of words by confidence stays.
    pub slope: f64,
    /// Added to the log-odds.
    pub intercept: f64,
}

impl Default for Logistic {
    /// Leaves confidences as they are.
    fn default() -> Self {
        Self { slope: 1.0, intercept: 0.0 }
    }
}

impl Logistic {
    /// The calibrated probability of a word with this confidence.
    pub fn apply(&self, confidence: f64) -> f64 {
        if *self == Self::default() {
            return confidence;
        }
        1.0 / (1.0 + (-self.slope * log_odds(confidence) - self.intercept).exp())
    }
}

/// `ln(p / (1 - p))`, finite.
pub fn log_odds(probability: f64) -> f64 {
    let p = probability.clamp(LEAST, 1.0 - LEAST);
    (p / (1.0 - p)).ln()
}

/// What a model folder says about its confidences: found by `omniscribe bench --calibrate`. Reading fills in no defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationConfig {
    /// 1.
    pub format_version: u32,
    /// For the best token of every step, if it was fitted.
    pub greedy: Option<Logistic>,
    /// For the beam search with the folder's language model, if it was fitted.
    pub beam: Option<Logistic>,
}

impl Default for CalibrationConfig {
    fn default() -> Self {
        Self { format_version: FORMAT_VERSION, greedy: None, beam: None }
    }
}

impl CalibrationConfig {
    /// Name of the file in a model folder.
    pub const FILE: &str = "calibration.json";

    /// What the model folder says, if it says anything.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Config`], [`Error::FormatVersion`]
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(Self::FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => return Ok(None),
            Err(error) => return Err(Error::io(&path, error)),
        };
        let config: Self = serde_json::from_str(&text).map_err(|e| Error::config(&path, e.to_string()))?;
        if config.format_version != FORMAT_VERSION {
            return Err(Error::FormatVersion { path, found: config.format_version, supported: FORMAT_VERSION });
        }
        for (name, curve) in [("greedy", config.greedy), ("beam", config.beam)] {
            let Logistic { slope, intercept } = curve.unwrap_or_default();
            if !(slope > 0.0 && slope.is_finite() && intercept.is_finite()) {
                let reason = format!("{name}: slope is {slope}, intercept {intercept}: want a slope above 0, both finite");
                return Err(Error::config(&path, reason));
            }
        }
        Ok(Some(config))
    }

    /// Writes it into a model folder, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(Self::FILE);
        let mut json = serde_json::to_string_pretty(self).map_err(|e| Error::config(&path, e.to_string()))?;
        json.push('\n');
        write_atomically(&path, json.as_bytes())
    }

    /// The curve for a search; one that changes nothing where none was fitted.
    pub fn of(&self, decoding: &Decoding) -> Logistic {
        let fitted = match decoding {
            Decoding::Greedy => self.greedy,
            Decoding::Beam { .. } => self.beam,
        };
        fitted.unwrap_or_default()
    }

    /// The same with another curve for a search.
    pub fn with(self, decoding: &Decoding, logistic: Logistic) -> Self {
        match decoding {
            Decoding::Greedy => Self { greedy: Some(logistic), ..self },
            Decoding::Beam { .. } => Self { beam: Some(logistic), ..self },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curve_and_its_bounds() {
        assert_eq!([0.0, 0.3, 1.0].map(|p| Logistic::default().apply(p)), [0.0, 0.3, 1.0]);
        // Temperature 2: odds 9 become 3. Intercept ln 2: odds 1 become 2.
        assert!((Logistic { slope: 0.5, intercept: 0.0 }.apply(0.9) - 0.75).abs() < 1e-12);
        assert!((Logistic { slope: 1.0, intercept: 2f64.ln() }.apply(0.5) - 2.0 / 3.0).abs() < 1e-12);
        let steep = Logistic { slope: 3.0, intercept: -1.0 };
        let calibrated = [-1.0, 0.0, 1e-9, 0.2, 0.5, 0.99, 1.0, 2.0, f64::INFINITY].map(|p| steep.apply(p));
        assert!(calibrated.iter().all(|p| (0.0..=1.0).contains(p)) && calibrated.is_sorted(), "{calibrated:?}");
    }

    #[test]
    fn round_trip_and_refusals() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(CalibrationConfig::read(folder.path()).unwrap(), None);
        let curve = Logistic { slope: 0.8, intercept: -0.25 };
        let config = CalibrationConfig::default().with(&Decoding::Greedy, curve);
        config.write(folder.path()).unwrap();
        assert_eq!(CalibrationConfig::read(folder.path()).unwrap(), Some(config.clone()));
        let beam = Decoding::Beam { config: Default::default(), scorers: Default::default() };
        assert_eq!((config.of(&Decoding::Greedy), config.of(&beam)), (curve, Logistic::default()));
        CalibrationConfig { format_version: 2, ..config.clone() }.write(folder.path()).unwrap();
        assert!(matches!(CalibrationConfig::read(folder.path()), Err(Error::FormatVersion { found: 2, .. })));
        CalibrationConfig { beam: Some(Logistic { slope: 0.0, intercept: 1.0 }), ..config }.write(folder.path()).unwrap();
        assert!(matches!(CalibrationConfig::read(folder.path()), Err(Error::Config { .. })));
        for text in ["{\"format_version\": 1, \"greedy\": null, \"beam\": null, \"more\": 1}", "{}"] {
            std::fs::write(folder.path().join(CalibrationConfig::FILE), text).unwrap();
            assert!(matches!(CalibrationConfig::read(folder.path()), Err(Error::Config { .. })), "{text}");
        }
    }
}
