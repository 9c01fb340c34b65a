//! Compressed experts: bytes against word errors and agreement of choices.
//!
//! ```sh
//! cargo bench --bench compress -- --model models/base --speech ../shared/speech/dev.jsonl --utterances 150 --out benchmarks/results/compress.json
//! ```
//!
//! Every model is written, opened and run as a user would; greedy decoding, f32 arithmetic. Utterances are every n-th of the manifest, single
//! digits (`fsdd`) left out. The picture goes beside the result, as `compress.svg`.

#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use burn::tensor::Device;
use omniscribe::checkpoint::convert::convert;
use omniscribe::checkpoint::factored::Storage;
use omniscribe::checkpoint::{ModelDirectory, Opened};
use omniscribe::compress::fidelity::{Fidelity, Heard, compare, hear};
use omniscribe::compress::{Bytes, Method, Plan, ResidualKind, compress};
use omniscribe::eval::corpora::{CorpusKind, Rules, Utterance, open};
use omniscribe::eval::report::environment;
use omniscribe::eval::{Aligner, Scoring};
use omniscribe::pipeline::decoder::Decoding;
use omniscribe::text::Normalizer;
use omniscribe::train::plot::{Curve, chart_over};
use omniscribe::{Precision, Transcriber};
use serde_json::{Value, json};

fn argument(name: &str) -> Option<String> {
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|a| a == name)?;
    Some(arguments.get(at + 1).unwrap_or_else(|| panic!("{name} takes a value")).clone())
}

fn heard(model: &Path, utterances: &[Utterance]) -> Vec<Heard> {
    let transcriber = Transcriber::open(model, Device::flex(), Precision::F32).unwrap().with_decoding(&Decoding::Greedy).unwrap();
    hear(&transcriber, utterances).unwrap()
}

fn row([method, residual]: [&str; 2], keep: f64, storage: Storage, bytes: Bytes, whole: u64, error: f64, fidelity: &Fidelity) -> Value {
    let row = json!({
        "method": method, "residual": residual, "keep": keep, "storage": storage, "bytes": bytes, "expert_bytes": bytes.total(),
        "whole_expert_bytes": whole, "weight_error": error, "wer": fidelity.changed.wer(), "errors": fidelity.changed.errors(),
        "same_text": fidelity.same_text, "agreement": fidelity.agreement, "agreement_mean": fidelity.mean_agreement(),
    });
    println!(
        "{method} {residual} keep {keep:.3} {storage:?}: {:.2} MB, WER {:.2} %, same expert {:.1} %",
        bytes.total() as f64 / 1e6,
        100.0 * fidelity.changed.wer(),
        100.0 * fidelity.mean_agreement()
    );
    row
}

fn main() {
    // What `cargo test --benches` would ask for.
    let Some(speech) = argument("--speech") else { return };
    let model = PathBuf::from(argument("--model").unwrap_or("models/base".into()));
    let count: usize = argument("--utterances").unwrap_or("150".into()).parse().unwrap();
    let out = PathBuf::from(argument("--out").unwrap_or("benchmarks/results/compress.json".into()));
    let corpus = open(CorpusKind::from_id("nemo").unwrap(), Path::new(&speech), &Rules::default()).unwrap();
    let all: Vec<Utterance> = corpus.utterances.into_iter().filter(|u| u.set.as_deref() != Some("fsdd")).collect();
    let every = (all.len() / count).max(1);
    let utterances: Vec<Utterance> = all.into_iter().step_by(every).take(count).collect();
    let seconds: f64 = utterances.iter().filter_map(|u| u.duration).sum();
    let scoring = Scoring::new(Normalizer::default(), Aligner::default(), None).unwrap();
    let (directory, opened) = (ModelDirectory::open(&model).unwrap(), Opened::open(&model).unwrap());
    let experts = parameters_of_experts(&opened);

    let original = heard(&model, &utterances);
    let folder = tempfile::tempdir().unwrap();
    let mut rows = Vec::new();
    let whole_f16 = bytes_of_experts(&model);
    let fidelity = compare(&utterances, &original, &original, &scoring).unwrap();
    rows.push(row(["as shipped", ""], 1.0, Storage::F16, Bytes { residual: whole_f16, ..Bytes::default() }, whole_f16, 0.0, &fidelity));
    convert(&opened, folder.path(), Storage::Int8).unwrap();
    let int8 = bytes_of_experts(folder.path());
    let fidelity = compare(&utterances, &original, &heard(folder.path(), &utterances), &scoring).unwrap();
    rows.push(row(["int8 alone", ""], 1.0, Storage::Int8, Bytes { residual: int8, ..Bytes::default() }, whole_f16, 0.0, &fidelity));

    let centre_share = 1.0 / experts as f64;
    let mut plans = Vec::new();
    for keep in [0.0, 0.1, 0.25, 0.5, 0.75, 1.0] {
        plans.push((Method::Resmoe, ResidualKind::Prune, keep, Storage::F16));
    }
    for keep in [0.1, 0.25, 0.5] {
        plans.push((Method::Resmoe, ResidualKind::Svd, keep, Storage::F16));
    }
    for keep in [0.0, 0.1, 0.25, 0.5] {
        plans.push((Method::Average, ResidualKind::Prune, keep, Storage::F16));
    }
    // As many bytes as ResMoE's: what the centre takes is one expert more.
    for keep in [0.0, 0.1, 0.25, 0.5, 0.75] {
        plans.push((Method::Magnitude, ResidualKind::Prune, keep + centre_share, Storage::F16));
    }
    for keep in [0.25, 0.5] {
        plans.push((Method::Resmoe, ResidualKind::Prune, keep, Storage::Int8));
        plans.push((Method::Magnitude, ResidualKind::Prune, keep + centre_share, Storage::Int8));
    }
    for (method, residual, keep, storage) in plans {
        let report = compress(&directory, &Plan { method, residual, keep, storage }, folder.path()).unwrap();
        let fidelity = compare(&utterances, &original, &heard(folder.path(), &utterances), &scoring).unwrap();
        let error = report.layers.iter().map(|l| l.error).sum::<f64>() / report.layers.len() as f64;
        let name = |v: Value| v.as_str().unwrap().to_string();
        let (method, residual) = (name(json!(method)), name(json!(residual)));
        rows.push(row([&method, &residual], keep, storage, report.bytes, whole_f16, error, &fidelity));
    }
    let words: usize = fidelity.original.reference_words;
    let result = json!({
        "benchmark": "compress", "command": format!("cargo bench --bench compress -- {}", std::env::args().skip(1).filter(|a| a != "--bench").collect::<Vec<_>>().join(" ")),
        "cpu": environment::cpu_name(), "date": environment::utc(SystemTime::now()).split('T').next().unwrap(), "model": directory.config.name,
        "utterances": utterances.len(), "audio_seconds": seconds, "words": words, "experts": experts, "rows": rows,
    });
    std::fs::write(&out, format!("{result:#}\n")).unwrap();
    std::fs::write(out.parent().unwrap().parent().unwrap().join("compress.svg"), picture(&result)).unwrap();
}

/// Experts of the first layer that has several.
fn parameters_of_experts(opened: &Opened) -> usize {
    let parameters = omniscribe::checkpoint::convert::parameters(opened).unwrap();
    parameters.iter().find(|(name, _)| name.ends_with(".experts.up")).map(|(_, shape)| shape[0]).unwrap()
}

fn bytes_of_experts(model: &Path) -> u64 {
    let opened = Opened::open(model).unwrap();
    let file = &opened.weights().file;
    file.names().filter(|n| n.contains(".experts.")).map(|n| file.get(n).unwrap().bytes.len() as u64).sum()
}

/// WER over megabytes of experts.
fn picture(result: &Value) -> String {
    let curve = |name: &str, method: &str, residual: &str, storage: &str| {
        let rows = result["rows"].as_array().unwrap().iter();
        let chosen = rows.filter(|r| r["method"] == method && r["residual"] == residual && r["storage"] == storage);
        let mut points: Vec<(f64, f64)> =
            chosen.map(|r| (r["expert_bytes"].as_f64().unwrap() / 1e6, 100.0 * r["wer"].as_f64().unwrap())).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Curve { name: name.into(), points, band: vec![] }
    };
    let curves = [
        curve("ResMoE, pruned", "resmoe", "prune", "f16"),
        curve("ResMoE, low rank", "resmoe", "svd", "f16"),
        curve("not aligned, pruned", "average", "prune", "f16"),
        curve("plain magnitude pruning", "magnitude", "prune", "f16"),
        curve("ResMoE, pruned, int8", "resmoe", "prune", "int8"),
        curve("plain magnitude pruning, int8", "magnitude", "prune", "int8"),
    ];
    chart_over("Experts made smaller", "megabytes of experts, centre and index counted", "WER, %", &curves)
}
