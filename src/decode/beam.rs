//! CTC prefix beam search: the most probable texts, with what a language model, a lexicon, a grammar and hotwords say about them.
//!
//! A text is probable by all the paths that spell it (Graves and others, ICML 2006; the search over prefixes follows Hannun and others,
//! arXiv:1408.2873). Its score is
//!
//! `score = ln P(text | audio) + what the text is worth` (see [`fusion`](super::fusion)),
//!
//! where `P` sums over every path that the search has kept, over the ways to spell a text with tokens, and over boundaries that say nothing (see
//! [`Alphabet`]). Nothing is lost with an unlimited width and no thresholds: then `P` is exact.
//!
//! Ties are broken by the order of tokens, so that the same input gives the same answer everywhere.

mod extend;
mod memory;
mod nbest;
mod search;

use super::Hypothesis;
use super::alphabet::Alphabet;
use super::fusion::{Fusion, Scorers};
use crate::error::{Error, Result};
use search::Search;

/// How paths of one text are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paths {
    /// Their probabilities are added: that of the text.
    Sum,
    /// The best one counts (Viterbi), as in Flashlight's default.
    Best,
}

/// What a search keeps and what it drops.
#[derive(Debug, Clone, PartialEq)]
pub struct BeamConfig {
    /// Most hypotheses kept from step to step. Where there are more, and texts are worth anything beside the audio, only the `n_best` best
    /// are kept of those to which whatever may follow adds the same; and an eighth of the width is for those in the middle of a word that the
    /// language model does not know.
    pub beam_width: usize,
    /// Tokens less probable than this (natural log) are not tried, unless none is more probable. A closed language tries all it allows.
    pub token_min_log_prob: f32,
    /// Hypotheses this far below the best one are dropped (natural log, at most 0); what an unfinished word is charged for being unknown does
    /// not count here.
    pub beam_prune_log_prob: f32,
    /// A step whose blank is this probable (natural log) is taken for nothing but a blank. Infinity: none is.
    pub blank_prune_log_prob: f32,
    /// Most hypotheses that are answered, the best one first.
    pub n_best: usize,
    /// How paths of one text are put together.
    pub paths: Paths,
    /// Steps after which a decision is final: hypotheses that differ from the best one before that are dropped. Bounds memory.
    pub horizon: usize,
}

impl Default for BeamConfig {
    /// Width and thresholds of `pyctcdecode` (0.5.0); one answer; no blank pruning, which those thresholds make unnecessary; a horizon of
    /// two minutes at 40 ms a step.
    fn default() -> Self {
        Self {
            beam_width: 100,
            token_min_log_prob: -5.0,
            beam_prune_log_prob: -10.0,
            blank_prune_log_prob: f32::INFINITY,
            n_best: 1,
            paths: Paths::Sum,
            horizon: 3000,
        }
    }
}

impl BeamConfig {
    /// Keeps everything: exact, and exponential in the number of steps.
    pub fn exact() -> Self {
        Self {
            beam_width: usize::MAX,
            token_min_log_prob: f32::NEG_INFINITY,
            beam_prune_log_prob: f32::NEG_INFINITY,
            horizon: usize::MAX,
            ..Self::default()
        }
    }

    /// # Errors
    /// [`Error::Config`] naming the field and the rule it breaks.
    pub fn validate(&self) -> Result<()> {
        let broken = |rule: String| Err(Error::config("beam search", rule));
        for (name, value) in [("beam_width", self.beam_width), ("n_best", self.n_best), ("horizon", self.horizon)] {
            if value == 0 {
                return broken(format!("{name} is 0, it must be at least 1"));
            }
        }
        if self.token_min_log_prob.is_nan() || self.blank_prune_log_prob.is_nan() {
            return broken("token_min_log_prob and blank_prune_log_prob must be numbers".into());
        }
        if self.beam_prune_log_prob.is_nan() || self.beam_prune_log_prob > 0.0 {
            return broken(format!("beam_prune_log_prob is {}, it must be at most 0", self.beam_prune_log_prob));
        }
        Ok(())
    }
}

/// Searches the texts of one utterance at a time, all its steps at once ([`Self::decode`]) or as they come ([`Self::step`], [`Self::flush`]):
/// both give the same.
///
/// A NaN counts as log-probability minus infinity. A step that no hypothesis can take counts as a blank, and makes the scores minus infinity.
///
/// # Closed languages
/// With a lexicon or a grammar every answer is a text of the language, or empty; the empty one is always among the candidates, with the exact
/// probability that nothing was said.
///
/// # Example
/// ```
/// use omniscribe::decode::alphabet::Alphabet;
/// use omniscribe::decode::beam::{BeamConfig, BeamSearch};
/// use omniscribe::decode::fusion::Scorers;
///
/// # fn main() -> omniscribe::Result<()> {
/// let alphabet = Alphabet::new(["", " ", "a", "b"].map(String::from).to_vec(), 0)?;
/// let mut search = BeamSearch::new(alphabet, BeamConfig::default(), &Scorers::default())?;
/// let log_probs = [[0.6f32, 0.1, 0.2, 0.1], [0.6, 0.1, 0.2, 0.1]].concat().iter().map(|p| p.ln()).collect::<Vec<f32>>();
/// // The best path is two blanks (0.36), but "a" has three paths of 0.28 together, and a space says nothing: "" has 0.49.
/// assert!(search.decode(&log_probs, 2)[0].tokens.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct BeamSearch {
    search: Search,
}

impl BeamSearch {
    /// A search for the tokens of `alphabet`.
    ///
    /// # Errors
    /// - [`Error::Config`]: a field of `config` breaks a rule; a weight is not finite; the language model's words cannot be spelt by the tokens;
    ///   a hotword can never match
    /// - [`Error::Manifest`]: the tokens cannot spell a word of the lexicon or grammar; says where it is
    /// - [`Error::LimitExceeded`]: the grammar is too large
    pub fn new(alphabet: Alphabet, config: BeamConfig, scorers: &Scorers) -> Result<Self> {
        config.validate()?;
        let fusion = Fusion::new(&alphabet, scorers)?;
        Ok(Self { search: Search::new(alphabet, config, fusion) })
    }

    /// Decodes one utterance: its best hypotheses, the best one first, of which no two have the same text. There is always at least one.
    ///
    /// `score` of a [`Hypothesis`] is that of its text; `tokens`, `steps` and `token_log_probs` are those of the best path to it. Separators
    /// around the text are left out.
    ///
    /// # Shapes
    /// - `log_probs`: `[steps, vocab]`, natural log, row-major
    ///
    /// # Panics
    /// If `log_probs` is not `steps * vocab` long.
    pub fn decode(&mut self, log_probs: &[f32], steps: usize) -> Vec<Hypothesis> {
        self.reset();
        self.step(log_probs, steps);
        self.flush()
    }

    /// Takes in steps.
    ///
    /// # Shapes
    /// - `log_probs`: `[steps, vocab]`, natural log, row-major
    ///
    /// # Panics
    /// If `log_probs` is not `steps * vocab` long.
    pub fn step(&mut self, log_probs: &[f32], steps: usize) {
        let vocab = self.search.alphabet.vocab();
        assert_eq!(log_probs.len(), steps * vocab, "log_probs is not [{steps}, {vocab}]");
        log_probs.chunks_exact(vocab).for_each(|row| self.search.step(row));
    }

    /// Ends the utterance and returns its best hypotheses, see [`Self::decode`]; the next step starts another one.
    pub fn flush(&mut self) -> Vec<Hypothesis> {
        let hypotheses = self.search.hypotheses();
        self.reset();
        hypotheses
    }

    /// Forgets the utterance.
    pub fn reset(&mut self) {
        self.search.reset();
    }

    /// Steps after which a token is certain at the latest.
    pub fn delay(&self) -> usize {
        self.search.delay()
    }

    /// What [`Self::flush`] would say first if the utterance ended here.
    pub fn best(&mut self) -> Hypothesis {
        self.search.hypotheses().swap_remove(0)
    }

    /// The first tokens of the best path, separators at their end included, that no further step can change: those of [`Self::certain`] and what
    /// says whether the last of them ends a word.
    pub fn certain_tokens(&mut self) -> Vec<u32> {
        self.search.certain_tokens()
    }

    /// How many of the first tokens of [`Self::best`] no further step can change. In a closed language none is certain before the end, which
    /// may show that all was in vain.
    pub fn certain(&mut self) -> usize {
        self.search.certain()
    }
}
