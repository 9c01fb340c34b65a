//! A guard on speed: instructions that the program executes for its hot paths, counted by `valgrind --tool=callgrind`, against `benchmarks/instructions.json`.
//!
//! Counts are repeatable where times are not: one thread, and valgrind shows every machine the same processor (AVX2, no AVX-512), so this guards the
//! kernels of that tier and everything that is not a kernel. More than 5 % above the baseline fails. A commit that means to cost more, or has made
//! something faster, declares it by writing the baseline anew:
//!
//! ```sh
//! UPDATE_INSTRUCTIONS=1 cargo test --release --test it instruction_counts -- --ignored
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::training::Tones;

/// What may be added without a word, as a share.
const TOLERANCE: f64 = 0.05;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The hot paths, each as the arguments of the program.
fn paths(tones: &Tones) -> Vec<(&'static str, Vec<String>)> {
    let words = |line: &str| line.split(' ').map(str::to_string).collect::<Vec<_>>();
    let text = tones.write("text", "the weather is fine this morning and we are going to walk along the river to the old town\n");
    let (run, output) = (tones.path("run.toml"), tones.path("run"));
    vec![
        ("encoder: transcribe --decoder greedy", words("transcribe -q --decoder greedy assets/digits.wav")),
        ("beam search with language model, Opus: transcribe", words("transcribe -q assets/river.opus")),
        ("alignment: align", words(&format!("align assets/river.wav {}", text.display()))),
        ("training: train", words(&format!("train --config {} --set output=\"{}\"", run.display(), output.display()))),
    ]
}

/// Instructions of one run of the program; the profile is left in `profile`.
fn instructions(arguments: &[String], profile: &Path) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", &format!("--callgrind-out-file={}", profile.display())])
        .arg(env!("CARGO_BIN_EXE_omniscribe"))
        .args(arguments)
        .current_dir(root())
        .env("OMNISCRIBE_MODEL", "models/base")
        .env("RAYON_NUM_THREADS", "1")
        .output()
        .expect("valgrind: install it (Debian: apt-get install valgrind)");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {log}");
    let collected = log.lines().find_map(|line| line.split_once("Collected :")).expect("a count").1;
    collected.trim().parse().expect("a number")
}

#[test]
#[ignore = "needs valgrind and two minutes"]
fn instruction_counts_stay_within_the_baseline() {
    let file: PathBuf = root().join("benchmarks/instructions.json");
    let tones = Tones::new();
    let paths = paths(&tones);
    let counted: BTreeMap<&str, u64> = std::thread::scope(|scope| {
        let running: Vec<_> = paths
            .iter()
            .enumerate()
            .map(|(i, (name, arguments))| {
                let profile = tones.path(&format!("{i}.callgrind"));
                (*name, scope.spawn(move || instructions(arguments, &profile)))
            })
            .collect();
        running.into_iter().map(|(name, run)| (name, run.join().expect("a count"))).collect()
    });
    if std::env::var_os("UPDATE_INSTRUCTIONS").is_some() {
        let text = serde_json::to_string_pretty(&json!({ "tolerance": TOLERANCE, "instructions": counted })).unwrap();
        std::fs::write(&file, text + "\n").unwrap();
    }
    let baseline: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let mut slower = Vec::new();
    for (name, &count) in &counted {
        let before = baseline["instructions"][name].as_u64().unwrap_or_else(|| panic!("no baseline for {name}"));
        let change = count as f64 / before as f64 - 1.0;
        println!("{name}: {count} instructions, {:+.2} % from the baseline", 100.0 * change);
        if change > TOLERANCE {
            slower.push(format!("{name}: {:+.1} %", 100.0 * change));
        }
    }
    assert!(slower.is_empty(), "more instructions than the baseline allows (see the head of tests/it/instructions.rs): {slower:?}");
}
