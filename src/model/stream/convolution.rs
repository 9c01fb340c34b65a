//! The convolution module with the steps before.

use burn::tensor::Tensor;

use crate::model::convolution::Convolution;
use crate::model::lengths::Lengths;
use crate::model::pass::{Chunk, Pass};

/// Keeps the gated input of the last `kernel / 2` steps, in whole chunks: the convolution then finds the borders of chunks where they are.
#[derive(Debug, Clone)]
pub struct ConvolutionStream {
    kept: usize,
    /// `[1, kept, d_model]`; before the first step there are zeros.
    past: Option<Tensor<3>>,
}

impl ConvolutionStream {
    /// A stage at the beginning of a stream.
    pub fn new(module: &Convolution, chunk: Chunk) -> Self {
        let [_, taps] = module.depthwise.dims();
        Self { kept: (taps / 2).next_multiple_of(chunk.steps), past: None }
    }

    /// Convolves whole chunks (but for the end of the stream) with what was before them.
    ///
    /// # Shapes
    /// `x`, returns: `[1, steps, d_model]`
    pub fn step(&mut self, module: &Convolution, x: Tensor<3>, pass: &Pass) -> Tensor<3> {
        let new = module.gated(x, pass);
        let [_, _, width] = new.dims();
        let past = self.past.take().unwrap_or_else(|| Tensor::zeros([1, self.kept, width], &new.device()));
        let all = if self.kept == 0 { new } else { Tensor::cat(vec![past, new], 1) };
        let [_, steps, _] = all.dims();
        self.past = Some(all.clone().slice([0..1, steps - self.kept..steps, 0..width]));
        let y = module.over_steps(all, &Lengths::full(1, steps), pass);
        module.projected(y.slice([0..1, self.kept..steps, 0..width]), pass)
    }

    /// Ends the stream; nothing is held back.
    pub fn flush(&mut self) {
        self.reset();
    }

    /// Forgets the stream.
    pub fn reset(&mut self) {
        self.past = None;
    }

    /// Steps held back: none.
    pub fn delay(&self) -> usize {
        0
    }
}
