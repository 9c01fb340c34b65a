//! What came of a study.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::cells::{Cell, cells};
use super::config::StudyConfig;
use super::intervals::{Difference, Rate, SetCounts, difference, error_rate};
use super::outcome::{Outcome, median};
use crate::error::{Error, Result};
use crate::eval::Aligner;
use crate::eval::bootstrap::{Groups, Resampling, counts};
use crate::eval::report::environment;
use crate::eval::score::Scored;
use crate::eval::significance::{Comparison, compare};

/// Everything that is drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyReport {
    /// `study`: what kind of result this is, beside those of other measurements.
    pub benchmark: String,
    /// The study's name.
    pub name: String,
    /// What a user types to run it.
    pub command: String,
    /// Day of the report, `YYYY-MM-DD`.
    pub date: String,
    /// The processor of the first cell.
    pub cpu: String,
    /// Cells that are done, and all.
    pub done: (usize, usize),
    /// Seeds of which every kind is done, by size: what the numbers are over.
    pub seeds: BTreeMap<String, Vec<u64>>,
    /// A row for each kind at each size.
    pub entries: Vec<Entry>,
    /// Every kind against every one before it, at each size.
    pub contrasts: Vec<Contrast>,
}

/// A kind at a size, over the seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
    /// Word error rates.
    pub words: Measured<Rate>,
    /// Character error rates.
    pub characters: Measured<Rate>,
    /// Training loss, nats per token, over audio hours.
    pub loss_curve: Vec<Point>,
    /// WER of all dev utterances, fraction, over audio hours.
    pub wer_curve: Vec<Point>,
}

/// Something on every dev set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured<T> {
    /// Of each set.
    pub sets: BTreeMap<String, T>,
    /// Of the unweighted mean over the sets.
    pub mean: T,
}

/// A point of a curve over the seeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// Hours of audio seen.
    pub hours: f64,
    /// Mean over seeds.
    pub mean: f64,
    /// The lowest seed.
    pub low: f64,
    /// The highest seed.
    pub high: f64,
}

/// One kind against another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contrast {
    /// Size of both.
    pub size: String,
    /// The kind.
    pub kind: String,
    /// What it is compared with.
    pub against: String,
    /// Difference of word error rates.
    pub words: Measured<Difference>,
    /// Difference of character error rates.
    pub characters: Measured<Difference>,
    /// Paired tests of the kind (second) against the other (first) on what all seeds heard together: seeds are not drawn, so that these say
    /// whether these very models differ, not whether kinds do.
    pub models: Comparison,
}

/// A cell that is done.
struct Done<'a> {
    cell: &'a Cell,
    outcome: Outcome,
    heard: Vec<Scored>,
}

/// Reads what the cells of a study left; those that are not done are left out, and with them their seed at that size. `command` is how a user
/// runs it.
///
/// # Errors
/// [`Error::Config`]: nothing to compare yet, or cells measured on different utterances; those of reading results and logs.
pub fn report(study: &StudyConfig, command: &str) -> Result<StudyReport> {
    let cells = cells(study)?;
    let mut done = Vec::new();
    for cell in &cells {
        if let Some(outcome) = cell.outcome()? {
            done.push(Done { cell, outcome, heard: cell.utterances()? });
        }
    }
    let refuse = |reason: String| Error::config(&study.output, reason);
    let first = done.first().ok_or_else(|| refuse("no cell of this study is done".into()))?;
    let same =
        |d: &Done| d.heard.iter().map(|u| (&u.set, &u.id, &u.reference)).eq(first.heard.iter().map(|u| (&u.set, &u.id, &u.reference)));
    if let Some(other) = done.iter().find(|d| !same(d)) {
        return Err(refuse(format!("{} and {} were measured on different utterances", first.cell.run.name, other.cell.run.name)));
    }
    let mut sizes: Vec<&str> = cells.iter().map(|c| c.size.as_str()).collect();
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
                for second in &runs[..i] {
                    contrasts.push(contrast(first, second)?);
                }
            }
        }
        seeds.insert(size.to_string(), complete);
    }
    if entries.is_empty() {
        return Err(refuse("no seed has all its kinds yet: there is nothing to compare".into()));
    }
    Ok(StudyReport {
        benchmark: "study".into(),
        name: study.name.clone(),
        command: command.into(),
        date: environment::utc(SystemTime::now()).chars().take_while(|c| *c != 'T').collect(),
        cpu: first.outcome.cpu.clone(),
        done: (done.len(), cells.len()),
        seeds,
        entries,
        contrasts,
    })
}

/// What is counted of an utterance: errors, and words or characters of the reference.
type Counted = fn(&Scored) -> [usize; 2];
const WORDS: Counted = |u| counts(&u.words);
const CHARACTERS: Counted = |u| counts(&u.characters);

/// Counts of every set, `[seeds][groups]`; a group is a speaker, else a recording, else an utterance.
fn counted(runs: &[&Done], of: Counted) -> BTreeMap<String, SetCounts<2>> {
    let mut sets: BTreeMap<String, SetCounts<2>> = BTreeMap::new();
    for run in runs {
        // In order of their sets.
        for set in run.heard.chunk_by(|a, b| a.set == b.set) {
            sets.entry(set[0].set.clone()).or_default().push(Groups::of(set.iter()).sums(set.iter().map(of)));
        }
    }
    sets
}

fn rates(runs: &[&Done], of: Counted) -> Measured<Rate> {
    let sets = counted(runs, of);
    let all: Vec<SetCounts<2>> = sets.values().cloned().collect();
    Measured {
        sets: sets.into_iter().map(|(set, counts)| (set, error_rate(&[counts], Resampling::default()))).collect(),
        mean: error_rate(&all, Resampling::default()),
    }
}

fn entry(runs: &[&Done]) -> Entry {
    let cell = runs[0].cell;
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
        words: rates(runs, WORDS),
        characters: rates(runs, CHARACTERS),
        loss_curve: mean_curve(runs, |outcome| &outcome.loss_curve),
        wer_curve: mean_curve(runs, |outcome| &outcome.wer_curve),
    }
}

fn differences(first: &[&Done], second: &[&Done], of: Counted) -> Measured<Difference> {
    let [ours, others] = [first, second].map(|runs| counted(runs, of));
    let paired = |(set, ours): (String, SetCounts<2>)| -> (String, SetCounts<4>) {
        let both = ours.iter().zip(&others[&set]).map(|(ours, others)| {
            let pairs = ours.iter().zip(others);
            pairs.map(|(&[errors, words], &[other_errors, other_words])| [errors, words, other_errors, other_words]).collect()
        });
        let both = both.collect();
        (set, both)
    };
    let sets: BTreeMap<String, SetCounts<4>> = ours.into_iter().map(paired).collect();
    let all: Vec<SetCounts<4>> = sets.values().cloned().collect();
    Measured {
        sets: sets.into_iter().map(|(set, counts)| (set, difference(&[counts], Resampling::default()))).collect(),
        mean: difference(&all, Resampling::default()),
    }
}

fn contrast(first: &[&Done], second: &[&Done]) -> Result<Contrast> {
    // One utterance for each seed; what it is cut from, or itself, varies independently, seeds do not.
    let all = |runs: &[&Done]| -> Vec<Scored> {
        let of_run = |run: &&Done| {
            let seed = run.cell.seed;
            let named = |u: &Scored| Scored {
                id: format!("{seed}/{}", u.id),
                recording: u.recording.clone().or_else(|| Some(u.id.clone())),
                ..u.clone()
            };
            run.heard.iter().map(named).collect::<Vec<_>>()
        };
        runs.iter().flat_map(of_run).collect()
    };
    Ok(Contrast {
        size: first[0].cell.size.clone(),
        kind: first[0].cell.kind.clone(),
        against: second[0].cell.kind.clone(),
        words: differences(first, second, WORDS),
        characters: differences(first, second, CHARACTERS),
        models: compare(&all(second), &all(first), Aligner::default(), Resampling::default())?,
    })
}

/// Over runs, what each has on the same line: runs of a study log at the same steps.
fn mean_curve(runs: &[&Done], of: fn(&Outcome) -> &Vec<(f64, f64)>) -> Vec<Point> {
    let curves: Vec<&Vec<(f64, f64)>> = runs.iter().map(|run| of(&run.outcome)).collect();
    let length = curves.iter().map(|c| c.len()).min().unwrap_or(0);
    let n = curves.len().max(1) as f64;
    let point = |i: usize| {
        let values = || curves.iter().map(|c| c[i].1);
        Point {
            hours: curves.iter().map(|c| c[i].0).sum::<f64>() / n,
            mean: values().sum::<f64>() / n,
            low: values().fold(f64::INFINITY, f64::min),
            high: values().fold(f64::NEG_INFINITY, f64::max),
        }
    };
    (0..length).map(point).collect()
}
