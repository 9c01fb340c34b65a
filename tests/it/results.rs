//! `benchmarks/RESULTS.md` is made from `benchmarks/results/*.json`; this fails where they differ.
//! `UPDATE_RESULTS=1 cargo test --release results` writes it anew.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

const HEADER: &str = "# Measured\n\nMade from `results/*.json` by `UPDATE_RESULTS=1 cargo test --release results`; do not edit. \
Ratios compare two programs on the same work in the same run; absolute times are of shared, noisy machines.\n";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benchmarks")
}

fn render() -> String {
    let mut files: Vec<PathBuf> = std::fs::read_dir(root().join("results")).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "json"));
    files.sort();
    let mut text = HEADER.to_string();
    for file in files {
        let json: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        match json["benchmark"].as_str().or(json["bench"].as_str()) {
            Some("features") => features(&mut text, &name, &json),
            Some("encoder_peers") => encoder(&mut text, &name, &json),
            Some("yardstick") => yardstick(&mut text, &name, &json),
            Some("transcribe") => transcribe(&mut text, &name, &json),
            Some("scoring") => peers(&mut text, &name, &json, "Scoring: 10,000 utterances, 200,000 words, one thread"),
            Some("decoding") => peers(&mut text, &name, &json, "Beam search against its peers, one thread"),
            other => panic!("{name}: no table for benchmark {other:?}"),
        }
    }
    text
}

fn heading(text: &mut String, title: &str, name: &str, json: &Value) {
    let command = match &json["command"] {
        Value::Array(words) => words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        other => other.as_str().unwrap_or_default().to_string(),
    };
    let (cpu, date) = (json["cpu"].as_str().unwrap(), json["date"].as_str().unwrap());
    write!(text, "\n## {title}\n\n[`{name}`](results/{name}), {date}, {cpu}.\n\n```sh\n{command}\n```\n\n").unwrap();
}

fn features(text: &mut String, name: &str, json: &Value) {
    heading(text, "Features: 10 minutes of audio, one thread", name, json);
    text.push_str("| features | peer | faster than it, best run | median run |\n|---|---|---|---|\n");
    for (pair, ratio) in json["ratio_peer_over_ours"].as_object().unwrap() {
        let (features, peer) = pair.split_once(" vs ").unwrap();
        writeln!(text, "| {features} | {peer} | {:.1}x | {:.1}x |", ratio["best"].as_f64().unwrap(), ratio["median"].as_f64().unwrap())
            .unwrap();
    }
}

/// Ratios against peers by name.
fn peers(text: &mut String, name: &str, json: &Value, title: &str) {
    heading(text, title, name, json);
    text.push_str("| work | faster than it, best run | median run |\n|---|---|---|\n");
    for (pair, ratio) in json["ratio_peer_over_ours"].as_object().unwrap() {
        writeln!(text, "| {pair} | {:.1}x | {:.1}x |", ratio["best"].as_f64().unwrap(), ratio["median"].as_f64().unwrap()).unwrap();
    }
    for (normalizer, speed) in json["lines_per_s"].as_object().into_iter().flatten() {
        writeln!(text, "\nNormaliser `{normalizer}`: {:.0} lines/s.", speed.as_f64().unwrap()).unwrap();
    }
}

fn encoder(text: &mut String, name: &str, json: &Value) {
    heading(text, "Encoder against PyTorch: same weights, same inputs", name, json);
    writeln!(
        text,
        "PyTorch {}; 12 layers, d_model 256, 250 steps. Ratio: our time / PyTorch's, below 1 we are faster.\n",
        json["torch"].as_str().unwrap()
    )
    .unwrap();
    text.push_str("| case | mode | batch | threads | precision | PyTorch, ms | ours, ms | ratio (median) | ratio (best) |\n|---|---|---|---|---|---|---|---|---|\n");
    for row in json["rows"].as_array().unwrap().iter().filter(|r| r["ours"].is_object()) {
        let number = |v: &Value| format!("{:.2}", v.as_f64().unwrap());
        let word = |key: &str| row[key].as_str().map_or_else(|| row[key].to_string(), str::to_string);
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {:.1} | {:.1} | {} | {} |",
            word("case"),
            word("mode"),
            word("batch"),
            word("threads"),
            word("precision"),
            row["torch"]["median_ms"].as_f64().unwrap(),
            row["ours"]["median_ms"].as_f64().unwrap(),
            number(&row["ratio_median"]),
            number(&row["ratio_best"])
        )
        .unwrap();
    }
}

fn yardstick(text: &mut String, name: &str, json: &Value) {
    heading(text, "Learning: our trainer against plain PyTorch, same data, sizes and audio hours", name, json);
    text.push_str(
        "![both curves](yardstick.svg)\n\n| audio hours | PyTorch, nats per character | ours | ours / PyTorch |\n|---|---|---|---|\n",
    );
    for row in json["rows"].as_array().unwrap() {
        let n = |key: &str| row[key].as_f64().unwrap();
        writeln!(text, "| {:.0} | {:.3} | {:.3} | {:.3} |", n("audio_hours"), n("torch"), n("ours"), n("ours") / n("torch")).unwrap();
    }
}

fn transcribe(text: &mut String, name: &str, json: &Value) {
    heading(text, "The program from outside", name, json);
    text.push_str("| what | measured |\n|---|---|\n");
    for (what, value) in json["figures"].as_object().unwrap() {
        writeln!(text, "| {what} | {} |", value.as_str().unwrap()).unwrap();
    }
}

#[test]
fn results_page_is_what_the_results_say() {
    let page = root().join("RESULTS.md");
    let fresh = render();
    if std::env::var_os("UPDATE_RESULTS").is_some() {
        std::fs::write(&page, &fresh).unwrap();
    }
    let kept = std::fs::read_to_string(&page).unwrap();
    assert!(kept == fresh, "benchmarks/RESULTS.md is stale: UPDATE_RESULTS=1 cargo test --release results");
}
