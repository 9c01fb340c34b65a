//! Long recordings: windows with context give what one pass gives, and no seam loses or doubles a word.

use std::path::Path;

use burn::tensor::Device;
use omniscribe::checkpoint::directory::FORMAT_VERSION;
use omniscribe::checkpoint::safetensors_file::Storage;
use omniscribe::checkpoint::{ModelConfig, ModelDirectory, weights};
use omniscribe::features::{FrontEndConfig, Normalization};
use omniscribe::kernel::rng::SplitMix;
use omniscribe::model::asr::AsrModel;
use omniscribe::model::config::EncoderConfig;
use omniscribe::pipeline::chunk::ChunkConfig;
use omniscribe::pipeline::region::Stretch;
use omniscribe::text::Tokenizer;
use omniscribe::units::SampleRate;
use omniscribe::{Precision, Transcriber};
use serde_json::{Value, json};

/// Windows and one pass compute the same sums in another grouping: differences are those of f32 in a few layers.
const SAME: f32 = 2e-4;

/// A model with random weights whose features do not depend on the rest of the recording.
fn model(folder: &Path, context: &Value, position: &Value, block: &Value) -> EncoderConfig {
    let encoder: EncoderConfig = serde_json::from_value(json!({
        "mels": 20, "d_model": 32, "n_layers": 3, "n_heads": 4, "d_ff": 48, "activation": "silu", "dropout": 0.0, "attention_bias": true,
        "scale_input": false, "subsampling": {"kind": "stacking", "factor": 4, "hidden": 24}, "position": position, "context": context,
        "block": block, "feed_forward": {"kind": "experts", "router": "omni", "groups": "3x4", "router_bias": false, "jitter": 0.0},
        "intermediate": {"layers": [2], "self_condition": true}
    }))
    .expect("configuration");
    let tokenizer = Tokenizer::characters(" abcdefghijklmnopqrstuvwxyz").expect("tokenizer");
    let weights = weights::collect(&AsrModel::new(&encoder, tokenizer.vocab_size(), 5, &Device::flex()).expect("model"));
    let normalization = Normalization::Global { mean: vec![-6.0; 20], std: vec![2.5; 20] };
    let front_end = FrontEndConfig::omniscribe(20, normalization);
    let config = ModelConfig { format_version: FORMAT_VERSION, name: "random".into(), front_end, encoder: encoder.clone() };
    ModelDirectory::save(folder, &config, &tokenizer, &weights, Storage::F32).expect("saved");
    encoder
}

/// Noise whose loudness and colour change, seconds long.
fn sound(seconds: f64) -> Vec<f32> {
    let mut rng = SplitMix::new(3);
    let mut low = 0.0;
    let samples = SampleRate::HZ_16000.samples(seconds);
    (0..samples)
        .map(|i| {
            let white = rng.next_f32() - 0.5;
            low += 0.1 * (white - low);
            let slow = (i as f32 / 16_000.0 * 2.3).sin();
            (0.3 + 0.25 * slow) * (white * (1.0 + slow) + low * (1.0 - slow))
        })
        .collect()
}

fn one_pass(transcriber: Transcriber, samples: &[f32]) -> (Transcriber, Stretch) {
    let whole = ChunkConfig { longest_seconds: 1e6, context_seconds: 0.0 };
    let transcriber = transcriber.with_chunks(&whole).expect("chunks");
    let stretch = transcriber.log_probs(samples).swap_remove(0);
    (transcriber, stretch)
}

#[test]
fn windows_of_a_model_with_limited_context_equal_one_pass() {
    let conformer = json!({"kind": "conformer", "kernel": 7, "norm": "layer", "convolution_bias": true});
    for (position, block) in [(json!({"kind": "rotary"}), conformer.clone()), (json!({"kind": "relative"}), json!({"kind": "transformer"}))]
    {
        let folder = tempfile::tempdir().expect("folder");
        let encoder = model(folder.path(), &json!({"kind": "window", "left": 9, "right": 4}), &position, &block);
        let (left, right) = encoder.receptive_field().expect("limited");
        let samples = sound(47.3);
        let open = || Transcriber::open(folder.path(), Device::flex(), Precision::F32).expect("opens");
        let (transcriber, whole) = one_pass(open(), &samples);
        let mut rng = SplitMix::new(8);
        let context_seconds = left.max(right) as f64 * 0.04;
        let mut transcriber = transcriber;
        for _ in 0..6 {
            let longest_seconds = 2.0 * context_seconds + 1.0 + 12.0 * f64::from(rng.next_f32());
            transcriber = transcriber.with_chunks(&ChunkConfig { longest_seconds, context_seconds }).expect("chunks");
            let windows = transcriber.log_probs(&samples);
            assert_eq!((windows.len(), windows[0].steps()), (1, whole.steps()));
            assert_eq!(windows[0].experts, whole.experts, "experts of every step");
            let apart = windows[0].log_probs.iter().zip(&whole.log_probs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart < SAME, "windows of {longest_seconds} s: {apart}");
        }
        // Less context than the model reads must show, or the test sees nothing.
        let short = ChunkConfig { longest_seconds: 5.0, context_seconds: context_seconds / 4.0 };
        let windows = transcriber.with_chunks(&short).expect("chunks").log_probs(&samples);
        let apart = windows[0].log_probs.iter().zip(&whole.log_probs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart > 10.0 * SAME, "{apart}");
    }
}

#[test]
fn a_model_with_limited_context_is_cut_without_a_trace_by_default() {
    let folder = tempfile::tempdir().expect("folder");
    model(folder.path(), &json!({"kind": "window", "left": 12, "right": 12}), &json!({"kind": "rotary"}), &json!({"kind": "transformer"}));
    let samples = sound(63.0);
    let transcriber = Transcriber::open(folder.path(), Device::flex(), Precision::F32).expect("opens");
    let windows = transcriber.log_probs(&samples).swap_remove(0);
    let (_, whole) = one_pass(transcriber, &samples);
    assert_eq!(windows.steps(), whole.steps());
    let apart = windows.log_probs.iter().zip(&whole.log_probs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart < SAME, "{apart}");
}

#[test]
fn receptive_fields() {
    let folder = tempfile::tempdir().expect("folder");
    let conformer = json!({"kind": "conformer", "kernel": 7, "norm": "layer", "convolution_bias": true});
    let field = |context: Value| model(folder.path(), &context, &json!({"kind": "rotary"}), &conformer).receptive_field();
    assert_eq!(field(json!({"kind": "full"})), None);
    assert_eq!(field(json!({"kind": "window", "left": 9, "right": 4})), Some((3 * (9 + 3) + 1, 3 * (4 + 3) + 1)));
}

/// The shipped model on its own samples, one after the other with pauses: cut or not, every word is heard once. Decoded as shipped: what a window
/// does to the neighbours of a letter may move one letter of a greedy text.
#[test]
fn no_word_is_lost_or_doubled_at_a_seam() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sample =
        omniscribe::audio::read_at(&root.join("assets/digits.wav"), SampleRate::HZ_16000, &Default::default()).expect("reads").samples;
    let transcriber = Transcriber::open(&root.join("models/base"), Device::flex(), Precision::F32).expect("opens");
    let alone = transcriber.transcribe_samples(&sample).text;
    assert_eq!(alone.split_whitespace().count(), 9, "{alone}");
    let mut stitched = Vec::new();
    for _ in 0..6 {
        stitched.extend_from_slice(&sample);
    }
    let mut transcriber = transcriber;
    let mut rng = SplitMix::new(1);
    let expected = [alone.as_str(); 6].join(" ");
    for _ in 0..4 {
        let longest_seconds = 8.0 + 12.0 * f64::from(rng.next_f32());
        transcriber = transcriber.with_chunks(&ChunkConfig { longest_seconds, context_seconds: 2.0 }).expect("chunks");
        let heard = transcriber.transcribe_samples(&stitched).text;
        assert_eq!(
            heard.split_whitespace().collect::<Vec<_>>(),
            expected.split_whitespace().collect::<Vec<_>>(),
            "windows of {longest_seconds} s"
        );
    }
}
