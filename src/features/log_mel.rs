//! The front end: a waveform to its log-mel features.

use super::config::FrontEndConfig;
use super::mel::MelBank;
use super::normalize::Statistics;
use super::stft::{Scratch, Stft, Stretch};
use crate::error::Result;

/// Log-mel features, time-major.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LogMel {
    /// `[frames, mels]`, row after row.
    pub values: Vec<f32>,
    /// Number of rows.
    pub frames: usize,
    /// Length of a row.
    pub mels: usize,
}

impl LogMel {
    /// The row of one frame, `[mels]`.
    pub fn row(&self, frame: usize) -> &[f32] {
        &self.values[frame * self.mels..][..self.mels]
    }

    /// Drops the frames after the first `frames`.
    pub fn truncate(&mut self, frames: usize) {
        self.frames = self.frames.min(frames);
        self.values.truncate(self.frames * self.mels);
    }
}

/// Computes log-mel features as one configuration says. Read-only in use: threads may share it, each with its own [`Scratch`].
#[derive(Debug, Clone)]
pub struct FrontEnd {
    config: FrontEndConfig,
    stft: Stft,
    mel: MelBank,
}

impl FrontEnd {
    /// Plans the transform and builds the filters.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) where [`FrontEndConfig::validate`] refuses.
    pub fn new(config: FrontEndConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self { stft: Stft::new(&config), mel: MelBank::new(&config.mel_weights()), config })
    }

    /// What this front end computes.
    pub fn config(&self) -> &FrontEndConfig {
        &self.config
    }

    /// Number of frames of a waveform of `samples` samples, the padded one included.
    pub fn num_frames(&self, samples: usize) -> usize {
        self.stft.grid.num_frames(samples)
    }

    /// Number of frames that count; one less than [`num_frames`](Self::num_frames) where the last frame is masked (NeMo).
    pub fn valid_frames(&self, samples: usize) -> usize {
        self.stft.grid.valid_frames(samples)
    }

    /// Frame `f` is final once `f * hop + delay` samples are in.
    pub fn delay(&self) -> usize {
        self.stft.grid.delay()
    }

    /// Mel filters `[mels, n_fft / 2 + 1]`, dense and row-major.
    pub fn mel_filters(&self) -> Vec<f32> {
        self.mel.dense()
    }

    /// Working memory for [`compute_into`](Self::compute_into) and [`log_mel_into`](Self::log_mel_into).
    pub fn scratch(&self) -> Scratch {
        self.stft.scratch(self.mel.padded_bins())
    }

    /// Normalised features of a whole waveform: samples at the configured rate, in [-1, 1].
    pub fn compute(&self, samples: &[f32]) -> LogMel {
        let mut out = LogMel::default();
        self.compute_into(samples, &mut self.scratch(), &mut out);
        out
    }

    /// [`compute`](Self::compute) into memory that is reused.
    pub fn compute_into(&self, samples: &[f32], scratch: &mut Scratch, out: &mut LogMel) {
        self.log_mel_into(samples, scratch, out);
        let valid = self.valid_frames(samples.len()) * out.mels;
        let mut statistics = self.statistics();
        statistics.add(&out.values[..valid]);
        self.config.normalization.apply(&mut out.values[..valid], &statistics);
        out.values[valid..].fill(0.0);
    }

    /// [`compute_into`](Self::compute_into) with the running normalisation of streams ([`Normalization::running`]); where the normalisation
    /// has none, with its own.
    ///
    /// [`Normalization::running`]: super::Normalization::running
    pub fn compute_running_into(&self, samples: &[f32], scratch: &mut Scratch, out: &mut LogMel) {
        let Some(mut running) = self.config.normalization.running(self.config.mels) else {
            return self.compute_into(samples, scratch, out);
        };
        self.log_mel_into(samples, scratch, out);
        let valid = self.valid_frames(samples.len()) * out.mels;
        running.step(&mut out.values[..valid]);
        out.values[valid..].fill(0.0);
    }

    /// Features of a whole waveform before normalisation, the padded frame included.
    pub fn log_mel(&self, samples: &[f32]) -> LogMel {
        let mut out = LogMel::default();
        self.log_mel_into(samples, &mut self.scratch(), &mut out);
        out
    }

    /// [`log_mel`](Self::log_mel) into memory that is reused.
    pub fn log_mel_into(&self, samples: &[f32], scratch: &mut Scratch, out: &mut LogMel) {
        out.mels = self.config.mels;
        out.frames = self.num_frames(samples.len());
        out.values.resize(out.frames * out.mels, 0.0);
        self.frames_into(Stretch { samples, base: 0, total: samples.len() }, 0, scratch, &mut out.values);
    }

    /// Empty statistics for this front end's normalisation, to be fed with valid frames of [`log_mel`](Self::log_mel).
    pub fn statistics(&self) -> Statistics {
        self.config.normalization.statistics(self.config.mels)
    }

    /// Position of the first sample under the window of `frame`; negative before the waveform.
    pub(super) fn start(&self, frame: usize) -> isize {
        self.stft.grid.start(frame)
    }

    /// Frames from `first` on, as many as `rows` has room for, before normalisation.
    pub(super) fn frames_into(&self, stretch: Stretch, first: usize, scratch: &mut Scratch, rows: &mut [f32]) {
        for (frame, row) in (first..).zip(rows.chunks_exact_mut(self.config.mels)) {
            self.stft.power(stretch, frame, scratch);
            self.mel.apply(&scratch.power, row);
            self.config.log.apply(row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_the_floor_at_every_length() {
        for (config, floor) in [
            (FrontEndConfig::kaldi(), f32::EPSILON.ln()),
            (FrontEndConfig::icefall(), f32::EPSILON.ln()),
            (FrontEndConfig::whisper(80), -10.0),
            (FrontEndConfig::parakeet(80), -24.0 * std::f32::consts::LN_2),
        ] {
            let front_end = FrontEnd::new(config).unwrap();
            for samples in [0, 1, 159, 160, 399, 400, 401, 4000] {
                let raw = front_end.log_mel(&vec![0.0; samples]);
                assert_eq!((raw.frames, raw.values.len()), (front_end.num_frames(samples), raw.frames * 80));
                assert!(raw.values.iter().all(|x| (x - floor).abs() < 1e-5), "{samples}: {:?}", &raw.row(0)[..3]);
            }
        }
    }

    #[test]
    fn a_tone_peaks_in_its_filter() {
        let front_end = FrontEnd::new(FrontEndConfig::icefall()).unwrap();
        let tone: Vec<f32> = (0..4000).map(|i| (i as f32 * std::f32::consts::TAU * 1000.0 / 16_000.0).sin()).collect();
        let filters = front_end.mel_filters();
        let filter = |m: usize| filters[m * 257 + 32];
        let log_mel = front_end.log_mel(&tone);
        let loudest = (0..80).max_by(|&a, &b| log_mel.row(10)[a].total_cmp(&log_mel.row(10)[b])).unwrap();
        let heaviest = (0..80).max_by(|&a, &b| filter(a).total_cmp(&filter(b))).unwrap();
        assert_eq!(loudest, heaviest);
    }

    #[test]
    fn an_invalid_configuration_is_refused() {
        let error = FrontEnd::new(FrontEndConfig { hop: 0, ..FrontEndConfig::kaldi() }).unwrap_err();
        assert_eq!(error.to_string(), "front end: hop: 0: must be 1 to window_samples (400)");
    }
}
