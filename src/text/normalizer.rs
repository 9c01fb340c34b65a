//! The forms in which transcripts are scored. A WER is only comparable with another under the same [`Normalizer::id`].
//!
//! [`Normalizer::Whisper`] gives, byte for byte, what `EnglishTextNormalizer` of openai-whisper 20250625 gives (the form of the Whisper
//! paper's numbers), quirks included: `£1.50` becomes ` one.50`, and a space may stay at either end. [`Normalizer::Leaderboard2026`] gives
//! what `EnglishTextNormalizer` of huggingface/open_asr_leaderboard gives since June 2026 (read at d1e99b2).

mod clean;
mod contractions;
mod leaderboard;
mod number_value;
mod number_words;
mod numbers;
mod spelling;

pub use clean::{Diacritics, Letters, basic};

/// How reference and hypothesis are brought to one form before words are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Normalizer {
    /// Whisper's English normaliser: contractions, titles, numbers, currency, American spelling, fillers and bracketed remarks removed.
    #[default]
    Whisper,
    /// The Open ASR Leaderboard's: Whisper's with more fillers, possessives told from `is`, and compounds, names and acronyms in one form.
    Leaderboard2026,
    /// Whisper's normaliser for other languages: lower case, symbols to spaces, bracketed remarks removed; diacritics stay.
    Basic,
    /// The text as it is.
    None,
}

impl Normalizer {
    /// Every normaliser.
    pub const ALL: [Self; 4] = [Self::Whisper, Self::Leaderboard2026, Self::Basic, Self::None];

    /// Name stored beside every score.
    pub fn id(self) -> &'static str {
        match self {
            Self::Whisper => "whisper",
            Self::Leaderboard2026 => "leaderboard-2026",
            Self::Basic => "basic",
            Self::None => "none",
        }
    }

    /// The normaliser with this [`id`](Self::id).
    pub fn from_id(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|n| n.id() == id)
    }

    /// `text` in the form to be scored; words are what remains between white space.
    pub fn normalize(self, text: &str) -> String {
        match self {
            Self::Whisper => english(text, English::Whisper),
            Self::Leaderboard2026 => english(text, English::Leaderboard2026),
            Self::Basic => basic(text, Diacritics::Keep, Letters::Joined),
            Self::None => text.to_string(),
        }
    }
}

/// Editions of the English normaliser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum English {
    Whisper,
    Leaderboard2026,
}

/// The steps of Whisper's English normaliser; their order matters.
fn english(text: &str, english: English) -> String {
    let text = clean::remove_remarks(text.to_lowercase());
    let text = contractions::expand(text, english);
    let text = clean::join_thousands(text);
    let text = clean::drop_full_stops(text);
    let mut text = clean::symbols_to_spaces(text);
    if english == English::Leaderboard2026 {
        text = leaderboard::join_compounds(text);
    }
    let text = numbers::standardize(text);
    let mut text = spelling::americanize(&text, english);
    if english == English::Leaderboard2026 {
        text = leaderboard::join_letters(&text);
    }
    let text = clean::drop_stray_symbols(text);
    clean::collapse_spaces(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        // Outputs of the Python package, run once.
        for (input, expected) in [
            ("Mr. Smith's dog won't eat; he'd rather I'd've gone.", "mister smith is dog will not eat he would rather i would have gone"),
            ("Um, it's $3.50 -- twenty-three percent, uh, two hundred and five dollars.", "it is $3.5023% $205"),
            ("nineteen eighty four", "1984"),
            ("one oh one", "101"),
            ("double oh seven", "007"),
            ("007", "7"),
            ("two point five million", "2500000"),
            ("twenty one hundred and five point two million", "2105200000"),
            ("one and a half", "one.5"),
            ("and a half", ""),
            ("£1.50", " one.50"),
            ("$2 and 7 cents", "$2.07"),
            ("colour, archaeology, travelling", "color archeology</span> traveling"),
            ("<unk> [laughter] it (( maybe )) done", "it done"),
            ("Straße café naïve", "strasse cafe naive"),
            ("İstanbul", "istanbul"),
            ("١٢", "12"),
            ("", ""),
        ] {
            assert_eq!(Normalizer::Whisper.normalize(input), expected, "{input}");
        }
    }

    #[test]
    fn ids_are_unique_and_found() {
        for n in Normalizer::ALL {
            assert_eq!(Normalizer::from_id(n.id()), Some(n));
        }
        assert_eq!(Normalizer::from_id("Whisper"), None);
    }

    #[test]
    fn none_changes_nothing() {
        assert_eq!(Normalizer::None.normalize(" A,  b "), " A,  b ");
    }
}
