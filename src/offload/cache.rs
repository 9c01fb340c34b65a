//! Experts that come and go: least recently used first, never more than the budget, a thread that fetches ahead.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::checkpoint::experts::ExpertFile;
use crate::model::lengths::Lengths;
use crate::model::moe::store::ExpertStore;
use crate::model::ops::experts::ExpertWeights;
use crate::offload::ledger::Ledger;
use crate::offload::predictor::Predictor;

/// Layer (from 0) and expert.
pub type Key = (usize, usize);

/// How experts are guessed before a layer asks for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prefetch {
    /// Not at all: only what a layer asks for is read, the next one while the first one works.
    Nothing,
    /// Those that the layer below used.
    Previous,
    /// Those that the layer used most so far.
    Popular,
    /// What the model's predictor says.
    Predicted,
}

/// How experts are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of experts in memory at most.
    pub budget: u64,
    /// How experts are guessed.
    pub prefetch: Prefetch,
    /// Experts that may lie fetched and unused at once.
    pub queue: usize,
}

/// What happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Passes through the encoder.
    pub passes: u64,
    /// Experts that layers asked for.
    pub asked: u64,
    /// Of them in memory already.
    pub hits: u64,
    /// Of them being fetched already: the layer waited for the rest.
    pub late: u64,
    /// Experts read ahead.
    pub fetched: u64,
    /// Of them evicted before a layer asked for them.
    pub wasted: u64,
    /// Experts evicted.
    pub evicted: u64,
    /// Bytes read from the file's side.
    pub read_bytes: u64,
}

#[derive(Debug)]
struct Entry {
    weights: ExpertWeights,
    /// Time of the last use.
    used: u64,
    /// Layers at work with it.
    pins: usize,
    /// Fetched ahead, not asked for yet.
    fresh: bool,
}

#[derive(Debug)]
struct State {
    ledger: Ledger,
    entries: BTreeMap<Key, Entry>,
    loading: BTreeSet<Key>,
    /// What will be asked for, soonest first, as far as guessed.
    plan: VecDeque<Key>,
    clock: u64,
    counts: Counts,
    /// Times each expert was asked for.
    popularity: BTreeMap<Key, u64>,
    /// Layers that wait for room: while there are any, nothing is fetched ahead.
    pressed: usize,
    /// Grows with everything that may give the fetching thread something to do.
    changes: u64,
}

/// Experts within a budget.
#[derive(Debug)]
pub struct ExpertCache {
    file: ExpertFile,
    device: Device,
    settings: Settings,
    predictor: Option<Predictor>,
    state: Mutex<State>,
    changed: Condvar,
}

impl ExpertCache {
    /// An empty cache and its fetching thread, which ends when the cache is dropped. The budget holds the largest expert at least.
    pub fn start(file: ExpertFile, device: Device, settings: Settings, predictor: Option<Predictor>) -> Arc<Self> {
        let state = State {
            ledger: Ledger::new(settings.budget),
            entries: BTreeMap::new(),
            loading: BTreeSet::new(),
            plan: VecDeque::new(),
            clock: 0,
            counts: Counts::default(),
            popularity: BTreeMap::new(),
            pressed: 0,
            changes: 0,
        };
        let cache = Arc::new(Self { file, device, settings, predictor, state: Mutex::new(state), changed: Condvar::new() });
        let weak = Arc::downgrade(&cache);
        std::thread::spawn(move || fetch_ahead(&weak));
        cache
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// The book of the budget.
    pub fn ledger(&self) -> Ledger {
        self.lock().ledger.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panicked was not between two entries of the book: each is made in one go.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes whoever waits for a change.
    fn announce(&self, mut state: MutexGuard<'_, State>) {
        state.changes += 1;
        drop(state);
        self.changed.notify_all();
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// The weights of an expert that a layer asks for, pinned.
    fn pin(&self, key: Key) -> ExpertWeights {
        let bytes = self.file.bytes(key.0);
        let mut state = self.lock();
        state.counts.asked += 1;
        *state.popularity.entry(key).or_default() += 1;
        let mut first = true;
        loop {
            state.clock += 1;
            let now = state.clock;
            if let Some(entry) = state.entries.get_mut(&key) {
                (entry.used, entry.fresh) = (now, false);
                entry.pins += 1;
                let weights = entry.weights.clone();
                state.counts.hits += u64::from(first);
                return weights;
            }
            if state.loading.contains(&key) {
                state.counts.late += u64::from(first);
            } else if state.make_room(bytes, |_| true, &self.file) {
                state = self.load(state, key, false);
                first = false;
                continue;
            }
            first = false;
            state.pressed += 1;
            state = self.wait(state);
            state.pressed -= 1;
        }
    }

    fn unpin(&self, key: Key) {
        let mut state = self.lock();
        if let Some(entry) = state.entries.get_mut(&key) {
            entry.pins -= 1;
        }
        self.announce(state);
    }

    /// Reads an expert for which there is room, without holding the lock meanwhile.
    fn load<'a>(&'a self, mut state: MutexGuard<'a, State>, key: Key, ahead: bool) -> MutexGuard<'a, State> {
        let bytes = self.file.bytes(key.0);
        state.ledger.take(bytes);
        state.loading.insert(key);
        drop(state);
        let weights = self.file.read(key.0, key.1, &self.device);
        let mut state = self.lock();
        state.loading.remove(&key);
        state.clock += 1;
        let entry = Entry { weights, used: state.clock, pins: 0, fresh: ahead };
        state.entries.insert(key, entry);
        state.counts.fetched += u64::from(ahead);
        state.counts.read_bytes += bytes;
        state.changes += 1;
        self.changed.notify_all();
        state
    }

    /// Fetches the first planned expert that is not there, if the queue and the budget let it; tells whether it did.
    fn fetch_one(&self) -> bool {
        let mut state = self.lock();
        if state.pressed > 0 || state.entries.values().filter(|e| e.fresh).count() >= self.settings.queue {
            return false;
        }
        let Some(&key) = state.plan.iter().find(|key| !state.entries.contains_key(key) && !state.loading.contains(key)) else {
            return false;
        };
        // What will be asked for sooner stays.
        let sooner: BTreeSet<Key> = state.plan.iter().take_while(|k| **k != key).copied().collect();
        if !state.make_room(self.file.bytes(key.0), |k| !sooner.contains(&k), &self.file) {
            return false;
        }
        drop(self.load(state, key, true));
        true
    }

    /// Puts a new plan in the place of the old one.
    fn plan(&self, keys: impl IntoIterator<Item = Key>) {
        let mut state = self.lock();
        state.plan = keys.into_iter().collect();
        self.announce(state);
    }
}

impl State {
    /// Evicts, of the experts that nobody works with and that `may` go, the least recently used, until `bytes` fit. Those that are planned go
    /// last. Evicts nothing where it would not help.
    fn make_room(&mut self, bytes: u64, may: impl Fn(Key) -> bool, file: &ExpertFile) -> bool {
        let planned: BTreeSet<Key> = self.plan.iter().copied().collect();
        let mut free: Vec<Key> = self.entries.iter().filter(|(key, e)| e.pins == 0 && may(**key)).map(|(key, _)| *key).collect();
        let reach = self.ledger.resident() - free.iter().map(|key| file.bytes(key.0)).sum::<u64>();
        if reach + bytes > self.ledger.budget() {
            return false;
        }
        free.sort_by_key(|key| (planned.contains(key), self.entries[key].used));
        for key in free {
            if self.ledger.fits(bytes) {
                break;
            }
            if let Some(entry) = self.entries.remove(&key) {
                self.ledger.give_back(file.bytes(key.0));
                self.counts.evicted += 1;
                self.counts.wasted += u64::from(entry.fresh);
            }
        }
        self.ledger.fits(bytes)
    }

    /// The experts of a layer, most asked for first.
    fn popular(&self, layer: usize) -> Vec<Key> {
        let mut keys: Vec<(Key, u64)> = self.popularity.iter().filter(|(key, _)| key.0 == layer).map(|(key, n)| (*key, *n)).collect();
        keys.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        keys.into_iter().map(|(key, _)| key).collect()
    }
}

impl ExpertStore for ExpertCache {
    fn begin(&self, x: &Tensor<3>, lengths: &Lengths) {
        self.lock().counts.passes += 1;
        match (self.settings.prefetch, &self.predictor) {
            (Prefetch::Predicted, Some(predictor)) => self.plan(predictor.plan(x, lengths)),
            (Prefetch::Popular, _) => {
                let keys: Vec<Key> = {
                    let state = self.lock();
                    (0..self.file.sizes().len()).flat_map(|layer| state.popular(layer)).collect()
                };
                self.plan(keys);
            }
            _ => {}
        }
    }

    fn lend(&self, layer: usize, needed: &[usize], each: &mut dyn FnMut(usize, &ExpertWeights)) {
        let mut waiting: Vec<usize> = needed.to_vec();
        while !waiting.is_empty() {
            let next = {
                let mut state = self.lock();
                // What is there goes first: meanwhile the others come.
                let at = waiting.iter().position(|e| state.entries.contains_key(&(layer, *e))).unwrap_or(0);
                let next = waiting.remove(at);
                let mut plan: VecDeque<Key> = waiting.iter().map(|e| (layer, *e)).collect();
                if self.settings.prefetch == Prefetch::Previous && layer + 1 < self.file.sizes().len() {
                    plan.extend(needed.iter().map(|e| (layer + 1, *e)));
                } else {
                    plan.extend(state.plan.iter().filter(|key| key.0 > layer));
                }
                state.plan = plan;
                self.announce(state);
                next
            };
            let weights = self.pin((layer, next));
            each(next, &weights);
            drop(weights);
            self.unpin((layer, next));
        }
    }
}

/// Fetches while there is a plan; sleeps while there is nothing to do, and looks now and then whether the cache is still there.
fn fetch_ahead(cache: &Weak<ExpertCache>) {
    /// Longest sleep: a cache that is gone keeps its thread for as long.
    const NAP: std::time::Duration = std::time::Duration::from_millis(50);
    while let Some(cache) = cache.upgrade() {
        let seen = cache.lock().changes;
        if !cache.fetch_one() {
            let state = cache.lock();
            if state.changes == seen {
                drop(cache.changed.wait_timeout(state, NAP));
            }
        }
    }
}
