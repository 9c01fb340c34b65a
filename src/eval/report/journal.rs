//! What was heard, utterance by utterance: one JSON object per line, appended as the run goes, continued after a kill.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::result::strict;
use crate::error::{Error, Result};
use crate::eval::calibration::Judged;
use crate::eval::score::Scored;
use crate::eval::wer::WordErrors;

/// Longest line, bytes: days of speech in one utterance.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Utterance {
    /// Id of the run, [`Provenance::run_id`](super::result::Provenance::run_id).
    pub run: String,
    /// Set it counts in.
    pub set: String,
    /// Name, unique in its set.
    pub id: String,
    /// Who speaks, where known.
    pub speaker: Option<String>,
    /// The recording it is cut from, where known.
    pub recording: Option<String>,
    /// The audio file.
    pub audio: String,
    /// Channel of the file in sclite's sense (`A`, `B`, `1`), where the corpus names it.
    pub channel: Option<String>,
    /// Where it begins in the file, seconds; none for a whole file.
    pub start: Option<f64>,
    /// Where it ends, seconds; none for a whole file.
    pub end: Option<f64>,
    /// Its length, seconds.
    pub seconds: f64,
    /// Reference as published.
    pub reference: String,
    /// Hypothesis as decoded.
    pub hypothesis: String,
    /// Reference as scored.
    pub normalized_reference: String,
    /// Hypothesis as scored.
    pub normalized_hypothesis: String,
    /// Word errors.
    pub words: WordErrors,
    /// Character errors.
    pub characters: WordErrors,
    /// The words of the hypothesis, judged; none from programs that do not tell confidences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub judged: Vec<Judged>,
    /// Why it could not be transcribed; such an utterance does not count in any rate.
    pub error: Option<Failure>,
}

/// Why an utterance has no hypothesis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// Kind of problem, a short id by which it is counted.
    pub kind: String,
    /// What happened.
    pub message: String,
}

impl Utterance {
    /// Its texts as scored and its counts.
    pub fn scored(&self) -> Scored {
        Scored {
            set: self.set.clone(),
            id: self.id.clone(),
            speaker: self.speaker.clone(),
            recording: self.recording.clone(),
            reference: self.normalized_reference.clone(),
            hypothesis: self.normalized_hypothesis.clone(),
            words: self.words,
            characters: self.characters,
        }
    }
}

/// Path of the journal that belongs to a result: `run.json` has `run.utterances.jsonl` beside it.
pub fn path_of(result: &Path) -> PathBuf {
    result.with_extension("utterances.jsonl")
}

/// The journal of a run that is under way. One process has it at a time.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Locked,
    /// Bytes of whole lines.
    length: u64,
    written: Written,
}

/// A file that this process has for itself. It is given back by name: a child that another thread is just starting holds a copy of the file, and
/// while it does, closing alone would not unlock it.
#[derive(Debug)]
struct Locked(File);

impl Locked {
    fn new(file: File) -> std::io::Result<Self> {
        file.try_lock().map_err(|e| match e {
            std::fs::TryLockError::WouldBlock => std::io::Error::new(ErrorKind::ResourceBusy, "another run is writing to it"),
            std::fs::TryLockError::Error(e) => e,
        })?;
        Ok(Self(file))
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

impl Journal {
    /// Opens the journal of `run`, or begins one. The last line is cut off if it is not finished, as after a kill.
    ///
    /// # Errors
    /// - [`Error::Io`]; another process writing to it is one
    /// - [`Error::Manifest`]: a line that is not of this format, of another run, or of an utterance that is there already
    pub fn open(path: &Path, run: &str) -> Result<Self> {
        let io = |e| Error::io(path, e);
        if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        }
        let file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(io)?;
        let file = Locked::new(file).map_err(io)?;
        let (written, length) = lines(path, &file.0, run)?;
        file.0.set_len(length).map_err(io)?;
        Ok(Self { path: path.into(), file, length, written })
    }

    /// Whether the utterance was transcribed; one that failed may be tried again.
    pub fn has(&self, set: &str, id: &str) -> bool {
        let at = self.written.places.get(&(set.to_string(), id.to_string()));
        at.is_some_and(|&at| self.written.utterances[at].error.is_none())
    }

    /// Everything written so far; of an utterance that was tried again, the last try.
    pub fn utterances(&self) -> &[Utterance] {
        &self.written.utterances
    }

    /// Appends a line. A line that cannot be written whole leaves the file as it was.
    ///
    /// # Errors
    /// - [`Error::Io`]
    /// - [`Error::Manifest`]: of another run, or there already
    pub fn append(&mut self, utterance: Utterance) -> Result<()> {
        let mut text = serde_json::to_vec(&utterance).map_err(|e| Error::io(&self.path, e.into()))?;
        text.push(b'\n');
        let line = self.written.lines + 1;
        self.written.admits(&utterance).map_err(|reason| Error::Manifest { path: self.path.clone(), line, reason })?;
        if let Err(e) = self.file.0.write_all(&text) {
            // The write's error is the one to report. If the cut fails as well, the next opening makes it.
            let _ = self.file.0.set_len(self.length);
            return Err(Error::io(&self.path, e));
        }
        self.length += text.len() as u64;
        self.written.insert(utterance);
        Ok(())
    }

    /// Makes sure that everything is on the disk and gives it back.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn finish(self) -> Result<Vec<Utterance>> {
        self.file.0.sync_all().map_err(|e| Error::io(&self.path, e))?;
        Ok(self.written.utterances)
    }
}

/// Reads the journal of `run`, be it finished or not.
///
/// # Errors
/// - [`Error::Io`]
/// - [`Error::Manifest`]: a line that is not of this format, of another run, or of an utterance that is there already
pub fn read(path: &Path, run: &str) -> Result<Vec<Utterance>> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    Ok(lines(path, &file, run)?.0.utterances)
}

/// The utterances of a run by set and id.
#[derive(Debug)]
struct Written {
    run: String,
    lines: usize,
    utterances: Vec<Utterance>,
    places: HashMap<(String, String), usize>,
}

impl Written {
    fn admits(&self, u: &Utterance) -> Result<(), String> {
        if u.run != self.run {
            let (theirs, ours) = (&u.run, &self.run);
            return Err(format!("of run {theirs}, not of run {ours}: another model, corpus or setting; choose another name or remove it"));
        }
        let times = [("seconds", Some(u.seconds)), ("start", u.start), ("end", u.end)];
        if let Some((name, time)) = times.into_iter().find(|(_, t)| t.is_some_and(|t| !(t >= 0.0 && t.is_finite()))) {
            return Err(format!("{name} is {}: want 0 or more", time.unwrap_or_default()));
        }
        if u.start.unwrap_or(0.0) > u.end.unwrap_or(f64::INFINITY) {
            return Err("it ends before it starts".into());
        }
        match self.places.get(&(u.set.clone(), u.id.clone())) {
            Some(&at) if self.utterances[at].error.is_none() => Err(format!("utterance {:?} of set {:?} is there already", u.id, u.set)),
            _ => Ok(()),
        }
    }

    fn insert(&mut self, utterance: Utterance) {
        self.lines += 1;
        let at = *self.places.entry((utterance.set.clone(), utterance.id.clone())).or_insert(self.utterances.len());
        match self.utterances.get_mut(at) {
            Some(failed) => *failed = utterance,
            None => self.utterances.push(utterance),
        }
    }
}

/// Whole lines and their bytes; what follows the last line break is left out.
fn lines(path: &Path, file: &File, run: &str) -> Result<(Written, u64)> {
    let mut written = Written { run: run.into(), lines: 0, utterances: Vec::new(), places: HashMap::new() };
    let (mut reader, mut length, mut line) = (BufReader::new(file), 0, Vec::new());
    loop {
        line.clear();
        let read = (&mut reader).take(MAX_LINE_BYTES).read_until(b'\n', &mut line).map_err(|e| Error::io(path, e))? as u64;
        let refuse = |reason: String| Error::Manifest { path: path.into(), line: written.lines + 1, reason };
        if line.last() != Some(&b'\n') {
            let whole = read < MAX_LINE_BYTES;
            return if whole { Ok((written, length)) } else { Err(refuse(format!("longer than {MAX_LINE_BYTES} bytes"))) };
        }
        let value = serde_json::from_slice(&line).map_err(|e| refuse(e.to_string()))?;
        let utterance: Utterance = strict(value).map_err(refuse)?;
        written.admits(&utterance).map_err(refuse)?;
        written.insert(utterance);
        length += read;
    }
}
