//! What a recording was understood as.

use serde::{Deserialize, Serialize};

/// Version of the JSON shape.
pub const SCHEMA_VERSION: u32 = 1;

/// The transcript of one recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transcript {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The file, as named by the caller.
    pub file: String,
    /// Length of the audio, seconds.
    pub duration: f64,
    /// Everything that was said.
    pub text: String,
    /// The words in order.
    pub words: Vec<Word>,
    /// What was wrong with the audio but did not prevent decoding.
    pub warnings: Vec<String>,
}

/// A word with its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Word {
    /// The word.
    pub word: String,
    /// Step of its first token, seconds.
    pub start: f64,
    /// End of the step of its last token, seconds.
    pub end: f64,
    /// Lowest probability of its tokens' steps, not calibrated.
    pub confidence: f64,
}
