//! What came of a study.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::cells::{Cell, cells};
use super::config::StudyConfig;
use super::intervals::{Difference, Rate, SetCounts, difference, error_rate};
use super::outcome::{Outcome, median};
use crate::error::{Error, Result};
use crate::eval::bootstrap::Resampling;

/// Everything that is drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StudyReport {
    /// The study's name.
    pub name: String,
    /// Cells that are done, and all.
    pub done: (usize, usize),
    /// The processor of the first cell.
    pub cpu: String,
    /// Seeds of which every kind is done, by size: what the numbers are over.
    pub seeds: BTreeMap<String, Vec<u64>>,
    /// A row for each kind at each size.
    pub entries: Vec<Entry>,
    /// Every kind against every one before it, at each size.
    pub contrasts: Vec<Contrast>,
}

/// A kind at a size, over the seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Name of the kind.
    pub kind: String,
    /// Name of the size.
    pub size: String,
    /// All parameters.
    pub parameters: usize,
    /// Those at work on a step, routers included.
    pub active: usize,
    /// Those of routers.
    pub routers: usize,
    /// Audio hours each run saw.
    pub audio_hours: f64,
    /// CTC loss per token at the end of training, nats, of each seed.
    pub losses: Vec<f64>,
    /// Hours of audio per hour of training, median over the logs.
    pub training_speed: f64,
    /// Hours of audio per hour of features, encoder and greedy search on the dev sets, median over seeds.
    pub recognition_speed: f64,
    /// Word error rate of each set.
    pub sets: BTreeMap<String, Rate>,
    /// Unweighted mean over the sets.
    pub mean: Rate,
    /// Training loss over audio hours, mean over seeds.
    pub loss_curve: Vec<(f64, f64)>,
    /// WER of all dev utterances over audio hours, mean over seeds, fraction.
    pub wer_curve: Vec<(f64, f64)>,
}

/// One kind against another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contrast {
    /// Size of both.
    pub size: String,
    /// The kind.
    pub kind: String,
    /// What it is compared with.
    pub against: String,
    /// For each set.
    pub sets: BTreeMap<String, Difference>,
    /// For the unweighted mean over sets.
    pub mean: Difference,
}

/// A cell that is done.
struct Done<'a> {
    cell: &'a Cell,
    outcome: Outcome,
}

/// Reads what the cells of a study left; those that are not done are left out, and with them their seed at that size.
///
/// # Errors
/// [`Error::Config`]: nothing to compare yet, or cells measured on different utterances; those of reading results and logs.
pub fn report(study: &StudyConfig) -> Result<StudyReport> {
    let cells = cells(study)?;
    let mut done = Vec::new();
    for cell in &cells {
        done.extend(cell.outcome()?.map(|outcome| Done { cell, outcome }));
    }
    let refuse = |reason: String| Error::config(&study.output, reason);
    let first = done.first().ok_or_else(|| refuse("no cell of this study is done".into()))?;
    let same = |d: &Done| d.outcome.sets.iter().map(|(set, c)| (set.clone(), c.utterances_sha256.clone())).collect::<Vec<_>>();
    if let Some(other) = done.iter().find(|d| same(d) != same(first)) {
        return Err(refuse(format!("{} and {} were measured on different utterances", first.cell.run.name, other.cell.run.name)));
    }
    let mut sizes: Vec<&str> = cells.iter().map(|c| c.size.as_str()).collect();
    sizes.dedup();
    let mut seen = std::collections::HashSet::new();
    sizes.retain(|size| seen.insert(*size));

    let (mut seeds, mut entries, mut contrasts) = (BTreeMap::new(), Vec::new(), Vec::new());
    for size in sizes {
        let of = |kind: &str, seed: u64| done.iter().find(|d| d.cell.size == size && d.cell.kind == kind && d.cell.seed == seed);
        let complete: Vec<u64> = study.seeds.iter().copied().filter(|&s| study.kinds.iter().all(|k| of(&k.name, s).is_some())).collect();
        if !complete.is_empty() {
            let runs: Vec<Vec<&Done>> =
                study.kinds.iter().map(|kind| complete.iter().filter_map(|&seed| of(&kind.name, seed)).collect()).collect();
            entries.extend(runs.iter().map(|runs| entry(runs)));
            for (i, first) in runs.iter().enumerate() {
                contrasts.extend(runs[..i].iter().map(|second| contrast(first, second)));
            }
        }
        seeds.insert(size.to_string(), complete);
    }
    if entries.is_empty() {
        return Err(refuse("no seed has all its kinds yet: there is nothing to compare".into()));
    }
    let cpu = first.outcome.cpu.clone();
    Ok(StudyReport { name: study.name.clone(), done: (done.len(), cells.len()), cpu, seeds, entries, contrasts })
}

fn entry(runs: &[&Done]) -> Entry {
    let cell = runs[0].cell;
    let of_set = |set: &String| runs.iter().map(|run| run.outcome.sets[set].groups.clone()).collect::<SetCounts<2>>();
    let names: Vec<&String> = runs[0].outcome.sets.keys().collect();
    let all: Vec<SetCounts<2>> = names.iter().map(|set| of_set(set)).collect();
    let of_runs = |of: fn(&Outcome) -> f64| median(runs.iter().map(|run| of(&run.outcome)).collect());
    Entry {
        kind: cell.kind.clone(),
        size: cell.size.clone(),
        parameters: cell.parameters,
        active: cell.active,
        routers: cell.routers,
        audio_hours: cell.run.control.audio_hours,
        losses: runs.iter().filter_map(|run| Some(run.outcome.loss_curve.last()?.1)).collect(),
        training_speed: of_runs(|outcome| outcome.training_speed),
        recognition_speed: of_runs(|outcome| outcome.recognition_speed),
        sets: names.iter().map(|set| ((*set).clone(), error_rate(&[of_set(set)], Resampling::default()))).collect(),
        mean: error_rate(&all, Resampling::default()),
        loss_curve: mean_curve(runs, |outcome| &outcome.loss_curve),
        wer_curve: mean_curve(runs, |outcome| &outcome.wer_curve),
    }
}

fn contrast(first: &[&Done], second: &[&Done]) -> Contrast {
    let paired = |set: &String| -> SetCounts<4> {
        let both = |(a, b): (&&Done, &&Done)| {
            let pairs = a.outcome.sets[set].groups.iter().zip(&b.outcome.sets[set].groups);
            pairs.map(|(&[errors, words], &[other_errors, other_words])| [errors, words, other_errors, other_words]).collect()
        };
        first.iter().zip(second).map(both).collect()
    };
    let names: Vec<&String> = first[0].outcome.sets.keys().collect();
    let all: Vec<SetCounts<4>> = names.iter().map(|set| paired(set)).collect();
    Contrast {
        size: first[0].cell.size.clone(),
        kind: first[0].cell.kind.clone(),
        against: second[0].cell.kind.clone(),
        sets: names.iter().map(|set| ((*set).clone(), difference(&[paired(set)], Resampling::default()))).collect(),
        mean: difference(&all, Resampling::default()),
    }
}

/// Mean over runs of what each has on the same line: runs of a study log at the same steps.
fn mean_curve(runs: &[&Done], of: fn(&Outcome) -> &Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let curves: Vec<&Vec<(f64, f64)>> = runs.iter().map(|run| of(&run.outcome)).collect();
    let length = curves.iter().map(|c| c.len()).min().unwrap_or(0);
    let n = curves.len().max(1) as f64;
    (0..length).map(|i| (curves.iter().map(|c| c[i].0).sum::<f64>() / n, curves.iter().map(|c| c[i].1).sum::<f64>() / n)).collect()
}
