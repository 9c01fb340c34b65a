//! Products of packed bfloat16 words on AMX tiles (`tdpbf16ps`): detection, tile configuration, the 32 x 32 product, left panels.
//!
//! A tile is 16 rows of 64 bytes. A step of the inner loop is 32 `k`: two tiles of the left panel (rows by pairs), one after the other,
//! and two of the right panel (pairs by columns), side by side. Sums start from what is to be added, so nothing is left to do at the end.

use std::ops::Range;

use super::gemm_bf16::Tile;
use super::matrix::Matrix;
use super::pack::{DEPTH, Line, STEP, pack_strided};
use super::words::{round_tail, transpose, words_of_two};

/// Rows of a left panel: two tiles.
pub(super) const ROWS: usize = 32;
/// Lines of one step of a left panel.
const STEP_LINES: usize = ROWS;
/// Lines of a left panel of a whole pass.
pub(super) const LEFT_LINES: usize = DEPTH / STEP * STEP_LINES;

/// Whether the CPU has tiles with bfloat16 products and the kernel lets this process use them (it is asked here).
pub(super) fn is_available() -> bool {
    has_tiles() && is_permitted()
}

fn has_tiles() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    /// Bits of leaf 7: amx-bf16, amx-tile.
    const FEATURES: u32 = 1 << 22 | 1 << 24;
    if __cpuid(0).eax < 0x1d || __cpuid_count(7, 0).edx & FEATURES != FEATURES {
        return false;
    }
    let palette = __cpuid_count(0x1d, 1);
    let (tile_bytes, row_bytes, tiles, rows) = (palette.eax >> 16, palette.ebx & 0xffff, palette.ebx >> 16, palette.ecx & 0xffff);
    tile_bytes >= 1024 && row_bytes >= 64 && tiles >= 8 && rows >= 16
}

#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: asks for a permission of this process; a kernel that does not know the request answers with an error.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}

/// The calling thread's tile registers, all of 16 rows by 64 bytes; given back when dropped, so that a switch of threads saves nothing.
pub(super) struct Tiles(std::marker::PhantomData<*const ()>);

impl Tiles {
    /// # Safety
    /// [`is_available`] said so.
    pub unsafe fn configure() -> Self {
        #[repr(C, align(64))]
        struct Config([u8; 64]);
        static CONFIG: Config = {
            let mut bytes = [0; 64];
            bytes[0] = 1; // palette
            let mut tile = 0;
            while tile < 8 {
                bytes[16 + 2 * tile] = 64; // bytes of a row
                bytes[48 + tile] = 16; // rows
                tile += 1;
            }
            Config(bytes)
        };
        // SAFETY: the instruction exists (the caller's promise) and reads the 64 bytes of a valid configuration.
        unsafe {
            std::arch::asm!("ldtilecfg [{config}]", config = in(reg) &raw const CONFIG, options(nostack, preserves_flags, readonly),
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _);
        }
        Self(std::marker::PhantomData)
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: made only where the instruction exists.
        unsafe {
            std::arch::asm!("tilerelease", options(nostack, preserves_flags, nomem),
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _);
        }
    }
}

/// Sums or addends of one product: rows of up to 32 values, `stride` bytes apart (0: every row is the same).
#[derive(Clone, Copy)]
pub(super) struct Place<T> {
    pub data: T,
    pub stride: usize,
}

/// Defines `to = from + left . right` for one shape; the loads, the steps and the stores are given.
macro_rules! product {
    ($(#[$doc:meta])* $name:ident, right $right_stride:literal, $([$($line:expr),* $(,)?])*) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// The thread's tiles are configured ([`Tiles`]); both panels hold `steps` steps; `from` is readable, `to` writable for the tiles.
        pub(in crate::kernel) unsafe fn $name<T>(steps: usize, left: *const Line, right: *const Line, from: Place<*const T>, to: Place<*mut T>) {
            // SAFETY: addresses are inside the panels and places of the caller's promise; flags and tiles are declared clobbered.
            unsafe {
                std::arch::asm!(
                    $($($line,)*)*
                    steps = inout(reg) steps => _,
                    a = inout(reg) left => _,
                    b = inout(reg) right => _,
                    a_stride = in(reg) 64usize,
                    b_stride = in(reg) $right_stride as usize,
                    from = in(reg) from.data,
                    from2 = in(reg) from.data.wrapping_byte_add(16 * from.stride),
                    from_stride = in(reg) from.stride,
                    to = in(reg) to.data,
                    to2 = in(reg) to.data.wrapping_byte_add(16 * to.stride),
                    to_stride = in(reg) to.stride,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}
pub(super) use product;

/// Makes a module of the four products of one instruction: tiles of the left panel by tiles of the right one. `T` is what it sums in.
macro_rules! products {
    ($(#[$doc:meta])* $module:ident, $dot:literal) => {
        $(#[$doc])*
        pub(super) mod $module {
            use $crate::kernel::amx::Place;
            use $crate::kernel::pack::Line;

            $crate::kernel::amx::product!(
                /// 17 to 32 rows, 17 to 32 columns.
                product_2x2, right 128,
                ["tileloadd tmm0, [{from} + {from_stride}*1]", "tileloadd tmm1, [{from} + {from_stride}*1 + 64]",
                 "tileloadd tmm2, [{from2} + {from_stride}*1]", "tileloadd tmm3, [{from2} + {from_stride}*1 + 64]",
                 "test {steps}, {steps}", "jz 3f"]
                ["2:",
                 "tileloadd tmm4, [{a} + {a_stride}*1]", "tileloadd tmm6, [{b} + {b_stride}*1]", concat!($dot, " tmm0, tmm4, tmm6"),
                 "tileloadd tmm7, [{b} + {b_stride}*1 + 64]", concat!($dot, " tmm1, tmm4, tmm7"),
                 "tileloadd tmm5, [{a} + {a_stride}*1 + 1024]", concat!($dot, " tmm2, tmm5, tmm6"), concat!($dot, " tmm3, tmm5, tmm7"),
                 "add {a}, 2048", "add {b}, 2048", "dec {steps}", "jnz 2b"]
                ["3:",
                 "tilestored [{to} + {to_stride}*1], tmm0", "tilestored [{to} + {to_stride}*1 + 64], tmm1",
                 "tilestored [{to2} + {to_stride}*1], tmm2", "tilestored [{to2} + {to_stride}*1 + 64], tmm3"]
            );
            $crate::kernel::amx::product!(
                /// Up to 16 rows, 17 to 32 columns.
                product_1x2, right 128,
                ["# {from2} {to2}", "tileloadd tmm0, [{from} + {from_stride}*1]", "tileloadd tmm1, [{from} + {from_stride}*1 + 64]",
                 "test {steps}, {steps}", "jz 3f"]
                ["2:",
                 "tileloadd tmm4, [{a} + {a_stride}*1]", "tileloadd tmm6, [{b} + {b_stride}*1]", concat!($dot, " tmm0, tmm4, tmm6"),
                 "tileloadd tmm7, [{b} + {b_stride}*1 + 64]", concat!($dot, " tmm1, tmm4, tmm7"),
                 "add {a}, 2048", "add {b}, 2048", "dec {steps}", "jnz 2b"]
                ["3:", "tilestored [{to} + {to_stride}*1], tmm0", "tilestored [{to} + {to_stride}*1 + 64], tmm1"]
            );
            $crate::kernel::amx::product!(
                /// 17 to 32 rows, up to 16 columns.
                product_2x1, right 64,
                ["tileloadd tmm0, [{from} + {from_stride}*1]", "tileloadd tmm2, [{from2} + {from_stride}*1]", "test {steps}, {steps}", "jz 3f"]
                ["2:",
                 "tileloadd tmm4, [{a} + {a_stride}*1]", "tileloadd tmm6, [{b} + {b_stride}*1]", concat!($dot, " tmm0, tmm4, tmm6"),
                 "tileloadd tmm5, [{a} + {a_stride}*1 + 1024]", concat!($dot, " tmm2, tmm5, tmm6"),
                 "add {a}, 2048", "add {b}, 1024", "dec {steps}", "jnz 2b"]
                ["3:", "tilestored [{to} + {to_stride}*1], tmm0", "tilestored [{to2} + {to_stride}*1], tmm2"]
            );
            $crate::kernel::amx::product!(
                /// Up to 16 rows, up to 16 columns.
                product_1x1, right 64,
                ["# {from2} {to2}", "tileloadd tmm0, [{from} + {from_stride}*1]", "test {steps}, {steps}", "jz 3f"]
                ["2:",
                 "tileloadd tmm4, [{a} + {a_stride}*1]", "tileloadd tmm6, [{b} + {b_stride}*1]", concat!($dot, " tmm0, tmm4, tmm6"),
                 "add {a}, 2048", "add {b}, 1024", "dec {steps}", "jnz 2b"]
                ["3:", "tilestored [{to} + {to_stride}*1], tmm0"]
            );
        }
    };
}
pub(super) use products;

products!(
    /// Pairs of bfloat16, summed in f32.
    bf16, "tdpbf16ps"
);

/// Room for the sums of one product whose output is not whole tiles.
#[repr(C, align(64))]
pub(super) struct Scratch([f32; ROWS * 32]);

impl Scratch {
    pub const NEW: Self = Self([0.0; ROWS * 32]);
    /// Bytes of a row.
    const STRIDE: usize = 128;

    /// Reads the output's values and adds the bias.
    ///
    /// # Safety
    /// The CPU has the tier; the tile's output is readable.
    #[target_feature(enable = "avx512f")]
    unsafe fn gather(&mut self, tile: &Tile<'_>) {
        use std::arch::x86_64::*;
        for (v, mask) in masks(tile.columns) {
            // SAFETY: loads are masked to the tile's columns, stores are inside the scratch.
            unsafe {
                let bias = tile.bias.map_or(_mm512_setzero_ps(), |bias| _mm512_maskz_loadu_ps(mask, bias.as_ptr().add(16 * v)));
                for row in 0..tile.rows {
                    let old = _mm512_maskz_loadu_ps(mask, tile.c.add(row * tile.row_stride + 16 * v));
                    _mm512_store_ps(self.0.as_mut_ptr().add(row * 32 + 16 * v), _mm512_add_ps(old, bias));
                }
            }
        }
    }

    /// Writes the sums to the output.
    ///
    /// # Safety
    /// The CPU has the tier; the tile's output is writable.
    #[target_feature(enable = "avx512f")]
    unsafe fn scatter(&self, tile: &Tile<'_>) {
        use std::arch::x86_64::*;
        for (v, mask) in masks(tile.columns) {
            for row in 0..tile.rows {
                // SAFETY: loads are inside the scratch, stores masked to the tile's columns.
                unsafe {
                    let value = _mm512_load_ps(self.0.as_ptr().add(row * 32 + 16 * v));
                    _mm512_mask_storeu_ps(tile.c.add(row * tile.row_stride + 16 * v), mask, value);
                }
            }
        }
    }
}

/// The vectors of `columns` values and the lanes each has.
fn masks(columns: usize) -> impl Iterator<Item = (usize, u16)> {
    (0..columns.div_ceil(16)).map(move |v| (v, (0xffffu32 >> (16 - (columns - 16 * v).min(16))) as u16))
}

/// Computes `tile`: up to 32 rows, bias and old values first; its floor is left to the caller.
///
/// # Safety
/// The tier is there and `tiles` are this thread's; the panels hold the tile's pairs padded to whole steps; `c` is writable.
pub(super) unsafe fn multiply(tile: &Tile<'_>, _tiles: &Tiles, scratch: &mut Scratch) {
    const ZEROS: [f32; 32] = [0.0; 32];
    let is_whole = tile.rows.is_multiple_of(16) && tile.columns.is_multiple_of(16);
    let mut line = ZEROS;
    let from = match (tile.accumulate, tile.bias) {
        (false, None) => Place { data: ZEROS.as_ptr(), stride: 0 },
        (false, Some(bias)) => {
            line[..bias.len()].copy_from_slice(bias);
            Place { data: line.as_ptr(), stride: 0 }
        }
        (true, None) if is_whole => Place { data: tile.c.cast_const(), stride: 4 * tile.row_stride },
        (true, _) => {
            // SAFETY: the caller's promise.
            unsafe { scratch.gather(tile) };
            Place { data: scratch.0.as_ptr(), stride: Scratch::STRIDE }
        }
    };
    let to = if is_whole {
        Place { data: tile.c, stride: 4 * tile.row_stride }
    } else {
        Place { data: scratch.0.as_mut_ptr(), stride: Scratch::STRIDE }
    };
    let (steps, left, right) = (tile.pairs.div_ceil(STEP / 2), tile.left.as_ptr(), tile.right.as_ptr());
    // SAFETY: the caller's promise; without whole tiles the sums go to the scratch, which has room for all.
    unsafe {
        match (tile.rows > 16, tile.columns > 16) {
            (true, true) => bf16::product_2x2(steps, left, right, from, to),
            (false, true) => bf16::product_1x2(steps, left, right, from, to),
            (true, false) => bf16::product_2x1(steps, left, right, from, to),
            (false, false) => bf16::product_1x1(steps, left, right, from, to),
        }
        if !is_whole {
            scratch.scatter(tile);
        }
    }
}

/// Packs `rows` (up to 32) of the left operand `a` over `k`: step by step two tiles of 16 rows; zeros after the last `k`.
///
/// # Safety
/// The CPU has [`Tier::Avx512Bf16`](super::cpu::Tier::Avx512Bf16).
pub(super) unsafe fn pack_left(a: &Matrix<'_>, rows: Range<usize>, k: Range<usize>, target: &mut [Line]) {
    assert!(rows.end <= a.rows && rows.len() <= ROWS && k.end <= a.columns && k.len() <= DEPTH && target.len() >= LEFT_LINES);
    for (half, first) in rows.clone().step_by(16).enumerate() {
        let (source, lanes) = (a.pointer(first, k.start), (rows.end - first).min(16));
        let target = &mut target[half * 16..];
        // SAFETY: the view covers the rows and `k` (checked when it was made), the target the panel (checked above).
        unsafe {
            if a.column_stride == 1 {
                pack_rows(source, lanes, a.row_stride, k.len(), target.as_mut_ptr());
            } else {
                pack_turned(source, (lanes, a.row_stride), (k.len(), a.column_stride), target.as_mut_ptr());
            }
        }
    }
}

/// # Safety
/// The CPU has the tier; `source` is readable for `rows <= 16` rows of `k <= DEPTH` values, `row_stride` apart; `target` is the panel's.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
unsafe fn pack_rows(source: *const f32, rows: usize, row_stride: usize, k: usize, target: *mut Line) {
    use std::arch::x86_64::*;
    for row in 0..rows {
        // SAFETY: loads are within the row's `k` values (masked at the end); lines stored lie within the panel.
        unsafe {
            let (from, to) = (source.add(row * row_stride), target.add(row));
            for step in 0..k / STEP {
                let from = from.add(step * STEP);
                let words = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(from.add(16)), _mm512_loadu_ps(from));
                _mm512_store_si512(to.add(step * STEP_LINES).cast(), std::mem::transmute::<__m512bh, __m512i>(words));
            }
            if !k.is_multiple_of(STEP) {
                let words = round_tail(from.add(k / STEP * STEP), k % STEP);
                _mm512_store_si512(to.add(k / STEP * STEP_LINES).cast(), words);
            }
        }
    }
}

/// For rows that are not contiguous: lanes of pairs, transposed tile by tile.
///
/// # Safety
/// The CPU has the tier; `source` is readable for `lanes <= 16` by `k <= DEPTH` values at their strides; `target` is the panel's.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
unsafe fn pack_turned(source: *const f32, (lanes, lane_stride): (usize, usize), (k, k_stride): (usize, usize), target: *mut Line) {
    use std::arch::x86_64::*;
    let mask = (0xffffu32 >> (16 - lanes)) as u16;
    for step in 0..k.div_ceil(STEP) {
        let left = (k - step * STEP).min(STEP);
        let mut words = [_mm512_setzero_si512(); 16];
        // SAFETY: loads are within the lanes and `k` left; the lines stored are one tile of the panel.
        unsafe {
            let from = source.add(step * STEP * k_stride);
            if lane_stride == 1 {
                for (pair, word) in words.iter_mut().enumerate().take(left.div_ceil(2)) {
                    let even = from.add(2 * pair * k_stride);
                    *word = words_of_two(even, (2 * pair + 1 < left).then(|| even.add(k_stride)), mask);
                }
            } else {
                pack_strided(from, lanes, lane_stride, left, k_stride, words.as_mut_ptr().cast(), 16);
            }
            transpose(&mut words);
            let to = target.add(step * STEP_LINES);
            for (lane, word) in words.iter().enumerate().take(lanes) {
                _mm512_store_si512(to.add(lane).cast(), *word);
            }
        }
    }
}
