//! What a step of speech is: labels from the text that is said, from the audio, and from what an index file says of the recording.
//!
//! A CTC model marks a letter in few steps; the steps between are "no letter".

use std::collections::BTreeSet;
use std::ops::Range;

use crate::eval::corpora::Labels;
use crate::eval::routing::{LETTER_CLASSES, letter_class};

/// A function and the steps that have it.
#[derive(Debug, Clone, PartialEq)]
pub struct Function {
    /// In words.
    pub name: String,
    /// `[steps]`
    pub steps: Vec<bool>,
}

/// A step with what is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct StepLabel {
    /// What is said in it by forced alignment; `None` between letters.
    pub piece: Option<String>,
    /// Whether the voice activity detector hears speech.
    pub speech: bool,
    /// The set of its utterance.
    pub set: String,
    /// Who speaks, and how, where that is known.
    pub spoken: Labels,
    /// Whether noise was added.
    pub noisy: bool,
}

/// What an index file says of a step's recording.
type Said<'a> = &'a dyn Fn(&StepLabel) -> Option<&String>;

/// Whether a sample lies in one of the stretches.
pub fn inside(stretches: &[Range<usize>], sample: usize) -> bool {
    stretches.iter().any(|s| s.contains(&sample))
}

/// The functions of some steps; those that fewer than `least` steps have, or lack, are left out. Of accent and sex a step whose recording does not
/// say counts among those that lack it.
pub fn functions(labels: &[StepLabel], least: usize) -> Vec<Function> {
    let of = |name: String, has: &dyn Fn(&StepLabel) -> bool| Function { name, steps: labels.iter().map(has).collect() };
    let is = |label: &StepLabel, class: usize| label.piece.as_deref().and_then(letter_class) == Some(class);
    let mut all: Vec<Function> =
        LETTER_CLASSES.iter().enumerate().map(|(class, (name, _))| of(format!("letters: {name}"), &|l| is(l, class))).collect();
    all.push(of("no letter".into(), &|l| l.piece.is_none()));
    all.push(of("word boundary".into(), &|l| l.piece.as_deref() == Some(" ")));
    all.push(of("speech".into(), &|l| l.speech));
    all.push(of("noise".into(), &|l| l.noisy));
    let kinds: [(&str, Said); 3] =
        [("set", &|l| Some(&l.set)), ("sex", &|l| l.spoken.sex.as_ref()), ("accent", &|l| l.spoken.accent.as_ref())];
    for (kind, value) in kinds {
        let values: BTreeSet<&String> = labels.iter().filter_map(value).collect();
        all.extend(values.into_iter().map(|v| of(format!("{kind} {v}"), &|l| value(l) == Some(v))));
    }
    all.retain(|f| {
        let have = f.steps.iter().filter(|s| **s).count();
        have >= least && f.steps.len() - have >= least
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_labelled_and_rare_functions_left_out() {
        let label = |piece: Option<&str>, speech, set: &str| StepLabel {
            piece: piece.map(String::from),
            speech,
            set: set.into(),
            spoken: Labels { sex: (set == "y").then(|| "female".into()), ..Labels::default() },
            noisy: speech,
        };
        let labels = [label(Some("a"), true, "x"), label(None, true, "x"), label(Some(" "), false, "y"), label(Some("t"), true, "y")];
        let found = functions(&labels, 1);
        let steps = |name: &str| found.iter().find(|f| f.name == name).map(|f| f.steps.clone());
        assert_eq!(steps("letters: vowels"), Some(vec![true, false, false, false]));
        assert_eq!(steps("letters: stops"), Some(vec![false, false, false, true]));
        assert_eq!(steps("word boundary"), Some(vec![false, false, true, false]));
        assert_eq!(steps("set y"), Some(vec![false, false, true, true]));
        assert_eq!(steps("sex female"), steps("set y"));
        assert_eq!(steps("noise"), steps("speech"));
        assert_eq!(steps("letters: nasals"), None, "nobody has it");
        assert!(functions(&labels, 2).iter().all(|f| f.steps.iter().filter(|s| **s).count() == 2), "two have it, two lack it");
        assert!(inside(&[3..5, 9..12], 10) && !inside(&[3..5, 9..12], 5));
    }
}
