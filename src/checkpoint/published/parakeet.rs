//! Parakeet-CTC of Hugging Face (`ParakeetForCTC`): a folder with `config.json`, a processor's file, `tokenizer.json`, weights.

use std::path::Path;

use serde_json::Value;

use super::fields::Fields;
use crate::checkpoint::directory::{CONFIG, FORMAT_VERSION, ModelConfig, ModelDirectory, TOKENIZER, Weights};
use crate::checkpoint::layouts::parakeet;
use crate::checkpoint::limits::read_json;
use crate::checkpoint::open::{renamed, weights_in};
use crate::error::{Error, Result};
use crate::features::{FrontEndConfig, PreEmphasis};
use crate::model::config::{
    ActivationConfig, BlockConfig, ContextConfig, ConvolutionNorm, EncoderConfig, FeedForwardConfig, PositionConfig, SubsamplingConfig,
};
use crate::text::Tokenizer;

/// Reads the folder; `config` is its `config.json`.
///
/// # Errors
/// [`Error::Io`], [`Error::Config`], [`Error::Tokenizer`], [`Error::Checkpoint`], [`Error::LimitExceeded`]
pub fn open(folder: &Path, config: &Value) -> Result<ModelDirectory> {
    let config_path = folder.join(CONFIG);
    let (model, layout) = read_config(&config_path, config, front_end(folder)?, name_of(folder))?;
    let fields = Fields::new(&config_path, config);
    let tokenizer = Tokenizer::load(folder.join(TOKENIZER))?;
    let (vocab, blank) = (fields.size("vocab_size")?, fields.size("pad_token_id")?);
    check_tokenizer(&tokenizer, vocab, blank, &folder.join(TOKENIZER))?;
    let weights = Weights { file: weights_in(folder)?, layout: Some(layout) };
    Ok(ModelDirectory { path: folder.into(), config: model, tokenizer, weights })
}

/// Our configuration of a `config.json`, and the layout of its weights. Without a front end it is the published models' own.
///
/// # Errors
/// [`Error::Config`]
pub fn read_config(
    path: &Path,
    config: &Value,
    front_end: Option<FrontEndConfig>,
    name: String,
) -> Result<(ModelConfig, crate::checkpoint::layout::Layout)> {
    let encoder = Fields::new(path, config).table("encoder_config")?;
    let heads = encoder.size("num_attention_heads")?;
    encoder.must_be("subsampling_conv_kernel_size", 3)?;
    encoder.must_be("subsampling_conv_stride", 2)?;
    encoder.must_be("num_key_value_heads", heads)?;
    let activation = match encoder.word_or("hidden_act", "silu")? {
        "silu" | "swish" => ActivationConfig::Silu,
        "relu" => ActivationConfig::Relu,
        "gelu" => ActivationConfig::Gelu,
        other => return Err(encoder.error("hidden_act", format!("{other:?}: must be silu, relu or gelu"))),
    };
    let mels = encoder.size_or("num_mel_bins", 80)?;
    let (attention_bias, convolution_bias) = (encoder.flag_or("attention_bias", true)?, encoder.flag_or("convolution_bias", true)?);
    let encoder = EncoderConfig {
        mels,
        d_model: encoder.size("hidden_size")?,
        n_layers: encoder.size("num_hidden_layers")?,
        n_heads: heads,
        d_ff: encoder.size("intermediate_size")?,
        activation,
        dropout: encoder.number_or("dropout", 0.1)?,
        attention_bias,
        scale_input: encoder.flag_or("scale_input", true)?,
        subsampling: SubsamplingConfig::Convolution {
            factor: encoder.size_or("subsampling_factor", 8)?,
            channels: encoder.size_or("subsampling_conv_channels", 256)?,
        },
        position: PositionConfig::Relative,
        context: ContextConfig::Full,
        block: BlockConfig::Conformer { kernel: encoder.size_or("conv_kernel_size", 9)?, norm: ConvolutionNorm::Batch, convolution_bias },
        feed_forward: FeedForwardConfig::Dense,
        intermediate: None,
        languages: None,
    };
    let front_end = front_end.unwrap_or_else(|| FrontEndConfig::parakeet(mels));
    let model = ModelConfig { format_version: FORMAT_VERSION, name, front_end, encoder };
    model.validate().map_err(|e| renamed(e, path))?;
    Ok((model, parakeet::hugging_face(attention_bias, convolution_bias)))
}

/// What `processor_config.json` or `preprocessor_config.json` says of the features.
fn front_end(folder: &Path) -> Result<Option<FrontEndConfig>> {
    let found = ["processor_config.json", "preprocessor_config.json"].map(|name| folder.join(name)).into_iter().find(|p| p.exists());
    let Some(path) = found else { return Ok(None) };
    let value = read_json(&path)?;
    let whole = Fields::new(&path, &value);
    let fields = if whole.has("feature_extractor") { whole.table("feature_extractor")? } else { whole };
    fields.must_be("feature_extractor_type", "ParakeetFeatureExtractor")?;
    fields.must_be("padding_value", 0.0)?;
    let config = FrontEndConfig {
        sample_rate: fields.size_or("sampling_rate", 16_000)?.try_into().unwrap_or(0),
        hop: fields.size_or("hop_length", 160)?,
        window_samples: fields.size_or("win_length", 400)?,
        n_fft: fields.size_or("n_fft", 512)?,
        pre_emphasis: PreEmphasis::Waveform(fields.number_or("preemphasis", 0.97)? as f32),
        ..FrontEndConfig::parakeet(fields.size_or("feature_size", 80)?)
    };
    config.validate().map_err(|e| renamed(e, &path))?;
    Ok(Some(config))
}

/// The name of a published folder: the snapshot folder of a hub's cache has none of its own.
pub(super) fn name_of(folder: &Path) -> String {
    let parts: Vec<String> = folder.components().map(|c| c.as_os_str().to_string_lossy().into_owned()).collect();
    let repository = parts.iter().rev().find_map(|part| part.strip_prefix("models--"));
    let own = || folder.canonicalize().ok().and_then(|p| p.file_stem().map(|n| n.to_string_lossy().into_owned()));
    repository.map(|name| name.replace("--", "/")).or_else(own).unwrap_or_else(|| "model".into())
}

/// The tokenizer must be the one of the CTC head.
pub(super) fn check_tokenizer(tokenizer: &Tokenizer, vocab: usize, blank: usize, path: &Path) -> Result<()> {
    if tokenizer.vocab_size() != vocab || tokenizer.blank() as usize != blank {
        let reason =
            format!("{} tokens with blank {}: the model has {vocab} with blank {blank}", tokenizer.vocab_size(), tokenizer.blank());
        return Err(Error::Tokenizer { path: path.into(), reason });
    }
    Ok(())
}
