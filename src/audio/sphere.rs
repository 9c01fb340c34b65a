//! NIST SPHERE: the container of TIMIT, WSJ, Switchboard and Fisher. PCM, mu-law and A-law, plain or packed with shorten.

use std::io::Read;
use std::path::Path;

use super::Blocks;
use super::block::Block;
use super::limits::Limits;
use super::pcm::{Encoding, Order, Pcm, PcmHeader};
use super::shorten::Shorten;
use super::warnings::Warnings;
use crate::error::{Error, Result};
use crate::units::SampleRate;

/// Longest header accepted; the usual one is 1024 bytes.
const MAX_HEADER: usize = 64 << 10;

/// The samples behind a SPHERE header.
pub(super) enum Sphere<R> {
    /// Interleaved samples.
    Plain(Pcm<R>),
    /// Coding `..,embedded-shorten-v..`.
    Packed(Box<Shorten<R>>),
}

/// How the samples are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Plain,
    Shorten,
}

/// Reads the header and returns the samples behind it.
///
/// # Errors
/// [`Error::CorruptAudio`] for a header that is cut or breaks its rules, [`Error::UnsupportedAudio`] for another coding,
/// [`Error::LimitExceeded`], [`Error::Io`].
pub(super) fn open<R: Read>(name: &Path, limits: &Limits, mut from: R) -> Result<Sphere<R>> {
    let corrupt = |reason: &str| Error::CorruptAudio { path: name.into(), at: None, reason: format!("SPHERE: {reason}") };
    // "NIST_1A\n" and the header's length, right-aligned in seven columns and a line end.
    let mut header = vec![0u8; 16];
    from.read_exact(&mut header).map_err(|_| corrupt("the header is cut"))?;
    let length = std::str::from_utf8(&header[8..]).ok().and_then(|s| s.trim().parse::<usize>().ok());
    let length = length.filter(|n| (16..=MAX_HEADER).contains(n)).ok_or_else(|| corrupt("the header's length is not a number"))?;
    header.resize(length, 0);
    from.read_exact(&mut header[16..]).map_err(|_| corrupt("the header is longer than the file"))?;
    let (header, packing) = parse(name, &String::from_utf8_lossy(&header[16..]))?;
    limits.check(name, header.sample_rate, header.channels)?;
    Ok(match packing {
        Packing::Plain => Sphere::Plain(Pcm::new(name, header, from)),
        Packing::Shorten => Sphere::Packed(Box::new(Shorten::open(name, limits, header, from)?)),
    })
}

impl<R: Read + Send> Sphere<R> {
    fn blocks(&self) -> &dyn Blocks {
        match self {
            Self::Plain(pcm) => pcm,
            Self::Packed(shorten) => shorten.as_ref(),
        }
    }

    fn blocks_mut(&mut self) -> &mut dyn Blocks {
        match self {
            Self::Plain(pcm) => pcm,
            Self::Packed(shorten) => shorten.as_mut(),
        }
    }
}

impl<R: Read + Send> Blocks for Sphere<R> {
    fn next(&mut self, block: &mut Block, warnings: &mut Warnings) -> Result<bool> {
        self.blocks_mut().next(block, warnings)
    }

    fn sample_rate(&self) -> SampleRate {
        self.blocks().sample_rate()
    }

    fn promised(&self) -> Option<u64> {
        self.blocks().promised()
    }
}

/// Parses the object-oriented part: lines `field -type value` up to `end_head`.
fn parse(name: &Path, text: &str) -> Result<(PcmHeader, Packing)> {
    let corrupt = |reason: String| Error::CorruptAudio { path: name.into(), at: None, reason: format!("SPHERE: {reason}") };
    let field = |wanted: &str| {
        let lines = text.lines().map(str::trim).take_while(|line| *line != "end_head");
        lines.filter_map(|line| line.split_once(' ')).find(|(key, _)| *key == wanted).and_then(|(_, rest)| {
            let (kind, value) = rest.trim_start().split_once(' ')?;
            kind.starts_with('-').then(|| value.trim())
        })
    };
    let number = |wanted: &str| match field(wanted) {
        None => Ok(None),
        Some(value) => value.parse::<u64>().map(Some).map_err(|_| corrupt(format!("{wanted} is not a number: {value:?}"))),
    };
    let rate = number("sample_rate")?.ok_or_else(|| corrupt("no sample_rate".into()))?;
    let width = number("sample_n_bytes")?;
    let unsupported = |what: String| Error::UnsupportedAudio { path: name.into(), reason: format!("SPHERE with {what}") };
    let whole = field("sample_coding").unwrap_or("pcm");
    let (coding, packing) = match whole.split_once(',') {
        None => (whole, Packing::Plain),
        Some((coding, packing)) if packing.trim_start().starts_with("embedded-shorten") => (coding, Packing::Shorten),
        Some(_) => return Err(unsupported(format!("coding {whole:?}"))),
    };
    let encoding = match coding {
        "ulaw" | "mu-law" => Encoding::MuLaw,
        "alaw" => Encoding::ALaw,
        "pcm" => {
            let bytes = width.unwrap_or(2);
            let order = match field("sample_byte_format") {
                Some("10" | "210" | "3210") => Order::Big,
                Some("01" | "012" | "0123" | "1") | None => Order::Little,
                Some(other) => return Err(unsupported(format!("byte format {other:?}"))),
            };
            match bytes {
                1..=4 => Encoding::Int { bytes: bytes as usize, order },
                _ => return Err(unsupported(format!("{bytes} bytes a sample"))),
            }
        }
        other => return Err(unsupported(format!("coding {other:?}"))),
    };
    let channels = number("channel_count")?.unwrap_or(1);
    let header = PcmHeader {
        encoding,
        sample_rate: SampleRate(u32::try_from(rate).unwrap_or(u32::MAX)),
        channels: usize::try_from(channels).unwrap_or(usize::MAX),
        frames: number("sample_count")?,
    };
    Ok((header, packing))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(fields: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = format!("NIST_1A\n   1024\n{fields}end_head\n").into_bytes();
        bytes.resize(1024, b' ');
        bytes.extend_from_slice(data);
        bytes
    }

    fn header(fields: &str) -> Result<PcmHeader> {
        parse(Path::new("x.sph"), &format!("{fields}end_head\nsample_rate -i 1\n")).map(|(header, _)| header)
    }

    #[test]
    fn fields_and_defaults() {
        let h = header("sample_rate -i 8000\nsample_coding -s4 ulaw\nchannel_count -i 2\nsample_count -i 7\n").unwrap();
        assert_eq!(h, PcmHeader { encoding: Encoding::MuLaw, sample_rate: SampleRate(8_000), channels: 2, frames: Some(7) });
        let h = header("sample_rate -i 16000\nsample_byte_format -s2 10\n").unwrap();
        assert_eq!(h.encoding, Encoding::Int { bytes: 2, order: Order::Big });
        assert_eq!((h.channels, h.frames), (1, None));
    }

    #[test]
    fn other_codings_and_bad_numbers_are_named() {
        let text = |fields: &str| header(fields).unwrap_err().to_string();
        assert!(text("sample_rate -i 16000\nsample_coding -s26 pcm,embedded-wavpack-v1.00\n").contains("pcm,embedded-wavpack-v1.00"));
        assert!(text("sample_rate -i 16000\nsample_coding -s12 shortpack-v0\n").contains("shortpack-v0"));
        assert!(text("sample_rate -i x\n").contains("sample_rate"));
        assert!(text("channel_count -i 1\n").contains("no sample_rate"));
    }

    #[test]
    fn limits_hold_before_any_sample() {
        let bytes = file("sample_rate -i 16000\nchannel_count -i 4000000000\n", &[]);
        assert!(matches!(open(Path::new("x"), &Limits::default(), &bytes[..]), Err(Error::LimitExceeded { .. })));
        assert!(matches!(open(Path::new("x"), &Limits::default(), &bytes[..100]), Err(Error::CorruptAudio { .. })));
    }
}
