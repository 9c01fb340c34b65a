//! Units of the signal path: samples, frames and steps never share a type with seconds.

/// Sampling rate in Hz.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SampleRate(pub u32);

impl SampleRate {
    /// The rate every model of the library listens at.
    pub const HZ_16000: Self = Self(16_000);

    /// Duration of `samples` at this rate, in seconds.
    pub fn seconds(self, samples: usize) -> f64 {
        samples as f64 / f64::from(self.0)
    }

    /// Number of samples in `seconds`, rounded to the nearest; negative or non-finite durations give 0.
    pub fn samples(self, seconds: f64) -> usize {
        if seconds.is_finite() && seconds > 0.0 { (seconds * f64::from(self.0)).round() as usize } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_samples_are_inverse() {
        let rate = SampleRate(8_000);
        assert_eq!(rate.samples(rate.seconds(12_345)), 12_345);
        assert_eq!(rate.samples(-1.0), 0);
        assert_eq!(rate.samples(f64::NAN), 0);
    }
}
