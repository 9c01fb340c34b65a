//! Closed grammars: a command set written as rules, of which every answer is a sentence.
//!
//! ```text
//! #JSGF V1.0;
//! grammar lights;
//! <room>  = kitchen | living room;
//! public <command> = [please] turn (on | off) the light [in the <room>] | /0.1/ stop;
//! ```
//!
//! A part of the Java Speech Grammar Format: words (or `"quoted words"`), alternatives `|`, groups `( )`, options `[ ]`, repetition `*` (any
//! number of times) and `+` (at least once), references `<rule>` to rules of the same file, weights `/w/` before alternatives, `<NULL>`,
//! `<VOID>`, comments `//` and `/* */`; the two header lines may be missing and tags `{..}` are skipped. A sentence is what any `public` rule
//! gives. Rules may not refer to themselves. An alternative adds `ln(w / the largest w beside it)` to the score, one without weight has 1; of
//! several ways to a sentence the best counts.

mod automaton;
mod lexer;
mod parser;

use std::path::{Path, PathBuf};

pub(super) use automaton::{Automaton, START};

use super::source;
use crate::error::Result;
use parser::Rule;

/// Most bytes of a grammar file.
const MAX_BYTES: u64 = 16 << 20;

/// A grammar as it is written; a search makes an automaton of it.
#[derive(Debug, Clone)]
pub struct Grammar {
    path: PathBuf,
    rules: Vec<Rule>,
}

/// A part of a rule.
#[derive(Debug, Clone)]
enum Expansion {
    Word {
        text: String,
        at: Place,
    },
    /// A rule by number.
    Rule {
        rule: usize,
        at: Place,
    },
    Sequence(Vec<Expansion>),
    /// With a weight each.
    Alternatives(Vec<(f32, Expansion)>),
    Optional(Box<Expansion>),
    Repeat {
        least: Least,
        body: Box<Expansion>,
    },
    /// No sentence at all.
    Void,
}

/// How often a repeated part is said at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Least {
    Never,
    Once,
}

/// Line and column, from 1.
type Place = (usize, usize);

impl Grammar {
    /// Reads a grammar file.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), [`Error::LimitExceeded`](crate::Error::LimitExceeded), and
    /// [`Error::Manifest`](crate::Error::Manifest) with the line and column of what is wrong.
    pub fn open(path: &Path) -> Result<Self> {
        Self::parse(&source::read(path, MAX_BYTES)?, path)
    }

    /// Reads the content of a grammar file; `path` is its name in errors.
    ///
    /// # Errors
    /// [`Error::Manifest`](crate::Error::Manifest) with the line and column of what is wrong.
    pub fn parse(text: &str, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let rules = parser::parse(text).map_err(|(at, reason)| source::wrong(path, at, reason))?;
        Ok(Self { path: path.into(), rules })
    }
}
