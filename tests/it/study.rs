//! `omniscribe study`: a grid of runs, its resumption, and a report that says what the runs did.

use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use omniscribe::eval::report::compare::Recorded;
use omniscribe::train::journal::{self, Line};
use omniscribe::train::study::intervals::Rate;
use omniscribe::train::study::report::StudyReport;
use omniscribe::train::study::structure::{StructureConfig, make};
use omniscribe::train::study::{Outcome, StudyConfig, cells};

use crate::training::Tones;

/// Two kinds and two seeds, a few steps each, in FOLDER.
const STUDY: &str = r#"
name = "tones <1>"
output = "FOLDER/study"
base = "FOLDER/run.toml"
seeds = [1, 2]
kinds = [
    { name = "dense", set = ['encoder.feed_forward={kind="dense"}'] },
    { name = "omni", set = ['encoder.feed_forward={kind="experts",router="omni",groups="2x3",router_bias=false,jitter=0}'] },
]
"#;

fn tones() -> Tones {
    let tones = Tones::new();
    tones.write("study.toml", STUDY);
    let run = std::fs::read_to_string(tones.path("run.toml")).unwrap();
    assert!(run.contains("audio_hours = 0.01"), "the cells are to be short");
    tones
}

fn study(tones: &Tones, what: &str, file: &str) -> Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_omniscribe"));
    command.args(["study", what]).arg(tones.path(file)).output().expect("runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn outcome(tones: &Tones, cell: &str) -> Outcome {
    Outcome::read(&tones.path("study").join(cell).join("cell.json")).expect("reads").expect("is there")
}

const CELLS: [&str; 4] = ["dense-s1", "omni-s1", "dense-s2", "omni-s2"];

#[test]
fn a_study_trains_all_cells_and_reports_what_they_did() {
    let tones = tones();
    let done = study(&tones, "run", "study.toml");
    assert!(done.status.success(), "{}", stderr(&done));
    let json = std::fs::read_to_string(tones.path("study/report.json")).expect("a report");
    let report: StudyReport = serde_json::from_str(&json).expect("the report's form");
    assert_eq!((report.done, report.seeds[""].as_slice()), ((4, 4), &[1, 2][..]));
    let kinds: Vec<&str> = report.entries.iter().map(|e| e.kind.as_str()).collect();
    assert_eq!(kinds, ["dense", "omni"]);
    let (dense, omni) = (&report.entries[0], &report.entries[1]);
    assert_eq!(dense.active, omni.active - omni.routers, "equal active sizes, the router aside");
    assert!(dense.parameters == dense.active && omni.parameters > omni.active && dense.routers == 0);

    // Same data in the same order: after the same steps every kind has seen the same hours, and another seed other ones.
    let hours = |cell: &str| outcome(&tones, cell).loss_curve.iter().map(|p| p.0).collect::<Vec<_>>();
    assert_eq!(hours("dense-s1"), hours("omni-s1"));
    for cell in CELLS {
        let lines = journal::read(&tones.path("study").join(cell).join("log.jsonl")).expect("a log");
        let losses: Vec<f64> = lines.iter().filter_map(|l| if let Line::Train { loss, .. } = l { Some(*loss) } else { None }).collect();
        assert_eq!(outcome(&tones, cell).loss_curve.iter().map(|p| p.1).collect::<Vec<_>>(), losses, "{cell}");
    }
    for (cells, entry) in [(["dense-s1", "dense-s2"], dense), (["omni-s1", "omni-s2"], omni)] {
        let ends = cells.map(|cell| outcome(&tones, cell).loss_curve.last().expect("a loss").1);
        let last = entry.loss_curve.last().expect("a curve");
        assert_eq!(entry.losses, ends);
        assert_eq!((last.low, last.high), (ends[0].min(ends[1]), ends[0].max(ends[1])));
        assert!((last.mean - (ends[0] + ends[1]) / 2.0).abs() < 1e-12);
    }
    // Rates are those of the counts: errors over words, the mean over seeds.
    let recorded = |cell: &str| Recorded::open(&tones.path("study").join(cell).join("dev.json")).expect("a result");
    let rates = |cell: &str| recorded(cell).result.sets.first().map(|set| (set.wer, set.cer)).expect("a set");
    let [first, second] = ["omni-s1", "omni-s2"].map(rates);
    let of_set = |sets: &std::collections::BTreeMap<String, Rate>| sets.values().next().expect("a set").of_seeds.clone();
    assert_eq!(of_set(&omni.words.sets), [first.0, second.0]);
    assert_eq!(of_set(&omni.characters.sets), [first.1, second.1]);
    let contrast = &report.contrasts[0];
    assert_eq!((contrast.kind.as_str(), contrast.against.as_str(), report.contrasts.len()), ("omni", "dense", 1));
    assert!((contrast.words.mean.absolute - (omni.words.mean.mean - dense.words.mean.mean)).abs() < 1e-12);
    assert!((contrast.characters.mean.absolute - (omni.characters.mean.mean - dense.characters.mean.mean)).abs() < 1e-12);
    // The tests are over what both seeds heard: their errors are those of the four results.
    let errors = |cells: [&str; 2]| cells.map(|cell| recorded(cell).result.sets.iter().map(|s| s.words.errors()).sum::<usize>());
    let [of_dense, of_omni] = [["dense-s1", "dense-s2"], ["omni-s1", "omni-s2"]].map(|cells| errors(cells).iter().sum::<usize>());
    assert_eq!(contrast.models.all.words.map(|w| w.errors()), [of_dense, of_omni]);
    assert_eq!(contrast.models.all.utterances, 2 * recorded("dense-s1").utterances.len());

    let page = std::fs::read_to_string(tones.path("study/report.html")).expect("a page");
    assert!(
        page.contains("tones &lt;1&gt;") && page.matches("<svg").count() == 3 && !page.contains("src="),
        "one page with everything in it"
    );
    let table = std::fs::read_to_string(tones.path("study/report.md")).expect("a table");
    assert!(table.contains("omni against dense"), "{table}");
    for picture in ["loss.svg", "wer.svg", "rates.svg"] {
        assert!(tones.path("study").join(picture).is_file(), "{picture}");
    }

    // The folder alone is enough for the same report, wherever it is, and its numbers can be kept elsewhere.
    std::fs::rename(tones.path("study"), tones.path("moved")).unwrap();
    std::fs::remove_file(tones.path("run.toml")).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_omniscribe"));
    let kept = command.args(["study", "report"]).arg(tones.path("moved")).arg("--export").arg(tones.path("kept")).output().expect("runs");
    assert!(kept.status.success(), "{}", stderr(&kept));
    let kept: StudyReport = serde_json::from_str(&std::fs::read_to_string(tones.path("kept.json")).unwrap()).unwrap();
    assert_eq!(StudyReport { command: report.command.clone(), ..kept }, report);
    assert!(tones.path("kept-loss.svg").is_file() && tones.path("kept-wer.svg").is_file() && tones.path("kept-rates.svg").is_file());
}

#[test]
fn a_study_goes_on_where_it_stopped() {
    let tones = tones();
    let whole = study(&tones, "run", "study.toml");
    assert!(whole.status.success(), "{}", stderr(&whole));
    let losses = |cell: &str| outcome(&tones, cell).loss_curve;
    let before: Vec<_> = CELLS.map(losses).into();
    let kept = std::fs::metadata(tones.path("study/dense-s1/cell.json")).unwrap().modified().unwrap();
    // As if it had been killed in the third cell; the report then is over the first seed.
    for cell in ["dense-s2", "omni-s2"] {
        std::fs::remove_file(tones.path("study").join(cell).join("cell.json")).unwrap();
    }
    std::fs::remove_dir_all(tones.path("study/omni-s2")).unwrap();
    let part = study(&tones, "report", "study.toml");
    assert!(part.status.success() && stderr(&part).contains("2 of 4 cells"), "{}", stderr(&part));
    let again = study(&tones, "run", "study.toml");
    assert!(again.status.success() && stderr(&again).contains("dense, seed 1: done"), "{}", stderr(&again));
    assert_eq!(before, CELLS.map(losses));
    assert_eq!(std::fs::metadata(tones.path("study/dense-s1/cell.json")).unwrap().modified().unwrap(), kept);

    // Another base is another study.
    let run = std::fs::read_to_string(tones.path("run.toml")).unwrap();
    tones.write("run.toml", &run.replace("audio_hours = 0.01", "audio_hours = 0.02"));
    let other = study(&tones, "run", "study.toml");
    assert!(!other.status.success() && stderr(&other).contains("this cell was another run"), "{}", stderr(&other));
}

#[test]
fn a_killed_study_ends_as_one_that_was_not() {
    let tones = tones();
    let run = std::fs::read_to_string(tones.path("run.toml")).unwrap();
    tones.write("run.toml", &run.replace("audio_hours = 0.01", "audio_hours = 0.03\ncheckpoint_minutes = 0"));
    let whole = study(&tones, "run", "study.toml");
    assert!(whole.status.success(), "{}", stderr(&whole));
    let killed = STUDY.replace("FOLDER/study", "FOLDER/killed");
    tones.write("killed.toml", &killed);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_omniscribe"));
    command.args(["study", "run"]).arg(tones.path("killed.toml")).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("runs");
    // In the middle of the second cell.
    let (checkpoint, start) = (tones.path("killed/omni-s1/checkpoint.safetensors"), Instant::now());
    while !checkpoint.is_file() && start.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert!(checkpoint.is_file() && !tones.path("killed/omni-s1/cell.json").exists(), "it was killed in its second cell");
    let again = study(&tones, "run", "killed.toml");
    assert!(again.status.success(), "{}", stderr(&again));
    assert!(stderr(&again).contains("dense, seed 1: done") && stderr(&again).contains("resuming at step"), "{}", stderr(&again));
    for cell in CELLS {
        assert_eq!(tones.log(&format!("study/{cell}")), tones.log(&format!("killed/{cell}")), "{cell}");
    }
}

#[test]
fn a_study_refuses_what_it_cannot_compare() {
    let tones = tones();
    let refused = |change: &str, to: &str, message: &str| {
        assert!(STUDY.contains(change), "{change}");
        tones.write("bad.toml", &STUDY.replace(change, to));
        let output = study(&tones, "run", "bad.toml");
        assert!(!output.status.success() && stderr(&output).contains(message), "{to}: {}", stderr(&output));
    };
    refused(
        "groups=\"2x3\",router_bias=false,jitter=0}'",
        "groups=\"2x3\",router_bias=false,jitter=0}', 'encoder.d_ff=300'",
        "equal active sizes",
    );
    refused("seeds = [1, 2]", "seeds = []", "at least one");
    refused("seeds = [1, 2]", "seeds = [-1]", "seeds");
    refused("seeds = [1, 2]", "seeds = [2, 2]", "one twice");
    refused("name = \"omni\"", "name = \"dense\"", "one twice");
    refused("name = \"omni\"", "name = \"a/b\"", "names folders");
    refused("seeds = [1, 2]", "seeds = [1, 2]\nnormalizer = \"loud\"", "normalizer");
    refused("seeds = [1, 2]", "seeds = [1, 2]\nspeed = 3", "unknown field");
    refused("kind=\"dense\"", "kind=\"dens\"", "dens");
    let base = std::fs::read_to_string(tones.path("run.toml")).unwrap();
    tones.write("run.toml", &base.replace("dev = [", "# dev = ["));
    refused("seeds = [1, 2]", "seeds = [1, 3]", "something to measure on");
    tones.write("run.toml", &base);
    let nothing = study(&tones, "report", "study.toml");
    assert!(!nothing.status.success() && stderr(&nothing).contains("no cell of this study is done"), "{}", stderr(&nothing));
}

fn structure(tones: &Tones) -> StructureConfig {
    StructureConfig { folder: tones.path("tones"), train: 40, dev: 10, keys: 3, letters: 6, words: 3, snr_db: 10.0, seed: 4 }
}

#[test]
fn data_of_known_structure_are_what_they_say() {
    let tones = Tones::new();
    let config = structure(&tones);
    make(&config).expect("made");
    let table = config.table();
    for row in table.iter().flatten() {
        let mut sorted = row.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..config.letters).collect::<Vec<_>>(), "a row permutes the tones");
    }
    assert!(table[0] != table[1] && table[1] != table[2], "keys differ: {table:?}");
    let texts = |name: &str| -> Vec<String> {
        let text = std::fs::read_to_string(config.folder.join(name)).expect("a manifest");
        let of = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["text"].as_str().unwrap().to_string();
        text.lines().map(of).collect()
    };
    let (train, dev) = (texts("train.jsonl"), texts("dev.jsonl"));
    assert_eq!((train.len(), dev.len()), (40, 10));
    assert!(dev.iter().all(|text| !train.contains(text)), "nothing that is measured was trained on");
    assert!(train.iter().all(|text| text.split(' ').count() == 3 && text.split(' ').all(|w| (2..=4).contains(&w.len()))));
    // Made once: the same again is left alone, another is refused.
    let clip = config.folder.join("train-0.wav");
    let made = std::fs::metadata(&clip).unwrap().modified().unwrap();
    make(&config).expect("is there");
    assert_eq!(std::fs::metadata(&clip).unwrap().modified().unwrap(), made);
    let other = make(&StructureConfig { seed: 5, ..config }).expect_err("another table");
    assert!(other.to_string().contains("another configuration"), "{other}");
}

#[test]
fn the_letters_of_a_key_sound_as_its_table_says() {
    let tones = Tones::new();
    let config = StructureConfig { snr_db: 60.0, ..structure(&tones) };
    make(&config).expect("made");
    let table = config.table();
    let lines = std::fs::read_to_string(config.folder.join("dev.jsonl")).unwrap();
    let first: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let samples = omniscribe::audio::read(&config.folder.join("dev-0.wav"), &omniscribe::audio::Limits::default()).expect("a clip").samples;
    // Strength of a frequency in the middle of a letter.
    let strength = |from: usize, hz: f64| {
        let part = &samples[from + 200..from + 1080];
        let turn = |t: usize| std::f64::consts::TAU * hz * t as f64 / 16_000.0;
        let sum = |wave: fn(f64) -> f64| part.iter().enumerate().map(|(t, s)| f64::from(*s) * wave(turn(t))).sum::<f64>();
        sum(f64::sin).hypot(sum(f64::cos))
    };
    let loudest = |from: usize, base: f64, ratio: f64, n: usize| {
        let at = |i: &usize| strength(from, base * ratio.powi(*i as i32));
        (0..n).max_by(|a, b| at(a).total_cmp(&at(b))).unwrap()
    };
    let (letter, gap) = (1280, 640);
    let mut from = gap;
    for word in first["text"].as_str().unwrap().split(' ') {
        let key = loudest(from, 220.0, 1.25, config.keys);
        let mut before = config.letters;
        for byte in word.bytes() {
            let tone = loudest(from, 900.0, 1.18, config.letters);
            let letter_number = b"bcdfghjklmnpqrstvwxz".iter().position(|l| *l == byte).unwrap();
            assert_eq!(table[key][before][letter_number], tone, "{word}, key {key}");
            before = tone;
            from += letter + gap;
        }
        from += 2 * gap;
    }
}

#[test]
fn the_studies_that_ship_are_valid() {
    for name in ["study", "study-structure"] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("benchmarks/{name}.toml"));
        let study = StudyConfig::read(&path).expect(name);
        let cells = cells(&study).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(
            study.kinds.len() == 3 && study.seeds.len() >= 3 && cells.len() == 3 * study.seeds.len() * study.sizes.len().max(1),
            "{name}"
        );
    }
}
