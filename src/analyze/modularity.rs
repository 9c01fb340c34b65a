//! Whether the neurons that tell a function best sit together in experts.

use rayon::prelude::*;
use serde::Serialize;

use crate::analyze::enrichment::threshold;
use crate::analyze::functions::Function;
use crate::analyze::precision::{average_precisions, falling};
use crate::kernel::rng::SplitMix;

/// Share of a layer's neurons that counts as the best for a function.
const BEST: f64 = 0.01;
/// Random partitions of the neurons that experts are compared with.
const SHUFFLES: usize = 200;

/// The neurons of one layer and their groups.
#[derive(Debug, Clone)]
pub struct Layer<'a> {
    /// `[steps, neurons]`
    pub neurons: &'a [f32],
    /// Group of every neuron: its expert, or its cluster.
    pub groups: Vec<usize>,
}

/// What was found in one layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerModularity {
    /// Groups.
    pub groups: usize,
    /// Neurons that count as the best for a function.
    pub best: usize,
    /// More than so many of them in a group make it functional.
    pub threshold: usize,
    /// Function by function.
    pub functions: Vec<FunctionModularity>,
    /// Share of (function, group) pairs that are functional.
    pub share: f64,
    /// The same over resampled recordings: 5th and 95th percentile; `None` without resampling.
    pub share_interval: Option<(f64, f64)>,
    /// The same of random partitions, mean.
    pub share_random: f64,
}

/// One function in one layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FunctionModularity {
    /// In words.
    pub name: String,
    /// Mean predictivity of the best neurons: the average precision of telling the function or its opposite, whichever is higher. As in the
    /// paper it is not corrected for how rare a function is: a neuron that knows nothing reaches the share of the larger side.
    pub precision: f64,
    /// Best neurons in each group.
    pub counts: Vec<usize>,
    /// Groups that hold more than chance.
    pub functional: Vec<usize>,
    /// Mean of `counts * groups / best` over functional groups; 0 without any.
    pub degree: f64,
    /// The best neurons.
    #[serde(skip)]
    pub best: Vec<usize>,
}

/// Analyses a layer. `recording` names the recording of every step, `resamples` is how often recordings are drawn anew for the interval.
pub fn modularity(layer: &Layer, functions: &[Function], recording: &[usize], resamples: usize, seed: u64) -> LayerModularity {
    let neurons = layer.groups.len();
    let groups = layer.groups.iter().max().map_or(1, |g| g + 1);
    let best = (BEST * neurons as f64) as usize;
    let limit = threshold(neurons, neurons / groups, best);
    let weights = draws(recording, resamples, seed);
    // [neurons][draws][functions]
    let predictivity: Vec<Vec<Vec<f32>>> = (0..neurons)
        .into_par_iter()
        .map(|neuron| {
            let scores: Vec<f32> = layer.neurons.iter().skip(neuron).step_by(neurons).copied().collect();
            let order = falling(&scores);
            let of = |function: &Function, weights: &[u32]| {
                let (plain, opposite) = average_precisions(&order, &scores, &function.steps, weights);
                plain.max(opposite) as f32
            };
            weights.iter().map(|w| functions.iter().map(|f| of(f, w)).collect()).collect()
        })
        .collect();
    let best_of = |draw: usize, function: usize| {
        let mut order: Vec<usize> = (0..neurons).collect();
        order.sort_by(|&a, &b| predictivity[b][draw][function].total_cmp(&predictivity[a][draw][function]));
        order.truncate(best);
        order
    };
    let count = |chosen: &[usize], of: &[usize]| {
        let mut counts = vec![0usize; groups];
        chosen.iter().for_each(|&n| counts[of[n]] += 1);
        counts
    };
    let share = |all: &[Vec<usize>], of: &[usize]| {
        let functional: usize = all.iter().map(|chosen| count(chosen, of).into_iter().filter(|n| *n > limit).count()).sum();
        functional as f64 / (groups * functions.len()).max(1) as f64
    };
    let drawn: Vec<Vec<Vec<usize>>> =
        (0..weights.len()).into_par_iter().map(|draw| (0..functions.len()).map(|f| best_of(draw, f)).collect()).collect();
    let mut resampled: Vec<f64> = drawn[1..].iter().map(|all| share(all, &layer.groups)).collect();
    resampled.sort_by(f64::total_cmp);
    let percentile = |p: f64| resampled[((resampled.len() - 1) as f64 * p).round() as usize];
    let mut rng = SplitMix::new(seed);
    let mut shuffled = layer.groups.clone();
    let random = (0..SHUFFLES).map(|_| {
        (1..neurons).for_each(|i| shuffled.swap(i, rng.next_u64() as usize % (i + 1)));
        share(&drawn[0], &shuffled)
    });
    let share_random = random.sum::<f64>() / SHUFFLES as f64;
    let describe = |(f, function): (usize, &Function)| {
        let chosen = &drawn[0][f];
        let counts = count(chosen, &layer.groups);
        let functional: Vec<usize> = (0..groups).filter(|g| counts[*g] > limit).collect();
        let degree = functional.iter().map(|g| (counts[*g] * groups) as f64 / best.max(1) as f64).sum::<f64>();
        FunctionModularity {
            name: function.name.clone(),
            precision: chosen.iter().map(|n| f64::from(predictivity[*n][0][f])).sum::<f64>() / best.max(1) as f64,
            counts,
            degree: degree / functional.len().max(1) as f64,
            functional,
            best: chosen.clone(),
        }
    };
    LayerModularity {
        groups,
        best,
        threshold: limit,
        functions: functions.iter().enumerate().map(describe).collect(),
        share: share(&drawn[0], &layer.groups),
        share_interval: (!resampled.is_empty()).then(|| (percentile(0.05), percentile(0.95))),
        share_random,
    }
}

/// Weights of every step: 1 first, then `resamples` times how often its recording was drawn with replacement.
fn draws(recording: &[usize], resamples: usize, seed: u64) -> Vec<Vec<u32>> {
    let recordings = recording.iter().max().map_or(0, |r| r + 1);
    let mut rng = SplitMix::new(seed);
    let mut all = vec![vec![1; recording.len()]];
    for _ in 0..resamples {
        let mut times = vec![0u32; recordings];
        (0..recordings).for_each(|_| times[rng.next_u64() as usize % recordings] += 1);
        all.push(recording.iter().map(|r| times[*r]).collect());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 800 neurons in 4 groups over 300 steps of 30 recordings; `planted` neurons of group 2 fire where the function is.
    fn study(planted: usize, shuffle: bool) -> LayerModularity {
        let (neurons, steps) = (800, 300);
        let mut rng = SplitMix::new(8);
        let labels: Vec<bool> = (0..steps).map(|_| rng.next_f32() < 0.3).collect();
        let mut values: Vec<f32> = (0..steps * neurons).map(|_| rng.next_normal()).collect();
        for (step, row) in values.chunks_exact_mut(neurons).enumerate() {
            row[400..400 + planted].iter_mut().for_each(|v| *v += if labels[step] { 4.0 } else { 0.0 });
        }
        let mut groups: Vec<usize> = (0..neurons).map(|n| n / 200).collect();
        if shuffle {
            (1..neurons).for_each(|i| groups.swap(i, rng.next_u64() as usize % (i + 1)));
        }
        let recording: Vec<usize> = (0..steps).map(|s| s / 10).collect();
        let functions = [Function { name: "f".into(), steps: labels }];
        modularity(&Layer { neurons: &values, groups }, &functions, &recording, 5, 1)
    }

    #[test]
    fn planted_experts_are_found_and_shuffled_ones_are_not() {
        let found = study(10, false);
        // More than 6 of 8 have a probability of 0.0004 by chance, more than 5 one of 0.004.
        assert_eq!((found.groups, found.best, found.threshold), (4, 8, 6), "{found:?}");
        assert_eq!(found.functions[0].functional, [2]);
        assert_eq!(found.functions[0].counts, [0, 0, 8, 0]);
        assert!(found.functions[0].precision > 0.95 && found.functions[0].degree == 4.0, "{found:?}");
        assert_eq!((found.share, found.share_interval), (0.25, Some((0.25, 0.25))));
        assert!(found.share_random < 0.02, "{found:?}");
        let chance = study(10, true);
        assert!(chance.functions[0].functional.is_empty() && chance.functions[0].degree == 0.0, "{chance:?}");
    }
}
