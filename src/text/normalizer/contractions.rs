//! Fillers removed, contractions and titles written out.

use super::English;
use crate::text::characters::{is_space, is_word};

/// Contractions that are whole words on both sides; applied before [`ENDINGS`].
const WHOLE: [(&str, &str); 7] = [
    ("won't", "will not"),
    ("can't", "can not"),
    ("let's", "let us"),
    ("ain't", "aint"),
    ("y'all", "you all"),
    ("i'ma", "i am going to"),
    ("ma'am", "madam"),
];

/// Endings after any text, bounded on the right; each is applied to the whole text before the next.
const ENDINGS: [(&str, &str); 14] = [
    ("'d been", " had been"),
    ("'s been", " has been"),
    ("'d gone", " had gone"),
    ("'s gone", " has gone"),
    ("'d done", " had done"),
    ("'s got", " has got"),
    ("n't", " not"),
    ("'re", " are"),
    ("'s", " is"),
    ("'d", " would"),
    ("'ll", " will"),
    ("'t", " not"),
    ("'ve", " have"),
    ("'m", " am"),
];

/// Words after which the leaderboard reads `'s` as `is`; after any other it takes the `s` for a possessive.
const BEFORE_IS: [&str; 13] = ["it", "he", "she", "what", "that", "who", "here", "there", "how", "when", "where", "why", "this"];

/// Lower-case text without fillers, with contractions and titles written out.
pub(super) fn expand(text: String, english: English) -> String {
    let text = replace_words(text, |word| filler(word, english));
    let text = attach_apostrophes(text);
    let mut text = replace_words(text, written_out);
    if text.contains('\'') {
        for (pattern, full) in WHOLE {
            replace(&mut text, pattern, full, |before| !before.chars().next_back().is_some_and(is_word));
        }
        for (pattern, full) in ENDINGS {
            let pronouns_only = english == English::Leaderboard2026 && pattern == "'s";
            replace(&mut text, pattern, full, |before| !pronouns_only || BEFORE_IS.contains(&last_word(before)));
        }
    }
    text
}

fn filler(word: &str, english: English) -> Option<&'static str> {
    let filler = match word {
        "hmm" | "mm" | "mhm" | "mmm" | "uh" | "um" => true,
        "ah" | "aha" | "ahh" | "ahm" | "eh" | "ehehe" | "em" | "hm" | "huh" | "hum" | "mhum" | "uhm" | "umm" | "uhuh" => {
            english == English::Leaderboard2026
        }
        _ => false,
    };
    filler.then_some("")
}

/// Informal words and titles. A title brings a space of its own, which the last step of the normaliser merges.
fn written_out(word: &str) -> Option<&'static str> {
    Some(match word {
        "wanna" => "want to",
        "gotta" => "got to",
        "gonna" => "going to",
        "imma" => "i am going to",
        "woulda" => "would have",
        "coulda" => "could have",
        "shoulda" => "should have",
        "mr" => "mister ",
        "mrs" => "missus ",
        "st" => "saint ",
        "dr" => "doctor ",
        "prof" => "professor ",
        "capt" => "captain ",
        "gov" => "governor ",
        "ald" => "alderman ",
        "gen" => "general ",
        "sen" => "senator ",
        "rep" => "representative ",
        "pres" => "president ",
        "rev" => "reverend ",
        "hon" => "honorable ",
        "asst" => "assistant ",
        "assoc" => "associate ",
        "lt" => "lieutenant ",
        "col" => "colonel ",
        "jr" => "junior ",
        "sr" => "senior ",
        "esq" => "esquire ",
        _ => return None,
    })
}

/// Removes white space before an apostrophe.
fn attach_apostrophes(text: String) -> String {
    let Some(last) = text.rfind('\'') else { return text };
    let mut out = String::with_capacity(text.len());
    for piece in text[..last].split('\'') {
        out.push_str(piece.trim_end_matches(is_space));
        out.push('\'');
    }
    out + &text[last + 1..]
}

/// Exchanges every maximal run of word characters that `full` knows.
fn replace_words(text: String, full: impl Fn(&str) -> Option<&'static str>) -> String {
    let mut out = String::new();
    let mut copied = 0;
    let mut start = 0;
    while start < text.len() {
        let length = word_length(&text[start..]);
        let end = start + length;
        if let Some(full) = full(&text[start..end]) {
            out.push_str(&text[copied..start]);
            out.push_str(full);
            copied = end;
        }
        start = end + text[end..].chars().next().map_or(1, char::len_utf8);
    }
    if copied == 0 { text } else { out + &text[copied..] }
}

/// The word characters `text` ends with.
fn last_word(text: &str) -> &str {
    &text[text.trim_end_matches(is_word).len()..]
}

/// Bytes of the word characters `text` starts with.
pub(super) fn word_length(text: &str) -> usize {
    let ascii = text.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
    match text.as_bytes().get(ascii) {
        Some(b) if !b.is_ascii() => text.find(|c| !is_word(c)).unwrap_or(text.len()),
        _ => ascii,
    }
}

/// Replaces `pattern` where no word character follows and the text before it satisfies `before`.
fn replace(text: &mut String, pattern: &str, full: &str, before: impl Fn(&str) -> bool) {
    let mut out = String::new();
    let mut copied = 0;
    for (start, _) in text.match_indices(pattern) {
        let end = start + pattern.len();
        if before(&text[..start]) && !text[end..].chars().next().is_some_and(is_word) {
            out.push_str(&text[copied..start]);
            out.push_str(full);
            copied = end;
        }
    }
    if copied > 0 {
        out.push_str(&text[copied..]);
        *text = out;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contractions_need_their_boundaries() {
        for (input, expected) in [
            ("um, he 's gotta go", ", he has got to go"),
            ("i can't; cant's", "i can not; cant is"),
            ("it's'm", "it is am"),
            ("scan't", "sca not"),
            ("mr x, mrx", "mister  x, mrx"),
            ("she'd've gone", "she would have gone"),
            ("umé um\u{301}", "umé \u{301}"),
            ("'til", "'til"),
        ] {
            assert_eq!(expand(input.into(), English::Whisper), expected, "{input}");
        }
    }

    #[test]
    fn the_leaderboard_reads_is_after_pronouns_only() {
        for (input, expected) in [
            ("he's here; smith's dog", "he is here; smith's dog"),
            ("she's xshe's it's's", "she is xshe's it is's"),
            ("let's who's been", "let us who has been"),
            ("huh, uhm aha", ",  "),
        ] {
            assert_eq!(expand(input.into(), English::Leaderboard2026), expected, "{input}");
        }
    }
}
