//! Whether functions keep their neurons and experts as training goes on.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::analyze::modularity::{FunctionModularity, LayerModularity};

/// An earlier state of a model beside its last one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stability {
    /// The earlier state.
    pub model: String,
    /// Share of (function, group) pairs that are functional in it, mean over layers.
    pub share: f64,
    /// Share of the last model's best neurons that are among the best for the same function in it; by chance as many as count as the best, 1 %.
    pub best_kept: f64,
    /// Share of the last model's functional (function, group) pairs that are functional in it.
    pub functional_kept: f64,
}

/// Compares layer by layer and function by function; both are of the same functions in the same order.
pub fn stability(model: &str, earlier: &[LayerModularity], last: &[LayerModularity]) -> Stability {
    let pairs = || earlier.iter().zip(last).flat_map(|(a, b)| a.functions.iter().zip(&b.functions));
    let kept = |of: fn(&FunctionModularity) -> &[usize]| {
        let (mut same, mut all) = (0, 0);
        for (a, b) in pairs() {
            let there: BTreeSet<&usize> = of(a).iter().collect();
            same += of(b).iter().filter(|n| there.contains(n)).count();
            all += of(b).len();
        }
        same as f64 / all.max(1) as f64
    };
    let share = earlier.iter().map(|layer| layer.share).sum::<f64>() / earlier.len().max(1) as f64;
    Stability { model: model.into(), share, best_kept: kept(|f| &f.best), functional_kept: kept(|f| &f.functional) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_is_counted() {
        let layer = |best: &[usize], functional: &[usize]| LayerModularity {
            groups: 4,
            best: 2,
            threshold: 1,
            functions: vec![FunctionModularity {
                name: "f".into(),
                precision: 0.9,
                counts: vec![],
                functional: functional.to_vec(),
                degree: 0.0,
                best: best.to_vec(),
            }],
            share: functional.len() as f64 / 4.0,
            share_interval: None,
            share_random: 0.0,
        };
        let (early, late) = ([layer(&[1, 2], &[0]), layer(&[5, 6], &[])], [layer(&[2, 3], &[0, 1]), layer(&[5, 6], &[2])]);
        let found = stability("early", &early, &late);
        assert_eq!((found.share, found.best_kept, found.functional_kept), (0.125, 0.75, 1.0 / 3.0));
        let same = stability("late", &late, &late);
        assert_eq!((same.best_kept, same.functional_kept), (1.0, 1.0));
    }
}
