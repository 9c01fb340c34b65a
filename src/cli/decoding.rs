//! Flags that choose the decoder, shared by the commands that recognise speech.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};

use crate::decode::beam::BeamConfig;
use crate::decode::fusion::{Language, LanguageModel, Scorers};
use crate::decode::grammar::Grammar;
use crate::decode::hotwords::Hotwords;
use crate::decode::lexicon::Lexicon;
use crate::decode::ngram::NgramModel;
use crate::error::{Error, Result};
use crate::pipeline::decoder::Decoding;

/// How the text is searched for.
#[derive(Debug, Args)]
pub struct DecodingArguments {
    /// Search: `auto` is what the model folder suggests, or `beam` where a flag below asks for it
    #[arg(long, value_enum, default_value = "auto", help_heading = "Decoding")]
    decoder: Choice,
    /// n-gram language model (ARPA, KenLM binary or ours), `none` for no model
    #[arg(long, value_name = "FILE", help_heading = "Decoding")]
    lm: Option<PathBuf>,
    /// Weight of the language model
    #[arg(long, help_heading = "Decoding")]
    alpha: Option<f32>,
    /// Added to the score for each word
    #[arg(long, allow_negative_numbers = true, help_heading = "Decoding")]
    beta: Option<f32>,
    /// Hypotheses kept from step to step
    #[arg(long, alias = "beam_width", visible_alias = "beam-size", alias = "beam_size", help_heading = "Decoding")]
    beam_width: Option<usize>,
    /// Phrases to expect, `phrase` or `phrase:boost`, separated by commas
    #[arg(long, value_name = "LIST", help_heading = "Decoding")]
    hotwords: Option<String>,
    /// The same in a file, a phrase on each line
    #[arg(long, alias = "hotwords_file", value_name = "FILE", conflicts_with = "hotwords", help_heading = "Decoding")]
    hotwords_file: Option<PathBuf>,
    /// Answer only with words of this list (a word on each line)
    #[arg(long, value_name = "FILE", help_heading = "Decoding")]
    lexicon: Option<PathBuf>,
    /// Answer only with sentences of this grammar (JSGF)
    #[arg(long, value_name = "FILE", conflicts_with = "lexicon", help_heading = "Decoding")]
    grammar: Option<PathBuf>,
}

/// Searches by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Choice {
    /// What the model folder suggests
    Auto,
    /// The best token of every step
    Greedy,
    /// Prefix beam search
    Beam,
}

impl DecodingArguments {
    /// The decoder for the model at `folder`.
    ///
    /// # Errors
    /// [`Error::Config`] where a flag cannot have an effect, and whatever reading the named files gives.
    pub fn decoding(&self, folder: &Path) -> Result<Decoding> {
        let given = [
            ("--lm", self.lm.is_some()),
            ("--alpha", self.alpha.is_some()),
            ("--beta", self.beta.is_some()),
            ("--beam-width", self.beam_width.is_some()),
            ("--hotwords", self.hotwords.is_some()),
            ("--hotwords-file", self.hotwords_file.is_some()),
            ("--lexicon", self.lexicon.is_some()),
            ("--grammar", self.grammar.is_some()),
        ];
        let flags: Vec<&str> = given.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
        if self.decoder == Choice::Greedy {
            if let Some(flag) = flags.first() {
                let reason =
                    format!("{flag} needs the beam search: greedy decoding takes the best token of every step and listens to nothing else");
                return Err(Error::config("--decoder greedy", reason));
            }
            return Ok(Decoding::Greedy);
        }
        let suggested = Decoding::of_model(folder)?;
        let (mut config, mut scorers) = match suggested {
            Decoding::Beam { config, scorers } => (config, scorers),
            Decoding::Greedy if self.decoder == Choice::Auto && flags.is_empty() => return Ok(Decoding::Greedy),
            Decoding::Greedy => (BeamConfig::default(), Scorers::default()),
        };
        self.language_model(&mut scorers)?;
        config.beam_width = self.beam_width.unwrap_or(config.beam_width);
        if let Some(list) = &self.hotwords {
            scorers.hotwords = Hotwords::from_list(list)?;
        }
        if let Some(path) = &self.hotwords_file {
            scorers.hotwords = Hotwords::open(path)?;
        }
        if let Some(path) = &self.lexicon {
            scorers.language = Language::Lexicon(Arc::new(Lexicon::open(path)?));
        }
        if let Some(path) = &self.grammar {
            scorers.language = Language::Grammar(Arc::new(Grammar::open(path)?));
        }
        config.validate()?;
        Ok(Decoding::Beam { config, scorers })
    }

    fn language_model(&self, scorers: &mut Scorers) -> Result<()> {
        match &self.lm {
            Some(none) if none.as_os_str() == "none" => scorers.language_model = None,
            Some(path) => {
                let new = LanguageModel::new(Arc::new(NgramModel::open(path)?));
                // Weights that were tuned for another model are no guess for this one.
                scorers.language_model = Some(new);
            }
            None => {}
        }
        match &mut scorers.language_model {
            Some(weights) => {
                weights.alpha = self.alpha.unwrap_or(weights.alpha);
                weights.beta = self.beta.unwrap_or(weights.beta);
                Ok(())
            }
            None if self.alpha.is_some() || self.beta.is_some() => {
                Err(Error::config("--alpha, --beta", "weigh a language model: name one with --lm"))
            }
            None => Ok(()),
        }
    }
}
