//! `omniscribe transcribe`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::device::{self, DeviceChoice};
use crate::kernel::gemm::Precision;
use crate::pipeline::transcriber::{Transcriber, find_model};
use crate::pipeline::transcript::Transcript;

/// Flags of `omniscribe transcribe`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Audio files; `-` reads standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Model folder (default: $OMNISCRIBE_MODEL, else models/base here or beside the program)
    #[arg(short, long)]
    model: Option<PathBuf>,
    /// What to print
    #[arg(short, long, visible_alias = "output-format", alias = "output_format", value_enum, default_value = "txt")]
    format: Format,
    /// Where to compute
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceChoice,
    /// Precision of matrix products on the CPU
    #[arg(long, value_enum, default_value = "bf16")]
    dtype: Dtype,
    /// No progress bar
    #[arg(short, long)]
    quiet: bool,
}

/// Formats of transcripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The words, a line for each file
    Txt,
    /// One JSON object for each file
    Json,
}

/// Precision by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Dtype {
    /// 32-bit
    F32,
    /// bfloat16 where the processor has it
    Bf16,
}

/// Transcribes every file; the exit code is 1 if any failed.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let precision = match arguments.dtype {
        Dtype::F32 => Precision::F32,
        Dtype::Bf16 => Precision::Bf16,
    };
    let folder = find_model(arguments.model.as_deref())?;
    let transcriber = Transcriber::open(&folder, device::open(arguments.device)?, precision)?;
    let bar = progress_bar(arguments);
    let mut failed = 0;
    let mut out = std::io::stdout().lock();
    for file in &arguments.files {
        bar.set_message(file.display().to_string());
        match transcriber.transcribe(file) {
            Ok(transcript) => {
                for warning in &transcript.warnings {
                    bar.suspend(|| eprintln!("warning: {}: {warning}", file.display()));
                }
                bar.suspend(|| print(&mut out, &transcript, arguments.format))?;
            }
            Err(error) => {
                failed += 1;
                bar.suspend(|| eprintln!("error: {error:#}"));
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    if failed > 0 && arguments.files.len() > 1 {
        eprintln!("{failed} of {} files failed", arguments.files.len());
    }
    Ok(if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print(out: &mut impl Write, transcript: &Transcript, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Txt => writeln!(out, "{}", transcript.text)?,
        Format::Json => writeln!(out, "{}", serde_json::to_string(transcript)?)?,
    }
    Ok(out.flush()?)
}

fn progress_bar(arguments: &Arguments) -> ProgressBar {
    if arguments.quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let bar = ProgressBar::new(arguments.files.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}") {
        bar.set_style(style);
    }
    bar
}
