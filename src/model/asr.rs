//! The recogniser: encoder, CTC head, and the middle heads of training.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor, TensorData, activation};

use crate::error::Result;
use crate::model::attention::new_linear;
use crate::model::config::{EncoderConfig, IntermediateConfig};
use crate::model::encoder::Encoder;
use crate::model::feed_forward::Routed;
use crate::model::init::Init;
use crate::model::lengths::Lengths;
use crate::model::ops::linear::linear;
use crate::model::pass::Pass;

/// Feature frames to CTC logits.
#[derive(Module, Debug)]
pub struct AsrModel {
    /// The encoder.
    pub encoder: Encoder,
    /// CTC head `[d_model, vocab]`, used after the last layer and after the middle ones.
    pub head: Linear,
    /// Middle posteriors back into the stream, `[vocab, d_model]`, where the encoder is self-conditioned.
    pub conditioning: Option<Linear>,
    /// Which module suits an utterance, from the mean of its states, `[d_model, modules]`.
    pub identification: Option<Linear>,
    #[module(skip)]
    intermediate: Option<IntermediateConfig>,
}

/// Output of a forward pass.
#[derive(Debug)]
pub struct AsrOutput {
    /// `[batch, steps, vocab]`, raw.
    pub logits: Tensor<3>,
    /// Valid steps.
    pub lengths: Lengths,
    /// Logits of the middle heads, same shape.
    pub intermediate: Vec<Tensor<3>>,
    /// Routing of every layer, `None` for dense ones.
    pub routed: Vec<Option<Routed>>,
    /// Logits over modules, `[batch, modules]`, where the encoder has them.
    pub languages: Option<Tensor<2>>,
}

/// Whether the parameter `name` is one that languages add.
pub fn is_of_languages(name: &str) -> bool {
    name.contains(".languages.") || name.starts_with("identification.")
}

impl AsrModel {
    /// A model with fresh weights on `device`; equal seeds give equal weights.
    ///
    /// # Errors
    /// [`crate::Error::Config`] if `config` breaks a rule.
    pub fn new(config: &EncoderConfig, vocab: usize, seed: u64, device: &Device) -> Result<Self> {
        Self::with_init(config, vocab, &mut Init::new(device, seed))
    }

    /// A model whose weights are not there yet: for loading.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn blank(config: &EncoderConfig, vocab: usize, device: &Device) -> Result<Self> {
        Self::with_init(config, vocab, &mut Init::blank(device))
    }

    fn with_init(config: &EncoderConfig, vocab: usize, init: &mut Init) -> Result<Self> {
        let encoder = Encoder::new(config, init)?;
        let head = new_linear(config.d_model, vocab, true, init);
        let conditioned = config.intermediate.as_ref().is_some_and(|i| i.self_condition);
        let conditioning = conditioned.then(|| new_linear(vocab, config.d_model, true, init));
        // Last, so that the other weights do not depend on whether there are languages.
        let encoder = encoder.with_languages(init);
        let identification = config.languages.as_ref().map(|l| new_linear(config.d_model, l.modules.len(), true, init));
        Ok(Self { encoder, head, conditioning, identification, intermediate: config.intermediate.clone() })
    }

    /// See [`Encoder::with_exchanged_experts`].
    pub fn with_exchanged_experts(self, layer: Option<usize>) -> Self {
        Self { encoder: self.encoder.with_exchanged_experts(layer), ..self }
    }

    /// The model of one module (`None`: the shared one), without modules: the output is that of a pass with its slot.
    pub fn folded(self, slot: Option<usize>) -> Self {
        Self { encoder: self.encoder.folded(slot), identification: None, ..self }
    }

    /// Logits over modules from the mean state of each row.
    ///
    /// # Shapes
    /// - `states`: `[batch, steps, d_model]`
    /// - returns `[batch, modules]`; `None` without modules
    pub(crate) fn identify(&self, states: &Tensor<3>, lengths: &Lengths, pass: &Pass) -> Option<Tensor<2>> {
        let head = self.identification.as_ref()?;
        let device = states.device();
        let sum = lengths.clear_padding(states.clone()).sum_dim(1).squeeze_dim::<2>(1);
        let shares: Vec<f32> = lengths.valid().iter().map(|&n| 1.0 / n.max(1) as f32).collect();
        let mean = sum * Tensor::<2>::from_data(TensorData::new(shares, [lengths.batch(), 1]), &device);
        Some(linear(mean, head, pass))
    }

    /// Classes of the CTC head, the blank included.
    pub fn vocab(&self) -> usize {
        self.head.weight.dims()[1]
    }

    /// What goes on after a layer (counted from 1), and the logits of its middle head, where it has one.
    pub(crate) fn after_layer(&self, layer: usize, x: Tensor<3>, pass: &Pass) -> (Tensor<3>, Option<Tensor<3>>) {
        if !self.intermediate.as_ref().is_some_and(|i| i.layers.contains(&layer)) {
            return (x, None);
        }
        let logits = self.logits(self.encoder.normalized(x.clone()), pass);
        let x = match &self.conditioning {
            Some(back) => x + linear(activation::softmax(logits.clone(), 2), back, pass),
            None => x,
        };
        (x, Some(logits))
    }

    /// The CTC head.
    pub(crate) fn logits(&self, states: Tensor<3>, pass: &Pass) -> Tensor<3> {
        linear(states, &self.head, pass)
    }

    /// Runs the model.
    ///
    /// # Shapes
    /// - `features`: `[batch, frames, mels]`
    /// - `lengths`: valid frames
    pub fn forward(&self, features: Tensor<3>, lengths: &Lengths, pass: &Pass) -> AsrOutput {
        let mut intermediate = Vec::new();
        let output = self.encoder.forward_with(features, lengths, pass, |layer, x| {
            let (x, logits) = self.after_layer(layer, x, pass);
            intermediate.extend(logits);
            x
        });
        let languages = self.identify(&output.states, &output.lengths, pass);
        AsrOutput { logits: self.logits(output.states, pass), lengths: output.lengths, intermediate, routed: output.routed, languages }
    }
}
