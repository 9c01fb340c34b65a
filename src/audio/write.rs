//! Writing WAV files: complete or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use hound::{SampleFormat, WavSpec, WavWriter};

use super::Waveform;
use super::limits::exceeded;
use crate::error::{Error, Result};

/// How samples are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WavFormat {
    /// 16-bit integers; samples outside [-1, 1] are clipped.
    Int16,
    /// 32-bit floats.
    Float32,
}

/// Bytes of the header hound writes, at most; a RIFF file holds less than 4 GiB.
const HEADER_BYTES: u64 = 128;

/// Writes a mono WAV file under a temporary name in the same folder, syncs it and renames it: a kill leaves the old file or
/// the new one.
///
/// # Errors
/// [`Error::Io`], and [`Error::LimitExceeded`] for more samples than a WAV file holds.
pub fn write_wav(path: &Path, waveform: &Waveform, format: WavFormat) -> Result<()> {
    let bytes_per_sample = if format == WavFormat::Int16 { 2 } else { 4 };
    let most = (u64::from(u32::MAX) - HEADER_BYTES) / bytes_per_sample;
    if waveform.samples.len() as u64 > most {
        return Err(exceeded(path, "samples in a WAV file", most, waveform.samples.len() as u64));
    }
    let temporary = temporary_name(path);
    let done = write_to(&temporary, waveform, format).and_then(|()| fs::rename(&temporary, path));
    done.map_err(|e| {
        let _ = fs::remove_file(&temporary);
        Error::io(path, e)
    })
}

fn write_to(path: &Path, waveform: &Waveform, format: WavFormat) -> io::Result<()> {
    let (bits_per_sample, sample_format) = match format {
        WavFormat::Int16 => (16, SampleFormat::Int),
        WavFormat::Float32 => (32, SampleFormat::Float),
    };
    let spec = WavSpec { channels: 1, sample_rate: waveform.sample_rate.0, bits_per_sample, sample_format };
    let mut file = BufWriter::new(File::create_new(path)?);
    let mut writer = WavWriter::new(&mut file, spec).map_err(plain_io)?;
    for &x in &waveform.samples {
        match format {
            WavFormat::Int16 => writer.write_sample((x * 32768.0).round().clamp(-32768.0, 32767.0) as i16),
            WavFormat::Float32 => writer.write_sample(x),
        }
        .map_err(plain_io)?;
    }
    writer.finalize().map_err(plain_io)?;
    file.flush()?;
    file.get_ref().sync_all()
}

fn plain_io(error: hound::Error) -> io::Error {
    match error {
        hound::Error::IoError(e) => e,
        other => io::Error::other(other),
    }
}

/// A name in the same folder that no other write of this or another process uses.
fn temporary_name(path: &Path) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}-{}.tmp", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::{Limits, read};
    use crate::units::SampleRate;

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.wav");
        let wave = Waveform { samples: vec![0.0, 0.25, -1.0, 32767.0 / 32768.0], sample_rate: SampleRate(11_025) };
        for format in [WavFormat::Int16, WavFormat::Float32] {
            write_wav(&path, &wave, format).unwrap();
            assert_eq!(read(&path, &Limits::default()).unwrap(), wave);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_missing_folder_is_an_error_that_names_the_file() {
        let wave = Waveform { samples: vec![0.0], sample_rate: SampleRate(8_000) };
        let error = write_wav(Path::new("/nonexistent/x.wav"), &wave, WavFormat::Int16).unwrap_err();
        assert!(error.to_string().starts_with("/nonexistent/x.wav"), "{error}");
    }
}
