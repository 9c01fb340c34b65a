//! The form of transcripts a model is trained to write: `a`-`z`, apostrophe and single spaces, numbers in words.

use unicode_normalization::UnicodeNormalization;

use super::characters::undecomposed_latin;

/// Signs typed for an apostrophe.
pub(super) const APOSTROPHES: [char; 8] = ['\u{2018}', '\u{2019}', '\u{201b}', '\u{2032}', '\u{2bc}', '\u{ff07}', '`', '\u{b4}'];

const UNITS: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 10] = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];

/// The training form of `text`; `None` if nothing remains or a letter has no ASCII form (another script).
///
/// - `[...]`, `<...>` and `{...}` hold remarks and go with their content; words in parentheses stay, readers say them.
/// - Accents go (`é` to `e`, `ß` to `ss`); an apostrophe stays between letters only, so quotation marks do not become letters.
/// - `&` is "and", `%` after a digit "percent"; other symbols are spaces.
/// - Digits: up to four become a number ("one hundred five"), four that look like a year are read in pairs ("nineteen eighty four"),
///   groups with commas are one number; more than four, or a leading zero, are read one by one. After a point, one by one.
///   `21st` and `90s` take their endings. A text with the fraction slash (`½`) has no certain reading: `None`.
pub fn target(text: &str) -> Option<String> {
    let letters = fold(text)?;
    let mut out = Spaced(String::with_capacity(letters.len() + 16));
    let mut previous = ' ';
    let mut rest = letters.as_str();
    while let Some(c) = rest.chars().next() {
        let mut used = 1;
        match c {
            'a'..='z' => out.0.push(c),
            '\'' if previous.is_ascii_lowercase() && rest[1..].starts_with(|next: char| next.is_ascii_lowercase()) => out.0.push(c),
            '0'..='9' => used = out.number(rest),
            '&' => out.word("and"),
            '%' if letters[..letters.len() - rest.len()].trim_end().ends_with(|p: char| p.is_ascii_digit()) => out.word("percent"),
            '.' if previous.is_ascii_digit() && rest[1..].starts_with(|next: char| next.is_ascii_digit()) => {
                out.word("point");
                used = 1 + digits(&rest[1..]).len();
                out.one_by_one(&rest[1..used]);
            }
            _ => out.gap(),
        }
        previous = rest[..used].chars().next_back().unwrap_or(' ');
        rest = &rest[used..];
    }
    let trimmed = out.0.trim_end().len();
    out.0.truncate(trimmed);
    (!out.0.is_empty()).then_some(out.0)
}

/// `text` without remarks in brackets, a space in the place of each; a bracket that does not close stays.
pub(super) fn without_remarks(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut closing = None;
    for (at, c) in text.char_indices() {
        if let Some(close) = closing {
            if c == close {
                closing = None;
                out.push(' ');
            }
            continue;
        }
        let close = match c {
            '[' => Some(']'),
            '<' => Some('>'),
            '{' => Some('}'),
            _ => None,
        };
        match close.filter(|&close| text[at..].contains(close)) {
            Some(close) => closing = Some(close),
            None => out.push(c),
        }
    }
    out
}

/// Lower-case ASCII with remarks and accents removed; other symbols become spaces.
fn fold(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    for c in without_remarks(text).chars().map(|c| if APOSTROPHES.contains(&c) { '\'' } else { c }) {
        if c.is_ascii() {
            out.push(c.to_ascii_lowercase());
            continue;
        }
        for part in std::iter::once(c).nfkd() {
            match undecomposed_latin(part) {
                Some(spelled) => out.push_str(&spelled.to_ascii_lowercase()),
                None if part.is_ascii() => out.push(part.to_ascii_lowercase()),
                None if part == '\u{2044}' || super::characters::is_word(part) => return None,
                None if super::characters::is_nonspacing_mark(part) => {}
                None => out.push(' '),
            }
        }
    }
    Some(out)
}

/// Text whose words are one space apart.
struct Spaced(String);

impl Spaced {
    fn gap(&mut self) {
        if !self.0.is_empty() && !self.0.ends_with(' ') {
            self.0.push(' ');
        }
    }

    fn word(&mut self, word: &str) {
        self.gap();
        self.0.push_str(word);
        self.0.push(' ');
    }

    /// Reads the number `text` starts with and returns its length, endings included.
    fn number(&mut self, text: &str) -> usize {
        let run = digits(text);
        let grouped = grouped(text);
        let start = self.0.len();
        let used = if let Some((length, value)) = grouped {
            self.cardinal(value);
            length
        } else {
            match run.parse::<u64>() {
                Ok(value) if run.len() <= 4 && !(run.len() > 1 && run.starts_with('0')) => self.short(value),
                _ => self.one_by_one(run),
            }
            run.len()
        };
        used + self.ending(&text[used..], start)
    }

    fn one_by_one(&mut self, digits: &str) {
        digits.bytes().for_each(|b| self.word(UNITS[usize::from(b - b'0')]));
    }

    /// Up to four digits without a leading zero.
    fn short(&mut self, value: u64) {
        if !(1100..2000).contains(&value) && !(2010..2100).contains(&value) {
            return self.cardinal(value);
        }
        self.cardinal(value / 100);
        match value % 100 {
            0 => self.word("hundred"),
            low @ 1..10 => {
                self.word("oh");
                self.cardinal(low);
            }
            low => self.cardinal(low),
        }
    }

    fn cardinal(&mut self, value: u64) {
        for (size, name) in [(1_000_000_000, "billion"), (1_000_000, "million"), (1000, "thousand"), (100, "hundred")] {
            if value >= size {
                self.cardinal(value / size);
                self.word(name);
                let rest = value % size;
                if rest > 0 {
                    self.cardinal(rest);
                }
                return;
            }
        }
        let (tens, units) = (value as usize / 10, value as usize % 10);
        match value {
            0..20 => self.word(UNITS[value as usize]),
            _ if units == 0 => self.word(TENS[tens]),
            _ => {
                self.word(TENS[tens]);
                self.word(UNITS[units]);
            }
        }
    }

    /// Puts the ordinal or plural ending that `rest` starts with on the number written since `start`; returns the ending's length.
    fn ending(&mut self, rest: &str, start: usize) -> usize {
        let letters = &rest[..rest.bytes().take_while(u8::is_ascii_lowercase).count()];
        if !matches!(letters, "st" | "nd" | "rd" | "th" | "s") {
            return 0;
        }
        let last = self.0.trim_end().len();
        self.0.truncate(last);
        let begin = self.0.rfind(' ').map_or(start, |space| space + 1);
        let word = self.0.split_off(begin);
        let ended = match (letters, word.as_str()) {
            ("s", word) if word.ends_with('y') => format!("{}ies", word.trim_end_matches('y')),
            ("s", "six") => "sixes".into(),
            ("s", word) => format!("{word}s"),
            (_, "one") => "first".into(),
            (_, "two") => "second".into(),
            (_, "three") => "third".into(),
            (_, "five") => "fifth".into(),
            (_, "eight") => "eighth".into(),
            (_, "nine") => "ninth".into(),
            (_, "twelve") => "twelfth".into(),
            (_, word) if word.ends_with('y') => format!("{}ieth", word.trim_end_matches('y')),
            (_, word) => format!("{word}th"),
        };
        self.word(&ended);
        letters.len()
    }
}

/// The ASCII digits `text` starts with.
fn digits(text: &str) -> &str {
    &text[..text.bytes().take_while(u8::is_ascii_digit).count()]
}

/// Length and value of a number in groups of three (`1,250,000`) up to billions.
fn grouped(text: &str) -> Option<(usize, u64)> {
    let first = digits(text);
    let (mut length, mut all) = (first.len(), first.to_string());
    while let Some(group) = text[length..].strip_prefix(',').map(digits).filter(|group| group.len() == 3) {
        all.push_str(group);
        length += 4;
    }
    let plausible = length > first.len() && first.len() <= 3 && !first.starts_with('0') && all.len() <= 12;
    all.parse().ok().filter(|_| plausible).map(|value| (length, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_and_apostrophes() {
        for (input, expected) in [
            ("The 'K' is  silent.", "the k is silent"),
            ("Citizens\u{2019} right; don\u{2019}t", "citizens right don't"),
            ("Größe naïve Æsop Łódź", "grosse naive aesop lodz"),
            ("[T] is <emph> not </emph> there {x} (laughs)", "is not there laughs"),
            ("R&D at 5 % f*%#", "r and d at five percent f"),
            ("a [b", "a b"),
            ("“Well”—yes…", "well yes"),
        ] {
            assert_eq!(target(input).as_deref(), Some(expected), "{input}");
        }
        for nothing in ["", " ... ", "[x]", "привет", "naïve слово", "½ cup", "٣"] {
            assert_eq!(target(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn numbers_are_spoken() {
        for (input, expected) in [
            ("0 7 12 20 42", "zero seven twelve twenty forty two"),
            ("105 500 999", "one hundred five five hundred nine hundred ninety nine"),
            ("1984 1900 1905 2005 2024", "nineteen eighty four nineteen hundred nineteen oh five two thousand five twenty twenty four"),
            ("007 12345", "zero zero seven one two three four five"),
            ("1,250,000 1,2", "one million two hundred fifty thousand one two"),
            ("28.8 kilobit, 1.2.3", "twenty eight point eight kilobit one point two point three"),
            ("1st 22nd 3rd 30th 21st", "first twenty second third thirtieth twenty first"),
            ("the 1980s", "the nineteen eighties"),
            ("pascal2 a1b", "pascal two a one b"),
            ("12-digit", "twelve digit"),
        ] {
            assert_eq!(target(input).as_deref(), Some(expected), "{input}");
        }
    }

    #[test]
    fn the_form_is_stable() {
        for text in ["It's 5 o'clock & 20% of 1,000 people said 'no'.", "Zoë's 3rd café"] {
            let once = target(text).unwrap();
            assert!(once.chars().all(|c| c.is_ascii_lowercase() || c == ' ' || c == '\''), "{once}");
            assert_eq!(target(&once).as_deref(), Some(once.as_str()));
        }
    }
}
