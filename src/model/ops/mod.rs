//! Operations of the model: fused kernels on the CPU, compositions of Burn operations on other devices.
//!
//! Each file holds one operation twice: the composed form any backend runs, which is also the oracle of the tests, and the fused
//! form for Flex. [`fused::available`] decides at run time.

pub mod activation;
pub mod attention;
pub mod ctc;
pub mod depthwise;
pub mod dropout;
pub mod experts;
mod experts_fused;
pub mod fused;
pub mod linear;
pub mod norm;
