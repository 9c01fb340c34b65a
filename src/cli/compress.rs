//! `omniscribe compress`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::checkpoint::ModelDirectory;
use crate::checkpoint::manifest::{Manifest, licence_of};
use crate::checkpoint::safetensors_file::write_atomically;
use crate::cli::bench::open_sets;
use crate::cli::device::{self, DeviceChoice};
use crate::cli::model::{StorageChoice, companions};
use crate::compress::fidelity::{Fidelity, compare, hear};
use crate::compress::{Method, Plan, Report, ResidualKind, compress};
use crate::error::Error;
use crate::eval::{Aligner, Scoring};
use crate::kernel::gemm::Precision;
use crate::pipeline::decoder::Decoding;
use crate::pipeline::transcriber::{Transcriber, find_model};
use crate::text::Normalizer;

/// Flags of `omniscribe compress`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Model with experts: folder, .nemo file, or name of a pulled repository
    model: PathBuf,
    /// Folder to write
    #[arg(short, long)]
    output: PathBuf,
    /// What experts are taken apart into
    #[arg(long, value_enum, default_value = "resmoe")]
    method: MethodChoice,
    /// Share of each expert's parameters that is kept beside the centre; 1 loses nothing
    #[arg(long)]
    keep: f64,
    /// How what is beside the centre is made smaller
    #[arg(long, value_enum, default_value = "prune")]
    residual: ResidualChoice,
    /// How weights are stored
    #[arg(long, value_enum, default_value = "f16")]
    storage: StorageChoice,
    /// Test sets, named as for `bench`: word errors of both models on them and how often they choose the same expert (greedy decoding, full precision)
    #[arg(long, value_name = "SET")]
    on: Vec<PathBuf>,
    /// Write what was done and measured to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Methods by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MethodChoice {
    /// Aligned experts around their barycenter
    Resmoe,
    /// Experts around their mean, not aligned
    Average,
    /// No centre: the largest weights of each expert
    Magnitude,
}

/// Residuals by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ResidualChoice {
    /// Its largest entries
    Prune,
    /// A product of two thin matrices
    Svd,
}

/// Compresses, and measures what that costs.
#[expect(clippy::print_stdout, reason = "the report is this command's data")]
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let path = find_model(Some(&arguments.model))?;
    super::model::note_licence(&path);
    let plan = Plan {
        method: match arguments.method {
            MethodChoice::Resmoe => Method::Resmoe,
            MethodChoice::Average => Method::Average,
            MethodChoice::Magnitude => Method::Magnitude,
        },
        residual: match arguments.residual {
            ResidualChoice::Prune => ResidualKind::Prune,
            ResidualChoice::Svd => ResidualKind::Svd,
        },
        keep: arguments.keep,
        storage: arguments.storage.into(),
    };
    let same = |a: &PathBuf, b: &PathBuf| a.canonicalize().ok().zip(b.canonicalize().ok()).is_some_and(|(a, b)| a == b);
    if same(&path, &arguments.output) {
        return Err(Error::config("--output", "is the model itself: its weights are read while the new ones are written").into());
    }
    let model = ModelDirectory::open(&path)?;
    let report = compress(&model, &plan, &arguments.output)?;
    companions::carry(&path, &arguments.output)?;
    let made = format!("{} with experts compressed: {:?}, {:?}, keep {}", model.config.name, plan.method, plan.residual, plan.keep);
    Manifest::write(&arguments.output, made, licence_of(&path))?;
    print!("{}", describe(&report));
    let fidelity = if arguments.on.is_empty() { None } else { Some(measure(&path, arguments)?) };
    if let Some(fidelity) = &fidelity {
        print!("{}", describe_fidelity(fidelity));
    }
    if let Some(file) = &arguments.json {
        let json = serde_json::json!({"compressed": report, "fidelity": fidelity});
        write_atomically(file, format!("{json:#}\n").as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(report: &Report) -> String {
    let mega = |bytes: u64| bytes as f64 / 1e6;
    let mut text = String::new();
    for layer in &report.layers {
        text += &format!(
            "{}\t{} experts\t{} rounds\tfrom the centre {:.4}\terror {:.4}\n",
            layer.name, layer.experts, layer.rounds, layer.spread, layer.error
        );
    }
    let bytes = report.bytes;
    text += &format!(
        "experts\t{:.2} MB of {:.2} MB: centres {:.2}, residuals {:.2}, index {:.2}, biases {:.2}\nfile\t{:.2} MB\n",
        mega(bytes.total()),
        mega(report.whole_bytes),
        mega(bytes.centre),
        mega(bytes.residual),
        mega(bytes.index),
        mega(bytes.bias),
        mega(report.file_bytes)
    );
    text
}

/// Both models on the test sets.
fn measure(original: &PathBuf, arguments: &Arguments) -> anyhow::Result<Fidelity> {
    let corpora = open_sets(&arguments.on, &[])?;
    let utterances: Vec<_> = corpora.into_iter().flat_map(|(_, corpus)| corpus.utterances).collect();
    let heard = |path: &PathBuf| {
        let transcriber = Transcriber::open(path, device::open(DeviceChoice::Cpu)?, Precision::F32)?.with_decoding(&Decoding::Greedy)?;
        hear(&transcriber, &utterances)
    };
    let scoring = Scoring::new(Normalizer::default(), Aligner::default(), None)?;
    Ok(compare(&utterances, &heard(original)?, &heard(&arguments.output)?, &scoring)?)
}

fn describe_fidelity(fidelity: &Fidelity) -> String {
    let layers: Vec<String> = fidelity.agreement.iter().map(|share| format!("{:.1}", 100.0 * share)).collect();
    format!(
        "word errors\t{:.2} % -> {:.2} % in {} utterances, the same text in {:.1} %\nsame expert\t{:.1} % of {} steps; by layer {}\n",
        100.0 * fidelity.original.wer(),
        100.0 * fidelity.changed.wer(),
        fidelity.utterances,
        100.0 * fidelity.same_text,
        100.0 * fidelity.mean_agreement(),
        fidelity.steps,
        layers.join(" ")
    )
}
