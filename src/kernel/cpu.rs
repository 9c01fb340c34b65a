//! Which vector instructions the CPU has: found at run time, lowered by hand in tests.

use std::sync::OnceLock;

use super::simd;

/// Instruction tiers in rising order; each includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// What the compiler's target promises (SSE2 on x86-64).
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ, VL.
    Avx512,
    /// [`Tier::Avx512`] and the bfloat16 dot product.
    Avx512Bf16,
    /// [`Tier::Avx512Bf16`] and AMX tiles with bfloat16 products, on Linux.
    Amx,
}

impl Tier {
    /// The highest tier of this machine.
    pub fn detected() -> Self {
        static TIER: OnceLock<Tier> = OnceLock::new();
        *TIER.get_or_init(detect)
    }

    /// This tier, or the machine's where that is lower: no caller can reach an instruction that is not there.
    pub fn capped(self) -> Self {
        self.min(Self::detected())
    }

    /// Every tier this machine can run, lowest first.
    pub fn available() -> impl Iterator<Item = Self> {
        [Self::Portable, Self::Avx2, Self::Avx512, Self::Avx512Bf16, Self::Amx].into_iter().filter(|tier| *tier <= Self::detected())
    }

    /// The tier of the elementwise kernels that goes with this one.
    pub(super) fn vector(self) -> simd::Tier {
        static TIERS: OnceLock<Vec<simd::Tier>> = OnceLock::new();
        let wanted = |tier: &&simd::Tier| match self {
            Self::Portable => **tier == simd::Tier::PORTABLE,
            Self::Avx2 => tier.is_avx2(),
            Self::Avx512 | Self::Avx512Bf16 | Self::Amx => tier.is_avx512(),
        };
        TIERS.get_or_init(simd::Tier::available).iter().find(wanted).copied().unwrap_or(simd::Tier::PORTABLE)
    }

    /// Lower-case name for logs and benchmark records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512-bf16",
            Self::Amx => "amx",
        }
    }
}

/// What multiplies 8-bit integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Int8Unit {
    /// Scalar code.
    Portable,
    /// AVX2: bytes widened to 16 bits (`vpmaddwd`), for the 8-bit instruction (`vpmaddubsw`) saturates.
    Avx2,
    /// AVX-512 VNNI (`vpdpbusd`).
    Vnni,
    /// AMX tiles (`tdpbusd`).
    Tiles,
}

impl Tier {
    /// What multiplies 8-bit integers on this machine at this tier.
    pub fn int8(self) -> Int8Unit {
        match self.capped() {
            Self::Amx if has_int8_tiles() => Int8Unit::Tiles,
            Self::Avx512 | Self::Avx512Bf16 | Self::Amx if has_vnni() => Int8Unit::Vnni,
            Self::Portable => Int8Unit::Portable,
            _ => Int8Unit::Avx2,
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn has_vnni() -> bool {
    std::arch::is_x86_feature_detected!("avx512vnni")
}

#[cfg(target_arch = "x86_64")]
fn has_int8_tiles() -> bool {
    super::amx_int8::is_available()
}

#[cfg(not(target_arch = "x86_64"))]
fn has_vnni() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn has_int8_tiles() -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Tier {
    use std::arch::is_x86_feature_detected as has;
    let avx2 = has!("avx2") && has!("fma");
    let avx512 = avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
    match (avx2, avx512, avx512 && has!("avx512bf16")) {
        (_, _, true) if super::amx::is_available() => Tier::Amx,
        (_, _, true) => Tier::Avx512Bf16,
        (_, true, _) => Tier::Avx512,
        (true, _, _) => Tier::Avx2,
        _ => Tier::Portable,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Tier {
    Tier::Portable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_is_never_raised_above_the_machine() {
        for tier in [Tier::Portable, Tier::Avx2, Tier::Avx512, Tier::Avx512Bf16, Tier::Amx] {
            assert!(tier.capped() <= Tier::detected());
            assert_eq!(Tier::available().any(|t| t == tier), tier.capped() == tier);
            if tier.capped() == tier {
                assert_eq!((tier.vector().is_avx2(), tier.vector().is_avx512()), (tier == Tier::Avx2, tier >= Tier::Avx512));
            }
        }
        assert_eq!(Tier::Portable.capped(), Tier::Portable);
    }
}
