//! Bounds that keep a hostile model file from taking memory or time.

use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};

/// Bytes of a safetensors header. That of a model with 1700 tensors takes 0.2 MB.
pub(super) const SAFETENSORS_HEADER: u64 = 8 << 20;
/// Bytes of the pickle inside a torch archive. That of a model with 1700 tensors takes 0.3 MB.
pub(super) const PICKLE: usize = 4 << 20;
/// Tuples, dictionaries, storages and tensors in a pickle; seven for each tensor.
pub(super) const PICKLE_OBJECTS: usize = 200_000;
/// Files in a torch or tar archive.
pub(super) const ARCHIVE_FILES: usize = 50_000;
/// Bytes of a JSON, YAML or tokenizer file. The largest vocabularies in use (250,000 pieces) take 17 MB.
pub(super) const TEXT: u64 = 24 << 20;
/// Files of a sharded set.
pub(super) const MOST_SHARDS: usize = 1000;

/// Reads a small file.
///
/// # Errors
/// [`Error::Io`], [`Error::LimitExceeded`]
pub fn read_small(path: &Path) -> Result<Vec<u8>> {
    let io = |e| Error::io(path, e);
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(io)?;
    if !file.metadata().map_err(io)?.is_file() {
        return Err(io(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file")));
    }
    file.take(TEXT + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > TEXT {
        return Err(Error::LimitExceeded { what: format!("{}: bytes", path.display()), limit: TEXT, got: bytes.len() as u64 });
    }
    Ok(bytes)
}

/// Reads a small JSON file.
///
/// # Errors
/// As [`read_small`]; [`Error::Config`] if it is no JSON.
pub fn read_json(path: &Path) -> Result<serde_json::Value> {
    serde_json::from_slice(&read_small(path)?).map_err(|e| Error::config(path, e.to_string()))
}

/// Whether `name` is the name of a file and no path: it cannot lead out of its folder.
pub fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_files_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        std::fs::write(&path, "{\"a\": 1}").unwrap();
        assert_eq!(read_json(&path).unwrap()["a"], 1);
        // Sparse: takes no space on disk.
        std::fs::File::create(&path).unwrap().set_len(TEXT + 5).unwrap();
        assert!(matches!(read_json(&path), Err(Error::LimitExceeded { .. })));
        assert!(matches!(read_small(folder.path()), Err(Error::Io { .. })));
    }

    #[test]
    fn names_cannot_climb() {
        assert!(is_plain_name("model-00001-of-00003.safetensors"));
        for bad in ["", ".", "..", "../x", "a/b", "/etc/passwd", "a\\b"] {
            assert!(!is_plain_name(bad), "{bad}");
        }
    }
}
