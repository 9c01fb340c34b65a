//! Voice activity: what it keeps and rejects of real speech, noise, tones and music-like sounds.

use std::ops::Range;
use std::path::{Path, PathBuf};

use omniscribe::audio::vad::{VadOptions, speech};
use omniscribe::audio::{Limits, WavFormat, Waveform, read_at, write_wav};
use omniscribe::units::SampleRate;
use serde_json::{Value, json};

const RATE: SampleRate = SampleRate::HZ_16000;

/// A small generator: the same sounds on every machine.
struct Random(u64);

impl Random {
    /// In [0, 1).
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / (1u64 << 31) as f64
    }

    /// About a normal distribution of deviation 1.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.next()).sum::<f64>() - 6.0
    }
}

/// Sounds without speech, 12 s each, by name.
fn made_up() -> Vec<(String, Vec<f32>)> {
    let n = 12 * RATE.0 as usize;
    let sound = |f: &mut dyn FnMut(f64) -> f64| (0..n).map(|i| f(i as f64 / f64::from(RATE.0)) as f32).collect::<Vec<f32>>();
    let sine = |hz: f64, t: f64| (std::f64::consts::TAU * hz * t).sin();
    let mut random = Random(1);
    let mut sounds = vec![("digital silence".to_string(), vec![0.0; n])];
    for (name, deviation) in [("hiss at -80 dBFS", 1e-4), ("white noise at -40 dBFS", 0.01), ("white noise at -14 dBFS", 0.2)] {
        sounds.push((name.into(), sound(&mut |_| deviation * random.normal())));
    }
    for hz in [120.0, 440.0, 1_000.0, 3_000.0] {
        sounds.push((format!("tone of {hz} Hz"), sound(&mut |t| 0.3 * sine(hz, t))));
    }
    sounds
        .push(("ringing tone, 1 s of 4".into(), sound(&mut |t| if t % 4.0 < 1.0 { 0.1 * (sine(425.0, t) + sine(475.0, t)) } else { 0.0 })));
    let hum = |h: f64, t: f64| 0.05 / h * sine(50.0 * h + 0.01, t + h);
    sounds.push(("mains hum".into(), sound(&mut |t| (1..12).map(|h| hum(f64::from(h), t)).sum::<f64>() + 0.001 * random.normal())));
    sounds.push(("slow sweep, 100 Hz to 7 kHz".into(), sound(&mut |t| 0.3 * sine(100.0 + 287.0 * t, t))));
    // Music-like: a chord of three notes with overtones every half second, dying away.
    let notes: Vec<f64> = (0..24).map(|_| 110.0 * 2f64.powf((random.next() * 24.0).floor() / 12.0)).collect();
    let chord = |t: f64| {
        let (root, age) = (notes[(t * 2.0) as usize % 24], t % 0.5);
        let tone = |note: f64, h: u32| 0.06 / f64::from(h) * sine(root * note * f64::from(h), age) * (-2.0 * age).exp();
        [1.0, 1.26, 1.5].iter().flat_map(|note| (1..8).map(move |h| tone(*note, h))).sum::<f64>()
    };
    sounds.push(("chords".into(), sound(&mut |t| chord(t) + 0.0005 * random.normal())));
    sounds.push(("chords and drum".into(), sound(&mut |t| 0.5 * chord(t) + 0.2 * random.normal() * (-30.0 * (t % 0.25)).exp())));
    sounds.push(("knocks".into(), sound(&mut |t| 0.001 * random.normal() + 0.3 * random.normal() * (-40.0 * (t % 0.7)).exp())));
    sounds
}

/// Share of the samples that `stretches` keep.
fn kept(stretches: &[Range<usize>], of: &Range<usize>) -> f64 {
    let inside: usize = stretches.iter().map(|s| s.end.min(of.end).saturating_sub(s.start.max(of.start))).sum();
    inside as f64 / of.len().max(1) as f64
}

/// Sounds so much like a voice, in pitch and in rhythm, that some is kept: the recogniser has to stay silent on them.
const VOICE_LIKE: [&str; 3] = ["slow sweep, 100 Hz to 7 kHz", "chords", "chords and drum"];

#[test]
fn silence_tones_and_steady_noise_are_no_speech() {
    for (name, samples) in made_up() {
        let stretches = speech(&samples, &VadOptions::default()).expect("options");
        let share = kept(&stretches, &(0..samples.len()));
        println!("{name}: {:.1} % kept", 100.0 * share);
        assert!(share == 0.0 || VOICE_LIKE.contains(&name.as_str()), "{name}: {stretches:?}");
    }
}

/// Where the development speech is.
fn speech_folder() -> PathBuf {
    std::env::var_os("OMNISCRIBE_SPEECH").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/speech"), PathBuf::from)
}

/// The samples of a file as 16-bit ones, which every detector takes.
fn listen(path: &Path) -> Vec<f32> {
    let wave = read_at(path, RATE, &Limits::default()).unwrap_or_else(|e| panic!("{e}"));
    sixteen_bits(wave.samples)
}

fn sixteen_bits(samples: Vec<f32>) -> Vec<f32> {
    samples.into_iter().map(|x| (x * 32_768.0).round().clamp(-32_768.0, 32_767.0) / 32_768.0).collect()
}

fn mean_square(samples: &[f32]) -> f64 {
    samples.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / samples.len().max(1) as f64
}

/// Silence before and after each clip, and the part of it next to the clip that is not counted: padding, and breath that no word claims.
const AROUND: f64 = 2.0;
const NOT_COUNTED: f64 = 0.5;

/// A sound to be judged.
struct Sound {
    condition: String,
    samples: Vec<f32>,
    /// Samples of each word, and where there is certainly none.
    words: Vec<Range<usize>>,
    silent: Vec<Range<usize>>,
}

/// Clips of development speech in noise the classifier was not fitted on, and that noise alone.
fn sounds() -> Vec<Sound> {
    let folder = speech_folder();
    let lines = std::fs::read_to_string(folder.join("noise.jsonl")).expect("noise.jsonl (OMNISCRIBE_SPEECH names its folder)");
    let noises: Vec<Value> =
        lines.lines().map(|l| serde_json::from_str(l).expect("JSON")).filter(|n: &Value| n["kind"] == "noise").collect();
    let path = |row: &Value, key: &str| folder.join(row[key].as_str().expect("path"));
    // Every other noise is in the fit.
    let noises: Vec<(String, Vec<f32>)> =
        noises.iter().skip(1).step_by(2).map(|n| (n["audio_filepath"].to_string(), listen(&path(n, "audio_filepath")))).collect();
    let mut sounds: Vec<Sound> = noises.iter().map(|(name, samples)| alone(name, samples.clone())).collect();
    sounds.extend(made_up().into_iter().map(|(name, samples)| alone(&name, sixteen_bits(samples))));
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/vad/words.json")).expect("words.json");
    let clips: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let (lead, margin) = (RATE.samples(AROUND), RATE.samples(AROUND - NOT_COUNTED));
    let mut random = Random(2);
    for clip in &clips {
        let voice = listen(&path(clip, "audio"));
        let at = |word: &Value, i: usize| lead + RATE.samples(word[i].as_f64().expect("seconds"));
        let words: Vec<_> = clip["words"].as_array().expect("words").iter().map(|w| at(w, 0)..at(w, 1)).collect();
        let length = voice.len() + 2 * lead;
        let noise = &noises[(random.next() * noises.len() as f64) as usize].1;
        let from = (random.next() * noise.len() as f64) as usize;
        for ratio in [None, Some(20.0), Some(10.0), Some(5.0), Some(0.0)] {
            let mut samples = vec![0.0f32; length];
            samples[lead..lead + voice.len()].copy_from_slice(&voice);
            if let Some(decibel) = ratio {
                let gain = (mean_square(&voice) / mean_square(noise).max(1e-12) / 10f64.powf(decibel / 10.0)).sqrt() as f32;
                samples.iter_mut().enumerate().for_each(|(i, x)| *x += gain * noise[(from + i) % noise.len()]);
            }
            sounds.push(Sound {
                condition: ratio.map_or("speech".into(), |d: f64| format!("speech, noise {d} dB below")),
                samples: sixteen_bits(samples),
                words: words.clone(),
                silent: vec![0..margin, length - margin..length],
            });
        }
    }
    sounds
}

fn alone(name: &str, samples: Vec<f32>) -> Sound {
    Sound { condition: name.trim_matches('"').into(), words: Vec::new(), silent: std::iter::once(0..samples.len()).collect(), samples }
}

/// What a detector did in one condition.
#[derive(Debug, Default, Clone, PartialEq)]
struct Tally {
    words: usize,
    /// Words of which a part, or more than half, is not kept.
    cut: usize,
    lost: usize,
    silent: f64,
    silent_kept: f64,
}

/// Least speed on one core, in times of real time.
const LEAST_SPEED: f64 = 2_000.0;

/// Seconds this thread had a processor, which other programs do not add to.
fn busy_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    text.split(' ').next().expect("nanoseconds").parse::<f64>().expect("a number") / 1e9
}

/// Where the sounds and stretches go, for `benchmarks/vad_peer.py`.
const DUMP: &str = "OMNISCRIBE_VAD_DUMP";

/// The table in `src/audio/vad.rs`: `cargo test --release --test it measured_on_real_speech -- --ignored --nocapture`.
#[test]
#[ignore = "needs ../shared/speech and Linux"]
fn measured_on_real_speech() {
    let dump = std::env::var_os(DUMP).map(PathBuf::from);
    let mut tallies: Vec<(String, Tally)> = Vec::new();
    let mut index = Vec::new();
    let (mut seconds, mut busy) = (0.0, 0.0);
    for (i, sound) in sounds().into_iter().enumerate() {
        let before = busy_seconds();
        let stretches = speech(&sound.samples, &VadOptions::default()).expect("options");
        busy += busy_seconds() - before;
        seconds += RATE.seconds(sound.samples.len());
        let at = tallies.iter().position(|(name, _)| *name == sound.condition).unwrap_or_else(|| {
            tallies.push((sound.condition.clone(), Tally::default()));
            tallies.len() - 1
        });
        let tally = &mut tallies[at].1;
        for word in &sound.words {
            let share = kept(&stretches, word);
            tally.words += 1;
            tally.cut += usize::from(share < 1.0);
            tally.lost += usize::from(share < 0.5);
        }
        for silent in &sound.silent {
            tally.silent += silent.len() as f64;
            tally.silent_kept += kept(&stretches, silent) * silent.len() as f64;
        }
        if let Some(folder) = &dump {
            let name = format!("{i}.wav");
            let wave = Waveform { samples: sound.samples, sample_rate: RATE };
            write_wav(&folder.join(&name), &wave, WavFormat::Int16).expect("dump");
            let pairs = |ranges: &[Range<usize>]| ranges.iter().map(|r| [r.start, r.end]).collect::<Vec<_>>();
            index.push(json!({"file": name, "condition": sound.condition, "words": pairs(&sound.words), "silent": pairs(&sound.silent),
                "stretches": pairs(&stretches)}));
        }
    }
    if let Some(folder) = dump {
        std::fs::write(folder.join("index.json"), serde_json::to_string(&index).expect("JSON")).expect("dump");
    }
    for (name, t) in &tallies {
        let kept = 100.0 * t.silent_kept / t.silent;
        let words = if t.words > 0 { format!("{} words, {} cut, {} lost, ", t.words, t.cut, t.lost) } else { String::new() };
        println!("{name}: {words}{kept:.1} % of what is no speech kept");
    }
    println!("{:.0} times real time on one core", seconds / busy);
    assert!(seconds > LEAST_SPEED * busy);
    let tally = |name: &str| &tallies.iter().find(|(n, _)| n == name).expect("condition").1;
    assert!(tally("speech").words > 1_000);
    for (condition, most) in MOST_CUT {
        let t = tally(condition);
        assert!(t.cut as f64 <= most * t.words as f64, "{condition}: {t:?}");
    }
}

/// Largest share of words that may be cut: none where speech is 10 dB above the noise, allowing for the few the model's times put in noise.
const MOST_CUT: [(&str, f64); 5] = [
    ("speech", 0.002),
    ("speech, noise 20 dB below", 0.002),
    ("speech, noise 10 dB below", 0.003),
    ("speech, noise 5 dB below", 0.01),
    ("speech, noise 0 dB below", 0.05),
];
