//! Speed of language model scores on one thread: nanoseconds of processor time per word.
//!
//! `cargo bench --bench lm -- MODEL TEXT [ROUNDS]`: sentences of TEXT, one per line, words between spaces, are turned into ids first and then
//! scored from `<s>` to `</s>`. Prints best and median nanoseconds per score, scores, and the sum of all log10 scores.

#![allow(clippy::print_stdout)] // the result

use std::time::Instant;

use omniscribe::decode::ngram::NgramModel;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).filter(|a| !a.starts_with('-'));
    let (Some(model), Some(text)) = (arguments.next(), arguments.next()) else { return Err("MODEL TEXT [ROUNDS]".into()) };
    let rounds = arguments.next().map_or(Ok(5), |rounds| rounds.parse::<usize>())?.max(1);
    let model = NgramModel::open(model.as_ref())?;
    let end = model.word("</s>").unwrap_or_default();
    let text = std::fs::read_to_string(text)?;
    let mut ids = Vec::new();
    for line in text.lines() {
        ids.extend(line.split_whitespace().map(|word| model.word(word).unwrap_or_default()));
        ids.push(end);
    }
    let mut sum = 0.0;
    let mut nanoseconds: Vec<f64> = (0..rounds)
        .map(|_| {
            let clock = Clock::start();
            let (mut state, mut total) = (model.start(), 0f32);
            sum = 0.0;
            for &id in &ids {
                let (score, next) = model.score(&state, id);
                total += score;
                state = next;
                if id == end {
                    state = model.start();
                    sum += f64::from(std::mem::take(&mut total));
                }
            }
            clock.nanoseconds() / ids.len() as f64
        })
        .collect();
    nanoseconds.sort_by(f64::total_cmp);
    println!("{:.1} {:.1} {} {:.1}", nanoseconds[0], nanoseconds[rounds / 2], ids.len(), sum / std::f64::consts::LN_10);
    Ok(())
}

/// Processor time of this thread where Linux says it, else wall time.
struct Clock(Option<f64>, Instant);

impl Clock {
    fn start() -> Self {
        Self(processor_time(), Instant::now())
    }

    fn nanoseconds(&self) -> f64 {
        match (processor_time(), self.0) {
            (Some(now), Some(then)) => now - then,
            _ => self.1.elapsed().as_nanos() as f64,
        }
    }
}

fn processor_time() -> Option<f64> {
    std::fs::read_to_string("/proc/thread-self/schedstat").ok()?.split(' ').next()?.parse().ok()
}
