//! A text as it is written, tied to the words that are spoken for it.

use std::ops::Range;

use super::target::target;

/// Brackets around remarks, see [`target`].
const BRACKETS: [(char, char); 3] = [('[', ']'), ('<', '>'), ('{', '}')];

/// What becomes of a written word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sound {
    /// It is spoken.
    Spoken,
    /// Nothing is said for it: a dash, a remark in brackets.
    Silent,
    /// It has no certain reading in `a`-`z` (another script, `½`), so it cannot be found in a recording.
    Unknown,
}

/// A word as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its bytes in the text, punctuation included; a remark in brackets is one word with its spaces.
    pub text: Range<usize>,
    /// Line it is in, from 0.
    pub line: usize,
    /// The [`Alignable::spoken`] words said for it: one, several for a number, none.
    pub spoken: Range<usize>,
    /// Why there are none, or that there are.
    pub sound: Sound,
}

/// A text made ready for alignment with a recording.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Alignable {
    /// The words to find in the recording, of `a`-`z` and apostrophes.
    pub spoken: Vec<String>,
    /// What is written, in order.
    pub written: Vec<Written>,
}

/// Splits a text into written words and says how each is spoken, by the rules of [`target`] applied to each line.
///
/// `5 %` is one written word, and so is a remark; other words are what white space separates. Lines end at `\n`.
pub fn alignable(text: &str) -> Alignable {
    let mut all = Alignable::default();
    let mut start = 0;
    for (line, content) in text.split_inclusive('\n').enumerate() {
        let first = all.written.len();
        for chunk in chunks(content) {
            let bytes = start + chunk.start..start + chunk.end;
            let before = all.written[first..].last_mut();
            if content[chunk.clone()].starts_with('%')
                && let Some(number) = before.filter(|w| text[w.text.clone()].ends_with(|c: char| c.is_ascii_digit()))
            {
                number.text.end = bytes.end;
                let range = number.text.clone();
                all.spoken.truncate(number.spoken.start);
                all.spoken.extend(words(&text[range]));
                number.spoken.end = all.spoken.len();
                continue;
            }
            let spoken = all.spoken.len();
            all.spoken.extend(words(&content[chunk.clone()]));
            let sound = if spoken < all.spoken.len() {
                Sound::Spoken
            } else if without_remarks(&content[chunk]).any(char::is_alphanumeric) {
                Sound::Unknown
            } else {
                Sound::Silent
            };
            all.written.push(Written { text: bytes, line, spoken: spoken..all.spoken.len(), sound });
        }
        start += content.len();
    }
    all
}

fn words(written: &str) -> Vec<String> {
    target(written).map_or_else(Vec::new, |spoken| spoken.split(' ').map(String::from).collect())
}

/// Byte ranges of what white space outside remarks separates.
fn chunks(line: &str) -> Vec<Range<usize>> {
    let mut chunks = vec![];
    let mut begun = None;
    let mut remark_end = 0;
    for (at, c) in line.char_indices() {
        if at < remark_end {
            continue;
        }
        if c.is_whitespace() {
            chunks.extend(begun.take().map(|start| start..at));
            continue;
        }
        begun.get_or_insert(at);
        if let Some(length) = remark(&line[at..]) {
            remark_end = at + length;
        }
    }
    chunks.extend(begun.map(|start| start..line.len()));
    chunks
}

/// Length of the remark that `text` starts with.
fn remark(text: &str) -> Option<usize> {
    let open = text.chars().next()?;
    let (_, close) = BRACKETS.into_iter().find(|(bracket, _)| *bracket == open)?;
    text.find(close).map(|at| at + close.len_utf8())
}

fn without_remarks(chunk: &str) -> impl Iterator<Item = char> {
    let mut rest = chunk;
    std::iter::from_fn(move || {
        while let Some(length) = remark(rest) {
            rest = &rest[length..];
        }
        let c = rest.chars().next()?;
        rest = &rest[c.len_utf8()..];
        Some(c)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_and_what_is_said() {
        let text = "“Chapter 21” — by Zoë.\n\n[Loud music] It cost 5 %, not ½ or 1,250!\r\nпривет R&D <b>x</b>";
        let all = alignable(text);
        let seen: Vec<(&str, usize, String, Sound)> =
            all.written.iter().map(|w| (&text[w.text.clone()], w.line, all.spoken[w.spoken.clone()].join(" "), w.sound)).collect();
        let said = |text, line, spoken: &str| (text, line, spoken.to_string(), Sound::Spoken);
        let expected = [
            said("“Chapter", 0, "chapter"),
            said("21”", 0, "twenty one"),
            ("—", 0, String::new(), Sound::Silent),
            said("by", 0, "by"),
            said("Zoë.", 0, "zoe"),
            ("[Loud music]", 2, String::new(), Sound::Silent),
            said("It", 2, "it"),
            said("cost", 2, "cost"),
            said("5 %,", 2, "five percent"),
            said("not", 2, "not"),
            ("½", 2, String::new(), Sound::Unknown),
            said("or", 2, "or"),
            said("1,250!", 2, "one thousand two hundred fifty"),
            ("привет", 3, String::new(), Sound::Unknown),
            said("R&D", 3, "r and d"),
            said("<b>x</b>", 3, "x"),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn nothing_written() {
        assert_eq!(alignable(""), Alignable::default());
        assert_eq!(alignable(" \n\t"), Alignable::default());
    }

    proptest! {
        #[test]
        fn together_the_words_are_the_target_of_every_line(text in "[a-zA-Z0-9é '.,%&\\[\\]<>(){}\n-]{0,80}") {
            let all = alignable(&text);
            for (line, content) in text.split('\n').enumerate() {
                // A percent sign behind a remark behind a number is silent here.
                prop_assume!(!content.contains('%') || !content.contains(['[', '<', '{']));
                let words: Vec<&str> = all.written.iter().filter(|w| w.line == line).flat_map(|w| &all.spoken[w.spoken.clone()]).map(String::as_str).collect();
                prop_assert_eq!(words.join(" "), target(content).unwrap_or_default());
            }
            prop_assert!(all.written.windows(2).all(|w| w[0].text.end <= w[1].text.start && w[0].spoken.end == w[1].spoken.start));
            prop_assert_eq!(all.written.last().map_or(0, |w| w.spoken.end), all.spoken.len());
        }

        #[test]
        fn any_text_is_taken(text in any::<String>()) {
            let all = alignable(&text);
            prop_assert!(all.written.iter().all(|w| text.get(w.text.clone()).is_some_and(|t| !t.trim().is_empty())));
        }
    }
}
