//! The form of transcripts a model of several languages is trained to write: small letters with their accents, apostrophes, single spaces.

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

use super::characters::is_word;
use super::target::{APOSTROPHES, target, without_remarks};

/// What becomes of transcripts before they are learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextForm {
    /// `a`-`z`, numbers in English words: [`target`].
    #[default]
    English,
    /// Letters of any script as they are: [`letters`].
    Letters,
}

impl TextForm {
    /// The training form of `text`; `None` if nothing remains or it has no certain reading.
    pub fn target(self, text: &str) -> Option<String> {
        match self {
            Self::English => target(text),
            Self::Letters => letters(text),
        }
    }
}

/// The letters of `text`, small, composed (NFC), words one space apart; `None` if none remain or there is a digit, which every language reads
/// in its own words.
///
/// `[...]`, `<...>` and `{...}` hold remarks and go with their content; an apostrophe stays between letters, modifier letters and all other signs
/// are spaces.
pub fn letters(text: &str) -> Option<String> {
    let spoken: Vec<char> = without_remarks(text).to_lowercase().nfc().collect();
    if spoken.iter().any(|c| c.is_numeric()) {
        return None;
    }
    let letter = |c: char| is_word(c) && c != '_' && !modifier(c);
    let mut out = String::with_capacity(text.len());
    for (i, &c) in spoken.iter().enumerate() {
        let within = || i > 0 && letter(spoken[i - 1]) && spoken.get(i + 1).is_some_and(|&next| letter(next));
        if letter(c) {
            out.push(c);
        } else if APOSTROPHES.contains(&c) || c == '\'' {
            out.push(if within() { '\'' } else { ' ' });
        } else {
            out.push(' ');
        }
    }
    let words: Vec<&str> = out.split_whitespace().collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// Spacing modifier letters: length marks, raised letters and the like of phonetic notations.
fn modifier(c: char) -> bool {
    ('\u{2b0}'..='\u{2ff}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_keep_their_accents() {
        for (text, form) in [
            ("Où est l’hôtel ? [rires]", "où est l'hôtel"),
            ("Grüße, Straße; ŁÓDŹ!", "grüße straße łódź"),
            ("e\u{301}te\u{301}", "été"),
            ("«¿Qué?» — ¡No!", "qué no"),
            ("rock 'n' roll, 'quoted'", "rock n roll quoted"),
            ("hawaiʻi aː", "hawai i a"),
            ("snake_case", "snake case"),
        ] {
            assert_eq!(letters(text).as_deref(), Some(form), "{text}");
        }
    }

    #[test]
    fn what_has_no_certain_reading_is_refused() {
        for text in ["", "...", "[noise]", "marque 2", "½ litre", "x²"] {
            assert_eq!(letters(text), None, "{text}");
        }
    }

    #[test]
    fn english_is_the_form_of_english_models() {
        assert_eq!(TextForm::default().target("Café 21"), target("Café 21"));
        assert_eq!(TextForm::Letters.target("Café"), Some("café".into()));
    }
}
