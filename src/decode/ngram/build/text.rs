//! Lines of text files: plain, gzipped or xz, told apart by how they start.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, stdin};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;

use crate::error::{Error, Result};

/// Longest line, bytes.
const MAX_LINE: u64 = 1 << 24;
const BUFFER_BYTES: usize = 1 << 16;

/// Calls `each` with every line of a file, without its line break; `-` is standard input.
///
/// # Errors
/// - [`Error::Io`]: the file cannot be read or decompressed
/// - [`Error::Manifest`]: a line is not UTF-8, or longer than 16 MiB; names it
/// - whatever `each` returns
pub fn for_each_line(path: &Path, mut each: impl FnMut(&str) -> Result<()>) -> Result<()> {
    let failed = |e| Error::io(path, e);
    let source: Box<dyn Read> = if path == Path::new("-") { Box::new(stdin()) } else { Box::new(File::open(path).map_err(failed)?) };
    let mut source = BufReader::with_capacity(BUFFER_BYTES, source);
    let head = source.fill_buf().map_err(failed)?;
    let mut reader: Box<dyn BufRead> = if head.starts_with(&[0x1f, 0x8b]) {
        Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(source)))
    } else if head.starts_with(b"\xfd7zXZ\0") {
        Box::new(BufReader::with_capacity(BUFFER_BYTES, XzReader::new(source, true)))
    } else {
        Box::new(source)
    };
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        let read = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut bytes).map_err(failed)?;
        let refuse = |reason: &str| Error::Manifest { path: path.to_path_buf(), line, reason: reason.into() };
        match read as u64 {
            0 => break,
            MAX_LINE => return Err(refuse("longer than 16 MiB")),
            _ => {}
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| refuse("not UTF-8"))?;
        each(text.trim_end_matches(['\n', '\r']))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn lines(bytes: &[u8]) -> Result<Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        std::fs::write(&path, bytes).unwrap();
        let mut found = Vec::new();
        for_each_line(&path, |line| {
            found.push(line.to_string());
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn plain_and_gzipped() {
        assert_eq!(lines("a b\r\n\né".as_bytes()).unwrap(), ["a b", "", "é"]);
        assert_eq!(lines(b"").unwrap(), [""; 0]);
        let mut gzipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzipped.write_all(b"a\nb\n").unwrap();
        let twice = gzipped.finish().unwrap().repeat(2);
        assert_eq!(lines(&twice).unwrap(), ["a", "b", "a", "b"]);
        assert!(matches!(lines(&twice[..twice.len() - 9]), Err(Error::Io { .. })));
    }

    #[test]
    fn xz() {
        // `printf 'one\ntwo\n' | xz --format=xz`
        let bytes = XZ_ONE_TWO;
        assert_eq!(lines(&bytes).unwrap(), ["one", "two"]);
        assert!(matches!(lines(&bytes[..40]), Err(Error::Io { .. })));
    }

    const XZ_ONE_TWO: [u8; 64] = [
        0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x0, 0x0, 0x4, 0xe6, 0xd6, 0xb4, 0x46, 0x2, 0x0, 0x21, 0x1, 0x16, 0x0, 0x0, 0x0, 0x74, 0x2f, 0xe5,
        0xa3, 0x1, 0x0, 0x7, 0x6f, 0x6e, 0x65, 0xa, 0x74, 0x77, 0x6f, 0xa, 0x0, 0x51, 0xab, 0x9e, 0xaf, 0x57, 0x75, 0x70, 0x49, 0x0, 0x1,
        0x20, 0x8, 0xbb, 0x19, 0xd9, 0xbb, 0x1f, 0xb6, 0xf3, 0x7d, 0x1, 0x0, 0x0, 0x0, 0x0, 0x4, 0x59, 0x5a,
    ];

    #[test]
    fn bad_lines_are_named() {
        let said = lines(b"a\nb\xff\n").unwrap_err().to_string();
        assert!(said.ends_with(":2: not UTF-8"), "{said}");
    }
}
