//! Models within a budget of experts: the same transcripts, never more memory, guesses that are right more often than without learning.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use burn::tensor::{Device, Tensor};
use omniscribe::checkpoint::ModelDirectory;
use omniscribe::checkpoint::experts::{ExpertFile, without_experts};
use omniscribe::checkpoint::factored::Storage;
use omniscribe::compress::{Method, Plan, ResidualKind, compress};
use omniscribe::kernel::gemm::Precision;
use omniscribe::kernel::rng::SplitMix;
use omniscribe::model::config::EncoderConfig;
use omniscribe::model::lengths::Lengths;
use omniscribe::model::moe::store::ExpertStore;
use omniscribe::model::pass::Pass;
use omniscribe::model::stream::AsrStream;
use omniscribe::offload::cache::{ExpertCache, Prefetch, Settings};
use omniscribe::offload::predictor::{Heads, Predictor, Shape, windows};
use omniscribe::offload::train::{Lesson, Schedule, accuracy, lessons, train};
use omniscribe::offload::{self};
use serde_json::{Value, json};

use crate::training::random_model;

const ALL: [Prefetch; 4] = [Prefetch::Nothing, Prefetch::Previous, Prefetch::Popular, Prefetch::Predicted];

fn encoder(feed_forward: Value) -> EncoderConfig {
    serde_json::from_value(json!({
        "mels": 20, "d_model": 32, "n_layers": 4, "n_heads": 4, "d_ff": 48, "activation": "silu", "dropout": 0.0, "attention_bias": true,
        "scale_input": false, "subsampling": {"kind": "stacking", "factor": 4, "hidden": 24}, "position": {"kind": "rotary"},
        "context": {"kind": "chunks", "sizes": [2, 4], "left": 16}, "block": {"kind": "transformer"}, "feed_forward": feed_forward,
        "intermediate": null
    }))
    .expect("configuration")
}

fn omni() -> Value {
    json!({"kind": "experts", "router": "omni", "groups": "1x1-3x5", "router_bias": false, "jitter": 0.0})
}

fn sigma() -> Value {
    json!({"kind": "sigma", "router": "switch", "groups": "4x6", "top_k": 2, "expert_dropout": 0.0})
}

/// Bytes of one expert of [`encoder`].
const ONE: u64 = 4 * (2 * 32 * 48 + 48 + 32);

fn cache(model: &ModelDirectory, settings: Settings) -> std::sync::Arc<ExpertCache> {
    let predictor = (settings.prefetch == Prefetch::Predicted)
        .then(|| Predictor::new(Shape::of(model, Heads::Each, 2, 8).expect("a model with experts"), 1));
    ExpertCache::start(ExpertFile::open(model).expect("experts"), Device::flex(), settings, predictor)
}

fn features(seed: u64, batch: usize, frames: usize) -> Vec<f32> {
    let mut rng = SplitMix::new(seed);
    (0..batch * frames * 20).map(|_| rng.next_normal()).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn logits_are_the_same_to_the_bit_whatever_the_budget() {
    let folder = tempfile::tempdir().unwrap();
    for feed_forward in [omni(), sigma()] {
        random_model(folder.path(), &encoder(feed_forward), 7, |_| ());
        let directory = ModelDirectory::open(folder.path()).unwrap();
        let whole = directory.model(&Device::flex()).unwrap();
        for precision in [Precision::F32, Precision::Bf16] {
            let input = |seed| Tensor::<1>::from_floats(features(seed, 3, 44).as_slice(), &Device::flex()).reshape([3, 44, 20]);
            let lengths = Lengths::new(vec![44, 20, 7], 44);
            let run = |model: &omniscribe::model::asr::AsrModel, seed| {
                let logits = model.forward(input(seed), &lengths, &Pass::inference(precision)).logits;
                bits(&logits.into_data().try_to_vec::<f32>().unwrap())
            };
            for prefetch in ALL {
                for (experts, queue) in [(1, 1), (2, 4), (3, 0), (7, 3), (100, 8)] {
                    let cache = cache(&directory, Settings { budget: experts * ONE, prefetch, queue });
                    let mut model = without_experts(&directory, &Device::flex()).unwrap();
                    model.encoder.lend_experts(cache.clone());
                    for seed in 0..3 {
                        assert_eq!(run(&model, seed), run(&whole, seed), "{prefetch:?}, {experts} experts, queue {queue}, {precision:?}");
                    }
                    let (ledger, counts) = (cache.ledger(), cache.counts());
                    assert!(ledger.peak() <= experts * ONE && ledger.peak() > 0, "{ledger:?}");
                    assert!(counts.passes == 3 && counts.asked >= 9 && counts.hits + counts.late <= counts.asked, "{counts:?}");
                    // Once all experts fit, none is read twice.
                    assert!(experts < 100 || (counts.evicted == 0 && counts.read_bytes <= 24 * ONE), "{counts:?}");
                }
            }
        }
    }
}

#[test]
fn streams_are_the_same_whatever_their_chunks() {
    let folder = tempfile::tempdir().unwrap();
    random_model(folder.path(), &encoder(omni()), 8, |_| ());
    let directory = ModelDirectory::open(folder.path()).unwrap();
    let whole = directory.model(&Device::flex()).unwrap();
    let mut lent = without_experts(&directory, &Device::flex()).unwrap();
    let cache = cache(&directory, Settings { budget: 2 * ONE, prefetch: Prefetch::Predicted, queue: 1 });
    lent.encoder.lend_experts(cache.clone());
    let frames = features(4, 1, 90);
    for (steps, piece) in [(2, 3), (4, 20), (4, 90)] {
        let chunk = whole.encoder.config().context.chunk(steps).unwrap();
        let heard = |model| {
            let mut stream = AsrStream::new(model, chunk, Precision::F32).unwrap();
            let mut all: Vec<u32> = Vec::new();
            for part in frames.chunks(piece * 20) {
                if let Some(output) = stream.step(model, part) {
                    all.extend(bits(&output.logits.into_data().try_to_vec::<f32>().unwrap()));
                }
            }
            let rest = stream.flush(model).map(|o| bits(&o.logits.into_data().try_to_vec::<f32>().unwrap()));
            all.extend(rest.unwrap_or_default());
            all
        };
        assert_eq!(heard(&lent), heard(&whole), "chunks of {steps} steps, {piece} frames at a time");
    }
    assert!(cache.ledger().peak() <= 2 * ONE);
}

#[test]
fn many_threads_share_a_budget_of_one_expert() {
    let folder = tempfile::tempdir().unwrap();
    random_model(folder.path(), &encoder(omni()), 9, |_| ());
    let directory = ModelDirectory::open(folder.path()).unwrap();
    for prefetch in [Prefetch::Nothing, Prefetch::Previous] {
        let cache = cache(&directory, Settings { budget: 2 * ONE, prefetch, queue: 2 });
        let file = ExpertFile::open(&directory).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let (cache, file) = (&cache, &file);
                scope.spawn(move || {
                    let mut rng = SplitMix::new(thread);
                    for _ in 0..40 {
                        let layer = 1 + rng.next_u64() as usize % 3;
                        let needed: Vec<usize> = (0..5).filter(|_| rng.next_u64().is_multiple_of(2)).collect();
                        let mut given = Vec::new();
                        cache.lend(layer, &needed, &mut |e, weights| {
                            given.push(e);
                            let right = file.read(layer, e, &Device::flex()).up.into_data();
                            assert_eq!(weights.up.clone().into_data(), right, "layer {layer}, expert {e}");
                        });
                        given.sort_unstable();
                        assert_eq!(given, needed, "each once");
                    }
                });
            }
        });
        assert!(cache.ledger().peak() <= 2 * ONE);
    }
}

#[test]
fn any_storage_can_be_fetched_from() {
    let folder = tempfile::tempdir().unwrap();
    let (model, small) = (folder.path().join("model"), folder.path().join("small"));
    random_model(&model, &encoder(omni()), 3, |_| ());
    let opened = ModelDirectory::open(&model).unwrap();
    for (residual, keep, storage) in [
        (ResidualKind::Prune, 0.3, Storage::F16),
        (ResidualKind::Svd, 0.3, Storage::F32),
        (ResidualKind::Prune, 0.5, Storage::Int8),
        (ResidualKind::Svd, 0.9, Storage::Int8),
    ] {
        compress(&opened, &Plan { method: Method::Resmoe, residual, keep, storage }, &small).unwrap();
        let directory = ModelDirectory::open(&small).unwrap();
        let (whole, file) = (directory.model(&Device::flex()).unwrap(), ExpertFile::open(&directory).unwrap());
        let omniscribe::model::feed_forward::FeedForward::Experts(layer) = &whole.encoder.blocks[2].feed_forward else { panic!("experts") };
        for e in 0..5 {
            let one = file.read(2, e, &Device::flex());
            let all = layer.experts.weights();
            assert_eq!(one.up.into_data(), all.up.slice(e..e + 1).into_data(), "{residual:?} {storage:?} {e}");
            assert_eq!(one.down.into_data(), all.down.slice(e..e + 1).into_data(), "{residual:?} {storage:?} {e}");
            assert_eq!(one.up_bias.into_data(), all.up_bias.slice(e..e + 1).into_data(), "{residual:?} {storage:?} {e}");
            assert_eq!(one.down_bias.into_data(), all.down_bias.slice(e..e + 1).into_data(), "{residual:?} {storage:?} {e}");
        }
    }
}

#[test]
fn a_predictor_sees_the_past_only() {
    let x: Vec<f32> = (0..10).map(|v| v as f32).collect();
    assert_eq!(windows(&x, 2, 3)[..12], [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 2.0, 3.0, 0.0, 1.0, 0.0, 0.0]);
    assert_eq!(windows(&x, 2, 3)[24..], [8.0, 9.0, 6.0, 7.0, 4.0, 5.0]);
}

/// Lessons in which the expert of the first layer follows the sign of one feature, that of the second the one before it.
fn planted(count: usize) -> Vec<Lesson> {
    let mut rng = SplitMix::new(21);
    let lesson = |rng: &mut SplitMix| {
        let x: Vec<f32> = (0..50 * 4).map(|_| rng.next_normal()).collect();
        let choice = |positive: bool| if positive { [2.0, -1.0] } else { [-1.0, 2.0] };
        let first = (0..50).flat_map(|t| choice(x[t * 4] > 0.0)).collect();
        let second = (0..50).flat_map(|t| choice(t > 0 && x[(t - 1) * 4 + 1] > 0.0)).collect();
        Lesson { x, logits: vec![first, second] }
    };
    (0..count).map(|_| lesson(&mut rng)).collect()
}

#[test]
fn a_predictor_learns_what_can_be_seen_and_one_guess_cannot_serve_two_rules() {
    let lessons = planted(40);
    let (taught, tests) = lessons.split_at(32);
    let schedule = Schedule { epochs: 30, batch: 64, lr: 1e-2, seed: 1 };
    let reached = |heads| {
        let shape = Shape { d_model: 4, context: 2, hidden: 16, heads, layers: vec![1, 2], experts: 2, top_k: 1 };
        let mut predictor = Predictor::new(shape, 3);
        let losses = train(&mut predictor, taught, &schedule);
        assert!(losses[29] < losses[0], "{losses:?}");
        accuracy(&predictor, taught, tests)
    };
    let (each, one) = (reached(Heads::Each), reached(Heads::One));
    assert!(each.predicted > 0.95, "{each:?}");
    assert!(each.majority < 0.65 && each.previous_layer < 0.65, "{each:?}");
    assert!(one.predicted < 0.85, "{one:?}");
    assert_eq!(each.pairs, 8 * 50 * 2);
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn what_cannot_be_offloaded_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |feed_forward: Value, budget: u64, prefetch: Prefetch| {
        random_model(folder.path(), &encoder(feed_forward), 3, |_| ());
        let settings = Settings { budget, prefetch, queue: 1 };
        offload::open(folder.path(), Device::flex(), Precision::F32, settings).unwrap_err().to_string()
    };
    let strata = json!({"kind": "strata", "router": "omni", "strata": [2, 2]});
    for (feed_forward, budget, prefetch, says) in [
        (json!({"kind": "dense"}), 1 << 20, Prefetch::Nothing, "this model has no experts"),
        (strata, 1 << 20, Prefetch::Nothing, "stratified experts"),
        (omni(), ONE - 1, Prefetch::Nothing, "do not hold one expert"),
        (omni(), 1 << 20, Prefetch::Predicted, "no predictor of experts"),
    ] {
        let error = refused(feed_forward, budget, prefetch);
        assert!(error.contains(says), "{error}, wanted {says}");
    }
    // A predictor of another model.
    let shape = Shape { d_model: 4, context: 2, hidden: 16, heads: Heads::One, layers: vec![1, 2], experts: 2, top_k: 1 };
    Predictor::new(shape, 3).save(&folder.path().join(offload::predictor::PREDICTOR)).unwrap();
    let error = refused(omni(), 1 << 20, Prefetch::Predicted);
    assert!(error.contains("made for another model"), "{error}");
    std::fs::write(folder.path().join(offload::predictor::PREDICTOR), b"nothing").unwrap();
    let error = refused(omni(), 1 << 20, Prefetch::Predicted);
    assert!(error.contains("predictor.safetensors") && error.contains("not a safetensors file"), "{error}");
}

#[test]
fn a_predictor_comes_back_as_it_was_saved() {
    let folder = tempfile::tempdir().unwrap();
    random_model(folder.path(), &encoder(omni()), 3, |_| ());
    let directory = ModelDirectory::open(folder.path()).unwrap();
    for heads in [Heads::One, Heads::Each] {
        let predictor = Predictor::new(Shape::of(&directory, heads, 3, 8).unwrap(), 5);
        let path = folder.path().join("p.safetensors");
        predictor.save(&path).unwrap();
        assert_eq!(Predictor::open(&path, &directory).unwrap(), predictor);
    }
}

fn copy_model(to: &Path) {
    std::fs::create_dir(to).unwrap();
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::copy(root().join("models/base").join(file), to.join(file)).unwrap();
    }
}

#[test]
fn the_program_says_the_same_within_any_budget() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("base");
    copy_model(&model);
    let ran = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_omniscribe")).current_dir(root()).args(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let model = model.to_str().unwrap();
    let (code, out, err) = ran(&["offload", "train", model, "assets/river.wav", "assets/digits.wav", "--epochs", "2", "--heads", "one"]);
    assert!(code == Some(0) && out.contains("predicted") && out.contains("predictor.safetensors"), "{out}{err}");
    let files = ["assets/river.wav", "assets/digits.wav", "assets/command.flac", "-m", model, "-f", "json"];
    let (_, whole, _) = ran(&[&["transcribe"][..], &files].concat());
    for budget in [&["--expert-memory", "1.2MB"][..], &["--expert-memory", "8MiB", "--expert-queue", "2"], &["--expert-memory", "1GiB"]] {
        for more in [&[][..], &["--expert-prefetch", "none"], &["--chunk-seconds", "5"]] {
            let (_, expected, _) = ran(&[
                &["transcribe"][..],
                &files,
                more.iter().filter(|_| more[0] == "--chunk-seconds").copied().collect::<Vec<_>>().as_slice(),
            ]
            .concat());
            let (code, out, err) = ran(&[&["transcribe"][..], &files, budget, more].concat());
            assert_eq!((code, &out), (Some(0), &expected), "{budget:?} {more:?}: {err}");
        }
    }
    assert!(whole.contains("river.wav"), "{whole}");
    let (_, _, err) = ran(&[&["transcribe"][..], &files, &["--expert-memory", "8MiB", "--verbose"]].concat());
    assert!(err.contains("experts: ") && err.contains("of 8.39 MB"), "{err}");
    let (code, _, err) = ran(&[&["transcribe"][..], &files, &["--expert-memory", "1MB"]].concat());
    assert!(code == Some(1) && err.contains("do not hold one expert"), "{err}");
    let (code, _, err) = ran(&[&["transcribe"][..], &files, &["--expert-memory", "lots"]].concat());
    assert!(code == Some(2) && err.contains("want a number of bytes"), "{err}");
    let directory = ModelDirectory::open(Path::new(model)).unwrap();
    let silence = lessons(&directory, &[root().join("assets/none.wav")], &Device::flex(), |_| ());
    assert!(silence.unwrap_err().to_string().contains("none.wav"));
}
