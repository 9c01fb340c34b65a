//! The utterances as the page's script reads them: JSON inside the page.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::{Component, Path};

use serde::Serialize;

use crate::eval::aligner::Aligner;
use crate::eval::alignment::Edit;
use crate::eval::report::journal::Utterance;
use crate::eval::report::result::RunResult;

/// Endings of audio that browsers play.
const PLAYABLE: [&str; 10] = ["wav", "mp3", "flac", "ogg", "oga", "opus", "m4a", "mp4", "webm", "aac"];

/// What the script needs.
#[derive(Serialize)]
pub(super) struct Listing<'a> {
    sets: Vec<&'a str>,
    speakers: Vec<&'a str>,
    utterances: Vec<Row<'a>>,
}

/// Set, id, speaker or -1, seconds, start, end, URL of the audio or empty, S, D, I, reference words, steps, texts before normalisation where
/// they differ, error. The order is the script's.
type Row<'a> = (
    usize,
    &'a str,
    isize,
    f64,
    Option<f64>,
    Option<f64>,
    String,
    usize,
    usize,
    usize,
    usize,
    Vec<Step<'a>>,
    Option<(&'a str, &'a str)>,
    Option<&'a str>,
);

/// A stretch of an alignment.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Step<'a> {
    /// Equal words.
    Equal(String),
    /// A reference word and what was heard instead; nothing is the empty string.
    Edit(&'a str, &'a str),
    /// Words that count as equal though they are spelled otherwise (`ice cream`, `icecream`); the flag tells it from an edit.
    Spelling(String, String, bool),
}

impl<'a> Listing<'a> {
    /// Aligns every utterance and finds its audio, seen from `folder`.
    pub(super) fn of(result: &'a RunResult, utterances: &'a [Utterance], folder: &Path) -> Self {
        let sets: Vec<&str> = result.sets.iter().map(|s| s.name.as_str()).collect();
        // A result of another program may name an aligner of its own: the plain one shows where the texts differ.
        let aligner = Aligner::from_id(&result.provenance.scoring.aligner).unwrap_or_default();
        let mut speakers = Vec::new();
        let mut speaker_places = HashMap::new();
        let mut links = Links::from(folder);
        let mut rows = Vec::with_capacity(utterances.len());
        for u in utterances {
            let Some(set) = sets.iter().position(|name| *name == u.set) else { continue };
            let speaker = u.speaker.as_deref().map_or(-1, |name| {
                *speaker_places.entry(name).or_insert_with(|| {
                    speakers.push(name);
                    speakers.len() as isize - 1
                })
            });
            let same = u.reference == u.normalized_reference && u.hypothesis == u.normalized_hypothesis;
            rows.push((
                set,
                u.id.as_str(),
                speaker,
                milliseconds(u.seconds),
                u.start.map(milliseconds),
                u.end.map(milliseconds),
                links.to(&u.audio),
                u.words.substitutions,
                u.words.deletions,
                u.words.insertions,
                u.words.reference_words,
                steps(aligner, u),
                (!same).then_some((u.reference.as_str(), u.hypothesis.as_str())),
                u.error.as_ref().map(|e| e.message.as_str()),
            ));
        }
        Self { sets, speakers, utterances: rows }
    }
}

/// JSON that may stand inside a `<script>` element: nothing in it looks like markup.
pub(super) fn json(listing: &Listing) -> String {
    // Strings and finite numbers: writing them as JSON cannot fail.
    let text = serde_json::to_string(listing).unwrap_or_default();
    text.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

/// The alignment that was scored. What the aligner refuses (by its length) and failed utterances have no steps.
fn steps(aligner: Aligner, u: &Utterance) -> Vec<Step<'_>> {
    let texts = if u.error.is_none() { (u.normalized_reference.as_str(), u.normalized_hypothesis.as_str()) } else { ("", "") };
    let Ok(alignment) = aligner.align(texts.0, texts.1) else { return Vec::new() };
    let mut steps = Vec::new();
    for chunk in &alignment.chunks {
        let (r, h) = (&alignment.reference[chunk.reference.clone()], &alignment.hypothesis[chunk.hypothesis.clone()]);
        match chunk.edit {
            Edit::Equal if r == h => steps.push(Step::Equal(r.join(" "))),
            Edit::Equal => steps.push(Step::Spelling(r.join(" "), h.join(" "), true)),
            Edit::Substitute => steps.extend(r.iter().zip(h).map(|(r, h)| Step::Edit(r, h))),
            Edit::Delete => steps.extend(r.iter().map(|r| Step::Edit(r, ""))),
            Edit::Insert => steps.extend(h.iter().map(|h| Step::Edit("", h))),
        }
    }
    steps
}

fn milliseconds(seconds: f64) -> f64 {
    (1000.0 * seconds).round() / 1000.0
}

/// Links to files, relative to a folder.
struct Links<'a> {
    folder: Option<std::path::PathBuf>,
    known: HashMap<&'a str, String>,
}

impl<'a> Links<'a> {
    fn from(folder: &Path) -> Self {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        // A folder that is yet to be made has no symbolic links to follow.
        let folder = folder.canonicalize().or_else(|_| std::path::absolute(folder)).ok();
        Self { folder, known: HashMap::new() }
    }

    /// URL of a file that is there and that browsers play; else empty.
    fn to(&mut self, audio: &'a str) -> String {
        let folder = self.folder.as_deref();
        self.known.entry(audio).or_insert_with(|| folder.and_then(|folder| link(folder, audio)).unwrap_or_default()).clone()
    }
}

fn link(folder: &Path, audio: &str) -> Option<String> {
    let ending = Path::new(audio).extension()?.to_str()?.to_ascii_lowercase();
    let path = Path::new(audio).canonicalize().ok().filter(|p| PLAYABLE.contains(&ending.as_str()) && p.is_file())?;
    let (mut from, mut to) = (folder.components().peekable(), path.components().peekable());
    while from.peek().is_some() && from.peek() == to.peek() {
        from.next();
        to.next();
    }
    let mut url = vec!["..".to_string(); from.count()];
    for part in to {
        match part {
            Component::Normal(name) => url.push(url_encode(name.to_str()?)),
            // Another drive: no way there from here.
            _ => return None,
        }
    }
    Some(url.join("/"))
}

/// Percent-encodes all but unreserved characters (RFC 3986, 2.3): no part of a path reads as a scheme, a query or a fragment.
fn url_encode(part: &str) -> String {
    part.bytes().fold(String::new(), |mut url, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(url, "%{byte:02X}");
        }
        url
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_relative_and_encoded_and_only_to_what_is_there() {
        let root = tempfile::tempdir().unwrap();
        let (reports, audio) = (root.path().join("a/reports"), root.path().join("a/javascript:x #1?"));
        std::fs::create_dir_all(&reports).unwrap();
        std::fs::create_dir_all(&audio).unwrap();
        let at = |name: &str| audio.join(name).to_str().unwrap().to_string();
        for name in ["é.WAV", "x.sph"] {
            std::fs::write(audio.join(name), b"").unwrap();
        }
        let (wav, sph, gone) = (at("é.WAV"), at("x.sph"), at("gone.wav"));
        let mut links = Links::from(&reports);
        assert_eq!(links.to(&wav), "../javascript%3Ax%20%231%3F/%C3%A9.WAV");
        assert_eq!((links.to(&sph), links.to(&gone)), (String::new(), String::new()));
    }
}
