//! The result of a run, as it is stored: one strict JSON that holds every number and everything needed to get it again.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::journal::Utterance;
use crate::checkpoint::safetensors_file::write_atomically;
use crate::checkpoint::strict::no_unknown_keys;
use crate::error::{Error, Result};
use crate::eval::aligner::Aligner;
use crate::eval::bootstrap::{Interval, Resampling};
use crate::eval::calibration::Confidence;
use crate::eval::score::{Scored, ScoringId};
use crate::eval::summary::{Confusions, SetSummary, SpeakerSummary, Summary};
use crate::eval::wer::WordErrors;

/// Version of the layout of [`RunResult`] and of the journal's lines.
pub const SCHEMA_VERSION: u32 = 1;

/// Kind of problem of references that have no words once normalised.
pub const EMPTY_REFERENCE: &str = "empty reference";
/// Errors of each kind that are listed.
const CONFUSIONS: usize = 20;

/// Everything a run found out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunResult {
    /// [`SCHEMA_VERSION`] of the program that wrote it.
    pub schema_version: u32,
    /// [`Provenance::run_id`]; stands in every line of the journal that belongs to this result.
    pub run: String,
    /// Where the numbers come from.
    pub provenance: Provenance,
    /// Scores by set, in the order of the table.
    pub sets: Vec<SetResult>,
    /// Unweighted mean over the sets of which something was scored.
    pub mean: Mean,
    /// Most frequent errors of all sets.
    pub confusions: Confusions,
    /// How far its confidences can be trusted; none of programs that do not tell any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<Confidence>,
    /// How fast it was.
    pub speed: Speed,
    /// What the router did; only of models with experts.
    pub experts: Option<ExpertUsage>,
}

/// Where the numbers come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Name and version of the program that transcribed.
    pub program: String,
    /// Git commit it was built from, where known.
    pub commit: Option<String>,
    /// The command line, word by word.
    pub command: Vec<String>,
    /// When the run began, UTC, RFC 3339.
    pub started: String,
    /// What computed: `cpu`, `cuda:0`.
    pub device: String,
    /// Number format of the weights and products.
    pub dtype: String,
    /// Worker threads.
    pub threads: usize,
    /// The processor.
    pub cpu: String,
    /// The model.
    pub model: Model,
    /// What was transcribed, one entry for each set, in the order of the sets.
    pub corpora: Vec<Corpus>,
    /// What both sides went through and how the errors were counted.
    pub scoring: ScoringId,
    /// Settings of the decoder.
    pub decoder: BTreeMap<String, Value>,
    /// How the intervals were drawn.
    pub resampling: Resampling,
}

/// Which model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Name for tables.
    pub name: String,
    /// SHA-256 of the weights file, hex; none for a peer without one.
    pub weights_sha256: Option<String>,
    /// All parameters, experts included.
    pub parameters: Option<u64>,
    /// Parameters at work for one step.
    pub active_parameters: Option<u64>,
}

/// Which utterances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Corpus {
    /// The set its utterances count in.
    pub set: String,
    /// Layout it was read as.
    pub layout: String,
    /// The rules for segments and text, each with the choice taken.
    pub rules: BTreeMap<String, String>,
    /// [`corpus_sha256`] of its utterances.
    pub sha256: String,
}

/// Scores of one set.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetResult {
    /// Name for tables.
    pub name: String,
    /// Word errors.
    pub words: WordErrors,
    /// Character errors.
    pub characters: WordErrors,
    /// Word error rate, a fraction.
    pub wer: f64,
    /// Character error rate, a fraction.
    pub cer: f64,
    /// How sure the word error rate is.
    pub interval: Option<Interval>,
    /// Utterances that were scored.
    pub utterances: usize,
    /// Hours of their audio.
    pub hours: f64,
    /// Counts of every known speaker.
    pub speakers: Vec<SpeakerSummary>,
    /// What went wrong, by kind.
    pub problems: BTreeMap<String, Problems>,
}

/// One kind of problem.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Problems {
    /// How often.
    pub count: usize,
    /// The first ones: where and what.
    pub first: Vec<String>,
}

/// Unweighted mean over the sets of which something was scored.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mean {
    /// Of the word error rates.
    pub wer: f64,
    /// Of the character error rates.
    pub cer: f64,
    /// How sure the mean word error rate is.
    pub interval: Option<Interval>,
}

/// How fast it was; utterances of an earlier, interrupted part of the run do not count.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Speed {
    /// Utterances measured.
    pub utterances: usize,
    /// Seconds of their audio.
    pub audio_seconds: f64,
    /// Wall seconds in features, encoder and decoder.
    pub compute_seconds: f64,
    /// Wall seconds from the first file opened to the last text written, the model already loaded.
    pub wall_seconds: f64,
    /// Audio seconds per compute second.
    pub rtfx_compute: f64,
    /// Audio seconds per wall second.
    pub rtfx_end_to_end: f64,
    /// Where the time went.
    pub shares: Shares,
    /// Seconds from the start of the program to the first transcript, the model's loading included.
    pub first_transcript_seconds: f64,
    /// Most memory held at once, bytes.
    pub peak_memory_bytes: Option<u64>,
    /// Utterances transcribed first and not measured.
    pub warm_up_utterances: usize,
}

/// Fractions of the busy time; they sum to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shares {
    /// Reading, decoding and resampling audio.
    pub audio: f64,
    /// Computing features.
    pub features: f64,
    /// The encoder.
    pub encoder: f64,
    /// From log-probabilities to text.
    pub decoder: f64,
}

/// How steps were spread over experts; utterances of an earlier, interrupted part of the run do not count.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpertUsage {
    /// Share of all steps, `[layers][experts]`; each layer sums to 1.
    pub layers: Vec<Vec<f64>>,
    /// The same by position in the utterance, `[layers][bins][experts]`: bins cut every utterance into equal parts.
    pub over_time: Vec<Vec<Vec<f64>>>,
    /// Choices within single utterances.
    pub traces: Vec<Trace>,
}

/// The experts of one utterance, step by step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    /// Set and id of the utterance.
    pub utterance: (String, String),
    /// Its length.
    pub seconds: f64,
    /// Most probable expert, `[layers][steps]`.
    pub choices: Vec<Vec<u16>>,
}

/// What a run was, besides its journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// How fast it was.
    pub speed: Speed,
    /// Its confidences.
    pub confidence: Option<Confidence>,
    /// What the router did.
    pub experts: Option<ExpertUsage>,
    /// Problems of the corpora, each with its set, kind and what it is.
    pub problems: Vec<(String, String, String)>,
}

impl RunResult {
    /// Adds up the journal of a run. Utterances that failed are problems by their kind, and so are references without words (which count, if
    /// they are in the journal: as insertions).
    ///
    /// # Errors
    /// [`Error::LimitExceeded`]: an utterance too long for the aligner
    pub fn of(provenance: Provenance, utterances: &[Utterance], measured: Measured) -> Result<Self> {
        let scored: Vec<Scored> = utterances.iter().filter(|u| u.error.is_none()).map(Utterance::scored).collect();
        let summary = Summary::of(&scored, provenance.resampling);
        let mut problems = BTreeMap::<(&str, &str), Problems>::new();
        let mut add = |set, kind, what| problems.entry((set, kind)).or_default().add(what);
        for (set, kind, what) in measured.problems.iter().filter(|(_, kind, _)| kind != EMPTY_REFERENCE) {
            add(set, kind, what.clone());
        }
        for (u, error) in utterances.iter().filter_map(|u| u.error.as_ref().map(|e| (u, e))) {
            add(&u.set, &error.kind, format!("{}: {}", u.id, error.message));
        }
        for set in &summary.sets {
            set.empty_references.iter().for_each(|id| add(&set.name, EMPTY_REFERENCE, id.clone()));
        }
        let sets = provenance.corpora.iter().map(|corpus| {
            let name = corpus.set.as_str();
            let mut set = SetResult { name: name.into(), ..SetResult::default() };
            if let Some(s) = summary.sets.iter().find(|s| s.name == name).cloned() {
                let (wer, cer, seconds) = (s.words.wer(), s.characters.wer(), seconds(utterances, name));
                let SetSummary { name, utterances, words, characters, interval, speakers, .. } = s;
                set = SetResult { name, words, characters, wer, cer, interval, utterances, hours: seconds / 3600.0, speakers, ..set };
            }
            set.problems =
                problems.iter().filter(|((s, _), _)| *s == name).map(|((_, kind), p)| ((*kind).to_string(), p.clone())).collect();
            set
        });
        let sets: Vec<SetResult> = sets.collect();
        let mean = Mean { wer: mean_over(&sets, |s| s.wer), cer: mean_over(&sets, |s| s.cer), interval: summary.mean_interval };
        let aligner = Aligner::from_id(&provenance.scoring.aligner).unwrap_or_default();
        Ok(Self {
            schema_version: SCHEMA_VERSION,
            run: provenance.run_id(),
            confusions: Confusions::of(&scored, aligner, CONFUSIONS)?,
            provenance,
            sets,
            mean,
            confidence: measured.confidence,
            speed: measured.speed,
            experts: measured.experts,
        })
    }

    /// Reads a result and checks it.
    ///
    /// # Errors
    /// - [`Error::Io`]
    /// - [`Error::FormatVersion`]: of another version
    /// - [`Error::Config`]: not a result, unknown fields, or numbers that contradict each other
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        let refuse = |reason: String| Error::config(path, format!("not a bench result: {reason}"));
        let value: Value = serde_json::from_slice(&bytes).map_err(|e| refuse(e.to_string()))?;
        let found = value["schema_version"].as_u64().ok_or_else(|| refuse("no `schema_version`".into()))?;
        if found != u64::from(SCHEMA_VERSION) {
            let found = u32::try_from(found).unwrap_or(u32::MAX);
            return Err(Error::FormatVersion { path: path.into(), found, supported: SCHEMA_VERSION });
        }
        let result: Self = strict(value).map_err(refuse)?;
        result.validate().map_err(|reason| Error::config(path, reason))?;
        Ok(result)
    }

    /// Checks the result and writes it; a kill leaves the old file or the new one.
    ///
    /// # Errors
    /// - [`Error::Io`]
    /// - [`Error::Config`]: numbers that contradict each other
    pub fn write(&self, path: &Path) -> Result<()> {
        self.validate().map_err(|reason| Error::config(path, reason))?;
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|e| Error::io(path, e.into()))?;
        bytes.push(b'\n');
        write_atomically(path, &bytes)
    }

    /// Word errors of all sets together.
    pub fn total(&self) -> WordErrors {
        self.sets.iter().map(|s| s.words).sum()
    }

    /// Hours of audio of all sets together.
    pub fn hours(&self) -> f64 {
        self.sets.iter().map(|s| s.hours).sum()
    }

    /// Utterances of all sets together.
    pub fn utterances(&self) -> usize {
        self.sets.iter().map(|s| s.utterances).sum()
    }
}

impl Provenance {
    /// Name of what decides the texts and their scores: model, corpora, device, number format, scoring and decoder.
    ///
    /// A run that was interrupted goes on under the same id; another id is another run. 16 hex digits of a SHA-256.
    pub fn run_id(&self) -> String {
        let Self { program, device, dtype, model, corpora, scoring, decoder, .. } = self;
        let decisive = (SCHEMA_VERSION, program, device, dtype, model, corpora, scoring, decoder);
        // Strings, integers and string-keyed maps: writing them as JSON cannot fail.
        let bytes = serde_json::to_vec(&decisive).unwrap_or_default();
        hex(&Sha256::digest(bytes))[..16].to_string()
    }
}

impl Problems {
    /// Problems of a kind that are listed; the rest is counted.
    pub const LISTED: usize = 20;

    /// Counts one and lists it if there is room.
    pub fn add(&mut self, what: String) {
        self.count += 1;
        if self.first.len() < Self::LISTED {
            self.first.push(what);
        }
    }
}

/// SHA-256 over the ids and references of a set, as published, in any order: what makes two results comparable.
pub fn corpus_sha256<'a>(ids_and_references: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut all: Vec<_> = ids_and_references.into_iter().collect();
    all.sort_unstable();
    let mut hash = Sha256::new();
    for text in all.iter().flat_map(|(id, reference)| [id, reference]) {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hex(&hash.finalize())
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Audio seconds per second; 0 before any time has passed.
pub fn rtfx(audio_seconds: f64, seconds: f64) -> f64 {
    if seconds > 0.0 { audio_seconds / seconds } else { 0.0 }
}

/// Makes `T` of JSON and refuses what it does not know, at every depth.
pub(super) fn strict<T: Serialize + serde::de::DeserializeOwned>(value: Value) -> Result<T, String> {
    let read: T = T::deserialize(&value).map_err(|e| e.to_string())?;
    no_unknown_keys(&value, &read)?;
    Ok(read)
}

/// Seconds of audio of a set's scored utterances.
fn seconds(utterances: &[Utterance], set: &str) -> f64 {
    utterances.iter().filter(|u| u.set == set && u.error.is_none()).map(|u| u.seconds).sum()
}

/// Unweighted mean over the sets of which something was scored; 0 without any.
pub(super) fn mean_over(sets: &[SetResult], rate: impl Fn(&SetResult) -> f64) -> f64 {
    let rates: Vec<f64> = sets.iter().filter(|s| s.utterances > 0).map(rate).collect();
    rates.iter().sum::<f64>() / rates.len().max(1) as f64
}
