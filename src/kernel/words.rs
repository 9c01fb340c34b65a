//! Rounding to bfloat16 and regrouping, a few registers at a time. A word is two rounded values, the first in its low half.

/// The upper 16 bits of `x` rounded to bfloat16, ties to even; subnormals become zero and NaN stays NaN, as the instruction does.
pub(super) fn round_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    if x.is_subnormal() {
        return ((bits >> 16) & 0x8000) as u16;
    }
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

/// Words of `left` values, 1 to 32; zeros after them.
///
/// # Safety
/// The CPU has [`Tier::Avx512Bf16`](super::cpu::Tier::Avx512Bf16); `from` is readable for `left` values.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
pub(super) unsafe fn round_tail(from: *const f32, left: usize) -> std::arch::x86_64::__m512i {
    use std::arch::x86_64::*;
    let low = (0xffffu32 >> (16 - left.min(16))) as u16;
    let high = if left > 16 { (0xffffu32 >> (32 - left)) as u16 } else { 0 };
    // SAFETY: loads are masked to the values there are; addresses behind a zero mask are not read.
    unsafe {
        let (first, second) = (_mm512_maskz_loadu_ps(low, from), _mm512_maskz_loadu_ps(high, from.wrapping_add(16)));
        std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first))
    }
}

/// Words of 16 lanes at one `k` and the next (zero where there is none).
///
/// # Safety
/// The CPU has [`Tier::Avx512Bf16`](super::cpu::Tier::Avx512Bf16); both are readable at the lanes of `mask`.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
pub(super) unsafe fn words_of_two(even: *const f32, odd: Option<*const f32>, mask: u16) -> std::arch::x86_64::__m512i {
    use std::arch::x86_64::*;
    const ORDER: [u16; 32] = {
        let mut order = [0; 32];
        let mut i = 0;
        while i < 32 {
            order[i] = (i / 2 + 16 * (i % 2)) as u16;
            i += 1;
        }
        order
    };
    // SAFETY: loads are masked to the lanes.
    unsafe {
        let even = _mm512_maskz_loadu_ps(mask, even);
        let odd = odd.map_or(_mm512_setzero_ps(), |odd| _mm512_maskz_loadu_ps(mask, odd));
        let rounded: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(odd, even));
        _mm512_permutexvar_epi16(_mm512_loadu_si512(ORDER.as_ptr().cast()), rounded)
    }
}

/// Transposes 16 x 16 words in four rounds of interleaving.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
pub(super) fn transpose(rows: &mut [std::arch::x86_64::__m512i; 16]) {
    use std::arch::x86_64::*;
    let mut t = *rows;
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    let mut u = t;
    for i in 0..4 {
        u[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        u[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        u[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        u[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    // u[4 g + c] holds, in its 128-bit block b, column 4 b + c of rows 4 g .. 4 g + 3.
    for c in 0..4 {
        let even_01 = _mm512_shuffle_i32x4::<0x88>(u[c], u[4 + c]);
        let odd_01 = _mm512_shuffle_i32x4::<0xdd>(u[c], u[4 + c]);
        let even_23 = _mm512_shuffle_i32x4::<0x88>(u[8 + c], u[12 + c]);
        let odd_23 = _mm512_shuffle_i32x4::<0xdd>(u[8 + c], u[12 + c]);
        rows[c] = _mm512_shuffle_i32x4::<0x88>(even_01, even_23);
        rows[8 + c] = _mm512_shuffle_i32x4::<0xdd>(even_01, even_23);
        rows[4 + c] = _mm512_shuffle_i32x4::<0x88>(odd_01, odd_23);
        rows[12 + c] = _mm512_shuffle_i32x4::<0xdd>(odd_01, odd_23);
    }
}
