//! Index files and folders: reading text of any usual encoding, finding audio, tables of tabs, XML.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::{Rules, Split};
use crate::error::{Error, Result};

/// Most bytes of one index file, unpacked: twice the largest published ones.
const MOST_BYTES: u64 = 1 << 30;
/// Most files and folders looked at under a root; the largest corpora here have some 100,000.
const MOST_ENTRIES: usize = 2_000_000;
/// Deepest folder looked into.
const MOST_DEPTH: usize = 16;
/// Most bytes read of a line that tells what a file is: cuts with many words in them are long.
const MOST_FIRST_LINE: u64 = 16 << 20;
/// Names shown when a folder is not what it should be.
const SHOWN: usize = 8;

/// Extensions of audio files, in the order they are tried.
const AUDIO: [&str; 22] = [
    "wav", "flac", "sph", "wv1", "mp3", "ogg", "opus", "oga", "m4a", "mp4", "aac", "webm", "mka", "mkv", "aiff", "aif", "aifc", "au",
    "snd", "caf", "w64", "mp2",
];

/// Opens a file, gzipped or not.
fn open(path: &Path) -> std::io::Result<Box<dyn Read>> {
    let mut file = File::open(path)?;
    let mut head = Vec::new();
    file.by_ref().take(2).read_to_end(&mut head)?;
    let zipped = head == [0x1f, 0x8b];
    let whole = std::io::Cursor::new(head).chain(file);
    Ok(if zipped { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) })
}

/// Reads a text file, gzipped or not: UTF-8 with or without a byte order mark, else Latin-1.
///
/// # Errors
/// [`Error::Io`], [`Error::LimitExceeded`].
pub(super) fn read_text(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    let read = open(path).and_then(|stream| stream.take(MOST_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|e| Error::io(path, e))?;
    if bytes.len() as u64 > MOST_BYTES {
        let what = format!("{}: bytes of an index file", path.display());
        return Err(Error::LimitExceeded { what, limit: MOST_BYTES, got: bytes.len() as u64 });
    }
    let text = String::from_utf8(bytes).unwrap_or_else(|e| e.as_bytes().iter().map(|&b| char::from(b)).collect());
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_string(),
        None => text,
    })
}

/// The lines of a text with their numbers from 1, but for blank ones.
pub(super) fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(i, line)| (i + 1, line)).filter(|(_, line)| !line.trim().is_empty())
}

/// All files under `root` in order of their paths; links are followed once.
///
/// # Errors
/// [`Error::Io`] where a folder cannot be read, [`Error::LimitExceeded`].
pub(super) fn walk(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut linked = HashSet::new();
    let mut waiting = vec![(root.to_path_buf(), 0)];
    let mut seen = 0;
    while let Some((folder, depth)) = waiting.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|e| Error::io(&folder, e))? {
            let entry = entry.map_err(|e| Error::io(&folder, e))?;
            seen += 1;
            if seen > MOST_ENTRIES {
                let what = format!("{}: files and folders", root.display());
                return Err(Error::LimitExceeded { what, limit: MOST_ENTRIES as u64, got: seen as u64 });
            }
            let path = entry.path();
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            if !path.is_dir() {
                found.push(path);
            } else if depth < MOST_DEPTH && (!is_link || path.canonicalize().is_ok_and(|real| linked.insert(real))) {
                waiting.push((path, depth + 1));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// What lies under `root`, in words.
///
/// # Errors
/// [`Error::Io`] where there is no such folder.
pub(super) fn describe(root: &Path) -> Result<String> {
    if std::fs::metadata(root).map_err(|e| Error::io(root, e))?.is_file() {
        return Ok("a file".into());
    }
    let mut names = names_in(root)?;
    let more = names.len().saturating_sub(SHOWN);
    names.truncate(SHOWN);
    Ok(match (names.is_empty(), more) {
        (true, _) => "an empty folder".into(),
        (_, 0) => names.join(", "),
        _ => format!("{} and {more} more", names.join(", ")),
    })
}

/// Names in a folder, sorted; folders end with a slash. A file has none.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn names_in(folder: &Path) -> Result<Vec<String>> {
    if folder.is_file() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let entry = entry.map_err(|e| Error::io(folder, e))?;
        let slash = if entry.path().is_dir() { "/" } else { "" };
        names.push(format!("{}{slash}", entry.file_name().to_string_lossy()));
    }
    names.sort();
    Ok(names)
}

/// The first of `root` joined with each of `places` that exists.
pub(super) fn first_of(root: &Path, places: &[&str]) -> Option<PathBuf> {
    places.iter().map(|place| if place.is_empty() { root.to_path_buf() } else { root.join(place) }).find(|path| path.exists())
}

/// Name of a file in lower case.
pub(super) fn lower_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().to_lowercase()
}

/// Name of a file without its extension.
pub(super) fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether the extension is one of audio.
pub(super) fn is_audio(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    AUDIO.contains(&extension.as_str())
}

/// The audio file of that name, with the first extension that exists; else with `extension`, for the message.
pub(super) fn audio_named(folder: &Path, name: &str, extension: &str) -> PathBuf {
    let with = |extension: &str| folder.join(format!("{name}.{extension}"));
    let wanted = with(extension);
    if wanted.is_file() {
        return wanted;
    }
    AUDIO.iter().map(|e| with(e)).find(|path| path.is_file()).unwrap_or(wanted)
}

/// A relative path of a manifest: from the manifest's folder, one of the folders above it, or the working folder.
pub(super) fn resolve(folder: &Path, path: &str) -> PathBuf {
    let given = Path::new(path);
    let near = folder.join(given);
    if given.is_absolute() || near.exists() {
        return near;
    }
    folder.ancestors().skip(1).map(|above| above.join(given)).find(|p| p.is_file()).unwrap_or(near)
}

/// The files at `root` that may hold JSON lines: itself, or those of the folder.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn json_lines(root: &Path) -> Result<Vec<PathBuf>> {
    if root.is_file() {
        return Ok(vec![root.into()]);
    }
    let json = |name: &String| [".json", ".jsonl", ".json.gz", ".jsonl.gz"].iter().any(|end| name.to_lowercase().ends_with(end));
    Ok(names_in(root)?.into_iter().filter(json).map(|name| root.join(name)).collect())
}

/// The first line of a file as a JSON object.
pub(super) fn first_object(path: &Path) -> Option<serde_json::Map<String, serde_json::Value>> {
    let mut line = Vec::new();
    let head = open(path).ok()?.take(MOST_FIRST_LINE);
    BufReader::new(head).read_until(b'\n', &mut line).ok()?;
    let line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&line);
    serde_json::from_slice(line).ok()
}

/// The one of several files that is meant: the only one, or the only one named for the split.
///
/// # Errors
/// [`Error::Config`] where that does not tell.
pub(super) fn one_for_split(root: &Path, found: Vec<PathBuf>, rules: &Rules) -> Result<Option<PathBuf>> {
    let split = if rules.split == Split::Dev { "dev" } else { "test" };
    let named: Vec<&PathBuf> = found.iter().filter(|path| lower_name(path).contains(split)).collect();
    match (&found[..], &named[..]) {
        ([], _) => Ok(None),
        ([only], _) => Ok(Some(only.clone())),
        (_, [only]) => Ok(Some((*only).clone())),
        _ => {
            let names: Vec<String> = found.iter().map(|path| lower_name(path)).collect();
            Err(Error::config(root, format!("several manifests, name one: {}", names.join(", "))))
        }
    }
}

/// A table with a header line, its fields parted by tabs; quotation marks are plain characters.
pub(super) struct Table<'a> {
    path: &'a Path,
    header: Vec<&'a str>,
    text: &'a str,
}

impl<'a> Table<'a> {
    pub fn new(path: &'a Path, text: &'a str) -> Self {
        Self { path, header: text.lines().next().unwrap_or_default().split('\t').map(str::trim).collect(), text }
    }

    /// Index of a column.
    ///
    /// # Errors
    /// [`Error::Manifest`] for a table without it.
    pub fn column(&self, name: &str) -> Result<usize> {
        self.header.iter().position(|h| *h == name).ok_or_else(|| {
            let reason = format!("no column {name:?} in the header: {}", self.header.join(", "));
            Error::Manifest { path: self.path.into(), line: 1, reason }
        })
    }

    /// The rows below the header with their line numbers.
    pub fn rows(&self) -> impl Iterator<Item = (usize, Vec<&'a str>)> + use<'a> {
        numbered(self.text).skip(1).map(|(line, row)| (line, row.split('\t').collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn text_of_any_encoding() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.txt");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read_text(&path).unwrap()
        };
        assert_eq!(read("\u{feff}naïve".as_bytes()), "naïve");
        assert_eq!(read(b"na\xefve"), "naïve");
        assert_eq!(read(b""), "");
        let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        zip.write_all("日本".as_bytes()).unwrap();
        let zip = zip.finish().unwrap();
        assert_eq!(read(&zip), "日本");
        // Two members, as `cat a.gz b.gz` makes.
        assert_eq!(read(&[zip.as_slice(), &zip].concat()), "日本日本");
        std::fs::write(&path, &zip[..zip.len() - 9]).unwrap();
        assert!(matches!(read_text(&path), Err(Error::Io { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn walking_survives_loops() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        std::fs::write(folder.path().join("a/x"), "").unwrap();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("a/loop")).unwrap();
        let found = walk(folder.path()).unwrap();
        assert!(found.len() <= 2, "{found:?}");
        assert!(found.contains(&folder.path().join("a/x")), "{found:?}");
    }

    #[test]
    fn folders_are_described_briefly() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(describe(folder.path()).unwrap(), "an empty folder");
        (0..10).for_each(|i| std::fs::write(folder.path().join(format!("{i}.txt")), "").unwrap());
        assert_eq!(describe(folder.path()).unwrap(), "0.txt, 1.txt, 2.txt, 3.txt, 4.txt, 5.txt, 6.txt, 7.txt and 2 more");
        assert!(matches!(describe(&folder.path().join("none")), Err(Error::Io { .. })));
    }
}
