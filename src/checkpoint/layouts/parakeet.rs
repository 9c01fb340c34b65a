//! Parakeet-CTC (FastConformer) in the names of Hugging Face, and of NeMo.
//!
//! Differs from the published model in one thing: where its feed-forwards have no biases, ours have biases of zero, which training may move.

use crate::checkpoint::layout::Make::{Joined, Same, Taps, Transposed, Zeros};
use crate::checkpoint::layout::{Layout, Row, row};

/// Everything that has no bias or always has one.
const COMMON: &[Row] = &[
    row("encoder.subsampling.Convolution.first.weight", Same, &["encoder.subsampling.layers.0.weight"]),
    row("encoder.subsampling.Convolution.first.bias", Same, &["encoder.subsampling.layers.0.bias"]),
    row("encoder.subsampling.Convolution.rest.0.depthwise.weight", Same, &["encoder.subsampling.layers.2.weight"]),
    row("encoder.subsampling.Convolution.rest.0.depthwise.bias", Same, &["encoder.subsampling.layers.2.bias"]),
    row("encoder.subsampling.Convolution.rest.0.pointwise.weight", Same, &["encoder.subsampling.layers.3.weight"]),
    row("encoder.subsampling.Convolution.rest.0.pointwise.bias", Same, &["encoder.subsampling.layers.3.bias"]),
    row("encoder.subsampling.Convolution.rest.1.depthwise.weight", Same, &["encoder.subsampling.layers.5.weight"]),
    row("encoder.subsampling.Convolution.rest.1.depthwise.bias", Same, &["encoder.subsampling.layers.5.bias"]),
    row("encoder.subsampling.Convolution.rest.1.pointwise.weight", Same, &["encoder.subsampling.layers.6.weight"]),
    row("encoder.subsampling.Convolution.rest.1.pointwise.bias", Same, &["encoder.subsampling.layers.6.bias"]),
    row("encoder.subsampling.Convolution.project.weight", Transposed, &["encoder.subsampling.linear.weight"]),
    row("encoder.subsampling.Convolution.project.bias", Same, &["encoder.subsampling.linear.bias"]),
    row("encoder.blocks.{}.opening.norm.gamma", Same, &["encoder.layers.{}.norm_feed_forward1.weight"]),
    row("encoder.blocks.{}.opening.norm.beta", Same, &["encoder.layers.{}.norm_feed_forward1.bias"]),
    row("encoder.blocks.{}.opening.feed_forward.up", Transposed, &["encoder.layers.{}.feed_forward1.linear1.weight"]),
    row("encoder.blocks.{}.opening.feed_forward.down", Transposed, &["encoder.layers.{}.feed_forward1.linear2.weight"]),
    row("encoder.blocks.{}.attention_norm.gamma", Same, &["encoder.layers.{}.norm_self_att.weight"]),
    row("encoder.blocks.{}.attention_norm.beta", Same, &["encoder.layers.{}.norm_self_att.bias"]),
    row(
        "encoder.blocks.{}.attention.qkv.weight",
        Transposed,
        &[
            "encoder.layers.{}.self_attn.q_proj.weight",
            "encoder.layers.{}.self_attn.k_proj.weight",
            "encoder.layers.{}.self_attn.v_proj.weight",
        ],
    ),
    row("encoder.blocks.{}.attention.out.weight", Transposed, &["encoder.layers.{}.self_attn.o_proj.weight"]),
    row("encoder.blocks.{}.attention.relative.project.weight", Transposed, &["encoder.layers.{}.self_attn.relative_k_proj.weight"]),
    row("encoder.blocks.{}.attention.relative.u", Same, &["encoder.layers.{}.self_attn.bias_u"]),
    row("encoder.blocks.{}.attention.relative.v", Same, &["encoder.layers.{}.self_attn.bias_v"]),
    row("encoder.blocks.{}.convolution.norm.gamma", Same, &["encoder.layers.{}.norm_conv.weight"]),
    row("encoder.blocks.{}.convolution.norm.beta", Same, &["encoder.layers.{}.norm_conv.bias"]),
    row("encoder.blocks.{}.convolution.module.pointwise_in.weight", Transposed, &["encoder.layers.{}.conv.pointwise_conv1.weight"]),
    row("encoder.blocks.{}.convolution.module.depthwise", Taps, &["encoder.layers.{}.conv.depthwise_conv.weight"]),
    row("encoder.blocks.{}.convolution.module.norm.Batch.gamma", Same, &["encoder.layers.{}.conv.norm.weight"]),
    row("encoder.blocks.{}.convolution.module.norm.Batch.beta", Same, &["encoder.layers.{}.conv.norm.bias"]),
    row("encoder.blocks.{}.convolution.module.norm.Batch.mean", Same, &["encoder.layers.{}.conv.norm.running_mean"]),
    row("encoder.blocks.{}.convolution.module.norm.Batch.variance", Same, &["encoder.layers.{}.conv.norm.running_var"]),
    row("encoder.blocks.{}.convolution.module.pointwise_out.weight", Transposed, &["encoder.layers.{}.conv.pointwise_conv2.weight"]),
    row("encoder.blocks.{}.feed_forward_norm.gamma", Same, &["encoder.layers.{}.norm_feed_forward2.weight"]),
    row("encoder.blocks.{}.feed_forward_norm.beta", Same, &["encoder.layers.{}.norm_feed_forward2.bias"]),
    row("encoder.blocks.{}.feed_forward.Dense.up", Transposed, &["encoder.layers.{}.feed_forward2.linear1.weight"]),
    row("encoder.blocks.{}.feed_forward.Dense.down", Transposed, &["encoder.layers.{}.feed_forward2.linear2.weight"]),
    row("encoder.blocks.{}.out_norm.gamma", Same, &["encoder.layers.{}.norm_out.weight"]),
    row("encoder.blocks.{}.out_norm.beta", Same, &["encoder.layers.{}.norm_out.bias"]),
    row("head.weight", Transposed, &["ctc_head.weight"]),
    row("head.bias", Same, &["ctc_head.bias"]),
];

/// Biases of attention and feed-forwards.
const BIASES: &[Row] = &[
    row("encoder.blocks.{}.opening.feed_forward.up_bias", Same, &["encoder.layers.{}.feed_forward1.linear1.bias"]),
    row("encoder.blocks.{}.opening.feed_forward.down_bias", Same, &["encoder.layers.{}.feed_forward1.linear2.bias"]),
    row(
        "encoder.blocks.{}.attention.qkv.bias",
        Joined,
        &["encoder.layers.{}.self_attn.q_proj.bias", "encoder.layers.{}.self_attn.k_proj.bias", "encoder.layers.{}.self_attn.v_proj.bias"],
    ),
    row("encoder.blocks.{}.attention.out.bias", Same, &["encoder.layers.{}.self_attn.o_proj.bias"]),
    row("encoder.blocks.{}.feed_forward.Dense.up_bias", Same, &["encoder.layers.{}.feed_forward2.linear1.bias"]),
    row("encoder.blocks.{}.feed_forward.Dense.down_bias", Same, &["encoder.layers.{}.feed_forward2.linear2.bias"]),
];

/// The same where the model has none.
const NO_BIASES: &[Row] = &[
    row("encoder.blocks.{}.opening.feed_forward.up_bias", Zeros, &[]),
    row("encoder.blocks.{}.opening.feed_forward.down_bias", Zeros, &[]),
    row("encoder.blocks.{}.feed_forward.Dense.up_bias", Zeros, &[]),
    row("encoder.blocks.{}.feed_forward.Dense.down_bias", Zeros, &[]),
];

/// Biases of the convolution module.
const CONVOLUTION_BIASES: &[Row] = &[
    row("encoder.blocks.{}.convolution.module.pointwise_in.bias", Same, &["encoder.layers.{}.conv.pointwise_conv1.bias"]),
    row("encoder.blocks.{}.convolution.module.depthwise_bias", Same, &["encoder.layers.{}.conv.depthwise_conv.bias"]),
    row("encoder.blocks.{}.convolution.module.pointwise_out.bias", Same, &["encoder.layers.{}.conv.pointwise_conv2.bias"]),
];

/// Counters of training steps.
const IGNORED: &[&str] = &["encoder.layers.{}.conv.norm.num_batches_tracked"];

/// Names of Hugging Face and of NeMo for the same parts.
const NEMO: &[(&str, &str)] = &[
    ("encoder.subsampling.layers", "encoder.pre_encode.conv"),
    ("encoder.subsampling.linear", "encoder.pre_encode.out"),
    (".self_attn.q_proj", ".self_attn.linear_q"),
    (".self_attn.k_proj", ".self_attn.linear_k"),
    (".self_attn.v_proj", ".self_attn.linear_v"),
    (".self_attn.o_proj", ".self_attn.linear_out"),
    (".self_attn.relative_k_proj", ".self_attn.linear_pos"),
    (".self_attn.bias_u", ".self_attn.pos_bias_u"),
    (".self_attn.bias_v", ".self_attn.pos_bias_v"),
    (".conv.norm.", ".conv.batch_norm."),
];

/// Counters, and the front end's own tables, which our front end computes.
const NEMO_IGNORED: &[&str] = &[
    "encoder.layers.{}.conv.batch_norm.num_batches_tracked",
    "preprocessor.featurizer.fb",
    "preprocessor.featurizer.window",
    "spec_augmentation.*",
];

/// What a hybrid model has beside its encoder and CTC head: a transducer's decoder and joint network.
const HYBRID_IGNORED: &[&str] = &[
    "encoder.layers.{}.conv.batch_norm.num_batches_tracked",
    "preprocessor.featurizer.fb",
    "preprocessor.featurizer.window",
    "decoder.*",
    "joint.*",
    "spec_augmentation.*",
];

/// Where the CTC head is in a NeMo checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NemoHead {
    /// The model's only decoder.
    Ctc,
    /// Beside a transducer.
    HybridCtc,
}

/// The layout of `ParakeetForCTC`.
pub fn hugging_face(biases: bool, convolution_biases: bool) -> Layout {
    let mut tables = vec![COMMON, if biases { BIASES } else { NO_BIASES }];
    if convolution_biases {
        tables.push(CONVOLUTION_BIASES);
    }
    Layout { tables, ignored: IGNORED, ..Layout::default() }
}

/// The layout of NeMo's FastConformer-CTC.
pub fn nemo(biases: bool, head: NemoHead) -> Layout {
    let (head, ignored) = match head {
        NemoHead::Ctc => ("decoder.decoder_layers.0", NEMO_IGNORED),
        NemoHead::HybridCtc => ("ctc_decoder.decoder_layers.0", HYBRID_IGNORED),
    };
    let renamed = NEMO.iter().copied().chain([("ctc_head", head)]).collect();
    Layout { renamed, ignored, ..hugging_face(biases, biases) }
}
