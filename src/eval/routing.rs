//! What the routers of a model do on recordings: how experts are used, how layers agree, and what choices have to do with what was heard.

use serde::Serialize;

use crate::eval::bench::usage::Usage;
use crate::eval::report::result::ExpertUsage;

/// Adds up choices, recording after recording.
#[derive(Debug, Clone, Default)]
pub struct RoutingStudy {
    usage: Usage,
    /// `[layers][steps]`, all recordings one after the other.
    choices: Vec<Vec<u16>>,
    /// Most probable token of every step; `None` for the blank.
    heard: Vec<Option<u32>>,
    recordings: usize,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RoutingReport {
    /// Recordings, or stretches of speech in them.
    pub recordings: usize,
    /// Steps of the encoder.
    pub steps: usize,
    /// Entropy of the use of experts in each layer, bits; `log2(experts)` is even use.
    pub usage_entropy_bits: Vec<f64>,
    /// Cramér's V between the choices of every two layers, `[layers][layers]`: 0 independent, 1 each decides the other. `None` where a layer
    /// used one expert only.
    pub between_layers: Vec<Vec<Option<f64>>>,
    /// Mean of `between_layers` over pairs of different layers.
    pub between_layers_mean: Option<f64>,
    /// Cramér's V between each layer's choice and whether the step was a blank.
    pub with_blank: Vec<Option<f64>>,
    /// Cramér's V between each layer's choice and the token, over steps that were not blank.
    pub with_token: Vec<Option<f64>>,
    /// Shares by layer and over time, and single recordings step by step.
    pub usage: ExpertUsage,
}

impl RoutingStudy {
    /// Counts a recording of `seconds`: `choices` `[layers][steps]`, and what was heard in every step.
    pub fn add(&mut self, name: &str, seconds: f64, choices: &[Vec<u16>], heard: &[Option<u32>]) {
        self.usage.add("", name, seconds, choices);
        self.choices.resize(self.choices.len().max(choices.len()), Vec::new());
        self.choices.iter_mut().zip(choices).for_each(|(all, new)| all.extend_from_slice(new));
        self.heard.extend_from_slice(heard);
        self.recordings += 1;
    }

    /// The report; `None` for a dense model, or where nothing was heard.
    pub fn finish(self) -> Option<RoutingReport> {
        let Self { usage, choices, heard, recordings } = self;
        let usage = usage.finish()?;
        let wide = |layer: &[u16]| layer.iter().map(|&e| u32::from(e)).collect::<Vec<u32>>();
        let layers: Vec<Vec<u32>> = choices.iter().map(|layer| wide(layer)).collect();
        let between_layers: Vec<Vec<Option<f64>>> =
            layers.iter().map(|a| layers.iter().map(|b| cramers_v(a.iter().copied().zip(b.iter().copied()))).collect()).collect();
        let pairs: Vec<f64> = between_layers.iter().enumerate().flat_map(|(i, row)| row[i + 1..].iter().flatten().copied()).collect();
        let with = |of: &dyn Fn(Option<u32>) -> Option<u32>| -> Vec<Option<f64>> {
            let v = |layer: &Vec<u32>| cramers_v(layer.iter().zip(&heard).filter_map(|(&e, &token)| Some((e, of(token)?))));
            layers.iter().map(v).collect()
        };
        Some(RoutingReport {
            recordings,
            steps: heard.len(),
            usage_entropy_bits: usage.layers.iter().map(|shares| entropy_bits(shares)).collect(),
            between_layers_mean: (!pairs.is_empty()).then(|| pairs.iter().sum::<f64>() / pairs.len() as f64),
            between_layers,
            with_blank: with(&|token| Some(u32::from(token.is_none()))),
            with_token: with(&|token| token),
            usage,
        })
    }
}

fn entropy_bits(shares: &[f64]) -> f64 {
    shares.iter().filter(|p| **p > 0.0).map(|p| -p * p.log2()).sum()
}

/// Cramér's V of pairs of categories: `sqrt(chi^2 / (n (min(r, c) - 1)))` over the categories that occur; `None` where either side has fewer
/// than two of them.
pub fn cramers_v(pairs: impl Iterator<Item = (u32, u32)>) -> Option<f64> {
    use std::collections::BTreeMap;
    let (mut cells, mut rows, mut columns) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (a, b) in pairs {
        *cells.entry((a, b)).or_insert(0.0) += 1.0;
        *rows.entry(a).or_insert(0.0) += 1.0;
        *columns.entry(b).or_insert(0.0) += 1.0;
    }
    let least = rows.len().min(columns.len());
    if least < 2 {
        return None;
    }
    // chi^2 = n (sum O^2 / (row column) - 1): cells that never occur add nothing.
    let sum: f64 = cells.iter().map(|(&(a, b), o): (_, &f64)| o * o / (rows[&a] * columns[&b])).sum();
    Some(((sum - 1.0).max(0.0) / (least - 1) as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_table(table: &[&[usize]]) -> Option<f64> {
        let cell = |(r, row): (usize, &&[usize])| {
            row.iter().enumerate().flat_map(|(c, &n)| std::iter::repeat_n((r as u32, c as u32), n)).collect::<Vec<_>>()
        };
        cramers_v(table.iter().enumerate().flat_map(cell))
    }

    #[test]
    fn cramers_v_of_tables() {
        // Expected counts 20 each: chi^2 = 4 * 100 / 20 = 20, V = sqrt(20 / 80) = 0.5.
        assert!((of_table(&[&[30, 10], &[10, 30]]).unwrap() - 0.5).abs() < 1e-12);
        // 2 x 3, rows 40 and 40, columns 30, 30, 20: chi^2 = (25 + 25) / 15 * 2 + 0 = 20 / 3, V = sqrt(20 / 3 / 80).
        assert!((of_table(&[&[20, 10, 10], &[10, 20, 10]]).unwrap() - (20.0f64 / 240.0).sqrt()).abs() < 1e-12);
        assert!(of_table(&[&[8, 4], &[4, 2]]).unwrap().abs() < 1e-7, "independent");
        assert!((of_table(&[&[0, 7, 0], &[3, 0, 0], &[0, 0, 5]]).unwrap() - 1.0).abs() < 1e-12, "one decides the other");
        assert!((of_table(&[&[30, 0, 10], &[10, 0, 30]]).unwrap() - 0.5).abs() < 1e-12, "what never occurs does not count");
        assert_eq!(of_table(&[&[5, 5]]), None);
        assert_eq!(of_table(&[]), None);
    }

    #[test]
    fn layers_and_blanks() {
        let mut study = RoutingStudy::default();
        let first: Vec<u16> = (0..40).map(|t| u16::from(t % 4 < 2)).collect();
        let second: Vec<u16> = first.iter().map(|e| 1 - e).collect();
        let heard: Vec<Option<u32>> = (0..40).map(|t| (t % 4 < 2).then_some(3 + t % 2)).collect();
        study.add("a", 1.0, &[first, second, vec![0; 40]], &heard);
        let report = study.finish().unwrap();
        assert_eq!((report.recordings, report.steps), (1, 40));
        assert_eq!(report.usage_entropy_bits, [1.0, 1.0, 0.0]);
        assert!((report.between_layers[0][1].unwrap() - 1.0).abs() < 1e-9 && report.between_layers[0][2].is_none());
        assert!((report.with_blank[0].unwrap() - 1.0).abs() < 1e-9);
        assert_eq!(report.with_token[0], None, "one expert had all tokens");
        assert_eq!(RoutingStudy::default().finish(), None);
    }
}
