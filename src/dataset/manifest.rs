//! NeMo-style manifests: one JSON object per line, `{audio_filepath, duration, text[, offset, lang, accent, speaker, set, kind]}`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};

/// Whether a line may lack `text`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextRule {
    /// Transcribed speech: a line without `text` is an error (an empty one is not).
    Required,
    /// Noise and impulse responses: a missing `text` is empty.
    Optional,
}

/// One line of a manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The audio file; a relative path in the manifest is taken from the manifest's folder.
    pub audio: PathBuf,
    /// Start of the clip within the file, seconds; `None` where the line has no `offset`.
    pub offset: Option<f64>,
    /// Length of the clip, seconds, > 0.
    pub duration: f64,
    /// What is said, as published.
    pub text: String,
    /// Language code.
    pub lang: Option<String>,
    /// The speaker's accent.
    pub accent: Option<String>,
    /// Who speaks.
    pub speaker: Option<String>,
    /// Corpus the clip came from; the manifest's file name without extension where the line does not say.
    pub set: String,
    /// What the sound is, in manifests of noise (`noise`, `rir`).
    pub kind: Option<String>,
    /// Line number, from 1.
    pub line: usize,
}

/// A line as written. Other keys (licence, source, ...) are allowed: manifests are shared between tools.
#[derive(Deserialize)]
struct Line {
    audio_filepath: String,
    duration: f64,
    text: Option<String>,
    offset: Option<f64>,
    lang: Option<String>,
    accent: Option<String>,
    speaker: Option<String>,
    set: Option<String>,
    kind: Option<String>,
}

/// Reads a manifest. Blank lines are skipped; audio files are not looked at.
///
/// # Errors
/// - [`Error::Io`]: the manifest cannot be read
/// - [`Error::Manifest`]: a line is not a JSON object of this form, or its times are out of range; names the line
pub fn read(path: &Path, rule: TextRule) -> Result<Vec<Entry>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    parse(path, &text, rule)
}

/// [`read`] from memory; `path` serves the messages, relative audio paths and the default set name.
///
/// # Errors
/// [`Error::Manifest`] as [`read`].
pub fn parse(path: &Path, text: &str, rule: TextRule) -> Result<Vec<Entry>> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let set_of_file = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let lines = text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let entry = |(i, line): (usize, &str)| {
        let refuse = |reason: String| Error::Manifest { path: path.to_path_buf(), line: i + 1, reason };
        let line: Line = serde_json::from_str(line).map_err(|e| refuse(json_reason(&e)))?;
        if line.audio_filepath.is_empty() {
            return Err(refuse("audio_filepath is empty".into()));
        }
        if !(line.duration > 0.0 && line.duration.is_finite()) {
            return Err(refuse(format!("duration = {}: must be over 0 seconds", line.duration)));
        }
        if let Some(offset) = line.offset.filter(|&o| !(o >= 0.0 && o.is_finite())) {
            return Err(refuse(format!("offset = {offset}: must be 0 seconds or more")));
        }
        let text = match (line.text, rule) {
            (Some(text), _) => text,
            (None, TextRule::Optional) => String::new(),
            (None, TextRule::Required) => return Err(refuse("missing field `text`".into())),
        };
        Ok(Entry {
            audio: folder.join(line.audio_filepath),
            offset: line.offset,
            duration: line.duration,
            text,
            lang: line.lang,
            accent: line.accent,
            speaker: line.speaker,
            set: line.set.unwrap_or_else(|| set_of_file.clone()),
            kind: line.kind,
            line: i + 1,
        })
    };
    lines.map(entry).collect()
}

/// serde_json's message with the column only: its line number is always 1 here.
fn json_reason(e: &serde_json::Error) -> String {
    let text = e.to_string();
    match text.rsplit_once(" at line ") {
        Some((what, _)) if e.column() > 0 => format!("{what} (column {})", e.column()),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(text: &str) -> String {
        parse(Path::new("dir/m.jsonl"), text, TextRule::Required).unwrap_err().to_string()
    }

    #[test]
    fn reads_lines_with_extras_and_resolves_paths() {
        let text = "\u{feff}{\"audio_filepath\":\"a/x.wav\",\"duration\":1.5,\"text\":\"hi\",\"licence\":\"CC0\"}\n\n\
                    {\"audio_filepath\":\"/abs/y.wav\",\"duration\":2,\"text\":\"\",\"offset\":0.25,\"lang\":\"en\",\"accent\":\"irish\",\"speaker\":\"s\",\"set\":\"t\"}\r\n";
        let entries = parse(Path::new("dir/m.jsonl"), text, TextRule::Required).unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!((entries[0].audio.as_path(), entries[0].set.as_str(), entries[0].line), (Path::new("dir/a/x.wav"), "m", 1));
        assert_eq!((entries[1].audio.as_path(), entries[1].offset, entries[1].line), (Path::new("/abs/y.wav"), Some(0.25), 3));
        assert_eq!((entries[0].accent.as_deref(), entries[1].accent.as_deref()), (None, Some("irish")));
        assert_eq!((entries[1].lang.as_deref(), entries[1].speaker.as_deref(), entries[1].set.as_str()), (Some("en"), Some("s"), "t"));
    }

    #[test]
    fn errors_name_file_line_and_rule() {
        let good = "{\"audio_filepath\":\"a\",\"duration\":1,\"text\":\"\"}\n";
        for (bad, says) in [
            ("{\"audio_filepath\":\"a\",\"duration\":1}", "dir/m.jsonl:2: missing field `text`"),
            ("{\"duration\":1,\"text\":\"\"}", "dir/m.jsonl:2: missing field `audio_filepath` (column 24)"),
            ("{\"audio_filepath\":\"a\",\"duration\":0,\"text\":\"\"}", "dir/m.jsonl:2: duration = 0: must be over 0 seconds"),
            ("{\"audio_filepath\":\"a\",\"duration\":-1,\"text\":\"\"}", "duration = -1"),
            ("{\"audio_filepath\":\"\",\"duration\":1,\"text\":\"\"}", "audio_filepath is empty"),
            ("{\"audio_filepath\":\"a\",\"duration\":1,\"text\":\"\",\"offset\":-0.5}", "offset = -0.5"),
            ("{\"audio_filepath\":\"a\",\"duration\":\"1\",\"text\":\"\"}", "invalid type: string \"1\""),
            ("{\"audio_filepath\":\"a\",\"duration\":1,\"duration\":1,\"text\":\"\"}", "duplicate field `duration`"),
            ("{\"audio_filepath\":\"a\"", "dir/m.jsonl:2: EOF while parsing an object"),
            ("[1]", "dir/m.jsonl:2: "),
            ("{} x", "dir/m.jsonl:2: "),
        ] {
            let said = reason(&format!("{good}{bad}"));
            assert!(said.contains(says), "{bad}: {said}");
        }
        assert!(parse(Path::new("m"), "{\"audio_filepath\":\"a\",\"duration\":1}", TextRule::Optional).is_ok());
        assert!(matches!(read(Path::new("/nonexistent/m.jsonl"), TextRule::Required), Err(Error::Io { .. })));
    }
}
