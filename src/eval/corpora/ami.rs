//! AMI, headset microphones: audio `{meeting}.Headset-{n}.wav`, annotations in NXT's XML (`corpusResources/`, `segments/`, `words/`).
//!
//! Kaldi and Lhotse cut and clean the same annotations differently; both ways are here.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use quick_xml::events::{BytesStart, Event};

use super::draft::Draft;
use super::{AmiSegments, Layout, ProblemKind, Rules, Split, ami_kaldi, ami_lhotse, files};
use crate::error::{Error, Result};

pub(super) const LAYOUT: Layout = Layout {
    id: "ami-ihm",
    looks_for: "the manual annotations, unpacked (corpusResources/meetings.xml, segments/, words/), in annotations/, \
                ami_public_manual_1.6.1/, ami_public_manual_1.6.2/ or not",
    rules: &["split", "ami-segments", "ami-commas"],
    present: |root, _| Ok(annotations(root).is_some()),
    read,
};

/// Meetings of the evaluation set of the full-corpus-ASR partition.
const TEST: [&str; 16] = [
    "EN2002a", "EN2002b", "EN2002c", "EN2002d", "ES2004a", "ES2004b", "ES2004c", "ES2004d", "IS1009a", "IS1009b", "IS1009c", "IS1009d",
    "TS3003a", "TS3003b", "TS3003c", "TS3003d",
];
/// Meetings of its development set.
const DEV: [&str; 18] = [
    "ES2011a", "ES2011b", "ES2011c", "ES2011d", "IB4001", "IB4002", "IB4003", "IB4004", "IB4010", "IB4011", "IS1008a", "IS1008b",
    "IS1008c", "IS1008d", "TS3004a", "TS3004b", "TS3004c", "TS3004d",
];

/// Speaker of a meeting.
#[derive(Debug, Clone)]
pub(super) struct Speaker {
    pub meeting: String,
    /// Name in the whole corpus, such as `FEE041`.
    pub name: String,
    /// Number of the headset.
    pub channel: String,
    pub audio: PathBuf,
}

/// A segment as annotated.
#[derive(Debug, Clone, Default)]
pub(super) struct Segment {
    pub start: Option<f64>,
    pub end: Option<f64>,
    /// First and last element of the words file that it spans.
    pub span: Option<(String, String)>,
}

/// An element of a words file: a word, or (without text) a sound or a gap. Times as written.
#[derive(Debug, Clone, Default)]
pub(super) struct Word {
    pub id: String,
    pub start: Option<String>,
    pub end: Option<String>,
    pub is_word: bool,
    pub is_punctuation: bool,
    pub text: String,
}

fn annotations(root: &Path) -> Option<PathBuf> {
    let places = ["", "annotations", "ami_public_manual_1.6.1", "ami_public_manual_1.6.2"];
    places.into_iter().map(|place| root.join(place)).find(|folder| folder.join("corpusResources/meetings.xml").is_file())
}

fn read(root: &Path, rules: &Rules, draft: &mut Draft) -> Result<()> {
    let Some(folder) = annotations(root) else { return Ok(()) };
    let wanted: &[&str] = if rules.split == Split::Dev { &DEV } else { &TEST };
    let audio = files::walk(root)?.into_iter().filter(|path| files::is_audio(path));
    let audio: HashMap<String, PathBuf> = audio.map(|path| (files::stem(&path), path)).collect();
    let speakers = speakers(&folder.join("corpusResources/meetings.xml"), wanted, &audio)?;
    for meeting in wanted {
        if !speakers.keys().any(|(of, _)| of == meeting) {
            draft.problem(ProblemKind::MissingTranscript, *meeting, "not in meetings.xml");
        }
    }
    for ((meeting, agent), speaker) in &speakers {
        let segments = folder.join(format!("segments/{meeting}.{agent}.segments.xml"));
        let words = folder.join(format!("words/{meeting}.{agent}.words.xml"));
        if let Some(missing) = [&segments, &words].into_iter().find(|path| !path.is_file()) {
            draft.problem(ProblemKind::MissingTranscript, format!("{meeting}.{agent}"), missing.display().to_string());
            continue;
        }
        let (segments, words) = (read_segments(&segments)?, read_words(&words)?);
        match rules.ami_segments {
            AmiSegments::Kaldi => ami_kaldi::add(speaker, &segments, &words, rules.ami_commas, draft),
            AmiSegments::Lhotse => ami_lhotse::add(speaker, &segments, &words, draft),
        }
    }
    Ok(())
}

/// The speakers of the wanted meetings by meeting and letter.
fn speakers(path: &Path, wanted: &[&str], audio: &HashMap<String, PathBuf>) -> Result<BTreeMap<(String, String), Speaker>> {
    let (mut speakers, mut meeting) = (BTreeMap::new(), String::new());
    for element in elements(path)? {
        match element.name.as_str() {
            "meeting" => meeting = element.attribute("observation").unwrap_or_default().to_string(),
            "speaker" if wanted.contains(&meeting.as_str()) => {
                let attribute = |name: &str| element.attribute(name).unwrap_or_default().to_string();
                let channel = attribute("channel");
                let file = format!("{meeting}.Headset-{channel}");
                let audio = audio.get(&file).cloned().unwrap_or_else(|| PathBuf::from(format!("{file}.wav")));
                let speaker = Speaker { meeting: meeting.clone(), name: attribute("global_name"), channel, audio };
                speakers.insert((meeting.clone(), attribute("nxt_agent")), speaker);
            }
            _ => {}
        }
    }
    Ok(speakers)
}

fn read_segments(path: &Path) -> Result<Vec<Segment>> {
    let mut segments: Vec<Segment> = Vec::new();
    for element in elements(path)? {
        let time = |name: &str| element.attribute(name).and_then(|t| t.trim().parse().ok());
        match (element.name.as_str(), segments.last_mut()) {
            ("segment", _) => {
                segments.push(Segment { start: time("transcriber_start"), end: time("transcriber_end"), span: None });
            }
            // "ES2002a.A.words.xml#id(first)..id(last)", or one id.
            ("child", Some(segment)) => {
                let mut ids = element.attribute("href").unwrap_or_default().split("id(").skip(1).filter_map(|id| id.split(')').next());
                if let Some(first) = ids.next() {
                    segment.span = Some((first.into(), ids.next().unwrap_or(first).into()));
                }
            }
            _ => {}
        }
    }
    Ok(segments)
}

fn read_words(path: &Path) -> Result<Vec<Word>> {
    let inside = elements(path)?.into_iter().skip(1);
    Ok(inside
        .map(|element| Word {
            id: element.attribute("id").unwrap_or_default().into(),
            start: element.attribute("starttime").map(str::to_string),
            end: element.attribute("endtime").map(str::to_string),
            is_word: element.name == "w",
            is_punctuation: element.name == "w" && element.attribute("punc") == Some("true"),
            text: element.text.trim().to_string(),
        })
        .collect())
}

/// An XML element without its namespace.
struct Element {
    name: String,
    attributes: Vec<(String, String)>,
    text: String,
}

impl Element {
    fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// All elements of a file in the order they start, each with the text directly after its start.
fn elements(path: &Path) -> Result<Vec<Element>> {
    let text = files::read_text(path)?;
    let broken = |e: &dyn std::fmt::Display| Error::config(path, format!("not the XML it should be: {e}"));
    let mut reader = quick_xml::Reader::from_str(&text);
    let mut found: Vec<Element> = Vec::new();
    loop {
        let piece = match reader.read_event().map_err(|e| broken(&e))? {
            Event::Eof => return Ok(found),
            Event::Start(start) | Event::Empty(start) => {
                found.push(element(&start).map_err(|e| broken(&e))?);
                continue;
            }
            Event::Text(text) => text.decode().map_err(|e| broken(&e))?.into_owned(),
            Event::CData(text) => text.decode().map_err(|e| broken(&e))?.into_owned(),
            Event::GeneralRef(reference) => {
                let name = reference.decode().map_err(|e| broken(&e))?;
                let character = reference.resolve_char_ref().map_err(|e| broken(&e))?;
                let known = quick_xml::escape::resolve_xml_entity(&name).map(str::to_string);
                character.map(String::from).or(known).ok_or_else(|| broken(&format!("unknown entity &{name};")))?
            }
            _ => continue,
        };
        if let Some(last) = found.last_mut() {
            last.text.push_str(&piece);
        }
    }
}

fn element(start: &BytesStart<'_>) -> quick_xml::Result<Element> {
    let name = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut attributes = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute?;
        attributes.push((name(attribute.key.local_name().as_ref()), attribute.unescape_value()?.into_owned()));
    }
    Ok(Element { name: name(start.local_name().as_ref()), attributes, text: String::new() })
}
