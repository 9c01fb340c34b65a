//! References of sclite beside audio: `.stm` (segments), `.trn` (`words (speaker-utterance)`) or `.ctm` (timed words, one utterance for
//! each file and channel).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::draft::Draft;
use super::stm::{self, Row};
use super::{Labels, Layout, Rules, StmText, Utterance, files};
use crate::audio::Channel;
use crate::error::{Error, Result};

pub(super) const LAYOUT: Layout = Layout {
    id: "sclite",
    looks_for: "a .stm, .trn or .ctm file beside the audio files it names",
    rules: &["stm-text"],
    present: |root, _| Ok(!references(root)?.is_empty()),
    read,
};

/// Reference files, the most telling kind only.
fn references(root: &Path) -> Result<Vec<PathBuf>> {
    let of_kind = |path: &Path, kind: &str| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(kind));
    let all: Vec<PathBuf> = match root.is_file() {
        true => vec![root.to_path_buf()],
        false => files::names_in(root)?.iter().map(|name| root.join(name)).filter(|path| path.is_file()).collect(),
    };
    let kinds = ["stm", "trn", "ctm"].into_iter();
    let found = kinds.map(|kind| all.iter().filter(|path| of_kind(path, kind)).cloned().collect::<Vec<_>>());
    Ok(found.into_iter().find(|found| !found.is_empty()).unwrap_or_default())
}

fn read(root: &Path, rules: &Rules, draft: &mut Draft) -> Result<()> {
    let found = references(root)?;
    let path = match &found[..] {
        [] => return Ok(()),
        [path] => path,
        several => match several.iter().filter(|path| files::lower_name(path).contains("ref")).collect::<Vec<_>>()[..] {
            [path] => path,
            _ => {
                let names: Vec<String> = several.iter().map(|path| files::lower_name(path)).collect();
                return Err(Error::config(root, format!("several reference files, name one: {}", names.join(", "))));
            }
        },
    };
    let folder = path.parent().unwrap_or(root);
    let text = files::read_text(path)?;
    match path.extension().unwrap_or_default().to_string_lossy().to_lowercase().as_str() {
        "stm" => read_stm(path, folder, &text, rules, draft),
        "trn" => read_trn(path, folder, &text, rules, draft),
        _ => read_ctm(path, folder, &text, draft),
    }
    Ok(())
}

fn as_ruled(text: &str, rules: &Rules) -> String {
    if rules.stm_text == StmText::Words { stm::plain_words(text) } else { text.into() }
}

fn read_stm(path: &Path, folder: &Path, text: &str, rules: &Rules, draft: &mut Draft) {
    for (line, text) in files::numbered(text) {
        let row = match Row::parse(text) {
            None => continue,
            Some(parsed) => parsed.and_then(|row| row.channel().map(|channel| (row, channel))),
        };
        let (row, channel) = match row {
            Ok(both) => both,
            Err(reason) => {
                draft.bad_line(path, line, reason);
                continue;
            }
        };
        if row.is_ignored() {
            draft.drop_by("ignore_time_segment_in_scoring");
            continue;
        }
        draft.add(Utterance {
            id: format!("{}-{}-{:07.0}-{:07.0}", row.file, row.channel, row.start * 100.0, row.end * 100.0),
            audio: files::audio_named(folder, row.file, "wav"),
            channel,
            start: row.start,
            end: Some(row.end),
            reference: as_ruled(row.text, rules),
            speaker: Some(row.speaker.into()),
            set: None,
            labels: Labels::default(),
            recording: row.file.into(),
            duration: None,
        });
    }
}

fn read_trn(path: &Path, folder: &Path, text: &str, rules: &Rules, draft: &mut Draft) {
    for (line, text) in files::numbered(text) {
        let text = text.trim();
        if text.starts_with(";;") {
            continue;
        }
        let Some((words, id)) = text.strip_suffix(')').and_then(|text| text.rsplit_once('(')) else {
            draft.bad_line(path, line, "no (utterance) at its end");
            continue;
        };
        let id = id.trim();
        let speaker = id.split(['-', '_']).next().filter(|speaker| !speaker.is_empty() && *speaker != id);
        draft.add(Utterance {
            id: id.into(),
            audio: files::audio_named(folder, id, "wav"),
            channel: Channel::Mix,
            start: 0.0,
            end: None,
            reference: as_ruled(words, rules),
            speaker: speaker.map(str::to_string),
            set: None,
            labels: Labels::default(),
            recording: id.into(),
            duration: None,
        });
    }
}

fn read_ctm(path: &Path, folder: &Path, text: &str, draft: &mut Draft) {
    // Of alternatives (`<ALT_BEGIN>` a `<ALT>` b `<ALT_END>`) the first counts.
    let (mut streams, mut skipping) = (BTreeMap::<(String, String), Vec<(f64, String)>>::new(), false);
    for (line, text) in files::numbered(text) {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let (&[file, channel, start, _, word, ..], false) = (fields.as_slice(), text.starts_with(";;")) else {
            if !text.starts_with(";;") {
                draft.bad_line(path, line, format!("{} fields, not 5 or more", fields.len()));
            }
            continue;
        };
        match word {
            "<ALT_BEGIN>" | "<ALT_END>" => skipping = false,
            "<ALT>" => skipping = true,
            "@" => {}
            _ if skipping => {}
            _ => match start.parse::<f64>() {
                Ok(start) => streams.entry((file.into(), channel.into())).or_default().push((start, word.into())),
                Err(_) => draft.bad_line(path, line, format!("begin {start:?} is not a number")),
            },
        }
    }
    for ((file, channel), mut words) in streams {
        words.sort_by(|a, b| a.0.total_cmp(&b.0));
        let words: Vec<String> = words.into_iter().map(|(_, word)| word).collect();
        match stm::channel(&channel) {
            Err(reason) => draft.bad_line(path, 0, reason),
            Ok(number) => draft.add(Utterance {
                id: format!("{file}-{channel}"),
                audio: files::audio_named(folder, &file, "wav"),
                channel: number,
                start: 0.0,
                end: None,
                reference: words.join(" "),
                speaker: None,
                set: None,
                labels: Labels::default(),
                recording: file,
                duration: None,
            }),
        }
    }
}
