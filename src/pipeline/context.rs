//! The context of a stream by its name: milliseconds of a chunk.

use crate::error::{Error, Result};
use crate::model::config::{ContextConfig, EncoderConfig};
use crate::model::pass::Chunk;
use crate::units::SampleRate;

/// The chunk of `chunk_ms` milliseconds in which the encoder can be run, at `step_samples` samples (16 kHz) for each step.
///
/// # Errors
/// [`Error::Config`] where the encoder does not stream, or not in chunks of this length; says which there are.
pub fn chunk_of(encoder: &EncoderConfig, step_samples: usize, chunk_ms: u32) -> Result<Chunk> {
    let sizes = encoder.context.chunk_sizes();
    if sizes.is_empty() {
        let kind = match encoder.context {
            ContextConfig::Window { .. } => "a window around each step",
            _ => "the whole utterance",
        };
        return Err(Error::config("chunk", format!("this model does not stream: its encoder sees {kind}, not chunks")));
    }
    let milliseconds = |steps: usize| (SampleRate::HZ_16000.seconds(steps * step_samples) * 1000.0).round() as u32;
    let found = sizes.iter().find(|&&steps| milliseconds(steps) == chunk_ms).and_then(|&steps| encoder.context.chunk(steps));
    found.ok_or_else(|| {
        let known: Vec<String> = sizes.iter().map(|&steps| milliseconds(steps).to_string()).collect();
        Error::config("chunk", format!("{chunk_ms} ms: this model streams in chunks of {} ms", known.join(", ")))
    })
}
