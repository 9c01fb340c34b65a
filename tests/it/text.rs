use std::time::{Duration, Instant};

use omniscribe::decode::ctc::{collapse, greedy};
use omniscribe::eval::alignment::{Edit, align};
use omniscribe::eval::wer::{WordErrors, character_errors, word_errors};
use omniscribe::text::normalizer::{Diacritics, Letters, basic};
use omniscribe::text::{Normalizer, Tokenizer};
use serde_json::Value;

use crate::oracle;

/// Ratios of the same integers: only the last bits of a division may differ.
const RATE_TOLERANCE: f64 = 1e-12;

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap_or_else(|| panic!("{key} of {row}"))
}

fn number(row: &Value, key: &str) -> usize {
    row[key].as_u64().unwrap_or_else(|| panic!("{key} of {row}")) as usize
}

fn indices<T: TryFrom<u64, Error: std::fmt::Debug>>(list: &Value) -> Vec<T> {
    list.as_array().expect("list").iter().map(|v| v.as_u64().expect("index").try_into().expect("fits")).collect()
}

#[test]
fn oracle_english_normalizer() {
    let rows = oracle::json_lines("06_text/english_normalizer.jsonl");
    let wrong: Vec<_> = rows
        .iter()
        .map(|row| (text(row, "input"), Normalizer::Whisper.normalize(text(row, "input")), text(row, "expected")))
        .filter(|(_, ours, expected)| ours != expected)
        .collect();
    assert!(!rows.is_empty() && wrong.is_empty(), "{} of {} differ, the first: {:#?}", wrong.len(), rows.len(), wrong.first());
}

#[test]
fn oracle_basic_normalizer() {
    let rows = oracle::json_lines("06_text/basic_normalizer.jsonl");
    assert!(!rows.is_empty());
    for row in &rows {
        let input = text(row, "input");
        for (key, diacritics, letters) in [
            ("d0s0", Diacritics::Keep, Letters::Joined),
            ("d1s0", Diacritics::Remove, Letters::Joined),
            ("d0s1", Diacritics::Keep, Letters::Split),
            ("d1s1", Diacritics::Remove, Letters::Split),
        ] {
            assert_eq!(basic(input, diacritics, letters), text(row, key), "{key} of {input:?}");
        }
        assert_eq!(Normalizer::Basic.normalize(input), text(row, "d0s0"));
    }
}

#[test]
fn oracle_wer_pairs_and_corpus() {
    let rows = oracle::json_lines("06_text/wer_pairs.jsonl");
    let (mut words, mut characters) = (vec![], vec![]);
    for row in &rows {
        let (reference, hypothesis) = (text(row, "ref"), text(row, "hyp"));
        let errors = word_errors(reference, hypothesis);
        assert_eq!(errors.reference_words, number(row, "n_ref"), "{row}");
        assert_eq!(errors.errors(), number(row, "errors"), "{row}");
        assert!((number(row, "S_min")..=number(row, "S_max")).contains(&errors.substitutions), "{errors:?} of {row}");
        assert!((number(row, "H_min")..=number(row, "H_max")).contains(&errors.hits()), "{errors:?} of {row}");
        assert!((errors.wer() - row["wer"].as_f64().expect("wer")).abs() <= RATE_TOLERANCE, "{errors:?} of {row}");
        let by_character = character_errors(reference, hypothesis);
        assert!((by_character.wer() - row["cer"].as_f64().expect("cer")).abs() <= RATE_TOLERANCE, "{by_character:?} of {row}");
        words.push(errors);
        characters.push(by_character);
    }
    let corpus = oracle::json("06_text/wer_corpus.json");
    assert_eq!(rows.len(), number(&corpus, "n_pairs"));
    let total: WordErrors = words.iter().copied().sum();
    let counts = [total.hits(), total.substitutions, total.deletions, total.insertions];
    assert_eq!(counts, ["H", "S", "D", "I"].map(|key| number(&corpus, key)));
    let total: WordErrors = characters.into_iter().sum();
    let counts = [total.hits(), total.substitutions, total.deletions, total.insertions];
    assert_eq!(counts[..], indices::<usize>(&corpus["cer_HSDI"]));
    for subset in corpus["subsets"].as_array().expect("subsets") {
        let total: WordErrors = words[number(subset, "first")..number(subset, "last_exclusive")].iter().copied().sum();
        assert!((total.wer() - subset["wer"].as_f64().expect("wer")).abs() <= RATE_TOLERANCE, "{subset}");
    }
}

#[test]
fn oracle_alignment_chunks() {
    for row in oracle::json_lines("06_text/wer_pairs.jsonl") {
        let words = |key| text(&row, key).split_whitespace().collect::<Vec<_>>();
        let ours = align(&words("ref"), &words("hyp")).into_iter().map(|chunk| {
            let name = match chunk.edit {
                Edit::Equal => "equal",
                Edit::Substitute => "substitute",
                Edit::Delete => "delete",
                Edit::Insert => "insert",
            };
            serde_json::json!([name, chunk.reference.start, chunk.reference.end, chunk.hypothesis.start, chunk.hypothesis.end])
        });
        assert_eq!(Value::Array(ours.collect()), row["align"], "{row}");
    }
}

#[test]
fn oracle_normalised_wer() {
    let rows = oracle::json_lines("06_text/normalised_wer.jsonl");
    let mut total = WordErrors::default();
    for row in &rows {
        let [reference, hypothesis] = ["ref", "hyp"].map(|key| Normalizer::Whisper.normalize(text(row, key)));
        assert_eq!([&reference[..], &hypothesis], [text(row, "ref_norm"), text(row, "hyp_norm")]);
        let errors = word_errors(&reference, &hypothesis);
        assert_eq!((errors.reference_words, errors.errors()), (number(row, "n_ref"), number(row, "errors")), "{row}");
        assert!((errors.wer() - row["wer"].as_f64().expect("wer")).abs() <= RATE_TOLERANCE, "{row}");
        total += errors;
    }
    let report = oracle::json("06_text/report.json");
    let golden = report["normalised_corpus_wer"].as_f64().expect("wer");
    assert!((total.wer() - golden).abs() <= RATE_TOLERANCE, "{} against {golden}", total.wer());
}

#[test]
fn oracle_greedy_collapse() {
    let rows = oracle::json_lines("05_ctc_decode/greedy_collapse.jsonl");
    assert!(!rows.is_empty());
    for row in rows {
        let path: Vec<u32> = indices(&row["frame_ids"]);
        let blank = number(&row, "blank") as u32;
        let spans: Vec<Vec<usize>> = row["spans_start_end"].as_array().expect("spans").iter().map(indices).collect();
        let runs = collapse(&path, blank);
        assert_eq!(runs.iter().map(|run| vec![run.start, run.end]).collect::<Vec<_>>(), spans, "{row}");
        assert_eq!(runs.iter().map(|run| run.token).collect::<Vec<_>>(), indices::<u32>(&row["collapsed"]), "{row}");

        // The same path as log-probabilities, the last step of every run the most probable.
        let vocab = path.iter().max().map_or(1, |&id| id as usize + 1).max(blank as usize + 1);
        let mut log_probs = vec![-5.0; path.len() * vocab];
        for (step, &token) in path.iter().enumerate() {
            log_probs[step * vocab + token as usize] = -1.0 / (step + 1) as f32;
        }
        let hypothesis = greedy(&log_probs, path.len(), vocab, blank);
        assert_eq!(hypothesis.tokens, indices::<u32>(&row["collapsed"]), "{row}");
        assert_eq!(hypothesis.steps, spans.iter().map(|span| span[1] - 1).collect::<Vec<_>>(), "{row}");
    }
}

#[test]
fn oracle_parakeet_tokenizer() {
    let root = oracle::find("02_parakeet");
    let folders = std::fs::read_dir(&root).expect("folder").map(|entry| entry.expect("entry").file_name());
    let names: Vec<String> = folders.map(|name| name.to_string_lossy().into_owned()).collect();
    let mut seen = 0;
    for name in names.iter().filter(|name| root.join(name).join("tokenizer_cases.jsonl").exists()) {
        let tokenizer = Tokenizer::load(root.join(name).join("tokenizer.json")).expect("tokenizer");
        let config = oracle::json(&format!("02_parakeet/{name}/config.json"));
        assert_eq!((tokenizer.blank() as usize, tokenizer.vocab_size()), (number(&config, "pad_token_id"), number(&config, "vocab_size")));
        for row in oracle::json_lines(&format!("02_parakeet/{name}/tokenizer_cases.jsonl")) {
            let ids: Vec<u32> = indices(&row["ids"]);
            // Greedy output never shows special tokens; where the row does not say what remains without them, take them out here.
            let golden =
                row["decode_ctc_skip_special"].as_str().map_or_else(|| text(&row, "decode_ctc").replace("<unk>", ""), str::to_string);
            let tokens: Vec<u32> = collapse(&ids, tokenizer.blank()).iter().map(|run| run.token).collect();
            assert_eq!(tokenizer.decode(&tokens), golden.trim_start(), "{row}");
            if let Some(input) = row["text"].as_str() {
                match tokenizer.encode(input) {
                    Ok(tokens) => assert_eq!(tokens, ids, "{row}"),
                    Err(error) => assert!(text(&row, "decode_no_group").contains("<unk>"), "{error} of {row}"),
                }
            }
            seen += 1;
        }
    }
    assert!(seen > 0, "no cases under {}", root.display());
}

/// Floor for one core of a busy machine; an idle one does several times this.
const NORMALIZER_LINES_PER_SECOND: f64 = 50_000.0;

#[test]
fn oracle_normalizer_speed() {
    let rows = oracle::json_lines("06_text/english_normalizer.jsonl");
    let inputs: Vec<&str> = rows.iter().map(|row| text(row, "input")).collect();
    // The best of several short passes: a pass that another process interrupts does not count.
    let pass = |lines: &[&str]| {
        let start = Instant::now();
        let bytes: usize = lines.iter().map(|line| Normalizer::Whisper.normalize(line).len()).sum();
        assert!(bytes > 0);
        start.elapsed()
    };
    let best: Duration = inputs.chunks(32).map(|lines| (0..10).map(|_| pass(lines)).min().expect("passes")).sum();
    let rate = inputs.len() as f64 / best.as_secs_f64();
    assert!(rate > NORMALIZER_LINES_PER_SECOND, "{rate:.0} lines/s");
}
