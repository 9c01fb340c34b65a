//! How many neurons of a kind an expert holds by chance.

/// Probability of more than the threshold, at most.
const SIGNIFICANCE: f64 = 0.001;

/// The smallest `t` for which more than `t` of `drawn` neurons fall into an expert of `size` among `all` neurons with a probability of at most
/// 0.001, drawn without looking. An expert that holds more is functional.
///
/// # Reference
/// arXiv:2305.18390, its code: `1 - hypergeom(all, size, drawn).cdf(t) <= 0.001`.
pub fn threshold(all: usize, size: usize, drawn: usize) -> usize {
    let mut logs = vec![0.0f64; all + 1];
    (1..=all).for_each(|n| logs[n] = logs[n - 1] + (n as f64).ln());
    let choose = |n: usize, k: usize| logs[n] - logs[k] - logs[n - k];
    let most = size.min(drawn);
    // From above, where the sum of small terms is exact.
    let mut above = 0.0;
    for t in (0..=most).rev() {
        if above > SIGNIFICANCE {
            return t + 1;
        }
        if drawn - t <= all - size {
            above += (choose(size, t) + choose(all - size, drawn - t) - choose(all, drawn)).exp();
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_of_scipy() {
        for (all, size, drawn, expected) in [(3072, 192, 30, 7), (49152, 3072, 491, 48), (64, 8, 8, 4)] {
            assert_eq!(threshold(all, size, drawn), expected, "{all} {size} {drawn}");
        }
    }

    #[test]
    fn an_expert_that_is_everything_holds_all() {
        assert_eq!(threshold(10, 10, 4), 4);
    }
}
