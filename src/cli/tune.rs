//! `omniscribe lm tune`: weights for a language model, found on a dev set and stored beside the model.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use crate::cli::bench::open_sets;
use crate::cli::device::{self, DeviceChoice};
use crate::cli::precision::Dtype;
use crate::decode::beam::BeamConfig;
use crate::decode::fusion::LanguageModel;
use crate::decode::ngram::NgramModel;
use crate::error::Error;
use crate::eval::tune::{SetErrors, emissions, errors, mean_wer, search};
use crate::eval::{Aligner, Scoring};
use crate::pipeline::calibration::CalibrationConfig;
use crate::pipeline::decoder::{Decoding, DecodingConfig};
use crate::pipeline::transcriber::{Transcriber, find_model};
use crate::text::Normalizer;

/// Flags of `omniscribe lm tune`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Test sets to tune on: folders or manifests, as for `omniscribe bench`
    #[arg(required = true)]
    sets: Vec<PathBuf>,
    /// The language model; it is copied into the model folder with --write
    #[arg(long, value_name = "FILE")]
    lm: PathBuf,
    /// Model folder (default: $OMNISCRIBE_MODEL, else models/base here or beside the program)
    #[arg(short, long)]
    model: Option<PathBuf>,
    /// Hypotheses kept from step to step
    #[arg(long, alias = "beam_width", default_value_t = 32)]
    beam_width: usize,
    /// Store language model and weights in the model folder, if they are better than greedy decoding
    #[arg(long)]
    write: bool,
    /// Where to compute
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceChoice,
    /// Precision of matrix products on the CPU
    #[arg(long, value_enum, default_value = "bf16")]
    dtype: Dtype,
}

/// Name of the language model in a model folder.
const FILE: &str = "language.lm";

/// Searches and prints; with `--write`, stores.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let folder = find_model(arguments.model.as_deref())?;
    let corpora = open_sets(&arguments.sets, &[])?;
    let model = LanguageModel::new(Arc::new(NgramModel::open(&arguments.lm)?));
    let transcriber = Transcriber::open(&folder, device::open(arguments.device)?, arguments.dtype.precision())?;
    let scoring = Scoring::new(Normalizer::Whisper, Aligner::default(), None)?;
    let emissions = emissions(&transcriber, &corpora, &scoring, |_| ())?;
    let tokenizer = transcriber.tokenizer();
    let greedy = errors(&emissions, tokenizer, &Decoding::Greedy, &scoring)?;
    let config = BeamConfig { beam_width: arguments.beam_width, ..BeamConfig::default() };
    let best = search(&emissions, tokenizer, &model, &config, &scoring, |trial| {
        eprintln!("alpha {:.3} beta {:.3}: mean WER {:.2} %", trial.alpha, trial.beta, trial.mean_wer() * 100.0);
    })?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "alpha {}, beta {}, beam width {}\n", best.alpha, best.beta, config.beam_width)?;
    table(&mut out, &greedy, &best.errors)?;
    if !arguments.write {
        return Ok(ExitCode::SUCCESS);
    }
    if best.mean_wer() >= mean_wer(&greedy) {
        return Err(Error::config(&arguments.lm, "does not help on these sets: nothing is stored").into());
    }
    store(&folder, &arguments.lm, &LanguageModel { alpha: best.alpha, beta: best.beta, ..model }, &config)?;
    Ok(ExitCode::SUCCESS)
}

fn store(folder: &Path, lm: &Path, weights: &LanguageModel, config: &BeamConfig) -> crate::error::Result<()> {
    let bytes = std::fs::read(lm).map_err(|e| Error::io(lm, e))?;
    crate::checkpoint::safetensors_file::write_atomically(&folder.join(FILE), &bytes)?;
    DecodingConfig::new(FILE, weights, config).write(folder)?;
    // Confidences that were fitted to another search are no guess for this one.
    match CalibrationConfig::read(folder)? {
        Some(calibration) => CalibrationConfig { beam: None, ..calibration }.write(folder),
        None => Ok(()),
    }
}

fn table(out: &mut impl Write, greedy: &SetErrors, best: &SetErrors) -> std::io::Result<()> {
    writeln!(out, "| set | greedy, WER % | with the language model |\n|---|---|---|")?;
    for (set, errors) in greedy {
        writeln!(out, "| {set} | {:.1} | {:.1} |", errors.wer() * 100.0, best.get(set).map_or(0.0, |e| e.wer() * 100.0))?;
    }
    writeln!(out, "| mean of sets | {:.1} | {:.1} |", mean_wer(greedy) * 100.0, mean_wer(best) * 100.0)
}
