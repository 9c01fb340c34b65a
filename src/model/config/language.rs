//! Modules for languages (accents, domains), as spelled in configuration files.

use serde::{Deserialize, Serialize};

use super::{EncoderConfig, FeedForwardConfig};
use crate::error::{Error, Result};

/// How the shared slot is asked for by name; no module may be called so.
pub const SHARED: &str = "shared";
/// Names that a user asks for something else by.
const RESERVED: [&str; 3] = [SHARED, "auto", "manifest"];

/// A low-rank change of feed-forward weights for each language, and one that all share: language-specific matrix synthesis (arXiv:2305.13993).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LanguageConfig {
    /// The field of manifests that says whose module an utterance trains.
    pub field: LanguageField,
    /// Values of the field, one module each, in the order of their slots. The slot after them is the shared one.
    pub modules: Vec<String>,
    /// Rank of the change: columns of `W_v`, rows of `W_h`.
    pub rank: usize,
    /// Layers (counted from 1) that have modules.
    pub layers: Vec<usize>,
    /// Feed-forwards of these layers that have them.
    pub places: LanguagePlaces,
}

/// Fields of manifests that name a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LanguageField {
    /// `lang`: the language.
    Lang,
    /// `accent`: the speaker's accent.
    Accent,
    /// `set`: the corpus, as a recording domain.
    Set,
}

/// Feed-forwards of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LanguagePlaces {
    /// All: in a Conformer the opening one and the one (or the experts) after the convolution.
    All,
    /// The last one of the block: the dense one after the attention, or its experts.
    Last,
}

impl LanguageConfig {
    /// Slots: the modules and the shared one.
    pub fn slots(&self) -> usize {
        self.modules.len() + 1
    }

    /// The slot of a module; `None` where there is none of this name.
    pub fn slot(&self, name: &str) -> Option<usize> {
        self.modules.iter().position(|module| module == name)
    }

    /// Checks the rules that construction relies on.
    pub(super) fn validate(&self, encoder: &EncoderConfig) -> Result<()> {
        let rule = |holds: bool, what: String| if holds { Ok(()) } else { Err(Error::config("encoder", what)) };
        rule(
            (1..=1024).contains(&self.modules.len()),
            format!("encoder.languages.modules: {} of them: must be 1 to 1024", self.modules.len()),
        )?;
        for (i, name) in self.modules.iter().enumerate() {
            rule(!name.trim().is_empty(), format!("encoder.languages.modules[{i}]: an empty name"))?;
            rule(
                !RESERVED.contains(&name.as_str()),
                format!("encoder.languages.modules[{i}] = {name:?}: this name has a meaning of its own"),
            )?;
            rule(!self.modules[..i].contains(name), format!("encoder.languages.modules[{i}] = {name:?}: stands twice"))?;
        }
        let most = encoder.d_model.min(encoder.d_ff);
        rule((1..=most).contains(&self.rank), format!("encoder.languages.rank = {}: must lie in 1..={most}", self.rank))?;
        let n_layers = encoder.n_layers;
        rule(
            !self.layers.is_empty() && self.layers.is_sorted_by(|a, b| a < b) && self.layers.iter().all(|l| (1..=n_layers).contains(l)),
            format!("encoder.languages.layers = {:?}: must rise and lie in 1..={n_layers}", self.layers),
        )?;
        if let FeedForwardConfig::Memory { layers, .. } = &encoder.feed_forward {
            let both = self.layers.iter().find(|l| layers.contains(l));
            rule(both.is_none(), format!("encoder.languages.layers: layer {} is a memory, which has no matrices", both.unwrap_or(&0)))?;
        }
        Ok(())
    }
}
