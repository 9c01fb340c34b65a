//! `omniscribe listen`, the real program: files, pipes, files in real time, events, what it refuses.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use assert_cmd::Command;
use serde_json::Value;

use crate::stream::streaming_model;

fn asset(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets").join(name)
}

/// `omniscribe listen` with the model at `model`, greedy.
fn listen(model: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_omniscribe"));
    command.env_remove("OMNISCRIBE_MODEL").arg("listen").arg("--model").arg(model).args(["--decoder", "greedy"]);
    command.timeout(Duration::from_secs(120));
    command
}

fn out(command: &mut Command) -> String {
    let output = command.output().expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn refused(command: &mut Command) -> String {
    let output = command.output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).expect("UTF-8")
}

/// The samples of a WAV file of ours: 44 bytes of header, then 16-bit integers.
fn pcm(name: &str) -> Vec<u8> {
    std::fs::read(asset(name)).expect("an asset")[44..].to_vec()
}

#[test]
fn events_lines_and_pipes_say_the_same() {
    let folder = streaming_model();
    let file = asset("digits.wav");
    let plain = out(listen(folder.path()).arg("--file").arg(&file));
    assert!(plain.split_whitespace().count() > 3, "{plain:?}");
    let json = out(listen(folder.path()).arg("--file").arg(&file).arg("--json"));
    let events: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of = |kind: &str| events.iter().filter(|e| e["type"] == kind).collect::<Vec<_>>();
    let texts = |kind: &str| of(kind).iter().map(|e| e["text"].as_str().expect("text").to_string()).collect::<Vec<_>>();
    assert_eq!(texts("endpoint").join("\n") + "\n", plain);
    assert_eq!(texts("final").join(" "), texts("endpoint").join(" "));
    assert!(of("partial").len() > 3 && of("final").len() > 2);
    for event in of("final") {
        let heard = event["heard"].as_f64().expect("heard");
        for word in event["words"].as_array().expect("words") {
            let number = |key: &str| word[key].as_f64().expect("a number");
            assert!(
                number("start") < number("end") && number("end") <= heard + 0.04 && (0.0..=1.0).contains(&number("confidence")),
                "{word}"
            );
        }
        assert!(event["at"].as_f64().is_some());
    }
    // A WAV file and plain samples on standard input; at another rate and in stereo the times stay.
    assert_eq!(out(listen(folder.path()).arg("-").write_stdin(std::fs::read(&file).expect("an asset"))), plain);
    assert_eq!(out(listen(folder.path()).arg("--raw").write_stdin(pcm("digits.wav"))), plain);
    let stereo: Vec<u8> = pcm("digits.wav").chunks_exact(2).flat_map(|s| [s, s].concat()).collect();
    assert_eq!(
        out(listen(folder.path()).args(["-", "--channels", "2", "--rate", "16000", "--format", "S16_LE"]).write_stdin(stereo)),
        plain
    );
    assert_eq!(out(listen(folder.path()).arg("-").write_stdin(Vec::new())), "");
}

#[test]
fn a_file_in_real_time_takes_its_time_and_can_be_kept() {
    let folder = streaming_model();
    let file = asset("digits.wav");
    let plain = out(listen(folder.path()).arg("--file").arg(&file));
    let saved = folder.path().join("saved.wav");
    let start = Instant::now();
    let live = out(listen(folder.path()).arg("--file").arg(&file).arg("--realtime").arg("--save").arg(&saved));
    assert!(start.elapsed() >= Duration::from_secs(6), "{:?}", start.elapsed());
    assert_eq!(live, plain);
    assert_eq!(std::fs::read(saved).expect("saved")[44..], pcm("digits.wav"));
}

#[test]
fn what_cannot_be_is_refused() {
    let folder = streaming_model();
    let file = asset("digits.wav");
    let error = refused(listen(folder.path()).arg("--file").arg(&file).args(["--chunk-ms", "300"]));
    assert!(error.contains("chunks of 160, 320, 640, 1280 ms"), "{error}");
    let error = refused(listen(folder.path()).arg("--file").arg(&file).args(["--endpoint-pause", "0"]));
    assert!(error.contains("pause is 0 s"), "{error}");
    let error = refused(listen(folder.path()).arg("--file").arg("nowhere.wav"));
    assert!(error.contains("nowhere.wav"), "{error}");
    let mut command = listen(folder.path());
    command.args(["--format", "s17", "-"]);
    assert_eq!(command.output().expect("runs").status.code(), Some(2));
    let path = folder.path().join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).expect("read")).expect("JSON");
    config["encoder"]["context"] = serde_json::json!({"kind": "full"});
    std::fs::write(&path, config.to_string()).expect("written");
    let error = refused(listen(folder.path()).arg("--file").arg(&file));
    assert!(error.contains("does not stream"), "{error}");
}

#[cfg(not(feature = "mic"))]
#[test]
fn a_build_without_the_feature_says_how_to_listen() {
    let folder = streaming_model();
    for error in [refused(&mut listen(folder.path())), refused(listen(folder.path()).arg("--list-devices"))] {
        assert!(error.contains("mic feature") && error.contains("arecord"), "{error}");
    }
}
