//! Matrix products on plain f32 slices: `c (+)= a . b`, with bias and activation on the way out.
//!
//! [`Precision::F32`] is the `gemm` crate. [`Precision::Bf16`] rounds both operands to bfloat16 and sums in f32; where the CPU has no
//! instruction for that, it is computed as F32. [`Precision::Int8`] is for weights, which are packed before: rows of the left operand are
//! rounded to 8 bits on the way in. Outputs are row-major; transposed operands are views with swapped strides.

use rayon::prelude::*;

use super::cpu::Tier;
use super::gemm_bf16::{self, Job, Output, Right};
use super::gemm_f32;
use super::gemm_int8;
use super::pack::Line;
use super::quantize::{Int8Matrix, MAX_DEPTH};

pub use super::activation::Activation;
pub use super::epilogue::Epilogue;
pub use super::matrix::{Matrix, MatrixMut};

/// Arithmetic of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Operands and sums in f32.
    F32,
    /// Operands rounded to bfloat16, sums in f32; F32 where the CPU lacks it.
    Bf16,
    /// Packed weights in 8 bits, one scale per column, by rows in 8 bits, one scale per row; other products as Bf16. For inference.
    Int8,
}

/// Who computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Parallel {
    /// The rayon pool of the caller.
    Rayon,
    /// The calling thread alone.
    Single,
}

/// What a product does with the output's old values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Write {
    /// Forgets them (they may be anything, NaN too).
    Overwrite,
    /// Adds to them.
    Accumulate,
}

/// How to compute: precision, threads, instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Compute {
    /// Arithmetic of the products.
    pub precision: Precision,
    /// Threads.
    pub parallel: Parallel,
    /// Highest instruction tier to use; a tier the machine lacks is lowered to what it has.
    pub tier: Tier,
}

impl Compute {
    /// `precision` and `parallel` at this machine's tier.
    pub fn new(precision: Precision, parallel: Parallel) -> Self {
        Self { precision, parallel, tier: Tier::detected() }
    }

    /// Whether products of views really are computed in bfloat16.
    pub fn is_bf16(self) -> bool {
        self.precision != Precision::F32 && self.tier.capped() >= Tier::Avx512Bf16
    }
}

/// A right operand made ready once for many products (weights at inference).
#[derive(Clone)]
pub struct PackedMatrix {
    rows: usize,
    columns: usize,
    storage: Storage,
}

#[derive(Clone)]
enum Storage {
    Bf16(Vec<Line>),
    F32(Vec<f32>),
    Int8(Int8Matrix),
}

impl std::fmt::Debug for PackedMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PackedMatrix({} x {})", self.rows, self.columns)
    }
}

impl PackedMatrix {
    /// Packs `b` for `compute`: 8-bit or bfloat16 panels where they will be used, else a row-major f32 copy.
    pub fn pack(b: Matrix<'_>, compute: Compute) -> Self {
        let storage = if compute.precision == Precision::Int8 && b.rows <= MAX_DEPTH {
            Storage::Int8(Int8Matrix::new(compute.tier.capped().vector(), &b))
        } else if compute.is_bf16() {
            let mut lines = vec![Line([0; 16]); gemm_bf16::packed_lines(b.rows, b.columns)];
            gemm_bf16::pack_whole(&b, &mut lines);
            Storage::Bf16(lines)
        } else {
            let row = |r| (0..b.columns).map(move |c| b.data[r * b.row_stride + c * b.column_stride]);
            Storage::F32((0..b.rows).flat_map(row).collect())
        };
        Self { rows: b.rows, columns: b.columns, storage }
    }

    /// Number of rows and columns.
    pub fn shape(&self) -> (usize, usize) {
        (self.rows, self.columns)
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        match &self.storage {
            Storage::Bf16(lines) => size_of_val(&lines[..]),
            Storage::F32(values) => size_of_val(&values[..]),
            Storage::Int8(matrix) => matrix.bytes(),
        }
    }
}

/// A right operand as it comes: a view, or packed before.
#[derive(Debug, Clone, Copy)]
pub enum Operand<'a> {
    /// Packed by the call.
    View(Matrix<'a>),
    /// Packed once; one packed in bfloat16 or 8 bits is multiplied in that whatever the call's precision. All operands of a call are alike.
    Packed(&'a PackedMatrix),
}

impl<'a> From<Matrix<'a>> for Operand<'a> {
    fn from(b: Matrix<'a>) -> Self {
        Self::View(b)
    }
}

impl<'a> From<&'a PackedMatrix> for Operand<'a> {
    fn from(b: &'a PackedMatrix) -> Self {
        Self::Packed(b)
    }
}

impl<'a> Operand<'a> {
    /// Number of rows and columns.
    pub fn shape(self) -> (usize, usize) {
        match self {
            Self::View(b) => b.shape(),
            Self::Packed(b) => b.shape(),
        }
    }

    fn right(self) -> Right<'a> {
        match self {
            Self::View(b) => Right::View(b),
            Self::Packed(b) => match &b.storage {
                Storage::Bf16(lines) => Right::Packed(lines),
                Storage::F32(data) => Right::View(Matrix::new(data, b.rows, b.columns)),
                Storage::Int8(matrix) => Right::Int8(matrix),
            },
        }
    }
}

/// `c (+)= a . b`, then `epilogue`.
///
/// # Shapes
/// `c` `[m, n]`, `a` `[m, k]`, `b` `[k, n]`, bias `[n]`. Panics where they disagree.
pub fn gemm<'a>(c: MatrixMut<'_>, write: Write, a: Matrix<'a>, b: impl Into<Operand<'a>>, epilogue: Epilogue<'a>, compute: Compute) {
    let b = b.into();
    let job = job(&c, 0..c.rows, write, a, b, epilogue);
    // SAFETY: `c` is borrowed mutably; `job` checked the shapes.
    unsafe { run(&[job], compute) }
}

/// Products of groups of rows with a matrix each (experts): `c[rows of e] (+)= a[rows of e] . weights[e]`, then `epilogue(e)`.
///
/// # Shapes
/// `c` `[rows, n]`, `a` `[rows, k]`, `offsets` `[groups + 1]` rising from 0 to `rows` (group `e` is rows `offsets[e]..offsets[e + 1]`, and
/// may be empty), `weights` one `[k, n]` per group. Panics where they disagree.
pub fn gemm_grouped<'a, 'e: 'a>(
    c: MatrixMut<'_>,
    write: Write,
    a: Matrix<'a>,
    offsets: &[usize],
    weights: &[Operand<'a>],
    epilogue: impl Fn(usize) -> Epilogue<'e>,
    compute: Compute,
) {
    check_offsets(offsets, weights.len(), a.rows);
    assert_eq!(c.rows, a.rows, "output rows");
    let group = |e: usize| offsets[e]..offsets[e + 1];
    let filled = (0..weights.len()).filter(|e| !group(*e).is_empty());
    let jobs: Vec<_> = filled.map(|e| job(&c, group(e), write, a.rows(group(e)), weights[e], epilogue(e))).collect();
    // SAFETY: `c` is borrowed mutably and the groups' rows are disjoint; `job` checked the shapes.
    unsafe { run(&jobs, compute) }
}

/// Products over the rows of each group (gradients of experts' weights): `c[e] (+)= a[rows of e]^T . b[rows of e]`.
///
/// # Shapes
/// `c` `[groups * m, n]` (matrix `e` is rows `e * m..`), `a` `[rows, m]`, `b` `[rows, n]`, `offsets` as in [`gemm_grouped`]; an empty
/// group's product is zero. Panics where they disagree.
pub fn gemm_grouped_outer(c: MatrixMut<'_>, write: Write, a: Matrix<'_>, b: Matrix<'_>, offsets: &[usize], compute: Compute) {
    let groups = offsets.len().saturating_sub(1);
    check_offsets(offsets, groups, a.rows);
    assert_eq!(b.rows, a.rows, "rows of the operands");
    assert_eq!(c.rows, groups * a.columns, "output rows");
    let group = |e: usize| offsets[e]..offsets[e + 1];
    let product = |e: usize| {
        let rows = e * a.columns..(e + 1) * a.columns;
        job(&c, rows, write, a.rows(group(e)).transposed(), Operand::View(b.rows(group(e))), Epilogue::NONE)
    };
    // SAFETY: `c` is borrowed mutably and the groups' matrices are disjoint; `job` checked the shapes.
    unsafe { run(&(0..groups).map(product).collect::<Vec<_>>(), compute) }
}

fn check_offsets(offsets: &[usize], groups: usize, rows: usize) {
    assert!(offsets.len() == groups + 1 && offsets.is_sorted(), "{groups} groups need rising offsets, one more than groups");
    assert!(offsets[0] == 0 && offsets[groups] == rows, "offsets end at {} of {rows} rows", offsets[groups]);
}

/// The product of `a` and `b` into `rows` of `c`, all shapes checked.
fn job<'a>(
    c: &MatrixMut<'_>,
    rows: std::ops::Range<usize>,
    write: Write,
    a: Matrix<'a>,
    b: Operand<'a>,
    epilogue: Epilogue<'a>,
) -> Job<'a> {
    let (depth, columns) = b.shape();
    assert!(rows.end <= c.rows && rows.len() == a.rows, "rows {rows:?} of {} for {}", c.rows, a.rows);
    assert_eq!(c.columns, columns, "output columns");
    assert_eq!(a.columns, depth, "inner dimensions");
    assert!(epilogue.bias.is_none_or(|bias| bias.len() == columns), "one bias per column");
    let out = Output { data: c.data.as_ptr().cast_mut().wrapping_add(rows.start * c.row_stride), row_stride: c.row_stride };
    Job { a, right: b.right(), columns, c: out, write, epilogue }
}

/// Runs jobs with disjoint outputs.
///
/// # Safety
/// Every output is writable for its job's rows and columns and not touched by others.
unsafe fn run(jobs: &[Job<'_>], compute: Compute) {
    if jobs.iter().any(|job| matches!(job.right, Right::Int8(_))) {
        // SAFETY: the caller's promise.
        return unsafe { gemm_int8::run(jobs, compute.tier, compute.parallel) };
    }
    if compute.is_bf16() || jobs.iter().any(|job| matches!(job.right, Right::Packed(_))) {
        // SAFETY: the caller's promise; packed lines have their matrix's shape, and exist only where the tier does.
        return unsafe { gemm_bf16::run(jobs, compute.tier, compute.parallel) };
    }
    match jobs {
        // SAFETY: the caller's promise.
        [job] => unsafe { gemm_f32::run(job, compute.tier, compute.parallel) },
        _ if compute.parallel == Parallel::Rayon => {
            let blocks: Vec<_> = jobs.iter().flat_map(gemm_f32::row_blocks).collect();
            // SAFETY: blocks are disjoint parts of disjoint outputs.
            blocks.par_iter().with_max_len(1).for_each(|job| unsafe { gemm_f32::run(job, compute.tier, Parallel::Single) });
        }
        // SAFETY: the caller's promise.
        _ => jobs.iter().for_each(|job| unsafe { gemm_f32::run(job, compute.tier, Parallel::Single) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::noise::noise;
    use crate::kernel::words::round_bf16;

    /// f32 products against f64 sums, relative to the sum of magnitudes.
    const F32_TOLERANCE: f64 = 1e-5;
    /// bfloat16 products against f64 sums of rounded operands: the instruction's sums are f32.
    const BF16_TOLERANCE: f64 = 1e-4;
    /// Rows, inner dimension, columns: empty, single, around the register tile, around a pass, more than one task, a large right one.
    const SHAPES: [(usize, usize, usize); 15] = [
        (0, 3, 4),
        (3, 0, 5),
        (1, 1, 1),
        (2, 5, 3),
        (14, 32, 32),
        (15, 33, 33),
        (13, 31, 16),
        (29, 511, 17),
        (28, 512, 64),
        (43, 513, 49),
        (1, 1030, 70),
        (130, 192, 96),
        (20, 100, 500),
        (200, 40, 200),
        (40, 1100, 600),
    ];

    fn rounded(x: f32, bf16: bool) -> f64 {
        f64::from(if bf16 { f32::from_bits(u32::from(round_bf16(x)) << 16) } else { x })
    }

    /// One output value in f64 and the sum of magnitudes its error is relative to.
    fn reference(a: &Matrix<'_>, b: &Matrix<'_>, (r, c): (usize, usize), old: f32, epilogue: Epilogue<'_>, bf16: bool) -> (f64, f64) {
        let bias = epilogue.bias.map_or(0.0, |bias| f64::from(bias[c]));
        let (mut sum, mut size) = (f64::from(old) + bias, f64::from(old).abs() + bias.abs() + 1e-3);
        for i in 0..a.columns {
            let x = rounded(a.data[r * a.row_stride + i * a.column_stride], bf16);
            let y = rounded(b.data[i * b.row_stride + c * b.column_stride], bf16);
            sum += x * y;
            size += (x * y).abs();
        }
        let value = match epilogue.activation {
            Activation::Identity => sum,
            Activation::Relu => sum.max(0.0),
            Activation::Silu => sum / (1.0 + (-sum).exp()),
            Activation::Gelu => sum * gelu_weight(sum),
            Activation::Sigmoid => 1.0 / (1.0 + (-sum).exp()),
        };
        (value, size)
    }

    /// Standard normal distribution, by its series.
    fn gelu_weight(x: f64) -> f64 {
        if x.abs() > 9.0 {
            return if x > 0.0 { 1.0 } else { 0.0 };
        }
        let (mut term, mut sum) = (x, x);
        for i in 1..400 {
            term *= x * x / f64::from(2 * i + 1);
            sum += term;
        }
        (0.5 + sum * (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt()).clamp(0.0, 1.0)
    }

    fn computes() -> Vec<Compute> {
        let mut all = Vec::new();
        for tier in Tier::available() {
            for parallel in [Parallel::Single, Parallel::Rayon] {
                all.extend([Precision::F32, Precision::Bf16].map(|precision| Compute { precision, parallel, tier }));
            }
        }
        all
    }

    fn compare(got: &[f32], stride: usize, rows: usize, columns: usize, what: &str, bf16: bool, want: impl Fn(usize, usize) -> (f64, f64)) {
        let mut worst = (0.0f64, 0, 0);
        for r in 0..rows {
            for c in 0..columns {
                let (value, size) = want(r, c);
                let error = (f64::from(got[r * stride + c]) - value).abs() / size;
                if error.is_nan() || error > worst.0 {
                    worst = (if error.is_nan() { f64::INFINITY } else { error }, r, c);
                }
            }
        }
        let tolerance = if bf16 { BF16_TOLERANCE } else { F32_TOLERANCE };
        assert!(worst.0 <= tolerance, "{what}: largest error {:e} at ({}, {})", worst.0, worst.1, worst.2);
    }

    #[test]
    fn products_match_the_reference_in_every_layout_tier_and_precision() {
        for (case, (m, k, n)) in SHAPES.into_iter().enumerate() {
            let (extra, seed) = (case % 3, case as u64);
            let stride = n + extra;
            let a_data = noise((m + 2) * (k + 2), seed);
            let b_data = noise((k + 2) * (n + 2), seed + 100);
            let bias = noise(n, seed + 200);
            let lefts = [Matrix::strided(&a_data, m, k, k + extra, 1), Matrix::strided(&a_data, k, m, m + extra, 1).transposed()];
            let rights = [Matrix::strided(&b_data, k, n, n + extra, 1), Matrix::strided(&b_data, n, k, k + extra, 1).transposed()];
            for (layout, (a, b)) in lefts.into_iter().flat_map(|a| rights.map(|b| (a, b))).enumerate() {
                let write = if (case + layout) % 2 == 0 { Write::Overwrite } else { Write::Accumulate };
                let activation = [Activation::Identity, Activation::Relu, Activation::Silu, Activation::Gelu][(case + layout / 2) % 4];
                let epilogue = Epilogue { bias: (layout != 1).then_some(&bias[..]), activation };
                let overwrite = write == Write::Overwrite;
                let old = if overwrite { vec![f32::NAN; m * stride + 1] } else { noise(m * stride + 1, seed + 300) };
                let tables = [false, true].map(|bf16| {
                    let cell = |i: usize| (i / n.max(1), i % n.max(1));
                    let before = |(r, c)| if overwrite { 0.0 } else { old[r * stride + c] };
                    (0..m * n).map(|i| reference(&a, &b, cell(i), before(cell(i)), epilogue, bf16)).collect::<Vec<_>>()
                });
                for compute in computes() {
                    let packed = PackedMatrix::pack(b, compute);
                    for b in [Operand::from(b), Operand::from(&packed)] {
                        let mut c = old.clone();
                        gemm(MatrixMut::strided(&mut c, m, n, stride), write, a, b, epilogue, compute);
                        let what = format!("{m}x{k}x{n} layout {layout} {compute:?} {write:?} {activation:?}");
                        let table = &tables[usize::from(compute.is_bf16())];
                        compare(&c, stride, m, n, &what, compute.is_bf16(), |r, c| table[r * n + c]);
                        let outside = (0..=m * stride).filter(|i| i % stride.max(1) >= n || *i == m * stride);
                        outside.for_each(|i| assert_eq!(c[i].to_bits(), old[i].to_bits(), "{what}: wrote outside at {i}"));
                    }
                }
            }
        }
    }

    #[test]
    fn operands_without_a_contiguous_direction_are_packed_too() {
        let (m, k, n) = (15, 37, 35);
        let (a, b) = (noise(m * k * 6, 1), noise(k * n * 6, 2));
        let (a, b) = (Matrix::strided(&a, m, k, 3 * k, 3), Matrix::strided(&b, k, n, 2, 2 * k));
        for compute in computes() {
            let mut c = vec![0.0; m * n];
            gemm(MatrixMut::new(&mut c, m, n), Write::Overwrite, a, b, Epilogue::NONE, compute);
            let bf16 = compute.is_bf16();
            compare(&c, n, m, n, "strided", bf16, |r, col| reference(&a, &b, (r, col), 0.0, Epilogue::NONE, bf16));
        }
    }

    #[test]
    fn groups_are_products_of_their_own_rows() {
        let (k, n) = (48, 80);
        let offsets = [0usize, 0, 7, 7, 200, 260];
        let groups = offsets.len() - 1;
        let rows = offsets[groups];
        let (a, w, g, bias) = (noise(rows * k, 1), noise(groups * k * n, 2), noise(rows * n, 3), noise(groups * n, 4));
        let (a, g) = (Matrix::new(&a, rows, k), Matrix::new(&g, rows, n));
        let weight = |e: usize| Matrix::new(&w[e * k * n..(e + 1) * k * n], k, n);
        let epilogue = |e: usize| Epilogue { bias: Some(&bias[e * n..(e + 1) * n]), activation: Activation::Relu };
        for compute in computes() {
            let bf16 = compute.is_bf16();
            let packed: Vec<_> = (0..groups).map(|e| PackedMatrix::pack(weight(e), compute)).collect();
            let views: Vec<_> = (0..groups).map(|e| Operand::from(weight(e))).collect();
            for weights in [views, packed.iter().map(Operand::from).collect()] {
                let mut c = vec![f32::NAN; rows * n];
                gemm_grouped(MatrixMut::new(&mut c, rows, n), Write::Overwrite, a, &offsets, &weights, epilogue, compute);
                compare(&c, n, rows, n, "grouped", bf16, |r, col| {
                    let e = (0..groups).find(|e| (offsets[*e]..offsets[e + 1]).contains(&r)).unwrap();
                    reference(&a, &weight(e), (r, col), 0.0, epilogue(e), bf16)
                });
            }
            let mut outer = vec![f32::NAN; groups * k * n];
            gemm_grouped_outer(MatrixMut::new(&mut outer, groups * k, n), Write::Overwrite, a, g, &offsets, compute);
            compare(&outer, n, groups * k, n, "outer", bf16, |r, col| {
                let group = offsets[r / k]..offsets[r / k + 1];
                reference(&a.rows(group.clone()).transposed(), &g.rows(group), (r % k, col), 0.0, Epilogue::NONE, bf16)
            });
        }
    }

    #[test]
    fn a_row_does_not_depend_on_the_rows_around_it() {
        let (m, k, n) = (301, 192, 160);
        let (a, b) = (noise(m * k, 5), noise(k * n, 6));
        let compute = Compute::new(Precision::Bf16, Parallel::Rayon);
        let product = |rows: std::ops::Range<usize>| {
            let mut c = vec![0.0; rows.len() * n];
            let a = Matrix::new(&a, m, k).rows(rows.clone());
            gemm(MatrixMut::new(&mut c, rows.len(), n), Write::Overwrite, a, Matrix::new(&b, k, n), Epilogue::NONE, compute);
            c
        };
        let all = product(0..m);
        if compute.is_bf16() {
            assert_eq!(product(17..60), all[17 * n..60 * n]);
        }
    }

    #[test]
    fn nan_passes_through_activations() {
        for compute in computes() {
            for activation in [Activation::Identity, Activation::Relu, Activation::Silu, Activation::Sigmoid] {
                let mut c = [0.0; 4];
                let (a, b) = ([f32::NAN, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]);
                let epilogue = Epilogue { bias: None, activation };
                gemm(MatrixMut::new(&mut c, 2, 2), Write::Overwrite, Matrix::new(&a, 2, 2), Matrix::new(&b, 2, 2), epilogue, compute);
                assert!(c[0].is_nan() && c[1].is_nan() && c[2].is_finite() && c[3].is_finite(), "{compute:?} {activation:?} {c:?}");
            }
        }
    }
}
