//! Models on disk: a folder with configuration, tokenizer and weights.

pub mod directory;
pub mod safetensors_file;
pub mod strict;
pub mod weights;

pub use directory::{ModelConfig, ModelDirectory};
