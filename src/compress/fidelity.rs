//! How near a changed model stays to the one it was made from, on speech.

use serde::{Deserialize, Serialize};

use crate::audio::{Channels, Limits};
use crate::error::Result;
use crate::eval::bench::segments::{Segment, by_file, listen};
use crate::eval::corpora::Utterance;
use crate::eval::{Scoring, WordErrors};
use crate::pipeline::transcriber::Transcriber;

/// What a model made of one utterance.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Heard {
    /// Its words.
    pub text: String,
    /// Expert of every step, `[MoE layers][steps]`.
    pub experts: Vec<Vec<u16>>,
}

/// Two models on the same utterances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fidelity {
    /// Utterances.
    pub utterances: usize,
    /// Steps of the encoder in them.
    pub steps: usize,
    /// Errors of the model as it was.
    pub original: WordErrors,
    /// Errors of the changed one.
    pub changed: WordErrors,
    /// Share of utterances with the same text.
    pub same_text: f64,
    /// Share of steps that go to the same expert, in each MoE layer.
    pub agreement: Vec<f64>,
}

/// Every utterance through a model; an error is of the first that cannot be read.
///
/// # Errors
/// As [`Transcriber::transcribe`].
pub fn hear(transcriber: &Transcriber, utterances: &[Utterance]) -> Result<Vec<Heard>> {
    let segment = |(number, u): (usize, &Utterance)| Segment {
        number,
        audio: u.audio.clone(),
        channels: Channels::from(u.channel),
        start: u.start,
        end: u.end,
    };
    let files = by_file(utterances.iter().enumerate().map(segment).collect());
    let (chunker, limits) = (transcriber.chunker(), Limits::default());
    let mut all = vec![Heard::default(); utterances.len()];
    let mut failure = None;
    transcriber.run(
        |feed| {
            // The consumer stops only when this ends.
            let _ = files.iter().try_for_each(|file| listen(file, &chunker, &limits, feed));
        },
        |stretch| {
            let tokens = transcriber.hypothesis(stretch).tokens;
            Heard { text: transcriber.tokenizer().decode(&tokens), experts: stretch.experts.clone() }
        },
        |number, outcome| match outcome {
            Ok((_, stretches)) => all[number] = joined(stretches),
            Err(error) => {
                failure.get_or_insert(error);
            }
        },
        |_| (),
    );
    failure.map_or(Ok(all), Err)
}

/// Stretches of one utterance, one after the other.
fn joined(stretches: Vec<Heard>) -> Heard {
    let mut whole = Heard::default();
    for Heard { text, experts } in stretches {
        if !text.is_empty() {
            whole.text += if whole.text.is_empty() { "" } else { " " };
            whole.text += &text;
        }
        whole.experts.resize(experts.len(), Vec::new());
        whole.experts.iter_mut().zip(experts).for_each(|(all, new)| all.extend(new));
    }
    whole
}

/// Compares what two models made of the same utterances.
///
/// # Errors
/// [`crate::Error::LimitExceeded`] of the aligner.
pub fn compare(utterances: &[Utterance], original: &[Heard], changed: &[Heard], scoring: &Scoring) -> Result<Fidelity> {
    let errors = |heard: &[Heard]| {
        let mut sum = WordErrors::default();
        for (utterance, heard) in utterances.iter().zip(heard) {
            sum += scoring.score(&utterance.reference, &heard.text)?.words;
        }
        Ok::<_, crate::error::Error>(sum)
    };
    let layers = original.iter().map(|h| h.experts.len()).max().unwrap_or(0);
    let (mut same, mut steps) = (vec![0usize; layers], 0);
    for (a, b) in original.iter().zip(changed) {
        steps += a.experts.first().map_or(0, Vec::len);
        for (same, (a, b)) in same.iter_mut().zip(a.experts.iter().zip(&b.experts)) {
            *same += a.iter().zip(b).filter(|(a, b)| a == b).count();
        }
    }
    let equal = original.iter().zip(changed).filter(|(a, b)| a.text == b.text).count();
    Ok(Fidelity {
        utterances: utterances.len(),
        steps,
        original: errors(original)?,
        changed: errors(changed)?,
        same_text: equal as f64 / utterances.len().max(1) as f64,
        agreement: same.into_iter().map(|n| n as f64 / steps.max(1) as f64).collect(),
    })
}

impl Fidelity {
    /// [`Self::agreement`] averaged over layers; 1 without MoE layers.
    pub fn mean_agreement(&self) -> f64 {
        if self.agreement.is_empty() { 1.0 } else { self.agreement.iter().sum::<f64>() / self.agreement.len() as f64 }
    }
}
