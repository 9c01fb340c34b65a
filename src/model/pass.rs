//! What kind of forward pass this is: inference or training, in which precision, with which random numbers.

use std::cell::RefCell;

use crate::kernel::gemm::Precision;
use crate::kernel::rng::SplitMix;

/// Settings of one forward pass, handed to every layer.
#[derive(Debug)]
pub struct Pass {
    precision: Precision,
    random: Option<RefCell<SplitMix>>,
}

impl Pass {
    /// No dropout, no jitter.
    pub fn inference(precision: Precision) -> Self {
        Self { precision, random: None }
    }

    /// Dropout, jitter and position augmentation drawn from `seed`; equal seeds give equal passes.
    pub fn training(precision: Precision, seed: u64) -> Self {
        Self { precision, random: Some(RefCell::new(SplitMix::new(seed))) }
    }

    /// Precision of matrix products on the CPU.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// A fresh seed for one random layer; `None` at inference.
    pub fn seed(&self) -> Option<u64> {
        self.random.as_ref().map(|rng| rng.borrow_mut().next_u64())
    }
}
