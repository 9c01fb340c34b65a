//! Mel filter bank: each filter is a contiguous band of bins, and only that band is multiplied.

use serde::{Deserialize, Serialize};

/// Frequency to mel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MelScale {
    /// `2595 log10(1 + f / 700)` (HTK, Kaldi, torchaudio).
    Htk,
    /// Linear below 1 kHz, logarithmic above (Slaney's Auditory Toolbox; librosa, Whisper, NeMo).
    Slaney,
}

/// Along which axis the sides of the triangles are straight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MelTriangles {
    /// Straight in Hz (librosa, Whisper, NeMo).
    Hz,
    /// Straight in mel (Kaldi).
    Mel,
}

/// Height of the triangles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MelNorm {
    /// Peak 1.
    None,
    /// Peak `2 / width in Hz`: equal area (Slaney).
    Area,
}

impl MelScale {
    /// Mels of a frequency in Hz.
    pub fn mel(self, hz: f64) -> f64 {
        match self {
            Self::Htk => 2595.0 * (1.0 + hz / 700.0).log10(),
            Self::Slaney if hz < SLANEY_KNEE_HZ => hz * SLANEY_MEL_PER_HZ,
            Self::Slaney => SLANEY_KNEE_HZ * SLANEY_MEL_PER_HZ + (hz / SLANEY_KNEE_HZ).ln() / SLANEY_LOG_STEP,
        }
    }

    /// Frequency in Hz of a mel value.
    pub fn hz(self, mel: f64) -> f64 {
        let knee = SLANEY_KNEE_HZ * SLANEY_MEL_PER_HZ;
        match self {
            Self::Htk => 700.0 * (10f64.powf(mel / 2595.0) - 1.0),
            Self::Slaney if mel < knee => mel / SLANEY_MEL_PER_HZ,
            Self::Slaney => SLANEY_KNEE_HZ * ((mel - knee) * SLANEY_LOG_STEP).exp(),
        }
    }
}

/// End of the linear part (Slaney, Auditory Toolbox, 1998).
const SLANEY_KNEE_HZ: f64 = 1000.0;
/// Three mels per 200 Hz in the linear part (same source).
const SLANEY_MEL_PER_HZ: f64 = 3.0 / 200.0;
/// ln(6.4) / 27: 27 mels from 1 to 6.4 kHz (same source).
const SLANEY_LOG_STEP: f64 = 0.068_751_777_420_949_12;

/// Shape of a filter bank over the bins of a power spectrum.
#[derive(Debug, Clone, Copy)]
pub(super) struct MelShape {
    pub scale: MelScale,
    pub triangles: MelTriangles,
    pub norm: MelNorm,
    pub mels: usize,
    pub low_hz: f64,
    pub high_hz: f64,
}

impl MelShape {
    /// The weights `[mels, n_fft / 2 + 1]`, dense.
    pub fn weights(&self, n_fft: usize, sample_rate: f64) -> Vec<Vec<f64>> {
        let (low, high) = (self.scale.mel(self.low_hz), self.scale.mel(self.high_hz));
        let corner = |i: usize| low + (high - low) * i as f64 / (self.mels + 1) as f64;
        let bin_hz = |bin: usize| bin as f64 * sample_rate / n_fft as f64;
        let filter = |m: usize| {
            let mel_corners = [corner(m), corner(m + 1), corner(m + 2)];
            let hz_corners = mel_corners.map(|c| self.scale.hz(c));
            let [left, centre, right] = if self.triangles == MelTriangles::Mel { mel_corners } else { hz_corners };
            let height = if self.norm == MelNorm::Area { 2.0 / (hz_corners[2] - hz_corners[0]) } else { 1.0 };
            let weight = |bin: usize| {
                let x = if self.triangles == MelTriangles::Mel { self.scale.mel(bin_hz(bin)) } else { bin_hz(bin) };
                height * ((x - left) / (centre - left)).min((right - x) / (right - centre)).max(0.0)
            };
            (0..n_fft / 2 + 1).map(weight).collect()
        };
        (0..self.mels).map(filter).collect()
    }
}

/// Bins multiplied at once; every band is padded to a multiple of it with zero weights.
pub(super) const LANES: usize = 4;

/// The filters as bands.
#[derive(Debug, Clone)]
pub(super) struct MelBank {
    /// First bin and padded length of each band.
    bands: Vec<(usize, usize)>,
    /// The weights of all bands, one band after the other.
    weights: Vec<f32>,
    bins: usize,
}

impl MelBank {
    /// Bands of dense `weights` `[mels, bins]`.
    pub fn new(weights: &[Vec<f64>]) -> Self {
        let bins = weights.first().map_or(0, Vec::len);
        let mut bank = Self { bands: Vec::with_capacity(weights.len()), weights: Vec::new(), bins };
        for filter in weights {
            let first = filter.iter().position(|&w| w > 0.0).unwrap_or(0);
            let end = filter.iter().rposition(|&w| w > 0.0).map_or(first, |last| last + 1);
            let padded = (end - first).next_multiple_of(LANES);
            bank.weights.extend(filter[first..end].iter().map(|&w| w as f32));
            bank.weights.resize(bank.weights.len() + padded - (end - first), 0.0);
            bank.bands.push((first, padded));
        }
        bank
    }

    /// Length that [`MelBank::apply`] wants of a power spectrum: the bins, then zeros for the padding of the last bands.
    pub fn padded_bins(&self) -> usize {
        self.bins + LANES - 1
    }

    /// Energies `[mels]` of a power spectrum of [`padded_bins`](Self::padded_bins).
    pub fn apply(&self, power: &[f32], energies: &mut [f32]) {
        let mut weights = self.weights.as_slice();
        for (energy, &(first, len)) in energies.iter_mut().zip(&self.bands) {
            let (band, rest) = weights.split_at(len);
            weights = rest;
            let mut sums = [0f32; LANES];
            for (w, p) in band.as_chunks::<LANES>().0.iter().zip(power[first..first + len].as_chunks::<LANES>().0) {
                for lane in 0..LANES {
                    sums[lane] += w[lane] * p[lane];
                }
            }
            *energy = (sums[0] + sums[2]) + (sums[1] + sums[3]);
        }
    }

    /// The weights `[mels, bins]`, dense and row-major.
    pub fn dense(&self) -> Vec<f32> {
        let mut dense = vec![0.0; self.bands.len() * self.bins];
        let mut weights = self.weights.as_slice();
        for (row, &(first, len)) in dense.chunks_exact_mut(self.bins).zip(&self.bands) {
            let (band, rest) = weights.split_at(len);
            weights = rest;
            row[first..].iter_mut().zip(band).for_each(|(d, &w)| *d = w);
        }
        dense
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_their_own_inverse() {
        for scale in [MelScale::Htk, MelScale::Slaney] {
            for hz in [0.0, 20.0, 999.0, 1000.0, 1001.0, 8000.0] {
                assert!((scale.hz(scale.mel(hz)) - hz).abs() < 1e-9, "{scale:?} {hz}");
            }
        }
        assert!((SLANEY_LOG_STEP - 6.4f64.ln() / 27.0).abs() < 1e-17);
    }

    #[test]
    fn bands_equal_the_dense_product() {
        for (mels, scale, triangles, norm) in [
            (80, MelScale::Htk, MelTriangles::Mel, MelNorm::None),
            (128, MelScale::Slaney, MelTriangles::Hz, MelNorm::Area),
            (1, MelScale::Slaney, MelTriangles::Hz, MelNorm::None),
        ] {
            let weights = MelShape { scale, triangles, norm, mels, low_hz: 0.0, high_hz: 8000.0 }.weights(512, 16_000.0);
            let bank = MelBank::new(&weights);
            let mut power: Vec<f32> = (0..257).map(|i| ((i * 37) % 101) as f32 / 101.0).collect();
            power.resize(bank.padded_bins(), 0.0);
            let mut energies = vec![f32::NAN; mels];
            bank.apply(&power, &mut energies);
            for (m, (filter, energy)) in weights.iter().zip(&energies).enumerate() {
                let exact: f64 = filter.iter().zip(&power).map(|(w, &p)| w * f64::from(p)).sum();
                assert!((exact - f64::from(*energy)).abs() <= 1e-6 * exact.max(1e-3), "{m}: {energy} for {exact}");
            }
            let dense = bank.dense();
            assert!(weights.iter().flatten().zip(&dense).all(|(a, b)| *a as f32 == *b));
        }
    }
}
