//! The tables: names of published weights for each of our parameters.

pub mod omni_lab;
pub mod parakeet;
pub mod wave;
