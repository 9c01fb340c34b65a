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

/// Names and shapes of the float parameters of `module`; none is initialised by this.
pub fn shapes<M: Module>(module: &M) -> Vec<(String, Vec<usize>)> {
    struct Shapes(Names, Vec<(String, Vec<usize>)>);
    impl ModuleVisitor for Shapes {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.0.enter(name);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.0.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.1.push((self.0.current(), param.lazy_shape().to_vec()));
        }
    }
    let mut visitor = Shapes(Names::default(), Vec::new());
    module.visit(&mut visitor);
    visitor.1
}

/// Why a source has no values for a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A tensor is missing; its name, perhaps with a hint.
    Missing(String),
    /// A tensor has another shape or type; both sides spelled out.
    Mismatched(String),
}

impl Fault {
    /// What is wrong, in words.
    pub fn into_text(self) -> String {
        match self {
            Self::Missing(what) | Self::Mismatched(what) => what,
        }
    }
}

/// Where the values of parameters come from.
pub trait Source {
    /// The values of parameter `name`, row-major, as many as `shape` says.
    ///
    /// # Errors
    /// [`Fault`]
    fn take(&self, name: &str, shape: &[usize]) -> std::result::Result<Vec<f32>, Fault>;

    /// What was there and nobody took.
    fn unused(&self) -> Vec<String>;

    /// Whether parameter `name` stays without values, because it is never used.
    fn leaves(&self, _name: &str) -> bool {
        false
    }
}

/// `module` with the weights of `tensors`, on the parameters' own device.
///
/// # Errors
/// [`Error::Checkpoint`] naming every missing, unused and mis-shaped tensor.
pub fn apply<M: Module>(module: M, tensors: &HostTensors, path: &std::path::Path) -> Result<M> {
    struct Held<'a> {
        tensors: &'a HostTensors,
        used: std::cell::RefCell<std::collections::BTreeSet<String>>,
    }
    impl Source for Held<'_> {
        fn take(&self, name: &str, shape: &[usize]) -> std::result::Result<Vec<f32>, Fault> {
            let tensor = self.tensors.get(name).ok_or_else(|| Fault::Missing(name.into()))?;
            self.used.borrow_mut().insert(name.into());
            if tensor.shape != shape {
                return Err(Fault::Mismatched(format!("{name}: {:?} in the file, {shape:?} in the model", tensor.shape)));
            }
            Ok(tensor.values.clone())
        }

        fn unused(&self) -> Vec<String> {
            let used = self.used.borrow();
            self.tensors.keys().filter(|name| !used.contains(*name)).cloned().collect()
        }
    }
    fill(module, &Held { tensors, used: Default::default() }, path)
}

/// `module` with its weights from `source`, on the parameters' own device. Parameters that are not initialised yet never are.
///
/// # Errors
/// [`Error::Checkpoint`] naming every missing, unused and mis-shaped tensor.
pub fn fill<M: Module>(module: M, source: &impl Source, path: &std::path::Path) -> Result<M> {
    struct Fill<'a, S> {
        names: Names,
        source: &'a S,
        missing: Vec<String>,
        mismatched: Vec<String>,
    }
    impl<S: Source> ModuleMapper for Fill<'_, S> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.names.enter(name);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.names.exit();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if self.source.leaves(&self.names.current()) {
                return param;
            }
            let shape = param.lazy_shape();
            match self.source.take(&self.names.current(), &shape) {
                // After a fault the module is dropped: its other parameters are only checked.
                Ok(values) if self.missing.is_empty() && self.mismatched.is_empty() => {
                    let tensor = Tensor::<D>::from_data(TensorData::new(values, shape), &param.lazy_device());
                    let id = param.id;
                    return param.transform_for_load(tensor, id);
                }
                Ok(_) => {}
                Err(Fault::Missing(what)) => self.missing.push(what),
                Err(Fault::Mismatched(what)) => self.mismatched.push(what),
            }
            param
        }
    }
    let mut mapper = Fill { names: Names::default(), source, missing: Vec::new(), mismatched: Vec::new() };
    let module = module.map(&mut mapper);
    let Fill { missing, mismatched, .. } = mapper;
    let unused = source.unused();
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
