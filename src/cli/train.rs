//! `omniscribe train`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::checkpoint::ModelDirectory;
use crate::cli::device::{self, DeviceChoice};
use crate::model::config::EncoderConfig;
use crate::pipeline::transcriber::find_model;
use crate::train::{RunConfig, run as train};

/// Flags of `omniscribe train`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The run, as TOML
    #[arg(long)]
    config: PathBuf,
    /// Change one value of the run, e.g. `--set encoder.dropout=0.2`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// A model to start from: a folder, a .nemo file, or the name of a pulled repository; its encoder, tokenizer and front end are taken over;
    /// languages may be added to one that has none
    #[arg(long, value_name = "MODEL")]
    init: Option<PathBuf>,
    /// Where to train
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceChoice,
}

/// Trains, or goes on with a run that was stopped.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut config = RunConfig::read(&arguments.config, &arguments.overrides)?;
    if let Some(init) = &arguments.init {
        let init = find_model(Some(init))?;
        let encoder = ModelDirectory::open(&init)?.config.encoder;
        // How much is dropped is a matter of the run.
        let languages = encoder.languages.clone().or_else(|| config.encoder.languages.take());
        config.encoder = EncoderConfig { dropout: config.encoder.dropout, languages, ..encoder };
        config.validate()?;
        config.init = Some(init);
    }
    let outcome = train(&config, &device::open(arguments.device)?)?;
    let wer = outcome.dev_wer.map_or_else(|| "no dev set".into(), |w| format!("dev WER {:.1} %", 100.0 * w));
    eprintln!(
        "done: {} steps, {:.2} audio hours, {wer}; model in {}",
        outcome.steps,
        outcome.audio_hours,
        config.output.join("model").display()
    );
    Ok(ExitCode::SUCCESS)
}
