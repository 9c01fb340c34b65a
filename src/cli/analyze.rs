//! `omniscribe analyze`: what a model learned.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::audio::{self, Limits};
use crate::checkpoint::safetensors_file::write_atomically;
use crate::cli::device::{self, DeviceChoice};
use crate::cli::modularity::{self, ModularityArguments};
use crate::error::Error;
use crate::eval::report::html::routing;
use crate::eval::routing::RoutingStudy;
use crate::kernel::gemm::Precision;
use crate::pipeline::transcriber::Transcriber;
use crate::units::SampleRate;

/// What to look at.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Which experts the routers of a model choose, and what that has to do with what is said
    Routing(RoutingArguments),
    /// Whether the neurons that tell sounds, silence or sources apart sit together in experts, and what is lost without them
    Modularity(ModularityArguments),
}

/// Flags of `omniscribe analyze routing`.
#[derive(Debug, Args)]
pub struct RoutingArguments {
    /// Model folder
    model: PathBuf,
    /// Recordings
    #[arg(required = true)]
    audio: Vec<PathBuf>,
    /// Folder for routing.json and routing.html
    #[arg(short, long)]
    output: PathBuf,
    /// Where to compute
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceChoice,
}

/// Runs an analysis.
#[expect(clippy::print_stdout, reason = "the summary is this command's data")]
pub fn run(command: &Command) -> anyhow::Result<ExitCode> {
    let arguments = match command {
        Command::Routing(arguments) => arguments,
        Command::Modularity(arguments) => return modularity::run(arguments),
    };
    // Full precision: a choice near a tie must not fall by rounding.
    let transcriber = Transcriber::open(&arguments.model, device::open(arguments.device)?, Precision::F32)?;
    let blank = transcriber.tokenizer().blank();
    let mut study = RoutingStudy::default();
    for path in &arguments.audio {
        let wave = audio::read_at(path, SampleRate::HZ_16000, &Limits::default())?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        for stretch in transcriber.log_probs(&wave.samples) {
            let best = |row: &[f32]| (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best }) as u32;
            let heard: Vec<_> = stretch.log_probs.chunks_exact(stretch.vocab.max(1)).map(best).map(|t| (t != blank).then_some(t)).collect();
            let seconds = SampleRate::HZ_16000.seconds(stretch.steps() * transcriber.step_samples());
            study.add(&name, seconds, &stretch.experts, &heard);
        }
    }
    let Some(report) = study.finish() else {
        return Err(Error::config("model", format!("{} has no experts, or nothing was heard", arguments.model.display())).into());
    };
    std::fs::create_dir_all(&arguments.output).map_err(|e| Error::io(&arguments.output, e))?;
    write_atomically(&arguments.output.join("routing.json"), &serde_json::to_vec_pretty(&report)?)?;
    write_atomically(&arguments.output.join("routing.html"), routing::render(transcriber.name(), &report).as_bytes())?;
    let mean = report.between_layers_mean.map_or("undefined".into(), |v| format!("{v:.3}"));
    println!("{} steps; mean Cramér's V between layers {mean}; see {}", report.steps, arguments.output.join("routing.html").display());
    Ok(ExitCode::SUCCESS)
}
