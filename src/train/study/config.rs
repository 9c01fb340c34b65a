//! A study, written as TOML.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::structure::StructureConfig;
use crate::checkpoint::safetensors_file::write_atomically;
use crate::error::{Error, Result};
use crate::text::Normalizer;
use crate::train::config::RunConfig;

/// A grid of training runs that differ in what is studied and in nothing else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyConfig {
    /// Heading of the report.
    pub name: String,
    /// Folder of the study: a folder for every cell, and the report.
    pub output: PathBuf,
    /// A run for each of these. A seed decides initial weights, order of the data and augmentation, for every kind alike.
    pub seeds: Vec<u64>,
    /// Normaliser of the error rates.
    #[serde(default = "normalizer")]
    pub normalizer: String,
    /// The training run that all cells share; its `name`, `output` and `seed` are set for each.
    pub base: Base,
    /// What is compared; the first is what the others are compared with.
    pub kinds: Vec<Variant>,
    /// Sizes to compare at; one, the base, if there are none.
    #[serde(default)]
    pub sizes: Vec<Variant>,
    /// Data of known structure, made before the first cell runs.
    #[serde(default)]
    pub structure: Option<StructureConfig>,
}

/// A training run (see [`RunConfig`]): a file of its own, or its keys in place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Base {
    /// A TOML file.
    File(PathBuf),
    /// The keys.
    Keys(toml::Table),
}

/// A named change of the base.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// Name in folders and tables.
    pub name: String,
    /// Changes as `key=value`, as for `omniscribe train --set`.
    #[serde(default)]
    pub set: Vec<String>,
}

fn normalizer() -> String {
    Normalizer::Whisper.id().into()
}

impl StudyConfig {
    /// Reads a study: a TOML file, or the folder of a study that has run, wherever it was moved. Relative paths in it are taken from the current
    /// folder.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Config`]
    pub fn read(path: &Path) -> Result<Self> {
        let folder = path.is_dir().then(|| path.to_path_buf());
        let path = &folder.as_ref().map_or_else(|| path.to_path_buf(), |folder| echo_of(folder));
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let config: Self = toml::from_str(&text).map_err(|e| Error::config(path, e.to_string().trim().replace('\n', " ")))?;
        config.validate().map_err(|reason| Error::config(path, reason))?;
        Ok(Self { output: folder.unwrap_or(config.output), ..config })
    }

    /// The base with `changes`, as `omniscribe train --set` makes them.
    ///
    /// # Errors
    /// Those of [`RunConfig::read`].
    pub fn run(&self, changes: &[String]) -> Result<RunConfig> {
        RunConfig::from_table(&self.base_path(), self.base_keys()?, changes)
    }

    /// What to call the base in a message.
    pub fn base_path(&self) -> PathBuf {
        match &self.base {
            Base::File(path) => path.clone(),
            Base::Keys(_) => PathBuf::from("base of the study"),
        }
    }

    fn base_keys(&self) -> Result<toml::Table> {
        match &self.base {
            Base::File(path) => RunConfig::table(path),
            Base::Keys(keys) => Ok(keys.clone()),
        }
    }

    /// Writes the study into its folder, with the base in it, so that the folder alone is enough for a report.
    ///
    /// # Errors
    /// [`Error::Io`], and those of reading the base.
    pub fn echo(&self) -> Result<()> {
        let path = echo_of(&self.output);
        let whole = Self { base: Base::Keys(self.base_keys()?), ..self.clone() };
        let text = toml::to_string(&whole).map_err(|e| Error::config(&path, e.to_string()))?;
        std::fs::create_dir_all(&self.output).map_err(|e| Error::io(&self.output, e))?;
        write_atomically(&path, text.as_bytes())
    }

    fn validate(&self) -> std::result::Result<(), String> {
        let distinct = |what: &str, names: Vec<String>| {
            let set: BTreeSet<&String> = names.iter().collect();
            if set.len() == names.len() { Ok(()) } else { Err(format!("{what}: {names:?} has one twice")) }
        };
        if self.seeds.is_empty() || self.kinds.is_empty() {
            return Err("seeds and kinds: at least one of each".into());
        }
        // TOML's integers have a sign.
        if let Some(seed) = self.seeds.iter().find(|seed| i64::try_from(**seed).is_err()) {
            return Err(format!("seeds: {seed} is above {}", i64::MAX));
        }
        distinct("seeds", self.seeds.iter().map(u64::to_string).collect())?;
        distinct("kinds", self.kinds.iter().map(|k| k.name.clone()).collect())?;
        distinct("sizes", self.sizes.iter().map(|s| s.name.clone()).collect())?;
        for Variant { name, .. } in self.kinds.iter().chain(&self.sizes) {
            let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
            if !plain {
                return Err(format!("name {name:?}: want letters, digits, - and _, as it names folders"));
            }
        }
        if Normalizer::from_id(&self.normalizer).is_none() {
            return Err(format!("normalizer {:?} is not known", self.normalizer));
        }
        self.structure.as_ref().map_or(Ok(()), StructureConfig::validate)
    }
}

fn echo_of(folder: &Path) -> PathBuf {
    folder.join("study.toml")
}
