//! No dead knob: every leaf of a configuration changes something that can be seen, or its change is refused.
//!
//! The data's own knobs (`augment`, `spec_augment`, `batches`, `data.filter`) are perturbed in `dataset.rs`; here a run must hear of them.

use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};

use burn::tensor::{Device, Tensor, TensorData};
use omniscribe::checkpoint::weights;
use omniscribe::kernel::cpu::Tier;
use omniscribe::kernel::rng::SplitMix;
use omniscribe::model::asr::AsrModel;
use omniscribe::model::config::{ContextConfig, EncoderConfig};
use omniscribe::model::lengths::Lengths;
use omniscribe::model::pass::Pass;
use omniscribe::train::study::structure::{StructureConfig, make};
use omniscribe::train::study::{self, StudyConfig};
use omniscribe::train::{RunConfig, run};
use omniscribe::{Precision, Result};
use serde_json::{Value, json};

use crate::training::{Tones, line, random_model};

/// All leaves of a JSON value by path; an object with a `kind` is a leaf too, as one choice among others.
fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if map.contains_key("kind") {
                found.push(path.to_string());
            }
            map.iter().filter(|(key, _)| *key != "kind").for_each(|(key, v)| leaves(v, &format!("{path}/{key}"), found));
        }
        Value::Array(items) => items.iter().enumerate().for_each(|(i, v)| leaves(v, &format!("{path}/{i}"), found)),
        _ => found.push(path.to_string()),
    }
}

/// Other values for a leaf without choices of its own.
fn neighbours(leaf: &Value) -> Vec<Value> {
    match leaf {
        Value::Bool(b) => vec![json!(!b)],
        Value::Number(n) if n.is_u64() => n.as_u64().map_or(vec![], |n| [n + 1, n + 2, n * 2].map(Value::from).into()),
        Value::Number(n) => n.as_f64().map_or(vec![], |x| [x * 0.75 + 0.01, x * 1.25 + 0.01].map(Value::from).into()),
        other => panic!("no other value for {other}"),
    }
}

/// Perturbs every leaf of `config` that `skip` does not name: each accepted value must change what `observe` gives. Returns the leaves of which
/// every other value was refused.
fn no_dead_knob<C: serde::Serialize + serde::de::DeserializeOwned>(
    config: &C,
    skip: impl Fn(&str) -> bool,
    choices: impl Fn(&str) -> Option<Vec<Value>>,
    observe: impl Fn(&C) -> Result<String>,
) -> Vec<String> {
    let value = serde_json::to_value(config).expect("serialises");
    let before = observe(config).expect("the preset is valid");
    assert_eq!(observe(config).expect("the preset is valid"), before, "what is observed must repeat");
    let mut paths = Vec::new();
    leaves(&value, "", &mut paths);
    paths.retain(|path| !skip(path));
    let (mut dead, mut refused) = (Vec::new(), Vec::new());
    for path in paths {
        let old = value.pointer(&path).expect("leaf").clone();
        let mut accepted = 0;
        for new in choices(&path).unwrap_or_else(|| neighbours(&old)) {
            let mut other = value.clone();
            *other.pointer_mut(&path).expect("leaf") = new.clone();
            let Ok(other) = serde_json::from_value::<C>(other) else { continue };
            if serde_json::to_value(&other).expect("serialises") == value {
                continue;
            }
            if let Ok(after) = observe(&other) {
                accepted += 1;
                if after == before {
                    dead.push(format!("{path}: {old} -> {new}"));
                }
            }
        }
        if accepted == 0 {
            refused.push(path);
        }
    }
    assert!(dead.is_empty(), "knobs that change nothing:\n{}", dead.join("\n"));
    refused
}

fn bits(values: &[f32]) -> String {
    let mut hasher = DefaultHasher::new();
    values.iter().for_each(|v| v.to_bits().hash(&mut hasher));
    format!("{:x}", hasher.finish())
}

fn cape() -> Value {
    json!({"kind": "cape", "freq_scale": 1.5, "delta": 0.9, "content_scale": 1.2, "normalize": true, "max_global_shift": 0.4,
        "max_local_shift": 0.3, "max_global_scaling": 1.2})
}

fn conformer() -> Value {
    json!({"kind": "conformer", "kernel": 5, "norm": "layer", "convolution_bias": true})
}

fn experts(router: &str) -> Value {
    json!({"kind": "experts", "router": router, "groups": "2x3-1x2", "router_bias": true, "jitter": 0.2})
}

fn preset(position: Value, block: Value, feed_forward: Value, subsampling: Value, intermediate: Value) -> EncoderConfig {
    let config = json!({
        "mels": 12, "d_model": 16, "n_layers": 3, "n_heads": 2, "d_ff": 20, "activation": "silu", "dropout": 0.2, "attention_bias": true,
        "scale_input": false, "subsampling": subsampling, "position": position, "block": block, "feed_forward": feed_forward,
        "intermediate": intermediate, "context": {"kind": "window", "left": 3, "right": 2}
    });
    serde_json::from_value(config).expect("preset")
}

fn encoder_choices(path: &str) -> Option<Vec<Value>> {
    let strings = |all: &[&str]| Some(all.iter().map(|s| json!(s)).collect());
    match path {
        "/activation" => strings(&["relu", "silu", "gelu"]),
        "/position" => Some(vec![json!({"kind": "none"}), cape(), json!({"kind": "relative"}), json!({"kind": "rotary"})]),
        "/context" => Some(vec![json!({"kind": "full"}), json!({"kind": "window", "left": 3, "right": 2})]),
        "/context/sizes/0" => Some(vec![json!(1), json!(3)]),
        "/context/left" => Some(vec![json!(4), json!(6)]),
        "/block" => Some(vec![json!({"kind": "transformer"}), conformer()]),
        "/block/norm" => strings(&["layer", "batch"]),
        "/feed_forward" => Some(vec![json!({"kind": "dense"}), experts("omni"), experts("switch")]),
        "/feed_forward/statistics" => Some(vec![json!({"kind": "utterance"}), json!({"kind": "running", "momentum": 0.5})]),
        "/feed_forward/weighting" => strings(&["softmax", "relu"]),
        "/feed_forward/top_k" => Some(vec![json!(1), json!(2)]),
        "/feed_forward/expert_dropout" => Some(vec![json!(0.0), json!(0.5)]),
        "/feed_forward/layers/0" => Some(vec![json!(1), json!(2)]),
        "/feed_forward/router" => strings(&["omni", "switch"]),
        "/feed_forward/groups" => strings(&["2x3-1x2", "3x3", "1x3-2x2", "2x3-1x1"]),
        "/subsampling" => {
            Some(vec![json!({"kind": "stacking", "factor": 4, "hidden": 24}), json!({"kind": "convolution", "factor": 4, "channels": 6})])
        }
        "/subsampling/hidden" => Some(vec![Value::Null, json!(24), json!(25)]),
        "/languages/places" => strings(&["all", "last"]),
        "/languages/layers/0" => Some(vec![json!(1), json!(2), json!(3)]),
        "/intermediate" => Some(vec![json!({"layers": [2], "self_condition": false})]),
        "/intermediate/layers/0" => Some(vec![json!(1), json!(2), json!(3)]),
        _ => None,
    }
}

/// Everything that an encoder shows: its parameters, and what it makes of a batch with padding, at inference and while training.
fn encoder_shows(config: &EncoderConfig) -> Result<String> {
    let device = Device::flex();
    let model = AsrModel::new(config, 7, 5, &device)?;
    let mut seen = String::new();
    for (name, tensor) in weights::collect(&model) {
        write!(seen, "{name} {:?} ", tensor.shape).expect("string");
    }
    let (frames, mut rng) = (37, SplitMix::new(1));
    let values: Vec<f32> = (0..2 * frames * config.mels).map(|_| rng.next_normal()).collect();
    let sizes = config.context.chunk_sizes().iter();
    let chunked = sizes.map(|steps| Pass::inference(Precision::F32).with_chunk(config.context.chunk(*steps)));
    for pass in chunked.chain([Pass::inference(Precision::F32), Pass::training(Precision::F32, 9)]) {
        let features = Tensor::<3>::from_data(TensorData::new(values.clone(), [2, frames, config.mels]), &device);
        let output = model.forward(features, &Lengths::new(vec![frames, 22], frames), &pass);
        write!(seen, "{:?} ", output.lengths.valid()).expect("string");
        let routed = output.routed.into_iter().flatten();
        let losses = routed.flat_map(|r| [r.loss.balance, r.loss.z]).map(|loss| loss.into_data());
        let logits = std::iter::once(output.logits).chain(output.intermediate).map(|logits| logits.into_data());
        for data in logits.chain(losses) {
            write!(seen, "{:?} {} ", data.shape(), bits(data.as_slice::<f32>().expect("f32"))).expect("string");
        }
    }
    Ok(seen)
}

fn no_dead_encoder_knob(config: &EncoderConfig, refused: &[&str]) {
    let found = no_dead_knob(config, |_| false, encoder_choices, encoder_shows);
    assert_eq!(found, refused, "leaves of which every other value is refused");
}

#[test]
fn no_dead_knob_in_a_transformer_with_cape_and_an_omni_router() {
    let stacking = json!({"kind": "stacking", "factor": 4, "hidden": null});
    let config = preset(cape(), json!({"kind": "transformer"}), experts("omni"), stacking, Value::Null);
    // Groups must cover the layers: neither changes alone.
    no_dead_encoder_knob(&config, &["/n_layers"]);
    let split = |router: &str| {
        let groups = |groups: &str| {
            let mut feed_forward = experts(router);
            feed_forward["groups"] = json!(groups);
            let stacking = json!({"kind": "stacking", "factor": 4, "hidden": null});
            encoder_shows(&preset(cape(), json!({"kind": "transformer"}), feed_forward, stacking, Value::Null)).expect("valid")
        };
        groups("2x3-1x2") != groups("1x3-1x3-1x2")
    };
    assert!(split("omni") && !split("switch"), "a group shares one router, unless every layer has its own");
}

#[test]
fn no_dead_knob_in_a_conformer_with_rotary_positions_and_switch_routers() {
    let stacking = json!({"kind": "stacking", "factor": 4, "hidden": 24});
    let intermediate = json!({"layers": [1], "self_condition": true});
    let config = preset(json!({"kind": "rotary"}), conformer(), experts("switch"), stacking, intermediate);
    no_dead_encoder_knob(&config, &["/n_layers"]);
}

#[test]
fn no_dead_knob_with_several_experts_per_step() {
    let stacking = json!({"kind": "stacking", "factor": 4, "hidden": null});
    let sigma = json!({"kind": "sigma", "router": "omni", "groups": "3x3", "top_k": 2, "expert_dropout": 0.5});
    no_dead_encoder_knob(&preset(cape(), json!({"kind": "transformer"}), sigma, stacking, Value::Null), &["/n_layers"]);
}

#[test]
fn no_dead_knob_with_routers_that_adapt_to_clusters() {
    let stacking = json!({"kind": "stacking", "factor": 4, "hidden": null});
    for statistics in [json!({"kind": "utterance"}), json!({"kind": "running", "momentum": 0.5})] {
        let adaptive = json!({"kind": "adaptive", "router": "omni", "groups": "3x3", "statistics": statistics});
        let config = preset(json!({"kind": "rotary"}), json!({"kind": "transformer"}), adaptive, stacking.clone(), Value::Null);
        // The momentum works in training alone: running_clusters_are_followed_and_resumed.
        let found = no_dead_knob(&config, |path| path == "/feed_forward/statistics/momentum", encoder_choices, encoder_shows);
        assert_eq!(found, ["/n_layers"]);
    }
}

#[test]
fn no_dead_knob_with_a_memory() {
    let stacking = json!({"kind": "stacking", "factor": 4, "hidden": null});
    let memory = json!({"kind": "memory", "layers": [2], "subkeys": 5, "query": 6, "heads": 2, "top_k": 2, "weighting": "softmax"});
    no_dead_encoder_knob(&preset(cape(), json!({"kind": "transformer"}), memory, stacking, Value::Null), &[]);
}

#[test]
fn no_dead_knob_with_strata() {
    let stacking = json!({"kind": "stacking", "factor": 4, "hidden": null});
    let strata = json!({"kind": "strata", "router": "omni", "strata": [2, 3]});
    no_dead_encoder_knob(&preset(cape(), conformer(), strata, stacking, Value::Null), &[]);
}

#[test]
fn no_dead_knob_in_modules_for_languages() {
    let stacking = json!({"kind": "stacking", "factor": 4, "hidden": null});
    let mut config = preset(json!({"kind": "rotary"}), conformer(), json!({"kind": "dense"}), stacking, Value::Null);
    let languages = json!({"field": "lang", "modules": ["de", "fr"], "rank": 3, "layers": [2], "places": "all"});
    config.languages = Some(serde_json::from_value(languages).expect("languages"));
    // Whose modules they are shows when they are trained and chosen: languages.rs.
    let skip = |path: &str| path == "/languages/field" || path.starts_with("/languages/modules/");
    assert_eq!(no_dead_knob(&config, skip, encoder_choices, encoder_shows), [""; 0]);
}

#[test]
fn no_dead_knob_in_a_conformer_that_also_runs_in_chunks() {
    let stacking = json!({"kind": "stacking", "factor": 2, "hidden": 24});
    let mut config = preset(json!({"kind": "rotary"}), conformer(), experts("omni"), stacking, Value::Null);
    config.context = ContextConfig::Chunks { sizes: vec![2], left: 2 };
    no_dead_encoder_knob(&config, &["/n_layers"]);
}

#[test]
fn no_dead_knob_in_a_dense_conformer_with_relative_positions_and_convolutions() {
    let convolution = json!({"kind": "convolution", "factor": 4, "channels": 6});
    let config = preset(json!({"kind": "relative"}), conformer(), json!({"kind": "dense"}), convolution, Value::Null);
    no_dead_encoder_knob(&config, &[]);
}

#[test]
fn encoder_files_are_complete_and_strict() {
    let config = preset(cape(), conformer(), experts("omni"), json!({"kind": "stacking", "factor": 4, "hidden": 24}), Value::Null);
    let complete = serde_json::to_value(&config).expect("serialises");
    let mut paths = Vec::new();
    leaves(&complete, "", &mut paths);
    // TOML has no null: what may be absent there is absent.
    for path in paths.iter().filter(|p| !["/intermediate", "/subsampling/hidden"].contains(&p.as_str())) {
        let (parent, key) = path.rsplit_once('/').expect("a path");
        let mut without = complete.clone();
        without.pointer_mut(parent).and_then(Value::as_object_mut).expect("object").remove(key);
        assert!(serde_json::from_value::<EncoderConfig>(without).is_err(), "{path} is missing");
    }
    for path in ["", "/subsampling", "/position", "/context", "/block", "/feed_forward"] {
        let mut more = complete.clone();
        more.pointer_mut(path).and_then(Value::as_object_mut).expect("object").insert("extra".into(), json!(1));
        assert!(serde_json::from_value::<EncoderConfig>(more).is_err(), "unknown field at {path:?}");
    }
}

/// A run of a few steps in which every term has work to do.
const BUSY: [&str; 20] = [
    "control.audio_hours=0.006",
    "control.evaluate_hours=0.0025",
    "control.storage=f32",
    "encoder.d_model=24",
    "encoder.d_ff=32",
    "encoder.subsampling.hidden=20",
    "schedule.kind=cosine",
    "schedule.warmup_steps=3",
    "schedule.floor=0.1",
    "optimizer.clip=0.05",
    "optimizer.average=0.3",
    "loss.balance=1.0",
    "loss.z=0.1",
    "data.train=[{path=\"FOLDER/train.jsonl\",weight=1.4,set_weights={slow=0.5}}]",
    "data.dev_groups={all=[\"train\"]}",
    "data.noise=\"FOLDER/noise.jsonl\"",
    "augment.noise.probability=1",
    "augment.noise.snr_db=[0,5]",
    "augment.noise.coloured=0",
    "augment.noise.recorded=1",
];

/// Clips with two sets, one long text (for subwords), two manifests of noise.
fn busy_tones() -> Tones {
    let tones = Tones::new();
    let old = std::fs::read_to_string(tones.path("train.jsonl")).expect("manifest");
    let slow = line("1.wav", 1.14, "sol ré ta").replace("}\n", ",\"set\":\"slow\"}\n");
    let letters = "abcdefghijklmnopqrstuvwxyz ".repeat(4);
    tones.write("train.jsonl", &(old + &slow + &line("0.wav", 0.78, &letters)));
    tones.write("other.jsonl", &(line("2.wav", 1.14, "mi mi sol") + &slow));
    let noise = |clip: &str| line(clip, 0.5, "").replace("}\n", ",\"kind\":\"noise\"}\n");
    tones.write("noise.jsonl", &noise("3.wav"));
    tones.write("other_noise.jsonl", &noise("2.wav"));
    tones
}

/// Everything that a run leaves behind, but for times and the echo of its configuration.
fn run_shows(tones: &Tones, name: &str, config: &RunConfig) -> Result<String> {
    let output = tones.path(name);
    // The folder of a run that was refused half-way.
    let _ = std::fs::remove_dir_all(&output);
    let outcome = run(&RunConfig { output: output.clone(), ..config.clone() }, &Device::flex())?;
    let mut seen = format!("{} steps, {:?} ", outcome.steps, outcome.dev_wer);
    for line in tones.log(name) {
        write!(seen, "{line:?} ").expect("string");
    }
    for file in ["tokenizer.json", "front_end.json", "model/config.json", "model/model.safetensors", "model/tokenizer.json"] {
        let mut hasher = DefaultHasher::new();
        std::fs::read(output.join(file)).unwrap_or_default().hash(&mut hasher);
        write!(seen, "{file} {:x} ", hasher.finish()).expect("string");
    }
    Ok(seen)
}

#[test]
fn no_dead_knob_in_a_run() {
    let tones = busy_tones();
    let config = tones.config("run", &BUSY).expect("run");
    let place = |file: &str| json!(tones.path(file));
    random_model(&tones.path("start"), &config.encoder, 1, |_| ());
    let covered = ["/encoder", "/augment", "/spec_augment", "/batches", "/data/filter"];
    // Where files are put, how many threads there are and when a checkpoint is written must not change what is learned: see below.
    let neutral = ["/output", "/data/cache", "/control/loader_threads", "/control/checkpoint_minutes"];
    let choices = |path: &str| match path {
        "/name" => Some(vec![json!("other")]),
        "/init" => Some(vec![place("start")]),
        "/data/train/0/path" | "/data/dev/0" => Some(vec![place("other.jsonl")]),
        "/data/noise" => Some(vec![place("other_noise.jsonl")]),
        "/data/dev_groups/all/0" => Some(vec![json!("slow")]),
        "/data/text" => Some(vec![json!("letters")]),
        "/tokenizer" => Some(vec![json!({"kind": "bpe", "vocab_size": 34})]),
        "/schedule" => {
            Some(["constant", "linear", "inverse_sqrt"].map(|kind| json!({"kind": kind, "warmup_steps": 3, "floor": 0.1})).into())
        }
        // What the processor lacks is computed in f32.
        "/control/precision" if Tier::detected() < Tier::Avx512Bf16 => Some(vec![]),
        "/control/precision" => Some(vec![json!("bf16")]),
        "/control/storage" => Some(vec![json!("bf16")]),
        _ => None,
    };
    let skip = |path: &str| covered.iter().any(|c| path.starts_with(c)) || neutral.contains(&path);
    let refused = no_dead_knob(&config, skip, choices, |config| run_shows(&tones, "run", config));
    // This run's encoder has no chunks: see below.
    let all = ["/control/precision", "/streaming/probability"];
    let expected = if Tier::detected() < Tier::Avx512Bf16 { &all[..] } else { &all[1..] };
    assert_eq!(refused, expected, "leaves of which every other value is refused");

    let shows = |changes: &[&str]| {
        let config = tones.config("run", &[&BUSY[..], changes].concat()).expect("run");
        run_shows(&tones, "run", &config).expect("trains")
    };
    let before = shows(&[]);
    for change in [
        // A run hears of the knobs that are tested elsewhere.
        "encoder.dropout=0.3",
        "batches.frames_per_batch=400",
        "augment.gain.probability=1",
        "spec_augment.noise_probability=1",
        "data.filter.max_duration=1",
    ] {
        assert_ne!(shows(&[change]), before, "{change}");
    }
    let chunks = "encoder.context={kind=\"chunks\",sizes=[2],left=4}";
    assert_ne!(shows(&[chunks, "streaming.probability=1"]), shows(&[chunks]), "streaming.probability");
    for change in ["data.cache=\"FOLDER/another.pcm\"", "control.loader_threads=3", "control.checkpoint_minutes=0"] {
        assert_eq!(shows(&[change]), before, "{change}");
    }
    assert!(tones.path("another.pcm").is_file() && tones.path("another.pcm.dev").is_file());
}

#[test]
fn no_dead_knob_in_subwords_or_checkpoints() {
    let tones = busy_tones();
    let vocabulary = |size: usize| {
        let name = format!("bpe{size}");
        let tokenizer = format!("tokenizer={{kind=\"bpe\",vocab_size={size}}}");
        let config = tones.config(&name, &[&BUSY[..], &["control.audio_hours=0.001", &tokenizer]].concat()).expect("run");
        run(&config, &Device::flex()).expect("trains");
        omniscribe::text::Tokenizer::load(tones.path(&name).join("model/tokenizer.json")).expect("tokenizer").vocab_size()
    };
    assert_eq!([34, 36].map(vocabulary), [34, 36]);

    // A run that fails half-way leaves what it had written by then.
    let encoder = tones.config("run", &BUSY).expect("run").encoder;
    random_model(&tones.path("start"), &encoder, 1, |tensors| {
        tensors.get_mut("head.bias").expect("the head has a bias").values[0] = f32::NAN;
    });
    for (minutes, written) in [("0", true), ("5", false)] {
        let name = format!("minutes{minutes}");
        let set = format!("control.checkpoint_minutes={minutes}");
        let changes = [
            "init=\"FOLDER/start\"",
            "control.audio_hours=1",
            "control.evaluate_hours=0",
            "data.train=[{path=\"FOLDER/other.jsonl\"}]",
            &set,
        ];
        let config = tones.config(&name, &[&BUSY[..], &changes].concat()).expect("run");
        run(&config, &Device::flex()).expect_err("no finite gradient");
        assert_eq!(tones.path(&name).join("checkpoint.safetensors").is_file(), written, "{set}");
    }
}

/// Names and contents of the files of a folder.
fn files_show(folder: &std::path::Path, keep: &dyn Fn(&str) -> bool) -> String {
    let mut hasher = DefaultHasher::new();
    let mut names: Vec<_> = std::fs::read_dir(folder).expect("folder").map(|e| e.expect("entry").file_name()).collect();
    names.sort();
    for name in names.iter().filter(|name| keep(&name.to_string_lossy())) {
        (name, std::fs::read(folder.join(name)).expect("file")).hash(&mut hasher);
    }
    format!("{:x} ", hasher.finish())
}

#[test]
fn no_dead_knob_in_data_of_known_structure() {
    let tones = Tones::new();
    let config = StructureConfig { folder: tones.path("made"), train: 5, dev: 4, keys: 3, letters: 6, words: 3, snr_db: 10.0, seed: 4 };
    let shows = |config: &StructureConfig| {
        let _ = std::fs::remove_dir_all(&config.folder);
        make(config)?;
        let sounds = files_show(&config.folder, &|name| name != "structure.toml");
        Ok(config.folder.display().to_string() + &sounds)
    };
    let choices = |path: &str| (path == "/folder").then(|| vec![json!(tones.path("elsewhere"))]);
    assert_eq!(no_dead_knob(&config, |_| false, choices, shows), [""; 0], "leaves of which every other value is refused");
    assert!(tones.path("elsewhere/dev.jsonl").is_file());
}

#[test]
fn no_dead_knob_in_a_study() {
    let tones = Tones::new();
    let words = std::fs::read_to_string(tones.path("train.jsonl")).expect("manifest").replace("re\"", "Re!\"");
    tones.write("train.jsonl", &words);
    let short = std::fs::read_to_string(tones.path("run.toml")).expect("run").replace("audio_hours = 0.01", "audio_hours = 0.001");
    tones.write("run.toml", &short);
    tones.write("other.toml", &short.replace("dropout = 0.05", "dropout = 0.3"));
    let text = "name = \"a\"\noutput = \"FOLDER/study\"\nbase = \"FOLDER/run.toml\"\nseeds = [1]\n\
                kinds = [{ name = \"dense\", set = ['encoder.feed_forward={kind=\"dense\"}'] }]\n\
                sizes = [{ name = \"small\", set = [\"encoder.d_ff=32\"] }]\n";
    let config = StudyConfig::read(&tones.write("study.toml", text)).expect("a study");
    let made = StructureConfig { folder: tones.path("made"), train: 1, dev: 1, keys: 1, letters: 4, words: 2, snr_db: 10.0, seed: 4 };
    let shows = |config: &StudyConfig| {
        for folder in ["study", "elsewhere", "made"] {
            let _ = std::fs::remove_dir_all(tones.path(folder));
        }
        study::run(config, &Device::flex())?;
        let found = study::report::report(config, "again")?;
        let mut seen = format!("{} {} {:?} ", found.name, tones.path("made").is_dir(), found.seeds);
        for cell in study::cells(config)? {
            let outcome = cell.outcome()?.expect("it ran");
            let texts: Vec<String> = cell.utterances()?.into_iter().map(|u| u.reference + &u.hypothesis).collect();
            write!(seen, "{:?} {:?} {} {texts:?} ", cell.run.output, outcome.loss_curve, cell.parameters).expect("string");
        }
        Ok(seen)
    };
    let choices = |path: &str| match path {
        "/name" | "/kinds/0/name" | "/sizes/0/name" => Some(vec![json!("other")]),
        "/output" => Some(vec![json!(tones.path("elsewhere"))]),
        "/base" => Some(vec![json!(tones.path("other.toml"))]),
        "/normalizer" => Some(vec![json!("none")]),
        "/kinds/0/set/0" => Some(vec![json!("encoder.activation=relu")]),
        "/sizes/0/set/0" => Some(vec![json!("encoder.d_ff=40")]),
        "/structure" => Some(vec![json!(made)]),
        _ => None,
    };
    assert_eq!(no_dead_knob(&config, |_| false, choices, shows), [""; 0], "leaves of which every other value is refused");

    // The base may stand in the study itself, with the same outcome.
    let keys = text.replace("base = \"FOLDER/run.toml\"\n", "") + "[base]\n" + &base_in_place(&short);
    let in_place = StudyConfig::read(&tones.write("in-place.toml", &keys)).expect("a study");
    assert_eq!(shows(&in_place).expect("runs"), shows(&config).expect("runs"));
}

/// A run's TOML as a table named `base`.
fn base_in_place(run: &str) -> String {
    run.lines()
        .map(|line| if let Some(table) = line.strip_prefix('[') { format!("[base.{table}\n") } else { format!("{line}\n") })
        .collect()
}
