//! What the pipeline asks of any model.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::kernel::gemm::Precision;
use crate::model::arithmetic::Arithmetic;
use crate::model::asr::{AsrModel, AsrOutput};
use crate::model::config::LanguageConfig;
use crate::model::lengths::Lengths;
use crate::model::pass::Pass;
use crate::model::wave::WaveModel;

/// Features to CTC logits.
pub trait Recognizer {
    /// Classes of the CTC head, the blank included.
    fn vocab(&self) -> usize;

    /// Runs the model on `[batch, frames, bands]`.
    fn recognize(&self, features: Tensor<3>, lengths: &Lengths, pass: &Pass) -> AsrOutput;
}

impl Recognizer for AsrModel {
    fn vocab(&self) -> usize {
        self.vocab()
    }

    fn recognize(&self, features: Tensor<3>, lengths: &Lengths, pass: &Pass) -> AsrOutput {
        self.forward(features, lengths, pass)
    }
}

/// A model of either kind.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one of it, not many")]
pub enum AnyModel {
    /// Hears log-mel features.
    Spectral(AsrModel),
    /// Hears samples.
    Wave(WaveModel),
}

impl AnyModel {
    /// The modules for languages, where it has some.
    pub fn languages(&self) -> Option<&LanguageConfig> {
        match self {
            Self::Spectral(model) => model.encoder.config().languages.as_ref(),
            Self::Wave(_) => None,
        }
    }

    /// The model with the module of a slot (`None`: the shared one) in its weights and no modules any more.
    pub fn folded(self, slot: Option<usize>) -> Self {
        match self {
            Self::Spectral(model) => Self::Spectral(model.folded(slot)),
            Self::Wave(model) => Self::Wave(model),
        }
    }

    /// The model with its weights packed for inference in `precision`: see [`Arithmetic::pack`].
    pub fn packed(self, precision: Precision, device: &Device) -> (Self, Arithmetic) {
        match self {
            Self::Spectral(model) => {
                let (model, arithmetic) = Arithmetic::pack(precision, model, device);
                (Self::Spectral(model), arithmetic)
            }
            Self::Wave(model) => {
                let (model, arithmetic) = Arithmetic::pack(precision, model, device);
                (Self::Wave(model), arithmetic)
            }
        }
    }

    /// Parameters, and how many of them work on one step.
    pub fn parameters(&self) -> (u64, u64) {
        match self {
            Self::Spectral(model) => {
                let all = model.num_params() as u64;
                (all, all - model.encoder.idle_params() as u64)
            }
            Self::Wave(model) => (model.num_params() as u64, model.num_params() as u64),
        }
    }
}

impl Recognizer for AnyModel {
    fn vocab(&self) -> usize {
        match self {
            Self::Spectral(model) => model.vocab(),
            Self::Wave(model) => model.vocab(),
        }
    }

    fn recognize(&self, features: Tensor<3>, lengths: &Lengths, pass: &Pass) -> AsrOutput {
        match self {
            Self::Spectral(model) => model.forward(features, lengths, pass),
            Self::Wave(model) => model.forward(features, lengths, pass),
        }
    }
}
