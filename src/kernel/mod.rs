//! CPU kernels on plain slices: the only module with `unsafe`. Each has a scalar reference it is tested against.
//!
//! Matrices are row-major f32 in memory; wide instructions are chosen at run time ([`cpu`]).

#![allow(unsafe_code)] // wide instructions; every block says why it is sound

pub mod activation;
pub mod adamw;
#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod amx_int8;
pub mod attention;
pub mod conv2d;
pub mod cpu;
pub mod ctc;
pub mod depthwise;
mod dot_int8;
pub mod dropout;
pub mod epilogue;
pub mod gemm;
mod gemm_bf16;
mod gemm_f32;
mod gemm_int8;
pub mod mapping;
mod math;
pub mod matrix;
pub mod memory;
#[cfg(test)]
mod noise;
pub mod norm;
mod pack;
mod quantize;
pub mod rng;
pub mod rows;
mod simd;
pub mod softmax;
mod words;
