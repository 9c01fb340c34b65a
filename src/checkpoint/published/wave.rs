//! wav2vec 2.0 and HuBERT with a CTC head, of Hugging Face: `config.json`, `preprocessor_config.json`, `vocab.json`, weights.

use std::path::Path;

use serde_json::Value;

use super::fields::Fields;
use super::parakeet::{check_tokenizer, name_of};
use crate::checkpoint::directory::{CONFIG, FORMAT_VERSION, Weights};
use crate::checkpoint::layouts;
use crate::checkpoint::limits::{read_json, read_small};
use crate::checkpoint::open::{WaveConfigFile, WaveDirectory, renamed, weights_in};
use crate::error::Result;
use crate::features::WaveFrontEnd;
use crate::model::config::ActivationConfig;
use crate::model::wave::{ConvolutionLayer, ExtractorNorm, NormOrder, PositionConvolution, WaveConfig};
use crate::text::{Tokenizer, VocabularyRoles};

/// Reads the folder; `config` is its `config.json`.
///
/// # Errors
/// [`crate::Error::Io`], [`crate::Error::Config`], [`crate::Error::Tokenizer`], [`crate::Error::Checkpoint`],
/// [`crate::Error::LimitExceeded`]
pub fn open(folder: &Path, config: &Value) -> Result<WaveDirectory> {
    let config_path = folder.join(CONFIG);
    let fields = Fields::new(&config_path, config);
    let hubert = fields.word_or("model_type", "wav2vec2")? == "hubert";
    let encoder = encoder(&fields)?;
    encoder.validate().map_err(|e| renamed(e, &config_path))?;
    let vocabulary = folder.join("vocab.json");
    let tokenizer = Tokenizer::from_vocabulary(&read_small(&vocabulary)?, &roles(folder)?, &vocabulary)?;
    check_tokenizer(&tokenizer, fields.size("vocab_size")?, fields.size_or("pad_token_id", 0)?, &vocabulary)?;
    let config =
        WaveConfigFile { format_version: FORMAT_VERSION, name: name_of(folder), wave_front_end: front_end(folder)?, wave_encoder: encoder };
    let layout = if hubert { layouts::wave::hubert() } else { layouts::wave::wav2vec2() };
    Ok(WaveDirectory { path: folder.into(), config, tokenizer, weights: Weights { file: weights_in(folder)?, layout: Some(layout) } })
}

fn encoder(fields: &Fields<'_>) -> Result<WaveConfig> {
    fields.must_be("layer_norm_eps", 1e-5)?;
    fields.must_be("add_adapter", false)?;
    fields.must_be("conv_pos_batch_norm", false)?;
    fields.must_be("feat_proj_layer_norm", true)?;
    if fields.has("adapter_attn_dim") {
        return Err(fields.error("adapter_attn_dim", "adapters for languages are not hosted"));
    }
    let activation = |key| match fields.word_or(key, "gelu")? {
        "gelu" => Ok(ActivationConfig::Gelu),
        "relu" => Ok(ActivationConfig::Relu),
        "silu" | "swish" => Ok(ActivationConfig::Silu),
        other => Err(fields.error(key, format!("{other:?}: must be gelu, relu or silu"))),
    };
    let (widths, kernels, strides) = (fields.sizes("conv_dim")?, fields.sizes("conv_kernel")?, fields.sizes("conv_stride")?);
    if widths.len() != kernels.len() || widths.len() != strides.len() {
        return Err(fields.error("conv_dim", "conv_dim, conv_kernel and conv_stride must be of one length"));
    }
    let convolutions = widths.into_iter().zip(kernels).zip(strides);
    Ok(WaveConfig {
        convolutions: convolutions.map(|((width, kernel), stride)| ConvolutionLayer { width, kernel, stride }).collect(),
        convolution_bias: fields.flag_or("conv_bias", false)?,
        extractor_norm: match fields.word_or("feat_extract_norm", "group")? {
            "group" => ExtractorNorm::FirstLayerByChannel,
            "layer" => ExtractorNorm::EveryLayer,
            other => return Err(fields.error("feat_extract_norm", format!("{other:?}: must be group or layer"))),
        },
        extractor_activation: activation("feat_extract_activation")?,
        d_model: fields.size("hidden_size")?,
        n_layers: fields.size("num_hidden_layers")?,
        n_heads: fields.size("num_attention_heads")?,
        d_ff: fields.size("intermediate_size")?,
        activation: activation("hidden_act")?,
        position: PositionConvolution {
            kernel: fields.size_or("num_conv_pos_embeddings", 128)?,
            groups: fields.size_or("num_conv_pos_embedding_groups", 16)?,
        },
        norm_order: if fields.flag_or("do_stable_layer_norm", false)? { NormOrder::Before } else { NormOrder::After },
    })
}

fn front_end(folder: &Path) -> Result<WaveFrontEnd> {
    let path = folder.join("preprocessor_config.json");
    if !path.exists() {
        return Ok(WaveFrontEnd { sample_rate: 16_000, normalize: true });
    }
    let value = read_json(&path)?;
    let fields = Fields::new(&path, &value);
    fields.must_be("feature_size", 1)?;
    fields.must_be("padding_value", 0.0)?;
    let front_end = WaveFrontEnd {
        sample_rate: fields.size_or("sampling_rate", 16_000)?.try_into().unwrap_or(0),
        normalize: fields.flag_or("do_normalize", true)?,
    };
    front_end.validate().map_err(|e| renamed(e, &path))?;
    Ok(front_end)
}

/// What `tokenizer_config.json` says of the tokens.
fn roles(folder: &Path) -> Result<VocabularyRoles> {
    let mut roles = VocabularyRoles::default();
    let path = folder.join("tokenizer_config.json");
    if path.exists() {
        let value = read_json(&path)?;
        // A token is a word, or a table with its content.
        let word = |key: &str| value[key].as_str().or_else(|| value[key]["content"].as_str()).map(str::to_string);
        roles.blank = word("pad_token").unwrap_or(roles.blank);
        roles.word_delimiter = word("word_delimiter_token").unwrap_or(roles.word_delimiter);
        roles.special.extend(["bos_token", "eos_token", "unk_token"].iter().filter_map(|key| word(key)));
    }
    Ok(roles)
}
