//! A model of one module out of a model with many.

use std::path::Path;

use burn::tensor::Device;

use crate::checkpoint::directory::{ModelConfig, ModelDirectory};
use crate::checkpoint::safetensors_file::Storage;
use crate::checkpoint::weights::collect;
use crate::error::{Error, Result};
use crate::model::config::{EncoderConfig, SHARED};

/// What to do where modules cannot be.
pub const WITHOUT_LANGUAGES: &str =
    "the model has modules for languages: `omniscribe model convert --language shared` puts one into the weights";

impl ModelDirectory {
    /// Refuses a model with modules.
    ///
    /// # Errors
    /// [`Error::Config`] that says who cannot use it.
    pub fn without_languages(&self, who: &str) -> Result<()> {
        match self.config.encoder.languages {
            None => Ok(()),
            Some(_) => Err(Error::config(&self.path, format!("{who}: {WITHOUT_LANGUAGES}"))),
        }
    }
}

/// Writes the model that `name` (a module, or `shared`) makes of `model`: its changes become part of the weights, so that it has no modules, the same
/// output as a pass with that module (exactly so in f32), and the size of one that never had any.
///
/// # Errors
/// [`Error::Config`] where there is no such module; as [`ModelDirectory::model`] and [`ModelDirectory::save`].
pub fn export(model: &ModelDirectory, name: &str, folder: &Path, storage: Storage) -> Result<()> {
    let refuse = |reason: String| Error::config(&model.path, format!("--language {name}: {reason}"));
    let languages = model.config.encoder.languages.as_ref().ok_or_else(|| refuse("this model has no modules".into()))?;
    let slot = languages.slot(name);
    if slot.is_none() && name != SHARED {
        return Err(refuse(format!("there are {SHARED} and modules for {}", languages.modules.join(", "))));
    }
    let folded = model.model(&Device::flex())?.folded(slot);
    let config = ModelConfig { encoder: EncoderConfig { languages: None, ..model.config.encoder.clone() }, ..model.config.clone() };
    ModelDirectory::save(folder, &config, &model.tokenizer, &collect(&folded), storage)
}
