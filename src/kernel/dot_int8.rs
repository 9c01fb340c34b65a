//! Sums of products of bytes: a panel of up to 14 rows of unsigned bytes by a panel of up to 32 columns of signed ones.
//!
//! Rows lie in runs of 1024 `k`: row after row within a run ([`ROW_LINES`] apart), run after run; so a row's address is a constant away
//! from the panel's. The column panel is [`super::quantize::Int8Matrix`]'s.

use super::cpu::Int8Unit;
use super::pack::{COLUMNS, Line, MAX_ROWS};

/// Lines of a run of a row: 1024 `k`.
pub(super) const RUN_LINES: usize = 16;
/// Lines from row to row: one more, so that rows do not share cache sets.
pub(super) const ROW_LINES: usize = RUN_LINES + 1;
/// Words (four `k`) of a run.
const RUN_QUADS: usize = RUN_LINES * 16;
/// Words from row to row.
const ROW_WORDS: usize = ROW_LINES * 16;
/// Words from run to run.
const RUN_WORDS: usize = MAX_ROWS * ROW_WORDS;

/// Sums of one tile, rows of 32.
#[repr(C, align(64))]
pub(super) struct Sums(pub [i32; 32 * COLUMNS]);

impl Sums {
    pub const NEW: Self = Self([0; 32 * COLUMNS]);
}

/// What is multiplied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Rows, 1 to 14.
    pub rows: usize,
    /// Lines of the right panel for every four `k`: one per 16 columns.
    pub lines: usize,
    pub depth: usize,
}

impl Shape {
    fn quads(self) -> usize {
        self.depth.div_ceil(4)
    }
}

/// Writes the sums of `left` by `right`; `ahead` is read into the cache meanwhile.
///
/// # Safety
/// The CPU has `unit`, which is not tiles.
pub(super) unsafe fn multiply(unit: Int8Unit, shape: Shape, left: &[Line], right: &[Line], ahead: Option<&[Line]>, sums: &mut Sums) {
    let quads = shape.quads();
    assert!((1..=MAX_ROWS).contains(&shape.rows) && right.len() >= quads * shape.lines && (1..=2).contains(&shape.lines));
    assert!(left.len() * 16 >= quads.div_ceil(RUN_QUADS) * RUN_WORDS, "the left panel has {} lines", left.len());
    match unit {
        // SAFETY (both): the caller's promise; the panels are long enough (asserted).
        #[cfg(target_arch = "x86_64")]
        Int8Unit::Vnni => unsafe { vnni(shape, left, right, ahead.filter(|lines| lines.len() >= quads * shape.lines), sums) },
        #[cfg(target_arch = "x86_64")]
        Int8Unit::Avx2 => unsafe { avx2(shape, left, right, sums) },
        _ => portable(shape, left, right, sums),
    }
    let _ = ahead;
}

/// Word of a row of the left panel.
fn word(quad: usize, row: usize) -> usize {
    quad / RUN_QUADS * RUN_WORDS + row * ROW_WORDS + quad % RUN_QUADS
}

fn portable(shape: Shape, left: &[Line], right: &[Line], sums: &mut Sums) {
    for (row, sums) in sums.0.chunks_exact_mut(COLUMNS).enumerate().take(shape.rows) {
        let mut row_sums = [0i32; COLUMNS];
        for quad in 0..shape.quads() {
            let at = word(quad, row);
            let a = left[at / 16].0[at % 16].to_le_bytes().map(i32::from);
            for (line, sums) in right[quad * shape.lines..][..shape.lines].iter().zip(row_sums.chunks_exact_mut(16)) {
                for (sum, b) in sums.iter_mut().zip(line.0) {
                    let b = b.to_le_bytes().map(|b| i32::from(b as i8));
                    *sum += a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3];
                }
            }
        }
        sums.copy_from_slice(&row_sums);
    }
}

/// Rows by four, columns by eight: bytes widened to 16 bits, products of neighbours summed in 32.
///
/// # Safety
/// The CPU has AVX2; the panels hold the shape.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn avx2(shape: Shape, left: &[Line], right: &[Line], sums: &mut Sums) {
    use std::arch::x86_64::*;
    const ROWS: usize = 4;
    let (left, right) = (left.as_ptr().cast::<i32>(), right.as_ptr().cast::<u8>());
    for first in (0..shape.rows).step_by(ROWS) {
        for column in (0..16 * shape.lines).step_by(8) {
            let mut totals = [[_mm256_setzero_si256(); 2]; ROWS];
            for quad in 0..shape.quads() {
                // SAFETY: eight columns of a line; rows past the last are read from the panel, which has room for 14 (and two more are kept away).
                unsafe {
                    let b = _mm256_loadu_si256(right.add(quad * shape.lines * 64 + column * 4).cast());
                    let (low, high) =
                        (_mm256_cvtepi8_epi16(_mm256_castsi256_si128(b)), _mm256_cvtepi8_epi16(_mm256_extracti128_si256::<1>(b)));
                    for (r, totals) in totals.iter_mut().enumerate() {
                        let row = (first + r).min(MAX_ROWS - 1);
                        let a = _mm256_cvtepu8_epi16(_mm_set1_epi32(left.add(word(quad, row)).read()));
                        totals[0] = _mm256_add_epi32(totals[0], _mm256_madd_epi16(a, low));
                        totals[1] = _mm256_add_epi32(totals[1], _mm256_madd_epi16(a, high));
                    }
                }
            }
            for (r, [low, high]) in totals.into_iter().enumerate().take(shape.rows - first) {
                // Two sums a column, in two registers of four columns each.
                let pairs = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(low, high));
                let to = &mut sums.0[(first + r) * COLUMNS + column..][..8];
                // SAFETY: eight sums.
                unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), pairs) };
            }
        }
    }
}

/// # Safety
/// The CPU has AVX-512 VNNI; the panels hold the shape, and `ahead` as many lines as `right`.
#[cfg(target_arch = "x86_64")]
unsafe fn vnni(shape: Shape, left: &[Line], right: &[Line], ahead: Option<&[Line]>, sums: &mut Sums) {
    let (left, right) = (left.as_ptr().cast::<i32>(), right.as_ptr());
    // Where there is nothing ahead, one line is asked for again and again.
    let (ahead, ahead_step) = ahead.map_or((right, 0), |lines| (lines.as_ptr(), 1));
    let (quads, sums) = (shape.quads(), sums.0.as_mut_ptr());
    macro_rules! by_rows {
        ($($rows:literal)*) => {
            match (shape.rows, shape.lines) {
                // SAFETY: the caller's promise.
                $(($rows, 1) => unsafe { vnni_tile::<$rows, 1>(quads, left, right, (ahead, ahead_step), sums) },
                  ($rows, _) => unsafe { vnni_tile::<$rows, 2>(quads, left, right, (ahead, ahead_step), sums) },)*
                _ => unreachable!("row panels hold 1 to 14 rows"),
            }
        };
    }
    by_rows!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
}

/// # Safety
/// As [`vnni`]; `sums` is writable for `ROWS` rows of 32.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn vnni_tile<const ROWS: usize, const LINES: usize>(
    quads: usize,
    left: *const i32,
    right: *const Line,
    (ahead, ahead_step): (*const Line, usize),
    sums: *mut i32,
) {
    use std::arch::x86_64::*;
    let mut totals = [[_mm512_setzero_si512(); LINES]; ROWS];
    let (mut left, mut right, mut ahead, mut quads) = (left, right, ahead, quads);
    // SAFETY: the caller's promise about both panels; a prefetch reads nothing.
    unsafe {
        while quads > 0 {
            let run = quads.min(RUN_QUADS);
            for quad in 0..run {
                let mut b = [_mm512_setzero_si512(); LINES];
                for (v, b) in b.iter_mut().enumerate() {
                    *b = _mm512_load_si512(right.add(v).cast());
                    _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(v * ahead_step).cast());
                }
                for (r, totals) in totals.iter_mut().enumerate() {
                    let a = _mm512_set1_epi32(left.add(r * ROW_WORDS + quad).read());
                    for (total, b) in totals.iter_mut().zip(b) {
                        *total = _mm512_dpbusd_epi32(*total, a, b);
                    }
                }
                right = right.add(LINES);
                ahead = ahead.wrapping_add(LINES * ahead_step);
            }
            left = left.wrapping_add(RUN_WORDS);
            quads -= run;
        }
        for (r, totals) in totals.iter().enumerate() {
            for (v, total) in totals.iter().enumerate() {
                _mm512_store_si512(sums.add(r * COLUMNS + 16 * v).cast(), *total);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::cpu::Tier;
    use crate::kernel::matrix::Matrix;
    use crate::kernel::noise::noise;
    use crate::kernel::quantize::{Int8Matrix, Placement, quantize_row, steps};
    use crate::kernel::simd;

    #[test]
    fn every_unit_gives_the_same_integers() {
        for (rows, depth, columns) in [(1, 1, 1), (2, 3, 5), (14, 64, 32), (13, 65, 17), (5, 1024, 16), (7, 1027, 30), (3, 2500, 32)] {
            let (a, b) = (noise(rows * depth, 1), noise(depth * columns, 2));
            let (a, weights) = (Matrix::new(&a, rows, depth), Int8Matrix::new(simd::Tier::best(), &Matrix::new(&b, depth, columns)));
            let shape = Shape { rows, lines: columns.div_ceil(16), depth };
            let place = Placement { run: RUN_LINES, pitch: 1, jump: MAX_ROWS * ROW_LINES };
            let mut left = vec![Line::ZERO; steps(depth).div_ceil(RUN_LINES) * MAX_ROWS * ROW_LINES];
            for row in 0..rows {
                quantize_row(simd::Tier::best(), &a, row, place, &mut left[row * ROW_LINES..]);
            }
            let byte = |r: usize, k: usize| {
                let at = word(k / 4, r);
                i32::from(left[at / 16].bytes()[at % 16 * 4 + k % 4])
            };
            let weight = |k: usize, c: usize| i32::from(weights.panel(0)[k / 4 * shape.lines + c / 16].bytes()[c % 16 * 4 + k % 4] as i8);
            for tier in Tier::available() {
                let unit = if tier.int8() == Int8Unit::Tiles { Int8Unit::Vnni } else { tier.int8() };
                let mut sums = Sums::NEW;
                // SAFETY: the tier is there; whatever has tiles has the 512-bit instruction too.
                unsafe { multiply(unit, shape, &left, weights.panel(0), None, &mut sums) };
                for r in 0..rows {
                    for c in 0..columns {
                        let expected: i32 = (0..depth).map(|k| byte(r, k) * weight(k, c)).sum();
                        assert_eq!(sums.0[r * COLUMNS + c], expected, "{shape:?} at ({r}, {c}), {unit:?}");
                    }
                }
            }
        }
    }
}
