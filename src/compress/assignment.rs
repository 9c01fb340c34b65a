//! The cheapest one-to-one assignment.

use lapjv::{Matrix, lapjv};

/// Steps between the smallest and the largest cost. Costs on a grid add up exactly in f64, so that the solver cannot go in circles over
/// differences that are rounding.
const GRID: f64 = (1u64 << 32) as f64;

/// For each row the column that it is assigned to, so that the sum of costs is least. Exact up to the grid of 2^-32 of the range of costs.
///
/// # Shapes
/// `costs`: `[n, n]`, finite
///
/// # Panics
/// If `costs` is not square or not finite: a bug of the caller.
///
/// # Reference
/// Jonker and Volgenant 1987. With equal masses on both sides this is the optimal transport of arXiv:2503.06881.
pub fn assignment(costs: &[f64], n: usize) -> Vec<usize> {
    let (least, most) = costs.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &c| (a.min(c), b.max(c)));
    if n == 0 || least == most {
        return (0..n).collect();
    }
    let step = (most - least) / GRID;
    let grid: Vec<f64> = costs.iter().map(|c| ((c - least) / step).round()).collect();
    let matrix = Matrix::from_shape_vec((n, n), grid).expect("costs are a square matrix");
    lapjv(&matrix).expect("finite costs have an assignment").0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::rng::SplitMix;

    /// The least sum over all permutations.
    fn least(costs: &[f64], n: usize, row: usize, used: &mut Vec<bool>) -> f64 {
        if row == n {
            return 0.0;
        }
        let mut best = f64::INFINITY;
        for column in 0..n {
            if !used[column] {
                used[column] = true;
                best = best.min(costs[row * n + column] + least(costs, n, row + 1, used));
                used[column] = false;
            }
        }
        best
    }

    #[test]
    fn costs_the_least_of_all_permutations() {
        let mut rng = SplitMix::new(3);
        for n in 1..=7 {
            for round in 0..40 {
                // Ties in every second round.
                let cost = |v: f32| if round % 2 == 0 { f64::from(v) } else { f64::from((2.0 * v).round()) };
                let costs: Vec<f64> = (0..n * n).map(|_| cost(rng.next_normal())).collect();
                let found = assignment(&costs, n);
                let mut columns = found.clone();
                columns.sort_unstable();
                assert_eq!(columns, (0..n).collect::<Vec<_>>(), "one to one");
                let sum: f64 = found.iter().enumerate().map(|(row, column)| costs[row * n + column]).sum();
                let best = least(&costs, n, 0, &mut vec![false; n]);
                assert!((sum - best).abs() < 1e-7, "n {n}: {sum}, least {best}");
            }
        }
    }

    #[test]
    fn equal_costs_and_nothing_at_all() {
        assert_eq!(assignment(&[], 0), Vec::<usize>::new());
        assert_eq!(assignment(&[2.0; 9], 3), [0, 1, 2]);
    }
}
