//! The one error type of the library, split by what the caller can do about it.

mod nearest;

use std::path::{Path, PathBuf};

use nearest::nearest;

/// Result with the library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong with input from outside: files, arguments, devices.
///
/// Paths in messages are what the caller named; standard input is `-`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to read or write `path`.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A well-formed file in a container or codec this build does not decode: convert it.
    #[error("{}: unsupported audio: {reason}", path.display())]
    UnsupportedAudio {
        /// The file.
        path: PathBuf,
        /// Container, codec or layout that is not supported.
        reason: String,
    },
    /// The bytes are not what the container promises.
    #[error("{}: corrupt audio{}: {reason}", path.display(), at.map(|s| format!(" at {s:.2} s")).unwrap_or_default())]
    CorruptAudio {
        /// The file.
        path: PathBuf,
        /// Seconds of audio decoded before the damage, where known.
        at: Option<f64>,
        /// What is wrong.
        reason: String,
    },
    /// A bound that protects memory or time was passed.
    #[error("{what}: {got} is over the limit of {limit}")]
    LimitExceeded {
        /// What is bounded, with its unit.
        what: String,
        /// The bound.
        limit: u64,
        /// What was asked for.
        got: u64,
    },
    /// A configuration that cannot be parsed or breaks a rule (`reason` names field, value and rule).
    #[error("{}: {reason}", path.display())]
    Config {
        /// The configuration file, or a name for one given in code.
        path: PathBuf,
        /// Field, value, rule.
        reason: String,
    },
    /// A manifest or corpus line that cannot be used.
    #[error("{}:{line}: {reason}", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Weights that do not fit the model.
    #[error("{}: {}", path.display(), checkpoint_reason(missing, unused, mismatched))]
    Checkpoint {
        /// The weights file.
        path: PathBuf,
        /// Parameters the model has and the file lacks.
        missing: Vec<String>,
        /// Tensors of the file that no parameter takes.
        unused: Vec<String>,
        /// Tensors with another shape or type, with both sides spelled out.
        mismatched: Vec<String>,
    },
    /// A file written by another version of the format.
    #[error("{}: format version {found}, this build reads {supported}", path.display())]
    FormatVersion {
        /// The file.
        path: PathBuf,
        /// Version in the file.
        found: u32,
        /// Version this build reads.
        supported: u32,
    },
    /// A tokenizer file or text it cannot handle.
    #[error("{}: tokenizer: {reason}", path.display())]
    Tokenizer {
        /// The tokenizer file, or a name for one built in code.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The device asked for is not there.
    #[error("device {requested} is not available (available: {available})")]
    DeviceUnavailable {
        /// What was asked for.
        requested: String,
        /// What there is.
        available: String,
    },
    /// A file could not be fetched, or is not what its server states.
    #[error("{what}: {reason}")]
    Download {
        /// Its address.
        what: String,
        /// What went wrong.
        reason: String,
    },
    /// A server refused a request.
    #[error("{url}: the server answers {status}{}", status_hint(*status))]
    Refused {
        /// What was asked for.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// Training cannot go on (no usable data, the loss is not finite).
    #[error("training: {reason}")]
    Training {
        /// What happened and where.
        reason: String,
    },
}

impl Error {
    /// An [`Error::Io`] for `path`; made for `map_err(|e| Error::io(path, e))`.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_path_buf(), source }
    }

    /// An [`Error::Config`] for `path` with the rule that is broken.
    pub fn config(path: impl AsRef<Path>, reason: impl Into<String>) -> Self {
        Self::Config { path: path.as_ref().to_path_buf(), reason: reason.into() }
    }
}

fn status_hint(status: u16) -> &'static str {
    match status {
        401 | 403 => ": a private or gated repository; accept its terms on the hub and set HF_TOKEN",
        404 => ": no such repository, revision or file",
        429 => ": too many requests, try again later",
        _ => "",
    }
}

fn checkpoint_reason(missing: &[String], unused: &[String], mismatched: &[String]) -> String {
    let mut parts = Vec::new();
    for (what, names, others) in [("missing", missing, unused), ("unused", unused, missing), ("mismatched", mismatched, &[])] {
        if let Some(first) = names.first() {
            let near = nearest(first, others.iter().map(String::as_str)).map_or_else(String::new, |n| format!(" (nearest: {n})"));
            let more = if names.len() > 1 { format!(" and {} more", names.len() - 1) } else { String::new() };
            parts.push(format!("{what} {first}{near}{more}"));
        }
    }
    if parts.is_empty() { "weights do not fit the model".into() } else { parts.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoint_errors_name_the_first_of_each_kind() {
        let e = Error::Checkpoint {
            path: "w.safetensors".into(),
            missing: vec!["a".into(), "b".into()],
            unused: vec![],
            mismatched: vec!["c: [2] in the file, [3] in the model".into()],
        };
        assert_eq!(e.to_string(), "w.safetensors: missing a and 1 more; mismatched c: [2] in the file, [3] in the model");
    }
}
