//! What a model folder's files hash to, where they come from and under which terms: `manifest.json`.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::checkpoint::directory::{CONFIG, TOKENIZER, WEIGHTS};
use crate::checkpoint::limits::{is_plain_name, read_json, read_small};
use crate::checkpoint::safetensors_file::write_atomically;
use crate::error::{Error, Result};

/// Name of the file.
pub const MANIFEST: &str = "manifest.json";
const VERSION: u32 = 1;

/// The content of `manifest.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the file.
    pub format_version: u32,
    /// What the model was made of, in words.
    pub source: String,
    /// Its licence, if known.
    pub licence: Option<String>,
    /// Its files.
    pub files: BTreeMap<String, FileRecord>,
}

/// A file of the folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Its size.
    pub bytes: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

impl Manifest {
    /// Hashes a folder's configuration, tokenizer and weights, and writes the manifest beside them.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn write(folder: &Path, source: impl Into<String>, licence: Option<String>) -> Result<()> {
        let mut files = BTreeMap::new();
        for name in [CONFIG, TOKENIZER, WEIGHTS] {
            files.insert(name.to_string(), FileRecord::of(&folder.join(name))?);
        }
        let manifest = Self { format_version: VERSION, source: source.into(), licence, files };
        let path = folder.join(MANIFEST);
        let mut json = serde_json::to_string_pretty(&manifest).map_err(|e| Error::config(&path, e.to_string()))?;
        json.push('\n');
        write_atomically(&path, json.as_bytes())
    }

    /// The manifest of a folder, if it has one.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Config`], [`Error::FormatVersion`]
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(MANIFEST);
        if !path.exists() {
            return Ok(None);
        }
        let manifest: Self = serde_json::from_value(read_json(&path)?).map_err(|e| Error::config(&path, e.to_string()))?;
        if manifest.format_version != VERSION {
            return Err(Error::FormatVersion { path, found: manifest.format_version, supported: VERSION });
        }
        Ok(Some(manifest))
    }

    /// Names of files that are not what the manifest says.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be read.
    pub fn changed(&self, folder: &Path) -> Result<Vec<String>> {
        let mut changed = Vec::new();
        for (name, record) in &self.files {
            if !is_plain_name(name) || FileRecord::of(&folder.join(name))? != *record {
                changed.push(name.clone());
            }
        }
        Ok(changed)
    }
}

impl FileRecord {
    fn of(path: &Path) -> Result<Self> {
        let io = |e| Error::io(path, e);
        let mut file = std::fs::File::open(path).map_err(io)?;
        let mut hasher = Sha256::new();
        let mut piece = vec![0; 1 << 20];
        let mut bytes = 0;
        loop {
            let count = file.read(&mut piece).map_err(io)?;
            if count == 0 {
                break;
            }
            bytes += count as u64;
            hasher.update(&piece[..count]);
        }
        Ok(Self { bytes, sha256: hasher.finalize().iter().map(|b| format!("{b:02x}")).collect() })
    }
}

/// The licence of what lies at `path`: of its manifest, or of the head of its `README.md` as the hub writes it.
pub fn licence_of(path: &Path) -> Option<String> {
    if let Ok(Some(Manifest { licence: Some(licence), .. })) = Manifest::read(path) {
        return Some(licence);
    }
    let text = String::from_utf8(read_small(&path.join("README.md")).ok()?).ok()?;
    let head = text.strip_prefix("---\n")?.split("\n---").next()?;
    let field = |key: &str| head.lines().find_map(|l| l.strip_prefix(key)).map(|v| v.trim().trim_matches(['"', '\'']).to_string());
    field("license_name:").or_else(|| field("license:"))
}

/// What a licence forbids that people must know, in words; `None` for licences without such a limit and for unknown ones.
pub fn restriction(licence: &str) -> Option<&'static str> {
    let licence = licence.to_ascii_lowercase();
    if licence.starts_with("apple-amlr") {
        Some("research only: apple-amlr forbids commercial use and any product or service")
    } else if licence.contains("-nc-") || licence.ends_with("-nc") {
        Some("non-commercial use only")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for name in [CONFIG, TOKENIZER, WEIGHTS] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        assert_eq!(Manifest::read(folder.path()).unwrap(), None);
        Manifest::write(folder.path(), "a test", Some("cc-by-4.0".into())).unwrap();
        let manifest = Manifest::read(folder.path()).unwrap().unwrap();
        assert!(manifest.changed(folder.path()).unwrap().is_empty());
        std::fs::write(folder.path().join(WEIGHTS), "else").unwrap();
        assert_eq!(manifest.changed(folder.path()).unwrap(), [WEIGHTS]);
        assert_eq!(licence_of(folder.path()).as_deref(), Some("cc-by-4.0"));
    }

    #[test]
    fn licences_of_model_cards() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("README.md"), "---\nlanguage: en\nlicense: other\nlicense_name: apple-amlr\n---\n# A model\n")
            .unwrap();
        let licence = licence_of(folder.path()).unwrap();
        assert!(restriction(&licence).unwrap().contains("research only"));
        assert!(restriction("cc-by-nc-4.0").is_some() && restriction("cc-by-4.0").is_none() && restriction("mit").is_none());
    }
}
