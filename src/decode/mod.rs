//! Log-probabilities to a [`Hypothesis`].

pub mod align;
pub mod alphabet;
pub mod beam;
pub mod ctc;
pub mod fusion;
pub mod grammar;
pub mod hotwords;
pub mod lexicon;
pub mod ngram;
mod source;
pub mod spans;
mod trie;

/// What a decoder heard in one utterance.
///
/// The three lists have one entry per token.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Hypothesis {
    /// Token ids, blanks and repeats removed.
    pub tokens: Vec<u32>,
    /// Step at which each token is most probable within its run.
    pub steps: Vec<usize>,
    /// Natural log-probability of each token at that step.
    pub token_log_probs: Vec<f32>,
    /// Natural log-probability of the whole path, blanks included; of a beam search that of the text, with what it is worth beside the audio:
    /// the two below.
    pub score: f32,
    /// Part of `score` that a language model and a grammar gave.
    pub language: f32,
    /// Part of `score` that hotwords gave.
    pub hotwords: f32,
}

impl Hypothesis {
    /// Part of `score` that the audio gave.
    pub fn acoustic(&self) -> f32 {
        self.score - self.language - self.hotwords
    }
}
