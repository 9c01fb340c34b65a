//! The framing of Opus packets: one packet into its frames (RFC 6716, section 3.2), plain or self-delimited (appendix B).

/// A packet taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OpusPacket<'a> {
    /// The first byte without the framing code: configuration and stereo flag.
    pub toc: u8,
    /// The compressed frames; an empty one is a frame that was not sent.
    pub frames: Vec<&'a [u8]>,
}

/// Longest packet: 120 ms at 48 kHz.
const MAX_SAMPLES: usize = 5_760;

impl<'a> OpusPacket<'a> {
    /// Takes a packet that fills `data` apart; `None` where it breaks a rule of RFC 6716.
    pub fn parse(data: &'a [u8]) -> Option<Self> {
        Self::parse_with(data, Framing::Plain).map(|(packet, _)| packet)
    }

    /// Takes the self-delimited packet at the start of `data` apart and returns it with the bytes after it.
    pub fn parse_delimited(data: &'a [u8]) -> Option<(Self, &'a [u8])> {
        Self::parse_with(data, Framing::SelfDelimited)
    }

    /// Samples per channel of one frame at 48 kHz (RFC 6716, table 2).
    pub fn frame_samples(&self) -> usize {
        let config = self.toc >> 3;
        match config {
            0..=11 => [480, 960, 1920, 2880][usize::from(config & 3)],
            12..=15 => [480, 960][usize::from(config & 1)],
            _ => [120, 240, 480, 960][usize::from(config & 3)],
        }
    }

    fn parse_with(data: &'a [u8], framing: Framing) -> Option<(Self, &'a [u8])> {
        let (&first, mut rest) = data.split_first()?;
        let delimited = framing == Framing::SelfDelimited;
        let mut packet = Self { toc: first & !3, frames: Vec::new() };
        let mut padding = 0;
        // Sizes known from the packet; `None` means "all the frames share what is left equally".
        let mut sizes: Option<Vec<usize>> = None;
        let count;
        match first & 3 {
            code @ (0 | 1) => {
                count = usize::from(code) + 1;
                if delimited {
                    sizes = Some(vec![take_size(&mut rest)?; count]);
                }
            }
            2 => {
                count = 2;
                let first_size = take_size(&mut rest)?;
                let second_size = if delimited { take_size(&mut rest)? } else { rest.len().checked_sub(first_size)? };
                sizes = Some(vec![first_size, second_size]);
            }
            _ => {
                let (&flags, after) = rest.split_first()?;
                rest = after;
                count = usize::from(flags & 0x3f);
                if count == 0 {
                    return None;
                }
                if flags & 0x40 != 0 {
                    padding = take_padding(&mut rest)?;
                }
                if flags & 0x80 != 0 {
                    let mut list = Vec::with_capacity(count);
                    for _ in 1..count {
                        list.push(take_size(&mut rest)?);
                    }
                    let known: usize = list.iter().sum();
                    list.push(if delimited { take_size(&mut rest)? } else { rest.len().checked_sub(known)?.checked_sub(padding)? });
                    sizes = Some(list);
                } else if delimited {
                    sizes = Some(vec![take_size(&mut rest)?; count]);
                }
            }
        }
        if count * packet.frame_samples() > MAX_SAMPLES {
            return None;
        }
        let sizes = match sizes {
            Some(sizes) => sizes,
            None => {
                let bytes = rest.len().checked_sub(padding)?;
                if bytes % count != 0 {
                    return None;
                }
                vec![bytes / count; count]
            }
        };
        for size in sizes {
            let (frame, after) = rest.split_at_checked(size)?;
            packet.frames.push(frame);
            rest = after;
        }
        Some((packet, rest.get(padding..)?))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    Plain,
    SelfDelimited,
}

/// A frame length: one byte below 252, else `4 * second + first`.
fn take_size(data: &mut &[u8]) -> Option<usize> {
    let (&first, rest) = data.split_first()?;
    *data = rest;
    if first < 252 {
        return Some(first.into());
    }
    let (&second, rest) = data.split_first()?;
    *data = rest;
    Some(4 * usize::from(second) + usize::from(first))
}

/// The padding length: each 255 counts 254 and goes on.
fn take_padding(data: &mut &[u8]) -> Option<usize> {
    let mut padding = 0;
    loop {
        let (&byte, rest) = data.split_first()?;
        *data = rest;
        if byte < 255 {
            return Some(padding + usize::from(byte));
        }
        padding += 254;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 20 ms CELT fullband mono: configuration 31.
    const TOC: u8 = 31 << 3;

    #[test]
    fn every_framing_code() {
        let frames = |data: &[u8]| OpusPacket::parse(data).map(|p| p.frames.iter().map(|f| f.to_vec()).collect::<Vec<_>>());
        assert_eq!(frames(&[TOC, 1, 2, 3]), Some(vec![vec![1, 2, 3]]));
        assert_eq!(frames(&[TOC]), Some(vec![vec![]]));
        assert_eq!(frames(&[TOC | 1, 1, 2, 3, 4]), Some(vec![vec![1, 2], vec![3, 4]]));
        assert_eq!(frames(&[TOC | 1, 1, 2, 3]), None);
        assert_eq!(frames(&[TOC | 2, 1, 9, 8, 7]), Some(vec![vec![9], vec![8, 7]]));
        assert_eq!(frames(&[TOC | 2, 9, 9]), None);
        assert_eq!(frames(&[TOC | 3, 3, 1, 2, 3]), Some(vec![vec![1], vec![2], vec![3]]));
        assert_eq!(frames(&[TOC | 3, 0xc2, 2, 1, 5, 6, 7, 0, 0]), Some(vec![vec![5], vec![6, 7]]));
        assert_eq!(frames(&[TOC | 3, 0, 1]), None);
        assert_eq!(frames(&[TOC | 3, 7, 0, 0, 0, 0, 0, 0, 0]), None, "7 * 20 ms is over 120 ms");
        assert_eq!(frames(&[]), None);
    }

    #[test]
    fn self_delimited_packets_leave_the_rest() {
        let (packet, rest) = OpusPacket::parse_delimited(&[TOC, 2, 5, 6, 0xaa]).unwrap();
        assert_eq!((packet.frames, rest), (vec![&[5u8, 6][..]], &[0xaau8][..]));
        let (packet, rest) = OpusPacket::parse_delimited(&[TOC | 3, 0x82, 1, 2, 5, 6, 7, 0xbb]).unwrap();
        assert_eq!((packet.frames, rest), (vec![&[5u8][..], &[6, 7]], &[0xbbu8][..]));
        assert!(OpusPacket::parse_delimited(&[TOC, 9, 1]).is_none());
    }

    #[test]
    fn durations() {
        let samples = |config: u8| OpusPacket { toc: config << 3, frames: vec![] }.frame_samples();
        assert_eq!([samples(0), samples(3), samples(12), samples(15), samples(16), samples(31)], [480, 2880, 480, 960, 120, 960]);
    }
}
