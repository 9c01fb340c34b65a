//! Steps that look at characters only: bracketed remarks, punctuation, diacritics, white space; and the basic normaliser made of them.

use unicode_normalization::UnicodeNormalization;
use unicode_segmentation::UnicodeSegmentation;

use crate::text::characters::{is_digit, is_mark_symbol_or_punctuation, is_nonspacing_mark, is_space, undecomposed_latin};

/// Symbols that carry a number's meaning and stay until numbers are read.
const NUMERIC_SYMBOLS: [char; 6] = ['.', '%', '$', '¢', '€', '£'];

/// Whether [`basic`] folds letters to their base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Diacritics {
    /// `é` stays.
    Keep,
    /// `é` becomes `e`, `ß` becomes `ss`.
    Remove,
}

/// Whether [`basic`] makes a word of every letter, for languages written without spaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Letters {
    /// Words stay.
    Joined,
    /// One space between grapheme clusters.
    Split,
}

/// Whisper's normaliser for languages other than English.
///
/// A space may stay at either end.
pub fn basic(text: &str, diacritics: Diacritics, letters: Letters) -> String {
    let text = remove_remarks(text.to_lowercase());
    let text: String = match diacritics {
        Diacritics::Keep => text.nfkc().map(|c| if is_mark_symbol_or_punctuation(c) { ' ' } else { c }).collect(),
        Diacritics::Remove => fold(&text, &[]),
    };
    let text = text.to_lowercase();
    collapse_spaces(match letters {
        Letters::Joined => text,
        Letters::Split => text.graphemes(true).collect::<Vec<_>>().join(" "),
    })
}

/// Removes `<...>` and `[...]` (either closing mark ends either), then `(...)` unless empty. Unclosed ones stay.
pub(super) fn remove_remarks(text: String) -> String {
    let text = if text.contains(['<', '[']) { remove_between(&text, &['<', '['], &['>', ']'], 0) } else { text };
    if text.contains('(') { remove_between(&text, &['('], &[')'], 1) } else { text }
}

fn remove_between(text: &str, open: &[char], close: &[char], at_least: usize) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(open) {
        let Some(length) = rest[start + 1..].find(close) else { break };
        out.push_str(&rest[..start]);
        if length < at_least {
            out.push_str(&rest[start..start + 1]);
            rest = &rest[start + 1..];
        } else {
            rest = &rest[start + 1 + length + 1..];
        }
    }
    out + rest
}

/// Removes a comma between two digits; digits are used once, so of `1,2,3` only the first comma goes.
pub(super) fn join_thousands(text: String) -> String {
    if !text.contains(',') {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        out.push(c);
        let mut ahead = rest.clone();
        if is_digit(c)
            && ahead.next() == Some(',')
            && let Some(digit) = ahead.next().filter(|&d| is_digit(d))
        {
            out.push(digit);
            rest = ahead;
        }
    }
    out
}

/// A full stop becomes a space unless an ASCII digit follows; the character after it is used up, so of two in a row the second stays.
pub(super) fn drop_full_stops(text: String) -> String {
    if !text.contains('.') {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let mut ahead = rest.clone();
        match ahead.next() {
            Some(next) if c == '.' && !next.is_ascii_digit() => {
                out.extend([' ', next]);
                rest = ahead;
            }
            None if c == '.' => out.push(' '),
            _ => out.push(c),
        }
    }
    out
}

/// Accents off, other marks, symbols and punctuation to spaces, except what numbers need.
pub(super) fn symbols_to_spaces(text: String) -> String {
    if !text.is_ascii() {
        return fold(&text, &NUMERIC_SYMBOLS);
    }
    text.chars().map(|c| if c.is_ascii_punctuation() && !matches!(c, '.' | '%' | '$') { ' ' } else { c }).collect()
}

fn fold(text: &str, keep: &[char]) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.nfkd() {
        if c.is_ascii_alphanumeric() || keep.contains(&c) {
            out.push(c);
        } else if let Some(spelled) = undecomposed_latin(c) {
            out.push_str(spelled);
        } else if !is_nonspacing_mark(c) {
            out.push(if is_mark_symbol_or_punctuation(c) { ' ' } else { c });
        }
    }
    out
}

/// Takes currency signs and points that no digit follows, then percent signs that no digit precedes, for spaces.
pub(super) fn drop_stray_symbols(text: String) -> String {
    if !text.contains(NUMERIC_SYMBOLS) {
        return text;
    }
    let mut prefixes = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let mut ahead = rest.clone();
        match ahead.next() {
            Some(next) if c != '%' && NUMERIC_SYMBOLS.contains(&c) && !next.is_ascii_digit() => {
                prefixes.extend([' ', next]);
                rest = ahead;
            }
            _ => prefixes.push(c),
        }
    }
    let mut out = String::with_capacity(prefixes.len());
    let mut rest = prefixes.chars();
    while let Some(c) = rest.next() {
        out.push(c);
        let mut ahead = rest.clone();
        if !c.is_ascii_digit() && ahead.next() == Some('%') {
            out.push(' ');
            rest = ahead;
        }
    }
    out
}

/// One space for every run of white space, also at the ends.
pub(super) fn collapse_spaces(text: String) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_space = false;
    for c in text.chars() {
        let space = is_space(c);
        if !space {
            out.push(c);
        } else if !in_space {
            out.push(' ');
        }
        in_space = space;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remarks_need_a_closing_mark_and_parentheses_a_content() {
        for (input, expected) in [
            ("a [b> c", "a  c"),
            ("a [b", "a [b"),
            ("<[x]y", "y"),
            ("()a", "()a"),
            ("(()a", "a"),
            ("(a)(b)c)", "c)"),
            ("()(x)", "()"),
            ("[]x", "x"),
        ] {
            assert_eq!(remove_remarks(input.into()), expected, "{input}");
        }
    }

    #[test]
    fn digits_and_stops_are_used_once() {
        assert_eq!(join_thousands("1,2,3 1,000,000 a,1".into()), "12,3 1000000 a,1");
        assert_eq!(drop_full_stops("a. b.5 ...".into()), "a  b.5  . ");
        assert_eq!(drop_stray_symbols("$ $5 .a % 5% a%%".into()), "  $5  a   5% a %");
    }

    #[test]
    fn basic_keeps_or_folds() {
        assert_eq!(basic("Größe!", Diacritics::Keep, Letters::Joined), "größe ");
        assert_eq!(basic("Größe!", Diacritics::Remove, Letters::Joined), "grosse ");
        assert_eq!(basic("né", Diacritics::Keep, Letters::Split), "n é");
    }
}
