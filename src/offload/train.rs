//! Distillation: a predictor learns from what the model's own routers say on recordings.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::audio::{self, Limits};
use crate::checkpoint::ModelDirectory;
use crate::error::{Error, Result};
use crate::features::FrontEnd;
use crate::kernel::adamw::{AdamW, State};
use crate::kernel::gemm::Precision;
use crate::kernel::rng::SplitMix;
use crate::model::lengths::Lengths;
use crate::model::pass::Pass;
use crate::offload::loss::{MOST_EXPERTS, distill};
use crate::offload::predictor::{Predictor, affine, windows};
use crate::units::SampleRate;

/// A recording as its routers saw it.
#[derive(Debug, Clone, PartialEq)]
pub struct Lesson {
    /// What the first block reads, `[steps, d_model]`.
    pub x: Vec<f32>,
    /// Router logits, `[MoE layers][steps * experts]`.
    pub logits: Vec<Vec<f32>>,
}

/// How a predictor is trained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Times every step is seen.
    pub epochs: usize,
    /// Steps in a batch.
    pub batch: usize,
    /// Learning rate of the first step; it falls linearly to 0.
    pub lr: f32,
    /// Of weights and order.
    pub seed: u64,
}

/// How often guesses are right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Share of (step, layer) pairs whose expert the predictor names.
    pub predicted: f64,
    /// The same of naming the expert that the layer used most in training.
    pub majority: f64,
    /// The same of naming the expert that the routed layer below chose; the first one counts as missed.
    pub previous_layer: f64,
    /// Pairs.
    pub pairs: usize,
}

/// Longest recording that goes through the encoder in one piece, seconds.
const LONGEST_SECONDS: f64 = 30.0;

/// Runs the model on recordings and keeps what its first block read and its routers said. `progress` gets the seconds heard.
///
/// # Errors
/// Whatever reading audio gives; [`Error::Checkpoint`]
pub fn lessons(
    model: &ModelDirectory,
    recordings: &[impl AsRef<Path>],
    device: &Device,
    mut progress: impl FnMut(f64),
) -> Result<Vec<Lesson>> {
    let front_end = FrontEnd::new(model.config.front_end.clone())?;
    let network = model.model(device)?;
    let mut lessons = Vec::new();
    for path in recordings {
        let wave = audio::read_at(path.as_ref(), SampleRate::HZ_16000, &Limits::default())?;
        for samples in wave.samples.chunks(SampleRate::HZ_16000.samples(LONGEST_SECONDS)) {
            let mut features = front_end.compute(samples);
            features.truncate(front_end.valid_frames(samples.len()));
            if features.frames == 0 {
                continue;
            }
            let (frames, mels) = (features.frames, features.mels);
            let input = Tensor::<3>::from_data(TensorData::new(features.values, [1, frames, mels]), device);
            let (lengths, pass) = (Lengths::full(1, frames), Pass::inference(Precision::F32));
            let encoder = &network.encoder;
            let x = encoder.subsampling.forward(input.clone(), &lengths, &pass);
            let steps = lengths.map(|n| encoder.config().subsampling.output_len(n));
            let x = encoder.placed(x, &steps, 0, &pass);
            let output = network.forward(input, &lengths, &pass);
            let host = |t: burn::tensor::Tensor<2>| t.into_data().try_to_vec::<f32>().expect("router logits are f32");
            let x = x.into_data().try_to_vec::<f32>().expect("states are f32");
            lessons.push(Lesson { x, logits: output.routed.into_iter().flatten().map(|r| host(r.routing.logits)).collect() });
            progress(SampleRate::HZ_16000.seconds(samples.len()));
        }
    }
    if lessons.is_empty() {
        return Err(Error::config("offload train", "no recording has anything to hear"));
    }
    Ok(lessons)
}

/// Trains `predictor`; gives the mean loss of every epoch.
///
/// # Panics
/// If lessons are of another model than the predictor: a bug of the caller.
pub fn train(predictor: &mut Predictor, lessons: &[Lesson], schedule: &Schedule) -> Vec<f64> {
    let shape = predictor.shape.clone();
    let (window, experts) = (shape.context * shape.d_model, shape.experts);
    let inputs: Vec<f32> = lessons.iter().flat_map(|l| windows(&l.x, shape.d_model, shape.context)).collect();
    let teachers: Vec<Vec<f32>> =
        (0..shape.layers.len()).map(|i| lessons.iter().flat_map(|l| l.logits[i].iter().copied()).collect()).collect();
    let steps = inputs.len() / window;
    let mut order: Vec<usize> = (0..steps).collect();
    let mut rng = SplitMix::new(schedule.seed);
    let mut moments = predictor.weights.clone().map(|w| (vec![0.0f32; w.len()], vec![0.0f32; w.len()]));
    let total = (schedule.epochs * steps.div_ceil(schedule.batch)).max(1);
    let (mut done, mut losses) = (0usize, Vec::new());
    for _ in 0..schedule.epochs {
        (1..steps).for_each(|i| order.swap(i, rng.next_u64() as usize % (i + 1)));
        let mut sum = 0.0;
        for batch in order.chunks(schedule.batch) {
            let x: Vec<f32> = batch.iter().flat_map(|&s| inputs[s * window..(s + 1) * window].iter().copied()).collect();
            let (hidden, logits) = predictor.forward(&x);
            let width = shape.guesses() * experts;
            let mut gradient = vec![0.0f32; logits.len()];
            let scale = 1.0 / (batch.len() * shape.layers.len()) as f32;
            for (row, &s) in batch.iter().enumerate() {
                for (i, teacher) in teachers.iter().enumerate() {
                    let at = row * width + shape.guess_of(i) * experts;
                    let told = distill(&logits[at..at + experts], &teacher[s * experts..(s + 1) * experts], MOST_EXPERTS);
                    sum += f64::from(told.loss) / (shape.layers.len() * steps) as f64;
                    gradient[at..at + experts].iter_mut().zip(&told.gradient).for_each(|(g, d)| *g += scale * d);
                }
            }
            let gradients = backward(predictor, &x, &hidden, &gradient);
            done += 1;
            let lr = schedule.lr * (1.0 - (done - 1) as f32 / total as f32);
            let rule = AdamW { lr, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, grad_scale: 1.0, step: done as u64 };
            for ((weights, gradient), (m, v)) in predictor.weights.iter_mut().zip(&gradients).zip(&mut moments) {
                rule.update(weights, gradient, State { m, v, average: None });
            }
        }
        losses.push(sum);
    }
    losses
}

/// Gradients of the weights from that of the logits.
fn backward(predictor: &Predictor, x: &[f32], hidden: &[f32], gradient: &[f32]) -> [Vec<f32>; 4] {
    let (width, inner) = (predictor.weights[3].len(), predictor.shape.hidden);
    let w2 = transposed(&predictor.weights[2], width);
    let mut back = affine(gradient, &w2, &vec![0.0; inner], width);
    back.iter_mut().zip(hidden).for_each(|(b, h)| *b = if *h > 0.0 { *b } else { 0.0 });
    let window = predictor.shape.context * predictor.shape.d_model;
    [outer(x, &back, window, inner), column_sums(&back, inner), outer(hidden, gradient, inner, width), column_sums(gradient, width)]
}

/// `a^T b`: `a` `[rows, n]`, `b` `[rows, m]`, returns `[n, m]`.
fn outer(a: &[f32], b: &[f32], n: usize, m: usize) -> Vec<f32> {
    let rows = a.len() / n;
    affine(&transposed(a, n), b, &vec![0.0; m], rows)
}

/// A row-major matrix of `columns` columns, transposed.
fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|c| values.iter().skip(c).step_by(columns).copied()).collect()
}

fn column_sums(values: &[f32], columns: usize) -> Vec<f32> {
    let mut sums = vec![0.0; columns];
    values.chunks_exact(columns).for_each(|row| sums.iter_mut().zip(row).for_each(|(s, v)| *s += v));
    sums
}

/// How often the predictor and two guesses without learning are right on `tests`; `taught` are the lessons the majority is taken from.
pub fn accuracy(predictor: &Predictor, taught: &[Lesson], tests: &[Lesson]) -> Accuracy {
    let (shape, experts) = (&predictor.shape, predictor.shape.experts);
    let best = |logits: &[f32]| (1..logits.len()).fold(0, |best, e| if logits[e] > logits[best] { e } else { best });
    let majority: Vec<usize> = (0..shape.layers.len())
        .map(|i| {
            let mut counts = vec![0.0f32; experts];
            taught.iter().flat_map(|l| l.logits[i].chunks_exact(experts)).for_each(|row| counts[best(row)] += 1.0);
            best(&counts)
        })
        .collect();
    let (mut hits, mut pairs) = ([0usize; 3], 0);
    for lesson in tests {
        let (_, logits) = predictor.forward(&windows(&lesson.x, shape.d_model, shape.context));
        let width = shape.guesses() * experts;
        for (step, guess) in logits.chunks_exact(width).enumerate() {
            let mut below = None;
            for (i, layer) in lesson.logits.iter().enumerate() {
                let right = best(&layer[step * experts..(step + 1) * experts]);
                let at = shape.guess_of(i) * experts;
                hits[0] += usize::from(best(&guess[at..at + experts]) == right);
                hits[1] += usize::from(majority[i] == right);
                hits[2] += usize::from(below == Some(right));
                below = Some(right);
                pairs += 1;
            }
        }
    }
    let share = |n: usize| n as f64 / pairs.max(1) as f64;
    Accuracy { predicted: share(hits[0]), majority: share(hits[1]), previous_layer: share(hits[2]), pairs }
}
