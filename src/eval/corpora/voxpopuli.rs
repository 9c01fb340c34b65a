//! VoxPopuli: `transcribed_data/en/asr_test.tsv` with segments in `transcribed_data/en/{year}/{id}.ogg`.

use std::path::{Path, PathBuf};

use super::draft::Draft;
use super::files::{self, Table};
use super::{Labels, Layout, Rules, Split, Utterance, VoxPopuliText};
use crate::audio::Channel;
use crate::error::Result;

pub(super) const LAYOUT: Layout = Layout {
    id: "voxpopuli",
    looks_for: "transcribed_data/en/asr_test.tsv (asr_dev.tsv for split = dev)",
    rules: &["split", "voxpopuli-text"],
    present: |root, rules| Ok(table(root, rules).is_some()),
    read,
};

fn table(root: &Path, rules: &Rules) -> Option<PathBuf> {
    let name = if rules.split == Split::Dev { "asr_dev.tsv" } else { "asr_test.tsv" };
    let places = ["", "en/", "transcribed_data/en/"].map(|place| format!("{place}{name}"));
    files::first_of(root, &places.each_ref().map(String::as_str))
}

fn read(root: &Path, rules: &Rules, draft: &mut Draft) -> Result<()> {
    let Some(path) = table(root, rules) else { return Ok(()) };
    let folder = path.parent().unwrap_or(root);
    let text = files::read_text(&path)?;
    let table = Table::new(&path, &text);
    let wanted = if rules.voxpopuli_text == VoxPopuliText::Raw { "raw_text" } else { "normalized_text" };
    let (id, words, speaker) = (table.column("id")?, table.column(wanted)?, table.column("speaker_id")?);
    for (line, row) in table.rows() {
        let (Some(&id), Some(&words)) = (row.get(id), row.get(words)) else {
            draft.bad_line(&path, line, format!("{} fields", row.len()));
            continue;
        };
        let year: String = id.chars().take(4).collect();
        draft.add(Utterance {
            id: id.into(),
            audio: files::audio_named(&folder.join(year), id, "ogg"),
            channel: Channel::Mix,
            start: 0.0,
            end: None,
            reference: words.into(),
            speaker: row.get(speaker).filter(|s| !s.is_empty()).map(|s| s.to_string()),
            set: None,
            // "20090112-0900-PLENARY-13-en_20090112-19:47:31_4": the session comes before the time.
            labels: Labels::default(),
            recording: id.split_once('_').map_or(id, |(session, _)| session).into(),
            duration: None,
        });
    }
    Ok(())
}
