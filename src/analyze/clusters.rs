//! Experts for a feed-forward that has none: neurons whose input weights point the same way, in groups of one size.

use crate::compress::assignment::assignment;
use crate::error::{Error, Result};
use crate::kernel::rng::SplitMix;

/// Rounds at most; groups rarely change after ten.
const MOST_ROUNDS: usize = 20;

/// The group of every neuron, `groups` groups of one size: k-means on normalised rows, with exact assignment under the size.
///
/// # Shapes
/// `rows`: `[neurons, width]`
///
/// # Errors
/// [`Error::Config`] if the groups cannot be of one size.
///
/// # Reference
/// MoEfication's parameter split as in arXiv:2305.18390: k-means with exact sizes on L2-normalised rows of the input matrix.
pub fn balanced(rows: &[f32], width: usize, groups: usize, seed: u64) -> Result<Vec<usize>> {
    let neurons = rows.len() / width;
    if groups == 0 || !neurons.is_multiple_of(groups) {
        return Err(Error::config("--groups", format!("{groups}: must divide the {neurons} neurons of a feed-forward")));
    }
    let size = neurons / groups;
    let normal: Vec<Vec<f64>> = rows
        .chunks_exact(width)
        .map(|row| {
            let norm = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
            row.iter().map(|v| f64::from(*v) / norm).collect()
        })
        .collect();
    let mut rng = SplitMix::new(seed);
    let mut order: Vec<usize> = (0..neurons).collect();
    (1..neurons).for_each(|i| order.swap(i, rng.next_u64() as usize % (i + 1)));
    let mut centres: Vec<Vec<f64>> = order[..groups].iter().map(|&i| normal[i].clone()).collect();
    let mut of_neurons: Vec<usize> = Vec::new();
    for _ in 0..MOST_ROUNDS {
        let mut costs = Vec::with_capacity(neurons * neurons);
        for row in &normal {
            for centre in &centres {
                let distance: f64 = row.iter().zip(centre).map(|(a, b)| (a - b).powi(2)).sum();
                costs.extend(std::iter::repeat_n(distance, size));
            }
        }
        let new: Vec<usize> = assignment(&costs, neurons).into_iter().map(|seat| seat / size).collect();
        if new == of_neurons {
            break;
        }
        of_neurons = new;
        for (group, centre) in centres.iter_mut().enumerate() {
            centre.fill(0.0);
            for (row, _) in normal.iter().zip(&of_neurons).filter(|(_, g)| **g == group) {
                centre.iter_mut().zip(row).for_each(|(c, v)| *c += v / size as f64);
            }
        }
    }
    Ok(of_neurons)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_one_size_and_planted_ones_are_found() {
        let mut rng = SplitMix::new(2);
        let directions: Vec<Vec<f32>> = (0..4).map(|_| (0..8).map(|_| rng.next_normal()).collect()).collect();
        let mut rows = Vec::new();
        for i in 0..40 {
            let scale = 0.5 + rng.next_f32();
            rows.extend(directions[i % 4].iter().map(|v| scale * (v + 0.05 * rng.next_normal())).collect::<Vec<_>>());
        }
        let groups = balanced(&rows, 8, 4, 1).unwrap();
        for g in 0..4 {
            assert_eq!(groups.iter().filter(|x| **x == g).count(), 10);
        }
        (0..40).for_each(|i| assert_eq!(groups[i], groups[i % 4], "neuron {i}"));
        let error = balanced(&rows, 8, 7, 1).unwrap_err().to_string();
        assert!(error.contains("must divide the 40 neurons"), "{error}");
    }
}
