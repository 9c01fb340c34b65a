//! Mozilla Common Voice: `cv-corpus-*/en/test.tsv` with clips in `clips/`. The tables are written without quoting.

use std::path::{Path, PathBuf};

use super::draft::Draft;
use super::files::{self, Table};
use super::{Labels, Layout, Rules, Split, Utterance};
use crate::audio::Channel;
use crate::error::Result;

pub(super) const LAYOUT: Layout = Layout {
    id: "common-voice",
    looks_for: "en/test.tsv (dev.tsv for split = dev) beside en/clips/, in cv-corpus-*/ or not",
    rules: &["split"],
    present: |root, rules| Ok(table(root, rules)?.is_some()),
    read,
};

/// The table of the split beside `clips/`: in `root`, in `en` under it, or one folder further down.
fn table(root: &Path, rules: &Rules) -> Result<Option<PathBuf>> {
    let name = if rules.split == Split::Dev { "dev.tsv" } else { "test.tsv" };
    let mut folders = vec![root.to_path_buf(), root.join("en")];
    folders.extend(files::names_in(root)?.iter().filter(|name| name.starts_with("cv-corpus")).map(|name| root.join(name).join("en")));
    Ok(folders.into_iter().find(|folder| folder.join("clips").is_dir() && folder.join(name).is_file()).map(|folder| folder.join(name)))
}

fn read(root: &Path, rules: &Rules, draft: &mut Draft) -> Result<()> {
    let Some(path) = table(root, rules)? else { return Ok(()) };
    let clips = path.with_file_name("clips");
    let text = files::read_text(&path)?;
    let table = Table::new(&path, &text);
    let (speaker, clip, sentence) = (table.column("client_id")?, table.column("path")?, table.column("sentence")?);
    // Of releases that have these columns; the accent's was renamed.
    let (sex, accent) = (table.column("gender").ok(), table.column("accents").or_else(|_| table.column("accent")).ok());
    for (line, row) in table.rows() {
        let label = |column: Option<usize>| column.and_then(|c| row.get(c)).filter(|v| !v.is_empty()).map(|v| v.to_string());
        let (Some(&speaker), Some(&clip), Some(&sentence)) = (row.get(speaker), row.get(clip), row.get(sentence)) else {
            draft.bad_line(&path, line, format!("{} fields", row.len()));
            continue;
        };
        // The first releases name clips without their extension.
        let audio = if files::is_audio(Path::new(clip)) { clips.join(clip) } else { files::audio_named(&clips, clip, "mp3") };
        let id = files::stem(&audio);
        draft.add(Utterance {
            labels: Labels { lang: None, accent: label(accent), sex: label(sex) },
            recording: id.clone(),
            id,
            audio,
            channel: Channel::Mix,
            start: 0.0,
            end: None,
            reference: sentence.into(),
            speaker: Some(speaker.into()),
            set: None,
            duration: None,
        });
    }
    Ok(())
}
