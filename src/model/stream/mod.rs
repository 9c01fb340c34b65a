//! The recogniser for features that arrive piece by piece.
//!
//! Every stage where steps meet keeps what later steps need of the past, and no more: memory does not grow with the stream.
//!
//! ```text
//! frames -> SubsamplingStream -> BlockStream { AttentionStream, ConvolutionStream } x layers -> logits
//!           frames of an open    keys and values of the     input of the last
//!           chunk                chunks that are seen       kernel / 2 steps
//! ```
//!
//! What is computed is that of a pass over the whole with the same [`Chunk`] ([`Pass::with_chunk`]), by the same code: a stream runs each chunk
//! with its past before it. Weights are lent to every call, so that many streams share one model.

mod attention;
mod block;
mod convolution;
mod subsampling;

pub use attention::AttentionStream;
pub use block::BlockStream;
pub use convolution::ConvolutionStream;
pub use subsampling::SubsamplingStream;

use burn::tensor::Tensor;

use crate::error::{Error, Result};
use crate::model::arithmetic::Arithmetic;
use crate::model::asr::AsrModel;
use crate::model::lengths::Lengths;
use crate::model::pass::{Chunk, Pass};

/// The state of one stream through an [`AsrModel`].
#[derive(Debug, Clone)]
pub struct AsrStream {
    chunk: Chunk,
    arithmetic: Arithmetic,
    subsampling: SubsamplingStream,
    blocks: Vec<BlockStream>,
    /// Steps given since the last reset.
    steps: usize,
}

/// What a stream gave for some chunks.
#[derive(Debug)]
pub struct StreamOutput {
    /// `[1, steps, vocab]`, raw.
    pub logits: Tensor<3>,
    /// Logits of the middle heads, same shape.
    pub intermediate: Vec<Tensor<3>>,
}

impl AsrStream {
    /// A stream through `model` in chunks of `chunk`, at its beginning.
    ///
    /// # Errors
    /// [`Error::Config`] where the encoder has no such context.
    pub fn new(model: &AsrModel, chunk: Chunk, arithmetic: impl Into<Arithmetic>) -> Result<Self> {
        let config = model.encoder.config();
        if config.context.chunk(chunk.steps) != Some(chunk) {
            let reason =
                format!("encoder.context {:?} has no chunks of {} steps: this model cannot stream so", config.context, chunk.steps);
            return Err(Error::config("stream", reason));
        }
        let blocks = model.encoder.blocks.iter().map(|block| BlockStream::new(block, chunk)).collect();
        let subsampling = SubsamplingStream::new(&config.subsampling, config.mels, chunk);
        Ok(Self { chunk, arithmetic: arithmetic.into(), subsampling, blocks, steps: 0 })
    }

    /// Takes in frames; gives the steps of the chunks that are complete, `None` where none is.
    ///
    /// # Shapes
    /// - `frames`: `[frames, mels]`, row after row, any number of them
    pub fn step(&mut self, model: &AsrModel, frames: &[f32]) -> Option<StreamOutput> {
        let pass = self.pass();
        let x = self.subsampling.step(&model.encoder.subsampling, frames, &device(model), &pass)?;
        Some(self.encode(model, x, &pass))
    }

    /// Ends the stream: the steps of its last chunk, if it has any, and starts the next one.
    pub fn flush(&mut self, model: &AsrModel) -> Option<StreamOutput> {
        let pass = self.pass();
        let x = self.subsampling.flush(&model.encoder.subsampling, &device(model), &pass);
        let output = x.map(|x| self.encode(model, x, &pass));
        self.reset();
        output
    }

    /// Forgets the stream.
    pub fn reset(&mut self) {
        self.subsampling.reset();
        self.blocks.iter_mut().for_each(BlockStream::reset);
        self.steps = 0;
    }

    /// Frames after its first that a step waits for, at most: those of its chunk.
    pub fn delay(&self) -> usize {
        self.subsampling.delay()
    }

    fn pass(&self) -> Pass {
        Pass::inference(&self.arithmetic).with_chunk(Some(self.chunk))
    }

    /// Whole chunks (but for the end of the stream) through the blocks and the head.
    fn encode(&mut self, model: &AsrModel, x: Tensor<3>, pass: &Pass) -> StreamOutput {
        let [_, steps, _] = x.dims();
        let lengths = Lengths::full(1, steps);
        let encoder = &model.encoder;
        let mut x = encoder.placed(x, &lengths, self.steps, pass);
        let mut intermediate = Vec::new();
        let mut below = None;
        for (layer, (stream, block)) in self.blocks.iter_mut().zip(&encoder.blocks).enumerate() {
            let (y, routed) = stream.step(block, x, encoder.lent(layer, below.as_ref()), pass);
            below = routed.or(below);
            let (y, logits) = model.after_layer(layer + 1, y, pass);
            intermediate.extend(logits);
            x = y;
        }
        self.steps += steps;
        StreamOutput { logits: model.logits(encoder.normalized(x), pass), intermediate }
    }
}

fn device(model: &AsrModel) -> burn::tensor::Device {
    model.head.weight.val().device()
}
