//! TED-LIUM release 3: `legacy/test/stm/*.stm` and `legacy/test/sph/*.sph`.

use std::path::{Path, PathBuf};

use super::draft::Draft;
use super::stm::Row;
use super::{Labels, Layout, ProblemKind, Rules, Split, TedSuffixes, Utterance, files};
use crate::audio::Channel;
use crate::error::Result;

pub(super) const LAYOUT: Layout = Layout {
    id: "tedlium",
    looks_for: "legacy/test/stm/*.stm (legacy/dev for split = dev), in TEDLIUM_release-3/ or not",
    rules: &["split", "ted-suffixes"],
    present: |root, rules| Ok(part(root, rules).is_some()),
    read,
};

fn part(root: &Path, rules: &Rules) -> Option<PathBuf> {
    let split = if rules.split == Split::Dev { "dev" } else { "test" };
    let places = ["TEDLIUM_release-3/legacy/", "legacy/", ""].map(|place| format!("{place}{split}/stm"));
    files::first_of(root, &places.each_ref().map(String::as_str)).map(|stm| stm.with_file_name(""))
}

fn read(root: &Path, rules: &Rules, draft: &mut Draft) -> Result<()> {
    let Some(part) = part(root, rules) else { return Ok(()) };
    for path in files::walk(&part.join("stm"))?.iter().filter(|path| files::lower_name(path).ends_with(".stm")) {
        for (line, text) in files::numbered(&files::read_text(path)?) {
            let row = match Row::parse(text) {
                None => continue,
                Some(Err(reason)) => {
                    draft.bad_line(path, line, reason);
                    continue;
                }
                Some(Ok(row)) => row,
            };
            if row.is_ignored() {
                draft.drop_by("ignore_time_segment_in_scoring");
                continue;
            }
            draft.add(Utterance {
                // The id of Kaldi's recipe: hundredths of a second, cut off.
                id: format!("{}-{:07}-{:07}", row.file, (row.start * 100.0) as u64, (row.end * 100.0) as u64),
                audio: files::audio_named(&part.join("sph"), row.file, "sph"),
                channel: Channel::Mix,
                start: row.start,
                end: Some(row.end),
                reference: words(row.text, rules.ted_suffixes),
                speaker: Some(row.speaker.into()),
                set: None,
                labels: Labels::default(),
                recording: row.file.into(),
                duration: None,
            });
        }
    }
    let talks = files::walk(&part.join("stm"))?;
    for audio in files::first_of(&part, &["sph"]).map_or(Ok(Vec::new()), |folder| files::walk(&folder))? {
        let name = files::stem(&audio);
        if files::is_audio(&audio) && !talks.iter().any(|stm| files::stem(stm) == name) {
            draft.problem(ProblemKind::MissingTranscript, name, audio.display().to_string());
        }
    }
    Ok(())
}

/// The words of a transcript: no name of the utterance at its end, no `(2)` of a pronunciation, no `<sil>`, `<unk>` or `{NOISE}`;
/// suffixes by the rule. (A suffix that starts a transcript is kept; Kaldi's script joins it to the label and loses it.)
fn words(text: &str, suffixes: TedSuffixes) -> String {
    let tag = |token: &str| {
        let ends = (token.chars().next(), token.chars().next_back());
        matches!(ends, (Some('<'), Some('>')) | (Some('{'), Some('}')) | (Some('['), Some(']')) | (Some('('), Some(')')))
    };
    let spoken = |token: &'_ str| -> String {
        match token.rsplit_once('(') {
            Some((word, variant)) if variant.strip_suffix(')').is_some_and(|n| n.parse::<u32>().is_ok()) => word.into(),
            _ => token.into(),
        }
    };
    let tokens: Vec<String> = text.split_whitespace().filter(|token| !tag(token)).map(spoken).filter(|word| !word.is_empty()).collect();
    match suffixes {
        TedSuffixes::Apart => tokens.join(" "),
        TedSuffixes::Kaldi => join_pairs(&tokens, |_, next| next.starts_with('\'')).join(" "),
        TedSuffixes::Lhotse => {
            let letter = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
            let joined =
                join_pairs(&tokens, |word, next| letter(word.chars().next_back()) && next.starts_with('\'') && letter(next.chars().nth(1)));
            join_pairs(&joined, |word, next| word.ends_with('\'') && letter(next.chars().next())).join(" ")
        }
    }
}

/// Joins a token to the one before where `joins(before, token)`; the pair is not joined further.
fn join_pairs(tokens: &[String], joins: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let mut joined = Vec::with_capacity(tokens.len());
    let mut rest = tokens.iter().peekable();
    while let Some(token) = rest.next() {
        let next = rest.next_if(|next| joins(token, next));
        joined.push(next.map_or_else(|| token.clone(), |next| format!("{token}{next}")));
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_by_rule() {
        let text = "it 's the '60s <sil> dogs ' tails they 're(2) {NOISE} ' cause <unk> (talk-1)";
        assert_eq!(words(text, TedSuffixes::Apart), "it 's the '60s dogs ' tails they 're ' cause");
        assert_eq!(words(text, TedSuffixes::Kaldi), "it's the'60s dogs' tails they're ' cause");
        assert_eq!(words(text, TedSuffixes::Lhotse), "it's the'60s dogs 'tails they're 'cause");
    }
}
