//! The only place with layers: features to CTC logits.
//!
//! Shape letters used throughout: `batch`, `samples`, `frames`, `steps`, `mels`, `d_model`, `heads`, `vocab`, `experts`, `top_k`;
//! `rows` is `batch * steps`.

pub mod arithmetic;
pub mod asr;
pub mod attention;
pub mod block;
pub mod config;
pub mod convolution;
pub mod encoder;
pub mod feed_forward;
pub mod init;
pub mod lengths;
pub mod moe;
pub mod ops;
pub mod pass;
pub mod position;
pub mod recognizer;
pub mod stream;
pub mod subsampling;
pub mod wave;
