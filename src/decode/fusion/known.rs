//! The vocabularies that a search knows, as the tokens spell them.

use super::{MARKS, PENALISED, SPACES};
use crate::decode::alphabet::{Alphabet, BOUNDARY, Letter};
use crate::decode::hotwords::Hotwords;
use crate::decode::lexicon::Lexicon;
use crate::decode::ngram::{NgramModel, UNKNOWN, WordId};
use crate::decode::trie::Trie;
use crate::error::{Error, Result};

/// Share of a model's words that the tokens must be able to spell: below, the model is for another alphabet.
const LEAST_SPELT: f64 = 0.5;

/// The words of a language model and of the hotwords.
pub(super) fn words(model: &NgramModel, hotwords: &Hotwords, alphabet: &Alphabet) -> Result<Trie> {
    let mut known = Vec::new();
    let mut unspelt: Option<(String, char)> = None;
    let mut all = 0;
    for (word, id) in model.words().zip(0..).filter(|(word, _)| !MARKS.contains(word)) {
        all += 1;
        match alphabet.spell(word) {
            Ok(spelling) => known.push((spelling, id, word.chars().any(char::is_uppercase))),
            Err(letter) => unspelt = unspelt.or_else(|| Some((word.into(), letter))),
        }
    }
    if all == 0 {
        return Err(Error::config("language model", "the file does not hold its words: use it with a lexicon, or a file that does"));
    }
    if (known.len() as f64) < LEAST_SPELT * f64::from(all) {
        let example = unspelt.map(|(word, c)| format!(" ({word:?}: no token spells {c:?})")).unwrap_or_default();
        let reason = format!("its vocabulary cannot spell the model's output: tokens spell {} of its {all} words{example}", known.len());
        return Err(Error::config("language model", reason));
    }
    // Of words that differ in casing only, the lower-case one counts.
    known.sort_by(|a, b| (&a.0, a.2).cmp(&(&b.0, b.2)));
    let mut words: Vec<(Vec<Letter>, u32)> = known.into_iter().map(|(spelling, id, _)| (spelling, id)).collect();
    for word in hotwords.phrases().iter().flat_map(|hotword| hotword.phrase.split(' ')) {
        words.extend(alphabet.spell(word).ok().map(|spelling| (spelling, UNKNOWN)));
    }
    Ok(Trie::new(words))
}

/// The words of a lexicon, as the language model numbers them.
pub(super) fn lexicon(lexicon: &Lexicon, model: Option<&NgramModel>, hotwords: &Hotwords, alphabet: &Alphabet) -> Result<Trie> {
    let expected: Vec<&str> = hotwords.phrases().iter().flat_map(|hotword| hotword.phrase.split(' ')).collect();
    let mut words = Vec::new();
    for entry in lexicon.entries() {
        let spelling = alphabet.spell_in_tokens(&entry.spelling);
        let spelling = spelling.map_err(|reason| Error::Manifest { path: lexicon.path().into(), line: entry.line, reason })?;
        let known = model.and_then(|m| m.word(&entry.word).or_else(|| m.word(&entry.word.to_lowercase())));
        let unknown = if expected.contains(&&*entry.spelling.to_lowercase()) { UNKNOWN } else { PENALISED };
        words.push((spelling, known.unwrap_or(unknown)));
    }
    let words = Trie::new(words);
    for word in expected {
        if alphabet.spell(word).ok().and_then(|spelling| words.get(&spelling)).is_none() {
            return Err(Error::config("hotwords", format!("{word:?} can never match: it is not in {}", lexicon.path().display())));
        }
    }
    Ok(words)
}

/// The number of each letter in a language model of characters.
pub(super) fn characters(model: &NgramModel, alphabet: &Alphabet) -> Result<Vec<Option<WordId>>> {
    let letters: Vec<(char, Letter)> = alphabet.letters().collect();
    let mut known = vec![None; letters.len() + 1];
    for &(c, letter) in &letters {
        let upper: String = c.to_uppercase().collect();
        known[letter as usize] = model.word(&c.to_string()).or_else(|| model.word(&upper));
    }
    known[BOUNDARY as usize] = SPACES.iter().find_map(|space| model.word(space));
    let count = known[1..].iter().flatten().count();
    if (count as f64) < LEAST_SPELT * letters.len() as f64 {
        let reason = format!("it cannot spell the model's output: it knows {count} of {} letters as single characters", letters.len());
        return Err(Error::config("language model", reason));
    }
    Ok(known)
}
