//! A training run, written as TOML.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::checkpoint::safetensors_file::Storage;
use crate::checkpoint::strict::no_unknown_keys;
use crate::dataset::{AugmentConfig, BucketConfig, FilterConfig, SourceConfig, SpecAugmentConfig};
use crate::error::{Error, Result};
use crate::kernel::gemm::Precision;
use crate::model::config::EncoderConfig;
use crate::text::TextForm;
use crate::train::context::StreamingConfig;
use crate::train::schedule::ScheduleConfig;

/// Everything a run depends on. Unknown keys are refused; the complete configuration is echoed into the run's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Name of the model.
    pub name: String,
    /// Folder of the run: log, curves, checkpoint and exported model.
    pub output: PathBuf,
    /// Seed of weights, order, augmentation and dropout.
    pub seed: u64,
    /// A model folder to start from instead of random weights; its tokenizer and front end are taken over.
    #[serde(default)]
    pub init: Option<PathBuf>,
    /// What is trained on.
    pub data: DataConfig,
    /// Text to tokens.
    #[serde(default)]
    pub tokenizer: TokenizerConfig,
    /// Samples to features.
    #[serde(default)]
    pub front_end: FrontEndRun,
    /// The encoder.
    pub encoder: EncoderConfig,
    /// Batches.
    #[serde(default)]
    pub batches: BucketConfig,
    /// Augmentation of waveforms.
    #[serde(default)]
    pub augment: AugmentConfig,
    /// Augmentation of features.
    #[serde(default)]
    pub spec_augment: SpecAugmentConfig,
    /// Training in chunks, for a model that also streams.
    #[serde(default)]
    pub streaming: StreamingConfig,
    /// Terms of the loss.
    #[serde(default)]
    pub loss: LossConfig,
    /// Terms of the loss for an encoder with languages; their defaults where it has some and this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub languages: Option<LanguageLoss>,
    /// AdamW and clipping.
    #[serde(default)]
    pub optimizer: OptimizerConfig,
    /// Learning rate over time.
    #[serde(default)]
    pub schedule: ScheduleConfig,
    /// When to stop, save, evaluate and log.
    pub control: ControlConfig,
}

/// Manifests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Training manifests.
    pub train: Vec<SourceConfig>,
    /// Manifests to measure WER on.
    #[serde(default)]
    pub dev: Vec<PathBuf>,
    /// Sets reported as one: new name and the prefixes of the names it joins.
    #[serde(default)]
    pub dev_groups: std::collections::BTreeMap<String, Vec<String>>,
    /// Manifest of noises (`kind = "noise"`) and impulse responses (`kind = "rir"`).
    #[serde(default)]
    pub noise: Option<PathBuf>,
    /// File of decoded samples, built on first use.
    pub cache: PathBuf,
    /// Which utterances are used.
    #[serde(default)]
    pub filter: FilterConfig,
    /// What becomes of transcripts: `english` (a-z, numbers in words) or `letters` (of any language, with accents).
    #[serde(default)]
    pub text: TextForm,
}

/// Tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum TokenizerConfig {
    /// The characters of the training text.
    #[default]
    Characters,
    /// Byte pair encoding trained on the training text.
    Bpe {
        /// Tokens, the blank included.
        vocab_size: usize,
    },
}

/// The part of the front end that a run chooses; the statistics are measured on the training set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FrontEndRun {
    /// Share of the utterance's own mean in what is subtracted; the rest is the training set's.
    pub utterance_mean: f32,
}

impl Default for FrontEndRun {
    fn default() -> Self {
        Self { utterance_mean: 0.7 }
    }
}

/// Weights of the terms of the loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossConfig {
    /// Share of the middle CTC heads (their mean); the last head has the rest.
    pub intermediate: f64,
    /// Weight of the load balance, averaged over MoE layers.
    pub balance: f64,
    /// Weight of the router z-loss, averaged over MoE layers.
    pub z: f64,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self { intermediate: 0.3, balance: 0.01, z: 0.001 }
    }
}

/// Terms of the loss for an encoder with languages (`encoder.languages`). Each batch then holds the utterances of one module and goes through the
/// model twice, with its module and with the shared one; `loss` is the mean over both. A batch of utterances that no module is for trains the
/// shared one alone.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LanguageLoss {
    /// Weight of Fuse Distillation, the symmetric Kullback-Leibler divergence between the posteriors of both passes, nats per encoder step.
    pub distillation: f64,
    /// Weight of the language identification's cross-entropy, nats per utterance, on the pass with the shared module.
    pub identification: f64,
}

impl Default for LanguageLoss {
    fn default() -> Self {
        Self { distillation: 1.0, identification: 0.1 }
    }
}

/// AdamW, clipping by global norm, averaging of weights.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// Peak learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay on matrices; vectors (biases, norms) are not decayed.
    pub weight_decay: f64,
    /// Largest global norm of the gradient.
    pub clip: f64,
    /// Decay per step of the averaged weights that are evaluated and exported; warmed up over the first steps. 0 switches averaging off.
    pub average: f64,
    /// Batches whose gradients are summed for one step.
    pub accumulate: usize,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self { lr: 1.2e-3, beta1: 0.9, beta2: 0.98, epsilon: 1e-8, weight_decay: 0.02, clip: 1.0, average: 0.999, accumulate: 1 }
    }
}

/// When things happen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlConfig {
    /// Hours of (augmented, unpadded) audio after which the run is done; the schedule is stretched over them.
    pub audio_hours: f64,
    /// Steps between log lines.
    #[serde(default = "log_every")]
    pub log_every: u64,
    /// Minutes between checkpoints.
    #[serde(default = "checkpoint_minutes")]
    pub checkpoint_minutes: f64,
    /// Audio hours between evaluations; 0 evaluates at the end only.
    #[serde(default)]
    pub evaluate_hours: f64,
    /// Precision of matrix products on the CPU; weights and sums stay f32.
    #[serde(default = "precision")]
    pub precision: PrecisionConfig,
    /// Threads that prepare batches.
    #[serde(default = "loader_threads")]
    pub loader_threads: usize,
    /// Element type of the exported model.
    #[serde(default = "storage")]
    pub storage: Storage,
}

/// Precision as spelled in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PrecisionConfig {
    /// 32-bit products.
    F32,
    /// bfloat16 products with f32 sums, where the CPU has them.
    Bf16,
}

impl<'de> Deserialize<'de> for PrecisionConfig {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        match name.as_str() {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "int8" => {
                Err(serde::de::Error::custom("control.precision = int8: only for inference (--dtype int8); training takes f32 or bf16"))
            }
            other => Err(serde::de::Error::custom(format!("control.precision = {other}: want f32 or bf16"))),
        }
    }
}

impl From<PrecisionConfig> for Precision {
    fn from(p: PrecisionConfig) -> Self {
        match p {
            PrecisionConfig::F32 => Self::F32,
            PrecisionConfig::Bf16 => Self::Bf16,
        }
    }
}

fn log_every() -> u64 {
    50
}

fn checkpoint_minutes() -> f64 {
    5.0
}

fn precision() -> PrecisionConfig {
    PrecisionConfig::Bf16
}

fn loader_threads() -> usize {
    1
}

fn storage() -> Storage {
    Storage::Bf16
}

impl RunConfig {
    /// Reads a run and applies `overrides` (`a.b=value`, values in TOML syntax, bare words as strings). Relative paths in the file are
    /// taken from the current folder.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Config`]
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self> {
        Self::from_table(path, Self::table(path)?, overrides)
    }

    /// The keys of a file, not yet checked.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Config`]
    pub fn table(path: &Path) -> Result<toml::Table> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        toml::from_str(&text).map_err(|e| Error::config(path, syntax(&e, &text)))
    }

    /// A run of the keys of `table`, read from `path`, with `overrides` applied as in [`RunConfig::read`].
    ///
    /// # Errors
    /// [`Error::Config`]
    pub fn from_table(path: &Path, mut table: toml::Table, overrides: &[String]) -> Result<Self> {
        for item in overrides {
            let (key, value) = item.split_once('=').ok_or_else(|| Error::config(path, format!("--set {item}: want key=value")))?;
            let parsed =
                toml::from_str::<toml::Table>(&format!("v = {value}")).ok().filter(|t| t.len() == 1).and_then(|mut t| t.remove("v"));
            set(&mut table, key.trim(), parsed.unwrap_or_else(|| toml::Value::String(value.trim().into())))
                .map_err(|reason| Error::config(path, format!("--set {item}: {reason}")))?;
        }
        let config: Self =
            table.clone().try_into().map_err(|e: toml::de::Error| Error::config(path, e.to_string().trim().replace('\n', " ")))?;
        no_unknown_keys(&table, &config).map_err(|reason| Error::config(path, reason))?;
        config.validate().map_err(|e| match e {
            Error::Config { reason, .. } => Error::config(path, reason),
            other => other,
        })?;
        Ok(config)
    }

    /// Checks every rule.
    ///
    /// # Errors
    /// [`Error::Config`] naming field, value and rule.
    pub fn validate(&self) -> Result<()> {
        let rule = |holds: bool, what: String| if holds { Ok(()) } else { Err(Error::config("run configuration", what)) };
        self.encoder.validate()?;
        self.batches.validate()?;
        self.augment.validate()?;
        self.spec_augment.validate()?;
        self.data.filter.validate()?;
        self.schedule.validate()?;
        rule(!self.data.train.is_empty(), "data.train: at least one manifest".into())?;
        let o = &self.optimizer;
        let within = |name: &str, value: f64, low: f64, high: f64| {
            rule((low..=high).contains(&value), format!("{name} = {value}: must lie in {low}..={high}"))
        };
        within("optimizer.lr", o.lr, 0.0, 10.0)?;
        within("optimizer.beta1", o.beta1, 0.0, 0.9999)?;
        within("optimizer.beta2", o.beta2, 0.0, 0.99999)?;
        within("optimizer.epsilon", o.epsilon, 1e-16, 1.0)?;
        within("optimizer.weight_decay", o.weight_decay, 0.0, 1.0)?;
        within("optimizer.clip", o.clip, 1e-6, 1e9)?;
        within("optimizer.average", o.average, 0.0, 0.999_999)?;
        within("optimizer.accumulate", o.accumulate as f64, 1.0, 4096.0)?;
        within("loss.intermediate", self.loss.intermediate, 0.0, 0.9)?;
        within("loss.balance", self.loss.balance, 0.0, 100.0)?;
        within("loss.z", self.loss.z, 0.0, 100.0)?;
        if let Some(languages) = &self.languages {
            within("languages.distillation", languages.distillation, 0.0, 100.0)?;
            within("languages.identification", languages.identification, 0.0, 100.0)?;
            rule(self.encoder.languages.is_some(), "languages: the encoder has none (encoder.languages)".into())?;
        }
        within("streaming.probability", self.streaming.probability, 0.0, 1.0)?;
        rule(
            self.streaming.probability == 0.0 || !self.encoder.context.chunk_sizes().is_empty(),
            format!("streaming.probability = {}: needs encoder.context of kind chunks", self.streaming.probability),
        )?;
        within("front_end.utterance_mean", f64::from(self.front_end.utterance_mean), 0.0, 1.0)?;
        within("control.audio_hours", self.control.audio_hours, 0.0, 1e7)?;
        within("control.evaluate_hours", self.control.evaluate_hours, 0.0, 1e7)?;
        within("control.checkpoint_minutes", self.control.checkpoint_minutes, 0.0, 1e5)?;
        within("control.log_every", self.control.log_every as f64, 1.0, 1e9)?;
        within("control.loader_threads", self.control.loader_threads as f64, 1.0, 256.0)?;
        if let TokenizerConfig::Bpe { vocab_size } = self.tokenizer {
            within("tokenizer.vocab_size", vocab_size as f64, 32.0, 65_536.0)?;
        }
        Ok(())
    }
}

/// Where and why a file is not TOML, on one line.
fn syntax(error: &toml::de::Error, text: &str) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let place = before.map(|before| format!("line {}: ", before.matches('\n').count() + 1)).unwrap_or_default();
    place + &error.message().replace('\n', " ")
}

fn set(table: &mut toml::Table, key: &str, value: toml::Value) -> std::result::Result<(), String> {
    match key.split_once('.') {
        None => {
            table.insert(key.into(), value);
            Ok(())
        }
        Some((head, rest)) => {
            let entry = table.entry(head).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            set(entry.as_table_mut().ok_or_else(|| format!("{head} is not a table"))?, rest, value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn training_refuses_8_bits_and_says_why() {
        let parsed = |name: &str| toml::from_str::<std::collections::BTreeMap<String, PrecisionConfig>>(&format!("precision = \"{name}\""));
        assert_eq!(parsed("bf16").unwrap()["precision"], PrecisionConfig::Bf16);
        let message = parsed("int8").unwrap_err().to_string();
        assert!(message.contains("control.precision = int8: only for inference"), "{message}");
        assert!(parsed("int4").unwrap_err().to_string().contains("want f32 or bf16"));
    }
}
