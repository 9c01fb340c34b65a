//! Which of a model's modules hears a recording.

use crate::error::{Error, Result};
use crate::model::config::{LanguageConfig, LanguageField};
use crate::pipeline::feed::Listened;
use crate::pipeline::transcriber::Transcriber;

/// Where the module of a recording comes from.
#[derive(Debug, Clone, Copy)]
pub enum Modules<'a> {
    /// A slot for each recording by its number; `None`, and all others: the shared one.
    Given(&'a [Option<usize>]),
    /// The one that its first window sounds most like.
    Identified,
}

/// How recordings are heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Hearing {
    /// By the shared module, or by the one that is folded into the weights.
    #[default]
    One,
    /// By the module that is identified.
    Identified,
    /// By the module that whoever runs the transcriber gives for each.
    Given,
}

impl Hearing {
    /// The same for the pool.
    fn modules(self, given: &[Option<usize>]) -> Modules<'_> {
        match self {
            Self::One => Modules::Given(&[]),
            Self::Identified => Modules::Identified,
            Self::Given => Modules::Given(given),
        }
    }
}

/// What a manifest says of an utterance.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spoken<'a> {
    /// Its language.
    pub lang: Option<&'a str>,
    /// Its accent.
    pub accent: Option<&'a str>,
    /// Its corpus.
    pub set: Option<&'a str>,
}

impl Transcriber {
    /// The slot of the module for an utterance; `None` is the shared one.
    pub fn slot_of(&self, spoken: &Spoken<'_>) -> Option<usize> {
        let languages = self.languages()?;
        let name = match languages.field {
            LanguageField::Lang => spoken.lang,
            LanguageField::Accent => spoken.accent,
            LanguageField::Set => spoken.set,
        };
        languages.slot(name?)
    }

    /// The modules of the model, where it has some.
    pub fn languages(&self) -> Option<&LanguageConfig> {
        self.model.languages()
    }

    /// Hears everything by the module of `slot`, `None` the shared one. It becomes part of the weights: this costs nothing while recognising, and
    /// the model has no modules any more.
    pub fn with_module(mut self, slot: Option<usize>) -> Self {
        if self.languages().is_none() {
            return self;
        }
        (self.model, self.arithmetic) = self.model.folded(slot).packed(self.arithmetic.precision(), &self.device);
        self
    }

    /// Hears every recording by the module that its first stretch of speech sounds most like; that takes one more pass over it.
    ///
    /// # Errors
    /// [`Error::Config`] for a model without modules.
    pub fn with_identification(mut self) -> Result<Self> {
        if self.languages().is_none() {
            return Err(Error::config("--language", format!("auto: {} has no modules among which to identify one", self.name)));
        }
        self.hearing = Hearing::Identified;
        Ok(self)
    }

    /// Hears every recording by the module that is given for it, where modules are given.
    ///
    /// # Errors
    /// [`Error::Config`] for a model without modules.
    pub fn with_given_modules(mut self) -> Result<Self> {
        if self.languages().is_none() {
            return Err(Error::config("--language", format!("manifest: {} has no modules", self.name)));
        }
        self.hearing = Hearing::Given;
        Ok(self)
    }

    /// Where the modules of recordings come from; `given` has the slot of each.
    pub(crate) fn modules<'a>(&self, given: &'a [Option<usize>]) -> Modules<'a> {
        self.hearing.modules(given)
    }

    /// Says in transcripts that recordings are in this language (ISO 639-1).
    pub fn with_language_name(mut self, name: Option<String>) -> Self {
        self.language = name;
        self
    }

    /// Refuses to hear a stream by a module that is yet to be identified.
    pub(super) fn knows_module(&self) -> Result<()> {
        match self.hearing {
            Hearing::One | Hearing::Given => Ok(()),
            Hearing::Identified => {
                let reason = "auto: a stream is heard before its language is known: name it, or leave it out for the module that all share";
                Err(Error::config("--language", reason))
            }
        }
    }

    /// The language of a recording, where it is known.
    pub(super) fn language_of<'a>(&self, tracks: impl IntoIterator<Item = &'a Listened>) -> Option<String> {
        let languages = self.languages().filter(|l| l.field == LanguageField::Lang);
        let identified = tracks.into_iter().find_map(|listened| listened.module);
        identified.zip(languages).map(|(module, languages)| languages.modules[module].clone()).or_else(|| self.language.clone())
    }
}
