//! omniscribe
pub mod audio;
pub mod checkpoint;
pub mod cli;
pub mod dataset;
pub mod decode;
pub mod error;
pub mod eval;
pub mod features;
pub mod kernel;
pub mod model;
pub mod pipeline;
pub mod text;
pub mod train;
pub mod units;
pub use error::{Error, Result};
