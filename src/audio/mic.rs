//! The microphone, through cpal: ALSA, CoreAudio or WASAPI.

use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
use cpal::{ErrorKind, FromSample, Sample, SampleFormat, SizedSample, StreamConfig};

use super::ring::{RingReader, Writer, ring};
use crate::error::{Error, Result};
use crate::units::SampleRate;

/// Audio that may wait to be heard, seconds: the time to load a model, many times over.
const CAPACITY_SECONDS: usize = 60;

/// An input device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputDevice {
    /// What [`Microphone::open`] takes.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Whether it is what is heard unless said otherwise.
    pub is_default: bool,
    /// Rate, channels and sample format it starts with; `None` where it does not say.
    pub format: Option<String>,
}

/// A device that records until this is dropped.
pub struct Microphone {
    /// Records as long as it lives.
    _stream: cpal::Stream,
    /// What people call it.
    pub name: String,
    /// Of the samples.
    pub rate: SampleRate,
}

/// All input devices.
///
/// # Errors
/// [`Error::DeviceUnavailable`] where the audio system gives no list.
pub fn devices() -> Result<Vec<InputDevice>> {
    let host = cpal::default_host();
    let default = host.default_input_device().and_then(|d| d.id().ok());
    let all = host.input_devices().map_err(|e| unavailable("a list of devices", &e))?;
    let describe = |device: cpal::Device| {
        let id = device.id().ok();
        let format = device.default_input_config().ok();
        InputDevice {
            name: name_of(&device),
            is_default: id.is_some() && id == default,
            id: id.map(|id| id.to_string()).unwrap_or_default(),
            format: format.map(|f| format!("{} Hz, {} channels, {}", f.sample_rate(), f.channels(), f.sample_format())),
        }
    };
    Ok(all.map(describe).collect())
}

impl Microphone {
    /// Starts recording from the device whose name or id is `wanted` or contains it (`None`: the default one), at whatever rate and in whatever
    /// format it has.
    ///
    /// # Errors
    /// [`Error::DeviceUnavailable`], saying which devices there are; [`Error::UnsupportedAudio`] for a sample format that is no PCM.
    pub fn open(wanted: Option<&str>) -> Result<(Self, RingReader)> {
        let device = find(wanted)?;
        let name = name_of(&device);
        let config = device.default_input_config().map_err(|e| unavailable(&name, &e))?;
        let rate = SampleRate(config.sample_rate());
        let (writer, reader) = ring(rate.0 as usize * CAPACITY_SECONDS);
        let format = config.sample_format();
        let config: StreamConfig = config.into();
        let stream = match format {
            SampleFormat::I8 => start::<i8>(&device, config, writer),
            SampleFormat::I16 => start::<i16>(&device, config, writer),
            SampleFormat::I24 => start::<cpal::I24>(&device, config, writer),
            SampleFormat::I32 => start::<i32>(&device, config, writer),
            SampleFormat::I64 => start::<i64>(&device, config, writer),
            SampleFormat::U8 => start::<u8>(&device, config, writer),
            SampleFormat::U16 => start::<u16>(&device, config, writer),
            SampleFormat::U24 => start::<cpal::U24>(&device, config, writer),
            SampleFormat::U32 => start::<u32>(&device, config, writer),
            SampleFormat::U64 => start::<u64>(&device, config, writer),
            SampleFormat::F32 => start::<f32>(&device, config, writer),
            SampleFormat::F64 => start::<f64>(&device, config, writer),
            other => return Err(Error::UnsupportedAudio { path: name.into(), reason: format!("sample format {other}") }),
        };
        let stream = stream.map_err(|e| unavailable(&name, &e))?;
        stream.play().map_err(|e| unavailable(&name, &e))?;
        Ok((Self { _stream: stream, name, rate }, reader))
    }
}

fn find(wanted: Option<&str>) -> Result<cpal::Device> {
    let host = cpal::default_host();
    let Some(wanted) = wanted else {
        let none = || Error::DeviceUnavailable { requested: "the default microphone".into(), available: known() };
        return host.default_input_device().ok_or_else(none);
    };
    let folded = wanted.to_lowercase();
    let id = |device: &cpal::Device| device.id().map(|id| id.to_string()).unwrap_or_default();
    let all: Vec<cpal::Device> = host.input_devices().map_err(|e| unavailable(wanted, &e))?.collect();
    let exact = all.iter().position(|d| id(d) == wanted || name_of(d) == wanted);
    let found =
        exact.or_else(|| all.iter().position(|d| name_of(d).to_lowercase().contains(&folded) || id(d).to_lowercase().contains(&folded)));
    found.and_then(|at| all.into_iter().nth(at)).ok_or_else(|| Error::DeviceUnavailable { requested: wanted.into(), available: known() })
}

/// Names of the devices that are there.
fn known() -> String {
    let names: Vec<String> = devices().unwrap_or_default().into_iter().map(|d| d.name).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

fn name_of(device: &cpal::Device) -> String {
    device
        .description()
        .map(|d| d.name().to_string())
        .or_else(|_| device.id().map(|id| id.to_string()))
        .unwrap_or_else(|_| "unnamed".into())
}

fn start<T>(device: &cpal::Device, config: StreamConfig, mut writer: Writer) -> std::result::Result<cpal::Stream, cpal::Error>
where
    T: SizedSample,
    f32: FromSample<T>,
{
    let channels = usize::from(config.channels);
    let teller = writer.teller();
    let failed = move |error: cpal::Error| match error.kind() {
        ErrorKind::Xrun => teller.overrun(),
        // The stream goes on.
        ErrorKind::DeviceChanged | ErrorKind::RealtimeDenied => {}
        _ => teller.end(Some(error.to_string())),
    };
    let heard = move |data: &[T], _: &cpal::InputCallbackInfo| writer.write(data.iter().map(|&x| f32::from_sample(x)), channels);
    device.build_input_stream(config, heard, failed, None)
}

fn unavailable(name: &str, error: &cpal::Error) -> Error {
    Error::DeviceUnavailable { requested: format!("{name} ({error})"), available: "see --list-devices".into() }
}
