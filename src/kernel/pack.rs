//! Operands of the bfloat16 product: f32 views rounded and regrouped into the panels its inner loop reads.
//!
//! A word holds two neighbouring `k` of one lane (a row of the left operand, a column of the right one): the even `k` in the low half, the
//! odd one in the high half. An odd last `k` is paired with zero. Right panels hold for every pair one word per lane, and zeros up to whole
//! steps of [`STEP`]. Left panels for vectors do so too (without the zeros) if their source is contiguous along the rows; if it is
//! contiguous along `k` they hold row after row, [`ROW_STRIDE`] apart. Left panels for tiles are another module's ([`amx`]).

use std::cell::RefCell;
use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::cpu::Tier;
use super::matrix::Matrix;
use super::words::*;

/// Most rows in a panel of the left operand: with two vectors of columns, 28 of the 32 registers accumulate.
pub(super) const MAX_ROWS: usize = 14;
/// Columns in a panel of the right operand: two vectors of 16.
pub(super) const COLUMNS: usize = 32;
/// `k` per pass; even. A right-hand panel of one pass is 32 KiB, about a first-level cache.
pub(super) const DEPTH: usize = 512;

/// `k` that right panels are padded to multiples of; divides [`DEPTH`].
pub(super) const STEP: usize = 32;

/// Words between rows of a left panel: a pass of pairs and one line more, so that rows do not share cache sets.
pub(super) const ROW_STRIDE: usize = DEPTH / 2 + 16;
/// Words of a left panel.
pub(super) const LEFT_PANEL: usize = MAX_ROWS * ROW_STRIDE;

/// One cache line of packed words.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub [u32; 16]);

impl Line {
    pub const ZERO: Self = Self([0; 16]);

    /// The line with these bytes in memory.
    #[inline(always)]
    pub fn of_bytes(bytes: [u8; 64]) -> Self {
        // SAFETY: both are 64 plain bytes.
        Self(unsafe { std::mem::transmute::<[u8; 64], [u32; 16]>(bytes) })
    }

    /// Its bytes in memory.
    #[cfg(test)]
    pub fn bytes(self) -> [u8; 64] {
        // SAFETY: as above.
        unsafe { std::mem::transmute::<[u32; 16], [u8; 64]>(self.0) }
    }
}

/// Words (pairs) of `k` values.
pub(super) fn pairs(k: usize) -> usize {
    k.div_ceil(2)
}

/// The passes over `k`, as ranges; one empty pass when there is no `k`, so that the output is still written.
pub(super) fn passes(k: usize) -> impl Iterator<Item = Range<usize>> {
    (0..k.div_ceil(DEPTH).max(1)).map(move |pass| pass * DEPTH..((pass + 1) * DEPTH).min(k))
}

/// What multiplies packed panels; right panels are the same for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Vector registers (`vdpbf16ps`): left panels of up to [`MAX_ROWS`] rows.
    Vectors,
    /// AMX tiles: left panels of 32 rows.
    Tiles,
}

impl Unit {
    /// What `tier` multiplies with on this machine.
    pub fn of(tier: Tier) -> Self {
        if tier.capped() >= Tier::Amx { Self::Tiles } else { Self::Vectors }
    }

    /// Lines of a left operand block of `panels` panels.
    pub fn left_lines(self, panels: usize) -> usize {
        match self {
            Self::Vectors => panels * LEFT_PANEL / 16,
            #[cfg(target_arch = "x86_64")]
            Self::Tiles => panels * amx::LEFT_LINES,
            #[cfg(not(target_arch = "x86_64"))]
            Self::Tiles => unreachable!("no tiles here"),
        }
    }
}

/// Rows cut into panels: for vectors as even as can be (no thin last panel), for tiles full ones and a rest.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowPanels {
    pub rows: usize,
    pub count: usize,
    pub unit: Unit,
}

impl RowPanels {
    /// Rows of a panel of tiles.
    const TILE_ROWS: usize = 32;

    pub fn new(rows: usize, unit: Unit) -> Self {
        let most = if unit == Unit::Tiles { Self::TILE_ROWS } else { MAX_ROWS };
        Self { rows, count: rows.div_ceil(most), unit }
    }

    /// First row of panel `panel`; the number of rows for `panel == count`.
    pub fn start(self, panel: usize) -> usize {
        match self.unit {
            Unit::Vectors => (panel * self.rows).checked_div(self.count).unwrap_or(0),
            Unit::Tiles => (panel * Self::TILE_ROWS).min(self.rows),
        }
    }
}

/// Calls `f` with at least `lines` lines of scratch that stays with the thread; calls may nest. Contents are arbitrary.
pub(super) fn with_lines<R>(lines: usize, f: impl FnOnce(&mut [Line]) -> R) -> R {
    thread_local! {
        static POOL: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
    }
    // Taken out of the pool while in use: a stolen task on this thread takes another.
    let mut buffer = POOL.with_borrow_mut(Vec::pop).unwrap_or_default();
    if buffer.len() < lines {
        buffer.resize(lines, Line([0; 16]));
    }
    let result = f(&mut buffer[..lines]);
    POOL.with_borrow_mut(|pool| pool.push(buffer));
    result
}

/// [`with_lines`] for `floats` values of f32.
pub(super) fn with_floats<R>(floats: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    with_lines(floats.div_ceil(16), |lines| {
        // SAFETY: a line is 16 words of 32 bits, aligned, and any bits are an f32.
        f(unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), floats) })
    })
}

/// Packs `lanes` lanes of `k` values starting at `source` into words at `target`, `target_stride` words apart per pair.
///
/// # Safety
/// The CPU has [`Tier::Avx512Bf16`](super::cpu::Tier::Avx512Bf16); `source` is readable at `lane * lane_stride + i * k_stride` for all
/// `lane < lanes`, `i < k`; `target` is writable for `(pairs(k) - 1) * target_stride + lanes` words.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
pub(super) unsafe fn pack_panel(
    source: *const f32,
    lanes: usize,
    lane_stride: usize,
    k: usize,
    k_stride: usize,
    target: *mut u32,
    target_stride: usize,
) {
    let mut lane = 0;
    while lane < lanes {
        let width = (lanes - lane).min(16);
        // SAFETY: the caller's promise, for the lanes from `lane` on.
        unsafe {
            let (from, to) = (source.add(lane * lane_stride), target.add(lane));
            if lane_stride == 1 {
                pack_lanes_contiguous(from, width, k, k_stride, to, target_stride);
            } else if k_stride == 1 {
                pack_k_contiguous(from, width, lane_stride, k, to, target_stride);
            } else {
                pack_strided(from, width, lane_stride, k, k_stride, to, target_stride);
            }
        }
        lane += width;
    }
}

/// Rows of the source hold the lanes of one `k`: two rows are rounded and interleaved.
///
/// # Safety
/// As [`pack_panel`], with `lane_stride` 1 and `lanes <= 16`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
unsafe fn pack_lanes_contiguous(source: *const f32, lanes: usize, k: usize, k_stride: usize, target: *mut u32, target_stride: usize) {
    use std::arch::x86_64::*;
    let mask = (0xffffu32 >> (16 - lanes)) as u16;
    // SAFETY: loads and stores are masked to the lanes; the second row of a pair is read only where it exists.
    unsafe {
        for pair in 0..pairs(k) {
            let even = source.add(2 * pair * k_stride);
            let words = words_of_two(even, (2 * pair + 1 < k).then(|| even.add(k_stride)), mask);
            _mm512_mask_storeu_epi32(target.add(pair * target_stride).cast(), mask, words);
        }
    }
}

/// Rows of the source hold the `k` of one lane: 16 lanes by 32 `k` are rounded and transposed as 16 x 16 words.
///
/// # Safety
/// As [`pack_panel`], with `k_stride` 1 and `lanes <= 16`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
unsafe fn pack_k_contiguous(source: *const f32, lanes: usize, lane_stride: usize, k: usize, target: *mut u32, target_stride: usize) {
    use std::arch::x86_64::*;
    let mask = (0xffffu32 >> (16 - lanes)) as u16;
    let mut start = 0;
    while start < k {
        let left = (k - start).min(32);
        // SAFETY: loads are masked to the `k` left (addresses behind a zero mask are not read), stores to the lanes and pairs.
        unsafe {
            let mut words = [_mm512_setzero_si512(); 16];
            for (lane, word) in words.iter_mut().enumerate() {
                if lane < lanes {
                    *word = round_tail(source.add(lane * lane_stride + start), left);
                }
            }
            transpose(&mut words);
            let to = target.add(start / 2 * target_stride);
            for (pair, word) in words.iter().enumerate().take(pairs(left)) {
                _mm512_mask_storeu_epi32(to.add(pair * target_stride).cast(), mask, *word);
            }
        }
        start += 32;
    }
}

/// Neither direction is contiguous: word by word.
///
/// # Safety
/// As [`pack_panel`].
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn pack_strided(
    source: *const f32,
    lanes: usize,
    lane_stride: usize,
    k: usize,
    k_stride: usize,
    target: *mut u32,
    target_stride: usize,
) {
    for pair in 0..pairs(k) {
        for lane in 0..lanes {
            // SAFETY: inside the caller's bounds; the odd half only where it exists.
            unsafe {
                let at = source.add(lane * lane_stride + 2 * pair * k_stride);
                let even = u32::from(round_bf16(*at));
                let odd = if 2 * pair + 1 < k { u32::from(round_bf16(*at.add(k_stride))) } else { 0 };
                *target.add(pair * target_stride + lane) = even | odd << 16;
            }
        }
    }
}

/// Whether left panels of `a` are packed row after row.
pub(super) fn is_row_wise(a: &Matrix<'_>) -> bool {
    a.column_stride == 1
}

/// Packs rows of panels `panels` over `k` of the left operand `a`; panel `i` of the block starts at line `Unit::left_lines(i)`.
///
/// # Safety
/// The CPU has [`Tier::Avx512Bf16`](super::cpu::Tier::Avx512Bf16).
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn pack_left(a: &Matrix<'_>, rows: RowPanels, panels: Range<usize>, k: Range<usize>, target: &mut [Line]) {
    assert!(rows.unit.left_lines(panels.len()) <= target.len() && k.len() <= DEPTH && rows.rows <= a.rows && k.end <= a.columns);
    if rows.unit == Unit::Tiles {
        for (panel, target) in panels.zip(target.chunks_exact_mut(amx::LEFT_LINES)) {
            // SAFETY: the caller's promise.
            unsafe { amx::pack_left(a, rows.start(panel)..rows.start(panel + 1), k.clone(), target) };
        }
        return;
    }
    let words = target.as_mut_ptr().cast::<u32>();
    for (i, panel) in panels.enumerate() {
        let (first, last) = (rows.start(panel), rows.start(panel + 1));
        let source = a.pointer(first, k.start);
        // SAFETY: the view covers rows `first..last` and `k` (checked when it was made), the target the panel (checked above).
        unsafe {
            let to = words.add(i * LEFT_PANEL);
            if is_row_wise(a) {
                pack_rows(source, last - first, a.row_stride, k.len(), to);
            } else {
                pack_panel(source, last - first, a.row_stride, k.len(), a.column_stride, to, last - first);
            }
        }
    }
}

/// Rounds `rows` rows of `k` contiguous values each to rows of words [`ROW_STRIDE`] apart.
///
/// # Safety
/// The CPU has [`Tier::Avx512Bf16`](super::cpu::Tier::Avx512Bf16); `source` is readable for `rows` rows of `k <= DEPTH` values,
/// `row_stride` apart; `target` is writable for `rows * ROW_STRIDE` words and aligned to a line.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
unsafe fn pack_rows(source: *const f32, rows: usize, row_stride: usize, k: usize, target: *mut u32) {
    use std::arch::x86_64::*;
    for row in 0..rows {
        // SAFETY: loads are within the row's `k` values (masked at the end); lines stored lie within the row's stride.
        unsafe {
            let (from, to) = (source.add(row * row_stride), target.add(row * ROW_STRIDE));
            let mut start = 0;
            while start + 32 <= k {
                let words = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(from.add(start + 16)), _mm512_loadu_ps(from.add(start)));
                _mm512_store_si512(to.add(start / 2).cast(), std::mem::transmute::<__m512bh, __m512i>(words));
                start += 32;
            }
            if start < k {
                let words = round_tail(from.add(start), k - start);
                _mm512_store_si512(to.add(start / 2).cast(), words);
            }
        }
    }
}

/// Pairs of `k` values padded to whole steps.
fn padded_pairs(k: usize) -> usize {
    k.div_ceil(STEP) * STEP / 2
}

/// Lines of a right operand: `panels` panels of [`COLUMNS`] over `k`.
pub(super) fn right_lines(panels: usize, k: usize) -> usize {
    panels * COLUMNS / 16 * padded_pairs(k)
}

/// Packs column panels `panels` over `k` of the right operand `b`; panel `i` of the block starts at line `right_lines(i, k)`.
///
/// The last panel of a matrix with at most 16 columns left is packed 16 wide. Pairs after the last one, up to a whole step, are zero.
///
/// # Safety
/// The CPU has [`Tier::Avx512Bf16`](super::cpu::Tier::Avx512Bf16).
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn pack_right(b: &Matrix<'_>, panels: Range<usize>, k: Range<usize>, target: &mut [Line]) {
    assert!(right_lines(panels.len(), k.len()) <= target.len() && k.end <= b.rows);
    for (i, panel) in panels.clone().enumerate() {
        let lines = if b.columns.saturating_sub(panel * COLUMNS) > 16 { 2 } else { 1 };
        target[right_lines(i, k.len())..][pairs(k.len()) * lines..padded_pairs(k.len()) * lines].fill(Line([0; 16]));
    }
    let words = target.as_mut_ptr().cast::<u32>();
    if b.column_stride == 1 {
        let first = panels.start * COLUMNS;
        let columns = b.columns.saturating_sub(first).min(panels.len() * COLUMNS);
        // SAFETY: the view covers `columns` columns from `first` and `k`, the target their panels (checked above).
        return unsafe { pack_columns(b.pointer(k.start, first), columns, k.len(), b.row_stride, words) };
    }
    for (i, panel) in panels.enumerate() {
        let first = panel * COLUMNS;
        let columns = b.columns.saturating_sub(first).min(COLUMNS);
        let width = if columns > 16 { COLUMNS } else { 16 };
        let source = b.pointer(k.start, first);
        // SAFETY: the view covers `columns` columns from `first` and `k`, the target the panel (checked above).
        unsafe {
            pack_panel(source, columns, b.column_stride, k.len(), b.row_stride, words.add(i * COLUMNS * padded_pairs(k.len())), width);
        }
    }
}

/// Packs `columns` columns with contiguous rows, all panels pair by pair, so that the source is read along its rows.
///
/// # Safety
/// The CPU has [`Tier::Avx512Bf16`](super::cpu::Tier::Avx512Bf16); `source` is readable for `k` rows of `columns` values, `k_stride` apart;
/// `target` is writable for the panels of `columns` and aligned to a line.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
unsafe fn pack_columns(source: *const f32, columns: usize, k: usize, k_stride: usize, target: *mut u32) {
    use std::arch::x86_64::*;
    // SAFETY: loads are masked to the columns; the odd row of a pair is read only where it exists; a panel is whole lines wide.
    unsafe {
        for pair in 0..pairs(k) {
            let even_row = source.add(2 * pair * k_stride);
            let has_odd = 2 * pair + 1 < k;
            for column in (0..columns).step_by(16) {
                let mask = (0xffffu32 >> (16 - (columns - column).min(16))) as u16;
                let even = even_row.add(column);
                let words = words_of_two(even, has_odd.then(|| even.add(k_stride)), mask);
                let panel = column / COLUMNS * COLUMNS;
                let width = if columns - panel > 16 { COLUMNS } else { 16 };
                let to = target.add(panel * padded_pairs(k) + pair * width + column % COLUMNS);
                _mm512_store_si512(to.cast(), words);
            }
        }
    }
}
