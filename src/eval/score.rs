//! From two texts to counts: normaliser, mapping file, aligner, in this order, all named in [`Scoring::id`].

use serde::{Deserialize, Serialize};

use super::aligner::Aligner;
use super::glm::{Glm, Side};
use super::wer::{WordErrors, character_errors, count, word_errors};
use crate::error::{Error, Result};
use crate::text::Normalizer;

/// What becomes of utterances without words in the normalised reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmptyReferences {
    /// They count; every word heard is an insertion, as jiwer has it.
    #[default]
    Count,
    /// They are left out, and so is `ignore time segment in scoring`, as on the Open ASR Leaderboard.
    Drop,
}

/// How texts are scored.
#[derive(Debug, Clone)]
pub struct Scoring {
    normalizer: Normalizer,
    aligner: Aligner,
    glm: Option<Glm>,
    /// What becomes of utterances without words in the normalised reference.
    pub empty_references: EmptyReferences,
}

/// Names of what decides a score; scores are comparable where it is equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoringId {
    /// [`Normalizer::id`].
    pub normalizer: String,
    /// [`Glm::id`].
    pub glm: Option<String>,
    /// [`Aligner::id`].
    pub aligner: String,
    /// What becomes of empty references.
    pub empty_references: EmptyReferences,
}

/// One utterance with its counts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scored {
    /// Set it counts in.
    pub set: String,
    /// Name, unique in its set.
    pub id: String,
    /// Who speaks, where known; unique in its set.
    pub speaker: Option<String>,
    /// The recording it is cut from, where known; unique in its set.
    pub recording: Option<String>,
    /// Reference as aligned.
    pub reference: String,
    /// Hypothesis as aligned.
    pub hypothesis: String,
    /// Word errors.
    pub words: WordErrors,
    /// Character errors.
    pub characters: WordErrors,
}

/// Two texts as aligned, and their counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextScore {
    /// Reference as aligned.
    pub reference: String,
    /// Hypothesis as aligned.
    pub hypothesis: String,
    /// Word errors.
    pub words: WordErrors,
    /// Character errors; with sclite's markup, of the words taken.
    pub characters: WordErrors,
}

impl Scoring {
    /// # Errors
    /// [`Error::Config`]: a mapping file with an aligner other than [`Aligner::ScliteMarkup`], which alone reads what such files write
    pub fn new(normalizer: Normalizer, aligner: Aligner, glm: Option<Glm>) -> Result<Self> {
        if let Some(glm) = glm.as_ref().filter(|_| aligner != Aligner::ScliteMarkup) {
            let (glm, wanted, got) = (glm.id(), Aligner::ScliteMarkup.id(), aligner.id());
            return Err(Error::config("scoring", format!("aligner is {got}: mapping file {glm} wants {wanted}")));
        }
        Ok(Self { normalizer, aligner, glm, empty_references: EmptyReferences::Count })
    }

    /// The Open ASR Leaderboard's way since June 2026.
    pub fn leaderboard_2026() -> Self {
        let (normalizer, aligner) = (Normalizer::Leaderboard2026, Aligner::MergeCompounds);
        Self { normalizer, aligner, glm: None, empty_references: EmptyReferences::Drop }
    }

    /// Names of what decides a score.
    pub fn id(&self) -> ScoringId {
        ScoringId {
            normalizer: self.normalizer.id().into(),
            glm: self.glm.as_ref().map(Glm::id),
            aligner: self.aligner.id().into(),
            empty_references: self.empty_references,
        }
    }

    /// The aligner, for a look at how two texts of a [`Scored`] lie side by side.
    pub fn aligner(&self) -> Aligner {
        self.aligner
    }

    /// `text` as it will be aligned.
    pub fn normalize(&self, text: &str, side: Side) -> String {
        let text = self.normalizer.normalize(text);
        match &self.glm {
            Some(glm) => glm.apply(&text, side),
            None => text,
        }
    }

    /// Whether an utterance with this reference, as [`Scoring::normalize`] gives it, counts.
    pub fn counts(&self, reference: &str) -> bool {
        let reference = reference.trim();
        let ignored =
            || ["ignore time segment in scoring", "ignore_time_segment_in_scoring"].iter().any(|r| r.eq_ignore_ascii_case(reference));
        self.empty_references == EmptyReferences::Count || !(reference.is_empty() || ignored())
    }

    /// Scores a hypothesis against its reference.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`]: see [`Aligner::align`]
    pub fn score(&self, reference: &str, hypothesis: &str) -> Result<TextScore> {
        self.score_normalized(self.normalize(reference, Side::Reference), self.normalize(hypothesis, Side::Hypothesis))
    }

    /// Scores two texts that [`Scoring::normalize`] gave.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`]: see [`Aligner::align`]
    pub fn score_normalized(&self, reference: String, hypothesis: String) -> Result<TextScore> {
        let (words, characters) = match self.aligner {
            Aligner::Levenshtein => (word_errors(&reference, &hypothesis), character_errors(&reference, &hypothesis)),
            Aligner::ScliteMarkup => {
                let alignment = self.aligner.align(&reference, &hypothesis)?;
                let [said, heard] = [&alignment.reference, &alignment.hypothesis].map(|words| without_markup(words));
                (alignment.errors(), count(&said, &heard))
            }
            _ => (self.aligner.align(&reference, &hypothesis)?.errors(), character_errors(&reference, &hypothesis)),
        };
        Ok(TextScore { words, characters, reference, hypothesis })
    }
}

/// Characters of words with a space between them, without sclite's parentheses.
fn without_markup(words: &[&str]) -> Vec<char> {
    let mut all = Vec::with_capacity(words.iter().map(|word| word.len() + 1).sum());
    for word in words {
        if !all.is_empty() {
            all.push(' ');
        }
        all.extend(word.strip_prefix('(').and_then(|w| w.strip_suffix(')')).unwrap_or(word).chars());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_normalizer_mapping_aligner() {
        let glm = Glm::parse("x.glm".as_ref(), b";; x\n* case_sensitive = 'F'\nUH => (%HESITATION) / [ ] __ [ ]\n").unwrap();
        let scoring = Scoring::new(Normalizer::None, Aligner::ScliteMarkup, Some(glm.clone())).unwrap();
        let score = scoring.score("uh the Cat", "the cat's").unwrap();
        assert_eq!((score.reference.as_str(), score.hypothesis.as_str()), ("(%HESITATION) THE CAT", "THE CAT'S"));
        assert_eq!((score.words.errors(), score.words.reference_words), (1, 3));
        assert_eq!(score.characters.errors(), "%HESITATION ".len() + 2);
        assert!(scoring.id().glm.unwrap().starts_with("x#"));
        let error = Scoring::new(Normalizer::None, Aligner::Sclite, Some(glm)).unwrap_err();
        assert!(error.to_string().contains("sclite-markup"), "{error}");
    }

    #[test]
    fn characters_are_those_of_the_text_where_there_is_no_markup() {
        let scoring = Scoring::new(Normalizer::None, Aligner::Levenshtein, None).unwrap();
        assert_eq!(scoring.score("(a) b", "a b").unwrap().characters.errors(), 2);
    }

    #[test]
    fn the_leaderboard_leaves_out_what_it_says() {
        let scoring = Scoring::leaderboard_2026();
        let counts = |text| scoring.counts(&scoring.normalize(text, Side::Reference));
        assert_eq!(["um, [noise]", "ignore_time_segment_in_scoring", "yes"].map(counts), [false, false, true]);
        let scoring = Scoring::new(Normalizer::Whisper, Aligner::Levenshtein, None).unwrap();
        assert!(scoring.counts(""));
        assert_eq!(Scoring::leaderboard_2026().score("an ice-cream", "an icecream").unwrap().words.errors(), 0);
    }

    #[test]
    fn ids_are_stored_as_they_read() {
        let id = Scoring::leaderboard_2026().id();
        let json = serde_json::to_value(&id).unwrap();
        let expected = serde_json::json!(
            {"normalizer": "leaderboard-2026", "glm": null, "aligner": "merge-compounds", "empty_references": "drop"}
        );
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<ScoringId>(json).unwrap(), id);
    }
}
