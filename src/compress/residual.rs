//! Residuals with fewer parameters.

use nalgebra::{DMatrix, SymmetricEigen};

use crate::checkpoint::factored::{ExpertSizes, Residual};
use crate::compress::ResidualKind;

/// Keeps about `keep` of the parameters of each residual.
///
/// A product of two matrices that would have as many entries as the residual itself is no compression: then the residual stays whole, so that
/// keep = 1 loses nothing either way.
///
/// # Shapes
/// `residuals`: `[experts][d_ff * width]`
pub fn compress(kind: ResidualKind, keep: f64, residuals: &[Vec<f32>], sizes: ExpertSizes) -> Residual {
    match kind {
        ResidualKind::Svd if keep < 1.0 => low_rank(residuals, sizes, rank(keep, sizes)),
        _ => Residual::Pruned(residuals.iter().map(|r| largest(r, keep)).collect()),
    }
}

/// The largest rank whose factors have at most `keep` of the entries of a design matrix.
///
/// # Reference
/// arXiv:2503.06881, code: `floor(keep * n p / (n + p))`.
pub fn rank(keep: f64, sizes: ExpertSizes) -> usize {
    let (n, p) = (sizes.d_ff as f64, sizes.width() as f64);
    (keep * n * p / (n + p)) as usize
}

/// All but the `round((1 - keep) * entries)` entries of least magnitude, with their places; at a tie the earlier one goes.
pub fn largest(values: &[f32], keep: f64) -> Vec<(usize, f32)> {
    let dropped = ((1.0 - keep) * values.len() as f64).round() as usize;
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].abs().total_cmp(&values[b].abs()));
    let mut kept = order.split_off(dropped.min(values.len()));
    kept.sort_unstable();
    kept.into_iter().map(|place| (place, values[place])).collect()
}

/// The best approximation of each residual by a product of rank `rank`: its projection on its first right singular vectors.
fn low_rank(residuals: &[Vec<f32>], sizes: ExpertSizes, rank: usize) -> Residual {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    // Without a column there is no matrix to make.
    for residual in residuals.iter().filter(|_| rank > 0) {
        let d = DMatrix::from_row_iterator(sizes.d_ff, sizes.width(), residual.iter().map(|v| f64::from(*v)));
        // Eigenvectors of the Gram matrix: they are orthonormal to rounding, and that is all a projection needs.
        let eigen = SymmetricEigen::new(d.tr_mul(&d));
        let mut order: Vec<usize> = (0..sizes.width()).collect();
        order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
        let vectors = DMatrix::from_columns(&order[..rank].iter().map(|&i| eigen.eigenvectors.column(i)).collect::<Vec<_>>());
        let scores = &d * &vectors;
        left.extend(scores.row_iter().flat_map(|row| row.iter().map(|v| *v as f32).collect::<Vec<_>>()));
        right.extend(vectors.column_iter().flat_map(|column| column.iter().map(|v| *v as f32).collect::<Vec<_>>()));
    }
    Residual::LowRank { rank, left, right }
}
