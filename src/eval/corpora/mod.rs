//! Test corpora as they lie on disk: each reader turns one published layout into a list of [`Utterance`]s, without preparation.
//!
//! ```text
//! folder --open(kind, rules)--> Corpus { utterances, dropped, problems }
//!                               Utterance = channel and [start, end) of an audio file + its reference text
//! ```
//! Where published preparations disagree, [`Rules`] names the choices, and a result file stores them. What is missing or broken is
//! listed in [`Corpus::problems`] and the rest goes on; a folder of another kind is an error that says what was looked for and found.
//! No index file is ever handed to a shell: the pipes of Kaldi's `wav.scp` are parsed, and refused where they do more than name a file
//! and a channel.

mod ami;
mod ami_kaldi;
mod ami_lhotse;
mod chime6;
mod common_voice;
mod draft;
mod files;
mod fleurs;
mod folder;
mod hub5;
mod huggingface;
mod kaldi_directory;
mod kaldi_pipe;
mod lhotse;
mod librispeech;
mod nemo;
mod rules;
mod sclite;
mod stm;
mod tedlium;
mod voxpopuli;
mod wsj;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

pub use rules::{
    AmiCommas, AmiSegments, Chime6Channels, Chime6Sessions, FleursText, Hub5Padding, Rules, Split, StmText, TedSuffixes, VoxPopuliText,
    WsjVocabulary,
};

use crate::audio::Channel;
use crate::error::{Error, Result};
use draft::Draft;

/// A test set, read.
#[derive(Debug, Clone, PartialEq)]
pub struct Corpus {
    /// [`CorpusKind::id`].
    pub name: String,
    /// The rules that made it: those of [`CorpusKind::rules`] with the choice taken.
    pub rules: BTreeMap<String, String>,
    /// What is to be recognised, in the order of the index files.
    pub utterances: Vec<Utterance>,
    /// Segments that the set's own rules leave out, counted by rule.
    pub dropped: BTreeMap<&'static str, usize>,
    /// What could not be used, or not as it is.
    pub problems: Vec<Problem>,
}

/// A stretch of audio with what is said in it.
///
/// # Units
/// Seconds from the start of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Utterance {
    /// Unique in the corpus; as the usual preparation of the set names it, where there is one.
    pub id: String,
    /// The audio file; it exists.
    pub audio: PathBuf,
    /// Channel of the file.
    pub channel: Channel,
    /// Start, 0 or more.
    pub start: f64,
    /// End, after the start; `None` is the end of the file.
    pub end: Option<f64>,
    /// What is said, by the rules of the set, before any normaliser; one space between words. An empty one is also listed as a problem.
    pub reference: String,
    /// The set it counts in, where a manifest of several sets says.
    pub set: Option<String>,
    /// Who speaks.
    pub speaker: Option<String>,
    /// How it is spoken.
    pub labels: Labels,
    /// What a bootstrap may resample as a whole: the session, call, talk or chapter.
    pub recording: String,
    /// Length, where an index file tells or the times do.
    pub duration: Option<f64>,
}

/// How an utterance is spoken, where the lines of an index file say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Labels {
    /// Language code.
    pub lang: Option<String>,
    /// Accent.
    pub accent: Option<String>,
    /// Sex of the speaker.
    pub sex: Option<String>,
}

/// Something that is wrong with the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Kind of the problem, to be counted by.
    pub what: ProblemKind,
    /// Utterance, or file and line.
    pub place: String,
    /// What was found there.
    pub detail: String,
}

/// Kinds of problems, and what becomes of the utterance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProblemKind {
    /// The audio file is not there: left out.
    MissingAudio,
    /// Audio or a segment without a transcript: left out.
    MissingTranscript,
    /// An id seen before: the first is kept.
    DuplicateId,
    /// Nothing is said by the rules of the set: kept.
    EmptyReference,
    /// The end is not after the start, or a time is no number: left out.
    ImpossibleTimes,
    /// A line that is not of its file's form: left out.
    BadLine,
    /// A source of audio this build does not open (a command, an archive, a mix): left out.
    UnsupportedSource,
    /// Two index files of the set contradict each other.
    Contradiction,
}

impl fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MissingAudio => "missing audio",
            Self::MissingTranscript => "missing transcript",
            Self::DuplicateId => "duplicate id",
            Self::EmptyReference => "empty reference",
            Self::ImpossibleTimes => "impossible times",
            Self::BadLine => "bad line",
            Self::UnsupportedSource => "unsupported source",
            Self::Contradiction => "contradiction",
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.what, self.place, self.detail)
    }
}

impl Corpus {
    /// How many problems of each kind there are.
    pub fn problem_counts(&self) -> BTreeMap<ProblemKind, usize> {
        let mut counts = BTreeMap::new();
        self.problems.iter().for_each(|problem| *counts.entry(problem.what).or_insert(0) += 1);
        counts
    }
}

/// The corpora this build reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CorpusKind {
    /// LibriSpeech, the clean half.
    LibriSpeechClean,
    /// LibriSpeech, the other half.
    LibriSpeechOther,
    /// Mozilla Common Voice, English.
    CommonVoice,
    /// Google FLEURS, en_us.
    Fleurs,
    /// TED-LIUM release 3, legacy split.
    TedLium,
    /// AMI meetings, individual headset microphones.
    AmiIhm,
    /// CHiME-6 (and CHiME-5) dinner parties, worn microphones.
    Chime6,
    /// Hub5'00, the CallHome half.
    Hub5CallHome,
    /// Hub5'00, the Switchboard half.
    Hub5Switchboard,
    /// Wall Street Journal, November 1992 evaluation.
    WsjNov92,
    /// VoxPopuli, English.
    VoxPopuli,
    /// A Kaldi data directory (ESPnet's too).
    Kaldi,
    /// A NeMo manifest.
    Nemo,
    /// Lhotse manifests.
    Lhotse,
    /// A Hugging Face audio folder.
    HuggingFace,
    /// sclite reference files beside audio.
    Sclite,
    /// Audio files with text files of the same name.
    Folder,
}

/// What one reader is.
struct Layout {
    id: &'static str,
    /// What shows that a folder is of this kind, in words.
    looks_for: &'static str,
    /// Names of the rules it follows.
    rules: &'static [&'static str],
    present: fn(&Path, &Rules) -> Result<bool>,
    read: fn(&Path, &Rules, &mut Draft) -> Result<()>,
}

impl CorpusKind {
    /// All of them; in this order [`detect`] tries them.
    pub const ALL: [Self; 17] = [
        Self::LibriSpeechClean,
        Self::LibriSpeechOther,
        Self::CommonVoice,
        Self::Fleurs,
        Self::TedLium,
        Self::AmiIhm,
        Self::Chime6,
        Self::Hub5CallHome,
        Self::Hub5Switchboard,
        Self::WsjNov92,
        Self::VoxPopuli,
        Self::Kaldi,
        Self::Nemo,
        Self::Lhotse,
        Self::HuggingFace,
        Self::Sclite,
        Self::Folder,
    ];

    fn layout(self) -> &'static Layout {
        match self {
            Self::LibriSpeechClean => &librispeech::CLEAN,
            Self::LibriSpeechOther => &librispeech::OTHER,
            Self::CommonVoice => &common_voice::LAYOUT,
            Self::Fleurs => &fleurs::LAYOUT,
            Self::TedLium => &tedlium::LAYOUT,
            Self::AmiIhm => &ami::LAYOUT,
            Self::Chime6 => &chime6::LAYOUT,
            Self::Hub5CallHome => &hub5::CALLHOME,
            Self::Hub5Switchboard => &hub5::SWITCHBOARD,
            Self::WsjNov92 => &wsj::LAYOUT,
            Self::VoxPopuli => &voxpopuli::LAYOUT,
            Self::Kaldi => &kaldi_directory::LAYOUT,
            Self::Nemo => &nemo::LAYOUT,
            Self::Lhotse => &lhotse::LAYOUT,
            Self::HuggingFace => &huggingface::LAYOUT,
            Self::Sclite => &sclite::LAYOUT,
            Self::Folder => &folder::LAYOUT,
        }
    }

    /// Its name in commands and results, such as `ami-ihm`.
    pub fn id(self) -> &'static str {
        self.layout().id
    }

    /// The kind of that name.
    pub fn from_id(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.id() == id)
    }

    /// Names of the [`Rules`] that have a say in it.
    pub fn rules(self) -> &'static [&'static str] {
        self.layout().rules
    }
}

/// Reads the corpus of `kind` under `root` (a folder, or the manifest file of those kinds that have one).
///
/// Index files are read, audio files only looked for.
///
/// # Errors
/// - [`Error::Config`]: nothing of this kind is there; says what was looked for and what was found.
/// - [`Error::Manifest`]: an index file without the columns it must have.
/// - [`Error::Io`], [`Error::LimitExceeded`]: an index file that cannot be read or is far too large.
pub fn open(kind: CorpusKind, root: &Path, rules: &Rules) -> Result<Corpus> {
    let layout = kind.layout();
    if !(layout.present)(root, rules)? {
        let reason = format!("not a {} corpus: looked for {}; found {}", layout.id, layout.looks_for, files::describe(root)?);
        return Err(Error::config(root, reason));
    }
    let mut draft = Draft::new(layout.id, rules.choices(layout.rules));
    (layout.read)(root, rules, &mut draft)?;
    Ok(draft.finish())
}

/// The kind of the corpus under `root`.
///
/// # Errors
/// [`Error::Config`] where no reader knows the folder, or where it holds several sets: one has to be named. [`Error::Io`].
pub fn detect(root: &Path, rules: &Rules) -> Result<CorpusKind> {
    let mut found = Vec::new();
    for kind in CorpusKind::ALL {
        // Audio beside text is what many published layouts look like too.
        let last_resort = kind == CorpusKind::Folder && !found.is_empty();
        if !last_resort && (kind.layout().present)(root, rules)? {
            found.push(kind);
        }
    }
    match found[..] {
        [kind] => Ok(kind),
        [] => {
            let known: Vec<&str> = CorpusKind::ALL.iter().map(|kind| kind.id()).collect();
            let found = files::describe(root)?;
            Err(Error::config(root, format!("no corpus that is known here: looked for {}; found {found}", known.join(", "))))
        }
        _ => {
            let ids: Vec<&str> = found.iter().map(|kind| kind.id()).collect();
            Err(Error::config(root, format!("several corpora: name one of {}", ids.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_found_again() {
        for kind in CorpusKind::ALL {
            assert_eq!(CorpusKind::from_id(kind.id()), Some(kind));
        }
        assert_eq!(CorpusKind::from_id("timit"), None);
    }

    #[test]
    fn every_rule_named_by_a_layout_exists_and_every_rule_is_named_by_one() {
        let known = Rules::default().all();
        let named: std::collections::BTreeSet<&str> = CorpusKind::ALL.iter().flat_map(|kind| kind.rules()).copied().collect();
        assert_eq!(named, known.keys().map(String::as_str).collect());
    }
}
