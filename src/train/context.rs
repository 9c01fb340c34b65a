//! Which batches a model that also streams sees in chunks (dynamic chunk training).

use serde::{Deserialize, Serialize};

use crate::dataset::bucket::Position;
use crate::kernel::rng::SplitMix;
use crate::model::config::ContextConfig;
use crate::model::pass::Chunk;

/// How often a batch is trained in chunks. Needs an encoder with the context `chunks`.
///
/// # Reference
/// Zhang et al. 2020, arXiv:2012.05481 (one model for streams and whole utterances). Differs: sizes are drawn from the encoder's list.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StreamingConfig {
    /// Share of the batches that are trained in chunks of a size drawn from the encoder's, with features normalised as in a stream.
    pub probability: f64,
}

/// Draws the context of each batch.
#[derive(Debug, Clone)]
pub struct ContextDraw {
    seed: u64,
    probability: f64,
    context: ContextConfig,
}

impl ContextDraw {
    /// Draws for a run of `seed`.
    pub fn new(seed: u64, config: StreamingConfig, context: ContextConfig) -> Self {
        Self { seed, probability: config.probability, context }
    }

    /// The context of the batch at `position`: `None` is the encoder's own.
    pub fn draw(&self, position: Position) -> Option<Chunk> {
        /// Apart from the streams of dropout, which are numbered by batch.
        const STREAM: u64 = 0x6368_756e_6b73;
        let number = (position.epoch << 32) ^ position.batch as u64;
        let mut rng = SplitMix::stream(self.seed ^ STREAM, number);
        let sizes = self.context.chunk_sizes();
        let chunked = !sizes.is_empty() && f64::from(rng.next_f32()) < self.probability;
        chunked.then(|| sizes[(rng.next_u64() % sizes.len() as u64) as usize]).and_then(|steps| self.context.chunk(steps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_drawn_evenly_and_again_the_same() {
        let context = ContextConfig::Chunks { sizes: vec![4, 16], left: 40 };
        let draw = ContextDraw::new(7, StreamingConfig { probability: 0.6 }, context);
        let all: Vec<_> = (0..4000).map(|batch| draw.draw(Position { epoch: batch as u64 % 3, batch })).collect();
        let count = |chunk: Option<Chunk>| all.iter().filter(|drawn| **drawn == chunk).count();
        let small = count(Some(Chunk { steps: 4, left_chunks: 10 }));
        let large = count(Some(Chunk { steps: 16, left_chunks: 2 }));
        assert_eq!(small + large + count(None), 4000);
        assert!((1100..1300).contains(&small) && (1100..1300).contains(&large), "{small} {large}");
        assert_eq!(draw.draw(Position { epoch: 1, batch: 1 }), all[1]);
        let never = ContextDraw::new(7, StreamingConfig { probability: 1.0 }, ContextConfig::Full);
        assert_eq!(never.draw(Position::default()), None);
    }
}
