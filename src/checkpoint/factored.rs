//! Experts stored as a centre that they share and what each adds to it: written by `compress`, restored when the model is loaded.
//!
//! For a layer whose experts lie under the name `P`, a file holds, in the place of `P.up`, `P.up_bias` and `P.down`:
//!
//! ```text
//! P.centre.up [d_model, d_ff]   P.centre.up_bias [d_ff]   P.centre.down [d_ff, d_model]      none where there is no centre
//! P.residual.mask    u8 [experts, ceil(d_ff * width / 8)]  1 where a value is kept, lowest bit first      pruned residuals:
//! P.residual.values  [experts, kept]                       kept values in the order of the mask
//! P.residual.values.scale  f32 [experts, d_ff]             for int8 values: of each hidden neuron
//! P.residual.left [experts, d_ff, rank]   P.residual.right [experts, rank, width]                         or low-rank ones
//! ```
//!
//! A row of a residual belongs to a hidden neuron: its `d_model` input weights, its bias, its `d_model` output weights; `width = 2 d_model + 1`.

use crate::checkpoint::own::Own;
use crate::checkpoint::storage::{Encoding, SCALES, Stored};
use crate::checkpoint::tensor_file::{Dtype, TensorFile};
use crate::checkpoint::weights::Fault;
use crate::error::{Error, Result};

pub use crate::checkpoint::storage::Storage;

/// The experts of one layer as a common centre and residuals.
#[derive(Debug, Clone, PartialEq)]
pub struct Factored {
    /// Sizes.
    pub sizes: ExpertSizes,
    /// `[d_ff, width]`; `None` where residuals are the weights themselves.
    pub centre: Option<Vec<f32>>,
    /// What each expert adds to the centre.
    pub residual: Residual,
}

/// Sizes of a layer's experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpertSizes {
    /// How many there are.
    pub experts: usize,
    /// Width of the stream.
    pub d_model: usize,
    /// Hidden neurons of each.
    pub d_ff: usize,
}

/// What experts add to their centre.
#[derive(Debug, Clone, PartialEq)]
pub enum Residual {
    /// The largest entries of each expert: place in `[d_ff, width]` (rising) and value.
    Pruned(Vec<Vec<(usize, f32)>>),
    /// A product of two matrices for each expert.
    LowRank {
        /// Columns of `left`.
        rank: usize,
        /// `[experts, d_ff, rank]`
        left: Vec<f32>,
        /// `[experts, rank, width]`
        right: Vec<f32>,
    },
}

/// Which parameter of the experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Up,
    UpBias,
    Down,
}

impl ExpertSizes {
    /// Entries of a row of a design matrix: input weights, bias, output weights.
    pub fn width(self) -> usize {
        2 * self.d_model + 1
    }

    /// Entries of a design matrix.
    pub fn entries(self) -> usize {
        self.d_ff * self.width()
    }
}

/// Splits a design matrix `[d_ff, width]` into `up` `[d_model, d_ff]`, `up_bias` `[d_ff]` and `down` `[d_ff, d_model]`.
pub fn split(design: &[f32], d_model: usize) -> [Vec<f32>; 3] {
    let width = 2 * d_model + 1;
    let d_ff = design.len() / width;
    let (mut up, mut bias, mut down) = (vec![0.0; d_model * d_ff], Vec::with_capacity(d_ff), Vec::with_capacity(d_ff * d_model));
    for (neuron, row) in design.chunks_exact(width).enumerate() {
        row[..d_model].iter().enumerate().for_each(|(input, v)| up[input * d_ff + neuron] = *v);
        bias.push(row[d_model]);
        down.extend_from_slice(&row[d_model + 1..]);
    }
    [up, bias, down]
}

/// The design matrix `[d_ff, width]` of `up` `[d_model, d_ff]`, `up_bias` `[d_ff]` and `down` `[d_ff, d_model]`.
pub fn join(up: &[f32], up_bias: &[f32], down: &[f32], d_model: usize) -> Vec<f32> {
    let d_ff = up_bias.len();
    let mut design = Vec::with_capacity(d_ff * (2 * d_model + 1));
    for neuron in 0..d_ff {
        design.extend((0..d_model).map(|input| up[input * d_ff + neuron]));
        design.push(up_bias[neuron]);
        design.extend_from_slice(&down[neuron * d_model..(neuron + 1) * d_model]);
    }
    design
}

impl Factored {
    /// The design matrix `[d_ff, width]` of expert `e`: centre plus residual.
    pub fn restored(&self, e: usize) -> Vec<f32> {
        let mut design = self.centre.clone().unwrap_or_else(|| vec![0.0; self.sizes.entries()]);
        let width = self.sizes.width();
        match &self.residual {
            Residual::Pruned(experts) => experts[e].iter().for_each(|&(place, value)| design[place] += value),
            Residual::LowRank { rank, left, right } => {
                let left = &left[e * self.sizes.d_ff * rank..(e + 1) * self.sizes.d_ff * rank];
                let right = &right[e * rank * width..(e + 1) * rank * width];
                for (row, factors) in design.chunks_exact_mut(width).zip(left.chunks_exact((*rank).max(1))) {
                    for (factor, of) in factors.iter().zip(right.chunks_exact(width)) {
                        row.iter_mut().zip(of).for_each(|(v, r)| *v += factor * r);
                    }
                }
            }
        }
        design
    }

    /// The tensors of experts called `prefix` as they go to a file.
    ///
    /// # Errors
    /// [`Error::Config`] for values that the storage does not hold.
    pub(super) fn stored(&self, prefix: &str, storage: Storage) -> Result<Vec<(String, Stored)>> {
        let ExpertSizes { experts, d_model, d_ff } = self.sizes;
        let width = self.sizes.width();
        let mut tensors = Vec::new();
        let mut plain = |name: &str, values: &[f32], shape: &[usize]| {
            tensors.extend(Stored::encode(&format!("{prefix}.{name}"), values, shape, storage)?);
            Ok::<(), Error>(())
        };
        if let Some(centre) = &self.centre {
            let [up, bias, down] = split(centre, d_model);
            plain("centre.up", &up, &[d_model, d_ff])?;
            plain("centre.up_bias", &bias, &[d_ff])?;
            plain("centre.down", &down, &[d_ff, d_model])?;
        }
        match &self.residual {
            Residual::LowRank { rank, left, right } => {
                plain("residual.left", left, &[experts, d_ff, *rank])?;
                plain("residual.right", right, &[experts, *rank, width])?;
            }
            Residual::Pruned(kept) => {
                let mut mask = vec![0u8; experts * self.sizes.entries().div_ceil(8)];
                for (mask, kept) in mask.chunks_exact_mut(self.sizes.entries().div_ceil(8)).zip(kept) {
                    kept.iter().for_each(|&(place, _)| mask[place / 8] |= 1 << (place % 8));
                }
                let shape = vec![experts, self.sizes.entries().div_ceil(8)];
                tensors.push((format!("{prefix}.residual.mask"), Stored::bytes(mask, shape)));
                let values: Vec<f32> = kept.iter().flatten().map(|(_, value)| *value).collect();
                let name = format!("{prefix}.residual.values");
                let shape = vec![experts, kept.first().map_or(0, Vec::len)];
                if storage == Storage::Int8 {
                    let rows: Vec<usize> =
                        kept.iter().enumerate().flat_map(|(e, k)| k.iter().map(move |(place, _)| e * d_ff + place / width)).collect();
                    tensors.extend(Stored::int8_rows(&name, &values, shape, &rows, [experts, d_ff]));
                } else {
                    tensors.extend(Stored::encode(&name, &values, &shape, storage)?);
                }
            }
        }
        Ok(tensors)
    }
}

/// The experts whose parameter `name` is, and which one, if the file holds them factored.
pub(super) fn find<'n>(file: &TensorFile, name: &'n str) -> Option<(&'n str, Part)> {
    let (prefix, part) = name.rsplit_once('.')?;
    let part = match part {
        "up" => Part::Up,
        "up_bias" => Part::UpBias,
        "down" => Part::Down,
        _ => return None,
    };
    let has = |what: &str| file.get(&format!("{prefix}.residual.{what}")).is_some();
    (has("mask") || has("left")).then_some((prefix, part))
}

/// Expert `e` of those called `prefix`, restored: up, bias and down as in [`split`].
pub(super) fn restore_one(own: &Own<'_>, prefix: &str, sizes: ExpertSizes, e: usize) -> Result<[Vec<f32>; 3], Fault> {
    let shape = [sizes.experts, sizes.d_model, sizes.d_ff];
    Ok(split(&read(own, prefix, Part::Up, &shape)?.restored(e), sizes.d_model))
}

/// Parameter `part`, of `shape`, of the experts called `prefix`, restored.
pub(super) fn restore(own: &Own<'_>, prefix: &str, part: Part, shape: &[usize]) -> Result<Vec<f32>, Fault> {
    let factored = read(own, prefix, part, shape)?;
    let mut values = Vec::with_capacity(shape.iter().product());
    for e in 0..factored.sizes.experts {
        let parts = split(&factored.restored(e), factored.sizes.d_model);
        values.extend_from_slice(&parts[part as usize]);
    }
    Ok(values)
}

fn read(own: &Own<'_>, prefix: &str, part: Part, shape: &[usize]) -> Result<Factored, Fault> {
    let file = own.file();
    let wrong = |name: &str, what: String| Fault::Mismatched(format!("{prefix}.{name}: {what}"));
    let sizes = sizes(file, prefix, part, shape).ok_or_else(|| wrong("residual", format!("does not fit experts of {shape:?}")))?;
    let ExpertSizes { experts, d_model, d_ff } = sizes;
    let (width, entries) = (sizes.width(), sizes.entries());
    let take = |name: &str, shape: &[usize]| own.plain(&format!("{prefix}.{name}"), shape);
    let centre = match file.get(&format!("{prefix}.centre.up")) {
        None => None,
        Some(_) => Some(join(
            &take("centre.up", &[d_model, d_ff])?,
            &take("centre.up_bias", &[d_ff])?,
            &take("centre.down", &[d_ff, d_model])?,
            d_model,
        )),
    };
    if let Some(left) = file.get(&format!("{prefix}.residual.left")) {
        let rank = left.shape.last().copied().unwrap_or(0);
        let left = take("residual.left", &[experts, d_ff, rank])?;
        let right = take("residual.right", &[experts, rank, width])?;
        return Ok(Factored { sizes, centre, residual: Residual::LowRank { rank, left, right } });
    }
    let mask = own.raw(&format!("{prefix}.residual.mask"), &[experts, entries.div_ceil(8)], Dtype::U8)?;
    let places = |mask: &[u8]| {
        let set = |place: &usize| mask[place / 8] >> (place % 8) & 1 == 1;
        (0..mask.len() * 8).filter(set).collect::<Vec<usize>>()
    };
    let places: Vec<Vec<usize>> = mask.chunks_exact(entries.div_ceil(8)).map(places).collect();
    let kept = places.first().map_or(0, Vec::len);
    if places.iter().any(|p| p.len() != kept || p.last().is_some_and(|last| *last >= entries)) {
        return Err(wrong("residual.mask", "experts keep different numbers of values, or some that are not there".into()));
    }
    let name = format!("{prefix}.residual.values");
    let values = if file.get(&name).is_some_and(|v| v.dtype == Dtype::I8) {
        let levels = own.raw(&name, &[experts, kept], Dtype::I8)?;
        let scales = own.plain(&format!("{name}{SCALES}"), &[experts, d_ff])?;
        let rows = places.iter().enumerate().flat_map(|(e, p)| p.iter().map(move |place| e * d_ff + place / width));
        levels.iter().zip(rows).map(|(level, row)| f32::from(*level as i8) * scales[row]).collect()
    } else {
        own.plain(&name, &[experts, kept])?
    };
    let mut values = values.into_iter();
    let residual = places.into_iter().map(|p| p.into_iter().zip(values.by_ref()).collect()).collect();
    Ok(Factored { sizes, centre, residual: Residual::Pruned(residual) })
}

/// Sizes of the experts a parameter of `shape` belongs to; a bias alone does not tell `d_model`: the down bias of the same experts does.
fn sizes(file: &TensorFile, prefix: &str, part: Part, shape: &[usize]) -> Option<ExpertSizes> {
    match (part, shape) {
        (Part::Up, &[experts, d_model, d_ff]) | (Part::Down, &[experts, d_ff, d_model]) => Some(ExpertSizes { experts, d_model, d_ff }),
        (Part::UpBias, &[experts, d_ff]) => {
            let d_model = *file.get(&format!("{prefix}.down_bias"))?.shape.last()?;
            Some(ExpertSizes { experts, d_model, d_ff })
        }
        _ => None,
    }
}

/// `values` of `shape` after they were stored and read back.
pub fn rounded(values: &[f32], shape: &[usize], storage: Storage) -> Vec<f32> {
    Encoding::of(shape, storage).rounded(values, shape)
}

/// Bytes of a tensor of `shape`, its scales included.
pub fn stored_bytes(shape: &[usize], storage: Storage) -> usize {
    let encoding = Encoding::of(shape, storage);
    let count: usize = shape.iter().product();
    let scales = if encoding == Encoding::Int8 { count / shape[shape.len() - 2] * Encoding::Scales.bytes() } else { 0 };
    count * encoding.bytes() + scales
}
