//! Log-probabilities to a [`Hypothesis`].

pub mod ctc;

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
    /// Natural log-probability of the whole path, blanks included.
    pub score: f32,
}
