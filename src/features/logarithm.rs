//! Logarithm of a row of mel energies, with its floor.

use std::f32::consts::{LN_2, LOG10_2, LOG10_E};

use serde::{Deserialize, Serialize};

/// How an energy becomes a feature.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogScale {
    /// Base of the logarithm.
    pub base: LogBase,
    /// Guard against the logarithm of zero.
    pub floor: Floor,
}

/// Base of the logarithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogBase {
    /// Natural.
    E,
    /// Decimal.
    Ten,
}

/// Guard against the logarithm of zero.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Floor {
    /// `log(max(x, floor))`.
    Clamp(f32),
    /// `log(x + floor)`.
    Add(f32),
}

impl Floor {
    /// The floor itself.
    pub fn value(self) -> f32 {
        match self {
            Self::Clamp(floor) | Self::Add(floor) => floor,
        }
    }
}

impl LogScale {
    /// Replaces the energies by their logarithms.
    pub(super) fn apply(self, energies: &mut [f32]) {
        match self.floor {
            Floor::Clamp(floor) => energies.iter_mut().for_each(|x| *x = x.max(floor)),
            Floor::Add(floor) => energies.iter_mut().for_each(|x| *x += floor),
        }
        match self.base {
            LogBase::E => energies.iter_mut().for_each(|x| *x = logarithm(*x, LN_2, 1.0)),
            LogBase::Ten => energies.iter_mut().for_each(|x| *x = logarithm(*x, LOG10_2, LOG10_E)),
        }
    }
}

/// Logarithm of a positive normal number to the base whose `log(2)` and `log(e)` are given; branch-free, so a loop vectorises.
///
/// `x = m 2^e` with `m` in `[sqrt(1/2), sqrt(2))`, and `ln m = 2 atanh(s)`, `s = (m - 1) / (m + 1)`, `|s| < 0.172`, by its series to
/// `s^9` (the rest is under 2e-9 of it). Within 2e-7 relative or 1e-7 absolute of the exact value.
#[inline(always)]
fn logarithm(x: f32, log_2: f32, log_e: f32) -> f32 {
    const SQRT_HALF_BITS: u32 = 0x3f35_04f3;
    let bits = x.to_bits();
    let exponent = (bits.wrapping_sub(SQRT_HALF_BITS) as i32) >> 23;
    let m = f32::from_bits(bits.wrapping_sub((exponent << 23) as u32));
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let tail = z * (1.0 / 3.0 + z * (1.0 / 5.0 + z * (1.0 / 7.0 + z * (1.0 / 9.0))));
    let ln_m = 2.0 * (s + s * tail);
    exponent as f32 * log_2 + ln_m * log_e
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithm_is_accurate_over_the_whole_range() {
        let mut x = f32::MIN_POSITIVE;
        while x < f32::MAX / 1.01 {
            for (ours, exact) in [(logarithm(x, LN_2, 1.0), f64::from(x).ln()), (logarithm(x, LOG10_2, LOG10_E), f64::from(x).log10())] {
                let limit = 1e-7 + 2e-7 * exact.abs();
                assert!((f64::from(ours) - exact).abs() <= limit, "{x:e}: {ours} for {exact}");
            }
            x *= 1.000_37;
        }
        assert_eq!(logarithm(1.0, LN_2, 1.0), 0.0);
    }

    #[test]
    fn floors_clamp_or_add() {
        let mut row = [0.0, 1.0];
        LogScale { base: LogBase::Ten, floor: Floor::Clamp(1e-10) }.apply(&mut row);
        assert_eq!(row.map(f32::round), [-10.0, 0.0]);
        let mut row = [0.0, 1.0];
        LogScale { base: LogBase::E, floor: Floor::Add(1.0) }.apply(&mut row);
        assert_eq!(row[0], 0.0);
        assert!((row[1] - LN_2).abs() < 1e-7);
    }
}
