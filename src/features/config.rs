//! What a front end computes, complete: every field is explicit, and an unknown one is refused.

use serde::{Deserialize, Serialize};

use super::framing::{Framing, LastFrame, Padding};
use super::logarithm::{Floor, LogBase, LogScale};
use super::mel::{MelNorm, MelScale, MelShape, MelTriangles};
use super::normalize::Normalization;
use super::window::Window;
use crate::error::{Error, Result};

/// First-order high-pass `y[i] = x[i] - c x[i-1]` before the window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PreEmphasis {
    /// None.
    None,
    /// Within each frame, `x[-1] = x[0]` (Kaldi).
    PerFrame(f32),
    /// Over the waveform before framing, `x[-1] = 0` (NeMo).
    Waveform(f32),
}

/// A log-mel front end, in the order of its steps. Part of a model's configuration: a model cannot be run with another mel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrontEndConfig {
    /// Sampling rate in Hz.
    pub sample_rate: u32,
    /// Factor on the samples, which are in [-1, 1]; Kaldi counts in 16-bit units, 32768.
    pub scale: f32,
    /// Where frames lie.
    pub framing: Framing,
    /// Samples under the window.
    pub window_samples: usize,
    /// Samples from one frame to the next.
    pub hop: usize,
    /// Subtract the mean of the samples of each frame.
    pub remove_dc: bool,
    /// High-pass before the window.
    pub pre_emphasis: PreEmphasis,
    /// Shape of the window.
    pub window: Window,
    /// Length of the FFT; the windowed samples are padded with zeros to it.
    pub n_fft: usize,
    /// Number of mel filters.
    pub mels: usize,
    /// Frequency to mel.
    pub mel_scale: MelScale,
    /// Along which axis the triangles are straight.
    pub mel_triangles: MelTriangles,
    /// Height of the triangles.
    pub mel_norm: MelNorm,
    /// Lower end of the first filter in Hz.
    pub low_hz: f64,
    /// Upper end of the last filter in Hz; 0 or negative counts from half the sampling rate (Kaldi's `high_freq`).
    pub high_hz: f64,
    /// Logarithm and its floor.
    pub log: LogScale,
    /// Normalisation.
    pub normalization: Normalization,
}

impl FrontEndConfig {
    /// Kaldi's fbank: `compute-fbank-feats` with 80 bins and no dither, as torchaudio and kaldi-native-fbank compute it.
    pub fn kaldi() -> Self {
        Self {
            sample_rate: 16_000,
            scale: 32_768.0,
            framing: Framing::Inside,
            window_samples: 400,
            hop: 160,
            remove_dc: true,
            pre_emphasis: PreEmphasis::PerFrame(0.97),
            window: Window::Povey,
            n_fft: 512,
            mels: 80,
            mel_scale: MelScale::Htk,
            mel_triangles: MelTriangles::Mel,
            mel_norm: MelNorm::None,
            low_hz: 20.0,
            high_hz: 0.0,
            log: LogScale { base: LogBase::E, floor: Floor::Clamp(f32::EPSILON) },
            normalization: Normalization::None,
        }
    }

    /// icefall's (k2, lhotse) fbank: Kaldi's with samples in [-1, 1], frames over the whole waveform, 20 to 7600 Hz.
    pub fn icefall() -> Self {
        Self { scale: 1.0, framing: Framing::HopCentred, high_hz: -400.0, ..Self::kaldi() }
    }

    /// Whisper's log-mel with 80 or 128 bins. Whisper pads its audio to 30 s before; that is left to the caller.
    pub fn whisper(mels: usize) -> Self {
        Self {
            scale: 1.0,
            framing: Framing::Centred { padding: Padding::Reflect, last: LastFrame::Drop },
            remove_dc: false,
            pre_emphasis: PreEmphasis::None,
            window: Window::HannPeriodic,
            n_fft: 400,
            mels,
            mel_scale: MelScale::Slaney,
            mel_triangles: MelTriangles::Hz,
            mel_norm: MelNorm::Area,
            low_hz: 0.0,
            log: LogScale { base: LogBase::Ten, floor: Floor::Clamp(1e-10) },
            normalization: Normalization::WhisperClamp,
            ..Self::kaldi()
        }
    }

    /// NeMo's log-mel, as Parakeet and the FastConformers use it, with 80 or 128 bins and no dither.
    pub fn parakeet(mels: usize) -> Self {
        Self {
            framing: Framing::Centred { padding: Padding::Zeros, last: LastFrame::Mask },
            pre_emphasis: PreEmphasis::Waveform(0.97),
            window: Window::Hann,
            n_fft: 512,
            log: LogScale { base: LogBase::E, floor: Floor::Add(1.0 / (1 << 24) as f32) },
            normalization: Normalization::PerUtterance { ddof: 1, epsilon: 1e-5 },
            ..Self::whisper(mels)
        }
    }

    /// The front end of our own models: symmetric Hann window, HTK mel from 20 to 7600 Hz, `ln(x + 1e-6)`.
    ///
    /// `normalization` is usually a [`Normalization::Blend`] with the statistics of the training set.
    pub fn omniscribe(mels: usize, normalization: Normalization) -> Self {
        Self {
            framing: Framing::Centred { padding: Padding::Reflect, last: LastFrame::Keep },
            window: Window::Hann,
            n_fft: 512,
            mel_scale: MelScale::Htk,
            mel_norm: MelNorm::None,
            low_hz: 20.0,
            high_hz: -400.0,
            log: LogScale { base: LogBase::E, floor: Floor::Add(1e-6) },
            normalization,
            ..Self::whisper(mels)
        }
    }

    /// Checks every field against its rule.
    ///
    /// # Errors
    /// [`Error::Config`] with field, value and rule of the first that is broken.
    pub fn validate(&self) -> Result<()> {
        self.first_broken_rule()
            .map_or(Ok(()), |(field, value, rule)| Err(Error::config("front end", format!("{field}: {value}: must be {rule}"))))
    }

    fn first_broken_rule(&self) -> Option<(&'static str, String, String)> {
        /// Bounds memory; 4 s at 16 kHz, far above any front end in use.
        const MAX_N_FFT: usize = 1 << 16;
        let number = |value: f64, good: bool| good && value.is_finite();
        let broken = |field, value: &dyn std::fmt::Debug, rule: String| Some((field, format!("{value:?}"), rule));
        let nyquist = f64::from(self.sample_rate) / 2.0;

        if self.sample_rate == 0 {
            return broken("sample_rate", &self.sample_rate, "at least 1 Hz".into());
        }
        if !number(self.scale.into(), self.scale > 0.0) {
            return broken("scale", &self.scale, "finite and above 0".into());
        }
        if !(2..=MAX_N_FFT).contains(&self.n_fft) {
            return broken("n_fft", &self.n_fft, format!("2 to {MAX_N_FFT}"));
        }
        if !(2..=self.n_fft).contains(&self.window_samples) {
            return broken("window_samples", &self.window_samples, format!("2 to n_fft ({})", self.n_fft));
        }
        if !(1..=self.window_samples).contains(&self.hop) {
            return broken("hop", &self.hop, format!("1 to window_samples ({})", self.window_samples));
        }
        if let PreEmphasis::PerFrame(c) | PreEmphasis::Waveform(c) = self.pre_emphasis
            && !(0.0..=1.0).contains(&c)
        {
            return broken("pre_emphasis", &c, "0 to 1".into());
        }
        if self.remove_dc && matches!(self.pre_emphasis, PreEmphasis::Waveform(_)) {
            return broken("remove_dc", &self.remove_dc, "false with pre-emphasis of the waveform".into());
        }
        if !number(self.low_hz, (0.0..nyquist).contains(&self.low_hz)) {
            return broken("low_hz", &self.low_hz, format!("0 to below half the sampling rate ({nyquist})"));
        }
        if !number(self.high_hz, self.high_hz <= nyquist && self.highest_hz() > self.low_hz) {
            return broken("high_hz", &self.high_hz, format!("above low_hz ({}), at most half the sampling rate ({nyquist})", self.low_hz));
        }
        if !(1..=self.n_fft / 2 + 1).contains(&self.mels) {
            return broken("mels", &self.mels, format!("1 to the bins of the spectrum ({})", self.n_fft / 2 + 1));
        }
        if let Some(empty) = self.mel_weights().iter().position(|filter| filter.iter().all(|&w| w <= 0.0)) {
            return broken(
                "mels",
                &self.mels,
                format!("few enough for every filter to hold a bin of the spectrum (filter {empty} holds none)"),
            );
        }
        let floor = self.log.floor.value();
        if !number(floor.into(), floor >= f32::MIN_POSITIVE) {
            return broken("log.floor", &floor, format!("finite and at least {:e}", f32::MIN_POSITIVE));
        }
        self.normalization.first_broken_rule(self.mels)
    }

    /// Upper end of the last filter in Hz, resolved.
    fn highest_hz(&self) -> f64 {
        if self.high_hz > 0.0 { self.high_hz } else { f64::from(self.sample_rate) / 2.0 + self.high_hz }
    }

    /// Mel filters `[mels, n_fft / 2 + 1]`.
    pub(super) fn mel_weights(&self) -> Vec<Vec<f64>> {
        MelShape {
            scale: self.mel_scale,
            triangles: self.mel_triangles,
            norm: self.mel_norm,
            mels: self.mels,
            low_hz: self.low_hz,
            high_hz: self.highest_hz(),
        }
        .weights(self.n_fft, self.sample_rate.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presets() -> [FrontEndConfig; 7] {
        let blend = Normalization::Blend { weight: 0.7, mean: vec![-5.0; 80], std: vec![2.0; 80] };
        [
            FrontEndConfig::kaldi(),
            FrontEndConfig::icefall(),
            FrontEndConfig::whisper(80),
            FrontEndConfig::whisper(128),
            FrontEndConfig::parakeet(80),
            FrontEndConfig::parakeet(128),
            FrontEndConfig::omniscribe(80, blend),
        ]
    }

    #[test]
    fn presets_are_valid_and_survive_json() {
        for config in presets() {
            config.validate().unwrap();
            let text = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<FrontEndConfig>(&text).unwrap(), config, "{text}");
        }
    }

    #[test]
    fn missing_and_unknown_fields_are_refused_at_every_level() {
        let complete = serde_json::to_value(FrontEndConfig::parakeet(80)).unwrap();
        let parse = |value: &serde_json::Value| serde_json::from_value::<FrontEndConfig>(value.clone());
        let fields: Vec<String> = complete.as_object().unwrap().keys().cloned().collect();
        for field in &fields {
            let mut without = complete.clone();
            without.as_object_mut().unwrap().remove(field);
            assert!(parse(&without).is_err(), "{field} missing");
        }
        for path in ["", "/log", "/framing/centred", "/normalization/per_utterance"] {
            let mut more = complete.clone();
            more.pointer_mut(path).unwrap().as_object_mut().unwrap().insert("extra".into(), 1.into());
            assert!(parse(&more).is_err(), "unknown field at {path:?}");
        }
    }

    #[test]
    fn every_rule_names_its_field() {
        type Change = fn(&mut FrontEndConfig);
        let changes: [(&str, Change); 21] = [
            ("sample_rate: 0", |c| c.sample_rate = 0),
            ("scale: NaN", |c| c.scale = f32::NAN),
            ("scale: 0", |c| c.scale = 0.0),
            ("n_fft: 1", |c| c.n_fft = 1),
            ("n_fft: 65537", |c| c.n_fft = 65_537),
            ("window_samples: 513", |c| c.window_samples = 513),
            ("hop: 0", |c| c.hop = 0),
            ("hop: 401", |c| c.hop = 401),
            ("pre_emphasis: 1.5", |c| c.pre_emphasis = PreEmphasis::PerFrame(1.5)),
            ("remove_dc: true", |c| c.pre_emphasis = PreEmphasis::Waveform(0.5)),
            ("low_hz: -1", |c| c.low_hz = -1.0),
            ("low_hz: 8000", |c| c.low_hz = 8000.0),
            ("high_hz: 10", |c| c.high_hz = 10.0),
            ("high_hz: -8000", |c| c.high_hz = -8000.0),
            ("high_hz: 8001", |c| c.high_hz = 8001.0),
            ("mels: 0", |c| c.mels = 0),
            ("mels: 258", |c| c.mels = 258),
            ("mels: 200", |c| c.mels = 200),
            ("log.floor: 0", |c| c.log.floor = Floor::Clamp(0.0)),
            ("normalization.mean: 2 values", |c| c.normalization = Normalization::Global { mean: vec![0.0; 2], std: vec![1.0; 80] }),
            ("normalization.std: 0", |c| c.normalization = Normalization::Global { mean: vec![0.0; 80], std: vec![0.0; 80] }),
        ];
        for (message, change) in changes {
            let mut config = FrontEndConfig::kaldi();
            change(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.starts_with(&format!("front end: {message}")), "{message}: {error}");
        }
    }
}
