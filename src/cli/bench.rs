//! `omniscribe bench`.

use std::collections::{BTreeMap, HashMap};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::checkpoint::safetensors_file::write_atomically;
use crate::cli::decoding::DecodingArguments;
use crate::cli::device::{self, DeviceChoice};
use crate::cli::language::LanguageArgument;
use crate::cli::precision::Dtype;
use crate::error::{Error, Result};
use crate::eval::bench::{self, Bench, by_set};
use crate::eval::bootstrap::Resampling;
use crate::eval::calibration::{Confidence, Judged};
use crate::eval::corpora::{Corpus, CorpusKind, Rules, detect, open};
use crate::eval::report::compare::{Purpose, Recorded, Table};
use crate::eval::report::result::{self, Model, Provenance};
use crate::eval::report::sclite::{self, Side};
use crate::eval::report::{RunResult, Utterance, environment, html, markdown};
use crate::eval::score::EmptyReferences;
use crate::eval::{Aligner, Glm, Scoring};
use crate::pipeline::calibration::CalibrationConfig;
use crate::pipeline::decoder::Decoding;
use crate::pipeline::transcriber::{Transcriber, find_model};
use crate::text::Normalizer;

/// Flags of `omniscribe bench`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Test sets: folders or manifests as they are published, `kind=path` where the kind is not plain; with --compare and --report: results
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Compare results (the first is the baseline) instead of recognising
    #[arg(long)]
    compare: bool,
    /// With --compare: show results side by side that cannot be compared
    #[arg(long, requires = "compare")]
    list: bool,
    /// Draw the report of a result again instead of recognising
    #[arg(long, conflicts_with = "compare", requires = "html")]
    report: bool,
    /// Result file; its journal lies beside it, and a run that was interrupted goes on
    #[arg(short, long, default_value = "bench.json")]
    output: PathBuf,
    /// Write a report with every utterance into this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write trn, stm and ctm files for NIST's sclite into this folder
    #[arg(long, value_name = "FOLDER")]
    sclite: Option<PathBuf>,
    /// Score the texts of another program instead of recognising: JSON lines with `id` and `text`, or `text (id)` lines
    #[arg(long, value_name = "FILE", requires = "name", conflicts_with_all = ["compare", "report"])]
    hypotheses: Option<PathBuf>,
    /// Name of that program in tables
    #[arg(long)]
    name: Option<String>,
    /// Model folder (default: $OMNISCRIBE_MODEL, else models/base here or beside the program)
    #[arg(short, long)]
    model: Option<PathBuf>,
    /// Rule of a test set, `name=value`
    #[arg(long, value_name = "NAME=VALUE")]
    rule: Vec<String>,
    /// What both sides go through: whisper, leaderboard-2026, basic, none
    #[arg(long, default_value = "whisper")]
    normalizer: String,
    /// Mapping file of NIST's csrfilt, or one that is built in: en20030506 (Hub5), en20090415 (AMI)
    #[arg(long)]
    glm: Option<PathBuf>,
    /// How errors are counted: levenshtein, sclite, sclite-markup, merge-compounds
    #[arg(long, default_value = "levenshtein")]
    aligner: String,
    /// References without words after the normaliser: their insertions count, or they are left out
    #[arg(long, value_enum, default_value = "count")]
    empty_references: Empty,
    /// Where to compute
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceChoice,
    /// Precision of matrix products on the CPU
    #[arg(long, value_enum, default_value = "bf16")]
    dtype: Dtype,
    /// Threads (default: one for each core)
    #[arg(long)]
    threads: Option<usize>,
    /// Memory for a batch's activations, MiB
    #[arg(long, alias = "batch_memory", default_value_t = 64, value_name = "MIB")]
    batch_memory: usize,
    /// Fit the model's word confidences to these sets and store the curve for this search in the model folder
    #[arg(long, conflicts_with_all = ["compare", "report", "hypotheses"])]
    calibrate: bool,
    /// Recognise with the context that `listen` has at this setting, in milliseconds
    #[arg(long, alias = "chunk_ms", value_name = "MS")]
    chunk_ms: Option<u32>,
    #[command(flatten)]
    language: LanguageArgument,
    #[command(flatten)]
    decoding: DecodingArguments,
    /// No progress bar
    #[arg(short, long)]
    quiet: bool,
}

/// The language that asks for each utterance's own module, as the lines of a manifest say.
const MANIFEST: &str = "manifest";

/// What becomes of empty references.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Empty {
    /// Words heard are insertions
    Count,
    /// They are left out
    Drop,
}

/// Measures, compares or draws; the exit code is 1 if an utterance could not be recognised.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if arguments.compare {
        return compare(arguments);
    }
    if arguments.report {
        let recorded = arguments.paths.iter().map(|path| Recorded::open(path)).collect::<Result<Vec<_>>>()?;
        let [one] = recorded.as_slice() else { return Err(Error::config("--report", "takes one result").into()) };
        return write_reports(arguments, &one.result, &one.utterances).map(|()| ExitCode::SUCCESS);
    }
    let corpora = open_sets(&arguments.paths, &arguments.rule)?;
    let scoring = scoring(arguments)?;
    let (result, utterances) = match (&arguments.hypotheses, &arguments.name) {
        (Some(path), Some(name)) => {
            let model = Model { name: name.clone(), weights_sha256: None, parameters: None, active_parameters: None };
            let provenance = Provenance { program: name.clone(), ..provenance(arguments, model, &corpora, &scoring) };
            bench::score(&corpora, &hypotheses(path)?, &scoring, provenance, &arguments.output)?
        }
        _ => recognise(arguments, &corpora, &scoring)?,
    };
    print(&markdown::table(&result))?;
    for set in &result.sets {
        for (kind, problems) in &set.problems {
            eprintln!("{}: {}: {}, such as {}", set.name, problems.count, kind, problems.first.first().map_or("", String::as_str));
        }
    }
    write_reports(arguments, &result, &utterances)?;
    let failed = utterances.iter().any(|u| u.error.is_some()) || corpora.iter().any(|(_, c)| !c.problems.is_empty());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Runs the model over the test sets.
fn recognise(arguments: &Arguments, corpora: &[(String, Corpus)], scoring: &Scoring) -> anyhow::Result<(RunResult, Vec<Utterance>)> {
    if let Some(threads) = arguments.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    }
    let folder = find_model(arguments.model.as_deref())?;
    let decoding = arguments.decoding.decoding(&folder)?;
    let transcriber = Transcriber::open(&folder, device::open(arguments.device)?, arguments.dtype.precision())?;
    let transcriber = match arguments.language.name() {
        Some(MANIFEST) => transcriber.with_given_modules()?,
        _ => arguments.language.apply(transcriber)?,
    };
    let transcriber = transcriber.with_decoding(&decoding)?.with_batch_memory(arguments.batch_memory << 20);
    let transcriber = match arguments.chunk_ms {
        Some(chunk_ms) => transcriber.with_stream_context(chunk_ms)?,
        None => transcriber,
    };
    let (all, active) = transcriber.parameters();
    let model = Model {
        name: transcriber.name().into(),
        weights_sha256: Some(weights_sha256(&folder)?),
        parameters: Some(all),
        active_parameters: Some(active),
    };
    let mut decoder: BTreeMap<String, serde_json::Value> = [("search".to_string(), decoding.describe().into())].into();
    if let Some(chunk_ms) = arguments.chunk_ms {
        decoder.insert("chunk_ms".into(), chunk_ms.into());
    }
    if let Some(language) = arguments.language.name() {
        decoder.insert("language".into(), language.into());
    }
    let provenance = Provenance { decoder, ..provenance(arguments, model, corpora, scoring) };
    let total: f64 = corpora.iter().flat_map(|(_, c)| &c.utterances).filter_map(|u| u.duration).sum();
    let bar = progress_bar(arguments, total);
    let mut heard = 0.0;
    let bench = Bench { transcriber: &transcriber, corpora, scoring, provenance, output: arguments.output.clone() };
    let done = bench.run(|seconds| {
        heard += seconds;
        let rtfx = heard / bar.elapsed().as_secs_f64().max(1e-9);
        bar.set_position(heard as u64);
        bar.set_message(format!("{} of audio, {rtfx:.0}x real time", HumanDuration(Duration::from_secs_f64(heard))));
    })?;
    bar.finish_and_clear();
    if arguments.calibrate { calibrate(&folder, &decoding, done, &arguments.output) } else { Ok(done) }
}

/// Fits confidences to what was heard; the curve goes into the model folder and its worth into the result.
fn calibrate(
    folder: &Path,
    decoding: &Decoding,
    done: (RunResult, Vec<Utterance>),
    output: &Path,
) -> anyhow::Result<(RunResult, Vec<Utterance>)> {
    let (mut result, utterances) = done;
    let judged: Vec<&[Judged]> = utterances.iter().map(|u| u.judged.as_slice()).filter(|words| !words.is_empty()).collect();
    let fitted = Confidence::fitted(&judged).ok_or_else(|| Error::config("--calibrate", "no word was heard"))?;
    CalibrationConfig::read(folder)?.unwrap_or_default().with(decoding, fitted.curve).write(folder)?;
    result.confidence = Some(fitted);
    result.write(output)?;
    Ok((result, utterances))
}

/// What a result says about where it comes from, but for the decoder.
fn provenance(arguments: &Arguments, model: Model, corpora: &[(String, Corpus)], scoring: &Scoring) -> Provenance {
    let corpora = corpora.iter().map(|(set, corpus)| result::Corpus::of(set, corpus));
    Provenance {
        program: concat!("omniscribe ", env!("CARGO_PKG_VERSION")).into(),
        commit: option_env!("OMNISCRIBE_COMMIT").map(String::from),
        command: std::env::args().collect(),
        started: environment::utc(SystemTime::now()),
        device: format!("{:?}", arguments.device).to_lowercase(),
        dtype: format!("{:?}", arguments.dtype).to_lowercase(),
        threads: rayon::current_num_threads(),
        cpu: environment::cpu_name(),
        model,
        corpora: corpora.collect(),
        scoring: scoring.id(),
        decoder: BTreeMap::new(),
        resampling: Resampling::default(),
    }
}

/// Texts by id.
fn hypotheses(path: &Path) -> Result<HashMap<String, String>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    let mut texts = HashMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let bad = |reason: &str| Error::Manifest { path: path.into(), line: number + 1, reason: reason.into() };
        let (id, words) = if line.trim_start().starts_with('{') {
            let value: serde_json::Value = serde_json::from_str(line).map_err(|e| bad(&e.to_string()))?;
            let field = |name: &str| value[name].as_str().map(String::from);
            (field("id").ok_or_else(|| bad("no `id`"))?, field("text").ok_or_else(|| bad("no `text`"))?)
        } else {
            let (words, id) =
                line.trim_end().strip_suffix(')').and_then(|l| l.rsplit_once('(')).ok_or_else(|| bad("neither JSON nor `words (id)`"))?;
            (id.to_string(), words.trim().to_string())
        };
        if texts.insert(id.clone(), words).is_some() {
            return Err(bad(&format!("{id:?} stands twice")));
        }
    }
    Ok(texts)
}

fn compare(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let recorded = arguments.paths.iter().map(|path| Recorded::open(path)).collect::<Result<Vec<_>>>()?;
    let purpose = if arguments.list { Purpose::List } else { Purpose::Compare };
    print(&Table::of(&recorded, purpose)?.markdown())?;
    Ok(ExitCode::SUCCESS)
}

/// Opens every set that is named; a manifest whose lines name sets of their own gives one for each.
pub(crate) fn open_sets(paths: &[PathBuf], changes: &[String]) -> Result<Vec<(String, Corpus)>> {
    let mut rules = Rules::default();
    for rule in changes {
        let (name, value) = rule.split_once('=').ok_or_else(|| Error::config("--rule", format!("{rule:?} is not name=value")))?;
        rules = rules.with(name, value)?;
    }
    let mut corpora: Vec<(String, Corpus)> = Vec::new();
    for path in paths {
        let text = path.to_string_lossy();
        let (kind, root) = match text.split_once('=').and_then(|(kind, root)| Some((CorpusKind::from_id(kind)?, root))) {
            Some((kind, root)) => (kind, PathBuf::from(root)),
            None => (detect(path, &rules)?, path.clone()),
        };
        for (name, corpus) in by_set(open(kind, &root, &rules)?) {
            let number = corpora.iter().filter(|(other, _)| *other == name || other.starts_with(&format!("{name}-"))).count();
            corpora.push((if number == 0 { name } else { format!("{name}-{}", number + 1) }, corpus));
        }
    }
    Ok(corpora)
}

fn scoring(arguments: &Arguments) -> Result<Scoring> {
    let ids = |all: Vec<&str>| all.join(", ");
    let normalizer = Normalizer::from_id(&arguments.normalizer).ok_or_else(|| {
        let known = ids(Normalizer::ALL.iter().map(|n| n.id()).collect());
        Error::config("--normalizer", format!("{:?} is none of {known}", arguments.normalizer))
    })?;
    let aligner = Aligner::from_id(&arguments.aligner).ok_or_else(|| {
        let known = ids(Aligner::ALL.iter().map(|a| a.id()).collect());
        Error::config("--aligner", format!("{:?} is none of {known}", arguments.aligner))
    })?;
    let glm = arguments.glm.as_deref().map(Glm::read).transpose()?;
    let mut scoring = Scoring::new(normalizer, aligner, glm)?;
    scoring.empty_references = match arguments.empty_references {
        Empty::Count => EmptyReferences::Count,
        Empty::Drop => EmptyReferences::Drop,
    };
    Ok(scoring)
}

fn weights_sha256(folder: &Path) -> Result<String> {
    use sha2::{Digest, Sha256};
    let path = folder.join("model.safetensors");
    let mut file = std::fs::File::open(&path).map_err(|e| Error::io(&path, e))?;
    let mut hash = Sha256::new();
    std::io::copy(&mut file, &mut hash).map_err(|e| Error::io(&path, e))?;
    Ok(result::hex(&hash.finalize()))
}

fn write_reports(arguments: &Arguments, result: &RunResult, utterances: &[Utterance]) -> anyhow::Result<()> {
    if let Some(path) = &arguments.html {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        write_atomically(path, html::render(result, utterances, folder).as_bytes())?;
    }
    if let Some(folder) = &arguments.sclite {
        let aligner = Aligner::from_id(&result.provenance.scoring.aligner).unwrap_or_default();
        for (name, text) in [
            ("ref.trn", sclite::trn(utterances, Side::Reference, aligner)),
            ("hyp.trn", sclite::trn(utterances, Side::Hypothesis, aligner)),
            ("ref.stm", sclite::stm(utterances, aligner)),
            ("hyp.ctm", sclite::ctm(utterances, aligner)),
        ] {
            write_atomically(&folder.join(name), text.as_bytes())?;
        }
    }
    Ok(())
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", text.trim_end())?;
    Ok(out.flush()?)
}

fn progress_bar(arguments: &Arguments, seconds: f64) -> ProgressBar {
    if arguments.quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let bar = ProgressBar::new(seconds as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent} %, {elapsed}, {eta} left, {msg}") {
        bar.set_style(style);
    }
    bar
}
