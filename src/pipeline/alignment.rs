//! A recording and its text, brought together: forced alignment of files.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use crate::decode::align::{Alignment, Emissions, Options, align};
use crate::decode::spans::{Widening, widen};
use crate::error::{Error, Result};
use crate::pipeline::listen::{Outcome, listen};
use crate::pipeline::region::Stretch;
use crate::pipeline::transcriber::Transcriber;
use crate::text::alignable::{Alignable, Sound, alignable};
use crate::units::SampleRate;

/// A written word and where it was found.
#[derive(Debug, Clone, PartialEq)]
pub struct PlacedWord {
    /// As written, punctuation included.
    pub word: String,
    /// Line of the text, from 0.
    pub line: usize,
    /// Where it is, or why it is nowhere.
    pub place: Place,
}

/// Where a written word is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Place {
    /// Seconds from the start of the recording, and the geometric mean of its steps' probabilities.
    At {
        /// Start.
        start: f64,
        /// End.
        end: f64,
        /// In (0, 1].
        confidence: f64,
    },
    /// It is not said in the recording.
    Missing,
    /// Nothing is said for it (punctuation, remarks), or it cannot be spelt with the model's letters.
    Silent,
}

/// A text laid over its recording.
#[derive(Debug, Clone, PartialEq)]
pub struct PlacedText {
    /// The words in order.
    pub words: Vec<PlacedWord>,
    /// Speech that is not in the text: start and end, seconds.
    pub extra: Vec<(f64, f64)>,
    /// Length of the recording, seconds.
    pub duration: f64,
}

/// Finds the words of `text` in the recording at `path`. Log-probabilities of long recordings wait in a temporary file, not in memory.
///
/// # Errors
/// Whatever reading the recording gives; [`Error::Io`] for the temporary file; [`Error::Config`] for a text without a word that can be spelt.
pub fn align_file(transcriber: &Transcriber, path: &Path, text: &str) -> Result<PlacedText> {
    let prepared = alignable(text);
    let tokenizer = transcriber.tokenizer();
    let spelt = prepared.spoken.iter().map(|word| tokenizer.encode(word)).collect::<Result<Vec<_>>>()?;
    if spelt.is_empty() {
        return Err(Error::config("text", "no word in it can be spelt with the model's letters"));
    }
    let separator = tokenizer.encode(" ").ok().filter(|tokens| tokens.len() == 1).map(|tokens| tokens[0]);
    let (mut spool, duration) = hear(transcriber, path)?;
    let alignment = align(&mut spool, &spelt, &Options::new(tokenizer.blank(), separator))?;
    Ok(placed(text, &prepared, &alignment, transcriber.step_samples(), duration))
}

/// Runs the encoder over everything in the recording, silence included.
fn hear(transcriber: &Transcriber, path: &Path) -> Result<(Spool, f64)> {
    let mut spool = Spool::new()?;
    let mut failure = None;
    let mut duration = 0.0;
    let listening = transcriber.listening_to_everything();
    let stop = AtomicBool::new(false);
    let mut ended = Ok(());
    transcriber.run(
        |feed| {
            let outcome = listen(path, &listening, feed, &stop, |_| 0);
            if !matches!(outcome, Ok(Outcome::Ended)) {
                // The consumer stops only when this ends.
                let _ = outcome.map(|_| ()).or_else(|error| feed.end(0, Err(error)));
            }
        },
        |stretch| {
            if let Err(error) = spool.append(stretch) {
                failure.get_or_insert(error);
            }
        },
        |_, outcome| match outcome {
            Ok((listened, _)) => duration = listened.duration,
            Err(error) => ended = Err(error),
        },
        |_| (),
    );
    ended?;
    failure.map_or(Ok((spool, duration)), Err)
}

/// Words as `transcribe` places them: from where the blank takes over before their first token.
fn placed(text: &str, prepared: &Alignable, alignment: &Alignment, step_samples: usize, duration: f64) -> PlacedText {
    let seconds = |step: usize| SampleRate::HZ_16000.seconds(step * step_samples).min(duration);
    let mut spans: Vec<Range<usize>> = alignment.words.iter().flatten().map(|word| word.start..word.end).collect();
    widen(&mut spans, &alignment.blanks, Widening::default());
    let mut wide = spans.iter().cloned();
    let spans_of_words: Vec<Option<Range<usize>>> = alignment.words.iter().map(|word| word.as_ref().and_then(|_| wide.next())).collect();
    let words = prepared.written.iter().map(|written| {
        let found: Vec<_> = alignment.words[written.spoken.clone()].iter().flatten().collect();
        let mut spans = spans_of_words[written.spoken.clone()].iter().flatten();
        let first = spans.next();
        let place = match (first, spans.last().or(first)) {
            (Some(first), Some(last)) => {
                let mean = found.iter().map(|word| f64::from(word.log_prob)).sum::<f64>() / found.len() as f64;
                Place::At { start: seconds(first.start), end: seconds(last.end), confidence: mean.exp().min(1.0) }
            }
            _ if written.sound == Sound::Spoken => Place::Missing,
            _ => Place::Silent,
        };
        PlacedWord { word: text[written.text.clone()].to_string(), line: written.line, place }
    });
    // What a word now begins with is not speech beside the text.
    let free = |range: &Range<usize>| {
        let next = spans.partition_point(|word| word.end <= range.start);
        range.start..spans.get(next).map_or(range.end, |word| word.start.clamp(range.start, range.end))
    };
    let extra = alignment.extra.iter().map(free).filter(|range| !range.is_empty());
    PlacedText { words: words.collect(), extra: extra.map(|range| (seconds(range.start), seconds(range.end))).collect(), duration }
}

/// Log-probabilities in a temporary file that is gone when this is.
struct Spool {
    file: File,
    steps: usize,
    vocab: usize,
}

impl Spool {
    fn new() -> Result<Self> {
        let file = tempfile::tempfile().map_err(|e| Error::io(std::env::temp_dir(), e))?;
        Ok(Self { file, steps: 0, vocab: 1 })
    }

    fn append(&mut self, stretch: &Stretch) -> Result<()> {
        self.vocab = stretch.vocab;
        self.steps += stretch.steps();
        let bytes: Vec<u8> = stretch.log_probs.iter().flat_map(|p| p.to_le_bytes()).collect();
        self.file.seek(SeekFrom::End(0)).and_then(|_| self.file.write_all(&bytes)).map_err(|e| Error::io(std::env::temp_dir(), e))
    }
}

impl Emissions for Spool {
    fn steps(&self) -> usize {
        self.steps
    }

    fn vocab(&self) -> usize {
        self.vocab
    }

    fn read(&mut self, steps: Range<usize>, rows: &mut Vec<f32>) -> Result<()> {
        let io = |e| Error::io(std::env::temp_dir(), e);
        let mut bytes = vec![0; steps.len() * self.vocab * size_of::<f32>()];
        self.file.seek(SeekFrom::Start((steps.start * self.vocab * size_of::<f32>()) as u64)).map_err(io)?;
        self.file.read_exact(&mut bytes).map_err(io)?;
        rows.clear();
        rows.extend(bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spool_gives_back_what_it_took() {
        let mut spool = Spool::new().unwrap();
        let part = |from: usize| Stretch { log_probs: (from..from + 12).map(|i| i as f32).collect(), vocab: 3, ..Stretch::default() };
        spool.append(&part(0)).unwrap();
        spool.append(&part(12)).unwrap();
        let mut rows = Vec::new();
        spool.read(3..6, &mut rows).unwrap();
        assert_eq!((spool.steps(), &rows), (8, &(9..18).map(|i| i as f32).collect()));
        spool.append(&part(24)).unwrap();
        spool.read(0..12, &mut rows).unwrap();
        assert_eq!(rows, (0..36).map(|i| i as f32).collect::<Vec<_>>());
    }
}
