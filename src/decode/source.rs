//! Text files that users write for a decoder: word lists, grammars, phrases.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};

/// Reads a UTF-8 file of at most `most` bytes.
///
/// # Errors
/// [`Error::Io`], [`Error::LimitExceeded`]
pub(super) fn read(path: &Path, most: u64) -> Result<String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    file.take(most + 1).read_to_string(&mut text).map_err(|e| Error::io(path, e))?;
    if text.len() as u64 > most {
        return Err(Error::LimitExceeded { what: format!("{}: bytes", path.display()), limit: most, got: text.len() as u64 });
    }
    Ok(text)
}

/// An error at a place of a file; line and column (in characters) from 1.
pub(super) fn wrong(path: &Path, (line, column): (usize, usize), reason: impl std::fmt::Display) -> Error {
    Error::Manifest { path: path.into(), line, reason: format!("column {column}: {reason}") }
}
