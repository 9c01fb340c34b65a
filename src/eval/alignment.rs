//! Minimum edit alignment of two sequences.
//!
//! Bit-parallel: 64 reference positions a machine word, after Myers 1999 (doi:10.1145/316542.316550) in Hyyro's 2003 block form. The two
//! bits kept per cell (is the distance one more, one less than the cell above) are what the way back needs. Beyond `MAX_TABLE_WORDS`
//! the hypothesis is halved first (Hirschberg 1975), so memory stays bounded however long the sequences.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// What happens to a stretch of the reference on the way to the hypothesis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edit {
    /// Both sides are the same. From an [`Aligner`](super::aligner::Aligner) that allows it, one side may be longer: the same words
    /// divided otherwise (`ice cream`, `icecream`), or an optional word that the other side lacks.
    Equal,
    /// As many elements, all different.
    Substitute,
    /// In the reference only.
    Delete,
    /// In the hypothesis only.
    Insert,
}

/// Longest stretch of one [`Edit`], with its positions on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// What happens.
    pub edit: Edit,
    /// Elements of the reference; empty at the place of an insertion.
    pub reference: Range<usize>,
    /// Elements of the hypothesis; empty at the place of a deletion.
    pub hypothesis: Range<usize>,
}

/// One alignment with the fewest edits, in order, covering both sides.
///
/// Of several, it is jiwer's (rapidfuzz's) choice: seen from the end, a deletion before an insertion before a substitution.
pub fn align<T: Eq + Hash>(reference: &[T], hypothesis: &[T]) -> Vec<Chunk> {
    let mut chunks = Chunks::default();
    for edit in edits(reference, hypothesis) {
        chunks.push(edit, usize::from(edit != Edit::Insert), usize::from(edit != Edit::Delete));
    }
    chunks.done
}

/// An alignment while it is written from left to right.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    /// What there is so far.
    pub(super) done: Vec<Chunk>,
}

impl Chunks {
    /// Appends the edit of so many elements of each side. Equals of unequal length stay chunks of their own.
    pub(super) fn push(&mut self, edit: Edit, reference: usize, hypothesis: usize) {
        let (i, j) = self.done.last().map_or((0, 0), |last| (last.reference.end, last.hypothesis.end));
        let one_to_one = |reference: usize, hypothesis: usize| edit != Edit::Equal || reference == hypothesis;
        match self.done.last_mut() {
            Some(last)
                if last.edit == edit && one_to_one(reference, hypothesis) && one_to_one(last.reference.len(), last.hypothesis.len()) =>
            {
                (last.reference.end, last.hypothesis.end) = (i + reference, j + hypothesis);
            }
            _ => self.done.push(Chunk { edit, reference: i..i + reference, hypothesis: j..j + hypothesis }),
        }
    }
}

/// Hash by rotation and multiplication, several times as fast on words as the standard one. Words made to collide cost no more than the
/// quadratic time an alignment may take anyway.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FastHasher(u64);

/// Hash map with [`FastHasher`].
pub(super) type FastMap<K, V> = HashMap<K, V, BuildHasherDefault<FastHasher>>;

impl Hasher for FastHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|&word| self.write_u64(u64::from_le_bytes(word)));
        if !rest.is_empty() {
            self.write_u64(rest.iter().fold(rest.len() as u64, |word, &byte| word << 8 | u64::from(byte)));
        }
    }

    /// Ends a string; its length is in already, unless that is a multiple of 8.
    fn write_u8(&mut self, _: u8) {}

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        // The constant of Knuth's multiplicative hash, 2^64 divided by the golden ratio.
        self.0 = (self.0.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0.rotate_left(26)
    }
}

/// Limit for one table, in 64-bit words: 64 MiB.
const MAX_TABLE_WORDS: usize = 8 << 20;

/// The edits of [`align`], one per element.
pub(super) fn edits<T: Eq + Hash>(reference: &[T], hypothesis: &[T]) -> Vec<Edit> {
    edits_within(reference, hypothesis, MAX_TABLE_WORDS)
}

/// The edits of [`align`] with the table limited to `max_words`.
fn edits_within<T: Eq + Hash>(reference: &[T], hypothesis: &[T], max_words: usize) -> Vec<Edit> {
    let prefix = reference.iter().zip(hypothesis).take_while(|(a, b)| a == b).count();
    let (reference, hypothesis) = (&reference[prefix..], &hypothesis[prefix..]);
    let suffix = reference.iter().rev().zip(hypothesis.iter().rev()).take_while(|(a, b)| a == b).count();
    let (reference, hypothesis) = (&reference[..reference.len() - suffix], &hypothesis[..hypothesis.len() - suffix]);

    let mut path = Vec::with_capacity(prefix + reference.len() + hypothesis.len() + suffix);
    path.resize(prefix, Edit::Equal);
    if reference.is_empty() || hypothesis.is_empty() {
        path.extend(std::iter::repeat_n(Edit::Delete, reference.len()));
        path.extend(std::iter::repeat_n(Edit::Insert, hypothesis.len()));
    } else if hypothesis.len() > 1 && 2 * hypothesis.len() * reference.len().div_ceil(64) > max_words {
        let (i, j) = crossing(reference, hypothesis);
        path.append(&mut edits_within(&reference[..i], &hypothesis[..j], max_words));
        path.append(&mut edits_within(&reference[i..], &hypothesis[j..], max_words));
    } else {
        let table = Table::new(reference, hypothesis);
        let start = path.len();
        table.walk_back(reference, hypothesis, &mut path);
        path[start..].reverse();
    }
    path.extend(std::iter::repeat_n(Edit::Equal, suffix));
    path
}

/// Where a best path crosses the middle of the hypothesis: positions on both sides.
fn crossing<T: Eq + Hash>(reference: &[T], hypothesis: &[T]) -> (usize, usize) {
    let middle = hypothesis.len() / 2;
    let before = distances(reference.iter(), hypothesis[..middle].iter());
    let after = distances(reference.iter().rev(), hypothesis[middle..].iter().rev());
    let total = before.iter().zip(after.iter().rev()).map(|(a, b)| a + b);
    let best = total.enumerate().min_by_key(|&(_, distance)| distance);
    (best.map_or(0, |(i, _)| i), middle)
}

/// Edit distance of every prefix of the reference (the empty one first) to the whole hypothesis.
fn distances<'a, T: Eq + Hash + 'a>(
    reference: impl ExactSizeIterator<Item = &'a T> + DoubleEndedIterator,
    hypothesis: impl ExactSizeIterator<Item = &'a T>,
) -> Vec<usize> {
    let (rows, mut distance) = (reference.len(), hypothesis.len());
    let matches = Matches::new(reference);
    let mut column = vec![Cells::FIRST; rows.div_ceil(64)];
    hypothesis.for_each(|token| matches.advance(token, &mut column));
    let mut all = vec![distance];
    for i in 0..rows {
        distance = distance + usize::from(column[i / 64].up >> (i % 64) & 1 == 1) - usize::from(column[i / 64].down >> (i % 64) & 1 == 1);
        all.push(distance);
    }
    all
}

/// 64 cells of a column: bit `i` tells whether the distance is one more (`up`) or one less (`down`) than in the cell above.
#[derive(Debug, Clone, Copy)]
struct Cells {
    up: u64,
    down: u64,
}

impl Cells {
    /// Of the column before the hypothesis: every reference element is deleted.
    const FIRST: Self = Self { up: !0, down: 0 };
}

/// Where each element of the reference stands.
struct Matches<'a, T> {
    first: FastMap<&'a T, usize>,
    blocks: Vec<Block>,
}

/// Positions of one element among 64 of the reference, with a link to the element's next block.
struct Block {
    index: usize,
    bits: u64,
    next: Option<usize>,
}

impl<'a, T: Eq + Hash> Matches<'a, T> {
    fn new(reference: impl ExactSizeIterator<Item = &'a T> + DoubleEndedIterator) -> Self {
        let mut first = FastMap::with_capacity_and_hasher(reference.len(), BuildHasherDefault::default());
        let mut blocks: Vec<Block> = Vec::with_capacity(reference.len());
        for (i, token) in reference.enumerate().rev() {
            let (index, bit) = (i / 64, 1 << (i % 64));
            let next = first.get(token).copied();
            match next.and_then(|at: usize| blocks.get_mut(at)).filter(|block| block.index == index) {
                Some(block) => block.bits |= bit,
                None => {
                    first.insert(token, blocks.len());
                    blocks.push(Block { index, bits: bit, next });
                }
            }
        }
        Self { first, blocks }
    }

    /// Moves the column one hypothesis element to the right.
    fn advance(&self, token: &T, column: &mut [Cells]) {
        let mut here = self.first.get(token).map(|&at| &self.blocks[at]);
        // Horizontal difference entering the block from above; the top row grows by one per element.
        let (mut plus, mut minus) = (1, 0);
        for (index, cells) in column.iter_mut().enumerate() {
            let mut equal = 0;
            if let Some(block) = here.filter(|block| block.index == index) {
                equal = block.bits;
                here = block.next.map(|at| &self.blocks[at]);
            }
            let Cells { up, down } = *cells;
            let vertical = equal | down;
            let equal = equal | minus;
            let horizontal = ((equal & up).wrapping_add(up) ^ up) | equal;
            let (right_up, right_down) = (down | !(horizontal | up), up & horizontal);
            let (above_up, above_down) = (right_up << 1 | plus, right_down << 1 | minus);
            (plus, minus) = (right_up >> 63, right_down >> 63);
            *cells = Cells { up: above_down | !(vertical | above_up), down: above_up & vertical };
        }
    }
}

/// All columns of the alignment, one per hypothesis element.
struct Table {
    blocks: usize,
    columns: Vec<Cells>,
}

impl Table {
    fn new<T: Eq + Hash>(reference: &[T], hypothesis: &[T]) -> Self {
        let blocks = reference.len().div_ceil(64);
        let matches = Matches::new(reference.iter());
        let mut columns = Vec::with_capacity(blocks * hypothesis.len());
        let mut column = vec![Cells::FIRST; blocks];
        for token in hypothesis {
            matches.advance(token, &mut column);
            columns.extend_from_slice(&column);
        }
        Self { blocks, columns }
    }

    /// Appends the edits from the end to the start.
    fn walk_back<T: Eq>(&self, reference: &[T], hypothesis: &[T], path: &mut Vec<Edit>) {
        let cells = |i: usize, j: usize| (self.columns[(j - 1) * self.blocks + (i - 1) / 64], (i - 1) % 64);
        let (mut i, mut j) = (reference.len(), hypothesis.len());
        while i > 0 && j > 0 {
            let (here, bit) = cells(i, j);
            if here.up >> bit & 1 == 1 {
                path.push(Edit::Delete);
                i -= 1;
            } else if j > 1 && cells(i, j - 1).0.down >> bit & 1 == 1 {
                path.push(Edit::Insert);
                j -= 1;
            } else {
                path.push(if reference[i - 1] == hypothesis[j - 1] { Edit::Equal } else { Edit::Substitute });
                i -= 1;
                j -= 1;
            }
        }
        path.extend(std::iter::repeat_n(Edit::Delete, i));
        path.extend(std::iter::repeat_n(Edit::Insert, j));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Edit distance by the textbook table.
    fn distance(a: &[u8], b: &[u8]) -> usize {
        let mut row: Vec<usize> = (0..=b.len()).collect();
        for (i, x) in a.iter().enumerate() {
            let mut diagonal = std::mem::replace(&mut row[0], i + 1);
            for (j, y) in b.iter().enumerate() {
                let best = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
                diagonal = std::mem::replace(&mut row[j + 1], best);
            }
        }
        row[b.len()]
    }

    fn check(a: &[u8], b: &[u8], max_words: usize) {
        let path = edits_within(a, b, max_words);
        let (mut i, mut j, mut cost) = (0, 0, 0);
        for edit in path {
            if matches!(edit, Edit::Equal | Edit::Substitute) {
                assert_eq!(a[i] == b[j], edit == Edit::Equal);
            }
            i += usize::from(edit != Edit::Insert);
            j += usize::from(edit != Edit::Delete);
            cost += usize::from(edit != Edit::Equal);
        }
        assert_eq!((i, j, cost), (a.len(), b.len(), distance(a, b)));
    }

    proptest! {
        #[test]
        fn fewest_edits_in_one_table_and_halved(
            a in proptest::collection::vec(0u8..5, 0..300),
            b in proptest::collection::vec(0u8..5, 0..300),
        ) {
            check(&a, &b, MAX_TABLE_WORDS);
            check(&a, &b, 16);
        }
    }

    #[test]
    fn chunks_cover_both_sides() {
        let words = |s: &'static str| s.split(' ').collect::<Vec<_>>();
        let chunks = align(&words("a b c d"), &words("a x c d e"));
        let expected = [
            Chunk { edit: Edit::Equal, reference: 0..1, hypothesis: 0..1 },
            Chunk { edit: Edit::Substitute, reference: 1..2, hypothesis: 1..2 },
            Chunk { edit: Edit::Equal, reference: 2..4, hypothesis: 2..4 },
            Chunk { edit: Edit::Insert, reference: 4..4, hypothesis: 4..5 },
        ];
        assert_eq!(chunks, expected);
        assert_eq!(align::<u8>(&[], &[]), []);
    }

    #[test]
    fn chunks_join_but_for_equals_of_unequal_length() {
        let mut chunks = Chunks::default();
        for (edit, i, j) in
            [(Edit::Equal, 1, 1), (Edit::Equal, 1, 1), (Edit::Equal, 2, 1), (Edit::Equal, 1, 1), (Edit::Delete, 1, 0), (Edit::Delete, 1, 0)]
        {
            chunks.push(edit, i, j);
        }
        let spans: Vec<_> = chunks.done.iter().map(|c| (c.reference.clone(), c.hypothesis.clone())).collect();
        assert_eq!(spans, [(0..2, 0..2), (2..4, 2..3), (4..5, 3..4), (5..7, 4..4)]);
    }

    #[test]
    fn words_of_one_length_and_their_prefixes_hash_apart() {
        let hash = |word: &str| {
            let mut hasher = FastHasher::default();
            word.hash(&mut hasher);
            hasher.finish()
        };
        let words: Vec<String> =
            (0..20_000).map(|i| format!("{:x}{}", i % 5000, "abcdefghijkl".get(..i / 2000).unwrap_or_default())).collect();
        let distinct: std::collections::HashSet<&String> = words.iter().collect();
        let hashes: std::collections::HashSet<u64> = distinct.iter().map(|w| hash(w)).collect();
        assert_eq!(hashes.len(), distinct.len());
    }
}
