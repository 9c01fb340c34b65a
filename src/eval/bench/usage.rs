//! Which experts a test set used: adds up the choices of a model's MoE layers.

use crate::eval::report::result::{ExpertUsage, Trace};

/// Parts of an utterance by which usage over time is counted.
const BINS: usize = 20;
/// Utterances whose choices are kept step by step.
const TRACES: usize = 6;
/// An utterance this long is worth a trace, seconds.
const TRACED_SECONDS: std::ops::RangeInclusive<f64> = 3.0..=12.0;

/// Counts of choices.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    /// `[layers][bins][experts]`
    counts: Vec<Vec<Vec<u64>>>,
    traces: Vec<Trace>,
}

impl Usage {
    /// Counts an utterance: `choices` `[layers][steps]`.
    pub fn add(&mut self, set: &str, id: &str, seconds: f64, choices: &[Vec<u16>]) {
        self.counts.resize(self.counts.len().max(choices.len()), vec![Vec::new(); BINS]);
        for (layer, choices) in self.counts.iter_mut().zip(choices) {
            for (step, &expert) in choices.iter().enumerate() {
                let bin = &mut layer[step * BINS / choices.len()];
                bin.resize(bin.len().max(usize::from(expert) + 1), 0);
                bin[usize::from(expert)] += 1;
            }
        }
        if self.traces.len() < TRACES && TRACED_SECONDS.contains(&seconds) && !choices.is_empty() {
            self.traces.push(Trace { utterance: (set.into(), id.into()), seconds, choices: choices.to_vec() });
        }
    }

    /// Shares; none for a dense model or without a step.
    pub fn finish(self) -> Option<ExpertUsage> {
        let experts = |layer: &[Vec<u64>]| layer.iter().map(Vec::len).max().unwrap_or(0);
        let shares = |counts: Vec<u64>| {
            let total = counts.iter().sum::<u64>().max(1) as f64;
            counts.into_iter().map(|n| n as f64 / total).collect::<Vec<f64>>()
        };
        let padded = |bin: &[u64], n: usize| (0..n).map(|e| bin.get(e).copied().unwrap_or(0)).collect::<Vec<u64>>();
        if self.counts.iter().all(|layer| experts(layer) == 0) {
            return None;
        }
        let layers = self.counts.iter().map(|layer| {
            let n = experts(layer);
            shares((0..n).map(|e| layer.iter().map(|bin| bin.get(e).copied().unwrap_or(0)).sum()).collect())
        });
        let over_time = self.counts.iter().map(|layer| layer.iter().map(|bin| shares(padded(bin, experts(layer)))).collect());
        Some(ExpertUsage { layers: layers.collect(), over_time: over_time.collect(), traces: self.traces })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_sum_to_one() {
        let mut usage = Usage::default();
        let steps: Vec<u16> = (0..200).map(|i| if i < 100 { 0 } else { 2 }).collect();
        usage.add("s", "a", 8.0, &[steps.clone(), vec![1; 200]]);
        usage.add("s", "b", 1.0, &[vec![0; 200], vec![1; 200]]);
        let usage = usage.finish().unwrap();
        assert_eq!(usage.layers, [vec![0.75, 0.0, 0.25], vec![0.0, 1.0]]);
        assert_eq!((usage.over_time[0][0].as_slice(), usage.over_time[0][19].as_slice()), (&[1.0, 0.0, 0.0][..], &[0.5, 0.0, 0.5][..]));
        assert_eq!(usage.traces, [Trace { utterance: ("s".into(), "a".into()), seconds: 8.0, choices: vec![steps, vec![1; 200]] }]);
    }

    #[test]
    fn dense_models_have_none() {
        let mut usage = Usage::default();
        usage.add("s", "a", 8.0, &[]);
        assert_eq!(usage.finish(), None);
    }
}
