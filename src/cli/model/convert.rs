//! `omniscribe model convert` and `upcycle`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::checkpoint::convert as conversion;
use crate::checkpoint::languages;
use crate::checkpoint::manifest::{Manifest, licence_of};
use crate::checkpoint::safetensors_file::Storage;
use crate::checkpoint::upcycle::Upcycle;
use crate::checkpoint::weights::shapes;
use crate::checkpoint::{ModelDirectory, Opened};
use crate::cli::device::{self, DeviceChoice};
use crate::cli::model::{companions, note_licence};
use crate::model::asr::AsrModel;
use crate::model::config::RouterKind;
use crate::pipeline::transcriber::find_model;

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StorageChoice {
    /// 32-bit floats
    F32,
    /// bfloat16
    Bf16,
    /// 16-bit floats
    F16,
    /// 8-bit integers with a scale for each output of every large matrix
    Int8,
}

impl From<StorageChoice> for Storage {
    fn from(choice: StorageChoice) -> Self {
        match choice {
            StorageChoice::F32 => Self::F32,
            StorageChoice::Bf16 => Self::Bf16,
            StorageChoice::F16 => Self::F16,
            StorageChoice::Int8 => Self::Int8,
        }
    }
}

/// Who routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RouterChoice {
    /// One router for all layers
    Omni,
    /// A router for each layer
    Switch,
}

/// Flags of `omniscribe model convert`.
#[derive(Debug, Args)]
pub struct Convert {
    /// Model folder, .nemo file, or name of a pulled repository
    model: PathBuf,
    /// Folder to write
    output: PathBuf,
    /// How weights are stored
    #[arg(long, value_enum, default_value = "f32")]
    storage: StorageChoice,
    /// Of a model with modules for languages: put one into the weights, by name or the `shared` one, and leave the others out (default: keep all)
    #[arg(long, value_name = "NAME|shared")]
    language: Option<String>,
}

/// Flags of `omniscribe model upcycle`.
#[derive(Debug, Args)]
pub struct UpcycleArguments {
    /// Dense model: folder, .nemo file, or name of a pulled repository
    model: PathBuf,
    /// Folder to write
    output: PathBuf,
    /// Experts of every layer
    #[arg(long)]
    experts: usize,
    /// Who routes
    #[arg(long, value_enum, default_value = "omni")]
    router: RouterChoice,
    /// Noise on the experts' matrices, as a share of their deviation; anything but 0 changes the output
    #[arg(long, default_value_t = 0.0)]
    noise: f32,
    /// Seed of router and noise
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How weights are stored; only f32 keeps the output exactly
    #[arg(long, value_enum, default_value = "f32")]
    storage: StorageChoice,
}

/// Converts.
pub fn run(arguments: &Convert) -> anyhow::Result<ExitCode> {
    let path = find_model(Some(&arguments.model))?;
    note_licence(&path);
    let opened = Opened::open(&path)?;
    let made = match &arguments.language {
        None => {
            conversion::convert(&opened, &arguments.output, arguments.storage.into())?;
            format!("converted from {}", opened.name())
        }
        Some(name) => {
            languages::export(&ModelDirectory::open(&path)?, name, &arguments.output, arguments.storage.into())?;
            format!("module {name} of {}", opened.name())
        }
    };
    companions::carry(&path, &arguments.output)?;
    Manifest::write(&arguments.output, made, licence_of(&path))?;
    Ok(ExitCode::SUCCESS)
}

/// Upcycles.
pub fn upcycle(arguments: &UpcycleArguments) -> anyhow::Result<ExitCode> {
    let path = find_model(Some(&arguments.model))?;
    note_licence(&path);
    let dense = ModelDirectory::open(&path)?;
    let router = match arguments.router {
        RouterChoice::Omni => RouterKind::Omni,
        RouterChoice::Switch => RouterKind::Switch,
    };
    let plan = Upcycle { experts: arguments.experts, router, noise: arguments.noise, seed: arguments.seed };
    let config = plan.config(&dense.config)?;
    let device = device::open(DeviceChoice::Cpu)?;
    let parameters = shapes(&AsrModel::blank(&config.encoder, dense.tokenizer.vocab_size(), &device)?);
    let source = plan.source(&dense);
    conversion::check(&parameters, &source, dense.weights.file.path())?;
    conversion::write(&arguments.output, &config, &dense.tokenizer, parameters, &source, arguments.storage.into())?;
    companions::carry(&path, &arguments.output)?;
    let made = format!("upcycled from {}: {} experts, {:?} router", dense.config.name, plan.experts, plan.router);
    Manifest::write(&arguments.output, made, licence_of(&path))?;
    Ok(ExitCode::SUCCESS)
}
