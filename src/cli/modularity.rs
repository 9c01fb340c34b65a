//! `omniscribe analyze modularity`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;
use serde_json::json;

use crate::analyze::clusters::balanced;
use crate::analyze::functions::{Function, functions};
use crate::analyze::modularity::{Layer, LayerModularity, modularity};
use crate::analyze::observe::{LayerWeights, Recording, layer_weights, observe, recordings};
use crate::analyze::perturb::{Loss, Perturbation, hear, loss, others, silenced};
use crate::analyze::stability::stability;
use crate::checkpoint::ModelDirectory;
use crate::checkpoint::safetensors_file::write_atomically;
use crate::cli::bench::open_sets;
use crate::cli::device::{self, DeviceChoice};
use crate::error::Error;
use crate::eval::report::environment;
use crate::eval::{Aligner, Scoring};
use crate::kernel::rng::SplitMix;
use crate::pipeline::transcriber::find_model;
use crate::text::Normalizer;
use crate::train::plot::{Curve, chart_over};

/// Flags of `omniscribe analyze modularity`.
#[derive(Debug, Args)]
pub struct ModularityArguments {
    /// Model folder
    model: PathBuf,
    /// Test sets, named as for `bench`: recordings with their texts
    #[arg(long, value_name = "SET", required = true)]
    on: Vec<PathBuf>,
    /// Folder for modularity.json and modularity.svg
    #[arg(short, long)]
    output: PathBuf,
    /// Utterances, spread evenly over the sets
    #[arg(long, default_value_t = 120)]
    utterances: usize,
    /// Steps of the encoder that are looked at, spread evenly over the utterances
    #[arg(long, default_value_t = 3000)]
    steps: usize,
    /// Groups of neurons in layers without experts
    #[arg(long, default_value_t = 4)]
    groups: usize,
    /// Times that utterances are drawn anew for intervals
    #[arg(long, default_value_t = 20)]
    resamples: usize,
    /// Functions whose experts are silenced, those with most functional experts first
    #[arg(long, default_value_t = 3)]
    silence: usize,
    /// White noise on every second recording, so many dB below it: what knows of it is looked for, too
    #[arg(long, value_name = "SNR_DB")]
    noise: Option<f64>,
    /// Earlier state of the model, to see what training kept; may be given more than once
    #[arg(long, value_name = "MODEL")]
    earlier: Vec<PathBuf>,
    /// Seed of draws
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Random draws that silenced experts are compared with.
const DRAWS: usize = 3;
/// Steps that must have a function, and lack it.
const LEAST: usize = 20;

/// Analyses.
#[expect(clippy::print_stdout, reason = "the summary is this command's data")]
pub fn run(arguments: &ModularityArguments) -> anyhow::Result<ExitCode> {
    if arguments.steps == 0 || arguments.utterances == 0 {
        return Err(Error::config("analyze modularity", "--steps and --utterances must be above 0").into());
    }
    let directory = ModelDirectory::open(&find_model(Some(&arguments.model))?)?;
    let device = device::open(DeviceChoice::Cpu)?;
    let model = directory.model(&device)?;
    let layers = layer_weights(&model)?;
    let groups = (layers.iter().enumerate())
        .map(|(i, layer)| grouped(layer, directory.config.encoder.d_model, arguments.groups, arguments.seed + i as u64))
        .collect::<crate::Result<Vec<_>>>()?;
    let all: Vec<_> = open_sets(&arguments.on, &[])?.into_iter().flat_map(|(_, corpus)| corpus.utterances).collect();
    let every = (all.len() / arguments.utterances).max(1);
    let chosen: Vec<_> = all.into_iter().step_by(every).take(arguments.utterances).collect();
    let recordings = recordings(&directory, &chosen, arguments.noise)?;
    let subsampling = &directory.config.encoder.subsampling;
    let steps: usize = recordings.iter().map(|r| subsampling.output_len(r.features.frames)).sum();
    let stride = (steps / arguments.steps).max(1);
    let step_samples = directory.config.front_end.hop * subsampling.factor();
    let observed = observe(&model, &layers, &directory.tokenizer, &recordings, step_samples, stride, &device)?;
    let functions = functions(&observed.labels, LEAST);
    if functions.is_empty() {
        return Err(Error::config("--on", format!("no function of speech has {LEAST} steps: give more recordings")).into());
    }
    let mut reports = Vec::new();
    for (i, neurons) in observed.neurons.iter().enumerate() {
        let layer = Layer { neurons, groups: groups[i].clone() };
        let report = modularity(&layer, &functions, &observed.recording, arguments.resamples, arguments.seed);
        println!("{}", line(i, &report));
        reports.push(report);
    }
    let mut kept = Vec::new();
    for path in &arguments.earlier {
        let state = found_in(path, &directory, &recordings, &functions, &observed.recording, stride, arguments)?;
        let stability = stability(&path.display().to_string(), &state, &reports);
        println!(
            "{}\tfunctional {:.1} %\tof the last best neurons {:.1} % among the best\tof the last functional experts {:.1} %",
            stability.model,
            100.0 * stability.share,
            100.0 * stability.best_kept,
            100.0 * stability.functional_kept
        );
        kept.push(stability);
    }
    let numbers: Vec<usize> = (0..steps).step_by(stride).collect();
    let scoring = Scoring::new(Normalizer::default(), Aligner::default(), None)?;
    let before = hear(&model, &recordings, &directory.tokenizer, &scoring, &device)?;
    let mut perturbed = Vec::new();
    for (function, which) in most_functional(&functions, &reports, arguments.silence) {
        let lost = |which: &[(usize, usize)]| {
            let after = hear(&silenced(&model, &groups, which), &recordings, &directory.tokenizer, &scoring, &device)?;
            Ok::<_, crate::Error>(loss(&before, &after, function, &numbers))
        };
        let mut rng = SplitMix::new(arguments.seed);
        let counts: Vec<usize> = reports.iter().map(|r| r.groups).collect();
        let random = (0..DRAWS).map(|_| lost(&others(&which, &counts, &mut rng))).collect::<crate::Result<Vec<_>>>()?;
        let of = |get: fn(&Loss) -> f64| random.iter().map(get).sum::<f64>() / DRAWS as f64;
        let random = Loss { matching: of(|l| l.matching), other: of(|l| l.other), wer: of(|l| l.wer) };
        let functional = lost(&which)?;
        println!(
            "without its {} experts\t{}\tsteps with it change {:.1} %, others {:.1} %, WER {:.1} %\tas many others: {:.1} %, {:.1} %, {:.1} %",
            which.len(),
            function.name,
            100.0 * functional.matching,
            100.0 * functional.other,
            100.0 * functional.wer,
            100.0 * random.matching,
            100.0 * random.other,
            100.0 * random.wer
        );
        perturbed.push(Perturbation { function: function.name.clone(), silenced: which, functional, random });
    }
    let report = json!({
        "benchmark": "modularity", "model": directory.config.name, "command": std::env::args().collect::<Vec<_>>(),
        "cpu": environment::cpu_name(), "date": environment::utc(SystemTime::now()).split('T').next(),
        "utterances": recordings.len(), "steps": observed.labels.len(), "wer": before.errors.wer(),
        "functions": functions.iter().map(|f| (f.name.clone(), f.steps.iter().filter(|s| **s).count())).collect::<BTreeMap<_, _>>(),
        "layers": reports, "silenced": perturbed, "earlier": kept,
    });
    std::fs::create_dir_all(&arguments.output).map_err(|e| Error::io(&arguments.output, e))?;
    write_atomically(&arguments.output.join("modularity.json"), format!("{report:#}\n").as_bytes())?;
    write_atomically(&arguments.output.join("modularity.svg"), picture(&directory.config.name, &reports).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// What another state of the model does in the same steps.
fn found_in(
    path: &Path,
    last: &ModelDirectory,
    recordings: &[Recording],
    functions: &[Function],
    recording: &[usize],
    stride: usize,
    arguments: &ModularityArguments,
) -> anyhow::Result<Vec<LayerModularity>> {
    let directory = ModelDirectory::open(&find_model(Some(path))?)?;
    let (here, there) = (&directory.config.encoder, &last.config.encoder);
    let same = here.d_model == there.d_model && here.n_layers == there.n_layers && here.feed_forward == there.feed_forward;
    if !same || here.subsampling != there.subsampling || directory.config.front_end != last.config.front_end {
        return Err(Error::config("--earlier", format!("{}: is not of the shape of {}", path.display(), last.config.name)).into());
    }
    let device = device::open(DeviceChoice::Cpu)?;
    let model = directory.model(&device)?;
    let layers = layer_weights(&model)?;
    let step_samples = last.config.front_end.hop * there.subsampling.factor();
    let observed = observe(&model, &layers, &directory.tokenizer, recordings, step_samples, stride, &device)?;
    let mut reports = Vec::new();
    for (i, (neurons, layer)) in observed.neurons.iter().zip(&layers).enumerate() {
        let groups = grouped(layer, here.d_model, arguments.groups, arguments.seed + i as u64)?;
        reports.push(modularity(&Layer { neurons, groups }, functions, recording, 0, arguments.seed));
    }
    Ok(reports)
}

/// The group of every neuron of a layer: its expert, or the cluster of a dense layer.
fn grouped(layer: &LayerWeights, d_model: usize, groups: usize, seed: u64) -> crate::Result<Vec<usize>> {
    if layer.experts > 1 {
        return Ok((0..layer.experts * layer.d_ff).map(|n| n / layer.d_ff).collect());
    }
    let rows: Vec<f32> = (0..layer.d_ff).flat_map(|n| (0..d_model).map(move |i| layer.up[i * layer.d_ff + n])).collect();
    balanced(&rows, d_model, groups, seed)
}

fn line(layer: usize, report: &LayerModularity) -> String {
    let interval = report.share_interval.map_or(String::new(), |(a, b)| format!(" ({:.1} to {:.1})", 100.0 * a, 100.0 * b));
    let best = report.functions.iter().map(|f| format!("{} {:.2}", f.name, f.precision)).collect::<Vec<_>>().join(", ");
    format!(
        "layer {}\tfunctional {:.1} %{interval} of groups and functions, by chance {:.1} %\tprecision of the best neurons: {best}",
        layer + 1,
        100.0 * report.share,
        100.0 * report.share_random
    )
}

/// Functions with functional groups, most first, and these groups.
fn most_functional<'a>(functions: &'a [Function], reports: &[LayerModularity], most: usize) -> Vec<(&'a Function, Vec<(usize, usize)>)> {
    let of = |f: usize| reports.iter().enumerate().flat_map(move |(layer, r)| r.functions[f].functional.iter().map(move |g| (layer, *g)));
    let mut all: Vec<_> = functions.iter().enumerate().map(|(f, function)| (function, of(f).collect::<Vec<_>>())).collect();
    all.retain(|(_, which)| !which.is_empty());
    all.sort_by_key(|(_, which)| std::cmp::Reverse(which.len()));
    all.truncate(most);
    all
}

fn picture(name: &str, reports: &[LayerModularity]) -> String {
    let curve = |legend: &str, of: &dyn Fn(&LayerModularity) -> f64| Curve {
        name: legend.into(),
        points: reports.iter().enumerate().map(|(i, r)| (i as f64 + 1.0, 100.0 * of(r))).collect(),
        band: vec![],
    };
    let curves = [
        curve("experts", &|r| r.share),
        curve("experts, 5th percentile", &|r| r.share_interval.map_or(f64::NAN, |i| i.0)),
        curve("experts, 95th percentile", &|r| r.share_interval.map_or(f64::NAN, |i| i.1)),
        curve("random groups", &|r| r.share_random),
    ];
    chart_over(&format!("Functional experts of {name}"), "layer", "% of (function, group) pairs", &curves)
}
