//! What a model folder holds beside the model: how it is decoded, and how sure it may be.

use std::path::Path;

use crate::checkpoint::limits::is_plain_name;
use crate::checkpoint::safetensors_file::write_atomically;
use crate::error::{Error, Result};
use crate::pipeline::calibration::CalibrationConfig;
use crate::pipeline::decoder::DecodingConfig;

/// Copies language model, decoding weights and calibration of the model `from` into the folder `to`, where `from` has them: a model in another form
/// is decoded as before.
///
/// # Errors
/// [`Error::Io`], [`Error::Config`] for a language model that lies elsewhere, and those of reading the files.
pub fn carry(from: &Path, to: &Path) -> Result<()> {
    let mut files = Vec::new();
    if let Some(decoding) = DecodingConfig::read(from)? {
        if !is_plain_name(&decoding.language_model) {
            let reason = format!("language_model = {:?}: must be the name of a file beside it", decoding.language_model);
            return Err(Error::config(from.join(DecodingConfig::FILE), reason));
        }
        files.extend([decoding.language_model, DecodingConfig::FILE.into()]);
    }
    if CalibrationConfig::read(from)?.is_some() {
        files.push(CalibrationConfig::FILE.into());
    }
    for file in files {
        let source = from.join(&file);
        let bytes = std::fs::read(&source).map_err(|e| Error::io(&source, e))?;
        write_atomically(&to.join(&file), &bytes)?;
    }
    Ok(())
}
