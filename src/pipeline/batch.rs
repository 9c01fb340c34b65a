//! Host features to the device and log-probabilities back.

use std::borrow::Borrow;

use burn::tensor::{Device, Tensor, TensorData, activation};

use crate::features::LogMel;
use crate::kernel::gemm::Precision;
use crate::model::asr::AsrModel;
use crate::model::lengths::Lengths;
use crate::model::pass::Pass;

/// What a batch was recognised as.
#[derive(Debug, Clone, PartialEq)]
pub struct Recognition {
    /// Natural log-probabilities `[steps, vocab]` of each utterance, padding removed.
    pub log_probs: Vec<Vec<f32>>,
    /// Classes, the blank included.
    pub vocab: usize,
}

/// Runs the model on utterances of any lengths.
pub fn recognize(model: &AsrModel, utterances: &[impl Borrow<LogMel>], precision: Precision, device: &Device) -> Recognition {
    let vocab = model.vocab();
    let Some(mels) = utterances.first().map(|u| u.borrow().mels) else { return Recognition { log_probs: Vec::new(), vocab } };
    let frames = utterances.iter().map(|u| u.borrow().frames).max().unwrap_or(0);
    if frames == 0 {
        return Recognition { log_probs: vec![Vec::new(); utterances.len()], vocab };
    }
    let mut features = vec![0.0f32; utterances.len() * frames * mels];
    for (utterance, row) in utterances.iter().zip(features.chunks_exact_mut(frames * mels)) {
        let values = &utterance.borrow().values;
        row[..values.len()].copy_from_slice(values);
    }
    let features = Tensor::<3>::from_data(TensorData::new(features, [utterances.len(), frames, mels]), device);
    let lengths = Lengths::new(utterances.iter().map(|u| u.borrow().frames).collect::<Vec<_>>(), frames);
    let output = model.forward(features, &lengths, &Pass::inference(precision));
    let steps = output.lengths.padded();
    let data = activation::log_softmax(output.logits, 2).into_data();
    let values = data.as_slice::<f32>().expect("log-probabilities are f32");
    let rows = values.chunks_exact(steps * vocab).zip(output.lengths.valid());
    Recognition { log_probs: rows.map(|(row, &valid)| row[..valid * vocab].to_vec()).collect(), vocab }
}
