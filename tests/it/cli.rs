//! The real program on real files: what it prints where, and with which exit code.

use std::path::{Path, PathBuf};
use std::time::Duration;

use assert_cmd::Command;
use omniscribe::checkpoint::safetensors_file::{self, HostTensor, Storage};
use omniscribe::eval::WordErrors;
use omniscribe::eval::wer::character_errors;
use omniscribe::model::config::EncoderConfig;
use serde_json::{Value, json};

use crate::program::{Ran, program, ran};
use crate::training::random_model;

/// A broken model is refused within this time, on a busy machine too.
const REFUSED_WITHIN: Duration = Duration::from_secs(5);

fn asset(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets").join(name)
}

fn encoder() -> EncoderConfig {
    serde_json::from_value(json!({
        "mels": 20, "d_model": 16, "n_layers": 1, "n_heads": 2, "d_ff": 24, "activation": "silu", "dropout": 0.1, "attention_bias": true,
        "scale_input": false, "subsampling": {"kind": "stacking", "factor": 4, "hidden": null}, "position": {"kind": "rotary"},
        "block": {"kind": "conformer", "kernel": 5, "norm": "layer", "convolution_bias": true},
        "feed_forward": {"kind": "experts", "router": "omni", "groups": "1x2", "router_bias": false, "jitter": 0.0}, "intermediate": null, "context": {"kind": "full"}
    }))
    .expect("encoder")
}

/// A folder with a tiny random model in `model`.
fn with_model() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("folder");
    random_model(&folder.path().join("model"), &encoder(), 3, |_| ());
    folder
}

/// `omniscribe transcribe` with the model of `folder`.
fn transcribe(folder: &Path) -> Command {
    let mut command = program();
    command.arg("transcribe").arg("--model").arg(folder.join("model"));
    command
}

/// Demands failure with nothing on standard output and one line on standard error that says all of `says`.
fn assert_refused(ran: &Ran, says: &[&str]) {
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{}", ran.err);
    assert!(ran.err.starts_with("error: ") && ran.err.lines().count() == 1, "one error line: {:?}", ran.err);
    for say in says {
        assert_eq!(ran.err.matches(say).count(), 1, "{say:?} once in {:?}", ran.err);
    }
}

#[test]
fn transcripts_go_to_stdout_one_line_for_each_file() {
    let folder = with_model();
    let one = ran(transcribe(folder.path()).arg(asset("digits.wav")));
    assert_eq!((one.code, one.err.as_str()), (Some(0), ""));
    assert_eq!(one.out.matches('\n').count(), 1);
    assert!(one.out.trim().len() > 3, "a random model babbles: {:?}", one.out);
    let all = ["digits.wav", "river.wav", "river.opus", "command.flac", "book.mp3"].map(asset);
    let several = ran(transcribe(folder.path()).args(&all));
    assert_eq!((several.code, several.err.as_str()), (Some(0), ""));
    assert_eq!(several.out.lines().count(), all.len());
    assert_eq!(several.out.lines().next(), one.out.lines().next());
    // The same model by the environment, and the same bytes by a pipe.
    let named = ran(program().env("OMNISCRIBE_MODEL", folder.path().join("model")).arg("transcribe").arg(&all[0]));
    assert_eq!((named.code, &named.out), (Some(0), &one.out));
    let piped = ran(transcribe(folder.path()).arg("-").write_stdin(std::fs::read(&all[0]).expect("asset")));
    assert_eq!((piped.code, piped.err.as_str(), &piped.out), (Some(0), "", &one.out));
}

#[test]
fn json_is_one_object_for_each_file() {
    let folder = with_model();
    let ran = ran(transcribe(folder.path()).args(["--format", "json"]).args([asset("digits.wav"), asset("river.wav")]));
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let objects: Vec<Value> = ran.out.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    assert_eq!(objects.len(), 2);
    for (object, (name, seconds)) in objects.iter().zip([("digits.wav", 6.06), ("river.wav", 5.675)]) {
        let keys: Vec<_> = object.as_object().expect("object").keys().map(String::as_str).collect();
        assert_eq!(keys, ["duration", "file", "language", "model", "schema_version", "segments", "text", "warnings", "words"]);
        assert_eq!((&object["schema_version"], &object["warnings"]), (&json!(2), &json!([])));
        assert_eq!(object["file"], asset(name).display().to_string());
        let duration = object["duration"].as_f64().expect("duration");
        assert!((duration - seconds).abs() < 1e-3, "{duration}");
        let words = object["words"].as_array().expect("words");
        let text: Vec<_> = words.iter().map(|w| w["word"].as_str().expect("word")).collect();
        let spaced: Vec<_> = object["text"].as_str().expect("text").split_whitespace().collect();
        assert!(!words.is_empty() && text == spaced, "{text:?} {spaced:?}");
        let mut last = 0.0;
        for word in words {
            let number = |key: &str| word[key].as_f64().unwrap_or_else(|| panic!("{key} of {word}"));
            assert!(last <= number("start") && number("start") < number("end") && number("end") <= duration + 0.1, "{word}");
            assert!((0.0..=1.0).contains(&number("confidence")), "{word}");
            last = number("start");
        }
    }
}

#[test]
fn one_bad_file_does_not_stop_the_others() {
    let folder = with_model();
    let bad = folder.path().join("bad.wav");
    std::fs::write(&bad, "this is no audio at all, only some text in a file").expect("write");
    let ran = ran(transcribe(folder.path()).args([&asset("digits.wav"), &bad, &asset("river.wav")]));
    assert_eq!((ran.code, ran.out.lines().count()), (Some(1), 2), "{}", ran.err);
    let errors: Vec<_> = ran.err.lines().filter(|l| l.starts_with("error: ")).collect();
    assert!(errors.len() == 1 && errors[0].contains("bad.wav"), "{}", ran.err);
    assert!(ran.err.contains("2 of 3 files") && ran.err.contains("1 failed"), "{}", ran.err);
}

#[test]
fn bad_files_are_named() {
    let folder = with_model();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("write");
        path
    };
    let whole = std::fs::read(asset("digits.wav")).expect("asset");
    for (path, says) in [
        (folder.path().join("missing.wav"), "missing.wav: No such file"),
        (folder.path().join("model"), "no file in this folder has the name of a recording"),
        (write("empty.wav", b""), "empty.wav"),
        (write("noise.mp3", &[0x55; 5000]), "noise.mp3"),
        (write("header.wav", &whole[..40]), "header.wav"),
    ] {
        let ran = ran(transcribe(folder.path()).arg(&path).timeout(REFUSED_WITHIN));
        assert_refused(&ran, &[says]);
    }
    let nothing = ran(transcribe(folder.path()).arg("-").write_stdin(Vec::new()));
    assert_refused(&nothing, &["-: "]);
}

#[test]
fn usage_errors_exit_with_2_and_help_with_0() {
    for arguments in [
        &["transcribe", "--no-such-flag", "x.wav"][..],
        &["transcribe"],
        &["transcribe", "--format", "papyrus", "x.wav"],
        &["transcribe", "--device", "abacus", "x.wav"],
        &["no-such-command"],
        &["train"],
        &["train", "--config"],
        &[],
    ] {
        let ran = ran(program().args(arguments));
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(ran.err.contains("Usage") || ran.err.contains("--help"), "{arguments:?}: {}", ran.err);
    }
    let help = ran(program().arg("--help"));
    assert_eq!((help.code, help.err.as_str()), (Some(0), ""));
    assert!(help.out.contains("transcribe") && help.out.contains("train"), "{}", help.out);
    let help = ran(program().args(["transcribe", "--help"]));
    for flag in ["--model", "--format", "--device"] {
        assert!(help.code == Some(0) && help.out.contains(flag), "{flag}: {}", help.out);
    }
    let version = ran(program().arg("--version"));
    assert_eq!((version.code, version.out.as_str()), (Some(0), concat!("omniscribe ", env!("CARGO_PKG_VERSION"), "\n")));
}

#[test]
fn training_mistakes_are_one_line() {
    let folder = tempfile::tempdir().expect("folder");
    let run = folder.path().join("run.toml");
    let train = |path: &Path| ran(program().arg("train").arg("--config").arg(path).timeout(REFUSED_WITHIN));
    assert_refused(&train(&run), &["run.toml", "No such file"]);
    std::fs::write(&run, "name = \"x\"\nsede = 1\n").expect("write");
    assert_refused(&train(&run), &["run.toml: unknown field `sede`"]);
    std::fs::write(&run, "name = \"x\"\nseed = = 1\n").expect("write");
    assert_refused(&train(&run), &["run.toml: line 2: "]);
}

/// Where a mistake in a model folder is planted.
type Plant = fn(&Path);

fn edit_config(model: &Path, change: impl FnOnce(&mut Value)) {
    let path = model.join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).expect("config")).expect("JSON");
    change(&mut config);
    std::fs::write(&path, config.to_string()).expect("write");
}

fn edit_weights(model: &Path, change: impl FnOnce(&mut safetensors_file::HostTensors)) {
    let path = model.join("model.safetensors");
    let (mut tensors, metadata) = safetensors_file::load(&path).expect("weights");
    change(&mut tensors);
    safetensors_file::save(&path, &tensors, Storage::F32, metadata).expect("write");
}

fn cut(path: &Path, keep: impl FnOnce(usize) -> usize) {
    let bytes = std::fs::read(path).expect("read");
    std::fs::write(path, &bytes[..keep(bytes.len())]).expect("write");
}

#[test]
fn broken_models_are_refused_by_name_and_quickly() {
    let plants: [(&[&str], Plant); 19] = [
        (&["config.json: No such file"], |m| std::fs::remove_dir_all(m).expect("remove")),
        (&["config.json: unknown field `colour`"], |m| edit_config(m, |c| c["colour"] = json!("red"))),
        (&["config.json: unknown field `haeds`"], |m| edit_config(m, |c| c["encoder"]["haeds"] = json!(2))),
        (&["config.json: unknown field `base` in `encoder.position`"], |m| {
            edit_config(m, |c| c["encoder"]["position"]["base"] = json!(1e4))
        }),
        (&["config.json: missing field `scale_input`"], |m| {
            edit_config(m, |c| drop(c["encoder"].as_object_mut().expect("object").remove("scale_input")));
        }),
        (&["config.json: neither format_version (ours) nor model_type"], |m| {
            edit_config(m, |c| drop(c.as_object_mut().expect("object").remove("format_version")));
        }),
        (&["config.json: format version 2, this build reads 1"], |m| edit_config(m, |c| c["format_version"] = json!(2))),
        (&["config.json: encoder.n_heads = 3: must divide"], |m| edit_config(m, |c| c["encoder"]["n_heads"] = json!(3))),
        (&["config.json: encoder.mels = 21: must equal front_end.mels = 20"], |m| edit_config(m, |c| c["encoder"]["mels"] = json!(21))),
        (&["config.json: hop: 0: must be"], |m| edit_config(m, |c| c["front_end"]["hop"] = json!(0))),
        (&["config.json: EOF"], |m| cut(&m.join("config.json"), |n| n / 2)),
        (&["tokenizer.json: No such file"], |m| std::fs::remove_file(m.join("tokenizer.json")).expect("remove")),
        (&["tokenizer.json: tokenizer: EOF"], |m| cut(&m.join("tokenizer.json"), |n| n / 2)),
        (&["model.safetensors: No such file"], |m| std::fs::remove_file(m.join("model.safetensors")).expect("remove")),
        (&["model.safetensors: mismatched not a safetensors file"], |m| cut(&m.join("model.safetensors"), |n| n / 2)),
        (&["model.safetensors: the file is empty"], |m| cut(&m.join("model.safetensors"), |_| 0)),
        (&["model.safetensors: missing head.weight"], |m| edit_weights(m, |t| drop(t.remove("head.weight")))),
        (&["model.safetensors: unused encoder.extra"], |m| {
            edit_weights(m, |t| drop(t.insert("encoder.extra".into(), HostTensor { shape: vec![1], values: vec![0.0] })));
        }),
        (&["model.safetensors: mismatched encoder.", "in the file", "in the model"], |m| {
            edit_config(m, |c| c["encoder"]["d_ff"] = json!(25))
        }),
    ];
    for (says, plant) in plants {
        let folder = with_model();
        plant(&folder.path().join("model"));
        let ran = ran(transcribe(folder.path()).arg(asset("digits.wav")).timeout(REFUSED_WITHIN));
        assert_refused(&ran, says);
    }
}

/// Largest character error rate of the shipped model on all samples together. Its training data holds the voices but none of the sentences.
const SHIPPED_CHARACTER_ERRORS: f64 = 0.25;

#[test]
fn shipped_model_reads_the_samples() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let samples: Vec<Value> =
        std::fs::read_to_string(asset("samples.jsonl")).expect("samples").lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    let mut total = WordErrors::default();
    let mut said = String::new();
    for sample in &samples {
        let name = sample["audio_filepath"].as_str().expect("a file");
        let ran = ran(program().current_dir(root).args(["transcribe", "--model", "models/base"]).arg(asset(name)));
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "the shipped model in models/base");
        let wanted = omniscribe::text::target(sample["text"].as_str().expect("text")).expect("words");
        if name == "digits.wav" {
            assert_eq!(ran.out.trim(), wanted, "the sample of the README");
        }
        total += character_errors(&wanted, ran.out.trim());
        said += &ran.out;
    }
    assert!(total.wer() <= SHIPPED_CHARACTER_ERRORS, "character error rate {:.3}: {said}", total.wer());
}
