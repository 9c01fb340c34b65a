//! Text on both ends of the model: cleaning transcripts for training ([`target()`]), turning them into tokens and back ([`Tokenizer`]),
//! and bringing reference and hypothesis to one form before scoring ([`Normalizer`]).

pub mod alignable;
pub mod case;
mod characters;
pub mod inverse;
pub mod letters;
pub mod normalizer;
mod sentencepiece;
pub mod target;
pub mod tokenizer;
mod vocabulary;

pub use letters::TextForm;
pub use normalizer::Normalizer;
pub use target::target;
pub use tokenizer::Tokenizer;
pub use vocabulary::VocabularyRoles;
