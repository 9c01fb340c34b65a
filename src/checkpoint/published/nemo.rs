//! NeMo's own archives (`.nemo`) of FastConformer-CTC models: a tar of `model_config.yaml`, weights of `torch.save`, a SentencePiece model.

use std::io::Cursor;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::fields::Fields;
use super::parakeet::check_tokenizer;
use crate::checkpoint::directory::{FORMAT_VERSION, ModelConfig, ModelDirectory, Weights};
use crate::checkpoint::layouts::parakeet::{self, NemoHead};
use crate::checkpoint::limits::{self, ARCHIVE_FILES};
use crate::checkpoint::open::renamed;
use crate::checkpoint::tensor_file::{TensorFile, broken};
use crate::error::{Error, Result};
use crate::features::FrontEndConfig;
use crate::kernel::mapping::map;
use crate::model::config::{
    ActivationConfig, BlockConfig, ContextConfig, ConvolutionNorm, EncoderConfig, FeedForwardConfig, PositionConfig, SubsamplingConfig,
};
use crate::text::Tokenizer;

/// Reads an archive; nothing is unpacked.
///
/// # Errors
/// [`Error::Io`], [`Error::Config`], [`Error::Tokenizer`], [`Error::Checkpoint`], [`Error::LimitExceeded`]
pub fn open(path: &Path) -> Result<ModelDirectory> {
    let bytes = Arc::new(map(path).map_err(|e| Error::io(path, e))?);
    if bytes.starts_with(&[0x1f, 0x8b]) {
        return Err(broken(path, "compressed with gzip: unpack it first (gunzip -c model.nemo > plain.nemo)"));
    }
    let files = files(&bytes).map_err(|reason| broken(path, reason))?;
    let find = |what: &str, wanted: &dyn Fn(&str) -> bool| {
        let found = files.iter().find(|(name, _)| wanted(name));
        found.map(|(_, range)| range.clone()).ok_or_else(|| broken(path, format!("not a .nemo archive: no {what} in it")))
    };
    let small = |range: Range<usize>, what: &str| {
        if range.len() as u64 > limits::TEXT {
            let what = format!("{}: bytes of {what}", path.display());
            return Err(Error::LimitExceeded { what, limit: limits::TEXT, got: range.len() as u64 });
        }
        Ok(&bytes[range])
    };
    let yaml = small(find("model_config.yaml", &|name| name == "model_config.yaml")?, "configuration")?;
    let yaml = std::str::from_utf8(yaml).map_err(|e| Error::config(path, format!("model_config.yaml: {e}")))?;
    let value: Value = super::yaml::read(yaml).map_err(|e| Error::config(path, format!("model_config.yaml: {e}")))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let (config, head) = read_config(path, &value, name)?;

    let model = small(find("tokenizer.model", &|name| name.ends_with("tokenizer.model"))?, "tokenizer")?;
    let tokenizer = Tokenizer::from_sentencepiece(model, path)?;
    let fields = Fields::new(path, &value);
    let decoder = if head == NemoHead::Ctc { fields.table("decoder")? } else { Fields::new(path, &value["aux_ctc"]).table("decoder")? };
    // -1 stands for the tokenizer's size.
    if decoder.has("num_classes") && decoder.number_or("num_classes", -1.0)? >= 0.0 {
        let classes = decoder.size("num_classes")?;
        check_tokenizer(&tokenizer, classes + 1, classes, path)?;
    }
    let weights = find("model_weights.ckpt", &|name| name == "model_weights.ckpt")?;
    let file = TensorFile::from_archive(path, bytes.clone(), weights)?;
    let biases = config.encoder.attention_bias;
    Ok(ModelDirectory { path: path.into(), config, tokenizer, weights: Weights { file, layout: Some(parakeet::nemo(biases, head)) } })
}

/// The plain files of a tar with the places of their bytes.
fn files(bytes: &[u8]) -> std::result::Result<Vec<(String, Range<usize>)>, String> {
    let damaged = |e: std::io::Error| format!("not a tar archive: {e}");
    let mut archive = tar::Archive::new(Cursor::new(bytes));
    let mut files = Vec::new();
    for entry in archive.entries_with_seek().map_err(damaged)? {
        let entry = entry.map_err(damaged)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = entry.path().map_err(damaged)?.to_string_lossy().trim_start_matches("./").to_string();
        let start = usize::try_from(entry.raw_file_position()).unwrap_or(usize::MAX);
        let end = usize::try_from(entry.size()).ok().and_then(|size| start.checked_add(size)).filter(|&end| end <= bytes.len());
        files.push((name, start..end.ok_or("a truncated tar archive")?));
        if files.len() > ARCHIVE_FILES {
            return Err(format!("more than {ARCHIVE_FILES} files in the archive"));
        }
    }
    Ok(files)
}

/// Our configuration of a `model_config.yaml`.
fn read_config(path: &Path, value: &Value, name: String) -> Result<(ModelConfig, NemoHead)> {
    let fields = Fields::new(path, value);
    let target = fields.word_or("target", "")?;
    let head = match target.rsplit('.').next().unwrap_or_default() {
        "EncDecCTCModelBPE" => NemoHead::Ctc,
        "EncDecHybridRNNTCTCBPEModel" => NemoHead::HybridCtc,
        _ => {
            return Err(
                fields.error("target", format!("{target:?}: this build hosts CTC models with subword tokenizers (EncDecCTCModelBPE)"))
            );
        }
    };
    let front_end = front_end(&fields.table("preprocessor")?)?;
    let encoder = fields.table("encoder")?;
    encoder.must_be("self_attention_model", "rel_pos")?;
    encoder.must_be("subsampling", "dw_striding")?;
    encoder.must_be("conv_norm_type", "batch_norm")?;
    encoder.must_be("untie_biases", true)?;
    encoder.must_be("causal_downsampling", false)?;
    encoder.must_be("att_context_size", serde_json::json!([-1, -1]))?;
    encoder.must_be("feat_out", -1)?;
    encoder.must_be("reduction", Value::Null)?;
    encoder.must_be("conv_context_size", Value::Null)?;
    let (d_model, biases) = (encoder.size("d_model")?, encoder.flag_or("use_bias", true)?);
    let channels = match encoder.number_or("subsampling_conv_channels", -1.0)? {
        n if n < 0.0 => d_model,
        _ => encoder.size("subsampling_conv_channels")?,
    };
    let config = EncoderConfig {
        mels: encoder.size("feat_in")?,
        d_model,
        n_layers: encoder.size("n_layers")?,
        n_heads: encoder.size("n_heads")?,
        d_ff: d_model.saturating_mul(encoder.size_or("ff_expansion_factor", 4)?),
        activation: ActivationConfig::Silu,
        dropout: encoder.number_or("dropout", 0.1)?,
        attention_bias: biases,
        scale_input: encoder.flag_or("xscaling", true)?,
        subsampling: SubsamplingConfig::Convolution { factor: encoder.size_or("subsampling_factor", 4)?, channels },
        position: PositionConfig::Relative,
        context: ContextConfig::Full,
        block: BlockConfig::Conformer {
            kernel: encoder.size_or("conv_kernel_size", 31)?,
            norm: ConvolutionNorm::Batch,
            convolution_bias: biases,
        },
        feed_forward: FeedForwardConfig::Dense,
        intermediate: None,
        languages: None,
    };
    let config = ModelConfig { format_version: FORMAT_VERSION, name, front_end, encoder: config };
    config.validate().map_err(|e| renamed(e, path))?;
    Ok((config, head))
}

fn front_end(fields: &Fields<'_>) -> Result<FrontEndConfig> {
    fields.must_be("normalize", "per_feature")?;
    fields.must_be("window", "hann")?;
    fields.must_be("log", true)?;
    fields.must_be("frame_splicing", 1)?;
    fields.must_be("pad_value", 0.0)?;
    let rate = fields.size_or("sample_rate", 16_000)?;
    let samples = |seconds: f64| (seconds * rate as f64).round() as usize;
    let window_samples = samples(fields.number_or("window_size", 0.02)?);
    let default_fft = window_samples.checked_next_power_of_two().unwrap_or(0);
    Ok(FrontEndConfig {
        sample_rate: rate.try_into().unwrap_or(0),
        window_samples,
        hop: samples(fields.number_or("window_stride", 0.01)?),
        n_fft: fields.size_or("n_fft", default_fft)?,
        ..FrontEndConfig::parakeet(fields.size_or("features", 64)?)
    })
}
