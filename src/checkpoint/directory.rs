//! A model with log-mel features; as a folder of ours: `config.json`, `tokenizer.json`, `model.safetensors`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::checkpoint::layout::{Arranged, Layout};
use crate::checkpoint::open::Opened;
use crate::checkpoint::own::Own;
use crate::checkpoint::safetensors_file::{self, HostTensors, Storage, write_atomically};
use crate::checkpoint::tensor_file::TensorFile;
use crate::checkpoint::weights::{self, Source};
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

/// A model, read: a folder of ours, or a published one whose features are log-mel.
#[derive(Debug)]
pub struct ModelDirectory {
    /// Where it lies.
    pub path: PathBuf,
    /// Its configuration.
    pub config: ModelConfig,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its weights, not read yet.
    pub weights: Weights,
}

/// File names inside a model folder.
pub(super) const CONFIG: &str = "config.json";
pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const WEIGHTS: &str = "model.safetensors";

/// Memory-mapped weights and how they are laid out.
#[derive(Debug, Clone)]
pub struct Weights {
    /// The file or files.
    pub file: TensorFile,
    /// The table of names; `None` for our own.
    pub layout: Option<Layout>,
}

impl Weights {
    /// `module` with these weights.
    ///
    /// # Errors
    /// [`Error::Checkpoint`]: they do not fit.
    pub fn fill<M: Module>(&self, module: M) -> Result<M> {
        match &self.layout {
            None => weights::fill(module, &Own::new(&self.file), self.file.path()),
            Some(layout) => weights::fill(module, &Arranged::new(&self.file, layout), self.file.path()),
        }
    }

    /// Where the values of parameters come from.
    pub fn source(&self) -> Box<dyn Source + '_> {
        match &self.layout {
            None => Box::new(Own::new(&self.file)),
            Some(layout) => Box::new(Arranged::new(&self.file, layout)),
        }
    }
}

impl ModelDirectory {
    /// Reads and checks a model folder, ours or published, or a `.nemo` file.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Config`], [`Error::FormatVersion`], [`Error::Tokenizer`], [`Error::Checkpoint`], [`Error::LimitExceeded`]
    pub fn open(path: &Path) -> Result<Self> {
        match Opened::open(path)? {
            Opened::Spectral(directory) => Ok(directory),
            Opened::Wave(_) => Err(Error::config(path, "a model that hears the waveform itself: it transcribes and aligns, no more")),
        }
    }

    /// Builds the model on `device`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`]: the weights do not fit the configuration.
    pub fn model(&self, device: &Device) -> Result<AsrModel> {
        self.weights.fill(AsrModel::blank(&self.config.encoder, self.tokenizer.vocab_size(), device)?)
    }

    /// Writes a model folder, each file whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Tokenizer`], [`Error::Checkpoint`] as [`safetensors_file::save`]
    pub fn save(path: &Path, config: &ModelConfig, tokenizer: &Tokenizer, tensors: &HostTensors, storage: Storage) -> Result<()> {
        safetensors_file::save(&path.join(WEIGHTS), tensors, storage, metadata())?;
        save_rest(path, config, tokenizer)
    }
}

/// What our weights say of themselves.
pub(super) fn metadata() -> HashMap<String, String> {
    HashMap::from([("format".to_string(), format!("omniscribe {FORMAT_VERSION}"))])
}

/// Writes what a model folder holds beside its weights.
pub(super) fn save_rest(path: &Path, config: &impl Serialize, tokenizer: &Tokenizer) -> Result<()> {
    let mut json = serde_json::to_string_pretty(config).map_err(|e| Error::config(path.join(CONFIG), e.to_string()))?;
    json.push('\n');
    tokenizer.save(path.join(TOKENIZER))?;
    write_atomically(&path.join(CONFIG), json.as_bytes())
}
