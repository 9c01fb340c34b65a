//! Matrix products of bfloat16-rounded operands with f32 sums: blocks, split over threads, the register tile of `vdpbf16ps`.

use std::ops::Range;

use rayon::prelude::*;

use super::activation::Activation;
#[cfg(target_arch = "x86_64")]
use super::amx;
use super::cpu::Tier;
use super::epilogue::{Epilogue, activate};
use super::gemm::{Parallel, Write};
use super::matrix::Matrix;
use super::pack::*;
use super::quantize::Int8Matrix;

/// Row panels of one task at most: 8 x 14 rows x 512 `k` are 112 KiB (tiles: 8 x 32 rows, 256 KiB), a part of the second-level cache.
const BLOCK_PANELS: usize = 8;
/// Lines of a packed right operand that stays in the second-level cache beside the rest: 1 MiB.
const CACHED_LINES: usize = 1 << 14;
/// Tasks per thread, so that an interrupted core does not hold the others.
pub(super) const TASKS_PER_THREAD: usize = 4;
/// Products under this many multiplications are not worth waking a second thread.
const PARALLEL_FROM: usize = 1 << 20;

/// The right operand: to be packed by the call, or packed before (all passes, all panels).
#[derive(Clone, Copy)]
pub(super) enum Right<'a> {
    View(Matrix<'a>),
    Packed(&'a [Line]),
    /// Weights in 8 bits: [`super::gemm_int8`]'s.
    Int8(&'a Int8Matrix),
}

/// Where a product goes: rows `row_stride` apart, columns contiguous.
#[derive(Clone, Copy)]
pub(super) struct Output {
    pub data: *mut f32,
    pub row_stride: usize,
}

// SAFETY: tasks write disjoint rows or columns of an output borrowed mutably for the whole call.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

/// One product `c (+)= a . right`, with `columns` columns.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    pub a: Matrix<'a>,
    pub right: Right<'a>,
    pub columns: usize,
    pub c: Output,
    pub write: Write,
    pub epilogue: Epilogue<'a>,
}

/// Lines of a whole packed right operand of `k` x `columns`.
pub(super) fn packed_lines(k: usize, columns: usize) -> usize {
    let panels = columns.div_ceil(COLUMNS);
    passes(k).map(|pass| right_lines(panels, pass.len())).sum()
}

/// Packs all of `b`.
pub(super) fn pack_whole(b: &Matrix<'_>, target: &mut [Line]) {
    assert!(Tier::detected() >= Tier::Avx512Bf16 && target.len() >= packed_lines(b.rows, b.columns));
    for_each(Parallel::Single, pack_tasks(b, target), |task| task.run());
}

/// A part of a right operand to pack.
struct PackTask<'t> {
    b: Matrix<'t>,
    panels: Range<usize>,
    k: Range<usize>,
    target: &'t mut [Line],
}

impl PackTask<'_> {
    fn run(self) {
        // SAFETY: made only behind a check for the tier (`run`, `pack_whole`).
        #[cfg(target_arch = "x86_64")]
        unsafe {
            pack_right(&self.b, self.panels, self.k, self.target);
        }
    }
}

fn pack_tasks<'t>(b: &Matrix<'t>, mut target: &'t mut [Line]) -> Vec<PackTask<'t>> {
    /// Panels of one task: 128 KiB of packed words.
    const PANELS: usize = 4;
    let count = b.columns.div_ceil(COLUMNS);
    let mut tasks = Vec::new();
    for k in passes(b.rows) {
        for first in (0..count).step_by(PANELS) {
            let panels = first..(first + PANELS).min(count);
            let (part, rest) = target.split_at_mut(right_lines(panels.len(), k.len()));
            tasks.push(PackTask { b: *b, panels, k: k.clone(), target: part });
            target = rest;
        }
    }
    tasks
}

fn for_each<T: Send>(parallel: Parallel, tasks: Vec<T>, f: impl Fn(T) + Send + Sync) {
    match parallel {
        Parallel::Rayon if tasks.len() > 1 => tasks.into_par_iter().with_max_len(1).for_each(f),
        _ => tasks.into_iter().for_each(f),
    }
}

/// Computes all `jobs` with the instructions of `tier` (or [`Tier::Avx512Bf16`] where that is higher); their outputs must not overlap.
///
/// # Safety
/// Every output is writable for `a.rows` rows of `columns` values and not touched by others during the call; a packed right operand is
/// of `a.columns` x `columns`.
pub(super) unsafe fn run(jobs: &[Job<'_>], tier: Tier, parallel: Parallel) {
    assert!(Tier::detected() >= Tier::Avx512Bf16);
    let unit = Unit::of(tier);
    let work: usize = jobs.iter().map(|job| job.a.rows * job.a.columns * job.columns).sum();
    let is_alone = work < PARALLEL_FROM || parallel == Parallel::Single || rayon::current_num_threads() == 1;
    let parallel = if is_alone { Parallel::Single } else { parallel };
    match jobs {
        _ if is_alone => jobs.iter().for_each(|job| match &job.right {
            Right::View(b) if packed_lines(b.rows, b.columns) > CACHED_LINES => by_passes(job, b, unit),
            _ => by_rows(std::slice::from_ref(job), unit, parallel),
        }),
        [job] if job.a.rows * 2 <= job.columns && parallel == Parallel::Rayon => by_columns(job, unit),
        _ => by_rows(jobs, unit, parallel),
    }
}

/// Panels per task when `panels` panels are cut for `parallel`.
pub(super) fn block_panels(panels: usize, parallel: Parallel) -> usize {
    match parallel {
        Parallel::Single => BLOCK_PANELS,
        Parallel::Rayon => (panels / (TASKS_PER_THREAD * rayon::current_num_threads())).clamp(1, BLOCK_PANELS),
    }
}

/// The right operands are packed first and shared; a task packs and multiplies a block of rows.
fn by_rows(jobs: &[Job<'_>], unit: Unit, parallel: Parallel) {
    let lines = |job: &Job<'_>| match job.right {
        Right::View(b) => packed_lines(b.rows, b.columns),
        Right::Packed(_) | Right::Int8(_) => 0,
    };
    with_lines(jobs.iter().map(lines).sum(), |buffer| {
        let (mut rest, mut packing) = (&mut *buffer, Vec::new());
        for job in jobs {
            let (part, after) = rest.split_at_mut(lines(job));
            rest = after;
            if let Right::View(b) = &job.right {
                packing.extend(pack_tasks(b, part));
            }
        }
        for_each(parallel, packing, |task| task.run());

        let all_panels = jobs.iter().map(|job| RowPanels::new(job.a.rows, unit).count).sum();
        let step = block_panels(all_panels, parallel);
        let (mut rest, mut tasks) = (&*buffer, Vec::new());
        for job in jobs {
            let (part, after) = rest.split_at(lines(job));
            rest = after;
            let right = if let Right::Packed(lines) = job.right { lines } else { part };
            let count = RowPanels::new(job.a.rows, unit).count;
            tasks.extend((0..count).step_by(step).map(|first| (job, right, first..(first + step).min(count))));
        }
        for_each(parallel, tasks, |(job, right, panels)| row_task(job, right, RowPanels::new(job.a.rows, unit), panels));
    });
}

/// For one thread and a right operand that is large when packed: one pass of it at a time is packed and used up.
fn by_passes(job: &Job<'_>, b: &Matrix<'_>, unit: Unit) {
    let (rows, columns) = (RowPanels::new(job.a.rows, unit), job.columns.div_ceil(COLUMNS));
    with_lines(right_lines(columns, DEPTH), |right| {
        with_lines(unit.left_lines(BLOCK_PANELS), |left| {
            for k in passes(b.rows) {
                PackTask { b: *b, panels: 0..columns, k: k.clone(), target: right }.run();
                for first in (0..rows.count).step_by(BLOCK_PANELS) {
                    let panels = first..(first + BLOCK_PANELS).min(rows.count);
                    // SAFETY: `run` checked the tier.
                    #[cfg(target_arch = "x86_64")]
                    unsafe {
                        pack_left(&job.a, rows, panels.clone(), k.clone(), left);
                    }
                    block(job, &k, rows, panels, left, 0..columns, right);
                }
            }
        });
    });
}

fn row_task(job: &Job<'_>, mut right: &[Line], rows: RowPanels, panels: Range<usize>) {
    let columns = job.columns.div_ceil(COLUMNS);
    with_lines(rows.unit.left_lines(panels.len()), |left| {
        for k in passes(job.a.columns) {
            // SAFETY: `run` checked the tier.
            #[cfg(target_arch = "x86_64")]
            unsafe {
                pack_left(&job.a, rows, panels.clone(), k.clone(), left);
            }
            let (this, after) = right.split_at(right_lines(columns, k.len()));
            block(job, &k, rows, panels.clone(), left, 0..columns, this);
            right = after;
        }
    });
}

/// For few rows: the left operand is packed first and shared; a task packs and multiplies a block of columns.
fn by_columns(job: &Job<'_>, unit: Unit) {
    let rows = RowPanels::new(job.a.rows, unit);
    let columns = job.columns.div_ceil(COLUMNS);
    let step = block_panels(columns, Parallel::Rayon);
    let pass_lines = unit.left_lines(rows.count);
    with_lines(passes(job.a.columns).count() * pass_lines, |buffer| {
        let (mut rest, mut packing) = (&mut *buffer, Vec::new());
        for k in passes(job.a.columns) {
            let (part, after) = rest.split_at_mut(pass_lines);
            rest = after;
            packing.push((k, part));
        }
        for_each(Parallel::Rayon, packing, |(k, part)| {
            // SAFETY: `run` checked the tier.
            #[cfg(target_arch = "x86_64")]
            unsafe {
                pack_left(&job.a, rows, 0..rows.count, k, part);
            }
        });
        let tasks: Vec<_> = (0..columns).step_by(step).map(|first| first..(first + step).min(columns)).collect();
        for_each(Parallel::Rayon, tasks, |panels| {
            with_lines(right_lines(panels.len(), DEPTH), |scratch| {
                let (mut left, mut pass_start) = (&*buffer, 0);
                for k in passes(job.a.columns) {
                    let (this, after) = left.split_at(pass_lines);
                    left = after;
                    let right = match &job.right {
                        Right::View(b) => {
                            PackTask { b: *b, panels: panels.clone(), k: k.clone(), target: scratch }.run();
                            &*scratch
                        }
                        Right::Packed(lines) => &lines[pass_start + right_lines(panels.start, k.len())..],
                        Right::Int8(_) => unreachable!("the operands of one call are packed alike"),
                    };
                    pass_start += right_lines(columns, k.len());
                    block(job, &k, rows, 0..rows.count, this, panels.clone(), right);
                }
            });
        });
    });
}

/// Multiplies packed row panels by packed column panels over the pass `k` into the output.
fn block(
    job: &Job<'_>,
    k: &Range<usize>,
    rows: RowPanels,
    row_panels: Range<usize>,
    left: &[Line],
    column_panels: Range<usize>,
    right: &[Line],
) {
    let unit = rows.unit;
    let (first_pass, last_pass) = (k.start == 0, k.end == job.a.columns);
    let bias_pass = if unit == Unit::Tiles { first_pass } else { last_pass };
    let activation = job.epilogue.activation;
    let has_floor = unit == Unit::Vectors && activation == Activation::Relu;
    let pairs = pairs(k.len());
    assert!(unit.left_lines(row_panels.len()) <= left.len() && right_lines(column_panels.len(), k.len()) <= right.len());
    // SAFETY: the unit is tiles only where the CPU has them.
    #[cfg(target_arch = "x86_64")]
    let mut tiles = (unit == Unit::Tiles).then(|| (unsafe { amx::Tiles::configure() }, amx::Scratch::NEW));
    let (row_count, column_count) = (row_panels.len(), column_panels.len());
    // Tiles leave the output at a speed that matters: row by row it is written in the order it lies in memory.
    let by_rows = unit == Unit::Tiles;
    for step in 0..row_count * column_count {
        let (i, j) = if by_rows { (step / column_count, step % column_count) } else { (step % row_count, step / row_count) };
        let (row_panel, column) = (row_panels.start + i, (column_panels.start + j) * COLUMNS);
        let columns = (job.columns - column).min(COLUMNS);
        let bias = if bias_pass { job.epilogue.bias.map(|bias| &bias[column..column + columns]) } else { None };
        let (row, end) = (rows.start(row_panel), rows.start(row_panel + 1));
        let mut tile = Tile {
            pairs,
            left: &left[unit.left_lines(i)..],
            row_wise: is_row_wise(&job.a),
            right: &right[right_lines(j, k.len())..],
            // SAFETY: the tile lies in the output the caller of `run` vouches for.
            c: unsafe { job.c.data.add(row * job.c.row_stride + column) },
            row_stride: job.c.row_stride,
            rows: end - row,
            columns,
            accumulate: !first_pass || job.write == Write::Accumulate,
            floor: if last_pass && has_floor { 0.0 } else { f32::NEG_INFINITY },
            bias,
        };
        // SAFETY: the tier is there (`run`), the panels are long enough (asserted), the output is ours.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            match &mut tiles {
                Some((tiles, scratch)) => amx::multiply(&tile, tiles, scratch),
                None => tile.run(),
            }
        }
        if last_pass && !has_floor {
            tile.activate(activation);
        }
    }
}

/// One register tile and what happens when it is stored.
pub(super) struct Tile<'t> {
    pub pairs: usize,
    pub left: &'t [Line],
    row_wise: bool,
    pub right: &'t [Line],
    pub c: *mut f32,
    pub row_stride: usize,
    pub rows: usize,
    pub columns: usize,
    pub accumulate: bool,
    floor: f32,
    pub bias: Option<&'t [f32]>,
}

impl Tile<'_> {
    /// The rows of the output, one after the other, through an activation while they are in the first-level cache.
    fn activate(&mut self, activation: Activation) {
        if activation == Activation::Identity {
            return;
        }
        for row in 0..self.rows {
            // SAFETY: a row of the tile that `run` just wrote.
            let values = unsafe { std::slice::from_raw_parts_mut(self.c.add(row * self.row_stride), self.columns) };
            activate(activation, values, Tier::Avx512Bf16);
        }
    }

    /// # Safety
    /// The tier is there; `left` is a panel of `rows` rows, `right` has `pairs` times one line per 16 columns; `c` is writable.
    #[cfg(target_arch = "x86_64")]
    unsafe fn run(&self) {
        macro_rules! by_rows {
            ($($rows:literal)*) => {
                match (self.rows, self.columns > 16, self.row_wise) {
                    // SAFETY: the caller's promise.
                    $(($rows, false, false) => unsafe { self.multiply::<$rows, 1, false>() },
                      ($rows, false, true) => unsafe { self.multiply::<$rows, 1, true>() },
                      ($rows, true, false) => unsafe { self.multiply::<$rows, 2, false>() },
                      ($rows, true, true) => unsafe { self.multiply::<$rows, 2, true>() },)*
                    _ => unreachable!("row panels hold 1 to 14 rows"),
                }
            };
        }
        by_rows!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
    unsafe fn multiply<const ROWS: usize, const VECTORS: usize, const ROW_WISE: bool>(&self) {
        use std::arch::x86_64::*;
        let mut sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
        let (mut left, mut right) = (self.left.as_ptr().cast::<u32>(), self.right.as_ptr());
        let row_stride = if ROW_WISE { ROW_STRIDE } else { 1 };
        // SAFETY: `run`'s promise about the lengths of both panels; masks keep loads and stores of the output to its columns.
        unsafe {
            for _ in 0..self.pairs {
                let mut b = [_mm512_setzero_si512(); VECTORS];
                for (v, b) in b.iter_mut().enumerate() {
                    *b = _mm512_load_si512(right.add(v).cast());
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let a = _mm512_set1_epi32(left.add(r * row_stride).read() as i32);
                    for (sum, b) in sums.iter_mut().zip(b) {
                        *sum = _mm512_dpbf16_ps(
                            *sum,
                            std::mem::transmute::<__m512i, __m512bh>(a),
                            std::mem::transmute::<__m512i, __m512bh>(b),
                        );
                    }
                }
                left = left.add(if ROW_WISE { 1 } else { ROWS });
                right = right.add(VECTORS);
            }
            let floor = _mm512_set1_ps(self.floor);
            for v in 0..VECTORS {
                let lanes = (self.columns - 16 * v).min(16);
                let mask = (0xffffu32 >> (16 - lanes)) as u16;
                let bias = self.bias.map_or(_mm512_setzero_ps(), |bias| _mm512_maskz_loadu_ps(mask, bias.as_ptr().add(16 * v)));
                for (r, sums) in sums.iter().enumerate() {
                    let to = self.c.add(r * self.row_stride + 16 * v);
                    let mut value = _mm512_add_ps(sums[v], bias);
                    if self.accumulate {
                        value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, to));
                    }
                    // With NaN the second operand is returned, so NaN survives ReLU as it does without one.
                    _mm512_mask_storeu_ps(to, mask, _mm512_max_ps(floor, value));
                }
            }
        }
    }
}
