//! `omniscribe offload`, and the flags of commands that run a model within a budget of experts.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};

use crate::checkpoint::ModelDirectory;
use crate::cli::device::{self, DeviceChoice};
use crate::error::{Error, Result};
use crate::kernel::gemm::Precision;
use crate::offload::cache::{ExpertCache, Prefetch, Settings};
use crate::offload::predictor::{Heads, PREDICTOR, Predictor, Shape};
use crate::offload::train::{Accuracy, Schedule, accuracy, lessons, train};
use crate::pipeline::transcriber::{Transcriber, find_model};

/// What `omniscribe offload` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Teach a small network to guess from a recording which experts each layer will need
    Train(TrainArguments),
}

/// Flags of `omniscribe offload train`.
#[derive(Debug, Args)]
pub struct TrainArguments {
    /// Model folder with experts; the predictor is written into it
    model: PathBuf,
    /// Recordings; every fifth is kept to test on
    #[arg(required = true)]
    audio: Vec<PathBuf>,
    /// One guess for all layers, or one for each
    #[arg(long, value_enum, default_value = "each")]
    heads: HeadsChoice,
    /// Steps it sees: the step itself and those before it
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=64))]
    context: u16,
    /// Width of its hidden layer
    #[arg(long, default_value_t = 96, value_parser = clap::value_parser!(u16).range(1..=4096))]
    hidden: u16,
    /// Times every step is seen
    #[arg(long, default_value_t = 12)]
    epochs: usize,
    /// Learning rate at the start; it falls linearly to 0
    #[arg(long, default_value_t = 1e-3)]
    lr: f32,
    /// Seed of weights and order
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Another file than predictor.safetensors in the model folder
    #[arg(short, long)]
    output: Option<PathBuf>,
}

/// Guesses by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum HeadsChoice {
    /// One guess for all layers
    One,
    /// A guess for each layer
    Each,
}

/// Flags of commands that can run within a budget.
#[derive(Debug, Args)]
pub struct ExpertMemory {
    /// Memory for experts at most, e.g. 64MiB: the others stay in the model's file until they are needed. The transcript does not change
    #[arg(long, value_name = "SIZE", help_heading = "Experts")]
    expert_memory: Option<Bytes>,
    /// How the next experts are guessed
    #[arg(long, value_enum, default_value = "auto", requires = "expert_memory", help_heading = "Experts")]
    expert_prefetch: PrefetchChoice,
    /// Experts that may lie fetched ahead and unused
    #[arg(long, default_value_t = 8, requires = "expert_memory", value_name = "N", help_heading = "Experts")]
    expert_queue: usize,
}

/// Guesses by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PrefetchChoice {
    /// The model's predictor where it has one, else those of the layer below
    Auto,
    /// The model's predictor: see `omniscribe offload train`
    Predicted,
    /// Those that the layer used most so far
    Popular,
    /// Those that the layer below used
    Previous,
    /// None
    None,
}

/// A number of bytes: `67108864`, `64MiB`, `0.5GB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match text[number.len()..].to_ascii_lowercase().as_str() {
            "" | "b" => 1.0,
            "kb" => 1e3,
            "mb" => 1e6,
            "gb" => 1e9,
            "k" | "kib" => 1024.0,
            "m" | "mib" => 1024.0 * 1024.0,
            "g" | "gib" => 1024.0 * 1024.0 * 1024.0,
            _ => return Err(format!("{text:?}: want a number of bytes such as 67108864, 64MiB or 0.5GB")),
        };
        match number.trim().parse::<f64>() {
            Ok(value) if value.is_finite() && value >= 0.0 => Ok(Self((value * unit) as u64)),
            _ => Err(format!("{text:?}: want a number of bytes such as 67108864, 64MiB or 0.5GB")),
        }
    }
}

impl ExpertMemory {
    /// The transcriber: within a budget where one is given, with its cache.
    ///
    /// # Errors
    /// As [`Transcriber::open`] and [`crate::offload::open`].
    pub fn open(&self, folder: &Path, device: DeviceChoice, precision: Precision) -> Result<(Transcriber, Option<Arc<ExpertCache>>)> {
        let device = device::open(device)?;
        let Some(Bytes(budget)) = self.expert_memory else { return Ok((Transcriber::open(folder, device, precision)?, None)) };
        let prefetch = match self.expert_prefetch {
            PrefetchChoice::Auto if folder.join(PREDICTOR).exists() => Prefetch::Predicted,
            PrefetchChoice::Auto | PrefetchChoice::Previous => Prefetch::Previous,
            PrefetchChoice::Predicted => Prefetch::Predicted,
            PrefetchChoice::Popular => Prefetch::Popular,
            PrefetchChoice::None => Prefetch::Nothing,
        };
        let settings = Settings { budget, prefetch, queue: self.expert_queue };
        let (transcriber, cache) = crate::offload::open(folder, device, precision, settings)?;
        Ok((transcriber, Some(cache)))
    }
}

/// What a cache did, on one line.
pub fn describe(cache: &ExpertCache) -> String {
    let (counts, ledger) = (cache.counts(), cache.ledger());
    let mega = |bytes: u64| bytes as f64 / 1e6;
    format!(
        "experts: {} asked for in {} passes, {} there, {} on their way, {} missed; {} fetched ahead, {} for nothing; {} evicted; {:.1} MB read; at most {:.2} of {:.2} MB",
        counts.asked,
        counts.passes,
        counts.hits,
        counts.late,
        counts.asked - counts.hits - counts.late,
        counts.fetched,
        counts.wasted,
        counts.evicted,
        mega(counts.read_bytes),
        mega(ledger.peak()),
        mega(ledger.budget())
    )
}

/// Runs what was asked for.
pub fn run(command: &Command) -> anyhow::Result<ExitCode> {
    let Command::Train(arguments) = command;
    teach(arguments)
}

#[expect(clippy::print_stdout, reason = "the accuracy is this command's data")]
fn teach(arguments: &TrainArguments) -> anyhow::Result<ExitCode> {
    let folder = find_model(Some(&arguments.model))?;
    let model = ModelDirectory::open(&folder)?;
    let heads = match arguments.heads {
        HeadsChoice::One => Heads::One,
        HeadsChoice::Each => Heads::Each,
    };
    if arguments.epochs == 0 || !(arguments.lr.is_finite() && arguments.lr > 0.0) {
        return Err(Error::config("offload train", "--epochs and --lr must be above 0").into());
    }
    let shape = Shape::of(&model, heads, arguments.context.into(), arguments.hidden.into())?;
    let all = lessons(&model, &arguments.audio, &device::open(DeviceChoice::Cpu)?, |_| ())?;
    let (mut taught, mut tests) = (Vec::new(), Vec::new());
    for (number, lesson) in all.into_iter().enumerate() {
        if number % 5 == 4 { tests.push(lesson) } else { taught.push(lesson) }
    }
    let mut predictor = Predictor::new(shape, arguments.seed);
    // A batch of this size is large enough for fast products and small enough for many updates.
    let schedule = Schedule { epochs: arguments.epochs, batch: 256, lr: arguments.lr, seed: arguments.seed };
    for (epoch, loss) in train(&mut predictor, &taught, &schedule).iter().enumerate() {
        eprintln!("epoch {}: loss {loss:.4}", epoch + 1);
    }
    let path = arguments.output.clone().unwrap_or_else(|| folder.join(PREDICTOR));
    predictor.save(&path)?;
    let line = |name: &str, a: Accuracy| {
        println!(
            "{name}\tpredicted {:.1} %\tmajority {:.1} %\tlayer below {:.1} %\tof {} choices",
            100.0 * a.predicted,
            100.0 * a.majority,
            100.0 * a.previous_layer,
            a.pairs
        )
    };
    line("taught", accuracy(&predictor, &taught, &taught));
    if !tests.is_empty() {
        line("not taught", accuracy(&predictor, &taught, &tests));
    }
    println!("{}", path.display());
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, bytes) in [("64MiB", 64 << 20), ("1500", 1500), ("0.5GB", 500_000_000), ("2k", 2048), ("1.5mb", 1_500_000), ("0", 0)] {
            assert_eq!(text.parse::<Bytes>(), Ok(Bytes(bytes)), "{text}");
        }
        for bad in ["", "MiB", "-1", "12 parsecs", "1e400", "NaN"] {
            assert!(bad.parse::<Bytes>().unwrap_err().contains("want a number of bytes"), "{bad}");
        }
    }
}
