//! Decodes audio files to 16 kHz mono on one thread; called by `audio_peer.py`, which times FFmpeg on the same files in the same run.
//!
//! `audio ROUNDS FILE...` prints for each file one line: processor seconds of the best round, samples, path.

#![allow(clippy::print_stdout)] // the result

use std::path::Path;

use omniscribe::audio::{Limits, read_at};
use omniscribe::units::SampleRate;

/// Seconds this process has run on a processor.
fn cpu_seconds() -> Result<f64, Box<dyn std::error::Error>> {
    let stat = std::fs::read_to_string("/proc/self/schedstat")?;
    Ok(stat.split(' ').next().ok_or("no schedstat")?.parse::<f64>()? / 1e9)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).filter(|a| !a.starts_with("--"));
    let rounds: usize = arguments.next().ok_or("ROUNDS FILE...")?.parse()?;
    for path in arguments {
        let (mut best, mut samples) = (f64::INFINITY, 0);
        for _ in 0..rounds.max(1) {
            let before = cpu_seconds()?;
            samples = read_at(Path::new(&path), SampleRate::HZ_16000, &Limits::default())?.samples.len();
            best = best.min(cpu_seconds()? - before);
        }
        println!("{best:.6} {samples} {path}");
    }
    Ok(())
}
