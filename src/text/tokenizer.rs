//! Text to token ids and back; the CTC blank is one of the ids.
//!
//! Two kinds, each in one JSON file: characters (our own format, blank 0) and subwords in the Hugging Face `tokenizers` format, in which
//! published models (Parakeet) come and in which ours are saved. Subwords mark the start of a word with `▁`, like SentencePiece.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::{AddedToken, DecoderWrapper, ModelWrapper, NormalizedString, Normalizer as _};

use super::vocabulary;
use crate::error::{Error, Result};

/// Version of the character format that this build writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// The blank of tokenizers trained here, always id 0.
pub(super) const BLANK: &str = "<blank>";

/// Names a blank has in subword files, ours first. NeMo's models come to the `tokenizers` format with the blank as `<pad>`.
const BLANK_NAMES: [&str; 2] = [BLANK, "<pad>"];

const WORD_START: char = '▁';

/// Text to token ids and back.
#[derive(Clone)]
pub struct Tokenizer {
    /// The file, or what kind it is: named in errors.
    origin: PathBuf,
    blank: u32,
    /// Text of each token with a space for a word start; empty for the blank and other special tokens.
    pieces: Vec<String>,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Characters(HashMap<char, u32>),
    Subwords { model: Box<tokenizers::Tokenizer>, alphabet: HashSet<char> },
}

/// The character format.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CharacterFile {
    format_version: u32,
    kind: CharacterKind,
    blank: u32,
    /// Tokens 1, 2, ... in order.
    characters: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CharacterKind {
    Characters,
}

impl Tokenizer {
    /// One token per character, in this order from id 1.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if there is none or one appears twice.
    pub fn characters(alphabet: &str) -> Result<Self> {
        Self::from_characters(alphabet, "character tokenizer".into())
    }

    /// Characters of `texts`, in the order of their code points.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the texts are empty.
    pub fn train_characters<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> Result<Self> {
        let mut seen = HashSet::new();
        texts.into_iter().for_each(|text| seen.extend(text.as_ref().chars()));
        let mut sorted: Vec<char> = seen.into_iter().collect();
        sorted.sort_unstable();
        Self::characters(&String::from_iter(sorted))
    }

    /// Byte-pair encoding of `texts` with at most `vocab_size` tokens, blank (id 0) included. Subwords do not cross words.
    ///
    /// The same texts give the same tokenizer. A small corpus may give fewer tokens: ask [`Self::vocab_size`].
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the texts are empty or `vocab_size` does not hold the blank and every character.
    pub fn train_bpe<S: AsRef<str> + Send>(texts: impl IntoIterator<Item = S, IntoIter: Send>, vocab_size: usize) -> Result<Self> {
        let origin = PathBuf::from("subword tokenizer");
        let trainer = BpeTrainer::builder()
            .vocab_size(vocab_size)
            .min_frequency(2)
            .special_tokens(vec![AddedToken::from(BLANK, true)])
            .show_progress(false)
            .build();
        let words = Metaspace::new(WORD_START, PrependScheme::Always, true);
        let mut model = tokenizers::Tokenizer::new(BPE::default());
        model.with_pre_tokenizer(Some(words.clone()));
        model.with_decoder(Some(words));
        model.train(&mut TrainerWrapper::BpeTrainer(trainer), texts.into_iter()).map_err(|e| failed(&origin, e))?;
        let trained = Self::from_subwords(model, origin)?;
        let size = trained.vocab_size();
        match size {
            0..=1 => Err(failed(&trained.origin, "no text to train on")),
            _ if size > vocab_size => {
                Err(failed(&trained.origin, format!("{vocab_size} tokens asked for, the characters and the blank need {size}")))
            }
            _ => Ok(trained),
        }
    }

    /// Reads a tokenizer file of either kind.
    ///
    /// # Errors
    /// - [`Error::Io`] if it cannot be read
    /// - [`Error::FormatVersion`] if another version of the character format
    /// - [`Error::Tokenizer`] if it is of another kind or broken
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let json = fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        Self::from_json(&json, path)
    }

    /// Reads the content of a tokenizer file; `path` is its name in errors.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_json(json: &str, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut value: serde_json::Value = serde_json::from_str(json).map_err(|e| failed(path, e))?;
        if value.get("model").is_some() {
            value.get_mut("normalizer").map(without_compiled_tables);
            let model: tokenizers::Tokenizer = serde_json::from_value(value).map_err(|e| failed(path, e))?;
            return Self::from_subwords(model, path.into());
        }
        let found = value.get("format_version").and_then(serde_json::Value::as_u64);
        let found = found.ok_or_else(|| failed(path, "neither a character nor a subword tokenizer file"))?;
        if found != u64::from(FORMAT_VERSION) {
            return Err(Error::FormatVersion { path: path.into(), found: found.try_into().unwrap_or(u32::MAX), supported: FORMAT_VERSION });
        }
        if value.get("kind").and_then(serde_json::Value::as_str) == Some("vocabulary") {
            return Self::from_vocabulary_file(value, path);
        }
        let file: CharacterFile = serde_json::from_value(value).map_err(|e| failed(path, e))?;
        if file.blank != 0 {
            return Err(failed(path, format!("blank is {}, it must be 0", file.blank)));
        }
        Self::from_characters(&file.characters, path.into())
    }

    /// Content of the tokenizer's file.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if it cannot be written as JSON.
    pub fn to_json(&self) -> Result<String> {
        match &self.kind {
            // A vocabulary with special tokens, or with letters that spell both cases.
            Kind::Characters(ids)
                if ids.len() + 1 != self.pieces.len() || self.pieces[1..].iter().any(String::is_empty) || self.blank != 0 =>
            {
                let file = Self::vocabulary_file(&self.pieces, self.blank);
                serde_json::to_string_pretty(&file).map_err(|e| failed(&self.origin, e))
            }
            Kind::Characters(_) => {
                let file = CharacterFile {
                    format_version: FORMAT_VERSION,
                    kind: CharacterKind::Characters,
                    blank: self.blank,
                    characters: self.pieces.concat(),
                };
                serde_json::to_string_pretty(&file).map_err(|e| failed(&self.origin, e))
            }
            Kind::Subwords { model, .. } => model.to_string(true).map_err(|e| failed(&self.origin, e)),
        }
    }

    /// Writes the tokenizer to one file, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written, [`Error::Tokenizer`] as [`Self::to_json`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let json = self.to_json()?;
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let write = || {
            let mut file = File::create(&partial)?;
            file.write_all(json.as_bytes())?;
            file.sync_all()?;
            fs::rename(&partial, path)
        };
        write().map_err(|e| Error::io(path, e))
    }

    /// Number of tokens, blank included: the width of the model's output.
    pub fn vocab_size(&self) -> usize {
        self.pieces.len()
    }

    /// Id of the CTC blank.
    pub fn blank(&self) -> u32 {
        self.blank
    }

    /// Text of a token, with a space where it starts a word; empty for the blank, other special tokens and unknown ids.
    pub fn piece(&self, token: u32) -> &str {
        self.pieces.get(token as usize).map_or("", String::as_str)
    }

    /// Tokens of `text`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] naming the characters that no token spells.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        match &self.kind {
            Kind::Characters(ids) => {
                let tokens: Option<Vec<u32>> = text.chars().map(|c| ids.get(&c).copied()).collect();
                tokens.ok_or_else(|| self.unspellable(text, |c| ids.contains_key(&c)))
            }
            Kind::Subwords { model, alphabet } => {
                if text.contains(WORD_START) {
                    return Err(self.unspellable(text, |c| c != WORD_START));
                }
                let mut seen = NormalizedString::from(text);
                if let Some(normalizer) = model.get_normalizer() {
                    normalizer.normalize(&mut seen).map_err(|e| failed(&self.origin, e))?;
                }
                if !seen.get().chars().all(|c| alphabet.contains(&c)) {
                    return Err(self.unspellable(seen.get(), |c| alphabet.contains(&c)));
                }
                let encoding = model.encode_fast(text, false).map_err(|e| failed(&self.origin, e))?;
                Ok(encoding.get_ids().to_vec())
            }
        }
    }

    /// Text of `tokens`; blanks, special tokens and unknown ids give nothing.
    ///
    /// Undoes [`Self::encode`], except that subwords do not keep spaces before the first word.
    pub fn decode(&self, tokens: &[u32]) -> String {
        let mut text = String::new();
        for piece in tokens.iter().map(|&token| self.piece(token)) {
            let starts = text.is_empty() && matches!(self.kind, Kind::Subwords { .. });
            text.push_str(if starts { piece.trim_start_matches(' ') } else { piece });
        }
        text
    }

    fn from_characters(alphabet: &str, origin: PathBuf) -> Result<Self> {
        let ids: HashMap<char, u32> = alphabet.chars().zip(1..).collect();
        let pieces: Vec<String> = std::iter::once(String::new()).chain(alphabet.chars().map(String::from)).collect();
        if ids.is_empty() {
            return Err(failed(&origin, "no characters"));
        }
        if let Some((_, twice)) = (1..).zip(alphabet.chars()).find(|(id, c)| ids[c] != *id) {
            return Err(failed(&origin, format!("character {twice:?} appears twice")));
        }
        Ok(Self { origin, blank: 0, pieces, kind: Kind::Characters(ids) })
    }

    /// One token for each text; the blank and special ones have none.
    pub(super) fn from_tokens(tokens: Vec<String>, blank: u32, origin: PathBuf) -> Result<Self> {
        let ids = vocabulary::letters(&tokens);
        if ids.is_empty() {
            return Err(failed(&origin, "no characters"));
        }
        Ok(Self { origin, blank, pieces: tokens, kind: Kind::Characters(ids) })
    }

    fn from_subwords(mut model: tokenizers::Tokenizer, origin: PathBuf) -> Result<Self> {
        if !matches!(model.get_model(), ModelWrapper::BPE(_) | ModelWrapper::Unigram(_))
            || !matches!(model.get_decoder(), Some(DecoderWrapper::Metaspace(m)) if m.get_replacement() == WORD_START)
        {
            return Err(failed(&origin, "only BPE and unigram models with the Metaspace decoder of '▁' are supported"));
        }
        // A special token's name in a text is text.
        model.set_encode_special_tokens(true);
        model.with_padding(None);
        model.with_truncation(None).map_err(|e| failed(&origin, e))?;
        let blank = BLANK_NAMES.iter().find_map(|name| model.token_to_id(name));
        let blank = blank.ok_or_else(|| failed(&origin, format!("no token named {}", BLANK_NAMES.join(" or "))))?;
        let vocab = model.get_vocab(true);
        let mut pieces = vec![String::new(); vocab.len()];
        let mut alphabet = HashSet::new();
        let added = model.get_added_tokens_decoder();
        for (token, &id) in &vocab {
            let piece = pieces.get_mut(id as usize).ok_or_else(|| failed(&origin, format!("id {id} is not below {}", vocab.len())))?;
            if id == blank || added.get(&id).is_some_and(|t| t.special) {
                continue;
            }
            *piece = token.replace(WORD_START, " ");
            let mut characters = token.chars();
            if let (Some(c), None) = (characters.next(), characters.next()) {
                alphabet.insert(c);
                if c == WORD_START {
                    alphabet.insert(' ');
                }
            }
        }
        Ok(Self { origin, blank, pieces, kind: Kind::Subwords { model: Box::new(model), alphabet } })
    }

    fn unspellable(&self, text: &str, known: impl Fn(char) -> bool) -> Error {
        let mut unknown: Vec<String> = vec![];
        for c in text.chars().filter(|&c| !known(c)) {
            let name = format!("{c:?}");
            if !unknown.contains(&name) {
                unknown.push(name);
            }
        }
        failed(&self.origin, format!("no token spells {}", unknown.join(", ")))
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Characters(_) => "characters",
            Kind::Subwords { .. } => "subwords",
        };
        f.debug_struct("Tokenizer").field("kind", &kind).field("vocab_size", &self.vocab_size()).field("blank", &self.blank).finish()
    }
}

/// Puts NFKC and its white-space rules in the place of SentencePiece's compiled form of them (`nmt_nfkc`).
///
/// The crate panics on a damaged compiled table, at reading or at a later text, so none is ever read.
fn without_compiled_tables(normalizer: &mut serde_json::Value) {
    if normalizer.get("type").and_then(serde_json::Value::as_str) == Some("Precompiled") {
        *normalizer = serde_json::json!({"type": "Sequence", "normalizers": [{"type": "Nmt"}, {"type": "NFKC"}]});
    } else if let Some(steps) = normalizer.get_mut("normalizers").and_then(serde_json::Value::as_array_mut) {
        steps.iter_mut().for_each(without_compiled_tables);
    }
}

pub(super) fn failed(path: impl AsRef<Path>, reason: impl fmt::Display) -> Error {
    Error::Tokenizer { path: path.as_ref().into(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXTS: [&str; 4] = ["the cat sat on the mat", "she sells sea shells by the sea shore", "don't that that", "a  b"];

    fn bpe() -> Tokenizer {
        Tokenizer::train_bpe(TEXTS, 40).unwrap()
    }

    #[test]
    fn characters_have_ids_from_one() {
        let tokenizer = Tokenizer::train_characters(["b a", "'c"]).unwrap();
        assert_eq!((tokenizer.vocab_size(), tokenizer.blank()), (6, 0));
        assert_eq!(tokenizer.encode("a 'b").unwrap(), [3, 1, 2, 4]);
        assert_eq!(tokenizer.decode(&[0, 3, 0, 1, 99, 5]), "a c");
    }

    #[test]
    fn bpe_merges_within_words_and_repeats() {
        let tokenizer = bpe();
        assert_eq!((tokenizer.piece(0), tokenizer.blank()), ("", 0));
        assert!(tokenizer.vocab_size() <= 40 && tokenizer.encode("the").unwrap().len() < 3);
        assert!((0..tokenizer.vocab_size() as u32).all(|id| !tokenizer.piece(id).trim_start().contains(' ')));
        assert_eq!(tokenizer.to_json().unwrap(), bpe().to_json().unwrap());
    }

    #[test]
    fn unspellable_characters_are_named() {
        for tokenizer in [Tokenizer::train_characters(TEXTS).unwrap(), bpe()] {
            let message = tokenizer.encode("the é cat é9 ▁").unwrap_err().to_string();
            assert!(message.contains("'▁'") || message.contains("'é', '9'"), "{message}");
            assert!(tokenizer.encode("<blank>").is_err());
        }
    }

    #[test]
    fn files_come_back_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        for tokenizer in [Tokenizer::characters(" abc'").unwrap(), bpe()] {
            tokenizer.save(&path).unwrap();
            let loaded = Tokenizer::load(&path).unwrap();
            assert_eq!(loaded.pieces, tokenizer.pieces);
            assert_eq!(loaded.blank(), tokenizer.blank());
            assert_eq!(loaded.to_json().unwrap(), tokenizer.to_json().unwrap());
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        assert!(matches!(Tokenizer::load(folder.path().join("none")), Err(Error::Io { .. })));
    }

    #[test]
    fn a_damaged_compiled_normalizer_is_not_read() {
        let mut file: serde_json::Value = serde_json::from_str(&bpe().to_json().unwrap()).unwrap();
        let compiled = serde_json::json!({"type": "Precompiled", "precompiled_charsmap": "ALwCAACE"});
        for normalizer in [compiled.clone(), serde_json::json!({"type": "Sequence", "normalizers": [compiled]})] {
            file["normalizer"] = normalizer;
            let tokenizer = Tokenizer::from_json(&file.to_string(), "t.json").unwrap();
            assert_eq!(tokenizer.encode("the\tｃａｔ").unwrap(), bpe().encode("the cat").unwrap());
        }
    }

    #[test]
    fn broken_files_are_errors() {
        let of = |json: &str| Tokenizer::from_json(json, "t.json").unwrap_err();
        let file = |version: u32, rest: &str| format!(r#"{{"format_version": {version}, "kind": "characters", {rest}}}"#);
        assert!(matches!(of(&file(2, r#""blank": 0, "characters": "a""#)), Error::FormatVersion { found: 2, .. }));
        for bad in [
            String::new(),
            "{}".into(),
            "[]".into(),
            r#"{"model": 1}"#.into(),
            file(1, r#""blank": 1, "characters": "a""#),
            file(1, r#""blank": 0, "characters": """#),
            file(1, r#""blank": 0, "characters": "aba""#),
            file(1, r#""blank": 0, "characters": "ab", "more": 1"#),
            bpe().to_json().unwrap().replace(BLANK, "<other>"),
        ] {
            assert!(matches!(of(&bad), Error::Tokenizer { .. }), "{bad}");
        }
        assert!(matches!(Tokenizer::train_bpe(TEXTS, 5), Err(Error::Tokenizer { .. })));
        assert!(matches!(Tokenizer::train_bpe([""; 0], 5), Err(Error::Tokenizer { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn decode_undoes_encode(text in "([a-emnos'][a-emnos' ]{0,40})?") {
            let bpe = Tokenizer::train_bpe(["abc deemons' no  cab", "same na a b d"], 30).unwrap();
            for tokenizer in [Tokenizer::characters(" 'abcdemnos").unwrap(), bpe] {
                let tokens = tokenizer.encode(&text).unwrap();
                prop_assert!(!tokens.contains(&tokenizer.blank()));
                prop_assert_eq!(tokenizer.decode(&tokens), &text[..]);
            }
        }
    }
}
