//! Tokens to words with times and confidences.

use std::ops::Range;

use crate::decode::Hypothesis;
use crate::decode::spans::{Widening, blank_column, widen};
use crate::pipeline::region::Stretch;
use crate::pipeline::transcript::Word;
use crate::text::Tokenizer;
use crate::units::SampleRate;

/// A word in steps.
struct Spelt {
    word: String,
    steps: Range<usize>,
    /// Lowest log-probability of its tokens.
    log_prob: f32,
}

/// The words of a hypothesis: from the step of the first token, moved to where the blank takes over, to the end of the last one's.
///
/// `step_samples`: samples at 16 kHz per step. Confidence is the lowest probability of a word's tokens, not calibrated yet.
pub fn words(tokenizer: &Tokenizer, hypothesis: &Hypothesis, stretch: &Stretch, step_samples: usize) -> Vec<Word> {
    let spelt = spelt(tokenizer, hypothesis);
    let mut steps: Vec<Range<usize>> = spelt.iter().map(|word| word.steps.clone()).collect();
    widen(&mut steps, &blank_column(&stretch.log_probs, stretch.vocab, tokenizer.blank()), Widening::default());
    let seconds = |step: usize| SampleRate::HZ_16000.seconds(stretch.position + step * step_samples);
    let word = |(spelt, steps): (Spelt, Range<usize>)| Word {
        word: spelt.word,
        start: seconds(steps.start),
        end: seconds(steps.end),
        confidence: f64::from(spelt.log_prob).exp(),
    };
    spelt.into_iter().zip(steps).map(word).collect()
}

/// Groups tokens into words: a token that decodes to something with a space before it starts a new one.
fn spelt(tokenizer: &Tokenizer, hypothesis: &Hypothesis) -> Vec<Spelt> {
    let mut words: Vec<Spelt> = Vec::new();
    let mut open = false;
    for ((&token, &step), &log_prob) in hypothesis.tokens.iter().zip(&hypothesis.steps).zip(&hypothesis.token_log_probs) {
        let piece = tokenizer.piece(token).replace('\u{2581}', " ");
        if piece.starts_with(' ') {
            open = false;
        }
        let letters = piece.trim();
        if letters.is_empty() {
            continue;
        }
        match words.last_mut().filter(|_| open) {
            Some(word) => {
                word.word.push_str(letters);
                word.steps.end = step + 1;
                word.log_prob = word.log_prob.min(log_prob);
            }
            None => words.push(Spelt { word: letters.into(), steps: step..step + 1, log_prob }),
        }
        open = !piece.ends_with(' ');
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::ctc::greedy;

    #[test]
    fn letters_become_words_with_times() {
        let tokenizer = Tokenizer::characters(" abc").unwrap();
        let id = |c: &str| (0..tokenizer.vocab_size() as u32).find(|&t| tokenizer.piece(t) == c).unwrap();
        let blank = tokenizer.blank();
        let path = [blank, id("a"), id("b"), blank, id(" "), blank, blank, id("c"), blank];
        let vocab = tokenizer.vocab_size();
        let log_probs: Vec<f32> =
            path.iter().flat_map(|&p| (0..vocab as u32).map(move |t| if t == p { 0.8f32.ln() } else { 0.05f32.ln() })).collect();
        let stretch = Stretch { log_probs, vocab, experts: Vec::new(), position: 16_000 };
        let hypothesis = greedy(&stretch.log_probs, path.len(), vocab, blank);
        let words = words(&tokenizer, &hypothesis, &stretch, 640);
        let seen: Vec<(&str, f64, f64)> = words.iter().map(|w| (w.word.as_str(), w.start, w.end)).collect();
        assert_eq!(seen, [("ab", 1.04, 1.12), ("c", 1.28, 1.32)]);
        assert!(words.iter().all(|w| (w.confidence - 0.8).abs() < 1e-6));
    }
}
