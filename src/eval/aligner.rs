//! The ways to count errors, by name. Totals and their split into kinds are only comparable under the same [`Aligner::id`].

use serde::{Deserialize, Serialize};

use super::alignment::{self, Chunk};
use super::compounds;
use super::network::{self, Markup};
use super::wer::{WordErrors, words};
use crate::error::Result;

/// How a hypothesis is laid beside its reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aligner {
    /// Fewest errors, jiwer's choice among equals.
    #[default]
    Levenshtein,
    /// sclite's costs and its choice among equals: a substitution 4, an insertion or deletion 3.
    Sclite,
    /// The same with sclite's markup read on both sides, as its `-D -F` does: alternatives `{a / b}`, optional words `(uh)`, nothing `@`,
    /// fragments `th-`. For text that went through a [`Glm`](super::glm::Glm) or comes from an stm file.
    ScliteMarkup,
    /// Fewest errors where words in a row that spell one word of the other side are right, as kaldialign's `merge_compounds`.
    MergeCompounds,
}

/// Two texts side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alignment<'a> {
    /// Words of the reference; of alternatives, those taken.
    pub reference: Vec<&'a str>,
    /// Words of the hypothesis; of alternatives, those taken.
    pub hypothesis: Vec<&'a str>,
    /// What happens from the one to the other, in order, covering both.
    pub chunks: Vec<Chunk>,
}

impl Alignment<'_> {
    /// The counts it shows.
    pub fn errors(&self) -> WordErrors {
        WordErrors::of(&self.chunks)
    }
}

impl Aligner {
    /// Every aligner.
    pub const ALL: [Self; 4] = [Self::Levenshtein, Self::Sclite, Self::ScliteMarkup, Self::MergeCompounds];

    /// Name stored beside every score.
    pub fn id(self) -> &'static str {
        match self {
            Self::Levenshtein => "levenshtein",
            Self::Sclite => "sclite",
            Self::ScliteMarkup => "sclite-markup",
            Self::MergeCompounds => "merge-compounds",
        }
    }

    /// The aligner with this [`id`](Self::id).
    pub fn from_id(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.id() == id)
    }

    /// Lays two normalised texts side by side; words are what white space separates. Words are compared as they are, case included.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`](crate::Error::LimitExceeded): texts of some 16,000 words each, but for [`Aligner::Levenshtein`], which has no limit
    pub fn align<'a>(self, reference: &'a str, hypothesis: &'a str) -> Result<Alignment<'a>> {
        let markup = if self == Self::ScliteMarkup { Markup::Sclite } else { Markup::None };
        if matches!(self, Self::Sclite | Self::ScliteMarkup) {
            let network::Path { reference, hypothesis, chunks } = network::align(reference, hypothesis, markup)?;
            return Ok(Alignment { reference, hypothesis, chunks });
        }
        let (reference, hypothesis) = (words(reference), words(hypothesis));
        let chunks = match self {
            Self::MergeCompounds => compounds::align(&reference, &hypothesis)?,
            _ => alignment::align(&reference, &hypothesis),
        };
        Ok(Alignment { reference, hypothesis, chunks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_are_unique_and_found() {
        for aligner in Aligner::ALL {
            assert_eq!(Aligner::from_id(aligner.id()), Some(aligner));
            assert_eq!(serde_json::to_value(aligner).unwrap(), aligner.id());
        }
        assert_eq!(Aligner::from_id("Sclite"), None);
    }

    #[test]
    fn aligners_differ_where_they_should() {
        let errors = |aligner: Aligner, reference, hypothesis| {
            let e = aligner.align(reference, hypothesis).unwrap().errors();
            [e.substitutions, e.deletions, e.insertions]
        };
        // Two substitutions cost 8, a deletion and an insertion 6.
        assert_eq!(errors(Aligner::Sclite, "a b", "c a"), [0, 1, 1]);
        assert_eq!(errors(Aligner::Sclite, "ice cream", "icecream"), [1, 1, 0]);
        assert_eq!(errors(Aligner::MergeCompounds, "ice cream (uh)", "icecream"), [0, 1, 0]);
        assert_eq!(errors(Aligner::ScliteMarkup, "ice cream (uh)", "ice cream"), [0, 0, 0]);
    }

    proptest! {
        #[test]
        fn errors_are_the_edit_distance_or_as_cheap(a in "([abc] ){0,30}", b in "([abc] ){0,30}") {
            let lengths = (words(&a).len(), words(&b).len());
            let least = Aligner::Levenshtein.align(&a, &b).unwrap().errors().errors();
            for aligner in Aligner::ALL {
                let alignment = aligner.align(&a, &b).unwrap();
                let e = alignment.errors();
                prop_assert_eq!((alignment.reference.len(), alignment.hypothesis.len()), lengths);
                prop_assert_eq!(e.reference_words, lengths.0);
                prop_assert_eq!(e.hits() + e.substitutions + e.insertions, lengths.1);
                // No word here spells two others; sclite's costs allow 4/3 of the least number of errors.
                prop_assert!(e.errors() >= least && 3 * e.errors() <= 4 * least, "{:?} {:?} {}", aligner, e, least);
            }
        }
    }
}
