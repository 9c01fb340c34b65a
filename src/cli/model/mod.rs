//! `omniscribe model`: models as files.

pub mod companions;
mod convert;
mod inspect;
mod pull;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::checkpoint::hub::Hub;
use crate::checkpoint::manifest::{Manifest, licence_of, restriction};
use crate::checkpoint::{Opened, convert as conversion};
use crate::cli::describe;
use crate::pipeline::transcriber::find_model;

pub use convert::StorageChoice;

/// What `omniscribe model` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the models here and in the hub's cache
    List(List),
    /// Fetch a model from the Hugging Face hub into the cache that other programs share
    Pull(pull::Arguments),
    /// Say what a model or a file of weights holds: names, shapes and types
    Inspect(inspect::Arguments),
    /// Check that a model is whole: hashes, every tensor, finite values
    Verify(Verify),
    /// Write any model as a folder of ours
    Convert(convert::Convert),
    /// Turn a dense model into a mixture of experts with the same output, to be trained on
    Upcycle(convert::UpcycleArguments),
}

/// Flags of `omniscribe model list`.
#[derive(Debug, Args)]
pub struct List {
    /// Folder of models
    #[arg(default_value = "models")]
    folder: PathBuf,
}

/// Flags of `omniscribe model verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// Model folder, .nemo file, or name of a pulled repository
    model: PathBuf,
}

/// Runs what was asked for.
pub fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::List(arguments) => list(arguments),
        Command::Pull(arguments) => pull::run(arguments),
        Command::Inspect(arguments) => inspect::run(arguments),
        Command::Verify(arguments) => verify(arguments),
        Command::Convert(arguments) => convert::run(arguments),
        Command::Upcycle(arguments) => convert::upcycle(arguments),
    }
}

#[expect(clippy::print_stdout, reason = "the list is this command's data")]
fn list(arguments: &List) -> anyhow::Result<ExitCode> {
    let mut places: Vec<(String, PathBuf)> = Vec::new();
    let entries = std::fs::read_dir(&arguments.folder).into_iter().flatten().flatten();
    let folders = entries.map(|e| e.path()).filter(|p| p.join("config.json").is_file() || p.extension().is_some_and(|e| e == "nemo"));
    places.extend(folders.map(|p| (p.display().to_string(), p)));
    places.sort();
    if let Ok(hub) = Hub::from_environment() {
        places.extend(hub.all_cached());
    }
    for (name, path) in places {
        // The cache also holds what other programs fetched: data sets of names, models of other kinds.
        match Opened::open(&path).and_then(|opened| Ok((describe::size(&opened)?, describe::architecture(&opened)))) {
            Ok((size, architecture)) => {
                println!("{name}\t{size}\t{architecture}\t{}", licence_of(&path).unwrap_or_else(|| "licence not stated".into()))
            }
            Err(error) => println!("{name}\tnot usable: {error}"),
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stdout, reason = "the report is this command's data")]
fn verify(arguments: &Verify) -> anyhow::Result<ExitCode> {
    let path = find_model(Some(&arguments.model))?;
    if let Some(manifest) = Manifest::read(&path)? {
        let changed = manifest.changed(&path)?;
        if !changed.is_empty() {
            anyhow::bail!("{}: not what manifest.json says: {}", path.display(), changed.join(", "));
        }
        println!("hashes\tok, {} files", manifest.files.len());
    }
    let opened = Opened::open(&path)?;
    let parameters = conversion::parameters(&opened)?;
    conversion::check(&parameters, &*opened.weights().source(), opened.weights().file.path())?;
    println!(
        "weights\tok, {} parameters in {} tensors, all finite",
        opened.weights().file.elements(),
        opened.weights().file.names().count()
    );
    println!("tokenizer\tok, {} tokens, blank {}", opened.tokenizer().vocab_size(), opened.tokenizer().blank());
    Ok(ExitCode::SUCCESS)
}

/// Says under which licence a model is, where that limits its use.
pub(super) fn note_licence(path: &Path) {
    if let Some(licence) = licence_of(path)
        && let Some(limit) = restriction(&licence)
    {
        eprintln!("note: licence {licence}: {limit}");
    }
}
