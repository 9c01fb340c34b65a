//! Samples at any rate to log-probabilities, chunk by chunk.

use crate::audio::Resampler;
use crate::error::{Error, Result};
use crate::features::{Framing, FrontEnd, FrontEndStream, LastFrame, Running};
use crate::model::arithmetic::Arithmetic;
use crate::model::asr::AsrModel;
use crate::model::pass::Chunk;
use crate::model::stream::AsrStream;
use crate::pipeline::batch::to_log_probs;
use crate::units::SampleRate;

/// Resampler, front end, running normalisation and encoder of one stream.
pub(super) struct Acoustic<'a> {
    model: &'a AsrModel,
    resampler: Resampler,
    front_end: FrontEndStream,
    running: Running,
    encoder: AsrStream,
    /// Values of the frames of a chunk.
    chunk_values: usize,
    hop: usize,
    samples: Vec<f32>,
    /// Frames before normalisation that wait for their chunk. They are normalised with it: a restart between two chunks then leaves nothing behind.
    frames: Vec<f32>,
}

impl<'a> Acoustic<'a> {
    /// A stream of samples at `rate`.
    ///
    /// # Errors
    /// As [`Resampler::new`] and [`AsrStream::new`]; [`Error::Config`] for features that need the whole utterance.
    pub fn new(model: &'a AsrModel, front_end: &FrontEnd, rate: SampleRate, chunk: Chunk, arithmetic: &Arithmetic) -> Result<Self> {
        let config = front_end.config();
        let running =
            config.normalization.running(config.mels).filter(|_| !matches!(config.framing, Framing::Centred { last: LastFrame::Mask, .. }));
        let running = running.ok_or_else(|| Error::config("stream", "the front end of this model needs whole utterances"))?;
        Ok(Self {
            model,
            resampler: Resampler::new(rate, SampleRate(config.sample_rate))?,
            front_end: FrontEndStream::new(front_end),
            running,
            encoder: AsrStream::new(model, chunk, arithmetic)?,
            chunk_values: chunk.steps * model.encoder.config().subsampling.factor() * config.mels,
            hop: config.hop,
            samples: Vec::new(),
            frames: Vec::new(),
        })
    }

    /// Takes in samples; [`Self::next_chunk`] has what comes of them.
    pub fn step(&mut self, samples: &[f32]) {
        self.resampler.step(samples, &mut self.samples);
        let new = self.front_end.step(&self.samples);
        self.samples.clear();
        self.frames.extend_from_slice(&new.values);
    }

    /// The log-probabilities of the next whole chunk, `[steps, vocab]`.
    pub fn next_chunk(&mut self) -> Option<Vec<f32>> {
        if self.frames.len() < self.chunk_values {
            return None;
        }
        let mut chunk: Vec<f32> = self.frames.drain(..self.chunk_values).collect();
        self.running.step(&mut chunk);
        self.encoder.step(self.model, &chunk).map(|output| to_log_probs(output.logits))
    }

    /// Says that there are no more samples: [`Self::next_chunk`] has whole chunks, then [`Self::flush`] the rest.
    pub fn finish(&mut self) {
        self.resampler.flush(&mut self.samples);
        let new = self.front_end.step(&self.samples);
        self.samples.clear();
        let last = self.front_end.flush();
        self.frames.extend_from_slice(&new.values);
        self.frames.extend_from_slice(&last.values);
    }

    /// The log-probabilities of the last steps, and starts the next stream.
    pub fn flush(&mut self) -> Option<Vec<f32>> {
        let mut rest = std::mem::take(&mut self.frames);
        self.running.step(&mut rest);
        let whole = self.encoder.step(self.model, &rest);
        let last = self.encoder.flush(self.model);
        self.reset();
        let log_probs: Vec<f32> = whole.into_iter().chain(last).flat_map(|output| to_log_probs(output.logits)).collect();
        (!log_probs.is_empty()).then_some(log_probs)
    }

    /// Begins anew with the next chunk, as after the silence between two recordings: the past is forgotten, time goes on.
    pub fn restart(&mut self) {
        self.running.reset();
        self.encoder.reset();
    }

    /// Forgets the stream.
    pub fn reset(&mut self) {
        self.restart();
        self.resampler.reset();
        self.front_end.reset();
        self.samples.clear();
        self.frames.clear();
    }

    /// Seconds after the start of a step until its log-probabilities are there, at most, with an encoder that takes no time.
    pub fn delay(&self) -> f64 {
        let rate = SampleRate::HZ_16000;
        rate.seconds(self.resampler.delay() + self.front_end.delay() + self.encoder.delay() * self.hop)
    }
}
