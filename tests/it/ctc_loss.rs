//! CTC loss and gradient against golden values.

use std::collections::BTreeMap;

use omniscribe::kernel::ctc::{Ctc, Real};

use crate::oracle::{self, Golden};

const FILE: &str = "04_ctc_loss/ctc_loss.safetensors";
const CASES: &str = "04_ctc_loss/ctc_loss.json";

/// f64 arithmetic on logits stored in full.
const F64_LOSS: f64 = 1e-9;
const F64_GRADIENT: f64 = 1e-9;
/// Golden gradients stored as f32 are rounded: half a unit in the last place below 1, and the term above.
const F64_GRADIENT_STORED_F32: f64 = 3.1e-8;
/// f32 exponentials and sums over the vocabulary; the recursion itself is f64.
const F32_LOSS: f64 = 1e-5;
/// Logits with a spread of 25 or of 1e4 lose that much in f32 before any arithmetic.
const F32_LOSS_WIDE: f64 = 1e-4;
const F32_GRADIENT: f64 = 1e-5;
/// Spread of logits from which the wide tolerance applies.
const WIDE: f64 = 50.0;

struct Case {
    name: String,
    ctc: Ctc,
    /// `[batch, steps, vocab]`.
    logits: Vec<f64>,
    lengths: Vec<usize>,
    targets: Vec<Vec<u32>>,
    nll: Vec<f64>,
    /// `[batch, steps, vocab]`.
    gradient: Vec<f64>,
}

/// `[steps, batch, vocab]` to `[batch, steps, vocab]`.
fn batch_first(x: &Golden) -> Vec<f64> {
    let [steps, batch, vocab] = x.shape[..] else { panic!("three dimensions, not {:?}", x.shape) };
    let mut out = Vec::with_capacity(x.values.len());
    for b in 0..batch {
        (0..steps).for_each(|t| out.extend_from_slice(&x.values[(t * batch + b) * vocab..][..vocab]));
    }
    out
}

fn cases() -> Vec<Case> {
    let tensors: BTreeMap<String, Golden> = oracle::tensors(FILE);
    let list = oracle::json(CASES);
    let cases: Vec<Case> = list
        .as_array()
        .expect("a list of cases")
        .iter()
        .map(|case| {
            let name = case["name"].as_str().expect("name").to_string();
            let tensor = |what: &str| tensors.get(&format!("{name}.{what}")).unwrap_or_else(|| panic!("no {name}.{what}"));
            let (logits, targets, counts) = (tensor("logits"), tensor("targets"), tensor("target_lengths").indices());
            let width = targets.shape.get(1).copied().unwrap_or(0);
            Case {
                ctc: Ctc { steps: logits.shape[0], vocab: logits.shape[2], blank: case["blank"].as_u64().expect("blank") as usize },
                logits: batch_first(logits),
                lengths: tensor("input_lengths").indices(),
                targets: counts
                    .iter()
                    .enumerate()
                    .map(|(b, &n)| targets.values[b * width..][..n].iter().map(|&s| s as u32).collect())
                    .collect(),
                nll: tensor("nll").values.clone(),
                gradient: batch_first(tensor("grad_logits_sum_zi")),
                name,
            }
        })
        .collect();
    assert!(!cases.is_empty(), "no cases in {CASES}");
    cases
}

fn check<R: Real>(case: &Case, convert: impl Fn(f64) -> R, widen: impl Fn(R) -> f64, loss_tolerance: f64, gradient_tolerance: f64) {
    let logits: Vec<R> = case.logits.iter().map(|&v| convert(v)).collect();
    let mut gradient = vec![convert(f64::NAN); logits.len()];
    let nll = case.ctc.loss(&logits, &case.lengths, &case.targets, Some(&mut gradient));
    assert_eq!(nll, case.ctc.loss(&logits, &case.lengths, &case.targets, None), "{}: loss alone", case.name);
    assert_eq!(nll.len(), case.nll.len(), "{}", case.name);
    for (b, (&ours, &golden)) in nll.iter().zip(&case.nll).enumerate() {
        assert!(
            ours == golden || (ours - golden).abs() <= loss_tolerance * golden.abs(),
            "{} [{b}]: nll {ours}, golden {golden}",
            case.name
        );
    }
    let gradient: Vec<f64> = gradient.into_iter().map(widen).collect();
    oracle::assert_close(&format!("{} gradient", case.name), &gradient, &case.gradient, gradient_tolerance);
    for (row, values) in gradient.chunks(case.ctc.vocab).enumerate() {
        let sum: f64 = values.iter().sum();
        assert!(sum.abs() <= gradient_tolerance, "{}: gradient of row {row} sums to {sum:e}", case.name);
    }
}

#[test]
fn ctc_oracle_in_f64() {
    for case in cases() {
        let stored_f32 = case.gradient.iter().all(|&v| f64::from(v as f32) == v);
        check(&case, |v| v, |v| v, F64_LOSS, if stored_f32 { F64_GRADIENT_STORED_F32 } else { F64_GRADIENT });
    }
}

#[test]
fn ctc_oracle_in_f32() {
    for case in cases() {
        let spread = case.logits.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let loss = if spread > WIDE { F32_LOSS_WIDE } else { F32_LOSS };
        check(&case, |v| v as f32, f64::from, loss, F32_GRADIENT);
    }
}
