//! The adaptive clustering router against the figures of its authors' code, and against what must hold of any clusters.

use burn::tensor::{Device, Tensor, TensorData, activation};
use omniscribe::kernel::rng::SplitMix;
use omniscribe::model::config::ClusterStatistics;
use omniscribe::model::init::Init;
use omniscribe::model::lengths::Lengths;
use omniscribe::model::moe::clusters::{ClusterScale, Labels, feature_weights, spread};

use crate::moe::{device, gradient, random, tensor, values};
use crate::oracle;

/// The figures are printed with 9 digits, ours are f32 of order 1.
const PRINTED: f64 = 3e-7;

/// Five steps in two clusters.
const X: [f64; 10] = [1.0, 0.0, 1.2, 2.0, -1.0, 0.5, -3.0, 0.4, -2.0, 0.6];
const LABELS: [usize; 5] = [0, 0, 1, 1, 1];
const WEIGHTS: [f64; 4] = [1.73893767, 0.125164032, 0.261062332, 1.87483597];

fn some(labels: &[usize]) -> Vec<Option<usize>> {
    labels.iter().copied().map(Some).collect()
}

fn weights(x: &[f64], labels: &[Option<usize>], clusters: usize) -> Vec<f64> {
    let x: Vec<f32> = x.iter().map(|v| *v as f32).collect();
    feature_weights(&spread(&x, Labels { of_rows: labels, clusters }, x.len() / labels.len()))
}

fn of_utterance() -> ClusterScale {
    ClusterScale::new(ClusterStatistics::Utterance, 4, 2, &mut Init::new(&device(), 1))
}

#[test]
fn figures_of_the_toy() {
    let x: Vec<f32> = X.iter().map(|v| *v as f32).collect();
    let labels = some(&LABELS);
    let seen = spread(&x, Labels { of_rows: &labels, clusters: 2 }, 2);
    assert_eq!(seen.steps, [2, 3]);
    oracle::assert_close("deviation", &seen.deviation, &[0.1, 1.0, 0.666666667, 0.0666666667], PRINTED);
    oracle::assert_close("weights", &feature_weights(&seen), &WEIGHTS, PRINTED * 10.0);

    let lengths = Lengths::full(1, 5);
    let (scaled, followed) = of_utterance().scale(&tensor(&X, [5, 2]), Labels { of_rows: &labels, clusters: 2 }, &lengths);
    assert_eq!(followed, None);
    // Embeddings [3, 4] and [1, 0], each divided by its norm.
    let scores = scaled.matmul(tensor(&[0.6, 1.0, 0.8, 0.0], [2, 2]));
    let golden =
        [1.0433626, 1.73893767, 1.45229757, 2.0867252, 0.593296988, -0.261062332, 0.130035313, -0.783186995, 0.586646467, -0.522124663];
    oracle::assert_close("scores", &values(&scores), &golden, PRINTED * 10.0);
    let gates = values(&activation::softmax(scores, 1));
    oracle::assert_close("gates of the first step", &gates[..2], &[0.33279401, 0.66720599], PRINTED * 10.0);
}

#[test]
fn weights_are_those_of_the_clusters_alone() {
    let mut rng = SplitMix::new(3);
    let (rows, d_model, clusters) = (40, 6, 3);
    let x = random(&mut rng, rows * d_model, 1.0);
    let labels: Vec<Option<usize>> = (0..rows).map(|_| Some((rng.next_f32() * clusters as f32) as usize)).collect();
    let golden = weights(&x, &labels, clusters);

    let order = [2, 0, 1];
    let renamed: Vec<Option<usize>> = labels.iter().map(|l| l.map(|l| order[l])).collect();
    let permuted = weights(&x, &renamed, clusters);
    for (k, to) in order.into_iter().enumerate() {
        let (found, before) = (&permuted[to * d_model..(to + 1) * d_model], &golden[k * d_model..(k + 1) * d_model]);
        oracle::assert_close(&format!("cluster {k} is now {to}"), found, before, 1e-12);
    }

    let shifted: Vec<f64> = x.iter().enumerate().map(|(i, v)| v + if labels[i / d_model] == Some(1) { 0.5 } else { 0.0 }).collect();
    oracle::assert_close("one cluster moved", &weights(&shifted, &labels, clusters), &golden, 1e-5);

    for q in 0..d_model {
        let mean = (0..clusters).map(|k| golden[k * d_model + q]).sum::<f64>() / clusters as f64;
        assert!((mean - 1.0).abs() < 1e-12, "feature {q}: {mean}");
    }
}

#[test]
fn equal_clusters_and_a_single_one_leave_the_input() {
    let mut rng = SplitMix::new(5);
    let x = random(&mut rng, 8 * 4, 1.0);
    oracle::assert_close("one cluster", &weights(&x, &some(&[0; 8]), 1), &[1.0; 4], 1e-12);
    let twice: Vec<f64> = [&x[..], &x[..]].concat();
    let labels = [[0; 8], [1; 8]].concat();
    oracle::assert_close("equal spreads", &weights(&twice, &some(&labels), 2), &[1.0; 8], 1e-12);
}

/// Clusters without steps, and with one step, would have weights of 1e4 and press the others towards 0.
#[test]
fn a_cluster_that_shows_no_spread_counts_in_no_mean() {
    let apart: Vec<Option<usize>> = LABELS.iter().map(|l| Some(2 * l)).collect();
    let found = weights(&X, &apart, 4);
    oracle::assert_close("first", &found[..2], &WEIGHTS[..2], PRINTED * 10.0);
    oracle::assert_close("third", &found[4..6], &WEIGHTS[2..], PRINTED * 10.0);
    assert_eq!((&found[2..4], &found[6..]), (&[1.0; 2][..], &[1.0; 2][..]), "empty ones");

    let (x, labels) = ([&X[..], &[9.0, 9.0]].concat(), [&apart[..], &[Some(1)]].concat());
    assert_eq!(weights(&x, &labels, 4), found, "a single step");
    let (x, labels) = ([&X[..], &[f64::NAN, f64::NAN]].concat(), [&apart[..], &[None]].concat());
    assert_eq!(weights(&x, &labels, 4), found, "padding");
}

#[test]
fn an_utterance_has_statistics_of_its_own() {
    let mut rng = SplitMix::new(8);
    let (steps, d_model) = (9, 4);
    let lengths = Lengths::new(vec![9, 5, 7], steps);
    let x = random(&mut rng, 3 * steps * d_model, 1.0);
    let live = |row: usize| row % steps < lengths.valid()[row / steps];
    let labels: Vec<Option<usize>> = (0..3 * steps).map(|row| live(row).then_some((rng.next_f32() * 3.0) as usize)).collect();
    let (together, _) = of_utterance().scale(&tensor(&x, [3 * steps, d_model]), Labels { of_rows: &labels, clusters: 3 }, &lengths);
    let together = values(&together);
    for (u, &valid) in lengths.valid().iter().enumerate() {
        let from = u * steps;
        let own = tensor(&x[from * d_model..(from + valid) * d_model], [valid, d_model]);
        let of_rows = &labels[from..from + valid];
        let (alone, _) = of_utterance().scale(&own, Labels { of_rows, clusters: 3 }, &Lengths::full(1, valid));
        assert_eq!(together[from * d_model..(from + valid) * d_model], values(&alone), "utterance {u}");
    }
}

/// The gradient goes through the input times its weight, and not through the weight.
#[test]
fn weights_are_constants_to_the_gradient() {
    let x = tensor(&X, [5, 2]).require_grad();
    let labels = some(&LABELS);
    let (scaled, _) = of_utterance().scale(&x, Labels { of_rows: &labels, clusters: 2 }, &Lengths::full(1, 5));
    let gradients = scaled.sum().backward();
    let golden: Vec<f64> = LABELS.iter().flat_map(|&k| WEIGHTS[2 * k..2 * k + 2].to_vec()).collect();
    oracle::assert_close("gradient", &gradient(&x, &gradients), &golden, PRINTED * 10.0);
}

#[test]
fn running_statistics_start_neutral_and_follow() {
    let init = &mut Init::new(&Device::flex(), 1);
    let running = ClusterScale::new(ClusterStatistics::Running { momentum: 0.5 }, 3, 2, init);
    let x = Tensor::<2>::from_data(TensorData::new(X.iter().map(|v| *v as f32).collect::<Vec<_>>(), [5, 2]), &Device::flex());
    let labels = some(&LABELS);
    let (scaled, seen) = running.scale(&x, Labels { of_rows: &labels, clusters: 3 }, &Lengths::full(1, 5));
    assert_eq!(values(&scaled), values(&x), "spreads of 1 weigh nothing");
    let mut kept = [1.0f32; 6];
    seen.expect("a spread to follow").follow(&mut kept, 0.75);
    let kept: Vec<f64> = kept.iter().map(|v| f64::from(*v)).collect();
    // 3/4 of 1 and 1/4 of the figures of the toy; the cluster nobody is in stays.
    oracle::assert_close("followed", &kept, &[0.775, 1.0, 0.916666667, 0.766666667, 1.0, 1.0], PRINTED);
}
