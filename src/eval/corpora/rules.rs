//! The choices where published preparations of a set disagree, each with a name and its values.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// One value for each rule. In files and on the command line both are written in kebab case: `ami-commas = "fixed"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Rules {
    /// Which split is read.
    pub split: Split,
    /// How AMI's segments are cut and their text cleaned.
    pub ami_segments: AmiSegments,
    /// What becomes of words joined by a comma in AMI, under Kaldi's segments.
    pub ami_commas: AmiCommas,
    /// Whether suffixes stand apart in TED-LIUM.
    pub ted_suffixes: TedSuffixes,
    /// What is heard of the two channels of a worn microphone in CHiME-6.
    pub chime6_channels: Chime6Channels,
    /// Which sessions are CHiME-6's evaluation.
    pub chime6_sessions: Chime6Sessions,
    /// Silence around Hub5 segments.
    pub hub5_padding: Hub5Padding,
    /// Notation of references that come as STM (Hub5, sclite).
    pub stm_text: StmText,
    /// Which transcription of FLEURS.
    pub fleurs_text: FleursText,
    /// Which transcription of VoxPopuli.
    pub voxpopuli_text: VoxPopuliText,
    /// Which half of WSJ nov92.
    pub wsj_vocabulary: WsjVocabulary,
}

/// An enum of choices, written in kebab case.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }
    };
}

choice! {
    /// `split`.
    Split {
        /// The evaluation set.
        #[default]
        Test,
        /// The development set.
        Dev,
    }
}

choice! {
    /// `ami-segments`.
    AmiSegments {
        /// Kaldi's s5b: cut at `.` and `?`, then at the comma nearest the middle while a piece has over 30 words.
        #[default]
        Kaldi,
        /// Lhotse's recipe (30 words, its `kaldi` text): cut at `.`, pieces between commas merged up to 30 words.
        Lhotse,
    }
}

choice! {
    /// `ami-commas`.
    AmiCommas {
        /// As Kaldi's script does: `UM,I` becomes nothing, both words are lost.
        #[default]
        Kaldi,
        /// `UM,I` becomes `UM I`.
        Fixed,
    }
}

choice! {
    /// `ted-suffixes`.
    TedSuffixes {
        /// As Kaldi's `join_suffix.py` does: a token that starts with an apostrophe joins the one before.
        #[default]
        Kaldi,
        /// As Lhotse does: only between letters or digits, and a lone apostrophe joins the word after.
        Lhotse,
        /// As in the file: `it 's`.
        Apart,
    }
}

choice! {
    /// `chime6-channels`.
    Chime6Channels {
        /// Their mean, one utterance.
        #[default]
        Mix,
        /// Two utterances, as in Kaldi.
        LeftAndRight,
        /// The left one.
        Left,
        /// The right one.
        Right,
    }
}

choice! {
    /// `chime6-sessions`.
    Chime6Sessions {
        /// S01 and S21.
        #[default]
        Chime6,
        /// S01, S19, S20 and S21: the split of CHiME-7.
        Chime7,
    }
}

choice! {
    /// `hub5-padding`.
    Hub5Padding {
        /// The times of the STM file.
        #[default]
        None,
        /// 0.1 s at both ends, less where the next segment is nearer, as Kaldi's swbd/s5c.
        Tenth,
    }
}

choice! {
    /// `stm-text`.
    StmText {
        /// With alternations, optional words and tags, as sclite and its GLM files want it.
        #[default]
        AsWritten,
        /// Plain words: the first alternative, no tags, hesitations or fragments.
        Words,
    }
}

choice! {
    /// `fleurs-text`.
    FleursText {
        /// Lower case, no punctuation.
        #[default]
        Transcription,
        /// Cased, with punctuation.
        Raw,
    }
}

choice! {
    /// `voxpopuli-text`.
    VoxPopuliText {
        /// Lower case, no punctuation, numbers spelled out.
        #[default]
        Normalized,
        /// Cased, with punctuation.
        Raw,
    }
}

choice! {
    /// `wsj-vocabulary`.
    WsjVocabulary {
        /// si_et_20: 333 utterances, open vocabulary.
        #[default]
        #[serde(rename = "20k")]
        TwentyThousand,
        /// si_et_05: 330 utterances, 5,000 words.
        #[serde(rename = "5k")]
        FiveThousand,
    }
}

impl Rules {
    /// All rules by name, with the choice taken.
    pub fn all(&self) -> BTreeMap<String, String> {
        // A struct of unit enums always is an object of strings.
        serde_json::to_value(self).and_then(serde_json::from_value).unwrap_or_default()
    }

    /// The rules of these names, with the choice taken.
    pub fn choices(&self, names: &[&str]) -> BTreeMap<String, String> {
        let mut all = self.all();
        all.retain(|name, _| names.contains(&name.as_str()));
        all
    }

    /// The same with one rule changed.
    ///
    /// # Errors
    /// [`Error::Config`] for a name or value that does not exist; lists those that do.
    pub fn with(&self, name: &str, value: &str) -> Result<Self> {
        let mut all = self.all();
        all.insert(name.into(), value.into());
        let changed = serde_json::to_value(all).and_then(serde_json::from_value);
        changed.map_err(|e| Error::config("corpus rules", format!("{name} = {value}: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_named_in_results_and_on_the_command_line() {
        let rules = Rules::default().with("ami-commas", "fixed").and_then(|r| r.with("wsj-vocabulary", "5k")).unwrap();
        assert_eq!((rules.ami_commas, rules.wsj_vocabulary), (AmiCommas::Fixed, WsjVocabulary::FiveThousand));
        assert_eq!(rules.choices(&["ami-commas"]), BTreeMap::from([("ami-commas".into(), "fixed".into())]));
        assert_eq!(rules.all()["chime6-channels"], "mix");
        assert_eq!(serde_json::from_str::<Rules>("{\"split\": \"dev\"}").unwrap().split, Split::Dev);
        let said = Rules::default().with("ami-commas", "no").unwrap_err().to_string();
        assert!(said.contains("ami-commas = no") && said.contains("`kaldi` or `fixed`"), "{said}");
        let said = Rules::default().with("amy", "no").unwrap_err().to_string();
        assert!(said.contains("unknown field `amy`") && said.contains("`ami-commas`"), "{said}");
    }
}
