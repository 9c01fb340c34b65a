//! Google FLEURS: `data/en_us/test.tsv`, without a header, and `audio/test/*.wav`. Prompt ids repeat: several people read each.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::draft::Draft;
use super::{FleursText, Labels, Layout, Rules, Split, Utterance, files};
use crate::audio::Channel;
use crate::error::{Error, Result};
use crate::units::SampleRate;

pub(super) const LAYOUT: Layout = Layout {
    id: "fleurs",
    looks_for: "en_us/test.tsv (dev.tsv for split = dev) with seven columns, in data/, metadata/ or not",
    rules: &["split", "fleurs-text"],
    present: |root, rules| Ok(table(root, rules).is_some()),
    read,
};

/// Columns of the table: id, file, raw transcription, transcription, characters, samples, gender.
const COLUMNS: usize = 7;

fn split_name(rules: &Rules) -> &'static str {
    if rules.split == Split::Dev { "dev" } else { "test" }
}

fn table(root: &Path, rules: &Rules) -> Option<PathBuf> {
    let name = format!("{}.tsv", split_name(rules));
    let places = ["", "en_us", "data/en_us", "metadata/en_us"].map(|place| root.join(place).join(&name));
    places.into_iter().find(|path| {
        // Common Voice has a table of this name too.
        let first = path.is_file().then(|| files::read_text(path)).and_then(Result::ok);
        first.is_some_and(|text| text.lines().next().unwrap_or_default().split('\t').count() == COLUMNS)
    })
}

/// The folder of the clips, beside the table or where other tools unpack it.
fn clips(root: &Path, table: &Path, split: &str) -> Result<PathBuf> {
    let beside = table.parent().unwrap_or(root);
    let places = [beside.join("audio").join(split), beside.join(split), root.join("en_us").join(split), root.join(split)];
    let archive = beside.join("audio").join(format!("{split}.tar.gz"));
    match places.into_iter().find(|place| place.is_dir()) {
        Some(place) => Ok(place),
        None if archive.is_file() => {
            let reason = format!("the clips are packed: unpack it first (tar -xzf {split}.tar.gz, in {})", beside.join("audio").display());
            Err(Error::config(archive, reason))
        }
        None => Err(Error::config(table, format!("no clips: looked for audio/{split}/ and {split}/ beside it"))),
    }
}

fn read(root: &Path, rules: &Rules, draft: &mut Draft) -> Result<()> {
    let Some(path) = table(root, rules) else { return Ok(()) };
    let clips = clips(root, &path, split_name(rules))?;
    let mut repeats: HashMap<String, usize> = HashMap::new();
    for (line, row) in files::numbered(&files::read_text(&path)?) {
        let fields: Vec<&str> = row.split('\t').collect();
        let &[prompt, file, raw, transcription, _, samples, _] = fields.as_slice() else {
            draft.bad_line(&path, line, format!("{} fields, not {COLUMNS}", fields.len()));
            continue;
        };
        let repeat = repeats.entry(prompt.into()).or_insert(0);
        *repeat += 1;
        let text = if rules.fleurs_text == FleursText::Raw { raw } else { transcription };
        draft.add(Utterance {
            // The id of Lhotse's recipe.
            id: format!("{prompt}_{repeat}_{}", files::stem(Path::new(file))),
            audio: clips.join(file),
            channel: Channel::Mix,
            start: 0.0,
            end: None,
            reference: text.into(),
            speaker: None,
            set: None,
            labels: Labels::default(),
            recording: files::stem(Path::new(file)),
            duration: samples.trim().parse().ok().map(|n| SampleRate::HZ_16000.seconds(n)),
        });
    }
    Ok(())
}
