//! The convolution module of a Conformer block.

use burn::module::{Module, Param};
use burn::nn::{LayerNorm, Linear};
use burn::tensor::Tensor;

use crate::kernel::activation::Activation;
use crate::model::attention::new_linear;
use crate::model::config::ConvolutionNorm;
use crate::model::init::Init;
use crate::model::lengths::Lengths;
use crate::model::ops::activation::{activate, glu};
use crate::model::ops::depthwise::depthwise;
use crate::model::ops::linear::linear;
use crate::model::ops::norm::layer_norm_activate;
use crate::model::pass::Pass;

/// Pointwise, gated linear unit, depthwise over steps, norm, SiLU, pointwise.
///
/// # Reference
/// Gulati et al. 2020, arXiv:2005.08100, section 2.2. Differs: the norm may be a layer norm, which no batch-mate can change.
#[derive(Module, Debug)]
pub struct Convolution {
    /// `[d_model, 2 d_model]`
    pub pointwise_in: Linear,
    /// Taps `[d_model, kernel]`.
    pub depthwise: Param<Tensor<2>>,
    /// `[d_model]`
    pub depthwise_bias: Option<Param<Tensor<1>>>,
    /// Norm after the depthwise convolution.
    pub norm: ChannelNorm,
    /// `[d_model, d_model]`
    pub pointwise_out: Linear,
}

/// The norm of a [`Convolution`].
#[derive(Module, Debug)]
pub enum ChannelNorm {
    /// Over the channels of each step.
    Layer(LayerNorm),
    /// By stored statistics.
    Batch(StoredNorm),
}

/// Batch norm with fixed statistics.
#[derive(Module, Debug)]
pub struct StoredNorm {
    /// `[d_model]`
    pub gamma: Param<Tensor<1>>,
    /// `[d_model]`
    pub beta: Param<Tensor<1>>,
    /// Running mean, `[d_model]`.
    pub mean: Param<Tensor<1>>,
    /// Running variance, `[d_model]`.
    pub variance: Param<Tensor<1>>,
}

/// Epsilon of layer and batch norms, PyTorch's default.
pub(crate) const NORM_EPSILON: f64 = 1e-5;

/// A layer norm with gain 1 and shift 0.
pub(crate) fn new_layer_norm(d_model: usize, init: &mut Init) -> LayerNorm {
    let mut norm = burn::nn::LayerNormConfig::new(d_model).with_epsilon(NORM_EPSILON).init(init.device());
    norm.gamma = init.constant([d_model], 1.0);
    norm.beta = Some(init.constant([d_model], 0.0));
    norm
}

impl StoredNorm {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let scale = self.gamma.val() / self.variance.val().add_scalar(NORM_EPSILON).sqrt();
        let shift = self.beta.val() - self.mean.val() * scale.clone();
        x * scale.unsqueeze() + shift.unsqueeze()
    }
}

impl Convolution {
    /// A module of `kernel` taps.
    pub fn new(d_model: usize, kernel: usize, norm: ConvolutionNorm, bias: bool, init: &mut Init) -> Self {
        let pointwise_in = new_linear(d_model, 2 * d_model, bias, init);
        let depthwise = init.fan_in([d_model, kernel], kernel);
        let depthwise_bias = bias.then(|| init.fan_in([d_model], kernel));
        let norm = match norm {
            ConvolutionNorm::Layer => ChannelNorm::Layer(new_layer_norm(d_model, init)),
            ConvolutionNorm::Batch => ChannelNorm::Batch(StoredNorm {
                gamma: init.constant([d_model], 1.0),
                beta: init.constant([d_model], 0.0),
                mean: init.constant::<1>([d_model], 0.0).set_require_grad(false),
                variance: init.constant::<1>([d_model], 1.0).set_require_grad(false),
            }),
        };
        Self { pointwise_in, depthwise, depthwise_bias, norm, pointwise_out: new_linear(d_model, d_model, bias, init) }
    }

    /// Convolves within every utterance; padded steps count as zeros.
    ///
    /// # Shapes
    /// `x`, returns: `[batch, steps, d_model]`
    pub fn forward(&self, x: Tensor<3>, lengths: &Lengths, pass: &Pass) -> Tensor<3> {
        let x = self.over_steps(self.gated(x, pass), lengths, pass);
        self.projected(x, pass)
    }

    /// The part before the steps meet.
    pub(crate) fn gated(&self, x: Tensor<3>, pass: &Pass) -> Tensor<3> {
        glu(linear(x, &self.pointwise_in, pass))
    }

    /// The convolution over steps.
    pub(crate) fn over_steps(&self, x: Tensor<3>, lengths: &Lengths, pass: &Pass) -> Tensor<3> {
        let chunk = pass.chunk().map(|chunk| chunk.steps);
        depthwise(x, self.depthwise.val(), self.depthwise_bias.as_ref().map(Param::val), lengths, chunk)
    }

    /// The part after it.
    pub(crate) fn projected(&self, x: Tensor<3>, pass: &Pass) -> Tensor<3> {
        let x = match &self.norm {
            ChannelNorm::Layer(norm) => layer_norm_activate(x, norm, Activation::Silu),
            ChannelNorm::Batch(norm) => activate(norm.forward(x), Activation::Silu),
        };
        linear(x, &self.pointwise_out, pass)
    }
}
