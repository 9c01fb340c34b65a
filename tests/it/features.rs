//! The front end against golden features of other packages, its streaming form against its offline form, and its knobs.

use std::collections::BTreeMap;
use std::f64::consts::PI;

use omniscribe::features::{FrontEnd, FrontEndConfig, FrontEndStream, LogMel, Normalization, Window, normalize_waveform};
use proptest::prelude::*;
use serde_json::json;

use crate::oracle::{self, Golden, assert_close};

/// Two independent f32 implementations differ by this much where a band holds little of a frame's energy.
const FBANK_MAX: f64 = 2e-2;
const FBANK_MEAN: f64 = 1e-4;
/// A pure tone leaves the far bands to the rounding noise of the f32 FFT: only the mean and the energies are comparable.
const FBANK_TONE_MEAN: f64 = 1e-2;
const FBANK_TONE_MEAN_ICEFALL: f64 = 1e-3;
const FBANK_TONE_ENERGY: f64 = 1e-5;
/// Five times what the reference package differs by from its own float64.
const WHISPER: f64 = 2e-4;
/// The reference's own f32 is 5e-4 (tones) and 2.6e-4 from its float64.
const PARAKEET_PRENORM_TONE: f64 = 2e-3;
const PARAKEET_PRENORM: f64 = 3e-4;
/// The reference's own f32 is 1.2e-4 from its float64.
const PARAKEET: f64 = 5e-4;
/// Deviation near the epsilon of 1e-5: the reference's own f32 is 0.22 from its float64.
const PARAKEET_TINY: f64 = 0.5;
/// f32 rounding of a whole waveform's statistics.
const WAV2VEC2: f64 = 1e-5;
/// f32 rounding of weights below 0.05.
const MEL_FILTERS: f64 = 1e-8;

fn waves() -> BTreeMap<String, Vec<f32>> {
    oracle::tensors("01_features/waves.safetensors").into_iter().map(|(name, golden)| (name, golden.f32())).collect()
}

fn front_end(config: FrontEndConfig) -> FrontEnd {
    FrontEnd::new(config).expect("a preset")
}

fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

fn transposed(golden: &Golden) -> Vec<f64> {
    let [rows, columns] = golden.shape[..] else { panic!("not a matrix: {:?}", golden.shape) };
    (0..rows * columns).map(|i| golden.values[(i % rows) * columns + i / rows]).collect()
}

/// `single128_mask/speech_a` -> (`single`, 128, `_mask`, `speech_a`).
fn parts(name: &str) -> (&str, usize, &str, &str) {
    let (kind, wave) = name.split_once('/').unwrap_or((name, ""));
    // The count of mels is the last digits before the suffix: `hf30s80_fill`.
    let (stem, suffix) = kind.split_at(kind.find('_').filter(|_| !kind.starts_with("mel_")).unwrap_or(kind.len()));
    let digits = stem.len() - stem.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let (stem, mels) = stem.split_at(stem.len() - digits);
    (stem, mels.parse().unwrap_or_else(|_| panic!("no mel count in {name}")), suffix, wave)
}

fn fbank(name: &str) -> FrontEndConfig {
    match name {
        "k1_icefall" => FrontEndConfig::icefall(),
        "k2_kaldi" => FrontEndConfig::kaldi(),
        "k3_hamming" => FrontEndConfig { window: Window::Hamming, ..FrontEndConfig::kaldi() },
        other => panic!("no configuration for {other}"),
    }
}

fn assert_fbank(what: &str, ours: &LogMel, golden: &Golden) {
    assert_eq!([ours.frames, ours.mels], golden.shape[..], "{what}: shape");
    let values = widen(&ours.values);
    let tone = what.ends_with("/sine_sweep");
    let mean = values.iter().zip(&golden.values).map(|(a, b)| (a - b).abs()).sum::<f64>() / values.len().max(1) as f64;
    let limit = match tone {
        true if what.contains("k1_icefall") => FBANK_TONE_MEAN_ICEFALL,
        true => FBANK_TONE_MEAN,
        false => FBANK_MEAN,
    };
    assert!(mean <= limit, "{what}: mean difference {mean:e}, limit {limit:e}");
    if !tone {
        return assert_close(what, &values, &golden.values, FBANK_MAX);
    }
    for (frame, (a, b)) in values.chunks(ours.mels).zip(golden.values.chunks(ours.mels)).enumerate() {
        let energies = |row: &[f64]| row.iter().map(|x| x.exp()).collect::<Vec<_>>();
        let loudest = b.iter().fold(f64::NEG_INFINITY, |m, &x| m.max(x)).exp();
        assert_close(&format!("{what} energies of frame {frame}"), &energies(a), &energies(b), FBANK_TONE_ENERGY * loudest);
    }
}

#[test]
fn oracle_fbank() {
    let waves = waves();
    for file in ["fbank_torchaudio", "fbank_knf", "fbank_torchaudio_f64"] {
        let tensors = oracle::tensors(&format!("01_features/{file}.safetensors"));
        assert!(!tensors.is_empty(), "{file} is empty");
        for (name, golden) in tensors {
            let (config, wave) = name.split_once('/').expect("<cfg>/<wave>");
            assert_fbank(&format!("{file}: {name}"), &front_end(fbank(config)).compute(&waves[wave]), &golden);
        }
    }
}

#[test]
fn oracle_whisper() {
    let waves = waves();
    let tensors = oracle::tensors("01_features/whisper_logmel.safetensors");
    for (name, golden) in &tensors {
        let (stem, mels, suffix, wave) = parts(name);
        let front_end = front_end(FrontEndConfig::whisper(mels));
        match (stem, suffix) {
            ("openai", "") => {
                let ours = front_end.compute(&waves[wave]);
                assert_eq!([ours.mels, ours.frames], golden.shape[..], "{name}: shape");
                assert_close(name, &widen(&ours.values), &transposed(golden), WHISPER);
            }
            ("hf30s", "") => {
                let mut padded = waves[wave].clone();
                padded.resize(30 * 16_000, 0.0);
                let ours = front_end.compute(&padded);
                assert_eq!((ours.mels, ours.frames), (golden.shape[0], 3000), "{name}: shape");
                let (head, tail) = ours.values.split_at(golden.values.len());
                assert_close(name, &widen(head), &transposed(golden), WHISPER);
                let fill = tensors[&format!("{stem}{mels}_fill/{wave}")].values[0];
                assert_close(&format!("{name} after its end"), &widen(tail), &vec![fill; tail.len()], WHISPER);
            }
            ("hf30s", "_fill") => assert!(tensors.contains_key(&format!("{stem}{mels}/{wave}")), "{name} without its frames"),
            ("mel_filters", "") => assert_close(name, &widen(&front_end.mel_filters()), &transposed(golden), MEL_FILTERS),
            _ => panic!("no test for {name}"),
        }
    }
}

fn assert_parakeet(what: &str, wave: &str, ours: &[f32], golden: &[f64]) {
    assert!(ours.iter().all(|x| x.is_finite()), "{what}: not finite");
    // Two valid frames or fewer give the reference NaN; digital silence gives it rounding noise over epsilon.
    if golden.iter().any(|x| !x.is_finite()) {
        return;
    }
    match wave {
        "silence" => assert!(ours.iter().all(|x| x.abs() <= 1.0), "{what}: silence is not flat"),
        "tiny_noise" if !what.contains("_f64") => {}
        "tiny_noise" => assert_close(what, &widen(ours), golden, PARAKEET_TINY),
        _ => assert_close(what, &widen(ours), golden, PARAKEET),
    }
}

#[test]
fn oracle_parakeet() {
    let waves = waves();
    let tensors = oracle::tensors("01_features/parakeet_features.safetensors");
    let report = oracle::json("01_features/report.json");
    for (name, golden) in &tensors {
        let (stem, mels, suffix, wave) = parts(name);
        let front_end = front_end(FrontEndConfig::parakeet(mels));
        match (stem, suffix) {
            ("prenorm", "" | "_f64") => {
                let ours = front_end.log_mel(&waves[wave]);
                assert_eq!([ours.frames, ours.mels], golden.shape[..], "{name}: shape");
                let limit = if wave == "sine_sweep" { PARAKEET_PRENORM_TONE } else { PARAKEET_PRENORM };
                let exact = naive_parakeet(&waves[wave], &tensors[&format!("mel_filters{mels}")].values);
                assert_close(&format!("{name} by definition"), &widen(&ours.values), &exact, limit);
                // Quiet bands of loud frames hold the golden's own f32 rounding, up to 3.7e-4: that much is not ours to match.
                let beyond: Vec<f64> = ours
                    .values
                    .iter()
                    .zip(golden.values.iter().zip(&exact))
                    .map(|(&x, (golden, exact))| ((f64::from(x) - golden).abs() - (golden - exact).abs()).max(0.0))
                    .collect();
                assert_close(name, &beyond, &vec![0.0; beyond.len()], limit);
            }
            ("single", "" | "_f64") => {
                let ours = front_end.compute(&waves[wave]);
                assert_eq!([ours.frames, ours.mels], golden.shape[..], "{name}: shape");
                assert_parakeet(name, wave, &ours.values, &golden.values);
            }
            ("single", "_mask") => {
                let samples = waves[wave].len();
                let mask: Vec<f64> = (0..front_end.num_frames(samples)).map(|f| f64::from(f < front_end.valid_frames(samples))).collect();
                assert_eq!(mask, golden.values, "{name}");
            }
            ("batch", "") => {
                let order = report["parakeet"][format!("batch{mels}_order")].as_array().expect("order of the batch");
                let [rows, frames, _] = golden.shape[..] else { panic!("{name}: shape {:?}", golden.shape) };
                assert_eq!(rows, order.len(), "{name}: utterances");
                let (mask, lengths) = (&tensors[&format!("batch{mels}_mask")], tensors[&format!("batch{mels}_lengths_samples")].indices());
                for (row, wave) in order.iter().map(|w| w.as_str().expect("name")).enumerate() {
                    assert_eq!(lengths[row], waves[wave].len(), "{name}: length of {wave}");
                    let valid = front_end.valid_frames(lengths[row]);
                    assert_eq!(mask.values[row * frames..][..frames].iter().sum::<f64>(), valid as f64, "{name}: mask of {wave}");
                    let ours = front_end.compute(&waves[wave]);
                    let golden = &golden.values[row * frames * mels..][..valid * mels];
                    assert_parakeet(&format!("{name} {wave}"), wave, &ours.values[..valid * mels], golden);
                }
            }
            ("batch", "_mask" | "_lengths_samples") => assert!(tensors.contains_key(&format!("batch{mels}")), "{name} without its batch"),
            ("mel_filters", "") => assert_close(name, &widen(&front_end.mel_filters()), &golden.values, MEL_FILTERS),
            _ => panic!("no test for {name}"),
        }
    }
}

#[test]
fn oracle_wav2vec2_waveform() {
    let waves = waves();
    let tensors = oracle::tensors("01_features/wav2vec2_norm.safetensors");
    let normalized = |wave: &str| {
        let mut samples = waves[wave].clone();
        normalize_waveform(&mut samples);
        widen(&samples)
    };
    for (name, golden) in &tensors {
        match name.split_once('/') {
            Some(("single", wave)) => assert_close(name, &normalized(wave), &golden.values, WAV2VEC2),
            None if name == "batch" => {
                let report = oracle::json("01_features/report.json");
                let order = report["wav2vec2"]["batch_order"].as_array().expect("order of the batch");
                let [rows, longest] = golden.shape[..] else { panic!("{name}: shape {:?}", golden.shape) };
                assert_eq!(rows, order.len(), "{name}: utterances");
                for (row, wave) in order.iter().map(|w| w.as_str().expect("name")).enumerate() {
                    let mut ours = normalized(wave);
                    let mask: Vec<f64> = (0..longest).map(|i| f64::from(i < ours.len())).collect();
                    assert_eq!(mask, tensors["batch_mask"].values[row * longest..][..longest], "{name}: mask of {wave}");
                    ours.resize(longest, 0.0);
                    assert_close(&format!("{name} {wave}"), &ours, &golden.values[row * longest..][..longest], WAV2VEC2);
                }
            }
            None if name == "batch_mask" => assert!(tensors.contains_key("batch"), "{name} without its batch"),
            _ => panic!("no test for {name}"),
        }
    }
}

fn blend() -> Normalization {
    Normalization::Blend { weight: 0.7, mean: (0..80).map(|m| -6.0 + 0.05 * m as f32).collect(), std: vec![2.5; 80] }
}

fn presets() -> Vec<FrontEndConfig> {
    vec![
        FrontEndConfig::kaldi(),
        FrontEndConfig::icefall(),
        FrontEndConfig::whisper(80),
        FrontEndConfig::parakeet(80),
        FrontEndConfig::parakeet(128),
        FrontEndConfig::omniscribe(80, blend()),
        // Sizes that divide nothing: odd window, odd FFT, short hop.
        FrontEndConfig { n_fft: 333, window_samples: 301, hop: 77, mels: 20, ..FrontEndConfig::icefall() },
        FrontEndConfig { n_fft: 333, window_samples: 301, hop: 301, mels: 20, ..FrontEndConfig::whisper(20) },
    ]
}

/// Noise with a tone in it, in [-0.6, 0.6].
fn signal(samples: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    (0..samples)
        .map(|i| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            0.2 * ((state >> 8) as f32 / (1 << 23) as f32 - 1.0) + 0.4 * (i as f32 * 0.3).sin()
        })
        .collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn streaming_equals_offline_bit_for_bit(
        preset in 0..presets().len(),
        samples in prop_oneof![0usize..1200, 0usize..9000],
        seed: u32,
        steps in prop::collection::vec(prop_oneof![0usize..4, 0usize..700, 0usize..5000], 1..40),
    ) {
        let front_end = front_end(presets().swap_remove(preset));
        let signal = signal(samples, seed);
        let offline = front_end.log_mel(&signal);
        prop_assert_eq!(offline.frames, front_end.num_frames(samples));
        let mut stream = FrontEndStream::new(&front_end);
        stream.step(&signal[..samples / 3]);
        stream.reset();
        // The second round shows that `flush` leaves a stream as new.
        for _ in 0..2 {
            let (mut streamed, mut frames, mut at) = (Vec::new(), 0, 0);
            for step in &steps {
                let end = (at + step).min(samples);
                let out = stream.step(&signal[at..end]);
                at = end;
                frames += out.frames;
                let hop = front_end.config().hop;
                let due = at.checked_sub(stream.delay()).map_or(0, |past| past / hop + 1);
                prop_assert_eq!(frames, due, "frames out after {} samples", at);
                streamed.extend(out.values);
            }
            streamed.extend(stream.step(&signal[at..]).values);
            streamed.extend(stream.flush().values);
            prop_assert_eq!(bits(&streamed), bits(&offline.values));
        }
    }

    #[test]
    fn chunks_with_shared_statistics_equal_one_pass(preset in 0..presets().len(), samples in 1usize..9000, chunk in 1usize..3000) {
        let front_end = front_end(presets().swap_remove(preset));
        let signal = signal(samples, 7);
        let whole = front_end.compute(&signal);
        let mut stream = FrontEndStream::new(&front_end);
        let mut pieces: Vec<LogMel> = signal.chunks(chunk).map(|piece| stream.step(piece)).collect();
        pieces.push(stream.flush());
        let mut values: Vec<f32> = pieces.into_iter().flat_map(|piece| piece.values).collect();
        values.truncate(front_end.valid_frames(samples) * whole.mels);
        let mut statistics = front_end.statistics();
        values.chunks(3 * whole.mels).for_each(|rows| statistics.add(rows));
        values.chunks_mut(2 * whole.mels).for_each(|rows| front_end.config().normalization.apply(rows, &statistics));
        prop_assert_eq!(bits(&values), bits(&whole.values[..values.len()]));
        prop_assert!(whole.values[values.len()..].iter().all(|&x| x == 0.0));
    }
}

#[test]
fn reused_memory_leaves_no_trace() {
    for config in presets() {
        let front_end = front_end(config);
        let (mut scratch, mut out) = (front_end.scratch(), LogMel::default());
        for samples in [5000, 0, 1, 399, 400, 401, 8000, 160] {
            let signal = signal(samples, 3);
            front_end.compute_into(&signal, &mut scratch, &mut out);
            assert_eq!(out, front_end.compute(&signal), "{samples} samples");
            assert!(out.values.iter().all(|x| x.is_finite()), "{samples} samples");
            assert_eq!(out.values.len(), out.frames * out.mels);
        }
    }
}

/// Log-mel by its definition in f64: a signal extended by 256 on both sides, symmetric Hann 400 in the middle of 512, hop 160,
/// DFT, dense filters `[mels, 257]`, `ln(x + floor)`.
fn naive_log_mel(extended: &[f64], filters: &[f64], floor: f64) -> Vec<f64> {
    let window: Vec<f64> = (0..400).map(|j| 0.5 - 0.5 * (2.0 * PI * j as f64 / 399.0).cos()).collect();
    let cos: Vec<f64> = (0..512).map(|j| (2.0 * PI * j as f64 / 512.0).cos()).collect();
    let frame = |frame: usize| {
        let windowed: Vec<f64> = window.iter().zip(&extended[frame * 160 + 56..]).map(|(w, x)| w * x).collect();
        let power = |bin: usize| {
            let part = |quarter: usize| -> f64 { windowed.iter().enumerate().map(|(j, x)| x * cos[(bin * j + quarter) % 512]).sum() };
            part(0).powi(2) + part(384).powi(2)
        };
        let power: Vec<f64> = (0..257).map(power).collect();
        let energy = |filter: &[f64]| (filter.iter().zip(&power).map(|(w, p)| w * p).sum::<f64>() + floor).ln();
        filters.chunks(257).map(energy).collect::<Vec<_>>()
    };
    (0..(extended.len() - 512) / 160 + 1).flat_map(frame).collect()
}

fn naive_parakeet(samples: &[f32], filters: &[f64]) -> Vec<f64> {
    let before = std::iter::once(0.0).chain(widen(samples));
    let emphasised = widen(samples).into_iter().zip(before).map(|(x, before)| x - 0.97 * before);
    let silence = || std::iter::repeat_n(0.0, 256);
    naive_log_mel(&silence().chain(emphasised).chain(silence()).collect::<Vec<_>>(), filters, 2f64.powi(-24))
}

fn naive_omniscribe(samples: &[f32]) -> Vec<f64> {
    let n = samples.len() as isize;
    let mirrored = |i: isize| {
        f64::from(
            samples[if i < 0 {
                -i
            } else if i >= n {
                2 * (n - 1) - i
            } else {
                i
            } as usize],
        )
    };
    let mel = |hz: f64| 2595.0 * (1.0 + hz / 700.0).log10();
    let corner = |i: usize| 700.0 * (10f64.powf((mel(20.0) + (mel(7600.0) - mel(20.0)) * i as f64 / 81.0) / 2595.0) - 1.0);
    let weight = |m: usize, hz: f64| {
        let (left, centre, right) = (corner(m), corner(m + 1), corner(m + 2));
        ((hz - left) / (centre - left)).min((right - hz) / (right - centre)).max(0.0)
    };
    let filters: Vec<f64> = (0..80 * 257).map(|i| weight(i / 257, (i % 257) as f64 * 31.25)).collect();
    naive_log_mel(&(-256..n + 256).map(mirrored).collect::<Vec<_>>(), &filters, 1e-6)
}

#[test]
fn omniscribe_equals_its_definition() {
    /// f32 against f64 where a tone leaves little in the far bands.
    const LIMIT: f64 = 1e-3;
    let signal = signal(4000, 5);
    let naive = naive_omniscribe(&signal);
    let front_end = front_end(FrontEndConfig::omniscribe(80, blend()));
    assert_close("log-mel", &widen(&front_end.log_mel(&signal).values), &naive, LIMIT);
    let Normalization::Blend { weight, mean, std } = blend() else { unreachable!() };
    let frames = naive.len() / 80;
    let normalized: Vec<f64> = (0..naive.len())
        .map(|i| {
            let utterance = (0..frames).map(|f| naive[f * 80 + i % 80]).sum::<f64>() / frames as f64;
            (naive[i] - f64::from(weight) * utterance - (1.0 - f64::from(weight)) * f64::from(mean[i % 80])) / f64::from(std[i % 80])
        })
        .collect();
    assert_close("normalised", &widen(&front_end.compute(&signal).values), &normalized, LIMIT);
}

/// Every other value that a leaf of a configuration may take: numbers moved, flags turned, names exchanged.
fn alternatives(leaf: &serde_json::Value) -> Vec<serde_json::Value> {
    const NAMES: [&str; 20] = [
        "none",
        "inside",
        "hop_centred",
        "zeros",
        "reflect",
        "keep",
        "drop",
        "mask",
        "povey",
        "hamming",
        "hann",
        "hann_periodic",
        "htk",
        "slaney",
        "hz",
        "mel",
        "area",
        "e",
        "ten",
        "whisper_clamp",
    ];
    match leaf {
        serde_json::Value::Bool(flag) => vec![(!flag).into()],
        serde_json::Value::Number(n) if n.is_u64() => {
            n.as_u64().map(|n| vec![(n + 1).into(), n.saturating_sub(1).into()]).unwrap_or_default()
        }
        serde_json::Value::Number(n) => n.as_f64().map(|x| vec![(x * 0.9 - 1e-3).into(), (x * 1.1 + 1e-3).into()]).unwrap_or_default(),
        _ => NAMES.into_iter().map(Into::into).chain([json!({"per_frame": 0.5})]).collect(),
    }
}

fn leaves(value: &serde_json::Value, path: String, out: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => fields.iter().for_each(|(name, inner)| leaves(inner, format!("{path}/{name}"), out)),
        serde_json::Value::Array(items) => items.iter().enumerate().for_each(|(i, inner)| leaves(inner, format!("{path}/{i}"), out)),
        _ => out.push(path),
    }
}

#[test]
fn no_dead_knob() {
    let global = Normalization::Global { mean: vec![-5.0; 80], std: vec![2.0; 80] };
    let configs = presets().into_iter().take(6).chain([FrontEndConfig { normalization: global, ..FrontEndConfig::kaldi() }]);
    for config in configs {
        // A short second signal has the edges that tell framings apart; half of it is silence, for the floors.
        let signals = [signal(4000, 1), [signal(300, 2), vec![0.0; 500]].concat()];
        let outputs = |config: FrontEndConfig| FrontEnd::new(config).ok().map(|f| signals.each_ref().map(|s| f.compute(s)));
        let original = outputs(config.clone());
        assert!(original.is_some());
        let json = serde_json::to_value(&config).expect("serialises");
        let mut paths = Vec::new();
        leaves(&json, String::new(), &mut paths);
        for path in paths {
            let mut parsed = 0;
            for alternative in alternatives(json.pointer(&path).expect("a leaf")) {
                let mut changed = json.clone();
                *changed.pointer_mut(&path).expect("a leaf") = alternative.clone();
                let Ok(other) = serde_json::from_value::<FrontEndConfig>(changed) else { continue };
                if other == config {
                    continue;
                }
                parsed += 1;
                assert_ne!(outputs(other), original, "{path} = {alternative} changes nothing");
            }
            assert!(parsed > 0, "{path}: no other value parses");
        }
    }
}
