//! Compressed experts against hand-made figures, against the weights they come from, and through the program.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use burn::tensor::{Device, Tensor};
use nalgebra::DMatrix;
use omniscribe::ModelDirectory;
use omniscribe::checkpoint::factored::{ExpertSizes, Factored, Residual, Storage, join, split};
use omniscribe::checkpoint::tensor_file::TensorFile;
use omniscribe::compress::barycenter::{align, barycenter, mean, ordered};
use omniscribe::compress::residual::{compress as smaller, largest, rank};
use omniscribe::compress::{Method, Plan, ResidualKind, compress};
use omniscribe::kernel::activation::Activation;
use omniscribe::kernel::gemm::Precision;
use omniscribe::kernel::rng::SplitMix;
use omniscribe::model::config::EncoderConfig;
use omniscribe::model::lengths::Lengths;
use omniscribe::model::pass::Pass;
use serde_json::{Value, json};

use crate::oracle::{self, Golden};
use crate::training::random_model;

/// Centre plus residual in f32 of values of order 1: two roundings.
const ROUNDED: f64 = 3e-7;

fn plan(method: Method, residual: ResidualKind, keep: f64) -> Plan {
    Plan { method, residual, keep, storage: Storage::F32 }
}

fn square(values: impl Iterator<Item = f32>) -> f64 {
    values.map(|v| f64::from(v).powi(2)).sum()
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    square(a.iter().zip(b).map(|(a, b)| a - b))
}

fn random(rng: &mut SplitMix, count: usize) -> Vec<f32> {
    (0..count).map(|_| rng.next_normal()).collect()
}

fn shuffled(rng: &mut SplitMix, n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    (1..n).for_each(|i| order.swap(i, rng.next_u64() as usize % (i + 1)));
    order
}

#[test]
fn figures_of_the_toy() {
    let centre = [1.0, 0.0, 2.0, 0.0, 1.0, -1.0, 2.0, 2.0, 0.0];
    let expert = [0.0, 1.1, -1.0, 2.0, 2.0, 0.3, 1.0, -0.2, 2.0];
    let order = align(&centre, &expert, 3);
    assert_eq!(order, [2, 0, 1]);
    let residual: Vec<f32> = ordered(&expert, &order, 3).iter().zip(&centre).map(|(v, c)| v - c).collect();
    let golden = [0.0, -0.2, 0.0, 0.0, 0.1, 0.0, 0.0, 0.0, 0.3].map(f64::from);
    oracle::assert_close("residual", &residual.iter().map(|v| f64::from(*v)).collect::<Vec<_>>(), &golden, ROUNDED);
    let kept = largest(&residual, 0.25);
    assert_eq!(kept.iter().map(|k| k.0).collect::<Vec<_>>(), [1, 8], "7 of 9 go");
    let mut restored = centre.to_vec();
    kept.iter().for_each(|&(place, value)| restored[place] += value);
    let golden = [1.0, -0.2, 2.0, 0.0, 1.0, -1.0, 2.0, 2.0, 0.3].map(f64::from);
    oracle::assert_close("restored", &restored.iter().map(|v| f64::from(*v)).collect::<Vec<_>>(), &golden, ROUNDED);
    assert!((distance(&restored, &ordered(&expert, &order, 3)) - 0.01).abs() < 1e-7);
}

#[test]
fn reordered_copies_of_one_expert_are_their_centre() {
    let mut rng = SplitMix::new(11);
    let (d_model, d_ff) = (5, 14);
    let width = 2 * d_model + 1;
    let one = random(&mut rng, d_ff * width);
    let copies: Vec<Vec<f32>> = (0..4).map(|_| ordered(&one, &shuffled(&mut rng, d_ff), width)).collect();
    let (factored, report) = plan(Method::Resmoe, ResidualKind::Prune, 0.0).apply("x", &copies, d_model);
    assert!(report.spread < 1e-13 && report.error < 1e-13, "{report:?}");
    (0..4).for_each(|e| assert!(distance(&factored.restored(e), &copies[0]) < 1e-12, "expert {e} is the first one"));
    let (_, unaligned) = plan(Method::Average, ResidualKind::Prune, 0.0).apply("x", &copies, d_model);
    assert!(unaligned.error > 0.3, "their mean is nothing like them: {unaligned:?}");
}

#[test]
fn the_centre_of_aligned_experts_is_nearer_and_nothing_moves_at_the_end() {
    let mut rng = SplitMix::new(12);
    let (rows, width) = (12, 10);
    let one = random(&mut rng, rows * width);
    let noisy = |rng: &mut SplitMix| {
        let order = shuffled(rng, rows);
        ordered(&one, &order, width).iter().map(|v| v + 0.3 * rng.next_normal()).collect::<Vec<f32>>()
    };
    let experts: Vec<Vec<f32>> = (0..4).map(|_| noisy(&mut rng)).collect();
    let found = barycenter(&experts, width);
    let aligned: Vec<Vec<f32>> = experts.iter().zip(&found.orders).map(|(e, order)| ordered(e, order, width)).collect();
    let from = |centre: &[f32], all: &[Vec<f32>]| all.iter().map(|e| distance(e, centre)).sum::<f64>();
    let (near, far) = (from(&found.centre, &aligned), from(&mean(&experts), &experts));
    assert!(near < 0.3 * far, "{near} aligned, {far} not");
    assert!(distance(&found.centre, &mean(&aligned)) < 1e-12, "the centre is the mean of the aligned experts");
    for (expert, order) in experts.iter().zip(&found.orders) {
        assert_eq!(&align(&found.centre, expert, width), order, "aligned to the centre once more");
    }
}

#[test]
fn errors_fall_with_what_is_kept_and_nothing_is_lost_at_one() {
    let mut rng = SplitMix::new(13);
    let (d_model, d_ff) = (8, 20);
    let designs: Vec<Vec<f32>> = (0..3).map(|_| random(&mut rng, d_ff * (2 * d_model + 1))).collect();
    for method in [Method::Resmoe, Method::Average, Method::Magnitude] {
        for kind in [ResidualKind::Prune, ResidualKind::Svd] {
            let plan = |keep| plan(method, kind, keep);
            if plan(0.5).validate().is_err() {
                continue;
            }
            let errors: Vec<f64> = (0..=20).map(|i| plan(f64::from(i) / 20.0).apply("x", &designs, d_model).1.error).collect();
            assert!(errors.is_sorted_by(|a, b| a >= b), "{method:?} {kind:?}: {errors:?}");
            assert!(errors[0] > 0.1 && errors[20] < 1e-13, "{method:?} {kind:?}: {errors:?}");
        }
    }
}

#[test]
fn low_rank_leaves_the_smallest_singular_values() {
    let mut rng = SplitMix::new(14);
    let sizes = ExpertSizes { experts: 2, d_model: 6, d_ff: 17 };
    let residuals: Vec<Vec<f32>> = (0..2).map(|_| random(&mut rng, sizes.entries())).collect();
    for keep in [0.0, 0.1, 0.3, 0.7, 0.99] {
        let r = rank(keep, sizes);
        assert_eq!(r, (keep * (17 * 13) as f64 / 30.0) as usize);
        let factored = Factored { sizes, centre: None, residual: smaller(ResidualKind::Svd, keep, &residuals, sizes) };
        assert!(matches!(factored.residual, Residual::LowRank { rank, .. } if rank == r));
        for (e, residual) in residuals.iter().enumerate() {
            let matrix = DMatrix::from_row_iterator(17, 13, residual.iter().map(|v| f64::from(*v)));
            let mut singular: Vec<f64> = matrix.singular_values().iter().copied().collect();
            singular.sort_by(|a, b| b.total_cmp(a));
            let dropped: f64 = singular[r..].iter().map(|s| s * s).sum();
            let error = distance(&factored.restored(e), residual);
            assert!((error - dropped).abs() < 1e-4 * dropped.max(1.0), "rank {r}: {error}, dropped {dropped}");
        }
    }
    // The paper's Mixtral: 0.25 of [14336, 3 * 4096] is rank 1654.
    let wide = |n: f64, p: f64| (0.25 * n * p / (n + p)) as usize;
    assert_eq!(wide(14336.0, 12288.0), 1654);
}

/// Experts of a golden case: `[experts]` of (up, up bias, down) in our layout, and the output biases.
fn golden_experts(tensors: &BTreeMap<String, Golden>, case: &str) -> (Vec<Vec<f32>>, Vec<Vec<f32>>, usize) {
    let get = |name: &str| tensors.get(&format!("{case}.{name}"));
    let (w1, w2) = (get("w1").expect("w1"), get("w2").expect("w2"));
    let [experts, d_ff, d_model] = w1.shape[..] else { panic!("{case}: w1 {:?}", w1.shape) };
    let swapped = |values: &[f32], rows: usize, columns: usize| {
        (0..columns).flat_map(|c| (0..rows).map(move |r| values[r * columns + c])).collect::<Vec<f32>>()
    };
    let bias = |name: &str, width: usize, e: usize| get(name).map_or(vec![0.0; width], |b| b.f32()[e * width..(e + 1) * width].to_vec());
    let (w1, w2, n) = (w1.f32(), w2.f32(), d_ff * d_model);
    let design = |e: usize| {
        let up = swapped(&w1[e * n..(e + 1) * n], d_ff, d_model);
        let down = swapped(&w2[e * n..(e + 1) * n], d_model, d_ff);
        join(&up, &bias("b1", d_ff, e), &down, d_model)
    };
    ((0..experts).map(design).collect(), (0..experts).map(|e| bias("b2", d_model, e)).collect(), d_model)
}

/// One row through an expert.
fn feed_forward(x: &[f32], design: &[f32], bias: &[f32], act: Activation) -> Vec<f64> {
    let [up, up_bias, down] = split(design, x.len());
    let d_ff = up_bias.len();
    let raw: Vec<f32> = (0..d_ff).map(|j| up_bias[j] + x.iter().enumerate().map(|(i, v)| v * up[i * d_ff + j]).sum::<f32>()).collect();
    let mut hidden = vec![0.0; d_ff];
    act.forward(&raw, &mut hidden);
    let output = |o: usize| bias[o] + hidden.iter().enumerate().map(|(j, h)| h * down[j * x.len() + o]).sum::<f32>();
    (0..x.len()).map(|o| f64::from(output(o))).collect()
}

#[test]
fn oracle_experts_restored_whole_give_the_golden_outputs() {
    let tensors = oracle::tensors("07_moe/moe.safetensors");
    let cases: Value = serde_json::from_slice(&std::fs::read(oracle::find("07_moe/moe.json")).unwrap()).unwrap();
    let mut checked = 0;
    for case in cases.as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let get = |what: &str| tensors.get(&format!("{name}.{what}"));
        let (Some(x), Some(y), Some(index), Some(gate), Some(dropped)) =
            (get("x"), get("y"), get("expert_index"), get("gate"), get("dropped"))
        else {
            continue;
        };
        let act = match case["act"].as_str() {
            Some("relu") => Activation::Relu,
            Some("silu") => Activation::Silu,
            Some("gelu") => Activation::Gelu,
            other => panic!("{name}: activation {other:?}"),
        };
        let (designs, biases, d_model) = golden_experts(&tensors, name);
        for (method, kind) in
            [(Method::Resmoe, ResidualKind::Prune), (Method::Resmoe, ResidualKind::Svd), (Method::Average, ResidualKind::Prune)]
        {
            let (factored, _) = plan(method, kind, 1.0).apply(name, &designs, d_model);
            let experts: Vec<Vec<f32>> = (0..designs.len()).map(|e| factored.restored(e)).collect();
            for (row, input) in x.f32().chunks_exact(d_model).enumerate() {
                if dropped.values[row] == 1.0 || get("mask").is_some_and(|m| m.values[row] == 0.0) {
                    continue;
                }
                let e = index.indices()[row];
                let ours: Vec<f64> = feed_forward(input, &experts[e], &biases[e], act).iter().map(|v| v * gate.values[row]).collect();
                let golden = &y.values[row * d_model..(row + 1) * d_model];
                oracle::assert_close(&format!("{name} {method:?} {kind:?} row {row}"), &ours, golden, 5e-6);
                checked += 1;
            }
        }
    }
    assert!(checked > 100, "{checked} rows");
}

fn encoder(feed_forward: Value) -> EncoderConfig {
    serde_json::from_value(json!({
        "mels": 20, "d_model": 32, "n_layers": 3, "n_heads": 4, "d_ff": 48, "activation": "silu", "dropout": 0.0, "attention_bias": true,
        "scale_input": false, "subsampling": {"kind": "stacking", "factor": 4, "hidden": 24}, "position": {"kind": "rotary"},
        "context": {"kind": "full"}, "block": {"kind": "transformer"}, "feed_forward": feed_forward, "intermediate": null
    }))
    .expect("configuration")
}

fn omni() -> Value {
    json!({"kind": "experts", "router": "omni", "groups": "1x1-2x4", "router_bias": false, "jitter": 0.0})
}

fn logits(model: &Path) -> Vec<f32> {
    let model = ModelDirectory::open(model).expect("opens").model(&Device::flex()).expect("loads");
    let mut rng = SplitMix::new(5);
    let x: Vec<f32> = random(&mut rng, 2 * 40 * 20);
    let x = Tensor::<1>::from_floats(x.as_slice(), &Device::flex()).reshape([2, 40, 20]);
    let output = model.forward(x, &Lengths::new(vec![40, 25], 40), &Pass::inference(Precision::F32));
    output.logits.into_data().try_to_vec().expect("f32")
}

#[test]
fn a_model_that_keeps_all_is_the_same_and_bytes_are_those_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let (model, small) = (folder.path().join("model"), folder.path().join("small"));
    let strata = json!({"kind": "strata", "router": "switch", "strata": [2, 3]});
    for feed_forward in [omni(), strata] {
        random_model(&model, &encoder(feed_forward), 3, |_| ());
        let whole = logits(&model);
        let opened = ModelDirectory::open(&model).unwrap();
        for (method, kind, keep, storage, most) in [
            (Method::Resmoe, ResidualKind::Prune, 1.0, Storage::F32, 2e-5),
            (Method::Resmoe, ResidualKind::Svd, 1.0, Storage::F32, 2e-5),
            (Method::Average, ResidualKind::Prune, 1.0, Storage::F32, 2e-5),
            (Method::Magnitude, ResidualKind::Prune, 1.0, Storage::F32, 2e-5),
            (Method::Resmoe, ResidualKind::Prune, 1.0, Storage::Int8, 0.2),
            (Method::Resmoe, ResidualKind::Svd, 0.9, Storage::Int8, 1.0),
            (Method::Resmoe, ResidualKind::Prune, 0.0, Storage::F16, 2.0),
        ] {
            let what = format!("{method:?} {kind:?} {keep} {storage:?}");
            let report = compress(&opened, &Plan { method, residual: kind, keep, storage }, &small).unwrap();
            let new = logits(&small);
            let worst = whole.iter().zip(&new).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < most, "{what}: logits differ by {worst}");
            let file = TensorFile::open(&small.join("model.safetensors")).unwrap();
            let all: usize = file.names().filter(|n| n.contains(".experts.")).map(|n| file.get(n).unwrap().bytes.len()).sum();
            assert_eq!(report.bytes.total(), all as u64, "{what}");
            assert_eq!(report.file_bytes, std::fs::metadata(small.join("model.safetensors")).unwrap().len(), "{what}");
        }
    }
}

#[test]
fn bytes_count_the_centre_and_the_index() {
    let folder = tempfile::tempdir().unwrap();
    let (model, small) = (folder.path().join("model"), folder.path().join("small"));
    random_model(&model, &encoder(omni()), 4, |_| ());
    let opened = ModelDirectory::open(&model).unwrap();
    let report = compress(&opened, &Plan { storage: Storage::F16, ..plan(Method::Resmoe, ResidualKind::Prune, 0.25) }, &small).unwrap();
    // Two layers of four experts; rows of 32 + 1 + 32 in 48 neurons. Biases stay 32-bit in f16 files, matrices and kept values are 16-bit.
    let (entries, kept) = (48 * 65, 48 * 65 - (0.75f64 * (48 * 65) as f64).round() as u64);
    assert_eq!(report.bytes.centre, 2 * (2 * 2 * 48 * 32 + 4 * 48));
    assert_eq!(report.bytes.residual, 2 * 4 * kept * 2);
    assert_eq!(report.bytes.index, 2 * 4 * (entries as u64).div_ceil(8));
    assert_eq!(report.bytes.bias, 2 * 4 * 32 * 2);
    assert_eq!(report.layers.len(), 2, "the dense layer stays: {:?}", report.layers);
}

#[test]
fn what_cannot_be_compressed_or_read_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let (model, small) = (folder.path().join("model"), folder.path().join("small"));
    random_model(&model, &encoder(json!({"kind": "dense"})), 3, |_| ());
    let some = plan(Method::Resmoe, ResidualKind::Prune, 0.5);
    let refused = compress(&ModelDirectory::open(&model).unwrap(), &some, &small).unwrap_err().to_string();
    assert!(refused.contains("no layer with several experts"), "{refused}");
    for (bad, says) in [
        (Plan { keep: 1.5, ..some }, "keep = 1.5: must lie in 0..=1"),
        (Plan { keep: f64::NAN, ..some }, "keep = NaN"),
        (plan(Method::Magnitude, ResidualKind::Svd, 0.5), "no residual to take apart"),
    ] {
        let refused = bad.validate().unwrap_err().to_string();
        assert!(refused.contains(says), "{refused}");
    }
    random_model(&model, &encoder(omni()), 3, |_| ());
    compress(&ModelDirectory::open(&model).unwrap(), &some, &small).unwrap();
    // A bit of a mask flipped: the numbers of kept values no longer agree.
    let path = small.join("model.safetensors");
    let file = TensorFile::open(&path).unwrap();
    let name = file.names().find(|n| n.ends_with(".residual.mask")).unwrap().to_string();
    let mask = file.get(&name).unwrap().bytes.to_vec();
    drop(file);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(mask.len()).position(|window| window == mask).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let refused = ModelDirectory::open(&small).unwrap().model(&Device::flex()).unwrap_err().to_string();
    assert!(refused.contains("residual.mask: experts keep different numbers"), "{refused}");
}

#[test]
fn the_program_compresses_the_shipped_model() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let small = folder.path().join("small");
    let ran = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_omniscribe")).current_dir(&root).args(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (small, json) = (small.to_str().unwrap(), folder.path().join("report.json"));
    // A folder of one recording and its text.
    let set = folder.path().join("set");
    std::fs::create_dir(&set).unwrap();
    std::fs::copy(root.join("assets/river.wav"), set.join("river.wav")).unwrap();
    std::fs::write(set.join("river.txt"), "the river\n").unwrap();
    let (set, json_path) = (set.to_str().unwrap(), json.to_str().unwrap());
    let (code, out, err) =
        ran(&["compress", "models/base", "--keep", "1", "--storage", "f32", "-o", small, "--on", set, "--json", json_path]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(report["fidelity"]["same_text"], 1.0, "{report:#}");
    assert!(report["fidelity"]["agreement"].as_array().unwrap().iter().all(|a| a.as_f64().unwrap() > 0.99), "{report:#}");
    assert_eq!(out.matches("4 experts").count(), 8, "{out}");
    let (code, out, _) = ran(&["model", "verify", small]);
    assert!(code == Some(0) && out.contains("all finite"), "{out}");
    for companion in ["language.lm", "decoding.json", "calibration.json"] {
        let bytes = |folder: &Path| std::fs::read(folder.join(companion)).unwrap();
        assert!(bytes(&root.join("models/base")) == bytes(Path::new(small)), "{companion}");
    }
    let (_, whole, _) = ran(&["transcribe", "assets/river.wav", "--decoder", "greedy", "-m", "models/base"]);
    let (_, same, _) = ran(&["transcribe", "assets/river.wav", "--decoder", "greedy", "-m", small]);
    assert_eq!(whole, same);
    let (code, _, err) = ran(&["compress", "models/base", "--keep", "2", "-o", small]);
    assert!(code == Some(1) && err.contains("keep = 2: must lie in 0..=1"), "{err}");
    let (code, _, err) = ran(&["compress", "models/base", "--keep", "0.5", "-o", "models/base"]);
    assert!(code == Some(1) && err.contains("is the model itself"), "{err}");
}
