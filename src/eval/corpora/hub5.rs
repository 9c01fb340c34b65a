//! Hub5'00 (eval2000): audio of LDC2002S09, `english/{en,sw}_*.sph`, and references of LDC2002T43, `hub5e00.english.000405.stm`.
//! The `en_` calls are CallHome, the `sw_` calls Switchboard; both sides of a call are in one file.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use super::draft::Draft;
use super::stm::{self, Row};
use super::{Hub5Padding, Labels, Layout, ProblemKind, Rules, Split, StmText, Utterance, files};
use crate::error::{Error, Result};

/// References of the whole evaluation.
const STM: &str = "hub5e00.english.000405.stm";
/// Its partition into segments, without words.
const PEM: &str = "hub5e_00.pem";
/// Seconds added at both ends by Kaldi's swbd/s5c.
const PADDING: f64 = 0.1;
const LOOKS_FOR: &str = "reference/hub5e00.english.000405.stm (LDC2002T43) with english/*.sph (LDC2002S09) under one folder";
const RULES: &[&str] = &["split", "hub5-padding", "stm-text"];

pub(super) const CALLHOME: Layout = Layout {
    id: "hub5-callhome",
    looks_for: LOOKS_FOR,
    rules: RULES,
    present: |root, _| Ok(index(root)?.stm.is_some()),
    read: |root, rules, draft| read(root, rules, "en_", draft),
};

pub(super) const SWITCHBOARD: Layout = Layout {
    id: "hub5-switchboard",
    looks_for: LOOKS_FOR,
    rules: RULES,
    present: |root, _| Ok(index(root)?.stm.is_some()),
    read: |root, rules, draft| read(root, rules, "sw_", draft),
};

/// The files of the set by what they are.
#[derive(Default)]
struct Index {
    stm: Option<PathBuf>,
    pem: Option<PathBuf>,
    /// By call.
    audio: HashMap<String, PathBuf>,
}

fn index(root: &Path) -> Result<Index> {
    let mut index = Index::default();
    for path in if root.is_dir() { files::walk(root)? } else { Vec::new() } {
        match files::lower_name(&path).as_str() {
            STM => index.stm = Some(path),
            PEM => index.pem = Some(path),
            name if files::is_audio(&path) && (name.starts_with("en_") || name.starts_with("sw_")) => {
                index.audio.entry(files::stem(Path::new(name))).or_insert(path);
            }
            _ => {}
        }
    }
    Ok(index)
}

fn read(root: &Path, rules: &Rules, prefix: &str, draft: &mut Draft) -> Result<()> {
    if rules.split == Split::Dev {
        return Err(Error::config(root, "Hub5'00 has no development split"));
    }
    let index = index(root)?;
    let Some(path) = index.stm else { return Ok(()) };
    let missing = path.with_file_name("english");
    // Two typing errors of the published file, and marks that are no words.
    let text = files::read_text(&path)?.replace("((", "(").replace("<B_ASIDE>", "").replace("<E_ASIDE>", "");
    let (mut found, mut rows) = (BTreeSet::new(), Vec::new());
    for (line, text) in files::numbered(&text) {
        match Row::parse(text) {
            Some(Ok(row)) if row.file.starts_with(prefix) => {
                found.insert(segment_id(row.file, row.channel, row.start, row.end));
                rows.push((line, row));
            }
            Some(Err(reason)) => draft.bad_line(&path, line, reason),
            _ => {}
        }
    }
    if let Some(pem) = index.pem {
        compare(&pem, prefix, &found, draft)?;
    }
    let padded = if rules.hub5_padding == Hub5Padding::Tenth { padded(&rows) } else { HashMap::new() };
    for (line, row) in rows {
        if row.is_ignored() {
            draft.drop_by("IGNORE_TIME_SEGMENT_IN_SCORING");
            continue;
        }
        let channel = match row.channel() {
            Ok(channel) => channel,
            Err(reason) => {
                draft.bad_line(&path, line, reason);
                continue;
            }
        };
        let side = format!("{}-{}", row.file, row.channel);
        let (start, end) = padded.get(&line).copied().unwrap_or((row.start, row.end));
        draft.add(Utterance {
            id: segment_id(row.file, row.channel, row.start, row.end),
            audio: index.audio.get(row.file).cloned().unwrap_or_else(|| missing.join(format!("{}.sph", row.file))),
            channel,
            start,
            end: Some(end),
            reference: if rules.stm_text == StmText::Words { stm::plain_words(row.text) } else { row.text.into() },
            // Kaldi's recipes take each side for a speaker.
            speaker: Some(side),
            set: None,
            labels: Labels::default(),
            recording: row.file.into(),
            duration: None,
        });
    }
    Ok(())
}

/// The id of Kaldi's recipes: hundredths of a second, cut off.
fn segment_id(call: &str, side: &str, start: f64, end: f64) -> String {
    format!("{call}-{side}_{:06}-{:06}", (start * 100.0) as u64, (end * 100.0) as u64)
}

/// Lists the segments that only one of the partition and the references has.
fn compare(pem: &Path, prefix: &str, references: &BTreeSet<String>, draft: &mut Draft) -> Result<()> {
    let mut partition = BTreeSet::new();
    for (line, text) in files::numbered(&files::read_text(pem)?) {
        match Row::parse(text) {
            Some(Ok(row)) if row.file.starts_with(prefix) => drop(partition.insert(segment_id(row.file, row.channel, row.start, row.end))),
            Some(Err(reason)) => draft.bad_line(pem, line, reason),
            _ => {}
        }
    }
    for id in references.symmetric_difference(&partition) {
        let has = if partition.contains(id) { PEM } else { STM };
        draft.problem(ProblemKind::Contradiction, id.clone(), format!("only {has} has this segment"));
    }
    Ok(())
}

/// Times by line with 0.1 s more at both ends, or up to the middle of a shorter gap; segments that overlap keep their times there.
fn padded(rows: &[(usize, Row<'_>)]) -> HashMap<usize, (f64, f64)> {
    type Segment = (usize, f64, f64);
    let mut sides: HashMap<(&str, &str), Vec<Segment>> = HashMap::new();
    for (line, row) in rows {
        sides.entry((row.file, row.channel)).or_default().push((*line, row.start, row.end));
    }
    // Kaldi's file has two decimals, rounded as they are printed.
    let rounded = |t: f64| format!("{t:.2}").parse().unwrap_or(t);
    let mut times = HashMap::new();
    for mut side in sides.into_values() {
        side.sort_by(|a, b| a.1.total_cmp(&b.1));
        for i in 0..side.len() {
            let (line, start, end) = side[i];
            let room = |gap: f64| if gap < 0.0 { 0.0 } else { PADDING.min(gap / 2.0) };
            let before = if i == 0 { PADDING } else { room(start - side[i - 1].2) };
            let after = side.get(i + 1).map_or(PADDING, |next| room(next.1 - end));
            times.insert(line, (rounded((start - before).max(0.0)), rounded(end + after)));
        }
    }
    times
}
