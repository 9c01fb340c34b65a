//! Opus packets to samples: stream headers (RFC 7845), several streams per packet, pre-skip, end trimming.
//!
//! Samples are at 48 kHz, or at once at 16 kHz where that is what they are wanted for: the decoder then leaves out the bands above and its own
//! resampling. Where only the mean of two channels is wanted, it is taken of their spectra, and one channel is synthesised.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use opus_rs::OpusDecoder;

use super::block::{Block, Take, Target, Wanted};
use super::limits::Limits;
use super::opus_packet::OpusPacket;
use crate::error::{Error, Result};
use crate::units::SampleRate;

/// The rate of all counts in containers and headers, whatever the input of the encoder was.
const CLOCK: SampleRate = SampleRate(48_000);

/// At 48 kHz, samples of the longest frame (60 ms), per channel.
const MAX_FRAME_SAMPLES: usize = 2_880;

/// One Opus track.
pub(super) struct OpusTrack {
    streams: Vec<Stream>,
    /// For each output channel the decoded one, or 255 for silence.
    mapping: Vec<u8>,
    /// Linear.
    gain: f32,
    /// Samples still to be dropped: those at the start only warm the decoder up.
    skip: usize,
    rate: SampleRate,
}

/// One elementary stream: mono or stereo, with the share of each of its channels in the mean of all output channels.
struct Stream {
    decoder: OpusDecoder,
    rate: SampleRate,
    /// Channels decoded: one for a stereo stream of which only the mean is wanted.
    channels: usize,
    /// Index of its first channel among all decoded ones.
    first: usize,
    weights: [f32; 2],
    /// Scratch: one frame as a packet, and its samples.
    packet: Vec<u8>,
    pcm: Vec<f32>,
}

/// The part of an `OpusHead` (RFC 7845, section 5.1) that decoding needs.
#[derive(Debug, PartialEq)]
struct OpusHead {
    channels: usize,
    pre_skip: usize,
    /// Linear.
    gain: f32,
    streams: usize,
    coupled: usize,
    mapping: Vec<u8>,
}

impl OpusHead {
    fn parse(head: &[u8]) -> Option<Self> {
        let rest = head.strip_prefix(b"OpusHead")?;
        let (fixed, table) = rest.split_at_checked(11)?;
        let channels = usize::from(fixed[1]);
        let pre_skip = usize::from(u16::from_le_bytes([fixed[2], fixed[3]]));
        let gain_db = f32::from(i16::from_le_bytes([fixed[8], fixed[9]])) / 256.0;
        let gain = 10f32.powf(gain_db / 20.0);
        let simple = |channels: usize| {
            Some(Self { channels, pre_skip, gain, streams: 1, coupled: channels - 1, mapping: vec![0, 1][..channels].to_vec() })
        };
        match fixed[10] {
            0 if (1..=2).contains(&channels) => simple(channels),
            1 | 255 if channels > 0 => {
                let (&[streams, coupled], mapping) = table.split_first_chunk()?;
                let mapping = mapping.get(..channels)?.to_vec();
                let (streams, coupled) = (usize::from(streams), usize::from(coupled));
                let decoded = streams + coupled;
                let fits = mapping.iter().all(|&m| m == 255 || usize::from(m) < decoded);
                (streams > 0 && coupled <= streams && decoded <= 255 && fits).then_some(Self {
                    channels,
                    pre_skip,
                    gain,
                    streams,
                    coupled,
                    mapping,
                })
            }
            _ => None,
        }
    }

    /// Share of each decoded channel in the mean of the output channels, gain included.
    fn weights(&self) -> Vec<f32> {
        let mut weights = vec![0.0; self.streams + self.coupled];
        for &m in &self.mapping {
            if let Some(w) = weights.get_mut(usize::from(m)) {
                *w += self.gain / self.channels as f32;
            }
        }
        weights
    }
}

impl OpusTrack {
    /// A decoder for a track whose header is `head`, of what is `wanted`.
    ///
    /// # Errors
    /// [`Error::UnsupportedAudio`] for a header that is missing, broken or ambisonic, [`Error::LimitExceeded`].
    pub fn new(name: &Path, head: Option<&[u8]>, limits: &Limits, wanted: Wanted) -> Result<Self> {
        let unsupported = |reason: &str| Error::UnsupportedAudio { path: name.into(), reason: reason.into() };
        let head = head.and_then(OpusHead::parse).ok_or_else(|| unsupported("Opus with a header that cannot be used"))?;
        limits.check(name, CLOCK, head.channels.max(head.streams))?;
        let rate = wanted.rate.filter(|&rate| rate == SampleRate::HZ_16000).unwrap_or(CLOCK);
        let weights = head.weights();
        let mut streams = Vec::with_capacity(head.streams);
        for i in 0..head.streams {
            let coupled = i < head.coupled;
            let channels = if coupled { 2 } else { 1 };
            let first = if coupled { 2 * i } else { head.coupled + i };
            let mut weights = [weights[first], if coupled { weights[first + 1] } else { 0.0 }];
            let mut channels = channels;
            if coupled && wanted.take == Take::Mean && weights[0] == weights[1] {
                (channels, weights) = (1, [weights[0] + weights[1], 0.0]);
            }
            let decoder = new_decoder(rate, channels).ok_or_else(|| unsupported("Opus decoder"))?;
            streams.push(Stream {
                decoder,
                rate,
                channels,
                first,
                weights,
                packet: Vec::new(),
                pcm: vec![0.0; MAX_FRAME_SAMPLES * channels],
            });
        }
        let skip = at_rate(head.pre_skip, rate);
        Ok(Self { streams, mapping: head.mapping, gain: head.gain, skip, rate })
    }

    /// The rate of the decoded samples.
    pub fn sample_rate(&self) -> SampleRate {
        self.rate
    }

    /// Decodes one packet into `block`, without the samples of the pre-skip and the last `trim_end` (of the container: at 48 kHz).
    ///
    /// Frames that cannot be decoded become silence; returns how many there were, or `None` for a packet that breaks the
    /// framing, from which nothing is known, not even how long it was.
    pub fn decode(&mut self, data: &[u8], trim_end: usize, block: &mut Block) -> Option<usize> {
        block.target(self.mapping.len());
        block.clear();
        let mut damaged = 0;
        let mut rest = data;
        let last = self.streams.len() - 1;
        for (i, stream) in self.streams.iter_mut().enumerate() {
            let packet = if i < last {
                let (packet, after) = OpusPacket::parse_delimited(rest)?;
                rest = after;
                packet
            } else {
                OpusPacket::parse(rest)?
            };
            let samples = at_rate(packet.frame_samples(), self.rate);
            if i == 0 {
                block.silence(packet.frames.len() * samples);
            } else if block.len() != packet.frames.len() * samples {
                return None;
            }
            for (frame, at) in packet.frames.iter().zip((0..).step_by(samples)) {
                if !stream.decode(packet.toc, frame, samples) {
                    damaged += 1;
                    continue;
                }
                match block.target(self.mapping.len()) {
                    Target::Mean(mono) => stream.add_mean(&mut mono[at..at + samples]),
                    Target::Each(planes) => {
                        for (plane, &m) in planes.iter_mut().zip(&self.mapping) {
                            stream.add_channel(usize::from(m), self.gain, &mut plane[at..at + samples]);
                        }
                    }
                }
            }
        }
        block.finish();
        block.trim(0, block.len().saturating_sub(at_rate(trim_end, self.rate)));
        let skip = self.skip.min(block.len());
        block.trim(skip, usize::MAX);
        self.skip -= skip;
        Some(damaged)
    }
}

impl Stream {
    /// Decodes one frame of `samples` into `pcm`; `false` where it could not be decoded.
    fn decode(&mut self, toc: u8, frame: &[u8], samples: usize) -> bool {
        // Single frames behind a plain first byte: the framing is ours. A frame that was not sent (at most one byte) is
        // concealed by the decoder, for the duration the first byte tells.
        self.packet.clear();
        self.packet.push(toc);
        if frame.len() > 1 {
            self.packet.extend_from_slice(frame);
        }
        let (decoder, packet, pcm) = (&mut self.decoder, &self.packet, &mut self.pcm[..samples * self.channels]);
        // A port of C code that indexes by numbers read from the frame: a panic in it is a damaged frame.
        let decoded = catch_unwind(AssertUnwindSafe(|| decoder.decode(packet, samples, pcm)));
        match decoded {
            Ok(Ok(decoded)) => decoded <= samples,
            Ok(_) => false,
            Err(_) => {
                if let Some(fresh) = new_decoder(self.rate, self.channels) {
                    self.decoder = fresh;
                }
                false
            }
        }
    }

    /// Adds the decoded frame to the mean of all channels.
    fn add_mean(&self, out: &mut [f32]) {
        match self.channels {
            1 => out.iter_mut().zip(&self.pcm).for_each(|(o, x)| *o += self.weights[0] * x),
            _ => out.iter_mut().zip(self.pcm.chunks_exact(2)).for_each(|(o, x)| *o += self.weights[0] * x[0] + self.weights[1] * x[1]),
        }
    }

    /// Adds decoded channel `index`, where it is one of this stream's.
    fn add_channel(&self, index: usize, gain: f32, out: &mut [f32]) {
        if (self.first..self.first + self.channels).contains(&index) {
            let own = self.pcm.iter().skip(index - self.first).step_by(self.channels);
            out.iter_mut().zip(own).for_each(|(o, x)| *o += gain * x);
        }
    }
}

fn new_decoder(rate: SampleRate, channels: usize) -> Option<OpusDecoder> {
    OpusDecoder::new(rate.0 as i32, channels).ok()
}

/// A whole number of samples at `rate`, for a number of them at [`CLOCK`].
pub(super) fn at_rate(samples: usize, rate: SampleRate) -> usize {
    samples / (CLOCK.0 / rate.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const EACH: Wanted = Wanted { take: Take::Each, rate: None };

    fn head(channels: u8, family: u8, table: &[u8]) -> Vec<u8> {
        let mut h = b"OpusHead\x01".to_vec();
        h.extend([channels, 0x38, 0x01, 0x80, 0xbb, 0, 0, 0, 0, family]);
        h.extend(table);
        h
    }

    #[test]
    fn headers() {
        let mono = OpusHead::parse(&head(1, 0, &[])).unwrap();
        assert_eq!((mono.pre_skip, mono.gain, mono.weights()), (312, 1.0, vec![1.0]));
        assert_eq!(OpusHead::parse(&head(2, 0, &[])).unwrap().weights(), [0.5, 0.5]);
        // 5.1: two coupled streams, then centre and LFE.
        let surround = OpusHead::parse(&head(6, 1, &[4, 2, 0, 4, 1, 2, 3, 5])).unwrap();
        assert_eq!((surround.streams, surround.coupled), (4, 2));
        assert!(surround.weights().iter().all(|w| (w - 1.0 / 6.0).abs() < 1e-7));
        // A silent output channel still counts in the mean.
        assert_eq!(OpusHead::parse(&head(2, 255, &[1, 0, 0, 255])).unwrap().weights(), [0.5]);
    }

    #[test]
    fn broken_headers_are_refused() {
        for bad in [
            head(0, 0, &[]),
            head(3, 0, &[]),
            head(2, 1, &[1, 2, 0, 1]),
            head(2, 1, &[1, 0, 0, 1]),
            head(4, 3, &[]),
            head(6, 1, &[4, 2]),
            b"Opus".to_vec(),
        ] {
            assert_eq!(OpusHead::parse(&bad), None);
        }
    }

    #[test]
    fn random_packets_never_panic_out() {
        let mut track = OpusTrack::new(Path::new("x"), Some(&head(1, 0, &[])), &Limits::default(), EACH).unwrap();
        let mut seed = 1u32;
        let mut block = Block::new(Take::Each);
        for len in 0..300 {
            let packet: Vec<u8> = (0..len)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (seed >> 24) as u8
                })
                .collect();
            let _ = track.decode(&packet, 0, &mut block);
            assert!(block.planes()[0].iter().all(|x| x.is_finite()));
        }
    }
}
