//! One AdamW step over a parameter in a single pass, and the sum of squares for clipping by the global norm.

use rayon::prelude::*;

use super::math::fma;
use super::rows::TASK;
use super::simd::{Tier, tiered};

/// AdamW (Loshchilov and Hutter 2019) at one step.
///
/// `p -= lr * weight_decay * p`, then `p -= lr * m' / (sqrt(v') + eps)` with the bias-corrected moments m', v'
/// of `grad_scale * grad`: PyTorch's order of operations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Factor on the gradient: 1, or below for clipping.
    pub grad_scale: f32,
    /// Steps taken including this one, from 1.
    pub step: u64,
}

/// What a parameter carries from step to step; all as long as the parameter, the moments zero at first.
#[derive(Debug)]
pub struct State<'a> {
    /// First moment.
    pub m: &'a mut [f32],
    /// Second moment.
    pub v: &'a mut [f32],
    /// Moving average of the parameter with its decay: `average = decay * average + (1 - decay) * parameter`.
    pub average: Option<(&'a mut [f32], f32)>,
}

/// The constants of a step, worked out in f64.
#[derive(Clone, Copy)]
struct Factors {
    beta1: f32,
    beta2: f32,
    rest1: f32,
    rest2: f32,
    keep: f32,
    rate: f32,
    unbias: f32,
    eps: f32,
    grad: f32,
}

#[inline(always)]
fn step_body<const FMA: bool, const LANES: usize>(f: Factors, param: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32]) {
    for (((p, &g), m), v) in param.iter_mut().zip(grad).zip(m).zip(v) {
        let g = g * f.grad;
        *m = fma::<FMA>(f.beta1, *m, f.rest1 * g);
        *v = fma::<FMA>(f.beta2, *v, f.rest2 * (g * g));
        let root = fma::<FMA>(v.sqrt(), f.unbias, f.eps);
        *p = fma::<FMA>(*p, f.keep, -(f.rate * *m / root));
    }
}
tiered!(fn step_part(f: Factors, param: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32]) = step_body);

#[inline(always)]
fn average_body<const FMA: bool, const LANES: usize>(decay: f32, param: &[f32], average: &mut [f32]) {
    for (a, &p) in average.iter_mut().zip(param) {
        *a = fma::<FMA>(decay, *a - p, p);
    }
}
tiered!(fn average_part(decay: f32, param: &[f32], average: &mut [f32]) = average_body);

impl AdamW {
    /// Updates `param` and its state by `grad`; every slice as long as `param`. Element-wise, so the result does not
    /// depend on the number of threads.
    pub fn update(&self, param: &mut [f32], grad: &[f32], state: State<'_>) {
        self.update_on(Tier::best(), param, grad, state);
    }

    fn update_on(&self, tier: Tier, param: &mut [f32], grad: &[f32], state: State<'_>) {
        let State { m, v, average } = state;
        assert!(grad.len() == param.len() && m.len() == param.len() && v.len() == param.len(), "elements");
        let factors = self.factors();
        let chunks = param.par_chunks_mut(TASK).zip(grad.par_chunks(TASK)).zip(m.par_chunks_mut(TASK)).zip(v.par_chunks_mut(TASK));
        match average {
            Some((average, decay)) => {
                assert_eq!(average.len(), grad.len(), "elements");
                chunks.zip(average.par_chunks_mut(TASK)).for_each(|((((p, g), m), v), average)| {
                    step_part(tier, factors, p, g, m, v);
                    average_part(tier, decay, p, average);
                });
            }
            None => chunks.for_each(|(((p, g), m), v)| step_part(tier, factors, p, g, m, v)),
        }
    }

    fn factors(&self) -> Factors {
        let [lr, beta1, beta2, weight_decay] = [self.lr, self.beta1, self.beta2, self.weight_decay].map(f64::from);
        let power = self.step.min(1 << 30) as i32;
        Factors {
            beta1: self.beta1,
            beta2: self.beta2,
            rest1: (1.0 - beta1) as f32,
            rest2: (1.0 - beta2) as f32,
            keep: (1.0 - lr * weight_decay) as f32,
            rate: (lr / (1.0 - beta1.powi(power))) as f32,
            unbias: (1.0 / (1.0 - beta2.powi(power)).sqrt()) as f32,
            eps: self.eps,
            grad: self.grad_scale,
        }
    }
}

#[inline(always)]
fn squares_body<const FMA: bool, const LANES: usize>(x: &[f32]) -> f64 {
    let mut lanes = [0.0f64; 16];
    let (chunks, tail) = x.as_chunks::<16>();
    for chunk in chunks {
        for i in 0..16 {
            let v = f64::from(chunk[i]);
            lanes[i] += v * v;
        }
    }
    for (lane, &v) in lanes.iter_mut().zip(tail) {
        *lane += f64::from(v) * f64::from(v);
    }
    lanes.iter().sum()
}
tiered!(fn squares_part(x: &[f32]) -> f64 = squares_body);

/// Sum of the squares of all elements, in f64 and in a fixed order: the same on any number of threads.
pub fn sum_squares(x: &[f32]) -> f64 {
    sum_squares_on(Tier::best(), x)
}

fn sum_squares_on(tier: Tier, x: &[f32]) -> f64 {
    if x.len() <= 2 * TASK {
        return x.chunks(TASK).map(|c| squares_part(tier, c)).sum();
    }
    let sums: Vec<f64> = x.par_chunks(TASK).map(|c| squares_part(tier, c)).collect();
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::rng::SplitMix;

    fn random(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = SplitMix::new(seed);
        (0..n).map(|_| rng.next_normal()).collect()
    }

    #[test]
    fn ten_steps_match_f64() {
        let n = 3 * TASK + 5;
        for tier in Tier::available() {
            let mut param = random(n, 1);
            let (mut m, mut v, mut average) = (vec![0.0; n], vec![0.0; n], param.clone());
            let mut golden: Vec<[f64; 4]> = param.iter().map(|&p| [p.into(), 0.0, 0.0, p.into()]).collect();
            for step in 1..=10 {
                let grad = random(n, 100 + step);
                let adam = AdamW { lr: 1e-2, beta1: 0.9, beta2: 0.98, eps: 1e-8, weight_decay: 0.05, grad_scale: 0.25, step };
                adam.update_on(tier, &mut param, &grad, State { m: &mut m, v: &mut v, average: Some((&mut average, 0.9)) });
                for (s, &g) in golden.iter_mut().zip(&grad) {
                    let [lr, b1, b2, eps, wd] = [adam.lr, adam.beta1, adam.beta2, adam.eps, adam.weight_decay].map(f64::from);
                    let g = f64::from(g) * 0.25;
                    s[0] *= 1.0 - lr * wd;
                    s[1] = b1 * s[1] + (1.0 - b1) * g;
                    s[2] = b2 * s[2] + (1.0 - b2) * g * g;
                    let (m, v) = (s[1] / (1.0 - b1.powi(step as i32)), s[2] / (1.0 - b2.powi(step as i32)));
                    s[0] -= lr * m / (v.sqrt() + eps);
                    let decay = f64::from(0.9f32);
                    s[3] = decay * s[3] + (1.0 - decay) * s[0];
                }
            }
            for i in 0..n {
                for (ours, golden) in [param[i], m[i], v[i], average[i]].into_iter().zip(golden[i]) {
                    assert!((f64::from(ours) - golden).abs() < 3e-6, "{tier:?} {i}: {ours} {golden}");
                }
            }
        }
    }

    #[test]
    fn without_average_the_parameter_is_the_same() {
        let grad = random(100, 2);
        let adam = AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, grad_scale: 1.0, step: 1 };
        let run = |with: bool| {
            let (mut p, mut m, mut v, mut a) = (random(100, 3), vec![0.0; 100], vec![0.0; 100], vec![0.0; 100]);
            adam.update(&mut p, &grad, State { m: &mut m, v: &mut v, average: with.then_some((&mut a, 0.5)) });
            p
        };
        assert_eq!(run(true), run(false));
        // The first step moves every element by the learning rate against the sign of its gradient.
        assert!(run(false).iter().zip(random(100, 3)).zip(&grad).all(|((a, b), g)| (b - a - 1e-3 * g.signum()).abs() < 1e-6));
    }

    #[test]
    fn sum_of_squares_is_exact_enough_and_repeats() {
        for n in [0, 1, 17, TASK, 5 * TASK + 9] {
            let x = random(n, 4);
            let golden: f64 = x.iter().map(|&v| f64::from(v).powi(2)).sum();
            for tier in Tier::available() {
                assert!((sum_squares_on(tier, &x) - golden).abs() <= 1e-12 * golden);
            }
            let on = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| sum_squares(&x));
            assert_eq!(on(1).to_bits(), on(3).to_bits());
        }
    }
}
