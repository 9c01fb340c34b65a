//! A run's counts by set and speaker, their mean and their intervals, and the most frequent errors.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::aligner::Aligner;
use super::alignment::Edit;
use super::bootstrap::{Groups, Interval, Resampling, counts, interval, percentiles, rate, resample};
use super::score::Scored;
use super::wer::WordErrors;
use crate::error::Result;

/// Counts of many utterances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Sets in the order in which they come up.
    pub sets: Vec<SetSummary>,
    /// Word errors of all utterances.
    pub words: WordErrors,
    /// Character errors of all utterances.
    pub characters: WordErrors,
    /// Unweighted mean of the sets' word error rates.
    pub mean_wer: f64,
    /// Unweighted mean of the sets' character error rates.
    pub mean_cer: f64,
    /// Interval of the mean word error rate, the sets drawn from one by one; `None` without utterances or resamples.
    pub mean_interval: Option<Interval>,
}

/// Counts of one set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetSummary {
    /// Name of the set.
    pub name: String,
    /// Utterances in it.
    pub utterances: usize,
    /// Word errors.
    pub words: WordErrors,
    /// Character errors.
    pub characters: WordErrors,
    /// Interval of the word error rate; `None` without resamples.
    pub interval: Option<Interval>,
    /// Utterances without words in the reference, by id.
    pub empty_references: Vec<String>,
    /// By speaker, in the order in which they come up; utterances of unknown speakers are not among them.
    pub speakers: Vec<SpeakerSummary>,
}

/// Counts of one speaker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpeakerSummary {
    /// Name of the speaker.
    pub name: String,
    /// Utterances of theirs.
    pub utterances: usize,
    /// Word errors.
    pub words: WordErrors,
    /// Character errors.
    pub characters: WordErrors,
}

/// Items by a name, in the order in which the names come up; those without a name are left out.
pub(super) fn by_name<'a, T: Copy>(items: impl IntoIterator<Item = T>, name: impl Fn(T) -> Option<&'a str>) -> Vec<(&'a str, Vec<T>)> {
    let mut places = HashMap::new();
    let mut all: Vec<(&str, Vec<T>)> = vec![];
    for item in items {
        let Some(name) = name(item) else { continue };
        let place = *places.entry(name).or_insert_with(|| {
            all.push((name, vec![]));
            all.len() - 1
        });
        all[place].1.push(item);
    }
    all
}

fn total<'a>(utterances: &[&'a Scored], errors: impl Fn(&'a Scored) -> WordErrors) -> WordErrors {
    utterances.iter().map(|u| errors(u)).sum()
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len().max(1) as f64;
    values.sum::<f64>() / count
}

impl Summary {
    /// Adds up.
    pub fn of(utterances: &[Scored], resampling: Resampling) -> Self {
        let by_set = by_name(utterances, |u: &Scored| Some(&u.set));
        let sets: Vec<SetSummary> = by_set.iter().map(|(name, utterances)| SetSummary::of(name, utterances, resampling)).collect();
        let strata: Vec<(Groups, Vec<[usize; 2]>)> = by_set
            .iter()
            .map(|(_, utterances)| {
                let groups = Groups::of(utterances.iter().copied());
                let sums = groups.sums(utterances.iter().map(|u| counts(&u.words)));
                (groups, sums)
            })
            .collect();
        let (groups, strata): (Vec<Groups>, Vec<_>) = strata.into_iter().unzip();
        let means = resample(&strata, resampling, |sums| mean(sums.iter().map(|&sum| rate(sum))));
        let finest = groups.iter().map(|groups| groups.unit).max();
        let mean_interval = finest.zip(percentiles(&means)).map(|(unit, (low, high))| {
            let units = groups.iter().map(|groups| groups.count).sum();
            Interval { low, high, unit, units, resamples: resampling.resamples }
        });
        Self {
            words: sets.iter().map(|set| set.words).sum(),
            characters: sets.iter().map(|set| set.characters).sum(),
            mean_wer: mean(sets.iter().map(|set| set.words.wer())),
            mean_cer: mean(sets.iter().map(|set| set.characters.wer())),
            mean_interval,
            sets,
        }
    }
}

impl SetSummary {
    fn of(name: &str, utterances: &[&Scored], resampling: Resampling) -> Self {
        let empty = utterances.iter().filter(|u| u.words.reference_words == 0);
        let speaker = |(name, utterances): (&str, Vec<&Scored>)| SpeakerSummary {
            name: name.into(),
            utterances: utterances.len(),
            words: total(&utterances, |u| u.words),
            characters: total(&utterances, |u| u.characters),
        };
        Self {
            name: name.into(),
            utterances: utterances.len(),
            words: total(utterances, |u| u.words),
            characters: total(utterances, |u| u.characters),
            interval: interval(utterances.iter().copied(), resampling),
            empty_references: empty.map(|u| u.id.clone()).collect(),
            speakers: by_name(utterances.iter().copied(), |u: &Scored| u.speaker.as_deref()).into_iter().map(speaker).collect(),
        }
    }
}

/// How often something was heard wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confusion {
    /// The word said; empty for an insertion.
    pub reference: String,
    /// The word heard; empty for a deletion.
    pub hypothesis: String,
    /// How often.
    pub count: usize,
}

/// The most frequent errors of each kind, most frequent first, then by the alphabet.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confusions {
    /// Words heard as another.
    pub substitutions: Vec<Confusion>,
    /// Words heard that were not said.
    pub insertions: Vec<Confusion>,
    /// Words not heard.
    pub deletions: Vec<Confusion>,
}

impl Confusions {
    /// Aligns all utterances and keeps the `most` frequent errors of each kind.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`](crate::Error::LimitExceeded): see [`Aligner::align`]
    pub fn of(utterances: &[Scored], aligner: Aligner, most: usize) -> Result<Self> {
        let mut counts = HashMap::<(&str, &str), usize>::new();
        for utterance in utterances {
            let alignment = aligner.align(&utterance.reference, &utterance.hypothesis)?;
            for chunk in &alignment.chunks {
                let (said, heard) = (&alignment.reference[chunk.reference.clone()], &alignment.hypothesis[chunk.hypothesis.clone()]);
                match chunk.edit {
                    Edit::Equal => {}
                    Edit::Substitute => said.iter().zip(heard).for_each(|(r, h)| *counts.entry((r, h)).or_default() += 1),
                    Edit::Delete => said.iter().for_each(|r| *counts.entry((r, "")).or_default() += 1),
                    Edit::Insert => heard.iter().for_each(|h| *counts.entry(("", h)).or_default() += 1),
                }
            }
        }
        let mut all: Vec<((&str, &str), usize)> = counts.into_iter().collect();
        all.sort_unstable_by_key(|&(words, count)| (std::cmp::Reverse(count), words));
        let mut kinds = Self::default();
        for ((reference, hypothesis), count) in all {
            let kind = match (reference, hypothesis) {
                ("", _) => &mut kinds.insertions,
                (_, "") => &mut kinds.deletions,
                _ => &mut kinds.substitutions,
            };
            if kind.len() < most {
                kind.push(Confusion { reference: reference.into(), hypothesis: hypothesis.into(), count });
            }
        }
        Ok(kinds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::score::Scoring;
    use crate::text::Normalizer;

    fn scored(set: &str, id: &str, speaker: Option<&str>, reference: &str, hypothesis: &str) -> Scored {
        let scoring = Scoring::new(Normalizer::None, Aligner::Levenshtein, None).unwrap();
        let score = scoring.score(reference, hypothesis).unwrap();
        Scored {
            set: set.into(),
            id: id.into(),
            speaker: speaker.map(String::from),
            recording: None,
            reference: score.reference,
            hypothesis: score.hypothesis,
            words: score.words,
            characters: score.characters,
        }
    }

    #[test]
    fn sets_speakers_and_means() {
        let all = [
            scored("x", "1", Some("ann"), "a b c d", "a b c d"),
            scored("y", "1", None, "a", "b"),
            scored("x", "2", Some("bob"), "a b", "a"),
            scored("x", "3", Some("ann"), "", "a"),
        ];
        let summary = Summary::of(&all, Resampling::default());
        assert_eq!(summary.sets.iter().map(|s| (s.name.as_str(), s.utterances)).collect::<Vec<_>>(), [("x", 3), ("y", 1)]);
        assert_eq!((summary.words.errors(), summary.words.reference_words), (3, 7));
        assert_eq!(summary.mean_wer, (2.0 / 6.0 + 1.0) / 2.0);
        let set = &summary.sets[0];
        assert_eq!(set.empty_references, ["3"]);
        let speakers: Vec<_> = set.speakers.iter().map(|s| (s.name.as_str(), s.utterances, s.words.errors())).collect();
        assert_eq!(speakers, [("ann", 2, 1), ("bob", 1, 1)]);
        assert_eq!(set.speakers.iter().map(|s| s.words).sum::<WordErrors>(), set.words);
        let interval = summary.mean_interval.unwrap();
        assert!(interval.low <= summary.mean_wer && summary.mean_wer <= interval.high && interval.units == 3, "{interval:?}");
        assert_eq!(Summary::of(&[], Resampling::default()).mean_interval, None);
    }

    #[test]
    fn confusions_are_counted_and_ordered() {
        let all = [scored("x", "1", None, "a b c", "a x c y"), scored("x", "2", None, "b a b", "x a"), scored("x", "3", None, "d", "e")];
        let confusions = Confusions::of(&all, Aligner::Levenshtein, 2).unwrap();
        let list = |kind: &[Confusion]| kind.iter().map(|c| (c.reference.clone(), c.hypothesis.clone(), c.count)).collect::<Vec<_>>();
        assert_eq!(list(&confusions.substitutions), [("b".into(), "x".into(), 2), ("d".into(), "e".into(), 1)]);
        assert_eq!(list(&confusions.insertions), [(String::new(), "y".into(), 1)]);
        assert_eq!(list(&confusions.deletions), [("b".into(), String::new(), 1)]);
        assert_eq!(Confusions::of(&all, Aligner::Levenshtein, 1).unwrap().substitutions.len(), 1);
    }
}
