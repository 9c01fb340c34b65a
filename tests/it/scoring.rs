//! Counts against the programs whose numbers are published: jiwer, sclite, kaldialign, csrfilt, sc_stats, the leaderboard's normaliser.
//! `tests/golden/scoring` is what they gave, written by `benchmarks/scoring_golden.py`.

use std::path::Path;
use std::time::Instant;

use omniscribe::eval::bootstrap::Resampling;
use omniscribe::eval::glm::{Glm, Side};
use omniscribe::eval::score::Scored;
use omniscribe::eval::significance::compare;
use omniscribe::eval::summary::{Confusions, Summary};
use omniscribe::eval::wer::{WordErrors, word_errors};
use omniscribe::eval::{Aligner, Scoring};
use omniscribe::text::Normalizer;
use proptest::prelude::*;
use serde_json::Value;

use crate::oracle;

fn golden(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/scoring").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!rows.is_empty(), "{}", path.display());
    rows
}

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap_or_else(|| panic!("{key} of {row}"))
}

fn numbers(row: &Value) -> Vec<usize> {
    row.as_array().unwrap_or_else(|| panic!("{row}")).iter().map(|n| n.as_u64().unwrap() as usize).collect()
}

fn sdi(errors: WordErrors) -> Vec<usize> {
    vec![errors.substitutions, errors.deletions, errors.insertions]
}

#[test]
fn counts_are_those_of_jiwer_sclite_and_kaldialign() {
    let rows = golden("pairs.jsonl");
    for (aligner, key) in
        [(Aligner::Levenshtein, "jiwer"), (Aligner::Sclite, "sclite"), (Aligner::MergeCompounds, "kaldialign_merge_compounds")]
    {
        for row in &rows {
            let errors = aligner.align(text(row, "reference"), text(row, "hypothesis")).unwrap().errors();
            assert_eq!(sdi(errors), numbers(&row[key]), "{key} of {row}");
        }
        let different = rows.iter().filter(|row| numbers(&row[key]) != numbers(&row["jiwer"])).count();
        assert!(aligner == Aligner::Levenshtein || different > 10, "{key}: {different} rows tell it from jiwer");
    }
}

#[test]
fn markup_counts_are_those_of_sclite() {
    for row in golden("markup.jsonl") {
        let errors = Aligner::ScliteMarkup.align(text(&row, "reference"), text(&row, "hypothesis")).unwrap().errors();
        let ours = [vec![errors.hits()], sdi(errors)].concat();
        assert_eq!(ours, numbers(&row["csdi"]), "{row}");
    }
}

#[test]
fn mapping_files_apply_as_csrfilt_applies_them() {
    for row in golden("glm.jsonl") {
        let glm = Glm::read(text(&row, "glm").as_ref()).unwrap();
        for (side, key) in [(Side::Reference, "reference"), (Side::Hypothesis, "hypothesis")] {
            // sclite compares without case, so what the rules write in lower case we write in upper.
            let mapped = text(&row, &format!("mapped_{key}")).to_ascii_uppercase();
            let mapped: Vec<&str> = mapped.split_whitespace().collect();
            assert_eq!(glm.apply(text(&row, key), side), mapped.join(" "), "{key} of {row}");
        }
    }
}

#[test]
fn leaderboard_normalizer_is_the_published_one() {
    for (normalizer, file) in [(Normalizer::Leaderboard2026, "leaderboard.jsonl"), (Normalizer::Whisper, "whisper_vectors.jsonl")] {
        for row in golden(file) {
            assert_eq!(normalizer.normalize(text(&row, "input")), text(&row, "expected"), "{row}");
        }
    }
}

/// `sc_stats` prints three decimals.
const PRINTED: f64 = 0.0005 + 1e-9;
/// It takes the normal distribution from a table with steps of 0.01 in z, rounding p up: at most twice the density at 0 of a step.
const TABLE_STEP: f64 = 2.0 * 0.399 * 0.01;

#[test]
fn tests_are_those_of_sc_stats() {
    for row in golden("significance.jsonl") {
        let system = |key: &str| -> Vec<Scored> {
            let texts = |key: &str| row[key].as_array().unwrap().iter().map(|t| t.as_str().unwrap().to_string()).collect::<Vec<_>>();
            let all = texts("ids").into_iter().zip(texts("reference")).zip(texts(key));
            let scored = |((id, reference), hypothesis): ((String, String), String)| {
                let words = word_errors(&reference, &hypothesis);
                let speaker = id.split_once('-').map(|(speaker, _)| speaker.to_string());
                Scored { id, speaker, reference, hypothesis, words, ..Scored::default() }
            };
            all.map(scored).collect()
        };
        let (first, second) = (system("first"), system("second"));
        let test = compare(&first, &second, Aligner::Sclite, Resampling::default()).unwrap().all;
        let name = text(&row, "name");
        let golden = |key: &str| row[key].as_f64().unwrap();
        assert_eq!(test.mapsswe.segments, golden("segments") as usize, "{name}");
        for (ours, key) in [(test.mapsswe.mean, "mean"), (test.mapsswe.std, "std"), (test.mapsswe.z, "z")] {
            assert!((ours - golden(key)).abs() <= PRINTED, "{name}: {key} {ours}, {}", golden(key));
        }
        let p = test.mapsswe.p;
        match text(&row, "mapsswe_p").strip_prefix('<') {
            Some(bound) => assert!(p < bound.parse().unwrap(), "{name}: {p}"),
            None => {
                let theirs: f64 = text(&row, "mapsswe_p").parse().unwrap();
                assert!(p <= theirs + PRINTED && theirs - p <= TABLE_STEP + PRINTED, "{name}: {p}, {theirs}");
            }
        }
        let table = numbers(&row["both_right, only_first, only_second, none"]);
        let mcnemar = test.mcnemar;
        assert_eq!([mcnemar.only_first_right, mcnemar.only_second_right], table[1..3], "{name}");
        // Beyond 20 unequal utterances sc_stats takes a normal approximation of half the count, which is no probability of it.
        if table[1] + table[2] <= 20 {
            assert!((mcnemar.p - golden("mcnemar_p")).abs() <= PRINTED, "{name}: {}", mcnemar.p);
        }
        let bootstrap = test.bootstrap.unwrap();
        assert!(bootstrap.interval.low <= test.difference && test.difference <= bootstrap.interval.high, "{name}: {bootstrap:?}");
        assert_eq!(bootstrap.improvement > 0.5, test.mapsswe.z > 0.0, "{name}: {bootstrap:?}");
    }
}

#[test]
fn oracle_scoring_totals_are_jiwers() {
    let rows = oracle::json_lines("06_text/wer_pairs.jsonl");
    let scoring = Scoring::new(Normalizer::None, Aligner::Levenshtein, None).unwrap();
    let mut scored: Vec<Scored> = vec![];
    for (i, row) in rows.iter().enumerate() {
        let score = scoring.score(text(row, "ref"), text(row, "hyp")).unwrap();
        let errors = row["errors"].as_u64().unwrap() as usize;
        assert_eq!(score.words.errors(), errors, "{row}");
        assert!((score.characters.wer() - row["cer"].as_f64().unwrap()).abs() < 1e-12, "{row}");
        for aligner in [Aligner::Sclite, Aligner::MergeCompounds] {
            let others = aligner.align(&score.reference, &score.hypothesis).unwrap().errors();
            assert_eq!(others.reference_words, score.words.reference_words);
            assert!(if aligner == Aligner::Sclite { others.errors() >= errors } else { others.errors() <= errors }, "{row}");
        }
        let (reference, hypothesis, words, characters) = (score.reference, score.hypothesis, score.words, score.characters);
        scored.push(Scored { set: "x".into(), id: i.to_string(), reference, hypothesis, words, characters, ..Scored::default() });
    }
    let summary = Summary::of(&scored, Resampling { resamples: 100, seed: 0 });
    let corpus = oracle::json("06_text/wer_corpus.json");
    let total = [summary.words.hits(), summary.words.substitutions, summary.words.deletions, summary.words.insertions];
    assert_eq!(total, ["H", "S", "D", "I"].map(|key| corpus[key].as_u64().unwrap() as usize));
    let confusions = Confusions::of(&scored, Aligner::Levenshtein, usize::MAX).unwrap();
    let counted =
        [&confusions.substitutions, &confusions.deletions, &confusions.insertions].map(|kind| kind.iter().map(|c| c.count).sum::<usize>());
    assert_eq!(counted.to_vec(), sdi(summary.words));
}

/// Floor for one core of a busy machine; an idle one does several times this.
const LINES_PER_SECOND: f64 = 50_000.0;

#[test]
fn oracle_leaderboard_normalizer_speed() {
    let rows = oracle::json_lines("06_text/english_normalizer.jsonl");
    let inputs: Vec<&str> = rows.iter().map(|row| text(row, "input")).collect();
    // The best of several short passes: a pass that another process interrupts does not count.
    let pass = |lines: &[&str]| {
        let start = Instant::now();
        assert!(lines.iter().map(|line| Normalizer::Leaderboard2026.normalize(line).len()).sum::<usize>() > 0);
        start.elapsed().as_secs_f64()
    };
    let best: f64 = inputs.chunks(32).map(|lines| (0..10).map(|_| pass(lines)).fold(f64::INFINITY, f64::min)).sum();
    let rate = inputs.len() as f64 / best;
    assert!(rate > LINES_PER_SECOND, "{rate:.0} lines/s");
}

proptest! {
    #[test]
    fn scoring_takes_any_text(reference in ".{0,60}", hypothesis in ".{0,60}") {
        let mut all = vec![Scoring::leaderboard_2026()];
        for aligner in Aligner::ALL {
            all.push(Scoring::new(Normalizer::Basic, aligner, None).unwrap());
        }
        for name in Glm::built_in() {
            all.push(Scoring::new(Normalizer::None, Aligner::ScliteMarkup, Some(Glm::read(name.as_ref()).unwrap())).unwrap());
        }
        for scoring in all {
            let score = scoring.score(&reference, &hypothesis).unwrap();
            prop_assert!(score.words.substitutions + score.words.deletions <= score.words.reference_words);
            let itself = scoring.score(&reference, &reference).unwrap();
            prop_assert!(scoring.id().glm.is_some() || itself.words.errors() == 0, "{:?} of {reference:?}", itself.words);
        }
    }
}
