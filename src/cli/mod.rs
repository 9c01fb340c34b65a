//! The command line: flags to library calls. The only place that prints.

mod align;
mod analyze;
mod bench;
mod compress;
mod decoding;
mod describe;
mod device;
mod doctor;
mod language;
mod listen;
mod lm;
mod model;
mod modularity;
mod offload;
mod precision;
mod study;
mod train;
mod transcribe;
mod tune;

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
    /// Find the words of a text in its recording
    Align(align::Arguments),
    /// Look into what a model learned
    #[command(subcommand)]
    Analyze(analyze::Command),
    /// Measure word error rates on test sets, compare results, draw reports
    Bench(bench::Arguments),
    /// Make the experts of a model smaller: what they share is stored once
    Compress(compress::Arguments),
    /// Say what this machine and this build can do
    Doctor(doctor::Arguments),
    /// Show words while they are spoken: from the microphone, a pipe or a file
    Listen(listen::Arguments),
    /// Build, look into, query and tune n-gram language models
    #[command(subcommand)]
    Lm(lm::Command),
    /// List, fetch, look into, check, convert and upcycle models
    #[command(subcommand)]
    Model(model::Command),
    /// Train a grid of models that differ in one thing, and report what came of it
    #[command(subcommand)]
    Study(study::Command),
    /// Run models whose experts do not all fit into memory
    #[command(subcommand)]
    Offload(offload::Command),
    /// Train a model from a run configuration
    Train(train::Arguments),
}

/// Runs what was asked for.
///
/// # Errors
/// What stops the whole command; a bad file among good ones does not, but makes the exit code 1.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let done = match cli.command {
        Command::Transcribe(arguments) => transcribe::run(&arguments),
        Command::Align(arguments) => align::run(&arguments),
        Command::Analyze(command) => analyze::run(&command),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Compress(arguments) => compress::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Listen(arguments) => listen::run(&arguments),
        Command::Lm(command) => lm::run(&command),
        Command::Model(command) => model::run(&command),
        Command::Study(command) => study::run(&command),
        Command::Offload(command) => offload::run(&command),
        Command::Train(arguments) => train::run(&arguments),
    };
    done.map_err(|error| anyhow::Error::msg(one_line(&error)))
}

/// An error and its causes, joined by `: `. The library's messages spell out their cause already: it is not said twice.
fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text += if text.is_empty() { "" } else { ": " };
            text += &cause;
        }
    }
    text
}
