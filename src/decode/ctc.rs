//! Greedy CTC decoding: the best token of every step, repeats merged, blanks dropped.

use super::Hypothesis;

/// A token held over neighbouring steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The token, never the blank.
    pub token: u32,
    /// First step.
    pub start: usize,
    /// One past the last step.
    pub end: usize,
}

/// Runs of equal tokens of a path, without the blanks.
pub fn collapse(path: &[u32], blank: u32) -> Vec<Run> {
    let mut start = 0;
    let runs = path.chunk_by(|a, b| a == b).map(|run| {
        start += run.len();
        Run { token: run[0], start: start - run.len(), end: start }
    });
    runs.filter(|run| run.token != blank).collect()
}

/// Decodes one utterance by its best token at every step; of equals the lowest id wins.
///
/// A NaN counts as log-probability minus infinity; a step with nothing above that is a blank, and makes the score minus infinity.
///
/// # Shapes
/// - `log_probs`: `[steps, vocab]`, natural log, row-major
///
/// # Panics
/// If `log_probs` is not `steps * vocab` long.
pub fn greedy(log_probs: &[f32], steps: usize, vocab: usize, blank: u32) -> Hypothesis {
    let mut stream = Greedy::new(vocab, blank);
    stream.step(log_probs, steps);
    stream.flush()
}

/// [`greedy`] for steps as they come: however they are cut into pieces, the hypothesis is the same.
#[derive(Debug, Clone)]
pub struct Greedy {
    vocab: usize,
    blank: u32,
    /// What was heard so far; its score is kept in `score`.
    heard: Hypothesis,
    score: f64,
    steps: usize,
    /// The best token of the last step.
    last: u32,
}

impl Greedy {
    /// A decoder at the start of an utterance.
    pub fn new(vocab: usize, blank: u32) -> Self {
        Self { vocab, blank, heard: Hypothesis::default(), score: 0.0, steps: 0, last: blank }
    }

    /// Takes in steps.
    ///
    /// # Shapes
    /// - `log_probs`: `[steps, vocab]`, natural log, row-major
    ///
    /// # Panics
    /// If `log_probs` is not `steps * vocab` long.
    pub fn step(&mut self, log_probs: &[f32], steps: usize) {
        let (vocab, blank) = (self.vocab, self.blank);
        assert_eq!(log_probs.len(), steps * vocab, "log_probs is not [{steps}, {vocab}]");
        for row in log_probs.chunks_exact(vocab.max(1)) {
            let start = (blank, f32::NEG_INFINITY);
            let (token, log_prob) =
                row.iter().zip(0..).fold(start, |best, (&log_prob, token)| if log_prob > best.1 { (token, log_prob) } else { best });
            self.score += f64::from(log_prob);
            if token != blank && token != self.last {
                self.heard.tokens.push(token);
                self.heard.steps.push(self.steps);
                self.heard.token_log_probs.push(log_prob);
            } else if token != blank
                && let (Some(step), Some(peak)) = (self.heard.steps.last_mut(), self.heard.token_log_probs.last_mut())
                && log_prob > *peak
            {
                (*step, *peak) = (self.steps, log_prob);
            }
            self.last = token;
            self.steps += 1;
        }
    }

    /// Ends the utterance and says what was heard; the next step starts another one.
    pub fn flush(&mut self) -> Hypothesis {
        let best = self.best();
        self.reset();
        best
    }

    /// Forgets the utterance.
    pub fn reset(&mut self) {
        *self = Self::new(self.vocab, self.blank);
    }

    /// Steps after which a token is certain: at once.
    pub fn delay(&self) -> usize {
        0
    }

    /// What [`Self::flush`] would say if the utterance ended here. Later steps append tokens and may move the last one to a better step of its
    /// run; they change nothing else.
    pub fn best(&self) -> Hypothesis {
        Hypothesis { score: self.score as f32, ..self.heard.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_and_score() {
        let p = |x: f32| x.ln();
        let rows = [[p(0.1), p(0.9)], [p(0.05), p(0.95)], [p(0.8), p(0.2)], [p(0.4), p(0.6)]];
        let hypothesis = greedy(&rows.concat(), 4, 2, 0);
        assert_eq!(hypothesis.tokens, [1, 1]);
        assert_eq!(hypothesis.steps, [1, 3]);
        assert_eq!(hypothesis.token_log_probs, [p(0.95), p(0.6)]);
        assert!((hypothesis.score - (p(0.9) + p(0.95) + p(0.8) + p(0.6))).abs() < 1e-6);
    }

    proptest::proptest! {
        #[test]
        fn any_pieces_give_the_same(path in proptest::collection::vec(0u32..4, 0..60), cuts in proptest::collection::vec(0usize..9, 1..20)) {
            let log_prob = |step: usize, token: u32| if path[step] == token { -0.1 - (step * 7 % 5) as f32 * 0.01 } else { -3.0 };
            let log_probs: Vec<f32> = (0..path.len()).flat_map(|step| (0..4).map(move |token| (step, token))).map(|(s, t)| log_prob(s, t)).collect();
            let whole = greedy(&log_probs, path.len(), 4, 0);
            let tokens: Vec<u32> = collapse(&path, 0).iter().map(|run| run.token).collect();
            proptest::prop_assert_eq!(&whole.tokens, &tokens);
            let mut stream = Greedy::new(4, 0);
            for _ in 0..2 {
                let (mut rest, mut cuts) = (log_probs.as_slice(), cuts.iter().cycle());
                let mut known = Vec::new();
                while !rest.is_empty() {
                    let (now, later) = rest.split_at(rest.len().min(4 * (1 + cuts.next().copied().unwrap_or(1))));
                    stream.step(now, now.len() / 4);
                    proptest::prop_assert!(stream.best().tokens.starts_with(&known));
                    known = stream.best().tokens;
                    rest = later;
                }
                proptest::prop_assert_eq!(&stream.flush(), &whole);
            }
        }
    }

    #[test]
    fn no_steps_no_tokens() {
        assert_eq!(greedy(&[], 0, 5, 0), Hypothesis::default());
    }

    #[test]
    fn nan_and_minus_infinity_are_blank() {
        let dead = f32::NEG_INFINITY;
        let hypothesis = greedy(&[f32::NAN, -1.0, f32::NAN, f32::NAN, dead, dead], 3, 2, 0);
        assert_eq!((hypothesis.tokens.as_slice(), hypothesis.score), (&[1][..], dead));
    }

    #[test]
    fn equals_go_to_the_lowest_id() {
        assert_eq!(greedy(&[-1.0, -1.0, -1.0], 1, 3, 2).tokens, [0]);
    }
}
