//! Sums since the last log line. They are kept in the checkpoint: a resumed run writes the lines of one that was never stopped.

use serde::{Deserialize, Serialize};

use crate::train::exact;
use crate::train::languages::LanguageReport;
use crate::train::step::BatchReport;

/// What the next log line is made of.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// CTC loss of the last head, nats.
    #[serde(with = "exact")]
    pub ctc: f64,
    /// Of the middle heads, nats.
    #[serde(with = "exact")]
    pub intermediate: f64,
    /// Load balance.
    #[serde(with = "exact")]
    pub balance: f64,
    /// Gradient norms of the steps that were not skipped.
    #[serde(with = "exact")]
    pub norm: f64,
    /// Learning rate of the last step.
    #[serde(with = "exact")]
    pub lr: f64,
    /// Tokens.
    pub tokens: usize,
    /// Batches.
    pub batches: usize,
    /// Encoder steps by expert, for every MoE layer.
    pub load: Vec<Vec<usize>>,
    /// Of batches with a module.
    #[serde(default)]
    pub languages: LanguageReport,
    /// Optimiser steps, skipped ones included.
    pub steps: u64,
    /// Steps left out because the gradient was not finite.
    pub skipped: u64,
}

impl Window {
    /// Takes in a batch.
    pub fn add(&mut self, report: &BatchReport) {
        self.ctc += report.ctc;
        self.intermediate += report.intermediate;
        self.balance += report.balance;
        self.tokens += report.tokens;
        self.languages.add(&report.languages);
        self.batches += 1;
        self.load.resize(report.load.len(), Vec::new());
        for (sum, load) in self.load.iter_mut().zip(&report.load) {
            sum.resize(load.len(), 0);
            sum.iter_mut().zip(load).for_each(|(s, l)| *s += l);
        }
    }

    /// Share of encoder steps by expert for every MoE layer, to four digits.
    pub fn load_shares(&self) -> Vec<Vec<f64>> {
        let share = |layer: &Vec<usize>| {
            let total = layer.iter().sum::<usize>().max(1) as f64;
            layer.iter().map(|&n| (n as f64 / total * 1e4).round() / 1e4).collect()
        };
        self.load.iter().map(share).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_shares() {
        let report = |load: [usize; 2]| BatchReport {
            ctc: 0.1,
            intermediate: 1.0,
            tokens: 3,
            balance: 2.0,
            load: vec![load.to_vec()],
            spreads: vec![],
            languages: LanguageReport { divergence: 0.5, steps: 4, identified: 1, utterances: 2 },
        };
        let mut window = Window::default();
        window.add(&report([1, 0]));
        window.add(&report([1, 1]));
        assert_eq!((window.ctc, window.tokens, window.batches), (0.2, 6, 2));
        assert_eq!((window.languages.divergence_per_step(), window.languages.identified_share()), (Some(0.125), Some(0.5)));
        assert_eq!(window.load_shares(), [[0.6667, 0.3333]]);
        let back: Window = serde_json::from_str(&serde_json::to_string(&window).unwrap()).unwrap();
        assert_eq!(back, window);
    }
}
