//! Channels of a recording: mixed, one of them, or each on a track of its own; copies and silent ones are found on the way.
//!
//! # What a channel holds
//!
//! Windows of 0.5 s of the file's own samples are compared, channel `k` with every channel `j` before it:
//!
//! ```text
//! rest = E_kk - E_jk^2 / E_jj        energy of k that is not j at some level (E: sums of products over the window)
//! k is still a copy of j if  rest <= max(10^-2.5 E_kk, 10^-5 loudest E_kk so far, energy of silence)
//! ```
//! A channel starts as a copy and is one until the first window in which it differs from all channels before it; from that window on it
//! has its own track, for good. While it is a copy its track is silent: what both hold is heard once, on the first. So nothing is kept but
//! one window, a dual mono file is never transcribed twice, and a call that starts with the same ringing tone on both sides is told apart
//! from the first word. A channel that was only ever silent needs no track either.
//!
//! The share of `10^-2.5` (25 dB) lies between lossy codecs and microphones, measured on speech. The channels of a dual mono file differ
//! by 31 dB at most (MP2 at 96 kbit/s, AAC at 64; MP3, Vorbis and Opus by 67 and more); two close microphones whose only difference is a
//! way of one sample by 21 dB, microphones in rooms by 8. A copy at another level is known by the same rule, but AAC and MP3 at 64 kbit/s
//! change it by more (12 and 22 dB): those are two channels here.

use std::num::NonZeroUsize;
use std::path::Path;
use std::str::FromStr;

use super::block::{Take, Wanted};
use super::limits::Limits;
use super::read::Reader;
use super::resample::Resampler;
use super::source::Source;
use crate::error::{Error, Result};
use crate::units::SampleRate;

/// Length of a window, seconds.
const WINDOW: f64 = 0.5;
/// Largest share of a window's energy by which a copy may differ.
const COPY_REST: f64 = 0.003_162;
/// The same against the loudest window so far: lossy codecs keep nothing of what is this far below.
const COPY_REST_OF_LOUDEST: f64 = 1e-5;
/// Mean square of silence: -70 dBFS, above the dither and the hiss of an open input, below the quietest speech worth hearing.
const SILENCE: f64 = 1e-7;

/// What to listen to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channels {
    /// The mean of all channels.
    Mix,
    /// Every channel on its own.
    Split,
    /// One channel, from 1.
    One(NonZeroUsize),
}

/// One channel of a recording, or the mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Channel {
    /// The mean of all.
    #[default]
    Mix,
    /// One, counted from 0.
    Nth(usize),
}

impl From<Channel> for Channels {
    fn from(channel: Channel) -> Self {
        match channel {
            Channel::Mix => Self::Mix,
            Channel::Nth(n) => Self::One(NonZeroUsize::MIN.saturating_add(n)),
        }
    }
}

impl FromStr for Channels {
    type Err = Error;

    /// `mix`, `split` or the number of a channel, from 1.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "mix" => Ok(Self::Mix),
            "split" => Ok(Self::Split),
            number => number
                .parse()
                .map(Self::One)
                .map_err(|_| Error::config("channels", format!("{number:?} is neither mix nor split nor the number of a channel, from 1"))),
        }
    }
}

/// What a channel was found to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Something of its own.
    Own,
    /// What channel `of` (from 1) holds, at some level.
    Copy {
        /// The channel it is a copy of.
        of: u32,
    },
    /// Nothing over -70 dBFS.
    Silence,
}

/// A file being decoded and resampled to one or several tracks that keep the same time, in memory that does not grow with its length.
pub struct Tracks {
    reader: Reader,
    rate: SampleRate,
    /// Which channels of the file are wanted: of its planes, those from `first` on, `resamplers.len()` of them.
    first: usize,
    split: Option<Split>,
    resamplers: Vec<Resampler>,
    block: Vec<Vec<f32>>,
    ended: bool,
}

impl Tracks {
    /// Opens a file, a pipe or standard input (`-`) to be heard at `rate`.
    ///
    /// # Errors
    /// As [`Reader::open`] and [`Resampler::new`]; [`Error::Config`] for a channel the file does not have.
    pub fn open(path: &Path, channels: Channels, rate: SampleRate, limits: &Limits) -> Result<Self> {
        Self::new(path, Source::open(path)?, channels, rate, limits)
    }

    /// Reads from memory; `name` is what errors call it.
    ///
    /// # Errors
    /// As [`Tracks::open`].
    pub fn from_bytes(name: &Path, bytes: Vec<u8>, channels: Channels, rate: SampleRate, limits: &Limits) -> Result<Self> {
        Self::new(name, Source::from_bytes(name, bytes)?, channels, rate, limits)
    }

    fn new(name: &Path, source: Source, channels: Channels, rate: SampleRate, limits: &Limits) -> Result<Self> {
        let take = if channels == Channels::Mix { Take::Mean } else { Take::Each };
        let reader = Reader::new(name, source, limits, Wanted { take, rate: Some(rate) })?;
        let planes = reader.planes();
        let (first, tracks) = match channels {
            Channels::Mix => (0, 1),
            Channels::Split => (0, planes),
            Channels::One(n) if n.get() <= planes => (n.get() - 1, 1),
            Channels::One(n) => {
                return Err(Error::config(name, format!("channel {n} was asked for, the file has {planes}")));
            }
        };
        let resamplers = (0..tracks).map(|_| Resampler::new(reader.sample_rate(), rate)).collect::<Result<Vec<_>>>()?;
        let split = (tracks > 1).then(|| Split::new(tracks, reader.sample_rate()));
        Ok(Self { reader, rate, first, split, resamplers, block: vec![Vec::new(); tracks], ended: false })
    }

    /// Number of tracks: one, or one for each channel of the file where it is split.
    pub fn count(&self) -> usize {
        self.resamplers.len()
    }

    /// The rate of the tracks.
    pub fn sample_rate(&self) -> SampleRate {
        self.rate
    }

    /// Seconds the file's header promises, where it does: for progress, not for allocation.
    pub fn promised_seconds(&self) -> Option<f64> {
        self.reader.promised_samples().map(|n| n as f64 / f64::from(self.reader.sample_rate().0))
    }

    /// The next samples of every track, the same number of each and at least one, in [-1, 1]; `None` at the end.
    ///
    /// # Errors
    /// As [`Reader::next_block`].
    pub fn next_block(&mut self) -> Result<Option<&[Vec<f32>]>> {
        self.block.iter_mut().for_each(Vec::clear);
        while self.block[0].is_empty() && !self.ended {
            match (self.reader.next_planes()?, &mut self.split) {
                (Some(planes), None) => self.resamplers[0].step(&planes[self.first], &mut self.block[0]),
                (Some(planes), Some(split)) => split.step(planes, &mut self.resamplers, &mut self.block),
                (None, split) => {
                    if let Some(split) = split {
                        split.flush(&mut self.resamplers, &mut self.block);
                    }
                    self.resamplers.iter_mut().zip(&mut self.block).for_each(|(resampler, track)| resampler.flush(track));
                    self.ended = true;
                }
            }
        }
        // The filter may overshoot by a little at full scale.
        self.block.iter_mut().flatten().for_each(|x| *x = x.clamp(-1.0, 1.0));
        Ok((!self.block[0].is_empty()).then_some(self.block.as_slice()))
    }

    /// What each track was found to hold up to now; complete once [`Tracks::next_block`] gave `None`. `Own` where nothing was split.
    pub fn contents(&self) -> Vec<Content> {
        self.split.as_ref().map_or_else(|| vec![Content::Own; self.count()], Split::contents)
    }

    /// The channel of a track, from 1, where channels are told apart: where the file was split and is not one voice on all channels.
    pub fn channel(&self, track: usize) -> Option<u32> {
        let contents = self.contents();
        let apart = contents.len() > 1 && contents.iter().skip(1).any(|c| !matches!(c, Content::Copy { .. }));
        apart.then(|| number(track))
    }

    /// What was lost or altered, as [`Reader::warnings`], and which channels have no words of their own and why.
    pub fn warnings(&self) -> Vec<String> {
        let mut lines = self.reader.warnings();
        for (track, content) in self.contents().into_iter().enumerate() {
            match content {
                Content::Own => {}
                Content::Copy { of } => lines.push(format!("channel {} is the same as channel {of}: heard once", number(track))),
                Content::Silence => lines.push(format!("channel {} is silent", number(track))),
            }
        }
        lines
    }
}

/// The number of a channel for people: from 1.
fn number(track: usize) -> u32 {
    u32::try_from(track + 1).unwrap_or(u32::MAX)
}

/// Compares channels window by window and passes on what each holds of its own.
struct Split {
    window: usize,
    /// Samples of each channel that wait for a full window.
    waiting: Vec<Vec<f32>>,
    channels: Vec<Heard>,
}

/// What was heard on a channel so far.
#[derive(Clone)]
struct Heard {
    /// The channels before it that it may be a copy of.
    copy_of: Vec<usize>,
    /// Mean square of its loudest window.
    loudest: f64,
}

impl Split {
    fn new(channels: usize, rate: SampleRate) -> Self {
        let channels: Vec<Heard> = (0..channels).map(|k| Heard { copy_of: (0..k).collect(), loudest: 0.0 }).collect();
        Self { window: rate.samples(WINDOW).max(1), waiting: vec![Vec::new(); channels.len()], channels }
    }

    /// Takes samples of every channel and passes on the windows that are full.
    fn step(&mut self, planes: &[Vec<f32>], to: &mut [Resampler], out: &mut [Vec<f32>]) {
        let mut at = 0;
        while at < planes[0].len() {
            let end = planes[0].len().min(at + self.window - self.waiting[0].len());
            self.waiting.iter_mut().zip(planes).for_each(|(waiting, plane)| waiting.extend_from_slice(&plane[at..end]));
            at = end;
            if self.waiting[0].len() == self.window {
                self.flush(to, out);
            }
        }
    }

    /// Passes on what waits, however short.
    fn flush(&mut self, to: &mut [Resampler], out: &mut [Vec<f32>]) {
        let window = &mut self.waiting;
        if window[0].is_empty() {
            return;
        }
        let samples = window[0].len() as f64;
        let energies: Vec<f64> = window.iter().map(|x| product(x, x) / samples).collect();
        for (k, heard) in self.channels.iter_mut().enumerate() {
            let own = energies[k];
            heard.loudest = heard.loudest.max(own);
            let allowed = (COPY_REST * own).max(COPY_REST_OF_LOUDEST * heard.loudest).max(SILENCE);
            heard.copy_of.retain(|&j| {
                let both = product(&window[j], &window[k]) / samples;
                let shared = if energies[j] > 0.0 { both * both / energies[j] } else { 0.0 };
                own - shared <= allowed
            });
        }
        for (k, (heard, window)) in self.channels.iter().zip(window).enumerate() {
            if k > 0 && !heard.copy_of.is_empty() {
                window.fill(0.0);
            }
            to[k].step(window, &mut out[k]);
            window.clear();
        }
    }

    fn contents(&self) -> Vec<Content> {
        let content = |heard: &Heard| match heard.copy_of.first() {
            _ if heard.loudest <= SILENCE => Content::Silence,
            Some(&j) => Content::Copy { of: number(j) },
            None => Content::Own,
        };
        self.channels.iter().map(content).collect()
    }
}

/// Sum of products, in lanes that add in parallel: f32 within 64 samples, f64 above.
fn product(a: &[f32], b: &[f32]) -> f64 {
    const LANES: usize = 16;
    let part = |a: &[f32], b: &[f32]| {
        let mut sums = [0.0f32; LANES];
        for (a, b) in a.chunks(LANES).zip(b.chunks(LANES)) {
            sums.iter_mut().zip(a).zip(b).for_each(|((sum, x), y)| *sum += x * y);
        }
        sums.iter().map(|&x| f64::from(x)).sum::<f64>()
    };
    a.chunks(4 * LANES).zip(b.chunks(4 * LANES)).map(|(a, b)| part(a, b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_channels() {
        let one = |n| Channels::One(NonZeroUsize::new(n).unwrap());
        for (text, channels) in [("mix", Channels::Mix), ("split", Channels::Split), ("1", one(1)), ("12", one(12))] {
            assert_eq!(text.parse::<Channels>().unwrap(), channels);
        }
        for bad in ["0", "", "left", "-1", "1.5", "99999999999999999999999"] {
            let error = bad.parse::<Channels>().unwrap_err().to_string();
            assert!(error.contains("neither mix nor split"), "{error}");
        }
    }

    #[test]
    fn products_are_exact_enough() {
        let a: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.37).sin()).collect();
        let b: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.11).cos()).collect();
        let exact: f64 = a.iter().zip(&b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
        assert!((product(&a, &b) - exact).abs() < 1e-4);
    }
}
