//! Log-probabilities to words, some of them final.
//!
//! # When a word is final
//!
//! A word is final when a word boundary stands after it that no further step can change: with greedy decoding as soon as the boundary is heard (the
//! output of a chunk never changes), with the beam search as soon as all hypotheses agree up to there. At the end of an utterance all words
//! are. A final word, its times and its confidence never change after.

use std::sync::Arc;

use crate::decode::Hypothesis;
use crate::decode::lexicon::Lexicon;
use crate::pipeline::decoder::Decoder;
use crate::pipeline::region::Stretch;
use crate::pipeline::transcript::Word;
use crate::pipeline::words::words;
use crate::text::Tokenizer;

/// One utterance of a stream as far as it is heard.
pub(super) struct Utterance<'a> {
    tokenizer: &'a Tokenizer,
    lexicon: Option<Arc<Lexicon>>,
    decoder: Decoder,
    step_samples: usize,
    /// What was heard since its start.
    heard: Stretch,
    best: Hypothesis,
    /// Words of `best`; the first `finals` of them are final.
    words: Vec<Word>,
    finals: usize,
}

impl<'a> Utterance<'a> {
    /// An utterance at the start of the audio.
    pub fn new(tokenizer: &'a Tokenizer, lexicon: Option<Arc<Lexicon>>, decoder: Decoder, step_samples: usize) -> Self {
        let heard = Stretch { vocab: tokenizer.vocab_size(), ..Stretch::default() };
        let mut decoder = decoder;
        decoder.reset();
        Self { tokenizer, lexicon, decoder, step_samples, heard, best: Hypothesis::default(), words: Vec::new(), finals: 0 }
    }

    /// Takes in steps, `[steps, vocab]`; gives the words that became final.
    pub fn step(&mut self, log_probs: &[f32]) -> Vec<Word> {
        self.heard.log_probs.extend_from_slice(log_probs);
        self.decoder.step(log_probs);
        self.best = self.decoder.best();
        self.words = self.words_of(&self.best);
        let certain = self.decoder.certain_tokens();
        let closed = self.closed(&certain);
        self.finalise(self.count(closed))
    }

    /// Words that are not final yet, as of now.
    pub fn open(&self) -> &[Word] {
        &self.words[self.finals..]
    }

    /// Number of steps heard, and of those at the end without speech.
    pub fn steps(&self) -> (usize, usize) {
        let all = self.heard.steps();
        let spoken = self.best.tokens.iter().zip(&self.best.steps).rev().find(|&(&token, _)| !self.piece(token).trim().is_empty());
        (all, all - spoken.map_or(0, |(_, &step)| (step + 1).min(all)))
    }

    /// Whether it has a word.
    pub fn is_spoken(&self) -> bool {
        !self.words.is_empty()
    }

    /// Ends the utterance: the words that were not final yet; the next one starts where this one ended.
    pub fn flush(&mut self) -> Vec<Word> {
        self.best = self.decoder.flush();
        self.words = self.words_of(&self.best);
        let last = self.finalise(self.words.len());
        self.restart(self.heard.steps());
        last
    }

    /// Ends the utterance after its last word that is over: the words up to there that were not final yet. What comes after is heard again as the
    /// start of the next one. An utterance that is one word ends where it is.
    pub fn cut(&mut self) -> Vec<Word> {
        let closed = self.closed(&self.best.tokens);
        let count = self.count(closed);
        if count <= self.finals && self.words.len() > self.finals && self.finals == 0 {
            return self.flush();
        }
        let last = self.finalise(count.max(self.finals));
        let kept = self.start_of_open(closed);
        self.restart(kept);
        let rest = self.heard.log_probs.clone();
        self.decoder.step(&rest);
        self.best = self.decoder.best();
        self.words = self.words_of(&self.best);
        last
    }

    /// Forgets the stream.
    pub fn reset(&mut self) {
        self.restart(self.heard.steps());
        self.heard.position = 0;
    }

    /// Steps after which a word that is over is final at the latest.
    pub fn delay(&self) -> usize {
        self.decoder.delay()
    }

    /// Starts a new utterance at `step` of this one.
    fn restart(&mut self, step: usize) {
        self.heard.log_probs.drain(..step * self.heard.vocab);
        self.heard.position += step * self.step_samples;
        self.decoder.reset();
        self.best = Hypothesis::default();
        self.words.clear();
        self.finals = 0;
    }

    fn finalise(&mut self, count: usize) -> Vec<Word> {
        let count = count.clamp(self.finals, self.words.len());
        let new = self.words[self.finals..count].to_vec();
        self.finals = count;
        new
    }

    fn words_of(&self, hypothesis: &Hypothesis) -> Vec<Word> {
        let mut words = words(self.tokenizer, hypothesis, &self.heard, self.step_samples);
        if let Some(lexicon) = &self.lexicon {
            words.iter_mut().for_each(|word| word.word = lexicon.written(&word.word).to_string());
        }
        words
    }

    fn piece(&self, token: u32) -> String {
        self.tokenizer.piece(token).replace('\u{2581}', " ")
    }

    /// How many of the first tokens belong to words that are over: a boundary stands after them.
    fn closed(&self, tokens: &[u32]) -> usize {
        let mut closed = 0;
        for (at, &token) in tokens.iter().enumerate() {
            let piece = self.piece(token);
            if piece.ends_with(' ') {
                closed = at + 1;
            } else if piece.starts_with(' ') {
                closed = at;
            }
        }
        closed
    }

    /// Number of words that the first `tokens` tokens of the best hypothesis spell.
    fn count(&self, tokens: usize) -> usize {
        let (mut count, mut open) = (0, false);
        for &token in self.best.tokens.iter().take(tokens) {
            let piece = self.piece(token);
            open &= !piece.starts_with(' ');
            if !piece.trim().is_empty() {
                count += usize::from(!open);
                open = !piece.ends_with(' ');
            }
        }
        count
    }

    /// The step from which on only what follows the first `closed` tokens is heard.
    fn start_of_open(&self, closed: usize) -> usize {
        /// As far as the start of a word may lie before its first token, see [`crate::decode::spans`].
        const BEFORE: usize = 3;
        let Hypothesis { tokens, steps, .. } = &self.best;
        let open = (closed..tokens.len()).find(|&at| !self.piece(tokens[at]).trim().is_empty());
        let Some(first) = open else { return self.heard.steps() };
        let spoken = (0..first).rev().find(|&at| !self.piece(tokens[at]).trim().is_empty());
        let floor = spoken.map_or(0, |before| steps[before] + 1);
        let blank = self.tokenizer.blank();
        let silent = |step: usize| {
            let row = &self.heard.log_probs[step * self.heard.vocab..][..self.heard.vocab];
            let best = (0..row.len()).fold(0, |best, t| if row[t] > row[best] { t } else { best }) as u32;
            best == blank || best == tokens[first] || self.piece(best).trim().is_empty()
        };
        let before = (floor..steps[first]).rev().take(BEFORE).take_while(|&step| silent(step)).count();
        steps[first] - before
    }
}
