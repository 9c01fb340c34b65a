//! Where transcripts go: names that never collide, files that are whole or absent, and a journal of what is done.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::checkpoint::safetensors_file::write_atomically;
use crate::cli::transcribe::inputs::Input;
use crate::error::{Error, Result};
use crate::pipeline::format::{Format, FormatOptions, write};
use crate::pipeline::transcript::Transcript;

/// Name of the journal in the output folder.
const JOURNAL: &str = ".omniscribe.jsonl";

/// An output path without extension for each input: `b/talk` for `b/talk.mp3`; the extension stays where two would be the same, and a number is
/// added where they still are.
pub fn stems(inputs: &[Input]) -> Vec<PathBuf> {
    let bare = |input: &Input| input.relative.with_extension("");
    let mut count: HashMap<String, usize> = HashMap::new();
    // Folded: some file systems do not tell cases apart.
    let folded = |path: &Path| path.to_string_lossy().to_lowercase();
    inputs.iter().for_each(|input| *count.entry(folded(&bare(input))).or_default() += 1);
    let mut taken = HashSet::new();
    let mut stem = |input: &Input| {
        let first = if count[&folded(&bare(input))] == 1 { bare(input) } else { input.relative.clone() };
        let mut stem = first.clone();
        for number in 2.. {
            if taken.insert(folded(&stem)) {
                break;
            }
            let name = format!("{}-{number}", first.file_name().unwrap_or_default().to_string_lossy());
            stem = first.with_file_name(name);
        }
        stem
    };
    inputs.iter().map(&mut stem).collect()
}

/// A line of the journal.
#[derive(Debug, Serialize, Deserialize)]
struct Done {
    /// SHA-256 of the recording and of the settings.
    key: String,
    input: String,
    outputs: Vec<String>,
}

/// A folder of transcripts.
#[derive(Debug)]
pub struct OutputFolder {
    folder: PathBuf,
    formats: Vec<Format>,
    options: FormatOptions,
    /// Hash of everything but the recording that the outputs depend on.
    settings: Sha256,
    done: HashMap<String, Vec<String>>,
    journal: File,
}

impl OutputFolder {
    /// Creates the folder if need be and reads its journal; `settings` names model, decoder and whatever else changes a transcript.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn open(folder: &Path, formats: &[Format], options: &FormatOptions, settings: &str) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        let path = folder.join(JOURNAL);
        let text = match std::fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(Error::io(&path, error)),
        };
        // A line that a kill cut short says nothing; the next one must not be joined to it.
        let done = text.lines().filter_map(|line| serde_json::from_str::<Done>(line).ok()).map(|done| (done.key, done.outputs)).collect();
        let mut journal = OpenOptions::new().create(true).append(true).open(&path).map_err(|e| Error::io(&path, e))?;
        if !text.is_empty() && !text.ends_with('\n') {
            journal.write_all(b"\n").map_err(|e| Error::io(&path, e))?;
        }
        let settings = Sha256::new().chain_update(settings).chain_update(format!("{formats:?} {options:?}"));
        Ok(Self { folder: folder.into(), formats: formats.into(), options: *options, settings, done, journal })
    }

    /// Identifies a recording's content together with the settings.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn key(&self, path: &Path) -> Result<String> {
        let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
        let mut hasher = self.settings.clone();
        let mut block = vec![0; 1 << 16];
        loop {
            match file.read(&mut block).map_err(|e| Error::io(path, e))? {
                0 => break,
                n => hasher.update(&block[..n]),
            }
        }
        Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Whether the recording of this key was transcribed to these names before, and all its files are still there.
    pub fn is_done(&self, key: &str, stem: &Path) -> bool {
        let wanted: Vec<String> = self.names(stem);
        self.done.get(key) == Some(&wanted) && wanted.iter().all(|name| self.folder.join(name).is_file())
    }

    /// Writes a transcript in every format, each file whole or not at all, and notes it in the journal.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn write(&mut self, transcript: &Transcript, stem: &Path, key: Option<String>) -> Result<()> {
        let outputs = self.names(stem);
        for (&format, name) in self.formats.iter().zip(&outputs) {
            let path = self.folder.join(name);
            let mut bytes = Vec::new();
            write(transcript, format, &self.options, &mut bytes).map_err(|e| Error::io(&path, e))?;
            write_atomically(&path, &bytes)?;
        }
        let Some(key) = key else { return Ok(()) };
        let path = self.folder.join(JOURNAL);
        let done = Done { key, input: transcript.file.clone(), outputs };
        let line = serde_json::to_string(&done).map_err(|e| Error::io(&path, e.into()))? + "\n";
        self.journal.write_all(line.as_bytes()).and_then(|()| self.journal.flush()).map_err(|e| Error::io(&path, e))
    }

    /// File names below the folder, one for each format.
    fn names(&self, stem: &Path) -> Vec<String> {
        self.formats.iter().map(|format| format!("{}.{}", stem.display(), format.extension())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::segment::Limits;

    fn inputs(relative: &[&str]) -> Vec<Input> {
        relative.iter().enumerate().map(|(i, r)| Input { path: format!("{i}/{r}").into(), relative: r.into() }).collect()
    }

    #[test]
    fn stems_never_collide() {
        let stems = |names: &[&str]| stems(&inputs(names)).iter().map(|s| s.display().to_string()).collect::<Vec<_>>();
        assert_eq!(stems(&["a.mp3", "b/a.wav", "c.d.flac"]), ["a", "b/a", "c.d"]);
        assert_eq!(stems(&["a.mp3", "a.wav", "A.ogg"]), ["a.mp3", "a.wav", "A.ogg"]);
        assert_eq!(stems(&["a.mp3", "a.mp3", "a.mp3", "a.mp3-2.wav"]), ["a.mp3", "a.mp3-2", "a.mp3-3", "a.mp3-2-2"]);
        assert_eq!(stems(&["stdin", "a"]), ["stdin", "a"]);
    }

    #[test]
    fn the_journal_survives_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let audio = folder.path().join("x.wav");
        std::fs::write(&audio, "pretend").unwrap();
        let out = folder.path().join("out");
        let open = |settings: &str| OutputFolder::open(&out, &[Format::Txt, Format::Srt], &FormatOptions::default(), settings).unwrap();
        let mut outputs = open("model 1");
        let key = outputs.key(&audio).unwrap();
        assert!(!outputs.is_done(&key, Path::new("x")));
        outputs.write(&Transcript::new(0.0, Vec::new(), &Limits::segments()), Path::new("x"), Some(key.clone())).unwrap();
        assert!(open("model 1").is_done(&key, Path::new("x")));
        assert!(!open("model 1").is_done(&key, Path::new("y")), "another name is another output");
        assert_ne!(open("model 2").key(&audio).unwrap(), key, "other settings");
        std::fs::write(&audio, "pretenD").unwrap();
        assert_ne!(open("model 1").key(&audio).unwrap(), key, "other content");
        let journal = out.join(JOURNAL);
        let whole = std::fs::read(&journal).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&journal, &whole[..cut]).unwrap();
            let mut outputs = open("model 1");
            assert_eq!(outputs.is_done(&key, Path::new("x")), cut + 1 == whole.len(), "cut at {cut}");
            outputs.write(&Transcript::new(0.0, Vec::new(), &Limits::segments()), Path::new("x"), Some(key.clone())).unwrap();
            assert!(open("model 1").is_done(&key, Path::new("x")), "cut at {cut}");
        }
        std::fs::remove_file(out.join("x.srt")).unwrap();
        assert!(!open("model 1").is_done(&key, Path::new("x")), "a file is gone");
    }
}
