//! What a bench run leaves behind: a JSON result, a line for every utterance, files for `sclite`, a table, a page, and comparisons.

pub mod compare;
pub mod environment;
pub mod html;
pub mod journal;
pub mod markdown;
pub mod result;
pub mod sclite;
mod validate;

pub use journal::{Journal, Utterance};
pub use result::RunResult;
