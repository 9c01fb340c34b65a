//! WAV and its relatives (RIFF, RIFX, RF64/BW64, Sony Wave64) with plain samples: read leniently, as recorders and cut
//! downloads leave them. Compressed codings are left to Symphonia.

use std::io::{self, Read};
use std::path::Path;

use super::limits::Limits;
use super::pcm::{Encoding, Order, PcmHeader};
use crate::error::{Error, Result};
use crate::units::SampleRate;

/// What the header says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Riff {
    /// Plain samples follow.
    Pcm(PcmHeader),
    /// Another coding, with its format tag.
    Compressed(u16),
}

/// Data sizes from here on are what programs that write to a pipe put in the place of the unknown.
const UNKNOWN_FROM: u64 = 0x7fff_0000;

/// The constant tail of the extensible format's identifiers: tag, then these bytes.
const EXTENSIBLE_TAIL: [u8; 14] = [0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71];

/// Length of Wave64's identifiers: four letters and a constant tail.
const WAVE64_ID: usize = 16;

/// The three layouts of chunks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// 32-bit sizes, even padding.
    Riff(Order),
    /// 64-bit sizes that count the header, padding to eight.
    Wave64,
}

/// The coding of a file that says at once that it is not plain samples: its first bytes are enough.
pub(super) fn compressed_tag(head: &[u8]) -> Option<u16> {
    if head.get(12..16)? != b"fmt " || !matches!(head.get(..4)?, b"RIFF" | b"RF64" | b"BW64") {
        return None;
    }
    let format = Format::parse(head.get(20..60.min(head.len()))?, Order::Little)?;
    (!format.is_plain()).then_some(format.tag)
}

/// Reads up to the first sample.
///
/// # Errors
/// [`Error::CorruptAudio`] where no samples are found or the format contradicts itself, [`Error::LimitExceeded`].
pub(super) fn read_header(name: &Path, limits: &Limits, from: &mut impl Read) -> Result<Riff> {
    let corrupt = |reason: &str| Error::CorruptAudio { path: name.into(), at: None, reason: format!("WAV: {reason}") };
    let ends = |e: io::Error| {
        if e.kind() == io::ErrorKind::UnexpectedEof { corrupt("the file ends before its data chunk") } else { Error::io(name, e) }
    };
    let mut id = [0; 4];
    from.read_exact(&mut id).map_err(ends)?;
    let layout = match &id {
        b"RIFX" => Layout::Riff(Order::Big),
        b"riff" => Layout::Wave64,
        _ => Layout::Riff(Order::Little),
    };
    let mut at = 4;
    let riff_size = if layout == Layout::Wave64 {
        skip(from, 12).and_then(|()| read_u64(from)).and_then(|size| skip(from, 16).map(|()| size)).map_err(ends)?
    } else {
        read_u32(from, layout.order()).and_then(|size| skip(from, 4).map(|()| size)).map_err(ends)?.into()
    };
    at += if layout == Layout::Wave64 { 36 } else { 8 };
    let mut format = None;
    let mut long_data_size = None;
    loop {
        let (id, size, header) = layout.next_chunk(from).map_err(ends)?;
        at += header;
        match &id {
            b"fmt " => {
                let mut body = vec![0; size.min(40) as usize];
                from.read_exact(&mut body).map_err(ends)?;
                let parsed = Format::parse(&body, layout.order()).ok_or_else(|| corrupt("the format chunk is too short"))?;
                if !parsed.is_plain() {
                    return Ok(Riff::Compressed(parsed.tag));
                }
                limits.check(name, SampleRate(parsed.rate), parsed.channels.into())?;
                format.get_or_insert(parsed);
                skip(from, layout.padded(size) - body.len() as u64).map_err(ends)?;
            }
            b"ds64" if size >= 16 => {
                skip(from, 8).map_err(ends)?;
                long_data_size = Some(read_u64(from).map_err(ends)?);
                skip(from, layout.padded(size) - 16).map_err(ends)?;
            }
            b"data" => {
                let format = format.ok_or_else(|| corrupt("no format chunk before the data"))?;
                let encoding =
                    format.encoding().ok_or_else(|| corrupt(&format!("{} bits a sample with format {}", format.bits, format.tag)))?;
                let size = long_data_size.filter(|_| size == u64::from(u32::MAX)).unwrap_or(size);
                // A recorder that was killed leaves sizes of zero; then, too, the samples go to the end of the file.
                let unfinished = size == 0 && riff_size + 8 <= at;
                let unknown = unfinished || (long_data_size.is_none() && layout != Layout::Wave64 && size >= UNKNOWN_FROM);
                let frame = encoding.bytes() as u64 * u64::from(format.channels);
                let frames = (!unknown).then(|| size / frame);
                return Ok(Riff::Pcm(PcmHeader {
                    encoding,
                    sample_rate: SampleRate(format.rate),
                    channels: format.channels.into(),
                    frames,
                }));
            }
            _ => skip(from, layout.padded(size)).map_err(ends)?,
        }
        at = at.saturating_add(layout.padded(size));
    }
}

impl Layout {
    fn order(self) -> Order {
        if let Self::Riff(order) = self { order } else { Order::Little }
    }

    /// Name and size of the next chunk's content, and the bytes of its header.
    fn next_chunk(self, from: &mut impl Read) -> io::Result<([u8; 4], u64, u64)> {
        let mut id = [0; 4];
        from.read_exact(&mut id)?;
        match self {
            Self::Riff(order) => Ok((id, read_u32(from, order)?.into(), 8)),
            Self::Wave64 => {
                skip(from, WAVE64_ID as u64 - 4)?;
                let header = WAVE64_ID as u64 + 8;
                Ok((id, read_u64(from)?.saturating_sub(header), header))
            }
        }
    }

    fn padded(self, size: u64) -> u64 {
        size.checked_next_multiple_of(if self == Self::Wave64 { 8 } else { 2 }).unwrap_or(u64::MAX)
    }
}

/// A `fmt ` chunk.
struct Format {
    tag: u16,
    channels: u16,
    rate: u32,
    block_align: u16,
    bits: u16,
    order: Order,
}

impl Format {
    fn parse(body: &[u8], order: Order) -> Option<Self> {
        let short = |at: usize| {
            let bytes = body.get(at..at + 2)?.try_into().ok()?;
            Some(if order == Order::Big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
        };
        let rate = body.get(4..8)?.try_into().ok()?;
        let rate = if order == Order::Big { u32::from_be_bytes(rate) } else { u32::from_le_bytes(rate) };
        let mut tag = short(0)?;
        if tag == 0xfffe && body.get(26..40) == Some(&EXTENSIBLE_TAIL) {
            tag = short(24)?;
        }
        // The oldest format chunks have no bits field.
        Some(Self { tag, channels: short(2)?, rate, block_align: short(12)?, bits: short(14).unwrap_or(8), order })
    }

    /// PCM, float, A-law or mu-law.
    fn is_plain(&self) -> bool {
        matches!(self.tag, 1 | 3 | 6 | 7)
    }

    fn encoding(&self) -> Option<Encoding> {
        // Odd widths (12, 20 bits) stand left-aligned in whole bytes, sometimes more of them than needed.
        let needed = usize::from(self.bits.div_ceil(8));
        let told = usize::from(self.block_align / self.channels.max(1));
        let bytes = if (needed..=4).contains(&told) { told } else { needed };
        match (self.tag, bytes) {
            (1, 1) => Some(Encoding::Unsigned8),
            (1, 2..=4) => Some(Encoding::Int { bytes, order: self.order }),
            (3, _) if self.bits == 32 || self.bits == 64 => Some(Encoding::Float { bytes: needed, order: self.order }),
            (6, 1) => Some(Encoding::ALaw),
            (7, 1) => Some(Encoding::MuLaw),
            _ => None,
        }
        .filter(|_| self.bits > 0)
    }
}

/// Reads over `bytes` bytes; the end of the file is an error.
fn skip(from: &mut impl Read, bytes: u64) -> io::Result<()> {
    let skipped = io::copy(&mut from.take(bytes), &mut io::sink())?;
    if skipped < bytes { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

fn read_u32(from: &mut impl Read, order: Order) -> io::Result<u32> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    Ok(if order == Order::Big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
}

fn read_u64(from: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    from.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(id: &[u8; 4], size: u32, body: &[u8]) -> Vec<u8> {
        [&id[..], &size.to_le_bytes(), body].concat()
    }

    fn fmt(tag: u16, channels: u16, rate: u32, bits: u16) -> Vec<u8> {
        let align = channels * bits.div_ceil(8);
        let mut body: Vec<u8> = [tag, channels].iter().flat_map(|x| x.to_le_bytes()).collect();
        body.extend(rate.to_le_bytes());
        body.extend((rate * u32::from(align)).to_le_bytes());
        body.extend(align.to_le_bytes());
        body.extend(bits.to_le_bytes());
        chunk(b"fmt ", 16, &body)
    }

    fn header(riff_size: u32, chunks: &[Vec<u8>]) -> Result<Riff> {
        let bytes = [&b"RIFF"[..], &riff_size.to_le_bytes(), b"WAVE", &chunks.concat()].concat();
        read_header(Path::new("x.wav"), &Limits::default(), &mut &bytes[..])
    }

    fn frames(riff_size: u32, data_size: u32) -> Option<u64> {
        match header(riff_size, &[fmt(1, 1, 8_000, 16), chunk(b"data", data_size, &[0; 8])]).unwrap() {
            Riff::Pcm(h) => h.frames,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn sizes_known_and_unknown() {
        assert_eq!(frames(44, 8), Some(4));
        assert_eq!(frames(36, 0), None, "never finished");
        assert_eq!(frames(0, 0), None);
        assert_eq!(frames(100, 0), Some(0), "really empty, other chunks follow");
        assert_eq!(frames(u32::MAX, u32::MAX), None);
        assert_eq!(frames(44, 1_000_000), Some(500_000), "cut: the reader finds out");
    }

    #[test]
    fn odd_chunks_are_padded_and_order_is_checked() {
        let odd = chunk(b"LIST", 3, &[1, 2, 3, 0]);
        assert!(
            matches!(header(0, &[odd, fmt(7, 1, 8_000, 8), chunk(b"data", 4, &[])]), Ok(Riff::Pcm(h)) if h.encoding == Encoding::MuLaw)
        );
        let error = header(0, &[chunk(b"data", 4, &[0; 4]), fmt(1, 1, 8_000, 16)]).unwrap_err();
        assert!(error.to_string().contains("no format chunk"), "{error}");
        assert!(header(0, &[fmt(1, 1, 8_000, 16)]).unwrap_err().to_string().contains("ends before"));
        assert!(header(0, &[chunk(b"LIST", u32::MAX, &[])]).is_err());
    }

    #[test]
    fn widths() {
        let encoding = |tag, bits| match header(0, &[fmt(tag, 2, 8_000, bits), chunk(b"data", 4, &[])]) {
            Ok(Riff::Pcm(h)) => Some(h.encoding),
            _ => None,
        };
        assert_eq!(encoding(1, 8), Some(Encoding::Unsigned8));
        assert_eq!(encoding(1, 20), Some(Encoding::Int { bytes: 3, order: Order::Little }));
        assert_eq!(encoding(3, 64), Some(Encoding::Float { bytes: 8, order: Order::Little }));
        assert_eq!(encoding(3, 16), None);
        assert_eq!(encoding(1, 0), None);
        assert_eq!(encoding(1, 40), None);
        assert!(matches!(header(0, &[fmt(0x11, 1, 8_000, 4)]), Ok(Riff::Compressed(0x11))));
    }
}
