//! The exact end of a Core Audio file: Symphonia gives the whole file up over a stray byte after its last chunk.

use std::io::{self, Read, Seek, SeekFrom};

use symphonia::core::io::MediaSource;

use super::source::Clipped;

/// Length of the file's header and of a chunk's.
const FILE_HEADER: u64 = 8;
const CHUNK_HEADER: u64 = 12;

/// Ends the source after its last whole chunk header's chunk, if what is left cannot be another one.
///
/// # Errors
/// What the source answers; it is left at the start.
pub(super) fn clip(mut bytes: Box<dyn MediaSource>) -> io::Result<Box<dyn MediaSource>> {
    let total = bytes.seek(SeekFrom::End(0))?;
    let mut at = FILE_HEADER;
    let mut header = [0u8; CHUNK_HEADER as usize];
    while total.saturating_sub(at) >= CHUNK_HEADER {
        bytes.seek(SeekFrom::Start(at))?;
        bytes.read_exact(&mut header)?;
        let [_, _, _, _, size @ ..] = header;
        // A negative size means "to the end" for the data, and nothing anywhere else: then there is nothing to clip.
        let end = u64::try_from(i64::from_be_bytes(size)).ok().and_then(|size| at.checked_add(CHUNK_HEADER)?.checked_add(size));
        at = end.unwrap_or(total).min(total);
    }
    bytes.seek(SeekFrom::Start(0))?;
    if at < total { Ok(Box::new(Clipped { bytes, len: at })) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clipped(bytes: Vec<u8>) -> Option<u64> {
        clip(Box::new(io::Cursor::new(bytes))).unwrap().byte_len()
    }

    #[test]
    fn stray_bytes_are_cut_off() {
        let mut file = b"caff\0\x01\0\0data".to_vec();
        file.extend(4i64.to_be_bytes());
        file.extend([1, 2, 3, 4]);
        assert_eq!(clipped(file.clone()), Some(24));
        file.push(0);
        assert_eq!(clipped(file.clone()), Some(24));
        file.extend([0; 11]);
        assert_eq!(clipped(file), Some(36), "room for a chunk: left to the reader");
        assert_eq!(clipped(b"caff".to_vec()), Some(4));
    }
}
