//! ARPA text, plain or gzipped, read into hash tables.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use super::bytes::f32_at;
use super::hash_table::{Growing, extend_key};
use super::probing::Probing;
use super::vocabulary::Words;
use super::{Format, MAX_ORDER, NgramModel, Storage, WordId};
use crate::error::{Error, Result};

/// Longest line, bytes.
const MAX_LINE: u64 = 1 << 20;
/// Lines that may stand before `\data\`.
const MAX_PREAMBLE: usize = 1000;
/// log10 probability of unknown words where the model has none for them: KenLM's default.
const MISSING_UNKNOWN: f32 = -100.0;

/// Reads a model.
///
/// # Errors
/// [`Error::Io`], or [`Error::Manifest`] that names the line.
pub(super) fn read(path: &Path) -> Result<NgramModel> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let gzipped = reader.fill_buf().map_err(|e| Error::io(path, e))?.starts_with(&[0x1f, 0x8b]);
    let reader: Box<dyn BufRead> =
        if gzipped { Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(reader))) } else { Box::new(reader) };
    parse(Lines { path, reader, line: 0, text: Vec::new() })
}

/// The lines of a file, counted.
struct Lines<'a> {
    path: &'a Path,
    reader: Box<dyn BufRead + 'a>,
    line: usize,
    text: Vec<u8>,
}

impl Lines<'_> {
    fn refuse(&self, reason: impl Into<String>) -> Error {
        Error::Manifest { path: self.path.to_path_buf(), line: self.line, reason: reason.into() }
    }

    /// The next line, trimmed; `None` at the end.
    fn next(&mut self) -> Result<Option<()>> {
        self.text.clear();
        self.line += 1;
        let read = (&mut self.reader).take(MAX_LINE).read_until(b'\n', &mut self.text).map_err(|e| Error::io(self.path, e))?;
        if read as u64 == MAX_LINE {
            return Err(self.refuse(format!("longer than {MAX_LINE} bytes")));
        }
        Ok((read > 0).then_some(()))
    }

    /// The next line that is not blank; an error at the end of the file.
    fn next_text(&mut self, awaited: std::fmt::Arguments) -> Result<()> {
        loop {
            if self.next()?.is_none() {
                return Err(self.refuse(format!("the file ends where {awaited}")));
            }
            if !self.text.trim_ascii().is_empty() {
                return Ok(());
            }
        }
    }

    fn text(&self) -> Result<&str> {
        std::str::from_utf8(self.text.trim_ascii()).map_err(|_| self.refuse("not UTF-8"))
    }
}

fn parse(mut lines: Lines) -> Result<NgramModel> {
    let counts = header(&mut lines)?;
    let mut tables = Tables::new(counts.len());
    for (i, &count) in counts.iter().enumerate() {
        let order = i + 1;
        if lines.text()? != format!("\\{order}-grams:") {
            let found: String = lines.text()?.chars().take(60).collect();
            return Err(lines.refuse(format!("`{found}` where \\{order}-grams: should be")));
        }
        for done in 0..count {
            lines.next_text(format_args!("{} more of {count} {order}-grams should come", count - done))?;
            let text = lines.text()?;
            if text.starts_with('\\') && (text.ends_with("-grams:") || text == "\\end\\") {
                return Err(lines.refuse(format!("{done} {order}-grams, but \\data\\ says {count}")));
            }
            tables.insert(text, order).map_err(|reason| lines.refuse(reason))?;
        }
        let next = if order == counts.len() { "\\end\\".into() } else { format!("\\{}-grams:", order + 1) };
        lines.next_text(format_args!("{next} should come"))?;
        if !lines.text()?.starts_with('\\') {
            return Err(lines.refuse(format!("more {order}-grams than the {count} that \\data\\ says, or {next} is missing")));
        }
    }
    if lines.text()? != "\\end\\" {
        let found: String = lines.text()?.chars().take(60).collect();
        return Err(lines.refuse(format!("`{found}` where \\end\\ should be")));
    }
    let (words, storage) = tables.finish();
    let vocabulary = words.finish().map_err(|reason| Error::config(lines.path, reason))?;
    NgramModel::new(lines.path, Format::Arpa, vocabulary, storage, counts)
}

/// Reads to the first line after the counts.
fn header(lines: &mut Lines) -> Result<Vec<u64>> {
    loop {
        lines.next_text(format_args!("\\data\\ should come (is this a language model?)"))?;
        if lines.text.trim_ascii() == b"\\data\\" {
            break;
        }
        if lines.line > MAX_PREAMBLE || lines.text.contains(&0) {
            return Err(lines.refuse("neither ARPA text (no \\data\\ so far) nor a binary language model this build reads"));
        }
    }
    let mut counts = Vec::new();
    loop {
        lines.next_text(format_args!("counts or \\1-grams: should come"))?;
        let text = lines.text()?;
        let Some(rest) = text.strip_prefix("ngram") else { break };
        let (order, count) = rest.split_once('=').unwrap_or((rest, ""));
        match (order.trim().parse::<usize>(), count.trim().parse::<u64>()) {
            (Ok(order), Ok(count)) if order == counts.len() + 1 => counts.push(count),
            _ => return Err(lines.refuse(format!("`{text}` where `ngram {}=COUNT` should be", counts.len() + 1))),
        }
        if counts.len() > MAX_ORDER {
            return Err(lines.refuse(format!("order over {MAX_ORDER}")));
        }
    }
    if counts.is_empty() { Err(lines.refuse("no `ngram 1=COUNT` after \\data\\")) } else { Ok(counts) }
}

/// What is read so far.
struct Tables {
    words: Words,
    /// Whether `<unk>` was read.
    unknown: bool,
    unigrams: Vec<u8>,
    middles: Vec<Growing>,
    longest: Option<Growing>,
    order: usize,
}

impl Tables {
    fn new(order: usize) -> Self {
        Self {
            words: Words::default(),
            unknown: false,
            unigrams: pack(MISSING_UNKNOWN, -0.0).to_vec(),
            middles: (2..order).map(|_| Growing::new(16)).collect(),
            longest: (order > 1).then(|| Growing::new(12)),
            order,
        }
    }

    /// Takes in a line `log10-probability words [log10-backoff]`.
    fn insert(&mut self, text: &str, order: usize) -> Result<(), String> {
        let mut fields = text.split([' ', '\t']).filter(|field| !field.is_empty());
        let prob = number(fields.next().unwrap_or_default(), "log-probability")?;
        if prob > 0.0 {
            return Err(format!("log-probability {prob} is over 0"));
        }
        let mut words = [""; MAX_ORDER];
        for (place, word) in words[..order].iter_mut().enumerate() {
            *word = fields.next().ok_or_else(|| format!("{place} words in a {order}-gram"))?;
        }
        let mut backoff = match fields.next() {
            Some(field) => number(field, "backoff")?,
            None => 0.0,
        };
        if let Some(extra) = fields.next() {
            return Err(format!("`{extra}` after {order} words and a backoff"));
        }
        if backoff == 0.0 {
            backoff = -0.0;
        } else if order == self.order {
            return Err(format!("backoff {backoff} for an n-gram of the highest order"));
        }
        // The sign says that nothing longer ends in this n-gram; `mark_suffix` takes it away.
        let value = pack(-prob.abs(), backoff);
        if order == 1 { self.unigram(words[0], value) } else { self.longer(&words[..order], value) }
    }

    fn unigram(&mut self, word: &str, value: [u8; 8]) -> Result<(), String> {
        if word == "<unk>" || word == "<UNK>" {
            if std::mem::replace(&mut self.unknown, true) {
                return Err(format!("`{word}` is there twice"));
            }
            self.unigrams[..8].copy_from_slice(&value);
        } else {
            self.words.insert(word).ok_or_else(|| format!("`{word}` is there twice"))?;
            self.unigrams.extend_from_slice(&value);
        }
        Ok(())
    }

    fn longer(&mut self, words: &[&str], value: [u8; 8]) -> Result<(), String> {
        let order = words.len();
        let mut ids = [0; MAX_ORDER];
        for (id, word) in ids.iter_mut().zip(words.iter().rev()) {
            *id = self.words.id(word).ok_or_else(|| format!("`{word}` is not among the 1-grams"))?;
        }
        let ids = &ids[..order];
        let (slot, new) = match self.longest.as_mut().filter(|_| order == self.order) {
            Some(longest) => longest.find_or_insert(key(ids)),
            None => self.middles[order - 2].find_or_insert(key(ids)),
        };
        if !new {
            return Err(format!("`{}` is there twice", words.join(" ")));
        }
        slot.copy_from_slice(&value[..slot.len()]);
        self.mark_suffix(ids);
        let context = self
            .value(&ids[1..])
            .ok_or_else(|| format!("its context `{}` is not among the {}-grams", words[..order - 1].join(" "), order - 1))?;
        mark_continued(context);
        Ok(())
    }

    /// The value of an n-gram below the highest order, last word first.
    fn value(&mut self, ids: &[WordId]) -> Option<&mut [u8]> {
        match ids {
            [id] => self.unigrams.get_mut(8 * *id as usize..).and_then(|rest| rest.get_mut(..8)),
            _ => self.middles[ids.len() - 2].find(key(ids)),
        }
    }

    /// Notes in the n-gram's suffix that it extends to the left. A suffix that pruning took away comes back with the probability that
    /// backing off gives it, as a walk from the last word needs it on its way.
    fn mark_suffix(&mut self, ids: &[WordId]) {
        let suffix = &ids[..ids.len() - 1];
        if self.value(suffix).is_none() {
            self.mark_suffix(suffix);
            let shorter = self.value(&suffix[..suffix.len() - 1]).map_or(MISSING_UNKNOWN, |value| -f32_at(value, 0).abs());
            let backoff = self.value(&suffix[1..]).map_or(0.0, |value| {
                mark_continued(value);
                f32_at(value, 4)
            });
            let (slot, _) = self.middles[suffix.len() - 2].find_or_insert(key(suffix));
            slot.copy_from_slice(&pack(-(shorter + backoff).abs(), -0.0));
        }
        if let Some(value) = self.value(suffix) {
            let prob = f32_at(value, 0).abs();
            value[..4].copy_from_slice(&prob.to_le_bytes());
        }
    }

    fn finish(self) -> (Words, Storage) {
        let words = self.words.len();
        let probing = Probing {
            unigrams: self.unigrams.into(),
            middles: self.middles.into_iter().map(Growing::finish).collect(),
            longest: self.longest.map(Growing::finish),
            words,
        };
        (self.words, Storage::Probing(probing))
    }
}

fn pack(prob: f32, backoff: f32) -> [u8; 8] {
    let ([a, b, c, d], [e, f, g, h]) = (prob.to_le_bytes(), backoff.to_le_bytes());
    [a, b, c, d, e, f, g, h]
}

/// Notes in a context that something continues it: minus zero becomes zero.
fn mark_continued(value: &mut [u8]) {
    if f32_at(value, 4) == 0.0 {
        value[4..8].copy_from_slice(&0f32.to_le_bytes());
    }
}

/// Key of an n-gram of order 2 or more, last word first.
fn key(ids: &[WordId]) -> u64 {
    ids[1..].iter().fold(u64::from(ids[0]), |hash, &id| extend_key(hash, id))
}

fn number(field: &str, what: &str) -> Result<f32, String> {
    let value = field.parse::<f32>().ok().filter(|value| value.is_finite());
    value.ok_or_else(|| format!("{what} `{field}` is not a finite number"))
}
