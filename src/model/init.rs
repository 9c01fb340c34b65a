//! Parameter initialisation from a seed: the same weights on any device, thread count or test order.

use burn::module::{Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};

use crate::kernel::rng::SplitMix;

/// Draws parameters in construction order.
#[derive(Debug)]
pub struct Init {
    device: Device,
    /// `None`: parameters stay empty until they are loaded.
    rng: Option<SplitMix>,
}

impl Init {
    /// A source of parameters on `device`.
    pub fn new(device: &Device, seed: u64) -> Self {
        Self { device: device.clone(), rng: Some(SplitMix::new(seed)) }
    }

    /// A source of parameters on `device` that know their shape and take no memory: for loading weights into. One that is used before it is
    /// loaded is zero.
    pub fn blank(device: &Device) -> Self {
        Self { device: device.clone(), rng: None }
    }

    /// Where parameters live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Uniform in +- `1 / sqrt(fan_in)`, the default of linear layers in the field.
    pub fn fan_in<const D: usize>(&mut self, shape: [usize; D], fan_in: usize) -> Param<Tensor<D>> {
        self.uniform(shape, 1.0 / (fan_in.max(1) as f32).sqrt())
    }

    /// Uniform in +- `bound`.
    pub fn uniform<const D: usize>(&mut self, shape: [usize; D], bound: f32) -> Param<Tensor<D>> {
        let Some(rng) = &mut self.rng else { return self.empty(shape) };
        let count = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|_| (rng.next_f32() * 2.0 - 1.0) * bound).collect();
        Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), &self.device))
    }

    /// Normal with mean 0 and standard deviation `deviation`.
    pub fn normal<const D: usize>(&mut self, shape: [usize; D], deviation: f32) -> Param<Tensor<D>> {
        let Some(rng) = &mut self.rng else { return self.empty(shape) };
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.next_normal() * deviation).collect();
        Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), &self.device))
    }

    /// All elements `value`.
    pub fn constant<const D: usize>(&mut self, shape: [usize; D], value: f32) -> Param<Tensor<D>> {
        if self.rng.is_none() {
            return self.empty(shape);
        }
        let values = vec![value; shape.iter().product()];
        Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), &self.device))
    }

    fn empty<const D: usize>(&self, shape: [usize; D]) -> Param<Tensor<D>> {
        let zeros = move |device: &Device, tracked: bool| Tensor::zeros(shape, device).set_require_grad(tracked);
        Param::uninitialized(ParamId::new(), zeros, self.device.clone(), true, shape.into())
    }
}
