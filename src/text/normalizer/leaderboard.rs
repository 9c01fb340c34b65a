//! What the leaderboard's normaliser does besides Whisper's: compounds joined, letters of an acronym joined.

use super::contractions::word_length;
use crate::text::characters::{is_space, is_word};

/// Two words that stand for one (`wi fi`), joined.
pub(super) fn join_compounds(text: String) -> String {
    let mut out = String::new();
    let (mut copied, mut start) = (0, 0);
    while start < text.len() {
        let end = start + word_length(&text[start..]);
        let rest = text[end..].trim_start_matches(is_space);
        let next = text.len() - rest.len();
        let word = &text[start..end];
        if next > end
            && starts_compound(word)
            && let Some(joined) = compound(word, &rest[..word_length(rest)])
        {
            out.push_str(&text[copied..start]);
            out.push_str(joined);
            copied = next + word_length(rest);
            start = copied;
        } else {
            start = if next > end { next } else { end + rest.chars().next().map_or(1, char::len_utf8) };
        }
    }
    if copied == 0 { text } else { out + &text[copied..] }
}

/// Whether `word` is the first of a pair that [`compound`] knows; spares most words the look at their neighbour.
fn starts_compound(word: &str) -> bool {
    matches!(word, "et" | "al" | "all" | "how" | "wi" | "hi" | "lo" | "sci" | "e" | "x" | "t" | "a" | "p" | "o")
}

/// The pairs and what they become: `english_compound_normalizer` of huggingface/open_asr_leaderboard d1e99b2 (Apache License 2.0).
///
/// No result and no second word is the first word of a pair, so one pass does what sixteen expressions in a row do.
fn compound(first: &str, second: &str) -> Option<&'static str> {
    Some(match (first, second) {
        ("et", "cetera") => "etc",
        ("al" | "all", "right") => "alright",
        ("how", "ever") => "however",
        ("wi", "fi") => "wifi",
        ("hi", "fi") => "hifi",
        ("lo", "fi") => "lofi",
        ("sci", "fi") => "scifi",
        ("e", "mail") => "email",
        ("e", "book") => "ebook",
        ("e", "commerce") => "ecommerce",
        ("x", "ray") => "xray",
        ("t", "shirt") => "tshirt",
        ("a", "m") => "am",
        ("p", "m") => "pm",
        ("o", "k") => "okay",
        _ => return None,
    })
}

/// Runs of one-character words joined, from two on (`b b c`), from three on if `a` or `i`, words of their own, are among them.
///
/// `text`: words between single spaces.
pub(super) fn join_letters(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut run = String::new();
    for word in text.split(' ') {
        let mut characters = word.chars();
        match (characters.next(), characters.next()) {
            (Some(letter), None) if is_word(letter) => run.push(letter),
            _ => {
                write_run(&mut out, &mut run);
                write_word(&mut out, word);
            }
        }
    }
    write_run(&mut out, &mut run);
    out
}

fn write_run(out: &mut String, run: &mut String) {
    let least = if run.contains(['a', 'i']) { 3 } else { 2 };
    if run.chars().nth(least - 1).is_some() {
        write_word(out, run);
    } else {
        run.chars().for_each(|letter| write_word(out, letter.encode_utf8(&mut [0; 4])));
    }
    run.clear();
}

fn write_word(out: &mut String, word: &str) {
    if !out.is_empty() {
        out.push(' ');
    }
    out.push_str(word);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compounds_are_whole_words_with_only_space_between() {
        for (input, expected) in [
            ("wi fi", "wifi"),
            ("a wi  \t fi b", "a wifi b"),
            ("how ever all right al right", "however alright alright"),
            ("wi.fi", "wi.fi"),
            ("xwi fi wi fix", "xwi fi wi fix"),
            ("wi wi fi", "wi wifi"),
            ("a a m p m", "a am pm"),
            ("o k", "okay"),
            ("o", "o"),
            ("all ", "all "),
            ("e é mail e mailé e mail", "e é mail e mailé email"),
            (" . x ray .", " . xray ."),
            ("", ""),
        ] {
            assert_eq!(join_compounds(input.into()), expected, "{input}");
        }
    }

    #[test]
    fn letters_join_from_two_or_with_words_among_them_from_three() {
        for (input, expected) in [
            ("the b b c news", "the bbc news"),
            ("5 g", "5g"),
            ("i b", "i b"),
            ("i b m", "ibm"),
            ("a cat", "a cat"),
            ("a i", "a i"),
            ("x", "x"),
            ("é é", "éé"),
            ("$ 5 %", "$ 5 %"),
            ("", ""),
        ] {
            assert_eq!(join_letters(input), expected, "{input}");
        }
    }
}
