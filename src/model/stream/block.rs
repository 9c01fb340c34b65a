//! One layer with its past.

use burn::tensor::Tensor;

use super::{AttentionStream, ConvolutionStream};
use crate::model::block::Block;
use crate::model::feed_forward::{Lent, Routed};
use crate::model::lengths::Lengths;
use crate::model::pass::{Chunk, Pass};

/// The state of a [`Block`]: that of its attention and of its convolution. Feed-forwards and routers look at single steps and have none.
#[derive(Debug, Clone)]
pub struct BlockStream {
    attention: AttentionStream,
    convolution: Option<ConvolutionStream>,
}

impl BlockStream {
    /// A layer at the beginning of a stream.
    pub fn new(block: &Block, chunk: Chunk) -> Self {
        let convolution = block.convolution.as_ref().map(|branch| ConvolutionStream::new(&branch.module, chunk));
        Self { attention: AttentionStream::new(chunk), convolution }
    }

    /// Whole chunks (but for the end of the stream) through the layer; `lent` and what is returned as for [`Block::forward`].
    ///
    /// # Shapes
    /// `x`, returns: `[1, steps, d_model]`
    pub fn step(&mut self, block: &Block, x: Tensor<3>, lent: Lent, pass: &Pass) -> (Tensor<3>, Option<Routed>) {
        let lengths = Lengths::full(1, x.dims()[1]);
        let Self { attention, convolution } = self;
        block.forward_with(
            x,
            &lengths,
            lent,
            pass,
            |module, x| attention.step(module, x, pass),
            |module, x| match convolution {
                Some(stream) => stream.step(module, x, pass),
                None => module.forward(x, &lengths, pass),
            },
        )
    }

    /// Ends the stream; nothing is held back.
    pub fn flush(&mut self) {
        self.reset();
    }

    /// Forgets the stream.
    pub fn reset(&mut self) {
        self.attention.reset();
        if let Some(convolution) = &mut self.convolution {
            convolution.reset();
        }
    }

    /// Steps held back: none.
    pub fn delay(&self) -> usize {
        0
    }
}
