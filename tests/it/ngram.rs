//! N-gram language models against KenLM: scores of ARPA text and of its binary files, models built from text against `lmplz`, broken files,
//! and the commands. `tests/golden/ngram/make.py` says how its files were made.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use flate2::read::GzDecoder;
use omniscribe::Error;
use omniscribe::decode::ngram::build::{BuildConfig, Builder, Estimate};
use omniscribe::decode::ngram::{NgramModel, WordId};
use omniscribe::text::target;
use proptest::prelude::*;

use crate::oracle;

/// KenLM adds up f32; the files hold seven digits.
const SCORES: f64 = 1e-5;
/// `lmplz` computes and prints f32.
const ESTIMATES: f64 = 2e-6;
/// The bound that totals of a sentence are held to: tens of f32 sums.
const TOTALS: f64 = 1e-4;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ngram").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(golden(name)).unwrap()
}

fn log10(natural: f32) -> f64 {
    f64::from(natural) / std::f64::consts::LN_10
}

/// log10 scores of the words and of the end of the sentence, from the start of a sentence or from no context.
fn walk(model: &NgramModel, words: &[&str], start: bool, end: bool) -> Vec<f64> {
    let mut state = if start { model.start() } else { model.empty() };
    let mut scores = Vec::new();
    for word in words {
        let (score, next) = model.score(&state, model.word(word).unwrap_or(0));
        state = next;
        scores.push(log10(score));
    }
    if end {
        scores.push(log10(model.score_end(&state)));
    }
    scores
}

#[test]
fn oracle_scores_are_kenlms() {
    let model = NgramModel::open(&oracle::find("05_ctc_decode/lm3.arpa")).unwrap();
    let rows = oracle::json_lines("05_ctc_decode/lm_scores.jsonl");
    assert!(!rows.is_empty());
    for row in rows {
        let text = row["text"].as_str().unwrap();
        let words: Vec<&str> = text.split_whitespace().collect();
        let golden: Vec<f64> = row["words"].as_array().unwrap().iter().map(|w| w[1].as_f64().unwrap()).collect();
        oracle::assert_close(text, &walk(&model, &words, true, true), &golden, TOTALS);
        for (name, start, end) in [("bos_eos", true, true), ("no_bos_no_eos", false, false), ("bos_only", true, false)] {
            let total: f64 = walk(&model, &words, start, end).iter().sum();
            let golden = row[format!("log10_total_{name}")].as_f64().unwrap();
            oracle::assert_close(&format!("{text}: {name}"), &[total], &[golden], TOTALS);
        }
        for (i, word) in row["words"].as_array().unwrap().iter().enumerate().take(words.len()) {
            assert_eq!(model.word(words[i]).unwrap_or(0) == 0, word[3].as_bool().unwrap(), "{}", words[i]);
        }
    }
}

#[test]
fn every_kenlm_layout_scores_as_kenlm_does() {
    let scores: serde_json::Value = serde_json::from_str(&text("scores.json")).unwrap();
    let sentences: Vec<&str> = scores["sentences"].as_array().unwrap().iter().map(|s| s.as_str().unwrap()).collect();
    let files = scores["scores"].as_object().unwrap();
    assert!(files.len() >= 8, "{} files", files.len());
    let mut words: Vec<Vec<String>> = Vec::new();
    for (file, golden_rows) in files {
        let model = NgramModel::open(&golden(file)).unwrap();
        assert_eq!(model.order(), 3);
        for (sentence, golden) in sentences.iter().zip(golden_rows.as_array().unwrap()) {
            let golden: Vec<f64> = golden.as_array().unwrap().iter().map(|s| s.as_f64().unwrap()).collect();
            let ours = walk(&model, &sentence.split(' ').collect::<Vec<_>>(), true, true);
            oracle::assert_close(&format!("{file}: {sentence}"), &ours, &golden, SCORES);
        }
        // The vocabulary is spelled out, and ids and spellings agree.
        let mut vocabulary: Vec<String> = model.words().map(String::from).collect();
        assert_eq!(vocabulary.len(), model.vocabulary_len());
        for (id, word) in vocabulary.iter().enumerate() {
            assert_eq!((model.word(word), model.text(id as WordId)), (Some(id as WordId), Some(word.as_str())));
        }
        vocabulary.sort();
        words.push(vocabulary);
    }
    assert!(words.windows(2).all(|two| two[0] == two[1]));
}

/// States of the formats are as short as each other, whatever the words: no continuation can tell them apart.
#[test]
fn states_remember_no_more_than_matters() {
    let models = ["holes.arpa", "holes.probing", "holes.trie"].map(|file| NgramModel::open(&golden(file)).unwrap());
    let words: Vec<String> = models[0].words().map(String::from).collect();
    let mut shortened = 0;
    for (i, first) in words.iter().enumerate().skip(1) {
        for second in words.iter().skip(1 + i % 3).step_by(3) {
            let contexts = models.each_ref().map(|model| {
                let (_, state) = model.score(&model.start(), model.word(first).unwrap());
                let (_, state) = model.score(&state, model.word(second).unwrap());
                state.context().iter().map(|&id| model.text(id).unwrap().to_string()).collect::<Vec<_>>()
            });
            assert!(contexts[0] == contexts[1] && contexts[1] == contexts[2], "{first} {second}: {contexts:?}");
            shortened += usize::from(contexts[0].len() < 2);
        }
    }
    assert!(shortened > 100, "{shortened}");
    let model = &models[0];
    let after = |words: &[&str]| words.iter().fold(model.empty(), |state, word| model.score(&state, model.word(word).unwrap_or(0)).1);
    assert_eq!(after(&["the", "no such word"]), model.empty());
    assert_ne!(after(&["the"]), model.start());
}

/// N-grams with log10 probability and backoff.
type Entries = BTreeMap<String, (f64, f64)>;

fn entries(arpa: &str) -> Entries {
    let fields = arpa.lines().map(|line| line.split('\t').collect::<Vec<_>>()).filter(|fields| fields.len() > 1);
    fields.map(|f| (f[1].into(), (f[0].parse().unwrap(), f.get(2).map_or(0.0, |backoff| backoff.parse().unwrap())))).collect()
}

fn build(text: &str, config: BuildConfig) -> Estimate {
    let mut builder = Builder::new(config).unwrap();
    text.lines().for_each(|line| builder.add(line).unwrap());
    builder.finish().unwrap()
}

fn arpa(estimate: &mut Estimate) -> String {
    let mut out = Vec::new();
    estimate.write_arpa(Path::new("memory"), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn compact(estimate: &mut Estimate, bits: u32) -> Vec<u8> {
    let mut out = Vec::new();
    estimate.write_compact(bits, Path::new("memory"), &mut out).unwrap();
    out
}

fn with_bytes<T>(bytes: &[u8], f: impl FnOnce(&Path) -> T) -> T {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lm");
    std::fs::write(&path, bytes).unwrap();
    f(&path)
}

fn open(bytes: &[u8]) -> Result<NgramModel, Error> {
    with_bytes(bytes, NgramModel::open)
}

/// The models of `kneser_ney_*.arpa.gz`: name, configuration.
fn lmplz_models() -> Vec<(&'static str, BuildConfig)> {
    let plain = BuildConfig::default();
    let limit: Vec<String> = text("limit.txt").lines().map(String::from).collect();
    vec![
        ("1", BuildConfig { order: 1, ..plain.clone() }),
        ("2_limited", BuildConfig { order: 2, limit_vocabulary: Some(limit), ..plain.clone() }),
        ("3", plain.clone()),
        ("4_0_0_1_fallback", BuildConfig { order: 4, prune: vec![0, 0, 1], fallback: Some([0.5, 1.0, 1.5]), ..plain }),
    ]
}

#[test]
fn built_models_are_those_of_lmplz() {
    let corpus = text("corpus.txt");
    for (name, config) in lmplz_models() {
        let path = golden(&format!("kneser_ney_{name}.arpa.gz"));
        let mut theirs = String::new();
        GzDecoder::new(std::fs::File::open(&path).unwrap()).read_to_string(&mut theirs).unwrap();
        let theirs = entries(&theirs);
        let ours = entries(&arpa(&mut build(&corpus, config)));
        assert!(theirs.len() > 100 && ours.keys().eq(theirs.keys()), "{name}: other n-grams: {} and {}", ours.len(), theirs.len());
        for part in [|e: &(f64, f64)| e.0, |e: &(f64, f64)| e.1] {
            let values = |entries: &Entries| entries.values().map(part).collect::<Vec<_>>();
            oracle::assert_close(name, &values(&ours), &values(&theirs), ESTIMATES);
        }
        // The gzipped file is read as it is.
        let model = NgramModel::open(&path).unwrap();
        assert_eq!(model.counts().iter().sum::<u64>(), theirs.len() as u64, "{name}");
    }
}

#[test]
fn spilling_to_files_changes_nothing() {
    let corpus = text("corpus.txt");
    for (name, config) in lmplz_models() {
        let mut in_memory = build(&corpus, config.clone());
        let mut spilled = build(&corpus, BuildConfig { memory: 0, ..config });
        assert!(arpa(&mut in_memory) == arpa(&mut spilled), "{name}");
        assert!(compact(&mut in_memory, 8) == compact(&mut spilled, 8), "{name}");
    }
}

/// Probabilities and weights worked out by hand.
///
/// Text `a b`, `a a`; bigrams with their marks: <s> a (2), a b, b </s>, a a, a </s> (1 each). Discounts 0.5 for 1, 1 for 2.
/// Unigrams count the words before: a 2 (<s>, a), b 1, </s> 2: 5 in all; left to unknown words (1 + 0.5 + 1) / 5 = 0.5, over 4 words 0.125.
#[test]
fn counts_worked_by_hand() {
    let config = BuildConfig { order: 2, fallback: Some([0.5, 1.0, 1.5]), ..BuildConfig::default() };
    let ours = entries(&arpa(&mut build("a b\na a", config)));
    let unigram = |discounted: f64| discounted / 5.0 + 0.125;
    let (a, b, end) = (unigram(1.0), unigram(0.5), unigram(1.0));
    let expected: &[(&str, f64, f64)] = &[
        ("<unk>", 0.125, 1.0),
        // <s> a twice: left 1/2.
        ("<s>", 1.0, 0.5),
        // a b, a a, a </s>: left 1.5/3.
        ("a", a, 0.5),
        // b </s>: left 0.5.
        ("b", b, 0.5),
        ("</s>", end, 1.0),
        ("<s> a", 0.5 + 0.5 * a, 1.0),
        ("a b", 0.5 / 3.0 + 0.5 * b, 1.0),
        ("a a", 0.5 / 3.0 + 0.5 * a, 1.0),
        ("a </s>", 0.5 / 3.0 + 0.5 * end, 1.0),
        ("b </s>", 0.5 + 0.5 * end, 1.0),
    ];
    assert_eq!(ours.len(), expected.len(), "{ours:?}");
    for &(words, prob, backoff) in expected {
        let (p, b) = ours[words];
        assert!((p - prob.log10()).abs() < 1e-6 && (b - backoff.log10()).abs() < 1e-6, "{words}: {p} {b}, by hand {prob} {backoff}");
    }
}

#[test]
fn probabilities_sum_to_one() {
    let corpus = text("corpus.txt");
    for (name, config) in lmplz_models() {
        let model = open(arpa(&mut build(&corpus, config)).as_bytes()).unwrap();
        let mut state = model.start();
        let words = (0..model.vocabulary_len() as WordId).filter(|&id| model.text(id) != Some("<s>"));
        for next in corpus.split_whitespace().take(60) {
            let total: f64 = words.clone().map(|id| f64::from(model.score(&state, id).0).exp()).sum();
            // Hundreds of f32 logarithms of seven digits.
            assert!((total - 1.0).abs() < 1e-4, "{name} after {state:?}: {total}");
            state = model.score(&state, model.word(next).unwrap_or(0)).1;
        }
    }
}

#[test]
fn compact_files_score_as_arpa_text() {
    let corpus = text("corpus.txt");
    for (name, config) in lmplz_models() {
        let mut estimate = build(&corpus, config);
        let exact = open(arpa(&mut estimate).as_bytes()).unwrap();
        // 16 bits give each value of this text a number of its own. Fewer share means: up to four of them, a probability and backoffs,
        // add up in a score. (Measured at most: 0.054 with 8 bits, 0.27 with 4.)
        let mut worst = Vec::new();
        for bits in [16, 8, 4] {
            let bytes = compact(&mut estimate, bits);
            let model = open(&bytes).unwrap();
            assert_eq!((model.counts(), model.vocabulary_len()), (exact.counts(), exact.vocabulary_len()), "{name}");
            assert!(model.words().eq(exact.words()), "{name}");
            let mut largest: f64 = 0.0;
            for line in corpus.lines().chain(["zzz the of and", "to be qqq a", ""]) {
                let words: Vec<&str> = line.split_whitespace().collect();
                let (ours, theirs) = (walk(&model, &words, true, true), walk(&exact, &words, true, true));
                largest = ours.iter().zip(&theirs).fold(largest, |largest, (a, b)| largest.max((a - b).abs()));
                // The states are the same states.
                let after = |model: &NgramModel| words.iter().fold(model.start(), |s, w| model.score(&s, model.word(w).unwrap_or(0)).1);
                assert_eq!(after(&model).context(), after(&exact).context(), "{name}: {line}");
            }
            worst.push(largest);
        }
        assert!(worst[0] < SCORES && worst[1] < 0.1 && worst[2] < 0.5, "{name}: {worst:?}");
    }
}

#[test]
fn builds_are_refused_with_the_reason() {
    let plain = BuildConfig::default();
    for (config, says) in [
        (BuildConfig { order: 0, ..plain.clone() }, "order = 0"),
        (BuildConfig { order: 8, ..plain.clone() }, "order = 8"),
        (BuildConfig { prune: vec![0, 2, 1], ..plain.clone() }, "prune = [0, 2, 1]"),
        (BuildConfig { prune: vec![0; 4], ..plain.clone() }, "at most 3 numbers"),
        (BuildConfig { fallback: Some([1.5, 1.0, 1.0]), ..plain.clone() }, "fallback"),
    ] {
        let said = Builder::new(config).unwrap_err().to_string();
        assert!(said.contains(says), "{said}");
    }
    let said = Builder::new(plain.clone()).unwrap().finish().unwrap_err().to_string();
    assert!(said.contains("no text"), "{said}");
    let mut small = Builder::new(plain.clone()).unwrap();
    small.add("too little text").unwrap();
    let said = small.finish().unwrap_err().to_string();
    assert!(said.contains("cannot be estimated"), "{said}");
    let mut estimate = build(&text("corpus.txt"), plain);
    assert!(estimate.write_compact(17, Path::new("x"), &mut Vec::new()).unwrap_err().to_string().contains("2 to 16"));
}

const SMALL: &str = "\\data\\\nngram 1=4\nngram 2=2\n\n\\1-grams:\n-1\t<unk>\n-99\t<s>\t-0.5\n-1\t</s>\n-0.5\ta\t-0.2\n\n\\2-grams:\n-0.1\t<s> a\n-0.3\ta </s>\n\n\\end\\\n";

#[test]
fn broken_arpa_text_is_refused_with_the_line() {
    assert!(open(SMALL.as_bytes()).is_ok());
    assert!(open(format!("made by hand\n\n{}", SMALL.replace('\n', "\r\n")).as_bytes()).is_ok());
    for (from, to, says) in [
        ("\\data\\", "data", ":1"),
        ("ngram 1=4", "ngram 1=x", ":2: `ngram 1=x`"),
        ("ngram 2=2", "ngram 3=2", ":3: `ngram 3=2` where `ngram 2=COUNT`"),
        ("ngram 1=4", "ngram 1=5", ":11: 4 1-grams, but \\data\\ says 5"),
        ("ngram 1=4", "ngram 1=3", ":9: more 1-grams than the 3"),
        ("ngram 2=2", "ngram 2=18446744073709551615", ":15: 2 2-grams"),
        ("ngram 2=2", "ngram 2=2\nngram 3=0\nngram 4=0\nngram 5=0\nngram 6=0\nngram 7=0\nngram 8=0", "order over 7"),
        ("\\1-grams:", "\\1-gram:", ":5: `\\1-gram:` where \\1-grams: should be"),
        ("-0.5\ta\t-0.2", "-0.5", ":9: 0 words in a 1-gram"),
        ("-0.5\ta\t-0.2", "x\ta\t-0.2", ":9: log-probability `x`"),
        ("-0.5\ta\t-0.2", "nan\ta\t-0.2", ":9: log-probability `nan`"),
        ("-0.5\ta\t-0.2", "0.5\ta\t-0.2", ":9: log-probability 0.5 is over 0"),
        ("-0.5\ta\t-0.2", "-0.5\ta\t-inf", ":9: backoff `-inf`"),
        ("-0.5\ta\t-0.2", "-0.5\ta\t-0.2\t7", ":9: `7` after 1 words and a backoff"),
        ("-0.5\ta\t-0.2", "-0.5\t</s>\t-0.2", ":9: `</s>` is there twice"),
        ("-0.1\t<s> a", "-0.1\t<s> b", ":12: `b` is not among the 1-grams"),
        ("-0.1\t<s> a", "-0.1\t<s> a\t-0.5", ":12: backoff -0.5 for an n-gram of the highest order"),
        ("-0.1\t<s> a", "-0.1\ta </s>", ":13: `a </s>` is there twice"),
        ("-0.1\t<s> a", "-0.1\t<s>", ":12: 1 words in a 2-gram"),
        ("\\end\\", "", ":16: the file ends where \\end\\ should come"),
        ("\\end\\", "\\3-grams:", ":15: `\\3-grams:` where \\end\\ should be"),
    ] {
        let broken = SMALL.replacen(from, to, 1);
        assert_ne!(broken, SMALL);
        let said = open(broken.as_bytes()).unwrap_err().to_string();
        assert!(said.contains(&format!("lm{says}")) || said.contains(says), "{says}: {said}");
    }
    let no_context = SMALL.replace("ngram 2=2", "ngram 2=2\nngram 3=1").replace("\\end\\", "\\3-grams:\n-0.1\ta a </s>\n\n\\end\\");
    let said = open(no_context.as_bytes()).unwrap_err().to_string();
    assert!(said.contains(":17: its context `a a` is not among the 2-grams"), "{said}");
    let said = open(b"").unwrap_err().to_string();
    assert!(said.contains(":1: the file ends where \\data\\"), "{said}");
    let said = open(b"\x7fELF\0\0\0\nsomething").unwrap_err().to_string();
    assert!(said.contains("neither ARPA text"), "{said}");
    assert!(matches!(NgramModel::open(Path::new("/nonexistent.arpa")), Err(Error::Io { .. })));
    assert!(matches!(NgramModel::open(Path::new("/")), Err(Error::Io { .. })));
}

/// Scores a model whatever it is made of; what comes out may be nonsense.
fn exercise(model: &NgramModel) {
    let ids: Vec<WordId> = [0, 1, 2, 3, 5, 40, 116, 117, 1000, WordId::MAX].into();
    for &first in &ids {
        for &second in &ids {
            let (_, state) = model.score(&model.start(), first);
            let (_, state) = model.score(&state, second);
            model.score(&state, first);
            model.score_end(&state);
        }
    }
    for word in ["the", "a", "", "qqq"] {
        if let Some(id) = model.word(word) {
            model.text(id);
        }
    }
    assert!(model.words().count() <= model.vocabulary_len());
}

/// All golden binaries and compact files of two models.
fn binaries() -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = ["lm3.probing", "lm3.trie", "lm3.trie_q", "lm3.trie_a", "lm3.trie_qa", "holes.trie"]
        .iter()
        .map(|name| (name.to_string(), std::fs::read(golden(name)).unwrap()))
        .collect();
    let corpus: String = text("corpus.txt").lines().take(40).map(|line| format!("{line}\n")).collect();
    for order in [1, 4] {
        let config = BuildConfig { order, fallback: Some([0.5, 1.0, 1.5]), ..BuildConfig::default() };
        files.push((format!("compact {order}"), compact(&mut build(&corpus, config), 4)));
    }
    files
}

#[test]
fn truncated_binaries_are_refused() {
    for (name, bytes) in binaries() {
        assert!(open(&bytes).is_ok(), "{name}");
        let lengths = (0..200.min(bytes.len())).chain((200..bytes.len()).step_by(97)).chain(bytes.len() - 40..bytes.len());
        let (mut refused, mut says_where) = (0, 0);
        for length in lengths {
            let error = open(&bytes[..length]).err().unwrap_or_else(|| panic!("{name}: {length} of {} bytes are read", bytes.len()));
            refused += 1;
            says_where += usize::from(error.to_string().contains("at byte"));
        }
        assert!(refused > 200 && says_where > refused / 4, "{name}: {says_where} of {refused}");
    }
}

#[test]
fn other_versions_and_kinds_are_refused() {
    let with = |bytes: &[u8], at: usize, value: u8| {
        let mut bytes = bytes.to_vec();
        bytes[at] = value;
        open(&bytes).unwrap_err()
    };
    let probing = std::fs::read(golden("lm3.probing")).unwrap();
    assert!(matches!(with(&probing, 49, b'4'), Error::FormatVersion { found: 4, supported: 5, .. }));
    assert!(matches!(with(&probing, 88, 9), Error::LimitExceeded { got: 9, .. }));
    assert!(with(&probing, 96, 1).to_string().contains("rest costs"));
    assert!(with(&probing, 96, 6).to_string().contains("model type 6"));
    assert!(with(&probing, 60, 1).to_string().contains("another architecture"));
    assert!(with(&probing, 115, 0xff).to_string().contains("out of range"));
    let incomplete = open(b"mmap lm http://kheafield.com/code incomplete\n and more").unwrap_err();
    assert!(incomplete.to_string().contains("not finished"), "{incomplete}");
    let compact = binaries().pop().unwrap().1;
    assert!(matches!(with(&compact, 16, 2), Error::FormatVersion { found: 2, supported: 1, .. }));
    assert!(with(&compact, compact.len() / 2, !compact[compact.len() / 2]).to_string().contains("damaged"));
    let longer = [&compact[..], &[0]].concat();
    assert!(open(&longer).unwrap_err().to_string().contains("1 bytes after its end"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Damage that no size reveals gives scores of no meaning, never a panic.
    #[test]
    fn damaged_binaries_do_no_harm(which in 0..8usize, damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20), head in any::<bool>()) {
        let (_, mut bytes) = binaries().swap_remove(which);
        for (at, value) in damage {
            let at = at.index(if head { bytes.len().min(400) } else { bytes.len() });
            bytes[at] = value;
        }
        reseal(&mut bytes);
        if let Ok(model) = open(&bytes) {
            exercise(&model);
        }
    }

    #[test]
    fn damaged_arpa_text_does_no_harm(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), cut in any::<prop::sample::Index>()) {
        let mut bytes = SMALL.as_bytes().to_vec();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(cut.index(bytes.len() + 40));
        if let Ok(model) = open(&bytes) {
            exercise(&model);
        }
    }

    #[test]
    fn random_bytes_are_refused(tail in prop::collection::vec(any::<u8>(), 0..600), magic in 0..4usize) {
        let magic: &[u8] = [&b"omniscribe ngram"[..], b"mmap lm http://kheafield.com/code format version 5\n\0", b"\x1f\x8b\x08\0", b""][magic];
        prop_assert!(open(&[magic, &tail].concat()).is_err());
    }
}

/// Gives a damaged compact file the checksum of its damage, so that it is read further.
fn reseal(bytes: &mut [u8]) {
    use sha2::Digest;
    if bytes.starts_with(b"omniscribe ngram") {
        let end = bytes.len() - 32;
        let checksum = sha2::Sha256::digest(&bytes[..end]);
        bytes[end..].copy_from_slice(&checksum);
    }
}

fn lm(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_omniscribe")).arg("lm").args(arguments).current_dir(folder).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn the_commands_build_query_and_inspect() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let corpus: String = text("corpus.txt").lines().map(|line| target(line).unwrap() + "\n").collect();
    let shouted: String = corpus.lines().map(|line| format!("{}!\n", line.to_uppercase())).collect();
    std::fs::write(at.join("text.txt"), shouted).unwrap();
    let held_out = corpus.lines().find(|line| line.split(' ').count() >= 8).unwrap();
    let row = |set: &str, text: &str| serde_json::json!({"audio_filepath": "x", "duration": 1, "text": text, "set": set}).to_string();
    std::fs::write(at.join("dev.jsonl"), [row("one", held_out), row("two", "The zyzzyva."), row("one", "the")].join("\n")).unwrap();

    let built = lm(&["build", "text.txt", "-o", "a.arpa", "-o", "a.lm", "--prune", "0", "0", "0", "--bits", "16"], at);
    assert_eq!(stdout(&built), "");
    let ours = entries(&std::fs::read_to_string(at.join("a.arpa")).unwrap());
    let expected = entries(&arpa(&mut build(&corpus, BuildConfig::default())));
    assert!(ours == expected, "target text is lower-case without punctuation");

    let excluding = lm(&["build", "text.txt", "-o", "b.lm", "--exclude", "dev.jsonl"], at);
    let said = String::from_utf8_lossy(&excluding.stderr).into_owned();
    assert!(excluding.status.success() && said.contains("left out: 1 lines by --exclude"), "{said}");

    let rows =
        |output: &Output| -> Vec<Vec<String>> { stdout(output).lines().map(|l| l.split('\t').map(String::from).collect()).collect() };
    let table = rows(&lm(&["query", "a.arpa", "dev.jsonl"], at));
    assert_eq!(table[1][..4], ["one".to_string(), "2".into(), (held_out.split(' ').count() + 1).to_string(), "0".into()]);
    assert_eq!((table[2][0].as_str(), table[2][3].as_str(), table[3][0].as_str()), ("two", "1", "all"));
    let without = rows(&lm(&["query", "b.lm", "dev.jsonl"], at));
    let perplexity = |table: &[Vec<String>]| table[1][5].parse::<f64>().unwrap();
    assert!(perplexity(&without) > 1.5 * perplexity(&table), "{} {}", perplexity(&without), perplexity(&table));

    let scored: serde_json::Value =
        serde_json::from_str(stdout(&lm(&["query", "a.lm", "text.txt", "-f", "json"], at)).lines().next().unwrap()).unwrap();
    let model = NgramModel::open(&at.join("a.arpa")).unwrap();
    let words: Vec<&str> = corpus.lines().next().unwrap().split(' ').collect();
    let total: f64 = walk(&model, &words, true, true).iter().sum();
    oracle::assert_close("log10", &[scored["log10"].as_f64().unwrap()], &[total], TOTALS);

    let inspected = stdout(&lm(&["inspect", "a.lm"], at));
    let [one, two, three] = model.counts() else { panic!("order {}", model.order()) };
    let expected = format!("format\tcompact\norder\t3\n1-grams\t{one}\n2-grams\t{two}\n3-grams\t{three}\nwords\t{one}\n");
    assert!(inspected.starts_with(&expected), "{inspected}");
    assert_eq!(stdout(&lm(&["inspect", "a.lm", "--words"], at)).lines().count() as u64, *one);

    for (arguments, says) in [
        (&["build", "text.txt", "-o", "c.lm", "--prune", "1,0"][..], "prune = [1, 0]"),
        (&["build", "none.txt", "-o", "c.lm"], "none.txt: "),
        (&["query", "text.txt", "text.txt"], "where \\data\\ should come"),
        (&["build", "text.txt", "-o", "no/folder/c.lm"], "no/folder/c.partial"),
    ] {
        let output = lm(arguments, at);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains(says), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty() && !at.join("c.lm").exists() && !at.join("c.partial").exists());
    }
}
