//! What the routers of a model do on recordings: how experts are used, how layers agree, and what choices have to do with what was heard.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::eval::WordErrors;
use crate::eval::bench::usage::Usage;
use crate::eval::report::result::ExpertUsage;

/// Classes of letters by how they are mostly spoken; the letters are what the model hears, not phones.
pub const LETTER_CLASSES: [(&str, &str); 5] =
    [("vowels", "aeiouy"), ("stops", "bcdgkpqt"), ("fricatives", "fhjsvxz"), ("nasals", "mn"), ("approximants", "lrw")];

/// The class (an index into [`LETTER_CLASSES`]) of a token; `None` where its first letter is in none.
pub fn letter_class(token: &str) -> Option<usize> {
    let first = token.chars().find(|c| c.is_alphabetic())?.to_ascii_lowercase();
    LETTER_CLASSES.iter().position(|(_, letters)| letters.contains(first))
}

/// What a model did with a recording, and what is known of it.
#[derive(Debug, Clone)]
pub struct Observed<'a> {
    /// Name of the recording.
    pub name: &'a str,
    /// Its length.
    pub seconds: f64,
    /// Expert of every step, `[layers][steps]`.
    pub choices: &'a [Vec<u16>],
    /// Most probable token of every step; `None` for the blank.
    pub heard: &'a [Option<u32>],
    /// Class of that token.
    pub classes: &'a [Option<usize>],
    /// Whether there was speech at the step.
    pub speech: &'a [bool],
    /// Who speaks, where known.
    pub speaker: Option<&'a str>,
    /// The set it is of, where known.
    pub set: Option<&'a str>,
}

/// Adds up choices, recording after recording.
#[derive(Debug, Clone, Default)]
pub struct RoutingStudy {
    usage: Usage,
    /// `[layers][steps]`, all recordings one after the other.
    choices: Vec<Vec<u16>>,
    /// What is known of every step, by name; `None` where it is not known.
    labels: BTreeMap<&'static str, Vec<Option<u32>>>,
    classes: Vec<Option<usize>>,
    /// Numbers of speakers and sets.
    names: HashMap<(bool, String), u32>,
    recordings: usize,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// Cramér's V between each layer's choice and what is known of the step: `blank` or not, `token`, `letter class`, `speech` or not, `speaker`,
    /// `set`; the last two where at least two of them are known.
    pub with: BTreeMap<String, Vec<Option<f64>>>,
    /// Share of the steps of every letter class that went to each expert, `[layers][classes][experts]`; zeros for a class that was not heard.
    pub by_class: Vec<Vec<Vec<f64>>>,
    /// Choices when noise is added.
    pub under_noise: Vec<UnderNoise>,
    /// Errors when experts do each other's work; none where this was not measured.
    pub exchanged: Option<Exchanged>,
    /// Shares by layer and over time, and single recordings step by step.
    pub usage: ExpertUsage,
}

/// What white noise does to the choices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnderNoise {
    /// Signal-to-noise ratio, dB.
    pub snr_db: f64,
    /// Share of steps of each layer that keep their expert.
    pub kept: Vec<f64>,
}

/// How much the experts of a model differ: each does the work of the one before it, the router unchanged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exchanged {
    /// Whether errors are counted against given texts; else against what the unchanged model hears.
    pub against_texts: bool,
    /// Errors of the unchanged model.
    pub unchanged: WordErrors,
    /// With the experts of all layers exchanged.
    pub all_layers: WordErrors,
    /// With those of one layer, for each.
    pub one_layer: Vec<WordErrors>,
}

impl RoutingStudy {
    /// Counts a recording.
    pub fn add(&mut self, observed: &Observed) {
        self.usage.add(observed.set.unwrap_or_default(), observed.name, observed.seconds, observed.choices);
        self.choices.resize(self.choices.len().max(observed.choices.len()), Vec::new());
        self.choices.iter_mut().zip(observed.choices).for_each(|(all, new)| all.extend_from_slice(new));
        let steps = observed.heard.len();
        let mut number = |speaker: bool, name: Option<&str>| {
            let next = self.names.len() as u32;
            let number = name.map(|name| *self.names.entry((speaker, name.to_string())).or_insert(next));
            vec![number; steps]
        };
        let (speaker, set) = (number(true, observed.speaker), number(false, observed.set));
        let known = [
            ("blank", observed.heard.iter().map(|token| Some(u32::from(token.is_none()))).collect()),
            ("token", observed.heard.to_vec()),
            ("letter class", observed.classes.iter().map(|class| class.map(|c| c as u32)).collect()),
            ("speech", observed.speech.iter().map(|&speech| Some(u32::from(speech))).collect()),
            ("speaker", speaker),
            ("set", set),
        ];
        for (name, values) in known {
            self.labels.entry(name).or_default().extend::<Vec<Option<u32>>>(values);
        }
        self.classes.extend_from_slice(observed.classes);
        self.recordings += 1;
    }

    /// The report, noise and exchanged experts left open; `None` for a dense model, or where nothing was heard.
    pub fn finish(self) -> Option<RoutingReport> {
        let Self { usage, choices, labels, classes, recordings, .. } = self;
        let usage = usage.finish()?;
        let wide = |layer: &[u16]| layer.iter().map(|&e| u32::from(e)).collect::<Vec<u32>>();
        let layers: Vec<Vec<u32>> = choices.iter().map(|layer| wide(layer)).collect();
        let between_layers: Vec<Vec<Option<f64>>> =
            layers.iter().map(|a| layers.iter().map(|b| cramers_v(a.iter().copied().zip(b.iter().copied()))).collect()).collect();
        let pairs: Vec<f64> = between_layers.iter().enumerate().flat_map(|(i, row)| row[i + 1..].iter().flatten().copied()).collect();
        let with = |known: &[Option<u32>]| -> Vec<Option<f64>> {
            let v = |layer: &Vec<u32>| cramers_v(layer.iter().zip(known).filter_map(|(&e, &label)| Some((e, label?))));
            layers.iter().map(v).collect()
        };
        let several = |known: &[Option<u32>]| {
            let mut some = known.iter().flatten();
            some.next().is_some_and(|first| some.any(|other| other != first))
        };
        let with = labels.iter().filter(|(_, known)| several(known)).map(|(name, known)| ((*name).to_string(), with(known))).collect();
        let by_class = layers.iter().zip(&usage.layers).map(|(layer, shares)| by_class(layer, &classes, shares.len())).collect();
        Some(RoutingReport {
            recordings,
            steps: classes.len(),
            usage_entropy_bits: usage.layers.iter().map(|shares| entropy_bits(shares)).collect(),
            between_layers_mean: (!pairs.is_empty()).then(|| pairs.iter().sum::<f64>() / pairs.len() as f64),
            between_layers,
            with,
            by_class,
            under_noise: Vec::new(),
            exchanged: None,
            usage,
        })
    }
}

/// Share of the steps of each class that went to each expert.
fn by_class(layer: &[u32], classes: &[Option<usize>], experts: usize) -> Vec<Vec<f64>> {
    let mut counts = vec![vec![0.0; experts]; LETTER_CLASSES.len()];
    for (&expert, class) in layer.iter().zip(classes) {
        if let Some(class) = class {
            counts[*class][expert as usize] += 1.0;
        }
    }
    for row in &mut counts {
        let total = row.iter().sum::<f64>().max(1.0);
        row.iter_mut().for_each(|n| *n /= total);
    }
    counts
}

fn entropy_bits(shares: &[f64]) -> f64 {
    shares.iter().filter(|p| **p > 0.0).map(|p| -p * p.log2()).sum()
}

/// Cramér's V of pairs of categories: `sqrt(chi^2 / (n (min(r, c) - 1)))` over the categories that occur; `None` where either side has fewer
/// than two of them.
pub fn cramers_v(pairs: impl Iterator<Item = (u32, u32)>) -> Option<f64> {
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
        let classes: Vec<Option<usize>> = heard.iter().map(|token| token.map(|t| t as usize - 3)).collect();
        let choices = [first, second, vec![0; 40]];
        let observed = Observed {
            name: "a",
            seconds: 1.0,
            choices: &choices,
            heard: &heard,
            classes: &classes,
            speech: &[true; 40],
            speaker: Some("anna"),
            set: None,
        };
        study.add(&observed);
        let report = study.clone().finish().unwrap();
        assert_eq!((report.recordings, report.steps), (1, 40));
        assert_eq!(report.usage_entropy_bits, [1.0, 1.0, 0.0]);
        assert!((report.between_layers[0][1].unwrap() - 1.0).abs() < 1e-9 && report.between_layers[0][2].is_none());
        assert!((report.with["blank"][0].unwrap() - 1.0).abs() < 1e-9);
        assert_eq!(report.with["token"][0], None, "one expert had all tokens");
        assert_eq!(report.with.keys().collect::<Vec<_>>(), ["blank", "letter class", "token"], "one speaker, all of it speech");
        assert_eq!(report.by_class[0][0], [0.0, 1.0]);
        assert_eq!(report.by_class[1][1], [1.0, 0.0]);
        assert_eq!(report.by_class[0][4], [0.0, 0.0], "not heard");
        // A second speaker whom layer 3 gives an expert of its own.
        let choices = [observed.choices[0].clone(), observed.choices[1].clone(), vec![1; 40]];
        study.add(&Observed { speaker: Some("ben"), choices: &choices, ..observed });
        let report = study.finish().unwrap();
        assert!((report.with["speaker"][2].unwrap() - 1.0).abs() < 1e-9 && report.with["speaker"][0].unwrap() < 1e-7);
        assert_eq!(RoutingStudy::default().finish(), None);
    }

    #[test]
    fn classes_of_letters() {
        assert_eq!(["a", " t", "S", "m", "w", "'", " "].map(letter_class), [Some(0), Some(1), Some(2), Some(3), Some(4), None, None]);
        let all: String = LETTER_CLASSES.iter().map(|(_, letters)| *letters).collect();
        assert!(('a'..='z').all(|c| all.matches(c).count() == 1), "every letter is in one class");
    }
}
