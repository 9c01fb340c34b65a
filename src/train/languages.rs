//! Modules for languages in training: whose batch it is, Fuse Distillation, identification.

use burn::tensor::{Int, Tensor, TensorData, activation};
use serde::{Deserialize, Serialize};

use crate::dataset::Corpus;
use crate::dataset::manifest::Entry;
use crate::error::{Error, Result};
use crate::model::config::{LanguageConfig, LanguageField};
use crate::model::lengths::Lengths;
use crate::train::exact;

/// What a line of a manifest says of `field`.
fn value(entry: &Entry, field: LanguageField) -> Option<&str> {
    match field {
        LanguageField::Lang => entry.lang.as_deref(),
        LanguageField::Accent => entry.accent.as_deref(),
        LanguageField::Set => Some(&entry.set),
    }
}

/// The slot of every utterance: of its module, or the shared one where there is none for it. Without languages all have slot 0.
///
/// # Errors
/// [`Error::Config`] for a module that no utterance trains.
pub fn slots(corpus: &Corpus, languages: Option<&LanguageConfig>) -> Result<Vec<usize>> {
    let Some(languages) = languages else { return Ok(vec![0; corpus.utterances.len()]) };
    let shared = languages.modules.len();
    let slot = |entry: &Entry| value(entry, languages.field).and_then(|name| languages.slot(name)).unwrap_or(shared);
    let slots: Vec<usize> = corpus.utterances.iter().map(|u| slot(&u.entry)).collect();
    match (0..shared).find(|module| !slots.contains(module)) {
        Some(idle) => {
            let (name, field) = (&languages.modules[idle], format!("{:?}", languages.field).to_lowercase());
            Err(Error::config("encoder", format!("encoder.languages.modules: no utterance to train on has {field} = {name:?}")))
        }
        None => Ok(slots),
    }
}

/// Numbers of the batches that went through two modules.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LanguageReport {
    /// [`divergence`], nats, summed over steps.
    #[serde(with = "exact")]
    pub divergence: f64,
    /// Encoder steps.
    pub steps: usize,
    /// Utterances whose module was identified.
    pub identified: usize,
    /// Utterances.
    pub utterances: usize,
}

impl LanguageReport {
    /// Adds those of another batch.
    pub fn add(&mut self, other: &Self) {
        self.divergence += other.divergence;
        self.steps += other.steps;
        self.identified += other.identified;
        self.utterances += other.utterances;
    }

    /// Mean divergence; `None` where there was no step.
    pub fn divergence_per_step(&self) -> Option<f64> {
        (self.steps > 0).then(|| self.divergence / self.steps as f64)
    }

    /// Share of the utterances that were identified; `None` where there was none.
    pub fn identified_share(&self) -> Option<f64> {
        (self.utterances > 0).then(|| self.identified as f64 / self.utterances as f64)
    }
}

/// Fuse Distillation: `1/2 sum (p - q)(ln p - ln q)` over classes and valid steps, `p` and `q` the posteriors of both passes, nats, `[1]`. Both sides
/// receive gradient. It is a sum; the loss divides it by the steps, so that its weight does not depend on the size of a batch.
///
/// # Shapes
/// `p`, `q`: logits `[batch, steps, vocab]`
///
/// # Numerics
/// Logarithms come from log-softmax: that of a softmax is NaN where a probability underflows.
///
/// # Reference
/// Xu et al. 2023, arXiv:2305.13993. Differs: between frame posteriors of CTC, where theirs are those of target tokens; divided by the steps, where
/// theirs is a sum over the batch.
pub fn divergence(p: Tensor<3>, q: Tensor<3>, lengths: &Lengths) -> Tensor<1> {
    let (p, q) = (activation::log_softmax(p, 2), activation::log_softmax(q, 2));
    let terms = (p.clone().exp() - q.clone().exp()) * (p - q);
    lengths.clear_padding(terms).sum().mul_scalar(0.5)
}

/// Cross-entropy of `logits` `[batch, modules]` with module `slot` for every row, mean over the rows, nats, `[1]`, and how many rows it is the
/// most probable module of.
pub fn identification(logits: Tensor<2>, slot: usize) -> (Tensor<1>, usize) {
    let [rows, modules] = logits.dims();
    let values = logits.clone().detach().into_data();
    let values = values.as_slice::<f32>().expect("logits are f32");
    let right = values.chunks_exact(modules).filter(|row| row.iter().enumerate().all(|(m, v)| m == slot || *v < row[slot])).count();
    let index = Tensor::<2, Int>::from_data(TensorData::new(vec![slot as i64; rows], [rows, 1]), &logits.device());
    let log_probs = activation::log_softmax(logits, 1).gather(1, index);
    (log_probs.mean().neg(), right)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn logits(values: &[f32], shape: [usize; 3]) -> Tensor<3> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
    }

    fn scalar(t: Tensor<1>) -> f32 {
        t.into_scalar()
    }

    /// Of the f32 sums of a few products.
    const ROUNDING: f32 = 2e-7;

    #[test]
    fn divergence_is_the_golden_one_symmetric_and_blind_to_padding() {
        let (p, q) = ([1.0, 0.0, -1.0], [0.5, 0.5, -1.0]);
        let golden = 0.105_128_1;
        let one = |a: &[f32; 3], b: &[f32; 3]| scalar(divergence(logits(a, [1, 1, 3]), logits(b, [1, 1, 3]), &Lengths::full(1, 1)));
        assert!((one(&p, &q) - golden).abs() < ROUNDING, "{}", one(&p, &q));
        assert_eq!(one(&p, &q), one(&q, &p));
        assert_eq!(one(&p, &p), 0.0);
        let padded = |pad: f32| [p, [pad; 3]].concat();
        let lengths = Lengths::new(vec![1], 2);
        let with_padding =
            scalar(divergence(logits(&padded(f32::NAN), [1, 2, 3]), logits(&[q, [7.0, 0.0, 1.0]].concat(), [1, 2, 3]), &lengths));
        assert!((with_padding - golden).abs() < ROUNDING, "{with_padding}");
        // A probability that underflows.
        assert!(one(&[0.0, -200.0, 0.0], &[0.0, 0.0, -200.0]).is_finite());
    }

    #[test]
    fn identification_counts_only_the_single_best() {
        let logits = Tensor::<2>::from_data(TensorData::new(vec![0.0, 1.0, 2.0, 2.0, 3.0, 0.0], [3, 2]), &Device::flex());
        let (loss, right) = identification(logits, 0);
        let expected = [1.0f64, 0.0, -3.0].map(|d| d.exp().ln_1p()).iter().sum::<f64>() / 3.0;
        assert!((f64::from(scalar(loss)) - expected).abs() < 1e-6);
        assert_eq!(right, 1);
    }
}
