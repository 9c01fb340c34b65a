//! Connectionist temporal classification loss.

use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData, activation};

use crate::kernel::ctc::Ctc;
use crate::kernel::memory::to_be_written;
use crate::model::lengths::Lengths;
use crate::model::ops::fused::{self, Fused, Host, Kept};

/// Sum over the batch of the negative log-likelihood of `targets`; utterances that cannot be aligned count 0.
///
/// # Shapes
/// - `logits`: `[batch, steps, vocab]`, raw
/// - `lengths`: `[batch]`, valid steps
/// - `targets`: token ids of every utterance, without blanks
/// - returns `[1]`, in nats
///
/// # Reference
/// Graves et al. 2006. Differs: none.
pub fn ctc_loss(logits: Tensor<3>, lengths: &Lengths, targets: &Arc<Vec<Vec<u32>>>, blank: usize) -> Tensor<1> {
    if fused::available(&logits.device()) {
        let op = FusedCtc { lengths: lengths.clone(), targets: targets.clone(), blank };
        return fused::apply!(op; logits);
    }
    composed(logits, lengths, targets, blank)
}

fn composed(logits: Tensor<3>, lengths: &Lengths, targets: &[Vec<u32>], blank: usize) -> Tensor<1> {
    let device = logits.device();
    let widest = targets.iter().map(Vec::len).max().unwrap_or(0).max(1);
    let padded: Vec<i64> =
        targets.iter().flat_map(|t| t.iter().map(|&id| i64::from(id)).chain(std::iter::repeat_n(blank as i64, widest - t.len()))).collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(padded, [targets.len(), widest]), &device);
    let counts: Vec<i64> = targets.iter().map(|t| t.len() as i64).collect();
    let counts = Tensor::<1, Int>::from_data(TensorData::new(counts, [targets.len()]), &device);
    let log_probs = activation::log_softmax(logits, 2).swap_dims(0, 1);
    let loss = burn::nn::loss::CTCLossConfig::new().with_blank(blank).with_zero_infinity(true).init();
    loss.forward(log_probs, ids, lengths.tensor(&device), counts).sum()
}

#[derive(Debug)]
struct FusedCtc {
    lengths: Lengths,
    targets: Arc<Vec<Vec<u32>>>,
    blank: usize,
}

impl Fused for FusedCtc {
    fn forward(&self, inputs: &[Host<'_>], kept: Option<&mut Kept>) -> (Vec<f32>, Vec<usize>) {
        let logits = inputs[0];
        let kernel = Ctc { steps: logits.shape[1], vocab: logits.shape[2], blank: self.blank };
        let mut gradient = kept.is_some().then(|| to_be_written(logits.values.len()));
        let losses = kernel.loss(logits.values, self.lengths.valid(), &self.targets, gradient.as_deref_mut());
        if let (Some(kept), Some(gradient)) = (kept, gradient) {
            kept.push(gradient);
        }
        let sum: f64 = losses.iter().filter(|l| **l != f64::INFINITY).sum();
        (vec![sum as f32], vec![1])
    }

    fn backward(&self, _inputs: &[Host<'_>], kept: &Kept, grad: &[f32], _wanted: &[bool]) -> Vec<Vec<f32>> {
        vec![kept[0].iter().map(|g| g * grad[0]).collect()]
    }
}
