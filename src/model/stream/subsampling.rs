//! Frames to steps, chunk by chunk.

use burn::tensor::{Device, Tensor, TensorData};

use crate::model::config::SubsamplingConfig;
use crate::model::lengths::Lengths;
use crate::model::pass::{Chunk, Pass};
use crate::model::subsampling::Subsampling;

/// Gathers the frames of whole chunks and runs [`Subsampling`] on them.
///
/// Striding convolutions of 3 taps reach `factor - 1` frames to the left of a step's own and none to the right: the frames of one more step go
/// before each chunk, and the step that comes out of them is dropped. At the start nothing goes before, as in a pass over the whole.
#[derive(Debug, Clone)]
pub struct SubsamplingStream {
    mels: usize,
    factor: usize,
    chunk_frames: usize,
    /// Frames to keep of what was taken: those of one step, or none.
    reach: usize,
    /// The last `reach` frames before `pending`.
    history: Vec<f32>,
    /// Frames of a chunk that is not complete.
    pending: Vec<f32>,
}

impl SubsamplingStream {
    /// A stage at the beginning of a stream of frames of `mels` bins.
    pub fn new(config: &SubsamplingConfig, mels: usize, chunk: Chunk) -> Self {
        let factor = config.factor();
        let reach = match config {
            SubsamplingConfig::Stacking { .. } => 0,
            SubsamplingConfig::Convolution { .. } => factor,
        };
        Self { mels, factor, chunk_frames: chunk.steps * factor, reach, history: Vec::new(), pending: Vec::new() }
    }

    /// Takes in frames `[frames, mels]`; gives the steps of the chunks that are complete, `[1, steps, d_model]`.
    pub fn step(&mut self, stage: &Subsampling, frames: &[f32], device: &Device, pass: &Pass) -> Option<Tensor<3>> {
        self.pending.extend_from_slice(frames);
        let chunk = self.chunk_frames * self.mels;
        let ready = self.pending.len() / chunk * chunk;
        (ready > 0).then(|| self.take(ready, stage, device, pass))
    }

    /// Ends the stream: the steps of what is left, and starts the next one.
    pub fn flush(&mut self, stage: &Subsampling, device: &Device, pass: &Pass) -> Option<Tensor<3>> {
        let rest = self.pending.len();
        let steps = (rest > 0).then(|| self.take(rest, stage, device, pass));
        self.reset();
        steps
    }

    /// Forgets the stream.
    pub fn reset(&mut self) {
        self.history.clear();
        self.pending.clear();
    }

    /// Frames after its first that a step waits for, at most.
    pub fn delay(&self) -> usize {
        self.chunk_frames
    }

    fn take(&mut self, values: usize, stage: &Subsampling, device: &Device, pass: &Pass) -> Tensor<3> {
        let dropped = self.history.len() / self.mels / self.factor;
        let mut input = std::mem::take(&mut self.history);
        input.extend(self.pending.drain(..values));
        self.history.extend_from_slice(&input[input.len().saturating_sub(self.reach * self.mels)..]);
        let frames = input.len() / self.mels;
        let x = Tensor::<3>::from_data(TensorData::new(input, [1, frames, self.mels]), device);
        let y = stage.forward(x, &Lengths::full(1, frames), pass);
        let [_, steps, d_model] = y.dims();
        if dropped == 0 { y } else { y.slice([0..1, dropped..steps, 0..d_model]) }
    }
}
