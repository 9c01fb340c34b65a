//! Hugging Face audio folders: `metadata.csv` or `metadata.jsonl`, with `file_name` and a transcript for each file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::draft::Draft;
use super::{Labels, Layout, ProblemKind, Rules, Split, Utterance, files};
use crate::audio::Channel;
use crate::error::Result;

pub(super) const LAYOUT: Layout = Layout {
    id: "huggingface",
    looks_for: "metadata.csv or metadata.jsonl, in the folder, its test/ (validation/ or dev/ for split = dev) or its data/",
    rules: &["split"],
    present: |root, rules| Ok(metadata(root, rules).is_some()),
    read,
};

/// Columns that may hold the transcript, in the order they are tried.
const TEXTS: [&str; 5] = ["transcription", "text", "sentence", "transcript", "normalized_text"];
/// Columns that may hold the speaker.
const SPEAKERS: [&str; 3] = ["speaker_id", "speaker", "client_id"];

fn metadata(root: &Path, rules: &Rules) -> Option<PathBuf> {
    let splits: &[&str] = if rules.split == Split::Dev { &["validation", "dev"] } else { &["test"] };
    let folders = splits.iter().flat_map(|split| [split.to_string(), format!("data/{split}")]).chain(["".into(), "data".into()]);
    let places: Vec<PathBuf> =
        folders.flat_map(|folder| ["metadata.csv", "metadata.jsonl"].map(|name| root.join(&folder).join(name))).collect();
    places.into_iter().find(|path| path.is_file())
}

/// A row by the names of its columns.
type Record = HashMap<String, String>;

fn read(root: &Path, rules: &Rules, draft: &mut Draft) -> Result<()> {
    let Some(path) = metadata(root, rules) else { return Ok(()) };
    let folder = path.parent().unwrap_or(root);
    let text = files::read_text(&path)?;
    let records = if files::lower_name(&path).ends_with(".csv") { csv_records(&text) } else { json_records(&text) };
    for (line, record) in records {
        let record = match record {
            Ok(record) => record,
            Err(reason) => {
                draft.bad_line(&path, line, reason);
                continue;
            }
        };
        let Some(file) = record.get("file_name").filter(|file| !file.is_empty()) else {
            draft.bad_line(&path, line, "no file_name");
            continue;
        };
        let id = Path::new(file).with_extension("").display().to_string();
        let Some(reference) = TEXTS.iter().find_map(|name| record.get(*name)) else {
            draft.problem(ProblemKind::MissingTranscript, id, format!("none of {} on line {line}", TEXTS.join(", ")));
            continue;
        };
        draft.add(Utterance {
            audio: folder.join(file),
            channel: Channel::Mix,
            start: 0.0,
            end: None,
            reference: reference.clone(),
            speaker: SPEAKERS.iter().find_map(|name| record.get(*name)).filter(|s| !s.is_empty()).cloned(),
            set: None,
            labels: Labels::default(),
            recording: id.clone(),
            duration: record.get("duration").and_then(|d| d.parse().ok()),
            id,
        });
    }
    Ok(())
}

/// Records of JSON lines: strings as they are, other values as JSON; nulls are left out.
fn json_records(text: &str) -> Vec<(usize, std::result::Result<Record, String>)> {
    let record = |line: &str| {
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).map_err(|e| e.to_string())?;
        let filled = object.into_iter().filter(|(_, value)| !value.is_null());
        Ok(filled.map(|(name, value)| (name, value.as_str().map_or_else(|| value.to_string(), str::to_string))).collect())
    };
    files::numbered(text).map(|(number, line)| (number, record(line))).collect()
}

/// Records of CSV (RFC 4180) below its header.
fn csv_records(text: &str) -> Vec<(usize, std::result::Result<Record, String>)> {
    let mut rows = csv_rows(text).into_iter();
    let header = rows.next().map(|(_, header)| header).unwrap_or_default();
    let record = |row: Vec<String>| match row.len() == header.len() {
        true => Ok(header.iter().map(|name| name.trim().to_string()).zip(row).collect()),
        false => Err(format!("{} fields, {} in the header", row.len(), header.len())),
    };
    rows.map(|(line, row)| (line, record(row))).collect()
}

/// Rows of CSV with the line each starts on: quoted fields may hold commas, line ends and doubled quotation marks.
fn csv_rows(text: &str) -> Vec<(usize, Vec<String>)> {
    let (mut rows, mut row, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut quoted, mut line, mut start) = (false, 1, 1);
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        line += usize::from(c == '\n');
        match c {
            '"' if quoted && characters.next_if_eq(&'"').is_some() => field.push('"'),
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            ',' if !quoted => row.push(std::mem::take(&mut field)),
            '\r' if !quoted && characters.peek() == Some(&'\n') => {}
            '\n' if !quoted => {
                row.push(std::mem::take(&mut field));
                let finished = std::mem::take(&mut row);
                if finished.iter().any(|field| !field.is_empty()) {
                    rows.push((start, finished));
                }
                start = line;
            }
            _ => field.push(c),
        }
    }
    if !(field.is_empty() && row.is_empty()) {
        row.push(field);
        rows.push((start, row));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_of_rfc_4180() {
        let text = "a,b\r\n\"x, \"\"y\"\"\",\"two\nlines\"\r\n\r\n5\" tape,\"\"\nlast,";
        let rows = csv_rows(text);
        let expected: [(usize, [&str; 2]); 4] =
            [(1, ["a", "b"]), (2, ["x, \"y\"", "two\nlines"]), (5, ["5\" tape", ""]), (6, ["last", ""])];
        assert_eq!(rows.len(), expected.len());
        for ((line, row), (expected_line, expected)) in rows.iter().zip(expected) {
            assert_eq!((*line, row.as_slice()), (expected_line, expected.map(str::to_string).as_slice()));
        }
        assert!(csv_rows("").is_empty());
        assert!(csv_records("a,b\nonly\n")[0].1.is_err());
    }
}
