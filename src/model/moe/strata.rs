//! Stratified mixture of experts: a step climbs through strata of experts and may skip some, so that easy steps cost less.

use std::sync::Arc;

use burn::module::Module;
use burn::nn::LayerNorm;
use burn::tensor::{Bool, Int, Tensor, TensorData, activation};

use crate::kernel::activation::Activation;
use crate::model::convolution::new_layer_norm;
use crate::model::init::Init;
use crate::model::lengths::Lengths;
use crate::model::moe::balance::{RouterLoss, router_loss};
use crate::model::moe::experts::Experts;
use crate::model::moe::router::{Router, Routing};
use crate::model::ops::dropout::add_branch;
use crate::model::ops::experts::Grouping;
use crate::model::ops::norm::layer_norm;
use crate::model::pass::Pass;

/// Experts in strata, with a gate and a norm for each stratum. Unlike other feed-forwards it adds to the stream itself, once for each expert that
/// a step visits.
#[derive(Module, Debug)]
pub struct StrataLayer {
    /// The experts of all strata, lowest stratum first.
    pub experts: Experts,
    /// The gates of this layer alone; `None` where the encoder lends shared ones. One matrix holds all gates side by side, lowest stratum
    /// first: gate `s` has a column for each expert of stratum `s` and above.
    pub router: Option<Router>,
    /// Norm after an expert of each stratum.
    pub norms: Vec<LayerNorm>,
    #[module(skip)]
    strata: Vec<usize>,
}

/// How the outputs of experts are added to the stream.
#[derive(Debug, Clone, Copy)]
pub struct Adding {
    /// Activation inside the experts.
    pub activation: Activation,
    /// Scale of what is added.
    pub step: f64,
    /// Dropout on what is added.
    pub dropout: f64,
}

/// What a stratified layer did.
#[derive(Debug, Clone)]
pub struct Climb {
    /// The choices from the lowest stratum, where all steps begin.
    pub first: Routing,
    /// Losses averaged over the gates that were used; `load` counts the visits of every expert over all gates.
    pub loss: RouterLoss,
    /// The experts each row visited, in order; none in the padding.
    pub paths: Vec<Vec<usize>>,
}

/// Columns that all gates over `strata` have together.
pub fn gate_columns(strata: &[usize]) -> usize {
    (0..strata.len()).map(|s| strata[s..].iter().sum::<usize>()).sum()
}

impl StrataLayer {
    /// A layer with `strata[s]` experts in stratum `s`; `own` tells whether it has gates of its own.
    pub fn new(d_model: usize, d_ff: usize, strata: &[usize], own: bool, init: &mut Init) -> Self {
        Self {
            experts: Experts::new(strata.iter().sum(), d_model, d_ff, init),
            router: own.then(|| Router::new(d_model, gate_columns(strata), false, 0.0, init)),
            norms: strata.iter().map(|_| new_layer_norm(d_model, init)).collect(),
            strata: strata.to_vec(),
        }
    }

    /// The same layer with its experts exchanged for others.
    pub fn with_experts(self, change: impl FnOnce(Experts) -> Experts) -> Self {
        Self { experts: change(self.experts), ..self }
    }

    /// Sends every live step up the strata. From stratum s, gate s chooses an expert e of stratum s or above; the step becomes
    /// `LN_t(residual + p_e FFN_e(x))` with t the stratum of e, and goes on from t + 1 until it has left the last stratum.
    ///
    /// # Shapes
    /// - `stream`: `[batch, steps, d_model]`, the residual of the first expert
    /// - `normed`: the same after the block's norm, the input of the first expert
    /// - returns `[batch, steps, d_model]`, in the place of the stream
    ///
    /// # Reference
    /// Xu et al. 2023, arXiv:2305.02176. Differs: top-1 with its gate probability (the paper's default is top-2), no capacity in training
    /// either, so that a step never depends on its batch, and padding is not routed. Gates shared by all layers are our own combination.
    ///
    /// # Panics
    /// If there are neither own nor shared gates: a bug of the constructor.
    pub fn forward(
        &self,
        stream: Tensor<3>,
        normed: Tensor<3>,
        lengths: &Lengths,
        shared: Option<&Router>,
        adding: Adding,
        pass: &Pass,
    ) -> (Tensor<3>, Climb) {
        let gates = self.router.as_ref().or(shared).expect("a stratified layer has gates").weight.val();
        let [batch, steps, d_model] = stream.dims();
        let rows = batch * steps;
        let (mut h, mut x) = (stream, normed.reshape([rows, d_model]));
        let live = |row: usize| row % steps < lengths.valid()[row / steps];
        // The stratum each row goes on from; rows that have left are past the last.
        let mut from: Vec<usize> = (0..rows).map(|row| if live(row) { 0 } else { self.strata.len() }).collect();
        let mut paths = vec![Vec::new(); rows];
        let mut load = vec![0; self.strata.iter().sum()];
        let (mut used, mut column, mut below) = (Vec::new(), 0, 0);
        let mut first = None;
        for (s, &size) in self.strata.iter().enumerate() {
            let allowed = load.len() - below;
            let active: Vec<bool> = from.iter().map(|&f| f == s).collect();
            if s == 0 || active.contains(&true) {
                let routing = choose(x.clone().matmul(gates.clone().narrow(1, column, allowed)), &active);
                let experts: Vec<Option<usize>> = routing.choices.iter().map(|c| c.map(|e| e + below)).collect();
                let grouping = Arc::new(Grouping::new(&experts, load.len(), 1));
                let y = self.experts.feed_forward(x.clone(), grouping, adding.activation, pass) * routing.weights.clone();
                h = add_branch(h, y.reshape([batch, steps, d_model]), adding.step, adding.dropout, pass);
                for (row, e) in experts.iter().enumerate().filter_map(|(row, e)| e.map(|e| (row, e))) {
                    paths[row].push(e);
                    load[e] += 1;
                    from[row] = self.stratum(e) + 1;
                }
                h = self.normalize(h, &experts);
                x = h.clone().reshape([rows, d_model]);
                used.push(router_loss(&routing));
                first.get_or_insert(routing);
            }
            column += allowed;
            below += size;
        }
        let gates = used.len().max(1) as f64;
        let mean = |of: fn(&RouterLoss) -> Tensor<1>| used.iter().map(of).reduce(|a, b| a + b).map(|sum| sum.div_scalar(gates));
        let (balance, z) = (mean(|l| l.balance.clone()), mean(|l| l.z.clone()));
        let (Some(first), Some(balance), Some(z)) = (first, balance, z) else { unreachable!("there is a stratum") };
        (h, Climb { first, loss: RouterLoss { balance, z, load }, paths })
    }

    /// The stratum of an expert.
    fn stratum(&self, expert: usize) -> usize {
        let mut end = 0;
        self.strata
            .iter()
            .position(|size| {
                end += size;
                expert < end
            })
            .expect("an expert belongs to a stratum")
    }

    /// Normalises the rows that visited an expert, with the norm of its stratum.
    fn normalize(&self, h: Tensor<3>, experts: &[Option<usize>]) -> Tensor<3> {
        let [batch, steps, d_model] = h.dims();
        let device = h.device();
        let mut out = h.clone();
        for (t, norm) in self.norms.iter().enumerate() {
            let here: Vec<bool> = experts.iter().map(|e| e.is_some_and(|e| self.stratum(e) == t)).collect();
            if here.contains(&true) {
                let mask = Tensor::<3, Bool>::from_data(TensorData::new(here, [batch, steps, 1]), &device).expand([batch, steps, d_model]);
                out = out.mask_where(mask, layer_norm(h.clone(), norm));
            }
        }
        out
    }
}

/// The most probable of the experts that a gate has columns for, for every active row, the first one at a tie.
fn choose(logits: Tensor<2>, active: &[bool]) -> Routing {
    let device = logits.device();
    let [rows, experts] = logits.dims();
    let probs = activation::softmax(logits.clone(), 1);
    let data = probs.clone().detach().into_data();
    let values = data.as_slice::<f32>().expect("gate probabilities are f32");
    let best = |p: &[f32]| (1..experts).fold(0, |best, e| if p[e] > p[best] { e } else { best });
    let choices: Vec<Option<usize>> = values.chunks_exact(experts).zip(active).map(|(p, &a)| a.then(|| best(p))).collect();
    let index: Vec<i64> = choices.iter().map(|c| c.unwrap_or(0) as i64).collect();
    let live: Vec<f32> = active.iter().map(|&a| f32::from(u8::from(a))).collect();
    Routing {
        grouping: Arc::new(Grouping::new(&choices, experts, 1)),
        weights: probs.clone().gather(1, Tensor::<2, Int>::from_data(TensorData::new(index, [rows, 1]), &device)),
        probs,
        logits,
        live: Tensor::from_data(TensorData::new(live, [rows]), &device),
        live_rows: active.iter().filter(|a| **a).count(),
        choices: Arc::new(choices),
    }
}
