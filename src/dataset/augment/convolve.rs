//! Convolution with long responses by overlap-add FFT, and the FIR band-pass the channel models share.

use std::collections::HashMap;
use std::f64::consts::PI;
use std::sync::Arc;

use realfft::num_complex::Complex32;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};

/// FFT plans and buffers of one thread. Sizes are powers of two, so that few plans are ever made.
#[derive(Default)]
pub struct Convolver {
    plans: HashMap<usize, Plan>,
    block: Vec<f32>,
    out: Vec<f32>,
    spectrum: Vec<Complex32>,
    response: Vec<Complex32>,
}

/// A real FFT and its inverse.
#[derive(Clone)]
pub(crate) struct Plan {
    forward: Arc<dyn RealToComplex<f32>>,
    inverse: Arc<dyn ComplexToReal<f32>>,
    scratch: Vec<Complex32>,
}

impl Plan {
    fn new(size: usize) -> Self {
        let mut planner = RealFftPlanner::new();
        let (forward, inverse) = (planner.plan_fft_forward(size), planner.plan_fft_inverse(size));
        let scratch = vec![Complex32::default(); forward.get_scratch_len().max(inverse.get_scratch_len())];
        Self { forward, inverse, scratch }
    }

    /// Spectrum of `block` (`size / 2 + 1` bins), which is used up.
    pub(crate) fn forward(&mut self, block: &mut [f32], spectrum: &mut [Complex32]) {
        let result = self.forward.process_with_scratch(block, spectrum, &mut self.scratch);
        debug_assert!(result.is_ok(), "FFT buffer sizes: {result:?}");
    }

    /// `size` times the samples of `spectrum`, which is used up. The imaginary parts of the first and last bin are taken as 0.
    pub(crate) fn inverse(&mut self, spectrum: &mut [Complex32], block: &mut [f32]) {
        let last = spectrum.len() - 1;
        (spectrum[0].im, spectrum[last].im) = (0.0, 0.0);
        let result = self.inverse.process_with_scratch(spectrum, block, &mut self.scratch);
        debug_assert!(result.is_ok(), "FFT buffer sizes: {result:?}");
    }
}

impl Convolver {
    /// The plan for a power of two.
    pub(crate) fn plan(&mut self, size: usize) -> &mut Plan {
        self.plans.entry(size).or_insert_with(|| Plan::new(size))
    }

    /// Replaces `samples` by their convolution with `response`, cut to the same length from sample `delay` on.
    pub fn convolve(&mut self, samples: &mut [f32], response: &[f32], delay: usize) {
        if samples.is_empty() || response.is_empty() {
            samples.fill(0.0);
            return;
        }
        let size = block_size(samples.len(), response.len());
        let mut plan = self.plans.remove(&size).unwrap_or_else(|| Plan::new(size));
        let bins = size / 2 + 1;
        self.block.clear();
        self.block.extend(response.iter().map(|x| x / size as f32));
        self.block.resize(size, 0.0);
        self.response.resize(bins, Complex32::default());
        self.spectrum.resize(bins, Complex32::default());
        plan.forward(&mut self.block, &mut self.response);
        self.out.clear();
        self.out.resize(samples.len() + size, 0.0);
        let hop = size - response.len() + 1;
        for (i, chunk) in samples.chunks(hop).enumerate() {
            self.block[..chunk.len()].copy_from_slice(chunk);
            self.block[chunk.len()..].fill(0.0);
            plan.forward(&mut self.block, &mut self.spectrum);
            self.spectrum.iter_mut().zip(&self.response).for_each(|(x, h)| *x *= h);
            plan.inverse(&mut self.spectrum, &mut self.block);
            let reach = chunk.len() + response.len() - 1;
            self.out[i * hop..][..reach].iter_mut().zip(&self.block).for_each(|(y, x)| *y += x);
        }
        self.plans.insert(size, plan);
        let end = samples.len() + response.len() - 1;
        for (n, y) in samples.iter_mut().enumerate() {
            *y = if n + delay < end { self.out[n + delay] } else { 0.0 };
        }
    }
}

/// The power of two with the least work: blocks x size x log2(size), the response's own transform as half a block.
fn block_size(samples: usize, response: usize) -> usize {
    let least = (response + 1).next_power_of_two().max(256);
    let work = |size: usize| {
        let blocks = samples.div_ceil(size - response + 1);
        (2 * blocks + 1) * size * size.ilog2() as usize
    };
    (0..6).map(|i| least << i).min_by_key(|&size| work(size)).unwrap_or(least)
}

/// Linear-phase band-pass between `low` and `high` (as shares of the sampling rate), `2 * half + 1` Hamming-windowed taps, delay `half`.
pub(crate) fn band_pass(low: f64, high: f64, half: usize) -> Vec<f32> {
    let tap = |i: usize| {
        let t = i as f64 - half as f64;
        let low_pass = |cutoff: f64| if t == 0.0 { 2.0 * cutoff } else { (2.0 * PI * cutoff * t).sin() / (PI * t) };
        let window = 0.54 + 0.46 * (PI * t / (half as f64 + 1.0)).cos();
        ((low_pass(high) - low_pass(low)) * window) as f32
    };
    (0..=2 * half).map(tap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::rng::Rng;

    #[test]
    fn equals_the_sum_it_stands_for() {
        let mut rng = Rng::new(1, &[]);
        let mut convolver = Convolver::default();
        for (n, taps, delay) in
            [(1, 1, 0), (1, 5, 2), (7, 300, 10), (1000, 1, 0), (1000, 64, 31), (5000, 700, 0), (300, 255, 127), (3, 2, 9)]
        {
            let x: Vec<f32> = (0..n).map(|_| rng.normal()).collect();
            let h: Vec<f32> = (0..taps).map(|_| rng.normal()).collect();
            let mut got = x.clone();
            convolver.convolve(&mut got, &h, delay);
            for (i, y) in got.iter().enumerate() {
                let terms =
                    (0..taps).filter_map(|k| (i + delay).checked_sub(k).filter(|&j| j < n).map(|j| f64::from(h[k]) * f64::from(x[j])));
                let expected: f64 = terms.sum();
                assert!((f64::from(*y) - expected).abs() < 2e-4, "{n} {taps} {delay} at {i}: {y} {expected}");
            }
        }
        let mut x = [1.0, 2.0];
        convolver.convolve(&mut x, &[], 0);
        assert_eq!(x, [0.0, 0.0]);
    }

    #[test]
    fn band_pass_passes_the_band_only() {
        let taps = band_pass(300.0 / 16_000.0, 3400.0 / 16_000.0, 160);
        let gain = |hz: f64| {
            let (re, im) = taps.iter().enumerate().fold((0.0, 0.0), |(re, im), (i, &h)| {
                let phase = 2.0 * PI * hz * i as f64 / 16_000.0;
                (re + f64::from(h) * phase.cos(), im + f64::from(h) * phase.sin())
            });
            f64::hypot(re, im)
        };
        for hz in [500.0, 1000.0, 3200.0] {
            assert!((gain(hz) - 1.0).abs() < 0.01, "{hz}: {}", gain(hz));
        }
        for hz in [50.0, 100.0, 3700.0, 6000.0] {
            assert!(gain(hz) < 0.01, "{hz}: {}", gain(hz));
        }
    }
}
