//! Where bytes come from: files, pipes, standard input, memory. Devices and folders are refused before a byte is read.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use symphonia::core::io::MediaSource;

use super::limits::{Limits, exceeded};
use super::sniff::SNIFF_BYTES;
use crate::error::{Error, Result};

/// A stream of bytes with its first [`SNIFF_BYTES`] known.
pub(super) struct Source {
    /// The first bytes; reading starts with them again.
    pub head: Vec<u8>,
    /// The bytes from the start.
    pub bytes: Box<dyn MediaSource>,
}

impl Source {
    /// Opens a file, a named pipe, or standard input for `-`.
    ///
    /// # Errors
    /// [`Error::Io`] where the system refuses, and for folders, devices and pipes nobody writes to.
    pub fn open(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Self::from_stream(path, io::stdin());
        }
        let file = open_without_waiting(path).map_err(|e| Error::io(path, e))?;
        let kind = file.metadata().map_err(|e| Error::io(path, e))?.file_type();
        if kind.is_file() {
            return Self::from_seekable(path, Box::new(file));
        }
        if kind.is_dir() {
            return Err(Error::io(path, io::ErrorKind::IsADirectory.into()));
        }
        if is_pipe(&kind) {
            return Self::from_stream(path, Pipe { file, started: false });
        }
        Err(Error::io(path, io::Error::new(io::ErrorKind::InvalidInput, "neither a file nor a pipe")))
    }

    /// A block of memory.
    pub fn from_bytes(name: &Path, bytes: Vec<u8>) -> Result<Self> {
        Self::from_seekable(name, Box::new(io::Cursor::new(bytes)))
    }

    fn from_seekable(name: &Path, mut bytes: Box<dyn MediaSource>) -> Result<Self> {
        let head = read_head(&mut bytes).map_err(|e| Error::io(name, e))?;
        bytes.seek(SeekFrom::Start(0)).map_err(|e| Error::io(name, e))?;
        Ok(Self { head, bytes })
    }

    fn from_stream(name: &Path, mut stream: impl Read + Send + Sync + 'static) -> Result<Self> {
        let head = read_head(&mut stream).map_err(|e| Error::io(name, e))?;
        let rest = io::Cursor::new(head.clone()).chain(stream);
        Ok(Self { head, bytes: Box::new(Stream(rest)) })
    }

    /// The bytes as a source that can seek: a pipe is read into memory, up to the limit.
    pub fn into_seekable(mut self, name: &Path, limits: &Limits) -> Result<Box<dyn MediaSource>> {
        if self.bytes.is_seekable() {
            return Ok(self.bytes);
        }
        let mut all = Vec::new();
        self.bytes.by_ref().take(limits.buffered_bytes.saturating_add(1)).read_to_end(&mut all).map_err(|e| Error::io(name, e))?;
        let got = all.len() as u64;
        if got > limits.buffered_bytes {
            return Err(exceeded(name, "bytes from a pipe (write this container to a file first)", limits.buffered_bytes, got));
        }
        Ok(Box::new(io::Cursor::new(all)))
    }
}

/// The same bytes as a stream: nothing can seek in it or know its length.
pub(super) fn as_stream(bytes: Box<dyn MediaSource>) -> Box<dyn MediaSource> {
    Box::new(Stream(bytes))
}

/// The first `len` bytes of a source that can seek.
pub(super) struct Clipped {
    pub bytes: Box<dyn MediaSource>,
    pub len: u64,
}

impl Read for Clipped {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.len.saturating_sub(self.bytes.stream_position()?);
        let want = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.bytes.read(&mut buf[..want])
    }
}

impl Seek for Clipped {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match to {
            SeekFrom::End(offset) => self.bytes.seek(SeekFrom::Start(self.len.saturating_add_signed(offset))),
            other => self.bytes.seek(other),
        }
    }
}

impl MediaSource for Clipped {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.len)
    }
}

fn read_head(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(SNIFF_BYTES);
    from.take(SNIFF_BYTES as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// A reader that cannot go back.
struct Stream<R>(R);

impl<R: Read> Read for Stream<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl<R> Seek for Stream<R> {
    fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
        Err(io::ErrorKind::NotSeekable.into())
    }
}

impl<R: Read + Send + Sync> MediaSource for Stream<R> {
    fn is_seekable(&self) -> bool {
        false
    }

    fn byte_len(&self) -> Option<u64> {
        None
    }
}

/// How long to wait for somebody to open the other end of a named pipe.
const WRITER_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause between looks at an empty pipe.
const PIPE_POLL: Duration = Duration::from_millis(2);

/// A named pipe opened without waiting for its writer.
struct Pipe {
    file: File,
    /// Whether a writer has been seen.
    started: bool,
}

impl Read for Pipe {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let since = Instant::now();
        loop {
            match self.file.read(buf) {
                Ok(0) if !self.started && !buf.is_empty() => {
                    if since.elapsed() > WRITER_TIMEOUT {
                        return Err(io::Error::new(io::ErrorKind::TimedOut, "nobody writes to this pipe"));
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.started = true,
                other => {
                    self.started = true;
                    return other;
                }
            }
            std::thread::sleep(PIPE_POLL);
        }
    }
}

#[cfg(unix)]
fn open_without_waiting(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

#[cfg(not(unix))]
fn open_without_waiting(path: &Path) -> io::Result<File> {
    File::open(path)
}

#[cfg(unix)]
fn is_pipe(kind: &std::fs::FileType) -> bool {
    std::os::unix::fs::FileTypeExt::is_fifo(kind)
}

#[cfg(not(unix))]
fn is_pipe(_: &std::fs::FileType) -> bool {
    false
}
