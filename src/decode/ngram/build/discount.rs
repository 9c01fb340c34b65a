//! Adjusted counts to discounted probabilities, and to the weight that every context leaves to shorter n-grams.

use super::super::{MAX_ORDER, UNKNOWN};
use super::adjust::Count;
use super::rows::{Row, Same, Sorted, Sorter, Spool};
use super::{BuildConfig, KEEP_SHARE, SORT_SHARE, START, share, split_bytes};
use crate::error::{Error, Result};

/// What adjusted counts 1, 2 and more are discounted by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Discount(pub [f64; 3]);

impl Discount {
    /// Chen & Goodman 1998, equation 26, from the number of n-grams of count 1, 2, 3 and 4.
    pub(super) fn estimate(counts: [u64; 4], order: usize, fallback: Option<[f64; 3]>) -> Result<Self> {
        let n = counts.map(|count| count as f64);
        let y = n[0] / (n[0] + 2.0 * n[1]);
        let discounts = [1, 2, 3].map(|count| f64::from(count) - f64::from(count + 1) * y * n[count as usize] / n[count as usize - 1]);
        if discounts.iter().zip(1..).all(|(&d, count)| (0.0..=f64::from(count)).contains(&d)) {
            return Ok(Self(discounts));
        }
        fallback.map(Self).ok_or_else(|| {
            let reason = format!(
                "discounts of {order}-grams cannot be estimated: {counts:?} of them have (adjusted) counts 1 to 4, which gives {discounts:.3?}. \
                 The text is too small or repeats itself: leave out repeated lines, or name fallback discounts"
            );
            Error::config("language model", reason)
        })
    }

    /// The discount of a count over 0.
    fn of(&self, count: u64) -> f64 {
        self.0[count.clamp(1, 3) as usize - 1]
    }
}

/// One order: n-grams kept, from the last word to the first, with their discounted probability and the weight their context leaves.
/// Contexts from the last word to the first, with that weight: they are n-grams of the order below.
pub(super) struct Discounted {
    pub(super) ngrams: Sorted,
    pub(super) contexts: Spool,
}

/// Discounts each order.
pub(super) fn apply(by_context: Vec<Sorted>, discounts: &[Discount], config: &BuildConfig) -> Result<Vec<Discounted>> {
    let mut orders = Vec::with_capacity(config.order);
    for (i, (sorted, discount)) in by_context.into_iter().zip(discounts).enumerate() {
        orders.push(one_order(sorted, i + 1, discount, config)?);
    }
    Ok(orders)
}

fn one_order(mut rows: Sorted, order: usize, discount: &Discount, config: &BuildConfig) -> Result<Discounted> {
    let mut ngrams = Sorter::new(order, split_bytes(share(config, SORT_SHARE), order, config.order), Same::Never);
    let mut contexts = Spool::new(order - 1, split_bytes(share(config, KEEP_SHARE), order, config.order));
    let mut ahead = rows.next()?;
    let mut group: Vec<Row> = Vec::new();
    while let Some(first) = ahead {
        let context = &first.words[..order - 1];
        group.clear();
        group.push(first);
        ahead = loop {
            match rows.next()? {
                Some(row) if row.words[..order - 1] == *context => group.push(row),
                other => break other,
            }
        };
        // The mass of n-grams left out goes to shorter ones, with what the others are discounted by.
        let (mut total, mut left, mut kept) = (0.0, 0.0, false);
        for count in group.iter().map(Count::of) {
            total += count.adjusted as f64;
            left +=
                if count.pruned { count.adjusted as f64 } else { discount.of(count.adjusted) * f64::from(u8::from(count.adjusted > 0)) };
            kept |= !count.pruned;
        }
        let weight = left / total;
        for row in &group {
            let count = Count::of(row);
            if count.pruned {
                continue;
            }
            let word = row.words[order - 1];
            let values = match (order, word) {
                // Every sentence starts.
                (1, START) => [1.0, 0.0],
                (1, UNKNOWN) => [0.0, weight],
                _ => [(count.adjusted as f64 - discount.of(count.adjusted)) / total, weight],
            };
            let mut words = [0; MAX_ORDER];
            words[0] = word;
            words[1..order].copy_from_slice(context);
            ngrams.push(Row::valued(words, values.map(|value| value as f32)))?;
        }
        if kept && order > 1 {
            let mut words = [0; MAX_ORDER];
            words[..order - 1].copy_from_slice(context);
            contexts.push(Row::valued(words, [weight as f32, 0.0]))?;
        }
    }
    Ok(Discounted { ngrams: ngrams.finish()?, contexts })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discounts_by_hand() {
        // Y = 10 / (10 + 2*5) = 0.5; 1 - 2Y*5/10, 2 - 3Y*3/5, 3 - 4Y*2/3
        let Discount([one, two, more]) = Discount::estimate([10, 5, 3, 2], 2, None).unwrap();
        assert!((one - 0.5).abs() < 1e-12 && (two - 1.1).abs() < 1e-12 && (more - 5.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn what_cannot_be_estimated_says_so() {
        for counts in [[0, 5, 3, 2], [10, 0, 3, 2], [10, 5, 0, 2], [1, 1, 1, 90]] {
            let said = Discount::estimate(counts, 4, None).unwrap_err().to_string();
            assert!(said.contains("4-grams"), "{said}");
            assert_eq!(Discount::estimate(counts, 4, Some([0.5, 1.0, 1.5])).unwrap().0, [0.5, 1.0, 1.5]);
        }
    }
}
