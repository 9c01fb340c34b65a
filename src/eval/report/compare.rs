//! Several results side by side: the kind of table papers print, with the change against the first and how sure it is.

use std::path::Path;

use super::journal::{self, Utterance};
use super::markdown::{cell, grid, percent};
use super::result::{Corpus, RunResult};
use crate::error::{Error, Result};
use crate::eval::aligner::Aligner;
use crate::eval::score::Scored;
use crate::eval::significance::{self, Comparison, Paired};

/// A result with its journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// Name of the file, without ending.
    pub file: String,
    /// The result.
    pub result: RunResult,
    /// Its utterances.
    pub utterances: Vec<Utterance>,
}

impl Recorded {
    /// Reads a result and the journal beside it.
    ///
    /// # Errors
    /// Those of [`RunResult::read`] and [`journal::read`], and [`Error::Config`] where the two have not the same utterances.
    pub fn open(path: &Path) -> Result<Self> {
        let result = RunResult::read(path)?;
        let journal = journal::path_of(path);
        let utterances = journal::read(&journal, &result.run)?;
        for set in &result.sets {
            let there = utterances.iter().filter(|u| u.set == set.name && u.error.is_none()).count();
            if there != set.utterances {
                let name = &set.name;
                return Err(Error::config(journal, format!("{there} utterances of set {name:?}, the result has {}", set.utterances)));
            }
        }
        let file = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { file, result, utterances })
    }
}

/// What a table is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To compare: what cannot be compared is refused.
    Compare,
    /// To list: no change, no significance; what differs between the runs is said.
    List,
}

/// Results side by side.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Column headings: names of the models, or of the files where models are the same.
    pub systems: Vec<String>,
    /// A row for each set, in the order in which they come up.
    pub rows: Vec<Row>,
    /// Tests of every system but the first against the first; empty in a list.
    pub tests: Vec<Comparison>,
    /// What the reader has to know.
    pub notes: Vec<String>,
}

/// One set.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its name.
    pub set: String,
    /// Word error rate of each system; none where it was not run.
    pub rates: Vec<Option<f64>>,
}

impl Table {
    /// Sets results side by side; the first is what the others are compared with.
    ///
    /// # Errors
    /// - [`Error::Config`]: fewer than two results; to compare: another normaliser, mapping file or aligner, another corpus under the same
    ///   name, no set in common
    /// - [`Error::LimitExceeded`]: see [`Aligner::align`]
    pub fn of(results: &[Recorded], purpose: Purpose) -> Result<Self> {
        let refuse = |reason: String| Error::config("comparison", reason);
        let (first, others) =
            results.split_first().filter(|(_, others)| !others.is_empty()).ok_or_else(|| refuse("want two results or more".into()))?;
        let systems = names(results);
        let mut notes = Vec::new();
        for (other, name) in others.iter().zip(&systems[1..]) {
            let differences = differences(&first.result, &other.result);
            match purpose {
                Purpose::Compare if !differences.is_empty() => {
                    return Err(refuse(format!("{name} against {}: {}", systems[0], differences.join("; "))));
                }
                _ => notes.extend(differences.into_iter().map(|d| format!("{name} against {}: {d}", systems[0]))),
            }
        }
        let mut sets: Vec<&str> = Vec::new();
        for set in results.iter().flat_map(|r| &r.result.sets) {
            if !sets.contains(&set.name.as_str()) {
                sets.push(&set.name);
            }
        }
        let rate = |r: &Recorded, name: &str| r.result.sets.iter().find(|s| s.name == name && s.utterances > 0).map(|s| s.wer);
        let row = |name: &&str| Row { set: (*name).to_string(), rates: results.iter().map(|r| rate(r, name)).collect() };
        let rows: Vec<Row> = sets.iter().map(row).collect();
        let mut tests = Vec::new();
        if purpose == Purpose::Compare {
            let aligner = &first.result.provenance.scoring.aligner;
            let aligner = Aligner::from_id(aligner).ok_or_else(|| refuse(format!("aligner {aligner:?} is not known to this build")))?;
            let scored = |r: &Recorded| r.utterances.iter().filter(|u| u.error.is_none()).map(Utterance::scored).collect::<Vec<Scored>>();
            let baseline = scored(first);
            for (other, name) in others.iter().zip(&systems[1..]) {
                let test = significance::compare(&baseline, &scored(other), aligner, first.result.provenance.resampling)?;
                let both = |set: &str| [first, other].iter().all(|r| r.result.sets.iter().any(|s| s.name == set));
                let alone = test.only_first.iter().chain(&test.only_second).filter(|(set, _)| both(set)).count();
                if alone > 0 {
                    notes.push(format!(
                        "{name} against {}: utterances that only one of them has, and that take no part in the tests: {alone}",
                        systems[0]
                    ));
                }
                tests.push(test);
            }
        }
        Ok(Self { systems, rows, tests, notes })
    }

    /// The table in Markdown. The lowest rate of a row is bold; the change is relative to the first system; `p` is two-tailed, of the paired
    /// bootstrap and of MAPSSWE.
    pub fn markdown(&self) -> String {
        let mut columns = vec!["WER, %".to_string()];
        for (i, system) in self.systems.iter().enumerate() {
            columns.push(cell(system));
            if i > 0 && !self.tests.is_empty() {
                columns.extend(["change", "p bootstrap", "p MAPSSWE"].map(String::from));
            }
        }
        let mut rows: Vec<Vec<String>> = Vec::new();
        for Row { set, rates } in &self.rows {
            let test = |c: &'_ Comparison| c.sets.iter().find(|p| p.name == *set).map(tests);
            rows.push(self.row(cell(set), rates, |i| self.tests.get(i).and_then(test)));
        }
        let shared: Vec<&Row> = self.rows.iter().filter(|r| r.rates.iter().all(Option::is_some)).collect();
        if shared.len() > 1 {
            let mean = |i: usize| shared.iter().filter_map(|r| r.rates[i]).sum::<f64>() / shared.len() as f64;
            let means: Vec<Option<f64>> = (0..self.systems.len()).map(|i| Some(mean(i))).collect();
            rows.push(self.row(format!("mean of {} sets", shared.len()), &means, |_| None));
        }
        let pooled = |i: usize| match i {
            0 => self.tests.first().map(|c| c.all.words[0].wer()),
            _ => self.tests.get(i - 1).map(|c| c.all.words[1].wer()),
        };
        if let Some(together) = (0..self.systems.len()).map(pooled).collect::<Option<Vec<f64>>>().filter(|_| self.same_words()) {
            let rates: Vec<Option<f64>> = together.into_iter().map(Some).collect();
            rows.push(self.row("all words".into(), &rates, |i| self.tests.get(i).map(|c| tests(&c.all))));
        }
        let mut text = grid(&columns, &rows);
        self.notes.iter().for_each(|note| text += &format!("\n{}.\n", cell(note)));
        text
    }

    /// Whether every test is over the same words, so that the first system has one rate.
    fn same_words(&self) -> bool {
        self.tests.windows(2).all(|pair| pair[0].all.words[0] == pair[1].all.words[0])
    }

    /// A row: each rate, and of all but the first the change and the two probabilities that `tests` gives for it.
    fn row(&self, name: String, rates: &[Option<f64>], tests: impl Fn(usize) -> Option<[String; 2]>) -> Vec<String> {
        let best = rates.iter().flatten().copied().fold(f64::INFINITY, f64::min);
        let mut row = vec![name];
        for (i, rate) in rates.iter().enumerate() {
            row.push(match rate {
                Some(rate) if percent(*rate) == percent(best) => format!("**{}**", percent(*rate)),
                Some(rate) => percent(*rate),
                None => "–".into(),
            });
            if i > 0 && !self.tests.is_empty() {
                let change = rates[0].zip(*rate).filter(|(a, _)| *a > 0.0).map(|(a, b)| format!("{:+.1} %", 100.0 * (b / a - 1.0)));
                row.push(change.unwrap_or_default());
                row.extend(tests(i - 1).unwrap_or_default());
            }
        }
        row
    }
}

/// Why two results cannot be compared; empty if they can.
fn differences(a: &RunResult, b: &RunResult) -> Vec<String> {
    let (p, q) = (&a.provenance, &b.provenance);
    let mut found = Vec::new();
    let mut check = |what: &str, a: String, b: String| {
        if a != b {
            found.push(format!("{what} {b}, not {a}"));
        }
    };
    check("normaliser", p.scoring.normalizer.clone(), q.scoring.normalizer.clone());
    let glm = |id: &Option<String>| id.clone().unwrap_or_else(|| "none".into());
    check("mapping file", glm(&p.scoring.glm), glm(&q.scoring.glm));
    check("aligner", p.scoring.aligner.clone(), q.scoring.aligner.clone());
    check("empty references", format!("{:?}", p.scoring.empty_references), format!("{:?}", q.scoring.empty_references));
    let mut common = 0;
    for corpus in &p.corpora {
        let Some(other) = q.corpora.iter().find(|c| c.set == corpus.set) else { continue };
        common += 1;
        if corpus.sha256 != other.sha256 {
            let rules = |c: &Corpus| if c.rules.is_empty() { "no rules".into() } else { format!("{:?}", c.rules) };
            let why = if corpus.rules == other.rules { String::new() } else { format!(" ({}, not {})", rules(other), rules(corpus)) };
            found.push(format!("set {:?} has other utterances or references{why}", corpus.set));
        }
    }
    if common == 0 {
        found.push("no set in common".into());
    }
    found
}

fn names(results: &[Recorded]) -> Vec<String> {
    let model = |r: &Recorded| r.result.provenance.model.name.clone();
    let unique = |r: &&Recorded| results.iter().filter(|other| model(other) == model(r)).count() == 1;
    results.iter().map(|r| if unique(&r) { model(r) } else { r.file.clone() }).collect()
}

/// Probabilities of so large a difference by chance: bootstrap and MAPSSWE.
fn tests(paired: &Paired) -> [String; 2] {
    let bootstrap = paired.bootstrap.as_ref().map(|b| {
        // As many draws on the wrong side as are needed to be sure of one.
        let least = 2.0 / b.interval.resamples.max(1) as f64;
        let p = (2.0 * b.improvement.min(1.0 - b.improvement)).min(1.0);
        if p < least { format!("< {}", probability(least)) } else { probability(p) }
    });
    let mapsswe = paired.mapsswe.p;
    [bootstrap.unwrap_or_default(), if mapsswe < 0.001 { "< 0.001".into() } else { probability(mapsswe) }]
}

fn probability(p: f64) -> String {
    format!("{p:.3}")
}
