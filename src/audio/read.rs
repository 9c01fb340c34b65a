//! Reading: whole files, or block by block in flat memory.

use std::io::{BufReader, SeekFrom};
use std::path::{Path, PathBuf};

use symphonia::core::io::MediaSource;

use super::block::{Block, Take, Wanted};
use super::limits::Limits;
use super::packets::Packets;
use super::pcm::Pcm;
use super::resample::Resampler;
use super::riff::{self, Riff};
use super::sniff::{Kind, sniff};
use super::source::{Source, as_stream};
use super::warnings::Warnings;
use super::{Blocks, Waveform, au, caf, matroska, mp4, sphere};
use crate::error::{Error, Result};
use crate::units::SampleRate;

/// Data missing at the end below this is an encoder's rounding, not a cut file: less than one packet of any codec.
const MISSING_SECONDS: f64 = 0.02;

/// Read-ahead for headers and samples of our own parsing.
const READ_BYTES: usize = 64 << 10;

/// Reads a whole file (or standard input, `-`) at its own rate.
///
/// Damaged parts are skipped; open a [`Reader`] to see its warnings.
///
/// # Errors
/// As [`Reader::open`] and [`Reader::next_block`].
pub fn read(path: &Path, limits: &Limits) -> Result<Waveform> {
    Reader::open(path, limits)?.read_to_end()
}

/// Reads a whole file (or standard input, `-`) and resamples it on the way.
///
/// # Errors
/// As [`read`].
pub fn read_at(path: &Path, sample_rate: SampleRate, limits: &Limits) -> Result<Waveform> {
    let wanted = Wanted { take: Take::Mean, rate: Some(sample_rate) };
    Reader::new(path, Source::open(path)?, limits, wanted)?.read_to_end_at(sample_rate)
}

/// Decodes a file held in memory at its own rate; `name` is what errors call it.
///
/// # Errors
/// As [`read`].
pub fn decode(name: &Path, bytes: Vec<u8>, limits: &Limits) -> Result<Waveform> {
    Reader::from_bytes(name, bytes, limits)?.read_to_end()
}

/// A file being decoded to mono, block by block, in memory that does not grow with its length.
pub struct Reader {
    name: PathBuf,
    limits: Limits,
    blocks: Box<dyn Blocks>,
    block: Block,
    /// The first block is decoded on opening and waits here.
    waiting: bool,
    samples: u64,
    warnings: Warnings,
}

impl Reader {
    /// Opens a file, a pipe or standard input (`-`) and decodes its first block, so that what is no audio is refused here.
    ///
    /// # Errors
    /// - [`Error::Io`]: cannot be opened or read; a folder, a device, a pipe without a writer.
    /// - [`Error::UnsupportedAudio`]: another container, codec or layout.
    /// - [`Error::CorruptAudio`]: nothing in it can be decoded.
    /// - [`Error::LimitExceeded`]: its header asks for more than `limits`.
    pub fn open(path: &Path, limits: &Limits) -> Result<Self> {
        Self::new(path, Source::open(path)?, limits, Wanted { take: Take::Mean, rate: None })
    }

    /// Reads from memory; `name` is what errors call it.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn from_bytes(name: &Path, bytes: Vec<u8>, limits: &Limits) -> Result<Self> {
        Self::new(name, Source::from_bytes(name, bytes)?, limits, Wanted { take: Take::Mean, rate: None })
    }

    /// [`Reader::open`] or [`Reader::from_bytes`] for what is `wanted`: where that is a rate, the reader's own may already be it.
    pub(super) fn new(name: &Path, source: Source, limits: &Limits, wanted: Wanted) -> Result<Self> {
        let mut reader = Self {
            name: name.into(),
            limits: *limits,
            blocks: open_blocks(name, source, limits, wanted)?,
            block: Block::new(wanted.take),
            waiting: false,
            samples: 0,
            warnings: Warnings::default(),
        };
        if !reader.advance()? {
            let stopped = reader.warnings.stopped.take().unwrap_or_else(|| "no audio in the file".into());
            let reason = if reader.warnings.undecodable > 0 { "no packet can be decoded".into() } else { stopped };
            return Err(Error::CorruptAudio { path: name.into(), at: None, reason });
        }
        reader.waiting = true;
        Ok(reader)
    }

    /// The rate of the file.
    pub fn sample_rate(&self) -> SampleRate {
        self.blocks.sample_rate()
    }

    /// Samples per channel the header promises, where it does: for progress, not for allocation.
    pub fn promised_samples(&self) -> Option<u64> {
        self.blocks.promised()
    }

    /// The next mono samples, finite and in [-1, 1]; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Io`] where reading fails midway, [`Error::LimitExceeded`] past the longest audio. Damage is no error: see
    /// [`Reader::warnings`].
    pub fn next_block(&mut self) -> Result<Option<&[f32]>> {
        Ok(self.next_planes()?.and_then(|planes| planes.first()).map(Vec::as_slice))
    }

    /// The next samples of each plane.
    ///
    /// # Errors
    /// As [`Reader::next_block`].
    pub(super) fn next_planes(&mut self) -> Result<Option<&[Vec<f32>]>> {
        let more = std::mem::take(&mut self.waiting) || self.advance()?;
        Ok(more.then(|| self.block.planes()))
    }

    /// Number of planes.
    pub(super) fn planes(&self) -> usize {
        self.block.planes().len()
    }

    /// What was lost or altered up to now, one line each; complete once [`Reader::next_block`] gave `None`.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lines()
    }

    /// Reads what is left at the file's own rate.
    ///
    /// # Errors
    /// As [`Reader::next_block`].
    pub fn read_to_end(&mut self) -> Result<Waveform> {
        let mut samples = Vec::new();
        while let Some(block) = self.next_block()? {
            samples.extend_from_slice(block);
        }
        Ok(Waveform { samples, sample_rate: self.sample_rate() })
    }

    /// Reads what is left, resampled.
    ///
    /// # Errors
    /// As [`Reader::next_block`] and [`Resampler::new`].
    pub fn read_to_end_at(&mut self, sample_rate: SampleRate) -> Result<Waveform> {
        let mut resampler = Resampler::new(self.sample_rate(), sample_rate)?;
        let mut samples = Vec::new();
        while let Some(block) = self.next_block()? {
            resampler.step(block, &mut samples);
        }
        resampler.flush(&mut samples);
        // The filter may overshoot by a little at full scale.
        samples.iter_mut().for_each(|x| *x = x.clamp(-1.0, 1.0));
        Ok(Waveform { samples, sample_rate })
    }

    /// Decodes the next block; at the end, compares the length with what the header promised.
    fn advance(&mut self) -> Result<bool> {
        let rate = if self.blocks.next(&mut self.block, &mut self.warnings)? {
            let rate = self.blocks.sample_rate();
            self.samples += self.block.len() as u64;
            self.limits.check_length(&self.name, rate, self.samples)?;
            self.block.planes_mut().iter_mut().for_each(|plane| self.warnings.sanitise(plane));
            return Ok(true);
        } else {
            f64::from(self.blocks.sample_rate().0)
        };
        let missing = self.blocks.promised().unwrap_or(0).saturating_sub(self.samples) as f64 / rate;
        self.warnings.missing_seconds = (missing > MISSING_SECONDS).then_some(missing);
        Ok(false)
    }
}

/// Chooses the reader of the container by its first bytes.
fn open_blocks(name: &Path, source: Source, limits: &Limits, wanted: Wanted) -> Result<Box<dyn Blocks>> {
    let unsupported = |reason: &str| Error::UnsupportedAudio { path: name.into(), reason: reason.into() };
    if source.head.is_empty() {
        return Err(Error::CorruptAudio { path: name.into(), at: None, reason: "the file is empty".into() });
    }
    let symphonia = |bytes: Box<dyn MediaSource>| Packets::open(name, limits, wanted, bytes);
    let io = |e| Error::io(name, e);
    let buffered = |source: Source| BufReader::with_capacity(READ_BYTES, source.bytes);
    match sniff(&source.head) {
        Kind::Riff => open_riff(name, source, limits, wanted),
        Kind::Streamable => Ok(Box::new(symphonia(source.bytes)?)),
        Kind::Matroska => match (source.bytes.byte_len(), matroska::segment_end(&source.head)) {
            // Read as a stream, a cut file is heard up to the cut.
            (Some(total), Some(end)) if end > total => Ok(Box::new(symphonia(as_stream(source.bytes))?)),
            (Some(_), Some(_)) => Ok(Box::new(symphonia(source.bytes)?)),
            _ => Ok(Box::new(symphonia(source.bytes)?.ends_anywhere())),
        },
        Kind::NeedsSeek => Ok(Box::new(symphonia(source.into_seekable(name, limits)?)?)),
        Kind::Caf => Ok(Box::new(symphonia(caf::clip(source.into_seekable(name, limits)?).map_err(io)?)?)),
        Kind::Mp4 => {
            let mut bytes = source.into_seekable(name, limits)?;
            let edits = mp4::read_edits(&mut bytes).map_err(io)?;
            Ok(Box::new(symphonia(bytes)?.with_edits(&edits)))
        }
        Kind::Sphere => Ok(Box::new(sphere::open(name, limits, buffered(source))?)),
        Kind::Au => Ok(Box::new(au::open(name, limits, buffered(source))?)),
        Kind::Unsupported(what) => Err(unsupported(what)),
        // Some MPEG recordings start with junk; any other unknown file would be searched for frames in vain, or find false ones.
        Kind::Unknown if named_as_mpeg(name) => Ok(Box::new(symphonia(source.bytes)?)),
        Kind::Unknown => Err(unsupported("not a container this build knows")),
    }
}

/// WAV and its relatives: plain samples here, other codings from the start again by Symphonia.
fn open_riff(name: &Path, source: Source, limits: &Limits, wanted: Wanted) -> Result<Box<dyn Blocks>> {
    let unsupported = |tag: u16| Error::UnsupportedAudio { path: name.into(), reason: format!("WAV with coding {tag:#06x}") };
    let (tag, mut bytes) = match riff::compressed_tag(&source.head) {
        Some(tag) => (tag, source.bytes),
        None => {
            let mut buffered = BufReader::with_capacity(READ_BYTES, source.bytes);
            match riff::read_header(name, limits, &mut buffered)? {
                Riff::Pcm(header) => return Ok(Box::new(Pcm::new(name, header, buffered))),
                Riff::Compressed(tag) => (tag, buffered.into_inner()),
            }
        }
    };
    if bytes.is_seekable() {
        bytes.seek(SeekFrom::Start(0)).map_err(|e| Error::io(name, e))?;
    } else if riff::compressed_tag(&source.head).is_none() {
        // Past the first bytes of a pipe there is no way back.
        return Err(unsupported(tag));
    }
    match Packets::open(name, limits, wanted, bytes) {
        Ok(packets) => Ok(Box::new(packets)),
        Err(Error::UnsupportedAudio { .. }) => Err(unsupported(tag)),
        Err(other) => Err(other),
    }
}

fn named_as_mpeg(name: &Path) -> bool {
    let extension = name.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    ["mp3", "mp2", "mp1", "mpga", "aac", "adts"].contains(&extension.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mono or stereo 16-bit WAV file.
    fn wav(rate: u32, channels: u16, samples: &[i16]) -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let spec = hound::WavSpec { channels, sample_rate: rate, bits_per_sample: 16, sample_format: hound::SampleFormat::Int };
        let mut writer = hound::WavWriter::new(&mut bytes, spec).unwrap();
        samples.iter().for_each(|&x| writer.write_sample(x).unwrap());
        writer.finalize().unwrap();
        bytes.into_inner()
    }

    #[test]
    fn mean_of_two_channels() {
        let wave = decode(Path::new("x.wav"), wav(8_000, 2, &[16384, 0, -16384, -16384]), &Limits::default()).unwrap();
        assert_eq!(wave, Waveform { samples: vec![0.25, -0.5], sample_rate: SampleRate(8_000) });
    }

    #[test]
    fn length_limit_stops_the_reading() {
        let limits = Limits { seconds: 0.5, ..Limits::default() };
        let error = decode(Path::new("x.wav"), wav(8_000, 1, &[1; 8_000]), &limits).unwrap_err();
        assert!(matches!(error, Error::LimitExceeded { .. }), "{error}");
    }

    #[test]
    fn a_cut_file_says_so() {
        let mut bytes = wav(8_000, 1, &[1; 8_000]);
        bytes.truncate(8_044);
        let mut reader = Reader::from_bytes(Path::new("x.wav"), bytes, &Limits::default()).unwrap();
        assert_eq!(reader.read_to_end().unwrap().samples.len(), 4_000);
        assert!(reader.warnings()[0].contains("0.50 s less"), "{:?}", reader.warnings());
    }

    #[test]
    fn empty_and_foreign_files() {
        let error = |bytes: &[u8]| decode(Path::new("x.wav"), bytes.to_vec(), &Limits::default()).unwrap_err();
        assert!(matches!(error(b""), Error::CorruptAudio { .. }));
        assert!(matches!(error(b"hello, this is text"), Error::UnsupportedAudio { .. }));
        assert!(error(b"wvpk....").to_string().contains("WavPack"));
        assert!(matches!(error(&wav(8_000, 1, &[])), Error::CorruptAudio { .. }));
    }
}
