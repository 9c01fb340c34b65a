//! How the elements of our own weights are stored, and back.

use std::borrow::Cow;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, View};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How elements are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Storage {
    /// 32-bit floats.
    F32,
    /// bfloat16: half the size, 8 bits of precision.
    Bf16,
    /// 16-bit floats: half the size, 11 bits of precision, up to 65504; vectors stay 32-bit.
    F16,
    /// 8-bit integers with a scale for each output of a matrix: a quarter of the size; what is no large matrix stays 32-bit.
    Int8,
}

/// Ending of the name of an int8 tensor's scales.
pub(super) const SCALES: &str = ".scale";

/// How one tensor is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    F32,
    Bf16,
    F16,
    Int8,
    /// The scales of an int8 tensor.
    Scales,
}

/// Least size of the last two dimensions of a matrix that int8 stores: below that the scales and the error are not worth it.
const LEAST_SIDE: usize = 16;
/// Largest int8 magnitude in use; symmetric.
const LEVELS: f32 = 127.0;

impl Encoding {
    /// How a tensor of `shape` is stored.
    pub fn of(shape: &[usize], storage: Storage) -> Self {
        let matrix = matches!(shape, [.., a, b] if shape.len() <= 3 && a.min(b) >= &LEAST_SIDE);
        match storage {
            Storage::Bf16 => Self::Bf16,
            Storage::F16 if shape.len() > 1 => Self::F16,
            Storage::Int8 if matrix => Self::Int8,
            _ => Self::F32,
        }
    }

    /// Its type in the file.
    pub fn dtype(self) -> Dtype {
        match self {
            Self::F32 | Self::Scales => Dtype::F32,
            Self::Bf16 => Dtype::BF16,
            Self::F16 => Dtype::F16,
            Self::Int8 => Dtype::I8,
        }
    }

    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 | Self::Scales => 4,
            Self::Bf16 | Self::F16 => 2,
            Self::Int8 => 1,
        }
    }

    /// The bytes of a tensor of `shape`, and whether all its values fit.
    pub fn encode(self, values: &[f32], shape: &[usize]) -> (Vec<u8>, bool) {
        match self {
            Self::F32 => (values.iter().flat_map(|v| v.to_le_bytes()).collect(), true),
            Self::Bf16 => (values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(), true),
            Self::F16 => {
                let fits = values.iter().all(|v| v.abs() <= f16::MAX.to_f32());
                (values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(), fits)
            }
            Self::Scales => (scales(values, shape).iter().flat_map(|v| v.to_le_bytes()).collect(), true),
            Self::Int8 => {
                let ([rows, width], scales) = (sides(shape), scales(values, shape));
                let mut bytes = Vec::with_capacity(values.len());
                for (matrix, scales) in values.chunks_exact(rows * width).zip(scales.chunks_exact(width)) {
                    for row in matrix.chunks_exact(width) {
                        bytes.extend(row.iter().zip(scales).map(|(v, s)| (v / s).round().clamp(-LEVELS, LEVELS) as i8 as u8));
                    }
                }
                (bytes, true)
            }
        }
    }
}

impl Encoding {
    /// Values as they are read back.
    pub fn rounded(self, values: &[f32], shape: &[usize]) -> Vec<f32> {
        match self {
            Self::F32 | Self::Scales => values.to_vec(),
            Self::Bf16 => values.iter().map(|v| bf16::from_f32(*v).to_f32()).collect(),
            Self::F16 => values.iter().map(|v| f16::from_f32(*v).to_f32()).collect(),
            Self::Int8 => {
                let mut levels: Vec<f32> = self.encode(values, shape).0.iter().map(|&b| f32::from(b as i8)).collect();
                rescale(&mut levels, &scales(values, shape), shape);
                levels
            }
        }
    }
}

/// A tensor with its bytes made already.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Stored {
    /// A tensor of `shape` and, where it is int8, its scales.
    ///
    /// # Errors
    /// [`Error::Config`] for values that f16 does not hold.
    pub fn encode(name: &str, values: &[f32], shape: &[usize], storage: Storage) -> Result<Vec<(String, Self)>> {
        let encoding = Encoding::of(shape, storage);
        let (bytes, fits) = encoding.encode(values, shape);
        if !fits {
            return Err(Error::config(name, "values over 65504, which f16 does not hold: store bf16"));
        }
        let mut stored = vec![(name.to_string(), Self { dtype: encoding.dtype(), shape: shape.to_vec(), bytes })];
        if encoding == Encoding::Int8 {
            let scales = Encoding::Scales.encode(values, shape).0;
            let shape = [&shape[..shape.len() - 2], &shape[shape.len() - 1..]].concat();
            stored.push((format!("{name}{SCALES}"), Self { dtype: Dtype::F32, shape, bytes: scales }));
        }
        Ok(stored)
    }

    /// Plain bytes.
    pub fn bytes(bytes: Vec<u8>, shape: Vec<usize>) -> Self {
        Self { dtype: Dtype::U8, shape, bytes }
    }

    /// Values as int8 with a scale for each group: `groups` names the group of every value, `scales` is the shape of the scales.
    pub fn int8_rows(name: &str, values: &[f32], shape: Vec<usize>, groups: &[usize], scales: [usize; 2]) -> [(String, Self); 2] {
        let mut largest = vec![0.0f32; scales[0] * scales[1]];
        groups.iter().zip(values).for_each(|(&g, v)| largest[g] = largest[g].max(v.abs()));
        let factors: Vec<f32> = largest.iter().map(|&l| if l > 0.0 { l / LEVELS } else { 1.0 }).collect();
        let level = |(&g, v): (&usize, &f32)| (v / factors[g]).round().clamp(-LEVELS, LEVELS) as i8 as u8;
        let bytes = groups.iter().zip(values).map(level).collect();
        let scale_bytes = factors.iter().flat_map(|v| v.to_le_bytes()).collect();
        [
            (name.to_string(), Self { dtype: Dtype::I8, shape, bytes }),
            (format!("{name}{SCALES}"), Self { dtype: Dtype::F32, shape: scales.to_vec(), bytes: scale_bytes }),
        ]
    }
}

impl View for Stored {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

fn sides(shape: &[usize]) -> [usize; 2] {
    [shape[shape.len() - 2], shape[shape.len() - 1]]
}

/// Of every column of every matrix the largest magnitude over 127.
fn scales(values: &[f32], shape: &[usize]) -> Vec<f32> {
    let [rows, width] = sides(shape);
    let mut scales = Vec::with_capacity(values.len() / rows);
    for matrix in values.chunks_exact(rows * width) {
        let mut largest = vec![0.0f32; width];
        for row in matrix.chunks_exact(width) {
            largest.iter_mut().zip(row).for_each(|(l, v)| *l = l.max(v.abs()));
        }
        // A column of zeros has scale 1: no division by 0.
        scales.extend(largest.iter().map(|&l| if l > 0.0 { l / LEVELS } else { 1.0 }));
    }
    scales
}

/// Multiplies int8 levels, widened to f32, by their scales in place.
pub(super) fn rescale(levels: &mut [f32], scales: &[f32], shape: &[usize]) {
    let [rows, width] = sides(shape);
    for (matrix, scales) in levels.chunks_exact_mut((rows * width).max(1)).zip(scales.chunks_exact(width.max(1))) {
        for row in matrix.chunks_exact_mut(width) {
            row.iter_mut().zip(scales).for_each(|(v, s)| *v *= s);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn int8_is_within_half_a_level_of_every_column() {
        let shape = [2, 16, 20];
        let values: Vec<f32> =
            (0..640).map(|i| ((i * 37 % 101) as f32 - 50.0) * if i % 20 == 3 { 0.0 } else { 0.01 * (i % 20) as f32 }).collect();
        assert_eq!(Encoding::of(&shape, Storage::Int8), Encoding::Int8);
        let (bytes, _) = Encoding::Int8.encode(&values, &shape);
        let scales = scales(&values, &shape);
        assert_eq!((bytes.len(), scales.len()), (640, 40));
        let mut read: Vec<f32> = bytes.iter().map(|&b| f32::from(b as i8)).collect();
        rescale(&mut read, &scales, &shape);
        for (i, (a, b)) in read.iter().zip(&values).enumerate() {
            let scale = scales[i / 320 * 20 + i % 20];
            assert!((a - b).abs() <= 0.501 * scale, "{i}: {a} for {b}");
        }
    }

    #[test]
    fn small_tensors_stay_exact() {
        for shape in [&[512][..], &[512, 9], &[4, 1, 3, 3], &[64, 64, 3, 3]] {
            assert_eq!(Encoding::of(shape, Storage::Int8), Encoding::F32, "{shape:?}");
        }
        assert_eq!(Encoding::of(&[512], Storage::F16), Encoding::F32);
        assert_eq!(Encoding::of(&[512], Storage::Bf16), Encoding::Bf16);
        assert!(!Encoding::F16.encode(&[1e6], &[1]).1);
    }
}
