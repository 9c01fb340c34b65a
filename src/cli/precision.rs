//! Precision by name, shared by the commands that recognise speech.

use clap::ValueEnum;

use crate::kernel::gemm::Precision;

/// Precision of matrix products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// 32-bit
    F32,
    /// bfloat16 where the processor has it
    Bf16,
    /// Weights and what they are multiplied with in 8 bits, the rest as bf16
    Int8,
}

impl Dtype {
    /// The library's value.
    pub fn precision(self) -> Precision {
        match self {
            Self::F32 => Precision::F32,
            Self::Bf16 => Precision::Bf16,
            Self::Int8 => Precision::Int8,
        }
    }
}
