//! Where the siblings meet: audio, features, model, decode and text joined into a recogniser.
//!
//! ```text
//! listen: bytes -> samples -> regions -> chunk: windows -> feed: features ==queue==> pool: encoder -> region: log-probabilities -> decode -> words
//! ```

pub mod batch;
pub mod chunk;
pub mod feed;
pub mod listen;
pub mod pool;
pub mod region;
pub mod transcriber;
pub mod transcript;
