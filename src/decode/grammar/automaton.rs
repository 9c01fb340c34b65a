//! A grammar over letters: which may come next, and whether a sentence may end.
//!
//! The rules become a nondeterministic automaton over letters and word boundaries. The search needs one state per text, so sets of its states
//! are made on the way (the subset construction), each with the weight of the best way to it; only those that some hypothesis reaches exist.

use std::collections::HashMap;

use super::parser::Scope;
use super::{Expansion, Grammar, Least};
use crate::decode::alphabet::{Alphabet, BOUNDARY, Letter};
use crate::decode::source;
use crate::error::{Error, Result};

/// Most states of the automaton that the rules become: references are copied in.
const MAX_STATES: usize = 1 << 20;

/// Rules within rules within groups: bounds the recursion.
const MAX_DEPTH: usize = 500;

/// Sets whose weights differ by less are one, so that ways around a loop come back to the same set.
const WEIGHT_UNIT: f32 = 1.0 / 1024.0;

/// Ways this much worse than another to the same text are forgotten, so that there are finitely many sets.
const WORST_WEIGHT: f32 = -60.0;

/// The state before the first word.
pub(in crate::decode) const START: u32 = 0;

#[derive(Debug, Clone)]
enum Way {
    /// Goes on to any of these without a letter, for a weight.
    Split(Vec<(u32, f32)>),
    Letter(Letter, u32),
    /// The end of a word; a boundary or the end of the sentence follows.
    WordEnd(u32),
    /// The end of a sentence.
    Accept,
}

/// States reached by the same text, each with its weight below the best one; in their order.
type Set = Box<[(u32, f32)]>;

/// A state and what the step to it adds to the score.
type Step = Option<(u32, f32)>;

/// A grammar as an automaton; makes its states as it is walked.
#[derive(Debug, Clone)]
pub(in crate::decode) struct Automaton {
    ways: Vec<Way>,
    sets: Vec<Set>,
    numbers: HashMap<Box<[(u32, i32)]>, u32>,
    steps: HashMap<(u32, Letter), Step>,
}

impl Automaton {
    /// The automaton of a grammar whose words are spelt by `alphabet`.
    ///
    /// # Errors
    /// [`Error::Manifest`] at a word that the tokens cannot spell, [`Error::LimitExceeded`] if the rules become too large,
    /// [`Error::Config`] if no sentence has a word.
    pub(in crate::decode) fn new(grammar: &Grammar, alphabet: &Alphabet) -> Result<Self> {
        let mut builder = Builder { grammar, alphabet, ways: vec![Way::Accept], spelt: HashMap::new() };
        let mut starts = Vec::new();
        for rule in grammar.rules.iter().filter(|rule| rule.scope == Scope::Public) {
            starts.push((builder.build(&rule.body, 0, 0)?, 0.0));
        }
        let mut automaton = Self { ways: builder.ways, sets: vec![], numbers: HashMap::new(), steps: HashMap::new() };
        let set = automaton.closure(starts);
        let said = set.iter().any(|(way, _)| matches!(automaton.ways[*way as usize], Way::Letter(..)));
        if !said {
            return Err(Error::config(&grammar.path, "no sentence of the grammar has a word"));
        }
        automaton.number(set);
        Ok(automaton)
    }

    /// The state after a letter, or after a [`BOUNDARY`] at the end of a word; `None` where the language has no such text.
    pub(in crate::decode) fn step(&mut self, state: u32, symbol: Letter) -> Step {
        if let Some(&step) = self.steps.get(&(state, symbol)) {
            return step;
        }
        let next = self.sets[state as usize].iter().filter_map(|&(way, weight)| match self.ways[way as usize] {
            Way::Letter(letter, next) if letter == symbol => Some((next, weight)),
            Way::WordEnd(next) if symbol == BOUNDARY => Some((next, weight)),
            _ => None,
        });
        let seeds: Vec<(u32, f32)> = next.collect();
        let set = self.closure(seeds);
        let step = (!set.is_empty()).then(|| self.number(set));
        self.steps.insert((state, symbol), step);
        step
    }

    /// What ending the sentence here adds to the score; `None` where none ends.
    pub(in crate::decode) fn end(&self, state: u32) -> Option<f32> {
        let ends = |way: u32| matches!(self.ways[way as usize], Way::Accept);
        let weights = self.sets[state as usize].iter().filter_map(|&(way, weight)| match self.ways[way as usize] {
            Way::Accept => Some(weight),
            Way::WordEnd(next) => {
                let after = self.closure(vec![(next, weight)]);
                after.iter().find(|(way, _)| ends(*way)).map(|(_, weight)| *weight)
            }
            _ => None,
        });
        weights.max_by(f32::total_cmp)
    }

    /// Everything reached from `open` without a letter, best weight each, in order.
    fn closure(&self, mut open: Vec<(u32, f32)>) -> Vec<(u32, f32)> {
        let mut best: HashMap<u32, f32> = HashMap::new();
        while let Some((way, weight)) = open.pop() {
            if best.get(&way).is_some_and(|&known| known >= weight) {
                continue;
            }
            best.insert(way, weight);
            if let Way::Split(next) = &self.ways[way as usize] {
                open.extend(next.iter().map(|&(next, more)| (next, weight + more)));
            }
        }
        let mut found: Vec<(u32, f32)> = best.into_iter().filter(|(way, _)| !matches!(self.ways[*way as usize], Way::Split(_))).collect();
        found.sort_unstable_by_key(|(way, _)| *way);
        found
    }

    /// The number of a set, and its best weight, which it then has no more.
    fn number(&mut self, set: Vec<(u32, f32)>) -> (u32, f32) {
        let best = set.iter().map(|(_, weight)| *weight).fold(f32::NEG_INFINITY, f32::max);
        let set: Set = set.into_iter().map(|(way, weight)| (way, weight - best)).filter(|(_, weight)| *weight >= WORST_WEIGHT).collect();
        let key: Box<[(u32, i32)]> = set.iter().map(|&(way, weight)| (way, (weight / WEIGHT_UNIT).round() as i32)).collect();
        let next = self.sets.len() as u32;
        let number = *self.numbers.entry(key).or_insert_with(|| {
            self.sets.push(set);
            next
        });
        (number, best)
    }

    /// Forgets the states made on the way.
    pub(in crate::decode) fn reset(&mut self) {
        let start = self.sets[START as usize].to_vec();
        self.sets.clear();
        self.numbers.clear();
        self.steps.clear();
        self.number(start);
    }

    /// Number of states made so far.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.sets.len()
    }
}

struct Builder<'a> {
    grammar: &'a Grammar,
    alphabet: &'a Alphabet,
    ways: Vec<Way>,
    spelt: HashMap<&'a str, Vec<Letter>>,
}

impl<'a> Builder<'a> {
    fn add(&mut self, way: Way) -> Result<u32> {
        if self.ways.len() >= MAX_STATES {
            let what = format!("{}: states of the grammar with its references copied in", self.grammar.path.display());
            return Err(Error::LimitExceeded { what, limit: MAX_STATES as u64, got: self.ways.len() as u64 + 1 });
        }
        self.ways.push(way);
        Ok(self.ways.len() as u32 - 1)
    }

    /// States for `expansion` that lead to `next`; returns the first of them.
    fn build(&mut self, expansion: &'a Expansion, next: u32, depth: usize) -> Result<u32> {
        if depth > MAX_DEPTH {
            let what = format!("{}: rules within rules of the grammar", self.grammar.path.display());
            return Err(Error::LimitExceeded { what, limit: MAX_DEPTH as u64, got: depth as u64 });
        }
        let depth = depth + 1;
        match expansion {
            Expansion::Word { text, at } => {
                if !self.spelt.contains_key(text.as_str()) {
                    let spelt = self.alphabet.spell_in_tokens(text).map_err(|reason| source::wrong(&self.grammar.path, *at, reason))?;
                    self.spelt.insert(text, spelt);
                }
                let mut first = self.add(Way::WordEnd(next))?;
                for letter in self.spelt[text.as_str()].clone().into_iter().rev() {
                    first = self.add(Way::Letter(letter, first))?;
                }
                Ok(first)
            }
            Expansion::Rule { rule, .. } => {
                let grammar = self.grammar;
                self.build(&grammar.rules[*rule].body, next, depth)
            }
            Expansion::Sequence(items) => items.iter().rev().try_fold(next, |next, item| self.build(item, next, depth)),
            Expansion::Alternatives(items) => {
                let largest = items.iter().map(|(weight, _)| *weight).fold(0.0, f32::max);
                let mut split = Vec::new();
                for (weight, item) in items.iter().filter(|(weight, _)| *weight > 0.0) {
                    split.push((self.build(item, next, depth)?, (weight / largest).ln()));
                }
                self.add(Way::Split(split))
            }
            Expansion::Optional(body) => {
                let first = self.build(body, next, depth)?;
                self.add(Way::Split(vec![(first, 0.0), (next, 0.0)]))
            }
            Expansion::Repeat { least, body } => {
                let again = self.add(Way::Split(vec![]))?;
                let first = self.build(body, again, depth)?;
                self.ways[again as usize] = Way::Split(vec![(first, 0.0), (next, 0.0)]);
                Ok(if *least == Least::Never { again } else { first })
            }
            Expansion::Void => self.add(Way::Split(vec![])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn automaton(rules: &str) -> Automaton {
        let pieces = std::iter::once(String::new()).chain(" abcdefghijklmnopqrstuvwxyz".chars().map(String::from)).collect();
        Automaton::new(&Grammar::parse(rules, "g").unwrap(), &Alphabet::new(pieces, 0).unwrap()).unwrap()
    }

    /// The score of a sentence; letters are numbered from 1 as in the alphabet above.
    fn score(automaton: &mut Automaton, text: &str) -> Option<f32> {
        let mut total = 0.0;
        let mut state = START;
        for symbol in text.bytes().map(|b| if b == b' ' { BOUNDARY } else { u32::from(b - b'a') + 1 }) {
            let (next, weight) = automaton.step(state, symbol)?;
            (state, total) = (next, total + weight);
        }
        Some(total + automaton.end(state)?)
    }

    #[test]
    fn accepts_its_sentences_and_no_others() {
        let mut a =
            automaton("<r> = kitchen | living room; public <c> = [please] turn (on | off) the light [in the <r>] | stop+ | (up)* down;");
        for good in ["turn on the light", "please turn off the light in the living room", "stop", "stop stop", "down", "up up down"] {
            assert_eq!(score(&mut a, good), Some(0.0), "{good}");
        }
        for bad in ["", "turn", "turn the light", "turn on the light in the living", "stop down", "up", "please", "stops", "stop up"] {
            assert_eq!(score(&mut a, bad), None, "{bad}");
        }
    }

    #[test]
    fn weights_are_relative_to_the_largest_and_the_best_way_counts() {
        let mut a = automaton("public <c> = /4/ go | /1/ stop | /2/ (go | stop) now | /0/ never;");
        let close = |a: Option<f32>, b: f32| assert!((a.unwrap() - b).abs() < 0.01, "{a:?} {b}");
        close(score(&mut a, "go"), 0.0);
        close(score(&mut a, "stop"), 0.25f32.ln());
        close(score(&mut a, "go now"), 0.5f32.ln());
        close(score(&mut a, "stop now"), 0.5f32.ln());
        assert_eq!(score(&mut a, "never"), None);
    }

    #[test]
    fn loops_need_finitely_many_states() {
        let mut a = automaton("public <c> = (/1/ a | /3/ b)* | (/5/ a | /1/ b)* c | ([a] [b])*;");
        let text: String = (0..4000).map(|i| if i * i % 7 < 3 { "a " } else { "b " }).collect();
        assert!(score(&mut a, text.trim_end()).is_some());
        assert!(a.len() < 3000, "{}", a.len());
        a.reset();
        assert_eq!((a.len(), score(&mut a, "a b a").is_some()), (1, true));
    }

    #[test]
    fn unspellable_words_and_runaway_rules_are_refused() {
        let alphabet = Alphabet::new(vec![String::new(), "a".into(), " ".into()], 0).unwrap();
        let of = |text: &str| Automaton::new(&Grammar::parse(text, "g").unwrap(), &alphabet).unwrap_err().to_string();
        assert_eq!(of("public <a> = a\n aba;"), "g:2: column 2: no token spells 'b' of \"aba\"");
        assert_eq!(of("public <a> = [<VOID>];"), "g: no sentence of the grammar has a word");
        let doubling: String = (0..40).map(|i| format!("<r{i}> = <r{}> <r{}>;", i + 1, i + 1)).collect();
        assert!(of(&format!("{doubling} <r40> = a; public <a> = <r0>;")).contains("1048576"));
        let chain: String = (0..9000).map(|i| format!("<r{i}> = [<r{}>];", i + 1)).collect();
        assert!(of(&format!("{chain} <r9000> = a; public <a> = <r0>;")).contains("rules within rules"));
    }
}
