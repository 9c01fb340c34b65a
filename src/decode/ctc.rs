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
    assert_eq!(log_probs.len(), steps * vocab, "log_probs is not [{steps}, {vocab}]");
    let best = |row: &[f32]| {
        let start = (blank, f32::NEG_INFINITY);
        row.iter().zip(0..).fold(start, |best, (&log_prob, token)| if log_prob > best.1 { (token, log_prob) } else { best })
    };
    let (path, path_log_probs): (Vec<u32>, Vec<f32>) =
        if vocab == 0 { (vec![], vec![]) } else { log_probs.chunks_exact(vocab).map(best).unzip() };
    let mut hypothesis = Hypothesis { score: path_log_probs.iter().map(|&p| f64::from(p)).sum::<f64>() as f32, ..Hypothesis::default() };
    for Run { token, start, end } in collapse(&path, blank) {
        let peak = (start + 1..end).fold(start, |peak, step| if path_log_probs[step] > path_log_probs[peak] { step } else { peak });
        hypothesis.tokens.push(token);
        hypothesis.steps.push(peak);
        hypothesis.token_log_probs.push(path_log_probs[peak]);
    }
    hypothesis
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
