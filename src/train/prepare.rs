//! What a run is made of before its first step: speech, tokenizer, front end, plan of batches, the weights it starts from.

use std::path::Path;

use crate::checkpoint::ModelDirectory;
use crate::checkpoint::safetensors_file::write_atomically;
use crate::checkpoint::weights::{self, Fault, Source};
use crate::dataset::bucket::{Item, ctc_steps};
use crate::dataset::corpus::Utterance;
use crate::dataset::{Clip, Planner, SourceConfig};
use crate::error::{Error, Result};
use crate::features::{FrontEnd, FrontEndConfig, Normalization};
use crate::model::asr::{AsrModel, is_of_languages};
use crate::text::Tokenizer;
use crate::train::batch::{Speech, feature_statistics, log};
use crate::train::config::{RunConfig, TokenizerConfig};
use crate::train::evaluate::Dev;
use crate::train::languages;

/// Utterances whose features give the mean and deviation of the mel bands.
const STATISTICS_CLIPS: usize = 500;

/// Tokenizer and front end: of the model a run starts from, or made from the training set and kept in the run folder.
pub(super) fn prepare_model_parts(config: &RunConfig, speech: &Speech) -> Result<(Tokenizer, FrontEndConfig)> {
    if let Some(init) = &config.init {
        let start = ModelDirectory::open(init)?;
        return Ok((start.tokenizer, start.config.front_end));
    }
    let kept = config.output.join("tokenizer.json");
    let tokenizer = if kept.exists() {
        Tokenizer::load(&kept)?
    } else {
        let texts: Vec<String> = speech.corpus.utterances.iter().filter_map(|u| config.data.text.target(&u.entry.text)).collect();
        let tokenizer = match config.tokenizer {
            TokenizerConfig::Characters => Tokenizer::train_characters(&texts)?,
            TokenizerConfig::Bpe { vocab_size } => Tokenizer::train_bpe(texts, vocab_size)?,
        };
        tokenizer.save(&kept)?;
        tokenizer
    };
    let kept = config.output.join("front_end.json");
    let front_end = if kept.exists() {
        let text = std::fs::read_to_string(&kept).map_err(|e| Error::io(&kept, e))?;
        serde_json::from_str(&text).map_err(|e| Error::config(&kept, e.to_string()))?
    } else {
        let raw = FrontEnd::new(FrontEndConfig::omniscribe(config.encoder.mels, Normalization::None))?;
        let (mean, std) = feature_statistics(speech, &raw, STATISTICS_CLIPS)?;
        let weight = config.front_end.utterance_mean;
        let made = FrontEndConfig::omniscribe(config.encoder.mels, Normalization::Blend { weight, mean, std });
        let json = serde_json::to_string(&made).map_err(|e| Error::config(&kept, e.to_string()))?;
        write_atomically(&kept, json.as_bytes())?;
        made
    };
    Ok((tokenizer, front_end))
}

/// The utterances of the training manifests.
pub(super) fn load_speech(config: &RunConfig) -> Result<Speech> {
    Speech::load(&config.data.train, &config.data.filter, config.data.text, &config.data.cache, &mut decode_progress)
}

/// `model` with the weights of `start`; what languages add to it stays as it is where `start` has no languages.
pub(super) fn start_from(start: &ModelDirectory, model: AsrModel) -> Result<AsrModel> {
    struct Base<'a>(Box<dyn Source + 'a>);
    impl Source for Base<'_> {
        fn take(&self, name: &str, shape: &[usize]) -> std::result::Result<Vec<f32>, Fault> {
            self.0.take(name, shape)
        }
        fn unused(&self) -> Vec<String> {
            self.0.unused()
        }
        fn leaves(&self, name: &str) -> bool {
            self.0.leaves(name) || is_of_languages(name)
        }
    }
    if start.config.encoder.languages.is_some() || model.encoder.config().languages.is_none() {
        return start.weights.fill(model);
    }
    weights::fill(model, &Base(start.weights.source()), start.weights.file.path())
}

/// The plan of batches.
pub(super) fn planner(config: &RunConfig, speech: &Speech, targets: &[Vec<u32>], front_end: &FrontEnd) -> Result<Planner> {
    let groups = languages::slots(&speech.corpus, config.encoder.languages.as_ref())?;
    let items = speech.clips.iter().zip(targets).zip(&speech.corpus.utterances).zip(groups);
    let item = |(((clip, target), u), group): (((&Clip, &Vec<u32>), &Utterance), usize)| Item {
        samples: clip.samples.len(),
        min_steps: ctc_steps(target),
        weight: u.weight,
        group,
    };
    let (frames, subsampling) = (front_end.clone(), config.encoder.subsampling.clone());
    let planner = Planner::new(
        config.batches.clone(),
        config.augment.speed.clone(),
        config.seed,
        items.map(item).collect(),
        move |samples| frames.num_frames(samples),
        move |frames| subsampling.output_len(frames),
    )?;
    log(format_args!("{} utterances have more tokens than steps and are left out", planner.unalignable().len()));
    Ok(planner)
}

/// The utterances that WER is measured on; `None` without.
pub(super) fn load_dev(config: &RunConfig) -> Result<Option<Dev>> {
    if config.data.dev.is_empty() {
        return Ok(None);
    }
    let sources: Vec<_> =
        config.data.dev.iter().map(|p| SourceConfig { path: p.clone(), weight: 1.0, set_weights: Default::default() }).collect();
    let filter = crate::dataset::FilterConfig { min_duration: 0.0, max_duration: 120.0, keep_empty_text: false };
    let mut cache = config.data.cache.clone().into_os_string();
    cache.push(".dev");
    let speech = Speech::load(&sources, &filter, config.data.text, Path::new(&cache), &mut decode_progress)?;
    Ok(Some(Dev { speech, groups: config.data.dev_groups.clone() }))
}

fn decode_progress(p: crate::dataset::Progress) {
    if p.done.is_multiple_of(500) || p.done == p.total {
        log(format_args!("decoding audio: {} of {}, {} failed, {:.2} h", p.done, p.total, p.failed, p.seconds / 3600.0));
    }
}
