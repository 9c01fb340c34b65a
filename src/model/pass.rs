//! What kind of forward pass this is: inference or training, in which precision, with which random numbers.

use std::cell::RefCell;
use std::fmt::Debug;
use std::rc::Rc;

use burn::module::ParamId;
use burn::tensor::Tensor;

use crate::kernel::gemm::Precision;
use crate::kernel::rng::SplitMix;
use crate::model::arithmetic::{Arithmetic, Packed};
use crate::model::moe::router::Routing;

/// Looks on while feed-forwards work.
pub trait Probe: Debug {
    /// What the feed-forward of a layer (from 0) reads, `[rows, d_model]`, and where its router sends the rows; `None` for a dense one.
    fn see(&self, layer: usize, x: &Tensor<2>, routing: Option<&Routing>);
}

/// Settings of one forward pass, handed to every layer.
#[derive(Debug)]
pub struct Pass {
    arithmetic: Arithmetic,
    random: Option<RefCell<SplitMix>>,
    chunk: Option<Chunk>,
    slot: Option<usize>,
    probe: Option<Rc<dyn Probe>>,
}

/// The context of a pass in chunks, as a stream has it: a step sees its own chunk and some before it, and nothing after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Chunk {
    /// Steps of a chunk.
    pub steps: usize,
    /// Chunks before its own that attention reaches; convolutions reach as far back as their taps.
    pub left_chunks: usize,
}

impl Pass {
    /// No dropout, no jitter.
    pub fn inference(arithmetic: impl Into<Arithmetic>) -> Self {
        Self { arithmetic: arithmetic.into(), random: None, chunk: None, slot: None, probe: None }
    }

    /// Dropout, jitter and position augmentation drawn from `seed`; equal seeds give equal passes.
    pub fn training(precision: Precision, seed: u64) -> Self {
        Self { arithmetic: precision.into(), random: Some(RefCell::new(SplitMix::new(seed))), chunk: None, slot: None, probe: None }
    }

    /// The same pass with the context of `chunk`; `None` leaves the encoder's own.
    pub fn with_chunk(self, chunk: Option<Chunk>) -> Self {
        Self { chunk, ..self }
    }

    /// The same pass with the module of `slot`, where the model has modules; `None` is the shared one.
    pub fn with_slot(self, slot: Option<usize>) -> Self {
        Self { slot, ..self }
    }

    /// The slot of the module of this pass; `None` is the shared one.
    pub fn slot(&self) -> Option<usize> {
        self.slot
    }

    /// The same pass with somebody who looks on.
    pub fn with_probe(self, probe: Rc<dyn Probe>) -> Self {
        Self { probe: Some(probe), ..self }
    }

    /// Who looks on.
    pub fn probe(&self) -> Option<&dyn Probe> {
        self.probe.as_deref()
    }

    /// The context in chunks, if the pass has it.
    pub fn chunk(&self) -> Option<Chunk> {
        self.chunk
    }

    /// Precision of matrix products on the CPU.
    pub fn precision(&self) -> Precision {
        self.arithmetic.precision()
    }

    /// A parameter that was packed for this pass.
    pub fn packed(&self, id: ParamId) -> Option<Packed> {
        self.arithmetic.packed(id)
    }

    /// Whether the pass is part of training.
    pub fn is_training(&self) -> bool {
        self.random.is_some()
    }

    /// A fresh seed for one random layer; `None` at inference.
    pub fn seed(&self) -> Option<u64> {
        self.random.as_ref().map(|rng| rng.borrow_mut().next_u64())
    }
}
