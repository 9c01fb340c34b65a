//! Times our encoder blocks on the weights and inputs that `encoder_peers.py` exports; called by that script, which times PyTorch in the same run.
//!
//! `encoder --peers FOLDER --case NAME --mode forward|train --batch N --threads N --precision f32|bf16|int8 --seconds S` prints one JSON object:
//! `times_ms` and `max_error` (forward) or `losses` (train). Exit code 3: a case that is not supported.

#![allow(clippy::print_stdout)] // the result

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::nn::{LayerNorm, Linear};
use burn::tensor::{Device, Tensor, TensorData};
use omniscribe::checkpoint::safetensors_file::{self, HostTensor, HostTensors};
use omniscribe::checkpoint::weights;
use omniscribe::kernel::gemm::Precision;
use omniscribe::model::arithmetic::Arithmetic;
use omniscribe::model::block::Block;
use omniscribe::model::config::{
    ActivationConfig, BlockConfig, ContextConfig, ConvolutionNorm, EncoderConfig, ExpertGroup, ExpertGroups, FeedForwardConfig,
    PositionConfig, RouterKind, SubsamplingConfig,
};
use omniscribe::model::encoder::Encoder;
use omniscribe::model::feed_forward::Lent;
use omniscribe::model::init::Init;
use omniscribe::model::lengths::Lengths;
use omniscribe::model::moe::router::Router;
use omniscribe::model::ops::ctc::ctc_loss;
use omniscribe::model::ops::linear::linear;
use omniscribe::model::ops::norm::layer_norm;
use omniscribe::model::pass::Pass;
use omniscribe::train::config::OptimizerConfig;
use omniscribe::train::optimizer::Optimizer;

/// Training steps whose losses are compared.
const COMPARED_STEPS: usize = 3;

/// The peers' model: blocks, norm, head, and a router for all blocks where there are experts.
#[derive(Module, Debug)]
struct Twin {
    blocks: Vec<Block>,
    routers: Vec<Router>,
    norm: LayerNorm,
    head: Linear,
}

struct Output {
    logits: Tensor<3>,
    balance: Option<Tensor<1>>,
}

impl Twin {
    fn new(config: &EncoderConfig, labels: usize, device: &Device) -> Self {
        let mut init = Init::new(device, 0);
        let encoder = Encoder::new(config, &mut init).expect("a valid configuration");
        let weight = init.fan_in([config.d_model, labels], config.d_model);
        let head = Linear { weight, bias: Some(init.constant([labels], 0.0)) };
        let norm = burn::nn::LayerNormConfig::new(config.d_model).init(device);
        Self { blocks: encoder.blocks, routers: encoder.routers, norm, head }
    }

    fn forward(&self, x: Tensor<3>, lengths: &Lengths, pass: &Pass) -> Output {
        let mut balance: Option<Tensor<1>> = None;
        let mut x = x;
        for block in &self.blocks {
            let (y, routed) = block.forward(x, lengths, Lent { router: self.routers.first(), ..Lent::default() }, pass);
            x = y;
            if let Some(routed) = routed {
                let b = routed.loss.balance;
                balance = Some(match balance {
                    Some(sum) => sum + b,
                    None => b,
                });
            }
        }
        Output { logits: linear(layer_norm(x, &self.norm), &self.head, pass), balance }
    }
}

fn config(json: &serde_json::Value) -> EncoderConfig {
    let number = |key: &str| json[key].as_u64().unwrap_or(0) as usize;
    let conformer = json["kind"] == "conformer";
    let norm = if json["convolution_norm"] == "batch" { ConvolutionNorm::Batch } else { ConvolutionNorm::Layer };
    let groups = ExpertGroups(vec![ExpertGroup { layers: number("layers"), experts: number("experts") }]);
    EncoderConfig {
        mels: 80,
        d_model: number("d_model"),
        n_layers: number("layers"),
        n_heads: number("heads"),
        d_ff: number("d_ff"),
        activation: if conformer { ActivationConfig::Silu } else { ActivationConfig::Gelu },
        dropout: 0.0,
        attention_bias: true,
        scale_input: false,
        subsampling: SubsamplingConfig::Stacking { factor: 4, hidden: None },
        position: PositionConfig::None,
        context: ContextConfig::Full,
        block: if conformer {
            BlockConfig::Conformer { kernel: number("kernel"), norm, convolution_bias: true }
        } else {
            BlockConfig::Transformer
        },
        feed_forward: match number("experts") {
            0 => FeedForwardConfig::Dense,
            _ => FeedForwardConfig::Experts { router: RouterKind::Omni, groups, router_bias: false, jitter: 0.0 },
        },
        intermediate: None,
        languages: None,
    }
}

/// Our name of a parameter to theirs, and how to fetch it in our layout.
fn ours(name: &str, theirs: &HostTensors, experts: usize) -> HostTensor {
    let take = |n: &str| theirs.get(n).unwrap_or_else(|| panic!("no {n} for {name}")).clone();
    let transposed = |n: &str| transpose(take(n));
    let parts: Vec<&str> = name.split('.').collect();
    match parts.as_slice() {
        ["routers", "0", "weight"] => transposed("router.weight"),
        ["norm", field] => take(&format!("ln.{}", norm_field(field))),
        ["head", "weight"] => transposed("head.weight"),
        ["head", "bias"] => take("head.bias"),
        ["blocks", i, rest @ ..] => {
            let at = |n: &str| format!("layers.{i}.{n}");
            let dense = |prefix: &str, field: &str| match field {
                "up" => transposed(&at(&format!("{prefix}.a.weight"))),
                "up_bias" => take(&at(&format!("{prefix}.a.bias"))),
                "down" => transposed(&at(&format!("{prefix}.b.weight"))),
                _ => take(&at(&format!("{prefix}.b.bias"))),
            };
            let affine = |prefix: &str, field: &str| match field {
                "weight" => transposed(&at(&format!("{prefix}.weight"))),
                _ => take(&at(&format!("{prefix}.bias"))),
            };
            match rest {
                ["opening", "norm", f] => take(&at(&format!("l0.{}", norm_field(f)))),
                ["opening", "feed_forward", f] => dense("f0", f),
                ["attention_norm", f] => take(&at(&format!("ln1.{}", norm_field(f)))),
                ["attention", "qkv", f] => affine("attn.qkv", f),
                ["attention", "out", f] => affine("attn.o", f),
                ["convolution", "norm", f] => take(&at(&format!("cm.ln.{}", norm_field(f)))),
                ["convolution", "module", "pointwise_in", f] => affine("cm.p1", f),
                ["convolution", "module", "pointwise_out", f] => affine("cm.p2", f),
                ["convolution", "module", "depthwise"] => {
                    let t = take(&at("cm.dw.weight"));
                    HostTensor { shape: vec![t.shape[0], t.shape[2]], values: t.values }
                }
                ["convolution", "module", "depthwise_bias"] => take(&at("cm.dw.bias")),
                ["convolution", "module", "norm", .., f] => take(&at(&format!("cm.norm.{}", norm_field(f)))),
                ["feed_forward_norm", f] => take(&at(&format!("ln2.{}", norm_field(f)))),
                ["out_norm", f] => take(&at(&format!("le.{}", norm_field(f)))),
                ["feed_forward", .., "experts", f] => {
                    let each: Vec<HostTensor> = (0..experts).map(|e| dense(&format!("ffn.experts.{e}"), f)).collect();
                    let shape = std::iter::once(experts).chain(each[0].shape.iter().copied()).collect();
                    HostTensor { shape, values: each.into_iter().flat_map(|t| t.values).collect() }
                }
                ["feed_forward", .., f] => dense("ffn", f),
                _ => panic!("no rule for {name}"),
            }
        }
        _ => panic!("no rule for {name}"),
    }
}

fn norm_field(field: &str) -> &str {
    match field {
        "gamma" => "weight",
        "beta" => "bias",
        "mean" => "running_mean",
        "variance" => "running_var",
        other => other,
    }
}

fn transpose(t: HostTensor) -> HostTensor {
    let (rows, columns) = (t.shape[0], t.shape[1]);
    let values = (0..columns).flat_map(|c| (0..rows).map(move |r| r * columns + c)).map(|i| t.values[i]).collect();
    HostTensor { shape: vec![columns, rows], values }
}

fn tensor3(t: &HostTensor, device: &Device) -> Tensor<3> {
    Tensor::from_data(TensorData::new(t.values.clone(), [t.shape[0], t.shape[1], t.shape[2]]), device)
}

fn main() -> ExitCode {
    omniscribe::kernel::memory::keep_freed_memory();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let flags: BTreeMap<&str, &str> = words.chunks_exact(2).map(|p| (p[0].trim_start_matches("--"), p[1].as_str())).collect();
    let Some(folder) = flags.get("peers") else {
        eprintln!(
            "usage: encoder --peers FOLDER --case NAME --mode forward|train --batch N --threads N --precision f32|bf16|int8 --seconds S"
        );
        // `cargo bench` starts every bench without these flags: nothing to measure is not a failure.
        return ExitCode::SUCCESS;
    };
    let folder = Path::new(folder).join(flags["case"]);
    let threads: usize = flags["threads"].parse().expect("a number of threads");
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().expect("the first use of rayon");
    let precision = match flags["precision"] {
        "f32" => Precision::F32,
        "bf16" => Precision::Bf16,
        "int8" => Precision::Int8,
        other => panic!("precision {other}"),
    };
    let seconds: f64 = flags["seconds"].parse().expect("seconds");
    let Ok(text) = std::fs::read_to_string(folder.join("config.json")) else { return ExitCode::from(3) };
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let batch = format!("b{}", flags["batch"]);
    let (data, _) = safetensors_file::load(&folder.join(format!("{batch}.safetensors"))).expect("inputs");
    let (theirs, _) = safetensors_file::load(&folder.join("model.safetensors")).expect("weights");
    let train = flags["mode"] == "train";
    if train && json["convolution_norm"] == "batch" {
        return ExitCode::from(3);
    }
    let device = if train { Device::flex().autodiff() } else { Device::flex() };
    let config = config(&json);
    let experts = json["experts"].as_u64().unwrap_or(0) as usize;
    let twin = Twin::new(&config, json["labels"].as_u64().expect("labels") as usize, &device);
    let names: Vec<String> = weights::collect(&twin).into_keys().collect();
    let tensors = names.into_iter().map(|n| (n.clone(), ours(&n, &theirs, experts))).collect();
    let twin = weights::apply(twin, &tensors, &folder).expect("weights fit");
    let x = tensor3(&data["x"], &device);
    let result =
        if train { time_training(twin, x, &json, precision, seconds) } else { time_forward(twin, x, &data["y"], precision, seconds) };
    println!("{result}");
    ExitCode::SUCCESS
}

fn time_forward(twin: Twin, x: Tensor<3>, golden: &HostTensor, precision: Precision, seconds: f64) -> serde_json::Value {
    let [batch, steps, _] = x.dims();
    let lengths = Lengths::full(batch, steps);
    let (twin, arithmetic) = Arithmetic::pack(precision, twin, &x.device());
    let forward = || twin.forward(x.clone(), &lengths, &Pass::inference(&arithmetic)).logits.into_data();
    let first = forward();
    let values = first.as_slice::<f32>().expect("f32");
    let max_error = values.iter().zip(&golden.values).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
    let times = repeat(seconds, || {
        forward();
    });
    serde_json::json!({ "times_ms": times, "max_error": max_error })
}

fn time_training(twin: Twin, x: Tensor<3>, json: &serde_json::Value, precision: Precision, seconds: f64) -> serde_json::Value {
    let [batch, steps, _] = x.dims();
    let lengths = Lengths::full(batch, steps);
    let train = &json["train"];
    let number = |key: &str| train[key].as_f64().unwrap_or(0.0);
    let rows = train["targets"].as_array().expect("targets");
    let target = |row: &serde_json::Value| row.as_array().expect("labels").iter().map(|v| v.as_u64().expect("a label") as u32).collect();
    let targets: Arc<Vec<Vec<u32>>> = Arc::new(rows.iter().take(batch).map(target).collect());
    let labels = targets.iter().map(Vec::len).sum::<usize>() as f64;
    let optimizer = OptimizerConfig {
        lr: number("learning_rate"),
        beta1: train["betas"][0].as_f64().expect("beta1"),
        beta2: train["betas"][1].as_f64().expect("beta2"),
        epsilon: number("epsilon"),
        weight_decay: number("weight_decay"),
        clip: 1e9,
        average: 0.0,
        accumulate: 1,
    };
    let mut state = Optimizer::new(optimizer, &twin);
    let mut twin = Some(twin);
    let mut step = || {
        let model = twin.take().expect("the model of the step before");
        let output = model.forward(x.clone(), &lengths, &Pass::training(precision, 0));
        let mut loss = ctc_loss(output.logits, &lengths, &targets, 0).div_scalar(labels);
        if let Some(balance) = output.balance {
            loss = loss + balance.mul_scalar(number("balance_weight"));
        }
        let value = loss.clone().detach().into_scalar::<f32>();
        let gradients = loss.backward();
        state.accumulate(&model, &gradients);
        let (model, _) = state.step(model, optimizer.lr, 1.0);
        twin = Some(model);
        value
    };
    let losses: Vec<f32> = (0..COMPARED_STEPS).map(|_| step()).collect();
    let times = repeat(seconds, || {
        step();
    });
    serde_json::json!({ "times_ms": times, "losses": losses })
}

/// Milliseconds of each run, for about `seconds` and at least three runs, after one that is not counted.
fn repeat(seconds: f64, mut f: impl FnMut()) -> Vec<f64> {
    f();
    let (start, mut times) = (Instant::now(), Vec::new());
    while times.len() < 3 || start.elapsed() < Duration::from_secs_f64(seconds) {
        let run = Instant::now();
        f();
        times.push(run.elapsed().as_secs_f64() * 1e3);
    }
    times
}
