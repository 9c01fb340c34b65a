//! How restless partial results are.

use serde::Serialize;

/// Counts of what changed on the screen before it became final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Stability {
    /// Words that became final.
    pub final_words: usize,
    /// Times a shown word was replaced by another one, or withdrawn.
    pub changed: usize,
    /// Times a shown word only became longer.
    pub grown: usize,
}

impl Stability {
    /// Changed partial words for each final word.
    pub fn flicker(&self) -> f64 {
        self.changed as f64 / self.final_words.max(1) as f64
    }

    /// Counts a change from the words `before` to the words `after` in the same place.
    pub(super) fn compare(&mut self, before: &[String], after: &[&str]) {
        for (i, old) in before.iter().enumerate() {
            match after.get(i) {
                Some(new) if new == old => {}
                Some(new) if new.starts_with(old.as_str()) => self.grown += 1,
                _ => self.changed += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growing_is_not_flickering() {
        let mut counts = Stability::default();
        let shown = |words: &[&str]| words.iter().map(|w| w.to_string()).collect::<Vec<_>>();
        counts.compare(&shown(&["a", "he"]), &["a", "hear", "it"]);
        assert_eq!((counts.changed, counts.grown), (0, 1));
        counts.compare(&shown(&["a", "hear", "it"]), &["a", "here"]);
        assert_eq!((counts.changed, counts.grown), (2, 1));
        counts.final_words = 4;
        assert_eq!(counts.flicker(), 0.5);
    }
}
