//! The edit lists of an MP4 file: where the audio of a track begins and ends inside its first and last packet.
//!
//! Symphonia decodes all there is; an AAC track then starts with the 1024 to 2112 samples its encoder needed to warm up.

use std::io::{self, Read, Seek, SeekFrom};

/// The part of a track that is meant to be heard.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Edit {
    /// Number of the track.
    pub track: u32,
    /// Seconds to drop at the start.
    pub start: f64,
    /// Seconds to keep at most, to the tick above; `None` for all.
    pub keep: Option<f64>,
}

/// Longest `moov` box read: an hour of AAC takes about 1 MB.
const MAX_MOOV: u64 = 64 << 20;
/// Most boxes looked at in one level, against files of endless empty boxes.
const MAX_BOXES: usize = 10_000;

/// Reads the edits of all tracks that have exactly one; whatever is broken has none. The source is left at the start.
///
/// # Errors
/// What the source answers to seeking.
pub(super) fn read_edits(bytes: &mut (impl Read + Seek + ?Sized)) -> io::Result<Vec<Edit>> {
    let moov = read_moov(bytes)?;
    bytes.seek(SeekFrom::Start(0))?;
    Ok(moov.map(|moov| edits(&moov)).unwrap_or_default())
}

/// The content of the `moov` box.
fn read_moov(bytes: &mut (impl Read + Seek + ?Sized)) -> io::Result<Option<Vec<u8>>> {
    let total = bytes.seek(SeekFrom::End(0))?;
    let mut at = 0u64;
    for _ in 0..MAX_BOXES {
        let mut header = [0u8; 16];
        if total - at < 16 {
            break;
        }
        bytes.seek(SeekFrom::Start(at))?;
        bytes.read_exact(&mut header)?;
        let Some((kind, size, start)) = box_header(&header) else { break };
        let size = if size == 0 { total - at } else { size };
        let Some(end) = at.checked_add(size).filter(|end| *end <= total && size >= start) else { break };
        if &kind == b"moov" && size <= MAX_MOOV {
            let mut moov = vec![0; (size - start) as usize];
            bytes.seek(SeekFrom::Start(at + start))?;
            bytes.read_exact(&mut moov)?;
            return Ok(Some(moov));
        }
        at = end;
    }
    Ok(None)
}

/// Name, size (0: to the end) and length of the header of the box that starts with `bytes`.
fn box_header(bytes: &[u8]) -> Option<([u8; 4], u64, u64)> {
    let (&size, rest) = bytes.split_first_chunk::<4>()?;
    let (&kind, rest) = rest.split_first_chunk::<4>()?;
    match u32::from_be_bytes(size) {
        1 => Some((kind, u64::from_be_bytes(*rest.first_chunk()?), 16)),
        size => Some((kind, size.into(), 8)),
    }
}

/// The boxes inside a box's content.
fn children(mut content: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    std::iter::from_fn(move || {
        let (kind, size, start) = box_header(content)?;
        let size = if size == 0 { content.len() } else { usize::try_from(size).ok()? };
        let inside = content.get(start as usize..size)?;
        content = &content[size..];
        Some((kind, inside))
    })
    .take(MAX_BOXES)
}

fn child<'a>(content: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    children(content).find(|(k, _)| k == kind).map(|(_, inside)| inside)
}

fn edits(moov: &[u8]) -> Vec<Edit> {
    let Some(movie_scale) = child(moov, b"mvhd").and_then(time_scale) else { return Vec::new() };
    children(moov).filter(|(kind, _)| kind == b"trak").filter_map(|(_, trak)| edit(trak, movie_scale)).collect()
}

/// Ticks per second of an `mvhd` or `mdhd` box: after the two dates, 32 or 64 bits each.
fn time_scale(header: &[u8]) -> Option<f64> {
    let at = if *header.first()? == 1 { 20 } else { 12 };
    let scale = u32::from_be_bytes(*header.get(at..)?.first_chunk()?);
    (scale > 0).then_some(scale.into())
}

fn edit(trak: &[u8], movie_scale: f64) -> Option<Edit> {
    let header = child(trak, b"tkhd")?;
    let at = if *header.first()? == 1 { 20 } else { 12 };
    let track = u32::from_be_bytes(*header.get(at..)?.first_chunk()?);
    let scale = child(child(trak, b"mdia")?, b"mdhd").and_then(time_scale)?;
    let list = child(child(trak, b"edts")?, b"elst")?;
    let long = *list.first()? == 1;
    let mut heard = None;
    for entry in list.get(8..)?.chunks_exact(if long { 20 } else { 12 }).take(MAX_BOXES) {
        let (duration, media_time) = if long {
            (u64::from_be_bytes(*entry.first_chunk()?), i64::from_be_bytes(*entry.get(8..)?.first_chunk()?))
        } else {
            (u32::from_be_bytes(*entry.first_chunk()?).into(), i32::from_be_bytes(*entry.get(4..)?.first_chunk()?).into())
        };
        // A negative time is a pause before the audio.
        if media_time >= 0 && heard.replace((duration, media_time)).is_some() {
            return None;
        }
    }
    let (duration, media_time) = heard?;
    let keep = (duration > 0).then(|| (duration as f64 + 1.0) / movie_scale);
    Some(Edit { track, start: media_time as f64 / scale, keep })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
        [&(content.len() as u32 + 8).to_be_bytes()[..], kind, content].concat()
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_be_bytes()).collect()
    }

    fn file(entries: &[[u32; 3]]) -> Vec<u8> {
        let list = [words(&[0, entries.len() as u32]), entries.iter().flat_map(|e| words(e)).collect()].concat();
        let trak = [
            make(b"tkhd", &words(&[0, 0, 0, 7])),
            make(b"edts", &make(b"elst", &list)),
            make(b"mdia", &make(b"mdhd", &words(&[0, 0, 0, 44_100]))),
        ]
        .concat();
        let moov = [make(b"mvhd", &words(&[0, 0, 0, 1_000])), make(b"trak", &trak)].concat();
        [make(b"ftyp", b"M4A padding"), make(b"moov", &moov)].concat()
    }

    fn read(bytes: &[u8]) -> Vec<Edit> {
        read_edits(&mut io::Cursor::new(bytes)).unwrap()
    }

    #[test]
    fn one_edit_and_a_pause() {
        let expected = vec![Edit { track: 7, start: 1_024.0 / 44_100.0, keep: Some(0.801) }];
        assert_eq!(read(&file(&[[800, 1_024, 0x10000]])), expected);
        assert_eq!(read(&file(&[[50, u32::MAX, 0x10000], [800, 1_024, 0x10000]])), expected);
        assert_eq!(read(&file(&[[800, 0, 0], [800, 9, 0]])), []);
    }

    #[test]
    fn broken_files_have_none() {
        let whole = file(&[[800, 1_024, 0x10000]]);
        for len in 0..whole.len() {
            let _ = read(&whole[..len]);
            let mut broken = whole.clone();
            broken[len] ^= 0xff;
            let _ = read(&broken);
        }
        assert_eq!(read(&whole[..whole.len() - 1]), []);
    }
}
