//! WER on the dev manifests while training: greedy decoding, Whisper's English normaliser.

use std::collections::BTreeMap;

use burn::tensor::Device;

use crate::decode::ctc::greedy;
use crate::error::Result;
use crate::eval::{WordErrors, wer};
use crate::features::FrontEnd;
use crate::kernel::gemm::Precision;
use crate::model::asr::AsrModel;
use crate::model::pass::Pass;
use crate::pipeline::batch::{Recognition, recognize};
use crate::text::{Normalizer, Tokenizer};
use crate::train::batch::Speech;

/// Word errors of each set and of all together.
pub type DevErrors = BTreeMap<String, WordErrors>;

/// A dev set and how its parts are named in the report.
#[derive(Debug)]
pub struct Dev {
    /// The utterances.
    pub speech: Speech,
    /// New name and prefixes of the sets it joins.
    pub groups: BTreeMap<String, Vec<String>>,
}

/// Under which name a set is reported; `groups` has new names and the prefixes of the sets that each joins.
pub fn group(groups: &BTreeMap<String, Vec<String>>, set: &str) -> String {
    let joined = groups.iter().find(|(_, prefixes)| prefixes.iter().any(|p| set.starts_with(p.as_str())));
    joined.map_or_else(|| set.to_string(), |(name, _)| name.clone())
}

impl Dev {
    /// Recognises everything, longest first, and counts word errors by set.
    ///
    /// # Errors
    /// Whatever reading audio gives.
    pub fn evaluate(
        &self,
        model: &AsrModel,
        tokenizer: &Tokenizer,
        front_end: &FrontEnd,
        precision: Precision,
        device: &Device,
    ) -> Result<DevErrors> {
        let mut order: Vec<usize> = (0..self.speech.clips.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(self.speech.clips[i].samples.len()));
        let mut errors = DevErrors::new();
        let mut samples = Vec::new();
        for chunk in order.chunks(16) {
            let mut features = Vec::with_capacity(chunk.len());
            for &i in chunk {
                self.speech.read(i, &mut samples)?;
                let mut utterance = front_end.compute(&samples);
                utterance.truncate(front_end.valid_frames(samples.len()));
                features.push(utterance);
            }
            let Recognition { log_probs, vocab, .. } = recognize(model, &features, &Pass::inference(precision), device);
            for (&i, log_probs) in chunk.iter().zip(&log_probs) {
                let hypothesis = tokenizer.decode(&greedy(log_probs, log_probs.len() / vocab, vocab, tokenizer.blank()).tokens);
                let entry = &self.speech.corpus.utterances[i].entry;
                let reference = Normalizer::Whisper.normalize(&entry.text);
                if reference.trim().is_empty() {
                    continue;
                }
                let counted = wer::word_errors(&reference, &Normalizer::Whisper.normalize(&hypothesis));
                *errors.entry(group(&self.groups, &entry.set)).or_default() += counted;
            }
        }
        Ok(errors)
    }
}
