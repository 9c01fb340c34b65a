//! `omniscribe model inspect`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::checkpoint::Opened;
use crate::checkpoint::manifest::{licence_of, restriction};
use crate::checkpoint::tensor_file::TensorFile;
use crate::cli::describe;
use crate::pipeline::transcriber::find_model;

/// Flags of `omniscribe model inspect`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Model folder, .nemo file, name of a pulled repository, or any .safetensors file, shard index or torch archive
    model: PathBuf,
    /// One JSON document instead of lines
    #[arg(long)]
    json: bool,
}

/// Prints what it is, and every tensor: name, type, shape.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let path = find_model(Some(&arguments.model))?;
    let is_model = path.is_dir() || path.extension().is_some_and(|e| e == "nemo");
    let opened = if is_model { Some(Opened::open(&path)?) } else { None };
    let alone;
    let file = match &opened {
        Some(opened) => &opened.weights().file,
        None => {
            alone = TensorFile::open(&path)?;
            &alone
        }
    };
    let mut about = vec![("path", path.display().to_string())];
    if let Some(opened) = &opened {
        about.push(("name", opened.name().to_string()));
        about.push(("size", describe::size(opened)?));
        about.push(("architecture", describe::architecture(opened)));
    }
    let folder = if path.is_dir() { path.as_path() } else { path.parent().unwrap_or(Path::new("")) };
    if let Some(licence) = licence_of(folder) {
        let limit = restriction(&licence).map_or_else(String::new, |limit| format!(" ({limit})"));
        about.push(("licence", licence + &limit));
    }
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let tensors: Vec<_> = file.names().filter_map(|name| Some((name, file.get(name)?))).collect();
        let tensors: Vec<_> = tensors.iter().map(|(n, v)| json!({"name": n, "dtype": v.dtype.to_string(), "shape": v.shape})).collect();
        let about: serde_json::Map<_, _> = about.into_iter().map(|(k, v)| (k.to_string(), v.into())).collect();
        writeln!(out, "{}", json!({"about": about, "metadata": file.metadata(), "tensors": tensors}))?;
        return Ok(ExitCode::SUCCESS);
    }
    for (key, value) in about.into_iter().map(|(k, v)| (k.to_string(), v)).chain(file.metadata().clone()) {
        writeln!(out, "# {key}: {value}")?;
    }
    for name in file.names() {
        if let Some(view) = file.get(name) {
            writeln!(out, "{name}\t{}\t{:?}", view.dtype, view.shape)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
