//! Training end to end on four clips of a language of tones: it learns, it repeats, and a killed run is as good as one that was not.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use omniscribe::audio::{WavFormat, write_wav};
use omniscribe::checkpoint::safetensors_file::{self, HostTensors, Storage};
use omniscribe::checkpoint::{ModelConfig, ModelDirectory, directory, weights};
use omniscribe::features::{FrontEndConfig, Normalization};
use omniscribe::model::asr::AsrModel;
use omniscribe::model::config::EncoderConfig;
use omniscribe::text::Tokenizer;
use omniscribe::train::journal::{self, Line};
use omniscribe::train::{Outcome, RunConfig, run};
use omniscribe::units::SampleRate;
use omniscribe::{Error, Precision, Result, Transcriber, Waveform};

/// The words of the language: three tones each, Hz.
const WORDS: [(&str, [f32; 3]); 4] =
    [("ta", [400.0, 900.0, 1500.0]), ("mi", [2600.0, 1500.0, 600.0]), ("sol", [700.0, 3200.0, 700.0]), ("re", [1900.0, 1900.0, 300.0])];
const CLIPS: [&str; 4] = ["ta mi", "sol re ta", "mi mi sol", "re"];
/// Seconds of a tone and of the gap after a word.
const TONE: f64 = 0.1;
const GAP: f64 = 0.06;

/// The run that the tests vary: an Omni-router Conformer small enough to take a step in milliseconds.
const RUN: &str = r#"
name = "tones"
output = "set by the test"
seed = 7

[data]
train = [{ path = "FOLDER/train.jsonl" }]
dev = ["FOLDER/train.jsonl"]
cache = "FOLDER/audio.pcm"

[encoder]
mels = 24
d_model = 48
n_layers = 2
n_heads = 4
d_ff = 96
activation = "silu"
dropout = 0.05
attention_bias = true
scale_input = false
subsampling = { kind = "stacking", factor = 4, hidden = 64 }
position = { kind = "rotary" }
context = { kind = "full" }
block = { kind = "conformer", kernel = 7, norm = "layer", convolution_bias = true }
feed_forward = { kind = "experts", router = "omni", groups = "2x2", router_bias = false, jitter = 0.01 }
intermediate = { layers = [1], self_condition = true }

[batches]
frames_per_batch = 250
pad_frames = 10

[optimizer]
lr = 4e-3
average = 0.9

[schedule]
kind = "constant"
warmup_steps = 10

[control]
audio_hours = 0.01
log_every = 1
precision = "f32"
"#;

/// Every source of randomness on: what a resumed run must continue, not restart.
const RANDOM: [&str; 8] = [
    "augment.speed.probability=0.5",
    "augment.noise.probability=0.5",
    "augment.noise.recorded=0",
    "spec_augment.freq_masks=1",
    "spec_augment.time_masks=1",
    "spec_augment.noise_probability=0.5",
    "data.train=[{path=\"FOLDER/train.jsonl\",weight=1.4}]",
    "schedule.kind=cosine",
];

/// A folder with clips, their manifest and a run.
pub struct Tones {
    folder: tempfile::TempDir,
}

impl Tones {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let mut lines = String::new();
        for (i, text) in CLIPS.iter().enumerate() {
            let samples = speak(text, i as u32);
            lines += &line(&format!("{i}.wav"), SampleRate::HZ_16000.seconds(samples.len()), text);
            let wave = Waveform { samples, sample_rate: SampleRate::HZ_16000 };
            write_wav(&folder.path().join(format!("{i}.wav")), &wave, WavFormat::Int16).expect("clip");
        }
        let tones = Self { folder };
        tones.write("train.jsonl", &lines);
        tones.write("run.toml", RUN);
        tones
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file, its `FOLDER` replaced by this folder.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, self.placed(text)).expect("write");
        path
    }

    fn append(&self, name: &str, text: &str) {
        let old = std::fs::read_to_string(self.path(name)).expect("read");
        self.write(name, &(old + text));
    }

    fn placed(&self, text: &str) -> String {
        text.replace("FOLDER", &self.folder.path().display().to_string())
    }

    /// `--set` arguments for a run into `output`.
    fn overrides(&self, output: &str, changes: &[&str]) -> Vec<String> {
        let output = format!("output=\"FOLDER/{output}\"");
        changes.iter().copied().chain([output.as_str()]).map(|change| self.placed(change)).collect()
    }

    pub fn config(&self, output: &str, changes: &[&str]) -> Result<RunConfig> {
        RunConfig::read(&self.path("run.toml"), &self.overrides(output, changes))
    }

    fn run(&self, output: &str, changes: &[&str]) -> Result<Outcome> {
        run(&self.config(output, changes)?, &Device::flex())
    }

    /// The real program on such a run.
    fn program(&self, output: &str, changes: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_omniscribe"));
        command.arg("train").arg("--config").arg(self.path("run.toml"));
        for change in self.overrides(output, changes) {
            command.arg("--set").arg(change);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// The log with the one number that is not reproducible set to 0.
    pub fn log(&self, output: &str) -> Vec<Line> {
        let mut lines = journal::read(&self.path(output).join("log.jsonl")).expect("log");
        for line in &mut lines {
            if let Line::Train { speed, .. } = line {
                *speed = 0.0;
            }
        }
        lines
    }

    fn bytes(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.path(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
    }

    /// Demands that two runs ended with the same checkpoint and model, bit for bit, and wrote the same log.
    fn assert_same(&self, a: &str, b: &str) {
        assert_eq!(self.log(a), self.log(b), "logs of {a} and {b}");
        for file in ["checkpoint.safetensors", "model/model.safetensors", "model/config.json", "model/tokenizer.json"] {
            assert!(self.bytes(&format!("{a}/{file}")) == self.bytes(&format!("{b}/{file}")), "{file} of {a} and {b}");
        }
    }
}

pub fn line(audio: &str, seconds: f64, text: &str) -> String {
    format!("{{\"audio_filepath\":\"{audio}\",\"duration\":{seconds},\"text\":\"{text}\"}}\n")
}

/// The tones of a text with a little noise.
fn speak(text: &str, seed: u32) -> Vec<f32> {
    let rate = SampleRate::HZ_16000;
    let mut samples = vec![0.0f32; rate.samples(GAP)];
    for word in text.split(' ') {
        let (_, tones) = WORDS.iter().find(|(name, _)| *name == word).expect("a word of the language");
        for hz in tones {
            samples.extend((0..rate.samples(TONE)).map(|n| 0.3 * (std::f32::consts::TAU * hz * n as f32 / 16_000.0).sin()));
        }
        samples.extend(vec![0.0; rate.samples(GAP)]);
    }
    let mut state = seed.wrapping_add(1);
    for sample in &mut samples {
        // Numerical Recipes' quick generator: any hiss will do.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *sample += 0.01 * (state as f32 / u32::MAX as f32 - 0.5);
    }
    samples
}

/// A model folder with random weights (or what `change` makes of them) that a run can start from.
pub fn random_model(folder: &Path, encoder: &EncoderConfig, seed: u64, change: impl FnOnce(&mut HostTensors)) {
    let tokenizer = Tokenizer::characters(" abcdefghijklmnopqrstuvwxyz").expect("tokenizer");
    let model = AsrModel::new(encoder, tokenizer.vocab_size(), seed, &Device::flex()).expect("model");
    let mut tensors = weights::collect(&model);
    change(&mut tensors);
    let normalization = Normalization::Blend { weight: 0.7, mean: vec![-6.0; encoder.mels], std: vec![2.5; encoder.mels] };
    let config = ModelConfig {
        format_version: directory::FORMAT_VERSION,
        name: "random".into(),
        front_end: FrontEndConfig::omniscribe(encoder.mels, normalization),
        encoder: encoder.clone(),
    };
    ModelDirectory::save(folder, &config, &tokenizer, &tensors, Storage::F32).expect("saved");
}

fn losses(lines: &[Line]) -> Vec<f64> {
    lines.iter().filter_map(|l| if let Line::Train { loss, .. } = l { Some(*loss) } else { None }).collect()
}

fn hours_and_epoch(line: &Line) -> (f64, u64) {
    match line {
        Line::Train { audio_hours, epoch, .. } => (*audio_hours, *epoch),
        Line::Dev { audio_hours, .. } => (*audio_hours, 0),
    }
}

#[test]
fn overfits_four_clips_to_no_word_error() {
    let tones = Tones::new();
    let outcome = tones.run("run", &["control.audio_hours=0.12", "encoder.dropout=0", "batches.frames_per_batch=1000"]).expect("trains");
    let losses = losses(&tones.log("run"));
    assert!(losses[0] > 1.0 && outcome.last_loss < 0.1, "{} to {}", losses[0], outcome.last_loss);
    assert_eq!(outcome.dev_wer, Some(0.0));
    assert!((100..200).contains(&outcome.steps) && losses.len() as u64 == outcome.steps, "{outcome:?}");
    // The exported folder is a model that anybody can use.
    let transcriber = Transcriber::open(&tones.path("run/model"), Device::flex(), Precision::F32).expect("a model folder");
    for (i, text) in CLIPS.iter().enumerate() {
        assert_eq!(transcriber.transcribe(&tones.path(&format!("{i}.wav"))).expect("reads").text, *text);
    }
    for file in ["run.toml", "loss.svg", "wer.svg"] {
        assert!(tones.path("run").join(file).is_file(), "{file}");
    }
}

#[test]
fn every_kind_of_feed_forward_learns() {
    let tones = Tones::new();
    let kinds = [
        "{kind=\"experts\",router=\"switch\",groups=\"2x3\",router_bias=false,jitter=0}",
        "{kind=\"sigma\",router=\"switch\",groups=\"2x6\",top_k=2,expert_dropout=0.05}",
        "{kind=\"sigma\",router=\"omni\",groups=\"2x6\",top_k=2,expert_dropout=0.05}",
        "{kind=\"adaptive\",router=\"switch\",groups=\"2x3\",statistics={kind=\"utterance\"}}",
        "{kind=\"adaptive\",router=\"omni\",groups=\"2x3\",statistics={kind=\"running\",momentum=0.9}}",
        "{kind=\"memory\",layers=[2],subkeys=12,query=16,heads=2,top_k=6,weighting=\"softmax\"}",
        "{kind=\"memory\",layers=[2],subkeys=12,query=16,heads=2,top_k=6,weighting=\"relu\"}",
        "{kind=\"strata\",router=\"switch\",strata=[2,2]}",
        "{kind=\"strata\",router=\"omni\",strata=[1,2,2]}",
    ];
    for (i, kind) in kinds.iter().enumerate() {
        let changes = ["control.audio_hours=0.02", "batches.frames_per_batch=1000", &format!("encoder.feed_forward={kind}")];
        let outcome = tones.run(&format!("kind{i}"), &changes).expect("trains");
        let losses = losses(&tones.log(&format!("kind{i}")));
        assert!(outcome.last_loss < 0.7 * losses[0], "{kind}: {} to {} in {} steps", losses[0], outcome.last_loss, outcome.steps);
    }
}

#[test]
fn seeds_decide_and_nothing_else() {
    let tones = Tones::new();
    let steps = ["control.audio_hours=0.008"];
    let run = |output, changes: &[&str]| tones.run(output, &[&RANDOM[..], &steps, changes].concat()).expect("trains");
    assert!(run("a", &[]).steps > 8);
    run("b", &["control.loader_threads=3"]);
    tones.assert_same("a", "b");
    run("c", &["seed=8"]);
    assert_ne!(losses(&tones.log("a")), losses(&tones.log("c")));
}

#[test]
fn a_resumed_run_equals_an_uninterrupted_one() {
    let tones = Tones::new();
    // The schedule is stretched over audio_hours, which is how this test stops a run: it must not depend on it.
    let hours = |hours: &str, output| {
        let changes = [&RANDOM[..], &["schedule.kind=constant", "optimizer.accumulate=2", "data.dev=[]", hours]].concat();
        tones.run(output, &changes).expect("trains")
    };
    let whole = hours("control.audio_hours=0.02", "whole");
    let parts = ["0.004", "0.011", "0.02"].map(|h| hours(&format!("control.audio_hours={h}"), "parts"));
    assert!(parts[0].steps < parts[1].steps && parts[1].steps < whole.steps, "{parts:?}");
    assert_eq!(parts[2], whole);
    tones.assert_same("whole", "parts");
}

#[test]
fn running_clusters_are_followed_and_resumed() {
    let tones = Tones::new();
    let run = |output: &str, momentum: &str, hours: &str| {
        let kind = format!(
            "encoder.feed_forward={{kind=\"adaptive\",router=\"omni\",groups=\"2x3\",statistics={{kind=\"running\",momentum={momentum}}}}}"
        );
        let hours = format!("control.audio_hours={hours}");
        let changes = [&RANDOM[..], &["schedule.kind=constant", "optimizer.accumulate=2", "data.dev=[]", &hours, &kind]].concat();
        tones.run(output, &changes).expect("trains");
    };
    run("whole", "0.9", "0.02");
    run("parts", "0.9", "0.008");
    run("parts", "0.9", "0.02");
    tones.assert_same("whole", "parts");
    run("slow", "0.999", "0.02");
    let spread = |output: &str| {
        let model = ModelDirectory::open(&tones.path(output).join("model")).expect("a model");
        let weights = weights::collect(&model.model(&Device::flex()).expect("loads"));
        let (name, spread) = weights.iter().find(|(name, _)| name.ends_with(".clusters.spread")).expect("a spread");
        assert_eq!(name, "encoder.blocks.1.feed_forward.Experts.clusters.spread", "the first routed layer has no clusters");
        spread.values.iter().map(|v| (v - 1.0).abs()).sum::<f32>() / spread.values.len() as f32
    };
    // Deviations of normalised states lie well below the 1 that the running means start from.
    let (quick, slow) = (spread("whole"), spread("slow"));
    assert!(slow > 0.0 && quick > 2.0 * slow, "moved by {quick} and {slow}");
}

#[test]
fn a_killed_run_equals_an_uninterrupted_one() {
    let tones = Tones::new();
    let steps = ["control.audio_hours=0.08", "control.log_every=7", "control.checkpoint_minutes=0", "control.evaluate_hours=0.023"];
    let changes = [&RANDOM[..], &steps].concat();
    let whole = tones.run("whole", &changes).expect("trains");
    for lines in [2, 6] {
        let mut child = tones.program("killed", &changes).spawn().expect("starts");
        let started = Instant::now();
        while tones.log("killed").len() < lines {
            assert!(child.try_wait().expect("status").is_none(), "the run ended before it could be killed");
            assert!(started.elapsed() < Duration::from_secs(60), "no {lines} log lines in a minute");
            std::thread::sleep(Duration::from_millis(3));
        }
        child.kill().expect("kill -9");
        child.wait().expect("dead");
        let last = tones.log("killed").iter().map(Line::step).max();
        assert!(last < Some(whole.steps), "killed at {last:?} of {}", whole.steps);
        assert!(tones.path("killed/checkpoint.safetensors").is_file());
    }
    assert!(tones.program("killed", &changes).status().expect("runs").success());
    tones.assert_same("whole", "killed");
    assert!(tones.log("whole").iter().filter(|l| matches!(l, Line::Dev { .. })).count() > 2);
}

#[test]
fn a_checkpoint_of_another_model_is_refused_by_name() {
    let tones = Tones::new();
    let short = "control.audio_hours=0.002";
    tones.run("run", &[short]).expect("trains");
    let before = tones.bytes("run/checkpoint.safetensors");
    for (change, named) in [
        ("encoder.d_ff=128", "average/encoder.blocks.0.feed_forward.Experts.experts.down"),
        ("encoder.attention_bias=false", "attention.qkv.bias"),
        ("encoder.feed_forward.router_bias=true", "encoder.routers.0.bias"),
    ] {
        match tones.run("run", &[short, change]) {
            Err(Error::Checkpoint { path, mismatched, .. }) => {
                assert_eq!(path, tones.path("run/checkpoint.safetensors"));
                assert!(mismatched.iter().any(|name| name.contains(named)), "{change}: {named} is not in {mismatched:?}");
            }
            other => panic!("{change}: {other:?}"),
        }
    }
    assert!(tones.bytes("run/checkpoint.safetensors") == before, "a refused run leaves the checkpoint alone");
    // A damaged one is refused as well: starting over in silence would throw the run away.
    std::fs::write(tones.path("run/checkpoint.safetensors"), &before[..before.len() / 2]).expect("write");
    let error = tones.run("run", &[short]).expect_err("truncated").to_string();
    assert!(error.contains("checkpoint.safetensors: mismatched not a safetensors file"), "{error}");

    let mut encoder = tones.config("run", &[]).expect("config").encoder;
    encoder.n_heads = 2;
    random_model(&tones.path("start"), &encoder, 1, |_| ());
    tones.run("from", &[short, "init=\"FOLDER/start\"", "encoder.n_heads=2"]).expect("starts from a model");
    match tones.run("other", &[short, "init=\"FOLDER/start\"", "encoder.n_heads=2", "encoder.block={kind=\"transformer\"}"]) {
        Err(Error::Checkpoint { missing, unused, .. }) => {
            assert_eq!(missing, ["encoder.final_norm.gamma", "encoder.final_norm.beta"]);
            assert!(unused.iter().any(|name| name == "encoder.blocks.0.convolution.module.depthwise"), "{unused:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn utterances_that_cannot_be_used_are_reported_and_left_out() {
    let tones = Tones::new();
    tones.run("without", &["control.audio_hours=0.004", "data.dev=[]"]).expect("trains");
    let too_long = "mi re ".repeat(12);
    tones.append("train.jsonl", &(line("3.wav", 0.4, &too_long) + &line("gone.wav", 1.0, "re") + &line("3.wav", 0.4, "[laughs]")));
    let output = tones.program("with", &["control.audio_hours=0.004", "data.dev=[]"]).stderr(Stdio::piped()).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for wanted in ["gone.wav", "1 utterances have more tokens than steps", "dropped EmptyText", "dropped Unreadable"] {
        assert!(said.contains(wanted), "{wanted} is not in:\n{said}");
    }
    let place = |lines: Vec<Line>| lines.iter().map(hours_and_epoch).collect::<Vec<_>>();
    assert_eq!(place(tones.log("without")), place(tones.log("with")), "the same batches with and without what is left out");
}

#[test]
fn bad_manifests_are_refused_by_line() {
    let tones = Tones::new();
    tones.append("train.jsonl", "{\"audio_filepath\":\"0.wav\",\"text\":\"ta\"}\n");
    let error = tones.run("run", &[]).expect_err("no duration").to_string();
    assert!(error.starts_with(&tones.placed("FOLDER/train.jsonl:5: missing field `duration`")), "{error}");

    let tones = Tones::new();
    std::fs::create_dir(tones.path("run")).expect("folder");
    Tokenizer::characters(" amt").expect("tokenizer").save(tones.path("run/tokenizer.json")).expect("save");
    let error = tones.run("run", &[]).expect_err("characters the run's tokenizer lacks").to_string();
    assert!(error.contains("train.jsonl:1: ") && error.contains("no token spells 'i'"), "{error}");

    let error = tones.run("none", &["data.train=[{path=\"FOLDER/none.jsonl\"}]"]).expect_err("missing").to_string();
    assert!(error.contains("none.jsonl: No such file"), "{error}");
}

#[test]
fn runs_are_strict_and_overrides_are_checked() {
    let tones = Tones::new();
    let config = tones.config("x", &["encoder.dropout=0.25", "name=a b", "data.filter.max_duration=7", "init=\"m\""]).expect("valid");
    assert_eq!((config.encoder.dropout, config.name.as_str(), config.data.filter.max_duration), (0.25, "a b", 7.0));
    assert_eq!(config.init, Some("m".into()));
    assert_eq!(config.output, tones.path("x"));
    for (change, says) in [
        ("encoder.dropuot=0.2", "unknown field `dropuot`"),
        ("encoder.dropuot=0.2", "in `encoder`"),
        ("optimiser.lr=1", "unknown field `optimiser`"),
        ("encoder.dropout=high", "in `encoder.dropout`"),
        ("encoder.dropout=", "in `encoder.dropout`"),
        ("encoder.dropout=1.5", "encoder.dropout = 1.5: must lie in 0..1"),
        ("encoder.dropout", "--set encoder.dropout: want key=value"),
        ("seed.x=1", "--set seed.x=1: seed is not a table"),
        ("seed=1\nname=\"x\"", "invalid type: string"),
        ("optimizer.lr=-1", "optimizer.lr = -1: must lie in 0..=10"),
        ("optimizer.lr=nan", "optimizer.lr = NaN: must lie in"),
        ("schedule.floor=2", "schedule.floor = 2: must lie in"),
        ("control.audio_hours=-1", "control.audio_hours = -1: must lie in"),
        ("control.log_every=0", "control.log_every = 0: must lie in"),
        ("control.storage=f64", "unknown variant `f64`"),
        ("tokenizer={kind=\"bpe\",vocab_size=3}", "tokenizer.vocab_size = 3: must lie in"),
        ("batches.pad_frames=0", "pad_frames = 0"),
        ("data.train=[]", "data.train: at least one manifest"),
        ("encoder.feed_forward.groups=2by2", "expert groups \"2by2\": want layers x experts"),
        ("encoder.feed_forward.groups=3x2", "groups cover 3 layers"),
        ("encoder.position.base=3", "unknown field `base`"),
    ] {
        let error = tones.config("x", &[change]).expect_err(change).to_string();
        assert!(
            error.starts_with(&tones.placed("FOLDER/run.toml: ")) && error.contains(says) && !error.contains('\n'),
            "{change}: {error}"
        );
    }
    tones.write("run.toml", &RUN.replace("warmup_steps", "warmup_stops"));
    let error = tones.config("x", &[]).expect_err("unknown key in the file").to_string();
    assert!(error.contains("unknown field `warmup_stops`") && error.contains("in `schedule`"), "{error}");
    tones.write("run.toml", &RUN.replace("d_ff = 96", "d_ff = 96 96"));
    let error = tones.config("x", &[]).expect_err("not TOML").to_string();
    let at = RUN.lines().position(|l| l.starts_with("d_ff")).expect("d_ff") + 1;
    assert!(error.contains(&format!("run.toml: line {at}: ")) && !error.contains('\n'), "{error}");
    // The echo beside the checkpoint is the complete run.
    tones.write("run.toml", RUN);
    tones.run("echo", &["control.audio_hours=0.001"]).expect("trains");
    let echo = RunConfig::read(&tones.path("echo/run.toml"), &[]).expect("the echo reads");
    assert_eq!(echo, tones.config("echo", &["control.audio_hours=0.001"]).expect("config"));
    assert!(String::from_utf8_lossy(&tones.bytes("echo/run.toml")).contains("weight_decay"), "defaults are written out");
}

#[test]
fn steps_without_a_finite_gradient_are_skipped_and_then_an_error() {
    let tones = Tones::new();
    let encoder = tones.config("run", &[]).expect("config").encoder;
    random_model(&tones.path("start"), &encoder, 1, |tensors| {
        tensors.get_mut("head.bias").expect("the head has a bias").values[0] = f32::NAN;
    });
    let changes = ["init=\"FOLDER/start\"", "control.audio_hours=1", "control.checkpoint_minutes=0", "data.dev=[]"];
    let error = tones.run("run", &changes).expect_err("nothing can be learned from NaN");
    assert!(matches!(&error, Error::Training { reason } if reason.contains("no finite gradient in 50 steps")), "{error}");
    let log = tones.log("run");
    assert!(log.iter().all(|l| matches!(l, Line::Train { step: 0, skipped: 1, loss, .. } if loss.is_nan())), "{log:?}");
    assert_eq!(log.len(), 49, "the lines before the error are all there");
    let (kept, _) = safetensors_file::load(&tones.path("run/checkpoint.safetensors")).expect("checkpoint");
    let damaged: Vec<_> = kept.iter().filter(|(_, t)| !t.values.iter().all(|v| v.is_finite())).map(|(name, _)| name.as_str()).collect();
    assert_eq!(damaged, ["average/head.bias", "values/head.bias"], "skipped steps touch no other weight");
}
