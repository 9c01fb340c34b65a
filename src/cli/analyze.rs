//! `omniscribe analyze`: what a model learned.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::analyze::functions::inside;
use crate::analyze::noise::with_white_noise;
use crate::audio::vad::{self, VadOptions};
use crate::audio::{self, Limits};
use crate::checkpoint::Opened;
use crate::checkpoint::safetensors_file::write_atomically;
use crate::cli::bench::open_sets;
use crate::cli::device::{self, DeviceChoice};
use crate::cli::modularity::{self, ModularityArguments};
use crate::decode::ctc::greedy;
use crate::error::{Error, Result};
use crate::eval::report::html::routing;
use crate::eval::routing::{Exchanged, Observed, RoutingStudy, UnderNoise, letter_class};
use crate::eval::{WordErrors, wer};
use crate::kernel::gemm::Precision;
use crate::model::config::ExpertGroups;
use crate::model::recognizer::AnyModel;
use crate::pipeline::transcriber::Transcriber;
use crate::text::Normalizer;
use crate::units::SampleRate;

/// Noise that is added, dB below the speech.
const SNR_DB: [f64; 3] = [20.0, 10.0, 0.0];

/// What to look at.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Which experts the routers of a model choose, and what that has to do with what is said
    Routing(RoutingArguments),
    /// Whether the neurons that tell sounds, silence or sources apart sit together in experts, and what is lost without them
    Modularity(ModularityArguments),
}

/// Flags of `omniscribe analyze routing`.
#[derive(Debug, Args)]
pub struct RoutingArguments {
    /// Model folder
    model: PathBuf,
    /// Recordings, or test sets as `bench` reads them (with texts and speakers)
    #[arg(required = true)]
    audio: Vec<PathBuf>,
    /// Folder for routing.json and routing.html
    #[arg(short, long)]
    output: PathBuf,
    /// Recordings on which experts are exchanged and noise is added, evenly from all; 0 leaves that out
    #[arg(long, default_value_t = 100)]
    trials: usize,
    /// Where to compute
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceChoice,
}

/// A recording in memory.
struct Clip {
    name: String,
    samples: Vec<f32>,
    text: Option<String>,
    speaker: Option<String>,
    set: Option<String>,
}

/// What a model makes of samples: experts, most probable tokens, and the text.
struct Heard {
    choices: Vec<Vec<u16>>,
    tokens: Vec<Option<u32>>,
    text: String,
}

/// Runs an analysis.
#[expect(clippy::print_stdout, reason = "the summary is this command's data")]
pub fn run(command: &Command) -> anyhow::Result<ExitCode> {
    let arguments = match command {
        Command::Routing(arguments) => arguments,
        Command::Modularity(arguments) => return modularity::run(arguments),
    };
    // Full precision: a choice near a tie must not fall by rounding.
    let transcriber = Transcriber::open(&arguments.model, device::open(arguments.device)?, Precision::F32)?;
    let clips = clips(&arguments.audio)?;
    let mut study = RoutingStudy::default();
    for clip in &clips {
        let heard = hear(&transcriber, &clip.samples);
        let class = |token: &Option<u32>| token.and_then(|t| letter_class(transcriber.tokenizer().piece(t)));
        let classes: Vec<_> = heard.tokens.iter().map(class).collect();
        let spoken = vad::speech(&clip.samples, &VadOptions::default())?;
        let middle = |step: usize| step * transcriber.step_samples() + transcriber.step_samples() / 2;
        let speech: Vec<bool> = (0..heard.tokens.len()).map(|step| inside(&spoken, middle(step))).collect();
        study.add(&Observed {
            name: &clip.name,
            seconds: SampleRate::HZ_16000.seconds(clip.samples.len()),
            choices: &heard.choices,
            heard: &heard.tokens,
            classes: &classes,
            speech: &speech,
            speaker: clip.speaker.as_deref(),
            set: clip.set.as_deref(),
        });
    }
    let Some(mut report) = study.finish() else {
        return Err(Error::config("model", format!("{} has no experts, or nothing was heard", arguments.model.display())).into());
    };
    let every = clips.len().div_ceil(arguments.trials.max(1));
    let trials: Vec<&Clip> = if arguments.trials == 0 { vec![] } else { clips.iter().step_by(every).collect() };
    if !trials.is_empty() {
        let clean: Vec<Heard> = trials.iter().map(|clip| hear(&transcriber, &clip.samples)).collect();
        report.under_noise = SNR_DB.iter().map(|&snr_db| under_noise(&transcriber, &trials, &clean, snr_db)).collect();
        report.exchanged = exchanged(arguments, &trials, &clean)?;
    }
    std::fs::create_dir_all(&arguments.output).map_err(|e| Error::io(&arguments.output, e))?;
    let name = arguments.model.file_name().unwrap_or(arguments.model.as_os_str()).to_string_lossy();
    write_atomically(&arguments.output.join("routing.json"), &serde_json::to_vec_pretty(&report)?)?;
    write_atomically(&arguments.output.join("routing.html"), routing::render(&name, &report).as_bytes())?;
    let mean = report.between_layers_mean.map_or("undefined".into(), |v| format!("{v:.3}"));
    println!("{} steps; mean Cramér's V between layers {mean}; see {}", report.steps, arguments.output.join("routing.html").display());
    Ok(ExitCode::SUCCESS)
}

/// Plain recordings as they are; everything else as a test set.
fn clips(paths: &[PathBuf]) -> Result<Vec<Clip>> {
    let mut clips = Vec::new();
    for path in paths {
        let read = |path: &Path| audio::read_at(path, SampleRate::HZ_16000, &Limits::default());
        let manifest = path.is_dir() || path.extension().is_some_and(|e| ["jsonl", "json", "csv", "gz"].iter().any(|known| e == *known));
        if !manifest {
            let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
            clips.push(Clip { name, samples: read(path)?.samples, text: None, speaker: None, set: None });
            continue;
        }
        for (set, corpus) in open_sets(std::slice::from_ref(path), &[])? {
            corpus.problems.iter().for_each(|problem| eprintln!("{set}: {problem}"));
            for utterance in corpus.utterances {
                let mut samples = read(&utterance.audio)?.samples;
                let at = |seconds: f64| SampleRate::HZ_16000.samples(seconds).min(samples.len());
                let (from, to) = (at(utterance.start), utterance.end.map_or(samples.len(), at));
                samples = samples[from..to.max(from)].to_vec();
                let speaker = utterance.speaker.map(|speaker| format!("{set}/{speaker}"));
                clips.push(Clip { name: utterance.id, samples, text: Some(utterance.reference), speaker, set: Some(set.clone()) });
            }
        }
    }
    Ok(clips)
}

fn hear(transcriber: &Transcriber, samples: &[f32]) -> Heard {
    let blank = transcriber.tokenizer().blank();
    let mut heard = Heard { choices: Vec::new(), tokens: Vec::new(), text: String::new() };
    for stretch in transcriber.log_probs(samples) {
        let best = |row: &[f32]| (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best }) as u32;
        heard.tokens.extend(stretch.log_probs.chunks_exact(stretch.vocab.max(1)).map(best).map(|t| (t != blank).then_some(t)));
        heard.choices.resize(stretch.experts.len(), Vec::new());
        heard.choices.iter_mut().zip(&stretch.experts).for_each(|(all, new)| all.extend_from_slice(new));
        let tokens = greedy(&stretch.log_probs, stretch.steps(), stretch.vocab, blank).tokens;
        heard.text += &format!(" {}", transcriber.tokenizer().decode(&tokens));
    }
    heard
}

fn under_noise(transcriber: &Transcriber, clips: &[&Clip], clean: &[Heard], snr_db: f64) -> UnderNoise {
    let (mut kept, mut all) = (Vec::new(), 0);
    for (i, (clip, clean)) in clips.iter().zip(clean).enumerate() {
        let noisy = hear(transcriber, &with_white_noise(&clip.samples, snr_db, i as u64));
        kept.resize(clean.choices.len().max(kept.len()), 0);
        for (kept, (a, b)) in kept.iter_mut().zip(clean.choices.iter().zip(&noisy.choices)) {
            *kept += a.iter().zip(b).filter(|(a, b)| a == b).count();
        }
        all += clean.tokens.len();
    }
    UnderNoise { snr_db, kept: kept.into_iter().map(|n| n as f64 / all.max(1) as f64).collect() }
}

/// The errors of the model with experts exchanged; none where there is no choice of one expert of several.
fn exchanged(arguments: &RoutingArguments, clips: &[&Clip], clean: &[Heard]) -> Result<Option<Exchanged>> {
    let opened = Opened::open(&arguments.model)?;
    let Opened::Spectral(directory) = &opened else { return Ok(None) };
    let groups = directory.config.encoder.feed_forward.groups().map(ExpertGroups::by_layer).unwrap_or_default();
    let layers: Vec<usize> = (0..groups.len()).filter(|&layer| groups[layer].1 > 1).collect();
    if layers.is_empty() {
        return Ok(None);
    }
    let against_texts = clips.iter().all(|clip| clip.text.is_some());
    let normal = |text: &str| Normalizer::Whisper.normalize(text);
    let plain: Vec<String> = clean.iter().map(|heard| normal(&heard.text)).collect();
    let given = || clips.iter().map(|clip| normal(clip.text.as_deref().unwrap_or_default())).collect();
    let references: Vec<String> = if against_texts { given() } else { plain.clone() };
    let errors = |texts: Vec<String>| {
        let mut sum = WordErrors::default();
        references.iter().zip(&texts).for_each(|(reference, text)| sum += wer::word_errors(reference, text));
        sum
    };
    let with = |layer: Option<usize>| {
        let device = device::open(arguments.device)?;
        let model = AnyModel::Spectral(directory.model(&device)?.with_exchanged_experts(layer));
        let changed = Transcriber::with_model(&arguments.model, &opened, model, device, Precision::F32)?;
        Ok(errors(clips.iter().map(|clip| normal(&hear(&changed, &clip.samples).text)).collect()))
    };
    let one_layer = layers.iter().map(|&layer| with(Some(layer))).collect::<Result<_>>()?;
    Ok(Some(Exchanged { against_texts, unchanged: errors(plain), all_layers: with(None)?, one_layer }))
}
