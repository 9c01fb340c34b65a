//! A corpus being read: every utterance is checked on its way in.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::{Corpus, Problem, ProblemKind, Utterance};

/// Collects what a reader finds.
pub(super) struct Draft {
    corpus: Corpus,
    ids: HashSet<String>,
    /// Audio files looked for, and whether they are there.
    audio: HashMap<PathBuf, bool>,
}

impl Draft {
    pub fn new(name: &str, rules: BTreeMap<String, String>) -> Self {
        let corpus = Corpus { name: name.into(), rules, utterances: Vec::new(), dropped: BTreeMap::new(), problems: Vec::new() };
        Self { corpus, ids: HashSet::new(), audio: HashMap::new() }
    }

    /// Lists a problem.
    pub fn problem(&mut self, what: ProblemKind, place: impl Into<String>, detail: impl Into<String>) {
        self.corpus.problems.push(Problem { what, place: place.into(), detail: detail.into() });
    }

    /// Lists a problem of one line of a file.
    pub fn bad_line(&mut self, file: &Path, line: usize, detail: impl Into<String>) {
        self.problem(ProblemKind::BadLine, format!("{}:{line}", file.display()), detail);
    }

    /// Counts a segment that a rule of the set leaves out.
    pub fn drop_by(&mut self, rule: &'static str) {
        *self.corpus.dropped.entry(rule).or_insert(0) += 1;
    }

    /// Takes an utterance in, its words one space apart, or lists why not.
    pub fn add(&mut self, mut utterance: Utterance) {
        let id = utterance.id.clone();
        let end = utterance.end.unwrap_or(f64::MAX);
        if !(utterance.start >= 0.0 && end > utterance.start && end.is_finite()) {
            let end = utterance.end.map_or("the end".into(), |end| format!("{end}"));
            return self.problem(ProblemKind::ImpossibleTimes, id, format!("from {} to {end}", utterance.start));
        }
        let there = *self.audio.entry(utterance.audio.clone()).or_insert_with_key(|path| path.is_file());
        if !there {
            return self.problem(ProblemKind::MissingAudio, id, utterance.audio.display().to_string());
        }
        if !self.ids.insert(id.clone()) {
            return self.problem(ProblemKind::DuplicateId, id, utterance.audio.display().to_string());
        }
        utterance.reference = utterance.reference.split_whitespace().collect::<Vec<_>>().join(" ");
        if utterance.reference.is_empty() {
            self.problem(ProblemKind::EmptyReference, id, utterance.audio.display().to_string());
        }
        let length = utterance.end.map(|end| end - utterance.start);
        utterance.duration = length.or(utterance.duration.filter(|d| d.is_finite() && *d > 0.0));
        self.corpus.utterances.push(utterance);
    }

    pub fn finish(self) -> Corpus {
        self.corpus
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::Channel;
    use crate::eval::corpora::Labels;

    #[test]
    fn each_check_lists_its_problem_and_the_rest_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let audio = folder.path().join("x.wav");
        std::fs::write(&audio, "").unwrap();
        let utterance = |id: &str, start: f64, end: Option<f64>| Utterance {
            id: id.into(),
            audio: audio.clone(),
            channel: Channel::Mix,
            start,
            end,
            reference: "a".into(),
            speaker: None,
            set: None,
            labels: Labels::default(),
            recording: "x".into(),
            duration: None,
        };
        let mut draft = Draft::new("x", BTreeMap::new());
        draft.add(utterance("good", 1.0, Some(2.5)));
        draft.add(utterance("good", 3.0, Some(4.0)));
        draft.add(utterance("reversed", 2.0, Some(1.0)));
        draft.add(utterance("nothing", 2.0, Some(2.0)));
        draft.add(utterance("nan", f64::NAN, None));
        draft.add(utterance("infinite", 0.0, Some(f64::INFINITY)));
        draft.add(Utterance { audio: folder.path().join("y.wav"), ..utterance("lost", 0.0, None) });
        draft.add(Utterance { reference: " ".into(), ..utterance("silent", 0.0, None) });
        let corpus = draft.finish();
        let ids: Vec<&str> = corpus.utterances.iter().map(|u| u.id.as_str()).collect();
        assert_eq!(ids, ["good", "silent"]);
        assert_eq!((corpus.utterances[0].duration, corpus.utterances[1].duration), (Some(1.5), None));
        use ProblemKind::*;
        let counts = corpus.problem_counts();
        assert_eq!(counts, BTreeMap::from([(DuplicateId, 1), (ImpossibleTimes, 4), (MissingAudio, 1), (EmptyReference, 1)]));
        assert!(corpus.problems[0].to_string().starts_with("duplicate id: good: "));
    }
}
