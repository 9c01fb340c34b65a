//! Model files of all kinds: archives of NeMo and torch, hostile ones, conversion, upcycling, the hub.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor, TensorData};
use omniscribe::checkpoint::convert::{self, convert};
use omniscribe::checkpoint::hub::Hub;
use omniscribe::checkpoint::manifest::Manifest;
use omniscribe::checkpoint::safetensors_file::{self, HostTensor, HostTensors, Storage};
use omniscribe::checkpoint::tensor_file::TensorFile;
use omniscribe::checkpoint::upcycle::Upcycle;
use omniscribe::checkpoint::{ModelConfig, ModelDirectory, Opened, weights};
use omniscribe::features::FrontEndConfig;
use omniscribe::kernel::rng::SplitMix;
use omniscribe::model::asr::AsrModel;
use omniscribe::model::config::{EncoderConfig, FeedForwardConfig, RouterKind};
use omniscribe::model::lengths::Lengths;
use omniscribe::model::pass::Pass;
use omniscribe::text::Tokenizer;
use omniscribe::{Error, Precision, Transcriber};
use serde_json::json;

use crate::hosts::{copy_folder, folder};
use crate::oracle;

/// A hostile file is refused within this; the machine of the tests may be busy.
const REFUSAL: Duration = Duration::from_secs(2);

fn logits(model: &AsrModel, frames: usize, seed: u64) -> Vec<f32> {
    let mels = model.encoder.config().mels;
    let mut rng = SplitMix::new(seed);
    let values: Vec<f32> = (0..frames * mels).map(|_| rng.next_normal()).collect();
    let features = Tensor::<3>::from_data(TensorData::new(values, [1, frames, mels]), &Device::flex());
    let output = model.forward(features, &Lengths::full(1, frames), &Pass::inference(Precision::F32));
    output.logits.into_data().try_to_vec::<f32>().unwrap()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn parakeet() -> ModelDirectory {
    ModelDirectory::open(&folder("02_parakeet/ctc_bias_scale")).unwrap()
}

/// Writes what torch.save and NeMo write.
mod archives {
    use super::*;

    /// A zip of stored files; `method` other than 0 claims that they are compressed.
    pub fn zip(files: &[(String, Vec<u8>)], method: u16) -> Vec<u8> {
        let (mut out, mut directory) = (Vec::new(), Vec::new());
        for (name, bytes) in files {
            let offset = out.len() as u32;
            let size = (bytes.len() as u32).to_le_bytes();
            let mut fields = Vec::new();
            fields.extend([20u16, 0, method, 0, 0].iter().flat_map(|v| v.to_le_bytes()));
            fields.extend([0; 4]);
            fields.extend(size.iter().chain(&size));
            fields.extend((name.len() as u16).to_le_bytes());
            out.extend(b"PK\x03\x04".iter().chain(&fields).chain(&[0, 0]).chain(name.as_bytes()).chain(bytes));
            directory.extend(b"PK\x01\x02\x14\x00".iter().chain(&fields).chain(&[0; 12]));
            directory.extend(offset.to_le_bytes());
            directory.extend(name.as_bytes());
        }
        let start = out.len() as u32;
        let count = (files.len() as u16).to_le_bytes();
        out.extend(&directory);
        out.extend(b"PK\x05\x06\0\0\0\0".iter().chain(&count).chain(&count));
        out.extend((directory.len() as u32).to_le_bytes().iter().chain(&start.to_le_bytes()).chain(&[0, 0]));
        out
    }

    fn text(out: &mut Vec<u8>, text: &str) {
        out.push(b'X');
        out.extend((text.len() as u32).to_le_bytes());
        out.extend(text.bytes());
    }

    fn int(out: &mut Vec<u8>, n: usize) {
        out.push(b'J');
        out.extend((n as i32).to_le_bytes());
    }

    /// `torch.save` of a dictionary of tensors.
    pub fn torch(tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>) -> Vec<u8> {
        let mut pickle = b"\x80\x02ccollections\nOrderedDict\n)R(".to_vec();
        let mut files = Vec::new();
        for (i, (name, (shape, values))) in tensors.iter().enumerate() {
            text(&mut pickle, name);
            pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
            text(&mut pickle, "storage");
            pickle.extend(b"ctorch\nFloatStorage\n");
            text(&mut pickle, &i.to_string());
            text(&mut pickle, "cpu");
            int(&mut pickle, values.len());
            pickle.extend(b"tQ");
            int(&mut pickle, 0);
            let mut tuple = |sizes: &[usize]| {
                pickle.push(b'(');
                sizes.iter().for_each(|&n| int(&mut pickle, n));
                pickle.push(b't');
            };
            tuple(shape);
            let strides: Vec<usize> = (0..shape.len()).map(|i| shape[i + 1..].iter().product()).collect();
            tuple(&strides);
            pickle.extend(b"\x89ccollections\nOrderedDict\n)RtR");
            files.push((format!("archive/data/{i}"), values.iter().flat_map(|v| v.to_le_bytes()).collect()));
        }
        pickle.extend(b"u.");
        files.insert(0, ("archive/data.pkl".to_string(), pickle));
        files.push(("archive/byteorder".into(), b"little".to_vec()));
        zip(&files, 0)
    }

    /// A `.nemo` of a published folder: the same tensors under NeMo's names.
    pub fn nemo(source: &Path, configuration: &str) -> Vec<u8> {
        let file = TensorFile::open(&source.join("model.safetensors")).unwrap();
        let names = [
            ("subsampling.layers", "pre_encode.conv"),
            ("subsampling.linear", "pre_encode.out"),
            ("self_attn.q_proj", "self_attn.linear_q"),
            ("self_attn.k_proj", "self_attn.linear_k"),
            ("self_attn.v_proj", "self_attn.linear_v"),
            ("self_attn.o_proj", "self_attn.linear_out"),
            ("self_attn.relative_k_proj", "self_attn.linear_pos"),
            ("self_attn.bias_", "self_attn.pos_bias_"),
            ("conv.norm.", "conv.batch_norm."),
            ("ctc_head", "decoder.decoder_layers.0"),
        ];
        let mut tensors = BTreeMap::new();
        for name in file.names().filter(|n| !n.ends_with("num_batches_tracked")) {
            let view = file.get(name).unwrap();
            let values = view.bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
            let name = names.iter().fold(name.to_string(), |n, (from, to)| n.replace(from, to));
            tensors.insert(name, (view.shape.to_vec(), values));
        }
        tensors.insert("preprocessor.featurizer.fb".into(), (vec![1, 80, 257], vec![0.0; 80 * 257]));
        let mut tar = tar::Builder::new(Vec::new());
        let mut add = |name: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, bytes).unwrap();
        };
        add("./model_config.yaml", configuration.as_bytes());
        add("./0a1b2c_tokenizer.model", &std::fs::read(source.join("tokenizer.model")).unwrap());
        add("./0a1b2c_vocab.txt", b"unused");
        add("./model_weights.ckpt", &torch(&tensors));
        tar.into_inner().unwrap()
    }
}

const NEMO_CONFIGURATION: &str = "
sample_rate: 16000
preprocessor:
  _target_: nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor
  sample_rate: 16000
  normalize: per_feature
  window_size: 0.025
  window_stride: 0.01
  window: hann
  features: 80
  n_fft: 512
  frame_splicing: 1
  dither: 1.0e-05
  pad_to: 0
encoder:
  _target_: nemo.collections.asr.modules.ConformerEncoder
  feat_in: 80
  feat_out: -1
  n_layers: 3
  d_model: 48
  subsampling: dw_striding
  subsampling_factor: 8
  subsampling_conv_channels: 16
  causal_downsampling: false
  ff_expansion_factor: FF
  self_attention_model: rel_pos
  n_heads: 4
  att_context_size:
  - -1
  - -1
  xscaling: true
  untie_biases: true
  conv_kernel_size: 9
  conv_norm_type: batch_norm
  dropout: 0.1
decoder:
  _target_: nemo.collections.asr.modules.ConvASRDecoder
  feat_in: 48
  num_classes: 72
  vocabulary:
  - <unk>
  - ▁t
target: nemo.collections.asr.models.ctc_bpe_models.EncDecCTCModelBPE
";

#[test]
fn oracle_nemo_archive_gives_the_same_logits() {
    // The oracle's feed-forward is 128 wide: no whole multiple of 48, as NeMo's configurations have it. One that is shorter loads the same way,
    // so the width is read from a model made for this test.
    let source = folder("02_parakeet/ctc_bias_scale");
    let dense = parakeet();
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("model.nemo");
    // 144 = 3 * 48: pad the hidden layer with zeros, which changes nothing.
    let wide = temporary.path().join("wide");
    widen(&source, &wide, 144);
    std::fs::write(&path, archives::nemo(&wide, &NEMO_CONFIGURATION.replace("FF", "3"))).unwrap();
    let nemo = ModelDirectory::open(&path).unwrap();
    let device = Device::flex();
    let (ours, theirs) = (nemo.model(&device).unwrap(), dense.model(&device).unwrap());
    assert!(largest_difference(&logits(&ours, 150, 1), &logits(&theirs, 150, 1)) < 1e-5);
    assert_eq!((nemo.tokenizer.vocab_size(), nemo.tokenizer.blank()), (dense.tokenizer.vocab_size(), dense.tokenizer.blank()));
    assert_eq!(nemo.config.front_end, dense.config.front_end);

    // The same file through the transcriber, and alone in a folder.
    let wave = oracle::tensors("02_parakeet/ctc_bias_scale/io.safetensors")["wave0"].f32();
    let expected = oracle::json("02_parakeet/ctc_bias_scale/expected.json")["greedy_text"][0].as_str().unwrap().to_string();
    for place in [path.as_path(), temporary.path()] {
        let transcriber = Transcriber::open(place, Device::flex(), Precision::F32).unwrap();
        assert_eq!(transcriber.transcribe_samples(&wave).text, expected.split_whitespace().collect::<Vec<_>>().join(" "));
    }

    // What NeMo can do and this cannot is named.
    for (from, to, says) in [
        ("self_attention_model: rel_pos", "self_attention_model: abs_pos", "encoder.self_attention_model"),
        ("subsampling: dw_striding", "subsampling: striding", "encoder.subsampling"),
        ("EncDecCTCModelBPE", "EncDecRNNTBPEModel", "target"),
        ("num_classes: 72", "num_classes: 99", "99"),
        ("- -1\n  - -1", "- 128\n  - 128", "att_context_size"),
    ] {
        let configuration = NEMO_CONFIGURATION.replace("FF", "3").replace(from, to);
        std::fs::write(&path, archives::nemo(&wide, &configuration)).unwrap();
        let error = ModelDirectory::open(&path).unwrap_err().to_string();
        assert!(error.contains(says), "{to}: {error}");
    }
}

/// A published folder with its feed-forwards padded to `width` by zeros.
fn widen(from: &Path, to: &Path, width: usize) {
    copy_folder(from, to);
    let file = TensorFile::open(&from.join("model.safetensors")).unwrap();
    let mut tensors = HostTensors::new();
    for name in file.names().filter(|n| !n.ends_with("num_batches_tracked")) {
        let view = file.get(name).unwrap();
        let values: Vec<f32> = view.bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let (mut shape, mut out) = (view.shape.to_vec(), values.clone());
        if name.contains(".linear1.") && !name.contains("subsampling") {
            let row = values.len() / shape[0];
            out.resize(width * row, 0.0);
            shape[0] = width;
        } else if name.ends_with(".linear2.weight") {
            let (rows, old) = (shape[0], shape[1]);
            out = values.chunks_exact(old).flat_map(|r| r.iter().copied().chain(std::iter::repeat_n(0.0, width - old))).collect();
            assert_eq!(out.len(), rows * width);
            shape[1] = width;
        }
        tensors.insert(name.to_string(), HostTensor { shape, values: out });
    }
    safetensors_file::save(&to.join("model.safetensors"), &tensors, Storage::F32, Default::default()).unwrap();
}

#[test]
fn oracle_faults_are_named_with_the_nearest_name() {
    let source = folder("02_parakeet/ctc_bias_scale");
    let temporary = tempfile::tempdir().unwrap();
    widen(&source, temporary.path(), 128);
    let path = temporary.path().join("model.safetensors");
    let (whole, _) = safetensors_file::load(&path).unwrap();
    let refused = |change: &dyn Fn(&mut HostTensors)| {
        let mut tensors = whole.clone();
        change(&mut tensors);
        safetensors_file::save(&path, &tensors, Storage::F32, Default::default()).unwrap();
        let error = ModelDirectory::open(temporary.path()).unwrap().model(&Device::flex()).unwrap_err();
        let text = error.to_string();
        let Error::Checkpoint { missing, unused, mismatched, .. } = error else { panic!("{text}") };
        (missing, unused, mismatched, text)
    };
    let name = "encoder.layers.1.self_attn.k_proj.weight";
    let (missing, unused, mismatched, text) = refused(&|t| {
        let tensor = t.remove(name).unwrap();
        t.insert("encoder.layers.1.self_attn.key_proj.weight".into(), tensor);
    });
    assert_eq!(missing, [name]);
    assert!(text.contains(&format!("missing {name} (nearest: encoder.layers.1.self_attn.key_proj.weight)")), "{text}");
    assert_eq!((unused, mismatched), (vec!["encoder.layers.1.self_attn.key_proj.weight".to_string()], vec![]));
    let (missing, unused, mismatched, _) = refused(&|t| t.get_mut("ctc_head.bias").unwrap().shape = vec![1, 73]);
    assert_eq!((missing, unused), (vec![], vec![]));
    assert_eq!(mismatched, ["ctc_head.bias: [1, 73] in the file, [73] in the model"]);
}

#[test]
fn hostile_files_are_refused_fast() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("model.safetensors");
    let header = |json: &str, claimed: u64, data: usize| {
        let mut bytes = claimed.to_le_bytes().to_vec();
        bytes.extend(json.bytes());
        bytes.extend(vec![0; data]);
        bytes
    };
    let honest = |json: &str, data: usize| header(json, json.len() as u64, data);
    let mut many = String::from("{");
    for i in 0..40_000 {
        many += &format!("\"t{i}\":{{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}},");
    }
    many += "\"z\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,9]}}";
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("huge header", header("{}", u64::MAX, 64)),
        ("header past the end", header("{}", 1 << 20, 64)),
        ("a header of 100 MB", header(&" ".repeat(100 << 20), 100 << 20, 0)),
        ("offsets past the end", honest(r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#, 8)),
        (
            "offsets that overflow",
            honest(r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[18446744073709551600,18446744073709551615]}}"#, 16),
        ),
        ("a shape that overflows", honest(r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,16],"data_offsets":[0,16]}}"#, 16)),
        (
            "overlapping tensors",
            honest(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#, 12),
        ),
        ("nested lists", honest(&"[".repeat(1 << 20), 0)),
        ("many tensors", honest(&many, 4)),
        ("a compressed torch archive", archives::zip(&[("archive/data.pkl".into(), vec![0; 64])], 8)),
        (
            "a torch archive that calls",
            archives::zip(&[("archive/data.pkl".into(), b"\x80\x02cos\nsystem\n(X\x02\x00\x00\x00lstR.".to_vec())], 0),
        ),
        (
            "a torch archive of nesting",
            archives::zip(&[("archive/data.pkl".into(), [&b"\x80\x02)"[..], &vec![0x85; 3 << 20], b"."].concat())], 0),
        ),
        (
            "a torch archive of marks",
            archives::zip(&[("archive/data.pkl".into(), [&b"\x80\x02"[..], &vec![b'('; 4 << 20][..(4 << 20) - 8], b"."].concat())], 0),
        ),
        ("a zip and nothing else", b"PK\x05\x06".to_vec()),
        ("nothing", vec![]),
    ];
    for (what, bytes) in cases {
        std::fs::write(&path, &bytes).unwrap();
        let start = Instant::now();
        let error = TensorFile::open(&path).map(drop).unwrap_err().to_string();
        assert!(start.elapsed() < REFUSAL, "{what}: {:?}", start.elapsed());
        assert!(error.contains("model.safetensors") && error.len() < 2000, "{what}: {error}");
    }
    // A tensor larger than its storage, which would have to be filled.
    let mut tensors = BTreeMap::from([("w".to_string(), (vec![2, 2], vec![1.0f32; 4]))]);
    tensors.get_mut("w").unwrap().0 = vec![1 << 15, 1 << 15];
    std::fs::write(&path, archives::torch(&tensors)).unwrap();
    assert!(TensorFile::open(&path).unwrap_err().to_string().contains("past its storage"));
    // Archives cut anywhere.
    tensors.get_mut("w").unwrap().0 = vec![2, 2];
    let whole = archives::torch(&tensors);
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(TensorFile::open(&path).unwrap().get("w").unwrap().shape, [2, 2]);
    for length in (1..whole.len()).step_by(7) {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert!(TensorFile::open(&path).is_err(), "{length} bytes");
    }
}

#[test]
fn oracle_hostile_folders_are_refused_fast() {
    let source = folder("02_parakeet/ctc_bias_scale");
    let temporary = tempfile::tempdir().unwrap();
    let refused = |what: &str, change: &dyn Fn(&Path)| {
        let place = temporary.path().join(what.replace(' ', "-"));
        copy_folder(&source, &place);
        change(&place);
        let start = Instant::now();
        let error = Opened::open(&place).and_then(|o| match o {
            Opened::Spectral(d) => d.model(&Device::flex()).map(drop),
            Opened::Wave(d) => d.model(&Device::flex()).map(drop),
        });
        assert!(start.elapsed() < REFUSAL, "{what}: {:?}", start.elapsed());
        error.unwrap_err().to_string()
    };
    let config = |place: &Path, change: &dyn Fn(&mut serde_json::Value)| {
        let path = place.join("config.json");
        let mut value: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut value);
        std::fs::write(path, value.to_string()).unwrap();
    };
    // Sizes that the rules allow and the file does not have: nothing of them may be allocated.
    let error = refused("large layers", &|p| {
        config(p, &|c| {
            c["encoder_config"]["hidden_size"] = 16_000.into();
            c["encoder_config"]["intermediate_size"] = 131_072.into();
            c["encoder_config"]["num_hidden_layers"] = 512.into();
        })
    });
    assert!(error.contains("in the model"), "{error}");
    assert!(refused("huge config", &|p| std::fs::File::create(p.join("config.json")).unwrap().set_len(1 << 40).unwrap()).contains("limit"));
    assert!(refused("other model", &|p| config(p, &|c| c["model_type"] = "whisper".into())).contains("whisper"));
    assert!(
        refused("other kernel", &|p| config(p, &|c| c["encoder_config"]["subsampling_conv_kernel_size"] = 5.into()))
            .contains("subsampling_conv_kernel_size")
    );
    assert!(refused("other vocabulary", &|p| config(p, &|c| c["vocab_size"] = 80.into())).contains("80"));
    assert!(
        refused("climbing shard", &|p| {
            std::fs::remove_file(p.join("model.safetensors")).unwrap();
            std::fs::write(p.join("model.safetensors.index.json"), r#"{"weight_map": {"a": "../../x.safetensors"}}"#).unwrap();
        })
        .contains("plain file name")
    );
}

#[test]
fn oracle_converted_models_give_the_same_or_nearly() {
    let device = Device::flex();
    let temporary = tempfile::tempdir().unwrap();
    let opened = Opened::open(&folder("02_parakeet/ctc_bias_scale")).unwrap();
    let exact = logits(&parakeet().model(&device).unwrap(), 100, 3);
    for (storage, limit) in [(Storage::F32, 0.0), (Storage::Bf16, 0.1), (Storage::F16, 0.02), (Storage::Int8, 0.3)] {
        let path = temporary.path().join(format!("{storage:?}"));
        convert(&opened, &path, storage).unwrap();
        let read = ModelDirectory::open(&path).unwrap();
        assert!(read.weights.layout.is_none());
        let difference = largest_difference(&logits(&read.model(&device).unwrap(), 100, 3), &exact);
        assert!(difference <= limit && (limit == 0.0 || difference > 0.0), "{storage:?}: {difference}");
        println!("{storage:?}: logits differ by {difference:.2e}");
    }
    // A waveform model, too; and again from our own folder.
    let wave = Opened::open(&folder("03_wav2vec2/w2v2_base")).unwrap();
    let (first, second) = (temporary.path().join("wave"), temporary.path().join("wave2"));
    convert(&wave, &first, Storage::F32).unwrap();
    convert(&Opened::open(&first).unwrap(), &second, Storage::F32).unwrap();
    assert_eq!(std::fs::read(first.join("model.safetensors")).unwrap(), std::fs::read(second.join("model.safetensors")).unwrap());
    let samples = oracle::tensors("03_wav2vec2/w2v2_base/io.safetensors")["wave1"].f32();
    let text = |path: &Path| Transcriber::open(path, Device::flex(), Precision::F32).unwrap().transcribe_samples(&samples).text;
    assert_eq!(text(&second), text(&folder("03_wav2vec2/w2v2_base")));
}

#[test]
fn oracle_upcycled_models_start_equal_and_route_by_their_input() {
    let device = Device::flex();
    let temporary = tempfile::tempdir().unwrap();
    let dense = parakeet();
    let exact = logits(&dense.model(&device).unwrap(), 400, 5);
    for (router, experts) in [(RouterKind::Omni, 2), (RouterKind::Omni, 4), (RouterKind::Switch, 4), (RouterKind::Omni, 3)] {
        let plan = Upcycle { experts, router, noise: 0.0, seed: 7 };
        let config = plan.config(&dense.config).unwrap();
        let blank = AsrModel::blank(&config.encoder, dense.tokenizer.vocab_size(), &device).unwrap();
        let path = temporary.path().join(format!("{router:?}{experts}"));
        let source = plan.source(&dense);
        convert::write(&path, &config, &dense.tokenizer, weights::shapes(&blank), &source, Storage::F32).unwrap();
        let read = ModelDirectory::open(&path).unwrap();
        let model = read.model(&device).unwrap();
        let difference = largest_difference(&logits(&model, 400, 5), &exact);
        // Gate probabilities are within 1e-5 of 1/N, and float error of a few layers comes on top.
        assert!(difference < 5e-5, "{router:?} {experts}: {difference:e}");
        println!("{router:?}, {experts} experts: logits differ by {difference:.2e}");

        let mels = config.encoder.mels;
        let mut rng = SplitMix::new(5);
        let values: Vec<f32> = (0..400 * mels).map(|_| rng.next_normal()).collect();
        let features = Tensor::<3>::from_data(TensorData::new(values, [1, 400, mels]), &device);
        let output = model.forward(features, &Lengths::full(1, 400), &Pass::inference(Precision::F32));
        let mut load = vec![0; experts];
        output.routed.iter().flatten().for_each(|r| r.loss.load.iter().zip(&mut load).for_each(|(n, l)| *l += n));
        // How evenly depends on the input; that it is the input that chooses is seen from the second expert.
        assert!(load.iter().filter(|&&n| n > 0).count() > 1, "{router:?} {experts}: {load:?}");
        println!("{router:?}, {experts} experts: chosen {load:?} times");
        assert_eq!(model.encoder.routers.len(), usize::from(router == RouterKind::Omni));
    }
    let noisy = Upcycle { experts: 2, router: RouterKind::Omni, noise: 0.1, seed: 7 };
    assert!(matches!(noisy.config(&dense.config).unwrap().encoder.feed_forward, FeedForwardConfig::Experts { .. }));
    assert!(noisy.config(&noisy.config(&dense.config).unwrap()).is_err());
    assert!(Upcycle { experts: 1, ..noisy.clone() }.config(&dense.config).is_err());
}

/// The names of asr-lab for one of our Transformers with a shared router.
#[test]
fn third_party_omni_router_layout_loads_and_its_router_is_one() {
    let device = Device::flex();
    let encoder: EncoderConfig = serde_json::from_value(json!({
        "mels": 8, "d_model": 16, "n_layers": 3, "n_heads": 2, "d_ff": 24, "activation": "relu", "dropout": 0.0, "attention_bias": false,
        "scale_input": false, "subsampling": {"kind": "stacking", "factor": 4, "hidden": null},
        "position": {"kind": "cape", "freq_scale": 30.0, "delta": 0.03, "content_scale": 1.0, "normalize": true, "max_global_shift": 0.0,
            "max_local_shift": 0.0, "max_global_scaling": 1.0},
        "context": {"kind": "full"}, "block": {"kind": "transformer"},
        "feed_forward": {"kind": "experts", "router": "omni", "groups": "3x4", "router_bias": true, "jitter": 0.0}, "intermediate": null,
    }))
    .unwrap();
    let tokenizer = Tokenizer::characters(" abcdef").unwrap();
    let model = AsrModel::new(&encoder, tokenizer.vocab_size(), 3, &device).unwrap();
    let ours = weights::collect(&model);
    let transposed = |t: &HostTensor| {
        let (rows, columns) = (t.shape[0], t.shape[1]);
        let values = (0..columns).flat_map(|c| (0..rows).map(move |r| (r, c))).map(|(r, c)| t.values[r * columns + c]).collect();
        HostTensor { shape: vec![columns, rows], values }
    };
    let slice = |t: &HostTensor, from: usize, to: usize| {
        let row = t.values.len() / t.shape[0];
        HostTensor { shape: [&[to - from], &t.shape[1..]].concat(), values: t.values[from * row..to * row].to_vec() }
    };
    let mut theirs = HostTensors::new();
    let mut put = |name: String, tensor: HostTensor| theirs.insert(name, tensor);
    put("_encoder.input_proj.weight".into(), transposed(&ours["encoder.subsampling.Stacking.project.weight"]));
    put("_decoder.projection.weight".into(), transposed(&ours["head.weight"]));
    put("_decoder.projection.bias".into(), ours["head.bias"].clone());
    put("_encoder.encoder.final_ln.weight".into(), ours["encoder.final_norm.gamma"].clone());
    put("_encoder.encoder.final_ln.bias".into(), ours["encoder.final_norm.beta"].clone());
    let frequencies = (0..16).map(|i| 30.0 * (-2.0 * (i / 2) as f32 * 1e4f32.ln() / 16.0).exp()).collect();
    put("_encoder.encoder.cape.freq".into(), HostTensor { shape: vec![16], values: frequencies });
    put("_encoder.encoder.cape.cos_shifts".into(), HostTensor { shape: vec![16], values: vec![0.0; 16] });
    for i in 0..3 {
        let block = format!("_encoder.encoder.blocks.{i}");
        let at = |name: &str| &ours[&format!("encoder.blocks.{i}.{name}")];
        for (ln, norm) in [("ln1", "attention_norm"), ("ln2", "feed_forward_norm")] {
            put(format!("{block}.{ln}.weight"), at(&format!("{norm}.gamma")).clone());
            put(format!("{block}.{ln}.bias"), at(&format!("{norm}.beta")).clone());
        }
        let qkv = transposed(at("attention.qkv.weight"));
        put(format!("{block}.self_attention.w_q.weight"), slice(&qkv, 0, 16));
        put(format!("{block}.self_attention.w_kv.weight"), slice(&qkv, 16, 48));
        put(format!("{block}.self_attention.w_out.weight"), transposed(at("attention.out.weight")));
        put(format!("{block}.ffn.router.w_gate.weight"), transposed(&ours["encoder.routers.0.weight"]));
        put(format!("{block}.ffn.router.w_gate.bias"), ours["encoder.routers.0.bias"].clone());
        for e in 0..4 {
            for (number, part) in [(0, "up"), (2, "down")] {
                let one = slice(at(&format!("feed_forward.Experts.experts.{part}")), e, e + 1);
                let one = HostTensor { shape: one.shape[1..].to_vec(), values: one.values };
                put(format!("{block}.ffn.experts.{e}.{number}.weight"), transposed(&one));
                let bias = slice(at(&format!("feed_forward.Experts.experts.{part}_bias")), e, e + 1);
                put(format!("{block}.ffn.experts.{e}.{number}.bias"), HostTensor { shape: bias.shape[1..].to_vec(), values: bias.values });
            }
        }
    }
    let temporary = tempfile::tempdir().unwrap();
    let config = ModelConfig {
        format_version: 1,
        name: "lab".into(),
        front_end: FrontEndConfig { mels: 8, ..FrontEndConfig::whisper(80) },
        encoder,
    };
    ModelDirectory::save(temporary.path(), &config, &tokenizer, &HostTensors::new(), Storage::F32).unwrap();
    let path = temporary.path().join("model.safetensors");
    // As a torch archive, in which such a model comes.
    std::fs::remove_file(&path).unwrap();
    let torch: BTreeMap<String, (Vec<usize>, Vec<f32>)> =
        theirs.iter().map(|(n, t)| (n.clone(), (t.shape.clone(), t.values.clone()))).collect();
    std::fs::write(temporary.path().join("model.pth"), archives::torch(&torch)).unwrap();
    let read = ModelDirectory::open(temporary.path()).unwrap().model(&device).unwrap();
    assert_eq!(weights::collect(&read), ours);
    assert_eq!(read.encoder.routers.len(), 1);
    // Copies that differ are no shared router.
    theirs.get_mut("_encoder.encoder.blocks.2.ffn.router.w_gate.weight").unwrap().values[5] += 1e-3;
    safetensors_file::save(&path, &theirs, Storage::F32, Default::default()).unwrap();
    let error = ModelDirectory::open(temporary.path()).unwrap().model(&device).unwrap_err().to_string();
    assert!(error.contains("blocks.2.ffn.router") && error.contains("one tensor"), "{error}");
}

/// A server of one repository on the loopback: what it was asked, and whether it breaks off in the middle of large files.
struct Server {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

fn serve(files: BTreeMap<String, Vec<u8>>, corrupt: bool) -> Server {
    use sha1::Digest as _;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let siblings: Vec<_> = files
        .iter()
        .map(|(name, bytes)| {
            let blob = hex(&sha1::Sha1::new_with_prefix(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize());
            let mut entry = json!({"rfilename": name, "size": bytes.len(), "blobId": blob});
            if name.ends_with(".safetensors") {
                entry["lfs"] = json!({"sha256": hex(&sha2::Sha256::digest(bytes)), "size": bytes.len()});
            }
            entry
        })
        .collect();
    let info =
        json!({"sha": "0123456789abcdef0123456789abcdef01234567", "siblings": siblings, "cardData": {"license": "apple-amlr"}}).to_string();
    let log = asked.clone();
    std::thread::spawn(move || {
        let mut broken_off = false;
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
                    break;
                }
                lines.push(line.trim().to_string());
            }
            let Some(path) = lines.first().and_then(|l| l.split(' ').nth(1)).map(str::to_string) else { continue };
            let range = lines.iter().find_map(|l| l.strip_prefix("Range: bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
            let authorised = lines.iter().any(|l| l == "Authorization: Bearer secret");
            log.lock().unwrap().push(format!("{path} {range:?} {authorised}"));
            let answer = |stream: &mut std::net::TcpStream, status: &str, headers: &str, body: &[u8], claimed: usize| {
                let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {claimed}\r\n{headers}\r\n");
                let _ = stream.write_all(body);
            };
            if !authorised && path.starts_with("/api/") {
                answer(&mut stream, "401 Unauthorized", "", b"", 0);
            } else if path.starts_with("/api/models/own/er/") {
                // In pieces, as the hub answers.
                let _ = write!(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                for piece in info.as_bytes().chunks(100) {
                    let _ = write!(stream, "{:x}\r\n", piece.len());
                    let _ = stream.write_all(piece).and_then(|()| stream.write_all(b"\r\n"));
                }
                let _ = write!(stream, "0\r\n\r\n");
            } else if let Some(file) = path.strip_prefix("/own/er/resolve/0123456789abcdef0123456789abcdef01234567/") {
                answer(&mut stream, "302 Found", &format!("Location: /cdn/{file}\r\n"), b"", 0);
            } else if let Some(bytes) = path.strip_prefix("/cdn/").and_then(|name| files.get(name)) {
                let from = range.unwrap_or(0);
                let mut part = bytes[from..].to_vec();
                if corrupt && !part.is_empty() {
                    part[0] ^= 1;
                }
                let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
                let headers = range.map_or(String::new(), |f| format!("Content-Range: bytes {f}-{}/{}\r\n", bytes.len() - 1, bytes.len()));
                let claimed = part.len();
                if path.ends_with(".safetensors") && !broken_off {
                    broken_off = true;
                    part.truncate(claimed / 3);
                }
                answer(&mut stream, status, &headers, &part, claimed);
            } else {
                answer(&mut stream, "404 Not Found", "", b"", 0);
            }
        }
    });
    Server { address, asked }
}

fn repository() -> BTreeMap<String, Vec<u8>> {
    let source = folder("02_parakeet/ctc_nobias_x4");
    let names = ["config.json", "model.safetensors", "tokenizer.json", "processor_config.json"];
    let mut files: BTreeMap<String, Vec<u8>> = names.iter().map(|n| (n.to_string(), std::fs::read(source.join(n)).unwrap())).collect();
    files.insert("modeling.py".into(), b"import os".to_vec());
    files.insert("README.md".into(), b"---\nlicense: apple-amlr\n---\n".to_vec());
    files
}

#[test]
fn oracle_pull_resumes_checks_and_links() {
    let server = serve(repository(), false);
    let temporary = tempfile::tempdir().unwrap();
    let hub = Hub::new(&server.address, Some("secret".into()), temporary.path());
    let mut seen = 0;
    let pulled = hub.pull("own/er", "main", |p| seen = p.done.max(seen)).unwrap();
    assert!(pulled.path.ends_with("models--own--er/snapshots/0123456789abcdef0123456789abcdef01234567"));
    assert_eq!(pulled.licence.as_deref(), Some("apple-amlr"));
    assert!(!pulled.files.contains(&"modeling.py".to_string()) && !pulled.path.join("modeling.py").exists());
    let asked = server.asked.lock().unwrap().clone();
    let weights: Vec<&String> = asked.iter().filter(|a| a.contains("/cdn/model.safetensors")).collect();
    assert!(weights.len() == 2 && weights[0].contains("None") && weights[1].contains("Some("), "{weights:?}");
    assert_eq!(std::fs::read_to_string(temporary.path().join("models--own--er/refs/main")).unwrap(), pulled.commit);
    let size = std::fs::metadata(pulled.path.join("model.safetensors")).unwrap().len();
    assert_eq!(seen, size);

    // Nothing is fetched twice; the name leads to the folder; the model runs.
    let again = hub.pull("own/er", "main", |_| ()).unwrap();
    assert_eq!((again.fetched, again.path.clone()), (0, pulled.path.clone()));
    assert_eq!(hub.cached("own/er", "main"), Some(pulled.path.clone()));
    assert_eq!(hub.all_cached(), [("own/er".to_string(), pulled.path.clone())]);
    assert_eq!(ModelDirectory::open(&pulled.path).unwrap().config.name, "own/er");

    // A part that an earlier run left is gone on with.
    let blob = std::fs::canonicalize(pulled.path.join("model.safetensors")).unwrap();
    let whole = std::fs::read(&blob).unwrap();
    std::fs::write(blob.with_extension("incomplete"), &whole[..1000]).unwrap();
    std::fs::remove_file(&blob).unwrap();
    assert_eq!(hub.pull("own/er", "main", |_| ()).unwrap().fetched, size - 1000);
    assert_eq!(std::fs::read(&blob).unwrap(), whole);

    assert!(matches!(hub.pull("own/nothing", "main", |_| ()), Err(Error::Refused { status: 404, .. })));
    let stranger = Hub::new(&server.address, None, temporary.path());
    assert!(stranger.pull("own/er", "main", |_| ()).unwrap_err().to_string().contains("HF_TOKEN"));
}

#[test]
fn oracle_a_wrong_file_is_refused() {
    let server = serve(repository(), true);
    let temporary = tempfile::tempdir().unwrap();
    let error = Hub::new(&server.address, Some("secret".into()), temporary.path()).pull("own/er", "main", |_| ()).unwrap_err().to_string();
    assert!(error.contains("hash"), "{error}");
    assert!(!temporary.path().join("models--own--er/refs").exists());
}

#[test]
fn oracle_model_commands() {
    let run = |arguments: &[&str], environment: &[(&str, &str)]| {
        let mut command = assert_cmd::Command::cargo_bin("omniscribe").unwrap();
        command.env_remove("HF_TOKEN").env("HF_HUB_CACHE", "/nonexistent").envs(environment.iter().copied()).args(arguments);
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    };
    let temporary = tempfile::tempdir().unwrap();
    let at = |name: &str| temporary.path().join(name).display().to_string();
    let source = folder("02_parakeet/ctc_bias_scale").display().to_string();

    let (code, out, _) = run(&["model", "inspect", &source], &[]);
    assert!(code == 0 && out.contains("Conformer, 3 layers") && out.contains("ctc_head.weight\tf32\t[73, 48, 1]"), "{out}");
    let (code, out, _) = run(&["model", "inspect", "--json", &format!("{source}/model.safetensors")], &[]);
    assert!(code == 0 && serde_json::from_str::<serde_json::Value>(&out).unwrap()["tensors"].as_array().unwrap().len() > 100);
    let (code, out, err) = run(&["model", "verify", &source], &[]);
    assert!(code == 0 && out.contains("all finite"), "{out}{err}");

    let (code, _, err) = run(&["model", "convert", &source, &at("bf16"), "--storage", "bf16"], &[]);
    assert_eq!(code, 0, "{err}");
    let (code, out, err) = run(&["model", "verify", &at("bf16")], &[]);
    assert!(code == 0 && out.contains("hashes\tok"), "{out}{err}");
    let weights = temporary.path().join("bf16/model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let (code, _, err) = run(&["model", "verify", &at("bf16")], &[]);
    assert!(code == 1 && err.contains("model.safetensors"), "{err}");

    let (code, _, err) = run(&["model", "upcycle", &source, &at("moe"), "--experts", "4", "--router", "omni"], &[]);
    assert_eq!(code, 0, "{err}");
    assert!(Manifest::read(&temporary.path().join("moe")).unwrap().unwrap().source.contains("4 experts"));
    let (code, out, _) = run(&["model", "list", &temporary.path().display().to_string()], &[]);
    assert!(code == 0 && out.lines().count() == 2 && out.contains("3x4 experts, omni router"), "{out}");

    let server = serve(repository(), false);
    let cache = at("cache");
    let environment = [("HF_ENDPOINT", server.address.as_str()), ("HF_TOKEN", "secret"), ("HF_HUB_CACHE", cache.as_str())];
    let (code, out, err) = run(&["model", "pull", "own/er"], &environment);
    assert!(code == 0 && Path::new(out.trim()).is_dir() && err.contains("research only"), "{out}{err}");
    // The pulled name is a model from now on.
    let (code, out, err) = run(&["transcribe", "--model", "own/er", "--dtype", "f32", "assets/river.wav"], &environment);
    assert!(code == 0 && !out.trim().is_empty(), "{out}{err}");
}

/// Both real geometries with random weights in bf16: `cargo test --release --test it real_geometry -- --ignored` (needs 6 GB of memory and of disk).
#[test]
#[ignore = "needs ../shared, 6 GB of memory and a minute"]
fn oracle_real_geometry_loads_and_runs() {
    for name in ["parakeet-ctc-0.6b", "parakeet-ctc-1.1b"] {
        let temporary = tempfile::tempdir().unwrap();
        let source = oracle::find(&format!("02_parakeet/real_configs/{name}.config.json"));
        std::fs::copy(&source, temporary.path().join("config.json")).unwrap();
        std::fs::copy(source.with_file_name("parakeet-ctc.preprocessor_config.json"), temporary.path().join("preprocessor_config.json"))
            .unwrap();
        tokenizer_of(1024, temporary.path());
        let listed = oracle::json(&format!("02_parakeet/real_configs/{name}.tensors.json"));
        let weights = temporary.path().join("model.safetensors");
        // The smaller one as f32: 2.4 GB, whose loading is compared with a plain read of the file.
        random_weights(&listed["tensors"], &weights, name.ends_with("0.6b"));
        let start = Instant::now();
        let read = std::fs::read(&weights).unwrap().len();
        let raw = start.elapsed();
        let start = Instant::now();
        let transcriber = Transcriber::open(temporary.path(), Device::flex(), Precision::Bf16).unwrap();
        let loaded = start.elapsed();
        // Of the published parameters, those that count batches are not weights.
        let parameters = listed["num_parameters"].as_u64().unwrap();
        let difference = transcriber.parameters().0.abs_diff(parameters);
        assert!(difference < 1_000_000, "{name}: {} for {parameters}", transcriber.parameters().0);
        let start = Instant::now();
        transcriber.transcribe_samples(&vec![0.01; 16_000]);
        let heard = start.elapsed();
        println!(
            "{name}: {read} bytes, read in {raw:?}, loaded in {loaded:?} ({:.2} times that); hears one second in {heard:?}",
            loaded.as_secs_f64() / raw.as_secs_f64()
        );
    }
}

fn tokenizer_of(pieces: usize, folder: &Path) {
    let vocab: BTreeMap<String, usize> =
        (0..pieces).map(|i| (if i == 0 { "<unk>".into() } else { char::from_u32(0x4e00 + i as u32).unwrap().to_string() }, i)).collect();
    let words = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    let special = |id: usize, content: &str| json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    let file = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [special(0, "<unk>"), special(pieces, "<pad>")],
        "normalizer": null, "pre_tokenizer": words, "post_processor": null, "decoder": words,
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": true, "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": []}});
    std::fs::write(folder.join("tokenizer.json"), file.to_string()).unwrap();
}

/// A bf16 or f32 file of the listed tensors, written in pieces.
fn random_weights(listed: &serde_json::Value, path: &Path, wide: bool) {
    let mut header = serde_json::Map::new();
    let mut offset = 0u64;
    for (name, entry) in listed.as_object().unwrap() {
        let shape: Vec<u64> = serde_json::from_value(entry[1].clone()).unwrap();
        // Counters of batches are no weights, and a file may leave them out.
        if entry[0] != "int64" {
            let (dtype, size) = if wide { ("F32", 4) } else { ("BF16", 2) };
            let end = offset + size * shape.iter().product::<u64>();
            header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}));
            offset = end;
        }
    }
    let mut json = serde_json::Value::Object(header).to_string();
    json += &" ".repeat((8 - json.len() % 8) % 8);
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    file.write_all(&(json.len() as u64).to_le_bytes()).unwrap();
    file.write_all(json.as_bytes()).unwrap();
    // Small and positive, as running variances must be.
    let mut rng = SplitMix::new(1);
    let values: Vec<f32> = (0..1 << 19).map(|_| rng.next_f32() * 0.03 + 0.001).collect();
    let piece: Vec<u8> = if wide {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    } else {
        values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect()
    };
    let mut left = offset as usize;
    while left > 0 {
        let count = left.min(piece.len());
        file.write_all(&piece[..count]).unwrap();
        left -= count;
    }
    file.flush().unwrap();
}
