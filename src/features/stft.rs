//! One frame of samples to its power spectrum: DC removal, pre-emphasis, window, real FFT.

use std::fmt;
use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};

use super::config::{FrontEndConfig, PreEmphasis};
use super::framing::Grid;

/// A stretch of a waveform: `samples[0]` is sample `base` of `total`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch<'a> {
    pub samples: &'a [f32],
    pub base: usize,
    pub total: usize,
}

impl Stretch<'_> {
    fn get(&self, index: usize) -> f32 {
        self.samples[index - self.base]
    }
}

/// Working memory of a [`FrontEnd`](super::FrontEnd), to be kept between calls.
#[derive(Debug, Clone)]
pub struct Scratch {
    /// Samples of a frame that reaches over an end of the waveform.
    edge: Vec<f32>,
    frame: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
    fft: Vec<Complex<f32>>,
    /// The power spectrum, then zeros.
    pub(super) power: Vec<f32>,
}

/// The transform of one configuration.
#[derive(Clone)]
pub(super) struct Stft {
    pub grid: Grid,
    /// Window values times the scale of the samples.
    window: Vec<f32>,
    remove_dc: bool,
    pre_emphasis: PreEmphasis,
    fft: Arc<dyn RealToComplex<f32>>,
}

impl fmt::Debug for Stft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stft").field("grid", &self.grid).finish_non_exhaustive()
    }
}

impl Stft {
    /// Plans the transform of a valid configuration.
    pub fn new(config: &FrontEndConfig) -> Self {
        Self {
            grid: Grid { framing: config.framing, window: config.window_samples, hop: config.hop, n_fft: config.n_fft },
            window: config.window.values(config.window_samples).iter().map(|&w| (w * f64::from(config.scale)) as f32).collect(),
            remove_dc: config.remove_dc,
            pre_emphasis: config.pre_emphasis,
            fft: RealFftPlanner::new().plan_fft_forward(config.n_fft),
        }
    }

    /// Working memory whose power spectrum has room for `padded_bins` values.
    pub fn scratch(&self, padded_bins: usize) -> Scratch {
        Scratch {
            edge: vec![0.0; self.grid.window],
            frame: self.fft.make_input_vec(),
            spectrum: self.fft.make_output_vec(),
            fft: self.fft.make_scratch_vec(),
            power: vec![0.0; padded_bins],
        }
    }

    /// Writes the power spectrum of `frame` to `scratch.power`. The stretch must hold every sample the frame needs.
    pub fn power(&self, stretch: Stretch, frame: usize, scratch: &mut Scratch) {
        self.window_frame(stretch, frame, scratch);
        scratch.frame[self.grid.window..].fill(0.0);
        let transformed = self.fft.process_with_scratch(&mut scratch.frame, &mut scratch.spectrum, &mut scratch.fft);
        debug_assert!(transformed.is_ok(), "buffers are made by the plan itself");
        for (power, bin) in scratch.power.iter_mut().zip(&scratch.spectrum) {
            *power = bin.re * bin.re + bin.im * bin.im;
        }
    }

    /// Writes the windowed samples to the head of `scratch.frame`. The FFT starts at the window's first sample: a shift in time
    /// does not change the power.
    fn window_frame(&self, stretch: Stretch, frame: usize, scratch: &mut Scratch) {
        let length = self.grid.window;
        let start = self.grid.start(frame);
        let out = &mut scratch.frame[..length];
        if start >= 0 && start as usize + length <= stretch.total {
            let start = start as usize;
            let samples = &stretch.samples[start - stretch.base..][..length];
            let (previous, coefficient) = match self.pre_emphasis {
                PreEmphasis::None => (0.0, 0.0),
                PreEmphasis::PerFrame(c) => (samples[0], c),
                PreEmphasis::Waveform(c) => (if start == 0 { 0.0 } else { stretch.get(start - 1) }, c),
            };
            shape(samples, previous, coefficient, self.offset(samples), &self.window, out);
        } else {
            for (position, sample) in (start..).zip(&mut scratch.edge) {
                *sample = match (self.grid.source(position, stretch.total), self.pre_emphasis) {
                    (None, _) => 0.0,
                    (Some(i), PreEmphasis::Waveform(c)) if i > 0 => stretch.get(i) - c * stretch.get(i - 1),
                    (Some(i), _) => stretch.get(i),
                };
            }
            let (previous, coefficient) = match self.pre_emphasis {
                PreEmphasis::None | PreEmphasis::Waveform(_) => (0.0, 0.0),
                PreEmphasis::PerFrame(c) => (scratch.edge[0], c),
            };
            shape(&scratch.edge, previous, coefficient, self.offset(&scratch.edge), &self.window, out);
        }
    }

    fn offset(&self, samples: &[f32]) -> f32 {
        if self.remove_dc { mean(samples) } else { 0.0 }
    }
}

/// `out = ((x - offset) - coefficient * (previous x - offset)) * window`, the three linear steps in one pass.
fn shape(samples: &[f32], previous: f32, coefficient: f32, offset: f32, window: &[f32], out: &mut [f32]) {
    let one = |x: f32, before: f32, w: f32| ((x - offset) - coefficient * (before - offset)) * w;
    out[0] = one(samples[0], previous, window[0]);
    for (((out, &x), &before), &w) in out[1..].iter_mut().zip(&samples[1..]).zip(samples).zip(&window[1..]) {
        *out = one(x, before, w);
    }
}

/// Mean with 16 partial sums: as fast as the hardware adds, and more exact than one running sum.
fn mean(samples: &[f32]) -> f32 {
    let (chunks, rest) = samples.as_chunks::<16>();
    let mut sums = [0f32; 16];
    for chunk in chunks {
        for (sum, &x) in sums.iter_mut().zip(chunk) {
            *sum += x;
        }
    }
    let total: f32 = sums.iter().sum::<f32>() + rest.iter().sum::<f32>();
    total / samples.len() as f32
}
