//! Where the siblings meet: audio, features, model, decode and text joined into a recogniser.

pub mod batch;
pub mod chunk;
pub mod transcriber;
pub mod transcript;
