//! Models on disk: our own folders, and published ones that are read as they are.
//!
//! ```text
//! folder, .nemo or name -> open -> (published: foreign configuration, tokenizer -> ours)
//!                               -> tensor_file: memory-mapped tensors -> layout (table of names) or own -> weights: parameters
//! ```

mod arrange;
pub mod convert;
pub mod directory;
pub mod experts;
pub mod factored;
pub mod hub;
pub mod languages;
pub mod layout;
pub mod layouts;
pub mod limits;
pub mod manifest;
pub mod open;
mod own;
mod pickle;
pub mod published;
pub mod safetensors_file;
mod storage;
pub mod strict;
pub mod tensor_file;
mod torch_archive;
pub mod upcycle;
pub mod weights;

pub use directory::{ModelConfig, ModelDirectory};
pub use open::{Opened, WaveConfigFile, WaveDirectory};
