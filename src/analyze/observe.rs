//! What every neuron of the feed-forwards does in some steps of recordings.

use std::cell::RefCell;
use std::rc::Rc;

use burn::tensor::{Device, Tensor, TensorData, activation};

use crate::analyze::functions::{StepLabel, inside};
use crate::analyze::noise::with_white_noise;
use crate::audio::vad::{VadOptions, speech};
use crate::audio::{self, Limits};
use crate::checkpoint::ModelDirectory;
use crate::decode::align::{Matrix, Options, align};
use crate::error::{Error, Result};
use crate::eval::corpora::{Labels, Utterance};
use crate::features::{FrontEnd, LogMel};
use crate::kernel::activation::Activation;
use crate::kernel::gemm::Precision;
use crate::model::asr::AsrModel;
use crate::model::feed_forward::FeedForward;
use crate::model::lengths::Lengths;
use crate::model::moe::router::Routing;
use crate::model::pass::{Pass, Probe};
use crate::text::Tokenizer;
use crate::text::alignable::alignable;
use crate::units::SampleRate;

/// A recording, ready for the encoder.
#[derive(Debug, Clone)]
pub struct Recording {
    /// Features.
    pub features: LogMel,
    /// Stretches of speech, in samples.
    pub speech: Vec<std::ops::Range<usize>>,
    /// What is said.
    pub reference: String,
    /// Its set.
    pub set: String,
    /// Who speaks, and how, where that is known.
    pub spoken: Labels,
    /// Whether noise was added.
    pub noisy: bool,
}

/// The feed-forward of a layer as plain matrices.
#[derive(Debug, Clone)]
pub struct LayerWeights {
    /// Experts; 1 for a dense layer.
    pub experts: usize,
    /// Neurons of each.
    pub d_ff: usize,
    /// `[experts, d_model, d_ff]`
    pub up: Vec<f32>,
    /// `[experts, d_ff]`
    pub bias: Vec<f32>,
}

/// Some steps of recordings.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// What each step is.
    pub labels: Vec<StepLabel>,
    /// The recording it is of.
    pub recording: Vec<usize>,
    /// Of every layer `[steps, experts * d_ff]`: neurons after their activation, 0 in experts that the step does not go to.
    pub neurons: Vec<Vec<f32>>,
}

/// Reads utterances; those that are cut out of a longer file are cut. With `noise`, dB, every second gets white noise so far below it.
///
/// # Errors
/// Whatever reading audio gives.
pub fn recordings(model: &ModelDirectory, utterances: &[Utterance], noise: Option<f64>) -> Result<Vec<Recording>> {
    let front_end = FrontEnd::new(model.config.front_end.clone())?;
    let rate = SampleRate::HZ_16000;
    let mut all = Vec::new();
    for (number, utterance) in utterances.iter().enumerate() {
        let wave = audio::read_at(&utterance.audio, rate, &Limits::default())?;
        let end = utterance.end.map_or(wave.samples.len(), |end| rate.samples(end).min(wave.samples.len()));
        let samples = &wave.samples[rate.samples(utterance.start).min(end)..end];
        let noisy = noise.filter(|_| number % 2 == 1).map(|snr_db| with_white_noise(samples, snr_db, number as u64));
        let mut features = front_end.compute(noisy.as_deref().unwrap_or(samples));
        features.truncate(front_end.valid_frames(samples.len()));
        if features.frames > 0 {
            let set = utterance.set.clone().unwrap_or_default();
            let stretches = speech(samples, &VadOptions::default())?;
            let (reference, spoken) = (utterance.reference.clone(), utterance.labels.clone());
            all.push(Recording { features, speech: stretches, reference, set, spoken, noisy: noisy.is_some() });
        }
    }
    if all.is_empty() {
        return Err(Error::config("analyze modularity", "no recording has anything to hear"));
    }
    Ok(all)
}

/// The feed-forwards of all layers.
///
/// # Errors
/// [`Error::Config`] for kinds without neurons that can be grouped: memories, strata.
pub fn layer_weights(model: &AsrModel) -> Result<Vec<LayerWeights>> {
    let host = |data: TensorData| data.try_to_vec::<f32>().map_err(|e| Error::config("weights", e.to_string()));
    let mut layers = Vec::new();
    for block in &model.encoder.blocks {
        layers.push(match &block.feed_forward {
            FeedForward::Dense(dense) => LayerWeights {
                experts: 1,
                d_ff: dense.up.dims()[1],
                up: host(dense.up.val().into_data())?,
                bias: host(dense.up_bias.val().into_data())?,
            },
            FeedForward::Experts(layer) => LayerWeights {
                experts: layer.experts.up.dims()[0],
                d_ff: layer.experts.up.dims()[2],
                up: host(layer.experts.up.val().into_data())?,
                bias: host(layer.experts.up_bias.val().into_data())?,
            },
            FeedForward::Memory(_) | FeedForward::Strata(_) => {
                let reason = "modularity is told of dense feed-forwards and of experts behind one router, not of memories and strata";
                return Err(Error::config("encoder.feed_forward", reason));
            }
        });
    }
    Ok(layers)
}

/// Natural log-probabilities `[steps, vocab]` of a recording.
pub fn log_probs(model: &AsrModel, features: &LogMel, probe: Option<Rc<dyn Probe>>, device: &Device) -> Vec<f32> {
    let input = TensorData::new(features.values.clone(), [1, features.frames, features.mels]);
    let pass = Pass::inference(Precision::F32);
    let pass = match probe {
        Some(probe) => pass.with_probe(probe),
        None => pass,
    };
    let output = model.forward(Tensor::from_data(input, device), &Lengths::full(1, features.frames), &pass);
    activation::log_softmax(output.logits, 2).into_data().try_to_vec().expect("log-probabilities are f32")
}

/// Looks at every `stride`-th step of the recordings.
///
/// # Errors
/// [`Error::Tokenizer`]; [`Error::Config`] of the aligner
pub fn observe(
    model: &AsrModel,
    layers: &[LayerWeights],
    tokenizer: &Tokenizer,
    recordings: &[Recording],
    step_samples: usize,
    stride: usize,
    device: &Device,
) -> Result<Observed> {
    let activation: Activation = model.encoder.config().activation.into();
    let look = Rc::new(Look {
        layers: layers.to_vec(),
        activation,
        wanted: RefCell::default(),
        neurons: RefCell::new(vec![Vec::new(); layers.len()]),
    });
    let separator = tokenizer.encode(" ").ok().filter(|tokens| tokens.len() == 1).map(|tokens| tokens[0]);
    let vocab = model.vocab();
    let mut observed = Observed::default();
    let mut passed = 0;
    for (number, recording) in recordings.iter().enumerate() {
        let steps = model.encoder.config().subsampling.output_len(recording.features.frames);
        let wanted: Vec<usize> = (0..steps).filter(|t| (passed + t).is_multiple_of(stride)).collect();
        passed += steps;
        look.wanted.replace(wanted.clone());
        let probs = log_probs(model, &recording.features, Some(look.clone()), device);
        let spoken = alignable(&recording.reference).spoken;
        let spelt = spoken.iter().map(|word| tokenizer.encode(word)).collect::<Result<Vec<_>>>()?;
        let path = match spelt.is_empty() {
            true => vec![tokenizer.blank(); steps],
            false => align(&mut Matrix::new(&probs, vocab), &spelt, &Options::new(tokenizer.blank(), separator))?.path,
        };
        for t in wanted {
            let piece = (path[t] != tokenizer.blank()).then(|| match Some(path[t]) == separator {
                true => " ".to_string(),
                false => tokenizer.decode(&[path[t]]),
            });
            let speech = inside(&recording.speech, t * step_samples + step_samples / 2);
            let (set, spoken, noisy) = (recording.set.clone(), recording.spoken.clone(), recording.noisy);
            observed.labels.push(StepLabel { piece, speech, set, spoken, noisy });
            observed.recording.push(number);
        }
    }
    observed.neurons = look.neurons.take();
    Ok(observed)
}

/// Keeps what neurons do.
#[derive(Debug)]
struct Look {
    layers: Vec<LayerWeights>,
    activation: Activation,
    /// Rows of the coming pass to look at.
    wanted: RefCell<Vec<usize>>,
    neurons: RefCell<Vec<Vec<f32>>>,
}

impl Probe for Look {
    fn see(&self, layer: usize, x: &Tensor<2>, routing: Option<&Routing>) {
        let LayerWeights { experts, d_ff, up, bias } = &self.layers[layer];
        let [_, d_model] = x.dims();
        let data = x.clone().detach().into_data();
        let rows = data.as_slice::<f32>().expect("states are f32");
        let chosen = routing.map(|r| r.grouping.experts_of_rows());
        let mut kept = self.neurons.borrow_mut();
        for &row in self.wanted.borrow().iter() {
            let start = kept[layer].len();
            kept[layer].resize(start + experts * d_ff, 0.0);
            let x = &rows[row * d_model..(row + 1) * d_model];
            for &e in chosen.as_ref().map_or(&vec![0], |c| &c[row]) {
                let hidden = &mut kept[layer][start + e * d_ff..start + (e + 1) * d_ff];
                hidden.copy_from_slice(&bias[e * d_ff..(e + 1) * d_ff]);
                for (v, weights) in x.iter().zip(up[e * d_model * d_ff..].chunks_exact(*d_ff)) {
                    hidden.iter_mut().zip(weights).for_each(|(h, w)| *h += v * w);
                }
                self.activation.forward_in_place(hidden);
            }
        }
    }
}
