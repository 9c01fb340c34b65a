//! Containers of packets: Symphonia finds the track and its packets, and decodes all codecs but Opus.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use symphonia::core::audio::GenericAudioBufferRef;
use symphonia::core::codecs::audio::well_known as codec;
use symphonia::core::codecs::audio::{AudioCodecId, AudioCodecParameters, AudioDecoder, AudioDecoderOptions, CODEC_ID_NULL_AUDIO};
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, Track, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream};
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;

use super::Blocks;
use super::block::{Block, Target, Wanted};
use super::limits::Limits;
use super::mp4::Edit;
use super::opus::{self, OpusTrack};
use super::warnings::Warnings;
use crate::error::{Error, Result};
use crate::units::SampleRate;

/// Longest silence put in the place of one undecodable packet, in seconds: no codec here has longer packets.
const MAX_GAP: f64 = 1.0;

/// The audio track of a container.
pub(super) struct Packets {
    name: PathBuf,
    limits: Limits,
    wanted: Wanted,
    format: Box<dyn FormatReader>,
    track: u32,
    decoder: Decoder,
    rate: SampleRate,
    promised: Option<u64>,
    /// Length of the last good block, taken for a bad one of unknown length.
    last_block: usize,
    produced: u64,
    /// Samples to drop at the start and then to keep, by the container's edit list.
    skip: u64,
    keep: u64,
    /// Whether the end of the bytes means that the file was cut.
    end_is_cut: bool,
    ended: bool,
    planes: Vec<Vec<f32>>,
}

enum Decoder {
    Symphonia(Box<dyn AudioDecoder>),
    Opus(OpusTrack),
}

impl Packets {
    /// Finds the container and its first audio track that can be decoded (the default track where one is marked).
    ///
    /// # Errors
    /// [`Error::UnsupportedAudio`], [`Error::CorruptAudio`], [`Error::LimitExceeded`], [`Error::Io`].
    pub fn open(name: &Path, limits: &Limits, wanted: Wanted, bytes: Box<dyn MediaSource>) -> Result<Self> {
        let stream = MediaSourceStream::new(bytes, Default::default());
        let opened = guard(|| {
            let probe = symphonia::default::get_probe();
            let format = probe.probe(&Hint::new(), stream, FormatOptions::default(), MetadataOptions::default());
            let format = format.map_err(|e| map_error(name, e))?;
            let selected = select_track(name, limits, wanted, format.as_ref())?;
            Ok((format, selected))
        });
        let corrupt = || Error::CorruptAudio { path: name.into(), at: None, reason: GAVE_UP.into() };
        let (format, (track, decoder, rate, promised)) = opened.unwrap_or_else(|| Err(corrupt()))?;
        Ok(Self {
            name: name.into(),
            limits: *limits,
            wanted,
            format,
            track,
            decoder,
            rate,
            promised,
            last_block: 0,
            produced: 0,
            skip: 0,
            keep: u64::MAX,
            end_is_cut: true,
            ended: false,
            planes: Vec::new(),
        })
    }

    /// For streams whose container does not tell where it ends: the end of the bytes is no damage.
    pub fn ends_anywhere(mut self) -> Self {
        self.end_is_cut = false;
        self
    }

    /// Hands out only what the edit list of the track lets hear.
    pub fn with_edits(mut self, edits: &[Edit]) -> Self {
        if let Some(edit) = edits.iter().find(|e| e.track == self.track) {
            // The start of an Opus track is in its own header.
            let start = if matches!(self.decoder, Decoder::Opus(_)) { 0.0 } else { edit.start };
            self.skip = self.rate.samples(start) as u64;
            self.keep = edit.keep.map_or(u64::MAX, |seconds| self.rate.samples(seconds) as u64);
            self.promised = self.promised.map(|n| n.saturating_sub(self.skip).min(self.keep));
        }
        self
    }

    /// Cuts a block down to what the edit list lets hear.
    fn trim(&mut self, block: &mut Block) {
        let skip = self.skip.min(block.len() as u64);
        self.skip -= skip;
        block.trim(skip as usize, usize::try_from(self.keep - self.produced).unwrap_or(usize::MAX));
    }

    /// The next packet of the track; `None` at the end of what can be read.
    fn next_packet(&mut self, warnings: &mut Warnings) -> Result<Option<Packet>> {
        loop {
            match self.format.next_packet() {
                Ok(Some(packet)) if packet.track_id == self.track => return Ok(Some(packet)),
                Ok(Some(_)) => {}
                Ok(None) => return Ok(None),
                // The next of several chained streams: a fresh decoder at the same rate, or the end.
                Err(SymphoniaError::ResetRequired) => match select_track(&self.name, &self.limits, self.wanted, self.format.as_ref()) {
                    Ok((track, decoder, rate, _)) if rate == self.rate => {
                        (self.track, self.decoder, self.promised) = (track, decoder, None)
                    }
                    _ => {
                        warnings.stopped = Some("another stream with another rate or codec follows".into());
                        return Ok(None);
                    }
                },
                Err(SymphoniaError::IoError(e)) if e.kind() != std::io::ErrorKind::UnexpectedEof => return Err(Error::io(&self.name, e)),
                Err(SymphoniaError::IoError(_)) => {
                    if self.end_is_cut {
                        warnings.stopped = Some("the file is cut".into());
                    }
                    return Ok(None);
                }
                Err(e) => {
                    warnings.stopped = Some(e.to_string());
                    return Ok(None);
                }
            }
        }
    }

    /// [`Blocks::next`] without the guard.
    fn advance(&mut self, block: &mut Block, warnings: &mut Warnings) -> Result<bool> {
        block.clear();
        while !self.ended {
            let Some(packet) = self.next_packet(warnings)? else {
                self.ended = true;
                break;
            };
            if self.decode(&packet, block)? {
                self.last_block = if block.is_empty() { self.last_block } else { block.len() };
            } else {
                warnings.undecodable_at(self.produced as f64 / f64::from(self.rate.0));
                // Silence keeps the times of what follows true; before the first sound there is nothing to keep.
                if block.is_empty() && self.produced > 0 {
                    block.silence(self.gap(&packet));
                }
            }
            self.trim(block);
            if !block.is_empty() {
                self.produced += block.len() as u64;
                self.ended = self.produced == self.keep;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Decodes one packet into `block`; `false` where it is damaged.
    fn decode(&mut self, packet: &Packet, block: &mut Block) -> Result<bool> {
        block.clear();
        match &mut self.decoder {
            Decoder::Opus(track) => {
                let trim_end = usize::try_from(packet.trim_end.get()).unwrap_or(usize::MAX);
                Ok(track.decode(&packet.data, trim_end, block) == Some(0))
            }
            Decoder::Symphonia(decoder) => match decoder.decode(packet) {
                Ok(buffer) => {
                    let (rate, channels) = (SampleRate(buffer.spec().rate()), buffer.spec().channels().count());
                    if buffer.frames() == 0 {
                        return Ok(true);
                    }
                    if self.produced == 0 && rate != self.rate {
                        // Nothing handed out yet: the stream knows its rate better than the container.
                        self.limits.check(&self.name, rate, channels)?;
                        let scaled = |samples: u64| (samples as f64 * f64::from(rate.0) / f64::from(self.rate.0)).round() as u64;
                        self.skip = scaled(self.skip);
                        self.keep = if self.keep == u64::MAX { u64::MAX } else { scaled(self.keep) };
                        self.rate = rate;
                        self.promised = None;
                    }
                    if rate != self.rate || channels > self.limits.channels {
                        return Ok(false);
                    }
                    take_channels(&buffer, &mut self.planes, block);
                    Ok(true)
                }
                Err(SymphoniaError::Unsupported(what)) if self.produced == 0 => Err(unsupported(&self.name, what)),
                Err(SymphoniaError::ResetRequired) => {
                    decoder.reset();
                    Ok(false)
                }
                Err(_) => Ok(false),
            },
        }
    }

    /// Samples of a packet that could not be decoded.
    fn gap(&self, packet: &Packet) -> usize {
        let time_base = self.format.tracks().iter().find(|t| t.id == self.track).and_then(|t| t.time_base);
        let told = time_base.map(|tb| packet.dur.get() as f64 * f64::from(tb.numer.get()) / f64::from(tb.denom.get())).unwrap_or(0.0);
        if told > 0.0 { self.rate.samples(told.min(MAX_GAP)) } else { self.last_block }
    }
}

impl Blocks for Packets {
    fn next(&mut self, block: &mut Block, warnings: &mut Warnings) -> Result<bool> {
        if let Some(done) = guard(|| self.advance(block, warnings)) {
            return done;
        }
        self.ended = true;
        warnings.stopped = Some(GAVE_UP.into());
        Ok(false)
    }

    fn sample_rate(&self) -> SampleRate {
        self.rate
    }

    fn promised(&self) -> Option<u64> {
        self.promised
    }
}

/// What is said where a decoder panicked.
const GAVE_UP: &str = "a decoder gave up on damaged data";

/// Runs third-party parsing of untrusted bytes: a panic in it is damage to one file, not the end of the program.
fn guard<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

/// The default audio track, else the first that can be decoded: its id, decoder, rate and promised length.
fn select_track(
    name: &Path,
    limits: &Limits,
    wanted: Wanted,
    format: &dyn FormatReader,
) -> Result<(u32, Decoder, SampleRate, Option<u64>)> {
    let default = format.default_track(TrackType::Audio).map(|t| t.id);
    let mut tracks: Vec<&Track> = format.tracks().iter().filter(|t| t.codec_params.as_ref().is_some_and(|p| p.audio().is_some())).collect();
    tracks.sort_by_key(|t| Some(t.id) != default);
    let mut first_error = None;
    for track in tracks {
        let Some(parameters) = track.codec_params.as_ref().and_then(|p| p.audio()) else { continue };
        match make_decoder(name, limits, wanted, parameters) {
            Ok((decoder, rate)) => {
                let promised = match decoder {
                    Decoder::Opus(_) => track.num_frames.map(|n| opus::at_rate(n as usize, rate) as u64),
                    Decoder::Symphonia(_) => track.num_frames,
                };
                return Ok((track.id, decoder, rate, promised));
            }
            Err(e) => {
                first_error.get_or_insert(e);
            }
        }
    }
    Err(first_error.unwrap_or_else(|| unsupported(name, "no audio track")))
}

fn make_decoder(name: &Path, limits: &Limits, wanted: Wanted, parameters: &AudioCodecParameters) -> Result<(Decoder, SampleRate)> {
    if parameters.codec == codec::CODEC_ID_OPUS {
        let track = OpusTrack::new(name, parameters.extra_data.as_deref(), limits, wanted)?;
        let rate = track.sample_rate();
        return Ok((Decoder::Opus(track), rate));
    }
    // Where the container does not say, the decoder's first block is checked instead.
    let (low, _) = limits.sample_rates;
    let rate = parameters.sample_rate.map_or(low, SampleRate);
    limits.check(name, rate, parameters.channels.as_ref().map_or(1, |c| c.count()))?;
    let options = AudioDecoderOptions::default();
    let decoder = symphonia::default::get_codecs().make_audio_decoder(parameters, &options).map_err(|e| match e {
        SymphoniaError::Unsupported(what) if codec_name(parameters.codec).is_none() => unsupported(name, what),
        SymphoniaError::Unsupported(_) => unsupported(name, &format!("codec {}", codec_name(parameters.codec).unwrap_or("unknown"))),
        other => map_error(name, other),
    })?;
    Ok((Decoder::Symphonia(decoder), rate))
}

/// Name of a codec that containers carry and this build may not decode.
fn codec_name(id: AudioCodecId) -> Option<&'static str> {
    const NAMES: &[(AudioCodecId, &str)] = &[
        (CODEC_ID_NULL_AUDIO, "unknown"),
        (codec::CODEC_ID_AC3, "AC-3"),
        (codec::CODEC_ID_EAC3, "E-AC-3"),
        (codec::CODEC_ID_AC4, "AC-4"),
        (codec::CODEC_ID_DCA, "DTS"),
        (codec::CODEC_ID_TRUEHD, "TrueHD"),
        (codec::CODEC_ID_WMA, "Windows Media Audio"),
        (codec::CODEC_ID_SPEEX, "Speex"),
        (codec::CODEC_ID_WAVPACK, "WavPack"),
        (codec::CODEC_ID_TTA, "True Audio (TTA)"),
        (codec::CODEC_ID_MUSEPACK, "Musepack"),
        (codec::CODEC_ID_ADPCM_G722, "G.722"),
        (codec::CODEC_ID_ADPCM_G726, "G.726"),
    ];
    NAMES.iter().find(|(known, _)| *known == id).map(|(_, name)| *name)
}

/// What `block` takes of a decoded buffer: the channels, or their mean.
fn take_channels(buffer: &GenericAudioBufferRef<'_>, planes: &mut Vec<Vec<f32>>, block: &mut Block) {
    buffer.copy_to_vecs_planar(planes);
    match (block.target(planes.len()), planes.as_mut_slice()) {
        (Target::Each(to), planes) => to.iter_mut().zip(planes).for_each(|(to, plane)| std::mem::swap(to, plane)),
        (Target::Mean(mono), [only]) => std::mem::swap(mono, only),
        (Target::Mean(mono), planes) => {
            mono.resize(buffer.frames(), 0.0);
            let scale = 1.0 / planes.len() as f32;
            planes.iter().for_each(|plane| mono.iter_mut().zip(plane).for_each(|(sum, x)| *sum += x * scale));
        }
    }
    block.finish();
}

fn unsupported(name: &Path, reason: &str) -> Error {
    Error::UnsupportedAudio { path: name.into(), reason: reason.into() }
}

/// An error of Symphonia before any audio was decoded.
fn map_error(name: &Path, error: SymphoniaError) -> Error {
    match error {
        SymphoniaError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            Error::CorruptAudio { path: name.into(), at: None, reason: "the file ends before any audio".into() }
        }
        SymphoniaError::IoError(e) => Error::io(name, e),
        SymphoniaError::Unsupported(what) => unsupported(name, what),
        other => Error::CorruptAudio { path: name.into(), at: None, reason: other.to_string() },
    }
}
