//! The scalar arithmetic that kernels are made of (exp, erfc, log-add, folds), branch-free so that loops over it
//! vectorise in every tier.

/// `a * b + c`, fused where `FMA`.
#[inline(always)]
pub(crate) fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

#[inline(always)]
fn fma64<const FMA: bool>(a: f64, b: f64, c: f64) -> f64 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// The polynomial with these coefficients, highest power first.
#[inline(always)]
fn horner<const FMA: bool>(x: f32, coefficients: &[f32]) -> f32 {
    let mut sum = coefficients[0];
    for &c in &coefficients[1..] {
        sum = fma::<FMA>(sum, x, c);
    }
    sum
}

#[inline(always)]
fn horner64<const FMA: bool>(x: f64, coefficients: &[f64]) -> f64 {
    let mut sum = coefficients[0];
    for &c in &coefficients[1..] {
        sum = fma64::<FMA>(sum, x, c);
    }
    sum
}

/// Largest magnitude whose exponential and its reciprocal are normal f32 numbers.
pub(crate) const EXP_LIMIT: f32 = 87.3;

/// `e^x`, relative error below 2e-7 for |x| <= [`EXP_LIMIT`]; 0 below, `e^87.3` above, NaN for NaN.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    // Degree 6, interpolated at Chebyshev nodes of [-ln 2 / 2, ln 2 / 2]: relative error 2.5e-9 before rounding.
    const P: [f32; 7] = [0.001_394_110_8, 0.008_375_126, 0.041_666_35, 0.166_664_16, 0.5, 1.000_000_04, 1.0];
    // 1.5 * 2^23: adding it leaves the nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 = 355/512 (few bits, so that products with |n| < 2^8 are exact) - 2.12194440e-4.
    const LN2_HIGH: f32 = 355.0 / 512.0;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let y = if x < -EXP_LIMIT { -EXP_LIMIT } else { x };
    let y = if y > EXP_LIMIT { EXP_LIMIT } else { y };
    let k = fma::<FMA>(y, std::f32::consts::LOG2_E, ROUND);
    let n = k - ROUND;
    let r = fma::<FMA>(n, -LN2_LOW, fma::<FMA>(n, -LN2_HIGH, y));
    let scale = f32::from_bits((k.to_bits() << 23).wrapping_add(127 << 23));
    let value = horner::<FMA>(r, &P) * scale;
    if x < -EXP_LIMIT { 0.0 } else { value }
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FMA>(-x))
}

/// Standard normal distribution: (`Phi(x)`, `phi(x)`), absolute error below 3e-7.
#[inline(always)]
pub(crate) fn normal<const FMA: bool>(x: f32) -> (f32, f32) {
    // erfc(z) = e^(-z^2) t Q(t), t = 1 / (1 + 0.42 z); Q / 2 interpolated at Chebyshev nodes: relative error 5e-7.
    const HALF_Q: [f32; 8] =
        [0.036_942_672, -0.167_535_51, 0.232_683_34, -0.076_176_934, 0.139_866_35, 0.095_795_57, 0.120_026_37, 0.118_398_15];
    // 0.42 / sqrt 2.
    const SLOPE: f32 = 0.296_984_85;
    // 1 / sqrt(2 pi).
    const DENSITY: f32 = 0.398_942_3;
    let t = 1.0 / fma::<FMA>(SLOPE, x.abs(), 1.0);
    let gauss = exp::<FMA>(-0.5 * x * x);
    let tail = horner::<FMA>(t, &HALF_Q) * t * gauss;
    (if x > 0.0 { 1.0 - tail } else { tail }, DENSITY * gauss)
}

/// Stands for the logarithm of zero in f64 recursions: finite, so that differences of two are not NaN.
pub(crate) const LOG_ZERO: f64 = -1e30;

/// `e^x` in f64 for `x <= 0`, relative error below 5e-16 down to -700; 0 below -708.
#[inline(always)]
pub(crate) fn exp64<const FMA: bool>(x: f64) -> f64 {
    // Taylor series to degree 12 on |r| <= ln 2 / 2: the rest is below 2e-16.
    const P: [f64; 13] = [
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ];
    // 1.5 * 2^52, as in `exp`.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    // ln 2 to 32 fraction bits, and the rest.
    const LN2_HIGH: f64 = 0.693_147_180_369_123_8;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    let y = if x < -708.0 { -708.0 } else { x };
    let k = fma64::<FMA>(y, std::f64::consts::LOG2_E, ROUND);
    let n = k - ROUND;
    let r = fma64::<FMA>(n, -LN2_LOW, fma64::<FMA>(n, -LN2_HIGH, y));
    let scale = f64::from_bits((k.to_bits() << 52).wrapping_add(1023 << 52));
    let value = horner64::<FMA>(r, &P) * scale;
    if x < -708.0 { 0.0 } else { value }
}

/// `ln(1 + u)` for `u` in [0, 2], absolute error below 5e-16.
#[inline(always)]
pub(crate) fn ln_1p_small<const FMA: bool>(u: f64) -> f64 {
    // ln((1 + f) / (1 - f)) = 2 f (1 + f^2 / 3 + f^4 / 5 + ..) with |f| <= 0.2: the rest is below 4e-17.
    const P: [f64; 11] =
        [2.0 / 21.0, 2.0 / 19.0, 2.0 / 17.0, 2.0 / 15.0, 2.0 / 13.0, 2.0 / 11.0, 2.0 / 9.0, 2.0 / 7.0, 2.0 / 5.0, 2.0 / 3.0, 2.0];
    let halve = u > 0.414_213_562;
    let f = if halve { u - 1.0 } else { u } / if halve { u + 3.0 } else { u + 2.0 };
    let base = if halve { std::f64::consts::LN_2 } else { 0.0 };
    fma64::<FMA>(horner64::<FMA>(f * f, &P), f, base)
}

#[inline(always)]
fn ordered(a: f64, b: f64) -> (f64, f64) {
    if a < b { (b, a) } else { (a, b) }
}

/// `ln(e^a + e^b)` for finite arguments ([`LOG_ZERO`] for zero).
#[inline(always)]
pub(crate) fn log_add<const FMA: bool>(a: f64, b: f64) -> f64 {
    let (high, low) = ordered(a, b);
    high + ln_1p_small::<FMA>(exp64::<FMA>(low - high))
}

/// `ln(e^a + e^b + e^c)` for finite arguments.
#[inline(always)]
pub(crate) fn log_add3<const FMA: bool>(a: f64, b: f64, c: f64) -> f64 {
    let (high, low) = ordered(a, b);
    let (high, middle) = ordered(high, c);
    high + ln_1p_small::<FMA>(exp64::<FMA>(low - high) + exp64::<FMA>(middle - high))
}

/// Folds `x` into 32 running values: as many lanes in every tier, so that sums differ only by fused rounding.
#[inline(always)]
pub(crate) fn fold(x: &[f32], start: f32, f: impl Fn(f32, f32) -> f32) -> [f32; 32] {
    let mut lanes = [start; 32];
    let (chunks, tail) = x.as_chunks::<32>();
    for chunk in chunks {
        for i in 0..32 {
            lanes[i] = f(lanes[i], chunk[i]);
        }
    }
    for (lane, &v) in lanes.iter_mut().zip(tail) {
        *lane = f(*lane, v);
    }
    lanes
}

/// Combines the lanes of [`fold`] pairwise.
#[inline(always)]
pub(crate) fn reduce(mut lanes: [f32; 32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = 16;
    while width > 0 {
        for i in 0..width {
            lanes[i] = f(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::simd::{Tier, tiered};

    #[inline(always)]
    fn each_body<const FMA: bool, const LANES: usize>(x: &[f32], out: &mut [[f32; 4]]) {
        for (o, &x) in out.iter_mut().zip(x) {
            let (cumulative, density) = normal::<FMA>(x);
            *o = [exp::<FMA>(x), sigmoid::<FMA>(x), cumulative, density];
        }
    }
    tiered!(fn each(x: &[f32], out: &mut [[f32; 4]]) = each_body);

    /// erfc(z) for z >= 0 by its continued fraction or its series.
    fn erfc(z: f64) -> f64 {
        if z < 3.0 {
            let (mut term, mut sum, mut n) = (z, z, 0.0);
            while term.abs() > 1e-18 * sum.abs() {
                n += 1.0;
                term *= -z * z / n;
                sum += term / (2.0 * n + 1.0);
                if n > 200.0 {
                    break;
                }
            }
            1.0 - 2.0 / std::f64::consts::PI.sqrt() * sum
        } else {
            let mut f = 0.0;
            for k in (1..=80).rev() {
                f = f64::from(k) / 2.0 / (z + f);
            }
            (-z * z).exp() / (z + f) / std::f64::consts::PI.sqrt()
        }
    }

    #[test]
    fn exp_sigmoid_and_normal_stay_within_their_errors() {
        let x: Vec<f32> = (-870_000..=870_000).map(|i| i as f32 * 1e-4).collect();
        for tier in Tier::available() {
            let mut out = vec![[0.0; 4]; x.len()];
            each(tier, &x, &mut out);
            let (mut worst_exp, mut worst_sigmoid, mut worst_normal, mut worst_density) = (0.0f64, 0.0f64, 0.0f64, 0.0f64);
            for (&x, o) in x.iter().zip(&out) {
                let x = f64::from(x);
                worst_exp = worst_exp.max((f64::from(o[0]) / x.exp() - 1.0).abs());
                worst_sigmoid = worst_sigmoid.max((f64::from(o[1]) * (1.0 + (-x).exp()) - 1.0).abs());
                if x.abs() < 10.0 {
                    let tail = erfc(x.abs() / 2f64.sqrt()) / 2.0;
                    let cumulative = if x > 0.0 { 1.0 - tail } else { tail };
                    worst_normal = worst_normal.max((f64::from(o[2]) - cumulative).abs());
                    let density = (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
                    worst_density = worst_density.max((f64::from(o[3]) - density).abs());
                }
            }
            assert!(worst_exp < 2e-7, "{tier:?} exp {worst_exp:e}");
            assert!(worst_sigmoid < 4e-7, "{tier:?} sigmoid {worst_sigmoid:e}");
            assert!(worst_normal < 3e-7, "{tier:?} Phi {worst_normal:e}");
            assert!(worst_density < 3e-7, "{tier:?} phi {worst_density:e}");
        }
    }

    #[test]
    fn exp_of_special_values() {
        for tier in Tier::available() {
            let x = [f32::NEG_INFINITY, f32::NAN, 0.0, f32::INFINITY, -1e30];
            let mut out = vec![[0.0; 4]; 5];
            each(tier, &x, &mut out);
            assert_eq!((out[0][0], out[2][0], out[4][0]), (0.0, 1.0, 0.0));
            assert!(out[1].iter().all(|v| v.is_nan()));
            assert!(out[3][0] > 1e37 && out[3][1] == 1.0 && out[3][2] == 1.0);
        }
    }

    #[test]
    fn log_add_matches_the_library() {
        let check = |ours: f64, golden: f64| assert!((ours - golden).abs() <= 4e-15 * golden.abs().max(1.0), "{ours} {golden}");
        for i in 0..2000 {
            let (a, b, c) = (f64::from(i % 40) - 20.0, f64::from(i % 77) * -0.37, f64::from(i) * 0.01 - 15.0);
            for (x, y) in [(a, b), (b, a)] {
                check(log_add::<true>(x, y), (x.exp() + y.exp()).ln());
                check(log_add::<false>(x, y), (x.exp() + y.exp()).ln());
            }
            check(log_add3::<true>(a, b, c), (a.exp() + b.exp() + c.exp()).ln());
            check(log_add3::<false>(c, a, b), (a.exp() + b.exp() + c.exp()).ln());
        }
        assert_eq!(log_add::<true>(LOG_ZERO, -3.0), -3.0);
        assert!(log_add3::<true>(LOG_ZERO, LOG_ZERO, LOG_ZERO) <= 0.99 * LOG_ZERO);
    }

    #[test]
    fn fold_and_reduce_see_every_element() {
        for n in [0usize, 1, 31, 32, 33, 100] {
            let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
            assert_eq!(reduce(fold(&x, 0.0, |a, v| a + v), |a, b| a + b), (n * n.saturating_sub(1) / 2) as f32);
        }
    }
}
