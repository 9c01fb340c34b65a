//! What the tokens of a model spell, cut into letters and word boundaries: all that the searches of this module know about text.

use std::collections::{HashMap, HashSet};

use crate::error::{Error, Result};

/// A letter by number, in any casing; [`BOUNDARY`] is none.
pub type Letter = u32;

/// The space between words.
pub const BOUNDARY: Letter = 0;

/// Marks of a word boundary within a token: a space, and SentencePiece's `▁`.
const BOUNDARY_MARKS: [char; 2] = [' ', '\u{2581}'];

/// The tokens' spellings.
///
/// Boundaries at the start of a text, at its end, and next to another one mean nothing: texts that differ in them only are one text.
#[derive(Debug, Clone)]
pub struct Alphabet {
    pieces: Vec<String>,
    blank: u32,
    symbols: Vec<Box<[Letter]>>,
    letters: HashMap<char, Letter>,
    spelt: HashSet<Box<[Letter]>>,
    longest: usize,
}

impl Alphabet {
    /// An alphabet of the text of each token, with a space (or `▁`) where a word starts or ends; empty for tokens that spell nothing, which
    /// no search of this module ever answers.
    ///
    /// # Errors
    /// [`Error::Config`] if `blank` is not one of the tokens or no other token spells anything.
    pub fn new(pieces: Vec<String>, blank: u32) -> Result<Self> {
        if blank as usize >= pieces.len() {
            return Err(Error::config("alphabet", format!("blank is {blank}, there are {} tokens", pieces.len())));
        }
        let mut letters = HashMap::new();
        let mut symbols: Vec<Box<[Letter]>> = Vec::with_capacity(pieces.len());
        for (piece, token) in pieces.iter().zip(0..) {
            let known: String = if token == blank { String::new() } else { piece.clone() };
            let spelling = known.chars().flat_map(|c| {
                let boundary = BOUNDARY_MARKS.contains(&c).then_some(None);
                boundary.into_iter().chain(c.to_lowercase().map(Some).filter(move |_| boundary.is_none()))
            });
            let numbered = spelling.map(|c| {
                let next = letters.len() as Letter + 1;
                c.map_or(BOUNDARY, |c| *letters.entry(c).or_insert(next))
            });
            symbols.push(numbered.collect());
        }
        let spelt: HashSet<Box<[Letter]>> = symbols.iter().filter(|s| !s.is_empty()).cloned().collect();
        let longest = spelt.iter().map(|s| s.len()).max().unwrap_or(0);
        if longest == 0 {
            return Err(Error::config("alphabet", "no token spells anything"));
        }
        Ok(Self { pieces, blank, symbols, letters, spelt, longest })
    }

    /// Number of tokens, the blank included.
    pub fn vocab(&self) -> usize {
        self.pieces.len()
    }

    /// The CTC blank.
    pub fn blank(&self) -> u32 {
        self.blank
    }

    /// Letters and boundaries of a token; none for the blank.
    pub fn symbols(&self, token: u32) -> &[Letter] {
        self.symbols.get(token as usize).map_or(&[], |s| s)
    }

    /// Whether a token is a boundary and nothing else.
    pub fn is_separator(&self, token: u32) -> bool {
        let symbols = self.symbols(token);
        !symbols.is_empty() && symbols.iter().all(|&s| s == BOUNDARY)
    }

    /// The number of a letter in any casing, if a token has it.
    pub fn letter(&self, letter: char) -> Option<Letter> {
        let mut folded = letter.to_lowercase();
        let first = folded.next().filter(|_| folded.next().is_none())?;
        self.letters.get(&first).copied()
    }

    /// Letters with their numbers, in lower case.
    pub fn letters(&self) -> impl Iterator<Item = (char, Letter)> {
        self.letters.iter().map(|(&c, &letter)| (c, letter))
    }

    /// The letters of a word in any casing, `Err` with the first character that no token has.
    pub fn spell(&self, word: &str) -> Result<Vec<Letter>, char> {
        word.chars().flat_map(char::to_lowercase).map(|c| self.letters.get(&c).copied().ok_or(c)).collect()
    }

    /// As [`Self::spell`], and the tokens can be put one after another so that the word comes out; else what is missing, in words.
    pub fn spell_in_tokens(&self, word: &str) -> Result<Vec<Letter>, String> {
        let letters = self.spell(word).map_err(|c| format!("no token spells {c:?} of {word:?}"))?;
        let framed: Vec<Letter> = [&[BOUNDARY], &letters[..], &[BOUNDARY]].concat();
        let (bare, full) = (1..letters.len() + 1, 0..framed.len());
        let ways = [bare.clone(), full.start..bare.end, bare.start..full.end, full];
        let whole = ways.into_iter().any(|way| self.divides(&framed[way]));
        if whole { Ok(letters) } else { Err(format!("no tokens add up to {word:?}")) }
    }

    /// Whether `symbols` is a sequence of whole tokens.
    fn divides(&self, symbols: &[Letter]) -> bool {
        let mut reached = vec![true];
        for end in 1..=symbols.len() {
            let starts = end.saturating_sub(self.longest)..end;
            reached.push(starts.into_iter().any(|start| reached[start] && self.spelt.contains(&symbols[start..end])));
        }
        reached[symbols.len()]
    }

    /// The text of `tokens`: one space between words, none around them.
    pub fn text(&self, tokens: &[u32]) -> String {
        let mut text = String::new();
        for &token in tokens {
            for c in self.pieces.get(token as usize).filter(|_| token != self.blank).iter().flat_map(|piece| piece.chars()) {
                if !BOUNDARY_MARKS.contains(&c) {
                    text.push(c);
                } else if !text.is_empty() && !text.ends_with(' ') {
                    text.push(' ');
                }
            }
        }
        text.truncate(text.trim_end().len());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alphabet(pieces: &[&str]) -> Alphabet {
        Alphabet::new(pieces.iter().map(|p| p.to_string()).collect(), 0).unwrap()
    }

    #[test]
    fn boundaries_and_casing_are_normalised() {
        let a = alphabet(&["<blank>", "▁The", " ", "c", "C", "at "]);
        assert_eq!(a.symbols(1), [BOUNDARY, 1, 2, 3]);
        assert_eq!((a.symbols(3), a.symbols(0)), (a.symbols(4), &[][..]));
        assert_eq!(a.text(&[2, 1, 2, 2, 3, 5, 2]), "The cat");
        assert!(a.is_separator(2) && !a.is_separator(5) && !a.is_separator(0));
    }

    #[test]
    fn words_that_tokens_cannot_make_are_refused() {
        let a = alphabet(&["", "▁ab", "c", "d▁"]);
        assert_eq!(a.spell("CAB").unwrap(), [3, 1, 2]);
        assert_eq!(a.spell("cae"), Err('e'));
        for good in ["abc", "ABCC", "ab", "ccd", "d"] {
            assert!(a.spell_in_tokens(good).is_ok(), "{good}");
        }
        for bad in ["b", "cab", "e", "dc"] {
            assert!(a.spell_in_tokens(bad).is_err(), "{bad}");
        }
        assert!(Alphabet::new(vec!["a".into()], 1).is_err());
        assert!(Alphabet::new(vec!["a".into(), String::new()], 0).is_err());
    }
}
