//! Inverse text normalisation for English: spoken words to written numbers, dates, times and money.
//!
//! What is rewritten, and in which style:
//!
//! | spoken | written |
//! |---|---|
//! | twenty one, one hundred and five | 21, 105; below ten only before a unit, else the word stays |
//! | twelve thousand five hundred, two point five million | 12,500 (commas from five digits), 2.5 million |
//! | three point one four | 3.14 |
//! | nineteen eighty four, nineteen eighties | 1984, 1980s |
//! | twenty first, tenth | 21st, 10th; below tenth in dates only |
//! | june third twenty twenty one, the third of may | June 3rd 2021, the 3rd of May |
//! | three thirty p m, ten o'clock | 3:30 p.m., 10 o'clock |
//! | five dollars and ten cents, ninety cents, six million euros | $5.10, 90 cents, €6 million |
//! | five percent, six kilometers | 5%, 6 kilometers |
//! | five five five oh one double two, at least three digits | 5550122 |
//!
//! What is left alone: a run of number words that is not exactly one of these ("five ten fifteen"); "one", "a hundred", "second", "twenty
//! second" outside dates, fractions; a string of digits that begins with zero; "ten thirty" without "a m" (a time or a number?); "may" and "march" unless the words around make them months; pounds (money or weight?) keep their
//! word: "20 pounds". Words with punctuation or capitals are not taken for numbers: models that write those write numbers too.
//!
//! # Scoring
//!
//! Under [`Normalizer::Whisper`](crate::text::Normalizer) the rewritten text is the same as the spoken one, so a WER does not change, with
//! two exceptions where that normaliser does not see what is the same: a time with minutes ("3 30" against "330") and an ordinal that ends
//! in "ninth" (it only knows "nineth"). `tests/it/inverse.rs` holds both: on all texts of dev the WER is the same to the last word.

mod clock;
mod date;
mod number;
mod quantity;

use std::ops::Range;

/// One word, or several that belong together, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewritten {
    /// What to write.
    pub text: String,
    /// The spoken words it stands for; never empty. All together they cover the words in order.
    pub words: Range<usize>,
}

impl Rewritten {
    fn new(text: impl Into<String>, words: Range<usize>) -> Self {
        Self { text: text.into(), words }
    }
}

/// Writes spoken English words the way the module's page says.
pub fn inverse(words: &[&str]) -> Vec<Rewritten> {
    let mut written: Vec<Rewritten> = Vec::with_capacity(words.len());
    let mut at = 0;
    while at < words.len() {
        let found = date::date(words, at).or_else(|| clock::time(words, at)).or_else(|| quantity::quantity(words, at));
        let found = found.filter(|found| !keeps_an_and(words, found));
        match found {
            Some(found) => written.extend(found),
            None => {
                // A run of number words is written as a whole or not at all.
                let end = number::run_end(words, at).max(at + 1);
                written.extend((at..end).map(|i| Rewritten::new(words[i], i..i + 1)));
            }
        }
        at = written.last().map_or(words.len(), |last| last.words.end);
    }
    written
}

/// Whether digits would keep an "and" after them that the scoring normaliser drops after the words: "june ten hundred and dollars".
fn keeps_an_and(words: &[&str], found: &[Rewritten]) -> bool {
    found.last().is_some_and(|last| {
        let end = last.words.end;
        last.text.ends_with(|c: char| c.is_ascii_digit()) && number::is_round(words[end - 1]) && number::is_dropped_and(words, end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(spoken: &str) -> String {
        let words: Vec<&str> = spoken.split(' ').collect();
        inverse(&words).into_iter().map(|r| r.text).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn numbers() {
        for (spoken, expected) in [
            ("there were twenty one of them", "there were 21 of them"),
            ("one hundred and five people", "105 people"),
            ("twelve thousand five hundred", "12,500"),
            ("two thousand three hundred", "2300"),
            ("twenty five hundred and one", "2501"),
            ("one million two hundred fifty thousand and seven", "1,250,007"),
            ("two point five million", "2.5 million"),
            ("two million five hundred thousand", "2.5 million"),
            ("five billion", "5 billion"),
            ("three point one four", "3.14"),
            ("zero point oh five", "0.05"),
            ("twenty two and a half", "22.5"),
            ("two and a half million", "2.5 million"),
            ("minus twenty degrees", "minus 20 degrees"),
            ("five five five oh one double two", "5550122"),
            ("seven zero four", "704"),
            ("one double oh seven", "1007"),
            ("six kilometers in five minutes", "6 kilometers in five minutes"),
        ] {
            assert_eq!(written(spoken), expected);
        }
    }

    #[test]
    fn ordinals_years_and_dates() {
        for (spoken, expected) in [
            ("the twenty first century", "the 21st century"),
            ("his one hundred and tenth game", "his 110th game"),
            ("nineteen eighty four", "1984"),
            ("in the nineteen eighties", "in the 1980s"),
            ("nineteen oh five or twenty ten", "1905 or 2010"),
            ("nineteen hundred", "1900"),
            ("two thousand and five", "2005"),
            ("june third twenty twenty one", "June 3rd 2021"),
            ("the third of may twenty twenty one", "the 3rd of May 2021"),
            ("on may second", "on May 2nd"),
            ("may ninth nineteen forty five", "May 9th 1945"),
            ("the thirty first of december", "the 31st of December"),
            ("in june ten sixty six", "in June 1066"),
            ("since march twenty twenty", "since March 2020"),
            ("the twenty second of august", "the 22nd of August"),
        ] {
            assert_eq!(written(spoken), expected);
        }
    }

    #[test]
    fn times_money_and_percent() {
        for (spoken, expected) in [
            ("at three thirty p m", "at 3:30 p.m."),
            ("at three oh five pm", "at 3:05 pm"),
            ("ten a m sharp", "10 a.m. sharp"),
            ("nine o'clock", "9 o'clock"),
            ("five dollars and ten cents", "$5.10"),
            ("two dollars five cents", "$2.05"),
            ("one dollar", "$1"),
            ("five million dollars", "$5 million"),
            ("two and a half million dollars", "$2.5 million"),
            ("twelve thousand dollars", "$12,000"),
            ("ninety nine cents and six euros", "99 cents and €6"),
            ("twenty pounds of sugar", "20 pounds of sugar"),
            ("five dollars and a hat", "$5 and a hat"),
            ("five dollars per person plus tax", "$5 per person plus tax"),
            ("five percent", "5%"),
            ("twelve point five per cent per year", "12.5% per year"),
        ] {
            assert_eq!(written(spoken), expected);
        }
    }

    #[test]
    fn left_alone() {
        for same in [
            "one of the first",
            "no one",
            "a second look",
            "a twenty second pause",
            "we may first go and march second",
            "you may second that",
            "five ten fifteen twenty",
            "one two",
            "a hundred and five",
            "hundreds of thousands",
            "two thirds and one tenth",
            "a tenth of it",
            "point five",
            "two point zero",
            "oh nine",
            "double oh seven",
            "at eleven thirty",
            "point ten",
            "oh",
            "three and four",
            "ninety-nine Twenty",
            "the mayor of may",
            "five am i",
            "first pm",
            "minus five percent",
            "zero dollars",
            "one dollar five",
            "minus tenth",
            "five hundred and per cent",
            "june ten hundred and dollars",
            "hundred and triple one",
            "five double zero point second",
            "",
        ] {
            assert_eq!(written(same), same);
        }
    }

    #[test]
    fn every_word_is_covered_once() {
        let words: Vec<&str> = "on june third twenty twenty one at five p m it cost five dollars and ten cents".split(' ').collect();
        let parts: Vec<(String, Range<usize>)> = inverse(&words).into_iter().map(|r| (r.text, r.words)).collect();
        let expected = [("on", 0..1), ("June", 1..2), ("3rd", 2..3), ("2021", 3..6), ("at", 6..7), ("5", 7..8), ("p.m.", 8..10)];
        let rest = [("it", 10..11), ("cost", 11..12), ("$5.10", 12..17)];
        assert_eq!(parts, expected.into_iter().chain(rest).map(|(text, words)| (text.to_string(), words)).collect::<Vec<_>>());
    }

    /// Words that rules look for, in any order.
    const VOCABULARY: &str = "zero oh one two three five nine ten twelve thirteen nineteen twenty thirty ninety hundred thousand million \
        trillion first second third ninth tenth twentieth hundredth and a half point double triple dollars dollar cents percent per cent \
        euros pounds may june march of the on in am p m o'clock kilometers eighties minus people";

    proptest! {
        #[test]
        fn any_words_are_covered_once_in_order(picks in proptest::collection::vec(0usize..1000, 0..14)) {
            let vocabulary: Vec<&str> = VOCABULARY.split_whitespace().collect();
            let words: Vec<&str> = picks.iter().map(|i| vocabulary[i % vocabulary.len()]).collect();
            let mut end = 0;
            for part in inverse(&words) {
                prop_assert!(part.words.start == end && part.words.end > end && !part.text.is_empty(), "{words:?}: {part:?}");
                end = part.words.end;
            }
            prop_assert_eq!(end, words.len());
        }
    }
}
