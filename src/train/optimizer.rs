//! AdamW over master weights on the host, with clipping by the global norm and averaged weights.
//!
//! Burn's own AdamW is a chain of tensor operations per parameter and clips each parameter by itself; this is one pass over flat buffers.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Gradients, Tensor, TensorData};

use crate::checkpoint::safetensors_file::{HostTensor, HostTensors};
use crate::checkpoint::weights::{self, Names};
use crate::kernel::adamw::{self, AdamW};
use crate::kernel::memory::copy;
use crate::train::config::OptimizerConfig;

/// The trained parameters with all the optimiser knows of them.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    slots: Vec<Slot>,
    by_id: HashMap<ParamId, usize>,
    step: u64,
}

/// One parameter; all buffers of its size.
#[derive(Debug)]
struct Slot {
    name: String,
    shape: Vec<usize>,
    values: Vec<f32>,
    /// What was accumulated; `None` where nothing was (an expert no step chose).
    gradient: Option<TensorData>,
    m: Vec<f32>,
    v: Vec<f32>,
    average: Vec<f32>,
    trained: bool,
}

/// What one step did.
#[derive(Debug, Clone, Copy)]
pub struct StepReport {
    /// Global norm of the gradient before clipping.
    pub norm: f64,
    /// False if the gradient was not finite and the step was skipped.
    pub applied: bool,
}

fn slice(gradient: &TensorData) -> &[f32] {
    gradient.as_slice().expect("gradients are f32")
}

/// The buffers of a slot that a training checkpoint keeps.
const BUFFERS: [&str; 4] = ["values", "m", "v", "average"];

impl Optimizer {
    /// Takes over the current weights of `model`; each parameter once, shared ones too.
    pub fn new<M: Module>(config: OptimizerConfig, model: &M) -> Self {
        struct Visit {
            names: Names,
            found: Vec<(ParamId, String, bool)>,
        }
        impl ModuleVisitor for Visit {
            fn enter_module(&mut self, name: &str, _container: &str) {
                self.names.enter(name);
            }
            fn exit_module(&mut self, _name: &str, _container: &str) {
                self.names.exit();
            }
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                self.found.push((param.id, self.names.current(), param.val().is_require_grad()));
            }
        }
        let mut visit = Visit { names: Names::default(), found: Vec::new() };
        model.visit(&mut visit);
        let mut tensors = weights::collect(model);
        let mut optimizer = Self { config, slots: Vec::new(), by_id: HashMap::new(), step: 0 };
        for (id, name, trained) in visit.found {
            let Some(HostTensor { shape, values }) = tensors.remove(&name) else { continue };
            let zeros = vec![0.0; values.len()];
            optimizer.by_id.insert(id, optimizer.slots.len());
            let average = values.clone();
            optimizer.slots.push(Slot { name, shape, values, gradient: None, m: zeros.clone(), v: zeros, average, trained });
        }
        optimizer
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Number of scalars that are trained.
    pub fn parameters(&self) -> usize {
        self.slots.iter().filter(|s| s.trained).map(|s| s.values.len()).sum()
    }

    /// Adds the gradients of one batch.
    pub fn accumulate<M: Module>(&mut self, model: &M, gradients: &Gradients) {
        struct Visit<'a> {
            optimizer: &'a mut Optimizer,
            gradients: &'a Gradients,
        }
        impl ModuleVisitor for Visit<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let (Some(gradient), Some(&i)) = (param.val().grad(self.gradients), self.optimizer.by_id.get(&param.id)) else { return };
                let data = gradient.into_data();
                let slot = &mut self.optimizer.slots[i];
                slot.gradient = Some(match slot.gradient.take() {
                    None => data,
                    Some(sum) => {
                        let shape = sum.shape().clone();
                        let values = slice(&sum).iter().zip(slice(&data)).map(|(s, g)| s + g).collect::<Vec<f32>>();
                        TensorData::new(values, shape)
                    }
                });
            }
        }
        model.visit(&mut Visit { optimizer: self, gradients });
    }

    /// Changes a parameter that gradients do not train: a running statistic. The model has it after the next step.
    pub fn adjust(&mut self, id: ParamId, change: impl FnOnce(&mut [f32])) {
        if let Some(&i) = self.by_id.get(&id) {
            change(&mut self.slots[i].values);
        }
    }

    /// One step with rate `lr` on the sum of what was accumulated times `scale`, and the model with the new weights.
    pub fn step<M: Module>(&mut self, model: M, lr: f64, scale: f64) -> (M, StepReport) {
        let squares = |s: &Slot| s.gradient.as_ref().map_or(0.0, |g| adamw::sum_squares(slice(g)));
        let norm = self.slots.iter().filter(|s| s.trained).map(squares).sum::<f64>().sqrt() * scale;
        if !norm.is_finite() {
            self.slots.iter_mut().for_each(|s| s.gradient = None);
            return (self.install(model), StepReport { norm, applied: false });
        }
        self.step += 1;
        let clip = if norm > self.config.clip { self.config.clip / norm } else { 1.0 };
        let average = self.average_decay();
        for slot in self.slots.iter_mut().filter(|s| s.trained) {
            let rule = AdamW {
                lr: lr as f32,
                beta1: self.config.beta1 as f32,
                beta2: self.config.beta2 as f32,
                eps: self.config.epsilon as f32,
                weight_decay: if slot.shape.len() > 1 && !slot.name.ends_with("bias") { self.config.weight_decay as f32 } else { 0.0 },
                grad_scale: (clip * scale) as f32,
                step: self.step,
            };
            let state = adamw::State { m: &mut slot.m, v: &mut slot.v, average: Some((&mut slot.average, average)) };
            // A parameter without a gradient still has momentum and decay.
            let gradient = slot.gradient.take();
            let none;
            let gradient = match &gradient {
                Some(data) => slice(data),
                None => {
                    none = vec![0.0; slot.values.len()];
                    &none
                }
            };
            rule.update(&mut slot.values, gradient, state);
        }
        (self.install(model), StepReport { norm, applied: true })
    }

    /// Decay of the average at this step: short at first, so that the random start is soon forgotten.
    fn average_decay(&self) -> f32 {
        let warm = self.step as f64 / (self.step as f64 + 9.0);
        self.config.average.min(warm) as f32
    }

    /// `model` with the master weights.
    pub fn install<M: Module>(&self, model: M) -> M {
        struct Install<'a>(&'a Optimizer);
        impl ModuleMapper for Install<'_> {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                match self.0.by_id.get(&param.id) {
                    Some(&i) => weights::replace(param, copy(&self.0.slots[i].values)),
                    None => param,
                }
            }
        }
        model.map(&mut Install(self))
    }

    /// The averaged weights, which are evaluated and exported.
    pub fn averaged(&self) -> HostTensors {
        let averaging = self.config.average > 0.0;
        let tensor = |s: &Slot| {
            let values = if averaging && s.trained { &s.average } else { &s.values };
            HostTensor { shape: s.shape.clone(), values: values.clone() }
        };
        self.slots.iter().map(|s| (s.name.clone(), tensor(s))).collect()
    }

    /// All state by `buffer/parameter`.
    pub fn state(&self) -> HostTensors {
        let mut tensors = HostTensors::new();
        for slot in &self.slots {
            for (buffer, values) in BUFFERS.into_iter().zip([&slot.values, &slot.m, &slot.v, &slot.average]) {
                tensors.insert(format!("{buffer}/{}", slot.name), HostTensor { shape: slot.shape.clone(), values: values.clone() });
            }
        }
        tensors
    }

    /// Restores what [`Optimizer::state`] gave after `step` steps.
    ///
    /// # Errors
    /// The names of buffers that are missing or have another shape.
    pub fn restore(&mut self, mut tensors: HostTensors, step: u64) -> std::result::Result<(), Vec<String>> {
        let mut wrong = Vec::new();
        for slot in &mut self.slots {
            for (buffer, target) in BUFFERS.into_iter().zip([&mut slot.values, &mut slot.m, &mut slot.v, &mut slot.average]) {
                let name = format!("{buffer}/{}", slot.name);
                match tensors.remove(&name) {
                    Some(t) if t.shape == slot.shape => *target = t.values,
                    _ => wrong.push(name),
                }
            }
        }
        wrong.extend(tensors.into_keys());
        self.step = step;
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}
