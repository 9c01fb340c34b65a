//! wav2vec 2.0 and HuBERT in the names of Hugging Face; `base` stands for `wav2vec2` or `hubert`.

use crate::checkpoint::layout::Make::{Joined, Same, Transposed, WeightNorm, Windows};
use crate::checkpoint::layout::{Layout, Row, row};

const COMMON: &[Row] = &[
    row("extractor.{}.convolution.weight", Windows, &["base.feature_extractor.conv_layers.{}.conv.weight"]),
    row("extractor.{}.convolution.bias", Same, &["base.feature_extractor.conv_layers.{}.conv.bias"]),
    row("extractor.{}.norm.gamma", Same, &["base.feature_extractor.conv_layers.{}.layer_norm.weight"]),
    row("extractor.{}.norm.beta", Same, &["base.feature_extractor.conv_layers.{}.layer_norm.bias"]),
    row("feature_norm.gamma", Same, &["base.feature_projection.layer_norm.weight"]),
    row("feature_norm.beta", Same, &["base.feature_projection.layer_norm.bias"]),
    row("project.weight", Transposed, &["base.feature_projection.projection.weight"]),
    row("project.bias", Same, &["base.feature_projection.projection.bias"]),
    row(
        "position.weight",
        WeightNorm,
        &[
            "base.encoder.pos_conv_embed.conv.parametrizations.weight.original0 | base.encoder.pos_conv_embed.conv.weight_g",
            "base.encoder.pos_conv_embed.conv.parametrizations.weight.original1 | base.encoder.pos_conv_embed.conv.weight_v",
        ],
    ),
    row("position.bias", Same, &["base.encoder.pos_conv_embed.conv.bias"]),
    row("norm.gamma", Same, &["base.encoder.layer_norm.weight"]),
    row("norm.beta", Same, &["base.encoder.layer_norm.bias"]),
    row(
        "blocks.{}.attention.qkv.weight",
        Transposed,
        &[
            "base.encoder.layers.{}.attention.q_proj.weight",
            "base.encoder.layers.{}.attention.k_proj.weight",
            "base.encoder.layers.{}.attention.v_proj.weight",
        ],
    ),
    row(
        "blocks.{}.attention.qkv.bias",
        Joined,
        &[
            "base.encoder.layers.{}.attention.q_proj.bias",
            "base.encoder.layers.{}.attention.k_proj.bias",
            "base.encoder.layers.{}.attention.v_proj.bias",
        ],
    ),
    row("blocks.{}.attention.out.weight", Transposed, &["base.encoder.layers.{}.attention.out_proj.weight"]),
    row("blocks.{}.attention.out.bias", Same, &["base.encoder.layers.{}.attention.out_proj.bias"]),
    row("blocks.{}.attention_norm.gamma", Same, &["base.encoder.layers.{}.layer_norm.weight"]),
    row("blocks.{}.attention_norm.beta", Same, &["base.encoder.layers.{}.layer_norm.bias"]),
    row("blocks.{}.feed_forward.up", Transposed, &["base.encoder.layers.{}.feed_forward.intermediate_dense.weight"]),
    row("blocks.{}.feed_forward.up_bias", Same, &["base.encoder.layers.{}.feed_forward.intermediate_dense.bias"]),
    row("blocks.{}.feed_forward.down", Transposed, &["base.encoder.layers.{}.feed_forward.output_dense.weight"]),
    row("blocks.{}.feed_forward.down_bias", Same, &["base.encoder.layers.{}.feed_forward.output_dense.bias"]),
    row("blocks.{}.feed_forward_norm.gamma", Same, &["base.encoder.layers.{}.final_layer_norm.weight"]),
    row("blocks.{}.feed_forward_norm.beta", Same, &["base.encoder.layers.{}.final_layer_norm.bias"]),
    row("head.weight", Transposed, &["lm_head.weight"]),
    row("head.bias", Same, &["lm_head.bias"]),
];

/// The layout of `Wav2Vec2ForCTC`.
pub fn wav2vec2() -> Layout {
    // The mask of self-supervised training serves no recogniser.
    Layout { tables: vec![COMMON], renamed: vec![("base.", "wav2vec2.")], ignored: &["wav2vec2.masked_spec_embed"], ..Layout::default() }
}

/// The layout of `HubertForCTC`.
pub fn hubert() -> Layout {
    Layout { renamed: vec![("base.", "hubert.")], ignored: &["hubert.masked_spec_embed"], ..wav2vec2() }
}
