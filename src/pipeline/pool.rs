//! The consuming half: windows of like length go through the encoder together, and each recording is put together again in its own order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use burn::tensor::Device;

use crate::error::Result;
use crate::model::arithmetic::Arithmetic;
use crate::model::pass::{Chunk, Pass};
use crate::model::recognizer::{AnyModel, Recognizer};
use crate::pipeline::batch::{Recognition, recognize};
use crate::pipeline::feed::{Ending, Features, Item, Listened};
use crate::pipeline::language::Modules;
use crate::pipeline::region::{Region, Stretch};

/// Batches' worth of frames that are gathered before the windows are sorted by length.
const POOLED_BATCHES: usize = 3;

/// The model and how it is run.
#[derive(Debug, Clone, Copy)]
pub struct Encoding<'a> {
    /// The recogniser.
    pub model: &'a AnyModel,
    /// Where.
    pub device: &'a Device,
    /// Of matrix products on the CPU.
    pub arithmetic: &'a Arithmetic,
    /// Context of a stream; `None`: the encoder's own.
    pub chunk: Option<Chunk>,
    /// Most feature frames in a batch, padding included; a longer window goes alone.
    pub batch_frames: usize,
    /// Samples per step.
    pub step_samples: usize,
    /// The blank token.
    pub blank: u32,
    /// Which module hears a recording.
    pub modules: Modules<'a>,
}

impl Encoding<'_> {
    fn recognize(&self, windows: &[&Features], slot: Option<usize>) -> Recognition {
        let features: Vec<_> = windows.iter().map(|window| &window.features).collect();
        recognize(self.model, &features, &Pass::inference(self.arithmetic).with_chunk(self.chunk).with_slot(slot), self.device)
    }
}

/// Where the time went, wall clock.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spent {
    /// Encoder and CTC head.
    pub encoder: Duration,
    /// Search for the hypothesis.
    pub decoder: Duration,
    /// Reading, decoding and resampling audio, on the producing side.
    pub audio: Duration,
    /// Front end, on the producing side.
    pub features: Duration,
    /// Start to the first hypothesis.
    pub first: Option<Duration>,
}

/// What the encoder made of a window's core.
#[derive(Debug)]
struct Core {
    recording: usize,
    position: usize,
    /// `[steps, vocab]`
    log_probs: Vec<f32>,
    /// `[MoE layers][steps]`
    experts: Vec<Vec<u16>>,
    last: bool,
}

/// A recording as far as it is recognised.
#[derive(Debug)]
struct Partial<T> {
    region: Region,
    /// Cores by position, waiting for an earlier one.
    waiting: BTreeMap<usize, Core>,
    /// Positions handed to the encoder, in order, not yet joined.
    order: VecDeque<usize>,
    heard: Vec<T>,
    ending: Option<Result<Listened>>,
    /// The module that was identified.
    module: Option<usize>,
}

/// Takes items until the producer is done; `decode` turns a stretch into what was heard in it, `done` gets every recording once with all that
/// was heard, `progress` the seconds of audio recognised.
pub fn consume<T>(
    encoding: &Encoding<'_>,
    receiver: &Receiver<Item>,
    mut decode: impl FnMut(&Stretch) -> T,
    mut done: impl FnMut(usize, Result<(Listened, Vec<T>)>),
    mut progress: impl FnMut(f64),
) -> Spent {
    let start = Instant::now();
    let mut spent = Spent::default();
    let mut open: BTreeMap<usize, Partial<T>> = BTreeMap::new();
    let vocab = encoding.model.vocab();
    let partial = || Partial {
        region: Region::new(vocab, encoding.blank, encoding.step_samples),
        waiting: BTreeMap::new(),
        order: VecDeque::new(),
        heard: Vec::new(),
        ending: None,
        module: None,
    };
    let mut more = true;
    while more {
        let mut pool: Vec<Features> = Vec::new();
        let mut frames = 0;
        while frames < POOLED_BATCHES * encoding.batch_frames {
            match receiver.recv() {
                Ok(Item::Window(window)) => {
                    frames += window.features.frames;
                    open.entry(window.recording).or_insert_with(partial).order.push_back(window.position);
                    pool.push(window);
                }
                Ok(Item::End(Ending { recording, outcome })) => {
                    open.entry(recording).or_insert_with(partial).ending = Some(outcome);
                }
                Err(_) => {
                    more = false;
                    break;
                }
            }
        }
        let began = Instant::now();
        for (recording, module) in identify(encoding, &pool, |recording| open.get(&recording).is_some_and(|p| p.module.is_none())) {
            open.entry(recording).or_insert_with(partial).module = module;
        }
        spent.encoder += began.elapsed();
        let slot = |window: &Features| match encoding.modules {
            Modules::Given(slots) => slots.get(window.recording).copied().flatten(),
            Modules::Identified => open.get(&window.recording).and_then(|p| p.module),
        };
        let mut pool: Vec<_> = pool.into_iter().map(|window| (slot(&window), window)).collect();
        pool.sort_by_key(|(slot, window)| (*slot, std::cmp::Reverse(window.features.frames)));
        for (slot, batch) in batches(pool, encoding.batch_frames) {
            let began = Instant::now();
            let seconds = batch.iter().map(|w| w.core.len() as f64).sum::<f64>() / 16_000.0;
            for core in encode(encoding, slot, batch) {
                open.entry(core.recording).or_insert_with(partial).waiting.insert(core.position, core);
            }
            spent.encoder += began.elapsed();
            let began = Instant::now();
            for partial in open.values_mut() {
                join(partial, &mut decode);
            }
            spent.decoder += began.elapsed();
            spent.first.get_or_insert_with(|| start.elapsed());
            progress(seconds);
        }
        let complete = |p: &Partial<T>| p.ending.is_some() && p.order.is_empty();
        let finished: Vec<usize> = open.iter().filter(|(_, p)| complete(p)).map(|(&recording, _)| recording).collect();
        for recording in finished {
            let Some(Partial { heard, ending: Some(ending), module, .. }) = open.remove(&recording) else { continue };
            done(recording, ending.map(|listened| (Listened { module, ..listened }, heard)));
        }
    }
    spent
}

/// Windows of one slot that go through the encoder together.
type Batch = (Option<usize>, Vec<Features>);

/// Neighbours in length with the same slot, at most `frames` with the padding.
fn batches(sorted: Vec<(Option<usize>, Features)>, frames: usize) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for (slot, window) in sorted {
        match batches.last_mut() {
            // The first of a batch is its longest.
            Some((of, batch)) if *of == slot && (batch.len() + 1) * batch[0].features.frames <= frames => batch.push(window),
            _ => batches.push((slot, vec![window])),
        }
    }
    batches
}

/// The most probable module of each recording that `wanted` names, from its first window, where modules are to be identified.
fn identify(encoding: &Encoding<'_>, pool: &[Features], wanted: impl Fn(usize) -> bool) -> Vec<(usize, Option<usize>)> {
    if !matches!(encoding.modules, Modules::Identified) {
        return Vec::new();
    }
    let mut first: BTreeMap<usize, &Features> = BTreeMap::new();
    for window in pool.iter().filter(|window| wanted(window.recording)) {
        first.entry(window.recording).or_insert(window);
    }
    let mut first: Vec<&Features> = first.into_values().collect();
    first.sort_by_key(|window| std::cmp::Reverse(window.features.frames));
    let mut found = Vec::new();
    while !first.is_empty() {
        let together = (encoding.batch_frames / first[0].features.frames.max(1)).clamp(1, first.len());
        let batch: Vec<&Features> = first.drain(..together).collect();
        let Recognition { modules, .. } = encoding.recognize(&batch, None);
        found.extend(batch.iter().zip(modules).map(|(window, log_probs)| (window.recording, most_probable(&log_probs))));
    }
    found
}

/// The module of the highest log-probability, the first at a tie; `None` where there are none.
pub fn most_probable(log_probs: &[f32]) -> Option<usize> {
    (0..log_probs.len()).reduce(|best, m| if log_probs[m] > log_probs[best] { m } else { best })
}

/// Recognises a batch and drops the context.
fn encode(encoding: &Encoding<'_>, slot: Option<usize>, batch: Vec<Features>) -> Vec<Core> {
    let Recognition { log_probs, vocab, experts, .. } = encoding.recognize(&batch.iter().collect::<Vec<_>>(), slot);
    let cores = batch.iter().zip(log_probs).zip(experts).map(|((window, mut log_probs), mut experts)| {
        let steps = log_probs.len() / vocab;
        let end = if window.last { steps } else { (window.core.end / encoding.step_samples).min(steps) };
        let start = (window.core.start / encoding.step_samples).min(end);
        log_probs.truncate(end * vocab);
        log_probs.drain(..start * vocab);
        for layer in &mut experts {
            layer.truncate(end);
            layer.drain(..start);
        }
        Core { recording: window.recording, position: window.position, log_probs, experts, last: window.last }
    });
    cores.collect()
}

/// Decodes what is complete, in the order of the recording.
fn join<T>(partial: &mut Partial<T>, decode: &mut impl FnMut(&Stretch) -> T) {
    while let Some(core) = partial.order.front().and_then(|position| partial.waiting.remove(position)) {
        partial.order.pop_front();
        let ready = partial.region.step(&core.log_probs, &core.experts, core.position);
        let rest = if core.last { partial.region.flush() } else { None };
        for stretch in ready.into_iter().chain(rest) {
            partial.heard.push(decode(&stretch));
        }
    }
}
