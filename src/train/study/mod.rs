//! A study: the same training for every kind of feed-forward, size and seed, and one report of what came of it.
//!
//! [`run()`] trains the cells of a grid one after the other, [`report`] reads what they left, [`render`] draws it.

mod cells;
mod config;
pub mod intervals;
mod outcome;
pub mod render;
pub mod report;
pub mod structure;

pub use cells::{Cell, cells, run};
pub use config::{Base, StudyConfig, Variant};
pub use outcome::Outcome;
