//! Scoring of utterance pairs on one thread: seconds for each kind of work, lines per second of the normalisers, or the counts themselves.
//!
//! `cargo bench --bench scoring -- PAIRS.jsonl time|normalize [ROUNDS]` or `... counts ALIGNER`, where a line of PAIRS.jsonl is
//! `["reference", "hypothesis"]`. Prints JSON lines; of several rounds, the best. `benchmarks/scoring.py` runs it beside the peers.

#![allow(clippy::print_stdout)] // the result

use std::hint::black_box;
use std::sync::LazyLock;
use std::time::Instant;

use omniscribe::eval::wer::{WordErrors, character_errors};
use omniscribe::eval::{Aligner, Scoring};
use omniscribe::text::Normalizer;
use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let [path, mode, rest @ ..] = &arguments[..] else { return Err("want PAIRS.jsonl and time, normalize or counts".into()) };
    let lines = std::fs::read_to_string(path)?;
    let pairs: Vec<(String, String)> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let rounds = |default: usize| rest.first().map_or(Ok(default), |rounds| rounds.parse::<usize>());
    match mode.as_str() {
        "counts" => {
            let aligner = rest.first().and_then(|id| Aligner::from_id(id)).ok_or("want an aligner")?;
            for (reference, hypothesis) in &pairs {
                let e = aligner.align(reference, hypothesis)?.errors();
                println!("{}", json!([e.substitutions, e.deletions, e.insertions]));
            }
        }
        "normalize" => {
            for normalizer in Normalizer::ALL {
                let seconds =
                    best(rounds(20)?, || pairs.iter().map(|(r, h)| normalizer.normalize(r).len() + normalizer.normalize(h).len()).sum());
                println!("{}", json!({"work": normalizer.id(), "lines_per_s": (2.0 * pairs.len() as f64 / seconds).round()}));
            }
        }
        "time" => {
            let rounds = rounds(20)?;
            let characters = || pairs.iter().map(|(r, h)| character_errors(r, h)).sum::<WordErrors>().errors();
            println!("{}", json!({"work": "characters", "seconds": best(rounds, characters)}));
            for aligner in Aligner::ALL {
                let words = || {
                    let errors = |(r, h): &(String, String)| aligner.align(r, h).map_or_else(|_| WordErrors::default(), |a| a.errors());
                    pairs.iter().map(errors).sum::<WordErrors>().errors()
                };
                let name = if aligner == Aligner::Levenshtein { "words".to_string() } else { format!("words, {}", aligner.id()) };
                println!("{}", json!({"work": name, "seconds": best(rounds, words)}));
            }
            let scoring = Scoring::new(Normalizer::Whisper, Aligner::Levenshtein, None)?;
            let all = || pairs.iter().map(|(r, h)| scoring.score(r, h).map_or(0, |s| s.words.errors() + s.characters.errors())).sum();
            println!("{}", json!({"work": "whisper normaliser, words and characters", "seconds": best(rounds, all)}));
        }
        _ => return Err(format!("{mode}: want time, normalize or counts").into()),
    }
    Ok(())
}

/// Processor seconds of the fastest round; a round repeats the work for a tenth of a second, as the clock ticks seldom.
fn best(rounds: usize, work: impl Fn() -> usize) -> f64 {
    let seconds = |_| {
        let (start, mut repeats) = (clock(), 0);
        while repeats == 0 || clock() - start < 0.1 {
            black_box(work());
            repeats += 1;
        }
        (clock() - start) / f64::from(repeats)
    };
    (0..rounds.max(1)).map(seconds).fold(f64::INFINITY, f64::min)
}

/// Seconds this program has been on a processor, where the system says so, else since the first call.
fn clock() -> f64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let nanoseconds = std::fs::read_to_string("/proc/self/schedstat").ok().and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    nanoseconds.map_or_else(|| START.elapsed().as_secs_f64(), |ns| 1e-9 * ns)
}
