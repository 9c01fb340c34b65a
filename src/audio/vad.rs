//! Voice activity: the stretches of a recording in which somebody speaks.
//!
//! # Equations
//!
//! Frames of 32 ms (Hann) every 16 ms, at 16 kHz. Of frame `t`, in dB of full scale: the levels `B(t, b)` of 16 mel-spaced bands from
//! 94 Hz to 7 kHz (at least -80), their sum `L(t)`, and `p(t)`, the largest normalised autocorrelation at a period of 2.5 to 12.5 ms.
//!
//! ```text
//! S(t, b)   mean of B over t - 2 .. t + 2
//! F(t, b)   noise floor: F + 0.3 (S - F) where S falls below it, else F + min(0.03 (S - F), 0.05 dB), so it rises by 3 dB/s at most;
//!           before the first frame the least S of the first 32 frames (0.5 s)
//! A(t, b)   how far a band is above its floor: (B - F) / 25 dB, in [0, 1]
//! x(t)      ten features: mean of the five largest A | mean A over t +- 16 frames | mean p over t +- 4, over t +- 16 | 2 dev p |
//!           spectral flatness / 20 dB | level below by above 1 kHz / 20 dB | dev L / 10 dB | mean over b of dev B / 10 dB |
//!           the same of B less its mean over b; dev: standard deviation over t +- 16 frames
//! z(t)      v . tanh(W x + b) + c, the logit of speech; far below 0 where L is under -70 dB
//! ```
//! Windows end where the recording does. Only differences of levels enter, so a quiet recording is judged as a loud one.
//!
//! Speech starts where the mean of `z` over `t +- 3` frames passes [`VadOptions::threshold`] and lasts until it has stayed 1 below the
//! threshold for [`VadOptions::min_silence`]; it is widened by [`VadOptions::padding`] on both sides. What stayed above for less than
//! [`VadOptions::min_speech`] is no speech. A stretch of [`VadOptions::max_speech`] is cut at its quietest place of 0.2 s in the second
//! half.
//!
//! The weights come from `benchmarks/vad_fit.py`, where the equations stand once more; a test compares the two.

mod features;
mod stretch;
mod weights;

use std::collections::VecDeque;
use std::ops::Range;

use features::{Analysis, BANDS, FEATURES, Frame, HOP, WINDOW};
use stretch::Stretch;

use crate::error::{Error, Result};

/// Frames on each side over which bands are smoothed for the noise floor.
const SMOOTH: usize = 2;
/// Frames on each side of the long windows: a syllable and its neighbours.
const HALF: usize = 16;
/// Frames on each side over which periodicity is averaged.
const NEAR: usize = 4;
/// Frames on each side over which logits are averaged.
const JUDGED: usize = 3;
/// Frames the noise floor starts from.
const START: usize = 32;
/// Level below which nothing is speech, dB of full scale.
const SILENCE: f32 = -70.0;
/// The logit of silence.
const SILENT: f32 = -8.0;

/// How speech is told from the rest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VadOptions {
    /// Logit from which a frame is speech: 0 where speech and noise are equally likely, lower keeps more.
    pub threshold: f32,
    /// What is shorter is no speech, seconds.
    pub min_speech: f64,
    /// A pause that is shorter belongs to the speech around it, seconds; at least twice the padding.
    pub min_silence: f64,
    /// What is kept before and after speech, seconds: the soft starts and ends of words.
    pub padding: f64,
    /// Longest stretch, seconds.
    pub max_speech: f64,
}

impl Default for VadOptions {
    /// Cuts no word of the development speech down to 10 dB of noise (see `tests/it/vad.rs`).
    fn default() -> Self {
        Self { threshold: -2.0, min_speech: 0.1, min_silence: 0.5, padding: 0.24, max_speech: f64::INFINITY }
    }
}

impl VadOptions {
    fn validate(&self) -> Result<()> {
        let rule = |what: &str| Err(Error::config("voice activity", what));
        let seconds = [self.min_speech, self.min_silence, self.padding];
        if !self.threshold.is_finite() || seconds.iter().any(|s| !(0.0..=60.0).contains(s)) {
            return rule("threshold must be finite, min_speech, min_silence and padding from 0 to 60 s");
        }
        if self.min_silence < 2.0 * self.padding {
            return rule("min_silence must be at least twice the padding");
        }
        // A NaN is no length either.
        if self.max_speech.is_nan() || self.max_speech < 1.0 {
            return rule("max_speech must be at least 1 s");
        }
        Ok(())
    }
}

/// The stretches of speech in a whole clip at 16 kHz, as [`Vad`] gives them.
///
/// # Errors
/// As [`Vad::new`].
pub fn speech(samples: &[f32], options: &VadOptions) -> Result<Vec<Range<usize>>> {
    let mut vad = Vad::new(options)?;
    let mut stretches = Vec::new();
    vad.step(samples, &mut stretches);
    vad.flush(&mut stretches);
    Ok(stretches)
}

/// Finds speech in a stream at 16 kHz: however it is cut into steps, the stretches are the same.
pub struct Vad {
    analysis: Analysis,
    /// Samples taken, and those the next frame starts with.
    taken: usize,
    waiting: Vec<f32>,
    /// The last frames; the first of them has index `oldest`.
    frames: VecDeque<Heard>,
    oldest: usize,
    /// Numbers of frames that are smoothed, have their height above the floor, have a logit, are decided.
    smoothed: usize,
    raised: usize,
    judged: usize,
    decided: usize,
    floor: Option<[f32; BANDS]>,
    stretch: Stretch,
    /// Features and logit of every frame.
    #[cfg(test)]
    log: Vec<([f32; FEATURES], f32)>,
}

/// A frame and what became known of it since.
struct Heard {
    frame: Frame,
    outline: [f32; BANDS],
    smooth: [f32; BANDS],
    /// Mean height of all bands above the floor, and of the five highest.
    above: f32,
    top: f32,
    logit: f32,
}

impl Vad {
    /// A detector.
    ///
    /// # Errors
    /// [`Error::Config`] for times that are negative, over a minute or do not fit each other.
    pub fn new(options: &VadOptions) -> Result<Self> {
        options.validate()?;
        let mut vad = Self {
            analysis: Analysis::new(),
            taken: 0,
            waiting: Vec::new(),
            frames: VecDeque::new(),
            oldest: 0,
            smoothed: 0,
            raised: 0,
            judged: 0,
            decided: 0,
            floor: None,
            stretch: Stretch::new(options),
            #[cfg(test)]
            log: Vec::new(),
        };
        vad.reset();
        Ok(vad)
    }

    /// Takes samples and appends the stretches of speech (ranges of samples since the last reset) that have ended.
    pub fn step(&mut self, samples: &[f32], stretches: &mut Vec<Range<usize>>) {
        self.taken += samples.len();
        self.feed(samples, stretches);
    }

    /// Ends the stream: appends the stretch that is still open, and resets.
    pub fn flush(&mut self, stretches: &mut Vec<Range<usize>>) {
        if self.taken > 0 {
            // Half a frame behind the end, as before the start.
            self.feed(&[0.0; WINDOW / 2], stretches);
            self.advance(End::Here, stretches);
            let before = stretches.len();
            self.stretch.end(stretches);
            stretches[before..].iter_mut().for_each(|s| s.end = s.end.min(self.taken));
        }
        self.reset();
    }

    /// Forgets the stream.
    pub fn reset(&mut self) {
        (self.taken, self.oldest, self.smoothed, self.raised, self.judged, self.decided) = (0, 0, 0, 0, 0, 0);
        // The first frame is centred on the first sample.
        self.waiting.clear();
        self.waiting.resize(WINDOW / 2, 0.0);
        self.frames.clear();
        self.floor = None;
        self.stretch.reset();
    }

    /// Most samples that are taken after the end of a stretch before it is given.
    pub fn delay(&self) -> usize {
        (SMOOTH + START.max(HALF) + JUDGED + 2 + self.stretch.delay()) * HOP + WINDOW
    }

    /// No stretch that is still to be given starts before this sample: what lies before it is silence, or was given.
    pub fn pending_from(&self) -> usize {
        self.stretch.pending_from(self.decided)
    }

    fn feed(&mut self, mut samples: &[f32], stretches: &mut Vec<Range<usize>>) {
        while !samples.is_empty() {
            let (head, rest) = samples.split_at(samples.len().min(WINDOW - self.waiting.len()));
            self.waiting.extend_from_slice(head);
            samples = rest;
            if self.waiting.len() == WINDOW {
                let frame = self.analysis.frame(&self.waiting);
                self.waiting.drain(..HOP);
                let outline = frame.outline();
                self.frames.push_back(Heard { smooth: frame.bands, frame, outline, above: 0.0, top: 0.0, logit: 0.0 });
                self.advance(End::Open, stretches);
            }
        }
    }

    /// Takes every stage as far as the frames allow.
    fn advance(&mut self, end: End, stretches: &mut Vec<Range<usize>>) {
        let count = self.oldest + self.frames.len();
        // How many of `known` frames a stage that looks `ahead` can do.
        let ready = |known: usize, ahead: usize| if end == End::Here { known } else { known.saturating_sub(ahead) };
        while self.smoothed < ready(count, SMOOTH) {
            let smooth = mean(self.around(self.smoothed, SMOOTH).map(|heard| heard.frame.bands));
            self.at(self.smoothed).smooth = smooth;
            self.smoothed += 1;
        }
        if self.floor.is_none() && (self.smoothed >= START || end == End::Here) && !self.frames.is_empty() {
            let least = |a: [f32; BANDS], heard: &Heard| std::array::from_fn(|b| a[b].min(heard.smooth[b]));
            self.floor = Some(self.frames.iter().take(START.min(self.smoothed)).fold([f32::INFINITY; BANDS], least));
        }
        if let Some(mut floor) = self.floor {
            while self.raised < self.smoothed {
                self.at(self.raised).raise(&mut floor);
                self.raised += 1;
            }
            self.floor = Some(floor);
        }
        while self.judged < ready(self.raised, HALF) {
            let features = self.features(self.judged);
            let logit = logit(&features);
            #[cfg(test)]
            self.log.push((features, logit));
            let heard = self.at(self.judged);
            heard.logit = if heard.frame.level < SILENCE { SILENT } else { logit };
            self.judged += 1;
        }
        while self.decided < ready(self.judged, JUDGED) {
            let around = self.around(self.decided, JUDGED);
            let logit = around.clone().map(|heard| heard.logit).sum::<f32>() / around.count() as f32;
            let level = self.at(self.decided).frame.level;
            self.stretch.step(self.decided, logit, level, stretches);
            self.decided += 1;
        }
        while self.oldest + HALF + JUDGED < self.decided {
            self.frames.pop_front();
            self.oldest += 1;
        }
    }

    /// The frame of index `t`, which is still kept.
    fn at(&mut self, t: usize) -> &mut Heard {
        &mut self.frames[t - self.oldest]
    }

    /// The frames within `half` of frame `t`, as far as there are any.
    fn around(&self, t: usize, half: usize) -> impl Iterator<Item = &Heard> + Clone {
        let t = t - self.oldest;
        self.frames.range(t.saturating_sub(half)..(t + half + 1).min(self.frames.len()))
    }

    /// The features of frame `t`, in the order of the weights.
    fn features(&self, t: usize) -> [f32; FEATURES] {
        let wide = || self.around(t, HALF);
        let heard = &self.frames[t - self.oldest];
        let average = |bands: [f32; BANDS]| bands.iter().sum::<f32>() / BANDS as f32;
        [
            heard.top,
            mean(wide().map(|h| [h.above]))[0],
            mean(self.around(t, NEAR).map(|h| [h.frame.period]))[0],
            mean(wide().map(|h| [h.frame.period]))[0],
            deviation(wide().map(|h| [h.frame.period]))[0] * 2.0,
            heard.frame.flatness / 20.0,
            heard.frame.tilt / 20.0,
            deviation(wide().map(|h| [h.frame.level]))[0] / 10.0,
            average(deviation(wide().map(|h| h.frame.bands))) / 10.0,
            average(deviation(wide().map(|h| h.outline))) / 10.0,
        ]
    }
}

/// Whether more samples may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Here,
}

impl Heard {
    /// Moves the noise floor on by this frame and measures the frame against it.
    fn raise(&mut self, floor: &mut [f32; BANDS]) {
        let mut above: [f32; BANDS] = std::array::from_fn(|b| {
            let rise = self.smooth[b] - floor[b];
            floor[b] += if rise < 0.0 { 0.3 * rise } else { (0.03 * rise).min(0.05) };
            ((self.frame.bands[b] - floor[b]) / 25.0).clamp(0.0, 1.0)
        });
        self.above = above.iter().sum::<f32>() / BANDS as f32;
        above.sort_unstable_by(|a, b| b.total_cmp(a));
        self.top = above[..5].iter().sum::<f32>() / 5.0;
    }
}

/// Mean of each component.
fn mean<const N: usize>(rows: impl Iterator<Item = [f32; N]>) -> [f32; N] {
    let (mut sum, mut count) = ([0.0f32; N], 0.0);
    for row in rows {
        sum.iter_mut().zip(row).for_each(|(s, x)| *s += x);
        count += 1.0;
    }
    sum.map(|s| s / count)
}

/// Standard deviation of each component.
fn deviation<const N: usize>(rows: impl Iterator<Item = [f32; N]> + Clone) -> [f32; N] {
    let mean = mean(rows.clone());
    let squares = self::mean(rows.map(|row| std::array::from_fn::<f32, N, _>(|i| (row[i] - mean[i]).powi(2))));
    squares.map(f32::sqrt)
}

/// `v . tanh(W x + b) + c`
fn logit(features: &[f32; FEATURES]) -> f32 {
    let hidden = weights::FIRST.iter().zip(weights::FIRST_BIAS).map(|(row, bias)| {
        let sum: f32 = row.iter().zip(features).map(|(w, x)| w * x).sum();
        (sum + bias).tanh()
    });
    hidden.zip(weights::SECOND).map(|(h, v)| h * v).sum::<f32>() + weights::SECOND_BIAS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Noise, a vowel-like sound that comes and goes, noise.
    fn clip() -> Vec<f32> {
        let mut seed = 7u32;
        (0..48_000)
            .map(|i| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let noise = (seed >> 16) as f32 / 65_536.0 - 0.5;
                let t = i as f32 / 16_000.0;
                let phase = (t * (110.0 + 20.0 * t)).fract();
                let swell = (t * 4.0 * std::f32::consts::PI).sin().abs();
                let voice = if (1.0..2.0).contains(&t) { 0.4 * swell * (-6.0 * phase).exp() * (phase * 44.0).sin() } else { 0.0 };
                0.005 * noise + voice
            })
            .collect()
    }

    /// f32 against f64 arithmetic; a logit adds up differences of ten features with weights up to 10.
    const FEATURE_TOLERANCE: f64 = 1e-3;
    const LOGIT_TOLERANCE: f64 = 1e-2;

    #[test]
    fn features_and_logits_are_those_of_the_reference_in_python() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/vad/reference.json");
        let reference: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let numbers = |value: &serde_json::Value| value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect::<Vec<_>>();
        let mut vad = Vad::new(&VadOptions::default()).unwrap();
        let samples: Vec<f32> = numbers(&reference["samples"]).iter().map(|x| (x / 32_768.0) as f32).collect();
        vad.step(&samples, &mut Vec::new());
        vad.flush(&mut Vec::new());
        let (rows, logits) = (reference["features"].as_array().unwrap(), numbers(&reference["logit"]));
        assert_eq!(vad.log.len(), rows.len());
        for (t, ((features, logit), row)) in vad.log.iter().zip(rows).enumerate() {
            for (i, (ours, golden)) in features.iter().zip(numbers(row)).enumerate() {
                let difference = (f64::from(*ours) - golden).abs();
                assert!(difference < FEATURE_TOLERANCE, "frame {t}, feature {i}: {ours}, reference {golden}");
            }
            assert!((f64::from(*logit) - logits[t]).abs() < LOGIT_TOLERANCE, "frame {t}: {logit}, reference {}", logits[t]);
        }
    }

    #[test]
    fn a_voice_is_found_between_noise_at_any_level() {
        for gain in [1.0, 0.03] {
            let samples: Vec<f32> = clip().iter().map(|x| x * gain).collect();
            let found = speech(&samples, &VadOptions::default()).unwrap();
            assert_eq!(found.len(), 1, "{found:?}");
            assert!((8_000..=16_000).contains(&found[0].start) && (32_000..=42_000).contains(&found[0].end), "{found:?}");
        }
    }

    #[test]
    fn nothing_is_found_in_nothing() {
        for n in [0, 1, 255, 256, 257, 16_000] {
            assert!(speech(&vec![0.0; n], &VadOptions::default()).unwrap().is_empty());
        }
        // The last bit of a 16-bit file flickers.
        let dither: Vec<f32> = clip().iter().map(|x| (x * 1e-3 * 32_768.0).round() / 32_768.0).collect();
        assert!(speech(&dither, &VadOptions::default()).unwrap().is_empty());
    }

    #[test]
    fn options_are_checked() {
        let good = VadOptions::default();
        for bad in [
            VadOptions { threshold: f32::NAN, ..good },
            VadOptions { min_speech: -1.0, ..good },
            VadOptions { padding: f64::NAN, ..good },
            VadOptions { padding: 0.3, ..good },
            VadOptions { min_silence: 1e9, ..good },
            VadOptions { max_speech: 0.5, ..good },
            VadOptions { max_speech: f64::NAN, ..good },
        ] {
            assert!(matches!(Vad::new(&bad), Err(Error::Config { .. })), "{bad:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_steps_give_the_same(cuts in prop::collection::vec(1usize..9_000, 1..12), max_speech in prop::sample::select(vec![1.0, f64::INFINITY])) {
            let clip = clip();
            let options = VadOptions { max_speech, ..VadOptions::default() };
            let whole = speech(&clip, &options).unwrap();
            let mut vad = Vad::new(&options).unwrap();
            // Twice: flush resets.
            for _ in 0..2 {
                let (mut found, mut at, mut pending) = (Vec::new(), 0, 0);
                for cut in cuts.iter().cycle() {
                    let before = found.len();
                    let end = clip.len().min(at + cut);
                    vad.step(&clip[at..end], &mut found);
                    at = end;
                    for stretch in &found[before..] {
                        prop_assert!(stretch.start >= pending && stretch.end <= at);
                        prop_assert!(at - stretch.end <= vad.delay() + cut);
                    }
                    prop_assert!(vad.pending_from() >= pending && vad.pending_from() <= at);
                    pending = vad.pending_from();
                    if at == clip.len() {
                        break;
                    }
                }
                vad.flush(&mut found);
                prop_assert_eq!(&found, &whole);
            }
        }
    }
}
