//! Where a Matroska or WebM file says it ends: Symphonia refuses a segment that claims more bytes than the file has.

/// Identifier of the element that holds everything after the header.
const SEGMENT: [u8; 4] = [0x18, 0x53, 0x80, 0x67];

/// Where the segment of a file that starts with `head` claims to end; `None` for an unknown size or another layout.
pub(super) fn segment_end(head: &[u8]) -> Option<u64> {
    let (header, start) = size_at(head, 4)?;
    let segment = start.checked_add(usize::try_from(header?).ok()?)?;
    if head.get(segment..)?.first_chunk()? != &SEGMENT {
        return None;
    }
    let (size, start) = size_at(head, segment + 4)?;
    (start as u64).checked_add(size?)
}

/// The EBML size at `at` (`None`: unknown) and where it ends: as many bytes as its first has leading zeros, plus one.
fn size_at(bytes: &[u8], at: usize) -> Option<(Option<u64>, usize)> {
    let first = *bytes.get(at)?;
    let length = first.leading_zeros() as usize + 1;
    let rest = bytes.get(at + 1..at + length)?;
    let mask = 0xffu8.checked_shr(length as u32).unwrap_or(0);
    let size = rest.iter().fold(u64::from(first & mask), |size, &b| size << 8 | u64::from(b));
    let unknown = size == (1u64 << (7 * length)) - 1;
    Some(((!unknown).then_some(size), at + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_claimed_end() {
        let file = |size: &[u8]| [&[0x1a, 0x45, 0xdf, 0xa3, 0x82, 0, 0], &SEGMENT[..], size].concat();
        // Header of 7 bytes, identifier of 4, size.
        assert_eq!(segment_end(&file(&[0x88])), Some(12 + 8));
        assert_eq!(segment_end(&file(&[0x01, 0, 0, 0, 0, 0, 1, 0])), Some(19 + 256));
        assert_eq!(segment_end(&file(&[0xff])), None);
        assert_eq!(segment_end(&file(&[0x01, 255, 255, 255, 255, 255, 255, 255])), None);
        assert_eq!(segment_end(b"\x1a\x45\xdf\xa3"), None);
    }
}
