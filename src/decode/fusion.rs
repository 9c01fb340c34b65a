//! What a search knows beside the acoustics, and what a text is worth by it.
//!
//! A text is its words with one space between them. It is worth the sum of
//!
//! - words, with a language model of words: `alpha ln p(word | words before) + beta`, and `oov_penalty` for each word the model does not know,
//!   unless it is one of a hotword's;
//! - characters, with a language model of characters, the spaces between words among them: the same for each character;
//! - the end, with [`Ends::Sentence`]: `alpha ln p(</s> | words)`;
//! - hotwords: see [`Hotwords`];
//! - a grammar's weights: see [`Grammar`].
//!
//! Before the end, a word that is not finished is worth what the likeliest of the known words that begin like it is worth without context,
//! lest hypotheses in the middle of a word look better than those that have paid for it; where none begins so, it is charged as an unknown
//! word at once. Phrases of hotwords that have begun have credit.

mod known;

use std::sync::Arc;

use super::alphabet::{Alphabet, BOUNDARY, Letter};
use super::grammar::{self, Automaton, Grammar};
use super::hotwords::{self, Hotwords, Matcher};
use super::lexicon::Lexicon;
use super::ngram::{NgramModel, State, UNKNOWN, WordId};
use super::trie::{ROOT, Trie};
use crate::error::{Error, Result};

/// Names a language model of characters may have for the space.
const SPACES: [&str; 4] = ["|", "\u{2581}", "<space>", "<sp>"];

/// Words of a model that are no words.
const MARKS: [&str; 3] = ["<s>", "</s>", "<unk>"];

/// What the words of a language model are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Words.
    Word,
    /// Single characters, and `|`, `▁`, `<space>` or `<sp>` for the space.
    Character,
}

/// Which ends of a text are those of a sentence to the language model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// It starts after `<s>`, and `</s>` is scored at its end.
    Sentence,
    /// It starts after `<s>`; its end is open.
    Start,
    /// Neither.
    Fragment,
}

/// A language model and how much it counts.
#[derive(Debug, Clone)]
pub struct LanguageModel {
    /// The n-grams.
    pub model: Arc<NgramModel>,
    /// What its words are.
    pub unit: Unit,
    /// Factor of its log-probabilities.
    pub alpha: f32,
    /// Added for each word (or character), in nats.
    pub beta: f32,
    /// Added for each word (or character) the model does not know, in nats.
    pub oov_penalty: f32,
    /// Which ends of a text are those of a sentence.
    pub ends: Ends,
}

impl LanguageModel {
    /// A model with the defaults of `pyctcdecode` (0.5.0): alpha 0.5, beta 1.5 (0 for characters), penalty -10, whole sentences. The unit is
    /// seen from the vocabulary.
    pub fn new(model: Arc<NgramModel>) -> Self {
        let single = |word: &str| word.chars().nth(1).is_none() || MARKS.contains(&word) || SPACES.contains(&word);
        let unit = if model.words().next().is_some() && model.words().all(single) { Unit::Character } else { Unit::Word };
        let beta = if unit == Unit::Word { 1.5 } else { 0.0 };
        Self { model, unit, alpha: 0.5, beta, oov_penalty: -10.0, ends: Ends::Sentence }
    }
}

/// What may be answered.
#[derive(Debug, Clone, Default)]
pub enum Language {
    /// Anything.
    #[default]
    Free,
    /// Words of a lexicon, in any order, or nothing.
    Lexicon(Arc<Lexicon>),
    /// Sentences of a grammar, or nothing.
    Grammar(Arc<Grammar>),
}

/// What a search knows beside the acoustics.
#[derive(Debug, Clone, Default)]
pub struct Scorers {
    /// The language model.
    pub language_model: Option<LanguageModel>,
    /// What may be answered.
    pub language: Language,
    /// Phrases the user expects.
    pub hotwords: Hotwords,
}

/// What a text that goes on is worth, and all that its continuations depend on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context {
    /// Language model and grammar, in nats.
    pub(super) language: f64,
    /// Phrases of hotwords that are complete, in nats.
    pub(super) hotwords: f64,
    /// Credit for phrases begun.
    partial: f32,
    /// What the word at hand will be worth at most, as far as can be seen.
    ahead: f32,
    /// Of the language model, where there is one.
    state: Option<State>,
    /// Letters of the word at hand, as a node of the known words.
    word: u32,
    grammar: u32,
    phrase: u32,
    place: Place,
}

/// Where in a text a [`Context`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    InWord,
    BetweenWords,
}

/// `Context::word` when no known word begins so.
const LOST: u32 = u32::MAX;

/// Value of a word that is allowed but not known to the language model.
const PENALISED: u32 = u32::MAX - 1;

impl Context {
    /// What the text is worth so far, in nats.
    pub(super) fn total(&self) -> f64 {
        self.language + self.hotwords + f64::from(self.partial) + f64::from(self.ahead)
    }

    /// Equal for texts to which whatever may follow adds the same.
    pub(super) fn future(&self) -> u64 {
        let words = self.state.iter().flat_map(|s| s.context()).copied();
        let rest = [self.word, self.grammar, self.phrase, self.place as u32];
        // FNV-1a by words, with a rotation to spread the low bits.
        words.chain(rest).fold(0xcbf2_9ce4_8422_2325, |hash, part| (hash ^ u64::from(part)).wrapping_mul(0x100_0000_01b3).rotate_left(23))
    }

    /// What an unfinished word is charged for being unknown.
    pub(super) fn charge(&self) -> f32 {
        if self.word == LOST { (-self.ahead).max(0.0) } else { 0.0 }
    }
}

/// What the end of a word adds.
#[derive(Debug, Clone, Copy)]
pub(super) struct WordEnd {
    score: f64,
    state: Option<State>,
}

/// [`Scorers`] made ready for an alphabet.
#[derive(Debug, Clone)]
pub(super) struct Fusion {
    language_model: Option<LanguageModel>,
    /// Of each letter, with a language model of characters; [`BOUNDARY`] is the space.
    characters: Vec<Option<WordId>>,
    /// Known words with their number in the language model; or those of the lexicon.
    words: Option<Arc<Trie>>,
    /// The most that the words from each node of `words` on are worth without context; and what an unknown word is.
    ahead: Arc<[f32]>,
    ahead_unknown: f32,
    grammar: Option<Automaton>,
    phrases: Option<Arc<Matcher>>,
    closed: bool,
}

impl Fusion {
    /// # Errors
    /// - [`Error::Config`]: a number is not finite; the language model's words cannot be spelt by the tokens; a hotword cannot match
    /// - [`Error::Manifest`]: a word of the lexicon or grammar cannot be spelt by the tokens
    /// - [`Error::LimitExceeded`]: the grammar is too large
    pub(super) fn new(alphabet: &Alphabet, scorers: &Scorers) -> Result<Self> {
        let language_model = scorers.language_model.clone();
        if let Some(LanguageModel { alpha, beta, oov_penalty, .. }) = &language_model {
            for (name, value) in [("alpha", alpha), ("beta", beta), ("oov_penalty", oov_penalty)] {
                if !value.is_finite() {
                    return Err(Error::config("language model", format!("{name} is {value}, it must be finite")));
                }
            }
        }
        let words_of_model = language_model.as_ref().filter(|lm| lm.unit == Unit::Word).map(|lm| &*lm.model);
        let characters_of_model = language_model.as_ref().filter(|lm| lm.unit == Unit::Character).map(|lm| &*lm.model);
        let phrases = (!scorers.hotwords.phrases().is_empty()).then(|| Matcher::new(&scorers.hotwords, alphabet)).transpose()?;
        let (words, grammar) = match &scorers.language {
            Language::Lexicon(lexicon) => (Some(known::lexicon(lexicon, words_of_model, &scorers.hotwords, alphabet)?), None),
            Language::Grammar(grammar) => (None, Some(Automaton::new(grammar, alphabet)?)),
            Language::Free => (None, None),
        };
        let words = match words_of_model.filter(|_| words.is_none()) {
            Some(model) => Some(known::words(model, &scorers.hotwords, alphabet)?),
            None => words,
        };
        let without_context = |lm: &LanguageModel, word: WordId| lm.alpha * lm.model.score(&lm.model.empty(), word).0 + lm.beta;
        let word_model = language_model.as_ref().filter(|lm| lm.unit == Unit::Word);
        let ahead = word_model.zip(words.as_ref()).map(|(lm, words)| {
            words.most(|value| if value == PENALISED { without_context(lm, UNKNOWN) + lm.oov_penalty } else { without_context(lm, value) })
        });
        Ok(Self {
            ahead: ahead.unwrap_or_default().into(),
            ahead_unknown: word_model.map_or(0.0, |lm| without_context(lm, UNKNOWN) + lm.oov_penalty),
            characters: characters_of_model.map_or(Ok(vec![]), |model| known::characters(model, alphabet))?,
            words: words.map(Arc::new),
            closed: !matches!(scorers.language, Language::Free),
            grammar,
            phrases: phrases.map(Arc::new),
            language_model,
        })
    }

    /// Whether every text is worth 0.
    pub(super) fn is_empty(&self) -> bool {
        self.language_model.is_none() && self.phrases.is_none() && !self.closed
    }

    /// Whether only texts of a closed language may be answered.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// The empty text.
    pub(super) fn start(&self) -> Context {
        let state = |lm: &LanguageModel| if lm.ends == Ends::Fragment { lm.model.empty() } else { lm.model.start() };
        Context {
            language: 0.0,
            hotwords: 0.0,
            ahead: 0.0,
            partial: self.phrases.as_ref().map_or(0.0, |p| p.partial(hotwords::START)),
            state: self.language_model.as_ref().map(state),
            word: ROOT,
            grammar: grammar::START,
            phrase: hotwords::START,
            place: Place::Start,
        }
    }

    /// What the end of the word at hand adds; `None` where the language has no such word.
    pub(super) fn word_end(&self, from: &Context) -> Option<WordEnd> {
        let value = self.words.as_ref().filter(|_| from.word != LOST).and_then(|words| words.value(from.word));
        if self.closed && self.grammar.is_none() && value.is_none() {
            return None;
        }
        let word_model = self.language_model.as_ref().filter(|lm| lm.unit == Unit::Word);
        let Some((lm, before)) = word_model.zip(from.state) else {
            return Some(WordEnd { score: 0.0, state: from.state });
        };
        let (word, penalty) = match value {
            Some(PENALISED) => (UNKNOWN, lm.oov_penalty),
            Some(word) => (word, 0.0),
            None => (UNKNOWN, lm.oov_penalty),
        };
        let (log_prob, state) = lm.model.score(&before, word);
        let score = f64::from(lm.alpha) * f64::from(log_prob) + f64::from(lm.beta) + f64::from(penalty);
        Some(WordEnd { score, state: Some(state) })
    }

    /// The text with `symbols` after it; `None` where the language has no such text. `word_end` is that of `from`.
    pub(super) fn extend(&mut self, from: &Context, symbols: &[Letter], word_end: Option<&WordEnd>) -> Option<Context> {
        let mut to = *from;
        for (at, &symbol) in symbols.iter().enumerate() {
            match (symbol, to.place) {
                (BOUNDARY, Place::InWord) => {
                    let end = word_end.copied().filter(|_| at == 0).or_else(|| self.word_end(&to))?;
                    self.end_word(&mut to, &end)?;
                }
                (BOUNDARY, _) => {}
                _ => self.add_letter(&mut to, symbol)?,
            }
        }
        Some(to)
    }

    /// Whether [`Self::extend`] gives something.
    pub(super) fn allows(&mut self, from: &Context, symbols: &[Letter]) -> bool {
        let (mut word, mut grammar, mut place) = (from.word, from.grammar, from.place);
        symbols.iter().all(|&symbol| {
            if symbol == BOUNDARY && place != Place::InWord {
                return true;
            }
            place = if symbol == BOUNDARY { Place::BetweenWords } else { Place::InWord };
            if let Some(automaton) = &mut self.grammar {
                return automaton.step(grammar, symbol).map(|(next, _)| grammar = next).is_some();
            }
            match self.words.as_ref().filter(|_| self.closed) {
                Some(words) if symbol == BOUNDARY => words.value(std::mem::replace(&mut word, ROOT)).is_some(),
                Some(words) => words.child(word, symbol).map(|next| word = next).is_some(),
                None => true,
            }
        })
    }

    /// What [`Self::allows`] depends on.
    pub(super) fn permission(&self, of: &Context) -> u32 {
        if self.grammar.is_some() { of.grammar } else { of.word }
    }

    /// The text at its end; `None` where the language has no such text. Nothing may always be said.
    pub(super) fn end(&mut self, from: &Context, word_end: Option<&WordEnd>) -> Option<Context> {
        let mut to = *from;
        if to.place == Place::InWord {
            let weight = self.grammar.as_ref().map_or(Some(0.0), |automaton| automaton.end(to.grammar))?;
            let end = word_end.copied().or_else(|| self.word_end(&to))?;
            self.take_word(&mut to, &end);
            to.language += f64::from(weight);
        } else if to.place == Place::BetweenWords
            && let Some(automaton) = &self.grammar
        {
            to.language += f64::from(automaton.end(to.grammar)?);
        }
        if let Some((lm, state)) = self.language_model.as_ref().filter(|lm| lm.ends == Ends::Sentence).zip(to.state) {
            to.language += f64::from(lm.alpha) * f64::from(lm.model.score_end(&state));
        }
        to.partial = 0.0;
        Some(to)
    }

    /// Forgets what was made on the way.
    pub(super) fn reset(&mut self) {
        if let Some(automaton) = &mut self.grammar {
            automaton.reset();
        }
    }

    fn end_word(&mut self, to: &mut Context, end: &WordEnd) -> Option<()> {
        if let Some(automaton) = &mut self.grammar {
            let (next, weight) = automaton.step(to.grammar, BOUNDARY)?;
            (to.grammar, to.language) = (next, to.language + f64::from(weight));
        }
        self.take_word(to, end);
        Some(())
    }

    fn take_word(&self, to: &mut Context, end: &WordEnd) {
        to.language += end.score;
        to.state = end.state;
        to.word = ROOT;
        to.ahead = 0.0;
        to.place = Place::BetweenWords;
        self.match_phrases(to, BOUNDARY);
    }

    fn add_letter(&mut self, to: &mut Context, letter: Letter) -> Option<()> {
        if let Some(automaton) = &mut self.grammar {
            let (next, weight) = automaton.step(to.grammar, letter)?;
            (to.grammar, to.language) = (next, to.language + f64::from(weight));
        }
        if let Some(words) = self.words.as_ref().filter(|_| to.word != LOST) {
            match words.child(to.word, letter) {
                Some(next) => to.word = next,
                None if self.closed && self.grammar.is_none() => return None,
                None => to.word = LOST,
            }
            to.ahead = self.ahead.get(to.word as usize).copied().unwrap_or(self.ahead_unknown);
        }
        if !self.characters.is_empty() {
            if to.place == Place::BetweenWords {
                self.score_character(to, BOUNDARY);
            }
            self.score_character(to, letter);
        }
        to.place = Place::InWord;
        self.match_phrases(to, letter);
        Some(())
    }

    fn score_character(&self, to: &mut Context, letter: Letter) {
        if let Some((lm, before)) = self.language_model.as_ref().zip(to.state) {
            let known = self.characters[letter as usize];
            let (log_prob, state) = lm.model.score(&before, known.unwrap_or(UNKNOWN));
            let penalty = if known.is_none() { lm.oov_penalty } else { 0.0 };
            to.language += f64::from(lm.alpha) * f64::from(log_prob) + f64::from(lm.beta) + f64::from(penalty);
            to.state = Some(state);
        }
    }

    fn match_phrases(&self, to: &mut Context, symbol: Letter) {
        if let Some(matcher) = &self.phrases {
            to.phrase = matcher.step(to.phrase, symbol);
            to.hotwords += f64::from(matcher.complete(to.phrase));
            to.partial = matcher.partial(to.phrase);
        }
    }
}
