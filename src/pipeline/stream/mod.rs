//! Speech to words while it is spoken.
//!
//! ```text
//! samples at any rate -> resampler -> log-mel -> running mean -> encoder, chunk by chunk -> decoder -> words: partial, final -> endpoints
//! |------------------------- acoustic -------------------------------------------------|  |---- utterance -----|            |- endpoint -|
//! ```
//!
//! A stream and [`Transcriber::with_stream_context`] hear the same. At a pause a stream begins anew: its model was trained on utterances, and a
//! running mean over hours of silence is none that it knows.

mod acoustic;
mod endpoint;
mod stability;
mod utterance;

pub use endpoint::{Endpointing, Rule, Spoken};
pub use stability::Stability;

use std::sync::PoisonError;

use serde::Serialize;

use crate::error::Result;
use crate::pipeline::context::chunk_of;
use crate::pipeline::transcriber::Transcriber;
use crate::pipeline::transcript::{Word, to_thousandths};
use crate::units::SampleRate;
use acoustic::Acoustic;
use utterance::Utterance;

/// Something that a stream says. Times are seconds of audio since its start.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// The words after the last final one, as they look now; they may change. Told anew after every final, unless there are none.
    Partial {
        /// Number of the utterance, from 0.
        segment: usize,
        /// The words, a space between them.
        text: String,
        /// The same with times and confidences.
        words: Vec<Word>,
        /// Audio taken in so far.
        #[serde(serialize_with = "to_thousandths")]
        heard: f64,
    },
    /// Words that will not change.
    Final {
        /// Number of the utterance, from 0.
        segment: usize,
        /// The words, a space between them.
        text: String,
        /// The same with times and confidences.
        words: Vec<Word>,
        /// Audio taken in so far.
        #[serde(serialize_with = "to_thousandths")]
        heard: f64,
    },
    /// An utterance in which something was said is over; all its words are final.
    Endpoint {
        /// Number of the utterance, from 0.
        segment: usize,
        /// What ended it.
        rule: Rule,
        /// Start of its first word.
        #[serde(serialize_with = "to_thousandths")]
        start: f64,
        /// End of its last word.
        #[serde(serialize_with = "to_thousandths")]
        end: f64,
        /// All its words, a space between them.
        text: String,
        /// Mean confidence of its words.
        #[serde(serialize_with = "to_thousandths")]
        confidence: f64,
        /// Audio taken in so far.
        #[serde(serialize_with = "to_thousandths")]
        heard: f64,
    },
}

/// One stream of speech through a transcriber; many may share one.
pub struct SpeechStream<'a> {
    acoustic: Acoustic<'a>,
    utterance: Utterance<'a>,
    endpointing: Endpointing,
    rate: SampleRate,
    step_seconds: f64,
    /// Samples taken.
    taken: u64,
    segment: usize,
    /// Final words of the utterance.
    said: Vec<Word>,
    /// Partial words as they were last shown.
    shown: Vec<String>,
    /// Whether words became final since partial ones were told.
    stale: bool,
    stability: Stability,
}

impl<'a> SpeechStream<'a> {
    fn new(acoustic: Acoustic<'a>, utterance: Utterance<'a>, endpointing: Endpointing, rate: SampleRate, step_seconds: f64) -> Self {
        let (said, shown, stale, stability) = (Vec::new(), Vec::new(), false, Stability::default());
        Self { acoustic, utterance, endpointing, rate, step_seconds, taken: 0, segment: 0, said, shown, stale, stability }
    }

    /// Takes in samples in [-1, 1] and appends what they give rise to.
    pub fn step(&mut self, samples: &[f32], events: &mut Vec<Event>) {
        self.taken += samples.len() as u64;
        self.acoustic.step(samples);
        self.hear(events);
    }

    /// Ends the audio: everything becomes final; the next samples start another stream.
    pub fn flush(&mut self, events: &mut Vec<Event>) {
        self.acoustic.finish();
        self.hear(events);
        if let Some(log_probs) = self.acoustic.flush() {
            let new = self.utterance.step(&log_probs);
            self.finals(new, events);
        }
        self.end(Rule::End, events);
        self.reset();
    }

    /// Forgets the stream; the counts of [`Self::stability`] stay.
    pub fn reset(&mut self) {
        self.acoustic.reset();
        self.utterance.reset();
        self.said.clear();
        self.shown.clear();
        (self.taken, self.segment, self.stale) = (0, 0, false);
    }

    /// Seconds from the start of a step of the encoder until it is decoded, at most, where computing takes no time.
    pub fn delay(&self) -> f64 {
        self.acoustic.delay()
    }

    /// Seconds after the end of a word until it is final at the latest, where another word follows or the utterance ends.
    pub fn final_delay(&self) -> f64 {
        self.delay() + self.endpointing.longest.min(self.utterance.delay() as f64 * self.step_seconds)
    }

    /// How restless partial words were so far.
    pub fn stability(&self) -> Stability {
        self.stability
    }

    /// Seconds of audio taken in.
    pub fn heard(&self) -> f64 {
        self.taken as f64 / f64::from(self.rate.0)
    }

    fn hear(&mut self, events: &mut Vec<Event>) {
        while let Some(log_probs) = self.acoustic.next_chunk() {
            let new = self.utterance.step(&log_probs);
            self.finals(new, events);
            let (length, trailing) = self.utterance.steps();
            let spoken = if self.utterance.is_spoken() { Spoken::Something } else { Spoken::Nothing };
            let seconds = |steps: usize| steps as f64 * self.step_seconds;
            match self.endpointing.rule(seconds(length), seconds(trailing), spoken) {
                Some(rule) => self.end(rule, events),
                None => self.partial(events),
            }
        }
    }

    /// Words became final.
    fn finals(&mut self, new: Vec<Word>, events: &mut Vec<Event>) {
        if new.is_empty() {
            return;
        }
        let texts: Vec<&str> = new.iter().map(|w| w.word.as_str()).collect();
        let place = self.shown.len().min(texts.len());
        self.stability.compare(&self.shown[..place], &texts);
        self.stability.final_words += new.len();
        self.shown.drain(..place);
        self.stale = true;
        events.push(Event::Final { segment: self.segment, text: texts.join(" "), words: new.clone(), heard: self.heard() });
        self.said.extend(new);
    }

    /// Shows the words that are not final, if they have changed.
    fn partial(&mut self, events: &mut Vec<Event>) {
        let words = self.utterance.open();
        let texts: Vec<&str> = words.iter().map(|w| w.word.as_str()).collect();
        let stale = std::mem::take(&mut self.stale) && !texts.is_empty();
        if texts == self.shown && !stale {
            return;
        }
        self.stability.compare(&self.shown, &texts);
        events.push(Event::Partial { segment: self.segment, text: texts.join(" "), words: words.to_vec(), heard: self.heard() });
        self.shown = texts.into_iter().map(String::from).collect();
    }

    /// The utterance is over by `rule`.
    fn end(&mut self, rule: Rule, events: &mut Vec<Event>) {
        let rest = if rule == Rule::Length { self.utterance.cut() } else { self.utterance.flush() };
        self.finals(rest, events);
        if let (Some(first), Some(last)) = (self.said.first(), self.said.last()) {
            events.push(Event::Endpoint {
                segment: self.segment,
                rule,
                start: first.start,
                end: last.end,
                text: self.said.iter().map(|w| w.word.as_str()).collect::<Vec<_>>().join(" "),
                confidence: self.said.iter().map(|w| w.confidence).sum::<f64>() / self.said.len() as f64,
                heard: self.heard(),
            });
            self.segment += 1;
            self.said.clear();
        }
        match rule {
            // The word that is being said goes on.
            Rule::Length => self.partial(events),
            Rule::Silence | Rule::Pause | Rule::End => {
                self.stability.compare(&self.shown, &[]);
                self.shown.clear();
                self.acoustic.restart();
            }
        }
    }
}

impl Transcriber {
    /// A stream of speech at `rate`, heard in chunks of `chunk_ms` milliseconds and decoded as this transcriber decodes. How words are written
    /// ([`Self::with_writing`]) is left to those who have whole sentences.
    ///
    /// # Errors
    /// As [`chunk_of`]; [`Error::Config`](crate::Error::Config) for rules or features that do not suit a stream, or where the module is to be
    /// identified ([`Self::with_identification`]).
    pub fn stream(&self, rate: SampleRate, chunk_ms: u32, endpointing: Endpointing) -> Result<SpeechStream<'_>> {
        endpointing.validate()?;
        self.knows_module()?;
        let (model, front_end) = self.spectral()?;
        let chunk = chunk_of(model.encoder.config(), self.step_samples, chunk_ms)?;
        let acoustic = Acoustic::new(model, front_end, rate, chunk, &self.arithmetic)?;
        // A search of its own, whatever state the transcriber's is in; both share what is large.
        let decoder = self.decoder.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let utterance = Utterance::new(&self.tokenizer, self.lexicon.clone(), decoder, self.step_samples);
        let step_seconds = SampleRate::HZ_16000.seconds(self.step_samples);
        Ok(SpeechStream::new(acoustic, utterance, endpointing, rate, step_seconds))
    }
}
