//! Guesses from what the encoder reads which experts each layer will need.

use std::collections::HashMap;
use std::path::Path;

use burn::tensor::Tensor;
use nalgebra::{DMatrix, DMatrixView};
use serde::{Deserialize, Serialize};

use crate::checkpoint::ModelDirectory;
use crate::checkpoint::safetensors_file::{self, HostTensor, HostTensors, Storage};
use crate::checkpoint::tensor_file::TensorFile;
use crate::error::{Error, Result};
use crate::kernel::rng::SplitMix;
use crate::model::config::FeedForwardConfig;
use crate::model::lengths::Lengths;
use crate::offload::cache::Key;
use crate::offload::loss::softmax;

/// Its file in a model folder.
pub const PREDICTOR: &str = "predictor.safetensors";
/// Version of that file.
const VERSION: &str = "1";
/// An expert is fetched ahead if so many steps of a pass are expected to go to it.
const LEAST_STEPS: f32 = 0.5;

/// How many guesses are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Heads {
    /// One for all layers: a shared router and a stream that changes little suggest it.
    One,
    /// One for each layer.
    Each,
}

/// What a predictor is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Width of the stream.
    pub d_model: usize,
    /// Steps it sees: the step itself and those before it. None after it, so that it serves streams, too.
    pub context: usize,
    /// Width of its hidden layer.
    pub hidden: usize,
    /// How many guesses are made.
    pub heads: Heads,
    /// Layers with experts (from 0), in order.
    pub layers: Vec<usize>,
    /// Experts of each of them.
    pub experts: usize,
    /// Experts that a step goes to.
    pub top_k: usize,
}

/// `relu(window W1 + b1) W2 + b2`: logits over experts for every step.
///
/// # Reference
/// SiDA-MoE, arXiv:2310.18859. Differs: a causal window and one hidden layer in the place of an LSTM and attention over the whole sequence, so that
/// a stream can use it.
#[derive(Debug, Clone, PartialEq)]
pub struct Predictor {
    /// What it is for.
    pub shape: Shape,
    /// `[context * d_model, hidden]`, `[hidden]`, `[hidden, heads * experts]`, `[heads * experts]`, row-major.
    pub weights: [Vec<f32>; 4],
}

impl Shape {
    /// What fits `model`.
    ///
    /// # Errors
    /// [`Error::Config`] for a model without experts, or whose layers have different numbers of them.
    pub fn of(model: &ModelDirectory, heads: Heads, context: usize, hidden: usize) -> Result<Self> {
        let encoder = &model.config.encoder;
        let refuse = |what: &str| Err(Error::config(&model.path, format!("predictor: {what}")));
        let Some(groups) = encoder.feed_forward.groups() else { return refuse("this model has no experts that could be fetched") };
        let layers: Vec<(usize, usize)> =
            groups.by_layer().into_iter().enumerate().filter(|(_, (_, n))| *n > 1).map(|(i, (_, n))| (i, n)).collect();
        let Some(&(_, experts)) = layers.first() else { return refuse("every layer has one expert") };
        if layers.iter().any(|(_, n)| *n != experts) {
            return refuse("layers have different numbers of experts");
        }
        let top_k = match encoder.feed_forward {
            FeedForwardConfig::Sigma { top_k, .. } => top_k,
            _ => 1,
        };
        Ok(Self { d_model: encoder.d_model, context, hidden, heads, layers: layers.into_iter().map(|l| l.0).collect(), experts, top_k })
    }

    /// Guesses made for a step.
    pub fn guesses(&self) -> usize {
        match self.heads {
            Heads::One => 1,
            Heads::Each => self.layers.len(),
        }
    }

    /// The guess that counts for MoE layer `i`.
    pub fn guess_of(&self, i: usize) -> usize {
        match self.heads {
            Heads::One => 0,
            Heads::Each => i,
        }
    }

    /// Shapes of the weights.
    pub fn sizes(&self) -> [Vec<usize>; 4] {
        let out = self.guesses() * self.experts;
        [vec![self.context * self.d_model, self.hidden], vec![self.hidden], vec![self.hidden, out], vec![out]]
    }
}

/// What each step of an utterance sees: itself, then the steps before it, zeros before the first.
///
/// # Shapes
/// `x`: `[steps, d_model]`; returns `[steps, context * d_model]`
pub fn windows(x: &[f32], d_model: usize, context: usize) -> Vec<f32> {
    let steps = x.len() / d_model;
    let mut all = vec![0.0; steps * context * d_model];
    for (step, window) in all.chunks_exact_mut(context * d_model).enumerate() {
        for (back, place) in window.chunks_exact_mut(d_model).enumerate().take(step + 1) {
            place.copy_from_slice(&x[(step - back) * d_model..(step - back + 1) * d_model]);
        }
    }
    all
}

/// `a b + bias`, all row-major; `a`: `[rows, inner]`, `b`: `[inner, columns]`.
pub(super) fn affine(a: &[f32], b: &[f32], bias: &[f32], inner: usize) -> Vec<f32> {
    let (rows, columns) = (a.len() / inner, bias.len());
    // Row-major matrices are column-major ones transposed: (a b)^T = b^T a^T.
    let (a, b) = (DMatrixView::from_slice(a, inner, rows), DMatrixView::from_slice(b, columns, inner));
    let mut out = DMatrix::from_fn(columns, rows, |column, _| bias[column]);
    out.gemm(1.0, &b, &a, 1.0);
    out.as_slice().to_vec()
}

impl Predictor {
    /// A predictor that knows nothing yet.
    pub fn new(shape: Shape, seed: u64) -> Self {
        let mut rng = SplitMix::new(seed);
        let weights = shape.sizes().map(|sizes| match sizes.as_slice() {
            [fan_in, columns] => {
                let bound = 1.0 / (*fan_in as f32).sqrt();
                (0..fan_in * columns).map(|_| (2.0 * rng.next_f32() - 1.0) * bound).collect()
            }
            other => vec![0.0; other.iter().product()],
        });
        Self { shape, weights }
    }

    /// Hidden layer `[rows, hidden]` after its ReLU, and logits `[rows, guesses * experts]`, of windows.
    pub fn forward(&self, windows: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let [w1, b1, w2, b2] = &self.weights;
        let mut hidden = affine(windows, w1, b1, self.shape.context * self.shape.d_model);
        hidden.iter_mut().for_each(|v| *v = v.max(0.0));
        let logits = affine(&hidden, w2, b2, self.shape.hidden);
        (hidden, logits)
    }

    /// Experts that a pass over `x` will need, layer after layer, within a layer those with most steps first.
    ///
    /// # Shapes
    /// `x`: `[batch, steps, d_model]`
    pub fn plan(&self, x: &Tensor<3>, lengths: &Lengths) -> Vec<Key> {
        let [_, steps, d_model] = x.dims();
        let data = x.clone().detach().into_data();
        let values = data.as_slice::<f32>().expect("states are f32");
        let mut expected = vec![0.0f32; self.shape.guesses() * self.shape.experts];
        for (utterance, valid) in values.chunks_exact((steps * d_model).max(1)).zip(lengths.valid()) {
            let (_, logits) = self.forward(&windows(&utterance[..valid * d_model], d_model, self.shape.context));
            for guess in logits.chunks_exact(expected.len()) {
                for (sum, logits) in expected.chunks_exact_mut(self.shape.experts).zip(guess.chunks_exact(self.shape.experts)) {
                    sum.iter_mut().zip(softmax(logits)).for_each(|(s, p)| *s += p * self.shape.top_k as f32);
                }
            }
        }
        let mut plan = Vec::new();
        for (i, &layer) in self.shape.layers.iter().enumerate() {
            let of_layer = &expected[self.shape.guess_of(i) * self.shape.experts..][..self.shape.experts];
            let mut experts: Vec<usize> = (0..self.shape.experts).filter(|e| of_layer[*e] >= LEAST_STEPS).collect();
            experts.sort_by(|&a, &b| of_layer[b].total_cmp(&of_layer[a]));
            plan.extend(experts.into_iter().map(|e| (layer, e)));
        }
        plan
    }

    /// Writes it.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn save(&self, path: &Path) -> Result<()> {
        let names = ["hidden.weight", "hidden.bias", "head.weight", "head.bias"];
        let tensors: HostTensors = (names.iter().zip(self.shape.sizes()).zip(&self.weights))
            .map(|((name, shape), values)| (name.to_string(), HostTensor { shape, values: values.clone() }))
            .collect();
        let shape = serde_json::to_string(&self.shape).map_err(|e| Error::config(path, e.to_string()))?;
        let metadata = HashMap::from([("predictor".to_string(), VERSION.to_string()), ("shape".to_string(), shape)]);
        safetensors_file::save(path, &tensors, Storage::F32, metadata)
    }

    /// Reads the predictor of `model`.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Checkpoint`]; [`Error::Config`] if it is another version's, no predictor, or that of another model.
    pub fn open(path: &Path, model: &ModelDirectory) -> Result<Self> {
        if !path.exists() {
            let reason = "no predictor of experts: `omniscribe offload train` makes one, `--expert-prefetch none` does without";
            return Err(Error::config(path, reason));
        }
        let refuse = |reason: String| Error::config(path, reason);
        let metadata = TensorFile::open(path)?.metadata().clone();
        let (version, shape) = (metadata.get("predictor"), metadata.get("shape"));
        let (Some(version), Some(shape)) = (version, shape) else { return Err(refuse("not a predictor of experts".into())) };
        if version != VERSION {
            return Err(refuse(format!("a predictor of version {version}, this build reads {VERSION}")));
        }
        let shape: Shape = serde_json::from_str(shape).map_err(|e| refuse(e.to_string()))?;
        let wanted = Shape::of(model, shape.heads, shape.context, shape.hidden)?;
        if shape != wanted || shape.context == 0 || shape.hidden == 0 {
            return Err(refuse(format!("made for another model: {shape:?}, wanted {wanted:?}")));
        }
        let (mut tensors, _) = safetensors_file::load(path)?;
        let mut take = |name: &str, shape: &[usize]| match tensors.remove(name) {
            Some(tensor) if tensor.shape == shape && tensor.values.iter().all(|v| v.is_finite()) => Ok(tensor.values),
            _ => Err(refuse(format!("{name}: missing, not finite, or not {shape:?}"))),
        };
        let [w1, b1, w2, b2] = shape.sizes();
        let weights = [take("hidden.weight", &w1)?, take("hidden.bias", &b1)?, take("head.weight", &w2)?, take("head.bias", &b2)?];
        Ok(Self { shape, weights })
    }
}
