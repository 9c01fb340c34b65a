//! The consuming half: windows of like length go through the encoder together, and each recording is put together again in its own order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use burn::tensor::Device;

use crate::error::Result;
use crate::kernel::gemm::Precision;
use crate::model::asr::AsrModel;
use crate::pipeline::batch::{Recognition, recognize};
use crate::pipeline::feed::{Ending, Features, Item, Listened};
use crate::pipeline::region::{Region, Stretch};

/// Batches' worth of frames that are gathered before the windows are sorted by length.
const POOLED_BATCHES: usize = 4;

/// The model and how it is run.
#[derive(Debug, Clone, Copy)]
pub struct Encoding<'a> {
    /// The recogniser.
    pub model: &'a AsrModel,
    /// Where.
    pub device: &'a Device,
    /// Of matrix products on the CPU.
    pub precision: Precision,
    /// Most feature frames in a batch, padding included; a longer window goes alone.
    pub batch_frames: usize,
    /// Samples per step.
    pub step_samples: usize,
    /// The blank token.
    pub blank: u32,
}

/// Where the time went, seconds of wall clock on the consuming side.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spent {
    /// Encoder and CTC head.
    pub encoder: Duration,
    /// Search for the hypothesis.
    pub decoder: Duration,
    /// Start to the first hypothesis.
    pub first: Option<Duration>,
}

/// A recording as far as it is recognised.
#[derive(Debug)]
struct Partial<T> {
    region: Region,
    /// Cores by position, waiting for an earlier one: `(log_probs, last)`.
    waiting: BTreeMap<usize, (Vec<f32>, bool)>,
    /// Positions handed to the encoder, in order, not yet joined.
    order: VecDeque<usize>,
    heard: Vec<T>,
    ending: Option<Result<Listened>>,
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
        pool.sort_by_key(|window| std::cmp::Reverse(window.features.frames));
        for batch in batches(pool, encoding.batch_frames) {
            let began = Instant::now();
            let seconds = batch.iter().map(|w| w.core.len() as f64).sum::<f64>() / 16_000.0;
            for (recording, position, log_probs, last) in encode(encoding, batch) {
                let partial = open.entry(recording).or_insert_with(partial);
                partial.waiting.insert(position, (log_probs, last));
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
            let Some(Partial { heard, ending: Some(ending), .. }) = open.remove(&recording) else { continue };
            done(recording, ending.map(|listened| (listened, heard)));
        }
    }
    spent
}

/// Neighbours in length, at most `frames` with the padding.
fn batches(sorted: Vec<Features>, frames: usize) -> Vec<Vec<Features>> {
    let mut batches: Vec<Vec<Features>> = Vec::new();
    for window in sorted {
        match batches.last_mut() {
            // The first of a batch is its longest.
            Some(batch) if (batch.len() + 1) * batch[0].features.frames <= frames => batch.push(window),
            _ => batches.push(vec![window]),
        }
    }
    batches
}

/// Log-probabilities of the cores: `(recording, position, log_probs, last)`.
fn encode(encoding: &Encoding<'_>, batch: Vec<Features>) -> Vec<(usize, usize, Vec<f32>, bool)> {
    let features: Vec<_> = batch.iter().map(|window| &window.features).collect();
    let Recognition { log_probs, vocab } = recognize(encoding.model, &features, encoding.precision, encoding.device);
    let core = |(window, mut log_probs): (&Features, Vec<f32>)| {
        if !window.last {
            log_probs.truncate(window.core.end / encoding.step_samples * vocab);
        }
        let context = (window.core.start / encoding.step_samples * vocab).min(log_probs.len());
        log_probs.drain(..context);
        (window.recording, window.position, log_probs, window.last)
    };
    batch.iter().zip(log_probs).map(core).collect()
}

/// Decodes what is complete, in the order of the recording.
fn join<T>(partial: &mut Partial<T>, decode: &mut impl FnMut(&Stretch) -> T) {
    while let Some((log_probs, last)) = partial.order.front().and_then(|position| partial.waiting.remove(position)) {
        let position = partial.order.pop_front().unwrap_or_default();
        let ready = partial.region.step(&log_probs, position);
        let rest = if last { partial.region.flush() } else { None };
        for stretch in ready.into_iter().chain(rest) {
            partial.heard.push(decode(&stretch));
        }
    }
}
