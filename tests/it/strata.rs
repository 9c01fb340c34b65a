//! Stratified experts against a walk of every step by itself, and against what must hold of any of them.

use burn::tensor::{Gradients, Tensor};
use omniscribe::kernel::activation::Activation;
use omniscribe::kernel::gemm::Precision;
use omniscribe::kernel::rng::SplitMix;
use omniscribe::model::init::Init;
use omniscribe::model::lengths::Lengths;
use omniscribe::model::moe::experts::Experts;
use omniscribe::model::moe::router::Router;
use omniscribe::model::moe::strata::{Adding, Climb, StrataLayer, gate_columns};
use omniscribe::model::ops::experts::expert_feed_forward_naive;
use omniscribe::model::ops::fused;
use omniscribe::model::ops::norm::layer_norm;
use omniscribe::model::pass::Pass;

use crate::moe::{both_forms, device, gradient, param, random, tensor, values};
use crate::oracle;

const D: usize = 8;
/// Equal arithmetic in another order, through up to three norms.
const REORDERED: f64 = 4e-6;
/// Gradients of the same, summed over rows.
const GRADIENT: f64 = 4e-5;
const ADDING: Adding = Adding { activation: Activation::Silu, step: 1.0, dropout: 0.0 };

fn layer(strata: &[usize], seed: u64) -> StrataLayer {
    let mut layer = StrataLayer::new(D, 12, strata, true, &mut Init::new(&device(), seed));
    let mut rng = SplitMix::new(seed);
    let columns = gate_columns(strata);
    // Decided gates, and norms that differ.
    layer.router.as_mut().unwrap().weight = param(&random(&mut rng, D * columns, 1.0), [D, columns]);
    for norm in &mut layer.norms {
        norm.gamma = param(&random(&mut rng, D, 0.5).iter().map(|v| v + 1.0).collect::<Vec<_>>(), [D]);
        norm.beta = Some(param(&random(&mut rng, D, 0.3), [D]));
    }
    layer
}

fn run(layer: &StrataLayer, stream: &Tensor<3>, normed: &Tensor<3>, lengths: &Lengths) -> (Tensor<3>, Climb) {
    layer.forward(stream.clone(), normed.clone(), lengths, None, ADDING, &Pass::inference(Precision::F32))
}

/// The walk of one step as the paper's code has it. `[1, D]` each.
fn walk(layer: &StrataLayer, strata: &[usize], stream: Tensor<2>, normed: Tensor<2>) -> (Tensor<2>, Vec<usize>) {
    let gates = layer.router.as_ref().unwrap().weight.val();
    let (mut residual, mut x, mut s, mut path) = (stream, normed, 0, Vec::new());
    while s < strata.len() {
        let column: usize = (0..s).map(|t| strata[t..].iter().sum::<usize>()).sum();
        let (below, allowed) = (strata[..s].iter().sum::<usize>(), strata[s..].iter().sum());
        let logits = x.clone().matmul(gates.clone().narrow(1, column, allowed));
        let p = burn::tensor::activation::softmax(logits, 1);
        let host = values(&p);
        let best = (0..allowed).fold(0, |best, e| if host[e] > host[best] { e } else { best });
        let e = below + best;
        let y = expert_feed_forward_naive(x, layer.experts.weights(), &[Some(e)], 1, ADDING.activation) * p.narrow(1, best, 1);
        let t = (0..strata.len()).find(|t| e < strata[..=*t].iter().sum::<usize>()).unwrap();
        x = layer_norm((y + residual).reshape([1, 1, D]), &layer.norms[t]).reshape([1, D]);
        residual = x.clone();
        s = t + 1;
        path.push(e);
    }
    (x, path)
}

fn all_gradients(layer: &StrataLayer, inputs: [&Tensor<3>; 2], gradients: &Gradients) -> Vec<(String, Vec<f64>)> {
    let Experts { up, up_bias, down, down_bias, languages: _ } = &layer.experts;
    let mut all = vec![
        ("stream".to_string(), gradient(inputs[0], gradients)),
        ("normed".to_string(), gradient(inputs[1], gradients)),
        ("gates".to_string(), gradient(&layer.router.as_ref().unwrap().weight.val(), gradients)),
        ("up".to_string(), gradient(&up.val(), gradients)),
        ("up bias".to_string(), gradient(&up_bias.val(), gradients)),
        ("down".to_string(), gradient(&down.val(), gradients)),
        ("down bias".to_string(), gradient(&down_bias.val(), gradients)),
    ];
    for (i, norm) in layer.norms.iter().enumerate() {
        all.push((format!("gamma {i}"), gradient(&norm.gamma.val(), gradients)));
        all.push((format!("beta {i}"), gradient(&norm.beta.as_ref().unwrap().val(), gradients)));
    }
    all
}

#[test]
fn the_batch_equals_a_walk_of_every_step() {
    for (seed, strata) in [vec![3], vec![2, 3], vec![1, 2, 4], vec![2, 2, 2, 1], vec![4, 1]].into_iter().enumerate() {
        let layer = layer(&strata, seed as u64);
        let mut rng = SplitMix::new(90 + seed as u64);
        let (batch, steps, valid) = (3, 7, [7, 4, 0]);
        let draw = |rng: &mut SplitMix| random(rng, batch * steps * D, 1.0);
        let (stream, normed, probe) = (draw(&mut rng), draw(&mut rng), draw(&mut rng));
        let lengths = Lengths::new(valid.to_vec(), steps);
        let leaf = |v: &[f64]| tensor(v, [batch, steps, D]).require_grad();
        let live: Vec<usize> = (0..batch * steps).filter(|r| r % steps < valid[r / steps]).collect();

        let golden = fused::composed(|| {
            let inputs = [leaf(&stream), leaf(&normed)];
            let row = |t: &Tensor<3>, r: usize| t.clone().reshape([batch * steps, D]).narrow(0, r, 1);
            let (mut loss, mut outs, mut paths) = (Tensor::<1>::zeros([1], &device()), Vec::new(), Vec::new());
            for &r in &live {
                let (y, path) = walk(&layer, &strata, row(&inputs[0], r), row(&inputs[1], r));
                loss = loss + (y.clone() * tensor(&probe[r * D..(r + 1) * D], [1, D])).sum();
                outs.extend(values(&y));
                paths.push(path);
            }
            (outs, paths, all_gradients(&layer, [&inputs[0], &inputs[1]], &loss.backward()))
        });
        both_forms(|form| {
            let what = format!("{strata:?} {form}");
            let inputs = [leaf(&stream), leaf(&normed)];
            let (y, climb) = run(&layer, &inputs[0], &inputs[1], &lengths);
            let paths: Vec<_> = live.iter().map(|r| climb.paths[*r].clone()).collect();
            assert_eq!(paths, golden.1, "{what}: paths");
            assert!((0..batch * steps).all(|r| live.contains(&r) || climb.paths[r].is_empty()), "{what}: padding visits nothing");
            let host = values(&y);
            let rows: Vec<f64> = live.iter().flat_map(|r| host[r * D..(r + 1) * D].to_vec()).collect();
            oracle::assert_close(&format!("{what}: y"), &rows, &golden.0, REORDERED);
            let mut masked = vec![0.0; probe.len()];
            live.iter().for_each(|r| masked[r * D..(r + 1) * D].copy_from_slice(&probe[r * D..(r + 1) * D]));
            let gradients = (y * tensor(&masked, [batch, steps, D])).sum().backward();
            for ((name, ours), (_, golden)) in all_gradients(&layer, [&inputs[0], &inputs[1]], &gradients).iter().zip(&golden.2) {
                oracle::assert_close(&format!("{what}: grad {name}"), ours, golden, GRADIENT);
            }
            let visits: usize = paths.iter().map(Vec::len).sum();
            assert_eq!(climb.loss.load.iter().sum::<usize>(), visits, "{what}: load counts visits");
        });
    }
}

#[test]
fn paths_rise_to_the_last_stratum() {
    let strata = [2, 3, 2];
    let (mut lengths_seen, stratum) = ([false; 4], |e: usize| [0, 0, 1, 1, 1, 2, 2][e]);
    for seed in 0..6 {
        let x = tensor(&random(&mut SplitMix::new(seed), 30 * D, 1.0), [1, 30, D]);
        let (_, climb) = run(&layer(&strata, seed), &x, &x, &Lengths::full(1, 30));
        for path in &climb.paths {
            assert!(path.is_sorted_by(|a, b| stratum(*a) < stratum(*b)), "{path:?}");
            assert_eq!(stratum(*path.last().unwrap()), 2, "{path:?}");
            lengths_seen[path.len()] = true;
        }
    }
    assert_eq!(lengths_seen, [false, true, true, true], "short and long paths both occur");
}

/// With inputs whose first feature is 1, the first row of a gate is a bias.
#[test]
fn gates_decide_how_many_experts_work() {
    let strata = [2, 3, 2];
    let mut x = random(&mut SplitMix::new(1), 10 * D, 0.1);
    x.iter_mut().step_by(D).for_each(|v| *v = 1.0);
    let x = tensor(&x, [1, 10, D]);
    for (wanted, visits) in [("last", 1), ("lowest", 3)] {
        let mut layer = layer(&strata, 4);
        let columns = gate_columns(&strata);
        let mut weight = vec![0.0; D * columns];
        // Gates of 7, 5 and 2 columns.
        let favoured = if wanted == "last" { vec![5, 6] } else { vec![0, 1, 7, 8, 9, 12, 13] };
        favoured.into_iter().for_each(|c| weight[c] = 50.0);
        layer.router.as_mut().unwrap().weight = param(&weight, [D, columns]);
        // After a norm the first feature is its shift: still 1.
        for norm in &mut layer.norms {
            let (gamma, beta): (Vec<f64>, Vec<f64>) = (0..D).map(|i| if i == 0 { (0.0, 1.0) } else { (1.0, 0.0) }).unzip();
            norm.gamma = param(&gamma, [D]);
            norm.beta = Some(param(&beta, [D]));
        }
        let (_, climb) = run(&layer, &x, &x, &Lengths::full(1, 10));
        assert!(climb.paths.iter().all(|path| path.len() == visits), "{wanted}: {:?}", climb.paths);
        assert_eq!(climb.loss.load.iter().sum::<usize>(), 10 * visits);
    }
}

#[test]
fn one_stratum_is_a_mixture_with_residual_and_norm() {
    let layer = layer(&[4], 8);
    let mut rng = SplitMix::new(3);
    let draw = |rng: &mut SplitMix| tensor(&random(rng, 2 * 6 * D, 1.0), [2, 6, D]);
    let (stream, normed) = (draw(&mut rng), draw(&mut rng));
    let lengths = Lengths::full(2, 6);
    let pass = Pass::inference(Precision::F32);
    both_forms(|form| {
        let (y, climb) = run(&layer, &stream, &normed, &lengths);
        let router: &Router = layer.router.as_ref().unwrap();
        let x = normed.clone().reshape([12, D]);
        let routing = router.route(x.clone(), &lengths, &pass);
        let plain = layer.experts.forward(x, &routing, ADDING.activation, &pass).reshape([2, 6, D]);
        let golden = layer_norm(stream.clone() + plain, &layer.norms[0]);
        oracle::assert_close(form, &values(&y), &values(&golden), REORDERED);
        assert_eq!(climb.first.choices, routing.choices, "{form}");
        let loss = router.loss(&routing);
        assert_eq!(values(&climb.loss.balance), values(&loss.balance), "{form}");
        assert_eq!(values(&climb.loss.z), values(&loss.z), "{form}");
    });
}

#[test]
fn even_gates_are_balanced_and_padding_does_not_count() {
    let strata = [2, 2];
    let mut layer = layer(&strata, 5);
    let columns = gate_columns(&strata);
    let x = tensor(&random(&mut SplitMix::new(2), 16 * D, 1.0), [2, 8, D]);
    for lengths in [Lengths::full(2, 8), Lengths::new(vec![8, 3], 8)] {
        layer.router.as_mut().unwrap().weight = param(&vec![0.0; D * columns], [D, columns]);
        let (_, climb) = run(&layer, &x, &x, &lengths);
        oracle::assert_close("balance", &values(&climb.loss.balance), &[1.0], 1e-6);
        assert_eq!(climb.loss.load, [lengths.total(), 0, lengths.total(), 0], "ties fall to the first expert");
    }
    // Nobody to route: nothing breaks.
    let (y, climb) = run(&layer, &x, &x, &Lengths::new(vec![0, 0], 8));
    assert!(values(&y).iter().chain(&values(&climb.loss.balance)).all(|v| v.is_finite()));
}

#[test]
fn one_step_changes_no_other() {
    let layer = layer(&[2, 3, 1], 6);
    let x = random(&mut SplitMix::new(7), 12 * D, 1.0);
    let mut other = x.clone();
    other[5 * D..6 * D].iter_mut().for_each(|v| *v = -3.0 * *v + 0.5);
    both_forms(|form| {
        let y = |x: &[f64]| values(&run(&layer, &tensor(x, [1, 12, D]), &tensor(x, [1, 12, D]), &Lengths::full(1, 12)).0);
        let (a, b) = (y(&x), y(&other));
        for row in 0..12 {
            assert_eq!(a[row * D..(row + 1) * D] == b[row * D..(row + 1) * D], row != 5, "{form}: row {row}");
        }
    });
}
