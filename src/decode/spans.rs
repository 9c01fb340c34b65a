//! From the steps in which tokens peak to the steps in which they are heard.
//!
//! A CTC model says a token in a step or two and the blank around it, and says it late: the peak comes when enough was heard. [`widen`]
//! moves the edges of words out to where the blank takes over.

use std::ops::Range;

/// How far and as long as what the edges of words move.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Widening {
    /// Most steps by which a start moves to the left.
    pub before: usize,
    /// Most steps by which an end moves to the right.
    pub after: usize,
    /// An edge moves over steps in which the blank is less probable than this.
    pub blank_below: f32,
}

impl Default for Widening {
    /// Starts move by up to 3 steps, ends stay.
    ///
    /// Measured with the character model `base` (40 ms a step, 108 h of training) on 102 utterances of `benchmarks/boundaries.py`: the mean error
    /// of starts falls from 63 to 42 ms, those within 50 ms rise from 40 to 68 %. Ends err by 37 ms as they are. A threshold of 0.8 or 0.95
    /// gives the same within 1 ms.
    fn default() -> Self {
        Self { before: 3, after: 0, blank_below: 0.5 }
    }
}

/// Moves the edges of `words`, each the steps from its first token to its last, outwards. No word reaches into another.
///
/// The steps of separators between words are free. Where two words want the same step the later one has it.
///
/// # Shapes
/// - `words`: in order, not overlapping, within the steps
/// - `blanks`: `[steps]`, natural log-probability of the blank
pub fn widen(words: &mut [Range<usize>], blanks: &[f32], widening: Widening) {
    let limit = widening.blank_below.ln();
    let heard = |&step: &usize| blanks.get(step).is_some_and(|&blank| blank < limit);
    let mut floor = 0;
    for word in words.iter_mut() {
        let moved = (floor..word.start).rev().take(widening.before).take_while(heard).count();
        floor = word.end;
        word.start -= moved;
    }
    let mut ceiling = blanks.len();
    for word in words.iter_mut().rev() {
        let moved = (word.end..ceiling).take(widening.after).take_while(heard).count();
        word.end += moved;
        ceiling = word.start;
    }
}

/// The blank's column of log-probabilities `[steps, vocab]`.
pub fn blank_column(log_probs: &[f32], vocab: usize, blank: u32) -> Vec<f32> {
    log_probs.iter().skip(blank as usize).step_by(vocab).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn widened(words: &[Range<usize>], blank: &[f32], widening: Widening) -> Vec<Range<usize>> {
        let mut words = words.to_vec();
        widen(&mut words, &blank.iter().map(|p| p.ln()).collect::<Vec<_>>(), widening);
        words
    }

    #[test]
    fn edges_stop_at_blanks_at_neighbours_and_at_the_limit() {
        let blank = [0.1, 0.1, 0.1, 0.1, 0.1, 0.9, 0.2, 0.1, 0.3, 0.1, 0.1, 0.9];
        let both = Widening { before: 3, after: 2, blank_below: 0.5 };
        assert_eq!(widened(&[4..5, 7..8, 9..10], &blank, both), [1..5, 6..8, 8..11]);
        assert_eq!(widened(&[4..5, 7..8, 9..10], &blank, Widening { before: 0, ..both }), [4..5, 7..9, 9..11]);
        assert_eq!(widened(&[4..5, 7..8, 9..10], &blank, Widening { after: 0, ..both }), [1..5, 6..8, 8..10]);
        assert!(widened(&[], &blank, both).is_empty());
    }

    #[test]
    fn one_column() {
        assert_eq!(blank_column(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3, 1), [2.0, 5.0]);
        assert!(blank_column(&[], 3, 2).is_empty());
    }

    proptest! {
        #[test]
        fn words_only_grow_and_stay_apart(
            lengths in proptest::collection::vec((0usize..5, 1usize..4), 0..12),
            blank in proptest::collection::vec(0.0f32..1.0, 0..70),
            (before, after) in (0usize..6, 0usize..6),
        ) {
            let mut end = 0;
            let words: Vec<_> = lengths.iter().map(|(gap, length)| {
                let start = end + gap;
                end = start + length;
                start..end
            }).take_while(|word| word.end <= blank.len()).collect();
            let after = widened(&words, &blank, Widening { before, after, blank_below: 0.5 });
            prop_assert!(words.iter().zip(&after).all(|(a, b)| b.start <= a.start && a.end <= b.end && b.end <= blank.len()));
            prop_assert!(after.windows(2).all(|pair| pair[0].end <= pair[1].start));
        }
    }
}
