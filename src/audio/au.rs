//! Sun/NeXT `.au`: a 24-byte big-endian header and plain samples.

use std::io::Read;
use std::path::Path;

use super::limits::Limits;
use super::pcm::{Encoding, Order, Pcm, PcmHeader};
use crate::error::{Error, Result};
use crate::units::SampleRate;

/// Longest annotation accepted between the header and the samples.
const MAX_ANNOTATION: u32 = 1 << 20;

/// Reads the header and returns the samples behind it.
///
/// # Errors
/// [`Error::CorruptAudio`] for a cut header, [`Error::UnsupportedAudio`] for another coding, [`Error::LimitExceeded`].
pub(super) fn open<R: Read>(name: &Path, limits: &Limits, mut from: R) -> Result<Pcm<R>> {
    let corrupt = |reason: &str| Error::CorruptAudio { path: name.into(), at: None, reason: format!("AU: {reason}") };
    let mut header = [0u8; 24];
    from.read_exact(&mut header).map_err(|_| corrupt("the header is cut"))?;
    let word = |i: usize| u32::from_be_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]]);
    let (offset, size, coding, rate, channels) = (word(4), word(8), word(12), word(16), word(20));
    let order = Order::Big;
    let (encoding, width) = match coding {
        1 => (Encoding::MuLaw, 1),
        2..=5 => (Encoding::Int { bytes: coding as usize - 1, order }, u64::from(coding) - 1),
        6 => (Encoding::Float { bytes: 4, order }, 4),
        7 => (Encoding::Float { bytes: 8, order }, 8),
        27 => (Encoding::ALaw, 1),
        other => return Err(Error::UnsupportedAudio { path: name.into(), reason: format!("AU with coding {other}") }),
    };
    let annotation = offset.checked_sub(24).filter(|n| *n <= MAX_ANNOTATION).ok_or_else(|| corrupt("impossible header length"))?;
    limits.check(name, SampleRate(rate), channels as usize)?;
    let skipped = std::io::copy(&mut from.by_ref().take(annotation.into()), &mut std::io::sink()).map_err(|e| Error::io(name, e))?;
    if skipped < u64::from(annotation) {
        return Err(corrupt("the header is longer than the file"));
    }
    // A size of all ones means "until the end".
    let frames = (size != u32::MAX).then(|| u64::from(size) / (width * u64::from(channels)));
    Ok(Pcm::new(name, PcmHeader { encoding, sample_rate: SampleRate(rate), channels: channels as usize, frames }, from))
}

#[cfg(test)]
mod tests {
    use super::super::block::{Block, Take};
    use super::super::{Blocks, warnings::Warnings};
    use super::*;

    fn file(offset: u32, coding: u32, rate: u32, channels: u32) -> Vec<u8> {
        let words = [u32::from_be_bytes(*b".snd"), offset, u32::MAX, coding, rate, channels, 0];
        words.iter().flat_map(|w| w.to_be_bytes()).chain([0x40, 0x00, 0xc0, 0x00]).collect()
    }

    #[test]
    fn samples_follow_the_annotation() {
        let bytes = file(28, 3, 16_000, 1);
        let mut pcm = open(Path::new("x.au"), &Limits::default(), &bytes[..]).unwrap();
        let mut block = Block::new(Take::Mean);
        assert!(pcm.next(&mut block, &mut Warnings::default()).unwrap());
        assert_eq!(block.planes(), [[0.5, -0.5]]);
    }

    #[test]
    fn bad_headers_are_errors() {
        let open = |bytes: &[u8]| open(Path::new("x.au"), &Limits::default(), bytes).map(|_| ());
        assert!(matches!(open(&file(28, 99, 16_000, 1)), Err(Error::UnsupportedAudio { .. })));
        assert!(matches!(open(&file(3, 3, 16_000, 1)), Err(Error::CorruptAudio { .. })));
        assert!(matches!(open(&file(4000, 3, 16_000, 1)), Err(Error::CorruptAudio { .. })));
        assert!(matches!(open(&file(28, 3, 16_000, 0)), Err(Error::CorruptAudio { .. })));
        assert!(open(&file(28, 3, 16_000, 1)[..10]).is_err());
    }
}
