//! Matrix products in 8 bits: rows rounded on the way in, weights packed before, 32-bit sums, and the way back to f32 with bias and activation.
//!
//! Sums are integers, so every tier gives the same ones, and an output row depends on its own input row alone.

use std::ops::Range;

use rayon::prelude::*;

use super::activation::{Pointwise, with_pointwise};
#[cfg(target_arch = "x86_64")]
use super::amx;
#[cfg(target_arch = "x86_64")]
use super::amx_int8;
use super::cpu::{Int8Unit, Tier};
use super::dot_int8::{self, ROW_LINES, RUN_LINES, Sums};
use super::gemm::{Parallel, Write};
use super::gemm_bf16::{Job, Right, TASKS_PER_THREAD, block_panels};
use super::pack::{COLUMNS, Line, MAX_ROWS, RowPanels, Unit, with_lines};
use super::quantize::{Int8Matrix, Placement, RowScale, quantize_row, steps};
use super::simd::{self, tiered};

/// Products under this many multiplications are not worth waking a second thread.
const PARALLEL_FROM: usize = 1 << 21;
/// Weights that stay in the second-level cache beside the rest.
const CACHED_BYTES: usize = 1 << 19;

/// Instructions of one call.
#[derive(Clone, Copy)]
struct Kernel {
    unit: Int8Unit,
    /// Of rounding and epilogue.
    vector: simd::Tier,
}

impl Kernel {
    fn panels(self, rows: usize) -> RowPanels {
        RowPanels::new(rows, if self.unit == Int8Unit::Tiles { Unit::Tiles } else { Unit::Vectors })
    }

    /// Whether threads share the columns of a product: where its rows do not go round, or each task of rows would read weights that the
    /// second-level cache does not hold.
    fn shares_columns(self, job: &Job<'_>) -> bool {
        let is_large = job.a.columns * job.columns > CACHED_BYTES && job.a.rows * 2 <= job.columns;
        is_large || self.panels(job.a.rows).count < TASKS_PER_THREAD * rayon::current_num_threads()
    }

    /// Lines of a panel of the left operand.
    fn left_lines(self, depth: usize) -> usize {
        let steps = steps(depth);
        match self.unit {
            #[cfg(target_arch = "x86_64")]
            Int8Unit::Tiles => steps * amx_int8::ROWS,
            _ => steps.div_ceil(RUN_LINES) * MAX_ROWS * ROW_LINES,
        }
    }

    /// Where row `row` of a panel goes: its first line, and the others from there.
    fn place(self, row: usize) -> (usize, Placement) {
        match self.unit {
            #[cfg(target_arch = "x86_64")]
            Int8Unit::Tiles => (row, Placement { run: usize::MAX / super::quantize::STEP, pitch: amx_int8::ROWS, jump: 0 }),
            _ => (row * ROW_LINES, Placement { run: RUN_LINES, pitch: 1, jump: MAX_ROWS * ROW_LINES }),
        }
    }
}

/// A block of row panels, rounded.
struct Left<'l> {
    rows: RowPanels,
    panels: Range<usize>,
    lines: &'l [Line],
    scales: &'l [RowScale],
}

/// Computes all `jobs`; their outputs must not overlap.
///
/// # Safety
/// Every output is writable for `a.rows` rows of `columns` values and not touched by others during the call.
pub(super) unsafe fn run(jobs: &[Job<'_>], tier: Tier, parallel: Parallel) {
    let kernel = Kernel { unit: tier.int8(), vector: tier.capped().vector() };
    let work: usize = jobs.iter().map(|job| job.a.rows * job.a.columns * job.columns).sum();
    let is_alone = work < PARALLEL_FROM || parallel == Parallel::Single || rayon::current_num_threads() == 1;
    let parallel = if is_alone { Parallel::Single } else { parallel };
    match jobs {
        [job] if !is_alone && kernel.shares_columns(job) => by_columns(job, kernel),
        _ => by_rows(jobs, kernel, parallel),
    }
}

fn weights<'a>(job: &Job<'a>) -> &'a Int8Matrix {
    let Right::Int8(weights) = job.right else { unreachable!("the operands of one call are packed alike") };
    weights
}

/// A task rounds and multiplies a block of rows.
fn by_rows(jobs: &[Job<'_>], kernel: Kernel, parallel: Parallel) {
    let all_panels = jobs.iter().map(|job| kernel.panels(job.a.rows).count).sum();
    let step = block_panels(all_panels, parallel);
    let tasks: Vec<_> = jobs
        .iter()
        .flat_map(|job| {
            let count = kernel.panels(job.a.rows).count;
            (0..count).step_by(step).map(move |first| (job, first..(first + step).min(count)))
        })
        .collect();
    let run = |(job, panels): (&Job<'_>, Range<usize>)| {
        with_left(job, kernel, panels, |left| block(job, kernel, left, 0..job.columns.div_ceil(COLUMNS)));
    };
    match parallel {
        Parallel::Rayon if tasks.len() > 1 => tasks.into_par_iter().with_max_len(1).for_each(run),
        _ => tasks.into_iter().for_each(run),
    }
}

/// For few rows: they are rounded first and shared; a task multiplies them by a block of columns.
fn by_columns(job: &Job<'_>, kernel: Kernel) {
    let columns = job.columns.div_ceil(COLUMNS);
    let step = block_panels(columns, Parallel::Rayon);
    with_left(job, kernel, 0..kernel.panels(job.a.rows).count, |left| {
        let tasks: Vec<_> = (0..columns).step_by(step).map(|first| first..(first + step).min(columns)).collect();
        tasks.into_par_iter().with_max_len(1).for_each(|panels| block(job, kernel, left, panels));
    });
}

/// Calls `f` with row panels `panels` of the job's left operand rounded.
fn with_left<R>(job: &Job<'_>, kernel: Kernel, panels: Range<usize>, f: impl FnOnce(&Left<'_>) -> R) -> R {
    let rows = kernel.panels(job.a.rows);
    let (first, end, panel_lines) = (rows.start(panels.start), rows.start(panels.end), kernel.left_lines(job.a.columns));
    with_lines(panels.len() * panel_lines, |lines| {
        let mut scales = Vec::with_capacity(end - first);
        for (i, panel) in panels.clone().enumerate() {
            let lines = &mut lines[i * panel_lines..][..panel_lines];
            let start = rows.start(panel);
            for row in start..rows.start(panel + 1) {
                let (at, place) = kernel.place(row - start);
                scales.push(quantize_row(kernel.vector, &job.a, row, place, lines.get_mut(at..).unwrap_or_default()));
            }
        }
        f(&Left { rows, panels, lines, scales: &scales })
    })
}

/// Multiplies a block of row panels by column panels into the output.
fn block(job: &Job<'_>, kernel: Kernel, left: &Left<'_>, column_panels: Range<usize>) {
    let weights = weights(job);
    let depth = job.a.columns;
    let (panel_lines, first_row) = (kernel.left_lines(depth), left.rows.start(left.panels.start));
    // SAFETY: the unit is tiles only where the CPU has them.
    #[cfg(target_arch = "x86_64")]
    let tiles = (kernel.unit == Int8Unit::Tiles).then(|| unsafe { amx::Tiles::configure() });
    let mut sums = Sums::NEW;
    for panel in column_panels {
        let columns = Columns::of(job, weights, panel);
        let right = weights.panel(panel);
        for (i, row_panel) in left.panels.clone().enumerate() {
            let (start, end) = (left.rows.start(row_panel), left.rows.start(row_panel + 1));
            let lines = &left.lines[i * panel_lines..][..panel_lines];
            let shape = dot_int8::Shape { rows: end - start, lines: if columns.count > 16 { 2 } else { 1 }, depth };
            // The next panel comes from memory while this one is multiplied: of many experts each is used for few rows.
            let ahead = (i == 0).then(|| weights.panel(panel + 1)).filter(|lines| !lines.is_empty());
            // SAFETY: the unit is there, the panels are as `kernel` and `Int8Matrix` lay them out.
            match kernel.unit {
                #[cfg(target_arch = "x86_64")]
                Int8Unit::Tiles => {
                    let Some(tiles) = &tiles else { unreachable!("configured above") };
                    unsafe { amx_int8::multiply((shape.rows, shape.lines, steps(depth)), lines, right, &mut sums.0, tiles) };
                }
                unit => unsafe { dot_int8::multiply(unit, shape, lines, right, ahead, &mut sums) },
            }
            let out = Out {
                // SAFETY: inside the output the caller of `run` vouches for.
                data: unsafe { job.c.data.add(start * job.c.row_stride + panel * COLUMNS) },
                row_stride: job.c.row_stride,
                accumulate: job.write == Write::Accumulate,
            };
            let scales = &left.scales[start - first_row..end - first_row];
            with_pointwise!(job.epilogue.activation, finish(kernel.vector, &sums, scales, &columns, out));
        }
    }
}

/// What belongs to the columns of one panel; zeros after the last.
struct Columns {
    count: usize,
    scales: [f32; COLUMNS],
    sums: [i32; COLUMNS],
    bias: [f32; COLUMNS],
}

impl Columns {
    fn of(job: &Job<'_>, weights: &Int8Matrix, panel: usize) -> Self {
        let first = panel * COLUMNS;
        let count = (job.columns - first).min(COLUMNS);
        let mut columns = Self { count, scales: [0.0; COLUMNS], sums: [0; COLUMNS], bias: [0.0; COLUMNS] };
        columns.scales[..count].copy_from_slice(&weights.scales[first..first + count]);
        columns.sums[..count].copy_from_slice(&weights.sums[first..first + count]);
        if let Some(bias) = job.epilogue.bias {
            columns.bias[..count].copy_from_slice(&bias[first..first + count]);
        }
        columns
    }
}

/// The tile of the output.
#[derive(Clone, Copy)]
struct Out {
    data: *mut f32,
    row_stride: usize,
    accumulate: bool,
}

/// `activation(old + scale_row scale_column (sum - zero column_sum) + bias)`.
#[inline(always)]
fn finish_body<const FMA: bool, const LANES: usize, P: Pointwise>(sums: &Sums, rows: &[RowScale], columns: &Columns, out: Out) {
    // Plain loops: a closure handed to a function of the library would be compiled without the tier's instructions.
    for first in (0..columns.count).step_by(16) {
        let count = (columns.count - first).min(16);
        let (mut scales, mut bias, mut column_sums) = ([0.0f32; 16], [0.0f32; 16], [0i32; 16]);
        scales.copy_from_slice(&columns.scales[first..first + 16]);
        bias.copy_from_slice(&columns.bias[first..first + 16]);
        column_sums.copy_from_slice(&columns.sums[first..first + 16]);
        let sums = &sums.0.as_chunks::<16>().0[first / 16..];
        for (r, row) in rows.iter().enumerate() {
            let sums = &sums[2 * r];
            // SAFETY: part of a row of the tile, of `count` values.
            let to = unsafe { std::slice::from_raw_parts_mut(out.data.add(r * out.row_stride + first), count) };
            let mut values = [0.0f32; 16];
            for c in 0..16 {
                let sum = sums[c].wrapping_sub(row.zero.wrapping_mul(column_sums[c]));
                values[c] = sum as f32 * (row.scale * scales[c]) + bias[c];
            }
            if out.accumulate {
                for (value, old) in values.iter_mut().zip(&*to) {
                    *value += old;
                }
            }
            for value in &mut values {
                *value = P::value::<FMA>(*value);
            }
            if let Ok(to) = <&mut [f32; 16]>::try_from(&mut *to) {
                *to = values;
            } else {
                to.copy_from_slice(&values[..count]);
            }
        }
    }
}
tiered!(fn finish[P: Pointwise](sums: &Sums, rows: &[RowScale], columns: &Columns, out: Out) = finish_body);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::activation::Activation;
    use crate::kernel::gemm::{Compute, Epilogue, Matrix, MatrixMut, Operand, PackedMatrix, Precision, gemm, gemm_grouped};
    use crate::kernel::noise::noise;
    use crate::kernel::quantize::tests::row_reference;

    /// Rows, inner dimension, columns: empty, single, around the register tile, a run and a panel, few rows, many.
    const SHAPES: [(usize, usize, usize); 12] = [
        (0, 3, 4),
        (3, 0, 5),
        (1, 1, 1),
        (2, 5, 3),
        (14, 64, 32),
        (15, 65, 33),
        (31, 127, 16),
        (33, 256, 17),
        (29, 1024, 64),
        (5, 1030, 500),
        (150, 192, 96),
        (70, 2100, 40),
    ];

    fn computes() -> Vec<Compute> {
        let each = |parallel| Tier::available().map(move |tier| Compute { precision: Precision::Int8, parallel, tier });
        [Parallel::Single, Parallel::Rayon].into_iter().flat_map(each).collect()
    }

    /// The whole product, value by value.
    fn reference(a: &[f32], b: &[f32], (m, k, n): (usize, usize, usize), bias: Option<&[f32]>) -> Vec<f32> {
        let columns: Vec<(Vec<i32>, f32)> = (0..n)
            .map(|c| {
                let size = (0..k).map(|r| b[r * n + c].abs()).fold(0.0, f32::max);
                let inverse = if size == 0.0 { 0.0 } else { 127.0 / size };
                ((0..k).map(|r| (b[r * n + c] * inverse).round_ties_even() as i32).collect(), size / 127.0)
            })
            .collect();
        let mut out = Vec::new();
        for row in 0..m {
            let (bytes, scale, zero) = row_reference(&a[row * k..][..k]);
            for (c, (weights, size)) in columns.iter().enumerate() {
                let sum: i32 = bytes.iter().zip(weights).map(|(x, w)| (x - zero) * w).sum();
                out.push(sum as f32 * (scale * size) + bias.map_or(0.0, |bias| bias[c]));
            }
        }
        out
    }

    #[test]
    fn every_tier_gives_the_reference_exactly() {
        for (case, (m, k, n)) in SHAPES.into_iter().enumerate() {
            let (a, b, bias) = (noise(m * k, case as u64), noise(k * n, 50 + case as u64), noise(n, 90));
            let bias = (case % 3 > 0).then_some(&bias[..]);
            let expected = reference(&a, &b, (m, k, n), bias);
            let turned: Vec<f32> = (0..k).flat_map(|c| (0..m).map(move |r| r * k + c)).map(|i| a[i]).collect();
            for compute in computes() {
                let packed = PackedMatrix::pack(Matrix::new(&b, k, n), compute);
                for a in [Matrix::new(&a, m, k), Matrix::new(&turned, k, m).transposed()] {
                    let epilogue = |activation| Epilogue { bias, activation };
                    let stride = n + case % 2;
                    let mut c = vec![f32::NAN; m * stride];
                    gemm(MatrixMut::strided(&mut c, m, n, stride), Write::Overwrite, a, &packed, epilogue(Activation::Identity), compute);
                    let got: Vec<f32> = (0..m * n).map(|i| c[i / n * stride + i % n]).collect();
                    assert_eq!(got, expected, "{m}x{k}x{n} {compute:?}");
                    assert!((0..m).all(|row| c[row * stride + n..(row + 1) * stride].iter().all(|x| x.is_nan())), "wrote outside");

                    let mut c = expected.clone();
                    gemm(MatrixMut::new(&mut c, m, n), Write::Accumulate, a, &packed, epilogue(Activation::Relu), compute);
                    let twice = expected.iter().map(|x| (x + x).max(0.0));
                    assert!(c.iter().copied().eq(twice), "{m}x{k}x{n} {compute:?}");
                }
            }
        }
    }

    #[test]
    fn activations_follow_the_product() {
        let (m, k, n) = (20, 70, 40);
        let (a, b) = (noise(m * k, 1), noise(k * n, 2));
        let plain = reference(&a, &b, (m, k, n), None);
        for compute in computes() {
            let packed = PackedMatrix::pack(Matrix::new(&b, k, n), compute);
            for activation in [Activation::Relu, Activation::Silu, Activation::Gelu, Activation::Sigmoid] {
                let (mut c, mut expected) = (vec![0.0; m * n], vec![0.0; m * n]);
                activation.forward(&plain, &mut expected);
                let epilogue = Epilogue { bias: None, activation };
                gemm(MatrixMut::new(&mut c, m, n), Write::Overwrite, Matrix::new(&a, m, k), &packed, epilogue, compute);
                // Tiers with and without fused multiply-add round the activation apart, by a few units in the last place.
                let worst = c.iter().zip(&expected).map(|(x, y)| (x - y).abs() / (1.0 + y.abs())).fold(0.0, f32::max);
                assert!(worst <= 1e-6, "{activation:?} {compute:?}: {worst}");
            }
        }
    }

    #[test]
    fn it_is_near_the_product_in_f32() {
        let (m, k, n) = (40, 256, 100);
        let (a, b) = (noise(m * k, 1), noise(k * n, 2));
        let got = reference(&a, &b, (m, k, n), None);
        let exact = |i: usize| (0..k).map(|x| f64::from(a[i / n * k + x]) * f64::from(b[x * n + i % n])).sum::<f64>();
        let error: f64 = (0..m * n).map(|i| (f64::from(got[i]) - exact(i)).powi(2)).sum();
        let size: f64 = (0..m * n).map(|i| exact(i).powi(2)).sum();
        // Uniform values: steps of 2/255 and 1/127 leave 0.4 % and 0.4 % of the root mean square, together 0.6 %.
        assert!((error / size).sqrt() < 0.01, "{}", (error / size).sqrt());
    }

    #[test]
    fn groups_are_products_of_their_own_rows_and_rows_stand_alone() {
        let (k, n) = (80, 72);
        let offsets = [0usize, 0, 7, 7, 200, 260];
        let (groups, rows) = (offsets.len() - 1, 260);
        let (a, w) = (noise(rows * k, 1), noise(groups * k * n, 2));
        for compute in computes() {
            let packed: Vec<_> = w.chunks_exact(k * n).map(|w| PackedMatrix::pack(Matrix::new(w, k, n), compute)).collect();
            let operands: Vec<_> = packed.iter().map(Operand::from).collect();
            let mut c = vec![f32::NAN; rows * n];
            let a_all = Matrix::new(&a, rows, k);
            gemm_grouped(MatrixMut::new(&mut c, rows, n), Write::Overwrite, a_all, &offsets, &operands, |_| Epilogue::NONE, compute);
            for row in 0..rows {
                let e = (0..groups).find(|e| (offsets[*e]..offsets[e + 1]).contains(&row)).unwrap();
                let mut alone = vec![0.0; n];
                let one = a_all.rows(row..row + 1);
                gemm(MatrixMut::new(&mut alone, 1, n), Write::Overwrite, one, &packed[e], Epilogue::NONE, compute);
                assert_eq!(c[row * n..(row + 1) * n], alone, "row {row} {compute:?}");
            }
        }
    }

    #[test]
    fn what_is_not_finite_spoils_its_own_row_only() {
        let (a, b) = ([f32::NAN, 1.0, 1.0, f32::INFINITY, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]);
        for compute in computes() {
            let packed = PackedMatrix::pack(Matrix::new(&b, 2, 2), compute);
            let mut c = [0.0; 6];
            gemm(MatrixMut::new(&mut c, 3, 2), Write::Overwrite, Matrix::new(&a, 3, 2), &packed, Epilogue::NONE, compute);
            assert!(c[..4].iter().all(|x| x.is_nan()) && c[4..] == [2.0, 2.0], "{c:?} {compute:?}");
        }
    }
}
