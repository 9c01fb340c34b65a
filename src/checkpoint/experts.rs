//! Single experts out of a model's file, one at a time.

use burn::tensor::{Device, Tensor, TensorData};

use crate::checkpoint::ModelDirectory;
use crate::checkpoint::arrange;
use crate::checkpoint::convert::check;
use crate::checkpoint::factored::{self, ExpertSizes};
use crate::checkpoint::languages::WITHOUT_LANGUAGES;
use crate::checkpoint::own::Own;
use crate::checkpoint::storage::{SCALES, rescale};
use crate::checkpoint::tensor_file::{Dtype, TensorFile, View};
use crate::checkpoint::weights::{Fault, Source, fill, shapes};
use crate::error::{Error, Result};
use crate::model::asr::AsrModel;
use crate::model::config::FeedForwardConfig;
use crate::model::ops::experts::ExpertWeights;

/// The experts of a model where they lie: memory-mapped, in whatever storage.
#[derive(Debug)]
pub struct ExpertFile {
    file: TensorFile,
    /// Name that the parameters of each layer's experts begin with, and their sizes; `None` for a dense layer.
    layers: Vec<Option<(String, ExpertSizes)>>,
}

impl ExpertFile {
    /// The experts of `model`, checked once as a whole: later every one can be read.
    ///
    /// # Errors
    /// [`Error::Config`] for a model without experts, with stratified ones, with languages, or in a layout that is not ours; [`Error::Checkpoint`]
    pub fn open(model: &ModelDirectory) -> Result<Self> {
        let refuse = |reason: &str| Err(Error::config(&model.path, format!("--expert-memory: {reason}")));
        match &model.config.encoder.feed_forward {
            FeedForwardConfig::Dense | FeedForwardConfig::Memory { .. } => return refuse("this model has no experts"),
            FeedForwardConfig::Strata { .. } => {
                return refuse("a step asks for stratified experts one after the other: none are fetched ahead");
            }
            FeedForwardConfig::Experts { .. } | FeedForwardConfig::Adaptive { .. } | FeedForwardConfig::Sigma { .. } => {}
        }
        if model.config.encoder.languages.is_some() {
            return refuse(WITHOUT_LANGUAGES);
        }
        if model.weights.layout.is_some() {
            return refuse("the weights are not in our layout: `omniscribe model convert` writes them so");
        }
        let blank = AsrModel::blank(&model.config.encoder, model.tokenizer.vocab_size(), &Device::flex())?;
        let parameters = shapes(&blank);
        check(&parameters, &Own::new(&model.weights.file), model.weights.file.path())?;
        let mut layers = vec![None; model.config.encoder.n_layers];
        for (name, shape) in parameters {
            let layer = name.strip_prefix("encoder.blocks.").and_then(|rest| rest.split_once('.')?.0.parse::<usize>().ok());
            if let (Some(layer), Some(prefix), &[experts, d_model, d_ff]) = (layer, name.strip_suffix(".experts.up"), shape.as_slice()) {
                layers[layer] = Some((format!("{prefix}.experts"), ExpertSizes { experts, d_model, d_ff }));
            }
        }
        Ok(Self { file: model.weights.file.clone(), layers })
    }

    /// Sizes of the experts of every layer; `None` for a dense one.
    pub fn sizes(&self) -> Vec<Option<ExpertSizes>> {
        self.layers.iter().map(|layer| layer.as_ref().map(|(_, sizes)| *sizes)).collect()
    }

    /// Bytes of one expert of a layer in memory.
    pub fn bytes(&self, layer: usize) -> u64 {
        self.layers[layer].as_ref().map_or(0, |(_, s)| 4 * (2 * s.d_model * s.d_ff + s.d_ff + s.d_model) as u64)
    }

    /// Reads one expert onto `device`.
    ///
    /// # Panics
    /// If the layer is dense or the expert is not there: a bug of the caller. The file was checked when it was opened.
    pub fn read(&self, layer: usize, expert: usize, device: &Device) -> ExpertWeights {
        let (prefix, sizes) = self.layers[layer].as_ref().expect("a layer with experts");
        let [up, up_bias, down, down_bias] = self.values(prefix, *sizes, expert).unwrap_or_else(|fault| panic!("{}", fault.into_text()));
        let ExpertSizes { d_model, d_ff, .. } = *sizes;
        ExpertWeights {
            up: Tensor::from_data(TensorData::new(up, [1, d_model, d_ff]), device),
            up_bias: Tensor::from_data(TensorData::new(up_bias, [1, d_ff]), device),
            down: Tensor::from_data(TensorData::new(down, [1, d_ff, d_model]), device),
            down_bias: Tensor::from_data(TensorData::new(down_bias, [1, d_model]), device),
        }
    }

    fn values(&self, prefix: &str, sizes: ExpertSizes, e: usize) -> Result<[Vec<f32>; 4], Fault> {
        let down_bias = self.slice(&format!("{prefix}.down_bias"), e)?;
        if factored::find(&self.file, &format!("{prefix}.up")).is_some() {
            let [up, up_bias, down] = factored::restore_one(&Own::new(&self.file), prefix, sizes, e)?;
            return Ok([up, up_bias, down, down_bias]);
        }
        let part = |name: &str| self.slice(&format!("{prefix}.{name}"), e);
        Ok([part("up")?, part("up_bias")?, part("down")?, down_bias])
    }

    /// Part `e` of a tensor along its first dimension.
    fn slice(&self, name: &str, e: usize) -> Result<Vec<f32>, Fault> {
        let missing = || Fault::Missing(name.to_string());
        let view = part_of(self.file.get(name).ok_or_else(missing)?, e);
        let mut values = vec![0.0; view.count()];
        arrange::copy(&view, &mut values);
        if view.dtype == Dtype::I8 {
            let scales = part_of(self.file.get(&format!("{name}{SCALES}")).ok_or_else(missing)?, e);
            let mut factors = vec![0.0; scales.count()];
            arrange::copy(&scales, &mut factors);
            rescale(&mut values, &factors, view.shape);
        }
        Ok(values)
    }
}

/// Part `e` along the first dimension.
fn part_of(view: View<'_>, e: usize) -> View<'_> {
    let bytes = view.bytes.len() / view.shape[0].max(1);
    View { dtype: view.dtype, shape: &view.shape[1..], bytes: &view.bytes[e * bytes..(e + 1) * bytes] }
}

/// Builds a model without its experts' weights.
///
/// # Errors
/// [`Error::Checkpoint`]: the weights do not fit the configuration.
pub fn without_experts(model: &ModelDirectory, device: &Device) -> Result<AsrModel> {
    let source = WithoutExperts(Own::new(&model.weights.file));
    fill(AsrModel::blank(&model.config.encoder, model.tokenizer.vocab_size(), device)?, &source, model.weights.file.path())
}

struct WithoutExperts<'a>(Own<'a>);

impl Source for WithoutExperts<'_> {
    fn take(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Fault> {
        self.0.take(name, shape)
    }

    fn unused(&self) -> Vec<String> {
        self.0.unused().into_iter().filter(|name| !self.leaves(name)).collect()
    }

    fn leaves(&self, name: &str) -> bool {
        name.contains(".feed_forward.Experts.experts.")
    }
}
