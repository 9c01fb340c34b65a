//! Attention by its definition, in f64, one value at a time.

use super::*;

/// Inputs of an attention in f64.
#[derive(Clone)]
pub(super) struct Exact {
    pub qkv: Vec<f64>,
    pub p: Vec<f64>,
    pub u: Vec<f64>,
    pub v: Vec<f64>,
}

/// Output `[batch, steps, d_model]` of `attention` for `x`; its own positions slices are not used.
pub(super) fn forward(attention: &Attention<'_>, x: &Exact) -> Vec<f64> {
    let (steps, d_model, d_head) = (attention.steps, attention.d_model, attention.d_head());
    let mut out = vec![0.0; attention.lengths.len() * steps * d_model];
    for (b, &length) in attention.lengths.iter().enumerate() {
        for head in 0..attention.heads {
            let third = |which: usize, step: usize, i: usize| x.qkv[(b * steps + step) * 3 * d_model + which * d_model + head * d_head + i];
            let turned = |which: usize, step: usize, i: usize| match attention.positions {
                Positions::Rotary => {
                    let half = d_head / 2;
                    let angle = step as f64 * 10_000f64.powf(-2.0 * (i % half) as f64 / d_head as f64);
                    let partner = third(which, step, (i + half) % d_head);
                    third(which, step, i) * angle.cos() + if i < half { -partner } else { partner } * angle.sin()
                }
                _ => third(which, step, i),
            };
            let all = |which: usize| (0..length).map(|step| (0..d_head).map(|i| turned(which, step, i)).collect()).collect();
            let (queries, all_keys): (Vec<Vec<f64>>, Vec<Vec<f64>>) = (all(0), all(1));
            for query in 0..length {
                let keys = attention.mask.keys(query, length);
                let score = |key: usize| -> f64 {
                    let term = |i: usize| {
                        let (q, k) = (queries[query][i], all_keys[key][i]);
                        let Positions::Relative { .. } = attention.positions else { return q * k };
                        let column = head * d_head + i;
                        (q + x.u[column]) * k + (q + x.v[column]) * x.p[(steps - 1 + key - query) * d_model + column]
                    };
                    (0..d_head).map(term).sum::<f64>() / (d_head as f64).sqrt()
                };
                let scores: Vec<f64> = keys.clone().map(score).collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
                for i in 0..d_head {
                    let weighted = keys.clone().zip(&scores).map(|(key, s)| (s - max).exp() / total * third(2, key, i));
                    out[(b * steps + query) * d_model + head * d_head + i] = weighted.sum();
                }
            }
        }
    }
    out
}
