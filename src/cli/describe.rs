//! A model in a few words.

use crate::checkpoint::{Opened, convert};
use crate::error::Result;
use crate::model::config::{BlockConfig, EncoderConfig, FeedForwardConfig, SubsamplingConfig};
use crate::model::wave::NormOrder;

/// Parameters and bytes.
///
/// # Errors
/// [`crate::Error::Config`]
pub fn size(opened: &Opened) -> Result<String> {
    let count: usize = convert::parameters(opened)?.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    let file = &opened.weights().file;
    let bytes: usize = file.names().filter_map(|name| file.get(name)).map(|view| view.bytes.len()).sum();
    Ok(format!("{:.1} M parameters, {:.0} MB", count as f64 / 1e6, bytes as f64 / 1e6))
}

/// Layers and widths.
pub fn architecture(opened: &Opened) -> String {
    let tokens = opened.tokenizer().vocab_size();
    match opened {
        Opened::Spectral(directory) => {
            let encoder = &directory.config.encoder;
            let EncoderConfig { n_layers, d_model, mels, .. } = encoder;
            let block = match encoder.block {
                BlockConfig::Transformer => "Transformer",
                BlockConfig::Conformer { .. } => "Conformer",
            };
            let subsampling = match encoder.subsampling {
                SubsamplingConfig::Stacking { factor, .. } => format!("{factor} frames stacked"),
                SubsamplingConfig::Convolution { factor, .. } => format!("convolutions by {factor}"),
            };
            format!("{block}, {n_layers} layers, d_model {d_model}, {}, {mels} mels, {subsampling}, {tokens} tokens", feed_forward(encoder))
        }
        Opened::Wave(directory) => {
            let encoder = &directory.config.wave_encoder;
            let order = if encoder.norm_order == NormOrder::Before { "norms before" } else { "norms after" };
            format!("waveform Transformer, {} layers ({order}), d_model {}, {tokens} tokens", encoder.n_layers, encoder.d_model)
        }
    }
}

fn feed_forward(encoder: &EncoderConfig) -> String {
    match &encoder.feed_forward {
        FeedForwardConfig::Dense => "dense".to_string(),
        FeedForwardConfig::Experts { router, groups, .. } => {
            format!("{} experts, {router:?} router", String::from(groups.clone())).to_lowercase()
        }
        FeedForwardConfig::Adaptive { router, groups, .. } => {
            format!("{} experts, {router:?} router that adapts to clusters", String::from(groups.clone())).to_lowercase()
        }
        FeedForwardConfig::Sigma { router, groups, top_k, .. } => {
            format!("{} experts, {top_k} per step, {router:?} sigmoid router", String::from(groups.clone())).to_lowercase()
        }
        FeedForwardConfig::Strata { router, strata } => format!("strata of {strata:?} experts, {router:?} gates").to_lowercase(),
        FeedForwardConfig::Memory { layers, subkeys, .. } => {
            format!("memory of {} rows in {} layers", subkeys * subkeys, layers.len())
        }
    }
}
