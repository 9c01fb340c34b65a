//! Intel's tile registers (AMX): permission, configuration, and the product of one pair of packed panels.
//!
//! Compilers have no stable intrinsics for them, so the instructions are written out. Eight tiles of 16 rows of 64 bytes: four hold sums
//! (f32, 16 x 16), two the left operand (16 rows of 16 words), two the right one (16 pairs of 16 words).

use std::mem::MaybeUninit;
use std::sync::OnceLock;

use super::pack::{COLUMNS, ROW_STRIDE, TILE_PAIRS};

/// Room for the sums of a product of panels, 32 rows of 32 columns.
#[repr(align(64))]
pub(super) struct Sums(pub [MaybeUninit<f32>; 32 * COLUMNS]);

/// Whether this machine has bfloat16 tiles and the system lets this process use them; asks it once.
pub(super) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| has_instructions() && has_permission())
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn has_instructions() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
    /// State components 17 and 18 in XCR0: tile configuration and tile data.
    const TILES: u64 = 0b11 << 17;
    const OSXSAVE: u32 = 1 << 27;
    /// Leaf 7, EDX: bfloat16 products and tiles.
    const AMX: u32 = 1 << 22 | 1 << 24;
    #[target_feature(enable = "xsave")]
    fn enabled_states() -> u64 {
        // SAFETY: called only where the system has enabled XSAVE.
        unsafe { _xgetbv(0) }
    }
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & OSXSAVE == 0 || __cpuid_count(7, 0).edx & AMX != AMX {
        return false;
    }
    // SAFETY: OSXSAVE says that XGETBV works.
    unsafe { enabled_states() & TILES == TILES }
}

/// Linux gives the large tile state to processes that ask for it (Documentation/arch/x86/xstate.rst).
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn has_permission() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_int = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    // SAFETY: this request touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn has_instructions() -> bool {
    false
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn has_permission() -> bool {
    false
}

/// Gives this thread its tile configuration, once.
#[cfg(target_arch = "x86_64")]
fn configure() {
    use std::arch::asm;
    use std::cell::Cell;
    thread_local! {
        static CONFIGURED: Cell<bool> = const { Cell::new(false) };
    }
    #[repr(align(64))]
    struct Configuration([u8; 64]);
    if CONFIGURED.replace(true) {
        return;
    }
    let mut configuration = Configuration([0; 64]);
    configuration.0[0] = 1; // palette
    for tile in 0..8 {
        configuration.0[16 + 2 * tile] = 64; // bytes of a row, 16 bits
        configuration.0[48 + tile] = 16; // rows
    }
    // SAFETY: `available` was true before any product (`gemm_bf16::run`); the configuration is 64 bytes of palette 1.
    unsafe { asm!("ldtilecfg [{}]", in(reg) configuration.0.as_ptr(), options(nostack, readonly)) };
}

/// `sums = left . right` for one row panel (row after row, [`ROW_STRIDE`] words apart) and one column panel of `pairs` pairs, a multiple of
/// [`TILE_PAIRS`]. Only the first 16 columns are written where the panel is `narrow`, only the first 16 rows for `rows <= 16`.
///
/// # Safety
/// [`available`] is true; `left` is readable for 32 rows (16 for `rows <= 16`) of `pairs` words, `right` for `pairs` times 32 words (16 where
/// `narrow`).
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn multiply(left: *const u32, right: *const u32, pairs: usize, rows: usize, narrow: bool, sums: &mut Sums) {
    use std::arch::asm;
    const LINE: usize = 64;
    let tiles = pairs / TILE_PAIRS;
    if tiles == 0 {
        return sums.0.fill(MaybeUninit::new(0.0));
    }
    configure();
    let (left_stride, right_stride) = (4 * ROW_STRIDE, if narrow { LINE } else { 4 * COLUMNS });
    let right_step = TILE_PAIRS * right_stride;
    let below = left.wrapping_add(16 * ROW_STRIDE);
    let beside = right.wrapping_add(16);
    let out = sums.0.as_mut_ptr();
    let out_below = out.wrapping_add(16 * COLUMNS);
    // SAFETY: per round a tile of 16 rows of 64 bytes is read from each operand within what the caller vouches for; `sums` holds four
    // tiles with rows of 128 bytes. Tiles are used nowhere else.
    unsafe {
        match (rows > 16, narrow) {
            (true, false) => asm!(
                "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                "2:",
                "tileloadd tmm4, [{left} + {left_stride}*1]",
                "tileloadd tmm6, [{right} + {right_stride}*1]",
                "tileloadd tmm7, [{beside} + {right_stride}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{below} + {left_stride}*1]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {left}, 64", "add {below}, 64", "add {right}, {right_step}", "add {beside}, {right_step}",
                "dec {tiles}",
                "jnz 2b",
                "tilestored [{out} + {out_stride}*1], tmm0",
                "tilestored [{out} + {out_stride}*1 + 64], tmm1",
                "tilestored [{out_below} + {out_stride}*1], tmm2",
                "tilestored [{out_below} + {out_stride}*1 + 64], tmm3",
                left = inout(reg) left => _, below = inout(reg) below => _, right = inout(reg) right => _, beside = inout(reg) beside => _,
                tiles = inout(reg) tiles => _, left_stride = in(reg) left_stride, right_stride = in(reg) right_stride,
                right_step = in(reg) right_step, out = in(reg) out, out_below = in(reg) out_below, out_stride = in(reg) 4 * COLUMNS,
                options(nostack)
            ),
            (false, false) => asm!(
                "tilezero tmm0", "tilezero tmm1",
                "2:",
                "tileloadd tmm4, [{left} + {left_stride}*1]",
                "tileloadd tmm6, [{right} + {right_stride}*1]",
                "tileloadd tmm7, [{beside} + {right_stride}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "add {left}, 64", "add {right}, {right_step}", "add {beside}, {right_step}",
                "dec {tiles}",
                "jnz 2b",
                "tilestored [{out} + {out_stride}*1], tmm0",
                "tilestored [{out} + {out_stride}*1 + 64], tmm1",
                left = inout(reg) left => _, right = inout(reg) right => _, beside = inout(reg) beside => _,
                tiles = inout(reg) tiles => _, left_stride = in(reg) left_stride, right_stride = in(reg) right_stride,
                right_step = in(reg) right_step, out = in(reg) out, out_stride = in(reg) 4 * COLUMNS,
                options(nostack)
            ),
            (true, true) => asm!(
                "tilezero tmm0", "tilezero tmm2",
                "2:",
                "tileloadd tmm4, [{left} + {left_stride}*1]",
                "tileloadd tmm6, [{right} + {right_stride}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{below} + {left_stride}*1]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "add {left}, 64", "add {below}, 64", "add {right}, {right_step}",
                "dec {tiles}",
                "jnz 2b",
                "tilestored [{out} + {out_stride}*1], tmm0",
                "tilestored [{out_below} + {out_stride}*1], tmm2",
                left = inout(reg) left => _, below = inout(reg) below => _, right = inout(reg) right => _,
                tiles = inout(reg) tiles => _, left_stride = in(reg) left_stride, right_stride = in(reg) right_stride,
                right_step = in(reg) right_step, out = in(reg) out, out_below = in(reg) out_below, out_stride = in(reg) 4 * COLUMNS,
                options(nostack)
            ),
            (false, true) => asm!(
                "tilezero tmm0",
                "2:",
                "tileloadd tmm4, [{left} + {left_stride}*1]",
                "tileloadd tmm6, [{right} + {right_stride}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "add {left}, 64", "add {right}, {right_step}",
                "dec {tiles}",
                "jnz 2b",
                "tilestored [{out} + {out_stride}*1], tmm0",
                left = inout(reg) left => _, right = inout(reg) right => _,
                tiles = inout(reg) tiles => _, left_stride = in(reg) left_stride, right_stride = in(reg) right_stride,
                right_step = in(reg) right_step, out = in(reg) out, out_stride = in(reg) 4 * COLUMNS,
                options(nostack)
            ),
        }
    }
}
