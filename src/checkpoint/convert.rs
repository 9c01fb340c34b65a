//! Any model written as a folder of ours: one tensor in memory at a time.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use serde::Serialize;

use crate::checkpoint::directory::{WEIGHTS, metadata, save_rest};
use crate::checkpoint::factored::Factored;
use crate::checkpoint::open::Opened;
use crate::checkpoint::safetensors_file::{Storage, save_parts, save_stored};
use crate::checkpoint::storage::Stored;
use crate::checkpoint::tensor_file::broken;
use crate::checkpoint::weights::{Fault, Source, shapes};
use crate::error::{Error, Result};
use crate::model::asr::AsrModel;
use crate::model::wave::WaveModel;
use crate::text::Tokenizer;

/// Names and shapes of a model's parameters, without its weights.
///
/// # Errors
/// [`Error::Config`]
pub fn parameters(opened: &Opened) -> Result<Vec<(String, Vec<usize>)>> {
    let device = Device::flex();
    Ok(match opened {
        Opened::Spectral(d) => shapes(&AsrModel::blank(&d.config.encoder, d.tokenizer.vocab_size(), &device)?),
        Opened::Wave(d) => shapes(&WaveModel::blank(&d.config.wave_encoder, d.tokenizer.vocab_size(), &device)?),
    })
}

/// Checks that `source` has finite values for every parameter, and nothing else.
///
/// # Errors
/// [`Error::Checkpoint`] naming every tensor that is missing, left over, mis-shaped or not finite.
pub fn check(parameters: &[(String, Vec<usize>)], source: &dyn Source, path: &Path) -> Result<()> {
    let (mut missing, mut mismatched) = (Vec::new(), Vec::new());
    for (name, shape) in parameters {
        match source.take(name, shape) {
            Ok(values) if values.iter().all(|v| v.is_finite()) => {}
            Ok(_) => mismatched.push(format!("{name}: values that are not finite")),
            Err(Fault::Missing(what)) => missing.push(what),
            Err(Fault::Mismatched(what)) => mismatched.push(what),
        }
    }
    let unused = source.unused();
    if missing.is_empty() && unused.is_empty() && mismatched.is_empty() {
        return Ok(());
    }
    Err(Error::Checkpoint { path: path.into(), missing, unused, mismatched })
}

/// Writes an opened model to `folder` in our layout.
///
/// # Errors
/// As [`check`]; [`Error::Io`]
pub fn convert(opened: &Opened, folder: &Path, storage: Storage) -> Result<()> {
    let source = opened.weights().source();
    let parameters = parameters(opened)?;
    check(&parameters, &*source, opened.weights().file.path())?;
    match opened {
        Opened::Spectral(d) => write(folder, &d.config, &d.tokenizer, parameters, &*source, storage),
        Opened::Wave(d) => write(folder, &d.config, &d.tokenizer, parameters, &*source, storage),
    }
}

/// Writes a folder of ours whose weights come from `source`, which was checked.
///
/// # Errors
/// [`Error::Io`], [`Error::Tokenizer`], [`Error::Checkpoint`] for values that f16 does not hold
pub fn write(
    folder: &Path,
    config: &impl Serialize,
    tokenizer: &Tokenizer,
    parameters: Vec<(String, Vec<usize>)>,
    source: &dyn Source,
    storage: Storage,
) -> Result<()> {
    let by_name: BTreeMap<String, Vec<usize>> = parameters.iter().cloned().collect();
    let failed = std::cell::RefCell::new(None);
    let values = |name: &str| {
        Cow::Owned(source.take(name, &by_name[name]).unwrap_or_else(|fault| {
            failed.borrow_mut().get_or_insert(fault.into_text());
            vec![0.0; by_name[name].iter().product()]
        }))
    };
    let path = folder.join(WEIGHTS);
    save_parts(&path, parameters, values, storage, metadata())?;
    if let Some(what) = failed.take() {
        return Err(broken(&path, what));
    }
    save_rest(folder, config, tokenizer)
}

/// Writes a folder of ours in which the experts of some layers are stored factored, by the name their parameters begin with; the other
/// weights come from `source`, which was checked.
///
/// # Errors
/// [`Error::Io`], [`Error::Tokenizer`], [`Error::Checkpoint`], [`Error::Config`] for values that f16 does not hold
pub fn write_factored(
    folder: &Path,
    config: &impl Serialize,
    tokenizer: &Tokenizer,
    parameters: Vec<(String, Vec<usize>)>,
    source: &dyn Source,
    layers: &BTreeMap<String, Factored>,
    storage: Storage,
) -> Result<()> {
    let path = folder.join(WEIGHTS);
    let mut tensors = Vec::new();
    for (name, shape) in parameters {
        let (prefix, part) = name.rsplit_once('.').unwrap_or_default();
        if layers.contains_key(prefix) && ["up", "up_bias", "down"].contains(&part) {
            continue;
        }
        let values = source.take(&name, &shape).map_err(|fault| broken(&path, fault.into_text()))?;
        tensors.extend(Stored::encode(&name, &values, &shape, storage)?);
    }
    for (prefix, factored) in layers {
        tensors.extend(factored.stored(prefix, storage)?);
    }
    save_stored(&path, tensors, metadata())?;
    save_rest(folder, config, tokenizer)
}
