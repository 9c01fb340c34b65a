//! What experts have in common once their hidden neurons stand in one order.

use nalgebra::DMatrix;
use rayon::prelude::*;

use crate::compress::assignment::assignment;

/// Rounds of aligning and averaging at most, as the authors of ResMoE set it; a handful is enough.
const MOST_ROUNDS: usize = 100;

/// The centre of some experts.
#[derive(Debug, Clone, PartialEq)]
pub struct Barycenter {
    /// `[d_ff * width]`
    pub centre: Vec<f32>,
    /// For each expert and each row of the centre, the expert's row that stands there.
    pub orders: Vec<Vec<usize>>,
    /// Rounds until no row moved.
    pub rounds: usize,
}

/// Free-support Wasserstein barycenter with equal masses: all experts are aligned to the centre, the centre becomes their mean, until no row
/// moves. It begins at the first expert.
///
/// # Shapes
/// `designs`: `[experts][d_ff * width]`
///
/// # Reference
/// arXiv:2503.06881, section 2 of its code: squared Euclidean costs, uniform weights.
pub fn barycenter(designs: &[Vec<f32>], width: usize) -> Barycenter {
    let mut centre = designs[0].clone();
    let mut orders: Vec<Vec<usize>> = Vec::new();
    let mut rounds = 0;
    while rounds < MOST_ROUNDS {
        rounds += 1;
        let new: Vec<Vec<usize>> = designs.par_iter().map(|design| align(&centre, design, width)).collect();
        let aligned: Vec<Vec<f32>> = designs.iter().zip(&new).map(|(design, order)| ordered(design, order, width)).collect();
        centre = mean(&aligned);
        if new == orders {
            break;
        }
        orders = new;
    }
    Barycenter { centre, orders, rounds }
}

/// For each row of `centre` the row of `design` assigned to it, the sum of squared distances being least.
pub fn align(centre: &[f32], design: &[f32], width: usize) -> Vec<usize> {
    let rows = centre.len() / width;
    let matrix = |values: &[f32]| DMatrix::from_iterator(width, rows, values.iter().map(|v| f64::from(*v)));
    let (centre, design) = (matrix(centre), matrix(design));
    let square = |m: &DMatrix<f64>| m.column_iter().map(|row| row.norm_squared()).collect::<Vec<f64>>();
    let (own, other) = (square(&centre), square(&design));
    // Column i of this, one after the other in memory, holds the products of row i of the centre with all rows of the design.
    let products = design.tr_mul(&centre);
    let costs: Vec<f64> = (products.as_slice().iter().enumerate()).map(|(at, p)| own[at / rows] + other[at % rows] - 2.0 * p).collect();
    assignment(&costs, rows)
}

/// The rows of `design` in another order.
pub fn ordered(design: &[f32], order: &[usize], width: usize) -> Vec<f32> {
    order.iter().flat_map(|&row| design[row * width..(row + 1) * width].iter().copied()).collect()
}

/// The mean, entry by entry.
pub fn mean(designs: &[Vec<f32>]) -> Vec<f32> {
    let mut sum = vec![0.0f64; designs[0].len()];
    for design in designs {
        sum.iter_mut().zip(design).for_each(|(s, v)| *s += f64::from(*v));
    }
    sum.into_iter().map(|s| (s / designs.len() as f64) as f32).collect()
}
