//! Which model is meant, and whether it is still the same.

use std::path::{Path, PathBuf};

use crate::checkpoint::hub::Hub;
use crate::error::{Error, Result};
use crate::pipeline::transcriber::Transcriber;

/// Name of the model that is used when none is named.
const DEFAULT_MODEL: &str = "base";

/// The model: `named` (a folder, a `.nemo` file, or the name of a repository in the hub's cache), else `$OMNISCRIBE_MODEL`, else `models/base` under the current folder, the program's or one above it.
///
/// # Errors
/// [`Error::Config`] with the places that were looked at.
pub fn find_model(named: Option<&Path>) -> Result<PathBuf> {
    let set = std::env::var_os("OMNISCRIBE_MODEL").map(PathBuf::from);
    if let Some(path) = named.map(Path::to_path_buf).or(set) {
        if path.exists() {
            return Ok(path);
        }
        let pulled = path.to_str().and_then(|name| Hub::from_environment().ok()?.cached(name, "main"));
        return Ok(pulled.unwrap_or(path));
    }
    let program = std::env::current_exe().ok();
    let above = program.iter().flat_map(|p| p.ancestors().skip(1).take(4));
    let places: Vec<PathBuf> = std::iter::once(Path::new("")).chain(above).map(|p| p.join("models").join(DEFAULT_MODEL)).collect();
    let found = places.iter().find(|p| p.join("config.json").is_file());
    found.cloned().ok_or_else(|| {
        let looked: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
        Error::config("model", format!("no model folder at {}: name one with --model", looked.join(", ")))
    })
}

impl Transcriber {
    /// Identifies a model folder, without reading all its weights: name, sizes and times of its files.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn fingerprint(folder: &Path) -> Result<String> {
        let io = |e| Error::io(folder, e);
        if folder.is_file() {
            let metadata = folder.metadata().map_err(io)?;
            return Ok(format!("{} {:?}", metadata.len(), metadata.modified().map_err(io)?));
        }
        let mut files: Vec<_> = std::fs::read_dir(folder).map_err(io)?.collect::<std::io::Result<_>>().map_err(io)?;
        files.sort_by_key(std::fs::DirEntry::file_name);
        let mut text = String::new();
        for file in files {
            let metadata = file.metadata().map_err(io)?;
            text += &format!("{:?} {} {:?}, ", file.file_name(), metadata.len(), metadata.modified().map_err(io)?);
        }
        Ok(text)
    }
}
