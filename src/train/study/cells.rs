//! The runs of a study.

use std::path::PathBuf;
use std::time::SystemTime;

use burn::tensor::Device;

use super::config::{StudyConfig, Variant};
use super::outcome::Outcome;
use super::structure;
use crate::checkpoint::weights;
use crate::error::{Error, Result};
use crate::eval::bench::{Bench, by_set};
use crate::eval::bootstrap::Resampling;
use crate::eval::corpora::{self, Corpus, Rules};
use crate::eval::report::compare::Recorded;
use crate::eval::report::environment;
use crate::eval::report::result::{self, Model, Provenance};
use crate::eval::score::Scored;
use crate::eval::{Aligner, Scoring};
use crate::model::asr::AsrModel;
use crate::pipeline::transcriber::Transcriber;
use crate::text::Normalizer;
use crate::train::batch::log;
use crate::train::config::RunConfig;
use crate::train::evaluate::group;
use crate::train::journal;

/// By how much the active parameters of two kinds may differ.
const UNMATCHED: f64 = 0.02;
/// A vocabulary to count parameters with; it is the same for all cells.
const VOCABULARY: usize = 32;

/// One run of a study.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// Name of its kind.
    pub kind: String,
    /// Name of its size; empty where the study has none.
    pub size: String,
    /// Its seed.
    pub seed: u64,
    /// The complete run.
    pub run: RunConfig,
    /// All parameters.
    pub parameters: usize,
    /// Parameters that work on a step, those of routers included.
    pub active: usize,
    /// Parameters of routers.
    pub routers: usize,
}

impl Cell {
    /// What it leaves; there once it is done.
    ///
    /// # Errors
    /// Those of [`Outcome::read`]; [`Error::Config`] where it was another run.
    pub fn outcome(&self) -> Result<Option<Outcome>> {
        let path = self.path();
        let outcome = Outcome::read(&path)?;
        match &outcome {
            Some(outcome) if !self.is(&outcome.run) => Err(other_run(path)),
            _ => Ok(outcome),
        }
    }

    /// What it heard on the dev sets: names of sets as the run joins them, ids and speakers with the set they come from, in order of id.
    ///
    /// # Errors
    /// Those of [`Recorded::open`].
    pub fn utterances(&self) -> Result<Vec<Scored>> {
        let named = |u: Scored| {
            let of_set = |name: String| format!("{}/{name}", u.set);
            Scored {
                set: group(&self.run.data.dev_groups, &u.set),
                id: of_set(u.id),
                speaker: u.speaker.map(of_set),
                recording: u.recording.map(of_set),
                ..u
            }
        };
        let recorded = Recorded::open(&self.result())?;
        let mut heard: Vec<Scored> = recorded.utterances.iter().filter(|u| u.error.is_none()).map(|u| named(u.scored())).collect();
        heard.sort_by(|a, b| (&a.set, &a.id).cmp(&(&b.set, &b.id)));
        Ok(heard)
    }

    /// Whether `run` is its run, in whatever folder.
    fn is(&self, run: &RunConfig) -> bool {
        RunConfig { output: self.run.output.clone(), ..run.clone() } == self.run
    }

    fn path(&self) -> PathBuf {
        self.run.output.join("cell.json")
    }

    fn result(&self) -> PathBuf {
        self.run.output.join("dev.json")
    }
}

/// Every cell in the order in which they run: all kinds of a size at a seed, so that a study that is not yet done compares what it has.
///
/// # Errors
/// [`Error::Config`]: a run that is not valid, or kinds of which active parameters (routers aside) differ by more than 2 %; [`Error::Io`]
pub fn cells(study: &StudyConfig) -> Result<Vec<Cell>> {
    let base = [Variant { name: String::new(), set: vec![] }];
    let sizes = if study.sizes.is_empty() { &base[..] } else { &study.sizes };
    let mut cells = Vec::new();
    for &seed in &study.seeds {
        for size in sizes {
            for kind in &study.kinds {
                let name = [kind.name.as_str(), size.name.as_str()].into_iter().filter(|n| !n.is_empty()).collect::<Vec<_>>().join("-");
                let folder = study.output.join(format!("{name}-s{seed}"));
                let place = toml::Value::String(folder.to_string_lossy().into_owned());
                let own = [format!("name={name}"), format!("seed={seed}"), format!("output={place}")];
                let changes: Vec<String> = size.set.iter().chain(&kind.set).chain(&own).cloned().collect();
                let run = study.run(&changes)?;
                if run.data.dev.is_empty() {
                    return Err(Error::config(study.base_path(), "data.dev: a study needs something to measure on"));
                }
                let model = AsrModel::new(&run.encoder, VOCABULARY, seed, &Device::flex())?;
                let shapes = weights::shapes(&model);
                let count = |of: &dyn Fn(&str) -> bool| {
                    shapes.iter().filter(|(name, _)| of(name)).map(|(_, shape)| shape.iter().product::<usize>()).sum::<usize>()
                };
                let parameters = count(&|_| true);
                let routers = count(&|name| [".routers.", ".router.", ".clusters."].iter().any(|part| name.contains(part)));
                let active = parameters - model.encoder.idle_params();
                cells.push(Cell { kind: kind.name.clone(), size: size.name.clone(), seed, run, parameters, active, routers });
            }
        }
    }
    for first in &cells {
        let working = |cell: &Cell| (cell.active - cell.routers) as f64;
        let other = cells.iter().find(|c| c.size == first.size && working(c) > (1.0 + UNMATCHED) * working(first));
        if let Some(other) = other {
            let say = |cell: &Cell| format!("{} has {} active parameters without routers", cell.kind, cell.active - cell.routers);
            return Err(Error::config(study.base_path(), format!("{}, {}: a study compares equal active sizes", say(first), say(other))));
        }
    }
    Ok(cells)
}

/// Trains and measures every cell that is not done yet; a cell that was begun goes on from its checkpoint.
///
/// # Errors
/// Those of [`cells`], of training and of measuring; [`Error::Config`] where a cell was begun with another configuration, or where the base has
/// no dev set.
pub fn run(study: &StudyConfig, device: &Device) -> Result<()> {
    if let Some(made) = &study.structure {
        structure::make(made)?;
    }
    let cells = cells(study)?;
    study.echo()?;
    for (i, cell) in cells.iter().enumerate() {
        let title = format!("cell {} of {}: {}, seed {}", i + 1, cells.len(), cell.run.name, cell.seed);
        if cell.outcome()?.is_some() {
            log(format_args!("{title}: done"));
            continue;
        }
        let begun = cell.run.output.join("run.toml");
        if begun.exists() && !cell.is(&RunConfig::read(&begun, &[])?) {
            return Err(other_run(begun));
        }
        log(format_args!("{title}: {} parameters, {} active", cell.parameters, cell.active));
        crate::train::run(&cell.run, device)?;
        measure(study, cell, device)?;
    }
    Ok(())
}

fn other_run(path: PathBuf) -> Error {
    Error::config(path, "this cell was another run: give the study another output, or remove the folder")
}

/// Word error rates of a trained cell on the dev sets of the base, greedy.
fn measure(study: &StudyConfig, cell: &Cell, device: &Device) -> Result<()> {
    let rules = Rules::default();
    let mut sets: Vec<(String, Corpus)> = Vec::new();
    for path in &cell.run.data.dev {
        sets.extend(by_set(corpora::open(corpora::detect(path, &rules)?, path, &rules)?));
    }
    let precision = cell.run.control.precision.into();
    let transcriber = Transcriber::open(&cell.run.output.join("model"), device.clone(), precision)?;
    let (all, active) = transcriber.parameters();
    let normalizer = Normalizer::from_id(&study.normalizer).unwrap_or(Normalizer::Whisper);
    let scoring = Scoring::new(normalizer, Aligner::default(), None)?;
    let corpora = sets.iter().map(|(set, corpus)| result::Corpus::of(set, corpus));
    let provenance = Provenance {
        program: concat!("omniscribe ", env!("CARGO_PKG_VERSION")).into(),
        commit: option_env!("OMNISCRIBE_COMMIT").map(String::from),
        command: std::env::args().collect(),
        started: environment::utc(SystemTime::now()),
        device: format!("{device:?}"),
        dtype: format!("{precision:?}").to_lowercase(),
        threads: rayon::current_num_threads(),
        cpu: environment::cpu_name(),
        model: Model { name: cell.run.name.clone(), weights_sha256: None, parameters: Some(all), active_parameters: Some(active) },
        corpora: corpora.collect(),
        scoring: scoring.id(),
        decoder: [("search".to_string(), "greedy".into())].into(),
        resampling: Resampling::default(),
    };
    let bench = Bench { transcriber: &transcriber, corpora: &sets, scoring: &scoring, provenance, output: cell.result() };
    let (result, _) = bench.run(|_| ())?;
    let log_lines = journal::read(&cell.run.output.join("log.jsonl"))?;
    Outcome::of(cell.run.clone(), &log_lines, &result).write(&cell.path())?;
    log(format_args!("{}, seed {}: mean WER over sets {:.2} %", cell.run.name, cell.seed, 100.0 * result.mean.wer));
    Ok(())
}
