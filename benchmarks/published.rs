//! Times a published checkpoint in our hands; called by `published_peer.py`, which times its own library on the same file in the same run.
//!
//! `published --model FOLDER --io FILE --threads N --precision f32|bf16 --seconds S` prints one JSON object: seconds of a plain read of the
//! weights and of opening the model (best of [`OPENINGS`], in turns), milliseconds of each forward pass of `features` in FILE, the largest
//! difference from its `logits` and the share of steps with the same best label.

#![allow(clippy::print_stdout)] // the result

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor, TensorData};
use omniscribe::checkpoint::Opened;
use omniscribe::checkpoint::safetensors_file;
use omniscribe::kernel::gemm::Precision;
use omniscribe::model::asr::AsrModel;
use omniscribe::model::lengths::Lengths;
use omniscribe::model::pass::Pass;

/// How often the weights are read and the model opened.
const OPENINGS: usize = 3;

fn main() -> ExitCode {
    omniscribe::kernel::memory::keep_freed_memory();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let flags: BTreeMap<&str, &str> = words.chunks_exact(2).map(|p| (p[0].trim_start_matches("--"), p[1].as_str())).collect();
    let Some(folder) = flags.get("model").map(Path::new) else {
        eprintln!("usage: published --model FOLDER --io FILE --threads N --precision f32|bf16 --seconds S");
        // `cargo bench` starts every bench without these flags: nothing to measure is not a failure.
        return ExitCode::SUCCESS;
    };
    let threads: usize = flags["threads"].parse().expect("a number of threads");
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().expect("the first use of rayon");
    let precision = if flags["precision"] == "bf16" { Precision::Bf16 } else { Precision::F32 };
    let seconds: f64 = flags["seconds"].parse().expect("seconds");
    let device = Device::flex();

    let (mut read_s, mut open_s, mut model) = (f64::INFINITY, f64::INFINITY, None);
    for _ in 0..OPENINGS {
        let start = Instant::now();
        std::hint::black_box(std::fs::read(folder.join("model.safetensors")).expect("weights"));
        read_s = read_s.min(start.elapsed().as_secs_f64());
        drop(model.take());
        let start = Instant::now();
        model = Some(open(folder, &device));
        open_s = open_s.min(start.elapsed().as_secs_f64());
    }
    let model = model.expect("opened");

    let (io, _) = safetensors_file::load(Path::new(flags["io"])).expect("features and logits");
    let (features, logits) = (&io["features"], &io["logits"]);
    let (batch, frames) = (features.shape[0], features.shape[1]);
    let x = Tensor::<3>::from_data(TensorData::new(features.values.clone(), [batch, frames, features.shape[2]]), &device);
    let lengths = Lengths::full(batch, frames);
    let forward = || model.forward(x.clone(), &lengths, &Pass::inference(precision)).logits.into_data();
    let first = forward();
    let ours = first.as_slice::<f32>().expect("f32");
    assert_eq!(ours.len(), logits.values.len(), "logits of another shape");
    let max_error = ours.iter().zip(&logits.values).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
    let labels = logits.shape[2];
    let steps = ours.chunks_exact(labels).zip(logits.values.chunks_exact(labels));
    let same = steps.clone().filter(|(a, b)| best(a) == best(b)).count() as f64 / steps.len() as f64;

    let (start, mut times) = (Instant::now(), Vec::new());
    while times.len() < 3 || start.elapsed() < Duration::from_secs_f64(seconds) {
        let run = Instant::now();
        forward();
        times.push(run.elapsed().as_secs_f64() * 1e3);
    }
    println!(
        "{}",
        serde_json::json!({ "read_s": read_s, "open_s": open_s, "times_ms": times, "max_error": max_error, "same_label": same })
    );
    ExitCode::SUCCESS
}

fn open(folder: &Path, device: &Device) -> AsrModel {
    match Opened::open(folder).expect("a model") {
        Opened::Spectral(directory) => directory.model(device).expect("weights that fit"),
        Opened::Wave(_) => panic!("{}: hears the waveform, not features", folder.display()),
    }
}

fn best(row: &[f32]) -> Option<usize> {
    (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]))
}
