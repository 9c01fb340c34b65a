//! What a model folder holds beside the model: how it is decoded, and how sure it may be.

use std::path::Path;

use crate::checkpoint::safetensors_file::write_atomically;
use crate::error::{Error, Result};
use crate::pipeline::calibration::CalibrationConfig;
use crate::pipeline::decoder::DecodingConfig;

/// Copies language model, decoding weights and calibration of the model `from` into the folder `to`, where `from` has them: a model in another form
/// is decoded as before.
///
/// # Errors
/// [`Error::Io`], and those of reading the files.
pub fn carry(from: &Path, to: &Path) -> Result<()> {
    if let Some(decoding) = DecodingConfig::read(from)? {
        let source = from.join(&decoding.language_model);
        let bytes = std::fs::read(&source).map_err(|e| Error::io(&source, e))?;
        write_atomically(&to.join(&decoding.language_model), &bytes)?;
        decoding.write(to)?;
    }
    CalibrationConfig::read(from)?.map_or(Ok(()), |calibration| calibration.write(to))
}
