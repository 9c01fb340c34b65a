//! Bounds that keep a hostile file from taking unbounded memory or time.

use std::path::Path;

use crate::error::{Error, Result};
use crate::units::SampleRate;

/// What a reader accepts; the defaults hold for whole files on an ordinary machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Longest audio, in seconds. Also bounds the memory of a whole [`Waveform`](super::Waveform): 64 kB per second at 16 kHz.
    pub seconds: f64,
    /// Most channels.
    pub channels: usize,
    /// Lowest and highest sampling rate.
    pub sample_rates: (SampleRate, SampleRate),
    /// Most bytes of a pipe kept in memory, for the containers that need to seek (MP4, CAF, AIFF).
    pub buffered_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { seconds: 12.0 * 3600.0, channels: 32, sample_rates: (SampleRate(2_000), SampleRate(384_000)), buffered_bytes: 256 << 20 }
    }
}

impl Limits {
    /// Checks what a header says before anything is allocated for it.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] over a bound; [`Error::CorruptAudio`] for zero channels; [`Error::UnsupportedAudio`] below the lowest rate.
    pub(super) fn check(&self, name: &Path, rate: SampleRate, channels: usize) -> Result<()> {
        let (low, high) = self.sample_rates;
        if channels == 0 {
            return Err(Error::CorruptAudio { path: name.into(), at: None, reason: "no channels".into() });
        }
        if channels > self.channels {
            return Err(exceeded(name, "channels", self.channels as u64, channels as u64));
        }
        if rate > high {
            return Err(exceeded(name, "sampling rate in Hz", high.0.into(), rate.0.into()));
        }
        if rate < low {
            let reason = format!("sampling rate of {} Hz (lowest accepted: {} Hz)", rate.0, low.0);
            return Err(Error::UnsupportedAudio { path: name.into(), reason });
        }
        Ok(())
    }

    /// Checks the number of samples decoded so far.
    pub(super) fn check_length(&self, name: &Path, rate: SampleRate, samples: u64) -> Result<()> {
        let seconds = samples as f64 / f64::from(rate.0);
        if seconds <= self.seconds {
            return Ok(());
        }
        Err(exceeded(name, "audio length in seconds", self.seconds as u64, seconds.ceil() as u64))
    }
}

/// An [`Error::LimitExceeded`] that names the file.
pub(super) fn exceeded(name: &Path, what: &str, limit: u64, got: u64) -> Error {
    Error::LimitExceeded { what: format!("{}: {what}", name.display()), limit, got }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_is_checked() {
        let limits = Limits::default();
        let name = Path::new("x.wav");
        let ok = SampleRate::HZ_16000;
        assert!(limits.check(name, ok, 6).is_ok());
        assert!(matches!(limits.check(name, ok, 0), Err(Error::CorruptAudio { .. })));
        assert!(matches!(limits.check(name, ok, 65_535), Err(Error::LimitExceeded { got: 65_535, .. })));
        assert!(matches!(limits.check(name, SampleRate(1), 1), Err(Error::UnsupportedAudio { .. })));
        assert!(matches!(limits.check(name, SampleRate(u32::MAX), 1), Err(Error::LimitExceeded { .. })));
        assert!(limits.check_length(name, ok, 16_000).is_ok());
        assert!(matches!(limits.check_length(name, ok, u64::MAX), Err(Error::LimitExceeded { .. })));
    }
}
