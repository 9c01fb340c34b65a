//! `omniscribe transcribe`.

mod inputs;
mod outputs;
mod subtitles;

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use clap::{ArgAction, Args};
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::audio::Channels;
use crate::audio::vad::VadOptions;
use crate::cli::decoding::DecodingArguments;
use crate::cli::device::DeviceChoice;
use crate::cli::language::LanguageArgument;
use crate::cli::offload::{self, ExpertMemory};
use crate::cli::precision::Dtype;
use crate::cli::transcribe::inputs::{Depth, Input, Shard, expand};
use crate::cli::transcribe::outputs::{OutputFolder, stems};
use crate::cli::transcribe::subtitles::SubtitleArguments;
use crate::error::Error;
use crate::pipeline::chunk::ChunkConfig;
use crate::pipeline::format::{Format, FormatOptions, write};
use crate::pipeline::transcriber::{Transcriber, find_model};
use crate::pipeline::transcript::Transcript;
use crate::pipeline::writing::{Numbers, Writing};
use crate::text::case::SentenceCase;

/// Flags of `omniscribe transcribe`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Audio files, folders or patterns; `-` reads standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Model folder (default: $OMNISCRIBE_MODEL, else models/base here or beside the program)
    #[arg(short, long)]
    model: Option<PathBuf>,
    /// Formats: txt, json, verbose_json, srt, vtt, tsv, csv, lrc, ctm, stm, textgrid, or several joined by commas, or all
    #[arg(short, long, visible_alias = "output-format", alias = "output_format", default_value = "txt")]
    format: Formats,
    /// Folder for transcripts, one file for each recording and format (default: standard output)
    #[arg(short, long, alias = "output_dir", value_name = "FOLDER")]
    output_dir: Option<PathBuf>,
    /// Look into the folders below a folder, too
    #[arg(short, long)]
    recursive: bool,
    /// Skip recordings whose transcripts are in the output folder already, made from the same content with the same settings
    #[arg(long, requires = "output_dir")]
    resume: bool,
    /// Work on part i of n of the files, for one of n machines
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// Where to compute
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceChoice,
    /// Precision of matrix products on the CPU
    #[arg(long, value_enum, default_value = "bf16")]
    dtype: Dtype,
    /// Threads (default: one for each core)
    #[arg(long)]
    threads: Option<usize>,
    /// Memory for a batch's activations, MiB: more recordings go through the encoder together
    #[arg(long, alias = "batch_memory", default_value_t = 64, value_name = "MIB")]
    batch_memory: usize,
    /// Skip what is no speech
    #[arg(long, action = ArgAction::Set, default_value = "on", value_parser = on_off, value_name = "on|off")]
    vad: bool,
    /// Channels: their mix, each on its own (`split`), or one of them by number
    #[arg(long, default_value = "mix", value_name = "mix|split|N")]
    channels: Channels,
    /// Longest stretch that the encoder sees at once, seconds (default: what suits the model)
    #[arg(long, alias = "chunk_seconds", value_name = "SECONDS")]
    chunk_seconds: Option<f64>,
    /// Neighbouring audio the encoder reads on each side of a cut, seconds (default: what suits the model)
    #[arg(long, alias = "context_seconds", value_name = "SECONDS")]
    context_seconds: Option<f64>,
    /// Recognise with the context that `listen` has at this setting: what streaming costs in errors, at the speed of files
    #[arg(long, alias = "chunk_ms", value_name = "MS")]
    chunk_ms: Option<u32>,
    /// Write numbers, dates, times and money in digits (English)
    #[arg(long, help_heading = "Text")]
    itn: bool,
    /// Capitals for "I", weekdays, months and the start of each stretch of speech; names stay lower-case
    #[arg(long, help_heading = "Text")]
    case: bool,
    #[command(flatten)]
    language: LanguageArgument,
    #[command(flatten)]
    decoding: DecodingArguments,
    #[command(flatten)]
    experts: ExpertMemory,
    #[command(flatten)]
    subtitles: SubtitleArguments,
    /// No progress bar, no summary
    #[arg(short, long)]
    quiet: bool,
    /// Say what is used and how fast it was
    #[arg(short, long, conflicts_with = "quiet")]
    verbose: bool,
}

/// A list of formats.
#[derive(Debug, Clone)]
struct Formats(Vec<Format>);

impl FromStr for Formats {
    type Err = Error;

    fn from_str(list: &str) -> crate::error::Result<Self> {
        Format::parse_list(list).map(Self)
    }
}

fn on_off(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Ok(true),
        "off" | "false" | "no" | "0" => Ok(false),
        _ => Err("on or off".into()),
    }
}

/// Transcribes every file; the exit code is 1 if any failed or Ctrl-C came first.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let formats = arguments.format.0.clone();
    let options = arguments.subtitles.options();
    options.validate()?;
    let depth = if arguments.recursive { Depth::Recursive } else { Depth::Flat };
    let all = expand(&arguments.files, depth)?;
    let names = stems(&all);
    let mut work: Vec<(Input, PathBuf)> = all.into_iter().zip(names).collect();
    if let Some(shard) = arguments.shard {
        work = shard.of(work);
    }
    if arguments.output_dir.is_none() && (formats.len() > 1 || (work.len() > 1 && !streams(formats[0]))) {
        let ids: Vec<&str> = formats.iter().map(|f| f.id()).collect();
        let reason =
            format!("several transcripts of format {} do not fit on standard output: name a folder with --output-dir", ids.join(", "));
        return Err(Error::config("--format", reason).into());
    }
    if let Some(threads) = arguments.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    }
    let folder = find_model(arguments.model.as_deref())?;
    let decoding = arguments.decoding.decoding(&folder)?;
    let writing = Writing {
        numbers: if arguments.itn { Numbers::Digits } else { Numbers::Spoken },
        case: arguments.case.then(|| SentenceCase::new([""; 0])),
    };
    let start = Instant::now();
    let (transcriber, experts) = arguments.experts.open(&folder, arguments.device, arguments.dtype.precision())?;
    let transcriber = arguments.language.apply(transcriber)?;
    let transcriber = transcriber
        .with_decoding(&decoding)?
        .with_channels(arguments.channels)
        .with_voice_activity(arguments.vad.then(VadOptions::default))?
        .with_writing(writing)
        .with_batch_memory(arguments.batch_memory << 20);
    let settings = format!(
        "{} {} {:?} vad {} channels {:?} chunks {:?} {:?} stream {:?} itn {} case {} language {:?}",
        Transcriber::fingerprint(&folder)?,
        decoding.describe(),
        arguments.dtype,
        arguments.vad,
        arguments.channels,
        arguments.chunk_seconds,
        arguments.context_seconds,
        arguments.chunk_ms,
        arguments.itn,
        arguments.case,
        arguments.language.name()
    );
    let mut sink = match &arguments.output_dir {
        Some(path) => Sink::Folder(OutputFolder::open(path, &formats, &options, &settings)?),
        None => Sink::Stdout { format: formats[0], options, next: 0, waiting: BTreeMap::new() },
    };
    let skipped = if arguments.resume { sink.skip_done(&mut work) } else { 0 };
    let transcriber = match arguments.chunk_ms {
        Some(chunk_ms) => transcriber.with_stream_context(chunk_ms)?,
        None => transcriber,
    };
    let transcriber = match (arguments.chunk_seconds, arguments.context_seconds) {
        (None, None) => transcriber,
        (longest, context) => {
            let suits = transcriber.chunk_config();
            transcriber.with_chunks(&ChunkConfig {
                longest_seconds: longest.unwrap_or(suits.longest_seconds),
                context_seconds: context.unwrap_or(suits.context_seconds),
            })?
        }
    };
    if arguments.verbose {
        eprintln!("model {}, decoder {}, loaded in {} ms", folder.display(), decoding.describe(), start.elapsed().as_millis());
    }
    let stop = stop_on_ctrl_c();
    let report = Report { bar: progress_bar(arguments), audio: 0.0, recognised: 0.0, done: 0, failed: 0, start: Instant::now() };
    let paths: Vec<&Path> = work.iter().map(|(input, _)| input.path.as_path()).collect();
    report.bar.set_length(paths.len() as u64);
    let cell = std::cell::RefCell::new(report);
    let mut problem = None;
    let spent = transcriber.transcribe_all(
        &paths,
        &stop,
        |number, outcome| {
            let mut report = cell.borrow_mut();
            let (input, stem) = &work[number];
            let written = outcome.map_err(anyhow::Error::from).and_then(|transcript| {
                report.good(&transcript, input);
                sink.take(number, Some(transcript), stem, &input.path, &report.bar)
            });
            if let Err(error) = written {
                report.bad(&error);
                if let Err(error) = sink.take(number, None, stem, &input.path, &report.bar) {
                    problem.get_or_insert(error);
                }
            }
        },
        |seconds| cell.borrow_mut().heard(seconds),
    );
    let report = cell.into_inner();
    report.bar.finish_and_clear();
    if let Some(error) = problem {
        return Err(error);
    }
    let interrupted = stop.load(Ordering::Relaxed);
    if interrupted {
        eprintln!("interrupted: {} of {} files are done", report.done, paths.len());
    }
    if arguments.verbose || (!arguments.quiet && paths.len() + skipped > 1 && (report.failed > 0 || arguments.output_dir.is_some())) {
        report.summary(paths.len(), skipped);
    }
    if arguments.verbose {
        eprintln!(
            "encoder {:.2} s, decoder {:.2} s, features {:.2} s",
            spent.encoder.as_secs_f64(),
            spent.decoder.as_secs_f64(),
            spent.features.as_secs_f64()
        );
        if let Some(cache) = &experts {
            eprintln!("{}", offload::describe(cache));
        }
    }
    Ok(if report.failed > 0 || interrupted { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Whether transcripts of this format may follow one another.
fn streams(format: Format) -> bool {
    matches!(format, Format::Txt | Format::Json | Format::VerboseJson | Format::Ctm | Format::Stm)
}

/// Where transcripts go.
enum Sink {
    Stdout { format: Format, options: FormatOptions, next: usize, waiting: BTreeMap<usize, Option<Transcript>> },
    Folder(OutputFolder),
}

impl Sink {
    /// Takes out what the journal knows; a recording that cannot be read stays, to be reported like any other.
    fn skip_done(&self, work: &mut Vec<(Input, PathBuf)>) -> usize {
        let Self::Folder(folder) = self else { return 0 };
        let before = work.len();
        work.retain(|(input, stem)| !folder.key(&input.path).is_ok_and(|key| folder.is_done(&key, stem)));
        before - work.len()
    }

    /// A transcript (or a failure, `None`) of input `number`: on standard output they appear in the order of the inputs.
    fn take(&mut self, number: usize, transcript: Option<Transcript>, stem: &Path, path: &Path, bar: &ProgressBar) -> anyhow::Result<()> {
        match self {
            Self::Folder(folder) => {
                let Some(transcript) = transcript else { return Ok(()) };
                // Standard input has no content to come back to.
                let key = if path == Path::new("-") { None } else { Some(folder.key(path)?) };
                Ok(folder.write(&transcript, stem, key)?)
            }
            Self::Stdout { format, options, next, waiting } => {
                waiting.insert(number, transcript);
                while let Some(transcript) = waiting.remove(next) {
                    *next += 1;
                    let Some(transcript) = transcript else { continue };
                    bar.suspend(|| {
                        let mut out = std::io::stdout().lock();
                        write(&transcript, *format, options, &mut out)?;
                        out.flush()
                    })?;
                }
                Ok(())
            }
        }
    }
}

/// What happened so far.
struct Report {
    bar: ProgressBar,
    /// Seconds of audio in transcripts.
    audio: f64,
    /// Seconds of audio through the encoder.
    recognised: f64,
    done: usize,
    failed: usize,
    start: Instant,
}

impl Report {
    fn good(&mut self, transcript: &Transcript, input: &Input) {
        self.done += 1;
        self.audio += transcript.duration;
        self.bar.inc(1);
        for warning in &transcript.warnings {
            self.bar.suspend(|| eprintln!("warning: {}: {warning}", input.path.display()));
        }
        if transcript.words.is_empty() {
            self.bar.suspend(|| eprintln!("note: {}: no speech detected", input.path.display()));
        }
    }

    fn bad(&mut self, error: &anyhow::Error) {
        self.failed += 1;
        self.bar.inc(1);
        self.bar.suspend(|| eprintln!("error: {}", crate::cli::one_line(error)));
    }

    fn heard(&mut self, seconds: f64) {
        self.recognised += seconds;
        let rtfx = self.recognised / self.start.elapsed().as_secs_f64().max(1e-9);
        self.bar
            .set_message(format!("{} of audio, {rtfx:.0}x real time", HumanDuration(std::time::Duration::from_secs_f64(self.recognised))));
    }

    fn summary(&self, files: usize, skipped: usize) {
        let seconds = self.start.elapsed().as_secs_f64();
        let mut line = format!("{} of {files} files, {:.1} min of audio in {seconds:.1} s", self.done, self.audio / 60.0);
        if self.audio > 0.0 {
            line += &format!(" ({:.0}x real time)", self.audio / seconds.max(1e-9));
        }
        if skipped > 0 {
            line += &format!(", {skipped} done before");
        }
        if self.failed > 0 {
            line += &format!(", {} failed", self.failed);
        }
        eprintln!("{line}");
    }
}

/// The first Ctrl-C ends after the work at hand; the second one ends at once.
pub(super) fn stop_on_ctrl_c() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    // A second handler in one process (tests, embedders) is refused: theirs stays.
    let _ = ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(1);
        }
    });
    stop
}

fn progress_bar(arguments: &Arguments) -> ProgressBar {
    if arguments.quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} files, {elapsed}, {eta} left, {msg}") {
        bar.set_style(style);
    }
    bar
}
