//! One batch through the model: loss and gradients.

use std::sync::Arc;

use burn::tensor::{Device, Gradients, Tensor, TensorData};

use crate::model::asr::{AsrModel, AsrOutput};
use crate::model::lengths::Lengths;
use crate::model::moe::clusters::Spread;
use crate::model::ops::ctc::ctc_loss;
use crate::model::pass::Pass;
use crate::train::batch::HostBatch;
use crate::train::config::LossConfig;

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
}

/// Loss per token of a batch, its gradients, and its report.
pub fn batch_gradients(
    model: &AsrModel,
    batch: &HostBatch,
    blank: u32,
    weights: &LossConfig,
    pass: &Pass,
    device: &Device,
) -> (Gradients, BatchReport) {
    let rows = batch.lengths.len();
    let mels = batch.features.len() / (rows * batch.frames).max(1);
    let features = Tensor::<3>::from_data(TensorData::new(batch.features.clone(), [rows, batch.frames, mels]), device);
    let lengths = Lengths::new(batch.lengths.clone(), batch.frames);
    let output = model.forward(features, &lengths, pass);
    let (loss, report) = loss(output, &batch.targets, blank, weights);
    (loss.backward(), report)
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
