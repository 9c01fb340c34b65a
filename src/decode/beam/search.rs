//! The search itself: one step at a time, hypotheses as prefixes of tokens.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::memory::{Moments, NONE, Prefixes};
use super::{BeamConfig, Paths};
use crate::decode::alphabet::Alphabet;
use crate::decode::fusion::Fusion;

/// Steps from one look for decisions past the horizon to the next.
const HORIZON_CHECK: usize = 64;

/// Prefixes or path entries from which unneeded ones are collected.
const COLLECT_FROM: usize = 8192;

/// One in so many hypotheses may be in the middle of an unknown word even if all others score more: those are charged for it before it shows
/// what the others have to pay.
const UNKNOWN_SHARE: usize = 8;

/// A hypothesis. Log-probabilities are of all its paths; `best_` is the best of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beam {
    pub(super) prefix: u32,
    /// The last token; `NONE` before the first.
    pub(super) token: u32,
    /// Paths that end in a blank, and in the token.
    pub(super) blank: f64,
    pub(super) label: f64,
    /// Both.
    pub(super) total: f64,
    pub(super) best_blank: f64,
    pub(super) best_label: f64,
    /// Last moments of the best paths.
    pub(super) moment_blank: u32,
    pub(super) moment_label: u32,
    /// Where the best path that ends in the token came from, while a step is under way.
    pub(super) origin: Origin,
    pub(super) value: Value,
    pub(super) in_word: bool,
}

/// Where a path was a step ago.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin {
    /// It had the token already, last at this moment.
    Same(u32),
    /// It had not: it ended at this moment.
    After(u32),
}

/// What a text is worth beside the audio.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Value {
    pub(super) worth: f64,
    /// Part of `worth` that the threshold does not count.
    pub(super) charge: f32,
    /// Equal for hypotheses to which whatever may follow adds the same.
    pub(super) future: u64,
}

/// A prefix that was not a hypothesis before this step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fresh {
    pub(super) parent: u32,
    pub(super) token: u32,
    pub(super) label: f64,
    pub(super) value: Value,
}

/// A hypothesis of the next step: score, then its place in `next` or, past that, in `fresh`.
type Rank = (f64, u32);

#[derive(Debug, Clone)]
pub(super) struct Search {
    pub(super) alphabet: Alphabet,
    pub(super) config: BeamConfig,
    pub(super) fusion: Fusion,
    pub(super) prefixes: Prefixes,
    pub(super) moments: Moments,
    pub(super) beams: Vec<Beam>,
    pub(super) steps: usize,
    /// Whether there was a step that nothing could take.
    pub(super) impossible: bool,
    /// Log-probability that nothing was said.
    pub(super) nothing: f64,
    collect_from: usize,
    collect_at: usize,
    separators: Vec<u32>,
    /// Tokens that a closed language allows after a text, by [`Fusion::permission`].
    pub(super) allowed: HashMap<u32, Arc<[u32]>>,
    // Of one step, kept for their memory.
    /// Tokens to try, the blank aside.
    tried: Vec<u32>,
    /// Log-probability from which a token is tried.
    pub(super) floor: f32,
    pub(super) next: Vec<Beam>,
    pub(super) fresh: Vec<Fresh>,
    pub(super) ranks: Vec<Rank>,
    pub(super) kept: Vec<Beam>,
    futures: HashMap<u64, usize, BuildHasherDefault<Hashed>>,
    /// First child of each hypothesis among the hypotheses, and the next one of each with the same parent.
    pub(super) first_child: Vec<u32>,
    pub(super) sibling: Vec<u32>,
    /// The child of the hypothesis at hand with each token.
    pub(super) child_of_token: Vec<u32>,
}

impl Beam {
    /// The beginning of everything.
    fn start(worth: f64) -> Self {
        let value = Value { worth, ..Value::default() };
        let (nowhere, moment_blank, moment_label) = (f64::NEG_INFINITY, NONE, NONE);
        let (blank, label, best_blank, best_label, total) = (0.0, nowhere, 0.0, nowhere, 0.0);
        let (prefix, token, origin, in_word) = (0, NONE, Origin::Same(NONE), false);
        Self { prefix, token, blank, label, total, best_blank, best_label, moment_blank, moment_label, origin, value, in_word }
    }

    /// The best path, and the moment at which it ends.
    pub(super) fn best(&self) -> (f64, u32) {
        if self.best_label > self.best_blank { (self.best_label, self.moment_label) } else { (self.best_blank, self.moment_blank) }
    }

    pub(super) fn score(&self) -> f64 {
        self.total + self.value.worth
    }
}

impl Search {
    pub(super) fn new(alphabet: Alphabet, config: BeamConfig, fusion: Fusion) -> Self {
        let vocab = alphabet.vocab();
        let mut search = Self {
            prefixes: Prefixes::new(fusion.start()),
            moments: Moments::default(),
            beams: vec![],
            steps: 0,
            impossible: false,
            nothing: 0.0,
            collect_from: COLLECT_FROM,
            collect_at: COLLECT_FROM,
            separators: (0..vocab as u32).filter(|&token| alphabet.is_separator(token)).collect(),
            allowed: HashMap::new(),
            tried: vec![],
            floor: 0.0,
            next: vec![],
            fresh: vec![],
            ranks: vec![],
            kept: vec![],
            futures: HashMap::default(),
            first_child: vec![],
            sibling: vec![],
            child_of_token: vec![NONE; vocab],
            alphabet,
            config,
            fusion,
        };
        search.reset();
        search
    }

    pub(super) fn delay(&self) -> usize {
        self.config.horizon.saturating_add(HORIZON_CHECK)
    }

    pub(super) fn reset(&mut self) {
        self.fusion.reset();
        self.allowed.clear();
        let start = self.fusion.start();
        self.prefixes = Prefixes::new(start);
        self.prefixes.get_mut(0).beam = 0;
        self.moments.clear();
        self.beams = vec![Beam::start(start.total())];
        (self.steps, self.impossible, self.nothing, self.collect_at) = (0, false, 0.0, self.collect_from);
    }

    /// Takes in one step, `[vocab]`.
    pub(super) fn step(&mut self, row: &[f32]) {
        let blank = log_prob(row[self.alphabet.blank() as usize]);
        self.choose(row);
        let closed = self.fusion.is_closed();
        if self.floor == f32::INFINITY {
            self.pass();
        } else {
            if closed {
                let paths = self.config.paths;
                self.nothing += self.separators.iter().fold(blank, |sum, &s| add(paths, sum, log_prob(row[s as usize])));
            }
            if blank >= f64::from(self.config.blank_prune_log_prob) || (!closed && self.tried.is_empty()) {
                self.rest(blank);
            } else if !self.grow(row) {
                self.pass();
            }
        }
        self.steps += 1;
        if self.steps.is_multiple_of(HORIZON_CHECK) {
            self.settle();
        }
        if self.prefixes.len().max(self.moments.len()) > self.collect_at {
            self.collect();
        }
    }

    /// Finds the tokens to try, and the log-probability from which a token is; infinity if there is none.
    fn choose(&mut self, row: &[f32]) {
        self.tried.clear();
        if self.fusion.is_closed() {
            let possible = row.iter().any(|&p| p > f32::NEG_INFINITY);
            self.floor = if possible { f32::NEG_INFINITY } else { f32::INFINITY };
            return;
        }
        let (alphabet, blank) = (&self.alphabet, self.alphabet.blank());
        let from = |floor: f32| {
            let likely = row.iter().zip(0u32..).filter(move |&(&p, _)| p >= floor && p > f32::NEG_INFINITY);
            likely.map(|(_, token)| token).filter(move |&token| token == blank || !alphabet.symbols(token).is_empty())
        };
        self.floor = self.config.token_min_log_prob;
        self.tried.extend(from(self.floor));
        if self.tried.is_empty() {
            self.floor = from(f32::NEG_INFINITY).map(|token| row[token as usize]).fold(f32::NEG_INFINITY, f32::max);
            self.tried.extend(from(self.floor));
        }
        if self.tried.is_empty() {
            self.floor = f32::INFINITY;
        }
        self.tried.retain(|&token| token != blank);
    }

    /// Takes a step that nothing can take.
    fn pass(&mut self) {
        self.impossible = true;
        self.rest(0.0);
    }

    /// Takes a step that is nothing but a blank.
    fn rest(&mut self, blank: f64) {
        for beam in &mut self.beams {
            let (best, moment) = beam.best();
            (beam.best_blank, beam.moment_blank) = (best + blank, moment);
            beam.total += blank;
            beam.blank = beam.total;
            (beam.label, beam.best_label, beam.moment_label) = (f64::NEG_INFINITY, f64::NEG_INFINITY, NONE);
        }
    }

    /// Takes a step; nothing happens, and `false` comes back, if no hypothesis can.
    fn grow(&mut self, row: &[f32]) -> bool {
        let prune = f64::from(self.config.beam_prune_log_prob);
        let mut best = self.stay(row);
        self.mark_children();
        self.fresh.clear();
        self.ranks.clear();
        let tried = std::mem::take(&mut self.tried);
        for at in 0..self.beams.len() {
            let allowed = self.fusion.is_closed().then(|| self.allowed(at));
            best = self.extend(at, row, allowed.as_deref().unwrap_or(&tried), best);
        }
        self.tried = tried;
        for (beam, at) in self.next.iter_mut().zip(0..) {
            beam.total = add(self.config.paths, beam.blank, beam.label);
            best = best.max(beam.score());
            self.ranks.push((beam.score(), at));
        }
        let (next, fresh) = (&self.next, &self.fresh);
        let keeps = |&(score, at): &Rank| score > f64::NEG_INFINITY && score + f64::from(value(next, fresh, at).charge) >= best + prune;
        self.ranks.retain(keeps);
        if self.ranks.is_empty() {
            return false;
        }
        if self.ranks.len() > self.config.beam_width {
            self.narrow();
        }
        self.ranks.sort_unstable_by_key(|&(_, at)| at);
        self.survive(row);
        true
    }

    /// Leaves the best `beam_width` of `ranks`, see [`BeamConfig::beam_width`].
    fn narrow(&mut self) {
        let width = self.config.beam_width;
        let order = |a: &Rank, b: &Rank| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        if self.fusion.is_empty() {
            self.ranks.select_nth_unstable_by(width - 1, order);
            self.ranks.truncate(width);
            return;
        }
        self.ranks.sort_unstable_by(order);
        let (next, fresh, futures, n_best) = (&self.next, &self.fresh, &mut self.futures, self.config.n_best);
        futures.clear();
        self.ranks.retain(|&(_, at)| {
            let alike = futures.entry(value(next, fresh, at).future).or_insert(0);
            *alike += 1;
            *alike <= n_best
        });
        if let Some((kept, rest)) = self.ranks.split_at_mut_checked(width) {
            let unknown = |rank: &Rank| value(next, fresh, rank.1).charge > 0.0;
            let missing = (width / UNKNOWN_SHARE).saturating_sub(kept.iter().filter(|rank| unknown(rank)).count());
            let better = rest.iter_mut().filter(|rank| unknown(rank)).take(missing);
            better.zip(kept.iter_mut().rev().filter(|rank| !unknown(rank))).for_each(|(a, b)| std::mem::swap(a, b));
        }
        self.ranks.truncate(width);
    }

    /// Makes decisions past the horizon final.
    fn settle(&mut self) {
        let Some(past) = self.steps.checked_sub(self.config.horizon) else { return };
        let best = self.beams.iter().max_by(|a, b| a.score().total_cmp(&b.score())).copied();
        let anchor = best.and_then(|b| self.moments.path(b.best().1).find(|(_, m)| m.step < past).map(|(at, m)| (b.prefix, at, m.depth)));
        let Some((prefix, anchor, depth)) = anchor else { return };
        let common = self.prefixes.ancestor(prefix, depth);
        for beam in &self.beams {
            self.prefixes.get_mut(beam.prefix).beam = NONE;
        }
        let prefixes = &self.prefixes;
        self.beams.retain(|beam| prefixes.ancestor(beam.prefix, depth) == common);
        for (beam, at) in self.beams.iter().zip(0..) {
            self.prefixes.get_mut(beam.prefix).beam = at;
        }
        self.moments.settle(anchor, self.beams.iter_mut().flat_map(|beam| [&mut beam.moment_blank, &mut beam.moment_label]));
        self.collect();
    }

    /// Frees what no hypothesis needs.
    fn collect(&mut self) {
        let map = self.prefixes.collect();
        let ends = self.beams.iter_mut().flat_map(|beam| {
            beam.prefix = map[beam.prefix as usize];
            // A path of no probability ends nowhere.
            let blank = (beam.best_blank > f64::NEG_INFINITY).then_some(&mut beam.moment_blank);
            let label = (beam.best_label > f64::NEG_INFINITY).then_some(&mut beam.moment_label);
            blank.into_iter().chain(label)
        });
        self.moments.collect(ends);
        self.collect_at = self.collect_from.max(2 * self.prefixes.len().max(self.moments.len()));
    }

    /// Tokens that are the same in all hypotheses to come, separators at the end included.
    pub(super) fn certain_tokens(&mut self) -> Vec<u32> {
        self.collect();
        if self.fusion.is_closed() { Vec::new() } else { self.moments.certain.iter().map(|m| m.token).collect() }
    }

    /// Number of tokens that are the same in all hypotheses to come.
    pub(super) fn certain(&mut self) -> usize {
        self.collect();
        let certain = &self.moments.certain;
        let separators = certain.iter().rev().take_while(|m| self.alphabet.is_separator(m.token)).count();
        if self.fusion.is_closed() { 0 } else { certain.len() - separators }
    }
}

/// The value of a hypothesis in the place of a [`Rank`].
fn value<'a>(next: &'a [Beam], fresh: &'a [Fresh], at: u32) -> &'a Value {
    let at = at as usize;
    next.get(at).map_or_else(|| &fresh[at - next.len()].value, |beam| &beam.value)
}

/// Garbage in the input as the search takes it: NaN is impossible, infinity is only very probable.
pub(super) fn log_prob(p: f32) -> f64 {
    if p.is_nan() { f64::NEG_INFINITY } else { f64::from(p.min(f32::MAX)) }
}

/// Two disjoint sets of paths as one.
pub(super) fn add(paths: Paths, a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if paths == Paths::Best || low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// Takes a number that is a hash already for its hash.
#[derive(Debug, Clone, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&b| self.0 = self.0.rotate_left(8) ^ u64::from(b));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::fusion::Scorers;

    fn search(config: BeamConfig) -> Search {
        let alphabet = Alphabet::new(["", " ", "a", "b", "c"].map(String::from).to_vec(), 0).unwrap();
        let fusion = Fusion::new(&alphabet, &Scorers::default()).unwrap();
        Search::new(alphabet, config, fusion)
    }

    /// Log-probabilities of random steps; `sharp` is how far apart they are.
    fn steps(count: usize, sharp: f32) -> Vec<[f32; 5]> {
        let mut state = 88_172_645_463_325_252u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 24) as f32
        };
        let row = |_| {
            let row: [f32; 5] = std::array::from_fn(|_| sharp * random());
            let sum = row.iter().map(|x| x.exp()).sum::<f32>().ln();
            row.map(|x| x - sum)
        };
        (0..count).map(row).collect()
    }

    #[test]
    fn collecting_changes_nothing() {
        for sharp in [0.5, 4.0, 12.0] {
            let config = BeamConfig { beam_width: 8, n_best: 8, ..BeamConfig::default() };
            let (mut lean, mut rich) = (search(config.clone()), search(config));
            (lean.collect_from, rich.collect_from) = (20, usize::MAX);
            lean.reset();
            rich.reset();
            for row in steps(1500, sharp) {
                lean.step(&row);
                rich.step(&row);
            }
            assert!(lean.moments.certain.len() > 100 && rich.moments.certain.is_empty());
            assert_eq!(lean.hypotheses(), rich.hypotheses(), "{sharp}");
            assert!(10 * lean.prefixes.len() < rich.prefixes.len(), "{} {}", lean.prefixes.len(), rich.prefixes.len());
        }
    }

    #[test]
    fn memory_is_bounded_by_the_horizon() {
        // Nearly equal tokens: hypotheses part early and never meet.
        let config = BeamConfig { beam_width: 50, horizon: 200, ..BeamConfig::default() };
        let mut search = search(config);
        let rows = steps(500, 0.01);
        let mut most = 0;
        for row in std::iter::repeat_n(&rows, 100).flatten() {
            search.step(row);
            most = most.max(search.prefixes.len()).max(search.moments.len());
        }
        assert!(most < 4 * COLLECT_FROM, "{most}");
        let certain = search.certain();
        let best = search.hypotheses().swap_remove(0);
        assert!(best.steps[certain] + search.delay() >= 50_000 && best.tokens.len() > 10_000, "{certain} {}", best.steps[certain]);
        assert!(best.steps.is_sorted());
    }

    #[test]
    fn ties_go_to_the_earlier_tokens() {
        let mut search = search(BeamConfig { beam_width: 4, n_best: 4, ..BeamConfig::default() });
        let row = [0.2f32.ln(); 5];
        [row, row, row].iter().for_each(|row| search.step(row));
        let tokens: Vec<Vec<u32>> = search.hypotheses().into_iter().map(|h| h.tokens).collect();
        assert_eq!(tokens, [vec![2], vec![3], vec![4], vec![]]);
    }
}
