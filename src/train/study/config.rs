//! A study, written as TOML.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::structure::StructureConfig;
use crate::error::{Error, Result};
use crate::text::Normalizer;

/// A grid of training runs that differ in what is studied and in nothing else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyConfig {
    /// Heading of the report.
    pub name: String,
    /// Folder of the study: a folder for every cell, and the report.
    pub output: PathBuf,
    /// The training run (see [`crate::train::RunConfig`]) that all cells share; its `name`, `output` and `seed` are set for each.
    pub base: PathBuf,
    /// A run for each of these. A seed decides initial weights, order of the data and augmentation, for every kind alike.
    pub seeds: Vec<u64>,
    /// What is compared; the first is what the others are compared with.
    pub kinds: Vec<Variant>,
    /// Sizes to compare at; one, the base, if there are none.
    #[serde(default)]
    pub sizes: Vec<Variant>,
    /// Normaliser of the word error rates.
    #[serde(default = "normalizer")]
    pub normalizer: String,
    /// Data of known structure, made before the first cell runs.
    #[serde(default)]
    pub structure: Option<StructureConfig>,
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
    /// Reads a study. Relative paths in it are taken from the current folder.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Config`]
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let config: Self = toml::from_str(&text).map_err(|e| Error::config(path, e.to_string().trim().replace('\n', " ")))?;
        config.validate().map_err(|reason| Error::config(path, reason))?;
        Ok(config)
    }

    fn validate(&self) -> std::result::Result<(), String> {
        let distinct = |what: &str, names: Vec<String>| {
            let set: BTreeSet<&String> = names.iter().collect();
            if set.len() == names.len() { Ok(()) } else { Err(format!("{what}: {names:?} has one twice")) }
        };
        if self.seeds.is_empty() || self.kinds.is_empty() {
            return Err("seeds and kinds: at least one of each".into());
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
