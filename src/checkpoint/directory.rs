//! The model folder: `config.json`, `tokenizer.json`, `model.safetensors`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::checkpoint::safetensors_file::{self, HostTensors, Storage, write_atomically};
use crate::checkpoint::{strict, weights};
use crate::error::{Error, Result};
use crate::features::FrontEndConfig;
use crate::model::asr::AsrModel;
use crate::model::config::EncoderConfig;
use crate::text::Tokenizer;

/// Version of the folder's layout.
pub const FORMAT_VERSION: u32 = 1;

/// Everything about a model but its weights and tokenizer. Complete: reading fills in no defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// [`FORMAT_VERSION`] of the writer.
    pub format_version: u32,
    /// Name for people.
    pub name: String,
    /// Waveform to features; a model cannot be run with another one.
    pub front_end: FrontEndConfig,
    /// Features to states.
    pub encoder: EncoderConfig,
}

impl ModelConfig {
    /// Checks the rules that tie the parts together.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::FormatVersion`]
    pub fn validate(&self) -> Result<()> {
        if self.format_version != FORMAT_VERSION {
            return Err(Error::FormatVersion { path: "config.json".into(), found: self.format_version, supported: FORMAT_VERSION });
        }
        self.front_end.validate()?;
        self.encoder.validate()?;
        if self.front_end.mels != self.encoder.mels {
            let reason = format!("encoder.mels = {}: must equal front_end.mels = {}", self.encoder.mels, self.front_end.mels);
            return Err(Error::config("config.json", reason));
        }
        Ok(())
    }
}

/// A model folder, read.
#[derive(Debug)]
pub struct ModelDirectory {
    /// Where it lies.
    pub path: PathBuf,
    /// Its configuration.
    pub config: ModelConfig,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its weights.
    pub tensors: HostTensors,
}

/// File names inside a model folder.
const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const WEIGHTS: &str = "model.safetensors";

impl ModelDirectory {
    /// Reads and checks a model folder.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Config`], [`Error::FormatVersion`], [`Error::Tokenizer`], [`Error::Checkpoint`]
    pub fn open(path: &Path) -> Result<Self> {
        let config_path = path.join(CONFIG);
        let text = std::fs::read_to_string(&config_path).map_err(|e| Error::io(&config_path, e))?;
        let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| Error::config(&config_path, e.to_string()))?;
        if let Some(found) = value["format_version"].as_u64().filter(|v| *v != u64::from(FORMAT_VERSION)) {
            return Err(Error::FormatVersion { path: config_path, found: found.try_into().unwrap_or(u32::MAX), supported: FORMAT_VERSION });
        }
        let config: ModelConfig = serde_json::from_str(&text).map_err(|e| Error::config(&config_path, e.to_string()))?;
        strict::no_unknown_keys(&value, &config).map_err(|reason| Error::config(&config_path, reason))?;
        config.validate().map_err(|e| match e {
            Error::Config { reason, .. } => Error::config(&config_path, reason),
            other => other,
        })?;
        let tokenizer = Tokenizer::load(path.join(TOKENIZER))?;
        let (tensors, _) = safetensors_file::load(&path.join(WEIGHTS))?;
        Ok(Self { path: path.into(), config, tokenizer, tensors })
    }

    /// Builds the model on `device`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`]: the weights do not fit the configuration.
    pub fn model(&self, device: &Device) -> Result<AsrModel> {
        let model = AsrModel::new(&self.config.encoder, self.tokenizer.vocab_size(), 0, device)?;
        weights::apply(model, &self.tensors, &self.path.join(WEIGHTS))
    }

    /// Writes a model folder, each file whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Tokenizer`]
    pub fn save(path: &Path, config: &ModelConfig, tokenizer: &Tokenizer, tensors: &HostTensors, storage: Storage) -> Result<()> {
        let mut json = serde_json::to_string_pretty(config).map_err(|e| Error::config(path.join(CONFIG), e.to_string()))?;
        json.push('\n');
        let metadata = HashMap::from([("format".to_string(), format!("omniscribe {FORMAT_VERSION}"))]);
        safetensors_file::save(&path.join(WEIGHTS), tensors, storage, metadata)?;
        tokenizer.save(path.join(TOKENIZER))?;
        write_atomically(&path.join(CONFIG), json.as_bytes())
    }
}
