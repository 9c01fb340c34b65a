//! The training corpus: several manifests with weights and filters, and a report of what was kept and why the rest was not.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::augment::Clips;
use super::cache::PcmCache;
use super::manifest::{self, Entry, TextRule};
use super::refuse;
use crate::error::{Error, Result};
use crate::units::SampleRate;

/// One manifest of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// The manifest.
    pub path: PathBuf,
    /// How often each utterance comes in an epoch, on average; 0.5 is every other epoch.
    #[serde(default = "one")]
    pub weight: f64,
    /// Factors on `weight` by set name; 0 leaves the set out. Every name must occur in the manifest.
    #[serde(default)]
    pub set_weights: BTreeMap<String, f64>,
}

fn one() -> f64 {
    1.0
}

/// Which utterances are used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilterConfig {
    /// Shortest utterance, seconds.
    pub min_duration: f64,
    /// Longest utterance, seconds.
    pub max_duration: f64,
    /// Keep utterances with nothing said (all blank for CTC).
    pub keep_empty_text: bool,
}

impl Default for FilterConfig {
    fn default() -> Self {
        Self { min_duration: 0.1, max_duration: 20.0, keep_empty_text: false }
    }
}

impl FilterConfig {
    /// Refuses an empty range of durations.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn validate(&self) -> Result<()> {
        if !(self.min_duration >= 0.0 && self.min_duration.is_finite()) {
            return Err(refuse("min_duration", self.min_duration, "must be 0 seconds or more"));
        }
        if !(self.max_duration > self.min_duration && self.max_duration.is_finite()) {
            return Err(refuse("max_duration", self.max_duration, "must be over min_duration"));
        }
        Ok(())
    }
}

/// Why an utterance is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// Shorter than the filter allows.
    TooShort,
    /// Longer than the filter allows.
    TooLong,
    /// Its weight is 0.
    Excluded,
    /// No text (as published, or after the tokenizer's normalisation).
    EmptyText,
    /// Its audio could not be decoded.
    Unreadable,
    /// The file holds clearly less audio than the manifest promises.
    AudioTooShort,
    /// Fewer encoder steps than CTC needs for its tokens.
    Unalignable,
}

/// A stretch of a decoded file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clip {
    /// The audio file, as the cache knows it.
    pub audio: PathBuf,
    /// Samples of the file the clip covers, at 16 kHz.
    pub samples: Range<usize>,
}

/// Share of the promised duration, and seconds beside it, that may be missing: durations in manifests are rounded and codecs pad.
const MISSING_SHARE: f64 = 0.05;
const MISSING_SECONDS: f64 = 0.25;
/// Audio past the promised end that still belongs to a clip without offset, seconds (codec padding).
const TRAILING_SECONDS: f64 = 0.25;

impl Clip {
    /// Where an entry lies in its decoded file; `None` where the cache lacks the file or too much of the clip is missing in it.
    pub fn of(entry: &Entry, cache: &PcmCache) -> Option<Self> {
        let rate = SampleRate::HZ_16000;
        let total = cache.samples(&entry.audio)?;
        let start = rate.samples(entry.offset.unwrap_or(0.0)).min(total);
        let promised = rate.samples(entry.duration);
        let slack = if entry.offset.is_none() { rate.samples(TRAILING_SECONDS) } else { 0 };
        let end = if start.saturating_add(promised).saturating_add(slack) >= total { total } else { start + promised };
        let missing = rate.seconds(promised.saturating_sub(end - start));
        let fits = end > start && missing <= MISSING_SECONDS.min(0.5 * entry.duration) + MISSING_SHARE * entry.duration;
        fits.then(|| Self { audio: entry.audio.clone(), samples: start..end })
    }
}

/// An utterance that passed the filters.
#[derive(Debug, Clone, PartialEq)]
pub struct Utterance {
    /// Its manifest line.
    pub entry: Entry,
    /// The manifest, as an index into the sources.
    pub source: usize,
    /// Copies per epoch, on average: > 0.
    pub weight: f64,
}

/// Utterances and seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Tally {
    /// Utterances.
    pub utterances: usize,
    /// Their length together, seconds.
    pub seconds: f64,
}

impl Tally {
    fn add(&mut self, seconds: f64) {
        self.utterances += 1;
        self.seconds += seconds;
    }
}

/// What a corpus consists of.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct CorpusReport {
    /// All that is used.
    pub kept: Tally,
    /// Used, by set.
    pub sets: BTreeMap<String, Tally>,
    /// Seconds per epoch after weighting, by set.
    pub weighted_seconds: BTreeMap<String, f64>,
    /// Not used, by reason.
    pub dropped: BTreeMap<DropReason, Tally>,
}

impl fmt::Display for CorpusReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = |seconds: f64| seconds / 3600.0;
        let epoch: f64 = self.weighted_seconds.values().sum();
        writeln!(f, "{} utterances, {:.2} h ({:.2} h per epoch)", self.kept.utterances, hours(self.kept.seconds), hours(epoch))?;
        for (set, tally) in &self.sets {
            let weighted = self.weighted_seconds.get(set).copied().unwrap_or_default();
            writeln!(f, "  {set:<40} {:>7} {:>8.2} h, {:.2} h per epoch", tally.utterances, hours(tally.seconds), hours(weighted))?;
        }
        for (reason, tally) in &self.dropped {
            writeln!(f, "  dropped {:<32} {:>7} {:>8.2} h", format!("{reason:?}"), tally.utterances, hours(tally.seconds))?;
        }
        Ok(())
    }
}

/// Utterances of one or more manifests in manifest order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Corpus {
    /// What is used.
    pub utterances: Vec<Utterance>,
    dropped: BTreeMap<DropReason, Tally>,
}

impl Corpus {
    /// Reads the manifests and filters them by duration, weight and empty text.
    ///
    /// # Errors
    /// - [`Error::Config`]: a weight is negative or not finite, or names a set the manifest does not have; `filter` is invalid
    /// - [`Error::Io`], [`Error::Manifest`]: as [`manifest::read`]
    pub fn load(sources: &[SourceConfig], filter: &FilterConfig) -> Result<Self> {
        filter.validate()?;
        let mut corpus = Self::default();
        for (index, source) in sources.iter().enumerate() {
            for (field, weight) in
                std::iter::once(("weight", source.weight)).chain(source.set_weights.iter().map(|(set, &w)| (set.as_str(), w)))
            {
                if !(weight >= 0.0 && weight.is_finite()) {
                    return Err(refuse(field, weight, "a weight must be 0 or more"));
                }
            }
            let entries = manifest::read(&source.path, TextRule::Required)?;
            if let Some(unknown) = source.set_weights.keys().find(|set| entries.iter().all(|e| e.set != **set)) {
                return Err(Error::config(&source.path, format!("set_weights: no line has set {unknown:?}")));
            }
            for entry in entries {
                let weight = source.weight * source.set_weights.get(&entry.set).copied().unwrap_or(1.0);
                corpus.utterances.push(Utterance { entry, source: index, weight });
            }
        }
        corpus.retain(DropReason::Excluded, |u| u.weight > 0.0);
        corpus.retain(DropReason::TooShort, |u| u.entry.duration >= filter.min_duration);
        corpus.retain(DropReason::TooLong, |u| u.entry.duration <= filter.max_duration);
        corpus.retain(DropReason::EmptyText, |u| filter.keep_empty_text || !u.entry.text.trim().is_empty());
        Ok(corpus)
    }

    /// Drops the utterances `keep` refuses and counts them under `reason`.
    pub fn retain(&mut self, reason: DropReason, mut keep: impl FnMut(&Utterance) -> bool) {
        let dropped = &mut self.dropped;
        self.utterances.retain(|u| {
            let kept = keep(u);
            if !kept {
                dropped.entry(reason).or_default().add(u.entry.duration);
            }
            kept
        });
    }

    /// Every audio file once, in order of first use.
    pub fn audio_files(&self) -> Vec<PathBuf> {
        let mut seen = std::collections::HashSet::new();
        self.utterances.iter().filter(|u| seen.insert(&u.entry.audio)).map(|u| u.entry.audio.clone()).collect()
    }

    /// Finds each utterance in the cache and drops those that are not there or clearly shorter than promised.
    ///
    /// Returns one clip per remaining utterance, in the same order.
    pub fn locate(&mut self, cache: &PcmCache) -> Vec<Clip> {
        self.retain(DropReason::Unreadable, |u| cache.samples(&u.entry.audio).is_some());
        self.retain(DropReason::AudioTooShort, |u| Clip::of(&u.entry, cache).is_some());
        self.utterances.iter().filter_map(|u| Clip::of(&u.entry, cache)).collect()
    }

    /// What is used and what was dropped so far.
    pub fn report(&self) -> CorpusReport {
        let mut report = CorpusReport { dropped: self.dropped.clone(), ..CorpusReport::default() };
        for u in &self.utterances {
            report.kept.add(u.entry.duration);
            report.sets.entry(u.entry.set.clone()).or_default().add(u.entry.duration);
            *report.weighted_seconds.entry(u.entry.set.clone()).or_default() += u.weight * u.entry.duration;
        }
        report
    }
}

/// Clips of a cache as a source of sounds for augmentation.
#[derive(Debug, Clone)]
pub struct CachedClips {
    cache: Arc<PcmCache>,
    clips: Arc<[Clip]>,
}

impl CachedClips {
    /// The clips, which must lie in `cache`.
    pub fn new(cache: Arc<PcmCache>, clips: impl Into<Arc<[Clip]>>) -> Self {
        Self { cache, clips: clips.into() }
    }
}

impl Clips for CachedClips {
    fn count(&self) -> usize {
        self.clips.len()
    }

    fn samples(&self, index: usize) -> usize {
        self.clips[index].samples.len()
    }

    fn read(&self, index: usize, range: Range<usize>, out: &mut Vec<f32>) -> Result<()> {
        let clip = &self.clips[index];
        let start = clip.samples.start;
        self.cache.read(&clip.audio, start + range.start..(start + range.end).min(clip.samples.end), out)
    }
}
