//! Window functions.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// Shape of the analysis window over `n` samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// Kaldi's: the symmetric Hann window to the power 0.85.
    Povey,
    /// `0.54 - 0.46 cos(2 pi i / (n - 1))`.
    Hamming,
    /// Symmetric: `0.5 - 0.5 cos(2 pi i / (n - 1))`.
    Hann,
    /// Periodic, as spectral analysis has it: `0.5 - 0.5 cos(2 pi i / n)`.
    HannPeriodic,
}

impl Window {
    /// The window's `n` values (`n >= 2`).
    pub fn values(self, n: usize) -> Vec<f64> {
        let period = if self == Self::HannPeriodic { n } else { n - 1 } as f64;
        let hann = |i: usize| 0.5 - 0.5 * (2.0 * PI * i as f64 / period).cos();
        (0..n)
            .map(|i| match self {
                Self::Povey => hann(i).powf(0.85),
                Self::Hamming => 0.08 + 0.92 * hann(i),
                Self::Hann | Self::HannPeriodic => hann(i),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_at_ends_and_middle() {
        for (window, first, middle, last) in [
            (Window::Povey, 0.0, 1.0, 0.0),
            (Window::Hamming, 0.08, 1.0, 0.08),
            (Window::Hann, 0.0, 1.0, 0.0),
            (Window::HannPeriodic, 0.0, 0.5 - 0.5 * (4.0 * PI / 5.0).cos(), 0.5 - 0.5 * (8.0 * PI / 5.0).cos()),
        ] {
            let w = window.values(5);
            for (got, want) in [(w[0], first), (w[2], middle), (w[4], last)] {
                assert!((got - want).abs() < 1e-12, "{window:?}: {w:?}");
            }
        }
    }
}
