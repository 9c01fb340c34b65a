//! One batch through the model: loss and gradients.

use std::sync::Arc;

use burn::tensor::{Device, Gradients, Tensor, TensorData};

use crate::model::asr::{AsrModel, AsrOutput};
use crate::model::lengths::Lengths;
use crate::model::moe::clusters::Spread;
use crate::model::ops::ctc::ctc_loss;
use crate::model::pass::Pass;
use crate::train::batch::HostBatch;
use crate::train::config::{LanguageLoss, LossConfig};
use crate::train::languages::{LanguageReport, divergence, identification};

/// Numbers of one batch, for the log.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BatchReport {
    /// CTC loss of the last head, nats, summed over the batch.
    pub ctc: f64,
    /// Mean of the middle heads, nats, summed over the batch.
    pub intermediate: f64,
    /// Tokens in the batch.
    pub tokens: usize,
    /// Load balance, mean over MoE layers.
    pub balance: f64,
    /// Steps that chose each expert, for every MoE layer.
    pub load: Vec<Vec<usize>>,
    /// Spread of the clusters of every layer (counted from 0) that follows it.
    pub spreads: Vec<(usize, Spread)>,
    /// Of a batch that went through two modules.
    pub languages: LanguageReport,
}

impl BatchReport {
    /// Takes in one of the two passes of a batch: means of losses, sums of choices.
    fn add_half(&mut self, pass: Self) {
        self.ctc += 0.5 * pass.ctc;
        self.intermediate += 0.5 * pass.intermediate;
        self.balance += 0.5 * pass.balance;
        self.tokens = pass.tokens;
        self.spreads.extend(pass.spreads);
        if self.load.is_empty() {
            self.load = pass.load;
        } else {
            self.load.iter_mut().flatten().zip(pass.load.into_iter().flatten()).for_each(|(sum, n)| *sum += n);
        }
    }
}

/// What is minimised.
#[derive(Debug, Clone, Copy)]
pub struct Objective {
    /// The blank token.
    pub blank: u32,
    /// Weights of the terms.
    pub loss: LossConfig,
    /// Weights of those for an encoder with languages.
    pub languages: LanguageLoss,
}

/// Loss of a batch, its gradients, and its report. `pass` gives passes that draw the same random numbers.
///
/// A batch of a module goes through the model twice: `(L_module + L_shared) / 2 + d divergence / steps + i identification`, with [`loss`] for L; the
/// passes differ in their modules only, so that the divergence is 0 where these are equal.
pub fn batch_gradients(
    model: &AsrModel,
    batch: &HostBatch,
    objective: &Objective,
    pass: impl Fn() -> Pass,
    device: &Device,
) -> (Gradients, BatchReport) {
    let rows = batch.lengths.len();
    let mels = batch.features.len() / (rows * batch.frames).max(1);
    let features = Tensor::<3>::from_data(TensorData::new(batch.features.clone(), [rows, batch.frames, mels]), device);
    let lengths = Lengths::new(batch.lengths.clone(), batch.frames);
    let modules = model.encoder.config().languages.as_ref().map_or(0, |l| l.modules.len());
    let shared = model.forward(features.clone(), &lengths, &pass());
    if batch.plan.group >= modules {
        let (loss, report) = loss(shared, &batch.targets, objective.blank, &objective.loss);
        return (loss.backward(), report);
    }
    let slot = batch.plan.group;
    let own = model.forward(features, &lengths, &pass().with_slot(Some(slot)));
    let steps = shared.lengths.clone();
    let divergence = divergence(own.logits.clone(), shared.logits.clone(), &steps);
    let (doubt, identified) = match shared.languages.clone() {
        Some(logits) => identification(logits, slot),
        None => unreachable!("a model with modules identifies them"),
    };
    let mut report = BatchReport {
        languages: LanguageReport { divergence: scalar(&divergence), steps: steps.total(), identified, utterances: rows },
        ..BatchReport::default()
    };
    let terms = divergence.mul_scalar(objective.languages.distillation / steps.total().max(1) as f64)
        + doubt.mul_scalar(objective.languages.identification);
    let mut both = terms;
    for output in [own, shared] {
        let (loss, part) = loss(output, &batch.targets, objective.blank, &objective.loss);
        both = both + loss.mul_scalar(0.5);
        report.add_half(part);
    }
    (both.backward(), report)
}

/// `((1 - i) CTC + i mean(middle CTC)) / tokens + balance + z`, `[1]`.
pub fn loss(output: AsrOutput, targets: &[Vec<u32>], blank: u32, weights: &LossConfig) -> (Tensor<1>, BatchReport) {
    let targets = Arc::new(targets.to_vec());
    let tokens = targets.iter().map(Vec::len).sum::<usize>().max(1);
    let mut report = BatchReport { tokens, ..BatchReport::default() };
    let ctc = ctc_loss(output.logits, &output.lengths, &targets, blank as usize);
    report.ctc = scalar(&ctc);
    let heads = output.intermediate.len();
    let mut loss = ctc;
    if heads > 0 {
        let middle = output.intermediate.into_iter().map(|logits| ctc_loss(logits, &output.lengths, &targets, blank as usize));
        let middle = middle.reduce(|a, b| a + b).map(|sum| sum.div_scalar(heads as f64));
        if let Some(middle) = middle {
            report.intermediate = scalar(&middle);
            loss = loss.mul_scalar(1.0 - weights.intermediate) + middle.mul_scalar(weights.intermediate);
        }
    }
    loss = loss.div_scalar(tokens as f64);
    let layers = output.routed.iter().flatten().count() as f64;
    for (i, layer) in output.routed.into_iter().enumerate().filter_map(|(i, layer)| Some((i, layer?))) {
        report.spreads.extend(layer.spread.map(|spread| (i, spread)));
        report.balance += scalar(&layer.loss.balance) / layers;
        loss = loss + layer.loss.balance.mul_scalar(weights.balance / layers) + layer.loss.z.mul_scalar(weights.z / layers);
        report.load.push(layer.loss.load);
    }
    (loss, report)
}

fn scalar(t: &Tensor<1>) -> f64 {
    f64::from(t.clone().detach().into_scalar::<f32>())
}
