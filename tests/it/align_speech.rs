//! The prices of a loose alignment on real speech. Needs the dev set and takes minutes: run with
//! `cargo test --release align_speech -- --ignored --nocapture`.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use omniscribe::audio::{Limits, Reader};
use omniscribe::decode::align::{Alignment, Fit, Matrix, Options, align};
use omniscribe::features::FrontEnd;
use omniscribe::model::pass::Pass;
use omniscribe::pipeline::batch::recognize;
use omniscribe::text::target;
use omniscribe::units::SampleRate;
use omniscribe::{ModelDirectory, Precision};

/// Every how manieth utterance of dev is taken.
const EVERY: usize = 3;
/// Bounds for any model that is no worse than the one the prices were chosen with, see `Costs::default`.
const MOST_FALSE: f64 = 0.04;
const LEAST_FOUND: f64 = 0.90;
const LEAST_KEPT: f64 = 0.85;

struct Utterance {
    log_probs: Vec<f32>,
    words: Vec<Vec<u32>>,
}

/// Utterances of at least four words, with the log-probabilities of `models/base`, its vocabulary, blank and separator.
fn dev() -> (Vec<Utterance>, usize, Options) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let speech: PathBuf = root.join("../shared/speech");
    let device = Device::flex();
    let directory = ModelDirectory::open(&root.join("models/base")).unwrap();
    let model = directory.model(&device).unwrap();
    let front_end = FrontEnd::new(directory.config.front_end.clone()).unwrap();
    let tokenizer = &directory.tokenizer;
    let separator = tokenizer.encode(" ").unwrap()[0];
    let mut utterances = vec![];
    for line in std::fs::read_to_string(speech.join("dev.jsonl")).unwrap().lines().step_by(EVERY) {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let Some(text) = target(row["text"].as_str().unwrap()) else { continue };
        let words: Vec<_> = text.split(' ').map(|word| tokenizer.encode(word).unwrap()).collect();
        if words.len() < 4 {
            continue;
        }
        let mut reader = Reader::open(&speech.join(row["audio_filepath"].as_str().unwrap()), &Limits::default()).unwrap();
        let samples = reader.read_to_end_at(SampleRate::HZ_16000).unwrap().samples;
        let log_probs = recognize(&model, &[front_end.compute(&samples)], &Pass::inference(Precision::Bf16), &device).log_probs.remove(0);
        utterances.push(Utterance { log_probs, words });
    }
    (utterances, model.vocab(), Options::new(tokenizer.blank(), Some(separator)))
}

#[test]
#[ignore = "needs ../shared"]
fn words_put_in_and_taken_out() {
    let (utterances, vocab, loose) = dev();
    let of = |utterance: &Utterance, words: &[Vec<u32>], options: &Options| -> Option<Alignment> {
        align(&mut Matrix::new(&utterance.log_probs, vocab), words, options).ok()
    };
    let missing = |alignment: &Alignment| alignment.words.iter().filter(|w| w.is_none()).count() as f64;
    let all: Vec<&Vec<u32>> = utterances.iter().flat_map(|u| &u.words).collect();
    let (mut said, mut falsely, mut put_in, mut found, mut beside, mut kept) = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
    for (i, utterance) in utterances.iter().enumerate() {
        let words = &utterance.words;
        let Some(exact) = of(utterance, words, &Options { fit: Fit::Exact, ..loose }) else { continue };
        said += words.len() as f64;
        falsely += missing(&of(utterance, words, &loose).unwrap());

        // One to three words from elsewhere.
        let (at, count) = (i * 7 % (words.len() + 1), 1 + i % 3);
        let mut more = words.clone();
        more.splice(at..at, (0..count).map(|k| all[(i * 131 + k * 17) % all.len()].clone()));
        let alignment = of(utterance, &more, &loose).unwrap();
        put_in += count as f64;
        found += alignment.words[at..at + count].iter().filter(|w| w.is_none()).count() as f64;

        // One or two words less: their neighbours stay where they are.
        let count = 1 + i % 2;
        let at = 1 + i * 5 % (words.len() - count - 1);
        let mut less = words.clone();
        less.drain(at..at + count);
        let alignment = of(utterance, &less, &loose).unwrap();
        for (now, before) in [(at - 1, at - 1), (at, at + count)] {
            let before = exact.words[before].as_ref().unwrap();
            let near = |w: &omniscribe::decode::align::AlignedWord| w.start.abs_diff(before.start) <= 3 && w.end.abs_diff(before.end) <= 3;
            beside += 1.0;
            kept += f64::from(u8::from(alignment.words[now].as_ref().is_some_and(near)));
        }
    }
    println!("{} utterances, {said} words: falsely missing {:.3}", utterances.len(), falsely / said);
    println!("put in and found missing {:.3}; neighbours of words taken out in place {:.3}", found / put_in, kept / beside);
    assert!(falsely / said <= MOST_FALSE && found / put_in >= LEAST_FOUND && kept / beside >= LEAST_KEPT);
}
