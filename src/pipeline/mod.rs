//! Where the siblings meet: audio, features, model, decode and text joined into a recogniser.
//!
//! ```text
//! listen: bytes -> samples -> gate: regions -> chunk: windows -> feed: features ==queue==> pool: encoder -> region: log-probabilities -> decode -> words
//! ```
//!
//! [`stream`] is the way of speech that is heard while it is spoken: one chunk of steps at a time, no queue, no batch.

pub mod alignment;
pub mod batch;
pub mod calibration;
pub mod chunk;
pub mod context;
pub mod decoder;
pub mod feed;
pub mod find;
pub mod format;
pub mod front;
pub mod gate;
pub mod language;
pub mod listen;
pub mod pool;
pub mod region;
pub mod segment;
pub mod stream;
pub mod transcriber;
pub mod transcript;
pub mod words;
pub mod writing;
