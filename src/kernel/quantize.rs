//! Rounding to 8 bits: rows of activations to unsigned bytes, columns of weights to signed ones, each with a scale of its own.
//!
//! A row is `x = scale (q - zero)` with `q` in `0..=255` and 0 kept exactly; a column is `w = scale q` with `q` in `-127..=127`. Then
//! `sum_k x_k w_k = scale_row scale_column (sum_k q_k p_k - zero sum_k p_k)`: an integer product and a correction by the column's sum.
//! Rows do not look at each other, so an utterance is rounded alike in any batch. Every tier gives the same bytes.

use super::matrix::Matrix;
use super::pack::{COLUMNS, Line, with_floats};
use super::simd::{Tier, tiered};

/// `k` of one line of packed bytes; operands are padded to multiples of it (an AMX tile's row).
pub(super) const STEP: usize = 64;
/// Largest `k` whose sums fit 32 bits: `255 * 127 * k < 2^31`.
pub(super) const MAX_DEPTH: usize = 1 << 16;
/// Rows that span less are zeros: the reciprocal of their step would overflow.
const SMALLEST_RANGE: f32 = 1e-35;

/// How a row was rounded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RowScale {
    /// What one step of a byte is worth; NaN where the row holds NaN or infinities.
    pub scale: f32,
    /// The byte of 0.
    pub zero: i32,
    inverse: f32,
}

impl RowScale {
    pub const EMPTY: Self = Self { scale: 0.0, zero: 0, inverse: 0.0 };

    /// For values from `low <= 0` to `high >= 0`.
    fn of(low: f32, high: f32, is_finite: bool) -> Self {
        let range = high - low;
        if !is_finite || !range.is_finite() {
            return Self { scale: f32::NAN, ..Self::EMPTY };
        }
        if range < SMALLEST_RANGE {
            return Self::EMPTY;
        }
        let inverse = 255.0 / range;
        Self { scale: range / 255.0, zero: (-low * inverse).round_ties_even() as i32, inverse }
    }

    /// The byte of `x`, ties to even.
    #[inline(always)]
    fn byte(self, x: f32) -> u8 {
        /// Adding it leaves an integer of up to 23 bits in the low bits.
        const INTEGER: f32 = (1 << 23) as f32;
        let value = x * self.inverse + self.zero as f32;
        let value = if value > 0.0 { value } else { 0.0 };
        let value = if value < 255.0 { value } else { 255.0 };
        (value + INTEGER).to_bits() as u8
    }
}

/// Sixteen values: one register or several.
type Lanes = [f32; 16];

#[inline(always)]
fn each(a: Lanes, b: &Lanes, f: impl Fn(f32, f32) -> f32) -> Lanes {
    let mut out = a;
    for i in 0..16 {
        out[i] = f(a[i], b[i]);
    }
    out
}

#[inline(always)]
fn row_scale_body<const FMA: bool, const LANES: usize>(x: &[f32]) -> RowScale {
    let smaller = |a: f32, b: f32| if b < a { b } else { a };
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    // `v * 0` is 0, or NaN for what is not finite.
    let probed = |sum: f32, v: f32| sum + v * 0.0;
    let (mut low, mut high, mut probe) = ([0.0; 16], [0.0; 16], [0.0; 16]);
    let (whole, tail) = x.as_chunks::<16>();
    for values in whole {
        (low, high, probe) = (each(low, values, smaller), each(high, values, larger), each(probe, values, probed));
    }
    let mut rest = [0.0; 16];
    rest[..tail.len()].copy_from_slice(tail);
    (low, high, probe) = (each(low, &rest, smaller), each(high, &rest, larger), each(probe, &rest, probed));
    let fold = |lanes: Lanes, f: fn(f32, f32) -> f32| lanes.into_iter().fold(0.0, f);
    RowScale::of(fold(low, f32::min), fold(high, f32::max), fold(probe, |a, b| a + b) == 0.0)
}
tiered!(fn row_scale(x: &[f32]) -> RowScale = row_scale_body);

#[inline(always)]
fn row_bytes_body<const FMA: bool, const LANES: usize>(x: &[f32], scale: RowScale, lines: &mut [Line], pitch: usize) {
    let (whole, tail) = x.as_chunks::<STEP>();
    let mut write = |step: usize, values: &[f32; STEP]| {
        let mut bytes = [0u8; STEP];
        for (byte, x) in bytes.iter_mut().zip(values) {
            *byte = scale.byte(*x);
        }
        lines[step * pitch] = Line::of_bytes(bytes);
    };
    whole.iter().enumerate().for_each(|(step, values)| write(step, values));
    if !tail.is_empty() {
        let mut rest = [0.0; STEP];
        rest[..tail.len()].copy_from_slice(tail);
        write(whole.len(), &rest);
    }
}
tiered!(fn row_bytes(x: &[f32], scale: RowScale, lines: &mut [Line], pitch: usize) = row_bytes_body);

/// Where the lines of a row go: runs of at most `run` lines, `pitch` lines from one line to the next and `jump` from one run to the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placement {
    pub run: usize,
    pub pitch: usize,
    pub jump: usize,
}

/// Rounds row `row` of `a` into `lines`, its first line first; the last one is padded.
pub(super) fn quantize_row(tier: Tier, a: &Matrix<'_>, row: usize, place: Placement, lines: &mut [Line]) -> RowScale {
    let mut write = |x: &[f32]| {
        let scale = row_scale(tier, x);
        for (run, x) in x.chunks(place.run * STEP).enumerate() {
            row_bytes(tier, x, scale, &mut lines[run * place.jump..], place.pitch);
        }
        scale
    };
    if a.column_stride == 1 {
        return write(a.row(row));
    }
    with_floats(a.columns, |x| {
        x.iter_mut().enumerate().for_each(|(c, x)| *x = a.data[row * a.row_stride + c * a.column_stride]);
        write(x)
    })
}

/// Weights in 8 bits: panels of 32 columns (the last one of 16 if that is enough); a panel holds, for every four `k`, a word per column.
#[derive(Clone)]
pub(super) struct Int8Matrix {
    lines: Vec<Line>,
    /// One per column.
    pub scales: Vec<f32>,
    /// Sum of the bytes of each column.
    pub sums: Vec<i32>,
    depth: usize,
}

impl Int8Matrix {
    /// Rounds `b`, of at most [`MAX_DEPTH`] rows.
    pub fn new(tier: Tier, b: &Matrix<'_>) -> Self {
        use rayon::prelude::*;
        assert!(b.rows <= MAX_DEPTH, "{} rows: sums would not fit 32 bits", b.rows);
        let depth = b.rows;
        let panel_lines = 2 * STEP / 4 * steps(depth);
        let mut packed = Self {
            lines: vec![Line::ZERO; panel_lines * b.columns.div_ceil(COLUMNS)],
            scales: vec![0.0; b.columns],
            sums: vec![0; b.columns],
            depth,
        };
        if panel_lines > 0 {
            let panels = packed.lines.par_chunks_mut(panel_lines).zip(packed.scales.par_chunks_mut(COLUMNS));
            panels.zip(packed.sums.par_chunks_mut(COLUMNS)).enumerate().for_each(|(panel, ((lines, scales), sums))| {
                quantize_panel(tier, b, panel * COLUMNS, lines, scales, sums);
            });
        }
        packed
    }

    /// The lines from panel `panel` on: one per 16 columns for every four `k`. None past the last panel.
    pub fn panel(&self, panel: usize) -> &[Line] {
        self.lines.get(panel * 2 * STEP / 4 * steps(self.depth)..).unwrap_or_default()
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.lines[..]) + size_of_val(&self.scales[..]) + size_of_val(&self.sums[..])
    }
}

/// Lines of a row of `k` values.
pub(super) fn steps(k: usize) -> usize {
    k.div_ceil(STEP)
}

/// Up to 32 values of a row of weights, zeros after them.
type Columns = [f32; COLUMNS];

#[inline(always)]
fn largest_body<const FMA: bool, const LANES: usize>(row: &Columns, largest: &mut Columns, probe: &mut Columns) {
    for c in 0..COLUMNS {
        let size = row[c].abs();
        largest[c] = if size > largest[c] { size } else { largest[c] };
        probe[c] += row[c] * 0.0;
    }
}
tiered!(fn largest(row: &Columns, largest: &mut Columns, probe: &mut Columns) = largest_body);

#[inline(always)]
fn quad_body<const FMA: bool, const LANES: usize>(
    rows: &[Columns; 4],
    inverse: &Columns,
    words: &mut [u32; COLUMNS],
    sums: &mut [i32; COLUMNS],
) {
    /// Adding it leaves a signed integer of up to 22 bits in the low bits.
    const INTEGER: f32 = (3 << 22) as f32;
    *words = [0; COLUMNS];
    for (i, row) in rows.iter().enumerate() {
        for c in 0..COLUMNS {
            let value = row[c] * inverse[c];
            let value = if value > -127.0 { value } else { -127.0 };
            let value = if value < 127.0 { value } else { 127.0 };
            let integer = (value + INTEGER).to_bits();
            words[c] |= (integer & 0xff) << (8 * i);
            sums[c] += (integer as i32) - (INTEGER.to_bits() as i32);
        }
    }
}
tiered!(fn quad(rows: &[Columns; 4], inverse: &Columns, words: &mut [u32; COLUMNS], sums: &mut [i32; COLUMNS]) = quad_body);

/// Rounds the columns of one panel, `scales.len()` of them from `first` on.
fn quantize_panel(tier: Tier, b: &Matrix<'_>, first: usize, lines: &mut [Line], scales: &mut [f32], sums: &mut [i32]) {
    let columns = scales.len();
    let load = |k: usize| {
        let mut row = [0.0; COLUMNS];
        if k < b.rows {
            let start = k * b.row_stride + first * b.column_stride;
            if b.column_stride == 1 {
                row[..columns].copy_from_slice(&b.data[start..start + columns]);
            } else {
                row[..columns].iter_mut().enumerate().for_each(|(c, x)| *x = b.data[start + c * b.column_stride]);
            }
        }
        row
    };
    let (mut sizes, mut probe) = ([0.0; COLUMNS], [0.0; COLUMNS]);
    (0..b.rows).for_each(|k| largest(tier, &load(k), &mut sizes, &mut probe));
    let inverse = sizes.map(|size| if size < SMALLEST_RANGE || !size.is_finite() { 0.0 } else { 127.0 / size });
    for (c, scale) in scales.iter_mut().enumerate() {
        *scale = match probe[c] == 0.0 {
            true if inverse[c] == 0.0 => 0.0,
            true => sizes[c] / 127.0,
            false => f32::NAN,
        };
    }
    let mut all_sums = [0; COLUMNS];
    let width = if columns > 16 { 2 } else { 1 };
    for (k, lines) in (0..b.rows).step_by(4).zip(lines.chunks_exact_mut(width)) {
        let mut words = [0; COLUMNS];
        quad(tier, &[load(k), load(k + 1), load(k + 2), load(k + 3)], &inverse, &mut words, &mut all_sums);
        let (halves, _) = words.as_chunks::<16>();
        lines.iter_mut().zip(halves).for_each(|(line, words)| *line = Line(*words));
    }
    sums.copy_from_slice(&all_sums[..columns]);
}

#[cfg(test)]
pub(in crate::kernel) mod tests {
    use super::*;
    use crate::kernel::noise::noise;

    /// The byte of every value of a row, one by one.
    pub(in crate::kernel) fn row_reference(x: &[f32]) -> (Vec<i32>, f32, i32) {
        let (low, high) = x.iter().fold((0.0f32, 0.0f32), |(low, high), v| (low.min(*v), high.max(*v)));
        if high - low < SMALLEST_RANGE {
            return (vec![0; x.len()], 0.0, 0);
        }
        let inverse = 255.0 / (high - low);
        let zero = (-low * inverse).round_ties_even();
        let bytes = x.iter().map(|v| (v * inverse + zero).clamp(0.0, 255.0).round_ties_even() as i32);
        (bytes.collect(), (high - low) / 255.0, zero as i32)
    }

    fn rows_of(values: &[f32], k: usize, tier: Tier) -> Vec<(Vec<u8>, RowScale)> {
        let a = Matrix::new(values, values.len() / k, k);
        let place = Placement { run: 2, pitch: 3, jump: 7 };
        let rows = (0..a.rows).map(|row| {
            let mut lines = vec![Line::ZERO; 7 * steps(k)];
            let scale = quantize_row(tier, &a, row, place, &mut lines);
            let at = |step: usize| lines[step / 2 * 7 + step % 2 * 3].bytes();
            ((0..steps(k)).flat_map(at).take(k).collect(), scale)
        });
        rows.collect()
    }

    #[test]
    fn rows_are_rounded_alike_in_every_tier() {
        for k in [1, 15, 64, 65, 200, 300] {
            let mut values = noise(6 * k, k as u64);
            values[..k].fill(0.0);
            values[k..2 * k].iter_mut().for_each(|x| *x = x.abs() + 1.0);
            values[2 * k..3 * k].iter_mut().for_each(|x| *x *= 1e30);
            values[3 * k..4 * k].iter_mut().for_each(|x| *x *= 1e-37);
            for tier in Tier::available() {
                for (row, (bytes, scale)) in rows_of(&values, k, tier).into_iter().enumerate() {
                    let (expected, size, zero) = row_reference(&values[row * k..][..k]);
                    assert_eq!(bytes.iter().map(|b| i32::from(*b)).collect::<Vec<_>>(), expected, "row {row} of {k}, {tier:?}");
                    assert_eq!((scale.scale, scale.zero), (size, zero), "row {row} of {k}, {tier:?}");
                }
            }
        }
    }

    #[test]
    fn zero_is_exact_and_the_rest_within_half_a_step() {
        let mut values = noise(500, 3);
        values[17] = 0.0;
        let (bytes, RowScale { scale, zero, .. }) = rows_of(&values, 500, Tier::best()).remove(0);
        let back = |i: usize| scale * (i32::from(bytes[i]) - zero) as f32;
        assert_eq!(back(17), 0.0);
        let worst = (0..500).map(|i| (back(i) - values[i]).abs()).fold(0.0, f32::max);
        assert!(worst <= 0.501 * scale, "{worst} of steps of {scale}");
    }

    #[test]
    fn what_is_not_finite_is_not_hidden() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 15, 16, 69] {
                let mut values = noise(70, 1);
                values[at] = bad;
                for tier in Tier::available() {
                    assert!(rows_of(&values, 70, tier)[0].1.scale.is_nan(), "{bad} at {at}, {tier:?}");
                    let b = Int8Matrix::new(tier, &Matrix::new(&values, 10, 7));
                    let nan: Vec<usize> = (0..7).filter(|c| b.scales[*c].is_nan()).collect();
                    assert_eq!(nan, [at % 7], "{bad} at {at}, {tier:?}");
                }
            }
        }
    }

    #[test]
    fn columns_are_rounded_alike_in_every_tier_and_layout() {
        for (k, n) in [(1, 1), (4, 16), (5, 17), (64, 32), (130, 33), (67, 100)] {
            let values = noise(k * n, 9);
            let turned: Vec<f32> = (0..n).flat_map(|c| (0..k).map(move |r| r * n + c)).map(|i| values[i]).collect();
            for tier in Tier::available() {
                for b in [Matrix::new(&values, k, n), Matrix::new(&turned, n, k).transposed()] {
                    let packed = Int8Matrix::new(tier, &b);
                    for c in 0..n {
                        let size = (0..k).map(|r| values[r * n + c].abs()).fold(0.0, f32::max);
                        let expected: Vec<i32> = (0..k).map(|r| (values[r * n + c] * (127.0 / size)).round_ties_even() as i32).collect();
                        let (panel, width) = (c / 32, if n - c / 32 * 32 > 16 { 2 } else { 1 });
                        let word = |r: usize| packed.panel(panel)[r / 4 * width + c % 32 / 16].0[c % 16];
                        let got: Vec<i32> = (0..k).map(|r| i32::from((word(r) >> (8 * (r % 4))) as u8 as i8)).collect();
                        assert_eq!(got, expected, "{k} x {n}, column {c}, {tier:?}");
                        assert_eq!(packed.sums[c], expected.iter().sum::<i32>());
                        assert_eq!(packed.scales[c], size / 127.0);
                    }
                }
            }
        }
    }
}
