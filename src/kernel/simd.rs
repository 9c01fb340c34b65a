//! Vector tiers: one portable body compiled for AVX-512, AVX2 and the baseline, chosen at run time.

use std::sync::OnceLock;

use super::math::fma;

/// An instruction set that this machine has. Values other than [`Tier::PORTABLE`] exist only after detection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Portable,
    Avx2,
    Avx512,
}

impl Tier {
    /// What the compiler targets without run-time detection.
    pub const PORTABLE: Self = Self(Kind::Portable);

    /// The widest tier of this machine, detected once.
    pub fn best() -> Self {
        static BEST: OnceLock<Tier> = OnceLock::new();
        *BEST.get_or_init(|| Self::available().last().copied().unwrap_or(Self::PORTABLE))
    }

    /// Every tier of this machine, narrowest first.
    pub fn available() -> Vec<Self> {
        let mut tiers = vec![Self::PORTABLE];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if avx2 {
                tiers.push(Self(Kind::Avx2));
            }
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if avx2 && avx512 {
                tiers.push(Self(Kind::Avx512));
            }
        }
        tiers
    }

    /// Whether the AVX2 code may run.
    #[inline]
    pub fn is_avx2(self) -> bool {
        self.0 == Kind::Avx2
    }

    /// Whether the AVX-512 code may run.
    #[inline]
    pub fn is_avx512(self) -> bool {
        self.0 == Kind::Avx512
    }
}

/// Whether the baseline target has a fused multiply-add instruction (else `mul_add` would call a library function).
pub(crate) const BASE_FMA: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

/// `tiered!(fn name[G: Bound](args) -> ret = body);` makes `name(tier, args)`, which runs `body::<FMA, LANES, G>`
/// compiled for the tier. `body` must be `#[inline(always)]`; `FMA` says whether `mul_add` is an instruction and
/// `LANES` how many f32 fill a register.
macro_rules! tiered {
    ($(#[$attribute:meta])* $vis:vis fn $name:ident $([$($g:ident: $bound:path),+])? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $(#[$attribute])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name$(<$($g: $bound),+>)?(tier: $crate::kernel::simd::Tier, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx512$(<$($g: $bound),+>)?($($arg: $ty),*) $(-> $ret)? {
                    $body::<true, 16, $($($g),+)?>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx2$(<$($g: $bound),+>)?($($arg: $ty),*) $(-> $ret)? {
                    $body::<true, 8, $($($g),+)?>($($arg),*)
                }
                if tier.is_avx512() {
                    // SAFETY: this tier exists only where detection found every feature enabled above.
                    return unsafe { avx512$(::<$($g),+>)?($($arg),*) };
                }
                if tier.is_avx2() {
                    // SAFETY: as above.
                    return unsafe { avx2$(::<$($g),+>)?($($arg),*) };
                }
            }
            let _ = tier;
            $body::<{ $crate::kernel::simd::BASE_FMA }, 4, $($($g),+)?>($($arg),*)
        }
    };
}
pub(crate) use tiered;

/// f32 values of one cache line.
pub(crate) const LINE: usize = 16;
/// One cache line of f32.
pub(crate) type Line = [f32; LINE];

/// A [`Line`] in registers, for kernels that keep many sums in them (loops that only stream vectorise by themselves).
/// Values exist only inside code compiled for their tier; see [`wide_tiers`].
pub(crate) trait Wide: Copy {
    /// Reads a line.
    fn load(from: &Line) -> Self;
    /// Writes a line.
    fn store(self, to: &mut Line);
    /// `self * factor + addend`, fused where the tier can.
    fn mul_add(self, factor: Self, addend: Self) -> Self;
    /// Sum.
    fn add(self, other: Self) -> Self;
}

impl Wide for Line {
    #[inline(always)]
    fn load(from: &Line) -> Self {
        *from
    }
    #[inline(always)]
    fn store(self, to: &mut Line) {
        *to = self;
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, mut addend: Self) -> Self {
        for i in 0..LINE {
            addend[i] = fma::<BASE_FMA>(self[i], factor[i], addend[i]);
        }
        addend
    }
    #[inline(always)]
    fn add(mut self, other: Self) -> Self {
        for i in 0..LINE {
            self[i] += other[i];
        }
        self
    }
}

/// The x86 registers behind [`Wide`]. Private fields: the tiers' own functions are the only place that names them.
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86 {
    use std::arch::x86_64::*;

    use super::{Line, Wide};

    /// AVX-512: one register.
    #[derive(Clone, Copy)]
    pub(crate) struct Zmm(__m512);

    /// AVX2 with FMA: two registers.
    #[derive(Clone, Copy)]
    pub(crate) struct Ymm2(__m256, __m256);

    // SAFETY (all of this impl): loads and stores are unaligned and within a line of 16; the type is used only in
    // functions that `wide_tiers` compiles for AVX-512 and calls after detection.
    impl Wide for Zmm {
        #[inline(always)]
        fn load(from: &Line) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm512_loadu_ps(from.as_ptr()) })
        }
        #[inline(always)]
        fn store(self, to: &mut Line) {
            // SAFETY: as above.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), self.0) }
        }
        #[inline(always)]
        fn mul_add(self, factor: Self, addend: Self) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, addend.0) })
        }
        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm512_add_ps(self.0, other.0) })
        }
    }

    // SAFETY (all of this impl): as for `Zmm`, with AVX2 and FMA; each half is 8 of the line's 16.
    impl Wide for Ymm2 {
        #[inline(always)]
        fn load(from: &Line) -> Self {
            // SAFETY: as above.
            unsafe { Self(_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))) }
        }
        #[inline(always)]
        fn store(self, to: &mut Line) {
            // SAFETY: as above.
            unsafe {
                _mm256_storeu_ps(to.as_mut_ptr(), self.0);
                _mm256_storeu_ps(to.as_mut_ptr().add(8), self.1);
            }
        }
        #[inline(always)]
        fn mul_add(self, factor: Self, addend: Self) -> Self {
            // SAFETY: as above.
            unsafe { Self(_mm256_fmadd_ps(self.0, factor.0, addend.0), _mm256_fmadd_ps(self.1, factor.1, addend.1)) }
        }
        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: as above.
            unsafe { Self(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
        }
    }
}

/// The largest `T` that [`wide_tiers`] passes; the others divide it.
pub(crate) const MAX_TILE: usize = 8;

/// As [`tiered`], for `body::<V: Wide, const T: usize>` with `T` as many sums as the tier's registers hold.
macro_rules! wide_tiers {
    ($vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:ident) => {
        $vis fn $name(tier: $crate::kernel::simd::Tier, $($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($arg: $ty),*) {
                    $body::<$crate::kernel::simd::x86::Zmm, 8>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) {
                    $body::<$crate::kernel::simd::x86::Ymm2, 4>($($arg),*)
                }
                if tier.is_avx512() {
                    // SAFETY: this tier exists only where detection found every feature enabled above.
                    return unsafe { avx512($($arg),*) };
                }
                if tier.is_avx2() {
                    // SAFETY: as above.
                    return unsafe { avx2($($arg),*) };
                }
            }
            let _ = tier;
            $body::<$crate::kernel::simd::Line, 2>($($arg),*)
        }
    };
}
pub(crate) use wide_tiers;

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(always)]
    fn wide_body<V: Wide, const T: usize>(a: &Line, b: &Line, out: &mut [Line]) {
        let (a, b) = (V::load(a), V::load(b));
        a.mul_add(b, b).store(&mut out[0]);
        a.add(b).store(&mut out[1]);
    }
    wide_tiers!(fn wide(a: &Line, b: &Line, out: &mut [Line]) = wide_body);

    #[test]
    fn every_tier_computes_whole_lines() {
        let a: Line = std::array::from_fn(|i| i as f32);
        let b: Line = std::array::from_fn(|i| 2.0 - i as f32);
        for tier in Tier::available() {
            let mut out = [[9.0; LINE]; 2];
            wide(tier, &a, &b, &mut out);
            for i in 0..LINE {
                assert_eq!((out[0][i], out[1][i]), (a[i] * b[i] + b[i], 2.0), "{tier:?} {i}");
            }
        }
        assert!(Tier::available().contains(&Tier::PORTABLE) && Tier::available().contains(&Tier::best()));
    }
}
