//! A plain folder: `x.flac` beside `x.txt`, at any depth.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::draft::Draft;
use super::{Labels, Layout, ProblemKind, Rules, Utterance, files};
use crate::audio::Channel;
use crate::error::Result;

pub(super) const LAYOUT: Layout = Layout {
    id: "folder",
    looks_for: "audio files with a .txt file of the same name beside them",
    rules: &[],
    present: |root, _| Ok(root.is_dir() && files::walk(root)?.iter().any(|path| files::is_audio(path) && transcript(path).is_file())),
    read,
};

/// Texts about a folder, not of it.
const NOTES: [&str; 6] = ["readme", "license", "licence", "sources", "changelog", "copying"];

fn transcript(audio: &Path) -> PathBuf {
    audio.with_extension("txt")
}

fn read(root: &Path, _: &Rules, draft: &mut Draft) -> Result<()> {
    let (audio, others): (Vec<PathBuf>, Vec<PathBuf>) = files::walk(root)?.into_iter().partition(|path| files::is_audio(path));
    let mut used = HashSet::new();
    for audio in audio {
        let transcript = transcript(&audio);
        let name = audio.strip_prefix(root).unwrap_or(&audio).with_extension("").display().to_string();
        if !transcript.is_file() {
            draft.problem(ProblemKind::MissingTranscript, name, transcript.display().to_string());
            continue;
        }
        let text = files::read_text(&transcript)?;
        used.insert(transcript);
        draft.add(Utterance {
            id: name.clone(),
            audio,
            channel: Channel::Mix,
            start: 0.0,
            end: None,
            reference: text,
            speaker: None,
            set: None,
            labels: Labels::default(),
            recording: name,
            duration: None,
        });
    }
    let is_note = |path: &Path| NOTES.contains(&files::stem(path).to_lowercase().as_str());
    let is_lost = |path: &&PathBuf| path.extension().is_some_and(|e| e == "txt") && !used.contains(*path) && !is_note(path);
    for text in others.iter().filter(is_lost) {
        let name = text.strip_prefix(root).unwrap_or(text).with_extension("").display().to_string();
        draft.problem(ProblemKind::MissingAudio, name, text.display().to_string());
    }
    Ok(())
}
