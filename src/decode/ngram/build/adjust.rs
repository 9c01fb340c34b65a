//! Counts of the highest order to adjusted counts of all orders.
//!
//! The highest order keeps its counts. A shorter n-gram counts the different words seen before it; one that starts a sentence, before which
//! nothing is seen, counts its occurrences.

use super::super::{MAX_ORDER, UNKNOWN, WordId};
use super::count::Lexicon;
use super::rows::{Row, Same, Sorted, Sorter};
use super::{BuildConfig, END, SORT_SHARE, START, share, split_bytes};
use crate::error::Result;

/// The bit of a count that says that the n-gram is left out.
const PRUNED: u64 = 1 << 63;

/// Adjusted count, or that and that the n-gram is left out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Count {
    pub(super) adjusted: u64,
    pub(super) pruned: bool,
}

impl Count {
    pub(super) fn of(row: &Row) -> Self {
        Self { adjusted: row.count() & !PRUNED, pruned: row.count() & PRUNED != 0 }
    }
}

/// What an order looks like.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Statistics {
    pub(super) seen: u64,
    pub(super) kept: u64,
    /// N-grams of adjusted count 1 to 4, those left out too.
    pub(super) count_of_counts: [u64; 4],
}

/// All orders.
pub(super) struct Adjusted {
    /// By order: the words of the context from the last to the first, then the word; with its [`Count`].
    pub(super) by_context: Vec<Sorted>,
    pub(super) statistics: Vec<Statistics>,
}

/// Where n-grams go.
struct Sink<'a> {
    lexicon: &'a mut Lexicon,
    /// By order: the most occurrences that are not enough.
    most: Vec<u64>,
    sorters: Vec<Sorter>,
    statistics: Vec<Statistics>,
}

impl Sink<'_> {
    /// Takes an n-gram, last word first, by ids of arrival.
    fn emit(&mut self, ids: &[WordId], adjusted: u64, occurrences: u64) -> Result<()> {
        let order = ids.len();
        let mut words = [UNKNOWN; MAX_ORDER];
        words.iter_mut().zip(ids).for_each(|(word, &id)| *word = self.lexicon.places[id as usize]);
        let words = &words[..order];
        let keep = &mut self.lexicon.keep;
        let pruned = !matches!(words, [UNKNOWN | START | END])
            && (occurrences <= self.most[order - 1] || words.iter().any(|&word| !keep[word as usize]));
        if let [word] = words {
            keep[*word as usize] = !pruned;
        }
        let statistics = &mut self.statistics[order - 1];
        statistics.seen += 1;
        statistics.kept += u64::from(!pruned);
        if let 1..=4 = adjusted {
            statistics.count_of_counts[adjusted as usize - 1] += 1;
        }
        let mut key = [0; MAX_ORDER];
        key[..order - 1].copy_from_slice(&words[1..]);
        key[order - 1] = words[0];
        self.sorters[order - 1].push(Row::counted(key, if pruned { adjusted | PRUNED } else { adjusted }))
    }
}

/// A shorter n-gram whose longer ones are still coming.
#[derive(Clone, Copy, Default)]
struct Open {
    adjusted: u64,
    occurrences: u64,
}

/// Adjusts counts. `ngrams` are of the highest order, last word first, by ids of arrival; the lexicon learns which words pruning leaves out.
pub(super) fn adjust(mut ngrams: Sorted, config: &BuildConfig, lexicon: &mut Lexicon) -> Result<Adjusted> {
    let order = config.order;
    let bytes = |i| split_bytes(share(config, SORT_SHARE), i, order);
    let last = config.prune.last().copied().unwrap_or(0);
    let mut sink = Sink {
        lexicon,
        most: (0..order).map(|i| config.prune.get(i).copied().unwrap_or(last)).collect(),
        sorters: (1..=order).map(|i| Sorter::new(i, bytes(i), Same::Never)).collect(),
        statistics: vec![Statistics::default(); order],
    };
    sink.emit(&[UNKNOWN], 0, 0)?;
    sink.emit(&[START], 0, 0)?;
    let mut last = [UNKNOWN; MAX_ORDER];
    // By length: the suffixes of the last row that are shorter than it; 0 is not one.
    let mut open = [Open::default(); MAX_ORDER];
    let mut opened = 0;
    while let Some(row) = ngrams.next()? {
        let (words, count) = (row.words, row.count());
        let same = words.iter().zip(&last).take(opened).take_while(|(a, b)| a == b).count();
        while opened > same {
            sink.emit(&last[..opened], open[opened].adjusted, open[opened].occurrences)?;
            opened -= 1;
        }
        open[1..=same].iter_mut().for_each(|shorter| shorter.occurrences += count);
        open[same].adjusted += 1;
        // A sentence's first words come with more than one mark of its start: they are shorter n-grams.
        let length = words[1..order].iter().position(|&word| word == START).map_or(order, |before| before + 2);
        open[(same + 1).min(length)..length].fill(Open { adjusted: 1, occurrences: count });
        if length == order {
            sink.emit(&words[..order], count, count)?;
            opened = order - 1;
        } else {
            open[length] = Open { adjusted: count, occurrences: count };
            opened = length;
        }
        last = words;
    }
    while opened > 0 {
        sink.emit(&last[..opened], open[opened].adjusted, open[opened].occurrences)?;
        opened -= 1;
    }
    let by_context = sink.sorters.into_iter().map(Sorter::finish).collect::<Result<_>>()?;
    Ok(Adjusted { by_context, statistics: sink.statistics })
}
