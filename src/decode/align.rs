//! Forced alignment: where in a recording the words of a given text are.
//!
//! The most probable CTC path through the text's tokens (Graves et al. 2006, doi:10.1145/1143844.1143891, with max for sum). With
//! [`Fit::Loose`] the text need not fit: a word may be skipped at a price for each of its tokens, and between words any other speech may
//! be passed over at a price for each step. Both prices stand in the same sum as the log-probabilities, so the cheapest explanation wins:
//! a word that was not said is reported missing instead of being smeared over its neighbours' pause.
//!
//! # Memory and time
//!
//! Neither grows with steps times tokens. Up to [`Options::most_cells`] every path is looked at; beyond, only those within a corridor
//! around runs of tokens that the text and the most probable tokens have in common once each (`corridor.rs`), at least
//! [`Options::margin`] tokens to either side. If the path found comes near the corridor's wall, it is sought again with twice the margin.
//! Scores are kept at about the square root of the steps and the rest is computed again on the way back, so that `width` states take
//! about `6 * sqrt(steps) * width` bytes, besides some 50 bytes a step and 100 a token: 34 MB for 373 000 steps and 151 000 tokens
//! (`three_hours_alone` in `tests/it/align.rs`). The caller's [`Emissions`] are read up to three times and need not be in memory at once.

mod corridor;
mod row;
mod trellis;

use std::ops::Range;

use super::ctc::{Run, collapse};
use crate::error::{Error, Result};
use corridor::Corridor;
use trellis::{PathStep, Trellis};

/// A rectangle between two sure places is open as a whole up to this part of the cells of a search of all paths.
const OPEN_PARTS: usize = 25;
/// How often the margin is doubled before the path along the wall is taken as it is.
const MOST_WIDENINGS: usize = 3;

/// Log-probabilities that can be read piece by piece, each piece several times.
pub trait Emissions {
    /// Number of steps.
    fn steps(&self) -> usize;
    /// Classes, the blank included.
    fn vocab(&self) -> usize;
    /// Replaces `rows` by the natural log-probabilities `[steps.len(), vocab]` of `steps`.
    ///
    /// # Errors
    /// Whatever the source meets; the alignment stops with it.
    fn read(&mut self, steps: Range<usize>, rows: &mut Vec<f32>) -> Result<()>;
}

/// [`Emissions`] in memory: natural log-probabilities `[steps, vocab]`, row-major.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    values: &'a [f32],
    vocab: usize,
}

impl<'a> Matrix<'a> {
    /// `values` as rows of `vocab`.
    ///
    /// # Panics
    /// If `values` is not a whole number of rows.
    pub fn new(values: &'a [f32], vocab: usize) -> Self {
        assert!(vocab > 0 && values.len().is_multiple_of(vocab), "{} values are no rows of {vocab}", values.len());
        Self { values, vocab }
    }
}

impl Emissions for Matrix<'_> {
    fn steps(&self) -> usize {
        self.values.len() / self.vocab
    }

    fn vocab(&self) -> usize {
        self.vocab
    }

    fn read(&mut self, steps: Range<usize>, rows: &mut Vec<f32>) -> Result<()> {
        rows.clear();
        rows.extend_from_slice(&self.values[steps.start * self.vocab..steps.end * self.vocab]);
        Ok(())
    }
}

/// How the text and the recording belong together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fit {
    /// Every word is said and nothing else: plain CTC forced alignment.
    Exact,
    /// Words of the text may be missing from the recording, and the recording may hold other speech between them.
    Loose(Costs),
}

/// Prices of a loose fit, natural log.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Costs {
    /// For every token of a word that is passed over, and for the separator before or after it.
    pub missing: f64,
    /// For every step in which other speech than the text is passed over.
    pub extra: f64,
}

impl Default for Costs {
    /// 3 for a missing token, 1 for a step of other speech.
    ///
    /// Measured with the character model `base` on a third of dev, words put into the text that are not said and words taken out that are
    /// (`words_put_in_and_taken_out` in `tests/it/align_speech.rs` does it again). The model is weak there, WER 70, and yet 93 % of the words put in
    /// are found missing and 2.9 % of those that are said; on utterances it was trained on 97 % and 1.2 %. A price of 2 doubles the false
    /// ones and finds no more; 4 halves them and misses 10 % on dev. Words next to speech that is not in the text keep their place best at
    /// 1 a step (90 %); at 3 it is smeared over them.
    fn default() -> Self {
        Self { missing: 3.0, extra: 1.0 }
    }
}

/// What an alignment needs to know besides the words.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// The blank token.
    pub blank: u32,
    /// The token between words, where the tokenizer has one (of characters: the space). Words do not hold it.
    pub separator: Option<u32>,
    /// How the text and the recording belong together.
    pub fit: Fit,
    /// Tokens to either side of the expected place that are searched at least, where not all can be.
    pub margin: usize,
    /// Most steps times states for which all paths are looked at.
    pub most_cells: usize,
}

impl Options {
    /// A loose fit at the default prices, within 500 tokens (a good half minute of speech in characters) where the recording is longer
    /// than some 20 minutes.
    pub fn new(blank: u32, separator: Option<u32>) -> Self {
        Self { blank, separator, fit: Fit::Loose(Costs::default()), margin: 500, most_cells: 500_000_000 }
    }
}

/// A token with its steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenSpan {
    /// The token.
    pub token: u32,
    /// First step.
    pub start: usize,
    /// One past the last step.
    pub end: usize,
    /// Mean of its probabilities over these steps.
    pub probability: f32,
}

/// A word with its steps.
#[derive(Debug, Clone, PartialEq)]
pub struct AlignedWord {
    /// First step of its first token.
    pub start: usize,
    /// One past the last step of its last token.
    pub end: usize,
    /// Mean natural log-probability over the steps of its tokens.
    pub log_prob: f32,
    /// Its tokens in order, blanks between them left out.
    pub tokens: Vec<TokenSpan>,
}

/// How the path was sought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// All paths were looked at.
    Exhaustive,
    /// Only paths within a corridor.
    Corridor {
        /// Steps in long stretches where text and recording have no run of tokens in common, so that only paths near the straight line
        /// were looked at. Many of them mean that the text is not this recording's.
        unguided: usize,
    },
}

/// Where the words are.
#[derive(Debug, Clone, PartialEq)]
pub struct Alignment {
    /// One entry per word of the text; `None` if it is missing from the recording.
    pub words: Vec<Option<AlignedWord>>,
    /// Steps of speech that is not in the text, one range between two words at most.
    pub extra: Vec<Range<usize>>,
    /// Token of every step, the blank between tokens and in `extra`.
    pub path: Vec<u32>,
    /// Natural log-probability of what every step was taken for; in `extra` of the step's best token.
    pub log_probs: Vec<f32>,
    /// Natural log-probability of the blank at every step, for [`widen`](super::spans::widen).
    pub blanks: Vec<f32>,
    /// Sum of `log_probs`; the prices of a loose fit are not in it.
    pub score: f64,
    /// How the path was sought.
    pub search: Search,
}

impl Alignment {
    /// Every run of a token along the path, separators included.
    pub fn spans(&self, blank: u32) -> Vec<TokenSpan> {
        collapse(&self.path, blank).into_iter().map(|run| span(run, &self.log_probs)).collect()
    }
}

fn span(Run { token, start, end }: Run, log_probs: &[f32]) -> TokenSpan {
    let sum: f64 = log_probs[start..end].iter().map(|&p| f64::from(p).exp()).sum();
    TokenSpan { token, start, end, probability: (sum / (end - start) as f64) as f32 }
}

/// Aligns `words`, each spelled in tokens, with a recording.
///
/// # Errors
/// [`Error::Config`] named `alignment`: a word without tokens, a token that is the blank, the separator or not below the vocabulary; a
/// price that is negative or not finite; an exact fit of more tokens than the recording has steps for, or of probability zero.
/// What [`Emissions::read`] returns.
pub fn align(emissions: &mut impl Emissions, words: &[Vec<u32>], options: &Options) -> Result<Alignment> {
    check(words, emissions.vocab(), options)?;
    let trellis = Trellis::new(words, emissions.vocab(), options);
    let steps = emissions.steps();
    let needed = trellis.least_steps();
    if options.fit == Fit::Exact && needed > steps {
        return Err(refused(format!("the text takes at least {needed} steps, the recording has {steps}")));
    }
    if steps == 0 {
        let words = vec![None; words.len()];
        return Ok(Alignment {
            words,
            extra: vec![],
            path: vec![],
            log_probs: vec![],
            blanks: vec![],
            score: 0.0,
            search: Search::Exhaustive,
        });
    }
    let (path, search) = if steps.saturating_mul(trellis.states()) <= options.most_cells {
        (trellis.best_path(emissions, &Corridor::Everything { states: trellis.states() })?, Search::Exhaustive)
    } else {
        guided(&trellis, emissions, options)?
    };
    let path = path.ok_or_else(|| refused("no path through the text has a probability above zero".into()))?;
    Ok(read_off(&trellis, &path, words.len(), options.blank, search))
}

/// The best path in a corridor that is wide enough for it.
fn guided(trellis: &Trellis, emissions: &mut impl Emissions, options: &Options) -> Result<(Option<Vec<PathStep>>, Search)> {
    let open = options.most_cells / OPEN_PARTS;
    let sure = corridor::sure_places(emissions, trellis.tokens(), options.blank, open)?;
    let mut margin = options.margin.max(1);
    for attempt in 0.. {
        let (corridor, unguided) = Corridor::around(&sure, emissions.steps(), trellis.tokens().len(), margin, open);
        let path = trellis.best_path(emissions, &corridor)?;
        let near = path.as_ref().is_none_or(|path| corridor.is_near_wall(path.iter().map(|step| step.state as usize)));
        if attempt == MOST_WIDENINGS || !near {
            return Ok((path, Search::Corridor { unguided }));
        }
        margin *= 2;
    }
    unreachable!("the last attempt returns")
}

fn read_off(trellis: &Trellis, path: &[PathStep], words: usize, blank: u32, search: Search) -> Alignment {
    let tokens: Vec<u32> = path.iter().map(|step| trellis.token(step.state as usize).unwrap_or(blank)).collect();
    let log_probs: Vec<f32> = path.iter().map(|step| step.log_prob).collect();
    let blanks = path.iter().map(|step| step.blank).collect();
    let mut placed: Vec<Option<AlignedWord>> = vec![None; words];
    let mut extra: Vec<(usize, Range<usize>)> = vec![];
    let mut start = 0;
    for run in path.chunk_by(|a, b| a.state == b.state) {
        let steps = start..start + run.len();
        start = steps.end;
        match trellis.place(run[0].state as usize) {
            trellis::Place::Word(word) => {
                let token = span(Run { token: tokens[steps.start], start: steps.start, end: steps.end }, &log_probs);
                let new = || AlignedWord { start: steps.start, end: steps.end, log_prob: 0.0, tokens: vec![] };
                let word = placed[word].get_or_insert_with(new);
                word.end = steps.end;
                word.tokens.push(token);
            }
            trellis::Place::Gap(gap) => {
                let passed = run.iter().enumerate().filter(|(_, step)| step.passed_over).map(|(i, _)| steps.start + i);
                for step in passed {
                    match extra.last_mut() {
                        Some((of, range)) if *of == gap => range.end = step + 1,
                        _ => extra.push((gap, step..step + 1)),
                    }
                }
            }
            trellis::Place::InWord => {}
        }
    }
    for word in placed.iter_mut().flatten() {
        let spoken = word.tokens.iter().flat_map(|t| &log_probs[t.start..t.end]);
        let (sum, count) = spoken.fold((0.0, 0), |(sum, count), &p| (sum + f64::from(p), count + 1));
        word.log_prob = (sum / f64::from(count)) as f32;
    }
    let score = log_probs.iter().map(|&p| f64::from(p)).sum();
    Alignment { words: placed, extra: extra.into_iter().map(|(_, range)| range).collect(), path: tokens, log_probs, blanks, score, search }
}

fn check(words: &[Vec<u32>], vocab: usize, options: &Options) -> Result<()> {
    if options.blank as usize >= vocab {
        return Err(refused(format!("the blank {} is not below the vocabulary of {vocab}", options.blank)));
    }
    let special = |token| token == options.blank || Some(token) == options.separator;
    for (at, word) in words.iter().enumerate() {
        match word.iter().find(|&&token| token as usize >= vocab || special(token)) {
            Some(token) => return Err(refused(format!("word {at} holds the token {token}: a blank, a separator or not below {vocab}"))),
            None if word.is_empty() => return Err(refused(format!("word {at} has no tokens"))),
            None => {}
        }
    }
    if options.separator.is_some_and(|token| token as usize >= vocab || token == options.blank) {
        return Err(refused("the separator is the blank or not below the vocabulary".into()));
    }
    if let Fit::Loose(Costs { missing, extra }) = options.fit {
        for (name, price) in [("missing", missing), ("extra", extra)] {
            if !(price.is_finite() && price >= 0.0) {
                return Err(refused(format!("the price `{name}` is {price}: it must be finite and not negative")));
            }
        }
    }
    Ok(())
}

fn refused(reason: String) -> Error {
    Error::config("alignment", reason)
}
