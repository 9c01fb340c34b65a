//! Letter vocabularies of wav2vec 2.0 models: `vocab.json`, and our own file of the same content.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::tokenizer::{FORMAT_VERSION, Tokenizer, failed};
use crate::error::Result;

/// Most tokens; the largest letter vocabularies in use hold some thousand.
const MOST_TOKENS: usize = 100_000;

/// Our own file: the text of every token in order; special ones have none.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VocabularyFile {
    pub format_version: u32,
    pub kind: VocabularyKind,
    pub blank: u32,
    pub tokens: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum VocabularyKind {
    Vocabulary,
}

/// What the tokens of a `vocab.json` mean.
#[derive(Debug, Clone, PartialEq)]
pub struct VocabularyRoles {
    /// The token that serves as the CTC blank.
    pub blank: String,
    /// The token that stands between words.
    pub word_delimiter: String,
    /// Other tokens that are no text.
    pub special: Vec<String>,
}

impl Default for VocabularyRoles {
    /// Those of wav2vec 2.0.
    fn default() -> Self {
        Self { blank: "<pad>".into(), word_delimiter: "|".into(), special: ["<s>", "</s>", "<unk>"].map(String::from).into() }
    }
}

impl Tokenizer {
    /// The tokenizer of a `vocab.json`: token texts and their ids. A letter in one case only spells the other case too.
    ///
    /// # Errors
    /// [`Error::Tokenizer`](crate::Error::Tokenizer): no such file, ids that are not 0, 1, .., or no blank.
    pub fn from_vocabulary(json: &[u8], roles: &VocabularyRoles, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let ids: BTreeMap<String, usize> = serde_json::from_slice(json).map_err(|e| failed(path, e))?;
        let mut tokens = vec![None; ids.len().min(MOST_TOKENS)];
        for (text, &id) in &ids {
            let slot = tokens.get_mut(id).ok_or_else(|| failed(path, format!("id {id} of {text:?} is not below {}", ids.len())))?;
            let silent = *text == roles.blank || roles.special.contains(text);
            let text = if silent {
                ""
            } else if *text == roles.word_delimiter {
                " "
            } else {
                text
            };
            if slot.replace(text.to_string()).is_some() {
                return Err(failed(path, format!("id {id} belongs to two tokens")));
            }
        }
        let blank = *ids.get(&roles.blank).ok_or_else(|| failed(path, format!("no token named {}", roles.blank)))?;
        let tokens = tokens.into_iter().map(Option::unwrap_or_default).collect();
        Self::from_tokens(tokens, blank as u32, path.into())
    }

    pub(super) fn from_vocabulary_file(value: serde_json::Value, path: &Path) -> Result<Self> {
        let file: VocabularyFile = serde_json::from_value(value).map_err(|e| failed(path, e))?;
        debug_assert_eq!(file.kind, VocabularyKind::Vocabulary);
        if file.blank as usize >= file.tokens.len() || file.tokens.len() > MOST_TOKENS || !file.tokens[file.blank as usize].is_empty() {
            return Err(failed(path, format!("blank is {}: must be a token without text", file.blank)));
        }
        Self::from_tokens(file.tokens, file.blank, path.into())
    }

    pub(super) fn vocabulary_file(tokens: &[String], blank: u32) -> VocabularyFile {
        VocabularyFile { format_version: FORMAT_VERSION, kind: VocabularyKind::Vocabulary, blank, tokens: tokens.to_vec() }
    }
}

/// The id of every letter that a token spells alone, in both cases where one is free.
pub(super) fn letters(tokens: &[String]) -> HashMap<char, u32> {
    let single = |text: &str| {
        let mut characters = text.chars();
        characters.next().filter(|_| characters.next().is_none())
    };
    let mut ids: HashMap<char, u32> = HashMap::new();
    for (token, id) in tokens.iter().zip(0..) {
        if let Some(letter) = single(token) {
            ids.entry(letter).or_insert(id);
        }
    }
    let own: Vec<(char, u32)> = ids.iter().map(|(&c, &id)| (c, id)).collect();
    for (letter, id) in own {
        let cases = [letter.to_lowercase().to_string(), letter.to_uppercase().to_string()];
        for other in cases.iter().filter_map(|text| single(text)) {
            ids.entry(other).or_insert(id);
        }
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCABULARY: &[u8] = br#"{"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "E": 5, "T": 6, "'": 7}"#;

    #[test]
    fn letters_in_any_case_and_a_round_trip() {
        let tokenizer = Tokenizer::from_vocabulary(VOCABULARY, &VocabularyRoles::default(), "vocab.json").unwrap();
        assert_eq!((tokenizer.vocab_size(), tokenizer.blank()), (8, 0));
        assert_eq!(tokenizer.encode("te 't").unwrap(), [6, 5, 4, 7, 6]);
        assert_eq!(tokenizer.decode(&[1, 6, 0, 5, 3, 4, 5, 2]), "TE E");
        assert!(tokenizer.encode("x").is_err());
        let again = Tokenizer::from_json(&tokenizer.to_json().unwrap(), "tokenizer.json").unwrap();
        assert_eq!((again.encode("te 't").unwrap(), again.vocab_size()), (vec![6, 5, 4, 7, 6], 8));
    }

    #[test]
    fn broken_vocabularies_are_refused() {
        let read = |json: &[u8]| Tokenizer::from_vocabulary(json, &VocabularyRoles::default(), "vocab.json").unwrap_err().to_string();
        assert!(read(br#"{"a": 0}"#).contains("no token named <pad>"));
        assert!(read(br#"{"<pad>": 0, "a": 5}"#).contains("not below 2"));
        assert!(read(br#"{"<pad>": 0, "a": 0}"#).contains("two tokens"));
        assert!(read(br#"{"eng": {"a": 0}}"#).contains("tokenizer"));
    }
}
