//! `omniscribe doctor`: what this machine and this build can do, in one screen.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;

use crate::audio::FORMATS;
use crate::checkpoint::Opened;
use crate::cli::describe;
use crate::cli::device::{self, DeviceChoice};
use crate::kernel::cpu::{Int8Unit, Tier};
use crate::kernel::gemm::Precision;
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
        ("", int8().to_string()),
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

fn int8() -> &'static str {
    match Tier::detected().int8() {
        Int8Unit::Tiles => "int8 with AMX tiles",
        Int8Unit::Vnni => "int8 with AVX-512 VNNI",
        Int8Unit::Avx2 => "int8 with AVX2 (widened to 16 bits)",
        Int8Unit::Portable => "int8, portable code: slow",
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
    let opened = Opened::open(&path)?;
    let first = format!("{} at {}: {}", opened.name(), path.display(), describe::size(&opened)?);
    let second = describe::architecture(&opened);
    drop(opened);
    let start = Instant::now();
    let transcriber = Transcriber::open(&path, device::open(DeviceChoice::Cpu)?, Precision::Bf16)?;
    let loaded = start.elapsed();
    transcriber.transcribe_samples(&vec![0.0; 16_000]);
    let heard = start.elapsed() - loaded;
    Ok(vec![first, second, format!("loads in {} ms, hears one second in {} ms", loaded.as_millis(), heard.as_millis())])
}
