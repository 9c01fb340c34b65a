//! Streaming = offline: for every layer, for the whole encoder and for the whole path from samples to words, however the input is cut.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use omniscribe::audio::ring::{Heard, ring};
use omniscribe::audio::{Limits, Resampler, read};
use omniscribe::decode::beam::BeamConfig;
use omniscribe::decode::fusion::Scorers;
use omniscribe::kernel::rng::SplitMix;
use omniscribe::model::asr::AsrModel;
use omniscribe::model::block::Block;
use omniscribe::model::config::EncoderConfig;
use omniscribe::model::feed_forward::Lent;
use omniscribe::model::lengths::Lengths;
use omniscribe::model::ops::fused;
use omniscribe::model::pass::{Chunk, Pass};
use omniscribe::model::stream::{AsrStream, AttentionStream, BlockStream, ConvolutionStream, SubsamplingStream};
use omniscribe::pipeline::decoder::Decoding;
use omniscribe::pipeline::stream::{Endpointing, Event, Rule};
use omniscribe::units::SampleRate;
use omniscribe::{Precision, Transcriber, Word};
use serde_json::{Value, json};

/// f32 sums over other groupings of the same terms, through a few layers, relative to the largest value.
const SAME: f32 = 3e-5;
/// bfloat16 products round the same numbers; what differs before them in the last bit may round to the neighbour.
const SAME_BF16: f32 = 3e-2;

fn encoder(change: &Value) -> EncoderConfig {
    let mut value = json!({
        "mels": 12, "d_model": 32, "n_layers": 3, "n_heads": 4, "d_ff": 48, "activation": "silu", "dropout": 0.1, "attention_bias": true,
        "scale_input": false, "subsampling": {"kind": "stacking", "factor": 4, "hidden": 24}, "position": {"kind": "rotary"},
        "context": {"kind": "chunks", "sizes": [1, 2, 3, 8], "left": 16},
        "block": {"kind": "conformer", "kernel": 9, "norm": "layer", "convolution_bias": true},
        "feed_forward": {"kind": "experts", "router": "omni", "groups": "1x2-2x4", "router_bias": true, "jitter": 0.1},
        "intermediate": {"layers": [1, 2], "self_condition": true}
    });
    for (key, new) in change.as_object().expect("an object") {
        value[key] = new.clone();
    }
    serde_json::from_value(value).expect("configuration")
}

/// Every kind of every stage that can stream.
fn encoders() -> Vec<(&'static str, EncoderConfig)> {
    let cape = json!({"kind": "cape", "freq_scale": 30.0, "delta": 0.03, "content_scale": 1.5, "normalize": false, "max_global_shift": 0.5,
        "max_local_shift": 0.5, "max_global_scaling": 1.2});
    let conformer = |kernel: usize, norm: &str| json!({"kind": "conformer", "kernel": kernel, "norm": norm, "convolution_bias": false});
    let striding = |factor: usize| json!({"kind": "convolution", "factor": factor, "channels": 5});
    let all = [
        ("rotary, stacking, omni, self-conditioned", json!({})),
        (
            "relative, striding by 8, batch norm, dense",
            json!({"position": {"kind": "relative"}, "subsampling": striding(8),
            "block": conformer(7, "batch"), "feed_forward": {"kind": "dense"}, "intermediate": null, "scale_input": true}),
        ),
        (
            "relative, striding by 4, long kernel",
            json!({"position": {"kind": "relative"}, "subsampling": striding(4), "block": conformer(15, "layer")}),
        ),
        (
            "transformer, cape, striding by 2, switch",
            json!({"position": cape, "subsampling": striding(2), "block": {"kind": "transformer"},
            "feed_forward": {"kind": "experts", "router": "switch", "groups": "3x3", "router_bias": false, "jitter": 0.0}}),
        ),
        (
            "no positions, one tap, stacking without a hidden layer",
            json!({"position": {"kind": "none"}, "block": conformer(1, "layer"),
            "subsampling": {"kind": "stacking", "factor": 3, "hidden": null}, "intermediate": {"layers": [2], "self_condition": false}}),
        ),
        (
            "two of four experts by sigmoids",
            json!({"feed_forward": {"kind": "sigma", "router": "omni", "groups": "3x4", "top_k": 2,
            "expert_dropout": 0.1}}),
        ),
        (
            "memory",
            json!({"feed_forward": {"kind": "memory", "layers": [1, 3], "subkeys": 5, "query": 6, "heads": 2, "top_k": 2,
            "weighting": "relu"}}),
        ),
        ("strata", json!({"feed_forward": {"kind": "strata", "router": "switch", "strata": [2, 3]}})),
        (
            "a shared router that adapts to running clusters",
            json!({"feed_forward": {"kind": "adaptive", "router": "omni", "groups": "3x4",
            "statistics": {"kind": "running", "momentum": 0.9}}}),
        ),
    ];
    all.into_iter().map(|(name, change)| (name, encoder(&change))).collect()
}

fn model(config: &EncoderConfig, seed: u64) -> AsrModel {
    AsrModel::new(config, 11, seed, &Device::flex()).expect("a valid configuration")
}

fn random(rng: &mut SplitMix, count: usize) -> Vec<f32> {
    (0..count).map(|_| rng.next_normal()).collect()
}

fn tensor(values: Vec<f32>, shape: [usize; 3]) -> Tensor<3> {
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

fn values(x: Tensor<3>) -> Vec<f32> {
    x.into_data().try_into_vec().expect("f32")
}

#[track_caller]
fn same(what: &str, tolerance: f32, stream: &[f32], offline: &[f32]) {
    assert_eq!(stream.len(), offline.len(), "{what}: length");
    let largest = offline.iter().fold(1e-3f32, |m, x| m.max(x.abs()));
    let worst = stream.iter().zip(offline).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= tolerance * largest, "{what}: {worst:e} of {largest}");
}

/// Rows of `width` values cut into random pieces of up to `most` multiples of `unit` rows.
fn pieces<'a>(all: &'a [f32], width: usize, unit: usize, most: u64, rng: &mut SplitMix) -> Vec<&'a [f32]> {
    let (mut rest, mut out) = (all, Vec::new());
    while !rest.is_empty() {
        let rows = (rng.next_u64() % (most + 1)) as usize * unit;
        let (now, later) = rest.split_at((rows * width).min(rest.len()));
        out.push(now);
        rest = later;
    }
    out
}

fn chunks(config: &EncoderConfig) -> Vec<Chunk> {
    config.context.chunk_sizes().iter().filter_map(|&steps| config.context.chunk(steps)).collect()
}

#[test]
fn every_layer_streams_as_it_runs_offline() {
    let mut rng = SplitMix::new(1);
    for (name, config) in encoders() {
        let model = model(&config, 3);
        let (d, steps) = (config.d_model, 61);
        let x = random(&mut rng, steps * d);
        let whole = tensor(x.clone(), [1, steps, d]);
        let lengths = Lengths::full(1, steps);
        for chunk in chunks(&config) {
            let pass = Pass::inference(Precision::F32).with_chunk(Some(chunk));
            let block: &Block = &model.encoder.blocks[1];
            let lent = Lent { router: model.encoder.routers.last(), ..Lent::default() };
            // One state at a time, twice: a reset forgets everything.
            let mut run = |what: &str, offline: Tensor<3>, step: &mut dyn FnMut(Option<Tensor<3>>) -> Option<Tensor<3>>| {
                let offline = values(offline);
                for _ in 0..2 {
                    let parts = pieces(&x, d, chunk.steps, 4, &mut rng);
                    let outputs =
                        parts.iter().filter(|p| !p.is_empty()).filter_map(|p| step(Some(tensor(p.to_vec(), [1, p.len() / d, d]))));
                    let streamed: Vec<f32> = outputs.flat_map(values).collect();
                    step(None);
                    same(&format!("{name}, {what}, {chunk:?}"), SAME, &streamed, &offline);
                }
            };
            let mut attention = AttentionStream::new(chunk);
            run("attention", block.attention.forward(whole.clone(), &lengths, &pass), &mut |x| match x {
                Some(x) => Some(attention.step(&block.attention, x, &pass)),
                None => {
                    attention.flush();
                    None
                }
            });
            if let Some(branch) = &block.convolution {
                let mut convolution = ConvolutionStream::new(&branch.module, chunk);
                run("convolution", branch.module.forward(whole.clone(), &lengths, &pass), &mut |x| match x {
                    Some(x) => Some(convolution.step(&branch.module, x, &pass)),
                    None => {
                        convolution.flush();
                        None
                    }
                });
            }
            let mut state = BlockStream::new(block, chunk);
            run("block", block.forward(whole.clone(), &lengths, lent, &pass).0, &mut |x| match x {
                Some(x) => Some(state.step(block, x, lent, &pass).0),
                None => {
                    state.flush();
                    None
                }
            });
        }
    }
}

#[test]
fn subsampling_streams_as_it_runs_offline() {
    let mut rng = SplitMix::new(2);
    let device = Device::flex();
    for (name, config) in encoders() {
        let model = model(&config, 4);
        let stage = &model.encoder.subsampling;
        for chunk in chunks(&config) {
            let pass = Pass::inference(Precision::F32).with_chunk(Some(chunk));
            let mut stream = SubsamplingStream::new(&config.subsampling, config.mels, chunk);
            for frames in [1, 2, 7, 16, 63, 64, 65, 130] {
                let x = random(&mut rng, frames * config.mels);
                let offline = values(stage.forward(tensor(x.clone(), [1, frames, config.mels]), &Lengths::full(1, frames), &pass));
                let mut streamed = Vec::new();
                for piece in pieces(&x, config.mels, 1, 40, &mut rng) {
                    streamed.extend(stream.step(stage, piece, &device, &pass).into_iter().flat_map(values));
                    let behind = frames.min(stream.delay()) / config.subsampling.factor() + 1;
                    assert!(streamed.len() / config.d_model + behind >= piece.len() / config.mels / config.subsampling.factor());
                }
                streamed.extend(stream.flush(stage, &device, &pass).into_iter().flat_map(values));
                same(&format!("{name}, {chunk:?}, {frames} frames"), SAME, &streamed, &offline);
            }
        }
    }
}

/// Streams `x` in random pieces; logits, then the middle heads'.
fn streamed(model: &AsrModel, stream: &mut AsrStream, x: &[f32], mels: usize, rng: &mut SplitMix) -> Vec<Vec<f32>> {
    let mut outputs: Vec<Vec<f32>> = Vec::new();
    let mut take = |output: omniscribe::model::stream::StreamOutput| {
        outputs.resize(1 + output.intermediate.len(), Vec::new());
        for (all, new) in outputs.iter_mut().zip(std::iter::once(output.logits).chain(output.intermediate)) {
            all.extend(values(new));
        }
    };
    for piece in pieces(x, mels, 1, 50, rng) {
        stream.step(model, piece).into_iter().for_each(&mut take);
    }
    stream.flush(model).into_iter().for_each(&mut take);
    outputs
}

#[test]
fn the_encoder_streams_as_it_runs_offline() {
    let mut rng = SplitMix::new(3);
    for (name, config) in encoders() {
        let model = model(&config, 5);
        for chunk in chunks(&config) {
            for (precision, tolerance) in [(Precision::F32, SAME), (Precision::Bf16, SAME_BF16)] {
                let pass = Pass::inference(precision).with_chunk(Some(chunk));
                let mut stream = AsrStream::new(&model, chunk, precision).expect("it streams");
                for frames in [1, 30, 333] {
                    let x = random(&mut rng, frames * config.mels);
                    let features = tensor(x.clone(), [1, frames, config.mels]);
                    let offline = model.forward(features, &Lengths::full(1, frames), &pass);
                    let offline: Vec<Vec<f32>> = std::iter::once(offline.logits).chain(offline.intermediate).map(values).collect();
                    let online = streamed(&model, &mut stream, &x, config.mels, &mut rng);
                    assert_eq!(online.len(), offline.len());
                    for (head, (a, b)) in online.iter().zip(&offline).enumerate() {
                        same(&format!("{name}, {chunk:?}, {precision:?}, {frames} frames, head {head}"), tolerance, a, b);
                    }
                }
            }
        }
    }
}

#[test]
fn the_composed_operations_stream_too() {
    let mut rng = SplitMix::new(4);
    for (name, config) in encoders() {
        let model = model(&config, 6);
        let chunk = chunks(&config)[1];
        let x = random(&mut rng, 99 * config.mels);
        let run = |rng: &mut SplitMix| {
            let mut stream = AsrStream::new(&model, chunk, Precision::F32).expect("it streams");
            streamed(&model, &mut stream, &x, config.mels, rng)
        };
        let (fused_form, composed) = (run(&mut rng), fused::composed(|| run(&mut SplitMix::new(9))));
        same(name, SAME, &fused_form[0], &composed[0]);
    }
}

#[test]
fn other_contexts_do_not_stream() {
    for context in [json!({"kind": "full"}), json!({"kind": "window", "left": 5, "right": 1})] {
        let config = encoder(&json!({ "context": context }));
        let error = AsrStream::new(&model(&config, 1), Chunk { steps: 2, left_chunks: 8 }, Precision::F32).unwrap_err().to_string();
        assert!(error.contains("cannot stream"), "{error}");
    }
    let config = encoder(&json!({}));
    let wrong = Chunk { steps: 4, left_chunks: 4 };
    assert!(AsrStream::new(&model(&config, 1), wrong, Precision::F32).is_err());
}

/// The shipped model as one that streams: the same weights, another context where it has none.
pub fn streaming_model() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("folder");
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/base");
    for file in ["model.safetensors", "decoding.json", "language.lm"] {
        std::os::unix::fs::symlink(base.join(file), folder.path().join(file)).expect("linked");
    }
    let mut tokenizer = std::fs::read_to_string(base.join("tokenizer.json")).expect("its tokenizer");
    let text = std::fs::read_to_string(base.join("config.json")).expect("its configuration");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    if config["encoder"]["context"]["kind"] != "chunks" {
        config["encoder"]["context"] = json!({"kind": "chunks", "sizes": [4, 8, 16, 32], "left": 128});
        // In chunks that they were not trained for, such weights hear letters but no spaces: one letter takes their place.
        let swap = |c| {
            if c == ' ' {
                'n'
            } else if c == 'n' {
                ' '
            } else {
                c
            }
        };
        let (head, characters) = tokenizer.rsplit_once(": \"").expect("characters at its end");
        tokenizer = format!("{head}: \"{}", characters.replace("\n", "").chars().map(swap).collect::<String>());
    }
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer).expect("written");
    std::fs::write(folder.path().join("config.json"), config.to_string()).expect("written");
    folder
}

fn asset(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets").join(name)
}

fn samples(name: &str) -> Vec<f32> {
    let wave = read(&asset(name), &Limits::default()).expect("an asset");
    omniscribe::audio::resample(&wave.samples, wave.sample_rate, SampleRate::HZ_16000).expect("resampled")
}

/// Nothing ends an utterance but the end of the audio.
const ENDLESS: Endpointing = Endpointing { silence: 250.0, pause: 250.0, longest: 300.0 };

fn open(folder: &Path, decoding: &Decoding) -> Transcriber {
    Transcriber::open(folder, Device::flex(), Precision::F32).expect("opened").with_decoding(decoding).expect("decoding")
}

/// All events of `samples` given in random blocks.
fn events(transcriber: &Transcriber, rate: SampleRate, samples: &[f32], chunk_ms: u32, rules: Endpointing, seed: u64) -> Vec<Event> {
    let mut stream = transcriber.stream(rate, chunk_ms, rules).expect("a stream");
    let (mut rng, mut events) = (SplitMix::new(seed), Vec::new());
    for piece in pieces(samples, 1, 1, 9000, &mut rng) {
        stream.step(piece, &mut events);
    }
    stream.flush(&mut events);
    check(&events);
    events
}

/// What holds for any stream: final words come in order, once, and endpoints tell what was final.
fn check(events: &[Event]) {
    let (mut segment, mut said, mut last) = (0, Vec::new(), 0.0);
    for event in events {
        match event {
            Event::Partial { segment: s, words, heard, .. } => {
                assert_eq!(*s, segment);
                assert!(words.iter().all(|w| w.start <= *heard && w.end <= *heard + 0.04), "from the future: {words:?} at {heard}");
            }
            Event::Final { segment: s, words, text, .. } => {
                assert_eq!(*s, segment);
                assert_eq!(words.iter().map(|w| w.word.as_str()).collect::<Vec<_>>().join(" "), *text);
                for word in words {
                    assert!(word.start >= last - 1e-9 && word.end >= word.start, "{word:?} after {last}");
                    last = word.end;
                }
                said.extend(words.iter().map(|w| w.word.clone()));
            }
            Event::Endpoint { segment: s, text, .. } => {
                assert_eq!((*s, said.join(" ")), (segment, text.clone()));
                said.clear();
                segment += 1;
            }
        }
    }
    assert!(said.is_empty(), "words without an end: {said:?}");
}

fn finals(events: &[Event]) -> Vec<Word> {
    let words = events.iter().filter_map(|event| if let Event::Final { words, .. } = event { Some(words.clone()) } else { None });
    words.flatten().collect()
}

#[track_caller]
fn same_words(what: &str, ours: &[Word], offline: &[Word]) {
    let text = |words: &[Word]| words.iter().map(|w| w.word.as_str()).collect::<Vec<_>>().join(" ");
    assert_eq!(text(ours), text(offline), "{what}");
    for (a, b) in ours.iter().zip(offline) {
        let close = (a.start - b.start).abs() < 1e-6 && (a.end - b.end).abs() < 1e-6 && (a.confidence - b.confidence).abs() < 1e-3;
        assert!(close, "{what}: {a:?}, offline {b:?}");
    }
}

#[test]
fn the_whole_path_streams_as_it_runs_offline() {
    let folder = streaming_model();
    let beam = Decoding::Beam { config: BeamConfig { beam_width: 16, ..BeamConfig::default() }, scorers: Scorers::default() };
    let tuned = Decoding::of_model(folder.path()).expect("decoding");
    for (name, decoding) in [("greedy", Decoding::Greedy), ("beam", beam), ("beam with a language model", tuned)] {
        let transcriber = open(folder.path(), &decoding);
        for (file, chunk_ms) in [("digits.wav", 160), ("river.wav", 640)] {
            let samples = samples(file);
            let events = events(&transcriber, SampleRate::HZ_16000, &samples, chunk_ms, ENDLESS, u64::from(chunk_ms));
            let offline = open(folder.path(), &decoding).with_stream_context(chunk_ms).expect("chunks").transcribe_samples(&samples);
            assert!(offline.words.len() > 3, "{name}: {}", offline.text);
            same_words(&format!("{name}, {file}, {chunk_ms} ms"), &finals(&events), &offline.words);
            let early =
                events.iter().take_while(|e| !matches!(e, Event::Endpoint { .. })).filter(|e| matches!(e, Event::Final { .. })).count();
            assert!(early >= 1, "{name}: {early} times words became final before the end");
        }
    }
}

#[test]
fn a_driver_of_any_rate_and_format_is_heard_through_the_ring() {
    let folder = streaming_model();
    let transcriber = open(folder.path(), &Decoding::Greedy);
    let mut at_48k = Vec::new();
    let mut up = Resampler::new(SampleRate::HZ_16000, SampleRate(48_000)).expect("resampler");
    up.step(&samples("digits.wav"), &mut at_48k);
    up.flush(&mut at_48k);
    let quantized: Vec<f32> = at_48k.iter().map(|x| (x * 32768.0).round().clamp(-32768.0, 32767.0) / 32768.0).collect();
    let direct = events(&transcriber, SampleRate(48_000), &quantized, 320, ENDLESS, 1);
    // The fake driver: 16-bit stereo in periods of 441 frames, from a thread of its own, while the model is not yet there.
    let (mut writer, mut reader) = ring(1 << 20);
    let interleaved: Vec<i16> = quantized.iter().flat_map(|x| [(x * 32768.0) as i16; 2]).collect();
    let driver = std::thread::spawn(move || {
        for period in interleaved.chunks(2 * 441) {
            writer.write(period.iter().map(|&x| f32::from(x) / 32768.0), 2);
        }
        writer.end(Some("unplugged".into()));
    });
    driver.join().expect("the driver ends");
    let mut stream = transcriber.stream(SampleRate(48_000), 320, ENDLESS).expect("a stream");
    let (mut block, mut events) = (Vec::new(), Vec::new());
    let reason = loop {
        match reader.read(&mut block) {
            Heard::End(reason) => break reason,
            Heard::Samples => block.chunks(1_000).for_each(|part| stream.step(part, &mut events)),
            Heard::Nothing => {}
        }
        block.clear();
    };
    stream.flush(&mut events);
    assert_eq!((reason.as_deref(), reader.lost()), (Some("unplugged"), (0, 0)));
    same_words("through the ring", &finals(&events), &finals(&direct));
}

#[test]
fn pauses_end_utterances_and_long_ones_are_cut_between_words() {
    let folder = streaming_model();
    let transcriber = open(folder.path(), &Decoding::Greedy);
    let speech = samples("digits.wav");
    let mut audio = vec![0.0; 16_000];
    for _ in 0..2 {
        audio.extend_from_slice(&speech);
        audio.extend(vec![0.0; 5 * 16_000]);
    }
    let all = events(&transcriber, SampleRate::HZ_16000, &audio, 320, Endpointing::default(), 5);
    let ends: Vec<(Rule, f64, f64, &str)> = all
        .iter()
        .filter_map(
            |e| if let Event::Endpoint { rule, end, heard, text, .. } = e { Some((*rule, *end, *heard, text.as_str())) } else { None },
        )
        .collect();
    assert!(ends.len() >= 2, "{ends:?}");
    for &(rule, end, heard, _) in ends.iter().filter(|e| e.0 == Rule::Pause) {
        let silence = heard - end;
        assert!((1.2..3.0).contains(&silence), "{rule:?} after {silence} s");
    }
    // Both times the same was said, and the second time is the first one later.
    let words = finals(&all);
    let period = (speech.len() + 5 * 16_000) as f64 / 16_000.0;
    let half = words.iter().filter(|w| w.start < 1.0 + period).count();
    assert!(words.len() >= 2 * half - 2 && half > 3, "{words:?}");
    // Utterances of at most two seconds: cuts lie between words, nothing is lost that another cut would not change.
    let short = events(&transcriber, SampleRate::HZ_16000, &speech, 160, Endpointing { longest: 2.0, ..ENDLESS }, 6);
    let cuts = short.iter().filter(|e| matches!(e, Event::Endpoint { rule: Rule::Length, .. })).count();
    let uncut = events(&transcriber, SampleRate::HZ_16000, &speech, 160, ENDLESS, 6);
    assert!(cuts >= 2, "{cuts} cuts");
    // What lies before a cut cannot widen the word after it: its start may be up to three steps later.
    let (short, uncut) = (finals(&short), finals(&uncut));
    let text = |words: &[Word]| words.iter().map(|w| w.word.as_str()).collect::<Vec<_>>().join(" ");
    assert_eq!(text(&short), text(&uncut));
    assert!(
        short.iter().zip(&uncut).all(|(a, b)| (0.0..0.13).contains(&(a.start - b.start + 1e-9)) && (a.end - b.end).abs() < 1e-6),
        "{short:?}"
    );
}

#[test]
fn greedy_words_never_flicker() {
    let folder = streaming_model();
    for (decoding, most) in [(Decoding::Greedy, 0.0), (Decoding::of_model(folder.path()).expect("decoding"), 2.0)] {
        let transcriber = open(folder.path(), &decoding);
        let mut stream = transcriber.stream(SampleRate::HZ_16000, 160, Endpointing::default()).expect("a stream");
        let mut events = Vec::new();
        for file in ["digits.wav", "river.wav"] {
            samples(file).chunks(800).for_each(|block| stream.step(block, &mut events));
            stream.flush(&mut events);
        }
        let steady = stream.stability();
        println!("{}: {steady:?}, flicker {:.3}", decoding.describe(), steady.flicker());
        assert!(steady.final_words > 8 && steady.flicker() <= most, "{steady:?}");
    }
}
