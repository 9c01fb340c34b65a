//! A closed list of words, for recognisers that may answer with nothing else.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::source;
use crate::error::{Error, Result};

/// Most bytes of a lexicon file: some ten million words.
const MAX_BYTES: u64 = 256 << 20;

/// One line of a lexicon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The word as it is written, and as the language model knows it.
    pub word: String,
    /// The word as the tokens spell it.
    pub spelling: String,
    /// Line of the file, from 1.
    pub line: usize,
}

/// Words that may be answered, and how the tokens spell them.
///
/// One word a line; after a tab, where it differs, its spelling: `Dr.<TAB>doctor`. Several lines give a word several spellings. Spaces within
/// a spelling are ignored, and so is a `|` or `▁` at either end, so that token lists (`t h e |`) can be read too. Empty lines and lines that
/// start with `#` are skipped. Casing does not matter in spellings.
#[derive(Debug, Clone)]
pub struct Lexicon {
    path: PathBuf,
    entries: Vec<Entry>,
    /// Spelling in lower case to entry.
    by_spelling: HashMap<String, usize>,
}

impl Lexicon {
    /// Reads a lexicon file.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::LimitExceeded`], and [`Error::Manifest`] with the line and column of what is wrong.
    pub fn open(path: &Path) -> Result<Self> {
        Self::parse(&source::read(path, MAX_BYTES)?, path)
    }

    /// Reads the content of a lexicon file; `path` is its name in errors.
    ///
    /// # Errors
    /// [`Error::Manifest`] with the line and column of what is wrong.
    pub fn parse(text: &str, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut lexicon = Self { path: path.into(), entries: Vec::new(), by_spelling: HashMap::new() };
        for (number, line) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |byte: usize, reason: &str| source::wrong(path, (number, line[..byte].chars().count() + 1), reason);
            let (word, rest) = line.split_once('\t').unwrap_or((line, ""));
            if let Some(at) = word.trim().find(char::is_whitespace) {
                let start = word.len() - word.trim_start().len();
                return Err(wrong(start + at, "one word a line; its spelling, if any, after a tab"));
            }
            if word.trim().is_empty() {
                return Err(wrong(0, "a spelling without a word"));
            }
            let joined: String = rest.split_whitespace().collect();
            let spelling = match joined.trim_matches(['|', '\u{2581}']) {
                "" if joined.is_empty() => word.trim(),
                "" => return Err(wrong(word.len() + 1, "an empty spelling")),
                spelling => spelling,
            };
            if let Some(mark) = spelling.find(['|', '\u{2581}']).filter(|_| !joined.is_empty()) {
                let mark = spelling[mark..].chars().next().unwrap_or('|');
                let at = rest.match_indices(mark).map(|(at, _)| at).find(|&at| !rest[..at].trim_matches(['|', '\u{2581}', ' ']).is_empty());
                return Err(wrong(word.len() + 1 + at.unwrap_or(0), "a spelling is one word: no boundary within it"));
            }
            let entry = Entry { word: word.trim().into(), spelling: spelling.into(), line: number };
            lexicon.add(entry).map_err(|other| {
                let reason = format!("{spelling:?} is the spelling of {:?} (line {}) already", other.word, other.line);
                wrong(if rest.is_empty() { 0 } else { word.len() + 1 }, &reason)
            })?;
        }
        if lexicon.entries.is_empty() {
            return Err(Error::config(path, "the lexicon has no words"));
        }
        Ok(lexicon)
    }

    /// `Err` with the other word of this spelling.
    fn add(&mut self, entry: Entry) -> Result<(), Entry> {
        let key = entry.spelling.to_lowercase();
        match self.by_spelling.get(&key).map(|&at| &self.entries[at]) {
            Some(other) if other.word == entry.word => Ok(()),
            Some(other) => Err(other.clone()),
            None => {
                self.by_spelling.insert(key, self.entries.len());
                self.entries.push(entry);
                Ok(())
            }
        }
    }

    /// Its words in the order of the file.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The file, for errors.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How the word that the tokens spelt is written; what is not in the lexicon comes back as it is.
    pub fn written<'a>(&'a self, spelt: &'a str) -> &'a str {
        self.by_spelling.get(&spelt.to_lowercase()).map_or(spelt, |&at| &self.entries[at].word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_and_spellings() {
        let lexicon = Lexicon::parse("\u{feff}# title\nthe\r\n\nDr.\td o c t o r |\ncolour\tcolor\ncolour\nUS\tu s\n|\n", "l").unwrap();
        let got: Vec<(&str, &str)> = lexicon.entries().iter().map(|e| (&*e.word, &*e.spelling)).collect();
        assert_eq!(got, [("the", "the"), ("Dr.", "doctor"), ("colour", "color"), ("colour", "colour"), ("US", "us"), ("|", "|")]);
        assert_eq!((lexicon.written("Doctor"), lexicon.written("COLOR"), lexicon.written("cat")), ("Dr.", "colour", "cat"));
    }

    #[test]
    fn errors_name_line_and_column() {
        for (text, place) in [
            ("the\na  cat", "l:2: column 2: one word"),
            ("x\nthe\tt | h e", "l:2: column 7: a spelling is one word"),
            ("\tt h e", "l:1: column 1: a spelling without"),
            ("the\t|", "l:1: column 5: an empty"),
            ("us\nUS\tu s", "l:2: column 4: \"us\" is the spelling of \"us\" (line 1) already"),
            ("# nothing", "l: the lexicon has no words"),
        ] {
            let message = Lexicon::parse(text, "l").unwrap_err().to_string();
            assert!(message.starts_with(place), "{message}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[ab|▁#\t \r\né]{0,30}") {
            if let Ok(lexicon) = Lexicon::parse(&text, "l") {
                prop_assert!(lexicon.entries().iter().all(|e| !e.spelling.is_empty() && e.word == lexicon.written(&e.spelling)));
            }
        }
    }
}
