//! Which expert each step goes to.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, TensorData, activation};

use crate::kernel::rng::SplitMix;
use crate::model::init::Init;
use crate::model::lengths::Lengths;
use crate::model::moe::balance::{RouterLoss, router_loss};
use crate::model::moe::sigma;
use crate::model::ops::experts::Grouping;
use crate::model::pass::Pass;

/// A linear router. In an Omni-router encoder one of these serves all layers of a group; it is owned once, by the encoder,
/// and lent to every block.
#[derive(Module, Debug)]
pub struct Router {
    /// `[d_model, experts]`
    pub weight: Param<Tensor<2>>,
    /// `[experts]`
    pub bias: Option<Param<Tensor<1>>>,
    /// Standard deviation of the noise on training logits.
    jitter: f64,
    #[module(skip)]
    gate: Gate,
}

/// How logits become choices and weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Gate {
    /// The most probable expert, weighted by its probability (Switch, Omni-router).
    Softmax,
    /// Several experts, each weighted by the sigmoid of its own logit (sigma-MoE).
    Sigmoid {
        /// Experts per step.
        top_k: usize,
        /// Training: probability that an expert may not be chosen for a step.
        dropout: f64,
    },
}

/// The choice of an expert for every step of a batch.
#[derive(Debug, Clone)]
pub struct Routing {
    /// Steps sorted by expert; padded steps belong to none.
    pub grouping: Arc<Grouping>,
    /// Gate of each choice, `[rows * top_k, 1]`: the task gradient of the router flows through it.
    pub weights: Tensor<2>,
    /// Probabilities of all experts, `[rows, experts]`.
    pub probs: Tensor<2>,
    /// Logits before the softmax, `[rows, experts]`.
    pub logits: Tensor<2>,
    /// 1 for live rows, `[rows]`.
    pub live: Tensor<1>,
    /// How many rows are live.
    pub live_rows: usize,
    /// First choice of every row; `None` in the padding.
    pub choices: Arc<Vec<Option<usize>>>,
}

impl Router {
    /// A router over `experts` experts.
    pub fn new(d_model: usize, experts: usize, bias: bool, jitter: f64, init: &mut Init) -> Self {
        Self {
            weight: init.fan_in([d_model, experts], d_model),
            bias: bias.then(|| init.fan_in([experts], d_model)),
            jitter,
            gate: Gate::Softmax,
        }
    }

    /// The same router with another gate.
    pub fn with_gate(self, gate: Gate) -> Self {
        Self { gate, ..self }
    }

    /// Number of experts routed to.
    pub fn experts(&self) -> usize {
        self.weight.dims()[1]
    }

    /// The auxiliary losses that go with the gate.
    pub fn loss(&self, routing: &Routing) -> RouterLoss {
        match self.gate {
            Gate::Softmax => router_loss(routing),
            Gate::Sigmoid { .. } => sigma::loss(routing),
        }
    }

    /// Chooses the experts of every live step.
    ///
    /// # Shapes
    /// - `x`: `[rows, d_model]`, rows = batch x steps
    /// - `lengths`: steps at or past the length are routed nowhere
    ///
    /// # Numerics
    /// Logits and gates in f32 whatever the precision of the pass. The weight is the gate itself, never renormalised.
    ///
    /// # Reference
    /// Gu et al. 2025, arXiv:2507.05724: `P = softmax(X W_shared)`, evaluated anew on every layer's input. Differs: none.
    pub fn route(&self, x: Tensor<2>, lengths: &Lengths, pass: &Pass) -> Routing {
        let device = x.device();
        let [rows, _] = x.dims();
        let mut logits = x.matmul(self.weight.val());
        if let Some(bias) = &self.bias {
            logits = logits + bias.val().unsqueeze();
        }
        if let Some(seed) = pass.seed().filter(|_| self.jitter > 0.0) {
            let mut rng = SplitMix::new(seed);
            let noise: Vec<f32> = (0..rows * self.experts()).map(|_| rng.next_normal() * self.jitter as f32).collect();
            logits = logits + Tensor::from_data(TensorData::new(noise, [rows, self.experts()]), &device);
        }
        if let Gate::Sigmoid { top_k, dropout } = self.gate {
            return sigma::route(logits, top_k, dropout, lengths, pass);
        }
        let probs = activation::softmax(logits.clone(), 1);
        let choices = argmax_live(&probs, lengths);
        let index: Vec<i64> = choices.iter().map(|c| c.unwrap_or(0) as i64).collect();
        let weights = probs.clone().gather(1, Tensor::<2, Int>::from_data(TensorData::new(index, [rows, 1]), &device));
        Routing {
            grouping: Arc::new(Grouping::new(&choices, self.experts(), 1)),
            weights,
            probs,
            logits,
            live: lengths.live(&device).reshape([rows]),
            live_rows: lengths.total(),
            choices: Arc::new(choices),
        }
    }
}

/// The most probable expert of every live row, the first one at a tie. Reads the probabilities back to the host.
fn argmax_live(probs: &Tensor<2>, lengths: &Lengths) -> Vec<Option<usize>> {
    let [_, experts] = probs.dims();
    let data = probs.clone().detach().into_data();
    let values = data.as_slice::<f32>().expect("router probabilities are f32");
    let mut choices = Vec::with_capacity(lengths.batch() * lengths.padded());
    for (row, p) in values.chunks_exact(experts).enumerate() {
        let (utterance, step) = (row / lengths.padded(), row % lengths.padded());
        let best = (1..experts).fold(0, |best, e| if p[e] > p[best] { e } else { best });
        choices.push((step < lengths.valid()[utterance]).then_some(best));
    }
    choices
}
