//! The weights of a language model that suit a recogniser: log-probabilities are computed once, then decoded with one pair of weights after the
//! other.

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::audio::{Channels, Limits};
use crate::decode::beam::BeamConfig;
use crate::decode::fusion::{LanguageModel, Scorers};
use crate::error::{Error, Result};
use crate::eval::bench::segments::{Segment, by_file, listen};
use crate::eval::corpora::Corpus;
use crate::eval::glm::Side;
use crate::eval::{Scoring, WordErrors};
use crate::pipeline::decoder::{Decoder, Decoding};
use crate::pipeline::region::Stretch;
use crate::pipeline::transcriber::Transcriber;
use crate::text::Tokenizer;

/// The first grid; then the best point's neighbours are tried at half the distance, [`REFINEMENTS`] times.
const ALPHAS: [f32; 4] = [0.25, 0.5, 0.75, 1.0];
/// See [`ALPHAS`].
const BETAS: [f32; 4] = [-0.5, 0.75, 2.0, 3.25];
/// See [`ALPHAS`].
const REFINEMENTS: usize = 2;

/// What the model heard of one utterance.
#[derive(Debug, Clone)]
pub struct Emissions {
    /// Set it counts in.
    pub set: String,
    /// Reference, normalised.
    pub reference: String,
    /// Log-probabilities, region after region.
    pub stretches: Vec<Stretch>,
}

/// Errors of every set.
pub type SetErrors = BTreeMap<String, WordErrors>;

/// A pair of weights and what it gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// Weight of the language model.
    pub alpha: f32,
    /// Bonus of a word.
    pub beta: f32,
    /// Errors of every set.
    pub errors: SetErrors,
}

impl Trial {
    /// Unweighted mean of the sets' word error rates: what is minimised.
    pub fn mean_wer(&self) -> f64 {
        mean_wer(&self.errors)
    }
}

/// Unweighted mean of word error rates; 0 of no sets.
pub fn mean_wer(errors: &SetErrors) -> f64 {
    errors.values().map(WordErrors::wer).sum::<f64>() / errors.len().max(1) as f64
}

/// Runs the encoder over test sets.
///
/// # Errors
/// The first file that cannot be read.
pub fn emissions(
    transcriber: &Transcriber,
    corpora: &[(String, Corpus)],
    scoring: &Scoring,
    progress: impl FnMut(f64),
) -> Result<Vec<Emissions>> {
    let utterances: Vec<_> = corpora.iter().flat_map(|(set, corpus)| corpus.utterances.iter().map(move |u| (set, u))).collect();
    let segments = utterances.iter().enumerate().map(|(number, (_, u))| Segment {
        number,
        audio: u.audio.clone(),
        channels: Channels::from(u.channel),
        start: u.start,
        end: u.end,
    });
    let files = by_file(segments.collect());
    let (chunker, limits) = (transcriber.chunker(), Limits::default());
    let (mut all, mut failure) = (Vec::new(), None);
    transcriber.run(
        |feed| {
            // The consumer stops only when this ends.
            let _ = files.iter().try_for_each(|file| listen(file, &chunker, &limits, feed));
        },
        Stretch::clone,
        |number, outcome| match outcome {
            Ok((_, stretches)) => {
                let (set, utterance) = utterances[number];
                let reference = scoring.normalize(&utterance.reference, Side::Reference);
                all.push(Emissions { set: set.clone(), reference, stretches });
            }
            Err(error) => failure = failure.take().or(Some(error)),
        },
        progress,
    );
    failure.map_or(Ok(all), Err)
}

/// Decodes all utterances, in parallel.
///
/// # Errors
/// As [`Decoder::new`] and [`Scoring::score_normalized`].
pub fn errors(emissions: &[Emissions], tokenizer: &Tokenizer, decoding: &Decoding, scoring: &Scoring) -> Result<SetErrors> {
    let decoder = Decoder::new(tokenizer, decoding)?;
    let scored: Vec<(&str, WordErrors)> = emissions
        .par_iter()
        .map_init(
            || decoder.clone(),
            |decoder, utterance| {
                let texts: Vec<String> = utterance.stretches.iter().map(|s| tokenizer.decode(&decoder.decode(s).tokens)).collect();
                let hypothesis = scoring.normalize(&texts.join(" "), Side::Hypothesis);
                let score = scoring.score_normalized(utterance.reference.clone(), hypothesis)?;
                Ok((utterance.set.as_str(), score.words))
            },
        )
        .collect::<Result<_>>()?;
    let mut errors = SetErrors::new();
    for (set, words) in scored {
        *errors.entry(set.into()).or_default() += words;
    }
    Ok(errors)
}

/// Finds the weights with the lowest mean error rate; `tried` hears of every trial.
///
/// # Errors
/// As [`errors`]; [`Error::Config`] without an utterance.
pub fn search(
    emissions: &[Emissions],
    tokenizer: &Tokenizer,
    model: &LanguageModel,
    config: &BeamConfig,
    scoring: &Scoring,
    mut tried: impl FnMut(&Trial),
) -> Result<Trial> {
    let mut trials: Vec<Trial> = Vec::new();
    let mut attempt = |alpha: f32, beta: f32, trials: &mut Vec<Trial>| -> Result<()> {
        if alpha < 0.0 || trials.iter().any(|t| t.alpha == alpha && t.beta == beta) {
            return Ok(());
        }
        let weights = LanguageModel { alpha, beta, ..model.clone() };
        let decoding = Decoding::Beam { config: config.clone(), scorers: Scorers { language_model: Some(weights), ..Scorers::default() } };
        let trial = Trial { alpha, beta, errors: errors(emissions, tokenizer, &decoding, scoring)? };
        tried(&trial);
        trials.push(trial);
        Ok(())
    };
    for alpha in ALPHAS {
        for beta in BETAS {
            attempt(alpha, beta, &mut trials)?;
        }
    }
    let (mut da, mut db) = (ALPHAS[1] - ALPHAS[0], BETAS[1] - BETAS[0]);
    let best = |trials: &[Trial]| trials.iter().min_by(|a, b| a.mean_wer().total_cmp(&b.mean_wer())).cloned();
    for _ in 0..REFINEMENTS {
        (da, db) = (da / 2.0, db / 2.0);
        let Some(Trial { alpha, beta, .. }) = best(&trials) else { break };
        for (a, b) in [(-da, 0.0), (da, 0.0), (0.0, -db), (0.0, db), (-da, -db), (da, db)] {
            attempt(alpha + a, beta + b, &mut trials)?;
        }
    }
    best(&trials).filter(|_| !emissions.is_empty()).ok_or_else(|| Error::config("lm tune", "no utterance to tune on"))
}
