//! Times the beam search on the emissions and settings that `decoding.py` exports; called by that script, which times the peers in the same run.
//!
//! `decoding --emissions FILE.safetensors --settings FILE.json --seconds S` prints one JSON object: `cpu_s` (processor time of one pass over
//! all utterances, best pass), `passes`, `texts`. `--score FILE.json` (utterance -> text) prints the score of each text instead, by our formula.
//!
//! Settings: `labels`, `blank`, `beam_width`, `token_min_log_prob`, `beam_prune_log_prob` (null: none), `paths` (`sum`, `best`), and where
//! wanted `lm`, `alpha`, `beta`, `oov_penalty`, `ends` (`sentence`, `fragment`), `lexicon`, `hotwords`.

#![allow(clippy::print_stdout, clippy::unwrap_used)] // the result; a broken call ends the bench

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use omniscribe::decode::alphabet::Alphabet;
use omniscribe::decode::beam::{BeamConfig, BeamSearch, Paths};
use omniscribe::decode::fusion::{Ends, Language, LanguageModel, Scorers};
use omniscribe::decode::grammar::Grammar;
use omniscribe::decode::hotwords::Hotwords;
use omniscribe::decode::lexicon::Lexicon;
use omniscribe::decode::ngram::NgramModel;
use serde_json::{Value, json};

/// Nanoseconds this process has run on a processor.
fn cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse().unwrap()
}

fn read(path: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// `[steps, vocab]` of each utterance.
fn emissions(path: &str) -> BTreeMap<String, Vec<f32>> {
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let floats = |data: &[u8]| data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    file.iter().map(|(name, view)| (name.to_string(), floats(view.data()))).collect()
}

fn scorers(settings: &Value) -> Scorers {
    let float = |key: &str| settings[key].as_f64().map(|v| v as f32);
    let language_model = settings["lm"].as_str().map(|path| {
        let model = LanguageModel::new(Arc::new(NgramModel::open(Path::new(path)).unwrap()));
        LanguageModel {
            alpha: float("alpha").unwrap_or(model.alpha),
            beta: float("beta").unwrap_or(model.beta),
            oov_penalty: float("oov_penalty").unwrap_or(model.oov_penalty),
            ends: if settings["ends"] == "fragment" { Ends::Fragment } else { Ends::Sentence },
            ..model
        }
    });
    let language = match settings["lexicon"].as_str() {
        Some(path) => Language::Lexicon(Arc::new(Lexicon::open(Path::new(path)).unwrap())),
        None => Language::Free,
    };
    let hotwords = Hotwords::from_list(settings["hotwords"].as_str().unwrap_or_default()).unwrap();
    Scorers { language_model, language, hotwords }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let of = |name: &str| arguments.iter().position(|a| a == name).map(|at| arguments[at + 1].clone());
    let Some((emissions_path, settings)) = of("--emissions").zip(of("--settings")) else {
        println!("run by benchmarks/decoding.py");
        return;
    };
    let (emissions, settings) = (emissions(&emissions_path), read(&settings));
    let labels = settings["labels"].as_array().unwrap().iter().map(|l| l.as_str().unwrap().to_string()).collect();
    let alphabet = Alphabet::new(labels, settings["blank"].as_u64().unwrap() as u32).unwrap();
    let vocab = alphabet.vocab();
    let threshold = |key: &str| settings[key].as_f64().map_or(f32::NEG_INFINITY, |v| v as f32);
    let config = BeamConfig {
        beam_width: settings["beam_width"].as_u64().unwrap() as usize,
        token_min_log_prob: threshold("token_min_log_prob"),
        beam_prune_log_prob: threshold("beam_prune_log_prob"),
        paths: if settings["paths"] == "best" { Paths::Best } else { Paths::Sum },
        ..BeamConfig::default()
    };
    let scorers = scorers(&settings);

    if let Some(texts) = of("--score") {
        // The score of a text is what a search finds that may answer nothing else but nothing, and drops nothing.
        let config = BeamConfig { paths: config.paths, n_best: 2, ..BeamConfig::exact() };
        let score = |name: &str, text: &str| {
            let words: Vec<String> = text.split_whitespace().map(|word| format!("\"{word}\"")).collect();
            let words = if words.is_empty() { "a".into() } else { words.join(" ") };
            let grammar = Grammar::parse(&format!("public <s> = {words};"), "text").unwrap();
            let language = Language::Grammar(Arc::new(grammar));
            let mut search = BeamSearch::new(alphabet.clone(), config.clone(), &Scorers { language, ..scorers.clone() }).unwrap();
            let found = search.decode(&emissions[name], emissions[name].len() / vocab);
            found.iter().find(|h| alphabet.text(&h.tokens) == text).map(|h| h.score)
        };
        let scores: BTreeMap<String, Option<f32>> =
            read(&texts).as_object().unwrap().iter().map(|(name, text)| (name.clone(), score(name, text.as_str().unwrap()))).collect();
        println!("{}", json!({ "scores": scores }));
        return;
    }

    let mut search = BeamSearch::new(alphabet.clone(), config, &scorers).unwrap();
    let seconds = Duration::from_secs_f64(of("--seconds").map_or(1.0, |s| s.parse().unwrap()));
    let start = Instant::now();
    let mut best = u64::MAX;
    let mut passes = 0;
    let mut texts = BTreeMap::new();
    while passes < 3 || start.elapsed() < seconds {
        let before = cpu_ns();
        for (name, log_probs) in &emissions {
            let found = search.decode(log_probs, log_probs.len() / vocab);
            texts.insert(name.clone(), alphabet.text(&found[0].tokens));
        }
        best = best.min(cpu_ns() - before);
        passes += 1;
    }
    println!("{}", json!({ "cpu_s": best as f64 / 1e9, "passes": passes, "texts": texts }));
}
