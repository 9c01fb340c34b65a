//! The command line: flags to library calls. The only place that prints.

mod device;
mod train;
mod transcribe;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Speech recognition in one binary.
#[derive(Debug, Parser)]
#[command(name = "omniscribe", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Transcribe audio files (`-` for standard input)
    Transcribe(transcribe::Arguments),
    /// Train a model from a run configuration
    Train(train::Arguments),
}

/// Runs what was asked for.
///
/// # Errors
/// What stops the whole command; a bad file among good ones does not, but makes the exit code 1.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Transcribe(arguments) => transcribe::run(&arguments),
        Command::Train(arguments) => train::run(&arguments),
    }
}
