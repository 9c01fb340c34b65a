//! How far confidences are from how often words are right, and the curve that brings them there.

use serde::{Deserialize, Serialize};

use super::alignment::{Edit, align};
use crate::pipeline::calibration::{Logistic, log_odds};
use crate::text::target;

/// Bins of equal width of the expected calibration error.
const BINS: usize = 10;
/// Rounds of Newton's method; it stops when a round moves nothing.
const ROUNDS: usize = 100;
/// Weight of a prior that holds the curve at "as they are", in words: without it a set without a wrong word has no finite curve.
const PRIOR: f64 = 1.0;
/// Least slope of a fitted curve: confidences that say nothing, or the contrary, still keep their order.
const LEAST_SLOPE: f64 = 1e-3;
/// Probabilities in logarithms are at least this far from 0 and 1.
const LEAST: f64 = 1e-9;

/// A word that was heard: its confidence, before any calibration, and whether it was right. `[0.93, true]` in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Judged(pub f64, pub bool);

/// How good confidences are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quality {
    /// Expected calibration error: the mean distance of confidence and share of right words over ten bins, weighed by their words.
    pub ece: f64,
    /// Normalised cross entropy, as NIST has it: 1 is all-knowing, 0 what the share of right words alone tells, below 0 worse.
    pub nce: f64,
}

/// Confidences of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confidence {
    /// Words heard.
    pub words: usize,
    /// Those that were right.
    pub right: usize,
    /// As the search gives them.
    pub raw: Quality,
    /// The curve of the model folder.
    pub curve: Logistic,
    /// After it.
    pub calibrated: Quality,
    /// Only where the curve was fitted to these very words: after curves that were fitted to the other half of the utterances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out: Option<Quality>,
}

/// Aligns the words heard with what was said, both in the form that models are trained to write ([`target`]): a word without letters is
/// left out, one that is several takes its confidence for each. Empty where the reference has no such form.
pub fn judge<'w>(reference: &str, words: impl IntoIterator<Item = (&'w str, f64)>) -> Vec<Judged> {
    let Some(reference) = target(reference) else { return Vec::new() };
    let said: Vec<&str> = reference.split(' ').collect();
    let heard: Vec<(String, f64)> = words
        .into_iter()
        .flat_map(|(word, confidence)| {
            let parts = target(word).unwrap_or_default();
            parts.split_whitespace().map(|part| (part.to_string(), confidence)).collect::<Vec<_>>()
        })
        .collect();
    let texts: Vec<&str> = heard.iter().map(|(word, _)| word.as_str()).collect();
    let mut judged = Vec::with_capacity(heard.len());
    for chunk in align(&said, &texts) {
        let right = chunk.edit == Edit::Equal;
        judged.extend(heard[chunk.hypothesis].iter().map(|&(_, confidence)| Judged(confidence, right)));
    }
    judged
}

/// Measures confidences after a curve; zeros of no words.
pub fn quality(judged: &[Judged], curve: Logistic) -> Quality {
    Quality { ece: ece(judged, curve), nce: nce(judged, curve) }
}

fn ece(judged: &[Judged], curve: Logistic) -> f64 {
    let mut bins = [(0.0, 0.0); BINS];
    for &Judged(confidence, right) in judged {
        let p = curve.apply(confidence);
        let (sum, hits) = &mut bins[((p * BINS as f64) as usize).min(BINS - 1)];
        *sum += p;
        *hits += f64::from(u8::from(right));
    }
    bins.iter().map(|(sum, hits)| (sum - hits).abs()).sum::<f64>() / judged.len().max(1) as f64
}

fn nce(judged: &[Judged], curve: Logistic) -> f64 {
    let entropy = |p: f64, right: bool| -(if right { p } else { 1.0 - p }).clamp(LEAST, 1.0).ln();
    let share = judged.iter().filter(|word| word.1).count() as f64 / judged.len().max(1) as f64;
    let (mut base, mut ours) = (0.0, 0.0);
    for &Judged(confidence, right) in judged {
        base += entropy(share, right);
        ours += entropy(curve.apply(confidence), right);
    }
    // All right or all wrong: nothing is left to tell.
    if base > 0.0 { (base - ours) / base } else { 0.0 }
}

/// The curve under which what was heard is most probable, by Newton's method.
pub fn fit(judged: &[Judged]) -> Logistic {
    let points: Vec<(f64, f64)> =
        judged.iter().map(|&Judged(confidence, right)| (log_odds(confidence), f64::from(u8::from(right)))).collect();
    let Logistic { slope: mut a, intercept: mut b } = Logistic::default();
    let loss = |a: f64, b: f64| {
        let of = |&(x, y): &(f64, f64)| {
            let z = a * x + b;
            // ln(1 + e^z) - y z, without overflow.
            z.max(0.0) + (-z.abs()).exp().ln_1p() - y * z
        };
        points.iter().map(of).sum::<f64>() + PRIOR / 2.0 * ((a - 1.0).powi(2) + b * b)
    };
    for _ in 0..ROUNDS {
        let (mut ga, mut gb, mut haa, mut hab, mut hbb) = (PRIOR * (a - 1.0), PRIOR * b, PRIOR, 0.0, PRIOR);
        for &(x, y) in &points {
            let p = 1.0 / (1.0 + (-a * x - b).exp());
            let weight = p * (1.0 - p);
            ga += (p - y) * x;
            gb += p - y;
            haa += weight * x * x;
            hab += weight * x;
            hbb += weight;
        }
        let determinant = haa * hbb - hab * hab;
        let (da, db) = ((hbb * ga - hab * gb) / determinant, (haa * gb - hab * ga) / determinant);
        // The loss is convex: half a step, or a quarter, always helps where a whole one does not.
        let before = loss(a, b);
        let step =
            std::iter::successors(Some(1.0), |step| Some(step / 2.0)).take(40).find(|step| loss(a - step * da, b - step * db) < before);
        let Some(step) = step else { break };
        (a, b) = (a - step * da, b - step * db);
    }
    Logistic { slope: a.max(LEAST_SLOPE), intercept: b }
}

impl Confidence {
    /// Of words under the curve that is in use; `None` without words.
    pub fn of(judged: &[Judged], curve: Logistic) -> Option<Self> {
        (!judged.is_empty()).then(|| Self {
            words: judged.len(),
            right: judged.iter().filter(|word| word.1).count(),
            raw: quality(judged, Logistic::default()),
            curve,
            calibrated: quality(judged, curve),
            held_out: None,
        })
    }

    /// Fits a curve to utterances, and says what it would be worth on others: each half of them is measured under the other half's curve.
    pub fn fitted(utterances: &[&[Judged]]) -> Option<Self> {
        let half = |odd: usize| utterances.iter().skip(odd).step_by(2).flat_map(|u| u.iter().copied()).collect::<Vec<Judged>>();
        let (even, odd) = (half(0), half(1));
        let calibrated = |words: &[Judged], curve: Logistic| words.iter().map(|w| Judged(curve.apply(w.0), w.1)).collect::<Vec<_>>();
        let crossed = [calibrated(&even, fit(&odd)), calibrated(&odd, fit(&even))].concat();
        let all = [even, odd].concat();
        let held_out = Some(quality(&crossed, Logistic::default()));
        Self::of(&all, fit(&all)).map(|confidence| Self { held_out, ..confidence })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_judged_in_the_form_models_write() {
        let words = [("the", 0.9), ("21", 0.8), ("cats", 0.7), ("--", 0.6), ("sit", 0.5)];
        let expected = [Judged(0.9, true), Judged(0.8, true), Judged(0.8, true), Judged(0.7, false), Judged(0.5, true)];
        assert_eq!(judge("The twenty-one cat's sit!", words), expected);
        assert_eq!(judge("a", []), []);
        assert_eq!(judge("...", [("x", 0.5)]), []);
    }

    /// By hand: of the last bin's three words (0.95, 0.91 and 1, together 2.86) two are right; 0.25 alone is right too, 0.75 off. Three of
    /// four are right.
    #[test]
    fn quality_by_hand() {
        let words = [Judged(0.95, true), Judged(0.91, false), Judged(0.25, true), Judged(1.0, true)];
        let quality = quality(&words, Logistic::default());
        assert!((quality.ece - (0.86 + 0.75) / 4.0).abs() < 1e-12, "{quality:?}");
        let base = -(3.0 * 0.75f64.ln() + 0.25f64.ln());
        let ours = -(0.95f64.ln() + 0.09f64.ln() + 0.25f64.ln());
        assert!((quality.nce - (base - ours) / base).abs() < 1e-9, "{quality:?}");
        // Two words of each sort, told apart by 3 to 1: (ln 2 - (ln 4 - 3/4 ln 3)) / ln 2.
        let told: Vec<Judged> =
            [(0.75, true), (0.75, true), (0.75, true), (0.75, false), (0.25, true), (0.25, false), (0.25, false), (0.25, false)]
                .map(|(p, right)| Judged(p, right))
                .into();
        let told = super::quality(&told, Logistic::default());
        assert!(told.ece.abs() < 1e-12 && (told.nce - 0.188_721_875_540_867).abs() < 1e-12, "{told:?}");
        assert_eq!(super::quality(&[Judged(0.5, true)], Logistic::default()).nce, 0.0);
        assert_eq!(super::quality(&[], Logistic::default()), Quality { ece: 0.0, nce: 0.0 });
    }

    /// Words whose share of right ones is exactly what a curve says.
    fn synthetic(curve: Logistic) -> Vec<Judged> {
        let mut words = Vec::new();
        for percent in 1..100 {
            let confidence = f64::from(percent) / 100.0;
            let right = (2000.0 * curve.apply(confidence)).round() as usize;
            words.extend((0..2000).map(|i| Judged(confidence, i < right)));
        }
        words
    }

    #[test]
    fn a_temperature_and_a_shift_are_recovered() {
        for (slope, intercept) in [(1.0 / 2.5, 0.0), (1.7, -0.8), (1.0, 0.0)] {
            let words = synthetic(Logistic { slope, intercept });
            let found = fit(&words);
            assert!((found.slope - slope).abs() < 2e-3 && (found.intercept - intercept).abs() < 2e-3, "{found:?} for {slope} {intercept}");
            let (before, after) = (quality(&words, Logistic::default()), quality(&words, found));
            assert!(after.ece < 2e-3 && after.nce >= before.nce - 1e-9, "{before:?} {after:?}");
        }
    }

    #[test]
    fn hopeless_words_still_give_a_curve() {
        for words in [vec![], vec![Judged(1.0, true); 9], vec![Judged(0.0, true), Judged(1.0, false)], vec![Judged(f64::NAN, true)]] {
            let Logistic { slope, intercept } = fit(&words);
            assert!(slope > 0.0 && slope.is_finite() && intercept.is_finite(), "{words:?}: {slope} {intercept}");
        }
        assert_eq!(Confidence::fitted(&[]), None);
        let words = synthetic(Logistic { slope: 0.5, intercept: 0.2 });
        let utterances: Vec<&[Judged]> = words.chunks(7).collect();
        let fitted = Confidence::fitted(&utterances).unwrap();
        let held_out = fitted.held_out.unwrap();
        assert!(held_out.ece < fitted.raw.ece / 3.0 && held_out.nce > fitted.raw.nce, "{fitted:?}");
    }
}
