//! Keeps what a model will be tested on out of what it learns from.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

/// Words in a row that make two texts count as overlapping.
pub const OVERLAP: usize = 6;

/// All runs of [`OVERLAP`] words of some texts.
#[derive(Debug, Clone, Default)]
pub struct Exclusion {
    runs: HashSet<u64>,
}

impl Exclusion {
    /// Adds a text to keep out. One of fewer words than [`OVERLAP`] excludes nothing.
    pub fn add(&mut self, text: &str) {
        self.runs.extend(runs(text));
    }

    /// Whether a line shares a run of words with a text that was added.
    pub fn matches(&self, line: &str) -> bool {
        !self.runs.is_empty() && runs(line).any(|run| self.runs.contains(&run))
    }
}

fn runs(text: &str) -> impl Iterator<Item = u64> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    (OVERLAP..=words.len()).map(move |end| {
        let mut hasher = DefaultHasher::new();
        words[end - OVERLAP..end].hash(&mut hasher);
        hasher.finish()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_words_in_a_row() {
        let mut exclusion = Exclusion::default();
        exclusion.add("too short to exclude anything");
        assert!(!exclusion.matches("too short to exclude anything"));
        exclusion.add("a b c d e f g");
        assert!(exclusion.matches("x b c d e f g y") && exclusion.matches("a b c d e f"));
        assert!(!exclusion.matches("a b c d e x f g") && !exclusion.matches("ab c d e f g"));
    }
}
