//! `--language`, shared by the commands that recognise speech.

use clap::Args;

use crate::error::Result;
use crate::model::config::{LanguageField, SHARED};
use crate::pipeline::transcriber::Transcriber;

/// Which of a model's modules hears the recordings.
#[derive(Debug, Clone, Args)]
pub struct LanguageArgument {
    /// Language of the recordings (accent, domain), for a model with modules for them; `auto` identifies it, in `bench` `manifest` takes what each
    /// line says. Without, or where the model has none for it, the module that all share hears them
    #[arg(long, value_name = "NAME|auto")]
    language: Option<String>,
}

impl LanguageArgument {
    /// What was asked for.
    pub fn name(&self) -> Option<&str> {
        self.language.as_deref()
    }

    /// `transcriber` as it was asked for; a name that it has no module for gives a warning.
    ///
    /// # Errors
    /// As [`Transcriber::with_identification`].
    pub fn apply(&self, transcriber: Transcriber) -> Result<Transcriber> {
        match self.name() {
            None | Some(SHARED) => Ok(transcriber.with_module(None)),
            Some("auto") => transcriber.with_identification(),
            Some(name) => {
                let (slot, warning) = choose(&transcriber, name);
                if let Some(warning) = warning {
                    eprintln!("warning: {warning}");
                }
                // The name of an accent or a domain is none of a language.
                let is_language = transcriber.languages().is_none_or(|l| l.field == LanguageField::Lang);
                Ok(transcriber.with_module(slot).with_language_name(is_language.then(|| name.to_string())))
            }
        }
    }
}

/// The slot of module `name`, or the shared one and what to say about that.
fn choose(transcriber: &Transcriber, name: &str) -> (Option<usize>, Option<String>) {
    let Some(languages) = transcriber.languages() else {
        return (None, Some(format!("--language {name}: {} has no modules for languages, it hears all speech alike", transcriber.name())));
    };
    let slot = languages.slot(name);
    let others = || format!("--language {name}: the module that all share is used, there are modules for {}", languages.modules.join(", "));
    (slot, slot.is_none().then(others))
}
