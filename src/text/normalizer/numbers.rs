//! Spelled and written numbers to one form: `twenty-five dollars and ten cents` -> `$25.10`.

use std::iter::Peekable;

use super::number_value::NumberValue;
use super::number_words::{NumberWord, number_word};
use crate::text::characters::{is_space, is_word};

/// Lower-case text with its numbers in digits.
pub(super) fn standardize(text: String) -> String {
    let text = read_halves(text);
    let text = if text.bytes().any(|b| b.is_ascii_digit()) { join_suffixes(&split_digits(&text)) } else { text };
    let text = Reader::default().read(&text);
    if !text.bytes().any(|b| b.is_ascii_digit()) {
        return text;
    }
    write_ones(&extract_cents(combine_cents(text)))
}

/// `and a half` after a number becomes `point five`.
fn read_halves(text: String) -> String {
    if !text.contains("half") {
        return text;
    }
    let mut pieces = vec![];
    let mut rest = text.as_str();
    while let Some((start, end)) = find_half(rest) {
        let (piece, after) = (&rest[..start], &rest[end..]);
        if let Some(last) = piece.split(is_space).rfind(|w| !w.is_empty()) {
            let numeric = number_word(last).is_some_and(|w| w.is_digits() || matches!(w, NumberWord::Multiplier(_)));
            pieces.extend([piece, if numeric { "point five" } else { "and a half" }]);
        }
        rest = after;
    }
    if rest.contains(|c| !is_space(c)) {
        pieces.push(rest);
    }
    pieces.join(" ")
}

/// Byte range of the first `and a half` that stands as whole words.
fn find_half(text: &str) -> Option<(usize, usize)> {
    let spaced = |s: &str| s.trim_start_matches(is_space).len() < s.len();
    text.match_indices("and").find_map(|(start, and)| {
        if text[..start].chars().next_back().is_some_and(is_word) {
            return None;
        }
        let rest = &text[start + and.len()..];
        let rest = rest.trim_start_matches(is_space).strip_prefix('a').filter(|_| spaced(rest))?;
        let rest = rest.trim_start_matches(is_space).strip_prefix("half").filter(|_| spaced(rest))?;
        (!rest.chars().next().is_some_and(is_word)).then_some((start, text.len() - rest.len()))
    })
}

/// A space between a-z and 0-9 in either order.
fn split_digits(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    let mut previous = ' ';
    for c in text.chars() {
        if (previous.is_ascii_lowercase() && c.is_ascii_digit()) || (previous.is_ascii_digit() && c.is_ascii_lowercase()) {
            out.push(' ');
        }
        out.push(c);
        previous = c;
    }
    out
}

/// Ordinal and plural suffixes back to their digits.
fn join_suffixes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        out.push(c);
        rest = &rest[c.len_utf8()..];
        if c.is_ascii_digit() {
            let after = rest.trim_start_matches(is_space);
            let word = &after[..after.find(|c| !is_word(c)).unwrap_or(after.len())];
            if after.len() < rest.len() && matches!(word, "st" | "nd" | "rd" | "th" | "s") {
                out.push_str(word);
                rest = &after[word.len()..];
            }
        }
    }
    out
}

/// Reads words one at a time; holds the number not yet written and the symbol that goes before it.
#[derive(Default)]
struct Reader {
    out: String,
    value: Option<NumberValue>,
    prefix: Option<char>,
}

impl Reader {
    fn read(mut self, text: &str) -> String {
        self.out.reserve(text.len());
        let mut words = text.split(is_space).filter(|w| !w.is_empty()).peekable();
        let mut previous = None;
        while let Some(current) = words.next() {
            previous = match number_word(current) {
                Some(role) => self.number_word(role, previous, current, &mut words),
                None => {
                    self.other(current);
                    None
                }
            };
        }
        self.write_value();
        self.out
    }

    /// A word in digits or outside numbers.
    fn other(&mut self, word: &str) {
        let symbol = word.chars().next().filter(|c| matches!(c, '-' | '+' | '£' | '€' | '$' | '¢'));
        let Some(value) = NumberValue::parse(&word[symbol.map_or(0, char::len_utf8)..]) else {
            self.write_value();
            return self.write(word);
        };
        if let Some(NumberValue::Spoken(text)) = &mut self.value
            && text.ends_with('.')
        {
            text.push_str(word);
            return;
        }
        self.write_value();
        self.prefix = symbol.or(self.prefix);
        self.value = Some(value);
    }

    /// A number word; returns what the next word is to see as its predecessor (a word that was used up with this one, if any).
    fn number_word<'t>(
        &mut self,
        role: NumberWord,
        previous: Option<NumberWord>,
        current: &str,
        rest: &mut Peekable<impl Iterator<Item = &'t str>>,
    ) -> Option<NumberWord> {
        let next = rest.peek().copied();
        let next_role = next.and_then(number_word);
        let next_is_number = next_role.is_some() || next.is_some_and(|w| NumberValue::parse(w).is_some());
        match role {
            NumberWord::Zero => self.append("0"),
            NumberWord::Ones(ones) => self.value = Some(self.with_ones(ones, previous)),
            NumberWord::OnesSuffixed(ones, suffix) => {
                let value = self.with_ones(ones, previous);
                self.write_with(value.text(), suffix);
            }
            NumberWord::Tens(tens) => self.value = Some(self.with_tens(tens)),
            NumberWord::TensSuffixed(tens, suffix) => {
                let value = self.with_tens(tens);
                self.write_with(value.text(), suffix);
            }
            NumberWord::Multiplier(zeros) => match self.value.take() {
                None => self.value = Some(NumberValue::power_of_ten(zeros)),
                Some(value) => {
                    self.value = value.scaled(zeros).or_else(|| {
                        self.write_with(value.text(), "");
                        Some(NumberValue::power_of_ten(zeros))
                    });
                }
            },
            NumberWord::MultiplierSuffixed(zeros, suffix) => {
                let power = NumberValue::power_of_ten(zeros);
                let value = match self.value.take() {
                    None => power,
                    Some(value) => value.scaled(zeros).unwrap_or_else(|| {
                        self.write_with(value.text(), "");
                        power
                    }),
                };
                self.write_with(value.text(), suffix);
            }
            NumberWord::Sign(sign) => {
                self.write_value();
                if next_is_number {
                    self.prefix = Some(sign);
                } else {
                    self.write(current);
                }
            }
            NumberWord::Currency(symbol) if self.value.is_some() => {
                self.prefix = Some(symbol);
                self.write_value();
            }
            NumberWord::Percent if self.value.is_some() => self.write_percent(),
            NumberWord::Per if self.value.is_some() && next == Some("cent") => {
                self.write_percent();
                rest.next();
                return next_role;
            }
            NumberWord::And if next_is_number && matches!(previous, Some(NumberWord::Multiplier(_))) => {}
            NumberWord::Repeat(times) if let Some(NumberWord::Ones(_) | NumberWord::Zero) = next_role => {
                let digits = if let Some(NumberWord::Ones(ones)) = next_role { ones.to_string() } else { "0".into() };
                self.append(&digits.repeat(times));
                rest.next();
                return next_role;
            }
            NumberWord::Point if next_is_number => {
                if next_role.is_none_or(NumberWord::is_digits) {
                    self.append(".");
                }
            }
            NumberWord::Currency(_) => self.write(current),
            NumberWord::Percent | NumberWord::Per | NumberWord::And | NumberWord::Repeat(_) | NumberWord::Point => {
                self.write_value();
                self.write(current);
            }
        }
        Some(role)
    }

    /// The number with a word for 0 to 19 said after it.
    fn with_ones(&mut self, ones: u32, previous: Option<NumberWord>) -> NumberValue {
        match self.value.take() {
            None => NumberValue::Integer(ones.to_string()),
            Some(NumberValue::Spoken(mut text)) if ones < 10 && matches!(previous, Some(NumberWord::Tens(_))) => {
                text.pop();
                NumberValue::Spoken(text + &ones.to_string())
            }
            Some(NumberValue::Integer(text)) if matches!(previous, Some(NumberWord::Ones(_))) => {
                NumberValue::Spoken(text + &ones.to_string())
            }
            Some(value) => value.fill_or_append(ones, if ones < 10 { 1 } else { 2 }),
        }
    }

    /// The number with a word for 20 to 90 said after it.
    fn with_tens(&mut self, tens: u32) -> NumberValue {
        match self.value.take() {
            None => NumberValue::Integer(tens.to_string()),
            Some(value) => value.fill_or_append(tens, 2),
        }
    }

    fn append(&mut self, spoken: &str) {
        let text = self.value.take().map(NumberValue::spoken).unwrap_or_default();
        self.value = Some(NumberValue::Spoken(text + spoken));
    }

    fn write_percent(&mut self) {
        if let Some(value) = self.value.take() {
            self.write_with(value.text(), "%");
        }
    }

    fn write_value(&mut self) {
        if let Some(value) = self.value.take() {
            self.write_with(value.text(), "");
        }
    }

    fn write(&mut self, word: &str) {
        self.write_with(word, "");
    }

    /// Writes one word with the pending symbol before it.
    fn write_with(&mut self, word: &str, suffix: &str) {
        if !self.out.is_empty() {
            self.out.push(' ');
        }
        self.out.extend(self.prefix.take());
        self.out.push_str(word);
        self.out.push_str(suffix);
    }
}

/// `$2 and ¢7` and `$2 ¢7` become `$2.07`.
fn combine_cents(text: String) -> String {
    if !text.contains('¢') {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(start) = rest.find(CURRENCIES) {
        let symbol = rest[start..].chars().next().map_or(1, char::len_utf8);
        let (before, after) = rest.split_at(start + symbol);
        out.push_str(before);
        rest = after;
        let whole = ascii_digits(after);
        let cents = after[whole..].strip_prefix(' ').map(|s| s.strip_prefix("and ").unwrap_or(s)).and_then(|s| s.strip_prefix('¢'));
        if let Some(cents) = cents.filter(|_| whole > 0)
            && let Some((digits, end)) = one_or_two_digits(cents)
        {
            out.push_str(&format!("{}.{digits:0>2}", &after[..whole]));
            rest = end;
        }
    }
    out + rest
}

/// `$0.07` becomes `¢7`; any character may stand for the point.
fn extract_cents(text: String) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(start) = rest.find(CURRENCIES) {
        let symbol = rest[start..].chars().next().map_or(1, char::len_utf8);
        let after = &rest[start + symbol..];
        let cents = after.strip_prefix('0').and_then(|s| s.char_indices().nth(1).map(|(i, _)| &s[i..]));
        out.push_str(&rest[..start]);
        if let Some((digits, end)) = cents.and_then(one_or_two_digits) {
            let digits = if digits.len() > 1 { digits.strip_prefix('0').unwrap_or(digits) } else { digits };
            out.push('¢');
            out.push_str(digits);
            rest = end;
        } else {
            out.push_str(&rest[start..start + symbol]);
            rest = after;
        }
    }
    out + rest
}

const CURRENCIES: [char; 3] = ['€', '£', '$'];

fn ascii_digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// One or two ASCII digits that end a word, and the text after them.
fn one_or_two_digits(text: &str) -> Option<(&str, &str)> {
    let (digits, rest) = text.split_at(ascii_digits(text));
    ((1..=2).contains(&digits.len()) && !rest.chars().next().is_some_and(is_word)).then_some((digits, rest))
}

/// `1` and `1s` as whole words become `one` and `ones`.
fn write_ones(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    let mut before = false;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        let tail = after.strip_prefix('s').unwrap_or(after);
        if c == '1' && !before && !tail.chars().next().is_some_and(is_word) {
            out.push_str("one");
        } else {
            out.push(c);
        }
        before = is_word(c);
        rest = after;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read() {
        for (input, expected) in [
            ("two hundred and five dollars", "$205"),
            ("twenty one twenty two", "2122"),
            ("one two twelve", "1212"),
            ("minus five and minus", "-5 and minus"),
            ("double oh seven double", "007 double"),
            ("point five", ".5"),
            ("five point million", "5000000"),
            ("zero point five million", "500000"),
            ("thirty per cent per day", "30% per day"),
            ("nineteen sixties", "1960s"),
            ("ninth nineth", "ninth 9th"),
            ("two third million", "23rd 1000000"),
            ("$2 and ¢7", "$2.07"),
            ("$0.07 £0.5", "¢7 ¢5"),
            ("1s and 1 and a1", "ones and one and a one"),
            ("three and a half million", "3500000"),
            ("me and a half", "me and a half"),
            ("nine decillion", "9000000000000000000000000000000000"),
        ] {
            assert_eq!(standardize(input.into()), expected, "{input}");
        }
    }
}
