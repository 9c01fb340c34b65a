//! A dense model as a mixture of experts: every expert starts as a copy of the dense feed-forward, the router is new.
//!
//! # Why the output stays the same
//!
//! A layer gives `P(e) * FFN_e(x)` with `P(e)` the gate probability of the chosen expert. The router is drawn so small (logits of about
//! 2e-6) that `P(e) = 1/N` up to float error, while which expert has the largest one is still decided by the input: steps go to several
//! experts from the first batch on, if not evenly; the balance loss of training evens them out. The factor `1/N` is made up for in the experts: their last matrix and bias are `N` times the dense
//! ones. As the router learns, `P` leaves `1/N`, and the scale is learned with it. Noise on the experts, where it is asked for, is the one
//! thing that changes the output.
//!
//! # Reference
//! Komatsuzaki et al. 2022, arXiv:2212.05055. Differs: top-1 with the gate probability kept, made up for as above; one router for all layers
//! where asked for.

use crate::checkpoint::directory::{ModelConfig, ModelDirectory};
use crate::checkpoint::languages::WITHOUT_LANGUAGES;
use crate::checkpoint::weights::{Fault, Source};
use crate::error::{Error, Result};
use crate::kernel::rng::SplitMix;
use crate::model::config::{ExpertGroup, ExpertGroups, FeedForwardConfig, RouterKind};

/// How a dense model becomes one of experts.
#[derive(Debug, Clone, PartialEq)]
pub struct Upcycle {
    /// Experts of every layer.
    pub experts: usize,
    /// Who owns routers.
    pub router: RouterKind,
    /// Noise on each expert's matrices, as a share of their standard deviation; 0 keeps the output.
    pub noise: f32,
    /// Of router and noise.
    pub seed: u64,
}

/// Standard deviation of router logits on normalised states: far below the resolution of a probability in training, far above that of f32
/// next to zero.
const LOGIT_DEVIATION: f32 = 2e-6;

impl Upcycle {
    /// The configuration of the new model.
    ///
    /// # Errors
    /// [`Error::Config`] if there are experts already or modules for languages, or a number is out of range.
    pub fn config(&self, dense: &ModelConfig) -> Result<ModelConfig> {
        if dense.encoder.feed_forward != FeedForwardConfig::Dense {
            return Err(Error::config("upcycle", "the model has experts already"));
        }
        if dense.encoder.languages.is_some() {
            return Err(Error::config("upcycle", WITHOUT_LANGUAGES));
        }
        if !(2..=1024).contains(&self.experts) {
            return Err(Error::config("upcycle", format!("experts = {}: must lie in 2..=1024", self.experts)));
        }
        if !(self.noise.is_finite() && self.noise >= 0.0) {
            return Err(Error::config("upcycle", format!("noise = {}: must be at least 0", self.noise)));
        }
        let groups = ExpertGroups(vec![ExpertGroup { layers: dense.encoder.n_layers, experts: self.experts }]);
        let mut config = dense.clone();
        config.encoder.feed_forward = FeedForwardConfig::Experts { router: self.router, groups, router_bias: false, jitter: 0.0 };
        config.validate()?;
        Ok(config)
    }

    /// The weights of the new model.
    pub fn source<'a>(&self, dense: &'a ModelDirectory) -> impl Source + 'a {
        Upcycled { dense: dense.weights.source(), plan: self.clone() }
    }
}

struct Upcycled<'a> {
    dense: Box<dyn Source + 'a>,
    plan: Upcycle,
}

impl Source for Upcycled<'_> {
    fn take(&self, name: &str, shape: &[usize]) -> std::result::Result<Vec<f32>, Fault> {
        // Each parameter draws from a stream of its own: the order in which they are asked for does not matter.
        let mut rng = SplitMix::stream(
            self.plan.seed,
            name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)),
        );
        if name.starts_with("encoder.routers.") || name.ends_with(".feed_forward.Experts.router.weight") {
            let deviation = LOGIT_DEVIATION / (shape[0].max(1) as f32).sqrt();
            return Ok((0..shape.iter().product()).map(|_| rng.next_normal() * deviation).collect());
        }
        let Some((block, part)) = name.split_once(".feed_forward.Experts.experts.") else { return self.dense.take(name, shape) };
        let one = self.dense.take(&format!("{block}.feed_forward.Dense.{part}"), &shape[1..])?;
        let scale = if part.starts_with("down") { self.plan.experts as f32 } else { 1.0 };
        let deviation = if part.ends_with("bias") { 0.0 } else { self.plan.noise * deviation(&one) };
        let mut all = Vec::with_capacity(one.len() * shape[0]);
        for _ in 0..shape[0] {
            if deviation > 0.0 {
                all.extend(one.iter().map(|v| (v + deviation * rng.next_normal()) * scale));
            } else {
                all.extend(one.iter().map(|v| v * scale));
            }
        }
        Ok(all)
    }

    fn unused(&self) -> Vec<String> {
        self.dense.unused()
    }
}

fn deviation(values: &[f32]) -> f32 {
    let n = values.len().max(1) as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    (values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n).sqrt() as f32
}
