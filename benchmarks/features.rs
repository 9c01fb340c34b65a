//! Speed of the front end on one thread: seconds for 10 minutes of audio, per configuration.
//!
//! `cargo bench --bench features [-- SAMPLES.f32 [ROUNDS]]`: raw little-endian f32 samples at 16 kHz, otherwise 10 minutes of noise
//! bursts. Prints one line per configuration: name, best seconds, median seconds, frames.

#![allow(clippy::print_stdout)] // the result

use std::hint::black_box;
use std::time::Instant;

use omniscribe::features::{FrontEnd, FrontEndConfig, LogMel, Normalization};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).filter(|a| !a.starts_with('-'));
    let samples = match arguments.next() {
        Some(path) => std::fs::read(path)?.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        None => noise_bursts(600 * 16_000),
    };
    let rounds = arguments.next().map_or(Ok(5), |rounds| rounds.parse::<usize>())?.max(1);
    let blend = Normalization::Blend { weight: 0.7, mean: vec![-5.0; 80], std: vec![2.0; 80] };
    for (name, config) in [
        ("kaldi80", FrontEndConfig::kaldi()),
        ("icefall80", FrontEndConfig::icefall()),
        ("whisper80", FrontEndConfig::whisper(80)),
        ("whisper128", FrontEndConfig::whisper(128)),
        ("parakeet80", FrontEndConfig::parakeet(80)),
        ("parakeet128", FrontEndConfig::parakeet(128)),
        ("omniscribe80", FrontEndConfig::omniscribe(80, blend)),
    ] {
        let front_end = FrontEnd::new(config)?;
        let mut scratch = front_end.scratch();
        let mut out = LogMel::default();
        let mut seconds: Vec<f64> = (0..rounds)
            .map(|_| {
                let start = Instant::now();
                front_end.compute_into(black_box(&samples), &mut scratch, &mut out);
                black_box(&out);
                start.elapsed().as_secs_f64()
            })
            .collect();
        seconds.sort_by(f64::total_cmp);
        println!("{name} {:.4} {:.4} {}", seconds[0], seconds[rounds / 2], out.frames);
    }
    Ok(())
}

/// Noise with a slow envelope, in [-0.5, 0.5]; deterministic.
fn noise_bursts(samples: usize) -> Vec<f32> {
    let mut state = 1u32;
    (0..samples)
        .map(|i| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = (state >> 8) as f32 / (1 << 24) as f32 - 0.5;
            noise * (i as f32 * 2e-4).sin().abs()
        })
        .collect()
}
