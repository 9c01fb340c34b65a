//! Modularity on models with experts and without, and through the program.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use burn::tensor::Device;
use omniscribe::analyze::functions::functions;
use omniscribe::analyze::observe::{Recording, layer_weights, log_probs, observe};
use omniscribe::analyze::perturb::silenced;
use omniscribe::checkpoint::ModelDirectory;
use omniscribe::eval::corpora::Labels;
use omniscribe::features::LogMel;
use omniscribe::kernel::rng::SplitMix;
use omniscribe::model::asr::AsrModel;
use omniscribe::model::config::EncoderConfig;
use serde_json::{Value, json};

use crate::training::random_model;

fn encoder(feed_forward: Value) -> EncoderConfig {
    serde_json::from_value(json!({
        "mels": 20, "d_model": 32, "n_layers": 3, "n_heads": 4, "d_ff": 48, "activation": "silu", "dropout": 0.0, "attention_bias": true,
        "scale_input": false, "subsampling": {"kind": "stacking", "factor": 4, "hidden": 24}, "position": {"kind": "rotary"},
        "context": {"kind": "full"}, "block": {"kind": "conformer", "kernel": 5, "norm": "layer", "convolution_bias": true},
        "feed_forward": feed_forward, "intermediate": null
    }))
    .expect("configuration")
}

fn recording(seed: u64, frames: usize) -> Recording {
    let mut rng = SplitMix::new(seed);
    let values = (0..frames * 20).map(|_| rng.next_normal()).collect();
    Recording {
        features: LogMel { values, frames, mels: 20 },
        speech: std::iter::once(0..4000).collect(),
        reference: "a cat".into(),
        set: format!("s{}", seed % 2),
        spoken: Labels::default(),
        noisy: false,
    }
}

#[test]
fn every_step_shows_the_neurons_of_its_own_expert() {
    let folder = tempfile::tempdir().unwrap();
    let experts = json!({"kind": "experts", "router": "omni", "groups": "1x1-2x4", "router_bias": false, "jitter": 0.0});
    random_model(folder.path(), &encoder(experts), 3, |_| ());
    let directory = ModelDirectory::open(folder.path()).unwrap();
    let model = directory.model(&Device::flex()).unwrap();
    let layers = layer_weights(&model).unwrap();
    let recordings: Vec<Recording> = (0..4).map(|i| recording(i, 60 + 7 * i as usize)).collect();
    let look = |stride| observe(&model, &layers, &directory.tokenizer, &recordings, 640, stride, &Device::flex()).unwrap();
    let (all, some) = (look(1), look(3));
    let steps: usize = (0..4).map(|i| (60 + 7 * i as usize).div_ceil(4)).sum();
    assert_eq!((all.labels.len(), all.recording.len(), some.labels.len()), (steps, steps, steps.div_ceil(3)));
    for (i, weights) in layers.iter().enumerate() {
        let neurons = weights.experts * weights.d_ff;
        assert_eq!(all.neurons[i].len(), steps * neurons);
        // Every third step of all is what is seen with a stride of three.
        for (a, b) in all.neurons[i].chunks_exact(neurons).step_by(3).zip(some.neurons[i].chunks_exact(neurons)) {
            assert_eq!(a, b, "layer {i}");
        }
        for row in all.neurons[i].chunks_exact(neurons) {
            let at_work = row.chunks_exact(weights.d_ff).filter(|e| e.iter().any(|v| *v != 0.0)).count();
            assert_eq!(at_work, 1, "layer {i}");
        }
    }
    let found = functions(&all.labels, 1);
    for name in ["letters: vowels", "letters: stops", "no letter", "speech", "set s0", "set s1"] {
        assert!(found.iter().any(|f| f.name == name), "{name} in {:?}", found.iter().map(|f| &f.name).collect::<Vec<_>>());
    }
    // Silence: nobody changes nothing, somebody something.
    let groups: Vec<Vec<usize>> = layers.iter().map(|l| (0..l.experts * l.d_ff).map(|n| n / l.d_ff).collect()).collect();
    let heard = |model: &AsrModel| log_probs(model, &recordings[0].features, None, &Device::flex());
    let whole = heard(&model);
    assert_eq!(heard(&silenced(&model, &groups, &[])), whole);
    let without = heard(&silenced(&model, &groups, &[(1, 0), (1, 1), (1, 2), (1, 3)]));
    assert!(without.iter().zip(&whole).any(|(a, b)| (a - b).abs() > 1e-4));
    let dense = heard(&silenced(&model, &groups, &[(0, 0)]));
    assert!(dense.iter().zip(&whole).any(|(a, b)| (a - b).abs() > 1e-4));
}

#[test]
fn memories_and_strata_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    random_model(folder.path(), &encoder(json!({"kind": "strata", "router": "omni", "strata": [2, 2]})), 3, |_| ());
    let model = ModelDirectory::open(folder.path()).unwrap().model(&Device::flex()).unwrap();
    assert!(layer_weights(&model).unwrap_err().to_string().contains("not of memories and strata"));
}

#[test]
fn the_program_analyses_the_shipped_model() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let (set, out) = (folder.path().join("set"), folder.path().join("out"));
    std::fs::create_dir(&set).unwrap();
    for (file, text) in [("river.wav", "the river runs by the old mill"), ("digits.wav", "one two three")] {
        std::fs::copy(root.join("assets").join(file), set.join(file)).unwrap();
        std::fs::write(set.join(Path::new(file).with_extension("txt")), text).unwrap();
    }
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_omniscribe"));
        command.current_dir(&root).args(["analyze", "modularity", "models/base", "--resamples", "2", "--silence", "1"]);
        let output = command.arg("--on").arg(&set).arg("-o").arg(&out).args(more).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text, error) = run(&["--steps", "150", "--noise", "5", "--earlier", "models/base"]);
    assert_eq!(code, Some(0), "{text}{error}");
    assert!(text.contains("models/base\tfunctional") && text.contains("of the last best neurons 100.0 % among the best"), "{text}");
    assert_eq!(text.lines().filter(|l| l.starts_with("layer ")).count(), 8, "{text}");
    let report: Value = serde_json::from_slice(&std::fs::read(out.join("modularity.json")).unwrap()).unwrap();
    for layer in report["layers"].as_array().unwrap() {
        assert_eq!((&layer["groups"], &layer["best"]), (&json!(4), &json!(30)), "{layer}");
        for function in layer["functions"].as_array().unwrap() {
            let counts: u64 = function["counts"].as_array().unwrap().iter().map(|c| c.as_u64().unwrap()).sum();
            assert_eq!(counts, 30, "{function}");
            let precision = function["precision"].as_f64().unwrap();
            assert!((0.5..=1.0).contains(&precision), "{function}");
        }
    }
    assert!(std::fs::read_to_string(out.join("modularity.svg")).unwrap().starts_with("<svg"));
    assert!(report["functions"]["noise"].as_u64().unwrap() > 20 && report["earlier"][0]["best_kept"] == 1.0, "{report:#}");
    let (code, _, error) = run(&["--steps", "150", "--earlier", "models/tiny"]);
    assert!(code == Some(1) && error.contains("models/tiny: is not of the shape of base"), "{error}");
    let (code, _, error) = run(&["--steps", "0"]);
    assert!(code == Some(1) && error.contains("must be above 0"), "{error}");
}
