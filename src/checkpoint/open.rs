//! What lies at a path: a folder of ours, a published folder, a `.nemo` file.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::checkpoint::directory::{CONFIG, FORMAT_VERSION, ModelConfig, ModelDirectory, TOKENIZER, Weights};
use crate::checkpoint::layouts::omni_lab;
use crate::checkpoint::limits::read_json;
use crate::checkpoint::tensor_file::TensorFile;
use crate::checkpoint::{published, strict};
use crate::error::{Error, Result};
use crate::features::WaveFrontEnd;
use crate::model::wave::{WaveConfig, WaveModel};
use crate::text::Tokenizer;

/// A model of one of the two kinds that this crate runs.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one of it, not many")]
pub enum Opened {
    /// Log-mel features and an encoder of ours; it can be trained.
    Spectral(ModelDirectory),
    /// Raw waveform (wav2vec 2.0, HuBERT).
    Wave(WaveDirectory),
}

/// `config.json` of a model that hears the waveform. Complete: reading fills in no defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaveConfigFile {
    /// [`FORMAT_VERSION`] of the writer.
    pub format_version: u32,
    /// Name for people.
    pub name: String,
    /// What is done to the waveform.
    pub wave_front_end: WaveFrontEnd,
    /// Waveform to states.
    pub wave_encoder: WaveConfig,
}

/// A model that hears the waveform, read.
#[derive(Debug)]
pub struct WaveDirectory {
    /// Where it lies.
    pub path: PathBuf,
    /// Its configuration.
    pub config: WaveConfigFile,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its weights, not read yet.
    pub weights: Weights,
}

impl WaveDirectory {
    /// Builds the model on `device`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`]: the weights do not fit the configuration.
    pub fn model(&self, device: &Device) -> Result<WaveModel> {
        self.weights.fill(WaveModel::blank(&self.config.wave_encoder, self.tokenizer.vocab_size(), device)?)
    }
}

/// Files that weights come in, the first that is there counts.
const WEIGHT_FILES: [&str; 5] = ["model.safetensors", "model.safetensors.index.json", "model.pth", "model.pt", "pytorch_model.bin"];

impl Opened {
    /// Reads what lies at `path` and checks everything but the weights.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Config`], [`Error::FormatVersion`], [`Error::Tokenizer`], [`Error::Checkpoint`], [`Error::LimitExceeded`]
    pub fn open(path: &Path) -> Result<Self> {
        if path.is_file() {
            return published::nemo::open(path).map(Self::Spectral);
        }
        let config_path = path.join(CONFIG);
        if !config_path.exists()
            && let Some(nemo) = only_nemo(path)
        {
            return published::nemo::open(&nemo).map(Self::Spectral);
        }
        let value = read_json(&config_path)?;
        if let Some(found) = value["format_version"].as_u64() {
            if found != u64::from(FORMAT_VERSION) {
                let found = found.try_into().unwrap_or(u32::MAX);
                return Err(Error::FormatVersion { path: config_path, found, supported: FORMAT_VERSION });
            }
            return Self::open_own(path, &config_path, &value);
        }
        match value["model_type"].as_str() {
            Some("parakeet_ctc") => published::parakeet::open(path, &value).map(Self::Spectral),
            Some("wav2vec2" | "hubert") => published::wave::open(path, &value).map(Self::Wave),
            Some(other) => {
                let reason =
                    format!("model_type {other:?}: this build hosts parakeet_ctc, wav2vec2 and hubert (for CTC), and its own models");
                Err(Error::config(&config_path, reason))
            }
            None => {
                Err(Error::config(&config_path, "neither format_version (ours) nor model_type (Hugging Face): what kind of model is this?"))
            }
        }
    }

    fn open_own(path: &Path, config_path: &Path, value: &Value) -> Result<Self> {
        let tokenizer = || Tokenizer::load(path.join(TOKENIZER));
        if value.get("wave_encoder").is_some() {
            let config: WaveConfigFile = complete(value, config_path)?;
            config.wave_encoder.validate().map_err(|e| renamed(e, config_path))?;
            config.wave_front_end.validate().map_err(|e| renamed(e, config_path))?;
            let weights = Weights { file: weights_in(path)?, layout: None };
            return Ok(Self::Wave(WaveDirectory { path: path.into(), config, tokenizer: tokenizer()?, weights }));
        }
        let config: ModelConfig = complete(value, config_path)?;
        config.validate().map_err(|e| renamed(e, config_path))?;
        let tokenizer = tokenizer()?;
        let file = weights_in(path)?;
        let layout = omni_lab::is_in(&file).then(|| omni_lab::layout(&config.encoder));
        if layout.is_some() {
            omni_lab::check_positions(&file, &config.encoder)?;
        }
        Ok(Self::Spectral(ModelDirectory { path: path.into(), config, tokenizer, weights: Weights { file, layout } }))
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Spectral(d) => &d.config.name,
            Self::Wave(d) => &d.config.name,
        }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        match self {
            Self::Spectral(d) => &d.path,
            Self::Wave(d) => &d.path,
        }
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        match self {
            Self::Spectral(d) => &d.tokenizer,
            Self::Wave(d) => &d.tokenizer,
        }
    }

    /// Its weights.
    pub fn weights(&self) -> &Weights {
        match self {
            Self::Spectral(d) => &d.weights,
            Self::Wave(d) => &d.weights,
        }
    }
}

/// The one `.nemo` file of a folder.
fn only_nemo(folder: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let mut nemo = files.filter(|path| path.extension().is_some_and(|e| e == "nemo"));
    nemo.next().filter(|_| nemo.next().is_none())
}

/// The weights of a folder.
///
/// # Errors
/// [`Error::Io`] if there are none; as [`TensorFile::open`].
pub(super) fn weights_in(folder: &Path) -> Result<TensorFile> {
    let found = WEIGHT_FILES.iter().map(|name| folder.join(name)).find(|path| path.exists());
    TensorFile::open(&found.unwrap_or_else(|| folder.join(WEIGHT_FILES[0])))
}

/// A configuration that is read without filling in anything.
fn complete<C: Serialize + for<'de> Deserialize<'de>>(value: &Value, path: &Path) -> Result<C> {
    // From text: errors name the line.
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    let config: C = serde_json::from_str(&text).map_err(|e| Error::config(path, e.to_string()))?;
    strict::no_unknown_keys(value, &config).map_err(|reason| Error::config(path, reason))?;
    Ok(config)
}

/// A rule that is broken, under the name of the file that breaks it.
pub(super) fn renamed(error: Error, path: &Path) -> Error {
    match error {
        Error::Config { reason, .. } => Error::config(path, reason),
        other => other,
    }
}
