//! The model: fused operations against composed ones, what padding and batch-mates must not change, shared routers, model folders.

use std::sync::Arc;

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::{LayerNorm, Linear};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use omniscribe::checkpoint::safetensors_file::HostTensors;
use omniscribe::checkpoint::weights::{self, Names};
use omniscribe::kernel::activation::Activation;
use omniscribe::kernel::attention::AttentionMask;
use omniscribe::kernel::gemm::Precision;
use omniscribe::kernel::rng::SplitMix;
use omniscribe::model::asr::{AsrModel, AsrOutput};
use omniscribe::model::config::{
    ActivationConfig, BlockConfig, ClusterStatistics, ContextConfig, ConvolutionNorm, EncoderConfig, ExpertGroups, FeedForwardConfig,
    IntermediateConfig, MemoryWeighting, PositionConfig, RouterKind, SubsamplingConfig,
};
use omniscribe::model::feed_forward::{FeedForward, Routed};
use omniscribe::model::lengths::Lengths;
use omniscribe::model::ops::activation::{activate, glu};
use omniscribe::model::ops::attention::{AttentionSpec, Relative, attention};
use omniscribe::model::ops::ctc::ctc_loss;
use omniscribe::model::ops::depthwise::depthwise;
use omniscribe::model::ops::dropout::{add_branch, dropout};
use omniscribe::model::ops::experts::{ExpertWeights, Grouping, expert_feed_forward};
use omniscribe::model::ops::fused;
use omniscribe::model::ops::linear::linear;
use omniscribe::model::ops::norm::{layer_norm, layer_norm_activate};
use omniscribe::model::pass::Pass;
use omniscribe::model::position::relative_sinusoids;

use crate::moe::{device, gradient, param, random, tensor, values};
use crate::oracle;

/// Tensors of a run by name.
type Results = Vec<(String, Vec<f64>)>;

/// Runs `run` on the fused kernels and on the composed operations; every tensor must agree to `tolerance` of its largest value (or of 1).
fn forms_agree(what: &str, tolerance: f64, run: impl Fn() -> Results) {
    same(what, tolerance, 1.0, &run(), &fused::composed(&run));
}

/// Every tensor agrees to `tolerance` of its largest value, taken as `least` where it is smaller.
fn same(what: &str, tolerance: f64, least: f64, ours: &Results, golden: &Results) {
    assert_eq!(ours.len(), golden.len(), "{what}: number of tensors");
    for ((name, a), (golden_name, b)) in ours.iter().zip(golden) {
        assert_eq!(name, golden_name, "{what}");
        let scale = b.iter().fold(least, |m, v| m.max(v.abs()));
        assert!(a.iter().all(|v| v.is_finite()), "{what}: {name} is finite");
        oracle::assert_close(&format!("{what}: {name}"), a, b, tolerance * scale);
    }
}

/// Random sizes, tensors and lengths from a seed.
struct Draw(SplitMix);

impl Draw {
    fn new(seed: u64) -> Self {
        Self(SplitMix::new(seed))
    }

    /// Between `from` and `to`, both included.
    fn size(&mut self, from: usize, to: usize) -> usize {
        from + (self.0.next_u64() % (to - from + 1) as u64) as usize
    }

    fn tensor<const D: usize>(&mut self, shape: [usize; D], scale: f64) -> Tensor<D> {
        tensor(&random(&mut self.0, shape.iter().product(), scale), shape)
    }

    /// A leaf that gathers a gradient.
    fn leaf<const D: usize>(&mut self, shape: [usize; D], scale: f64) -> Tensor<D> {
        self.tensor(shape, scale).require_grad()
    }

    /// One row without padding, one with at least one valid step, the others with any number.
    fn lengths(&mut self, batch: usize, steps: usize) -> Lengths {
        let valid: Vec<usize> = (0..batch).map(|row| if row == 0 { steps } else { self.size(usize::from(row == 1), steps) }).collect();
        Lengths::new(valid, steps)
    }
}

fn named<const D: usize>(name: &str, t: &Tensor<D>) -> (String, Vec<f64>) {
    (name.to_string(), values(t))
}

fn grad<const D: usize>(name: &str, t: &Tensor<D>, gradients: &Gradients) -> (String, Vec<f64>) {
    (format!("grad {name}"), gradient(t, gradients))
}

fn exact() -> Pass {
    Pass::inference(Precision::F32)
}

/// Fused operations against their composed forms.
mod ops {
    use super::*;

    /// f32 sums in another order over at most 200 terms: a few units in the last place of the largest value.
    const SUMS: f64 = 2e-6;
    /// Exponentials and erf of either form are within 2 units in the last place of the exact ones.
    const POINTWISE: f64 = 6e-7;
    /// Two products, a softmax between, gradients summed over up to 1,400 queries, and rotations whose tables are rounded from f64 once.
    const ATTENTION: f64 = 3e-6;
    /// Equal masks and one multiplication and addition, rounded once or twice.
    const DROPOUT: f64 = 2e-7;

    /// Shapes `[batch, steps, width]`: random small ones, the smallest, and one large enough for several threads.
    fn shapes(seed: u64) -> Vec<[usize; 3]> {
        let mut draw = Draw::new(seed);
        let mut shapes: Vec<_> = (0..5).map(|_| [draw.size(1, 4), draw.size(1, 17), draw.size(1, 33)]).collect();
        shapes.extend([[1, 1, 1], [4, 90, 128]]);
        shapes
    }

    #[test]
    fn the_composed_form_is_chosen_and_given_back() {
        for device in [Device::flex(), device()] {
            assert!(fused::available(&device));
            fused::composed(|| {
                assert!(!fused::available(&device));
                fused::composed(|| assert!(!fused::available(&device)));
                assert!(!fused::available(&device));
            });
            assert!(fused::available(&device));
        }
        let caught = std::panic::catch_unwind(|| fused::composed(|| std::panic::resume_unwind(Box::new(()))));
        assert!(caught.is_err() && fused::available(&Device::flex()), "given back by a panic too");
    }

    #[test]
    fn linear_layers() {
        for (i, [batch, steps, width]) in shapes(1).into_iter().enumerate() {
            let mut draw = Draw::new(i as u64);
            let out = draw.size(1, 70);
            let x = draw.leaf([batch, steps, width], 1.0);
            let probe = draw.tensor([batch, steps, out], 1.0);
            let weight: Param<Tensor<2>> = param(&random(&mut draw.0, width * out, 0.3), [width, out]);
            let bias: Param<Tensor<1>> = param(&random(&mut draw.0, out, 1.0), [out]);
            for bias in [None, Some(bias)] {
                let layer = Linear { weight: weight.clone(), bias };
                forms_agree(&format!("linear {batch} {steps} {width} {out}"), SUMS, || {
                    let y = linear(x.clone(), &layer, &exact());
                    let gradients = (y.clone() * probe.clone()).sum().backward();
                    let mut results = vec![named("y", &y), grad("x", &x, &gradients), grad("weight", &layer.weight.val(), &gradients)];
                    results.extend(layer.bias.as_ref().map(|b| grad("bias", &b.val(), &gradients)));
                    results
                });
                // An input that needs no gradient, of two dimensions.
                let flat: Tensor<2> = tensor(&values(&x), [batch * steps, width]);
                forms_agree("linear on features", SUMS, || {
                    let y = linear(flat.clone(), &layer, &exact());
                    let gradients = (y.clone() * probe.clone().reshape([batch * steps, out])).sum().backward();
                    vec![named("y", &y), grad("weight", &layer.weight.val(), &gradients)]
                });
            }
        }
    }

    #[test]
    fn layer_norms() {
        for (i, [batch, steps, width]) in shapes(2).into_iter().enumerate() {
            let mut draw = Draw::new(i as u64);
            // A norm over one channel divides rounding errors by the root of epsilon.
            let width = width.max(2);
            let x = draw.leaf([batch, steps, width], 2.0);
            let probe = draw.tensor([batch, steps, width], 1.0);
            let mut norm: LayerNorm = burn::nn::LayerNormConfig::new(width).with_epsilon(1e-5).init(&device());
            norm.gamma = param(&random(&mut draw.0, width, 1.0), [width]);
            norm.beta = Some(param(&random(&mut draw.0, width, 1.0), [width]));
            for kind in [Activation::Identity, Activation::Silu, Activation::Relu, Activation::Gelu] {
                forms_agree(&format!("norm {batch} {steps} {width} {kind:?}"), SUMS, || {
                    let y = match kind {
                        Activation::Identity => layer_norm(x.clone(), &norm),
                        _ => layer_norm_activate(x.clone(), &norm, kind),
                    };
                    let gradients = (y.clone() * probe.clone()).sum().backward();
                    let beta = norm.beta.as_ref().expect("a shift").val();
                    vec![
                        named("y", &y),
                        grad("x", &x, &gradients),
                        grad("gamma", &norm.gamma.val(), &gradients),
                        grad("beta", &beta, &gradients),
                    ]
                });
            }
        }
    }

    #[test]
    fn activations_and_gates() {
        for (i, [batch, steps, width]) in shapes(3).into_iter().enumerate() {
            let mut draw = Draw::new(i as u64);
            let x = draw.leaf([batch, steps, 2 * width], 3.0);
            let probe = draw.tensor([batch, steps, 2 * width], 1.0);
            for kind in [Activation::Identity, Activation::Relu, Activation::Silu, Activation::Gelu, Activation::Sigmoid] {
                forms_agree(&format!("{kind:?} {batch} {steps} {width}"), POINTWISE, || {
                    let y = activate(x.clone(), kind);
                    let gradients = (y.clone() * probe.clone()).sum().backward();
                    vec![named("y", &y), grad("x", &x, &gradients)]
                });
            }
            let probe = probe.slice([0..batch, 0..steps, 0..width]);
            forms_agree(&format!("glu {batch} {steps} {width}"), POINTWISE, || {
                let y = glu(x.clone());
                let gradients = (y.clone() * probe.clone()).sum().backward();
                vec![named("y", &y), grad("x", &x, &gradients)]
            });
        }
    }

    #[test]
    fn depthwise_convolutions() {
        for (i, [batch, steps, width]) in shapes(4).into_iter().enumerate() {
            for taps in [1, 3, 9, 31] {
                let mut draw = Draw::new((i * 100 + taps) as u64);
                let (x, weight) = (draw.leaf([batch, steps, width], 1.0), draw.leaf([width, taps], 0.5));
                let bias = (taps != 3).then(|| draw.leaf([width], 1.0));
                let probe = draw.tensor([batch, steps, width], 1.0);
                let lengths = draw.lengths(batch, steps);
                let what = format!("depthwise {batch} {steps} {width}, {taps} taps, {:?}", lengths.valid());
                let chunk = [None, Some(1), Some(4), Some(10)][(i + taps) % 4];
                forms_agree(&format!("{what}, chunk {chunk:?}"), SUMS, || {
                    let y = depthwise(x.clone(), weight.clone(), bias.clone(), &lengths, chunk);
                    assert!(values(&y).iter().all(|v| v.is_finite()), "{what}: finite in the padding");
                    let y = lengths.clear_padding(y);
                    let gradients = (y.clone() * probe.clone()).sum().backward();
                    let mut results = vec![named("y", &y), grad("x", &x, &gradients), grad("weight", &weight, &gradients)];
                    results.extend(bias.as_ref().map(|b| grad("bias", b, &gradients)));
                    results
                });
            }
        }
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Positions {
        Plain,
        Rotary,
        Relative,
    }

    #[test]
    fn attentions() {
        // The last one has more queries than one block of scores holds.
        let sizes = [(1, 1, 1, 2), (2, 5, 2, 4), (3, 17, 4, 6), (2, 33, 3, 16), (2, 150, 4, 32), (2, 700, 2, 8)];
        for (i, (batch, steps, heads, d_head)) in sizes.into_iter().enumerate() {
            for kind in [Positions::Plain, Positions::Rotary, Positions::Relative] {
                for (padded, mask) in
                    [(false, AttentionMask::Full), (true, AttentionMask::Full), (true, AttentionMask::Window { left: 5, right: 2 })]
                {
                    let mut draw = Draw::new(i as u64);
                    let d_model = heads * d_head;
                    let qkv = draw.leaf([batch, steps, 3 * d_model], 1.0);
                    let (u, v) = (draw.leaf([heads, d_head], 0.5), draw.leaf([heads, d_head], 0.5));
                    let positions = draw.leaf([2 * steps - 1, d_model], 0.7);
                    let probe = draw.tensor([batch, steps, d_model], 1.0);
                    let lengths = if padded { draw.lengths(batch, steps) } else { Lengths::full(batch, steps) };
                    let what = format!("{kind:?} attention {batch} {steps} {heads} {d_head}, {mask:?}, {:?}", lengths.valid());
                    forms_agree(&what, ATTENTION, || {
                        let relative =
                            (kind == Positions::Relative).then(|| Relative { u: u.clone(), v: v.clone(), positions: positions.clone() });
                        let spec = AttentionSpec { heads, lengths: &lengths, rotary: kind == Positions::Rotary, mask, first_query: 0 };
                        let y = attention(qkv.clone(), spec, relative, &exact());
                        assert!(values(&y).iter().all(|v| v.is_finite()), "{what}: finite in the padding");
                        let y = lengths.clear_padding(y);
                        let gradients = (y.clone() * probe.clone()).sum().backward();
                        let mut results = vec![named("y", &y), grad("qkv", &qkv, &gradients)];
                        if kind == Positions::Relative {
                            results.extend([
                                grad("u", &u, &gradients),
                                grad("v", &v, &gradients),
                                grad("positions", &positions, &gradients),
                            ]);
                        }
                        results
                    });
                }
            }
        }
    }

    /// A score by its definition: with one-hot queries, the key that the sinusoids of a distance point at must win.
    #[test]
    fn relative_positions_count_from_query_to_key() {
        let (steps, d_model) = (9, 16);
        let sinusoids = relative_sinusoids(steps, d_model, &Device::flex());
        let rows = values(&sinusoids);
        let at = |distance: i64| &rows[(steps as i64 - 1 - distance) as usize * d_model..][..d_model];
        assert_eq!(at(0).iter().step_by(2).copied().collect::<Vec<_>>(), vec![0.0; d_model / 2], "sin 0");
        assert!(at(1)[0] > 0.8 && at(-1)[0] < -0.8, "positive distances are keys before the query");
        for (distance, sharpness) in [(0i64, 40.0), (2, 40.0), (-3, 40.0)] {
            // Queries and keys 0, so only `v . p(query - key)` counts; v points along the wanted distance.
            let v: Vec<f64> = at(distance).iter().map(|p| p * sharpness).collect();
            let mut qkv = vec![0.0; steps * 3 * d_model];
            (0..steps).for_each(|t| qkv[t * 3 * d_model + 2 * d_model] = t as f64);
            for form in [false, true] {
                let run = || {
                    let relative = Relative {
                        u: Tensor::zeros([1, d_model], &device()),
                        v: tensor(&v, [1, d_model]),
                        positions: sinusoids.clone().autodiff(),
                    };
                    let lengths = Lengths::full(1, steps);
                    let spec = AttentionSpec { heads: 1, lengths: &lengths, rotary: false, mask: AttentionMask::Full, first_query: 0 };
                    values(&attention(tensor(&qkv, [1, steps, 3 * d_model]), spec, Some(relative), &exact()))
                };
                let y = if form { fused::composed(run) } else { run() };
                for t in 3..steps - 3 {
                    let seen = y[t * d_model];
                    assert!(
                        (seen - (t as f64 - distance as f64)).abs() < 0.2,
                        "composed {form}: distance {distance}, query {t} looks at {seen}"
                    );
                }
            }
        }
    }

    #[test]
    fn nothing_is_read_from_the_padding() {
        let (batch, steps, width) = (3, 11, 12);
        let mut draw = Draw::new(9);
        let lengths = Lengths::new(vec![11, 4, 7], steps);
        let (weight, qkv) = (draw.leaf([width, 5], 0.5), draw.tensor([batch, steps, 3 * width], 1.0));
        let x = draw.tensor([batch, steps, width], 1.0);
        let dead = |width: usize| lengths.live(&device()).equal_elem(0.0).reshape([batch, steps, 1]).expand([batch, steps, width]);
        let spec = |rotary| AttentionSpec { heads: 3, lengths: &lengths, rotary, mask: AttentionMask::Full, first_query: 0 };
        for form in [false, true] {
            let run = |fill: f64| {
                let (x, qkv) = (x.clone().mask_fill(dead(width), fill), qkv.clone().mask_fill(dead(3 * width), fill));
                let outputs = [
                    depthwise(x, weight.clone(), None, &lengths, None),
                    attention(qkv.clone(), spec(false), None, &exact()),
                    attention(qkv, spec(true), None, &exact()),
                ];
                let cleared: Vec<_> = outputs.into_iter().map(|y| lengths.clear_padding(y)).collect();
                let gradients = cleared[0].clone().square().sum().backward();
                let mut all: Vec<_> = cleared.iter().map(values).collect();
                all.push(gradient(&weight, &gradients));
                all
            };
            let both = || (run(0.0), run(f64::NAN));
            let (clean, garbage) = if form { fused::composed(both) } else { both() };
            assert!(garbage.iter().flatten().all(|v| v.is_finite()), "composed {form}");
            assert_eq!(clean, garbage, "composed {form}");
        }
    }

    #[test]
    fn dropout_and_residuals() {
        for (i, shape) in shapes(5).into_iter().enumerate() {
            let mut draw = Draw::new(i as u64);
            let (residual, branch) = (draw.leaf(shape, 1.0), draw.leaf(shape, 1.0));
            let probe = draw.tensor(shape, 1.0);
            for (rate, scale) in [(0.0, 1.0), (0.1, 0.5), (0.5, 1.0)] {
                for training in [false, true] {
                    let pass = || if training { Pass::training(Precision::F32, 77) } else { exact() };
                    let what = format!("{shape:?}, rate {rate}, scale {scale}, training {training}");
                    forms_agree(&format!("residual {what}"), DROPOUT, || {
                        let y = add_branch(residual.clone(), branch.clone(), scale, rate, &pass());
                        let gradients = (y.clone() * probe.clone()).sum().backward();
                        vec![named("y", &y), grad("residual", &residual, &gradients), grad("branch", &branch, &gradients)]
                    });
                    forms_agree(&format!("dropout {what}"), DROPOUT, || {
                        let y = dropout(branch.clone(), rate, &pass());
                        let gradients = (y.clone() * probe.clone()).sum().backward();
                        vec![named("y", &y), grad("branch", &branch, &gradients)]
                    });
                }
            }
        }
        // Half of 46080 elements are dropped, give or take five standard deviations; the mask is that of the gradient.
        let x = tensor(&[1.0; 46_080], [4, 90, 128]).require_grad();
        let y = dropout(x.clone(), 0.5, &Pass::training(Precision::F32, 1));
        let gradients = y.clone().sum().backward();
        let dropped = values(&y).iter().filter(|v| **v == 0.0).count() as f64;
        assert!((dropped - 23_040.0).abs() < 5.0 * (46_080.0f64 / 4.0).sqrt(), "{dropped} dropped");
        assert_eq!(values(&y), gradient(&x, &gradients));
    }

    #[test]
    fn feed_forwards() {
        for seed in 0..10 {
            let mut draw = Draw::new(seed);
            let (rows, d_model, d_ff) = if seed == 0 { (300, 96, 160) } else { (draw.size(1, 40), draw.size(1, 24), draw.size(1, 48)) };
            let experts = if seed % 2 == 0 { 1 } else { draw.size(2, 6) };
            let grouping = Arc::new(if experts == 1 {
                Grouping::identity(rows)
            } else {
                let choices: Vec<_> = (0..rows).map(|_| (draw.size(0, 3) > 0).then(|| draw.size(0, experts - 1))).collect();
                Grouping::new(&choices, experts, 1)
            });
            let x = draw.leaf([rows, d_model], 1.0);
            let weights = ExpertWeights {
                up: draw.leaf([experts, d_model, d_ff], 0.3),
                up_bias: draw.leaf([experts, d_ff], 0.3),
                down: draw.leaf([experts, d_ff, d_model], 0.3),
                down_bias: draw.leaf([experts, d_model], 0.3),
            };
            let probe = draw.tensor([rows, d_model], 1.0);
            for kind in [Activation::Relu, Activation::Silu, Activation::Gelu] {
                forms_agree(&format!("feed-forward {seed}: {rows} {d_model} {d_ff}, {experts} experts, {kind:?}"), SUMS, || {
                    let y = expert_feed_forward(x.clone(), weights.clone(), grouping.clone(), kind, &exact());
                    let gradients = (y.clone() * probe.clone()).sum().backward();
                    vec![
                        named("y", &y),
                        grad("x", &x, &gradients),
                        grad("up", &weights.up, &gradients),
                        grad("up bias", &weights.up_bias, &gradients),
                        grad("down", &weights.down, &gradients),
                        grad("down bias", &weights.down_bias, &gradients),
                    ]
                });
            }
        }
    }

    /// Burn's loss sums over the alignment in f32 logarithms of up to about 100: half a unit in their last place for each of 40 steps.
    const CTC: f64 = 5e-6;

    #[test]
    fn ctc_losses() {
        for seed in 0..8 {
            let mut draw = Draw::new(seed);
            let (batch, steps, vocab) = (draw.size(1, 4), draw.size(6, 40), draw.size(3, 30));
            let blank = if seed % 2 == 0 { 0 } else { vocab - 1 };
            let lengths = draw.lengths(batch, steps);
            let token = |draw: &mut Draw| loop {
                let id = draw.size(0, vocab - 1);
                if id != blank {
                    return id as u32;
                }
            };
            // As many tokens as fit even if all are equal, so that each needs a blank before it; the last row cannot be aligned.
            let mut targets: Vec<Vec<u32>> =
                lengths.valid().iter().map(|&n| (0..draw.size(0, n.div_ceil(2))).map(|_| token(&mut draw)).collect()).collect();
            if batch > 2 {
                targets[batch - 1] = (0..lengths.valid()[batch - 1] + 1).map(|_| token(&mut draw)).collect();
            }
            let targets = Arc::new(targets);
            let logits = draw.leaf([batch, steps, vocab], 1.5);
            forms_agree(&format!("ctc {seed}: {batch} {steps} {vocab}, {:?}", lengths.valid()), CTC, || {
                let loss = ctc_loss(logits.clone(), &lengths, &targets, blank);
                // The gradient of a loss that goes on into other terms.
                let gradients = loss.clone().mul_scalar(0.7).backward();
                vec![named("loss", &loss), grad("logits", &logits, &gradients)]
            });
        }
    }
}

/// Encoders of every kind, small.
fn configs() -> Vec<(&'static str, EncoderConfig)> {
    let experts = |router, groups: &str, router_bias, jitter| FeedForwardConfig::Experts {
        router,
        groups: ExpertGroups::try_from(groups.to_string()).expect("groups"),
        router_bias,
        jitter,
    };
    let adaptive = |router, groups: &str, statistics| FeedForwardConfig::Adaptive {
        router,
        groups: ExpertGroups::try_from(groups.to_string()).expect("groups"),
        statistics,
    };
    let cape = PositionConfig::Cape {
        freq_scale: 30.0,
        delta: 0.03,
        content_scale: 1.5,
        normalize: true,
        max_global_shift: 0.5,
        max_local_shift: 0.5,
        max_global_scaling: 1.2,
    };
    let base = EncoderConfig {
        mels: 12,
        d_model: 32,
        n_layers: 4,
        n_heads: 4,
        d_ff: 48,
        activation: ActivationConfig::Gelu,
        dropout: 0.1,
        attention_bias: true,
        scale_input: false,
        subsampling: SubsamplingConfig::Stacking { factor: 4, hidden: None },
        position: cape,
        context: ContextConfig::Window { left: 6, right: 2 },
        block: BlockConfig::Transformer,
        feed_forward: experts(RouterKind::Omni, "2x2-1x4-1x1", false, 0.1),
        intermediate: None,
        languages: None,
    };
    let conformer = |kernel, norm, convolution_bias| BlockConfig::Conformer { kernel, norm, convolution_bias };
    let striding = |factor| EncoderConfig {
        activation: ActivationConfig::Silu,
        attention_bias: false,
        scale_input: true,
        subsampling: SubsamplingConfig::Convolution { factor, channels: 6 },
        position: PositionConfig::Relative,
        context: ContextConfig::Full,
        block: conformer(9, ConvolutionNorm::Batch, false),
        feed_forward: FeedForwardConfig::Dense,
        ..base.clone()
    };
    vec![
        (
            "conformer, rotary, stacking with a hidden layer, omni, self-conditioned",
            EncoderConfig {
                activation: ActivationConfig::Silu,
                subsampling: SubsamplingConfig::Stacking { factor: 3, hidden: Some(40) },
                position: PositionConfig::Rotary,
                context: ContextConfig::Full,
                block: conformer(7, ConvolutionNorm::Layer, true),
                feed_forward: experts(RouterKind::Omni, "4x4", true, 0.0),
                intermediate: Some(IntermediateConfig { layers: vec![1, 3], self_condition: true }),
                ..base.clone()
            },
        ),
        ("conformer, relative, convolution by 4, batch norm", striding(4)),
        ("conformer, relative, convolution by 8, batch norm", striding(8)),
        (
            "transformer, no positions, convolution by 2, switch, middle head",
            EncoderConfig {
                activation: ActivationConfig::Relu,
                subsampling: SubsamplingConfig::Convolution { factor: 2, channels: 4 },
                position: PositionConfig::None,
                context: ContextConfig::Full,
                feed_forward: experts(RouterKind::Switch, "4x3", false, 0.0),
                intermediate: Some(IntermediateConfig { layers: vec![2], self_condition: false }),
                ..base.clone()
            },
        ),
        (
            "transformer, rotary, stacking, switch routers that adapt to the clusters of the utterance",
            EncoderConfig {
                position: PositionConfig::Rotary,
                context: ContextConfig::Full,
                feed_forward: adaptive(RouterKind::Switch, "2x4-1x1-1x3", ClusterStatistics::Utterance),
                ..base.clone()
            },
        ),
        (
            "transformer, no positions, stacking, a shared router that adapts to running clusters",
            EncoderConfig {
                position: PositionConfig::None,
                feed_forward: adaptive(RouterKind::Omni, "4x4", ClusterStatistics::Running { momentum: 0.9 }),
                ..base.clone()
            },
        ),
        (
            "transformer, rotary, stacking, two of four experts by a shared sigmoid router",
            EncoderConfig {
                position: PositionConfig::Rotary,
                feed_forward: FeedForwardConfig::Sigma {
                    router: RouterKind::Omni,
                    groups: ExpertGroups::try_from("3x4-1x1".to_string()).expect("groups"),
                    top_k: 2,
                    expert_dropout: 0.2,
                },
                ..base.clone()
            },
        ),
        (
            "transformer, no positions, stacking, memory in two layers",
            EncoderConfig {
                position: PositionConfig::None,
                feed_forward: FeedForwardConfig::Memory {
                    layers: vec![2, 4],
                    subkeys: 6,
                    query: 8,
                    heads: 2,
                    top_k: 3,
                    weighting: MemoryWeighting::Softmax,
                },
                ..base.clone()
            },
        ),
        (
            "transformer, rotary, stacking, two strata of experts in every layer",
            EncoderConfig {
                position: PositionConfig::Rotary,
                feed_forward: FeedForwardConfig::Strata { router: RouterKind::Switch, strata: vec![2, 2] },
                ..base.clone()
            },
        ),
        (
            "transformer, no positions, stacking, strata with gates shared by all layers",
            EncoderConfig {
                position: PositionConfig::None,
                feed_forward: FeedForwardConfig::Strata { router: RouterKind::Omni, strata: vec![1, 2, 2] },
                ..base.clone()
            },
        ),
        ("transformer, cape, stacking, omni in groups", base),
    ]
}

const VOCAB: usize = 13;

/// A model whose biases, norms and statistics are all off their defaults.
fn model(config: &EncoderConfig, seed: u64, device: &Device) -> AsrModel {
    let model = AsrModel::new(config, VOCAB, seed, device).expect("a valid configuration");
    let mut tensors = weights::collect(&model);
    let mut rng = SplitMix::stream(seed, 1);
    for (name, t) in &mut tensors {
        let last = name.rsplit('.').next().unwrap_or_default();
        for v in &mut t.values {
            *v += match last {
                "variance" | "spread" => 2.0 * (rng.next_f32() - 0.4),
                "gamma" | "beta" | "mean" | "bias" | "up_bias" | "down_bias" | "u" | "v" => 0.2 * rng.next_normal(),
                // Fresh weights are small; larger ones make softmaxes and routers decide.
                _ => 0.5 * *v,
            };
        }
    }
    weights::apply(model, &tensors, "memory".as_ref()).expect("its own weights")
}

/// Utterances of random features, up to 60 frames each.
fn utterances(draw: &mut Draw, count: usize, mels: usize) -> Vec<Vec<f32>> {
    clips(draw, count, 60, mels)
}

fn clips(draw: &mut Draw, count: usize, longest: usize, mels: usize) -> Vec<Vec<f32>> {
    let mut clip = || {
        let frames = draw.size(1, longest);
        random(&mut draw.0, frames * mels, 1.0).into_iter().map(|v| v as f32).collect()
    };
    (0..count).map(|_| clip()).collect()
}

/// A batch with `padding` in the padding, `extra` frames longer than its longest utterance.
fn batch(utterances: &[&[f32]], mels: usize, extra: usize, mut padding: impl FnMut() -> f32, device: &Device) -> (Tensor<3>, Lengths) {
    let valid: Vec<usize> = utterances.iter().map(|u| u.len() / mels).collect();
    let frames = valid.iter().max().copied().unwrap_or(0) + extra;
    let mut features = Vec::new();
    for u in utterances {
        features.extend_from_slice(u);
        features.extend((u.len()..frames * mels).map(|_| padding()));
    }
    (Tensor::from_data(TensorData::new(features, [utterances.len(), frames, mels]), device), Lengths::new(valid, frames))
}

/// Logits of the valid steps of every utterance, for the last head and the middle ones.
fn logits(output: &AsrOutput) -> Vec<Vec<Vec<f64>>> {
    let heads = std::iter::once(&output.logits).chain(&output.intermediate);
    heads
        .map(|head| {
            let (all, [_, steps, vocab]) = (values(head), head.dims());
            let row = |(i, &n): (usize, &usize)| all[i * steps * vocab..][..n * vocab].to_vec();
            output.lengths.valid().iter().enumerate().map(row).collect()
        })
        .collect()
}

/// Choices of the valid steps of utterance `row` in every layer with experts.
fn choices(output: &AsrOutput, row: usize) -> Vec<Vec<Option<usize>>> {
    let steps = output.lengths.padded();
    let valid = output.lengths.valid()[row];
    output.routed.iter().flatten().map(|r| r.routing.choices[row * steps..][..valid].to_vec()).collect()
}

fn argmax(logits: &[f64]) -> Vec<usize> {
    let best = |step: &[f64]| (0..step.len()).fold(0, |best, i| if step[i] > step[best] { i } else { best });
    logits.chunks_exact(VOCAB).map(best).collect()
}

/// The gradient of every parameter by name.
fn gradients_by_name<M: Module>(model: &M, gradients: &Gradients) -> Results {
    struct Visit<'a>(Names, &'a Gradients, Results);
    impl ModuleVisitor for Visit<'_> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.0.enter(name);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.0.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.2.push((self.0.current(), gradient(&param.val(), self.1)));
        }
    }
    let mut visit = Visit(Names::default(), gradients, Vec::new());
    model.visit(&mut visit);
    visit.2
}

/// Models as a whole.
mod whole {
    use omniscribe::train::config::LossConfig;
    use omniscribe::train::step::loss;

    use super::*;

    /// Four layers of f32 sums in another order; logits reach about 5.
    const LOGITS: f64 = 4e-6;
    /// The same through the backward pass, relative to the largest gradient of a tensor.
    const GRADIENTS: f64 = 1e-5;
    /// Gradients below this are sums of terms that cancel.
    const LEAST_GRADIENT: f64 = 1e-3;
    /// What an utterance may differ by when batch-mates change the blocks in which sums are computed.
    const ALONE: f64 = 1e-5;
    /// Relative error of the logits in bfloat16: each of some 20 products in a row rounds its operands to 8 bits, one part in 512 at most.
    const BF16: f64 = 0.015;
    /// As above where some step went to another expert than in f32: its output is another one altogether.
    const BF16_REROUTED: f64 = 0.15;
    /// Share of the choices that bfloat16 may change: those of steps whose two best experts are about equal.
    const REROUTED: f64 = 0.03;

    fn targets(draw: &mut Draw, lengths: &Lengths, rule: &SubsamplingConfig) -> Vec<Vec<u32>> {
        let longest = |&n: &usize| rule.output_len(n).div_ceil(2);
        lengths
            .valid()
            .iter()
            .map(longest)
            .collect::<Vec<_>>()
            .into_iter()
            .map(|n| (0..n).map(|_| draw.size(1, VOCAB - 1) as u32).collect())
            .collect()
    }

    #[test]
    fn fused_models_equal_composed_ones() {
        for (name, config) in configs() {
            let mut draw = Draw::new(1);
            let model = model(&config, 3, &Device::flex());
            let clips = utterances(&mut draw, 4, config.mels);
            let clips: Vec<&[f32]> = clips.iter().map(Vec::as_slice).collect();
            let (features, lengths) = batch(&clips, config.mels, 3, || f32::NAN, &Device::flex());
            let run = || model.forward(features.clone(), &lengths, &exact());
            let (fast, golden) = (run(), fused::composed(run));
            for row in 0..clips.len() {
                assert_eq!(choices(&fast, row), choices(&golden, row), "{name}: choices of {row}");
            }
            for (head, (fast, golden)) in logits(&fast).iter().zip(logits(&golden)).enumerate() {
                for (row, (fast, golden)) in fast.iter().zip(golden).enumerate() {
                    assert!(golden.iter().any(|v| v.abs() > 0.1), "{name}: logits worth comparing");
                    oracle::assert_close(&format!("{name}: head {head}, utterance {row}"), fast, &golden, LOGITS);
                }
            }
        }
    }

    #[test]
    fn fused_training_equals_composed_training() {
        for (name, config) in configs() {
            let mut draw = Draw::new(2);
            let model = model(&config, 4, &device());
            let clips = utterances(&mut draw, 3, config.mels);
            let clips: Vec<&[f32]> = clips.iter().map(Vec::as_slice).collect();
            let (features, lengths) = batch(&clips, config.mels, 2, || f32::NAN, &device());
            let targets = targets(&mut draw, &lengths, &config.subsampling);
            let run = || {
                let output = model.forward(features.clone(), &lengths, &Pass::training(Precision::F32, 5));
                let (loss, report) = loss(output, &targets, 0, &LossConfig::default());
                assert!(report.ctc > 0.0, "{name}: some target can be aligned");
                (vec![named("loss", &loss)], gradients_by_name(&model, &loss.backward()))
            };
            let ((loss, fast), (golden_loss, golden)) = (run(), fused::composed(run));
            same(name, LOGITS, 1.0, &loss, &golden_loss);
            same(name, GRADIENTS, LEAST_GRADIENT, &fast, &golden);
            for (parameter, gradient) in &fast {
                let fixed = parameter.ends_with(".mean") || parameter.ends_with(".variance") || parameter.ends_with(".spread");
                // A stratum that no step of the batch visits learns nothing; that its gradient is zero in both forms was compared above.
                if parameter.contains(".Strata.norms.") {
                    continue;
                }
                assert_eq!(gradient.iter().all(|g| *g == 0.0), fixed, "{name}: {parameter} learns, statistics do not");
            }
        }
    }

    #[test]
    fn garbage_in_the_padding_changes_nothing() {
        for (name, config) in configs() {
            let mut draw = Draw::new(3);
            let clips = utterances(&mut draw, 4, config.mels);
            let clips: Vec<&[f32]> = clips.iter().map(Vec::as_slice).collect();
            let plain = model(&config, 5, &Device::flex());
            let trained = model(&config, 5, &device());
            for form in [false, true] {
                let run = |padding: &mut dyn FnMut() -> f32| {
                    let (features, lengths) = batch(&clips, config.mels, 7, &mut *padding, &Device::flex());
                    let inferred = logits(&plain.forward(features.clone(), &lengths, &exact()));
                    let targets = targets(&mut Draw::new(1), &lengths, &config.subsampling);
                    let output = trained.forward(features.autodiff(), &lengths, &Pass::training(Precision::F32, 5));
                    let (loss, _) = loss(output, &targets, 0, &LossConfig::default());
                    (inferred, values(&loss), gradients_by_name(&trained, &loss.backward()))
                };
                let all = || {
                    let clean = run(&mut || 0.0);
                    let mut rng = SplitMix::new(8);
                    let garbage = [run(&mut || f32::NAN), run(&mut || f32::INFINITY), run(&mut || rng.next_normal() * 1e4)];
                    (clean, garbage)
                };
                let (clean, garbage) = if form { fused::composed(all) } else { all() };
                for (i, other) in garbage.iter().enumerate() {
                    assert!(clean == *other, "{name}, composed {form}, garbage {i}: equal to the bit");
                }
            }
        }
    }

    /// Every utterance of random batches, by itself.
    fn check_alone(name: &str, config: &EncoderConfig, seeds: std::ops::Range<u64>, frames: usize, precision: Precision) {
        let model = model(config, 6, &Device::flex());
        let pass = || Pass::inference(precision);
        for seed in seeds {
            let mut draw = Draw::new(100 + seed);
            let count = draw.size(2, 5);
            let clips = clips(&mut draw, count, frames, config.mels);
            let clips: Vec<&[f32]> = clips.iter().map(Vec::as_slice).collect();
            let (features, lengths) = batch(&clips, config.mels, draw.size(0, 20), || draw.0.next_normal(), &Device::flex());
            let together = model.forward(features, &lengths, &pass());
            let together_logits = logits(&together);
            for (row, clip) in clips.iter().enumerate() {
                let what = format!("{name}, {precision:?}, seed {seed}, utterance {row} of {count}");
                let (features, lengths) = batch(&[clip], config.mels, 0, || f32::NAN, &Device::flex());
                let alone = model.forward(features, &lengths, &pass());
                assert_eq!(choices(&alone, 0), choices(&together, row), "{what}: choices");
                for (head, logits) in logits(&alone).iter().enumerate() {
                    assert_eq!(argmax(&logits[0]), argmax(&together_logits[head][row]), "{what}: best tokens of head {head}");
                    oracle::assert_close(&format!("{what}: head {head}"), &together_logits[head][row], &logits[0], ALONE);
                }
            }
        }
    }

    #[test]
    fn an_utterance_alone_equals_itself_in_any_batch() {
        for (name, config) in configs() {
            check_alone(name, &config, 0..8, 60, Precision::F32);
            check_alone(name, &config, 0..4, 60, Precision::Bf16);
            fused::composed(|| check_alone(name, &config, 0..3, 60, Precision::F32));
            // Wide enough that products are cut into blocks, long enough that attention is.
            let wide = EncoderConfig { d_model: 144, d_ff: 576, n_heads: 4, ..config };
            check_alone(name, &wide, 8..10, 1600, Precision::F32);
            check_alone(name, &wide, 8..9, 700, Precision::Bf16);
        }
    }

    #[test]
    fn a_wrong_length_is_seen() {
        for (name, config) in configs() {
            let model = model(&config, 7, &Device::flex());
            let clip: Vec<f32> = random(&mut SplitMix::new(1), 48 * config.mels, 1.0).into_iter().map(|v| v as f32).collect();
            let features = || Tensor::<3>::from_data(TensorData::new(clip.clone(), [1, 48, config.mels]), &Device::flex());
            let run = |valid: usize| logits(&model.forward(features(), &Lengths::new(vec![valid], 48), &exact()))[0][0].clone();
            let right = run(32);
            for wrong in [24, 40] {
                let wrong = run(wrong);
                assert_ne!(right.len(), wrong.len(), "{name}");
                let largest = right.iter().zip(&wrong).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(largest > 1e-3, "{name}: the first steps change by {largest}");
            }
        }
    }

    #[test]
    fn steps_follow_the_length_rule() {
        for (name, config) in configs() {
            let model = model(&config, 8, &Device::flex());
            let rule = &config.subsampling;
            for frames in 1..=34usize {
                let lengths = Lengths::new(vec![frames, frames.div_ceil(3), frames / 2], frames);
                let features = Tensor::<3>::ones([3, frames, config.mels], &Device::flex());
                let output = model.forward(features, &lengths, &exact());
                assert_eq!(output.logits.dims(), [3, rule.output_len(frames), VOCAB], "{name}: {frames} frames");
                assert_eq!(output.lengths, lengths.map(|n| rule.output_len(n)), "{name}: {frames} frames");
                assert_eq!(output.lengths.padded(), rule.output_len(frames), "{name}");
                assert!(values(&output.logits).iter().all(|v| v.is_finite()), "{name}: {frames} frames, an empty utterance too");
            }
        }
    }

    #[test]
    fn training_passes_repeat_by_seed() {
        for (name, config) in configs() {
            let clips = utterances(&mut Draw::new(4), 3, config.mels);
            let clips: Vec<&[f32]> = clips.iter().map(Vec::as_slice).collect();
            let (features, lengths) = batch(&clips, config.mels, 0, || 0.0, &device());
            let run = |model: &AsrModel, seed: Option<u64>| {
                let pass = seed.map_or_else(exact, |seed| Pass::training(Precision::F32, seed));
                logits(&model.forward(features.clone(), &lengths, &pass))
            };
            let random = model(&config, 9, &device());
            let first = run(&random, Some(1));
            assert!(first == run(&random, Some(1)), "{name}: equal seeds, equal passes");
            assert!(first != run(&random, Some(2)), "{name}: other seeds, other passes");
            let inferred = run(&random, None);
            assert!(first != inferred && inferred == run(&random, None), "{name}: inference draws nothing");

            // Each source of randomness alone: dropout off, then the other two off as well.
            let mut still = EncoderConfig { dropout: 0.0, ..config };
            let excludes = matches!(still.feed_forward, FeedForwardConfig::Sigma { expert_dropout, .. } if expert_dropout > 0.0);
            let draws = matches!(still.position, PositionConfig::Cape { .. }) || excludes;
            let quiet = model(&still, 9, &device());
            assert_eq!(run(&quiet, Some(1)) != run(&quiet, None), draws, "{name}: without dropout");
            if let PositionConfig::Cape { max_global_shift, max_local_shift, max_global_scaling, .. } = &mut still.position {
                (*max_global_shift, *max_local_shift, *max_global_scaling) = (0.0, 0.0, 1.0);
            }
            let jittered = match still.feed_forward {
                FeedForwardConfig::Experts { jitter, .. } => jitter > 0.0,
                FeedForwardConfig::Sigma { expert_dropout, .. } => expert_dropout > 0.0,
                FeedForwardConfig::Dense
                | FeedForwardConfig::Adaptive { .. }
                | FeedForwardConfig::Memory { .. }
                | FeedForwardConfig::Strata { .. } => false,
            };
            let noisy = model(&still, 9, &device());
            assert_eq!(run(&noisy, Some(1)) != run(&noisy, None), jittered, "{name}: with router noise alone");
            if let FeedForwardConfig::Experts { jitter: noise, .. } | FeedForwardConfig::Sigma { expert_dropout: noise, .. } =
                &mut still.feed_forward
            {
                *noise = 0.0;
            }
            let silent = model(&still, 9, &device());
            assert!(run(&silent, Some(1)) == run(&silent, None), "{name}: training without anything random is inference");
        }
    }

    #[test]
    fn equal_seeds_give_equal_weights() {
        for (name, config) in configs() {
            let new = |seed| weights::collect(&AsrModel::new(&config, VOCAB, seed, &Device::flex()).expect("valid"));
            assert!(new(1) == new(1) && new(1) != new(2), "{name}");
        }
    }

    #[test]
    fn bfloat16_stays_close_to_f32() {
        for (name, config) in configs() {
            let (mut changed, mut all) = (0, 0);
            for seed in 0..6 {
                let clips = utterances(&mut Draw::new(50 + seed), 4, config.mels);
                let clips: Vec<&[f32]> = clips.iter().map(Vec::as_slice).collect();
                let (features, lengths) = batch(&clips, config.mels, 0, || 0.0, &Device::flex());
                let model = model(&config, 10 + seed, &Device::flex());
                let run = |precision| -> (Vec<f64>, Vec<Vec<usize>>) {
                    let output = model.forward(features.clone(), &lengths, &Pass::inference(precision));
                    (logits(&output)[0].concat(), output.routed.iter().flatten().flat_map(Routed::visited).collect())
                };
                let ((fine, to), (coarse, coarse_to)) = (run(Precision::F32), run(Precision::Bf16));
                let rerouted = to.iter().zip(&coarse_to).filter(|(a, b)| a != b).count();
                (changed, all) = (changed + rerouted, all + to.len());
                let squares = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>();
                let error = (squares(&mut fine.iter().zip(&coarse).map(|(a, b)| a - b)) / squares(&mut fine.iter().copied())).sqrt();
                let limit = if rerouted > 0 { BF16_REROUTED } else { BF16 };
                assert!(error < limit, "{name}, seed {seed}: relative error {error} with {rerouted} steps rerouted");
            }
            assert!(changed as f64 <= REROUTED * all as f64, "{name}: {changed} of {all} choices changed");
        }
    }
}

/// The encoder's equations once more, in f64 and in loops, from the tensors of a model file.
mod equations {
    use super::*;

    type Rows = Vec<Vec<f64>>;

    /// f32 through two layers against f64; logits reach about 3.
    const EXACT: f64 = 4e-6;

    struct Reference<'a> {
        config: &'a EncoderConfig,
        tensors: &'a HostTensors,
    }

    fn sigmoid(v: f64) -> f64 {
        1.0 / (1.0 + (-v).exp())
    }

    fn silu(v: f64) -> f64 {
        v * sigmoid(v)
    }

    fn add(x: &Rows, branch: &Rows, scale: f64) -> Rows {
        x.iter().zip(branch).map(|(x, b)| x.iter().zip(b).map(|(x, b)| x + scale * b).collect()).collect()
    }

    fn map(x: &Rows, f: impl Fn(f64) -> f64) -> Rows {
        x.iter().map(|row| row.iter().map(|v| f(*v)).collect()).collect()
    }

    fn softmax(row: &[f64]) -> Vec<f64> {
        let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|v| (v - most).exp()).sum();
        row.iter().map(|v| (v - most).exp() / sum).collect()
    }

    impl Reference<'_> {
        fn vector(&self, name: &str) -> Vec<f64> {
            let known = || self.tensors.keys().cloned().collect::<Vec<_>>().join("\n");
            let t = self.tensors.get(name).unwrap_or_else(|| panic!("no {name} among\n{}", known()));
            t.values.iter().map(|&v| f64::from(v)).collect()
        }

        fn affine(&self, x: &Rows, weight: &str, bias: &str) -> Rows {
            let weight = self.vector(weight);
            let width = weight.len() / x[0].len();
            let bias = if self.tensors.contains_key(bias) { self.vector(bias) } else { vec![0.0; width] };
            let cell = |row: &[f64], c: usize| bias[c] + row.iter().enumerate().map(|(r, v)| v * weight[r * width + c]).sum::<f64>();
            x.iter().map(|row| (0..width).map(|c| cell(row, c)).collect()).collect()
        }

        fn linear(&self, x: &Rows, name: &str) -> Rows {
            self.affine(x, &format!("{name}.weight"), &format!("{name}.bias"))
        }

        fn layer_norm(&self, x: &Rows, name: &str) -> Rows {
            let (gamma, beta) = (self.vector(&format!("{name}.gamma")), self.vector(&format!("{name}.beta")));
            let norm = |row: &Vec<f64>| {
                let mean = row.iter().sum::<f64>() / row.len() as f64;
                let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / row.len() as f64;
                row.iter().enumerate().map(|(i, v)| (v - mean) / (variance + 1e-5).sqrt() * gamma[i] + beta[i]).collect()
            };
            x.iter().map(norm).collect()
        }

        fn dense(&self, x: &Rows, name: &str) -> Rows {
            let hidden = map(&self.affine(x, &format!("{name}.up"), &format!("{name}.up_bias")), silu);
            self.affine(&hidden, &format!("{name}.down"), &format!("{name}.down_bias"))
        }

        fn attention(&self, x: &Rows, name: &str) -> Rows {
            let (d, heads) = (self.config.d_model, self.config.n_heads);
            let width = d / heads;
            let qkv = self.linear(x, &format!("{name}.qkv"));
            let mut context = vec![vec![0.0; d]; x.len()];
            for (t, out) in context.iter_mut().enumerate() {
                for head in 0..heads {
                    let at = |third: usize| third * d + head * width..third * d + (head + 1) * width;
                    let score =
                        |s: usize| qkv[t][at(0)].iter().zip(&qkv[s][at(1)]).map(|(q, k)| q * k).sum::<f64>() / (width as f64).sqrt();
                    let weights = softmax(&(0..x.len()).map(score).collect::<Vec<_>>());
                    for (weight, row) in weights.iter().zip(&qkv) {
                        out[at(0)].iter_mut().zip(&row[at(2)]).for_each(|(o, v)| *o += weight * v);
                    }
                }
            }
            self.linear(&context, &format!("{name}.out"))
        }

        fn convolution(&self, x: &Rows, name: &str, norm: ConvolutionNorm) -> Rows {
            let d = self.config.d_model;
            let gated: Rows = self
                .linear(x, &format!("{name}.pointwise_in"))
                .iter()
                .map(|r| (0..d).map(|c| r[c] * sigmoid(r[d + c])).collect())
                .collect();
            let taps = self.vector(&format!("{name}.depthwise"));
            let count = taps.len() / d;
            let bias_name = format!("{name}.depthwise_bias");
            let bias = if self.tensors.contains_key(&bias_name) { self.vector(&bias_name) } else { vec![0.0; d] };
            let cell = |t: usize, c: usize| {
                let tap =
                    |k: usize| (t + k).checked_sub(count / 2).and_then(|s| gated.get(s)).map_or(0.0, |row| row[c] * taps[c * count + k]);
                bias[c] + (0..count).map(tap).sum::<f64>()
            };
            let y: Rows = (0..x.len()).map(|t| (0..d).map(|c| cell(t, c)).collect()).collect();
            let y = match norm {
                ConvolutionNorm::Layer => self.layer_norm(&y, &format!("{name}.norm.Layer")),
                ConvolutionNorm::Batch => {
                    let part = |field: &str| self.vector(&format!("{name}.norm.Batch.{field}"));
                    let (gamma, beta, mean, variance) = (part("gamma"), part("beta"), part("mean"), part("variance"));
                    let stored = |(c, v): (usize, &f64)| (v - mean[c]) / (variance[c] + 1e-5).sqrt() * gamma[c] + beta[c];
                    y.iter().map(|row| row.iter().enumerate().map(stored).collect()).collect()
                }
            };
            self.linear(&map(&y, silu), &format!("{name}.pointwise_out"))
        }

        fn block(&self, x: &Rows, name: &str) -> Rows {
            let normed = |x: &Rows, norm: &str| self.layer_norm(x, &format!("{name}.{norm}"));
            let attend = |x: &Rows| add(x, &self.attention(&normed(x, "attention_norm"), &format!("{name}.attention")), 1.0);
            let feed = |x: &Rows, scale| add(x, &self.dense(&normed(x, "feed_forward_norm"), &format!("{name}.feed_forward.Dense")), scale);
            match self.config.block {
                BlockConfig::Transformer => feed(&attend(x), 1.0),
                BlockConfig::Conformer { norm, .. } => {
                    let opening = self.dense(&normed(x, "opening.norm"), &format!("{name}.opening.feed_forward"));
                    let x = attend(&add(x, &opening, 0.5));
                    let x = add(&x, &self.convolution(&normed(&x, "convolution.norm"), &format!("{name}.convolution.module"), norm), 1.0);
                    normed(&feed(&x, 0.5), "out_norm")
                }
            }
        }

        /// Logits of the middle heads, then of the last.
        fn heads(&self, frames: &Rows) -> Vec<Rows> {
            let SubsamplingConfig::Stacking { factor, hidden: None } = self.config.subsampling else { panic!("plain stacking") };
            let stacked: Rows = frames
                .chunks(factor)
                .map(|chunk| {
                    let mut row = chunk.concat();
                    row.resize(factor * self.config.mels, 0.0);
                    row
                })
                .collect();
            let scale = if self.config.scale_input { (self.config.d_model as f64).sqrt() } else { 1.0 };
            let mut x = map(&self.linear(&stacked, "encoder.subsampling.Stacking.project"), |v| v * scale);
            let end = |x: &Rows| match self.config.block {
                BlockConfig::Transformer => self.layer_norm(x, "encoder.final_norm"),
                BlockConfig::Conformer { .. } => x.clone(),
            };
            let mut heads = Vec::new();
            for layer in 1..=self.config.n_layers {
                x = self.block(&x, &format!("encoder.blocks.{}", layer - 1));
                if let Some(middle) = self.config.intermediate.as_ref().filter(|m| m.layers.contains(&layer)) {
                    let logits = self.linear(&end(&x), "head");
                    if middle.self_condition {
                        let posteriors: Rows = logits.iter().map(|row| softmax(row)).collect();
                        x = add(&x, &self.linear(&posteriors, "conditioning"), 1.0);
                    }
                    heads.push(logits);
                }
            }
            heads.push(self.linear(&end(&x), "head"));
            heads
        }
    }

    #[test]
    fn the_model_computes_its_equations() {
        let (_, base) = configs().pop().expect("a configuration");
        let conformer = |norm, convolution_bias| BlockConfig::Conformer { kernel: 5, norm, convolution_bias };
        let blocks = [BlockConfig::Transformer, conformer(ConvolutionNorm::Layer, true), conformer(ConvolutionNorm::Batch, false)];
        for (i, block) in blocks.into_iter().enumerate() {
            for self_condition in [false, true] {
                let config = EncoderConfig {
                    n_layers: 3,
                    activation: ActivationConfig::Silu,
                    attention_bias: i != 1,
                    scale_input: i != 2,
                    position: PositionConfig::None,
                    context: ContextConfig::Full,
                    block: block.clone(),
                    feed_forward: FeedForwardConfig::Dense,
                    intermediate: Some(IntermediateConfig { layers: vec![1, 2], self_condition }),
                    ..base.clone()
                };
                let model = model(&config, 20 + i as u64, &Device::flex());
                let frames = random(&mut SplitMix::new(i as u64), 30 * config.mels, 1.0);
                let features =
                    Tensor::from_data(TensorData::new(frames.iter().map(|&v| v as f32).collect(), [1, 30, config.mels]), &Device::flex());
                let output = model.forward(features, &Lengths::full(1, 30), &exact());
                let tensors = weights::collect(&model);
                let reference = Reference { config: &config, tensors: &tensors };
                let golden = reference.heads(&frames.chunks_exact(config.mels).map(<[f64]>::to_vec).collect());
                let ours = output.intermediate.iter().chain([&output.logits]);
                assert_eq!(golden.len(), 3);
                for (head, (ours, golden)) in ours.zip(&golden).enumerate() {
                    let what = format!("{block:?}, self-conditioned {self_condition}, head {head}");
                    oracle::assert_close(&what, &values(ours), &golden.concat(), EXACT);
                }
            }
        }
    }
}

/// Who owns routers.
mod sharing {
    use burn::module::list_param_ids;
    use omniscribe::train::config::OptimizerConfig;
    use omniscribe::train::optimizer::Optimizer;

    use super::*;

    fn config(router: RouterKind, groups: &str, router_bias: bool) -> EncoderConfig {
        let (_, base) = configs().pop().expect("a configuration");
        let groups = ExpertGroups::try_from(groups.to_string()).expect("groups");
        let n_layers = groups.by_layer().len();
        EncoderConfig { n_layers, feed_forward: FeedForwardConfig::Experts { router, groups, router_bias, jitter: 0.0 }, ..base }
    }

    fn router_tensors(tensors: &HostTensors) -> Vec<&str> {
        tensors.keys().filter(|name| name.contains("router")).map(String::as_str).collect()
    }

    fn blocks_with_a_router(model: &AsrModel) -> usize {
        model.encoder.blocks.iter().filter(|b| matches!(&b.feed_forward, FeedForward::Experts(layer) if layer.router.is_some())).count()
    }

    #[test]
    fn a_shared_router_stays_one_tensor_while_it_learns() {
        for (groups, bias, expected) in [("4x4", false, 1), ("2x2-1x4", true, 2), ("1x1-2x3", false, 1), ("2x1", false, 0)] {
            let config = config(RouterKind::Omni, groups, bias);
            let mut model = model(&config, 11, &device());
            let mut optimizer = Optimizer::new(OptimizerConfig { lr: 1e-2, average: 0.0, ..OptimizerConfig::default() }, &model);
            let before = weights::collect(&model);
            let mut draw = Draw::new(6);
            let clips = utterances(&mut draw, 3, config.mels);
            let clips: Vec<&[f32]> = clips.iter().map(Vec::as_slice).collect();
            let (features, lengths) = batch(&clips, config.mels, 0, || 0.0, &device());
            for seed in 0..5 {
                let output = model.forward(features.clone(), &lengths, &Pass::training(Precision::F32, seed));
                let gradients = output.logits.square().mean().backward();
                optimizer.accumulate(&model, &gradients);
                let (next, report) = optimizer.step(model, 1e-2, 1.0);
                assert!(report.applied, "{groups}");
                model = next;
            }
            let after = weights::collect(&model);

            let mut names = Vec::new();
            for group in 0..expected {
                names.extend(bias.then(|| format!("encoder.routers.{group}.bias")));
                names.push(format!("encoder.routers.{group}.weight"));
            }
            assert_eq!(router_tensors(&after), names, "{groups}: one tensor for each group, owned by the encoder");
            assert_eq!(model.encoder.routers.len(), expected, "{groups}");
            assert_eq!(blocks_with_a_router(&model), 0, "{groups}: blocks borrow");
            for name in &names {
                assert_ne!(before[name], after[name], "{groups}: {name} learns");
            }
            let scalars: usize = after.values().map(|t| t.values.len()).sum();
            assert_eq!(model.num_params(), scalars, "{groups}: num_params counts what the file holds");
            assert_eq!(optimizer.parameters(), scalars, "{groups}: everything is trained");
            let ids = list_param_ids(&model);
            assert_eq!(ids.len(), after.len(), "{groups}: an identity for each tensor");
            assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), ids.len(), "{groups}: of its own");

            // What the optimiser steps is what the model computes with: no copy has stayed behind.
            let master: HostTensors =
                optimizer.state().into_iter().filter_map(|(name, t)| Some((name.strip_prefix("values/")?.to_string(), t))).collect();
            assert!(master == after, "{groups}: weights of the optimiser and of the model");
            let fresh = AsrModel::new(&config, VOCAB, 99, &device()).expect("valid");
            let loaded = weights::apply(fresh, &after, "memory".as_ref()).expect("its own weights");
            let run = |model: &AsrModel| logits(&model.forward(features.clone(), &lengths, &exact()));
            assert!(run(&model) == run(&loaded), "{groups}: the collected weights are all there is");
        }
    }

    #[test]
    fn switch_has_a_router_more_for_every_layer_but_one() {
        let d = config(RouterKind::Omni, "1x1", false).d_model;
        for (groups, extra) in
            [("4x4", vec![(3, 4)]), ("2x2-1x4", vec![(1, 2), (0, 4)]), ("3x2-1x1-2x8", vec![(2, 2), (1, 8)]), ("1x5", vec![(0, 5)])]
        {
            for bias in [false, true] {
                let [omni, switch] = [RouterKind::Omni, RouterKind::Switch].map(|router| {
                    let config = config(router, groups, bias);
                    let model = AsrModel::new(&config, VOCAB, 1, &Device::flex()).expect("valid");
                    (model.num_params(), blocks_with_a_router(&model), model.encoder.routers.len(), config)
                });
                let expected: usize = extra.iter().map(|(layers, experts)| layers * (d * experts + if bias { *experts } else { 0 })).sum();
                assert_eq!(switch.0 - omni.0, expected, "{groups}, bias {bias}");
                let FeedForwardConfig::Experts { groups, .. } = &switch.3.feed_forward else { panic!("experts") };
                assert_eq!(switch.1, groups.by_layer().iter().filter(|(_, experts)| *experts > 1).count());
                assert_eq!((omni.1, switch.2), (0, 0));
            }
        }
    }

    /// Layers of one group route by one tensor: zeroing it leaves every step of these layers, and only these, with the first expert.
    #[test]
    fn a_group_routes_by_its_own_router() {
        let config = config(RouterKind::Omni, "2x2-1x4", false);
        let clips = utterances(&mut Draw::new(7), 3, config.mels);
        let clips: Vec<&[f32]> = clips.iter().map(Vec::as_slice).collect();
        let (features, lengths) = batch(&clips, config.mels, 0, || 0.0, &Device::flex());
        for group in 0..2 {
            let model = model(&config, 12, &Device::flex());
            let mut tensors = weights::collect(&model);
            tensors.get_mut(&format!("encoder.routers.{group}.weight")).expect("a router").values.fill(0.0);
            let model = weights::apply(model, &tensors, "memory".as_ref()).expect("its own weights");
            let output = model.forward(features.clone(), &lengths, &exact());
            let used: Vec<usize> = output.routed.iter().flatten().map(|r| r.loss.load.iter().filter(|n| **n > 0).count()).collect();
            let only_first: Vec<bool> = used.iter().map(|n| *n == 1).collect();
            assert_eq!(only_first, if group == 0 { [true, true, false] } else { [false, false, true] }, "group {group}: {used:?}");
        }
    }
}

/// Models on disk.
mod folder {
    use std::path::Path;

    use omniscribe::checkpoint::directory::FORMAT_VERSION;
    use omniscribe::checkpoint::safetensors_file::{HostTensor, Storage};
    use omniscribe::checkpoint::{ModelConfig, ModelDirectory};
    use omniscribe::features::{FrontEndConfig, Normalization};
    use omniscribe::text::Tokenizer;
    use omniscribe::{Error, Result};

    use super::*;

    fn tokenizer() -> Tokenizer {
        Tokenizer::characters("abcdefghijk ").expect("twelve characters")
    }

    fn save(path: &Path, encoder: &EncoderConfig, tensors: &HostTensors, storage: Storage) -> Result<()> {
        let front_end = FrontEndConfig::omniscribe(encoder.mels, Normalization::None);
        let config = ModelConfig { format_version: FORMAT_VERSION, name: "test".into(), front_end, encoder: encoder.clone() };
        ModelDirectory::save(path, &config, &tokenizer(), tensors, storage)
    }

    #[test]
    fn a_saved_model_computes_the_same_bits() {
        for (name, config) in configs() {
            let model = model(&config, 13, &Device::flex());
            let clips = utterances(&mut Draw::new(8), 3, config.mels);
            let clips: Vec<&[f32]> = clips.iter().map(Vec::as_slice).collect();
            let (features, lengths) = batch(&clips, config.mels, 0, || 0.0, &Device::flex());
            let run = |model: &AsrModel| logits(&model.forward(features.clone(), &lengths, &exact()));
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("model");
            save(&path, &config, &weights::collect(&model), Storage::F32).expect("saved");
            let read = ModelDirectory::open(&path).expect("read");
            assert_eq!(read.config.encoder, config, "{name}");
            let loaded = read.model(&Device::flex()).expect("the weights fit");
            assert_eq!(loaded.vocab(), VOCAB);
            assert!(run(&loaded) == run(&model), "{name}: equal to the bit");
            // The other device of training reads the same.
            assert!(weights::collect(&read.model(&device()).expect("fits")) == weights::collect(&model), "{name}");

            save(&path, &config, &weights::collect(&model), Storage::Bf16).expect("saved over the first");
            let coarse = ModelDirectory::open(&path).expect("read").model(&Device::flex()).expect("fits");
            for (parameter, t) in weights::collect(&coarse) {
                for (a, b) in t.values.iter().zip(&weights::collect(&model)[&parameter].values) {
                    assert!((a - b).abs() <= b.abs() / 256.0, "{name}: {parameter}: {a} for {b}");
                }
            }
            let left: Vec<_> = std::fs::read_dir(&path).expect("folder").map(|f| f.expect("file").file_name()).collect();
            assert_eq!(left.len(), 3, "configuration, tokenizer, weights and nothing else: {left:?}");
        }
    }

    /// The error of loading weights changed by `change`.
    fn refused(change: impl FnOnce(&mut HostTensors)) -> Error {
        let (_, config) = configs().pop().expect("a configuration");
        let mut tensors = weights::collect(&model(&config, 14, &Device::flex()));
        change(&mut tensors);
        let folder = tempfile::tempdir().expect("a folder");
        save(folder.path(), &config, &tensors, Storage::F32).expect("saved");
        ModelDirectory::open(folder.path())
            .expect("the folder itself is well-formed")
            .model(&Device::flex())
            .expect_err("weights that do not fit")
    }

    #[test]
    fn weights_that_do_not_fit_are_named() {
        let head = HostTensor { shape: vec![2, 3], values: vec![0.0; 6] };
        let error = refused(|tensors| {
            tensors.remove("encoder.blocks.0.attention.qkv.bias").expect("it was there");
            tensors.remove("encoder.routers.0.weight").expect("it was there");
            tensors.insert("encoder.blocks.9.attention.qkv.bias".into(), head.clone());
            tensors.insert("head.weight".into(), head.clone());
        });
        let text = error.to_string();
        let Error::Checkpoint { path, missing, unused, mismatched } = error else { panic!("{text}") };
        assert!(path.ends_with("model.safetensors"), "{}", path.display());
        assert_eq!(
            missing.iter().collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>(),
            ["encoder.blocks.0.attention.qkv.bias", "encoder.routers.0.weight"]
        );
        assert_eq!(unused, ["encoder.blocks.9.attention.qkv.bias"]);
        assert_eq!(mismatched, [format!("head.weight: [2, 3] in the file, [32, {VOCAB}] in the model")]);
        for part in ["model.safetensors", "missing ", "unused encoder.blocks.9.attention.qkv.bias", "mismatched head.weight: [2, 3]"] {
            assert!(text.contains(part), "{part} in: {text}");
        }
    }

    #[test]
    fn each_fault_alone_is_refused() {
        let name = "encoder.final_norm.gamma";
        let missing = refused(|t| drop(t.remove(name)));
        assert!(matches!(&missing, Error::Checkpoint { missing, .. } if missing == &[name.to_string()]), "{missing}");
        let extra = refused(|t| drop(t.insert("extra".into(), HostTensor { shape: vec![1], values: vec![0.0] })));
        assert!(matches!(&extra, Error::Checkpoint { unused, .. } if unused == &["extra".to_string()]), "{extra}");
        // The same number of elements in another shape.
        let shape = refused(|t| t.get_mut("encoder.routers.0.weight").expect("a router").shape.reverse());
        assert!(
            matches!(&shape, Error::Checkpoint { mismatched, .. } if mismatched.len() == 1 && mismatched[0].contains("[2, 32]")),
            "{shape}"
        );
    }

    #[test]
    fn a_front_end_of_other_mels_is_refused() {
        let (_, encoder) = configs().pop().expect("a configuration");
        let folder = tempfile::tempdir().expect("a folder");
        save(folder.path(), &encoder, &HostTensors::new(), Storage::F32).expect("saved");
        let path = folder.path().join("config.json");
        let text = std::fs::read_to_string(&path).expect("configuration");
        let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        json["encoder"]["mels"] = 16.into();
        std::fs::write(&path, json.to_string()).expect("written");
        let error = ModelDirectory::open(folder.path()).expect_err("12 mels in, 16 wanted").to_string();
        assert!(error.contains("encoder.mels = 16: must equal front_end.mels = 12") && error.contains("config.json"), "{error}");
    }
}
