//! Data of known structure: tones that mean different letters under different keys.
//!
//! An utterance is a row of words; a word is spoken in one of `keys` keys, which a low tone tells all through it. Within a word every letter is a
//! short high tone, and which letter a tone means depends on the key and on the tone before it: `keys * (letters + 1)` random permutations. What a
//! step means is thus a table of `keys x (letters + 1) x letters` without any pattern, and a small feed-forward that serves all keys must hold
//! all of it.
//!
//! Why sharing a router should help here: the key is the one thing worth routing by, in every layer alike, and an expert of one layer that works
//! on one key finds the same division in the next. Why it need not: one layer that divides by key is enough to divide the table, and independent
//! routers are free to divide by key in one layer and by tone in another.

use std::f32::consts::TAU;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::audio::{WavFormat, Waveform, write_wav};
use crate::checkpoint::safetensors_file::write_atomically;
use crate::error::{Error, Result};
use crate::kernel::rng::SplitMix;
use crate::units::SampleRate;

/// The letters; none of them alone or together is a word of a language.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz";
/// Seconds of a letter and of the silence after it.
const LETTER: (f64, f64) = (0.08, 0.04);
/// Lowest tone of keys and of letters, and the ratio of one to the next.
const TONES: [(f32, f32); 2] = [(220.0, 1.25), (900.0, 1.18)];

/// How much is made, and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StructureConfig {
    /// Folder for `train.jsonl`, `dev.jsonl` and the clips.
    pub folder: PathBuf,
    /// Clips to train on.
    pub train: usize,
    /// Clips to measure on; none of their texts is trained on.
    pub dev: usize,
    /// Keys.
    pub keys: usize,
    /// Letters.
    pub letters: usize,
    /// Words of a clip, each in a key of its own.
    pub words: usize,
    /// Signal-to-noise ratio of the white noise, dB.
    pub snr_db: f32,
    /// Of permutations, texts and noise.
    pub seed: u64,
}

impl StructureConfig {
    pub(super) fn validate(&self) -> std::result::Result<(), String> {
        let within = |name: &str, value: usize, low: usize, high: usize| {
            if (low..=high).contains(&value) { Ok(()) } else { Err(format!("structure.{name} = {value}: must lie in {low}..={high}")) }
        };
        within("train", self.train, 1, 1_000_000)?;
        within("dev", self.dev, 1, 100_000)?;
        within("keys", self.keys, 1, 6)?;
        within("letters", self.letters, 2, 12)?;
        within("words", self.words, 1, 20)?;
        // Training texts are drawn until they are none of the measured ones.
        let texts = (self.letters as f64).powi(2 * self.words as i32);
        if texts < 10.0 * self.dev as f64 {
            return Err(format!("structure.dev = {}: with so few letters and words there must be fewer", self.dev));
        }
        if self.snr_db.is_finite() { Ok(()) } else { Err("structure.snr_db: must be finite".into()) }
    }

    /// The tone (counted from 0) that means each letter in each key after each tone, `[keys][letters + 1][letters]`; the last row of a key is for
    /// the beginning of a word.
    pub fn table(&self) -> Vec<Vec<Vec<usize>>> {
        let mut rng = SplitMix::stream(self.seed, 0);
        let permutation = |rng: &mut SplitMix| {
            let mut order: Vec<usize> = (0..self.letters).collect();
            for i in (1..order.len()).rev() {
                order.swap(i, below(rng, i + 1));
            }
            order
        };
        (0..self.keys).map(|_| (0..=self.letters).map(|_| permutation(&mut rng)).collect()).collect()
    }
}

fn below(rng: &mut SplitMix, n: usize) -> usize {
    ((rng.next_u64() >> 32) as usize * n) >> 32
}

/// Makes clips and manifests, unless the folder has those of the same configuration.
///
/// # Errors
/// [`Error::Io`]; [`Error::Config`] where the folder has those of another one.
pub fn make(config: &StructureConfig) -> Result<()> {
    let (folder, record) = (&config.folder, config.folder.join("structure.toml"));
    let text = toml::to_string(config).map_err(|e| Error::config(&record, e.to_string()))?;
    if let Ok(there) = std::fs::read_to_string(&record) {
        return if there == text { Ok(()) } else { Err(Error::config(record, "made with another configuration: choose another folder")) };
    }
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    let table = config.table();
    let mut rng = SplitMix::stream(config.seed, 1);
    let mut seen = std::collections::HashSet::new();
    for (name, count) in [("dev", config.dev), ("train", config.train)] {
        let mut lines = String::new();
        for i in 0..count {
            let (words, keys) = loop {
                let drawn = draw(config, &mut rng);
                let text = drawn.0.clone();
                // What is measured must not be what was trained on; a text may come twice within either.
                if name == "dev" {
                    seen.insert(text);
                    break drawn;
                }
                if !seen.contains(&text) {
                    break drawn;
                }
            };
            let samples = sing(config, &table, &words, &keys, &mut rng);
            let file = format!("{name}-{i}.wav");
            lines += &line(&file, SampleRate::HZ_16000.seconds(samples.len()), &words.join(" "));
            write_wav(&folder.join(file), &Waveform { samples, sample_rate: SampleRate::HZ_16000 }, WavFormat::Int16)?;
        }
        write_atomically(&folder.join(format!("{name}.jsonl")), lines.as_bytes())?;
    }
    write_atomically(&record, text.as_bytes())
}

fn line(file: &str, seconds: f64, text: &str) -> String {
    format!("{}\n", serde_json::json!({ "audio_filepath": file, "duration": seconds, "text": text, "set": "structure" }))
}

/// Words of two to four letters, and the key of each.
fn draw(config: &StructureConfig, rng: &mut SplitMix) -> (Vec<String>, Vec<usize>) {
    let word = |rng: &mut SplitMix| {
        let length = 2 + below(rng, 3);
        (0..length).map(|_| char::from(LETTERS[below(rng, config.letters)])).collect::<String>()
    };
    let words = (0..config.words).map(|_| word(rng)).collect();
    (words, (0..config.words).map(|_| below(rng, config.keys)).collect())
}

/// The samples of a clip.
fn sing(config: &StructureConfig, table: &[Vec<Vec<usize>>], words: &[String], keys: &[usize], rng: &mut SplitMix) -> Vec<f32> {
    let tone = |band: usize, step: usize| TONES[band].0 * TONES[band].1.powi(step as i32);
    let [sounding, silent] = [LETTER.0, LETTER.1].map(|s| SampleRate::HZ_16000.samples(s));
    let mut samples = vec![0.0; silent];
    for (word, &key) in words.iter().zip(keys) {
        let (start, mut before) = (samples.len(), config.letters);
        for letter in word.bytes() {
            let letter = LETTERS.iter().position(|&l| l == letter).unwrap_or(0);
            before = table[key][before][letter];
            let hz = tone(1, before);
            let envelope = |t: usize| (std::f32::consts::PI * t as f32 / sounding as f32).sin();
            samples.extend((0..sounding).map(|t| 0.3 * envelope(t) * (TAU * hz * t as f32 / 16_000.0).sin()));
            samples.resize(samples.len() + silent, 0.0);
        }
        let hz = tone(0, key);
        samples[start..].iter_mut().enumerate().for_each(|(t, s)| *s += 0.1 * (TAU * hz * t as f32 / 16_000.0).sin());
        samples.resize(samples.len() + 2 * silent, 0.0);
    }
    let power = samples.iter().map(|s| s * s).sum::<f32>() / samples.len() as f32;
    let noise = (power / 10f32.powf(config.snr_db / 10.0)).sqrt();
    samples.iter_mut().for_each(|s| *s += noise * rng.next_normal());
    samples
}
