//! A set of words as a tree of letters, packed into three arrays.

use super::alphabet::Letter;

/// The node before the first letter.
pub const ROOT: u32 = 0;

/// Value of a node where no word ends.
const NONE: u32 = u32::MAX;

/// Words with a value each; the children of a node are neighbours, in the order of their letters.
#[derive(Debug, Clone)]
pub struct Trie {
    /// Children of node `n` are the nodes `first[n]..first[n + 1]`.
    first: Vec<u32>,
    /// Last letter of each node.
    letters: Vec<Letter>,
    values: Vec<u32>,
}

impl Trie {
    /// A tree of `words`; of equal ones the first counts. Values are below `u32::MAX`.
    pub fn new(mut words: Vec<(Vec<Letter>, u32)>) -> Self {
        words.sort_by(|a, b| a.0.cmp(&b.0));
        words.dedup_by(|later, first| later.0 == first.0);
        let mut trie = Self { first: vec![], letters: vec![0], values: vec![] };
        // Words below each node of the level at hand, which all have `depth` letters in common.
        let mut level: Vec<_> = std::iter::once(0..words.len()).collect();
        let mut depth = 0;
        while !level.is_empty() {
            let mut below = vec![];
            for mut range in level {
                trie.first.push(trie.letters.len() as u32);
                let ends = words.get(range.start).filter(|w| !range.is_empty() && w.0.len() == depth);
                trie.values.push(ends.map_or(NONE, |w| w.1));
                range.start += usize::from(ends.is_some());
                while !range.is_empty() {
                    let letter = words[range.start].0[depth];
                    let count = words[range.clone()].partition_point(|w| w.0[depth] == letter);
                    trie.letters.push(letter);
                    below.push(range.start..range.start + count);
                    range.start += count;
                }
            }
            level = below;
            depth += 1;
        }
        trie.first.push(trie.letters.len() as u32);
        trie
    }

    /// The node one letter further.
    pub fn child(&self, node: u32, letter: Letter) -> Option<u32> {
        let (start, end) = (self.first[node as usize], self.first[node as usize + 1]);
        let letters = &self.letters[start as usize..end as usize];
        letters.binary_search(&letter).ok().map(|at| start + at as u32)
    }

    /// The value of the word that ends at `node`.
    pub fn value(&self, node: u32) -> Option<u32> {
        Some(self.values[node as usize]).filter(|&v| v != NONE)
    }

    /// The most that `worth` gives for the values of the words that go on from each node.
    pub fn most(&self, worth: impl Fn(u32) -> f32) -> Vec<f32> {
        let mut most: Vec<f32> = (0..self.values.len() as u32).map(|n| self.value(n).map_or(f32::NEG_INFINITY, &worth)).collect();
        for node in (0..most.len()).rev() {
            let children = self.first[node] as usize..self.first[node + 1] as usize;
            most[node] = most[children].iter().copied().fold(most[node], f32::max);
        }
        most
    }

    /// The value of a word.
    pub fn get(&self, word: &[Letter]) -> Option<u32> {
        let node = word.iter().try_fold(ROOT, |node, &letter| self.child(node, letter));
        node.and_then(|n| self.value(n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn finds_what_was_put_in(words in prop::collection::vec(prop::collection::vec(1u32..4, 0..5), 0..40)) {
            let trie = Trie::new(words.iter().cloned().zip(0..).collect());
            for a in 0..4u32.pow(4) {
                let probe: Vec<u32> = (0..4).map(|i| a / 4u32.pow(i) % 4).take_while(|&l| l > 0).collect();
                let expected = words.iter().position(|w| *w == probe).map(|i| i as u32);
                prop_assert_eq!(trie.get(&probe), expected);
                let node = probe.iter().try_fold(ROOT, |n, &l| trie.child(n, l));
                let prefix = probe.is_empty() || words.iter().any(|w| w.starts_with(&probe));
                prop_assert_eq!(node.is_some(), prefix);
                let most = node.map_or(-1.0, |n| trie.most(|value| value as f32)[n as usize].max(-1.0));
                let below = words.iter().enumerate().filter(|(i, w)| w.starts_with(&probe) && words[..*i].iter().all(|v| v != *w));
                prop_assert_eq!(most, below.map(|(i, _)| i as f32).fold(-1.0, f32::max));
            }
        }
    }
}
