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
/// Without packed weights the pass packs what it multiplies by anew each time; the results are the same.
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
    /// Nothing is packed, and the model stays as it is, where products are in f32 or `device` is not the CPU.
    pub fn pack<M: Module>(precision: Precision, model: M, device: &Device) -> (M, Self) {
        let compute = Compute::new(precision, Parallel::Rayon);
        let is_of_use = precision == Precision::Int8 || compute.is_bf16();
        if !is_of_use || !fused::available(device) {
            return (model, precision.into());
        }
        let mut packer = Packer { compute, path: Vec::new(), packed: HashMap::new() };
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

/// Walks a model, packs, and puts a tensor of the same shape and no size in the place of what it packed.
struct Packer {
    compute: Compute,
    /// Whether what is entered is a weight to pack, from the outermost in.
    path: Vec<bool>,
    packed: HashMap<ParamId, Packed>,
}

impl ModuleMapper for Packer {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        let is_weight = match container_type {
            "Struct:Linear" => name == "weight",
            "Struct:Dense" | "Struct:Experts" => name == "up" || name == "down",
            _ => false,
        };
        self.path.push(is_weight);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.path.last() != Some(&true) {
            return param;
        }
        let id = param.id;
        param.map(|weights| {
            let (device, shape) = (weights.device(), weights.dims());
            let data = weights.into_data();
            let values = data.as_slice::<f32>().expect("weights are f32");
            let [.., rows, columns] = shape[..] else { unreachable!("a weight has rows and columns") };
            let matrices =
                values.chunks_exact((rows * columns).max(1)).map(|w| PackedMatrix::pack(Matrix::new(w, rows, columns), self.compute));
            self.packed.insert(id, matrices.collect());
            Tensor::<D>::zeros([1; D], &device).expand(shape)
        })
    }
}
