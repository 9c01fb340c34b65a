//! What a step makes of each hypothesis.
//!
//! A hypothesis is extended with every token that is tried. As a prefix has one parent only, what a step merges is only what it adds to
//! hypotheses that are there already, found by marking each one's children: nothing is looked up by its tokens. New prefixes are made for the
//! survivors.

use std::sync::Arc;

use super::memory::NONE;
use super::search::{Beam, Fresh, Origin, Search, Value, add, log_prob};
use crate::decode::alphabet::BOUNDARY;
use crate::decode::fusion::Context;

impl Beam {
    /// Paths that `token` may follow as a new one: all of them; and the best, with the moment at which it ends.
    fn before(&self, token: u32) -> (f64, (f64, u32)) {
        if token == self.token { (self.blank, (self.best_blank, self.moment_blank)) } else { (self.total, self.best()) }
    }
}

impl Value {
    fn of(context: &Context, token: u32) -> Self {
        // Fibonacci hashing.
        let future = (context.future() ^ u64::from(token)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { worth: context.total(), charge: context.charge(), future }
    }
}

impl Search {
    /// Fills `next` with the hypotheses as they are after a blank or the same token again. Returns a score that one of them has at least.
    pub(super) fn stay(&mut self, row: &[f32]) -> f64 {
        let tried = |token: u32| if row[token as usize] >= self.floor { log_prob(row[token as usize]) } else { f64::NEG_INFINITY };
        let blank = tried(self.alphabet.blank());
        self.next.clear();
        let mut least = f64::NEG_INFINITY;
        for beam in &self.beams {
            let again = if beam.token == NONE { f64::NEG_INFINITY } else { tried(beam.token) };
            let (best, moment_blank) = beam.best();
            let next = Beam {
                blank: beam.total + blank,
                label: beam.label + again,
                best_blank: best + blank,
                best_label: beam.best_label + again,
                moment_blank,
                origin: Origin::Same(beam.moment_label),
                ..*beam
            };
            least = least.max(next.blank.max(next.label) + next.value.worth);
            self.next.push(next);
        }
        least
    }

    /// Lists the children of each hypothesis that are hypotheses.
    pub(super) fn mark_children(&mut self) {
        self.first_child.clear();
        self.first_child.resize(self.beams.len(), NONE);
        self.sibling.clear();
        for (beam, at) in self.beams.iter().zip(0u32..) {
            let parent = self.prefixes.get(beam.prefix).parent;
            let parent = if parent == NONE { NONE } else { self.prefixes.get(parent).beam };
            let first = self.first_child.get_mut(parent as usize);
            self.sibling.push(first.map_or(NONE, |first| std::mem::replace(first, at)));
        }
    }

    /// Says of each token whether the hypothesis has a child with it; or forgets it.
    fn point_at_children(&mut self, at: usize, pointer: impl Fn(u32) -> u32) {
        let mut child = self.first_child[at];
        while child != NONE {
            self.child_of_token[self.beams[child as usize].token as usize] = pointer(child);
            child = self.sibling[child as usize];
        }
    }

    /// Extends a hypothesis by `tokens`; `best` is the best score so far, and comes back.
    pub(super) fn extend(&mut self, at: usize, row: &[f32], tokens: &[u32], mut best: f64) -> f64 {
        let beam = self.beams[at];
        self.point_at_children(at, |child| child);
        let plain = self.fusion.is_empty();
        if beam.in_word && !plain && self.prefixes.get(beam.prefix).word_end.is_none() {
            let wanted = tokens.iter().any(|&token| self.alphabet.symbols(token).first() == Some(&BOUNDARY));
            let end = wanted.then(|| self.fusion.word_end(&self.prefixes.get(beam.prefix).context));
            self.prefixes.get_mut(beam.prefix).word_end = end;
        }
        let prefix = self.prefixes.get(beam.prefix);
        let word_end = prefix.word_end.as_ref().and_then(Option::as_ref);
        let prune = f64::from(self.config.beam_prune_log_prob);
        for &token in tokens {
            let (all, (path, moment)) = beam.before(token);
            let log_prob = log_prob(row[token as usize]);
            let label = all + log_prob;
            // A separator between words changes nothing.
            let same = !beam.in_word && self.alphabet.is_separator(token);
            let there = if same { at as u32 } else { self.child_of_token[token as usize] };
            if let Some(next) = self.next.get_mut(there as usize) {
                next.label = add(self.config.paths, next.label, label);
                if path + log_prob > next.best_label {
                    next.best_label = path + log_prob;
                    next.origin = if same { Origin::Same(moment) } else { Origin::After(moment) };
                }
                continue;
            }
            let value = if plain {
                Value::default()
            } else {
                match self.fusion.extend(&prefix.context, self.alphabet.symbols(token), word_end) {
                    Some(context) => Value::of(&context, token),
                    None => continue,
                }
            };
            let score = label + value.worth;
            if score > f64::NEG_INFINITY && score + f64::from(value.charge) >= best + prune {
                best = best.max(score);
                self.ranks.push((score, (self.beams.len() + self.fresh.len()) as u32));
                self.fresh.push(Fresh { parent: at as u32, token, label, value });
            }
        }
        self.point_at_children(at, |_| NONE);
        best
    }

    /// Makes the hypotheses in `ranks` those of the next step.
    pub(super) fn survive(&mut self, row: &[f32]) {
        for beam in &self.beams {
            self.prefixes.get_mut(beam.prefix).beam = NONE;
        }
        let mut kept = std::mem::take(&mut self.kept);
        kept.clear();
        for at in 0..self.ranks.len() {
            let index = self.ranks[at].1 as usize;
            let mut beam = match self.next.get(index) {
                Some(&beam) => beam,
                None => match self.begin(self.fresh[index - self.next.len()], row) {
                    Some(beam) => beam,
                    None => continue,
                },
            };
            beam.moment_label = match beam.origin {
                _ if beam.best_label == f64::NEG_INFINITY => NONE,
                Origin::Same(NONE) => NONE,
                Origin::Same(moment) => self.moments.improved(moment, self.steps, row[beam.token as usize]),
                Origin::After(moment) => self.moments.add(moment, beam.token, self.steps, row[beam.token as usize]),
            };
            self.prefixes.get_mut(beam.prefix).beam = kept.len() as u32;
            kept.push(beam);
        }
        self.kept = std::mem::replace(&mut self.beams, kept);
    }

    /// A hypothesis that is new, or was dropped before.
    fn begin(&mut self, Fresh { parent, token, label, value }: Fresh, row: &[f32]) -> Option<Beam> {
        let parent = self.beams[parent as usize];
        let prefix = match self.prefixes.child(parent.prefix, token) {
            Some(known) => known,
            None => {
                let from = self.prefixes.get(parent.prefix);
                let word_end = from.word_end.as_ref().and_then(Option::as_ref);
                let context = match self.fusion.is_empty() {
                    true => from.context,
                    false => self.fusion.extend(&from.context, self.alphabet.symbols(token), word_end)?,
                };
                self.prefixes.add(parent.prefix, token, context)
            }
        };
        let (_, (path, moment)) = parent.before(token);
        Some(Beam {
            prefix,
            token,
            blank: f64::NEG_INFINITY,
            label,
            total: label,
            best_blank: f64::NEG_INFINITY,
            best_label: path + log_prob(row[token as usize]),
            moment_blank: NONE,
            moment_label: NONE,
            origin: Origin::After(moment),
            value,
            in_word: self.alphabet.symbols(token).last().is_some_and(|&s| s != BOUNDARY),
        })
    }

    /// The tokens that a closed language allows after a hypothesis.
    pub(super) fn allowed(&mut self, at: usize) -> Arc<[u32]> {
        let context = self.prefixes.get(self.beams[at].prefix).context;
        let key = self.fusion.permission(&context);
        if let Some(known) = self.allowed.get(&key) {
            return known.clone();
        }
        let tokens = (0..self.alphabet.vocab() as u32).filter(|&token| {
            let symbols = self.alphabet.symbols(token);
            !symbols.is_empty() && self.fusion.allows(&context, symbols)
        });
        let tokens: Arc<[u32]> = tokens.collect();
        self.allowed.insert(key, tokens.clone());
        tokens
    }
}
