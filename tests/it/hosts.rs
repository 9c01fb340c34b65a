//! Published checkpoints, against the activations, losses and texts of their own implementations.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use omniscribe::checkpoint::layout::Arranged;
use omniscribe::checkpoint::weights::{Names, Source};
use omniscribe::checkpoint::{ModelDirectory, Opened, WaveDirectory};
use omniscribe::decode::ctc::greedy;
use omniscribe::features::{FrontEnd, WaveFrontEnd};
use omniscribe::model::asr::{AsrModel, AsrOutput};
use omniscribe::model::feed_forward::Lent;
use omniscribe::model::lengths::Lengths;
use omniscribe::model::ops::ctc::ctc_loss;
use omniscribe::model::ops::linear::linear;
use omniscribe::model::pass::Pass;
use omniscribe::model::position::relative_sinusoids;
use omniscribe::text::Tokenizer;
use omniscribe::{Precision, Transcriber};

use crate::oracle::{self, Golden, assert_close};

/// f32 logits and activations against f32 of another implementation, and f64 logits: the oracles' README.
const PARAKEET: f64 = 1e-4;
/// Batch against single, in one implementation: its README, 1e-5.
const BATCH: f64 = 1e-5;
/// Gradients, as a share of the largest of their tensor.
const GRADIENT: f64 = 1e-3;
/// wav2vec 2.0, against `single*`.
const WAVE: f64 = 2e-4;
/// Ids must be equal where the two best logits are further apart.
const MARGIN: f64 = 1e-3;

fn exact() -> Pass {
    Pass::inference(Precision::F32)
}

pub fn folder(relative: &str) -> PathBuf {
    oracle::find(&format!("{relative}/config.json")).parent().expect("a folder").to_path_buf()
}

/// Copies every file of a folder (not of its subfolders) to where it can be changed.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap).filter(|e| e.file_type().unwrap().is_file()) {
        let target = to.join(entry.file_name());
        std::fs::write(&target, std::fs::read(entry.path()).unwrap()).unwrap();
    }
}

fn values<const D: usize>(t: &Tensor<D>) -> Vec<f64> {
    t.to_data().try_to_vec::<f32>().unwrap().into_iter().map(f64::from).collect()
}

fn tensor<const D: usize>(golden: &Golden, device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(golden.f32(), golden.shape.clone()), device)
}

/// `[batch, steps, width]` of valid steps only, one utterance after the other.
fn valid(all: &[f64], [batch, steps, width]: [usize; 3], lengths: &[usize]) -> Vec<f64> {
    (0..batch).flat_map(|b| all[b * steps * width..][..lengths[b] * width].to_vec()).collect()
}

/// Swaps the last two dimensions of `[batch, channels, steps]`.
fn steps_first(golden: &Golden) -> Golden {
    let [batch, channels, steps] = golden.shape[..] else { panic!("three dimensions") };
    let at = |b: usize, t: usize, c: usize| golden.values[(b * channels + c) * steps + t];
    let all = (0..batch).flat_map(|b| (0..steps).flat_map(move |t| (0..channels).map(move |c| at(b, t, c))));
    Golden { values: all.collect(), shape: vec![batch, steps, channels] }
}

fn argmax(logits: &[f64]) -> usize {
    (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best })
}

/// Ids of every step are those of the golden logits, where these are sure.
fn same_ids(what: &str, ours: &[f64], golden: &[f64], vocab: usize) -> usize {
    let mut compared = 0;
    for (step, (a, b)) in ours.chunks_exact(vocab).zip(golden.chunks_exact(vocab)).enumerate() {
        let mut sorted = b.to_vec();
        sorted.sort_by(|x, y| y.total_cmp(x));
        if sorted[0] - sorted[1] > MARGIN {
            assert_eq!(argmax(a), argmax(b), "{what}: step {step}");
            compared += 1;
        }
    }
    compared
}

mod parakeet {
    use super::*;

    const MODELS: [&str; 2] = ["ctc_bias_scale", "ctc_nobias_x4"];

    struct Case {
        directory: ModelDirectory,
        io: BTreeMap<String, Golden>,
        device: Device,
        valid: Vec<usize>,
    }

    fn case(name: &str) -> Case {
        let relative = format!("02_parakeet/{name}");
        let directory = ModelDirectory::open(&folder(&relative)).unwrap();
        let io = oracle::tensors(&format!("{relative}/io.safetensors"));
        let mask = &io["attention_mask"];
        let valid = mask.values.chunks_exact(mask.shape[1]).map(|row| row.iter().sum::<f64>() as usize).collect();
        Case { directory, io, device: Device::flex(), valid }
    }

    impl Case {
        fn run(&self, model: &AsrModel, device: &Device) -> AsrOutput {
            let features: Tensor<3> = tensor(&self.io["input_features"], device);
            let lengths = Lengths::new(self.valid.clone(), features.dims()[1]);
            model.forward(features, &lengths, &exact())
        }

        fn check_logits(&self, what: &str, output: &AsrOutput, golden: &str) {
            let golden = &self.io[golden];
            let shape = output.logits.dims();
            assert_eq!(golden.shape, shape, "{what}");
            let mask = &self.io["output_mask"];
            let steps: Vec<usize> = mask.values.chunks_exact(mask.shape[1]).map(|row| row.iter().sum::<f64>() as usize).collect();
            assert_eq!(output.lengths.valid(), steps, "{what}");
            let (ours, theirs) = (valid(&values(&output.logits), shape, &steps), valid(&golden.values, shape, &steps));
            assert_close(what, &ours, &theirs, PARAKEET);
            assert!(same_ids(what, &ours, &theirs, shape[2]) > ours.len() / shape[2] / 2, "{what}: most steps are sure");
        }
    }

    #[test]
    fn oracle_features_logits_ids_and_text() {
        for name in MODELS {
            let case = case(name);
            let model = case.directory.model(&case.device).unwrap();
            case.check_logits(name, &case.run(&model, &case.device), "logits");

            let expected = oracle::json(&format!("02_parakeet/{name}/expected.json"));
            let front_end = FrontEnd::new(case.directory.config.front_end.clone()).unwrap();
            let tokenizer = &case.directory.tokenizer;
            assert_eq!(u64::from(tokenizer.blank()), expected["blank_id"]);
            for i in 0..3 {
                let mut features = front_end.compute(&case.io[&format!("wave{i}")].f32());
                features.truncate(case.valid[i]);
                let mels = features.mels;
                let golden = &case.io["input_features"];
                let row = &golden.values[i * golden.shape[1] * mels..][..case.valid[i] * mels];
                let ours: Vec<f64> = features.values.iter().map(|&v| f64::from(v)).collect();
                assert_close(&format!("{name}: features {i}"), &ours, row, 5e-4);

                let alone = Tensor::<3>::from_data(TensorData::new(features.values, [1, case.valid[i], mels]), &case.device);
                let output = model.forward(alone, &Lengths::full(1, case.valid[i]), &exact());
                let ours = values(&output.logits);
                let golden = &case.io[&format!("single{i}_logits_f64")];
                assert_close(&format!("{name}: single {i}"), &ours, &golden.values, PARAKEET);
                let vocab = output.logits.dims()[2];
                let log_probs: Vec<f32> = ours.iter().map(|&v| v as f32).collect();
                let tokens = greedy(&log_probs, ours.len() / vocab, vocab, tokenizer.blank()).tokens;
                let ids: Vec<u32> = serde_json::from_value(expected["collapsed_ids"][i].clone()).unwrap();
                assert_eq!(tokens, ids, "{name}: ids {i}");
                assert_eq!(tokenizer.decode(&tokens), expected["greedy_text"][i].as_str().unwrap().trim_start(), "{name}: text {i}");
            }
        }
    }

    #[test]
    fn oracle_activations() {
        for name in MODELS {
            let case = case(name);
            let golden = oracle::tensors(&format!("02_parakeet/{name}/activations.safetensors"));
            let model = case.directory.model(&case.device).unwrap();
            let features: Tensor<3> = tensor(&case.io["input_features"], &case.device);
            let lengths = Lengths::new(case.valid.clone(), features.dims()[1]);
            let rule = &case.directory.config.encoder.subsampling;
            let steps = lengths.map(|n| rule.output_len(n));
            let mut compared = 0;
            let mut check = |what: &str, ours: &Tensor<3>, key: &str| {
                let Some(golden) = golden.get(&format!("batch_f32.{key}")) else { panic!("{name}: no {key}") };
                let golden = if golden.shape[1..] == ours.dims()[1..] { golden.clone() } else { steps_first(golden) };
                assert_eq!(golden.shape, ours.dims(), "{name}: {key}");
                let shape = ours.dims();
                let (a, b) = (valid(&values(ours), shape, steps.valid()), valid(&golden.values, shape, steps.valid()));
                // Convolution outputs of padded neighbours differ; valid steps must not.
                assert_close(&format!("{name}: {what}"), &a, &b, PARAKEET);
                compared += 1;
            };
            let encoder = &model.encoder;
            let pass = exact();
            let x = encoder.subsampling.forward(features, &lengths, &pass);
            check("subsampling", &x, "subsampling_out");

            let positions = values(&relative_sinusoids(steps.padded(), x.dims()[2], &case.device));
            assert_close(&format!("{name}: positions"), &positions, &golden["batch_f32.pos_emb"].values, PARAKEET);

            let scaled = if case.directory.config.encoder.scale_input { x.mul_scalar((encoder.config().d_model as f64).sqrt()) } else { x };
            let block = &encoder.blocks[0];
            let opening = block.opening.as_ref().unwrap();
            let normed = omniscribe::model::ops::norm::layer_norm(scaled.clone(), &opening.norm);
            check("norm_feed_forward1", &normed, "layer0.norm_feed_forward1");
            let silu = omniscribe::kernel::activation::Activation::Silu;
            let fed = opening.feed_forward.forward(normed, silu, &pass);
            check("feed_forward1", &fed, "layer0.feed_forward1");
            let x = scaled.clone() + fed.mul_scalar(0.5);
            let normed = omniscribe::model::ops::norm::layer_norm(x.clone(), &block.attention_norm);
            check("norm_self_att", &normed, "layer0.norm_self_att");
            let attended = block.attention.forward(normed, &steps, &pass);
            check("self_attn", &attended, "layer0.self_attn");
            let x = x + attended;
            let convolution = block.convolution.as_ref().unwrap();
            let normed = omniscribe::model::ops::norm::layer_norm(x.clone(), &convolution.norm);
            check("pointwise_conv1", &linear(normed.clone(), &convolution.module.pointwise_in, &pass), "layer0.conv.pointwise_conv1");
            let convolved = convolution.module.forward(normed, &steps, &pass);
            check("conv", &convolved, "layer0.conv");
            let x = x + convolved;
            let normed = omniscribe::model::ops::norm::layer_norm(x, &block.feed_forward_norm);
            let (fed, _) = block.feed_forward.forward(normed, &steps, Lent::default(), silu, &pass);
            check("feed_forward2", &fed, "layer0.feed_forward2");

            let mut outputs = Vec::new();
            let all: Tensor<3> = tensor(&case.io["input_features"], &case.device);
            encoder.forward_with(all, &lengths, &pass, |layer, x| {
                outputs.push((layer, x.clone()));
                x
            });
            for (layer, x) in outputs {
                check("layer", &x, &format!("layer{}_out", layer - 1));
            }
            assert!(compared >= 9, "{name}: {compared}");
        }
    }

    #[test]
    fn oracle_striding_convolutions() {
        use burn::tensor::activation::relu;
        use omniscribe::model::subsampling::{Kernel, Subsampling};
        for name in MODELS {
            let case = case(name);
            let golden = oracle::tensors(&format!("02_parakeet/{name}/activations.safetensors"));
            let model = case.directory.model(&case.device).unwrap();
            let Subsampling::Convolution(stage) = &model.encoder.subsampling else { panic!("{name}") };
            let features: Tensor<3> = tensor(&case.io["input_features"], &case.device);
            let [_, frames, mels] = features.dims();
            // The third utterance, in the padding of the batch, as it was recorded: raw outputs of valid positions.
            let mut x = features.slice([2..3, 0..frames, 0..mels]).reshape([1, 1, frames, mels]);
            let mut n = case.valid[2];
            let mut check = |key: &str, kernel: &Kernel, x: Tensor<4>, stride: usize, groups: usize| {
                let y = kernel.forward(x, stride, usize::from(stride == 2), groups);
                n = if stride == 2 { n.div_ceil(2) } else { n };
                let [_, channels, time, bands] = y.dims();
                let golden = &golden[&format!("batch_f32.{key}")];
                assert_eq!(golden.shape, [1, channels, time, bands], "{name}: {key}");
                let pick =
                    |all: &[f64]| -> Vec<f64> { (0..channels).flat_map(|c| all[c * time * bands..][..n * bands].to_vec()).collect() };
                assert_close(&format!("{name}: {key}"), &pick(&values(&y)), &pick(&golden.values), PARAKEET);
                let live = Lengths::new(vec![n], time).live(&case.device).reshape([1, 1, time, 1]);
                y * live
            };
            let channels = stage.first.weight.dims()[0];
            x = relu(check("sub_conv0", &stage.first, x, 2, 1));
            for (i, pair) in stage.rest.iter().enumerate() {
                x = check(&format!("sub_conv{}", 3 * i + 2), &pair.depthwise, x, 2, channels);
                x = relu(check(&format!("sub_conv{}", 3 * i + 3), &pair.pointwise, x, 1, 1));
            }
        }
    }

    #[test]
    fn oracle_storage_forms() {
        for name in MODELS {
            let case = case(name);
            let temporary = tempfile::tempdir().unwrap();
            copy_folder(&folder(&format!("02_parakeet/{name}")), temporary.path());
            let swap = |from: &str| {
                std::fs::remove_file(temporary.path().join("model.safetensors")).ok();
                copy_folder(&folder(&format!("02_parakeet/{name}/{from}")), temporary.path());
                let directory = ModelDirectory::open(temporary.path()).unwrap();
                directory.model(&case.device).unwrap()
            };
            let bf16 = swap("bf16");
            case.check_logits(&format!("{name}: bf16"), &case.run(&bf16, &case.device), "bf16_weights_f32_compute_logits");
            if name == "ctc_nobias_x4" {
                let sharded = swap("sharded");
                case.check_logits(&format!("{name}: sharded"), &case.run(&sharded, &case.device), "logits");
            }
        }
    }

    #[test]
    fn oracle_batch_equals_single() {
        for name in MODELS {
            let case = case(name);
            let model = case.directory.model(&case.device).unwrap();
            let output = case.run(&model, &case.device);
            let [_, steps, vocab] = output.logits.dims();
            let all = values(&output.logits);
            let golden = &case.io["input_features"];
            let mels = golden.shape[2];
            for (i, &frames) in case.valid.iter().enumerate() {
                let row: Vec<f32> = golden.values[i * golden.shape[1] * mels..][..frames * mels].iter().map(|&v| v as f32).collect();
                let alone = Tensor::<3>::from_data(TensorData::new(row, [1, frames, mels]), &case.device);
                let single = values(&model.forward(alone, &Lengths::full(1, frames), &exact()).logits);
                assert_close(&format!("{name}: {i}"), &all[i * steps * vocab..][..single.len()], &single, BATCH);
            }
        }
    }

    /// Gradients of every parameter by name.
    struct Visit<'a>(Names, &'a Gradients, BTreeMap<String, Vec<f64>>);
    impl ModuleVisitor for Visit<'_> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.0.enter(name);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.0.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = param.val().grad(self.1) {
                self.2.insert(self.0.current(), values(&gradient));
            }
        }
    }

    #[test]
    fn oracle_loss_and_gradients() {
        for name in MODELS {
            let case = case(name);
            let device = case.device.clone().autodiff();
            let model = case.directory.model(&device).unwrap();
            let golden = &case.io["input_features"];
            let features = tensor::<3>(golden, &device).require_grad();
            let lengths = Lengths::new(case.valid.clone(), golden.shape[1]);
            let output = model.forward(features.clone(), &lengths, &exact());
            let labels = &case.io["labels"];
            let counts = case.io["label_lengths"].indices();
            let targets: Vec<Vec<u32>> = labels
                .values
                .chunks_exact(labels.shape[1])
                .zip(&counts)
                .map(|(row, &n)| row[..n].iter().map(|&v| v as u32).collect())
                .collect();
            let blank = case.directory.tokenizer.blank() as usize;
            // The mean over utterances of the loss for each of its labels.
            let [batch, steps, vocab] = output.logits.dims();
            let expected = oracle::json(&format!("02_parakeet/{name}/expected.json"));
            let mut loss = Tensor::<1>::zeros([1], &device);
            for (i, target) in targets.into_iter().enumerate() {
                let logits = output.logits.clone().slice([i..i + 1, 0..steps, 0..vocab]);
                let lengths = Lengths::new(vec![output.lengths.valid()[i]], steps);
                let one = ctc_loss(logits, &lengths, &Arc::new(vec![target]), blank);
                let (ours, theirs) = (values(&one)[0], expected["loss_per_utt_f64"][i].as_f64().unwrap());
                assert!((ours - theirs).abs() <= 1e-5 * theirs, "{name}: loss of {i}: {ours} for {theirs}");
                loss = loss + one.div_scalar((counts[i].max(1) * batch) as f64);
            }
            let (ours, theirs) = (values(&loss)[0], case.io["loss_f64"].values[0]);
            assert!((ours - theirs).abs() <= 1e-5 * theirs.abs(), "{name}: loss {ours} for {theirs}");

            let gradients = loss.backward();
            let mut visit = Visit(Names::default(), &gradients, BTreeMap::new());
            model.visit(&mut visit);
            let ours = visit.2;

            let input = values(&features.grad(&gradients).unwrap());
            let mels = golden.shape[2];
            for (i, &frames) in case.valid.iter().enumerate() {
                let theirs = &case.io[&format!("grad.input_features{i}")];
                let largest = theirs.values.iter().fold(0f64, |m, v| m.max(v.abs()));
                assert_close(
                    &format!("{name}: input {i}"),
                    &input[i * golden.shape[1] * mels..][..frames * mels],
                    &theirs.values,
                    GRADIENT * largest,
                );
            }

            // The golden gradients take the way of the weights: the same table, from a file with their names.
            let (mut compared, mut norms) = (0, 0);
            let layout = case.directory.weights.layout.as_ref().unwrap();
            let shapes: BTreeMap<String, Vec<usize>> = omniscribe::checkpoint::weights::shapes(&model).into_iter().collect();
            let written = tempfile::tempdir().unwrap();
            for (parameter, gradient) in &ours {
                let (row, _) = layout.row(parameter).unwrap();
                let file = written.path().join("gradients.safetensors");
                let theirs: BTreeMap<&str, &Golden> = case.io.iter().filter_map(|(n, g)| Some((n.strip_prefix("grad.")?, g))).collect();
                save(&file, &theirs);
                let file = omniscribe::checkpoint::tensor_file::TensorFile::open(&file).unwrap();
                if let ([_], Ok(made)) = (row.theirs, Arranged::new(&file, layout).take(parameter, &shapes[parameter])) {
                    let made: Vec<f64> = made.into_iter().map(f64::from).collect();
                    let largest = made.iter().fold(0f64, |m, v| m.max(v.abs()));
                    assert_close(&format!("{name}: {parameter}"), gradient, &made, GRADIENT * largest);
                    compared += 1;
                }
                let sources: Vec<f64> = row
                    .theirs
                    .iter()
                    .map(|pattern| {
                        let digits: Vec<&str> = parameter.split('.').filter(|p| p.bytes().all(|b| b.is_ascii_digit())).collect();
                        let source = digits.iter().fold(pattern.to_string(), |p, d| p.replacen("{}", d, 1));
                        expected["grad_norms_f64"][&source].as_f64().unwrap_or(f64::NAN)
                    })
                    .collect();
                let theirs = sources.iter().map(|n| n * n).sum::<f64>().sqrt();
                let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
                if theirs.is_finite() && !sources.is_empty() {
                    assert!((norm - theirs).abs() <= 1e-3 * theirs + 1e-6, "{name}: norm of {parameter}: {norm} for {theirs}");
                    norms += 1;
                }
            }
            assert!(compared >= 9 && norms >= 20, "{name}: {compared} tensors, {norms} norms");
        }
    }

    fn save(path: &Path, tensors: &BTreeMap<&str, &Golden>) {
        let bytes: Vec<(&str, Vec<usize>, Vec<u8>)> =
            tensors.iter().map(|(n, g)| (*n, g.shape.clone(), g.f32().iter().flat_map(|v| v.to_le_bytes()).collect())).collect();
        let views = bytes
            .iter()
            .map(|(n, shape, bytes)| (*n, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap()));
        std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
    }

    #[test]
    fn oracle_positions_and_lengths() {
        let golden = oracle::tensors("02_parakeet/relpos_and_lengths.safetensors");
        let rule = omniscribe::model::config::SubsamplingConfig::Convolution { factor: 8, channels: 1 };
        for (n, out) in golden["sublen_in"].indices().into_iter().zip(golden["sublen_x8_out"].indices()) {
            assert_eq!(rule.output_len(n), out, "{n} frames");
        }
        let mut compared = 0;
        for (name, table) in golden.iter().filter(|(name, _)| name.starts_with("relpos_")) {
            let steps = table.shape[0].div_ceil(2);
            let ours = values(&relative_sinusoids(steps, table.shape[1], &Device::flex()));
            assert_close(name, &ours, &table.values, 1e-5);
            compared += 1;
        }
        assert!(compared > 0);
    }

    #[test]
    fn oracle_transcriber_opens_the_folder_as_it_is() {
        for name in MODELS {
            let transcriber = Transcriber::open(&folder(&format!("02_parakeet/{name}")), Device::flex(), Precision::F32).unwrap();
            let expected = oracle::json(&format!("02_parakeet/{name}/expected.json"));
            let io = oracle::tensors(&format!("02_parakeet/{name}/io.safetensors"));
            for i in 0..3 {
                let text = transcriber.transcribe_samples(&io[&format!("wave{i}")].f32()).text;
                let theirs: Vec<&str> = expected["greedy_text"][i].as_str().unwrap().split_whitespace().collect();
                assert_eq!(text.split_whitespace().collect::<Vec<_>>(), theirs, "{name}: {i}");
            }
        }
    }

    #[test]
    fn oracle_sentencepiece_models() {
        for name in MODELS {
            let path = folder(&format!("02_parakeet/{name}")).join("tokenizer.model");
            let tokenizer = Tokenizer::from_sentencepiece(&std::fs::read(&path).unwrap(), &path).unwrap();
            let theirs = ModelDirectory::open(path.parent().unwrap()).unwrap().tokenizer;
            assert_eq!((tokenizer.vocab_size(), tokenizer.blank()), (theirs.vocab_size(), theirs.blank()));
            assert!((0..tokenizer.vocab_size() as u32).all(|id| tokenizer.piece(id) == theirs.piece(id)), "{name}");
            let mut compared = 0;
            for case in oracle::json_lines(&format!("02_parakeet/{name}/tokenizer_cases.jsonl")) {
                let Some(text) = case["text"].as_str() else {
                    let path: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
                    let runs = omniscribe::decode::ctc::collapse(&path, tokenizer.blank());
                    let tokens: Vec<u32> = runs.iter().map(|run| run.token).collect();
                    let expected = case["decode_ctc_skip_special"].as_str().unwrap();
                    assert_eq!(tokenizer.decode(&tokens).trim_start(), expected.trim_start(), "{name}: {path:?}");
                    continue;
                };
                match (tokenizer.encode(text), theirs.encode(text)) {
                    (Ok(ours), Ok(theirs)) => {
                        assert_eq!(ours, theirs, "{name}: {text:?}");
                        compared += 1;
                    }
                    (ours, theirs) => assert_eq!(ours.is_err(), theirs.is_err(), "{name}: {text:?}"),
                }
            }
            assert!(compared > 5, "{name}: {compared}");
        }
    }
}

mod wave {
    use super::*;

    const MODELS: [&str; 3] = ["w2v2_base", "w2v2_large", "hubert_base"];

    fn open(path: &Path) -> WaveDirectory {
        match Opened::open(path).unwrap() {
            Opened::Wave(directory) => directory,
            Opened::Spectral(_) => panic!("{}", path.display()),
        }
    }

    /// Samples of three utterances as the model gets them.
    fn inputs(io: &BTreeMap<String, Golden>, front_end: &WaveFrontEnd) -> Vec<Vec<f32>> {
        (0..3).map(|i| front_end.compute(&io[&format!("wave{i}")].f32()).values).collect()
    }

    fn batch(utterances: &[Vec<f32>], padding: f32, device: &Device) -> (Tensor<3>, Lengths) {
        let longest = utterances.iter().map(Vec::len).max().unwrap();
        let all: Vec<f32> =
            utterances.iter().flat_map(|u| u.iter().copied().chain(std::iter::repeat_n(padding, longest - u.len()))).collect();
        let lengths: Vec<usize> = utterances.iter().map(Vec::len).collect();
        (Tensor::from_data(TensorData::new(all, [utterances.len(), longest, 1]), device), Lengths::new(lengths, longest))
    }

    #[test]
    fn oracle_logits_activations_and_text() {
        for name in MODELS {
            let device = Device::flex();
            let relative = format!("03_wav2vec2/{name}");
            let directory = open(&folder(&relative));
            let model = directory.model(&device).unwrap();
            let io = oracle::tensors(&format!("{relative}/io.safetensors"));
            let activations = oracle::tensors(&format!("{relative}/activations.safetensors"));
            let expected = oracle::json(&format!("{relative}/expected.json"));
            let utterances = inputs(&io, &directory.config.wave_front_end);
            let vocab = directory.tokenizer.vocab_size();
            let (mut compared, mut texts) = (0, 0);
            for (i, utterance) in utterances.iter().enumerate() {
                // Models without an attention mask get a batch that was normalised with its padding: only the longest is as it is alone.
                if i == 0 || io.contains_key("attention_mask") {
                    let golden = &io["input_values"];
                    let row: Vec<f64> = golden.values[i * golden.shape[1]..][..utterance.len()].to_vec();
                    let ours: Vec<f64> = utterance.iter().map(|&v| f64::from(v)).collect();
                    assert_close(&format!("{name}: input {i}"), &ours, &row, 1e-5);
                }

                let (samples, lengths) = batch(std::slice::from_ref(utterance), 0.0, &device);
                let mut seen = Vec::new();
                let output = model.forward_with(samples, &lengths, &exact(), |stage, x| seen.push((stage.to_string(), x.clone())));
                let ours = values(&output.logits);
                assert_close(&format!("{name}: single {i}"), &ours, &io[&format!("single{i}_logits_f64")].values, WAVE);
                same_ids(&format!("{name}: {i}"), &ours, &io[&format!("single{i}_logits")].values, vocab);
                assert_eq!(output.lengths.valid(), [io["out_lengths"].indices()[i]]);
                let log_probs: Vec<f32> = ours.iter().map(|&v| v as f32).collect();
                let tokens = greedy(&log_probs, log_probs.len() / vocab, vocab, directory.tokenizer.blank()).tokens;
                // Utterance 0 of each has a step whose two best logits are 1e-6 apart.
                if ours.len() / vocab == same_ids(name, &ours, &io[&format!("single{i}_logits")].values, vocab) {
                    let text = spoken(expected["single_text"][i].as_str().unwrap());
                    assert_eq!(directory.tokenizer.decode(&tokens).split_whitespace().collect::<Vec<_>>(), text, "{name}: {i}");
                    texts += 1;
                }
                if i != 2 {
                    continue;
                }
                for (stage, x) in seen {
                    let key =
                        [format!("single2.{stage}"), format!("single2.encoder.{stage}")].into_iter().find(|k| activations.contains_key(k));
                    let Some(key) = key else { continue };
                    let golden = if stage.starts_with("conv") { steps_first(&activations[&key]) } else { activations[&key].clone() };
                    assert_eq!(golden.shape, x.dims(), "{name}: {key}");
                    assert_close(&format!("{name}: {key}"), &values(&x), &golden.values, WAVE);
                    compared += 1;
                }
            }
            assert!(compared >= 5 && texts >= 2, "{name}: {compared} stages, {texts} texts");
        }
    }

    /// Words of a text without the names of special tokens.
    fn spoken(text: &str) -> Vec<String> {
        let text = ["<unk>", "<s>", "</s>"].iter().fold(text.to_string(), |t, special| t.replace(special, ""));
        text.split_whitespace().map(str::to_string).collect()
    }

    #[test]
    fn oracle_both_namings_of_weight_norm() {
        for name in ["w2v2_base", "w2v2_large"] {
            let source = folder(&format!("03_wav2vec2/{name}"));
            let device = Device::flex();
            let temporary = tempfile::tempdir().unwrap();
            copy_folder(&source, temporary.path());
            std::fs::rename(temporary.path().join("model_weight_g_v_names.safetensors"), temporary.path().join("model.safetensors"))
                .unwrap();
            let io = oracle::tensors(&format!("03_wav2vec2/{name}/io.safetensors"));
            let run = |directory: WaveDirectory| {
                let (samples, lengths) = batch(&inputs(&io, &directory.config.wave_front_end)[2..], 0.0, &device);
                values(&directory.model(&device).unwrap().forward(samples, &lengths, &exact()).logits)
            };
            assert_eq!(run(open(&source)), run(open(temporary.path())), "{name}");
        }
    }

    #[test]
    fn oracle_batch_equals_single_whatever_is_in_the_padding() {
        for name in MODELS {
            let device = Device::flex();
            let directory = open(&folder(&format!("03_wav2vec2/{name}")));
            let model = directory.model(&device).unwrap();
            let io = oracle::tensors(&format!("03_wav2vec2/{name}/io.safetensors"));
            let utterances = inputs(&io, &directory.config.wave_front_end);
            for padding in [0.0, 7.0] {
                let (samples, lengths) = batch(&utterances, padding, &device);
                let output = model.forward(samples, &lengths, &exact());
                let [_, steps, vocab] = output.logits.dims();
                let all = values(&output.logits);
                for (i, _) in utterances.iter().enumerate() {
                    let golden = &io[&format!("single{i}_logits_f64")];
                    assert_close(&format!("{name}: {i}"), &all[i * steps * vocab..][..golden.values.len()], &golden.values, WAVE);
                }
            }
        }
    }

    #[test]
    fn oracle_lengths() {
        let golden = oracle::tensors("03_wav2vec2/lengths.safetensors");
        let config = open(&folder("03_wav2vec2/w2v2_base")).config.wave_encoder;
        for (n, out) in golden["in"].indices().into_iter().zip(golden["out"].indices()) {
            assert_eq!(config.output_len(n), out, "{n} samples");
        }
    }

    #[test]
    fn oracle_letters() {
        let tokenizer = open(&folder("03_wav2vec2/w2v2_base")).tokenizer;
        for case in oracle::json_lines("03_wav2vec2/ctc_tokenizer_cases.jsonl") {
            let path: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            let tokens: Vec<u32> = omniscribe::decode::ctc::collapse(&path, tokenizer.blank()).iter().map(|run| run.token).collect();
            // Not `text_skip_special`: it drops the blanks first and so joins letters that a blank parts.
            let ours = tokenizer.decode(&tokens);
            assert_eq!(ours.split_whitespace().collect::<Vec<_>>(), spoken(case["text"].as_str().unwrap()), "{path:?}");
        }
    }

    #[test]
    fn oracle_transcribes_and_aligns() {
        for name in MODELS {
            let path = folder(&format!("03_wav2vec2/{name}"));
            let transcriber = Transcriber::open(&path, Device::flex(), Precision::F32).unwrap();
            let io = oracle::tensors(&format!("03_wav2vec2/{name}/io.safetensors"));
            // All steps of utterance 1 are sure.
            let transcript = transcriber.transcribe_samples(&io["wave1"].f32());
            let expected = oracle::json(&format!("03_wav2vec2/{name}/expected.json"));
            let text = spoken(expected["single_text"][1].as_str().unwrap());
            assert_eq!(transcript.text.split_whitespace().collect::<Vec<_>>(), text, "{name}");

            let temporary = tempfile::tempdir().unwrap();
            let wav = temporary.path().join("a.wav");
            let spec = hound::WavSpec { channels: 1, sample_rate: 16_000, bits_per_sample: 32, sample_format: hound::SampleFormat::Float };
            let mut writer = hound::WavWriter::create(&wav, spec).unwrap();
            io["wave1"].f32().iter().for_each(|&v| writer.write_sample(v).unwrap());
            writer.finalize().unwrap();
            // What it hears in lower case: a model of capitals aligns any text.
            let text = transcript.text.to_lowercase();
            let placed = omniscribe::pipeline::alignment::align_file(&transcriber, &wav, &text).unwrap();
            assert_eq!(placed.words.len(), text.split_whitespace().count(), "{name}");
            let ends: Vec<f64> = placed
                .words
                .iter()
                .map(|w| match w.place {
                    omniscribe::pipeline::alignment::Place::At { start, end, .. } => {
                        assert!(start < end && end <= placed.duration, "{name}: {w:?}");
                        end
                    }
                    other => panic!("{name}: {}: {other:?}", w.word),
                })
                .collect();
            assert!(ends.is_sorted(), "{name}");
        }
    }
}
