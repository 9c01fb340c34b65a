//! How words are written: as the model says them, with numbers in digits, with capitals.

use crate::pipeline::transcript::Word;
use crate::text::case::SentenceCase;
use crate::text::inverse::inverse;

/// How numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Numbers {
    /// As they are spoken.
    #[default]
    Spoken,
    /// In digits, with dates, times and money ([`inverse`]).
    Digits,
}

/// What is done to the words of a transcript.
#[derive(Debug, Clone, Default)]
pub struct Writing {
    /// Numbers.
    pub numbers: Numbers,
    /// Capitals, if any.
    pub case: Option<SentenceCase>,
}

impl Writing {
    /// Rewrites the words of one stretch of speech. A number that was several words is one with the time of all and the lowest confidence.
    pub fn apply(&self, words: Vec<Word>) -> Vec<Word> {
        let words = match self.numbers {
            Numbers::Spoken => words,
            Numbers::Digits => {
                let spoken: Vec<&str> = words.iter().map(|w| w.word.as_str()).collect();
                let join = |rewritten: crate::text::inverse::Rewritten| {
                    let own = &words[rewritten.words];
                    Word {
                        word: rewritten.text,
                        start: own[0].start,
                        end: own[own.len() - 1].end,
                        confidence: own.iter().map(|w| w.confidence).fold(1.0, f64::min),
                    }
                };
                inverse(&spoken).into_iter().map(join).collect()
            }
        };
        let Some(case) = &self.case else { return words };
        let written = case.apply(&words.iter().map(|w| w.word.as_str()).collect::<Vec<_>>());
        words.into_iter().zip(written).map(|(w, word)| Word { word, ..w }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_join_their_words() {
        let words: Vec<Word> = ["on", "monday", "twenty", "one", "people"]
            .iter()
            .enumerate()
            .map(|(i, w)| Word { word: w.to_string(), start: i as f64, end: i as f64 + 0.5, confidence: 1.0 - 0.1 * i as f64 })
            .collect();
        assert_eq!(Writing::default().apply(words.clone()), words);
        let writing = Writing { numbers: Numbers::Digits, case: Some(SentenceCase::new(["People"])) };
        let written = writing.apply(words);
        let texts: Vec<&str> = written.iter().map(|w| w.word.as_str()).collect();
        assert_eq!(texts, ["On", "Monday", "21", "People"]);
        assert_eq!((written[2].start, written[2].end), (2.0, 3.5));
        assert!((written[2].confidence - 0.7).abs() < 1e-9);
    }
}
