//! What the neurons of a model stand for, and whether those of one kind sit together in experts.
//!
//! # Reference
//! Zhang et al. 2023, Emergent Modularity in Pre-trained Transformers, arXiv:2305.18390. Differs: an instance is a step of the encoder and not
//! a text, so there is no maximum over tokens; functions are those of speech; a neuron of an expert that a step does not go to counts as 0 there.

pub mod clusters;
pub mod enrichment;
pub mod functions;
pub mod modularity;
pub mod noise;
pub mod observe;
pub mod perturb;
pub mod precision;
pub mod stability;
