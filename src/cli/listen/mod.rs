//! `omniscribe listen`.

mod input;
mod view;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Instant;

use clap::Args;

use crate::audio::{Header, RawFormat, RawShape, Recording};
use crate::cli::decoding::DecodingArguments;
use crate::cli::device::{self, DeviceChoice};
use crate::cli::language::LanguageArgument;
use crate::cli::listen::input::{Input, Read};
use crate::cli::listen::view::{Status, View};
use crate::cli::precision::Dtype;
use crate::cli::transcribe::stop_on_ctrl_c;
use crate::error::Error;
use crate::pipeline::stream::Endpointing;
use crate::pipeline::transcriber::{Transcriber, find_model};
use crate::units::SampleRate;

/// Flags of `omniscribe listen`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Samples from a fifo or, with `-`, from standard input: a WAV header tells their rate and format, else --rate and --format do (default:
    /// the microphone)
    source: Option<PathBuf>,
    /// Plain samples (from standard input, if no source is named), even if they begin like a WAV file
    #[arg(long)]
    raw: bool,
    /// Sampling rate of plain samples, Hz
    #[arg(long, default_value_t = 16_000)]
    rate: u32,
    /// Format of plain samples: s16le, s24le, s32le, f32le, u8, mulaw, alaw ..
    #[arg(long, default_value = "s16le")]
    format: RawFormat,
    /// Interleaved channels of plain samples; their mean is heard
    #[arg(long, default_value_t = 1)]
    channels: usize,
    /// Listen to an audio file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["source", "raw"])]
    file: Option<PathBuf>,
    /// Play the file as if it were live
    #[arg(long, requires = "file")]
    realtime: bool,
    /// List the microphones
    #[arg(long)]
    list_devices: bool,
    /// Microphone, by name or part of it
    #[arg(long, value_name = "NAME", conflicts_with_all = ["source", "raw", "file"])]
    device_name: Option<String>,
    /// Keep what was heard
    #[arg(long, value_name = "FILE.wav")]
    save: Option<PathBuf>,
    /// Events as JSON lines: partial, final, endpoint, with times and confidences
    #[arg(long)]
    json: bool,
    /// Audio that is recognised at once, milliseconds: words come sooner with less, with fewer errors with more
    #[arg(long, alias = "chunk_ms", default_value_t = 320, value_name = "MS")]
    chunk_ms: u32,
    /// Silence that ends an utterance in which nothing was said, seconds
    #[arg(long, default_value_t = Endpointing::default().silence, value_name = "SECONDS", help_heading = "Endpoints")]
    endpoint_silence: f64,
    /// Silence that ends an utterance in which something was said, seconds
    #[arg(long, default_value_t = Endpointing::default().pause, value_name = "SECONDS", help_heading = "Endpoints")]
    endpoint_pause: f64,
    /// Length at which an utterance is cut between two words, seconds
    #[arg(long, default_value_t = Endpointing::default().longest, value_name = "SECONDS", help_heading = "Endpoints")]
    endpoint_longest: f64,
    /// Model folder (default: $OMNISCRIBE_MODEL, else models/base here or beside the program)
    #[arg(short, long)]
    model: Option<PathBuf>,
    /// Where to compute
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceChoice,
    /// Precision of matrix products on the CPU: packing weights as bf16 for each chunk takes longer than it saves
    #[arg(long, value_enum, default_value = "f32")]
    dtype: Dtype,
    /// Threads: one is enough for a stream
    #[arg(long, default_value_t = 1)]
    threads: usize,
    #[command(flatten)]
    language: LanguageArgument,
    #[command(flatten)]
    decoding: DecodingArguments,
    /// Say what is used, and at the end how fast and how steady it was
    #[arg(short, long)]
    verbose: bool,
}

impl Arguments {
    fn endpointing(&self) -> Endpointing {
        Endpointing { silence: self.endpoint_silence, pause: self.endpoint_pause, longest: self.endpoint_longest }
    }

    /// Starts whatever is listened to: nothing is missed while the model loads.
    fn input(&self) -> anyhow::Result<Input> {
        let source = self.source.clone().or_else(|| self.raw.then(|| "-".into()));
        Ok(match (&self.file, source) {
            (Some(path), _) if self.realtime => Input::play(path)?,
            (Some(path), _) => Input::file(path)?,
            (None, Some(path)) => {
                let header = if self.raw { Header::None } else { Header::Perhaps };
                Input::pipe(&path, RawShape { rate: SampleRate(self.rate), format: self.format, channels: self.channels, header })
            }
            (None, None) => Input::microphone(self.device_name.as_deref())?,
        })
    }
}

/// Listens until the audio ends or Ctrl-C comes; the exit code is 1 if the device was lost.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if arguments.list_devices {
        return view::print(&input::list_devices()?).map(|()| ExitCode::SUCCESS);
    }
    arguments.endpointing().validate()?;
    let start = Instant::now();
    let stop = stop_on_ctrl_c();
    let mut input = arguments.input()?;
    rayon::ThreadPoolBuilder::new().num_threads(arguments.threads.max(1)).build_global()?;
    let folder = find_model(arguments.model.as_deref())?;
    let decoding = arguments.decoding.decoding(&folder)?;
    let transcriber = Transcriber::open(&folder, device::open(arguments.device)?, arguments.dtype.precision())?;
    let transcriber = arguments.language.apply(transcriber)?.with_decoding(&decoding)?;
    if arguments.verbose {
        let (model, loaded) = (folder.display(), start.elapsed().as_millis());
        eprintln!("{}, model {model}, decoder {}, loaded in {loaded} ms", input.describe(), decoding.describe());
    }
    let rate = input.rate(&stop)?;
    let mut stream = transcriber.stream(rate, arguments.chunk_ms, arguments.endpointing())?;
    let mut recording = arguments.save.as_deref().map(|path| Recording::create(path, rate)).transpose()?;
    let mut view = View::new(arguments.json, input.is_live(), start);
    let (mut samples, mut events) = (Vec::new(), Vec::new());
    let mut heard = 0.0;
    let failure = loop {
        let read = if stop.load(Ordering::Relaxed) { Read::End(None) } else { input.read(&mut samples)? };
        match read {
            Read::End(reason) => break reason,
            Read::Nothing => {}
            Read::Samples => {
                if let Some(recording) = &mut recording {
                    recording.step(&samples)?;
                }
                stream.step(&samples, &mut events);
                heard = stream.heard();
            }
        }
        view.show(&events, Status::of(&samples, input.lost()))?;
        events.clear();
        samples.clear();
    };
    stream.flush(&mut events);
    view.show(&events, Status::of(&[], input.lost()))?;
    view.finish()?;
    recording.map_or(Ok(()), Recording::flush)?;
    let lost = input.lost();
    if lost != (0, 0) {
        eprintln!("{} overruns: {:.2} s of audio were lost", lost.1, lost.0 as f64 / f64::from(rate.0));
    }
    if arguments.verbose {
        let (wall, steady) = (start.elapsed().as_secs_f64(), stream.stability());
        eprintln!(
            "{heard:.1} s of audio in {wall:.1} s, {} final words, {} partial words changed ({:.3} for each), {} grew",
            steady.final_words,
            steady.changed,
            steady.flicker(),
            steady.grown
        );
    }
    match failure {
        Some(reason) => Err(Error::DeviceUnavailable {
            requested: format!("{}, lost ({reason})", input.describe()),
            available: "see --list-devices".into(),
        }
        .into()),
        None => Ok(ExitCode::SUCCESS),
    }
}
