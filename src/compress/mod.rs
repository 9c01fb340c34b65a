//! Experts made smaller: what they share is stored once, and of what each adds to it only the most.
//!
//! ```text
//! experts of a layer --assignment--> rows in one order --barycenter--> centre --residual--> pruned or low rank --checkpoint::factored--> file
//! ```
//!
//! # Reference
//! ResMoE, arXiv:2503.06881. Row `i` of a design matrix is hidden neuron `i` of an expert: its input weights, its bias (ours: the paper's experts
//! have none), its output weights. The output bias of every expert is kept as it is. Experts are restored when the model is loaded: running the
//! centre and the residual side by side and adding their outputs, as the authors' code does, is another function for any activation but the
//! identity.

pub mod assignment;
pub mod barycenter;
pub mod fidelity;
pub mod residual;

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::checkpoint::ModelDirectory;
use crate::checkpoint::convert::{check, write_factored};
use crate::checkpoint::factored::{self, ExpertSizes, Factored, Storage};
use crate::checkpoint::tensor_file::TensorFile;
use crate::checkpoint::weights::Fault;
use crate::error::{Error, Result};

/// What experts are taken apart into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Barycenter of the experts with their neurons aligned, and residuals (ResMoE).
    Resmoe,
    /// Mean of the experts with their neurons as they stand, and residuals: what alignment is worth.
    Average,
    /// The weights themselves, the largest of each expert kept: what a centre is worth.
    Magnitude,
}

/// How residuals are made smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResidualKind {
    /// The largest entries stay.
    Prune,
    /// The largest singular values stay.
    Svd,
}

/// What is done to a model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// What experts are taken apart into.
    pub method: Method,
    /// How residuals are made smaller.
    pub residual: ResidualKind,
    /// Share of the parameters of each expert that its residual keeps, 0 to 1. The centre comes on top of it.
    pub keep: f64,
    /// How weights are stored; residuals are taken from the centre as it is stored.
    pub storage: Storage,
}

/// What became of one layer's experts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerReport {
    /// Name their parameters begin with.
    pub name: String,
    /// Experts.
    pub experts: usize,
    /// Rounds of aligning and averaging until nothing moved.
    pub rounds: usize,
    /// Squared distance of the experts from their centre, over their squared norm; 1 without a centre.
    pub spread: f64,
    /// Squared error of the restored experts, over their squared norm, before what is kept is rounded for the file.
    pub error: f64,
}

/// What became of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was done.
    pub plan: Plan,
    /// Layer by layer.
    pub layers: Vec<LayerReport>,
    /// Bytes of all experts' matrices and biases in the same storage, uncompressed.
    pub whole_bytes: u64,
    /// Bytes of everything that stands for them now.
    pub bytes: Bytes,
    /// Bytes of the weights file.
    pub file_bytes: u64,
}

/// Where the bytes of compressed experts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Bytes {
    /// Centres.
    pub centre: u64,
    /// Kept values or low-rank factors, with their scales.
    pub residual: u64,
    /// Which values are kept.
    pub index: u64,
    /// Output biases.
    pub bias: u64,
}

impl Bytes {
    /// All of them.
    pub fn total(self) -> u64 {
        self.centre + self.residual + self.index + self.bias
    }
}

impl Plan {
    /// # Errors
    /// [`Error::Config`] naming field, value and rule.
    pub fn validate(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.keep) {
            return Err(Error::config("compress", format!("keep = {}: must lie in 0..=1", self.keep)));
        }
        if self.method == Method::Magnitude && self.residual == ResidualKind::Svd {
            return Err(Error::config("compress", "residual = svd: plain magnitude pruning has no residual to take apart"));
        }
        Ok(())
    }

    /// The experts of one layer, taken apart. `designs`: `[experts][d_ff * width]`.
    pub fn apply(&self, name: &str, designs: &[Vec<f32>], d_model: usize) -> (Factored, LayerReport) {
        let sizes = ExpertSizes { experts: designs.len(), d_model, d_ff: designs[0].len() / (2 * d_model + 1) };
        let (d_ff, width) = (sizes.d_ff, sizes.width());
        let (centre, orders, rounds) = match self.method {
            Method::Magnitude => (None, vec![(0..d_ff).collect(); designs.len()], 0),
            Method::Average => (Some(barycenter::mean(designs)), vec![(0..d_ff).collect(); designs.len()], 0),
            Method::Resmoe => {
                let found = barycenter::barycenter(designs, width);
                (Some(found.centre), found.orders, found.rounds)
            }
        };
        let centre = centre.map(|centre| self.as_stored(&centre, d_model));
        let aligned: Vec<Vec<f32>> = designs.iter().zip(&orders).map(|(d, order)| barycenter::ordered(d, order, width)).collect();
        let subtract = |design: &Vec<f32>| match &centre {
            Some(centre) => design.iter().zip(centre).map(|(v, c)| v - c).collect(),
            None => design.clone(),
        };
        let residuals: Vec<Vec<f32>> = aligned.iter().map(subtract).collect();
        let square = |values: &[f32]| values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
        let norm = aligned.iter().map(|a| square(a)).sum::<f64>().max(f64::MIN_POSITIVE);
        let spread = residuals.iter().map(|r| square(r)).sum::<f64>() / norm;
        let factored = Factored { sizes, centre, residual: residual::compress(self.residual, self.keep, &residuals, sizes) };
        let off = |(e, design): (usize, &Vec<f32>)| {
            let restored = factored.restored(e);
            design.iter().zip(&restored).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>()
        };
        let error = aligned.iter().enumerate().map(off).sum::<f64>() / norm;
        let report = LayerReport { name: name.into(), experts: designs.len(), rounds, spread, error };
        (factored, report)
    }

    /// The centre as it is read back from the file.
    fn as_stored(&self, centre: &[f32], d_model: usize) -> Vec<f32> {
        let [up, bias, down] = factored::split(centre, d_model);
        let d_ff = bias.len();
        let up = factored::rounded(&up, &[d_model, d_ff], self.storage);
        let down = factored::rounded(&down, &[d_ff, d_model], self.storage);
        factored::join(&up, &factored::rounded(&bias, &[d_ff], self.storage), &down, d_model)
    }
}

/// Compresses the experts of a model and writes it to `folder`.
///
/// # Errors
/// [`Error::Config`] for a plan that breaks a rule and for a model without experts; [`Error::Checkpoint`], [`Error::Io`]
pub fn compress(model: &ModelDirectory, plan: &Plan, folder: &Path) -> Result<Report> {
    plan.validate()?;
    // Its experts would come back with their hidden units in another order than that of the changes.
    model.without_languages("compress")?;
    let opened = crate::checkpoint::Opened::open(&model.path)?;
    let parameters = crate::checkpoint::convert::parameters(&opened)?;
    let source = model.weights.source();
    check(&parameters, &*source, model.weights.file.path())?;
    let layers = parameters.iter().filter(|(name, shape)| name.ends_with(".experts.up") && shape.len() == 3 && shape[0] > 1);
    let mut taken = Vec::new();
    for (name, shape) in layers {
        let prefix = name.trim_end_matches(".up").to_string();
        let (experts, d_model, d_ff) = (shape[0], shape[1], shape[2]);
        let broken = |fault: Fault| Error::config(model.weights.file.path(), fault.into_text());
        let up = source.take(name, shape).map_err(broken)?;
        let up_bias = source.take(&format!("{prefix}.up_bias"), &[experts, d_ff]).map_err(broken)?;
        let down = source.take(&format!("{prefix}.down"), &[experts, d_ff, d_model]).map_err(broken)?;
        let matrix = d_model * d_ff;
        let part = |e: usize| {
            let bias = &up_bias[e * d_ff..(e + 1) * d_ff];
            factored::join(&up[e * matrix..(e + 1) * matrix], bias, &down[e * matrix..(e + 1) * matrix], d_model)
        };
        taken.push((prefix, (0..experts).map(part).collect::<Vec<_>>(), d_model));
    }
    if taken.is_empty() {
        return Err(Error::config(&model.path, "this model has no layer with several experts: there is nothing that they share"));
    }
    let done: Vec<(Factored, LayerReport)> =
        taken.par_iter().map(|(prefix, designs, d_model)| plan.apply(prefix, designs, *d_model)).collect();
    let whole_bytes = parameters.iter().filter(|(name, _)| name.contains(".experts.")).map(|(_, s)| bytes_of(s, plan.storage)).sum();
    let (factored, reports): (BTreeMap<String, Factored>, Vec<LayerReport>) =
        done.into_iter().map(|(factored, report)| ((report.name.clone(), factored), report)).unzip();
    write_factored(folder, &model.config, &model.tokenizer, parameters, &*source, &factored, plan.storage)?;
    let file = TensorFile::open(&folder.join("model.safetensors"))?;
    let file_bytes = std::fs::metadata(file.path()).map_err(|e| Error::io(file.path(), e))?.len();
    Ok(Report { plan: *plan, layers: reports, whole_bytes, bytes: bytes_in(&file), file_bytes })
}

/// Bytes of a tensor of `shape` with its scales.
fn bytes_of(shape: &[usize], storage: Storage) -> u64 {
    factored::stored_bytes(shape, storage) as u64
}

/// Bytes of the experts in a file.
fn bytes_in(file: &TensorFile) -> Bytes {
    let mut bytes = Bytes::default();
    for (name, view) in file.names().filter_map(|name| Some((name, file.get(name)?))) {
        let Some((_, part)) = name.split_once(".experts.") else { continue };
        let size = view.bytes.len() as u64;
        match part {
            "residual.mask" => bytes.index += size,
            part if part.starts_with("centre.") => bytes.centre += size,
            part if part.starts_with("residual.") => bytes.residual += size,
            _ => bytes.bias += size,
        }
    }
    bytes
}
