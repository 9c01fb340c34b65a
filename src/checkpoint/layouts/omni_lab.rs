//! Omni-router and dense Transformers in the names of asr-lab, a third-party implementation: `_encoder.*`, `_decoder.projection.*`.
//!
//! The router is stored under every block; the copies must be one tensor and are kept once. Apple's own names are not public: when a file is
//! at hand, `model inspect` lists them, and a table like this one hosts it.

use crate::checkpoint::arrange;
use crate::checkpoint::layout::Make::{ExpertsJoined, ExpertsTransposed, Same, Shared, SharedTransposed, Transposed};
use crate::checkpoint::layout::{Layout, Row, row};
use crate::checkpoint::tensor_file::{TensorFile, broken};
use crate::error::Result;
use crate::model::config::{EncoderConfig, FeedForwardConfig, PositionConfig, RouterKind};

const TABLE: &[Row] = &[
    row("encoder.subsampling.Stacking.project.weight", Transposed, &["_encoder.input_proj.weight"]),
    row("encoder.routers.{}.weight", SharedTransposed, &["_encoder.encoder.blocks.{*}.ffn.router.w_gate.weight"]),
    row("encoder.routers.{}.bias", Shared, &["_encoder.encoder.blocks.{*}.ffn.router.w_gate.bias"]),
    row("encoder.blocks.{}.attention_norm.gamma", Same, &["_encoder.encoder.blocks.{}.ln1.weight"]),
    row("encoder.blocks.{}.attention_norm.beta", Same, &["_encoder.encoder.blocks.{}.ln1.bias"]),
    row(
        "encoder.blocks.{}.attention.qkv.weight",
        Transposed,
        &["_encoder.encoder.blocks.{}.self_attention.w_q.weight", "_encoder.encoder.blocks.{}.self_attention.w_kv.weight"],
    ),
    row("encoder.blocks.{}.attention.out.weight", Transposed, &["_encoder.encoder.blocks.{}.self_attention.w_out.weight"]),
    row("encoder.blocks.{}.feed_forward_norm.gamma", Same, &["_encoder.encoder.blocks.{}.ln2.weight"]),
    row("encoder.blocks.{}.feed_forward_norm.beta", Same, &["_encoder.encoder.blocks.{}.ln2.bias"]),
    row("encoder.blocks.{}.feed_forward.Experts.router.weight", Transposed, &["_encoder.encoder.blocks.{}.ffn.router.w_gate.weight"]),
    row("encoder.blocks.{}.feed_forward.Experts.router.bias", Same, &["_encoder.encoder.blocks.{}.ffn.router.w_gate.bias"]),
    row("encoder.blocks.{}.feed_forward.Experts.experts.up", ExpertsTransposed, &["_encoder.encoder.blocks.{}.ffn.experts.{e}.0.weight"]),
    row("encoder.blocks.{}.feed_forward.Experts.experts.up_bias", ExpertsJoined, &["_encoder.encoder.blocks.{}.ffn.experts.{e}.0.bias"]),
    row("encoder.blocks.{}.feed_forward.Experts.experts.down", ExpertsTransposed, &["_encoder.encoder.blocks.{}.ffn.experts.{e}.2.weight"]),
    row("encoder.blocks.{}.feed_forward.Experts.experts.down_bias", ExpertsJoined, &["_encoder.encoder.blocks.{}.ffn.experts.{e}.2.bias"]),
    row("encoder.final_norm.gamma", Same, &["_encoder.encoder.final_ln.weight"]),
    row("encoder.final_norm.beta", Same, &["_encoder.encoder.final_ln.bias"]),
    row("head.weight", Transposed, &["_decoder.projection.weight"]),
    row("head.bias", Same, &["_decoder.projection.bias"]),
];

/// Tables of positions: computed here, and compared by [`check_positions`].
const IGNORED: &[&str] = &["_encoder.encoder.cape.freq", "_encoder.encoder.cape.cos_shifts"];

/// Whether a file is in this layout.
pub fn is_in(file: &TensorFile) -> bool {
    file.get("_decoder.projection.weight").is_some() && file.names().any(|name| name.starts_with("_encoder."))
}

/// The layout for an encoder.
pub fn layout(encoder: &EncoderConfig) -> Layout {
    let mut router_blocks = Vec::new();
    if let FeedForwardConfig::Experts { router: RouterKind::Omni, groups, .. } = &encoder.feed_forward {
        let by_layer = groups.by_layer();
        for (group, _) in groups.0.iter().enumerate().filter(|(_, g)| g.experts > 1) {
            router_blocks.push((0..by_layer.len()).filter(|&layer| by_layer[layer].0 == group).collect());
        }
    }
    Layout { tables: vec![TABLE], renamed: vec![], ignored: IGNORED, router_blocks }
}

/// Checks that the frequencies of positions in the file are those that the configuration gives.
///
/// # Errors
/// [`crate::Error::Checkpoint`] if they are others.
pub fn check_positions(file: &TensorFile, encoder: &EncoderConfig) -> Result<()> {
    let name = "_encoder.encoder.cape.freq";
    let (PositionConfig::Cape { freq_scale, .. }, Some(view)) = (&encoder.position, file.get(name)) else { return Ok(()) };
    let mut stored = vec![0.0f32; view.count()];
    if view.dtype.is_float() {
        arrange::copy(&view, &mut stored);
    }
    let d = encoder.d_model;
    let ours = |i: usize| freq_scale * (-2.0 * (i / 2) as f64 * 1e4f64.ln() / d as f64).exp();
    let close = |(i, &stored): (usize, &f32)| (f64::from(stored) - ours(i)).abs() <= 1e-5 * ours(i);
    if stored.len() == d && stored.iter().enumerate().all(close) {
        Ok(())
    } else {
        Err(broken(file.path(), format!("{name}: other frequencies than encoder.position.freq_scale = {freq_scale} gives")))
    }
}
