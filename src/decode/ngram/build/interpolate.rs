//! Discounted probabilities to probabilities, each order upon the one below.

use super::discount::Discounted;
use super::rows::{Row, Sorted, Spool};
use super::{BuildConfig, SORT_SHARE, share, split_bytes};
use crate::error::Result;

/// The backoff weight of an n-gram that nothing follows.
pub(super) const NO_CONTEXT: f32 = -1.0;

/// Adds to each n-gram what its context leaves to the shorter one. `unigrams` are those kept, `<s>` included: all others share what the
/// empty context leaves, unknown words as one of them.
pub(super) fn interpolate(discounted: Vec<Discounted>, unigrams: u64, config: &BuildConfig) -> Result<Vec<Spool>> {
    let uniform = 1.0 / (unigrams - 1) as f32;
    let (ngrams, mut contexts): (Vec<_>, Vec<_>) = discounted.into_iter().map(|order| (order.ngrams, order.contexts)).unzip();
    // Contexts of one order are n-grams of the order below.
    contexts.remove(0);
    let mut contexts = contexts.into_iter();
    let mut orders: Vec<Spool> = Vec::with_capacity(config.order);
    for (rows, order) in ngrams.into_iter().zip(1..) {
        let done = Spool::new(order, split_bytes(share(config, SORT_SHARE), order, config.order));
        let done = one_order(rows, order, uniform, orders.last_mut(), contexts.next().as_mut(), done)?;
        orders.push(done);
    }
    Ok(orders)
}

fn one_order(
    mut rows: Sorted,
    order: usize,
    uniform: f32,
    below: Option<&mut Spool>,
    weights: Option<&mut Spool>,
    mut done: Spool,
) -> Result<Spool> {
    let mut below = Join::new(below, order - 1)?;
    let mut weights = Join::new(weights, order)?;
    while let Some(row) = rows.next()? {
        let [discounted, weight] = row.values();
        let shorter = if order == 1 { uniform } else { below.find(&row)?.unwrap_or_default() };
        let backoff = weights.find(&row)?.unwrap_or(NO_CONTEXT);
        done.push(Row::valued(row.words, [(discounted + weight * shorter).min(1.0), backoff]))?;
    }
    Ok(done)
}

/// Looks up ascending rows in a spool of ascending rows.
struct Join<I> {
    rows: Option<I>,
    ahead: Option<Row>,
    /// Words that have to agree.
    width: usize,
}

impl Join<()> {
    fn new(spool: Option<&mut Spool>, width: usize) -> Result<Join<impl Iterator<Item = Result<Row>>>> {
        let mut rows = spool.map(Spool::rows).transpose()?;
        let ahead = rows.as_mut().and_then(Iterator::next).transpose()?;
        Ok(Join { rows, ahead, width })
    }
}

impl<I: Iterator<Item = Result<Row>>> Join<I> {
    /// The first value of the row that starts with the same words.
    fn find(&mut self, row: &Row) -> Result<Option<f32>> {
        let Some(rows) = &mut self.rows else { return Ok(None) };
        let words = &row.words[..self.width];
        while let Some(found) = self.ahead {
            match found.words[..self.width].cmp(words) {
                std::cmp::Ordering::Less => self.ahead = rows.next().transpose()?,
                std::cmp::Ordering::Equal => return Ok(Some(found.values()[0])),
                std::cmp::Ordering::Greater => break,
            }
        }
        Ok(None)
    }
}
