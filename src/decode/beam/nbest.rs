//! Hypotheses at the end of an utterance: one for each text, the best ones first.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::Paths;
use super::memory::Moment;
use super::search::{Search, add};
use crate::decode::Hypothesis;

impl Search {
    /// The best hypotheses if the utterance ends here.
    pub(super) fn hypotheses(&mut self) -> Vec<Hypothesis> {
        let mut texts: HashMap<String, usize> = HashMap::new();
        let mut found: Vec<Finished> = Vec::new();
        for beam in &self.beams {
            let prefix = self.prefixes.get(beam.prefix);
            let end = prefix.word_end.as_ref().and_then(Option::as_ref);
            let Some(context) = self.fusion.end(&prefix.context, end) else { continue };
            let (language, hotwords) = (context.language, context.hotwords);
            // The last certain token says whether what follows is a word of its own.
            let mut path: Vec<u32> = self.moments.path(beam.best().1).map(|(_, m)| m.token).collect();
            path.extend(self.moments.certain.last().map(|m| m.token));
            path.reverse();
            let (peak, end) = beam.best();
            let finished = Finished { audio: beam.total, peak, language, hotwords, end: Some(end) };
            let next = found.len();
            match texts.entry(self.alphabet.text(&path)) {
                Entry::Vacant(new) => {
                    new.insert(next);
                    found.push(finished);
                }
                Entry::Occupied(known) => found[*known.get()].merge(finished, self.config.paths),
            }
        }
        let said_nothing = |f: &Finished| f.end.is_some_and(|end| self.tokens(end).is_empty());
        if (self.fusion.is_closed() || found.is_empty()) && !found.iter().any(said_nothing) {
            let start = self.fusion.start();
            let worth = self.fusion.end(&start, None).unwrap_or(start);
            let (audio, language) = (self.nothing, worth.language);
            found.push(Finished { audio, peak: audio, language, hotwords: 0.0, end: None });
        }
        let mut ranked: Vec<(Hypothesis, f64)> = found.iter().map(|f| (self.hypothesis(f), f.score())).collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.tokens.cmp(&b.0.tokens)));
        ranked.truncate(self.config.n_best);
        ranked.into_iter().map(|(hypothesis, _)| hypothesis).collect()
    }

    /// The tokens of a path, separators at the end left out.
    fn tokens(&self, end: u32) -> Vec<Moment> {
        let mut path: Vec<Moment> = self.moments.path(end).map(|(_, m)| *m).collect();
        path.reverse();
        let mut tokens = [&self.moments.certain[..], &path].concat();
        let separators = tokens.iter().rev().take_while(|m| self.alphabet.is_separator(m.token)).count();
        tokens.truncate(tokens.len() - separators);
        tokens
    }

    fn hypothesis(&self, finished: &Finished) -> Hypothesis {
        let tokens = finished.end.map_or(vec![], |end| self.tokens(end));
        Hypothesis {
            tokens: tokens.iter().map(|m| m.token).collect(),
            steps: tokens.iter().map(|m| m.step).collect(),
            token_log_probs: tokens.iter().map(|m| m.log_prob).collect(),
            score: if self.impossible { f32::NEG_INFINITY } else { finished.score() as f32 },
            language: finished.language as f32,
            hotwords: finished.hotwords as f32,
        }
    }
}

/// A text at the end of an utterance.
struct Finished {
    audio: f64,
    /// The best path's part of `audio`.
    peak: f64,
    language: f64,
    hotwords: f64,
    /// The last moment of the best path; `None` where it has no tokens because none were kept.
    end: Option<u32>,
}

impl Finished {
    fn score(&self) -> f64 {
        self.audio + self.language + self.hotwords
    }

    /// Takes in other paths to the same text.
    fn merge(&mut self, other: Self, paths: Paths) {
        let audio = add(paths, self.audio, other.audio);
        if other.peak > self.peak {
            *self = other;
        }
        self.audio = audio;
    }
}
