//! Modules for languages: what they compute, what trains them, how they are saved, chosen and identified.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use omniscribe::checkpoint::safetensors_file::{HostTensors, Storage};
use omniscribe::checkpoint::{ModelDirectory, languages, weights};
use omniscribe::dataset::bucket::{BatchPlan, Position};
use omniscribe::kernel::activation::Activation;
use omniscribe::kernel::rng::SplitMix;
use omniscribe::model::asr::{AsrModel, is_of_languages};
use omniscribe::model::config::{EncoderConfig, LanguagePlaces};
use omniscribe::model::feed_forward::Dense;
use omniscribe::model::init::Init;
use omniscribe::model::lengths::Lengths;
use omniscribe::model::moe::language::LanguageSizes;
use omniscribe::model::pass::Pass;
use omniscribe::model::stream::AsrStream;
use omniscribe::train::batch::HostBatch;
use omniscribe::train::config::{LanguageLoss, LossConfig};
use omniscribe::train::journal::{self, Line};
use omniscribe::train::optimizer::Optimizer;
use omniscribe::train::run;
use omniscribe::train::step::{Objective, batch_gradients};
use omniscribe::{Error, Precision, Transcriber};
use serde_json::{Value, json};

use crate::program::{program, ran};
use crate::training::{Tones, line, random_model};

/// f32 sums of the same terms in another grouping, through a few layers, relative to the largest value.
const SAME: f32 = 3e-5;

const MODULES: [&str; 3] = ["de", "fr", "it"];

fn modules(layers: &[usize], places: &str) -> Value {
    json!({"field": "lang", "modules": MODULES, "rank": 3, "layers": layers, "places": places})
}

fn plain(change: &Value) -> Value {
    let mut value = json!({
        "mels": 20, "d_model": 16, "n_layers": 3, "n_heads": 2, "d_ff": 24, "activation": "silu", "dropout": 0.1, "attention_bias": true,
        "scale_input": false, "subsampling": {"kind": "stacking", "factor": 4, "hidden": null}, "position": {"kind": "rotary"},
        "block": {"kind": "conformer", "kernel": 5, "norm": "layer", "convolution_bias": true},
        "feed_forward": {"kind": "dense"}, "intermediate": {"layers": [1], "self_condition": true},
        "context": {"kind": "chunks", "sizes": [2, 4], "left": 8}
    });
    for (key, new) in change.as_object().expect("an object") {
        value[key] = new.clone();
    }
    value
}

fn config(value: Value) -> EncoderConfig {
    serde_json::from_value(value).expect("configuration")
}

/// Every kind of feed-forward that modules change, without and with them.
fn pairs() -> Vec<(&'static str, EncoderConfig, EncoderConfig)> {
    let experts = |router: &str| json!({"kind": "experts", "router": router, "groups": "1x1-2x3", "router_bias": false, "jitter": 0.1});
    let all = [
        ("dense conformer", json!({}), modules(&[1, 2, 3], "all")),
        ("dense conformer, last places of some layers", json!({}), modules(&[2], "last")),
        ("transformer", json!({"block": {"kind": "transformer"}}), modules(&[1, 3], "all")),
        ("omni", json!({"feed_forward": experts("omni")}), modules(&[1, 2, 3], "all")),
        ("switch", json!({"feed_forward": experts("switch")}), modules(&[2, 3], "last")),
        (
            "sigma",
            json!({"feed_forward": {"kind": "sigma", "router": "omni", "groups": "3x4", "top_k": 2, "expert_dropout": 0.1}}),
            modules(&[1, 2, 3], "last"),
        ),
        ("strata", json!({"feed_forward": {"kind": "strata", "router": "switch", "strata": [2, 3]}}), modules(&[1, 2, 3], "all")),
    ];
    let pair = |(name, change, languages): (&'static str, Value, Value)| {
        let mut with = plain(&change);
        with["languages"] = languages;
        (name, config(plain(&change)), config(with))
    };
    all.into_iter().map(pair).collect()
}

fn model(config: &EncoderConfig, device: &Device) -> AsrModel {
    AsrModel::new(config, 11, 5, device).expect("a valid configuration")
}

/// Modules that change something: the first factors are drawn, too.
fn stir(tensors: &mut HostTensors) {
    let mut rng = SplitMix::new(77);
    for (name, tensor) in tensors.iter_mut().filter(|(name, _)| is_of_languages(name)) {
        let scale = if name.ends_with("flat") { 1.0 } else { 0.5 };
        tensor.values.iter_mut().for_each(|v| *v = scale * rng.next_normal());
    }
}

fn stirred(config: &EncoderConfig, device: &Device) -> AsrModel {
    let model = model(config, device);
    let mut tensors = weights::collect(&model);
    stir(&mut tensors);
    weights::apply(model, &tensors, Path::new("stirred")).expect("the same shapes")
}

const FRAMES: usize = 50;
const VALID: [usize; 2] = [50, 33];

fn features(config: &EncoderConfig) -> Vec<f32> {
    let mut rng = SplitMix::new(3);
    (0..2 * FRAMES * config.mels).map(|_| rng.next_normal()).collect()
}

/// Logits of a batch of two rows.
fn logits(model: &AsrModel, pass: &Pass) -> Vec<f32> {
    let config = model.encoder.config();
    let x = Tensor::<3>::from_data(TensorData::new(features(config), [2, FRAMES, config.mels]), &Device::flex());
    values(model.forward(x, &Lengths::new(VALID.to_vec(), FRAMES), pass).logits)
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_into_vec().expect("f32")
}

fn f32_pass(slot: Option<usize>) -> Pass {
    Pass::inference(Precision::F32).with_slot(slot)
}

#[track_caller]
fn same(what: &str, a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len(), "{what}: length");
    let largest = b.iter().fold(1e-3f32, |m, x| m.max(x.abs()));
    let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= SAME * largest, "{what}: {worst:e} of {largest}");
}

const SLOTS: [Option<usize>; 4] = [None, Some(0), Some(1), Some(2)];

#[test]
fn at_the_start_every_module_is_the_base_bit_for_bit() {
    for (name, without, with) in pairs() {
        let device = Device::flex();
        let (base, model) = (model(&without, &device), model(&with, &device));
        let mut tensors = weights::collect(&model);
        tensors.retain(|name, _| !is_of_languages(name));
        let of_base = weights::collect(&base);
        assert!(tensors.iter().eq(of_base.iter()), "{name}: the other weights are those of a model without modules");
        let expected = logits(&base, &f32_pass(None));
        for slot in SLOTS {
            assert_eq!(logits(&model, &f32_pass(slot)), expected, "{name} {slot:?}");
        }
    }
}

#[test]
fn modules_have_as_many_parameters_as_the_formula_says() {
    for (name, without, with) in pairs() {
        let device = Device::flex();
        let (base, model) = (model(&without, &device), model(&with, &device));
        let languages = with.languages.as_ref().expect("languages");
        let (slots, rank, d, m) = (MODULES.len() + 1, languages.rank, with.d_model, with.d_ff);
        // (L + 1) r (in + out) for each matrix.
        let feed_forward = 2 * slots * rank * (d + m);
        // Feed-forwards of a layer that have modules: the opening one, and the experts of the last place.
        let opening = usize::from(languages.places == LanguagePlaces::All && !name.starts_with("transformer"));
        let experts = |layer: usize| match name {
            "omni" | "switch" => [1, 3, 3][layer - 1],
            "sigma" => 4,
            "strata" => 2 + 3,
            _ => 1,
        };
        let all: usize = languages.layers.iter().map(|&layer| opening + experts(layer)).sum();
        let identification = (d + 1) * MODULES.len();
        assert_eq!(model.num_params() - base.num_params(), all * feed_forward + identification, "{name}");
        // On a step work one slot, and of its experts those that are chosen.
        let chosen = if name == "sigma" { 2 } else { 1 };
        let own: usize = languages.layers.iter().map(|&layer| opening + experts(layer).min(chosen)).sum();
        let active = |model: &AsrModel| model.num_params() - model.encoder.idle_params();
        assert_eq!(active(&model) - active(&base), own * feed_forward / slots + identification, "{name}: active");
    }
}

#[test]
fn a_change_is_the_product_of_its_factors() {
    let device = Device::flex();
    let mut init = Init::new(&device, 4);
    let sizes = LanguageSizes { slots: 4, rank: 3 };
    let mut dense = Dense::new(6, 10, &mut init).with_languages(sizes, &mut init);
    let matrices = dense.languages.as_mut().expect("modules");
    for low in [&mut matrices.up, &mut matrices.down] {
        let [slots, experts, d_input, rank] = low.flat.dims();
        low.flat = init.normal([slots, experts, d_input, rank], 1.0);
        low.vertical = init.normal([slots, experts, rank, low.vertical.dims()[3]], 1.0);
    }
    let matrices = dense.languages.as_ref().expect("modules");
    let x = Tensor::<3>::from_data(TensorData::new((0..30).map(|i| (i as f32 * 0.7).sin()).collect::<Vec<_>>(), [1, 5, 6]), &device);
    for slot in SLOTS {
        // y = x W + (x flat) vertical + b: never a matrix of the size of W.
        let at = slot.unwrap_or(3);
        let factored = |x: Tensor<2>, w: Tensor<2>, b: Tensor<1>, low: &omniscribe::model::moe::language::LowRank| {
            let factor = |f: Tensor<4>| f.narrow(0, at, 1).squeeze_dim::<3>(0).squeeze_dim::<2>(0);
            x.clone().matmul(w) + x.matmul(factor(low.flat.val())).matmul(factor(low.vertical.val())) + b.unsqueeze()
        };
        let hidden = factored(x.clone().squeeze_dim(0), dense.up.val(), dense.up_bias.val(), &matrices.up);
        let hidden = burn::tensor::activation::relu(hidden);
        let expected = factored(hidden, dense.down.val(), dense.down_bias.val(), &matrices.down);
        same("factored", &values(dense.forward(x.clone(), Activation::Relu, &f32_pass(slot))), &values(expected));
    }
    let outputs: Vec<_> = SLOTS.map(|slot| values(dense.forward(x.clone(), Activation::Relu, &f32_pass(slot)))).into();
    assert!((1..4).all(|i| outputs[i] != outputs[i - 1]), "slots differ");
}

fn batch(config: &EncoderConfig, group: usize) -> HostBatch {
    HostBatch {
        features: features(config),
        frames: FRAMES,
        lengths: VALID.to_vec(),
        targets: vec![vec![1, 2, 3], vec![4, 5]],
        seconds: 0.8,
        chunk: None,
        plan: BatchPlan { position: Position::default(), batches: 1, frames: FRAMES, group, rows: vec![] },
    }
}

fn objective(distillation: f64, identification: f64) -> Objective {
    Objective { blank: 0, loss: LossConfig::default(), languages: LanguageLoss { distillation, identification } }
}

/// Absolute sums of the gradient of every slot, over all factors of this name.
fn slot_gradients(model: &AsrModel, group: usize, factor: &str) -> Vec<f32> {
    let (gradients, _) = batch_gradients(
        model,
        &batch(model.encoder.config(), group),
        &objective(1.0, 0.1),
        || Pass::training(Precision::F32, 3),
        &Device::flex().autodiff(),
    );
    struct Visit<'a> {
        gradients: &'a burn::tensor::Gradients,
        names: weights::Names,
        factor: &'a str,
        sums: Vec<f32>,
    }
    impl burn::module::ModuleVisitor for Visit<'_> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.names.enter(name);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.names.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
            if !self.names.current().contains(".languages.") || !self.names.current().ends_with(self.factor) {
                return;
            }
            let Some(gradient) = param.val().grad(self.gradients) else { return };
            let slots = gradient.dims()[0];
            let values = values(gradient);
            self.sums.resize(slots, 0.0);
            for (sum, part) in self.sums.iter_mut().zip(values.chunks_exact(values.len() / slots)) {
                *sum += part.iter().map(|v| v.abs()).sum::<f32>();
            }
        }
    }
    let mut visit = Visit { gradients: &gradients, names: Default::default(), factor, sums: Vec::new() };
    model.visit(&mut visit);
    visit.sums
}

#[test]
fn a_batch_trains_its_own_module_and_the_shared_one_alone() {
    for (name, _, with) in pairs() {
        let model = stirred(&with, &Device::flex().autodiff());
        for group in 0..4 {
            for factor in ["flat", "vertical"] {
                let trained: Vec<usize> =
                    slot_gradients(&model, group, factor).iter().enumerate().filter(|(_, g)| **g != 0.0).map(|(slot, _)| slot).collect();
                let expected = if group == 3 { vec![3] } else { vec![group, 3] };
                assert_eq!(trained, expected, "{name} {factor}");
            }
        }
    }
}

#[test]
fn a_loss_of_two_passes_is_their_mean_and_what_is_between_them() {
    let (_, _, with) = pairs().remove(0);
    let device = Device::flex().autodiff();
    let pass = || Pass::training(Precision::F32, 3);
    let report = |model: &AsrModel, group| batch_gradients(model, &batch(&with, group), &objective(1.0, 0.1), pass, &device).1;
    let fresh = model(&with, &device);
    let (own, shared) = (report(&fresh, 1), report(&fresh, 3));
    assert_eq!(own.languages.divergence, 0.0, "modules that are equal, with the same dropout");
    assert_eq!((own.ctc, own.tokens), (shared.ctc, shared.tokens));
    assert_eq!((shared.languages.steps, own.languages.steps, own.languages.utterances), (0, 13 + 9, 2));
    let stirred = stirred(&with, &device);
    let own = report(&stirred, 1);
    assert!(own.languages.divergence > 0.0);
    // What two passes give one by one.
    let ctc = |slot| {
        let output = stirred.forward(
            Tensor::from_data(TensorData::new(features(&with), [2, FRAMES, with.mels]), &device),
            &Lengths::new(VALID.to_vec(), FRAMES),
            &pass().with_slot(slot),
        );
        omniscribe::train::step::loss(output, &batch(&with, 1).targets, 0, &LossConfig::default()).1.ctc
    };
    assert_eq!(own.ctc, 0.5 * (ctc(Some(1)) + ctc(None)));
    assert_eq!(report(&stirred, 3).ctc, ctc(None));

    // Distillation alone draws the passes together.
    let objective = Objective { loss: LossConfig { intermediate: 0.0, ..LossConfig::default() }, ..objective(50.0, 0.0) };
    let mut model = stirred;
    let mut optimizer = Optimizer::new(Default::default(), &model);
    let mut course = Vec::new();
    for _ in 0..12 {
        let (gradients, report) = batch_gradients(&model, &batch(&with, 1), &objective, || Pass::inference(Precision::F32), &device);
        optimizer.accumulate(&model, &gradients);
        model = optimizer.step(model, 1e-2, 1.0).0;
        course.push(report.languages.divergence);
    }
    assert!(course[11] < 0.5 * course[0], "{course:?}");
}

#[test]
fn a_model_of_one_module_is_a_pass_with_it() {
    for (name, without, with) in pairs() {
        let model = stirred(&with, &Device::flex());
        let outputs: Vec<_> = SLOTS.map(|slot| logits(&model, &f32_pass(slot))).into();
        assert!((1..4).all(|i| outputs[i] != outputs[i - 1]), "{name}: modules differ");
        for (slot, expected) in SLOTS.iter().zip(&outputs) {
            let folded = model.clone().folded(*slot);
            assert_eq!(folded.encoder.config(), &without, "{name}");
            assert_eq!(weights::shapes(&folded), weights::shapes(&self::model(&without, &Device::flex())), "{name}");
            assert_eq!(&logits(&folded, &f32_pass(None)), expected, "{name} {slot:?}");
        }
    }
}

#[test]
fn with_modules_a_row_alone_is_the_row_in_a_batch_and_a_stream_is_a_pass() {
    for (name, _, with) in pairs() {
        let model = stirred(&with, &Device::flex());
        let all = features(&with);
        for slot in SLOTS {
            let together = logits(&model, &f32_pass(slot));
            let row = &all[FRAMES * with.mels..][..VALID[1] * with.mels];
            let alone = Tensor::<3>::from_data(TensorData::new(row.to_vec(), [1, VALID[1], with.mels]), &Device::flex());
            let alone = values(model.forward(alone, &Lengths::full(1, VALID[1]), &f32_pass(slot)).logits);
            same(&format!("{name} {slot:?} alone"), &alone, &together[13 * 11..][..9 * 11]);

            let chunk = with.context.chunk(2).expect("chunks of 2 steps");
            let offline = logits(&model, &f32_pass(slot).with_chunk(Some(chunk)));
            let one = model.clone().folded(slot);
            let mut stream = AsrStream::new(&one, chunk, Precision::F32).expect("streams");
            let mut heard = Vec::new();
            for piece in all[..FRAMES * with.mels].chunks(7 * with.mels) {
                heard.extend(stream.step(&one, piece).map(|output| values(output.logits)).unwrap_or_default());
            }
            heard.extend(stream.flush(&one).map(|output| values(output.logits)).unwrap_or_default());
            same(&format!("{name} {slot:?} stream"), &heard, &offline[..13 * 11]);
        }
    }
}

#[test]
fn impossible_modules_are_refused() {
    let refuse = |change: &dyn Fn(&mut Value), says: &str| {
        let mut value = plain(&json!({"languages": modules(&[1], "all")}));
        change(&mut value);
        let error = match serde_json::from_value::<EncoderConfig>(value) {
            Ok(config) => config.validate().expect_err(says).to_string(),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(says), "{error:?} should say {says:?}");
    };
    refuse(&|v| v["languages"]["modules"] = json!([]), "encoder.languages.modules: 0 of them");
    refuse(&|v| v["languages"]["modules"] = json!(["de", "fr", "de"]), "encoder.languages.modules[2] = \"de\": stands twice");
    refuse(&|v| v["languages"]["modules"] = json!(["de", " "]), "encoder.languages.modules[1]: an empty name");
    for name in ["shared", "auto", "manifest"] {
        refuse(&|v| v["languages"]["modules"] = json!([name]), "this name has a meaning of its own");
    }
    refuse(&|v| v["languages"]["rank"] = json!(0), "encoder.languages.rank = 0: must lie in 1..=16");
    refuse(&|v| v["languages"]["rank"] = json!(17), "encoder.languages.rank = 17");
    for layers in [json!([]), json!([0]), json!([4]), json!([2, 1]), json!([1, 1])] {
        refuse(&|v| v["languages"]["layers"] = layers.clone(), "must rise and lie in 1..=3");
    }
    refuse(&|v| v["languages"]["field"] = json!("speaker"), "unknown variant `speaker`");
    refuse(&|v| v["languages"]["extra"] = json!(1), "unknown field `extra`");
    let memory = json!({"kind": "memory", "layers": [1], "subkeys": 5, "query": 6, "heads": 2, "top_k": 2, "weighting": "softmax"});
    refuse(&|v| v["feed_forward"] = memory.clone(), "layer 1 is a memory");
}

fn asset(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets").join(name)
}

/// A folder with a random model with modules in `model`.
fn with_model() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("folder");
    let (_, _, with) = pairs().remove(3);
    random_model(&folder.path().join("model"), &with, 3, stir);
    folder
}

#[test]
fn models_are_exported_with_all_modules_or_with_one_in_the_weights() {
    let folder = with_model();
    let place = |name: &str| folder.path().join(name);
    let opened = ModelDirectory::open(&place("model")).expect("opens");
    let model = opened.model(&Device::flex()).expect("loads");
    for (name, slot) in [("shared", None), ("de", Some(0)), ("it", Some(2))] {
        languages::export(&opened, name, &place(name), Storage::F32).expect("exports");
        let exported = ModelDirectory::open(&place(name)).expect("opens");
        assert_eq!(exported.config.encoder.languages, None);
        let exported = exported.model(&Device::flex()).expect("loads");
        assert_eq!(logits(&exported, &f32_pass(None)), logits(&model, &f32_pass(slot)), "{name}");
    }
    for (model, name, says) in
        [("model", "pl", "there are shared and modules for de, fr, it"), ("shared", "de", "this model has no modules")]
    {
        let error = languages::export(&ModelDirectory::open(&place(model)).expect("opens"), name, &place("none"), Storage::F32);
        let error = error.expect_err(says);
        assert!(matches!(&error, Error::Config { .. }) && error.to_string().contains(says), "{error}");
    }
    let convert = |arguments: &[&str]| {
        let mut command = program();
        command.args(["model", "convert"]).args([place("model"), place("converted")]).args(arguments);
        assert_eq!(ran(&mut command).code, Some(0));
        ModelDirectory::open(&place("converted")).expect("opens")
    };
    let all = convert(&[]);
    assert_eq!(all.config, opened.config);
    assert_eq!(logits(&all.model(&Device::flex()).expect("loads"), &f32_pass(Some(1))), logits(&model, &f32_pass(Some(1))));
    let one = convert(&["--language", "fr"]);
    assert_eq!(logits(&one.model(&Device::flex()).expect("loads"), &f32_pass(None)), logits(&model, &f32_pass(Some(1))));
}

/// Texts and languages of the JSON that `transcribe` writes of some recordings.
fn transcribed(model: &Path, arguments: &[&str], files: &[PathBuf]) -> (Vec<(String, Value)>, String) {
    let mut command = program();
    command.args(["transcribe", "--decoder", "greedy", "--dtype", "f32", "-f", "json", "--model"]).arg(model).args(arguments).args(files);
    let ran = ran(&mut command);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let object = |line: &str| serde_json::from_str::<Value>(line).expect("JSON");
    (ran.out.lines().map(object).map(|o| (o["text"].as_str().expect("text").to_string(), o["language"].clone())).collect(), ran.err)
}

#[test]
fn a_language_picks_its_module_and_an_unknown_one_the_shared() {
    let folder = with_model();
    let place = |name: &str| folder.path().join(name);
    let opened = ModelDirectory::open(&place("model")).expect("opens");
    let files = [asset("digits.wav")];
    let mut texts = Vec::new();
    for (name, language) in [("shared", Value::Null), ("de", json!("de")), ("fr", json!("fr"))] {
        languages::export(&opened, name, &place(name), Storage::F32).expect("exports");
        let (expected, _) = transcribed(&place(name), &[], &files);
        let (heard, err) = transcribed(&place("model"), &["--language", name], &files);
        assert_eq!((&heard[0].0, &heard[0].1, err.as_str()), (&expected[0].0, &language, ""), "{name}");
        texts.push(heard[0].0.clone());
    }
    assert!(texts[0] != texts[1] && texts[1] != texts[2], "{texts:?}");
    assert_eq!(transcribed(&place("model"), &[], &files).0, [(texts[0].clone(), Value::Null)]);
    let (heard, err) = transcribed(&place("model"), &["--language", "pl"], &files);
    assert_eq!(heard, [(texts[0].clone(), json!("pl"))]);
    assert_eq!(err, "warning: --language pl: the module that all share is used, there are modules for de, fr, it\n");
    let (heard, err) = transcribed(&place("shared"), &["--language", "de"], &files);
    assert_eq!(heard, [(texts[0].clone(), json!("de"))]);
    assert_eq!(err, "warning: --language de: random has no modules for languages, it hears all speech alike\n");

    let listened = |language: &str| {
        let mut command = program();
        command.args(["listen", "--json", "--chunk-ms", "160", "--decoder", "greedy", "--file"]).arg(asset("digits.wav"));
        ran(command.arg("--model").arg(place("model")).args(["--language", language]))
    };
    assert!(listened("de").out != listened("fr").out && listened("de").code == Some(0), "{}", listened("de").err);
    let refused = listened("auto");
    assert_eq!((refused.code, refused.out.as_str()), (Some(1), ""));
    assert!(refused.err.starts_with("error: --language: auto: a stream is heard before its language is known"), "{}", refused.err);
}

#[test]
fn languages_are_identified_recording_by_recording_whoever_else_is_in_the_batch() {
    let folder = with_model();
    let model = folder.path().join("model");
    let all = ["digits.wav", "river.wav", "command.flac", "book.mp3"].map(asset);
    let (together, _) = transcribed(&model, &["--language", "auto"], &all);
    for (file, heard) in all.iter().zip(&together) {
        let (alone, _) = transcribed(&model, &["--language", "auto"], std::slice::from_ref(file));
        assert_eq!(&alone[0], heard, "{}", file.display());
        // What its own module hears.
        let language = heard.1.as_str().expect("a language is identified");
        assert_eq!(transcribed(&model, &["--language", language], std::slice::from_ref(file)).0[0], *heard);
    }
    let shared = folder.path().join("shared");
    languages::export(&ModelDirectory::open(&model).expect("opens"), "shared", &shared, Storage::F32).expect("exports");
    let error = Transcriber::open(&shared, Device::flex(), Precision::F32).expect("opens").with_identification().expect_err("no modules");
    assert!(error.to_string().contains("no modules among which to identify"), "{error}");
}

#[test]
fn a_manifest_says_whose_an_utterance_is() {
    let folder = with_model();
    let place = |name: &str| folder.path().join(name);
    let line = |file: &str, lang: &str| {
        let audio = asset(file);
        json!({"audio_filepath": audio, "duration": 5.0, "text": "one two", "lang": lang}).to_string() + "\n"
    };
    std::fs::write(place("set.jsonl"), line("digits.wav", "fr") + &line("river.wav", "de") + &line("command.flac", "pl"))
        .expect("manifest");
    let bench = |model: &str, language: Option<&str>, out: &str| {
        let mut command = program();
        command.args(["bench", "-q", "--decoder", "greedy", "--dtype", "f32", "--model"]).arg(place(model));
        command.args(language.iter().flat_map(|l| ["--language", l])).arg(place("set.jsonl")).arg("-o").arg(place(out));
        ran(&mut command)
    };
    let texts = |out: &str| {
        let journal = std::fs::read_to_string(place(out).with_extension("utterances.jsonl")).expect("journal");
        let mut lines: Vec<(String, String)> = journal
            .lines()
            .map(|l| serde_json::from_str::<Value>(l).expect("JSON"))
            .filter(|l| l["id"].is_string())
            .map(|l| (l["id"].as_str().expect("id").into(), l["hypothesis"].as_str().expect("hypothesis").into()))
            .collect();
        lines.sort();
        lines
    };
    for (language, out) in [(Some("manifest"), "own.json"), (Some("fr"), "fr.json"), (Some("de"), "de.json"), (None, "shared.json")] {
        let ran = bench("model", language, out);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
    }
    let [own, fr, de, shared] = ["own.json", "fr.json", "de.json", "shared.json"].map(texts);
    // In the order of ids: command (pl: no module), digits (fr), river (de).
    assert_eq!(own, [shared[0].clone(), fr[1].clone(), de[2].clone()]);
    assert!(fr[1] != shared[1] && de[2] != shared[2]);
    let result: Value = serde_json::from_str(&std::fs::read_to_string(place("own.json")).expect("result")).expect("JSON");
    assert_eq!(result["provenance"]["decoder"]["language"], "manifest");

    languages::export(&ModelDirectory::open(&place("model")).expect("opens"), "shared", &place("plain"), Storage::F32).expect("exports");
    let refused = bench("plain", Some("manifest"), "none.json");
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("--language: manifest: random has no modules"), "{}", refused.err);
}

#[test]
fn what_cannot_have_modules_says_how_to_go_without() {
    let folder = with_model();
    let place = |name: &str| folder.path().join(name);
    let model = ModelDirectory::open(&place("model")).expect("opens");
    let (_, _, dense) = pairs().remove(0);
    random_model(&place("dense"), &dense, 3, |_| ());
    let refused: [&[&str]; 3] = [
        &["compress", "model", "--keep", "0.5", "-o", "out"],
        &["transcribe", "--expert-memory", "1MiB", "--model", "model", "digits.wav"],
        &["model", "upcycle", "dense", "out", "--experts", "2"],
    ];
    for arguments in refused {
        let ran = ran(program().args(arguments).current_dir(folder.path()));
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{arguments:?}");
        assert!(ran.err.contains("`omniscribe model convert --language shared` puts one into the weights"), "{}", ran.err);
    }
    languages::export(&model, "shared", &place("shared"), Storage::F32).expect("exports");
    assert_eq!(ran(program().args(["compress", "shared", "--keep", "0.5", "-o", "out"]).current_dir(folder.path())).code, Some(0));
}

/// Four clips in two languages and one without.
fn tones() -> Tones {
    let tones = Tones::new();
    let of =
        |clip: &str, seconds: f64, text: &str, lang: &str| line(clip, seconds, text).replace("}\n", &format!(",\"lang\":\"{lang}\"}}\n"));
    let text = std::fs::read_to_string(tones.path("train.jsonl")).expect("manifest");
    let langs = ["de", "fr", "de", "nl"];
    let lines: String = text
        .lines()
        .enumerate()
        .map(|(i, l)| {
            let value: Value = serde_json::from_str(l).expect("JSON");
            of(&format!("{i}.wav"), value["duration"].as_f64().expect("s"), value["text"].as_str().expect("text"), langs[i % 4])
        })
        .collect();
    tones.write("train.jsonl", &lines);
    tones
}

const LANGUAGES: &str = "encoder.languages={field=\"lang\",modules=[\"de\",\"fr\"],rank=2,layers=[1],places=\"all\"}";

#[test]
fn a_run_trains_modules_saves_them_and_starts_from_a_base_without_them() {
    let tones = tones();
    let train = |name: &str, changes: &[&str]| run(&tones.config(name, changes)?, &Device::flex());
    train("base", &["control.storage=f32"]).expect("trains");
    train("run", &[LANGUAGES, "control.storage=f32"]).expect("trains");
    let lines = journal::read(&tones.path("run").join("log.jsonl")).expect("log");
    let trained = |l: &Line| if let Line::Train { divergence, identified, .. } = l { Some((*divergence, *identified)) } else { None };
    let course: Vec<_> = lines.iter().filter_map(trained).collect();
    assert!(course.iter().any(|(d, i)| d.is_some_and(|d| d > 0.0) && i.is_some_and(|i| i > 0.0)), "{course:?}");
    assert!(course.iter().any(|(d, _)| d.is_none()), "a clip in Dutch has no module");
    let saved = ModelDirectory::open(&tones.path("run").join("model")).expect("opens");
    assert_eq!(saved.config.encoder.languages.as_ref().map(|l| l.modules.clone()), Some(vec!["de".to_string(), "fr".to_string()]));
    assert!(saved.model(&Device::flex()).is_ok());

    // The start of a run from a base is the base.
    train("start", &[LANGUAGES, "init=\"FOLDER/base/model\"", "control.audio_hours=0", "optimizer.average=0", "control.storage=f32"])
        .expect("starts");
    let load = |name: &str| ModelDirectory::open(&tones.path(name).join("model")).expect("opens").model(&Device::flex()).expect("loads");
    let (base, start) = (load("base"), load("start"));
    let expected = logits(&base, &f32_pass(None));
    for slot in [None, Some(0), Some(1)] {
        assert_eq!(logits(&start, &f32_pass(slot)), expected);
    }

    let error = train("bad", &[&LANGUAGES.replace("\"fr\"", "\"sv\"")]).expect_err("nobody speaks it").to_string();
    assert!(error.contains("no utterance to train on has lang = \"sv\""), "{error}");
    let error = train("bad", &["languages.distillation=1.0"]).expect_err("no languages").to_string();
    assert!(error.contains("languages: the encoder has none (encoder.languages)"), "{error}");
    let error = train("bad", &[LANGUAGES, "languages.distillation=-1.0"]).expect_err("negative").to_string();
    assert!(error.contains("languages.distillation = -1"), "{error}");
}

#[test]
fn no_dead_knob_in_what_trains_modules() {
    let tones = tones();
    let shows = |changes: &[&str]| {
        let _ = std::fs::remove_dir_all(tones.path("run"));
        let changes = [&[LANGUAGES, "control.audio_hours=0.004", "control.storage=f32"], changes].concat();
        run(&tones.config("run", &changes).expect("run"), &Device::flex()).expect("trains");
        std::fs::read(tones.path("run").join("model/model.safetensors")).expect("model")
    };
    let before = shows(&[]);
    assert!(before == shows(&[]), "the same run twice gives the same model");
    for change in [
        "languages.distillation=3.0",
        "languages.identification=0.5",
        "encoder.languages.rank=3",
        "encoder.languages.layers=[2]",
        "encoder.languages.places=last",
        "encoder.languages.modules=[\"fr\",\"de\"]",
        "encoder.languages.modules=[\"de\"]",
    ] {
        assert!(before != shows(&[change]), "{change}");
    }
    // The same clips, told apart by another field.
    let text = std::fs::read_to_string(tones.path("train.jsonl")).expect("manifest");
    tones.write(
        "train.jsonl",
        &text
            .replace("\"lang\":\"fr\"", "\"lang\":\"fr\",\"accent\":\"de\"")
            .replace("\"lang\":\"nl\"", "\"lang\":\"nl\",\"accent\":\"fr\""),
    );
    assert!(before == shows(&[]) && before != shows(&["encoder.languages.field=accent"]), "encoder.languages.field");
}
