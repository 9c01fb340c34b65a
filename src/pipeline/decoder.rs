//! Which decoder a transcriber uses, and how a model folder says which one suits it.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::checkpoint::safetensors_file::write_atomically;
use crate::decode::Hypothesis;
use crate::decode::alphabet::Alphabet;
use crate::decode::beam::{BeamConfig, BeamSearch};
use crate::decode::ctc::Greedy;
use crate::decode::fusion::{Language, LanguageModel, Scorers};
use crate::decode::lexicon::Lexicon;
use crate::decode::ngram::NgramModel;
use crate::error::{Error, Result};
use crate::pipeline::region::Stretch;
use crate::text::Tokenizer;

/// Version of the file's layout.
const FORMAT_VERSION: u32 = 1;

/// How a model is best decoded: found by `omniscribe lm tune` and kept beside its weights. Reading fills in no defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecodingConfig {
    /// 1.
    pub format_version: u32,
    /// The language model's file, beside this one.
    pub language_model: String,
    /// Factor of the language model's log-probabilities.
    pub alpha: f32,
    /// Added for each word, nats.
    pub beta: f32,
    /// Added for each word the language model does not know, nats.
    pub oov_penalty: f32,
    /// Most hypotheses kept from step to step.
    pub beam_width: usize,
}

impl DecodingConfig {
    /// Name of the file in a model folder.
    pub const FILE: &str = "decoding.json";

    /// A file with these weights.
    pub fn new(language_model: &str, weights: &LanguageModel, beam: &BeamConfig) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            language_model: language_model.into(),
            alpha: weights.alpha,
            beta: weights.beta,
            oov_penalty: weights.oov_penalty,
            beam_width: beam.beam_width,
        }
    }

    /// What the model folder says, if it says anything.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Config`], [`Error::FormatVersion`]
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(Self::FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            // A model may be a file (`.nemo`): there is no folder to look into.
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => return Ok(None),
            Err(error) => return Err(Error::io(&path, error)),
        };
        let config: Self = serde_json::from_str(&text).map_err(|e| Error::config(&path, e.to_string()))?;
        if config.format_version != FORMAT_VERSION {
            return Err(Error::FormatVersion { path, found: config.format_version, supported: FORMAT_VERSION });
        }
        Ok(Some(config))
    }

    /// Writes it into a model folder, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(Self::FILE);
        let mut json = serde_json::to_string_pretty(self).map_err(|e| Error::config(&path, e.to_string()))?;
        json.push('\n');
        write_atomically(&path, json.as_bytes())
    }

    /// Opens the language model and puts the decoder together.
    ///
    /// # Errors
    /// As [`NgramModel::open`].
    pub fn open(&self, folder: &Path) -> Result<Decoding> {
        let model = Arc::new(NgramModel::open(&folder.join(&self.language_model))?);
        let weights = LanguageModel { alpha: self.alpha, beta: self.beta, oov_penalty: self.oov_penalty, ..LanguageModel::new(model) };
        let config = BeamConfig { beam_width: self.beam_width, ..BeamConfig::default() };
        Ok(Decoding::Beam { config, scorers: Scorers { language_model: Some(weights), ..Scorers::default() } })
    }
}

/// The search for the text.
#[derive(Debug, Clone, Default)]
pub enum Decoding {
    /// The best token of every step.
    #[default]
    Greedy,
    /// Prefix beam search.
    Beam {
        /// Width and thresholds.
        config: BeamConfig,
        /// What is known beside the acoustics.
        scorers: Scorers,
    },
}

impl Decoding {
    /// What the model folder suggests: beam search with its language model if it has one, else greedy.
    ///
    /// # Errors
    /// As [`DecodingConfig::read`] and [`DecodingConfig::open`].
    pub fn of_model(folder: &Path) -> Result<Self> {
        DecodingConfig::read(folder)?.map_or(Ok(Self::Greedy), |config| config.open(folder))
    }

    /// The lexicon that answers are written by, if there is one.
    pub fn lexicon(&self) -> Option<Arc<Lexicon>> {
        match self {
            Self::Beam { scorers: Scorers { language: Language::Lexicon(lexicon), .. }, .. } => Some(lexicon.clone()),
            _ => None,
        }
    }

    /// In a few words, for records of results.
    pub fn describe(&self) -> String {
        let Self::Beam { config, scorers } = self else { return "greedy".into() };
        let mut text = format!("beam {}", config.beam_width);
        if let Some(lm) = &scorers.language_model {
            text += &format!(", {}-gram LM alpha {} beta {} oov {}", lm.model.order(), lm.alpha, lm.beta, lm.oov_penalty);
        }
        match &scorers.language {
            Language::Free => {}
            Language::Lexicon(lexicon) => text += &format!(", lexicon of {} entries", lexicon.entries().len()),
            Language::Grammar(_) => text += ", grammar",
        }
        match scorers.hotwords.phrases().len() {
            0 => {}
            n => text += &format!(", {n} hotwords"),
        }
        text
    }
}

/// A decoder for the tokens of one tokenizer.
#[derive(Debug, Clone)]
pub struct Decoder {
    search: Search,
    vocab: usize,
}

#[derive(Debug, Clone)]
enum Search {
    Greedy(Greedy),
    Beam(Box<BeamSearch>),
}

impl Decoder {
    /// Builds the search.
    ///
    /// # Errors
    /// As [`Alphabet::new`] and [`BeamSearch::new`].
    pub fn new(tokenizer: &Tokenizer, decoding: &Decoding) -> Result<Self> {
        let vocab = tokenizer.vocab_size();
        let search = match decoding {
            Decoding::Greedy => Search::Greedy(Greedy::new(vocab, tokenizer.blank())),
            Decoding::Beam { config, scorers } => {
                let pieces = (0..tokenizer.vocab_size() as u32).map(|token| tokenizer.piece(token).to_string()).collect();
                Search::Beam(Box::new(BeamSearch::new(Alphabet::new(pieces, tokenizer.blank())?, config.clone(), scorers)?))
            }
        };
        Ok(Self { search, vocab })
    }

    /// The best hypothesis for a stretch of speech.
    pub fn decode(&mut self, stretch: &Stretch) -> Hypothesis {
        self.reset();
        self.step(&stretch.log_probs);
        self.flush()
    }

    /// Takes in steps, `[steps, vocab]`.
    pub fn step(&mut self, log_probs: &[f32]) {
        let steps = log_probs.len() / self.vocab;
        match &mut self.search {
            Search::Greedy(greedy) => greedy.step(log_probs, steps),
            Search::Beam(beam) => beam.step(log_probs, steps),
        }
    }

    /// Ends the utterance: its best hypothesis; the next step starts another one.
    pub fn flush(&mut self) -> Hypothesis {
        match &mut self.search {
            Search::Greedy(greedy) => greedy.flush(),
            Search::Beam(beam) => beam.flush().swap_remove(0),
        }
    }

    /// Forgets the utterance.
    pub fn reset(&mut self) {
        match &mut self.search {
            Search::Greedy(greedy) => greedy.reset(),
            Search::Beam(beam) => beam.reset(),
        }
    }

    /// Steps after which a token is certain at the latest.
    pub fn delay(&self) -> usize {
        match &self.search {
            Search::Greedy(greedy) => greedy.delay(),
            Search::Beam(beam) => beam.delay(),
        }
    }

    /// What [`Self::flush`] would say if the utterance ended here.
    pub fn best(&mut self) -> Hypothesis {
        match &mut self.search {
            Search::Greedy(greedy) => greedy.best(),
            Search::Beam(beam) => beam.best(),
        }
    }

    /// The first tokens of [`Self::best`], and perhaps separators after them, that no further step can change.
    pub fn certain_tokens(&mut self) -> Vec<u32> {
        match &mut self.search {
            Search::Greedy(greedy) => greedy.best().tokens,
            Search::Beam(beam) => beam.certain_tokens(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> DecodingConfig {
        DecodingConfig { format_version: 1, language_model: "x.lm".into(), alpha: 0.5, beta: 1.0, oov_penalty: -5.0, beam_width: 16 }
    }

    #[test]
    fn round_trip_and_refusals() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(DecodingConfig::read(folder.path()).unwrap(), None);
        assert!(matches!(Decoding::of_model(folder.path()).unwrap(), Decoding::Greedy));
        config().write(folder.path()).unwrap();
        assert_eq!(DecodingConfig::read(folder.path()).unwrap(), Some(config()));
        assert!(matches!(Decoding::of_model(folder.path()), Err(Error::Io { .. })), "the language model is missing");
        DecodingConfig { format_version: 9, ..config() }.write(folder.path()).unwrap();
        assert!(matches!(DecodingConfig::read(folder.path()), Err(Error::FormatVersion { found: 9, supported: 1, .. })));
        std::fs::write(folder.path().join(DecodingConfig::FILE), "{\"format_version\": 1}").unwrap();
        assert!(matches!(DecodingConfig::read(folder.path()), Err(Error::Config { .. })));
    }
}
