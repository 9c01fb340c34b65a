//! What a model loses without some of its groups of neurons.

use std::collections::BTreeSet;

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use serde::Serialize;

use crate::analyze::functions::Function;
use crate::analyze::observe::{Recording, log_probs};
use crate::decode::ctc::greedy;
use crate::eval::{Scoring, WordErrors};
use crate::kernel::rng::SplitMix;
use crate::model::asr::AsrModel;
use crate::model::feed_forward::FeedForward;
use crate::text::Tokenizer;

/// What a model hears.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    /// Best token of every step, recording after recording.
    pub best: Vec<u32>,
    /// Word errors, greedy.
    pub errors: WordErrors,
}

/// What is lost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Loss {
    /// Share of steps with the function whose best token changes.
    pub matching: f64,
    /// The same of the other steps.
    pub other: f64,
    /// Word error rate.
    pub wer: f64,
}

/// One function: its functional groups silenced, and as many others in the same layers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Perturbation {
    /// The function.
    pub function: String,
    /// Groups that were silenced: layer and group.
    pub silenced: Vec<(usize, usize)>,
    /// What that cost.
    pub functional: Loss,
    /// Mean of silencing other groups of the same layers, drawn at random.
    pub random: Loss,
}

/// Runs a model on recordings.
///
/// # Errors
/// [`crate::Error::LimitExceeded`] of the aligner.
pub fn hear(model: &AsrModel, recordings: &[Recording], tokenizer: &Tokenizer, scoring: &Scoring, device: &Device) -> crate::Result<Heard> {
    let (vocab, blank) = (model.vocab(), tokenizer.blank());
    let mut heard = Heard { best: Vec::new(), errors: WordErrors::default() };
    for recording in recordings {
        let probs = log_probs(model, &recording.features, None, device);
        let best = |row: &[f32]| (0..vocab).fold(0, |best, i| if row[i] > row[best] { i } else { best }) as u32;
        heard.best.extend(probs.chunks_exact(vocab).map(best));
        let text = tokenizer.decode(&greedy(&probs, probs.len() / vocab, vocab, blank).tokens);
        heard.errors += scoring.score(&recording.reference, &text)?.words;
    }
    Ok(heard)
}

/// The model without what some groups of neurons give; `groups` names the group of every neuron of every layer.
pub fn silenced(model: &AsrModel, groups: &[Vec<usize>], which: &[(usize, usize)]) -> AsrModel {
    let mut model = model.clone();
    for (layer, block) in model.encoder.blocks.iter_mut().enumerate() {
        let gone: BTreeSet<usize> = which.iter().filter(|w| w.0 == layer).map(|w| w.1).collect();
        if gone.is_empty() {
            continue;
        }
        // Row n of the output weights, whatever the number of experts, is neuron n's.
        let silence = |data: TensorData, width: usize| {
            let mut values = data.try_to_vec::<f32>().expect("weights are f32");
            for (row, _) in values.chunks_exact_mut(width).zip(&groups[layer]).filter(|(_, g)| gone.contains(g)) {
                row.fill(0.0);
            }
            values
        };
        match &mut block.feed_forward {
            FeedForward::Dense(dense) => {
                let shape = dense.down.dims();
                let values = silence(dense.down.val().into_data(), shape[1]);
                dense.down = Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), &dense.down.device()));
            }
            FeedForward::Experts(layer) => {
                let down = &mut layer.experts.down;
                let shape = down.dims();
                let values = silence(down.val().into_data(), shape[2]);
                *down = Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), &down.device()));
            }
            FeedForward::Memory(_) | FeedForward::Strata(_) => {}
        }
    }
    model
}

/// Other groups of the same layers, as many as there are, not those of `which` where there are enough.
pub fn others(which: &[(usize, usize)], counts: &[usize], rng: &mut SplitMix) -> Vec<(usize, usize)> {
    let mut drawn = Vec::new();
    for layer in which.iter().map(|w| w.0).collect::<BTreeSet<_>>() {
        let wanted = which.iter().filter(|w| w.0 == layer).count();
        let mut order: Vec<usize> = (0..counts[layer]).collect();
        (1..order.len()).for_each(|i| order.swap(i, rng.next_u64() as usize % (i + 1)));
        order.sort_by_key(|g| which.contains(&(layer, *g)));
        drawn.extend(order.into_iter().take(wanted).map(|g| (layer, g)));
    }
    drawn
}

/// Compares what two models hear. `steps` are the numbers of the observed steps, over all recordings.
pub fn loss(before: &Heard, after: &Heard, function: &Function, steps: &[usize]) -> Loss {
    let share = |with: bool| {
        let chosen: Vec<usize> = steps.iter().zip(&function.steps).filter(|(_, has)| **has == with).map(|(step, _)| *step).collect();
        chosen.iter().filter(|s| before.best[**s] != after.best[**s]).count() as f64 / chosen.len().max(1) as f64
    };
    Loss { matching: share(true), other: share(false), wer: after.errors.wer() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_groups_are_of_the_same_layers() {
        let mut rng = SplitMix::new(4);
        for _ in 0..20 {
            let drawn = others(&[(1, 2), (3, 0), (3, 1)], &[4, 4, 4, 4], &mut rng);
            assert_eq!(drawn.iter().filter(|d| d.0 == 1).count(), 1);
            assert!(drawn.iter().all(|d| ![(1, 2), (3, 0), (3, 1)].contains(d)) && drawn.len() == 3, "{drawn:?}");
        }
        assert_eq!(others(&[(0, 0), (0, 1)], &[2], &mut rng).len(), 2, "no others: the same");
    }

    #[test]
    fn losses_are_told_apart() {
        let heard = |best: [u32; 6]| Heard { best: best.to_vec(), errors: WordErrors::default() };
        let function = Function { name: "f".into(), steps: vec![true, false, true] };
        let lost = loss(&heard([1, 0, 2, 0, 3, 0]), &heard([1, 0, 2, 0, 4, 5]), &function, &[0, 2, 4]);
        assert_eq!((lost.matching, lost.other), (0.5, 0.0));
    }
}
