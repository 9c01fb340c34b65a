//! Self-attention with the keys and values of the chunks before.

use burn::tensor::Tensor;

use crate::model::attention::SelfAttention;
use crate::model::lengths::Lengths;
use crate::model::ops::linear::linear;
use crate::model::pass::{Chunk, Pass};

/// Keeps the projected steps of the chunks that the next one sees.
///
/// Positions enter scores by their distance alone, rotary ones too, so counting them from the oldest kept step gives what counting from the start
/// of the stream would, and never large angles.
#[derive(Debug, Clone)]
pub struct AttentionStream {
    chunk: Chunk,
    /// Queries (of no more use), keys and values of whole chunks, `[1, steps, 3 d_model]`.
    past: Option<Tensor<3>>,
    /// Projected sinusoids of the most steps so far, and how many those are.
    positions: Option<(usize, Tensor<2>)>,
}

impl AttentionStream {
    /// A stage at the beginning of a stream.
    pub fn new(chunk: Chunk) -> Self {
        Self { chunk, past: None, positions: None }
    }

    /// Attends from whole chunks (but for the end of the stream) to themselves and to the chunks before.
    ///
    /// # Shapes
    /// `x`, returns: `[1, steps, d_model]`
    pub fn step(&mut self, attention: &SelfAttention, x: Tensor<3>, pass: &Pass) -> Tensor<3> {
        let new = linear(x, &attention.qkv, pass);
        let (first, all) = match self.past.take() {
            Some(past) => (past.dims()[1], Tensor::cat(vec![past, new], 1)),
            None => (0, new),
        };
        let [_, steps, width] = all.dims();
        let positions = self.positions(attention, steps, &all, pass);
        let y = attention.attend(all.clone(), &Lengths::full(1, steps), first, positions, pass);
        let kept = steps.min(self.chunk.left_chunks * self.chunk.steps);
        self.past = (kept > 0).then(|| all.slice([0..1, steps - kept..steps, 0..width]));
        y
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

    /// The middle of the table for the most steps: distances `steps - 1` down to `-(steps - 1)`.
    fn positions(&mut self, attention: &SelfAttention, steps: usize, like: &Tensor<3>, pass: &Pass) -> Option<Tensor<2>> {
        attention.relative.as_ref()?;
        if self.positions.as_ref().is_none_or(|(most, _)| *most < steps) {
            let most = steps.max((self.chunk.left_chunks + 1) * self.chunk.steps);
            self.positions = attention.positions(most, &like.device(), pass).map(|table| (most, table));
        }
        let (most, table) = self.positions.as_ref()?;
        let [_, d_model] = table.dims();
        Some(table.clone().slice([most - steps..most + steps - 1, 0..d_model]))
    }
}
