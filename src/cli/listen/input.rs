//! What is listened to: a device, a pipe, a file, a file played as if it were live.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use crate::audio::ring::{Heard, RingReader, ring};
use crate::audio::{Channels, Limits, RawShape, RawStream, Tracks};
use crate::error::{Error, Result};
use crate::units::SampleRate;

/// How long a read waits for samples.
const PATIENCE: Duration = Duration::from_millis(10);
/// Blocks of a pipe that may wait: 8 KiB each, a minute of 16-bit samples at 16 kHz; then the pipe waits.
const WAITING: usize = 240;
/// A file is played in blocks of this length, as a driver would give them.
const PERIOD: f64 = 0.01;
/// Audio that may wait to be heard where a file is played, seconds.
const PLAYED_SECONDS: f64 = 60.0;

/// A source of samples.
pub struct Input {
    from: Origin,
    what: String,
}

enum Origin {
    File(Box<Tracks>),
    Pipe { receiver: Receiver<Piece>, rate: Option<SampleRate> },
    Ring { reader: RingReader, rate: SampleRate, _source: Box<dyn std::any::Any> },
}

/// What a pipe's thread sends.
enum Piece {
    Rate(SampleRate),
    Samples(Vec<f32>),
    Failed(Error),
}

/// What a read found.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// Samples.
    Samples,
    /// None yet.
    Nothing,
    /// None any more; why, where a device was lost.
    End(Option<String>),
}

impl Input {
    /// A whole file, as fast as it can be heard.
    ///
    /// # Errors
    /// As [`Tracks::open`].
    pub fn file(path: &Path) -> Result<Self> {
        let tracks = Tracks::open(path, Channels::Mix, SampleRate::HZ_16000, &Limits::default())?;
        Ok(Self { from: Origin::File(Box::new(tracks)), what: path.display().to_string() })
    }

    /// A file as if it were live: its samples come at their own time, and whoever is not there loses them.
    ///
    /// # Errors
    /// As [`Tracks::open`].
    pub fn play(path: &Path) -> Result<Self> {
        let rate = SampleRate::HZ_16000;
        let mut tracks = Tracks::open(path, Channels::Mix, rate, &Limits::default())?;
        let (mut writer, reader) = ring(rate.samples(PLAYED_SECONDS));
        std::thread::spawn(move || {
            let (start, mut played) = (Instant::now(), 0usize);
            loop {
                let block = match tracks.next_block() {
                    Ok(Some(block)) => block[0].clone(),
                    Ok(None) => return writer.end(None),
                    Err(error) => return writer.end(Some(error.to_string())),
                };
                for period in block.chunks(rate.samples(PERIOD)) {
                    played += period.len();
                    // A sample is there when it was spoken.
                    let due = start + Duration::from_secs_f64(rate.seconds(played));
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    writer.write(period.iter().copied(), 1);
                }
            }
        });
        Ok(Self { from: Origin::Ring { reader, rate, _source: Box::new(()) }, what: path.display().to_string() })
    }

    /// Samples from a pipe, which waits where they are not heard in time.
    pub fn pipe(path: &Path, shape: RawShape) -> Self {
        let (sender, receiver) = sync_channel(WAITING);
        let name = path.to_path_buf();
        std::thread::spawn(move || {
            let all = || -> Result<()> {
                let mut stream = RawStream::open(&name, shape, &Limits::default())?;
                let mut gone = sender.send(Piece::Rate(stream.sample_rate())).is_err();
                while let (false, Some(block)) = (gone, stream.next_block()?) {
                    gone = sender.send(Piece::Samples(block.to_vec())).is_err();
                }
                Ok(())
            };
            if let Err(error) = all() {
                // Nobody listens any more, then nobody minds.
                let _ = sender.send(Piece::Failed(error));
            }
        });
        let what = if path.as_os_str() == "-" { "standard input".into() } else { path.display().to_string() };
        Self { from: Origin::Pipe { receiver, rate: None }, what }
    }

    /// The microphone.
    ///
    /// # Errors
    /// [`Error::DeviceUnavailable`], also in a build without the `mic` feature.
    #[cfg(feature = "mic")]
    pub fn microphone(name: Option<&str>) -> Result<Self> {
        let (microphone, reader) = crate::audio::mic::Microphone::open(name)?;
        let (rate, what) = (microphone.rate, format!("microphone {}", microphone.name));
        Ok(Self { from: Origin::Ring { reader, rate, _source: Box::new(microphone) }, what })
    }

    /// The microphone.
    ///
    /// # Errors
    /// [`Error::DeviceUnavailable`], also in a build without the `mic` feature.
    #[cfg(not(feature = "mic"))]
    pub fn microphone(_name: Option<&str>) -> Result<Self> {
        Err(without_feature())
    }

    /// For people.
    pub fn describe(&self) -> &str {
        &self.what
    }

    /// Whether a level meter is of use.
    pub fn is_live(&self) -> bool {
        !matches!(self.from, Origin::File(_))
    }

    /// Samples per second; waits for a pipe's header, until `stop` is set.
    ///
    /// # Errors
    /// As [`RawStream::open`].
    pub fn rate(&mut self, stop: &AtomicBool) -> Result<SampleRate> {
        match &mut self.from {
            Origin::File(_) => Ok(SampleRate::HZ_16000),
            Origin::Ring { rate, .. } => Ok(*rate),
            Origin::Pipe { receiver, rate } => loop {
                match receiver.recv_timeout(PATIENCE) {
                    Ok(Piece::Rate(found)) => return Ok(*rate.insert(found)),
                    Ok(Piece::Failed(error)) => return Err(error),
                    Err(RecvTimeoutError::Timeout) if !stop.load(Ordering::Relaxed) => {}
                    Ok(Piece::Samples(_)) | Err(_) => return Ok(SampleRate::HZ_16000),
                }
            },
        }
    }

    /// Waits a moment for samples and appends them.
    ///
    /// # Errors
    /// What reading gives.
    pub fn read(&mut self, out: &mut Vec<f32>) -> Result<Read> {
        match &mut self.from {
            Origin::File(tracks) => Ok(match tracks.next_block()? {
                Some(block) => {
                    out.extend_from_slice(&block[0]);
                    Read::Samples
                }
                None => Read::End(None),
            }),
            Origin::Pipe { receiver, .. } => match receiver.recv_timeout(PATIENCE) {
                Ok(Piece::Samples(samples)) => {
                    out.extend_from_slice(&samples);
                    Ok(Read::Samples)
                }
                Ok(Piece::Failed(error)) => Err(error),
                Ok(Piece::Rate(_)) | Err(RecvTimeoutError::Timeout) => Ok(Read::Nothing),
                Err(RecvTimeoutError::Disconnected) => Ok(Read::End(None)),
            },
            Origin::Ring { reader, .. } => Ok(match reader.read(out) {
                Heard::Samples => Read::Samples,
                Heard::End(reason) => Read::End(reason),
                Heard::Nothing => {
                    std::thread::sleep(PATIENCE);
                    Read::Nothing
                }
            }),
        }
    }

    /// Samples that were lost, and how often.
    pub fn lost(&self) -> (u64, u64) {
        match &self.from {
            Origin::Ring { reader, .. } => reader.lost(),
            Origin::File(_) | Origin::Pipe { .. } => (0, 0),
        }
    }
}

/// One line for each microphone.
///
/// # Errors
/// As [`crate::audio::mic::devices`].
#[cfg(feature = "mic")]
pub fn list_devices() -> Result<String> {
    let devices = crate::audio::mic::devices()?;
    if devices.is_empty() {
        return Ok("no microphones\n".into());
    }
    let line = |d: &crate::audio::mic::InputDevice| {
        let format = d.format.as_deref().unwrap_or("says no format");
        format!("{} {}  ({}; {format})\n", if d.is_default { '*' } else { ' ' }, d.name, d.id)
    };
    Ok(devices.iter().map(line).collect())
}

/// One line for each microphone.
///
/// # Errors
/// [`Error::DeviceUnavailable`]
#[cfg(not(feature = "mic"))]
pub fn list_devices() -> Result<String> {
    Err(without_feature())
}

#[cfg(not(feature = "mic"))]
fn without_feature() -> Error {
    let available = "arecord | omniscribe listen -, or --file; or build with --features mic".into();
    Error::DeviceUnavailable { requested: "microphone (this build lacks the mic feature)".into(), available }
}
