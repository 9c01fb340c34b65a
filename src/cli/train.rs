//! `omniscribe train`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::cli::device::{self, DeviceChoice};
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
    /// Where to train
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceChoice,
}

/// Trains, or goes on with a run that was stopped.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = RunConfig::read(&arguments.config, &arguments.overrides)?;
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
