//! Published models: their configurations and tokenizers read as ours. Whatever would change the computation and is not supported is refused.

mod fields;
pub mod nemo;
pub mod parakeet;
pub mod wave;
mod yaml;
