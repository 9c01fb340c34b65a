//! SentencePiece models (`tokenizer.model`) as tokenizers in the Hugging Face format: the pieces are read from the protobuf, and the merges of
//! a BPE model follow from them.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Value, json};

use super::tokenizer::{BLANK, Tokenizer, failed};
use crate::error::Result;

/// Most pieces, five times the largest vocabulary in use.
const MOST_PIECES: usize = 1 << 20;
/// Longest piece in characters; SentencePiece trains at most 16 unless told otherwise.
const LONGEST_PIECE: usize = 128;

#[derive(Debug, Default)]
struct Model {
    pieces: Vec<Piece>,
    bpe: bool,
    /// Whether a compiled table of character replacements comes with it (`nmt_nfkc` and its kin).
    normalizes: bool,
}

#[derive(Debug, Default)]
struct Piece {
    text: String,
    score: f32,
    kind: u64,
}

/// Kinds of pieces, as numbered in SentencePiece's protobuf.
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const BYTE: u64 = 6;

impl Tokenizer {
    /// The tokenizer of a SentencePiece model with a blank after its last piece, as NeMo's CTC models have it.
    ///
    /// # Errors
    /// [`Error::Tokenizer`](crate::Error::Tokenizer) if it is no SentencePiece model, or neither a BPE nor a unigram one.
    pub fn from_sentencepiece(bytes: &[u8], path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let model = Model::read(bytes).ok_or_else(|| failed(path, "not a SentencePiece model"))?;
        let blank = model.pieces.len();
        if blank == 0 || blank > MOST_PIECES {
            return Err(failed(path, format!("{blank} pieces: must lie in 1..={MOST_PIECES}")));
        }
        if let Some(long) = model.pieces.iter().find(|p| p.text.chars().count() > LONGEST_PIECE) {
            return Err(failed(path, format!("a piece of {} characters", long.text.chars().count())));
        }
        let special = |id: usize, content: &str| json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
        let specials = model.pieces.iter().enumerate().filter(|(_, p)| matches!(p.kind, UNKNOWN | CONTROL));
        let mut added: Vec<Value> = specials.map(|(id, p)| special(id, &p.text)).collect();
        added.push(special(blank, BLANK));
        let mut steps = if model.normalizes { vec![json!({"type": "Nmt"}), json!({"type": "NFKC"})] } else { vec![] };
        steps.push(json!({"type": "Strip", "strip_left": false, "strip_right": true}));
        steps.push(json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}));
        let words = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
        let file = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
            "normalizer": {"type": "Sequence", "normalizers": steps},
            "pre_tokenizer": words, "post_processor": null, "decoder": words,
            "model": if model.bpe { model.bpe() } else { model.unigram() },
        });
        Self::from_json(&file.to_string(), path)
    }
}

impl Model {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut model = Self::default();
        for field in Fields(bytes) {
            match field? {
                (1, Field::Bytes(piece)) if model.pieces.len() <= MOST_PIECES => model.pieces.push(Piece::read(piece)?),
                // trainer_spec.model_type: 1 unigram, 2 BPE
                (2, Field::Bytes(spec)) => {
                    for field in Fields(spec) {
                        match field? {
                            (3, Field::Number(kind @ (1 | 2))) => model.bpe = kind == 2,
                            (3, Field::Number(_)) => return None,
                            _ => {}
                        }
                    }
                }
                // normalizer_spec.precompiled_charsmap
                (3, Field::Bytes(spec)) => {
                    for field in Fields(spec) {
                        model.normalizes |= matches!(field?, (2, Field::Bytes(table)) if !table.is_empty());
                    }
                }
                _ => {}
            }
        }
        Some(model)
    }

    fn unknown(&self) -> Option<usize> {
        self.pieces.iter().position(|p| p.kind == UNKNOWN)
    }

    fn bpe(&self) -> Value {
        let ids: HashMap<&str, usize> = self.pieces.iter().enumerate().map(|(id, p)| (p.text.as_str(), id)).collect();
        let mut merges = Vec::new();
        // Pieces come in the order in which they were merged.
        for piece in self.pieces.iter().filter(|p| p.kind <= 1) {
            let splits = piece.text.char_indices().skip(1).map(|(at, _)| piece.text.split_at(at));
            let mut splits: Vec<_> = splits.filter_map(|(l, r)| Some((*ids.get(l)?, *ids.get(r)?, l, r))).collect();
            splits.sort_unstable();
            merges.extend(splits.into_iter().map(|(_, _, l, r)| json!([l, r])));
        }
        let unknown = self.unknown().map(|id| self.pieces[id].text.as_str());
        let bytes = self.pieces.iter().any(|p| p.kind == BYTE);
        json!({
            "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": true, "byte_fallback": bytes, "ignore_merges": false, "vocab": ids, "merges": merges,
        })
    }

    fn unigram(&self) -> Value {
        let vocab: Vec<Value> = self.pieces.iter().map(|p| json!([p.text, p.score])).collect();
        json!({"type": "Unigram", "unk_id": self.unknown(), "vocab": vocab, "byte_fallback": self.pieces.iter().any(|p| p.kind == BYTE)})
    }
}

impl Piece {
    fn read(bytes: &[u8]) -> Option<Self> {
        // A normal piece does not name its kind.
        let mut piece = Self { kind: 1, ..Self::default() };
        for field in Fields(bytes) {
            match field? {
                (1, Field::Bytes(text)) => piece.text = std::str::from_utf8(text).ok()?.to_string(),
                (2, Field::Float(score)) => piece.score = score,
                (3, Field::Number(kind)) => piece.kind = kind,
                _ => {}
            }
        }
        (!piece.text.is_empty() && piece.score.is_finite()).then_some(piece)
    }
}

/// A field of a protobuf message.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Field<'a> {
    Number(u64),
    Float(f32),
    Double,
    Bytes(&'a [u8]),
}

/// The fields of a protobuf message with their numbers; ends with `None` inside where the bytes are no message.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u64, Field<'a>)> {
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => Field::Number(self.varint()?),
            1 => self.bytes(8).map(|_| Field::Double)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Field::Bytes(self.bytes(length)?)
            }
            5 => Field::Float(f32::from_le_bytes(*self.bytes(4)?.first_chunk()?)),
            _ => return None,
        };
        Some((tag >> 3, field))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Field<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model of `pieces` with scores and kinds; `kind` is that of the model.
    fn model(kind: u8, pieces: &[(&str, f32, u8)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (text, score, kind) in pieces {
            let mut piece = vec![0x0a, text.len() as u8];
            piece.extend(text.bytes());
            piece.push(0x15);
            piece.extend(score.to_le_bytes());
            piece.extend([0x18, *kind]);
            bytes.extend([0x0a, piece.len() as u8]);
            bytes.extend(piece);
        }
        bytes.extend([0x12, 2, 0x18, kind]);
        bytes
    }

    #[test]
    fn both_kinds_spell_words() {
        let pieces = [("<unk>", 0.0, 2), ("ab", -1.0, 1), ("▁ab", -2.0, 1), ("▁", -3.0, 1), ("a", -4.0, 1), ("b", -5.0, 1)];
        for kind in [1, 2] {
            let tokenizer = Tokenizer::from_sentencepiece(&model(kind, &pieces), "t.model").unwrap();
            assert_eq!((tokenizer.vocab_size(), tokenizer.blank()), (7, 6));
            assert_eq!(tokenizer.encode("ab ba").unwrap(), [2, 3, 5, 4], "{kind}");
            assert_eq!(tokenizer.decode(&[2, 6, 3, 5, 4, 0]), "ab ba");
        }
    }

    #[test]
    fn damaged_models_are_refused() {
        let whole = model(2, &[("<unk>", 0.0, 2), ("▁", -3.0, 1), ("a", -4.0, 1)]);
        for length in 1..whole.len() {
            // A cut between two fields leaves a valid message.
            let _ = Tokenizer::from_sentencepiece(&whole[..length], "t.model");
        }
        for bad in [&b""[..], b"\xff\xff\xff\xff", b"hello world", &model(3, &[("a", 0.0, 1)])] {
            assert!(Tokenizer::from_sentencepiece(bad, "t.model").is_err(), "{bad:?}");
        }
    }
}
