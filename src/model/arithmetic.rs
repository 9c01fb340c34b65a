//! How an inference pass multiplies: its precision, and weights packed for it once.

use std::collections::HashMap;
use std::sync::Arc;

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{Device, Tensor};

use crate::kernel::gemm::{Compute, Matrix, PackedMatrix, Parallel, Precision};
use crate::model::ops::fused;

/// One parameter packed: a matrix, or one for each expert.
pub type Packed = Arc<[PackedMatrix]>;

/// Precision of the products of a pass and the packed weights of its model.
///
/// Without packed weights a pass packs what it multiplies by anew each time, which gives the same; linear layers are packed in bfloat16
/// then, 8 bits or not.
#[derive(Debug, Clone)]
pub struct Arithmetic {
    precision: Precision,
    packed: Option<Arc<HashMap<ParamId, Packed>>>,
}

impl From<Precision> for Arithmetic {
    fn from(precision: Precision) -> Self {
        Self { precision, packed: None }
    }
}

impl From<&Arithmetic> for Arithmetic {
    fn from(arithmetic: &Arithmetic) -> Self {
        arithmetic.clone()
    }
}

impl Arithmetic {
    /// Packs the weights of `model` that are multiplied by rows of activations: linear layers, feed-forwards, experts. The model keeps their
    /// shapes and lets go of their values: from now on it runs with this arithmetic only.
    ///
    /// Of [`Precision::Int8`] the first layers and the head are left in bfloat16: they are 4 % of the work of `models/base`
    /// and a fifth of the words of its dev set that 8 bits change.
    ///
    /// Nothing is packed, and the model stays as it is, where products are in f32 or `device` is not the CPU.
    pub fn pack<M: Module>(precision: Precision, model: M, device: &Device) -> (M, Self) {
        let compute = Compute::new(precision, Parallel::Rayon);
        let is_of_use = precision == Precision::Int8 || compute.is_bf16();
        if !is_of_use || !fused::available(device) {
            return (model, precision.into());
        }
        let mut packer = Packer { compute, path: Vec::new(), is_weight: false, packed: HashMap::new() };
        let model = model.map(&mut packer);
        (model, Self { precision, packed: Some(Arc::new(packer.packed)) })
    }

    /// Precision of matrix products on the CPU.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// A parameter that was packed.
    pub fn packed(&self, id: ParamId) -> Option<Packed> {
        self.packed.as_ref()?.get(&id).cloned()
    }

    /// Bytes of the packed weights.
    pub fn packed_bytes(&self) -> usize {
        self.packed.iter().flat_map(|packed| packed.values()).flat_map(|matrices| matrices.iter()).map(PackedMatrix::bytes).sum()
    }
}

/// Whether a weight is not rounded to 8 bits: what makes steps of frames or samples, and the head.
fn stays_in_bf16(path: &[String]) -> bool {
    path.first().is_some_and(|name| name == "head") || path.iter().any(|name| name == "subsampling" || name == "extractor")
}

/// Walks a model, packs, and puts a tensor of the same shape and no size in the place of what it packed.
struct Packer {
    compute: Compute,
    /// Names from the outermost in.
    path: Vec<String>,
    /// Whether what was entered last is a weight to pack.
    is_weight: bool,
    packed: HashMap<ParamId, Packed>,
}

impl ModuleMapper for Packer {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.is_weight = match container_type {
            "Struct:Linear" => name == "weight",
            "Struct:Dense" | "Struct:Experts" => name == "up" || name == "down",
            _ => false,
        };
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
        self.is_weight = false;
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !self.is_weight {
            return param;
        }
        let id = param.id;
        let compute = match self.compute.precision {
            Precision::Int8 if stays_in_bf16(&self.path) => Compute { precision: Precision::Bf16, ..self.compute },
            _ => self.compute,
        };
        param.map(|weights| {
            let (device, shape) = (weights.device(), weights.dims());
            let data = weights.into_data();
            let values = data.as_slice::<f32>().expect("weights are f32");
            let [.., rows, columns] = shape[..] else { unreachable!("a weight has rows and columns") };
            let matrices = values.chunks_exact((rows * columns).max(1)).map(|w| PackedMatrix::pack(Matrix::new(w, rows, columns), compute));
            self.packed.insert(id, matrices.collect());
            Tensor::<D>::zeros([1; D], &device).expand(shape)
        })
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;
    use crate::model::asr::AsrModel;
    use crate::model::config::{
        ActivationConfig, BlockConfig, ContextConfig, ConvolutionNorm, EncoderConfig, ExpertGroup, ExpertGroups, FeedForwardConfig,
        PositionConfig, RouterKind, SubsamplingConfig,
    };
    use crate::model::lengths::Lengths;
    use crate::model::pass::{Chunk, Pass};

    fn model(experts: usize, relative: bool) -> AsrModel {
        let groups = ExpertGroups(vec![ExpertGroup { layers: 2, experts }]);
        let config = EncoderConfig {
            mels: 8,
            d_model: 32,
            n_layers: 2,
            n_heads: 4,
            d_ff: 48,
            activation: ActivationConfig::Silu,
            dropout: 0.0,
            attention_bias: true,
            scale_input: false,
            subsampling: SubsamplingConfig::Stacking { factor: 2, hidden: Some(24) },
            position: if relative { PositionConfig::Relative } else { PositionConfig::Rotary },
            context: ContextConfig::Full,
            block: BlockConfig::Conformer { kernel: 5, norm: ConvolutionNorm::Layer, convolution_bias: true },
            feed_forward: match experts {
                0 => FeedForwardConfig::Dense,
                _ => FeedForwardConfig::Experts { router: RouterKind::Omni, groups, router_bias: false, jitter: 0.0 },
            },
            intermediate: None,
            languages: None,
        };
        AsrModel::new(&config, 20, 7, &Device::flex()).unwrap()
    }

    fn frames(batch: usize, steps: usize) -> Tensor<3> {
        let values: Vec<f32> = (0..batch * steps * 8).map(|i| ((i * 7919 + i / 3) % 101) as f32 / 50.0 - 1.0).collect();
        Tensor::from_data(TensorData::new(values, [batch, steps, 8]), &Device::flex())
    }

    fn logits(model: &AsrModel, x: Tensor<3>, lengths: &Lengths, arithmetic: &Arithmetic) -> Vec<f32> {
        model.forward(x, lengths, &Pass::inference(arithmetic)).logits.into_data().try_into_vec().unwrap()
    }

    /// Root mean square of the difference, of that of `b`.
    fn distance(a: &[f32], b: &[f32]) -> f64 {
        let squares = |f: &dyn Fn(usize) -> f32| (0..b.len()).map(|i| f64::from(f(i)).powi(2)).sum::<f64>();
        (squares(&|i| a[i] - b[i]) / squares(&|i| b[i])).sqrt()
    }

    #[test]
    fn packed_weights_give_what_unpacked_ones_give_and_int8_stays_near() {
        for (experts, relative) in [(0, true), (0, false), (3, true)] {
            let (x, lengths) = (frames(3, 40), Lengths::new(vec![40, 31, 9], 40));
            let full = logits(&model(experts, relative), x.clone(), &lengths, &Precision::F32.into());
            let bf16 = logits(&model(experts, relative), x.clone(), &lengths, &Precision::Bf16.into());
            let (lean, arithmetic) = Arithmetic::pack(Precision::Bf16, model(experts, relative), &Device::flex());
            assert_eq!(logits(&lean, x.clone(), &lengths, &arithmetic), bf16, "{experts} experts");
            let (lean, arithmetic) = Arithmetic::pack(Precision::Int8, model(experts, relative), &Device::flex());
            let int8 = logits(&lean, x, &lengths, &arithmetic);
            let error = distance(&int8, &full);
            assert!(error > 1e-4 && error < 0.03, "{experts} experts: {error}");
            assert_eq!(lean.num_params(), model(experts, relative).num_params());
        }
    }

    #[test]
    fn in_8_bits_an_utterance_is_the_same_in_any_batch() {
        let (model, arithmetic) = Arithmetic::pack(Precision::Int8, model(3, true), &Device::flex());
        let (x, lengths) = (frames(3, 40), Lengths::new(vec![40, 31, 9], 40));
        let together = logits(&model, x.clone(), &lengths, &arithmetic);
        for (row, valid) in [40usize, 31, 9].into_iter().enumerate() {
            let alone = x.clone().narrow(0, row, 1).narrow(1, 0, valid);
            let alone = logits(&model, alone, &Lengths::full(1, valid), &arithmetic);
            let steps = valid / 2 * 20;
            assert_eq!(alone[..steps], together[row * 20 * 20..][..steps], "utterance {row}");
        }
    }

    #[test]
    fn packed_weights_of_8_bits_are_a_quarter() {
        let dense = |precision| Arithmetic::pack(precision, model(0, false), &Device::flex()).1.packed_bytes();
        assert_eq!(dense(Precision::F32), 0);
        // Panels of 32 columns and steps of 64 `k` pad a model as small as this one.
        assert!(dense(Precision::Int8) > 0 && dense(Precision::Int8) < 4 * model(0, false).num_params());
    }

    #[test]
    fn a_pass_in_chunks_runs_in_8_bits_too() {
        let (model, arithmetic) = Arithmetic::pack(Precision::Int8, model(0, false), &Device::flex());
        let chunk = Some(Chunk { steps: 4, left_chunks: 2 });
        let pass = Pass::inference(&arithmetic).with_chunk(chunk);
        let run = |frames: Tensor<3>, steps| model.forward(frames, &Lengths::full(1, steps), &pass).logits;
        let (short, long) = (run(frames(1, 16), 16), run(frames(1, 32), 32));
        let values = |t: Tensor<3>| t.into_data().try_into_vec::<f32>().unwrap();
        assert_eq!(values(short), values(long.narrow(1, 0, 8)), "steps see nothing after their chunk");
    }
}
