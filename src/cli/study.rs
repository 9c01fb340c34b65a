//! `omniscribe study`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::cli::device::{self, DeviceChoice};
use crate::train::study::{self, StudyConfig, render, report};

/// What to do with a study.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train and measure every cell, and write the report; started again, it goes on where it stopped
    Run(RunArguments),
    /// Write the report of the cells that are done
    Report(ReportArguments),
}

/// Flags of `omniscribe study run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// The study, as TOML
    study: PathBuf,
    /// Where to train
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceChoice,
}

/// Flags of `omniscribe study report`.
#[derive(Debug, Args)]
pub struct ReportArguments {
    /// Folder of a study that was run, or the study as TOML
    study: PathBuf,
    /// Keep the numbers as PREFIX.json and the pictures as PREFIX-loss.svg and so on, without the runs
    #[arg(long, value_name = "PREFIX")]
    export: Option<PathBuf>,
}

/// Runs or reports.
pub fn run(command: &Command) -> anyhow::Result<ExitCode> {
    let (path, export) = match command {
        Command::Run(arguments) => (&arguments.study, None),
        Command::Report(arguments) => (&arguments.study, arguments.export.as_ref()),
    };
    let config = StudyConfig::read(path)?;
    if let Command::Run(arguments) = command {
        study::run(&config, &device::open(arguments.device)?)?;
    }
    let found = report::report(&config, &format!("omniscribe study run {}", path.display()))?;
    render::write(&found, &config.output)?;
    if let Some(prefix) = export {
        render::export(&found, prefix)?;
    }
    eprintln!("{} of {} cells; see {}", found.done.0, found.done.1, config.output.join("report.html").display());
    Ok(ExitCode::SUCCESS)
}
