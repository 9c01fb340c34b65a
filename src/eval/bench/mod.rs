//! A benchmark run: corpora through a transcriber into a journal, and the journal into a result.

pub(crate) mod segments;
pub(crate) mod usage;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::audio::{Channels, Limits};
use crate::error::{Error, Result};
use crate::eval::calibration::{Confidence, Judged, judge};
use crate::eval::corpora::{Corpus, Problem, Utterance};
use crate::eval::glm::Side;
use crate::eval::report::environment::peak_memory_bytes;
use crate::eval::report::journal::{Failure, Journal, Utterance as Line};
use crate::eval::report::result::{self, Measured, Provenance, RunResult, Shares, Speed, corpus_sha256, rtfx};
use crate::eval::score::{Scoring, TextScore};
use crate::pipeline::language::Spoken;
use crate::pipeline::region::Stretch;
use crate::pipeline::transcriber::Transcriber;
use crate::pipeline::transcript::Word;
use crate::units::SampleRate;
use segments::{Segment, by_file, listen};
use usage::Usage;

/// What is to be measured.
#[derive(Debug)]
pub struct Bench<'a> {
    /// The recogniser.
    pub transcriber: &'a Transcriber,
    /// The test sets, each with the name of its row.
    pub corpora: &'a [(String, Corpus)],
    /// How texts are scored.
    pub scoring: &'a Scoring,
    /// Everything else that a result names.
    pub provenance: Provenance,
    /// Where the result goes; the journal lies beside it.
    pub output: PathBuf,
}

/// Utterances recognised before the clock starts, so that no first use is measured.
const WARM_UP: usize = 1;

/// What was heard of an utterance.
struct Heard {
    text: String,
    /// Words and their confidences.
    words: Vec<(String, f64)>,
    experts: Vec<Vec<u16>>,
    seconds: f64,
}

/// Scores texts that another program made of the same test sets: `hypotheses` by the ids of the utterances.
///
/// # Errors
/// As [`Bench::run`].
pub fn score(
    corpora: &[(String, Corpus)],
    hypotheses: &HashMap<String, String>,
    scoring: &Scoring,
    provenance: Provenance,
    output: &Path,
) -> Result<(RunResult, Vec<Line>)> {
    let run = provenance.run_id();
    let journal = crate::eval::report::journal::path_of(output);
    // These texts may have changed under the same name.
    match std::fs::remove_file(&journal) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(&journal, error)),
        _ => {}
    }
    let mut journal = Journal::open(&journal, &run)?;
    for (set, corpus) in corpora {
        for utterance in &corpus.utterances {
            if !scoring.counts(&scoring.normalize(&utterance.reference, Side::Reference)) {
                continue;
            }
            let seconds = utterance.duration.unwrap_or(0.0);
            journal.append(match hypotheses.get(&utterance.id) {
                Some(text) => scored(&run, set, utterance, seconds, text, Vec::new(), scoring)?,
                None => {
                    let failure = Failure { kind: "no hypothesis".into(), message: "the file of hypotheses does not have it".into() };
                    line(&run, set, utterance, 0.0, Default::default(), Some(failure))
                }
            })?;
        }
    }
    let measured = Measured { speed: Speed::default(), confidence: None, experts: None, problems: problems(corpora) };
    let lines = journal.finish()?;
    let result = RunResult::of(provenance, &lines, measured)?;
    result.write(output)?;
    Ok((result, lines))
}

impl Bench<'_> {
    /// Recognises what the journal does not hold yet, and writes the result. `progress` gets the seconds of audio recognised since its last call.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Manifest`] of the journal, [`Error::LimitExceeded`] of the aligner. An utterance that fails is no error: it is
    /// listed in the result.
    pub fn run(self, progress: impl FnMut(f64)) -> Result<(RunResult, Vec<Line>)> {
        let run = self.provenance.run_id();
        let mut journal = Journal::open(&crate::eval::report::journal::path_of(&self.output), &run)?;
        let work: Vec<(&str, &Utterance)> = (self.corpora.iter())
            .flat_map(|(set, corpus)| corpus.utterances.iter().map(move |u| (set.as_str(), u)))
            .filter(|(set, u)| !journal.has(set, &u.id) && (self.scoring.counts(&self.scoring.normalize(&u.reference, Side::Reference))))
            .collect();
        let segments = work.iter().enumerate().map(|(number, (_, u))| Segment {
            number,
            audio: u.audio.clone(),
            channels: Channels::from(u.channel),
            start: u.start,
            end: u.end,
        });
        let mut files = by_file(segments.collect());
        // Longest first: the last batches are short ones, and no long one is left over.
        let length = |file: &[Segment]| file.iter().map(|s| work[s.number].1.duration.unwrap_or(0.0)).fold(0.0, f64::max);
        files.sort_by(|a, b| length(b).total_cmp(&length(a)));
        self.transcriber.transcribe_samples(&vec![0.0; SampleRate::HZ_16000.samples(5.0)]);

        let (chunker, limits) = (self.transcriber.chunker(), Limits::default());
        let (mut usage, mut audio_seconds, mut recognised, mut failure) = (Usage::default(), 0.0, 0, None);
        let start = Instant::now();
        let slots: Vec<_> = work.iter().map(|(_, utterance)| self.slot(utterance)).collect();
        let spent = self.transcriber.run_by(
            self.transcriber.modules(&slots),
            |feed| {
                // The consumer stops only when this ends.
                let _ = files.iter().try_for_each(|file| listen(file, &chunker, &limits, feed));
            },
            |stretch| self.heard(stretch),
            |number, outcome| {
                let (set, utterance) = work[number];
                let line = match outcome {
                    Ok((_, heard)) => {
                        let seconds: f64 = heard.iter().map(|h| h.seconds).sum();
                        audio_seconds += seconds;
                        recognised += 1;
                        for h in &heard {
                            usage.add(set, &utterance.id, h.seconds, &h.experts);
                        }
                        let texts: Vec<&str> = heard.iter().map(|h| h.text.as_str()).filter(|text| !text.is_empty()).collect();
                        let words = heard.iter().flat_map(|h| &h.words).map(|(word, confidence)| (word.as_str(), *confidence));
                        let judged = judge(&utterance.reference, words);
                        scored(&run, set, utterance, seconds, &texts.join(" "), judged, self.scoring)
                    }
                    Err(error) => Ok(failed(&run, set, utterance, &error)),
                };
                if let Err(error) = line.and_then(|line| journal.append(line)) {
                    failure.get_or_insert(error);
                }
            },
            progress,
        );
        let wall_seconds = start.elapsed().as_secs_f64();
        if let Some(error) = failure {
            return Err(error);
        }
        let [audio, features, encoder, decoder] = [spent.audio, spent.features, spent.encoder, spent.decoder].map(|d| d.as_secs_f64());
        let busy = (audio + features + encoder + decoder).max(f64::MIN_POSITIVE);
        let compute_seconds = features + encoder + decoder;
        let speed = Speed {
            utterances: recognised,
            audio_seconds,
            compute_seconds,
            wall_seconds,
            rtfx_compute: rtfx(audio_seconds, compute_seconds),
            rtfx_end_to_end: rtfx(audio_seconds, wall_seconds),
            shares: Shares { audio: audio / busy, features: features / busy, encoder: encoder / busy, decoder: decoder / busy },
            first_transcript_seconds: spent.first.map_or(0.0, |d| d.as_secs_f64()),
            peak_memory_bytes: peak_memory_bytes(),
            warm_up_utterances: WARM_UP,
        };
        let lines = journal.finish()?;
        let judged: Vec<Judged> = lines.iter().flat_map(|line| line.judged.iter().copied()).collect();
        let confidence = Confidence::of(&judged, self.transcriber.confidence_curve());
        let measured = Measured { speed, confidence, experts: usage.finish(), problems: problems(self.corpora) };
        let result = RunResult::of(self.provenance, &lines, measured)?;
        result.write(&self.output)?;
        Ok((result, lines))
    }

    /// The slot of the module for an utterance; `None` is the shared one.
    fn slot(&self, utterance: &Utterance) -> Option<usize> {
        let (labels, set) = (&utterance.labels, utterance.set.as_deref());
        self.transcriber.slot_of(&Spoken { lang: labels.lang.as_deref(), accent: labels.accent.as_deref(), set })
    }

    fn heard(&self, stretch: &Stretch) -> Heard {
        let hypothesis = self.transcriber.hypothesis(stretch);
        let seconds = SampleRate::HZ_16000.seconds(stretch.steps() * self.transcriber.step_samples());
        // Six decimals: as much as the curve can use.
        let word = |word: Word| (word.word, (word.confidence * 1e6).round() / 1e6);
        let words = self.transcriber.uncalibrated_words(&hypothesis, stretch).into_iter().map(word).collect();
        Heard { text: self.transcriber.tokenizer().decode(&hypothesis.tokens), words, experts: stretch.experts.clone(), seconds }
    }
}

fn problems(corpora: &[(String, Corpus)]) -> Vec<(String, String, String)> {
    let of = |(set, corpus): &(String, Corpus)| {
        let problem = |p: &Problem| (set.clone(), p.what.to_string(), format!("{}: {}", p.place, p.detail));
        corpus.problems.iter().map(problem).collect::<Vec<_>>()
    };
    corpora.iter().flat_map(of).collect()
}

fn scored(
    run: &str,
    set: &str,
    utterance: &Utterance,
    seconds: f64,
    hypothesis: &str,
    judged: Vec<Judged>,
    scoring: &Scoring,
) -> Result<Line> {
    let TextScore { reference, hypothesis: normalized, words, characters } = scoring.score(&utterance.reference, hypothesis)?;
    let line = line(run, set, utterance, seconds, (hypothesis.to_string(), reference, normalized, words, characters), None);
    Ok(Line { judged, ..line })
}

fn failed(run: &str, set: &str, utterance: &Utterance, error: &Error) -> Line {
    let kind = match error {
        Error::Io { .. } => "unreadable file",
        Error::UnsupportedAudio { .. } => "unsupported audio",
        Error::LimitExceeded { .. } => "limit exceeded",
        _ => "corrupt audio",
    };
    let failure = Failure { kind: kind.into(), message: error.to_string() };
    line(run, set, utterance, 0.0, Default::default(), Some(failure))
}

type Texts = (String, String, String, crate::eval::WordErrors, crate::eval::WordErrors);

fn line(run: &str, set: &str, u: &Utterance, seconds: f64, texts: Texts, error: Option<Failure>) -> Line {
    let (hypothesis, normalized_reference, normalized_hypothesis, words, characters) = texts;
    let whole = u.start == 0.0 && u.end.is_none();
    Line {
        run: run.into(),
        set: set.into(),
        id: u.id.clone(),
        speaker: u.speaker.clone(),
        recording: Some(u.recording.clone()),
        audio: u.audio.display().to_string(),
        channel: None,
        start: (!whole).then_some(u.start),
        end: if whole { None } else { u.end },
        seconds,
        reference: u.reference.clone(),
        hypothesis,
        normalized_reference,
        normalized_hypothesis,
        words,
        characters,
        judged: Vec::new(),
        error,
    }
}

impl result::Corpus {
    /// What a result says of the utterances of `set`.
    pub fn of(set: &str, corpus: &Corpus) -> Self {
        Self {
            set: set.to_string(),
            layout: corpus.name.clone(),
            rules: corpus.rules.clone(),
            sha256: corpus_sha256(corpus.utterances.iter().map(|u| (u.id.as_str(), u.reference.as_str()))),
        }
    }
}

/// Splits a corpus whose utterances name their own sets into one for each of them, in the order of the names. Problems stay with the first.
pub fn by_set(mut corpus: Corpus) -> Vec<(String, Corpus)> {
    let mut sets: BTreeMap<String, Vec<Utterance>> = BTreeMap::new();
    for utterance in std::mem::take(&mut corpus.utterances) {
        sets.entry(utterance.set.clone().unwrap_or_else(|| corpus.name.clone())).or_default().push(utterance);
    }
    if sets.is_empty() {
        return vec![(corpus.name.clone(), corpus)];
    }
    let mut split: Vec<(String, Corpus)> =
        sets.into_iter().map(|(set, utterances)| (set, Corpus { utterances, problems: Vec::new(), ..corpus.clone() })).collect();
    split[0].1.problems = corpus.problems;
    split
}
