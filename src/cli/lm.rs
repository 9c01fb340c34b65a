//! `omniscribe lm build | query | inspect`: n-gram language models.

use std::collections::HashSet;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::dataset::manifest::{self, TextRule};
use crate::decode::ngram::NgramModel;
use crate::decode::ngram::build::text::for_each_line;
use crate::decode::ngram::build::{BuildConfig, Builder, Exclusion};
use crate::error::Result;
use crate::text::target;

/// What `omniscribe lm` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build a model from text: modified Kneser-Ney, as ARPA text or a compact binary
    Build(Build),
    /// Score text: perplexity and words that are not in the vocabulary, for each file or set
    Query(Query),
    /// Find the weights that suit a recogniser, on dev sets, and store them beside it
    Tune(crate::cli::tune::Arguments),
    /// Say what a model is: format, order, n-grams, vocabulary, size
    Inspect(Inspect),
}

/// Flags of `omniscribe lm build`.
#[derive(Debug, Args)]
pub struct Build {
    /// Text, a sentence per line: plain, .gz or .xz, `-` for standard input; the texts of .jsonl manifests
    #[arg(required = true)]
    texts: Vec<PathBuf>,
    /// Where to write: ARPA text if it ends in .arpa, else the compact binary; may be given twice
    #[arg(short, long, required = true)]
    output: Vec<PathBuf>,
    /// Words of the longest n-grams
    #[arg(long, default_value_t = 3)]
    order: usize,
    /// Leave out n-grams seen this often or less, a number for each order; the last holds for those after it
    #[arg(long, num_args = 1.., value_delimiter = ',', default_value = "0")]
    prune: Vec<u64>,
    /// Leave out words seen less often
    #[arg(long, default_value_t = 1)]
    min_count: u64,
    /// Leave out words that are not in this file (separated by spaces or line breaks)
    #[arg(long, value_name = "FILE")]
    limit_vocab: Option<PathBuf>,
    /// Leave out lines that share six words in a row with a text of this manifest; may be given more than once
    #[arg(long, value_name = "MANIFEST")]
    exclude: Vec<PathBuf>,
    #[command(flatten)]
    preparation: Preparation,
    /// Take repeated lines once
    #[arg(long)]
    dedupe: bool,
    /// Discount by 0.5, 1 and 1.5 where the text is too small or too repetitive to tell
    #[arg(long)]
    discount_fallback: bool,
    /// Memory for n-grams, MiB; what does not fit goes to temporary files ($TMPDIR)
    #[arg(long, default_value_t = 1024)]
    memory: usize,
    /// Bits of a probability or backoff in the compact binary, 2 to 16
    #[arg(long, default_value_t = 8)]
    bits: u32,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
}

/// Flags of `omniscribe lm query`.
#[derive(Debug, Args)]
pub struct Query {
    /// The model: ARPA text (also .gz), KenLM binary or compact binary
    model: PathBuf,
    /// Text as for `lm build`; manifests are reported by set
    #[arg(default_value = "-")]
    texts: Vec<PathBuf>,
    /// What to print
    #[arg(short, long, value_enum, default_value = "totals")]
    format: Format,
    #[command(flatten)]
    preparation: Preparation,
}

/// Flags of `omniscribe lm inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// The model
    model: PathBuf,
    /// Print the vocabulary too, a word per line
    #[arg(long)]
    words: bool,
}

/// How lines become words.
#[derive(Debug, Args)]
struct Preparation {
    /// `target`: what models of this program are trained to write (a-z, apostrophe, numbers in words); `raw`: as it is
    #[arg(long, value_enum, default_value = "target")]
    text: TextForm,
    /// What the model counts
    #[arg(long, value_enum, default_value = "word")]
    unit: Unit,
}

/// Form of text by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TextForm {
    Target,
    Raw,
}

/// Unit by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Unit {
    /// What stands between spaces
    Word,
    /// Characters; a space is written `|`
    Character,
}

/// Formats of scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table: a row for each file or set, and one for all
    Totals,
    /// For each line its log10 probability, its unknown words and itself, between tabs
    Txt,
    /// One JSON object for each line, with the score of every word
    Json,
}

impl Preparation {
    /// The words of a line, between spaces; `None` for a line without a form in the model's alphabet.
    fn words(&self, line: &str) -> Option<String> {
        let text = match self.text {
            TextForm::Target => target(line)?,
            TextForm::Raw => line.trim().to_string(),
        };
        match self.unit {
            Unit::Word => Some(text),
            Unit::Character => Some(text.chars().flat_map(|c| [if c == ' ' { '|' } else { c }, ' ']).collect()),
        }
    }
}

/// Calls `each` with the set (or file) and text of every line.
fn for_each_text(path: &Path, mut each: impl FnMut(&str, &str) -> Result<()>) -> Result<()> {
    if path.extension().is_some_and(|e| e == "jsonl") {
        return manifest::read(path, TextRule::Required)?.iter().try_for_each(|entry| each(&entry.set, &entry.text));
    }
    let name = path.display().to_string();
    for_each_line(path, |line| each(&name, line))
}

/// Runs one of the commands.
pub fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Build(arguments) => build(arguments),
        Command::Query(arguments) => query(arguments),
        Command::Tune(arguments) => crate::cli::tune::run(arguments),
        Command::Inspect(arguments) => inspect(arguments),
    }
}

fn build(arguments: &Build) -> anyhow::Result<ExitCode> {
    let limit_vocabulary = arguments.limit_vocab.as_deref().map(read_words).transpose()?;
    let config = BuildConfig {
        order: arguments.order,
        prune: arguments.prune.clone(),
        min_count: arguments.min_count,
        limit_vocabulary,
        fallback: arguments.discount_fallback.then_some([0.5, 1.0, 1.5]),
        memory: arguments.memory << 20,
    };
    let mut exclusion = Exclusion::default();
    for path in &arguments.exclude {
        for_each_text(path, |_, text| {
            arguments.preparation.words(text).iter().for_each(|text| exclusion.add(text));
            Ok(())
        })?;
    }
    let mut builder = Builder::new(config)?;
    let bar = spinner(arguments.quiet);
    let (mut empty, mut excluded, mut repeated) = (0u64, 0u64, 0u64);
    let mut seen = HashSet::new();
    for path in &arguments.texts {
        for_each_text(path, |_, text| {
            bar.inc(1);
            let Some(text) = arguments.preparation.words(text).filter(|text| !text.is_empty()) else {
                empty += 1;
                return Ok(());
            };
            if exclusion.matches(&text) {
                excluded += 1;
                return Ok(());
            }
            let mut hasher = DefaultHasher::new();
            text.hash(&mut hasher);
            if arguments.dedupe && !seen.insert(hasher.finish()) {
                repeated += 1;
                return Ok(());
            }
            builder.add(&text)
        })?;
    }
    bar.finish_and_clear();
    let (words, sentences) = builder.seen();
    eprintln!("{words} words in {sentences} lines; left out: {excluded} lines by --exclude, {repeated} repeated, {empty} without words");
    let mut estimate = builder.finish()?;
    for (order, report) in (1..).zip(estimate.report()) {
        let [one, two, more] = report.discount.0;
        eprintln!("{order}-grams: {} of {}, discounts {one:.3} {two:.3} {more:.3}", report.kept, report.seen);
    }
    for path in &arguments.output {
        let temporary = path.with_extension("partial");
        let written = File::create(&temporary).context(temporary.display().to_string()).and_then(|mut file| {
            match path.extension() {
                Some(extension) if extension == "arpa" => estimate.write_arpa(&temporary, &mut file)?,
                _ => estimate.write_compact(arguments.bits, &temporary, &mut file)?,
            }
            file.sync_all().and_then(|()| std::fs::rename(&temporary, path)).context(path.display().to_string())
        });
        if written.is_err() {
            // The error that matters is the first one.
            let _ = std::fs::remove_file(&temporary);
        }
        written?;
        eprintln!("{}: {} bytes", path.display(), std::fs::metadata(path)?.len());
    }
    Ok(ExitCode::SUCCESS)
}

fn read_words(path: &Path) -> Result<Vec<String>> {
    let mut words = Vec::new();
    for_each_line(path, |line| {
        words.extend(line.split_whitespace().map(String::from));
        Ok(())
    })?;
    Ok(words)
}

fn spinner(quiet: bool) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {human_pos} lines ({per_sec}) {elapsed}") {
        bar.set_style(style);
    }
    bar
}

/// Sums over lines.
#[derive(Debug, Clone, Default)]
struct Totals {
    name: String,
    sentences: u64,
    words: u64,
    unknown: u64,
    /// log10, ends of sentences included.
    log10: f64,
    /// The share of unknown words in `log10`.
    log10_unknown: f64,
}

impl Totals {
    fn add(&mut self, other: &Self) {
        self.sentences += other.sentences;
        self.words += other.words;
        self.unknown += other.unknown;
        self.log10 += other.log10;
        self.log10_unknown += other.log10_unknown;
    }

    fn row(&self) -> String {
        let tokens = (self.words + self.sentences) as f64;
        let all = 10f64.powf(-self.log10 / tokens);
        let known = 10f64.powf(-(self.log10 - self.log10_unknown) / (tokens - self.unknown as f64));
        let rate = 100.0 * self.unknown as f64 / self.words.max(1) as f64;
        format!("{}\t{}\t{}\t{}\t{rate:.2}\t{all:.1}\t{known:.1}", self.name, self.sentences, self.words, self.unknown)
    }
}

/// A word and its score.
#[derive(Debug, serde::Serialize)]
struct Scored<'a> {
    word: &'a str,
    log10: f32,
    unknown: bool,
}

fn query(arguments: &Query) -> anyhow::Result<ExitCode> {
    let model = NgramModel::open(&arguments.model)?;
    let mut sets: Vec<Totals> = Vec::new();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut failed = Ok(());
    for path in &arguments.texts {
        for_each_text(path, |set, line| {
            let text = arguments.preparation.words(line).unwrap_or_default();
            let (scored, end) = score(&model, &text);
            let unknown = scored.iter().filter(|word| word.unknown);
            let totals = Totals {
                name: set.to_string(),
                sentences: 1,
                words: scored.len() as u64,
                unknown: unknown.clone().count() as u64,
                log10: scored.iter().map(|word| f64::from(word.log10)).sum::<f64>() + f64::from(end),
                log10_unknown: unknown.map(|word| f64::from(word.log10)).sum(),
            };
            let written = match arguments.format {
                Format::Totals => Ok(()),
                Format::Txt => writeln!(out, "{:.4}\t{}\t{text}", totals.log10, totals.unknown),
                Format::Json => {
                    let row = serde_json::json!({ "text": text, "log10": totals.log10, "words": scored, "end_log10": end });
                    writeln!(out, "{row}")
                }
            };
            if failed.is_ok() {
                failed = written;
            }
            match sets.iter_mut().find(|totals| totals.name == set) {
                Some(sum) => sum.add(&totals),
                None => sets.push(totals),
            }
            Ok(())
        })?;
    }
    failed?;
    if arguments.format == Format::Totals {
        writeln!(out, "set\tlines\twords\tunknown\tunknown_percent\tperplexity\tperplexity_known")?;
        let mut all = Totals { name: "all".into(), ..Totals::default() };
        for set in &sets {
            all.add(set);
            writeln!(out, "{}", set.row())?;
        }
        if sets.len() != 1 {
            writeln!(out, "{}", all.row())?;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// The words' scores and that of the end of the sentence.
fn score<'a>(model: &NgramModel, text: &'a str) -> (Vec<Scored<'a>>, f32) {
    let mut state = model.start();
    let mut words = Vec::new();
    for word in text.split_ascii_whitespace() {
        let id = model.word(word);
        let (score, next) = model.score(&state, id.unwrap_or_default());
        state = next;
        words.push(Scored { word, log10: score / std::f32::consts::LN_10, unknown: id.is_none() });
    }
    (words, model.score_end(&state) / std::f32::consts::LN_10)
}

fn inspect(arguments: &Inspect) -> anyhow::Result<ExitCode> {
    let model = NgramModel::open(&arguments.model)?;
    let bytes = std::fs::metadata(&arguments.model)?.len();
    let ngrams: u64 = model.counts().iter().sum();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    if arguments.words {
        for word in model.words() {
            writeln!(out, "{word}")?;
        }
        return Ok(out.flush().map(|()| ExitCode::SUCCESS)?);
    }
    writeln!(out, "format\t{}", model.format())?;
    writeln!(out, "order\t{}", model.order())?;
    for (order, count) in (1..).zip(model.counts()) {
        writeln!(out, "{order}-grams\t{count}")?;
    }
    let spelled = if model.words().next().is_some() { "" } else { " (not spelled out)" };
    writeln!(out, "words\t{}{spelled}", model.vocabulary_len())?;
    writeln!(out, "bytes\t{bytes}")?;
    writeln!(out, "bytes_per_ngram\t{:.2}", bytes as f64 / ngrams.max(1) as f64)?;
    Ok(out.flush().map(|()| ExitCode::SUCCESS)?)
}
