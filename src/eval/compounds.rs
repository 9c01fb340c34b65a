//! Alignment that takes `ice cream` for `icecream`, as kaldialign's `merge_compounds`: words in a row that spell one word of the other
//! side cost nothing. The Open ASR Leaderboard scores so since June 2026.

use super::alignment::{Chunk, Chunks, Edit, FastMap};
use crate::error::{Error, Result};

/// Cells of the table (4 bytes each): 1 GiB, which is some 16,000 words on both sides.
const MAX_CELLS: usize = 1 << 28;

/// A compound in the table: `reference` words against `hypothesis` words, one of them 1, ending at a cell.
#[derive(Debug, Clone, Copy)]
struct Compound {
    cell: usize,
    reference: usize,
    hypothesis: usize,
}

/// Costs of all pairs of prefixes.
struct Table {
    /// Words by number; equal words have equal numbers.
    reference: Vec<usize>,
    hypothesis: Vec<usize>,
    /// `[reference + 1][hypothesis + 1]`.
    costs: Vec<u32>,
    /// Ordered by cell; of one cell, in the order they are tried.
    compounds: Vec<Compound>,
}

/// The alignment with the fewest errors; of several, kaldialign's: seen from the end, an insertion before a deletion before a
/// substitution, and a compound only where it saves an error.
///
/// # Errors
/// [`Error::LimitExceeded`]: more than `MAX_CELLS` pairs of words
pub(super) fn align<'a>(reference: &[&'a str], hypothesis: &[&'a str]) -> Result<Vec<Chunk>> {
    let cells = (reference.len() + 1).saturating_mul(hypothesis.len() + 1);
    if cells > MAX_CELLS {
        let what = "words of the reference times words of the hypothesis".into();
        return Err(Error::LimitExceeded { what, limit: MAX_CELLS as u64, got: cells as u64 });
    }
    let mut known = FastMap::default();
    let mut numbers = |words: &[&'a str]| -> Vec<usize> {
        let number = |word: &&'a str| {
            let next = known.len();
            *known.entry(*word).or_insert(next)
        };
        words.iter().map(number).collect()
    };
    let (a, b) = (numbers(reference), numbers(hypothesis));
    let mut table = Table { reference: a, hypothesis: b, costs: vec![0; cells], compounds: compounds(reference, hypothesis) };
    table.fill();
    Ok(table.walk_back())
}

/// All places where words in a row spell one word of the other side.
fn compounds(reference: &[&str], hypothesis: &[&str]) -> Vec<Compound> {
    let mut all = vec![];
    let columns = hypothesis.len() + 1;
    for (i, &r) in reference.iter().enumerate() {
        for (j, &h) in hypothesis.iter().enumerate() {
            if r.len() == h.len() || r.as_bytes().last() != h.as_bytes().last() {
                continue;
            }
            let cell = (i + 1) * columns + j + 1;
            if r.len() < h.len() {
                all.extend(spelled_by(h, &reference[..=i]).map(|reference| Compound { cell, reference, hypothesis: 1 }));
            } else {
                all.extend(spelled_by(r, &hypothesis[..=j]).map(|hypothesis| Compound { cell, reference: 1, hypothesis }));
            }
        }
    }
    all
}

/// How many of the last `words`, two or more, spell `word`.
fn spelled_by(word: &str, words: &[&str]) -> Option<usize> {
    let mut rest = word;
    for (before, last) in words.iter().rev().enumerate() {
        rest = rest.strip_suffix(last)?;
        if rest.is_empty() {
            return (before > 0).then_some(before + 1);
        }
    }
    None
}

impl Table {
    fn cell(&self, i: usize, j: usize) -> usize {
        i * (self.hypothesis.len() + 1) + j
    }

    fn fill(&mut self) {
        let columns = self.hypothesis.len() + 1;
        self.costs.iter_mut().zip(0..).take(columns).for_each(|(cost, j)| *cost = j);
        let mut compounds = self.compounds.iter().peekable();
        for (i, word) in self.reference.iter().enumerate() {
            let (done, rest) = self.costs.split_at_mut((i + 1) * columns);
            let above = &done[i * columns..];
            rest[0] = above[0] + 1;
            for (j, other) in self.hypothesis.iter().enumerate() {
                let mut best = (above[j] + u32::from(word != other)).min(above[j + 1] + 1).min(rest[j] + 1);
                while let Some(compound) = compounds.next_if(|compound| compound.cell == (i + 1) * columns + j + 1) {
                    best = best.min(done[(i + 1 - compound.reference) * columns + j + 1 - compound.hypothesis]);
                }
                rest[j + 1] = best;
            }
        }
    }

    /// How many words of each side the last step to the prefixes of `i` and `j` words takes; none at the start.
    fn step(&self, i: usize, j: usize) -> (usize, usize) {
        let cost = |i: usize, j: usize| self.costs[self.cell(i, j)];
        let mut best = match (i, j) {
            (0, _) => return (0, 1.min(j)),
            (_, 0) => return (1, 0),
            _ => {
                let substitute = cost(i - 1, j - 1) + u32::from(self.reference[i - 1] != self.hypothesis[j - 1]);
                let (delete, insert) = (cost(i - 1, j) + 1, cost(i, j - 1) + 1);
                if substitute < delete && substitute < insert {
                    (substitute, (1, 1))
                } else if delete < insert {
                    (delete, (1, 0))
                } else {
                    (insert, (0, 1))
                }
            }
        };
        let first = self.compounds.partition_point(|compound| compound.cell < self.cell(i, j));
        for compound in self.compounds[first..].iter().take_while(|compound| compound.cell == self.cell(i, j)) {
            let (reference, hypothesis) = (compound.reference, compound.hypothesis);
            let joined = cost(i - reference, j - hypothesis);
            if joined < best.0 {
                best = (joined, (reference, hypothesis));
            }
        }
        best.1
    }

    fn walk_back(&self) -> Vec<Chunk> {
        let (mut i, mut j) = (self.reference.len(), self.hypothesis.len());
        let mut steps = vec![];
        while i > 0 || j > 0 {
            let (reference, hypothesis) = self.step(i, j);
            let edit = match (reference, hypothesis) {
                (0, _) => Edit::Insert,
                (_, 0) => Edit::Delete,
                (1, 1) if self.reference[i - 1] != self.hypothesis[j - 1] => Edit::Substitute,
                _ => Edit::Equal,
            };
            steps.push((edit, reference, hypothesis));
            (i, j) = (i - reference, j - hypothesis);
        }
        let mut chunks = Chunks::default();
        steps.into_iter().rev().for_each(|(edit, reference, hypothesis)| chunks.push(edit, reference, hypothesis));
        chunks.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::wer::{WordErrors, word_errors};
    use proptest::prelude::*;

    fn errors(reference: &str, hypothesis: &str) -> WordErrors {
        let words = |s: &'static str| s.split_whitespace().collect::<Vec<_>>();
        WordErrors::of(&align(&words(String::leak(reference.into())), &words(String::leak(hypothesis.into()))).unwrap())
    }

    #[test]
    fn words_divided_otherwise_cost_nothing() {
        for (reference, hypothesis, expected) in [
            ("ice cream", "icecream", 0),
            ("icecream", "ice cream", 0),
            ("a never the less b", "a nevertheless b", 0),
            ("a b c", "ab cd", 1),
            ("ice cream", "iced cream", 1),
            ("a b", "a b", 0),
            ("", "a", 1),
            ("", "", 0),
            ("ab c", "a bc", 2),
        ] {
            assert_eq!(errors(reference, hypothesis).errors(), expected, "{reference} / {hypothesis}");
        }
        assert_eq!(errors("the white paper", "the whitepaper x").reference_words, 3);
    }

    proptest! {
        #[test]
        fn never_more_errors_than_without(
            a in proptest::collection::vec("[ab]{1,3}", 0..12),
            b in proptest::collection::vec("[ab]{1,3}", 0..12),
        ) {
            let (a, b) = (a.join(" "), b.join(" "));
            let (ours, plain) = (errors(&a, &b), word_errors(&a, &b));
            prop_assert!(ours.errors() <= plain.errors());
            prop_assert_eq!(ours.reference_words, plain.reference_words);
            // Without a split side there is no compound.
            let (joined_a, joined_b) = (a.replace(' ', ""), b.replace(' ', ""));
            if joined_a == joined_b && !a.contains(' ') {
                prop_assert_eq!(ours.errors(), 0);
            }
        }
    }

    #[test]
    fn too_long_is_an_error() {
        let words = vec!["a"; 20_000];
        assert!(matches!(align(&words, &words), Err(Error::LimitExceeded { .. })));
    }
}
