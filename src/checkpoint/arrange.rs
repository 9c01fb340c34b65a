//! Elements of mapped files as f32 in the order of our parameters: one pass over each, by all threads.

use half::{bf16, f16};
use rayon::prelude::*;

use crate::checkpoint::tensor_file::{Dtype, View};

/// Where the columns of a transposed matrix go: a matrix of `width` columns, from `column` on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub column: usize,
    pub width: usize,
}

/// Elements that one thread copies at a time: 256 KB of f32, so that a page fault of one does not hold up the others.
const PIECE: usize = 1 << 16;
/// Side of the square that is transposed at once: 16 cache lines of f32 on each side, and a tenth of the first cache.
const SQUARE: usize = 16;

/// Runs `$body` with `$at` a function from the number of an element to its f32 value, for each type of element.
macro_rules! with_elements {
    ($view:expr, |$at:ident| $body:expr) => {
        match $view.dtype {
            Dtype::F32 => {
                let elements = $view.bytes.as_chunks::<4>().0;
                let $at = |i: usize| f32::from_le_bytes(elements[i]);
                $body
            }
            Dtype::Bf16 => {
                let elements = $view.bytes.as_chunks::<2>().0;
                let $at = |i: usize| bf16::from_le_bytes(elements[i]).to_f32();
                $body
            }
            Dtype::F16 => {
                let elements = $view.bytes.as_chunks::<2>().0;
                let $at = |i: usize| f16::from_le_bytes(elements[i]).to_f32();
                $body
            }
            Dtype::F64 => {
                let elements = $view.bytes.as_chunks::<8>().0;
                let $at = |i: usize| f64::from_le_bytes(elements[i]) as f32;
                $body
            }
            Dtype::I8 => {
                let $at = |i: usize| f32::from($view.bytes[i] as i8);
                $body
            }
            // Callers ask for floats and for the bytes of our own quantised tensors only.
            _ => {
                let $at = |_: usize| 0.0f32;
                $body
            }
        }
    };
}

/// Every element in order.
pub(super) fn copy(view: &View<'_>, out: &mut [f32]) {
    with_elements!(view, |at| {
        out.par_chunks_mut(PIECE).enumerate().for_each(|(piece, out)| {
            let first = piece * PIECE;
            out.iter_mut().enumerate().for_each(|(i, o)| *o = at(first + i));
        });
    });
}

/// A linear layer `[out, in]` (a last dimension of 1 is allowed) as `[in, out]`, into columns of `out` `[in, width]`.
pub(super) fn transpose(view: &View<'_>, place: Place, out: &mut [f32]) {
    let (rows, columns) = (view.shape[0], view.shape[1]);
    let Place { column, width } = place;
    with_elements!(view, |at| {
        out.par_chunks_mut((SQUARE * width).max(1)).enumerate().for_each(|(piece, out)| {
            let first = piece * SQUARE;
            for top in (0..rows).step_by(SQUARE) {
                let height = SQUARE.min(rows - top);
                for (c, row) in out.chunks_exact_mut(width).enumerate().filter(|(c, _)| first + c < columns) {
                    let target = &mut row[column + top..column + top + height];
                    target.iter_mut().enumerate().for_each(|(r, o)| *o = at((top + r) * columns + first + c));
                }
            }
        });
    });
}

/// A convolution over time `[out, inputs, kernel]` as `[kernel inputs, out]`.
pub(super) fn windows(view: &View<'_>, [width, inputs, kernel]: [usize; 3], out: &mut [f32]) {
    with_elements!(view, |at| {
        out.par_chunks_mut(width.max(1)).enumerate().for_each(|(row, out)| {
            let (tap, input) = (row / inputs, row % inputs);
            out.iter_mut().enumerate().for_each(|(o, value)| *value = at((o * inputs + input) * kernel + tap));
        });
    });
}

/// `gain[k] * v[.., k] / |v[.., k]|` in place: weight norm over all but the last dimension.
pub(super) fn weight_norm(gains: &[f32], direction: &mut [f32]) {
    let mut squares = vec![0.0f64; gains.len()];
    for taps in direction.chunks_exact(gains.len().max(1)) {
        squares.iter_mut().zip(taps).for_each(|(s, &v)| *s += f64::from(v) * f64::from(v));
    }
    let factors: Vec<f32> = gains.iter().zip(&squares).map(|(&g, s)| (f64::from(g) / s.sqrt().max(f64::MIN_POSITIVE)) as f32).collect();
    for taps in direction.chunks_exact_mut(gains.len().max(1)) {
        taps.iter_mut().zip(&factors).for_each(|(v, f)| *v *= f);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    #[test]
    fn transposes_any_size_into_columns() {
        for (rows, columns) in [(1, 1), (3, 5), (16, 16), (17, 33), (40, 7)] {
            let values: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
            let stored = bytes(&values);
            let view = View { dtype: Dtype::F32, shape: &[rows, columns], bytes: &stored };
            let width = rows + 3;
            let mut out = vec![-1.0; columns * width];
            transpose(&view, Place { column: 2, width }, &mut out);
            for (i, &o) in out.iter().enumerate() {
                let (c, r) = (i / width, i % width);
                let expected = if (2..2 + rows).contains(&r) { values[(r - 2) * columns + c] } else { -1.0 };
                assert_eq!(o, expected, "{rows} x {columns} at {i}");
            }
        }
    }

    #[test]
    fn every_float_type_is_widened() {
        let values = [1.5f32, -2.0, 0.25];
        let cases = [
            (Dtype::F32, bytes(&values)),
            (Dtype::F64, values.iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect()),
            (Dtype::F16, values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect()),
            (Dtype::Bf16, values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect()),
        ];
        for (dtype, stored) in cases {
            let mut out = [0.0; 3];
            copy(&View { dtype, shape: &[3], bytes: &stored }, &mut out);
            assert_eq!(out, values, "{dtype}");
        }
    }

    #[test]
    fn windows_and_weight_norm() {
        // [out 2, in 2, kernel 3]
        let values: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let stored = bytes(&values);
        let mut out = vec![0.0; 12];
        windows(&View { dtype: Dtype::F32, shape: &[2, 2, 3], bytes: &stored }, [2, 2, 3], &mut out);
        assert_eq!(out, [0.0, 6.0, 3.0, 9.0, 1.0, 7.0, 4.0, 10.0, 2.0, 8.0, 5.0, 11.0]);
        let mut direction = vec![3.0, 1.0, 4.0, 0.0];
        weight_norm(&[10.0, 2.0], &mut direction);
        assert_eq!(direction, [6.0, 2.0, 8.0, 0.0]);
    }
}
