//! Read-only memory maps of files.

use std::fs::File;
use std::io;
use std::path::Path;

/// A file mapped for reading; it derefs to its bytes.
pub type Mapping = memmap2::Mmap;

/// Maps a file for reading; pages are loaded when they are touched. Empty files and what is not a regular file are errors.
///
/// The file must stay as it is while it is mapped: one that is cut short under the map ends the process with a bus error.
///
/// # Errors
/// What the operating system says, or that the file is empty or not a regular file.
pub fn map(path: &Path) -> io::Result<Mapping> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    if metadata.len() == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is empty"));
    }
    // SAFETY: the map is read-only and is read as plain bytes, for which every value is valid. Another process that rewrites the file
    // while it is mapped would change what is read; callers check whatever they read, and files of models are replaced, not rewritten.
    unsafe { memmap2::Mmap::map(&file) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_files_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, b"bytes").unwrap();
        assert_eq!(&map(&path).unwrap()[..], b"bytes");
        std::fs::write(&path, b"").unwrap();
        assert_eq!(map(&path).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(map(folder.path()).is_err());
        assert_eq!(map(&folder.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
