//! Wall Street Journal, November 1992: the index `nvp/si_et_20.ndx`, SPHERE files `440c0401.wv1`, transcripts `440c0400.dot`. Copies of
//! the disks differ in folders and in the case of names, so files are found by their names.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use super::draft::Draft;
use super::{Labels, Layout, ProblemKind, Rules, Split, Utterance, WsjVocabulary, files};
use crate::audio::Channel;
use crate::error::{Error, Result};

pub(super) const LAYOUT: Layout = Layout {
    id: "wsj-nov92",
    looks_for: "wsj0/doc/indices/test/nvp/si_et_20.ndx (si_et_05.ndx for wsj-vocabulary = 5k), in any case and at any depth",
    rules: &["split", "wsj-vocabulary"],
    present: |root, rules| Ok(index(root, rules)?.list.is_some()),
    read,
};

/// The files of the disks by what they are.
#[derive(Default)]
struct Index {
    list: Option<PathBuf>,
    /// By utterance, in lower case.
    audio: HashMap<String, PathBuf>,
    /// By the first six letters of its utterances, in lower case.
    dots: HashMap<String, PathBuf>,
}

fn index(root: &Path, rules: &Rules) -> Result<Index> {
    let list = if rules.wsj_vocabulary == WsjVocabulary::FiveThousand { "si_et_05.ndx" } else { "si_et_20.ndx" };
    let mut index = Index::default();
    for path in if root.is_dir() { files::walk(root)? } else { Vec::new() } {
        let name = files::lower_name(&path);
        let (stem, extension) = name.rsplit_once('.').unwrap_or((&name, ""));
        // Verbalised punctuation has its own list, beside the one for non-verbalised.
        let nvp = path.parent().is_some_and(|folder| files::lower_name(folder) == "nvp");
        match extension {
            "ndx" if name == list && nvp => index.list = Some(path),
            "wv1" => drop(index.audio.insert(stem.into(), path)),
            "dot" => drop(index.dots.insert(stem.chars().take(6).collect(), path)),
            _ => {}
        }
    }
    Ok(index)
}

fn read(root: &Path, rules: &Rules, draft: &mut Draft) -> Result<()> {
    if rules.split == Split::Dev {
        return Err(Error::config(root, "WSJ nov92 has no development split"));
    }
    let index = index(root, rules)?;
    let Some(path) = index.list else { return Ok(()) };
    let mut wanted = Vec::new();
    for (line, text) in files::numbered(&files::read_text(&path)?) {
        if text.starts_with(';') {
            continue;
        }
        // "11_14_1:wsj0/si_et_20/440/440c0401", with or without an extension.
        let name = text.trim().rsplit(['/', '\\', ':']).next().unwrap_or_default().to_lowercase();
        let id = name.split('.').next().unwrap_or_default();
        if id.len() == 8 && id.is_ascii() {
            wanted.push(id.to_string());
        } else {
            draft.bad_line(&path, line, "no utterance of eight letters at its end");
        }
    }
    let speakers: BTreeSet<&str> = wanted.iter().map(|id| &id[..6]).collect();
    let mut words = HashMap::new();
    for dot in speakers.iter().filter_map(|speaker| index.dots.get(*speaker)) {
        for (line, text) in files::numbered(&files::read_text(dot)?) {
            match text.trim_end().strip_suffix(')').and_then(|text| text.rsplit_once('(')) {
                Some((text, id)) => drop(words.insert(id.to_lowercase(), clean(text))),
                None => draft.bad_line(dot, line, "no (utterance) at its end"),
            }
        }
    }
    for id in wanted {
        let Some(reference) = words.remove(&id) else {
            draft.problem(ProblemKind::MissingTranscript, id.clone(), format!("no .dot file has ({id})"));
            continue;
        };
        draft.add(Utterance {
            audio: index.audio.get(&id).cloned().unwrap_or_else(|| root.join(format!("{id}.wv1"))),
            channel: Channel::Mix,
            start: 0.0,
            end: None,
            reference,
            speaker: Some(id[..3].into()),
            set: None,
            labels: Labels::default(),
            recording: id[..6].into(),
            duration: None,
            id,
        });
    }
    Ok(())
}

/// The words of a detailed transcript as Kaldi's recipe makes them, noises left out: upper case, no quoting, marks of events dropped,
/// `<word>` is `WORD`.
fn clean(text: &str) -> String {
    let words = text.split_whitespace().filter_map(|token| {
        let word = token.to_uppercase().replace('\\', "");
        let noise = word.split_once('[').is_some_and(|(_, rest)| rest.contains(']'));
        let inner = word.strip_prefix('<').and_then(|w| w.strip_suffix('>')).filter(|w| !w.is_empty());
        match word.as_str() {
            "~" | "." | "" => None,
            _ if noise => None,
            "%PERCENT" => Some("PERCENT".into()),
            ".POINT" => Some("POINT".into()),
            "--DASH" => Some("-DASH".into()),
            _ => Some(inner.map_or_else(|| word.clone(), str::to_string)),
        }
    });
    words.collect::<Vec<String>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_the_dot_form() {
        let text =
            "[<door_slam] Mr\\. <and> the [loud_breath] . [phone_ring/] fifty %percent [/phone_ring] three .point five --dash it's ~";
        assert_eq!(clean(text), "MR. AND THE FIFTY PERCENT THREE POINT FIVE -DASH IT'S");
        assert_eq!(clean("a [cough>] b"), "A B");
    }
}
