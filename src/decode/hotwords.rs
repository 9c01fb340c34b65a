//! Phrases that the user expects: each occurrence adds to a hypothesis' score.

use std::collections::{HashMap, VecDeque};
use std::path::Path;

use super::alphabet::{Alphabet, BOUNDARY, Letter};
use super::source;
use crate::error::{Error, Result};

/// Boost of a phrase that names none, in nats; the weight of `pyctcdecode` (0.5.0).
pub const DEFAULT_BOOST: f32 = 10.0;

/// Most bytes of a file of phrases.
const MAX_BYTES: u64 = 16 << 20;

/// A phrase and what it is worth.
#[derive(Debug, Clone, PartialEq)]
pub struct Hotword {
    /// Words with one space between them, in lower case.
    pub phrase: String,
    /// Added to the score for each occurrence, in nats; below 0 the phrase is made less likely.
    pub boost: f32,
}

/// Phrases of one or more words, matched in any casing, whole words only.
///
/// # Scores
/// A finished text gets `sum over phrases of boost * occurrences`: once per occurrence of a phrase, however long it is, and occurrences may
/// overlap (`york` also counts in `new york`). On the way there, a hypothesis in the middle of phrases has `boost * letters so far / letters`
/// of the one where that is most, lest the search drop it before the end (spaces count as letters). Where the match breaks that part is gone
/// again: it depends on what the text ends with, and on nothing else.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hotwords {
    phrases: Vec<Hotword>,
}

impl Hotwords {
    /// Phrases from a comma-separated list: `new york, doctor who:5`.
    ///
    /// # Errors
    /// [`Error::Config`] naming the phrase and what is wrong with it.
    pub fn from_list(list: &str) -> Result<Self> {
        let mut hotwords = Self::default();
        for item in list.split(',').filter(|item| !item.trim().is_empty()) {
            hotwords.add(item).map_err(|reason| Error::config("hotwords", reason))?;
        }
        Ok(hotwords)
    }

    /// Reads a file of phrases.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::LimitExceeded`], and [`Error::Manifest`] with the line of what is wrong.
    pub fn open(path: &Path) -> Result<Self> {
        Self::parse(&source::read(path, MAX_BYTES)?, path)
    }

    /// Reads the content of a file of phrases: `phrase` or `phrase:boost` a line. Empty lines and lines that start with `#` are skipped.
    ///
    /// # Errors
    /// [`Error::Manifest`] with the line and column of what is wrong; `path` is its name.
    pub fn parse(text: &str, path: impl AsRef<Path>) -> Result<Self> {
        let mut hotwords = Self::default();
        for (number, line) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
            if !line.trim().is_empty() && !line.starts_with('#') {
                let column = line.len() - line.trim_start().len() + 1;
                hotwords.add(line).map_err(|reason| source::wrong(path.as_ref(), (number, column), reason))?;
            }
        }
        Ok(hotwords)
    }

    /// The phrases in the order given.
    pub fn phrases(&self) -> &[Hotword] {
        &self.phrases
    }

    fn add(&mut self, written: &str) -> Result<(), String> {
        let (phrase, boost) = match written.rsplit_once(':') {
            Some((phrase, boost)) => (phrase, boost.trim().parse().map_err(|_| format!("boost {:?} is not a number", boost.trim()))?),
            None => (written, DEFAULT_BOOST),
        };
        let words: Vec<String> = phrase.split_whitespace().map(str::to_lowercase).collect();
        let phrase = words.join(" ");
        if phrase.is_empty() {
            return Err("a boost without a phrase".into());
        }
        if !boost.is_finite() {
            return Err(format!("boost of {phrase:?} is {boost}, it must be finite"));
        }
        if self.phrases.iter().any(|known| known.phrase == phrase) {
            return Err(format!("{phrase:?} is given twice"));
        }
        self.phrases.push(Hotword { phrase, boost });
        Ok(())
    }
}

/// State before anything has been said.
pub(super) const START: u32 = 1;

/// The phrases as an automaton over letters and boundaries (Aho and Corasick, CACM 18(6), 1975): a state is the longest end of the text that
/// is the beginning of a phrase. A phrase is its words with a [`BOUNDARY`] before and after each.
#[derive(Debug, Clone)]
pub(super) struct Matcher {
    states: Vec<Matched>,
}

#[derive(Debug, Clone, Default)]
struct Matched {
    /// In order of their letters.
    next: Vec<(Letter, u32)>,
    /// The longest shorter end of the text that begins a phrase.
    shorter: u32,
    /// Boosts of the phrases that end here.
    complete: f32,
    /// Credit of the phrases begun here.
    partial: f32,
}

impl Matcher {
    /// The automaton of `hotwords` as `alphabet` spells them.
    ///
    /// # Errors
    /// [`Error::Config`] naming a phrase that the tokens cannot spell.
    pub(super) fn new(hotwords: &Hotwords, alphabet: &Alphabet) -> Result<Self> {
        // The empty text and, at START, a boundary.
        let mut states = vec![Matched { next: vec![(BOUNDARY, START)], ..Matched::default() }, Matched::default()];
        let mut children: HashMap<(u32, Letter), u32> = HashMap::new();
        for Hotword { phrase, boost } in &hotwords.phrases {
            let mut symbols = Vec::new();
            for word in phrase.split(' ') {
                let letters = alphabet.spell_in_tokens(word);
                symbols.extend(letters.map_err(|reason| Error::config("hotwords", format!("{phrase:?} can never match: {reason}")))?);
                symbols.push(BOUNDARY);
            }
            let mut state = START;
            for (at, &symbol) in symbols.iter().enumerate() {
                let credit = boost.max(0.0) * at as f32 / symbols.len() as f32;
                let here = &mut states[state as usize];
                here.partial = here.partial.max(credit);
                let new = children.len() as u32 + START + 1;
                state = *children.entry((state, symbol)).or_insert_with(|| {
                    here.next.push((symbol, new));
                    new
                });
                if state as usize == states.len() {
                    states.push(Matched::default());
                }
            }
            states[state as usize].complete += boost;
        }
        let mut matcher = Self { states };
        matcher.link();
        Ok(matcher)
    }

    /// Links every state to the longest shorter one, breadth first, and adds what those are worth.
    fn link(&mut self) {
        let mut queue = VecDeque::from([START]);
        while let Some(state) = queue.pop_front() {
            let shorter = self.states[state as usize].shorter;
            let (complete, partial) = (self.states[shorter as usize].complete, self.states[shorter as usize].partial);
            let here = &mut self.states[state as usize];
            here.next.sort_unstable();
            here.complete += complete;
            here.partial = here.partial.max(partial);
            for (symbol, next) in here.next.clone() {
                self.states[next as usize].shorter = self.step(shorter, symbol);
                queue.push_back(next);
            }
        }
    }

    /// The state one symbol further; a boundary only at the end of a word.
    pub(super) fn step(&self, mut state: u32, symbol: Letter) -> u32 {
        loop {
            let here = &self.states[state as usize];
            match here.next.binary_search_by_key(&symbol, |n| n.0) {
                Ok(at) => return here.next[at].1,
                Err(_) if state == 0 => return 0,
                Err(_) => state = here.shorter,
            }
        }
    }

    /// Boosts of the phrases that end with the symbol that led to `state`.
    pub(super) fn complete(&self, state: u32) -> f32 {
        self.states[state as usize].complete
    }

    /// Credit for phrases begun.
    pub(super) fn partial(&self, state: u32) -> f32 {
        self.states[state as usize].partial
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matcher(hotwords: &Hotwords) -> Matcher {
        let pieces = std::iter::once(String::new()).chain(" abcdefghijklmnopqrstuvwxyz".chars().map(String::from)).collect();
        Matcher::new(hotwords, &Alphabet::new(pieces, 0).unwrap()).unwrap()
    }

    /// What `text` is worth before (`.0`) and after its end, partial credit included.
    fn worth(matcher: &Matcher, text: &str) -> (f32, f32) {
        let mut state = START;
        let mut total = 0.0;
        let mut before = matcher.partial(START);
        let end = if text.is_empty() { "" } else { " " };
        for b in text.bytes().chain(end.bytes()) {
            before = total + matcher.partial(state);
            state = matcher.step(state, if b == b' ' { BOUNDARY } else { u32::from(b - b'a') + 1 });
            total += matcher.complete(state);
        }
        (before, total)
    }

    #[test]
    fn one_boost_per_phrase_and_refunds() {
        let hotwords = Hotwords::parse("New  YORK:6\n# note\nyork city : 4\nyorks:-3\n\nnewt", "h").unwrap();
        assert_eq!(hotwords.phrases()[3], Hotword { phrase: "newt".into(), boost: DEFAULT_BOOST });
        let m = matcher(&hotwords);
        for (text, total) in
            [("new york", 6.0), ("new york city", 10.0), ("york", 0.0), ("new yorks", -3.0), ("york new york new york", 12.0)]
        {
            assert_eq!(worth(&m, text).1, total, "{text}");
        }
        // n e w _ y o r k _ are 9 symbols; "newt" is ahead after "new", "york city" has begun again after "new york".
        for (text, credit) in
            [("new ", 6.0 * 4.0 / 9.0), ("new", 6.0), ("newa", 0.0), ("anew", 0.0), ("new york ", 6.0 + 2.0), ("yorks", 0.0)]
        {
            let end = text.len() - usize::from(text.ends_with(' '));
            let state = text[..end].bytes().chain(text[end..].bytes());
            let (mut at, mut got) = (START, 0.0);
            for b in state {
                at = m.step(at, if b == b' ' { BOUNDARY } else { u32::from(b - b'a') + 1 });
                got += m.complete(at);
            }
            assert!((got + m.partial(at) - credit).abs() < 1e-5, "{text}: {} {credit}", got + m.partial(at));
        }
    }

    #[test]
    fn lists_and_errors() {
        let hotwords = Hotwords::from_list(" new york, Zebra:2.5,").unwrap();
        assert_eq!(hotwords.phrases().len(), 2);
        assert_eq!(hotwords.phrases()[1], Hotword { phrase: "zebra".into(), boost: 2.5 });
        for (list, part) in [("a:b", "boost \"b\""), ("a:inf", "finite"), (":3", "without a phrase"), ("a,A:2", "given twice")] {
            let message = Hotwords::from_list(list).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
        assert!(Hotwords::parse("a\n b:x", "h").unwrap_err().to_string().starts_with("h:2: column 2: boost"));
        let alphabet = Alphabet::new(vec![String::new(), "a".into()], 0).unwrap();
        let message = Matcher::new(&Hotwords::from_list("aa é").unwrap(), &alphabet).unwrap_err().to_string();
        assert!(message.contains("\"aa é\" can never match: no token spells 'é'"), "{message}");
    }

    proptest! {
        #[test]
        fn totals_are_counts_of_whole_words(
            phrases in prop::collection::btree_map("[ab]{1,2}( [ab]{1,2}){0,2}", -3i8..9, 0..6),
            text in "([ab]{1,2}( [ab]{1,2}){0,8})?",
        ) {
            let list: String = phrases.iter().map(|(p, b)| format!("{p}:{b}\n")).collect();
            let m = matcher(&Hotwords::parse(&list, "h").unwrap());
            let padded = format!(" {text} ");
            let count = |p: &str| (0..padded.len()).filter(|&at| padded[at..].starts_with(&format!(" {p} "))).count();
            let expected: f32 = phrases.iter().map(|(p, b)| count(p) as f32 * f32::from(*b)).sum();
            prop_assert_eq!(worth(&m, &text).1, expected);
            let end = padded.trim_end();
            let partial = phrases.iter().flat_map(|(p, b)| (1..=p.len()).map(move |n| (p, n, f32::from(*b).max(0.0) * n as f32 / (p.len() + 1) as f32)));
            let ahead = partial.filter(|(p, n, _)| end.ends_with(&format!(" {}", &p[..*n]))).map(|x| x.2).fold(0.0, f32::max);
            let words = text.split(' ').count();
            let before: f32 = phrases.iter().map(|(p, b)| {
                let whole = text.rsplit_once(' ').map_or(String::new(), |(head, _)| format!(" {head} "));
                (0..whole.len()).filter(|&at| whole[at..].starts_with(&format!(" {p} "))).count() as f32 * f32::from(*b)
            }).sum();
            if words > 0 && !text.is_empty() {
                prop_assert!((worth(&m, &text).0 - before - ahead).abs() < 1e-4);
            }
        }
    }
}
