//! Which files are meant: names, folders, patterns, and one shard of all of them.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{Error, Result};

/// Extensions by which a folder's files are taken for recordings; a file named by itself is tried whatever its name.
const EXTENSIONS: [&str; 29] = [
    "wav", "wave", "flac", "mp3", "mp2", "ogg", "oga", "opus", "webm", "mkv", "mka", "m4a", "m4b", "mp4", "mov", "aac", "alac", "aif",
    "aiff", "aifc", "caf", "au", "snd", "sph", "wv1", "wv2", "rf64", "w64", "mpga",
];

/// A file to transcribe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Where it is; `-` is standard input.
    pub path: PathBuf,
    /// Its place below the folder it was found in, or its name: what outputs are named after.
    pub relative: PathBuf,
}

/// Looks into folders for recordings, and how far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Their own files.
    Flat,
    /// The files of all folders below, too.
    Recursive,
}

/// A part of the files, for one of several machines: `i/n` with `1 <= i <= n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let parts = text.split_once('/').and_then(|(i, n)| Some((i.trim().parse().ok()?, n.trim().parse().ok()?)));
        match parts {
            Some((index, count)) if (1..=count).contains(&index) => Ok(Self { index, count }),
            _ => Err(format!("{text:?} is not i/n with 1 <= i <= n")),
        }
    }
}

impl Shard {
    /// Every `count`th of the inputs, so that neighbours (often of like length) are spread over the shards.
    pub fn of<T>(self, inputs: Vec<T>) -> Vec<T> {
        inputs.into_iter().skip(self.index - 1).step_by(self.count).collect()
    }
}

/// Finds the files that `arguments` mean, each once, those of a folder or pattern in the order of their names.
///
/// # Errors
/// [`Error::Io`] for a folder that cannot be read, [`Error::Config`] for a pattern that is none or meets no file, or a folder without recordings.
pub fn expand(arguments: &[PathBuf], depth: Depth) -> Result<Vec<Input>> {
    let mut inputs: Vec<Input> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for argument in arguments {
        for input in expand_one(argument, depth)? {
            if seen.insert(input.path.clone()) {
                inputs.push(input);
            }
        }
    }
    Ok(inputs)
}

fn expand_one(argument: &Path, depth: Depth) -> Result<Vec<Input>> {
    let named = |path: PathBuf| Input { relative: path.file_name().map_or_else(|| "audio".into(), PathBuf::from), path };
    if argument.is_dir() {
        let mut found = Vec::new();
        list(argument, argument, depth, &mut found)?;
        found.sort_by(|a, b| a.path.cmp(&b.path));
        if found.is_empty() {
            let hint = if depth == Depth::Flat { "; folders below it are looked into with --recursive" } else { "" };
            return Err(Error::config(
                argument,
                format!("no file in this folder has the name of a recording (.wav, .mp3, .flac, ..){hint}"),
            ));
        }
        return Ok(found);
    }
    let text = argument.to_string_lossy();
    if argument.exists() || !text.contains(['*', '?', '[']) {
        let name = if text == "-" { "stdin".into() } else { argument.to_path_buf() };
        return Ok(vec![Input { path: argument.to_path_buf(), ..named(name) }]);
    }
    let matches = glob::glob(&text).map_err(|e| Error::config(argument, format!("not a pattern: {e}")))?;
    let mut found = Vec::new();
    for path in matches {
        let path = path.map_err(|e| Error::io(e.path(), std::io::Error::other(e.to_string())))?;
        if path.is_file() {
            found.push(named(path));
        }
    }
    if found.is_empty() {
        return Err(Error::config(argument, "no file matches this pattern"));
    }
    Ok(found)
}

fn list(folder: &Path, root: &Path, depth: Depth, found: &mut Vec<Input>) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        // A link to a folder is not followed: it may lead back up.
        let kind = std::fs::symlink_metadata(&path).map_err(|e| Error::io(&path, e))?;
        if kind.is_dir() {
            if depth == Depth::Recursive {
                list(&path, root, depth, found)?;
            }
        } else if is_recording(&path) && path.is_file() {
            found.push(Input { relative: path.strip_prefix(root).unwrap_or(&path).to_path_buf(), path });
        }
    }
    Ok(())
}

fn is_recording(path: &Path) -> bool {
    let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("b/c")).unwrap();
        for name in ["z.wav", "a.MP3", "notes.txt", "b/a.mp3", "b/c/d.flac"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        folder
    }

    fn names(inputs: &[Input]) -> Vec<String> {
        inputs.iter().map(|i| i.relative.display().to_string()).collect()
    }

    #[test]
    fn folders_patterns_and_names() {
        let folder = folder();
        let root = folder.path().to_path_buf();
        assert_eq!(names(&expand(std::slice::from_ref(&root), Depth::Flat).unwrap()), ["a.MP3", "z.wav"]);
        assert_eq!(names(&expand(std::slice::from_ref(&root), Depth::Recursive).unwrap()), ["a.MP3", "b/a.mp3", "b/c/d.flac", "z.wav"]);
        assert_eq!(
            names(&expand(&[root.join("*.wav"), root.join("z.wav"), root.join("*.txt")], Depth::Flat).unwrap()),
            ["z.wav", "notes.txt"]
        );
        let missing = expand(&[root.join("missing.wav")], Depth::Flat).unwrap();
        assert_eq!(missing[0].path, root.join("missing.wav"), "a missing file is the transcriber's error, beside the good ones");
        assert_eq!(expand(&["-".into()], Depth::Flat).unwrap()[0], Input { path: "-".into(), relative: "stdin".into() });
        for (bad, says) in [("b", "--recursive"), ("*.ogg", "no file matches"), ("[z", "not a pattern")] {
            let empty = root.join(bad);
            if bad == "b" {
                std::fs::remove_file(root.join("b/a.mp3")).unwrap();
            }
            assert!(expand(&[empty], Depth::Flat).unwrap_err().to_string().contains(says), "{bad}");
        }
    }

    #[test]
    fn shards_cover_everything_once() {
        let inputs: Vec<Input> = (0..10).map(|i| Input { path: i.to_string().into(), relative: i.to_string().into() }).collect();
        let mut all: Vec<Input> = (1..=3).flat_map(|i| Shard { index: i, count: 3 }.of(inputs.clone())).collect();
        all.sort_by(|a, b| a.path.cmp(&b.path));
        assert_eq!(all, inputs);
        assert_eq!("2/3".parse(), Ok(Shard { index: 2, count: 3 }));
        for bad in ["0/3", "4/3", "1", "a/b", "1/0", "-1/3"] {
            assert!(bad.parse::<Shard>().is_err(), "{bad}");
        }
    }
}
