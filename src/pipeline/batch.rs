//! Host features to the device and log-probabilities back.

use std::borrow::Borrow;

use burn::tensor::{Device, Tensor, TensorData, activation};

use crate::features::LogMel;
use crate::model::arithmetic::Arithmetic;
use crate::model::lengths::Lengths;
use crate::model::pass::{Chunk, Pass};
use crate::model::recognizer::Recognizer;

/// What a batch was recognised as.
#[derive(Debug, Clone, PartialEq)]
pub struct Recognition {
    /// Natural log-probabilities `[steps, vocab]` of each utterance, padding removed.
    pub log_probs: Vec<Vec<f32>>,
    /// Classes, the blank included.
    pub vocab: usize,
    /// Expert of every step, `[MoE layers][steps]`, of each utterance; no layers in a dense model.
    pub experts: Vec<Vec<Vec<u16>>>,
}

/// Runs the model on utterances of any lengths; `chunk` gives it the context of a stream (`None`: its own).
pub fn recognize(
    model: &impl Recognizer,
    utterances: &[impl Borrow<LogMel>],
    chunk: Option<Chunk>,
    arithmetic: impl Into<Arithmetic>,
    device: &Device,
) -> Recognition {
    let vocab = model.vocab();
    let frames = utterances.iter().map(|u| u.borrow().frames).max().unwrap_or(0);
    if frames == 0 {
        let (log_probs, experts) = (vec![Vec::new(); utterances.len()], vec![Vec::new(); utterances.len()]);
        return Recognition { log_probs, vocab, experts };
    }
    let mels = utterances[0].borrow().mels;
    let mut features = vec![0.0f32; utterances.len() * frames * mels];
    for (utterance, row) in utterances.iter().zip(features.chunks_exact_mut(frames * mels)) {
        let values = &utterance.borrow().values;
        row[..values.len()].copy_from_slice(values);
    }
    let features = Tensor::<3>::from_data(TensorData::new(features, [utterances.len(), frames, mels]), device);
    let lengths = Lengths::new(utterances.iter().map(|u| u.borrow().frames).collect::<Vec<_>>(), frames);
    let output = model.recognize(features, &lengths, &Pass::inference(arithmetic).with_chunk(chunk));
    let steps = output.lengths.padded();
    let values = to_log_probs(output.logits);
    let layers: Vec<_> = output.routed.iter().flatten().map(|routed| routed.routing.choices.clone()).collect();
    let valid = output.lengths.valid();
    let expert = |choice: &Option<usize>| choice.map_or(0, |expert| expert as u16);
    let experts =
        (0..valid.len()).map(|u| layers.iter().map(|choices| choices[u * steps..][..valid[u]].iter().map(expert).collect()).collect());
    let rows = values.chunks_exact((steps * vocab).max(1)).zip(valid);
    Recognition { log_probs: rows.map(|(row, &valid)| row[..valid * vocab].to_vec()).collect(), vocab, experts: experts.collect() }
}

/// Natural log-probabilities of logits `[batch, steps, vocab]`, on the host.
pub(super) fn to_log_probs(logits: Tensor<3>) -> Vec<f32> {
    activation::log_softmax(logits, 2).into_data().try_into_vec().expect("log-probabilities are f32")
}
