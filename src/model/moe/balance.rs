//! Auxiliary losses and statistics of routers.

use burn::tensor::{Tensor, activation};

use crate::model::moe::router::Routing;

/// Load balance and z-loss of one layer, with what was chosen.
#[derive(Debug, Clone)]
pub struct RouterLoss {
    /// `N sum_e f_e P_e` over live steps, `[1]`: 1 when balanced. f carries no gradient.
    pub balance: Tensor<1>,
    /// Mean over live steps of `logsumexp(logits)^2`, `[1]`.
    pub z: Tensor<1>,
    /// Live steps that chose each expert.
    pub load: Vec<usize>,
}

impl RouterLoss {
    /// What a pass outside training says: the load, and losses of 0 that nobody computed.
    pub fn load_only(routing: &Routing) -> Self {
        let zero = Tensor::zeros([1], &routing.probs.device());
        Self { balance: zero.clone(), z: zero, load: routing.grouping.load() }
    }
}

/// The auxiliary losses of one layer's routing.
///
/// # Reference
/// Fedus et al. 2021, arXiv:2101.03961 eq. 4 to 6 (balance, here before alpha); Zoph et al. 2022, arXiv:2202.08906 eq. 5 (z).
/// Differs: padded steps count in neither.
pub fn router_loss(routing: &Routing) -> RouterLoss {
    let device = routing.probs.device();
    let [rows, experts] = routing.probs.dims();
    let load = routing.grouping.load();
    let live = routing.live_rows.max(1) as f64;
    let chosen = load.iter().sum::<usize>().max(1) as f64;
    let fraction: Vec<f32> = load.iter().map(|&n| (n as f64 / chosen * experts as f64 / live) as f32).collect();
    let fraction = Tensor::<1>::from_floats(fraction.as_slice(), &device).reshape([1, experts]);
    let mask = routing.live.clone().reshape([rows, 1]);
    let balance = (routing.probs.clone() * mask.clone() * fraction).sum();
    // logsumexp = logits - log_softmax, whatever the column
    let lse = (routing.logits.clone() - activation::log_softmax(routing.logits.clone(), 1)).slice([0..rows, 0..1]);
    let z = (lse.square() * mask).sum().div_scalar(live);
    RouterLoss { balance, z, load }
}
