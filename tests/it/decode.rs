//! The beam search against full enumeration, against other decoders' answers, and against itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use omniscribe::decode::Hypothesis;
use omniscribe::decode::alphabet::Alphabet;
use omniscribe::decode::beam::{BeamConfig, BeamSearch, Paths};
use omniscribe::decode::ctc::{Run, collapse, greedy};
use omniscribe::decode::fusion::{Ends, Language, LanguageModel, Scorers, Unit};
use omniscribe::decode::grammar::Grammar;
use omniscribe::decode::hotwords::Hotwords;
use omniscribe::decode::lexicon::Lexicon;
use omniscribe::decode::ngram::{NgramModel, UNKNOWN};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use serde_json::Value;

use crate::oracle;

const FOLDER: &str = "05_ctc_decode";

/// The golden README's tolerance of scores by full enumeration.
const EXACT: f64 = 1e-6;
/// How far below another decoder's text ours may be under the same formula (the golden README's): both prune.
const HEURISTIC: f64 = 0.05;
/// Share of utterances with the same best text as another decoder's without a language model (the golden README's).
const SAME_TEXT: f64 = 0.9;
/// A score is the f64 sum rounded to f32; the reference is summed in another order.
const ROUNDING: f64 = 2e-5;

fn file(name: &str) -> PathBuf {
    oracle::find(&format!("{FOLDER}/{name}"))
}

fn rows(name: &str) -> Vec<Value> {
    oracle::json_lines(&format!("{FOLDER}/{name}"))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("not a number: {value}"))
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_string()).collect()
}

/// The last of `labels` without its name where that is the blank's.
fn alphabet(labels: &[String], blank: usize) -> Alphabet {
    Alphabet::new(labels.to_vec(), blank as u32).unwrap()
}

fn search(alphabet: &Alphabet, config: &BeamConfig, scorers: &Scorers) -> BeamSearch {
    BeamSearch::new(alphabet.clone(), config.clone(), scorers).unwrap()
}

fn add(paths: Paths, a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if paths == Paths::Best || low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// ln P(text) over all ways to spell it with one-character tokens, extra spaces included, by a forward pass over the text.
fn audio(log_probs: &[f32], alphabet: &Alphabet, text: &str, paths: Paths) -> f64 {
    let vocab = alphabet.vocab();
    let blank = alphabet.blank() as usize;
    let token_of =
        |c: char| (0..vocab as u32).find(|&t| if c == ' ' { alphabet.is_separator(t) } else { alphabet.text(&[t]) == c.to_string() });
    let tokens: Vec<usize> = text.chars().map(|c| token_of(c).unwrap() as usize).collect();
    let space = token_of(' ').map(|t| t as usize);
    // Places: before the text, at each of its characters, in spaces after it. Each after a blank, and after its token.
    let end = tokens.len() + 1;
    let mut alpha = vec![[f64::NEG_INFINITY; 2]; end + 1];
    alpha[0][0] = 0.0;
    for row in log_probs.chunks_exact(vocab) {
        let mut next = vec![[f64::NEG_INFINITY; 2]; end + 1];
        for place in 0..=end {
            let spaced = place == 0 || place == end || Some(tokens[place - 1]) == space;
            for (kind, &from) in alpha[place].iter().enumerate() {
                let mut go =
                    |to: usize, kind: usize, token: usize| next[to][kind] = add(paths, next[to][kind], from + f64::from(row[token]));
                go(place, 0, blank);
                if let Some(space) = space {
                    if spaced {
                        go(place, 1, space);
                    } else if place == tokens.len() {
                        go(end, 1, space);
                    }
                }
                if place > 0 && place < end && !spaced && kind == 1 {
                    go(place, 1, tokens[place - 1]);
                }
                if place < tokens.len()
                    && !(kind == 1 && place > 0 && tokens[place] == tokens[place - 1])
                    && !(spaced && Some(tokens[place]) == space)
                {
                    go(place + 1, 1, tokens[place]);
                }
            }
        }
        alpha = next;
    }
    let last = [alpha[tokens.len()], if tokens.is_empty() { [f64::NEG_INFINITY; 2] } else { alpha[end] }].concat();
    last.into_iter().fold(f64::NEG_INFINITY, |a, b| add(paths, a, b))
}

/// What `text` is worth, word by word from the formula in the documentation of `fusion`.
fn worth(scorers: &Scorers, text: &str) -> f64 {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut total = 0.0;
    let expected: Vec<&str> = scorers.hotwords.phrases().iter().flat_map(|h| h.phrase.split(' ')).collect();
    if let Some(lm) = &scorers.language_model {
        let characters: Vec<String> = text.chars().map(|c| if c == ' ' { "|".into() } else { c.to_string() }).collect();
        let units: Vec<&str> = if lm.unit == Unit::Word { words.clone() } else { characters.iter().map(String::as_str).collect() };
        let mut state = if lm.ends == Ends::Fragment { lm.model.empty() } else { lm.model.start() };
        for unit in units {
            let id = lm.model.word(unit);
            let (log_prob, next) = lm.model.score(&state, id.unwrap_or(UNKNOWN));
            let waived = lm.unit == Unit::Word && expected.contains(&unit);
            let penalty = if id.is_none() && !waived { lm.oov_penalty } else { 0.0 };
            total += f64::from(lm.alpha) * f64::from(log_prob) + f64::from(lm.beta) + f64::from(penalty);
            state = next;
        }
        if lm.ends == Ends::Sentence {
            total += f64::from(lm.alpha) * f64::from(lm.model.score_end(&state));
        }
    }
    let padded = format!(" {text} ");
    for hotword in scorers.hotwords.phrases() {
        let phrase = format!(" {} ", hotword.phrase);
        let count = (0..padded.len()).filter(|&at| padded.is_char_boundary(at) && padded[at..].starts_with(&phrase)).count();
        total += count as f64 * f64::from(hotword.boost);
    }
    total
}

fn language_model(name: &str) -> LanguageModel {
    LanguageModel::new(Arc::new(NgramModel::open(&file(name)).unwrap()))
}

fn exact(n_best: usize) -> BeamConfig {
    BeamConfig { n_best, ..BeamConfig::exact() }
}

#[test]
fn oracle_exact_probabilities_of_all_texts() {
    let tensors = oracle::tensors(&format!("{FOLDER}/exact.safetensors"));
    let mut cases = 0;
    for row in rows("exact_nbest.jsonl").iter().filter(|row| row["nbest"].is_array()) {
        let (name, blank) = (row["name"].as_str().unwrap(), row["blank"].as_u64().unwrap() as usize);
        let golden = &tensors[&format!("{name}.logp")];
        let labels: Vec<String> = (0..golden.shape[1]).map(|i| char::from(b'a' + i as u8).to_string()).collect();
        let alphabet = alphabet(&labels, blank);
        let found = search(&alphabet, &exact(usize::MAX), &Scorers::default()).decode(&golden.f32(), golden.shape[0]);
        assert_eq!(found.len(), row["n_sequences"].as_u64().unwrap() as usize, "{name}");
        let nbest = row["nbest"].as_array().unwrap();
        for (place, (ours, theirs)) in found.iter().zip(nbest).enumerate() {
            let ids: Vec<u32> = theirs["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
            assert_eq!(ours.tokens, ids, "{name}: {place}");
            let difference = (f64::from(ours.score) - number(&theirs["logp"])).abs();
            assert!(difference <= EXACT, "{name}: {place}: {} {theirs}, {difference:e}", ours.score);
        }
        let all = found.iter().fold(f64::NEG_INFINITY, |sum, h| add(Paths::Sum, sum, f64::from(h.score)));
        assert!((all - number(&row["logsumexp_all"])).abs() <= EXACT, "{name}: {all}");
        cases += 1;
    }
    assert!(cases > 0);
}

#[test]
fn oracle_exact_fusion_with_a_language_model() {
    let tensors = oracle::tensors(&format!("{FOLDER}/exact.safetensors"));
    let mut cases = 0;
    for row in rows("exact_nbest.jsonl").iter().filter(|row| row["lm"].is_string()) {
        let name = row["name"].as_str().unwrap();
        let golden = &tensors[&format!("{name}.logp")];
        let alphabet = alphabet(&strings(&row["labels"]), row["blank"].as_u64().unwrap() as usize);
        for (key, ends) in [("nbest_without_eos", Ends::Start), ("nbest_with_eos", Ends::Sentence)] {
            let lm = LanguageModel {
                unit: Unit::Word,
                alpha: number(&row["alpha"]) as f32,
                beta: number(&row["beta"]) as f32,
                oov_penalty: number(&row["unk_penalty"]) as f32,
                ends,
                ..language_model(row["lm"].as_str().unwrap())
            };
            let scorers = Scorers { language_model: Some(lm), ..Scorers::default() };
            let nbest = row[key].as_array().unwrap();
            let found = search(&alphabet, &exact(nbest.len()), &scorers).decode(&golden.f32(), golden.shape[0]);
            for (place, (ours, theirs)) in found.iter().zip(nbest).enumerate() {
                assert_eq!(alphabet.text(&ours.tokens), theirs["text"].as_str().unwrap(), "{name} {key}: {place}");
                for (part, ours) in [("total", ours.score), ("logp_ctc", ours.acoustic()), ("lm_part", ours.language)] {
                    let difference = (f64::from(ours) - number(&theirs[part])).abs();
                    assert!(difference <= EXACT, "{name} {key}: {place}: {part} {ours} {}, {difference:e}", theirs[part]);
                }
            }
            assert_eq!(found.len(), nbest.len());
            cases += 1;
        }
    }
    assert!(cases > 0);
}

/// Emissions of the golden utterances as log-probabilities, and their alphabet.
struct Emissions {
    alphabet: Alphabet,
    log_probs: BTreeMap<String, Vec<f32>>,
}

impl Emissions {
    fn read() -> Self {
        let labels = oracle::json(&format!("{FOLDER}/labels.json"));
        let alphabet = alphabet(&strings(&labels["labels"]), labels["blank_id"].as_u64().unwrap() as usize);
        let vocab = alphabet.vocab();
        let log_softmax = |row: &[f64]| {
            let sum = row.iter().fold(f64::NEG_INFINITY, |sum, &x| add(Paths::Sum, sum, x));
            row.iter().map(|x| (x - sum) as f32).collect::<Vec<f32>>()
        };
        let tensors = oracle::tensors(&format!("{FOLDER}/emissions.safetensors"));
        let named = tensors
            .iter()
            .map(|(name, t)| (name.trim_end_matches(".logits").into(), t.values.chunks(vocab).flat_map(log_softmax).collect()));
        Self { log_probs: named.collect(), alphabet }
    }

    fn decode(&self, utterance: &str, config: &BeamConfig, scorers: &Scorers) -> Vec<Hypothesis> {
        let log_probs = &self.log_probs[utterance];
        search(&self.alphabet, config, scorers).decode(log_probs, log_probs.len() / self.alphabet.vocab())
    }

    fn score(&self, utterance: &str, text: &str, config: &BeamConfig, scorers: &Scorers) -> f64 {
        audio(&self.log_probs[utterance], &self.alphabet, text, config.paths) + worth(scorers, text)
    }
}

fn word_errors(reference: &str, text: &str) -> usize {
    let theirs: Vec<&str> = text.split_whitespace().collect();
    let mut costs: Vec<usize> = (0..=theirs.len()).collect();
    for (i, word) in reference.split_whitespace().enumerate() {
        let mut diagonal = std::mem::replace(&mut costs[0], i + 1);
        for j in 0..theirs.len() {
            let substituted = diagonal + usize::from(word != theirs[j]);
            diagonal = costs[j + 1];
            costs[j + 1] = substituted.min(diagonal + 1).min(costs[j] + 1);
        }
    }
    costs[theirs.len()]
}

/// What is the same and what is better, over the utterances of a variant.
#[derive(Default)]
struct Tally {
    utterances: usize,
    same_text: usize,
    worst: f64,
    below: Vec<String>,
    /// Word errors: ours, theirs.
    errors: (usize, usize),
}

impl Tally {
    /// Compares our answer with another decoder's text.
    fn compare(&mut self, what: &str, emissions: &Emissions, row: &Value, config: &BeamConfig, scorers: &Scorers) {
        let utterance = row["utt"].as_str().unwrap();
        let found = emissions.decode(utterance, config, scorers);
        let text = emissions.alphabet.text(&found[0].tokens);
        let theirs = row["nbest"][0]["text"].as_str().unwrap();
        let (our_score, their_score) =
            (emissions.score(utterance, &text, config, scorers), emissions.score(utterance, theirs, config, scorers));
        // What the search has pruned is missing from its own score, which can never be more than the whole.
        assert!(
            f64::from(found[0].score) <= our_score + ROUNDING * our_score.abs().max(1.0),
            "{what} {utterance}: {} {our_score}",
            found[0].score
        );
        if our_score < their_score - HEURISTIC {
            self.below.push(format!("{what} {utterance}: {text:?} {our_score}, theirs {theirs:?} {their_score}"));
        }
        let reference = rows("emissions.jsonl").iter().find(|r| r["name"] == utterance).and_then(|r| r["ref"].as_str().map(String::from));
        if let Some(reference) = reference {
            self.errors.0 += word_errors(&reference, &text);
            self.errors.1 += word_errors(&reference, theirs);
        }
        self.utterances += 1;
        self.same_text += usize::from(text == theirs);
        self.worst = self.worst.max(their_score - our_score);
    }

    fn check(&self, what: &str) {
        println!(
            "{what}: {} of {} texts the same, at worst {:.4} below, word errors {:?}",
            self.same_text, self.utterances, self.worst, self.errors
        );
        assert!(self.utterances > 0, "{what}");
        assert!(self.below.is_empty(), "{}", self.below.join("\n"));
    }
}

/// Variants of pyctcdecode are described in words: `alpha .5 beta 1.5 unk_score_offset -10 lm_score_boundary True`, `as OTHER`, `no LM`.
fn pyctcdecode_scorers(builds: &Value, variant: &str, call: &Value) -> Scorers {
    let mut build = builds[variant].as_str().unwrap_or("no LM");
    while let Some(other) = build.strip_prefix("as ") {
        build = builds[other].as_str().unwrap();
    }
    let hotwords = call["hotwords"].as_array().map_or(String::new(), |words| {
        words.iter().map(|w| format!("{}:{}\n", w.as_str().unwrap(), number(&call["hotword_weight"]))).collect()
    });
    let hotwords = Hotwords::parse(&hotwords, "hotwords").unwrap();
    let words: Vec<&str> = build.split_whitespace().collect();
    let of = |name: &str| words.iter().position(|w| *w == name).map(|at| words[at + 1]);
    let language_model = (build != "no LM").then(|| {
        let float = |name: &str, otherwise: f32| of(name).map_or(otherwise, |v| v.parse().unwrap());
        let alpha = float("alpha", 0.5);
        LanguageModel {
            alpha,
            beta: float("beta", 1.5),
            // There it is in log10 and part of what alpha weighs.
            oov_penalty: alpha * float("unk_score_offset", -10.0) * std::f32::consts::LN_10,
            ends: if of("lm_score_boundary") == Some("False") { Ends::Fragment } else { Ends::Sentence },
            ..language_model("lm3.arpa")
        }
    });
    Scorers { language_model, hotwords, ..Scorers::default() }
}

#[test]
fn oracle_pyctcdecode() {
    let emissions = Emissions::read();
    let variants = oracle::json(&format!("{FOLDER}/pyctcdecode_variants.json"));
    let answers = rows("pyctcdecode.jsonl");
    for (variant, call) in variants.as_object().unwrap().iter().filter(|(name, _)| !name.starts_with('_')) {
        let call = &call["call"];
        let defaults = BeamConfig::default();
        let config = BeamConfig {
            beam_width: call["beam_width"].as_u64().map_or(defaults.beam_width, |w| w as usize),
            beam_prune_log_prob: call["beam_prune_logp"].as_f64().map_or(defaults.beam_prune_log_prob, |p| p as f32),
            token_min_log_prob: call["token_min_logp"].as_f64().map_or(defaults.token_min_log_prob, |p| p as f32),
            ..defaults
        };
        let scorers = pyctcdecode_scorers(&variants["_build"], variant, call);
        let mut tally = Tally::default();
        for row in answers.iter().filter(|row| row["variant"] == variant.as_str()) {
            tally.compare(variant, &emissions, row, &config, &scorers);
        }
        tally.check(variant);
        if variant.starts_with("nolm") {
            assert!(tally.same_text as f64 >= SAME_TEXT * tally.utterances as f64, "{variant}");
        }
    }
}

#[test]
fn oracle_flashlight() {
    let emissions = Emissions::read();
    let variants = oracle::json(&format!("{FOLDER}/flashlight_variants.json"));
    let answers = rows("flashlight.jsonl");
    for (variant, options) in variants.as_object().unwrap().iter().filter(|(name, _)| !name.starts_with('_')) {
        let config = BeamConfig {
            beam_width: options["beam_size"].as_u64().unwrap() as usize,
            beam_prune_log_prob: -number(&options["beam_threshold"]) as f32,
            token_min_log_prob: f32::NEG_INFINITY,
            paths: if options["log_add"] == true { Paths::Sum } else { Paths::Best },
            ..BeamConfig::default()
        };
        let language_model = options["lm"].as_str().map(|name| LanguageModel {
            // There the language model's log10 is weighed.
            alpha: number(&options["lm_weight"]) as f32 / std::f32::consts::LN_10,
            beta: number(&options["word_score"]) as f32,
            ..language_model(name)
        });
        let language = match options["lexicon"].as_str() {
            Some(name) => Language::Lexicon(Arc::new(Lexicon::open(&file(name)).unwrap())),
            None => Language::Free,
        };
        let scorers = Scorers { language_model, language, ..Scorers::default() };
        let mut tally = Tally::default();
        for row in answers.iter().filter(|row| row["variant"] == variant.as_str()) {
            tally.compare(variant, &emissions, row, &config, &scorers);
        }
        tally.check(variant);
    }
}

/// A language model of the words `a`, `b`, `ab`, `ba` or of the characters `a`, `b` and the space.
fn small_model(unit: Unit) -> LanguageModel {
    let arpa = match unit {
        Unit::Word => {
            "\\data\\\nngram 1=6\nngram 2=5\n\n\\1-grams:\n-99\t<s>\t-0.4\n-0.7\t</s>\n-1.5\t<unk>\n-0.6\ta\t-0.3\n-0.9\tab\t-0.2\n-1.1\tba\t-0.5\n\n\
             \\2-grams:\n-0.2\t<s> a\n-0.5\ta ab\n-0.3\tab </s>\n-0.8\tba a\n-0.1\ta </s>\n\n\\end\\\n"
        }
        Unit::Character => {
            "\\data\\\nngram 1=6\nngram 2=4\n\n\\1-grams:\n-99\t<s>\t-0.2\n-0.9\t</s>\n-2\t<unk>\n-0.5\ta\t-0.4\n-0.8\tb\t-0.1\n-0.7\t|\t-0.3\n\n\
             \\2-grams:\n-0.3\t<s> b\n-0.4\ta |\n-0.2\t| a\n-0.6\tb b\n\n\\end\\\n"
        }
    };
    let file = tempfile::Builder::new().suffix(".arpa").tempfile().unwrap();
    std::fs::write(file.path(), arpa).unwrap();
    let lm = LanguageModel::new(Arc::new(NgramModel::open(file.path()).unwrap()));
    assert_eq!(lm.unit, unit);
    LanguageModel { alpha: 0.8, beta: 0.7, oov_penalty: -2.0, ..lm }
}

/// Pieces of a vocabulary: of characters, and of parts of words.
const CHARACTERS: [&str; 4] = ["", "a", " ", "b"];
const SUBWORDS: [&str; 5] = ["\u{2581}a", "b", "", "\u{2581}", "a"];

fn pieces(pieces: &[&str]) -> Alphabet {
    let blank = pieces.iter().position(|p| p.is_empty()).unwrap();
    alphabet(&pieces.iter().map(|p| p.to_string()).collect::<Vec<String>>(), blank)
}

/// What full enumeration says of a text.
#[derive(Clone)]
struct Enumerated {
    audio: f64,
    /// The best path, its score and that of the second best.
    path: Vec<u32>,
    score: f64,
    second: f64,
}

/// Every text, by every path.
fn enumerate(log_probs: &[f32], alphabet: &Alphabet, paths: Paths) -> BTreeMap<String, Enumerated> {
    let vocab = alphabet.vocab();
    let steps = log_probs.len() / vocab;
    let mut found = BTreeMap::new();
    for number in 0..vocab.pow(steps as u32) {
        let path: Vec<u32> = (0..steps).map(|step| (number / vocab.pow(step as u32) % vocab) as u32).collect();
        let score: f64 = path.iter().enumerate().map(|(step, &token)| f64::from(log_probs[step * vocab + token as usize])).sum();
        let tokens: Vec<u32> = collapse(&path, alphabet.blank()).iter().map(|run| run.token).collect();
        let none = Enumerated { audio: f64::NEG_INFINITY, path: vec![], score: f64::NEG_INFINITY, second: f64::NEG_INFINITY };
        let text = found.entry(alphabet.text(&tokens)).or_insert(none);
        text.audio = add(paths, text.audio, score);
        text.second = text.second.max(score.min(text.score));
        if score > text.score {
            (text.path, text.score) = (path, score);
        }
    }
    found
}

/// Scores of random steps that sum to one, from numbers of any size.
fn normalised(numbers: &[f32], vocab: usize) -> Vec<f32> {
    let row = |row: &[f32]| {
        let sum = row.iter().map(|x| x.exp()).sum::<f32>().ln();
        row.iter().map(|x| x - sum).collect::<Vec<f32>>()
    };
    numbers.chunks_exact(vocab).flat_map(row).collect()
}

fn random_steps(vocab: usize, steps: std::ops::Range<usize>, sharp: f32) -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec(prop::collection::vec(-sharp..sharp, vocab), steps).prop_map(move |rows| normalised(&rows.concat(), vocab))
}

fn scorers(which: usize) -> Scorers {
    let hotwords = || Hotwords::parse("ab a:2.5\nBB:4\nb:-1\n", "hotwords").unwrap();
    let language_model = match which % 4 {
        0 => None,
        1 => Some(LanguageModel { ends: Ends::Start, ..small_model(Unit::Word) }),
        2 => Some(small_model(Unit::Word)),
        _ => Some(LanguageModel { ends: Ends::Fragment, ..small_model(Unit::Character) }),
    };
    Scorers { language_model, hotwords: if which < 4 { Hotwords::default() } else { hotwords() }, ..Scorers::default() }
}

fn language(which: usize) -> Language {
    match which {
        0 => Language::Free,
        1 => Language::Lexicon(Arc::new(Lexicon::parse("a\nAB\nbee\tb b\n", "lexicon").unwrap())),
        _ => Language::Grammar(Arc::new(Grammar::parse("public <s> = a (/3/ b | /1/ ab)* | (b | ba) [a];", "grammar").unwrap())),
    }
}

/// What the language adds to the score of a text that is not empty.
fn in_language(which: usize, text: &str) -> Option<f64> {
    let words: Vec<&str> = text.split(' ').collect();
    match which {
        _ if which == 0 || text.is_empty() => Some(0.0),
        1 => words.iter().all(|w| ["a", "ab", "bb"].contains(w)).then_some(0.0),
        _ if words[0] == "a" && words[1..].iter().all(|w| ["b", "ab"].contains(w)) => {
            Some(words[1..].iter().filter(|w| **w == "ab").count() as f64 * (1.0f64 / 3.0).ln())
        }
        _ => ["b", "ba", "b a", "ba a"].contains(&text).then_some(0.0),
    }
}

/// As [`worth`], with the words of the lexicon in the place of the spellings.
fn worth_in(which: usize, scorers: &Scorers, text: &str) -> f64 {
    let written: Vec<&str> = text.split_whitespace().map(|w| if which == 1 && w == "bb" { "bee" } else { w }).collect();
    let without = Scorers { hotwords: Hotwords::default(), ..scorers.clone() };
    let hotwords = worth(&Scorers { hotwords: scorers.hotwords.clone(), ..Scorers::default() }, text);
    // A hotword's word is not penalised under any of its names.
    let expected: Vec<&str> = scorers.hotwords.phrases().iter().flat_map(|h| h.phrase.split(' ')).collect();
    let lm = scorers.language_model.as_ref().filter(|lm| lm.unit == Unit::Word);
    let waived = lm.map_or(0.0, |lm| {
        let unknown = |(spelt, word): (&str, &&str)| expected.contains(&spelt) && lm.model.word(word).is_none();
        text.split_whitespace().zip(&written).filter(|&(spelt, word)| unknown((spelt, word))).count() as f64 * f64::from(lm.oov_penalty)
    });
    let spelt =
        if scorers.language_model.as_ref().is_some_and(|lm| lm.unit == Unit::Character) { text.to_string() } else { written.join(" ") };
    worth(&without, &spelt) - waived + hotwords
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn unlimited_search_is_full_enumeration(
        case in (0usize..8, 0usize..3, 0usize..2, any::<bool>()).prop_flat_map(|(scorers, language, vocabulary, best)| {
            let vocab = [CHARACTERS.len(), SUBWORDS.len()][vocabulary];
            (Just((scorers, language, vocabulary, best)), random_steps(vocab, 0..6, 4.0))
        })
    ) {
        let ((which, closed, vocabulary, best), log_probs) = case;
        let alphabet = [pieces(&CHARACTERS), pieces(&SUBWORDS)][vocabulary].clone();
        let scorers = Scorers { language: language(closed), ..scorers(which) };
        // Neither language has all of the hotwords' words.
        prop_assume!(closed != 1 || which < 4);
        let paths = if best { Paths::Best } else { Paths::Sum };
        let config = BeamConfig { paths, ..exact(usize::MAX) };
        let found = search(&alphabet, &config, &scorers).decode(&log_probs, log_probs.len() / alphabet.vocab());
        let all = enumerate(&log_probs, &alphabet, paths);
        let mut expected: Vec<(f64, f64, &str)> = all
            .iter()
            .filter_map(|(text, e)| Some((e.audio + worth_in(closed, &scorers, text) + in_language(closed, text)?, e.audio, &**text)))
            .collect();
        expected.sort_by(|a, b| b.0.total_cmp(&a.0));
        prop_assert_eq!(found.len(), expected.len());
        for (ours, (score, audio, text)) in found.iter().zip(&expected) {
            prop_assert!((f64::from(ours.score) - score).abs() < ROUNDING, "{:?} {} {} {}", ours, alphabet.text(&ours.tokens), score, text);
            // Texts with the same score come in any order.
            if alphabet.text(&ours.tokens) == *text {
                prop_assert!((f64::from(ours.acoustic()) - audio).abs() < ROUNDING);
                prop_assert_eq!(ours.hotwords, worth(&Scorers { hotwords: scorers.hotwords.clone(), ..Scorers::default() }, text) as f32);
            }
            let all_of_text = &all[&alphabet.text(&ours.tokens)];
            // Either of two equal paths will do.
            if all_of_text.score > all_of_text.second + ROUNDING {
                check_steps(ours, &all_of_text.path, &log_probs, &alphabet)?;
            }
        }
    }

    #[test]
    fn steps_at_a_time_change_nothing(
        log_probs in random_steps(CHARACTERS.len(), 0..120, 6.0),
        cuts in prop::collection::vec(0usize..20, 0..30),
        which in 0usize..8,
        closed in 0usize..3,
        width in 1usize..30,
    ) {
        prop_assume!(closed != 1 || which < 4);
        let alphabet = pieces(&CHARACTERS);
        let scorers = Scorers { language: language(closed), ..scorers(which) };
        let config = BeamConfig { beam_width: width, n_best: 5, ..BeamConfig::default() };
        let mut search = search(&alphabet, &config, &scorers);
        let vocab = alphabet.vocab();
        let whole = search.decode(&log_probs, log_probs.len() / vocab);
        let mut rest = &log_probs[..];
        let mut certain: Vec<u32> = vec![];
        for cut in cuts {
            let (now, later) = rest.split_at((cut * vocab).min(rest.len()));
            search.step(now, now.len() / vocab);
            rest = later;
            let best = search.best();
            let count = search.certain();
            prop_assert!(best.tokens.len() >= count && best.tokens.starts_with(&certain));
            certain = best.tokens[..count].to_vec();
        }
        search.step(rest, rest.len() / vocab);
        let flushed = search.flush();
        prop_assert!(flushed[0].tokens.starts_with(&certain));
        prop_assert_eq!(&flushed, &whole);
        prop_assert!(whole.windows(2).all(|pair| pair[0].score >= pair[1].score));
        let exact = audio(&log_probs, &alphabet, &alphabet.text(&whole[0].tokens), Paths::Sum);
        // A search that keeps less can only miss paths.
        prop_assert!(f64::from(whole[0].acoustic()) <= exact + ROUNDING * exact.abs().max(10.0), "{:?} {}", whole[0], exact);
        let text = alphabet.text(&whole[0].tokens);
        prop_assert!(in_language(closed, &text).is_some(), "{text:?}");
    }

    #[test]
    fn certain_steps_give_the_greedy_answer(path in prop::collection::vec(0u32..4, 0..60), which in 0usize..3) {
        let alphabet = pieces(&CHARACTERS);
        let log_probs: Vec<f32> = path.iter().flat_map(|&best| (0..4).map(move |t| if t == best { 0.0 } else { f32::NEG_INFINITY })).collect();
        let config = BeamConfig { beam_width: 1 + which, ..if which == 2 { BeamConfig::exact() } else { BeamConfig::default() } };
        let ours = search(&alphabet, &config, &Scorers::default()).decode(&log_probs, path.len()).swap_remove(0);
        let greedy = greedy(&log_probs, path.len(), 4, 0);
        prop_assert_eq!(alphabet.text(&ours.tokens), alphabet.text(&greedy.tokens));
        prop_assert_eq!(ours.score, 0.0);
        let spaces = |tokens: &[u32]| tokens.iter().filter(|&&t| t == 2).count();
        if spaces(&ours.tokens) == spaces(&greedy.tokens) {
            prop_assert_eq!((ours.steps, ours.token_log_probs), (greedy.steps, greedy.token_log_probs));
        }
    }

    #[test]
    fn garbage_is_survived(
        numbers in prop::collection::vec(prop_oneof![Just(f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY), -1e30f32..10.0, -5f32..0.0], 0..160),
        which in 0usize..8,
        closed in 0usize..3,
    ) {
        prop_assume!(closed != 1 || which < 4);
        let alphabet = pieces(&CHARACTERS);
        let log_probs = &numbers[..numbers.len() / 4 * 4];
        let scorers = Scorers { language: language(closed), ..scorers(which) };
        let found = search(&alphabet, &BeamConfig { n_best: 9, ..BeamConfig::default() }, &scorers).decode(log_probs, log_probs.len() / 4);
        prop_assert!(!found.is_empty() && found.iter().all(|h| !h.score.is_nan() && in_language(closed, &alphabet.text(&h.tokens)).is_some()));
        if log_probs.chunks(4).any(|row| row.iter().all(|p| p.is_nan() || *p == f32::NEG_INFINITY)) {
            prop_assert!(found.iter().all(|h| h.score == f32::NEG_INFINITY));
        }
    }
}

/// The steps of a hypothesis are where its tokens are most probable on the best path to them.
fn check_steps(ours: &Hypothesis, path: &[u32], log_probs: &[f32], alphabet: &Alphabet) -> Result<(), TestCaseError> {
    let log_prob = |step: usize, token: u32| log_probs[step * alphabet.vocab() + token as usize];
    let peak = |run: &Run| {
        (run.start..run.end).fold(run.start, |peak, step| if log_prob(step, run.token) > log_prob(peak, run.token) { step } else { peak })
    };
    // Of several separators in a row any one's step will do.
    let letters = |token: u32| !alphabet.is_separator(token);
    let runs = collapse(path, alphabet.blank());
    let expected: Vec<(u32, usize)> = runs.iter().filter(|run| letters(run.token)).map(|run| (run.token, peak(run))).collect();
    let steps: Vec<(u32, usize)> =
        ours.tokens.iter().copied().zip(ours.steps.iter().copied()).filter(|&(token, _)| letters(token)).collect();
    prop_assert_eq!(steps, expected);
    for ((&token, &step), &p) in ours.tokens.iter().zip(&ours.steps).zip(&ours.token_log_probs) {
        prop_assert_eq!(p, log_prob(step, token));
    }
    prop_assert!(ours.steps.is_sorted());
    Ok(())
}

/// A search that may keep more finds no worse text, in the limit none better than the best of all.
#[test]
fn wider_searches_reach_the_best_text() {
    let alphabet = pieces(&CHARACTERS);
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut narrow_worse, mut cases) = (0, 0);
    for _ in 0..60 {
        let log_probs = random_steps(4, 6..7, 1.5).new_tree(&mut runner).unwrap().current();
        let scorers = scorers(6);
        let texts = enumerate(&log_probs, &alphabet, Paths::Sum);
        let best = texts.iter().map(|(text, e)| e.audio + worth(&scorers, text)).fold(f64::MIN, f64::max);
        let scores: Vec<f64> = [1, 4, 64, usize::MAX]
            .map(|beam_width| {
                let found = search(&alphabet, &BeamConfig { beam_width, ..BeamConfig::exact() }, &scorers).decode(&log_probs, 6);
                f64::from(found[0].score)
            })
            .to_vec();
        assert!(scores.iter().all(|score| *score <= best + ROUNDING), "{scores:?} {best}");
        assert!((scores[3] - best).abs() < ROUNDING, "{scores:?} {best}");
        narrow_worse += usize::from(scores[0] < best - ROUNDING);
        cases += 1;
    }
    assert!(narrow_worse > cases / 4, "{narrow_worse} of {cases}: the cases are too easy to say anything");
}

/// Each token of `text` for one step with `certainty`, the rest shared by the others; a blank between equal ones.
fn spoken(alphabet: &Alphabet, text: &str, certainty: f32) -> Vec<f32> {
    let vocab = alphabet.vocab();
    let token = |c: char| {
        (0..vocab as u32).find(|&t| {
            t != alphabet.blank()
                && alphabet.symbols(t).len() == 1
                && (c == ' ') == alphabet.is_separator(t)
                && (c == ' ' || alphabet.text(&[t]) == c.to_string())
        })
    };
    let tokens: Vec<u32> = text.chars().map(|c| token(c).unwrap()).collect();
    let steps = tokens.iter().enumerate().flat_map(|(at, &token)| {
        let twice = at > 0 && tokens[at - 1] == token;
        twice.then_some(alphabet.blank()).into_iter().chain([token])
    });
    let rest = ((1.0 - certainty) / (vocab - 1) as f32).ln();
    steps.flat_map(|best| (0..vocab as u32).map(move |t| if t == best { certainty.ln() } else { rest })).collect()
}

fn best_text(alphabet: &Alphabet, scorers: &Scorers, log_probs: &[f32]) -> String {
    let found = search(alphabet, &BeamConfig::default(), scorers).decode(log_probs, log_probs.len() / alphabet.vocab());
    alphabet.text(&found[0].tokens)
}

#[test]
fn hotwords_bring_out_words_the_language_model_has_never_seen() {
    let alphabet = pieces(&CHARACTERS);
    let model = || LanguageModel { oov_penalty: -6.0, alpha: 1.0, ..small_model(Unit::Word) };
    let lm =
        |hotwords: &str| Scorers { language_model: Some(model()), hotwords: Hotwords::from_list(hotwords).unwrap(), ..Scorers::default() };
    let log_probs = spoken(&alphabet, "a bbab", 0.6);
    let without = best_text(&alphabet, &lm(""), &log_probs);
    assert_ne!(without, "a bbab");
    // Waiving the penalty is not enough; the boost is, in any casing.
    assert_eq!(best_text(&alphabet, &lm("bbab:0"), &log_probs), without);
    assert_eq!(best_text(&alphabet, &lm("A BBaB:6"), &log_probs), "a bbab");
    // A boost is for whole phrases: a beginning alone gains nothing.
    assert_eq!(best_text(&alphabet, &lm("bbab a:9"), &log_probs), without);
}

#[test]
fn closed_languages_answer_with_their_sentences_or_nothing() {
    let alphabet = pieces(&CHARACTERS);
    let closed = |which: usize| Scorers { language: language(which), ..Scorers::default() };
    assert_eq!(best_text(&alphabet, &closed(1), &spoken(&alphabet, "a bb ab", 0.9)), "a bb ab");
    assert_eq!(best_text(&alphabet, &closed(2), &spoken(&alphabet, "a bb ab", 0.9)), "a b ab");
    // Blanks alone, and a sentence that never gets to its end.
    assert_eq!(best_text(&alphabet, &closed(2), &[0.97f32, 0.01, 0.01, 0.01].repeat(20).iter().map(|p| p.ln()).collect::<Vec<_>>()), "");
    let grammar = Grammar::parse("public <s> = a b a b a b a b;", "g").unwrap();
    let scorers = Scorers { language: Language::Grammar(Arc::new(grammar)), ..Scorers::default() };
    let found =
        search(&alphabet, &BeamConfig { n_best: 3, ..BeamConfig::default() }, &scorers).decode(&spoken(&alphabet, "a b a b", 0.99), 7);
    assert_eq!((found.len(), found[0].tokens.len()), (1, 0));
}

#[test]
fn a_lexicon_scores_the_words_and_not_their_spellings() {
    let alphabet = pieces(&CHARACTERS);
    let lexicon = Arc::new(Lexicon::parse("ba\tb b\na\n", "lexicon").unwrap());
    let scorers =
        Scorers { language_model: Some(small_model(Unit::Word)), language: Language::Lexicon(lexicon.clone()), ..Scorers::default() };
    let found = search(&alphabet, &BeamConfig::default(), &scorers).decode(&spoken(&alphabet, "bb a", 0.99), 5).swap_remove(0);
    let text = alphabet.text(&found.tokens);
    assert_eq!((text.as_str(), lexicon.written("bb")), ("bb a", "ba"));
    let without_spelling = Scorers { language: Language::Free, ..scorers };
    assert!((f64::from(found.language) - worth(&without_spelling, "ba a")).abs() < ROUNDING);
}

#[test]
fn what_can_never_match_is_refused() {
    let alphabet = pieces(&CHARACTERS);
    let message = |config: BeamConfig, scorers: Scorers| BeamSearch::new(alphabet.clone(), config, &scorers).unwrap_err().to_string();
    let lexicon = |text: &str| Language::Lexicon(Arc::new(Lexicon::parse(text, "words.txt").unwrap()));
    let grammar = |text: &str| Language::Grammar(Arc::new(Grammar::parse(text, "rules.gram").unwrap()));
    let default = Scorers::default;
    for (scorers, part) in [
        (Scorers { hotwords: Hotwords::from_list("ab, cab").unwrap(), ..default() }, "\"cab\" can never match: no token spells 'c'"),
        (Scorers { language: lexicon("a\nac"), ..default() }, "words.txt:2: no token spells 'c' of \"ac\""),
        (
            Scorers { language: lexicon("a"), hotwords: Hotwords::from_list("a b").unwrap(), ..default() },
            "\"b\" can never match: it is not in words.txt",
        ),
        (Scorers { language: grammar("public <s> =\n a ac;"), ..default() }, "rules.gram:2: column 4: no token spells 'c'"),
        (
            Scorers { language_model: Some(LanguageModel { alpha: f32::NAN, ..small_model(Unit::Word) }), ..default() },
            "alpha is NaN, it must be finite",
        ),
    ] {
        let message = message(BeamConfig::default(), scorers);
        assert!(message.contains(part), "{message}");
    }
    for (config, part) in [
        (BeamConfig { beam_width: 0, ..BeamConfig::default() }, "beam_width is 0"),
        (BeamConfig { beam_prune_log_prob: 1.0, ..BeamConfig::default() }, "beam_prune_log_prob is 1"),
        (BeamConfig { token_min_log_prob: f32::NAN, ..BeamConfig::default() }, "must be numbers"),
    ] {
        let message = message(config, default());
        assert!(message.contains(part), "{message}");
    }
    // Language models of another alphabet.
    let greek = Alphabet::new(["", "α", "β", " "].map(String::from).to_vec(), 0).unwrap();
    for (unit, part) in
        [(Unit::Word, "tokens spell 0 of its 3 words (\"a\": no token spells 'a')"), (Unit::Character, "it knows 0 of 2 letters")]
    {
        let scorers = Scorers { language_model: Some(small_model(unit)), ..default() };
        let message = BeamSearch::new(greek.clone(), BeamConfig::default(), &scorers).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn blank_pruning_skips_what_is_nearly_blank() {
    let alphabet = pieces(&CHARACTERS);
    let row = |p: [f32; 4]| p.map(f32::ln);
    let log_probs = [row([0.9, 0.08, 0.01, 0.01]), row([0.2, 0.1, 0.1, 0.6])].concat();
    let texts = |blank: f32| {
        let config = BeamConfig { blank_prune_log_prob: blank.ln(), n_best: 20, ..BeamConfig::default() };
        let found = search(&alphabet, &config, &Scorers::default()).decode(&log_probs, 2);
        found.iter().map(|h| alphabet.text(&h.tokens)).collect::<Vec<String>>()
    };
    assert!(texts(0.95).contains(&"ab".into()));
    assert_eq!(texts(0.85), ["b", "", "a"]);
}
