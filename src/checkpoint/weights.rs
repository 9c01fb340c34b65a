//! Weights out of a module by name, and back into it.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};

use crate::checkpoint::safetensors_file::{HostTensor, HostTensors};
use crate::error::{Error, Result};

/// The path of a parameter through its module, e.g. `encoder.blocks.0.attention.qkv.weight`.
#[derive(Debug, Default)]
pub struct Names(Vec<String>);

impl Names {
    /// Enters a field.
    pub fn enter(&mut self, name: &str) {
        self.0.push(name.to_string());
    }

    /// Leaves the field.
    pub fn exit(&mut self) {
        self.0.pop();
    }

    /// The name of the parameter visited now.
    pub fn current(&self) -> String {
        self.0.join(".")
    }
}

/// Every float parameter of `module` by name, each once.
///
/// # Panics
/// If a parameter cannot be read back as f32: a bug of the backend.
pub fn collect<M: Module>(module: &M) -> HostTensors {
    struct Collect {
        names: Names,
        tensors: HostTensors,
    }
    impl ModuleVisitor for Collect {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.names.enter(name);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.names.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let data = param.val().into_data();
            let shape = data.shape().to_vec();
            let values = data.try_to_vec::<f32>().expect("parameters are f32");
            self.tensors.insert(self.names.current(), HostTensor { shape, values });
        }
    }
    let mut visitor = Collect { names: Names::default(), tensors: HostTensors::new() };
    module.visit(&mut visitor);
    visitor.tensors
}

/// `module` with the weights of `tensors`, on the parameters' own device.
///
/// # Errors
/// [`Error::Checkpoint`] naming every missing, unused and mis-shaped tensor.
pub fn apply<M: Module>(module: M, tensors: &HostTensors, path: &std::path::Path) -> Result<M> {
    struct Apply<'a> {
        names: Names,
        tensors: &'a HostTensors,
        used: std::collections::BTreeSet<String>,
        missing: Vec<String>,
        mismatched: Vec<String>,
    }
    impl ModuleMapper for Apply<'_> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.names.enter(name);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.names.exit();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let name = self.names.current();
            let wanted = param.shape().to_vec();
            match self.tensors.get(&name) {
                None => self.missing.push(name),
                Some(t) if t.shape != wanted => {
                    self.mismatched.push(format!("{name}: {:?} in the file, {wanted:?} in the model", t.shape));
                    self.used.insert(name);
                }
                Some(t) => {
                    self.used.insert(name);
                    return replace(param, t.values.clone());
                }
            }
            param
        }
    }
    let mut mapper = Apply { names: Names::default(), tensors, used: Default::default(), missing: Vec::new(), mismatched: Vec::new() };
    let module = module.map(&mut mapper);
    let Apply { used, missing, mismatched, .. } = mapper;
    let unused: Vec<String> = tensors.keys().filter(|name| !used.contains(*name)).cloned().collect();
    if missing.is_empty() && unused.is_empty() && mismatched.is_empty() {
        Ok(module)
    } else {
        Err(Error::Checkpoint { path: path.into(), missing, unused, mismatched })
    }
}

/// The parameter with other values of the same shape, keeping device and gradient setting.
pub(crate) fn replace<const D: usize>(param: Param<Tensor<D>>, values: Vec<f32>) -> Param<Tensor<D>> {
    param.map(|old| {
        let tracked = old.is_require_grad();
        let new = Tensor::<D>::from_data(TensorData::new(values, old.shape()), &old.device());
        if tracked { new.require_grad() } else { new }
    })
}
