//! The adaptive clustering router (AC router): each feature counts for the router as much as the step's cluster is tight in it.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};

use crate::model::config::ClusterStatistics;
use crate::model::init::Init;
use crate::model::lengths::Lengths;

/// Keeps the reciprocal of a spread finite.
const EPSILON: f64 = 1e-4;
/// A weight is at most this many times the mean one.
const LARGEST: f64 = 10.0;
/// Fewer steps than this show no spread.
const LEAST_STEPS: usize = 2;

/// The first choices of the routed layer below: the clusters of this one.
#[derive(Debug, Clone, Copy)]
pub struct Labels<'a> {
    /// Cluster of each row, `None` in the padding.
    pub of_rows: &'a [Option<usize>],
    /// Number of clusters: experts of that layer.
    pub clusters: usize,
}

/// Scales what a router reads by the clusters of its layer.
#[derive(Module, Debug)]
pub struct ClusterScale {
    /// Running mean absolute deviation of each feature, `[clusters, d_model]`, followed while training and not trained by gradients;
    /// `None` where every utterance has statistics of its own.
    pub spread: Option<Param<Tensor<2>>>,
}

/// The spread of the clusters of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Spread {
    /// Live steps of each cluster, `[clusters]`.
    pub steps: Vec<usize>,
    /// Mean absolute deviation of each feature, `[clusters, d_model]`; 0 for a cluster without steps.
    pub deviation: Vec<f64>,
}

impl ClusterScale {
    /// Running statistics begin at 1, which leaves the router as it is.
    pub fn new(statistics: ClusterStatistics, clusters: usize, d_model: usize, init: &mut Init) -> Self {
        let running = matches!(statistics, ClusterStatistics::Running { .. });
        Self { spread: running.then(|| init.constant([clusters, d_model], 1.0).set_require_grad(false)) }
    }

    /// What the router reads in place of `x`, and the spread of this batch where it is followed.
    ///
    /// # Shapes
    /// `x`, returns: `[rows, d_model]`; no gradient flows through the weights
    ///
    /// # Reference
    /// Nielsen et al. 2025, arXiv:2502.15315, mean absolute deviation: `x_i * W_c(i)`. Differs: the paper takes statistics over whatever batch
    /// is at hand; here they are of the utterance alone, or running ones, so that a transcript does not depend on its batch-mates.
    pub fn scale(&self, x: &Tensor<2>, labels: Labels, lengths: &Lengths) -> (Tensor<2>, Option<Spread>) {
        let [rows, d_model] = x.dims();
        let mut factors = vec![1.0f32; rows * d_model];
        let mut apply = |from: usize, to: usize, weights: &[f64]| {
            for row in from..to {
                if let Some(cluster) = labels.of_rows[row] {
                    let weights = &weights[cluster * d_model..(cluster + 1) * d_model];
                    factors[row * d_model..(row + 1) * d_model].iter_mut().zip(weights).for_each(|(f, w)| *f = *w as f32);
                }
            }
        };
        let data = x.clone().detach().into_data();
        let values = data.as_slice::<f32>().expect("states are f32");
        let spread = match &self.spread {
            Some(running) => {
                let kept = running.val().detach().into_data();
                let kept: Vec<f64> = kept.as_slice::<f32>().expect("weights are f32").iter().map(|v| f64::from(*v)).collect();
                apply(0, rows, &feature_weights(&Spread { steps: vec![LEAST_STEPS; labels.clusters], deviation: kept }));
                Some(spread(values, labels, d_model))
            }
            None => {
                for utterance in 0..lengths.batch() {
                    let (from, to) = (utterance * lengths.padded(), (utterance + 1) * lengths.padded());
                    let own = Labels { of_rows: &labels.of_rows[from..to], ..labels };
                    apply(from, to, &feature_weights(&spread(&values[from * d_model..to * d_model], own, d_model)));
                }
                None
            }
        };
        (x.clone() * Tensor::from_data(TensorData::new(factors, [rows, d_model]), &x.device()), spread)
    }
}

impl Spread {
    /// Moves running deviations towards those of a batch, cluster by cluster; one that the batch shows nothing of stays.
    ///
    /// # Shapes
    /// `running`: `[clusters, d_model]`
    pub fn follow(&self, running: &mut [f32], momentum: f64) {
        let d_model = running.len() / self.steps.len();
        for (cluster, kept) in running.chunks_exact_mut(d_model).enumerate() {
            if self.steps[cluster] >= LEAST_STEPS {
                let seen = &self.deviation[cluster * d_model..(cluster + 1) * d_model];
                kept.iter_mut().zip(seen).for_each(|(k, s)| *k = (momentum * f64::from(*k) + (1.0 - momentum) * s) as f32);
            }
        }
    }
}

/// `MAD_kq = mean over the steps of k of |x_iq - mean_kq|`.
///
/// # Shapes
/// `x`: `[rows, d_model]`
pub fn spread(x: &[f32], labels: Labels, d_model: usize) -> Spread {
    let mut steps = vec![0usize; labels.clusters];
    let (mut mean, mut deviation) = (vec![0.0f64; labels.clusters * d_model], vec![0.0f64; labels.clusters * d_model]);
    let labelled = || x.chunks_exact(d_model).zip(labels.of_rows).filter_map(|(row, label)| label.map(|cluster| (row, cluster)));
    for (row, cluster) in labelled() {
        steps[cluster] += 1;
        mean[cluster * d_model..].iter_mut().zip(row).for_each(|(m, v)| *m += f64::from(*v));
    }
    let divide = |sums: &mut [f64]| {
        for (sums, &n) in sums.chunks_exact_mut(d_model).zip(&steps) {
            sums.iter_mut().for_each(|s| *s /= n.max(1) as f64);
        }
    };
    divide(&mut mean);
    for (row, cluster) in labelled() {
        let at = cluster * d_model;
        for ((sum, m), v) in deviation[at..].iter_mut().zip(&mean[at..]).zip(row) {
            *sum += (f64::from(*v) - m).abs();
        }
    }
    divide(&mut deviation);
    Spread { steps, deviation }
}

/// The weight of each feature for each cluster: `1 / (MAD + 1e-4)`, at most ten times the mean, then divided by the feature's mean over clusters.
///
/// # Shapes
/// returns: `[clusters, d_model]`
///
/// # Reference
/// arXiv:2502.15315 as its authors code it. Differs: a cluster with fewer than two steps shows no spread; its weights are 1 and it counts in no
/// mean (theirs would be `1e4`, and would press those of all the others towards 0).
pub fn feature_weights(spread: &Spread) -> Vec<f64> {
    let clusters = spread.steps.len();
    let d_model = spread.deviation.len() / clusters;
    let shown: Vec<usize> = (0..clusters).filter(|&k| spread.steps[k] >= LEAST_STEPS).collect();
    let mut weights = vec![1.0; clusters * d_model];
    if shown.is_empty() {
        return weights;
    }
    let reciprocal = |k: usize, q: usize| 1.0 / (spread.deviation[k * d_model + q] + EPSILON);
    let all = shown.iter().flat_map(|&k| (0..d_model).map(move |q| reciprocal(k, q)));
    let most = LARGEST * all.sum::<f64>() / (shown.len() * d_model) as f64;
    for q in 0..d_model {
        let mean = shown.iter().map(|&k| reciprocal(k, q).min(most)).sum::<f64>() / shown.len() as f64;
        for &k in &shown {
            weights[k * d_model + q] = reciprocal(k, q).min(most) / mean;
        }
    }
    weights
}
