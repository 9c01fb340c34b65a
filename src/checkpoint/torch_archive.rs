//! The archives of `torch.save`: a zip of stored (never compressed) files, one of them a pickle that says where each tensor lies.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::checkpoint::limits::{ARCHIVE_FILES, PICKLE};
use crate::checkpoint::pickle::{self, Tensor};
use crate::checkpoint::tensor_file::Found;

/// Every tensor of an archive with its place in `bytes`.
///
/// # Errors
/// What is wrong, in words: not such an archive, damaged, compressed, or a pickle with anything but tensors.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<Found>, String> {
    let files = directory(bytes)?;
    let pickled = files.iter().find(|(name, _)| name.ends_with("/data.pkl") || *name == "data.pkl");
    let (name, place) = pickled.ok_or("a zip without data.pkl: not written by torch.save")?;
    let root = &name[..name.len() - "data.pkl".len()];
    if place.len() > PICKLE {
        return Err(format!("data.pkl takes {} bytes (limit {PICKLE})", place.len()));
    }
    if let Some(order) = files.get(&format!("{root}byteorder"))
        && &bytes[order.clone()] != b"little"
    {
        return Err("tensors in big-endian order".into());
    }
    let tensors = pickle::read(&bytes[place.clone()])?;
    let mut found = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let file = format!("{root}data/{}", tensor.storage);
        let place = files.get(&file).ok_or_else(|| format!("{name}: the archive has no {file}"))?;
        let range = elements(&tensor, place).map_err(|reason| format!("{name}: {reason}"))?;
        found.push((name, tensor.dtype, tensor.shape, range));
    }
    Ok(found)
}

/// Where the elements of a tensor lie; its storage lies at `place`.
fn elements(tensor: &Tensor, place: &Range<usize>) -> Result<Range<usize>, String> {
    let too_large = || format!("shape {:?} reaches past its storage", tensor.shape);
    let count = tensor.shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size)).ok_or_else(too_large)?;
    let mut expected = 1;
    for (&size, &stride) in tensor.shape.iter().zip(&tensor.strides).rev() {
        if size > 1 && stride != expected {
            return Err(format!("strides {:?} of shape {:?}: only row-major tensors are read", tensor.strides, tensor.shape));
        }
        expected *= size.max(1);
    }
    let size = tensor.dtype.size();
    let end = tensor.offset.checked_add(count).and_then(|n| n.checked_mul(size)).filter(|&end| end <= place.len()).ok_or_else(too_large)?;
    Ok(place.start + tensor.offset * size..place.start + end)
}

/// Little-endian numbers from a slice, with the end of the slice checked.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u16(&self, at: usize) -> Result<usize, String> {
        self.0.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]).into()).ok_or_else(truncated)
    }

    fn u32(&self, at: usize) -> Result<u64, String> {
        self.0.get(at..).and_then(|b| b.first_chunk()).map(|b| u32::from_le_bytes(*b).into()).ok_or_else(truncated)
    }

    fn u64(&self, at: usize) -> Result<u64, String> {
        self.0.get(at..).and_then(|b| b.first_chunk()).map(|b| u64::from_le_bytes(*b)).ok_or_else(truncated)
    }

    fn starts(&self, at: usize, signature: &[u8]) -> bool {
        self.0.get(at..).is_some_and(|b| b.starts_with(signature))
    }
}

fn truncated() -> String {
    "a truncated zip archive".into()
}

/// What stands in a 32-bit field whose value is in the zip64 extension.
const IN_ZIP64: u64 = 0xffff_ffff;

/// The files of a zip by name, each with the place of its bytes.
fn directory(bytes: &[u8]) -> Result<BTreeMap<String, Range<usize>>, String> {
    let fields = Fields(bytes);
    let last = bytes.len().checked_sub(22).ok_or_else(truncated)?;
    // A comment of up to 64 KB may follow the end record.
    let end = (last.saturating_sub(0xffff)..=last).rev().find(|&at| fields.starts(at, b"PK\x05\x06")).ok_or_else(truncated)?;
    let (mut count, mut start) = (fields.u16(end + 10)? as u64, fields.u32(end + 16)?);
    if let Some(locator) = end.checked_sub(20).filter(|&at| fields.starts(at, b"PK\x06\x07")) {
        let record = usize::try_from(fields.u64(locator + 8)?).map_err(|_| truncated())?;
        if !fields.starts(record, b"PK\x06\x06") {
            return Err("a damaged zip64 directory".into());
        }
        (count, start) = (fields.u64(record + 32)?, fields.u64(record + 48)?);
    }
    if count > ARCHIVE_FILES as u64 {
        return Err(format!("{count} files in the archive (limit {ARCHIVE_FILES})"));
    }
    let mut at = usize::try_from(start).ok().filter(|&s| s <= bytes.len()).ok_or_else(truncated)?;
    let mut files = BTreeMap::new();
    for _ in 0..count {
        if !fields.starts(at, b"PK\x01\x02") {
            return Err("a damaged zip directory".into());
        }
        let method = fields.u16(at + 10)?;
        let (mut packed, mut size, mut offset) = (fields.u32(at + 20)?, fields.u32(at + 24)?, fields.u32(at + 42)?);
        let (name, extra, comment) = (fields.u16(at + 28)?, fields.u16(at + 30)?, fields.u16(at + 32)?);
        let name_at = at + 46;
        let name_bytes = bytes.get(name_at..name_at + name).ok_or_else(truncated)?;
        let extra_bytes = bytes.get(name_at + name..name_at + name + extra).ok_or_else(truncated)?;
        zip64(extra_bytes, [&mut size, &mut packed, &mut offset])?;
        let name_text = String::from_utf8(name_bytes.to_vec()).map_err(|_| "a file name in the zip that is not UTF-8".to_string())?;
        if method != 0 || packed != size {
            return Err(format!("{name_text} in the zip is compressed; torch.save stores files as they are"));
        }
        let local = usize::try_from(offset).map_err(|_| truncated())?;
        if !fields.starts(local, b"PK\x03\x04") {
            return Err(format!("{name_text}: a damaged zip entry"));
        }
        let data = local + 30 + fields.u16(local + 26)? + fields.u16(local + 28)?;
        let size = usize::try_from(size).map_err(|_| truncated())?;
        let range = data..data.checked_add(size).filter(|&e| e <= bytes.len()).ok_or_else(truncated)?;
        if files.insert(name_text.clone(), range).is_some() {
            return Err(format!("{name_text} is in the zip twice"));
        }
        at = name_at + name + extra + comment;
    }
    Ok(files)
}

/// Takes the fields that did not fit 32 bits from the zip64 extension, in its order.
fn zip64(extra: &[u8], fields: [&mut u64; 3]) -> Result<(), String> {
    let mut wanted = fields.into_iter().filter(|f| **f == IN_ZIP64).peekable();
    if wanted.peek().is_none() {
        return Ok(());
    }
    let reader = Fields(extra);
    let mut at = 0;
    while at + 4 <= extra.len() {
        let (tag, length) = (reader.u16(at)?, reader.u16(at + 2)?);
        if tag == 1 {
            for (i, field) in wanted.enumerate() {
                *field = reader.u64(at + 4 + 8 * i)?;
            }
            return Ok(());
        }
        at += 4 + length;
    }
    Err("a zip entry without its zip64 sizes".into())
}
