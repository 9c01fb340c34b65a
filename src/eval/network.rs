//! Alignment as NIST's sclite does it: a substitution costs 4, an insertion or deletion 3; of equally cheap ways, seen from the end, a
//! substitution before an insertion before a deletion.
//!
//! With its markup a side is a network of words instead of a row (sclite's `-D -F`): `{i'm / i am}` is either way of saying it, `@` is
//! nothing, `(uh)` may be missing, and `th-` or `-ing` stands for any word that begins or ends so.

use super::alignment::{Chunk, Chunks, Edit, FastMap};
use crate::error::{Error, Result};

/// Costs in thousandths.
const SUBSTITUTE: u32 = 4000;
const INSERT_OR_DELETE: u32 = 3000;
/// Of an optional word that the other side lacks.
const OPTIONAL: u32 = 2000;
/// Of leaving out an `@`.
const NOTHING: u32 = 1;
/// Of an `@` against an `@`.
const NOTHING_TWICE: u32 = 1000;

/// Cells of the table (4 bytes each): 1 GiB, which is some 16,000 words on both sides.
const MAX_CELLS: usize = 1 << 28;

/// How to read a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Markup {
    /// All is words.
    None,
    /// Braces, `@`, parentheses and hyphens have their meaning.
    Sclite,
}

/// Words of the way taken through each side, and what happens between them.
pub(super) struct Path<'a> {
    pub(super) reference: Vec<&'a str>,
    pub(super) hypothesis: Vec<&'a str>,
    pub(super) chunks: Vec<Chunk>,
}

/// Aligns two texts.
///
/// # Errors
/// [`Error::LimitExceeded`]: more than `MAX_CELLS` pairs of words
pub(super) fn align<'a>(reference: &'a str, hypothesis: &'a str, markup: Markup) -> Result<Path<'a>> {
    let mut known = FastMap::default();
    let (mut reference, mut hypothesis) = (Network::read(reference, markup, &mut known), Network::read(hypothesis, markup, &mut known));
    // A pair of equal words at the end is always taken, so rows of words need no table for what they end in alike.
    let mut ending = vec![];
    if markup == Markup::None {
        while let (Some(a), Some(b)) = (reference.arcs.last(), hypothesis.arcs.last())
            && a.id == b.id
        {
            ending.push((a.text, b.text));
            reference.shorten();
            hypothesis.shorten();
        }
    }
    let mut path = Table::new(&reference, &hypothesis)?.walk_back();
    for (a, b) in ending.into_iter().rev() {
        path.both(Edit::Equal, a, b);
    }
    Ok(Path { reference: path.reference, hypothesis: path.hypothesis, chunks: path.chunks.done })
}

/// What an arc is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Word,
    /// `(word)`.
    Optional,
    /// `@`.
    Nothing,
    /// From the end of one alternative to the end of all, free.
    Join,
}

/// Where a fragment has its hyphen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hyphen {
    None,
    First,
    Last,
}

#[derive(Debug, Clone, Copy)]
struct Arc<'a> {
    /// As written.
    text: &'a str,
    /// To be compared.
    word: &'a str,
    /// Number of `word`; equal words have equal numbers.
    id: usize,
    kind: Kind,
    hyphen: Hyphen,
    from: usize,
}

/// Nodes in an order in which every arc goes forward. Node 0 is the start, the last node the end.
#[derive(Debug)]
struct Network<'a> {
    /// Arcs ordered by the node they lead to.
    arcs: Vec<Arc<'a>>,
    /// Of every node, its first arc in `arcs`; one entry more for the end.
    into: Vec<usize>,
}

impl<'a> Network<'a> {
    /// Reads a text. Braces that do not match mean nothing.
    fn read(text: &'a str, markup: Markup, known: &mut FastMap<&'a str, usize>) -> Self {
        let mut network = Self { arcs: vec![], into: vec![0, 0] };
        // Nodes where open alternations begin, and where their alternatives so far end.
        let mut open: Vec<(usize, Vec<usize>)> = vec![];
        let mut at = 0;
        for token in text.split_whitespace() {
            if markup == Markup::None {
                at = network.word(at, token, Markup::None, known);
                continue;
            }
            let mut rest = token;
            while !rest.is_empty() {
                let end = rest.find(|c| matches!(c, '{' | '}') || (c == '/' && !open.is_empty())).unwrap_or(rest.len());
                if end > 0 {
                    at = network.word(at, &rest[..end], Markup::Sclite, known);
                }
                match (rest.as_bytes().get(end), open.last_mut()) {
                    (Some(b'{'), _) => open.push((at, vec![])),
                    (Some(b'/'), Some((start, ends))) => {
                        ends.push(at);
                        at = *start;
                    }
                    (Some(b'}'), Some((_, ends))) => {
                        ends.push(at);
                        let ends = std::mem::take(ends);
                        open.pop();
                        at = network.join(&ends);
                    }
                    _ => {}
                }
                rest = rest.get(end + 1..).unwrap_or_default();
            }
        }
        while let Some((_, mut ends)) = open.pop() {
            ends.push(at);
            at = network.join(&ends);
        }
        network
    }

    /// Adds a node behind the last and gives its number.
    fn node(&mut self) -> usize {
        self.into.push(self.arcs.len());
        self.into.len() - 2
    }

    fn word(&mut self, from: usize, text: &'a str, markup: Markup, known: &mut FastMap<&'a str, usize>) -> usize {
        let (mut word, mut kind, mut hyphen) = (text, Kind::Word, Hyphen::None);
        if markup == Markup::Sclite {
            if text == "@" {
                kind = Kind::Nothing;
            } else if let Some(inside) = text.strip_prefix('(').and_then(|t| t.strip_suffix(')')) {
                (word, kind) = (inside, Kind::Optional);
            }
            if word.len() > 1 {
                // sclite looks for a leading hyphen before it takes off the parentheses.
                if word.starts_with('-') && kind == Kind::Word {
                    hyphen = Hyphen::First;
                } else if word.ends_with('-') {
                    hyphen = Hyphen::Last;
                }
            }
        }
        let next = known.len();
        let id = *known.entry(word).or_insert(next);
        self.arcs.push(Arc { text, word, id, kind, hyphen, from });
        self.node()
    }

    fn join(&mut self, ends: &[usize]) -> usize {
        self.arcs.extend(ends.iter().map(|&from| Arc { text: "", word: "", id: usize::MAX, kind: Kind::Join, hyphen: Hyphen::None, from }));
        self.node()
    }

    /// Whether it is plain words one after the other.
    fn is_row(&self) -> bool {
        self.arcs.len() + 1 == self.nodes() && self.arcs.iter().all(|arc| arc.kind == Kind::Word && arc.hyphen == Hyphen::None)
    }

    fn nodes(&self) -> usize {
        self.into.len() - 1
    }

    fn arcs_into(&self, node: usize) -> &[Arc<'a>] {
        &self.arcs[self.into[node]..self.into[node + 1]]
    }

    /// Takes off the last word of a row of words.
    fn shorten(&mut self) {
        self.arcs.pop();
        self.into.pop();
    }
}

/// Whether sclite takes the two for the same word.
fn same(a: &Arc, b: &Arc) -> bool {
    match (a.hyphen, b.hyphen) {
        (Hyphen::None, Hyphen::None) => a.id == b.id,
        (Hyphen::First, _) => b.word.ends_with(&a.word[1..]),
        (Hyphen::Last, _) => b.word.starts_with(&a.word[..a.word.len() - 1]),
        (_, Hyphen::First) => a.word.ends_with(&b.word[1..]),
        (_, Hyphen::Last) => a.word.starts_with(&b.word[..b.word.len() - 1]),
    }
}

fn cost_of_one(arc: &Arc) -> u32 {
    match arc.kind {
        Kind::Word => INSERT_OR_DELETE,
        Kind::Optional => OPTIONAL,
        Kind::Nothing => NOTHING,
        Kind::Join => 0,
    }
}

fn cost_of_both(a: &Arc, b: &Arc) -> u32 {
    match (a.kind, b.kind) {
        (Kind::Nothing, Kind::Nothing) => NOTHING_TWICE,
        _ if same(a, b) => 0,
        _ => SUBSTITUTE,
    }
}

/// The last step of a way: an arc of the reference, of the hypothesis, or of both.
#[derive(Debug, Clone, Copy)]
enum Step<'n, 'a> {
    Both(&'n Arc<'a>, &'n Arc<'a>),
    Reference(&'n Arc<'a>),
    Hypothesis(&'n Arc<'a>),
}

/// Costs of the cheapest ways to all pairs of nodes.
struct Table<'n, 'a> {
    reference: &'n Network<'a>,
    hypothesis: &'n Network<'a>,
    costs: Vec<u32>,
}

/// Keeps the step if it is cheaper than the best so far.
fn cheapest<'n, 'a>(best: &mut Option<(u32, Step<'n, 'a>)>, cost: u32, step: Step<'n, 'a>) {
    if best.is_none_or(|(least, _)| cost < least) {
        *best = Some((cost, step));
    }
}

impl<'n, 'a> Table<'n, 'a> {
    fn new(reference: &'n Network<'a>, hypothesis: &'n Network<'a>) -> Result<Self> {
        let cells = reference.nodes().saturating_mul(hypothesis.nodes());
        if cells > MAX_CELLS {
            let what = "words of the reference times words of the hypothesis".into();
            return Err(Error::LimitExceeded { what, limit: MAX_CELLS as u64, got: cells as u64 });
        }
        let mut table = Self { reference, hypothesis, costs: Vec::with_capacity(cells) };
        if reference.is_row() && hypothesis.is_row() {
            table.fill_rows();
            return Ok(table);
        }
        for i in 0..reference.nodes() {
            for j in 0..hypothesis.nodes() {
                let cost = table.best(i, j).map_or(0, |(cost, _)| cost);
                table.costs.push(cost);
            }
        }
        Ok(table)
    }

    /// What [`Table::best`] gives, for rows of plain words.
    fn fill_rows(&mut self) {
        let columns = self.hypothesis.nodes();
        let ids: Vec<usize> = self.hypothesis.arcs.iter().map(|b| b.id).collect();
        self.costs.resize(self.reference.nodes() * columns, 0);
        self.costs.iter_mut().zip(0..).take(columns).for_each(|(cost, j)| *cost = INSERT_OR_DELETE * j);
        for (i, a) in self.reference.arcs.iter().enumerate() {
            let (done, rest) = self.costs.split_at_mut((i + 1) * columns);
            let above = &done[i * columns..];
            rest[0] = above[0] + INSERT_OR_DELETE;
            for (j, &id) in ids.iter().enumerate() {
                let both = above[j] + if a.id == id { 0 } else { SUBSTITUTE };
                rest[j + 1] = both.min(above[j + 1] + INSERT_OR_DELETE).min(rest[j] + INSERT_OR_DELETE);
            }
        }
    }

    fn cost(&self, i: usize, j: usize) -> u32 {
        self.costs[i * self.hypothesis.nodes() + j]
    }

    /// Cheapest last step to a pair of nodes and the cost of the whole way; `None` at the start.
    fn best(&self, i: usize, j: usize) -> Option<(u32, Step<'n, 'a>)> {
        let (into_i, into_j) = (self.reference.arcs_into(i), self.hypothesis.arcs_into(j));
        let (mut join, mut both, mut delete, mut insert) = (None, None, None, None);
        for a in into_i {
            let kind = if a.kind == Kind::Join { &mut join } else { &mut delete };
            cheapest(kind, self.cost(a.from, j) + cost_of_one(a), Step::Reference(a));
            for b in into_j.iter().filter(|b| a.kind != Kind::Join && b.kind != Kind::Join) {
                cheapest(&mut both, self.cost(a.from, b.from) + cost_of_both(a, b), Step::Both(a, b));
            }
        }
        for b in into_j {
            let kind = if b.kind == Kind::Join { &mut join } else { &mut insert };
            cheapest(kind, self.cost(i, b.from) + cost_of_one(b), Step::Hypothesis(b));
        }
        // The first of the cheapest; joins are not words and come before any choice among words.
        let mut best = None;
        for (cost, step) in [join, both, insert, delete].into_iter().flatten() {
            cheapest(&mut best, cost, step);
        }
        best
    }

    fn walk_back(&self) -> Written<'a> {
        let (mut i, mut j) = (self.reference.nodes() - 1, self.hypothesis.nodes() - 1);
        let mut steps = vec![];
        while let Some((_, step)) = self.best(i, j) {
            match step {
                Step::Both(a, b) => (i, j) = (a.from, b.from),
                Step::Reference(a) => i = a.from,
                Step::Hypothesis(b) => j = b.from,
            }
            steps.push(step);
        }
        let mut path = Written::default();
        for step in steps.into_iter().rev() {
            match step {
                Step::Both(a, b) if a.kind == Kind::Nothing && b.kind == Kind::Nothing => {}
                Step::Both(a, b) => path.both(if same(a, b) { Edit::Equal } else { Edit::Substitute }, a.text, b.text),
                Step::Reference(a) => path.one(a, Edit::Delete),
                Step::Hypothesis(b) => path.one(b, Edit::Insert),
            }
        }
        path
    }
}

/// A path while it is written.
#[derive(Default)]
struct Written<'a> {
    reference: Vec<&'a str>,
    hypothesis: Vec<&'a str>,
    chunks: Chunks,
}

impl<'a> Written<'a> {
    fn both(&mut self, edit: Edit, a: &'a str, b: &'a str) {
        self.reference.push(a);
        self.hypothesis.push(b);
        self.chunks.push(edit, 1, 1);
    }

    /// An arc of one side only; `edit` says of which.
    fn one(&mut self, arc: &Arc<'a>, edit: Edit) {
        let words = usize::from(matches!(arc.kind, Kind::Word | Kind::Optional));
        if words == 0 {
            return;
        }
        let deleted = edit == Edit::Delete;
        if deleted { &mut self.reference } else { &mut self.hypothesis }.push(arc.text);
        let edit = if arc.kind == Kind::Optional { Edit::Equal } else { edit };
        self.chunks.push(edit, usize::from(deleted), usize::from(!deleted));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::wer::WordErrors;
    use proptest::prelude::*;

    fn errors(reference: &str, hypothesis: &str, markup: Markup) -> [usize; 4] {
        let path = align(reference, hypothesis, markup).unwrap();
        let end = path.chunks.last().map_or((0, 0), |c| (c.reference.end, c.hypothesis.end));
        assert_eq!(end, (path.reference.len(), path.hypothesis.len()));
        let e = WordErrors::of(&path.chunks);
        [e.hits(), e.substitutions, e.deletions, e.insertions]
    }

    #[test]
    fn markup_is_read_as_sclite_reads_it() {
        // Counts of correct, substituted, deleted, inserted words by sclite 2.10, run once with -D -F -i spu_id.
        for (reference, hypothesis, expected) in [
            ("a b c", "a c", [2, 0, 1, 0]),
            ("(uh) a b", "a b", [3, 0, 0, 0]),
            ("a b", "a (uh) b", [3, 0, 0, 0]),
            ("the cat", "th- cat", [2, 0, 0, 0]),
            ("th- cat", "the cat", [2, 0, 0, 0]),
            ("{ i'm / i am } here", "i am here", [3, 0, 0, 0]),
            ("{ a / @ } b", "b", [1, 0, 0, 0]),
            ("(uh) a", "uh a", [2, 0, 0, 0]),
        ] {
            assert_eq!(errors(reference, hypothesis, Markup::Sclite), expected, "{reference} / {hypothesis}");
        }
    }

    #[test]
    fn without_markup_all_is_words() {
        assert_eq!(errors("(uh) a", "a", Markup::None), [1, 0, 1, 0]);
        assert_eq!(errors("{ a / b }", "{ a / b }", Markup::None), [5, 0, 0, 0]);
    }

    #[test]
    fn alternatives_nest_and_need_no_closing() {
        for (reference, hypothesis, expected) in [
            ("{a/b c} d", "b c d", [3, 0, 0, 0]),
            ("x {a / {b / c} d} y", "x c d y", [4, 0, 0, 0]),
            ("x {a / }", "x", [1, 0, 0, 0]),
            ("x {a / b", "x b", [2, 0, 0, 0]),
            ("x } y a/b", "x y a/b", [3, 0, 0, 0]),
            ("{", "", [0; 4]),
            ("{}}{/", "a", [0, 0, 0, 1]),
        ] {
            assert_eq!(errors(reference, hypothesis, Markup::Sclite), expected, "{reference} / {hypothesis}");
        }
    }

    /// Least cost by the textbook table.
    fn cost(a: &[&str], b: &[&str]) -> u32 {
        let mut row: Vec<u32> = (0..=b.len() as u32).map(|j| 3 * j).collect();
        for (i, x) in a.iter().enumerate() {
            let mut diagonal = std::mem::replace(&mut row[0], 3 * (i as u32 + 1));
            for (j, y) in b.iter().enumerate() {
                let best = (diagonal + if x == y { 0 } else { 4 }).min(row[j] + 3).min(row[j + 1] + 3);
                diagonal = std::mem::replace(&mut row[j + 1], best);
            }
        }
        row[b.len()]
    }

    proptest! {
        #[test]
        fn a_row_of_words_has_the_least_cost_with_and_without_markup(
            a in proptest::collection::vec("[a-d]", 0..40),
            b in proptest::collection::vec("[a-d]", 0..40),
        ) {
            let (x, y) = (a.join(" "), b.join(" "));
            let [hits, s, d, i] = errors(&x, &y, Markup::None);
            let (a, b): (Vec<&str>, Vec<&str>) = (a.iter().map(|w| &**w).collect(), b.iter().map(|w| &**w).collect());
            prop_assert_eq!((hits + s + d, hits + s + i), (a.len(), b.len()));
            prop_assert_eq!((4 * s + 3 * (d + i)) as u32, cost(&a, &b));
            prop_assert_eq!(errors(&x, &y, Markup::Sclite), [hits, s, d, i], "the common ending is taken off exactly");
        }

        #[test]
        fn alternatives_cost_what_the_cheapest_of_them_costs(
            parts in proptest::collection::vec(("[ab]", proptest::collection::vec("[abc]( [abc])?", 1..4)), 1..5),
            b in proptest::collection::vec("[abc]", 0..10),
        ) {
            let marked: Vec<String> = parts.iter().map(|(word, ways)| format!("{word} {{ {} }}", ways.join(" / "))).collect();
            let mut rows = vec![String::new()];
            for (word, ways) in &parts {
                rows = rows.iter().flat_map(|row| ways.iter().map(move |way| format!("{row} {word} {way}"))).collect();
            }
            let hypothesis = b.join(" ");
            let price = |[_, s, d, i]: [usize; 4]| 4 * s + 3 * (d + i);
            let least = rows.iter().map(|row| price(errors(row, &hypothesis, Markup::None))).min().unwrap();
            prop_assert_eq!(price(errors(&marked.join(" "), &hypothesis, Markup::Sclite)), least);
            prop_assert_eq!(price(errors(&hypothesis, &marked.join(" "), Markup::Sclite)), least);
        }

        #[test]
        fn any_text_is_aligned(a in "[ab{}/@()\\- é]{0,40}", b in "[ab{}/@()\\- é]{0,40}") {
            errors(&a, &b, Markup::Sclite);
            errors(&a, &b, Markup::None);
        }
    }
}
