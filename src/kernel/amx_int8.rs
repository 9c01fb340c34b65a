//! Products of packed bytes on AMX tiles (`tdpbusd`). As in [`super::amx`], with four `k` where that has two: a step is 64 `k`.

use super::amx::{self, Place, products};
use super::pack::Line;

/// Rows of a left panel: two tiles.
pub(super) const ROWS: usize = 32;

products!(
    /// Unsigned bytes by signed ones, summed in 32-bit integers.
    int8, "tdpbusd"
);

/// Whether the CPU has tiles with 8-bit products and the kernel lets this process use them.
pub(super) fn is_available() -> bool {
    /// Bit of leaf 7: amx-int8.
    const FEATURE: u32 = 1 << 25;
    amx::is_available() && std::arch::x86_64::__cpuid_count(7, 0).edx & FEATURE != 0
}

/// Sums of a left panel of up to 32 rows by a right panel of one or two lines a quad (`lines`), to rows of 32.
///
/// # Safety
/// The tiles are there and this thread's; both panels hold `steps` steps of 64 `k`.
pub(super) unsafe fn multiply(
    (rows, lines, steps): (usize, usize, usize),
    left: &[Line],
    right: &[Line],
    sums: &mut [i32; ROWS * 32],
    _tiles: &amx::Tiles,
) {
    static ZEROS: [i32; 32] = [0; 32];
    assert!(left.len() >= steps * ROWS && right.len() >= steps * 16 * lines);
    let (from, to) = (Place { data: ZEROS.as_ptr(), stride: 0 }, Place { data: sums.as_mut_ptr(), stride: 128 });
    let (left, right) = (left.as_ptr(), right.as_ptr());
    // SAFETY: the caller's promise; the panels are long enough (asserted), the sums have room for all tiles.
    unsafe {
        match (rows > 16, lines > 1) {
            (true, true) => int8::product_2x2(steps, left, right, from, to),
            (false, true) => int8::product_1x2(steps, left, right, from, to),
            (true, false) => int8::product_2x1(steps, left, right, from, to),
            (false, false) => int8::product_1x1(steps, left, right, from, to),
        }
    }
}
