//! Results on disk: the journal under kills, strict files, exports as sclite reads them, tables, comparisons, and the page under hostile text.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use omniscribe::Error;
use omniscribe::eval::aligner::Aligner;
use omniscribe::eval::bootstrap::Resampling;
use omniscribe::eval::calibration::{Confidence, Judged, judge};
use omniscribe::eval::report::compare::{Purpose, Recorded, Table};
use omniscribe::eval::report::journal::{self, Failure};
use omniscribe::eval::report::result::{
    Corpus, ExpertUsage, Measured, Model, Provenance, SCHEMA_VERSION, Shares, Speed, Trace, corpus_sha256, rtfx,
};
use omniscribe::eval::report::sclite::{self, Side};
use omniscribe::eval::report::{Journal, RunResult, Utterance, html, markdown};
use omniscribe::eval::score::Scoring;
use omniscribe::pipeline::calibration::Logistic;
use omniscribe::text::Normalizer;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::oracle;

/// Set, id, speaker, reference, hypothesis.
type Line<'a> = (&'a str, &'a str, Option<&'a str>, &'a str, &'a str);

const LINES: [Line; 5] = [
    ("clean", "84-1", Some("84"), "The cat sat on the mat.", "the cat sit on mat"),
    ("clean", "84-2", Some("84"), "It was late", "it was late"),
    ("clean", "90-1", Some("90"), "Ice cream, {twice} a/b @ noon; (maybe)", "ice cream {twice} a b @ noon; (maybe) so"),
    ("noisy", "m1", None, "nothing was said", ""),
    ("noisy", "m2", None, "yes", "yes yes"),
];

fn provenance(model: &str, aligner: Aligner, corpora: Vec<Corpus>) -> Provenance {
    let scoring = Scoring::new(Normalizer::Basic, aligner, None).unwrap();
    Provenance {
        program: "omniscribe 0.1.0".into(),
        commit: Some("0123abc".into()),
        command: ["omniscribe", "bench", "it's here"].map(String::from).into(),
        started: "2026-07-24T08:15:00Z".into(),
        device: "cpu".into(),
        dtype: "f32".into(),
        threads: 2,
        cpu: "Some CPU".into(),
        model: Model {
            name: model.into(),
            weights_sha256: Some("ab".repeat(32)),
            parameters: Some(14_200_000),
            active_parameters: Some(7_100_000),
        },
        corpora,
        scoring: scoring.id(),
        decoder: BTreeMap::from([("kind".to_string(), json!("greedy"))]),
        resampling: Resampling { resamples: 200, seed: 7 },
    }
}

fn measured() -> Measured {
    let (audio_seconds, compute_seconds, wall_seconds) = (20.0, 0.5, 0.8);
    let speed = Speed {
        utterances: 5,
        audio_seconds,
        compute_seconds,
        wall_seconds,
        rtfx_compute: rtfx(audio_seconds, compute_seconds),
        rtfx_end_to_end: rtfx(audio_seconds, wall_seconds),
        shares: Shares { audio: 0.25, features: 0.125, encoder: 0.5, decoder: 0.125 },
        first_transcript_seconds: 0.13,
        peak_memory_bytes: Some(128 << 20),
        warm_up_utterances: 2,
    };
    let experts = ExpertUsage {
        layers: vec![vec![0.25, 0.75], vec![0.5, 0.5]],
        over_time: vec![vec![vec![1.0, 0.0], vec![0.0, 1.0], vec![0.5, 0.5]]; 2],
        traces: vec![Trace { utterance: ("clean".into(), "84-1".into()), seconds: 4.0, choices: vec![vec![0, 0, 1, 1], vec![1, 1, 1, 0]] }],
    };
    let problems = vec![("noisy".to_string(), "missing audio".to_string(), "m3.wav".to_string())];
    let judged = [Judged(0.75, true), Judged(0.75, false), Judged(1.0, true)];
    Measured { speed, confidence: Confidence::of(&judged, Logistic { slope: 0.5, intercept: 0.0 }), experts: Some(experts), problems }
}

/// A run over `lines`; an utterance whose hypothesis is `!` failed.
fn run(model: &str, aligner: Aligner, lines: &[Line]) -> Recorded {
    let mut sets: Vec<&str> = lines.iter().map(|l| l.0).collect();
    sets.dedup();
    let corpora = sets.iter().map(|set| Corpus {
        set: (*set).into(),
        layout: "folder".into(),
        rules: BTreeMap::from([("text".to_string(), "raw".to_string())]),
        sha256: corpus_sha256(lines.iter().filter(|l| l.0 == *set).map(|l| (l.1, l.3))),
    });
    let provenance = provenance(model, aligner, corpora.collect());
    let scoring = Scoring::new(Normalizer::Basic, aligner, None).unwrap();
    let utterances: Vec<Utterance> =
        (1_u32..).zip(lines).map(|(i, l)| utterance(&provenance.run_id(), &scoring, l, f64::from(i))).collect();
    let result = RunResult::of(provenance, &utterances, measured()).unwrap();
    Recorded { file: model.into(), result, utterances }
}

fn utterance(run: &str, scoring: &Scoring, &(set, id, speaker, reference, hypothesis): &Line, start: f64) -> Utterance {
    let error = (hypothesis == "!").then(|| Failure { kind: "unreadable audio".into(), message: "at 3 s".into() });
    let hypothesis = if error.is_some() { "" } else { hypothesis };
    let score = scoring.score(reference, hypothesis).unwrap();
    let judged = judge(reference, hypothesis.split_whitespace().map(|word| (word, 0.75)));
    Utterance {
        run: run.into(),
        set: set.into(),
        id: id.into(),
        speaker: speaker.map(String::from),
        recording: None,
        audio: format!("audio/{set}.wav"),
        channel: None,
        start: Some(start),
        end: Some(start + 1.5),
        seconds: 1.5,
        reference: reference.into(),
        hypothesis: hypothesis.into(),
        normalized_reference: score.reference,
        normalized_hypothesis: score.hypothesis,
        words: score.words,
        characters: score.characters,
        judged,
        error,
    }
}

fn small() -> Recorded {
    run("base", Aligner::Levenshtein, &LINES)
}

fn text_of(lines: &[Utterance]) -> String {
    lines.iter().map(|u| serde_json::to_string(u).unwrap() + "\n").collect()
}

// --- the journal ---------------------------------------------------------------------------------------------------------------------------

/// Cuts the journal at every byte, as a kill may, and goes on from there.
fn resumes_at_every_byte(utterances: &[Utterance], path: &Path) {
    let whole = text_of(utterances);
    let run = &utterances[0].run;
    for cut in 0..=whole.len() {
        std::fs::write(path, &whole.as_bytes()[..cut]).unwrap();
        let there = whole.as_bytes()[..cut].iter().filter(|b| **b == b'\n').count();
        assert_eq!(journal::read(path, run).unwrap(), utterances[..there], "cut at {cut}");
        let mut journal = Journal::open(path, run).unwrap();
        assert_eq!(journal.utterances(), &utterances[..there], "cut at {cut}");
        for u in utterances {
            if !journal.has(&u.set, &u.id) {
                journal.append(u.clone()).unwrap();
            }
        }
        assert_eq!(journal.utterances(), utterances, "cut at {cut}");
        drop(journal);
        assert!(std::fs::read(path).unwrap() == whole.as_bytes(), "cut at {cut}: the file differs");
    }
}

#[test]
fn a_journal_cut_at_any_byte_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    resumes_at_every_byte(&small().utterances, &folder.path().join("run.utterances.jsonl"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]
    #[test]
    fn a_journal_of_any_text_cut_at_any_byte_goes_on(texts in proptest::collection::vec("\\PC{0,12}[\n\r\u{2028}\"\\\\]?\\PC{0,8}", 1..3)) {
        let folder = tempfile::tempdir().unwrap();
        let ids: Vec<String> = (0..texts.len()).map(|i| i.to_string()).collect();
        let lines: Vec<Line> = texts.iter().zip(&ids).map(|(t, id)| ("x", id.as_str(), Some(t.as_str()), t.as_str(), "a")).collect();
        resumes_at_every_byte(&run("m", Aligner::Levenshtein, &lines).utterances, &folder.path().join("run.jsonl"));
    }

    #[test]
    fn bytes_that_are_no_journal_or_result_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0.0..1.0) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        let whole = serde_json::to_string(&small().result).unwrap();
        let cut = (cut * whole.len() as f64) as usize;
        for bytes in [&bytes, &whole.as_bytes()[..cut], &[&bytes, whole.as_bytes()].concat()] {
            std::fs::write(&path, bytes).unwrap();
            prop_assert!(RunResult::read(&path).is_err());
        }
        std::fs::write(&path, [&bytes[..], b"\n"].concat()).unwrap();
        let refused = matches!(journal::read(&path, "r"), Err(Error::Manifest { .. }));
        prop_assert!(refused);
        prop_assert!(Journal::open(&path, "r").is_err());
    }
}

#[test]
fn what_failed_is_tried_again_and_what_did_not_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/run.jsonl");
    let failed = run("m", Aligner::Levenshtein, &[("x", "1", None, "a b", "!"), ("x", "2", None, "a b", "a")]).utterances;
    let mut repaired = failed.clone();
    repaired[0] = run("m", Aligner::Levenshtein, &[("x", "1", None, "a b", "a b"), ("x", "2", None, "a b", "a")]).utterances.remove(0);
    let run = &failed[0].run;
    let mut journal = Journal::open(&path, run).unwrap();
    failed.iter().for_each(|u| journal.append(u.clone()).unwrap());
    assert!(!journal.has("x", "1") && journal.has("x", "2") && !journal.has("y", "2"));
    let again = journal.append(failed[1].clone()).unwrap_err().to_string();
    assert!(again.contains("run.jsonl:3:") && again.contains("\"2\" of set \"x\" is there already"), "{again}");
    journal.append(repaired[0].clone()).unwrap();
    assert_eq!(journal.finish().unwrap(), repaired);
    assert_eq!(journal::read(&path, run).unwrap(), repaired);
}

#[test]
fn a_journal_belongs_to_one_run_and_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.jsonl");
    let utterances = small().utterances;
    let mut journal = Journal::open(&path, &utterances[0].run).unwrap();
    let busy = Journal::open(&path, &utterances[0].run).unwrap_err().to_string();
    assert!(busy.contains("another run is writing"), "{busy}");
    journal.append(utterances[0].clone()).unwrap();
    let foreign = journal.append(Utterance { run: "other".into(), ..utterances[1].clone() }).unwrap_err().to_string();
    assert!(foreign.contains("of run other"), "{foreign}");
    drop(journal);
    for error in [Journal::open(&path, "other").map(|_| ()), journal::read(&path, "other").map(|_| ())] {
        let error = error.unwrap_err().to_string();
        assert!(error.contains("run.jsonl:1:") && error.contains("not of run other"), "{error}");
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text_of(&utterances[..1]));
}

#[test]
fn damage_before_the_last_line_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.jsonl");
    let utterances = small().utterances;
    let run = &utterances[0].run;
    let with = |change: fn(&mut Value)| {
        let mut value = serde_json::to_value(&utterances[1]).unwrap();
        change(&mut value);
        value.to_string()
    };
    for (line, says) in [
        ("{\"run\":".to_string(), "EOF"),
        (with(|v| v["extra"] = json!(1)), "extra"),
        (with(|v| v["words"]["extra"] = json!(1)), "extra"),
        (with(|v| v["start"] = json!(-1.0)), "start is -1"),
        (with(|v| v["end"] = json!(0.0)), "it ends before it starts"),
        (with(|v| _ = v.as_object_mut().unwrap().remove("set")), "missing field `set`"),
        (with(|v| v["id"] = json!("84-1")), "is there already"),
    ] {
        std::fs::write(&path, format!("{}{line}\n{}", text_of(&utterances[..1]), text_of(&utterances[2..]))).unwrap();
        let error = journal::read(&path, run).unwrap_err().to_string();
        assert!(error.contains("run.jsonl:2:") && error.contains(says), "{error}");
    }
}

// --- the result ----------------------------------------------------------------------------------------------------------------------------

/// Decimals written and read may differ in the last digit.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| same(v, w))),
        (Value::Number(a), Value::Number(b)) if a.is_f64() => (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() <= 1e-15,
        _ => a == b,
    }
}

#[test]
fn results_are_written_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/base.json");
    let Recorded { result, utterances, .. } = small();
    result.write(&path).unwrap();
    let read = RunResult::read(&path).unwrap();
    assert!(same(&serde_json::to_value(&result).unwrap(), &serde_json::to_value(&read).unwrap()));
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file stays");

    std::fs::write(journal::path_of(&path), text_of(&utterances)).unwrap();
    let recorded = Recorded::open(&path).unwrap();
    assert_eq!((recorded.file.as_str(), &recorded.utterances), ("base", &utterances));
    std::fs::write(journal::path_of(&path), text_of(&utterances[1..])).unwrap();
    let error = Recorded::open(&path).unwrap_err().to_string();
    assert!(error.contains("base.utterances.jsonl") && error.contains("2 utterances of set \"clean\", the result has 3"), "{error}");
}

#[test]
fn sets_add_up_and_problems_are_listed() {
    let lines = [LINES[0], ("clean", "84-2", Some("84"), "it was late", "!"), ("clean", "90-1", Some("90"), "", "uh"), LINES[3]];
    let Recorded { result, .. } = run("m", Aligner::Levenshtein, &lines);
    let clean = &result.sets[0];
    assert_eq!((clean.utterances, clean.words.errors(), clean.words.reference_words), (2, 3, 6));
    assert_eq!((clean.wer, result.sets[1].wer, result.mean.wer), (0.5, 1.0, 0.75));
    assert_eq!(clean.hours, 3.0 / 3600.0);
    assert_eq!(clean.problems["unreadable audio"].first, ["84-2: at 3 s"]);
    assert_eq!(clean.problems["empty reference"].first, ["90-1"]);
    assert_eq!(result.sets[1].problems["missing audio"].first, ["m3.wav"]);
    assert_eq!(clean.speakers.len(), 2);
    assert_eq!(result.confusions.substitutions[0].reference, "sat");

    let lost = run("m", Aligner::Levenshtein, &[LINES[0], ("noisy", "m1", None, "a", "!")]).result;
    assert_eq!((lost.mean.wer, lost.sets[1].utterances), (lost.sets[0].wer, 0), "a set without audio is not a set without errors");
}

#[test]
fn other_versions_and_unknown_fields_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.json");
    let good = serde_json::to_value(small().result).unwrap();
    let refused = |value: &Value| {
        std::fs::write(&path, value.to_string()).unwrap();
        RunResult::read(&path).map(|_| ()).unwrap_err()
    };
    let mut newer = good.clone();
    newer["schema_version"] = json!(SCHEMA_VERSION + 1);
    newer["something"] = json!("new");
    assert!(matches!(refused(&newer), Error::FormatVersion { found, supported: SCHEMA_VERSION, .. } if found == SCHEMA_VERSION + 1));
    assert!(refused(&json!([])).to_string().contains("no `schema_version`"));

    let mut places = Vec::new();
    objects(&good, String::new(), &mut places);
    // Their keys are the decoder's, the corpora's, kinds of problems.
    places.retain(|p| !p.ends_with("/decoder") && !p.ends_with("/rules") && !p.ends_with("/problems"));
    assert!(places.len() > 30, "{places:?}");
    for place in places {
        let mut value = good.clone();
        value.pointer_mut(&place).unwrap()["surprise"] = json!(1);
        let error = refused(&value).to_string();
        assert!(error.contains("surprise"), "{place}: {error}");
    }
}

fn objects(value: &Value, at: String, places: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, v)| objects(v, format!("{at}/{}", key.replace('/', "~1")), places));
            places.push(at);
        }
        Value::Array(list) => (0..).zip(list).for_each(|(i, v): (usize, _)| objects(v, format!("{at}/{i}"), places)),
        _ => {}
    }
}

#[test]
fn numbers_that_contradict_each_other_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.json");
    let good = serde_json::to_value(small().result).unwrap();
    for (place, value, says) in [
        ("/run", json!("0000"), "not the id of its provenance"),
        ("/provenance/scoring/normalizer", json!("whisper"), "not the id of its provenance"),
        ("/provenance/model/weights_sha256", json!(null), "not the id of its provenance"),
        ("/sets/0/wer", json!(0.01), "set \"clean\": wer is 0.01"),
        ("/sets/1/words/deletions", json!(9), "more substitutions and deletions"),
        ("/sets/1/words/insertions", json!(u64::MAX), "over the limit"),
        ("/sets/1/name", json!("clean"), "stands twice"),
        ("/sets/1/name", json!("other"), "not those of provenance.corpora"),
        ("/sets/0/interval/low", json!(0.9), "interval"),
        ("/mean/wer", json!(0.0), "mean.wer is 0"),
        ("/speed/rtfx_end_to_end", json!(400.0), "speed.rtfx_end_to_end is 400"),
        ("/speed/wall_seconds", json!(-1.0), "speed.wall_seconds is -1"),
        ("/speed/shares/encoder", json!(0.9), "not shares that sum to 1"),
        ("/experts/layers/1", json!([1.0]), "layer 1 has 1 experts"),
        ("/experts/over_time/1", json!([[1.0, 0.0]]), "layer 1 has 1 bins"),
        ("/experts/over_time/0/0", json!([0.1, 0.1]), "not shares that sum to 1"),
        ("/experts/traces/0/choices/0/0", json!(2), "is not 2 layers"),
    ] {
        let mut changed = good.clone();
        *changed.pointer_mut(place).unwrap() = value;
        std::fs::write(&path, changed.to_string()).unwrap();
        let error = RunResult::read(&path).unwrap_err().to_string();
        assert!(error.contains("x.json") && error.contains(says), "{place}: {error}");
    }
    let mut result = small().result;
    result.speed.compute_seconds = f64::NAN;
    assert!(result.write(&path).is_err());
}

#[test]
fn a_run_goes_on_under_the_same_id_and_another_setting_is_another_run() {
    let base = small().result.provenance;
    let id = base.run_id();
    let same = Provenance { command: vec![], threads: 9, started: "later".into(), commit: None, cpu: "x".into(), ..base.clone() };
    assert_eq!((same.run_id(), id.len()), (id.clone(), 16));
    let changed = |change: fn(&mut Provenance)| {
        let mut p = base.clone();
        change(&mut p);
        p.run_id()
    };
    let mut ids = vec![
        changed(|p| p.program = "omniscribe 0.2.0".into()),
        changed(|p| p.device = "cuda:0".into()),
        changed(|p| p.dtype = "bf16".into()),
        changed(|p| p.model.weights_sha256 = None),
        changed(|p| p.corpora[0].sha256 = String::new()),
        changed(|p| _ = p.corpora.pop()),
        changed(|p| p.scoring.aligner = "sclite".into()),
        changed(|p| _ = p.decoder.insert("beam".into(), json!(8))),
        id,
    ];
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 9);
    assert_eq!(corpus_sha256([("a", "b"), ("c", "d")]), corpus_sha256([("c", "d"), ("a", "b")]));
    assert_ne!(corpus_sha256([("a", "bc")]), corpus_sha256([("ab", "c")]));
}

// --- exports -------------------------------------------------------------------------------------------------------------------------------

const TRN: &str = "the cat sat on the mat (84-84-1)
it was late (84-84-2)
ice cream \u{ff5b}twice\u{ff5d} a/b \u{ff20} noon\u{ff1b} (maybe) (90-90-1)
";
const STM: &str = "clean 1 84 1.000 2.500 <clean> the cat sat on the mat
clean 1 84 3.500 5.000 <clean> it was late
clean 1.2 90 3.750 5.250 <clean> ice cream \u{ff5b}twice\u{ff5d} a/b \u{ff20} noon\u{ff1b} (maybe)
";
const CTM: &str = "clean 1 1.0000 0.3000 the
clean 1 1.3000 0.3000 cat
clean 1 1.6000 0.3000 sit
clean 1 1.9000 0.3000 on
clean 1 2.2000 0.3000 mat
clean 1 3.5000 0.5000 it
clean 1 4.0000 0.5000 was
clean 1 4.5000 0.5000 late
clean 1.2 3.7500 0.1667 ice
clean 1.2 3.9167 0.1667 cream
clean 1.2 4.0833 0.1667 \u{ff5b}twice\u{ff5d}
clean 1.2 4.2500 0.1667 a
clean 1.2 4.4167 0.1667 b
clean 1.2 4.5833 0.1667 \u{ff20}
clean 1.2 4.7500 0.1667 noon\u{ff1b}
clean 1.2 4.9167 0.1667 (maybe)
clean 1.2 5.0833 0.1667 so
";

#[test]
fn exports_are_what_sclite_reads() {
    let mut clean = small().utterances;
    clean.truncate(3);
    // Punctuation as it stands; the third talks into the second, and all were told out of order.
    for u in &mut clean {
        u.normalized_reference = u.reference.to_lowercase().replace(['.', ','], "");
        u.normalized_hypothesis = u.hypothesis.clone();
    }
    (clean[1].start, clean[1].end) = (Some(3.5), Some(5.0));
    (clean[2].start, clean[2].end) = (Some(3.75), Some(5.25));
    assert_eq!(sclite::trn(&clean, Side::Reference, Aligner::Levenshtein), TRN);
    clean.reverse();
    assert_eq!(sclite::stm(&clean, Aligner::Levenshtein), STM);
    assert_eq!(sclite::ctm(&clean, Aligner::Levenshtein), CTM);
    let marked = sclite::trn(&clean, Side::Reference, Aligner::ScliteMarkup);
    assert!(marked.starts_with("ice cream {twice} a/b @ noon; (maybe) (90-90-1)\n"), "{marked}");

    let odd = run("m", Aligner::Levenshtein, &[("x", "a b)\n_é", Some("p-q_r s"), "", "uh"), ("x", "2", None, "a", "!")]).utterances;
    assert_eq!(sclite::trn(&odd, Side::Hypothesis, Aligner::Levenshtein), "uh (p%2dq%5fr%20s-a%20b%29%0a_%c3%a9)\n");
    assert_eq!(sclite::trn(&odd, Side::Reference, Aligner::Levenshtein), " (p%2dq%5fr%20s-a%20b%29%0a_%c3%a9)\n");
}

/// Every pair of the oracles as utterances of one set, cut from one recording.
fn oracle_pairs() -> Vec<Utterance> {
    let pairs = oracle::json_lines("06_text/wer_pairs.jsonl");
    let text = |v: &Value, key: &str| v[key].as_str().unwrap_or_default().to_string();
    let scoring = Scoring::new(Normalizer::None, Aligner::Sclite, None).unwrap();
    let mut all = Vec::new();
    for (i, pair) in pairs.iter().enumerate() {
        let (reference, hypothesis) = (text(pair, "ref"), text(pair, "hyp"));
        let (id, speaker) = (format!("{i:05}"), format!("s{}", i % 7));
        let line = ("pairs", id.as_str(), Some(speaker.as_str()), reference.as_str(), hypothesis.as_str());
        all.push(utterance("r", &scoring, &line, 2.0 * i as f64));
    }
    all
}

/// What `sctk sclite` (Debian's sctk 2.4.10) counts in the exports of the oracles' pairs: sentences, words, correct, substituted, deleted, inserted.
const SCLITE_ON_PAIRS: [usize; 6] = [2203, 16_902, 11_679, 3_242, 1_981, 1_534];

#[test]
fn oracle_pairs_count_as_sclite_counts_them() {
    let pairs = oracle_pairs();
    let words: omniscribe::eval::WordErrors = pairs.iter().map(|u| u.words).sum();
    let ours = [pairs.len(), words.reference_words, words.hits(), words.substitutions, words.deletions, words.insertions];
    let count = |text: &str, besides: usize| text.lines().map(|l| l.split(' ').filter(|w| !w.is_empty()).count() - besides).sum::<usize>();
    let heard = words.hits() + words.substitutions + words.insertions;
    assert_eq!(count(&sclite::trn(&pairs, Side::Reference, Aligner::Sclite), 1), words.reference_words);
    assert_eq!(count(&sclite::trn(&pairs, Side::Hypothesis, Aligner::Sclite), 1), heard);
    assert_eq!(count(&sclite::stm(&pairs, Aligner::Sclite), 6), words.reference_words);
    assert_eq!(sclite::ctm(&pairs, Aligner::Sclite).lines().count(), heard);
    // The numbers are of these pairs; another set of oracles has others, which the test below gets from sclite itself.
    if oracle::find("06_text/wer_pairs.jsonl").starts_with(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")) {
        assert_eq!(ours, SCLITE_ON_PAIRS);
    }
}

#[test]
#[ignore = "needs sctk (Debian package sctk)"]
fn oracle_pairs_through_sctk() {
    let folder = tempfile::tempdir().unwrap();
    let pairs = oracle_pairs();
    let words: omniscribe::eval::WordErrors = pairs.iter().map(|u| u.words).sum();
    let ours = [pairs.len(), words.reference_words, words.hits(), words.substitutions, words.deletions, words.insertions];
    let write = |name: &str, text: String| {
        std::fs::write(folder.path().join(name), text).unwrap();
    };
    write("r.trn", sclite::trn(&pairs, Side::Reference, Aligner::Sclite));
    write("h.trn", sclite::trn(&pairs, Side::Hypothesis, Aligner::Sclite));
    write("r.stm", sclite::stm(&pairs, Aligner::Sclite));
    write("h.ctm", sclite::ctm(&pairs, Aligner::Sclite));
    for arguments in ["-i spu_id -r r.trn trn -h h.trn trn", "-i rm -r r.trn trn -h h.trn trn", "-r r.stm stm -h h.ctm ctm"] {
        let mut sctk = Command::new("sctk");
        let sctk = sctk.arg("sclite").args(arguments.split(' ')).args("-e utf-8 -s -o rsum stdout".split(' ')).current_dir(&folder);
        let output = sctk.output().expect("sctk");
        let (out, errors) = (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned());
        assert!(output.status.success() && errors.trim().is_empty(), "{arguments}: {errors}");
        let sum = out.lines().find(|l| l.trim_start().starts_with("| Sum")).unwrap_or_else(|| panic!("{arguments}: no sum in {out}"));
        let numbers: Vec<usize> = sum.split([' ', '|']).filter_map(|w| w.parse().ok()).collect();
        println!("{arguments}: {numbers:?}");
        assert_eq!(numbers[..6], ours, "{arguments}");
    }
}

// --- tables --------------------------------------------------------------------------------------------------------------------------------

const MARKDOWN: &str = "\
**base**: normaliser `basic`, aligner `levenshtein`

| set          |    WER, % | 95 % interval | CER, % |   S |   D |   I | words | utterances | hours |
|--------------|----------:|--------------:|-------:|----:|----:|----:|------:|-----------:|------:|
| clean        |     20.00 |   16.67–22.22 |  14.04 |   1 |   1 |   1 |    15 |          3 |  0.00 |
| noisy        |    100.00 | 100.00–100.00 | 105.26 |   0 |   3 |   1 |     4 |          2 |  0.00 |
| all words    |     36.84 |               |  36.84 |   1 |   4 |   2 |    19 |          5 |  0.00 |
| mean of sets | **60.00** |   58.33–61.11 |  59.65 |     |     |     |       |            |       |

Speed on cpu (Some CPU, f32, 2 threads): RTFx 40.0 compute, 25.0 end to end; audio 25 %, features 12 %, encoder 50 %, decoder 12 %; first \
transcript after 0.13 s, peak memory 128 MiB.

Confidence of 3 words, 66.67 % of them right: ECE 16.67 %, NCE 0.123; after calibration ECE 8.96 %, NCE 0.234.

missing audio in noisy: 1.
";

#[test]
fn the_table_of_a_run() {
    let text = markdown::table(&small().result);
    assert_eq!(text, MARKDOWN, "\n{text}");
}

#[test]
fn names_stay_in_their_cells() {
    let hostile = run("a|b`<i>*x*\n# c", Aligner::Levenshtein, &[("s|1\n|x|", "1", None, "a", "b"), ("y", "1", None, "a", "b")]).result;
    let text = markdown::table(&hostile);
    assert!(text.starts_with("**a\\|b\\`&lt;i>\\*x\\* # c**: "), "{text}");
    let pipes = |line: &str| line.replace("\\|", "").matches('|').count();
    let rows: Vec<&str> = text.lines().filter(|l| l.starts_with('|')).collect();
    assert!(rows.len() == 6 && rows.iter().all(|row| pipes(row) == 11), "{text}");
}

/// A system that mishears one word of every `every`th utterance.
fn system(name: &str, every: usize, sets: &[&str]) -> Recorded {
    let mut texts = Vec::new();
    for (s, set) in sets.iter().enumerate() {
        for i in 0..60 {
            let wrong = (i + s) % every == 0;
            texts.push((*set, format!("{i}"), format!("{}", i % 10), if wrong { "a b x d e f" } else { "a b c d e f" }));
        }
    }
    let lines: Vec<Line> =
        texts.iter().map(|(set, id, speaker, text)| (*set, id.as_str(), Some(speaker.as_str()), "a b c d e f", *text)).collect();
    run(name, Aligner::Levenshtein, &lines)
}

const COMPARISON: &str = "\
| WER, %         | dense | switch |  change | p bootstrap | p MAPSSWE |     omni |  change | p bootstrap | p MAPSSWE |
|----------------|------:|-------:|--------:|------------:|----------:|---------:|--------:|------------:|----------:|
| clean          |  8.33 |   5.56 | -33.3 % |       0.310 |     0.060 | **3.33** | -60.0 % |       0.135 |   < 0.001 |
| noisy          |  8.33 |   5.56 | -33.3 % |       0.350 |     0.060 | **3.33** | -60.0 % |       0.145 |   < 0.001 |
| far            |     – |      – |         |             |           | **3.33** |         |             |           |
| mean of 2 sets |  8.33 |   5.56 | -33.3 % |             |           | **3.33** | -60.0 % |             |           |
| all words      |  8.33 |   5.56 | -33.3 % |       0.080 |     0.007 | **3.33** | -60.0 % |       0.015 |   < 0.001 |
";

#[test]
fn results_side_by_side() {
    let systems =
        [system("dense", 2, &["clean", "noisy"]), system("switch", 3, &["clean", "noisy"]), system("omni", 5, &["noisy", "clean", "far"])];
    let table = Table::of(&systems, Purpose::Compare).unwrap();
    let text = table.markdown();
    assert_eq!(text, COMPARISON, "\n{text}");
    let omni = &table.tests[1].sets[0];
    assert_eq!((omni.words[0].errors(), omni.words[1].errors()), (30, 12));

    let list = Table::of(&systems, Purpose::List).unwrap().markdown();
    assert!(list.starts_with("| WER, %") && !list.contains("MAPSSWE") && list.contains("| far "), "{list}");
}

#[test]
fn the_same_model_twice_is_told_apart_by_its_file() {
    let [a, mut b] = [system("base", 2, &["x"]), system("base", 3, &["x"])];
    b.file = "beam".into();
    assert_eq!(Table::of(&[a, b], Purpose::Compare).unwrap().systems, ["base", "beam"]);
}

#[test]
fn what_cannot_be_compared_is_refused_with_the_reason_and_may_be_listed() {
    let base = system("base", 2, &["x"]);
    let other = |change: fn(&mut Recorded)| {
        let mut other = system("other", 3, &["x"]);
        change(&mut other);
        other
    };
    for (other, says) in [
        (other(|o| o.result.provenance.scoring.normalizer = "whisper".into()), "normaliser whisper, not basic"),
        (other(|o| o.result.provenance.scoring.aligner = "sclite".into()), "aligner sclite, not levenshtein"),
        (other(|o| o.result.provenance.scoring.glm = Some("hub5".into())), "mapping file hub5, not none"),
        (other(|o| o.result.provenance.corpora[0].sha256 = "0".into()), "set \"x\" has other utterances or references"),
        (
            other(|o| {
                o.result.provenance.corpora[0].sha256 = "0".into();
                o.result.provenance.corpora[0].rules.insert("text".into(), "raw2".into());
            }),
            "({\"text\": \"raw2\"}, not {\"text\": \"raw\"})",
        ),
        (system("other", 3, &["y"]), "no set in common"),
    ] {
        let both = [base.clone(), other];
        let error = Table::of(&both, Purpose::Compare).unwrap_err().to_string();
        assert!(error.contains("other against base") && error.contains(says), "{error}");
        let list = Table::of(&both, Purpose::List).unwrap();
        assert!(list.tests.is_empty() && list.notes[0].contains(says), "{:?}", list.notes);
    }
    assert!(Table::of(std::slice::from_ref(&base), Purpose::List).unwrap_err().to_string().contains("two results"));
    let unknown = || {
        let mut unknown = base.clone();
        unknown.result.provenance.scoring.aligner = "mine".into();
        unknown
    };
    let error = Table::of(&[unknown(), unknown()], Purpose::Compare).unwrap_err().to_string();
    assert!(error.contains("\"mine\" is not known"), "{error}");
}

#[test]
fn utterances_of_one_result_only_take_no_part_and_are_counted() {
    let (a, mut b) = (system("a", 2, &["x"]), system("b", 3, &["x"]));
    b.utterances[0].error = Some(Failure { kind: "unreadable audio".into(), message: String::new() });
    let table = Table::of(&[a, b], Purpose::Compare).unwrap();
    assert_eq!(table.tests[0].all.utterances, 59);
    assert!(table.notes[0].contains("that take no part in the tests: 1"), "{:?}", table.notes);
}

// --- the page ------------------------------------------------------------------------------------------------------------------------------

const HOSTILE: &str = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\" onload='alert(1)'--><!--&lt;{{data}}";

/// Elements of a page with their attributes, in order, and the text of its scripts; panics where tags do not nest.
fn elements(page: &str) -> (Vec<(String, String)>, Vec<String>) {
    const VOID: [&str; 4] = ["meta", "link", "input", "br"];
    let (mut found, mut scripts, mut open, mut rest) = (Vec::new(), Vec::new(), Vec::<String>::new(), page);
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let (mut quoted, mut end) = (false, 0);
        for (i, c) in rest.char_indices() {
            quoted ^= c == '"';
            assert!(quoted || c != '<', "a `<` inside a tag: {}", &rest[..i]);
            if c == '>' && !quoted {
                end = i;
                break;
            }
        }
        let tag = &rest[..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "closes another element than the last open one");
            continue;
        }
        if tag == "!doctype html" {
            continue;
        }
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag.trim_end_matches('/'), ""));
        assert!(!name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric()), "element {name:?}");
        found.push((name.to_string(), attributes.to_string()));
        if name == "script" || name == "style" {
            // Their text ends at the first end tag, whatever it holds.
            let end = rest.find(&format!("</{name}")).expect("end tag");
            scripts.push(rest[..end].to_string());
            rest = &rest[end + name.len() + 3..];
        } else if !VOID.contains(&name) && !tag.ends_with('/') {
            open.push(name.to_string());
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
    (found, scripts)
}

fn page(recorded: &Recorded) -> String {
    html::render(&recorded.result, &recorded.utterances, Path::new("."))
}

fn hostile() -> Recorded {
    let mut it = run(HOSTILE, Aligner::Levenshtein, &[(HOSTILE, HOSTILE, Some(HOSTILE), "a", "b"), (HOSTILE, "2", Some("2"), "a", "!")]);
    let u = &mut it.utterances[0];
    let heard = format!("{HOSTILE} uh");
    (u.reference, u.hypothesis, u.normalized_reference, u.normalized_hypothesis) = (HOSTILE.into(), heard.clone(), HOSTILE.into(), heard);
    u.audio = format!("javascript:{HOSTILE}.wav");
    it.utterances[1].error = Some(Failure { kind: HOSTILE.into(), message: HOSTILE.into() });
    let mut p = it.result.provenance.clone();
    for text in [&mut p.program, &mut p.started, &mut p.device, &mut p.dtype, &mut p.cpu, &mut p.scoring.normalizer, &mut p.scoring.aligner]
    {
        *text = HOSTILE.into();
    }
    p.commit = Some(HOSTILE.into());
    p.command = vec![HOSTILE.into()];
    p.decoder = BTreeMap::from([(HOSTILE.to_string(), json!(HOSTILE))]);
    p.model.weights_sha256 = Some(HOSTILE.into());
    let corpus = &mut p.corpora[0];
    (corpus.layout, corpus.sha256, corpus.rules) =
        (HOSTILE.into(), HOSTILE.into(), BTreeMap::from([(HOSTILE.to_string(), HOSTILE.to_string())]));
    let mut measured = measured();
    measured.problems = vec![(HOSTILE.into(), HOSTILE.into(), HOSTILE.into())];
    measured.experts.as_mut().unwrap().traces[0].utterance = (HOSTILE.into(), HOSTILE.into());
    it.result = RunResult::of(p, &it.utterances, measured).unwrap();
    it
}

#[test]
fn hostile_text_stays_text() {
    let (calm, hostile) = (page(&small()), page(&hostile()));
    let known: std::collections::BTreeSet<String> = elements(&calm).0.into_iter().map(|(name, _)| name).collect();
    let (found, scripts) = elements(&hostile);
    for (name, attributes) in &found {
        assert!(known.contains(name), "element {name:?} comes from a text");
        let names = attributes.split('"').step_by(2).flat_map(str::split_whitespace);
        assert!(names.clone().all(|n| !n.starts_with("on") && !n.starts_with("src")), "{name}: {attributes}");
    }
    assert_eq!(scripts.len(), 3, "style, data, script");
    assert!(
        !hostile.contains("<img") && !hostile.contains("<script>") && !hostile.contains("<!--") && !hostile.contains("alert(1)</script>")
    );
    // What was escaped is all there.
    let data: Value = serde_json::from_str(&scripts[1]).unwrap();
    assert_eq!(data["sets"][0], HOSTILE);
    assert_eq!(data["speakers"][0], HOSTILE);
    let row = &data["utterances"][0];
    assert_eq!((&row[1], &row[6], &row[12][0]), (&json!(HOSTILE), &json!(""), &Value::Null));
    assert_eq!(data["utterances"][1][13], HOSTILE);
    assert!(hostile.contains("&lt;img src=x onerror=alert(1)&gt;&quot; onload=&#39;alert(1)&#39;"));
}

#[test]
fn the_page_needs_nothing_else_and_allows_nothing_else() {
    let page = page(&small());
    let (found, scripts) = elements(&page);
    let policy = &found.iter().find(|(name, a)| name == "meta" && a.contains("Content-Security-Policy")).unwrap().1;
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe") && !policy.contains("http:") && !policy.contains("https:"));
    let nonce = page.split("script nonce=\"").nth(1).unwrap().split('"').next().unwrap();
    assert!(nonce.len() == 64 && policy.contains(&format!("script-src 'nonce-{nonce}'")) && !scripts[1].contains(nonce));
    for (name, attributes) in &found {
        assert!(!attributes.contains("http:") && !attributes.contains("https:"), "{name} {attributes}");
    }
    assert!(!page.contains("{{") && !page.contains("NaN") && !page.contains("inf%"));
    for text in ["mean WER", "Confusions", "Speakers", "Within utterances", "peak memory", "0123abc", "&#39;it&#39;\\&#39;&#39;s here&#39;"]
    {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn steps_are_those_of_the_aligner_of_the_result() {
    let steps = |aligner: Aligner, reference: &str, hypothesis: &str| {
        let page = page(&run("m", aligner, &[("x", "1", None, reference, hypothesis)]));
        serde_json::from_str::<Value>(&elements(&page).1[1]).unwrap()["utterances"][0][11].to_string()
    };
    assert_eq!(
        steps(Aligner::Levenshtein, "the cat sat on it", "the cat sit on it now"),
        r#"["the cat",["sat","sit"],"on it",["","now"]]"#
    );
    assert_eq!(steps(Aligner::Levenshtein, "a b", "c a"), r#"[["","c"],"a",["b",""]]"#);
    assert_eq!(steps(Aligner::MergeCompounds, "an ice cream", "an icecream"), r#"["an",["ice cream","icecream",true]]"#);
    assert_eq!(steps(Aligner::Levenshtein, "", ""), "[]");
}

#[test]
fn runs_without_sets_speakers_experts_or_times_have_a_page() {
    for lines in [&LINES[3..4], &[], &[("x", "1", None, "a", "!")]] {
        let mut it = run("m", Aligner::Levenshtein, lines);
        it.result.experts = None;
        let page = page(&it);
        elements(&page);
        assert!(!page.contains("Experts") && !page.contains("NaN") && !page.contains("inf"), "{lines:?}");
    }
}

#[test]
fn audio_that_is_there_is_linked_from_where_the_page_lies() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    // The folder of the page is made later.
    let (reports, audio) = (root.join("reports"), root.join("audio/a #1.wav"));
    std::fs::create_dir_all(audio.parent().unwrap()).unwrap();
    std::fs::write(&audio, b"RIFF").unwrap();
    let mut it = small();
    it.utterances[0].audio = audio.to_str().unwrap().into();
    let page = html::render(&it.result, &it.utterances, &reports);
    let data: Value = serde_json::from_str(&elements(&page).1[1]).unwrap();
    assert_eq!(data["utterances"][0][6], "../audio/a%20%231.wav");
    assert_eq!(data["utterances"][1][6], "");
}

/// Most bytes of page per utterance of some ten words: 10,000 utterances stay a page that opens at once.
const PAGE_BYTES_PER_UTTERANCE: usize = 500;

#[test]
fn ten_thousand_utterances_stay_small() {
    let ids: Vec<String> = (0..10_000).map(|i| format!("speaker-{}-{i}", i / 50)).collect();
    let lines: Vec<Line> = ids
        .iter()
        .map(|id| {
            ("x", id.as_str(), Some(&id[..9]), "the quick brown fox jumps over the lazy dog", "the quick fox jump over a the lazy dog")
        })
        .collect();
    let it = run("m", Aligner::Levenshtein, &lines);
    let bytes = page(&it).len();
    assert!(bytes < PAGE_BYTES_PER_UTTERANCE * lines.len(), "{bytes} bytes");
}
