//! sigma-MoE: each step through its `top_k` experts, every one scaled by the sigmoid of its own logit.

use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData, activation};

use crate::kernel::rng::SplitMix;
use crate::model::lengths::Lengths;
use crate::model::moe::balance::{RouterLoss, router_loss};
use crate::model::moe::router::Routing;
use crate::model::ops::experts::Grouping;
use crate::model::pass::Pass;

/// The routing that follows from `logits` `[rows, experts]`.
///
/// While training, an expert may with probability `dropout` not be chosen for a step. Where fewer than `top_k` remain, the best of the
/// excluded ones fill up, so that every step has its `top_k` and no score is ever infinite.
///
/// # Reference
/// Csordás et al. 2023, arXiv:2310.10837: `y = sum_{e in topK} sigmoid(x W3)_e FFN_e(x)`, not renormalised. Differs: experts have biases,
/// weights are drawn like those of linear layers, and expert dropout leaves `top_k`.
pub fn route(logits: Tensor<2>, top_k: usize, dropout: f64, lengths: &Lengths, pass: &Pass) -> Routing {
    let device = logits.device();
    let [rows, experts] = logits.dims();
    let random = pass.seed().filter(|_| dropout > 0.0).map(SplitMix::new);
    let slots = choose(&logits, top_k, random, dropout, lengths);
    let index: Vec<i64> = slots.iter().map(|c| c.unwrap_or(0) as i64).collect();
    let index = Tensor::<2, Int>::from_data(TensorData::new(index, [rows, top_k]), &device);
    let weights = activation::sigmoid(logits.clone()).gather(1, index).reshape([rows * top_k, 1]);
    Routing {
        grouping: Arc::new(Grouping::new(&slots, experts, top_k)),
        weights,
        probs: activation::softmax(logits.clone(), 1),
        logits,
        live: lengths.live(&device).reshape([rows]),
        live_rows: lengths.total(),
        choices: Arc::new(slots.into_iter().step_by(top_k).collect()),
    }
}

/// The losses of one layer: as `balance` the negative entropy `sum_e p_e ln p_e` of the mean distribution over live steps, which lies
/// between `-ln experts` (even use) and 0 (one expert for all).
pub fn loss(routing: &Routing) -> RouterLoss {
    let [rows, _] = routing.probs.dims();
    let live = routing.live_rows.max(1) as f64;
    let mean = (routing.probs.clone() * routing.live.clone().reshape([rows, 1])).sum_dim(0).div_scalar(live);
    // A mean that underflows counts as 0 in the sum and has a finite slope.
    let balance = (mean.clone() * mean.clamp_min(1e-30).log()).sum();
    RouterLoss { balance, ..router_loss(routing) }
}

/// `top_k` experts for every live row, best first, the lower number first at a tie.
fn choose(logits: &Tensor<2>, top_k: usize, mut random: Option<SplitMix>, dropout: f64, lengths: &Lengths) -> Vec<Option<usize>> {
    let [_, experts] = logits.dims();
    let data = logits.clone().detach().into_data();
    let values = data.as_slice::<f32>().expect("router logits are f32");
    let mut slots = Vec::with_capacity(lengths.batch() * lengths.padded() * top_k);
    let mut excluded = vec![false; experts];
    let mut order: Vec<usize> = Vec::with_capacity(experts);
    for (row, scores) in values.chunks_exact(experts).enumerate() {
        if let Some(rng) = &mut random {
            excluded.iter_mut().for_each(|e| *e = f64::from(rng.next_f32()) < dropout);
        }
        let (utterance, step) = (row / lengths.padded(), row % lengths.padded());
        if step >= lengths.valid()[utterance] {
            slots.extend(std::iter::repeat_n(None, top_k));
            continue;
        }
        order.clear();
        order.extend(0..experts);
        order.sort_by(|&a, &b| excluded[a].cmp(&excluded[b]).then(scores[b].total_cmp(&scores[a])));
        slots.extend(order[..top_k].iter().map(|&e| Some(e)));
    }
    slots
}
