//! Which device the work runs on.

use burn::tensor::Device;
use clap::ValueEnum;

use crate::error::{Error, Result};

/// A device by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DeviceChoice {
    /// The processor.
    Cpu,
    /// The first NVIDIA GPU; needs a build with the `cuda` feature.
    Cuda,
}

/// The device, if it is there.
///
/// # Errors
/// [`Error::DeviceUnavailable`]
pub fn open(choice: DeviceChoice) -> Result<Device> {
    match choice {
        DeviceChoice::Cpu => Ok(Device::flex()),
        DeviceChoice::Cuda => cuda(),
    }
}

#[cfg(feature = "cuda")]
fn cuda() -> Result<Device> {
    use burn::tensor::DeviceType;
    // Asking for the device itself panics without a driver; counting devices does not.
    if Device::enumerate(DeviceType::Cuda).into_vec().is_empty() {
        return Err(unavailable("no CUDA driver or GPU was found"));
    }
    Ok(Device::cuda(0))
}

#[cfg(not(feature = "cuda"))]
fn cuda() -> Result<Device> {
    Err(unavailable("this build lacks the cuda feature"))
}

fn unavailable(reason: &str) -> Error {
    Error::DeviceUnavailable { requested: format!("cuda ({reason})"), available: "cpu".into() }
}
