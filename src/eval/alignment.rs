//! Minimum edit alignment of two sequences.
//!
//! Bit-parallel: 64 reference positions a machine word, after Myers 1999 (doi:10.1145/316542.316550) in Hyyro's 2003 block form. The two
//! bits kept per cell (is the distance one more, one less than the cell above) are what the way back needs. Beyond `MAX_TABLE_WORDS`
//! the hypothesis is halved first (Hirschberg 1975), so memory stays bounded however long the sequences.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Range;

/// What happens to a stretch of the reference on the way to the hypothesis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Edit {
    /// Both sides are the same.
    Equal,
    /// As many elements, all different.
    Substitute,
    /// In the reference only.
    Delete,
    /// In the hypothesis only.
    Insert,
}

/// Longest stretch of one [`Edit`], with its positions on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    let mut chunks: Vec<Chunk> = vec![];
    let (mut i, mut j) = (0, 0);
    for edit in edits(reference, hypothesis, MAX_TABLE_WORDS) {
        let (from, to) = (i, j);
        i += usize::from(edit != Edit::Insert);
        j += usize::from(edit != Edit::Delete);
        match chunks.last_mut() {
            Some(last) if last.edit == edit => (last.reference.end, last.hypothesis.end) = (i, j),
            _ => chunks.push(Chunk { edit, reference: from..i, hypothesis: to..j }),
        }
    }
    chunks
}

/// Limit for one table, in 64-bit words: 64 MiB.
const MAX_TABLE_WORDS: usize = 8 << 20;

/// The edits of [`align`], one per element, with the table limited to `max_words`.
fn edits<T: Eq + Hash>(reference: &[T], hypothesis: &[T], max_words: usize) -> Vec<Edit> {
    let prefix = reference.iter().zip(hypothesis).take_while(|(a, b)| a == b).count();
    let (reference, hypothesis) = (&reference[prefix..], &hypothesis[prefix..]);
    let suffix = reference.iter().rev().zip(hypothesis.iter().rev()).take_while(|(a, b)| a == b).count();
    let (reference, hypothesis) = (&reference[..reference.len() - suffix], &hypothesis[..hypothesis.len() - suffix]);

    let mut path = vec![Edit::Equal; prefix];
    if reference.is_empty() || hypothesis.is_empty() {
        path.extend(std::iter::repeat_n(Edit::Delete, reference.len()));
        path.extend(std::iter::repeat_n(Edit::Insert, hypothesis.len()));
    } else if hypothesis.len() > 1 && 2 * hypothesis.len() * reference.len().div_ceil(64) > max_words {
        let (i, j) = crossing(reference, hypothesis);
        path.append(&mut edits(&reference[..i], &hypothesis[..j], max_words));
        path.append(&mut edits(&reference[i..], &hypothesis[j..], max_words));
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
    first: HashMap<&'a T, usize>,
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
        let mut first = HashMap::with_capacity(reference.len());
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
        let path = edits(a, b, max_words);
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
}
