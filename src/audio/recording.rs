//! A WAV file that grows while it is recorded.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use hound::{SampleFormat, WavSpec, WavWriter};

use crate::error::{Error, Result};
use crate::units::SampleRate;

/// Samples after which the header is brought up to date: what a kill can lose.
const UP_TO_DATE: usize = 1 << 15;

/// 16-bit mono, written as it comes; readable at any time.
pub struct Recording {
    path: PathBuf,
    writer: WavWriter<BufWriter<File>>,
    since: usize,
}

impl Recording {
    /// Starts a file of samples at `rate`.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn create(path: &Path, rate: SampleRate) -> Result<Self> {
        let spec = WavSpec { channels: 1, sample_rate: rate.0, bits_per_sample: 16, sample_format: SampleFormat::Int };
        let writer = WavWriter::create(path, spec).map_err(|e| failed(path, e))?;
        Ok(Self { path: path.into(), writer, since: 0 })
    }

    /// Appends samples in [-1, 1].
    ///
    /// # Errors
    /// [`Error::Io`], also where the file would pass 4 GiB.
    pub fn step(&mut self, samples: &[f32]) -> Result<()> {
        let to_i16 = |x: f32| (x * 32768.0).round().clamp(-32768.0, 32767.0) as i16;
        let mut all = samples.iter().try_for_each(|&x| self.writer.write_sample(to_i16(x)));
        self.since += samples.len();
        if self.since >= UP_TO_DATE {
            self.since = 0;
            all = all.and_then(|()| self.writer.flush());
        }
        all.map_err(|e| failed(&self.path, e))
    }

    /// Completes the file.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn flush(self) -> Result<()> {
        let Self { path, writer, .. } = self;
        writer.finalize().map_err(|e| failed(&path, e))
    }
}

fn failed(path: &Path, error: hound::Error) -> Error {
    let source = match error {
        hound::Error::IoError(e) => e,
        other => std::io::Error::other(other),
    };
    Error::io(path, source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::{Limits, read};

    #[test]
    fn it_can_be_read_while_it_grows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.wav");
        let mut recording = Recording::create(&path, SampleRate(48_000)).unwrap();
        recording.step(&vec![0.25; UP_TO_DATE]).unwrap();
        recording.step(&[0.5; 10]).unwrap();
        assert_eq!(read(&path, &Limits::default()).unwrap().samples.len(), UP_TO_DATE);
        recording.flush().unwrap();
        let wave = read(&path, &Limits::default()).unwrap();
        assert_eq!((wave.samples.len(), wave.samples[UP_TO_DATE], wave.sample_rate.0), (UP_TO_DATE + 10, 0.5, 48_000));
    }
}
