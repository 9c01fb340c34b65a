//! Capitals for lower-case English: what rules can tell, and names that are given.
//!
//! # Limits
//!
//! Rules know the first word of a text, "I", weekdays and months. They do not know names, and where the model writes no punctuation they do
//! not know where sentences start inside a text. Measured over words, capital or not, of texts made lower-case and stripped of punctuation
//! (`cargo test --release capitals_of_real_texts -- --ignored --nocapture`, no names given):
//!
//! | texts | words | precision | recall | recall after the first word |
//! |---|---|---|---|---|
//! | Common Voice, dev | 2825 | 0.993 | 0.539 | 0.049 |
//! | books, one sentence each | 69,789 | 0.999 | 0.627 | 0.219 |
//!
//! So what is capitalised is nearly always right, and most names stay lower-case. "May" and "March" stay, too, except where
//! [`inverse`](super::inverse::inverse) makes a date of them.

use std::collections::HashMap;

/// Words that are names wherever they stand. Left out for what else they mean: may, march, sun, sat, wed, mar, dec.
const NAMES: [&str; 17] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
    "January",
    "February",
    "April",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Gives lower-case words their capitals.
#[derive(Debug, Clone)]
pub struct SentenceCase {
    /// By the first word in lower case: all the words as they are to be written, longer names first.
    names: HashMap<String, Vec<Vec<String>>>,
}

impl SentenceCase {
    /// Rules for weekdays and months, and besides them for `names` as they are to be written: `NASA`, `New York`, `van Gogh`.
    pub fn new<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Self {
        let mut all: HashMap<String, Vec<Vec<String>>> = HashMap::new();
        let own = names.into_iter().map(|name| name.as_ref().split_whitespace().map(String::from).collect());
        for name in NAMES.into_iter().map(|name| vec![name.to_string()]).chain(own).filter(|name: &Vec<String>| !name.is_empty()) {
            all.entry(name[0].to_lowercase()).or_default().push(name);
        }
        all.values_mut().for_each(|names| names.sort_by_key(|name| std::cmp::Reverse(name.len())));
        Self { names: all }
    }

    /// The words of one text with capitals. A word that has one already is not changed.
    ///
    /// The first word starts a sentence, and so does one after a word that ends in `.`, `?` or `!`, abbreviations like `p.m.` aside.
    /// Punctuation around a word and an ending like `'s` do not hide it.
    pub fn apply(&self, words: &[&str]) -> Vec<String> {
        let mut cased: Vec<String> = Vec::with_capacity(words.len());
        let mut starts = true;
        let mut at = 0;
        while at < words.len() {
            let name = self.name_at(words, at);
            let end = at + name.map_or(1, Vec::len);
            for i in at..end {
                let mut word = match name {
                    Some(name) => replaced(words[i], &name[i - at]),
                    None if core(words[i]) == "i" => replaced(words[i], "I"),
                    None => words[i].to_string(),
                };
                if starts {
                    word = capitalized(&word);
                }
                // A dash alone, say, does not start the sentence.
                starts = ends_sentence(words[i]) || starts && !words[i].contains(char::is_alphanumeric);
                cased.push(word);
            }
            at = end;
        }
        cased
    }

    fn name_at(&self, words: &[&str], at: usize) -> Option<&Vec<String>> {
        let names = self.names.get(core(words[at]))?;
        names.iter().find(|name| {
            words
                .get(at..at + name.len())
                .is_some_and(|words| words.iter().zip(*name).all(|(word, part)| core(word) == part.to_lowercase()))
        })
    }
}

impl Default for SentenceCase {
    /// Without names but weekdays and months.
    fn default() -> Self {
        Self::new([""; 0])
    }
}

/// The word without punctuation around it and without what follows an apostrophe.
fn core(word: &str) -> &str {
    let word = word.trim_matches(|c: char| !c.is_alphanumeric());
    word.split(['\'', '\u{2019}']).next().unwrap_or(word)
}

/// `word` with its core as written in `name`.
fn replaced(word: &str, name: &str) -> String {
    let core = core(word);
    // A core that is a slice of `word` has a place in it; one with capitals of its own keeps them.
    match word.find(core) {
        Some(at) if !core.contains(char::is_uppercase) => format!("{}{name}{}", &word[..at], &word[at + core.len()..]),
        _ => word.to_string(),
    }
}

/// The first letter as a capital, unless a digit comes before it, a capital after, or it has no capital of one letter (`ß`).
fn capitalized(word: &str) -> String {
    let first = word.char_indices().find(|(_, c)| c.is_alphanumeric()).filter(|_| !word.contains(char::is_uppercase));
    let capital = first.and_then(|(at, first)| {
        let mut upper = first.to_uppercase();
        let capital = upper.next().filter(|upper| upper.to_lowercase().eq([first]))?;
        upper.next().is_none().then(|| format!("{}{capital}{}", &word[..at], &word[at + first.len_utf8()..]))
    });
    capital.unwrap_or_else(|| word.to_string())
}

fn ends_sentence(word: &str) -> bool {
    let closed = word.trim_end_matches(['"', '\'', ')', '\u{2019}', '\u{201d}']);
    closed.ends_with(['?', '!']) || closed.strip_suffix('.').is_some_and(|rest| !rest.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cased(names: &[&str], text: &str) -> String {
        SentenceCase::new(names).apply(&text.split(' ').collect::<Vec<_>>()).join(" ")
    }

    #[test]
    fn rules() {
        for (text, expected) in [
            ("i think i'm late on monday", "I think I'm late on Monday"),
            ("we may march in june or december's snow", "We may march in June or December's snow"),
            ("is it? yes. at 5 p.m. we go", "Is it? Yes. At 5 p.m. we go"),
            ("\"hello,\" i said", "\"Hello,\" I said"),
            ("$5 is enough", "$5 is enough"),
            ("3rd of May", "3rd of May"),
            ("iPhone and i.", "iPhone and I."),
            ("- so it goes", "- So it goes"),
            ("élan", "Élan"),
            ("ßuß", "ßuß"),
            ("", ""),
        ] {
            assert_eq!(cased(&[], text), expected);
        }
    }

    #[test]
    fn names_that_are_given() {
        let names = ["NASA", "New York", "New York Times", "van Gogh", "", "Zoë"];
        for (text, expected) in [
            ("she left nasa for new york.", "She left NASA for New York."),
            ("the new york times and the new times", "The New York Times and the new times"),
            ("van gogh's ear", "Van Gogh's ear"),
            ("by van gogh, zoë's friend in new", "By van Gogh, Zoë's friend in new"),
            ("NASA Nasa nasa", "NASA Nasa NASA"),
        ] {
            assert_eq!(cased(&names, text), expected);
        }
    }

    proptest! {
        #[test]
        fn only_case_changes(text in "\\PC{0,60}") {
            let words: Vec<&str> = text.split(' ').collect();
            let cased = SentenceCase::new(["New York", "I"]).apply(&words);
            prop_assert_eq!(cased.join(" ").to_lowercase(), text.to_lowercase());
            prop_assert_eq!(cased.len(), words.len());
        }
    }
}
