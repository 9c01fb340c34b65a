//! `omniscribe doctor`: what this machine and this build can do, in one screen.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;

use crate::audio::FORMATS;
use crate::checkpoint::ModelDirectory;
use crate::cli::device::{self, DeviceChoice};
use crate::kernel::cpu::Tier;
use crate::kernel::gemm::Precision;
use crate::model::config::FeedForwardConfig;
use crate::pipeline::transcriber::{Transcriber, find_model};

/// Flags of `omniscribe doctor`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Model folder (default: $OMNISCRIBE_MODEL, else models/base here or beside the program)
    #[arg(short, long)]
    model: Option<PathBuf>,
}

/// Prints the report; the exit code is 1 if the model cannot be used.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut rows = vec![
        ("program", format!("omniscribe {}, {} {}", env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH)),
        ("processor", processor()),
        ("products", products().to_string()),
        ("cuda", cuda()),
    ];
    let model = model(arguments.model.as_deref());
    let usable = model.is_ok();
    match model {
        Ok(lines) => lines.into_iter().for_each(|line| rows.push(("model", line))),
        Err(error) => rows.push(("model", format!("cannot be used: {error:#}"))),
    }
    rows.extend(FORMATS.iter().map(|(container, codecs)| ("audio", format!("{container}: {codecs}"))));
    let mut before = "";
    for (name, line) in rows {
        print(if name == before { "" } else { name }, &line);
        before = name;
    }
    Ok(if usable { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[expect(clippy::print_stdout, reason = "the report is this command's data")]
fn print(name: &str, line: &str) {
    println!("{name:<10} {line}");
}

fn processor() -> String {
    let name = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_string())
    });
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let kilobytes: f64 = text.lines().find(|line| line.starts_with("MemAvailable"))?.split_whitespace().nth(1)?.parse().ok()?;
        Some(format!(", {:.1} GiB of memory free", kilobytes / (1 << 20) as f64))
    });
    format!("{}, {threads} threads{}", name.unwrap_or_else(|| "unknown".into()), memory.unwrap_or_default())
}

fn products() -> &'static str {
    match Tier::detected() {
        Tier::Amx => "bf16 with AMX tiles, f32 with AVX-512",
        Tier::Avx512Bf16 => "bf16 and f32 with AVX-512 (bfloat16 dot product)",
        Tier::Avx512 => "f32 with AVX-512; --dtype bf16 computes in f32: no bfloat16 dot product",
        Tier::Avx2 => "f32 with AVX2; --dtype bf16 computes in f32",
        Tier::Portable => "f32, portable code; --dtype bf16 computes in f32",
    }
}

fn cuda() -> String {
    match device::open(DeviceChoice::Cuda) {
        Ok(device) => format!("{device:?}, used with --device cuda"),
        Err(error) => format!("not used: {error}"),
    }
}

/// What the model is, and how long one second of silence takes.
fn model(named: Option<&Path>) -> anyhow::Result<Vec<String>> {
    let path = find_model(named)?;
    let directory = ModelDirectory::open(&path)?;
    let config = &directory.config;
    let feed_forward = match &config.encoder.feed_forward {
        FeedForwardConfig::Dense => "dense".to_string(),
        FeedForwardConfig::Experts { router, groups, .. } => {
            format!("{} experts, {router:?} router", String::from(groups.clone())).to_lowercase()
        }
        FeedForwardConfig::Sigma { router, groups, top_k, .. } => {
            format!("{} experts, {top_k} per step, {router:?} sigmoid router", String::from(groups.clone())).to_lowercase()
        }
        FeedForwardConfig::Strata { router, strata } => format!("strata of {strata:?} experts, {router:?} gates").to_lowercase(),
        FeedForwardConfig::Memory { layers, subkeys, .. } => {
            format!("memory of {} rows in {} layers", subkeys * subkeys, layers.len())
        }
    };
    let parameters: usize = directory.tensors.values().map(|tensor| tensor.values.len()).sum();
    let size = std::fs::metadata(path.join("model.safetensors")).map_or(0, |m| m.len());
    let first = format!("{} at {}: {:.1} M parameters, {:.0} MB", config.name, path.display(), parameters as f64 / 1e6, size as f64 / 1e6);
    let second = format!(
        "{} layers, d_model {}, {feed_forward}, {} tokens",
        config.encoder.n_layers,
        config.encoder.d_model,
        directory.tokenizer.vocab_size()
    );
    drop(directory);
    let start = Instant::now();
    let transcriber = Transcriber::open(&path, device::open(DeviceChoice::Cpu)?, Precision::Bf16)?;
    let loaded = start.elapsed();
    transcriber.transcribe_samples(&vec![0.0; 16_000]);
    let heard = start.elapsed() - loaded;
    Ok(vec![first, second, format!("loads in {} ms, hears one second in {} ms", loaded.as_millis(), heard.as_millis())])
}
