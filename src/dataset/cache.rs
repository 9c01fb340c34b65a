//! Decoded audio on disk: every file of a corpus once, as 16 kHz mono 16-bit samples in one file with a JSON index beside it.
//!
//! `NAME` holds a 16-byte header (magic, identity) and then samples, little-endian, appended in the order decoding finished; `NAME.json` says
//! where each file's samples lie. Samples are synced before the index that names them replaces the old one, so a kill at any moment loses
//! only the files decoded since the last index; the next build cuts off what no index names and goes on.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::fingerprint::{checksum, file_checksum, stamp};
use crate::error::{Error, Result};
use crate::units::SampleRate;

/// First bytes of the sample file; the digit is the format version.
const MAGIC: &[u8; 8] = b"omnipcm1";
const HEADER_BYTES: u64 = 16;
const INDEX_VERSION: u32 = 1;
/// An index is written after this much new data or time, whichever comes first: what a kill may cost.
const INDEX_EVERY_BYTES: u64 = 128 << 20;
const INDEX_EVERY: Duration = Duration::from_secs(15);

/// Where one file's samples lie, and which version of the file they came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    path: PathBuf,
    /// The source: size, modification time (ns since 1970, 0 if unknown) and checksum. The time is a shortcut: equal bytes are the same file.
    bytes: u64,
    modified_ns: u64,
    content: u64,
    /// The samples: first byte in the sample file, count, checksum of their bytes.
    offset: u64,
    samples: usize,
    checksum: u64,
}

impl Stored {
    fn end(&self) -> u64 {
        self.offset + 2 * self.samples as u64
    }
}

#[derive(Serialize, Deserialize)]
struct Index {
    format_version: u32,
    identity: u64,
    entries: Vec<Stored>,
}

/// How far a build is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Files decoded or failed so far.
    pub done: usize,
    /// Files this build has to decode.
    pub total: usize,
    /// Of `done`, those that failed.
    pub failed: usize,
    /// Audio decoded so far, seconds.
    pub seconds: f64,
}

/// What a build did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BuildReport {
    /// Files whose samples were already there.
    pub reused: usize,
    /// Files decoded now.
    pub decoded: usize,
    /// Of `decoded`, files that had changed since they were stored.
    pub changed: usize,
    /// Files that could not be decoded, with the reason; they are not in the cache and are tried again by the next build.
    pub failed: Vec<(PathBuf, String)>,
}

/// Decodes a file to 16 kHz mono samples in [-1, 1].
pub type Decode<'a> = dyn Fn(&Path) -> Result<Vec<f32>> + Sync + 'a;

/// Read access to decoded audio; safe to share between threads.
#[derive(Debug)]
pub struct PcmCache {
    path: PathBuf,
    file: File,
    entries: HashMap<PathBuf, Stored>,
}

impl PcmCache {
    /// Opens a cache as it is, without looking at the audio files it was made from (they need not be there).
    ///
    /// # Errors
    /// - [`Error::Io`]: a file of the cache is missing or unreadable
    /// - [`Error::Config`]: the two files do not belong together or are not a cache
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        std::fs::metadata(index_path(path)).map_err(|e| Error::io(index_path(path), e))?;
        let entries = stored_entries(path, &file)?.ok_or_else(|| Error::config(path, "not an audio cache with its index"))?;
        Ok(Self::with(path, file, entries))
    }

    /// Opens or creates the cache at `path` and decodes what it lacks: new files, changed ones, and ones that failed before.
    ///
    /// `threads` (at least 1) call `decode`; a file it refuses, panics on or finds empty is reported and left out. The samples of a file that
    /// changed stay in the sample file unused; delete the cache to get the space back.
    ///
    /// # Errors
    /// - [`Error::Io`]: the cache cannot be written, or another process is building it
    /// - [`Error::Config`]: `path` is some other file
    pub fn build(
        path: &Path,
        sources: &[PathBuf],
        threads: usize,
        decode: &Decode<'_>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(Self, BuildReport)> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        }
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(|e| Error::io(path, e))?;
        let mut report = BuildReport::default();
        if let Some(mut entries) = stored_entries(path, &file)? {
            let work = compare(sources, &mut entries, &mut report);
            if work.decode.is_empty() && !work.touched {
                return Ok((Self::with(path, file, entries), report));
            }
        }
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(Error::io(path, std::io::Error::other("another process is building this cache"))),
            // A file system without locks: two builds at once are the user's to avoid.
            Err(TryLockError::Error(e)) if e.kind() != std::io::ErrorKind::Unsupported => return Err(Error::io(path, e)),
            _ => {}
        }
        // Another build may have finished between the look above and the lock.
        let known = stored_entries(path, &file)?;
        let fresh = known.is_none();
        let mut entries = known.unwrap_or_default();
        report = BuildReport::default();
        let jobs = compare(sources, &mut entries, &mut report).decode;
        let writer = Writer::start(path, &mut file, fresh, entries)?;
        let entries = decode_all(writer, &jobs, threads, decode, progress, &mut report)?;
        // Dropping the file would unlock it too; it stays open for reading.
        let _ = file.unlock();
        Ok((Self::with(path, file, entries), report))
    }

    fn with(path: &Path, file: File, entries: HashMap<PathBuf, Stored>) -> Self {
        Self { path: path.to_path_buf(), file, entries }
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no file at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Number of samples of a file; `None` where it is not in the cache.
    pub fn samples(&self, audio: &Path) -> Option<usize> {
        self.entries.get(audio).map(|e| e.samples)
    }

    /// Replaces `out` by samples of a file, in [-1, 1). The range is cut at the end of the file.
    ///
    /// A read of the whole file checks the checksum of its samples.
    ///
    /// # Errors
    /// - [`Error::Config`]: the file is not in the cache
    /// - [`Error::Io`]: the sample file cannot be read
    /// - [`Error::CorruptAudio`]: the samples are not the ones stored
    pub fn read(&self, audio: &Path, range: Range<usize>, out: &mut Vec<f32>) -> Result<()> {
        let stored =
            self.entries.get(audio).ok_or_else(|| Error::config(&self.path, format!("{} is not in this cache", audio.display())))?;
        let (start, end) = (range.start.min(stored.samples), range.end.min(stored.samples));
        let mut bytes = vec![0; 2 * end.saturating_sub(start)];
        read_exact_at(&self.file, &mut bytes, stored.offset + 2 * start as u64).map_err(|e| Error::io(&self.path, e))?;
        if bytes.len() == 2 * stored.samples && checksum(&bytes) != stored.checksum {
            let reason = format!("samples of {} are damaged: delete the cache to have it built again", audio.display());
            return Err(Error::CorruptAudio { path: self.path.clone(), at: None, reason });
        }
        out.clear();
        out.extend(bytes.chunks_exact(2).map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) * (1.0 / 32_768.0)));
        Ok(())
    }
}

fn index_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".json");
    PathBuf::from(name)
}

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(not(unix))]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    static POSITION: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one_at_a_time = POSITION.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut file = file;
    file.seek(SeekFrom::Start(offset))?;
    std::io::Read::read_exact(&mut file, bytes)
}

/// Entries of an existing cache whose samples are there; `None` where there is no usable index (a new file, or a kill before the first one).
fn stored_entries(path: &Path, file: &File) -> Result<Option<HashMap<PathBuf, Stored>>> {
    let length = file.metadata().map_err(|e| Error::io(path, e))?.len();
    if length == 0 {
        return Ok(None);
    }
    let mut header = [0; HEADER_BYTES as usize];
    let ours = length >= HEADER_BYTES && read_exact_at(file, &mut header, 0).is_ok() && header.starts_with(MAGIC);
    if !ours {
        return Err(Error::config(path, "this file is no audio cache; it will not be overwritten"));
    }
    let Ok(text) = std::fs::read_to_string(index_path(path)) else { return Ok(None) };
    let Ok(index) = serde_json::from_str::<Index>(&text) else { return Ok(None) };
    if index.format_version != INDEX_VERSION || index.identity.to_le_bytes() != header[8..] {
        return Ok(None);
    }
    Ok(Some(index.entries.into_iter().filter(|e| e.offset >= HEADER_BYTES && e.end() <= length).map(|e| (e.path.clone(), e)).collect()))
}

/// What a build has to do.
struct Work {
    decode: Vec<PathBuf>,
    /// A file has a new time but the same bytes: the index should say so, or it is read again every time.
    touched: bool,
}

/// Compares the sources with what is stored; entries of changed files are removed.
fn compare(sources: &[PathBuf], entries: &mut HashMap<PathBuf, Stored>, report: &mut BuildReport) -> Work {
    let mut seen = HashSet::new();
    let mut work = Work { decode: Vec::new(), touched: false };
    for path in sources.iter().filter(|path| seen.insert(path.as_path())) {
        let Some(stored) = entries.get_mut(path) else {
            work.decode.push(path.clone());
            continue;
        };
        let unchanged = match stamp(path) {
            Ok((bytes, modified_ns)) if bytes == stored.bytes && modified_ns == stored.modified_ns && modified_ns != 0 => true,
            Ok((bytes, modified_ns)) if bytes == stored.bytes && file_checksum(path).is_ok_and(|c| c == stored.content) => {
                work.touched |= modified_ns != stored.modified_ns;
                stored.modified_ns = modified_ns;
                true
            }
            _ => false,
        };
        if unchanged {
            report.reused += 1;
        } else {
            entries.remove(path);
            report.changed += 1;
            work.decode.push(path.clone());
        }
    }
    work
}

struct Writer<'a> {
    path: &'a Path,
    file: &'a mut File,
    identity: u64,
    entries: HashMap<PathBuf, Stored>,
    end: u64,
    unsaved_bytes: u64,
    saved_at: Instant,
}

impl<'a> Writer<'a> {
    /// Cuts the sample file behind the last entry, or starts it anew.
    fn start(path: &'a Path, file: &'a mut File, fresh: bool, entries: HashMap<PathBuf, Stored>) -> Result<Self> {
        let io = |e| Error::io(path, e);
        let identity = if fresh {
            let now = std::time::SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
            let identity = now ^ (u64::from(std::process::id()) << 40);
            file.set_len(0).map_err(io)?;
            file.seek(SeekFrom::Start(0)).map_err(io)?;
            file.write_all(&[&MAGIC[..], &identity.to_le_bytes()[..]].concat()).map_err(io)?;
            identity
        } else {
            let mut bytes = [0; 8];
            read_exact_at(file, &mut bytes, 8).map_err(io)?;
            u64::from_le_bytes(bytes)
        };
        let end = entries.values().map(Stored::end).max().unwrap_or(HEADER_BYTES);
        file.set_len(end).map_err(io)?;
        file.seek(SeekFrom::Start(end)).map_err(io)?;
        Ok(Self { path, file, identity, entries, end, unsaved_bytes: 0, saved_at: Instant::now() })
    }

    fn append(&mut self, decoded: Decoded) -> Result<()> {
        let Decoded { path, stamp: (bytes, modified_ns), content, pcm } = decoded;
        self.file.write_all(&pcm).map_err(|e| Error::io(self.path, e))?;
        let stored =
            Stored { path: path.clone(), bytes, modified_ns, content, offset: self.end, samples: pcm.len() / 2, checksum: checksum(&pcm) };
        self.end = stored.end();
        self.unsaved_bytes += pcm.len() as u64;
        self.entries.insert(path, stored);
        if self.unsaved_bytes >= INDEX_EVERY_BYTES || self.saved_at.elapsed() >= INDEX_EVERY { self.save() } else { Ok(()) }
    }

    /// Makes everything appended so far survive a kill.
    fn save(&mut self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::io(self.path, e))?;
        let mut entries: Vec<_> = self.entries.values().cloned().collect();
        entries.sort_by_key(|e| e.offset);
        let index = Index { format_version: INDEX_VERSION, identity: self.identity, entries };
        let to = index_path(self.path);
        let text = serde_json::to_string(&index).map_err(|e| Error::config(&to, e.to_string()))?;
        let temporary = to.with_extension("json.tmp");
        let write = || {
            let mut file = File::create(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&temporary, &to)
        };
        write().map_err(|e| Error::io(&to, e))?;
        (self.unsaved_bytes, self.saved_at) = (0, Instant::now());
        Ok(())
    }
}

/// A decoded file on its way to the writer.
struct Decoded {
    path: PathBuf,
    stamp: (u64, u64),
    content: u64,
    pcm: Vec<u8>,
}

fn decode_all(
    mut writer: Writer<'_>,
    jobs: &[PathBuf],
    threads: usize,
    decode: &Decode<'_>,
    progress: &mut dyn FnMut(Progress),
    report: &mut BuildReport,
) -> Result<HashMap<PathBuf, Stored>> {
    let next = AtomicUsize::new(0);
    let (to_writer, decoded) = sync_channel(2 * threads.max(1));
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            let (to_writer, next) = (to_writer.clone(), &next);
            scope.spawn(move || {
                while let Some(path) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // The receiver is gone when writing failed: nothing is left to do.
                    if to_writer.send((path, decode_one(path, decode))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(to_writer);
        let mut at = Progress { done: 0, total: jobs.len(), failed: 0, seconds: 0.0 };
        for (path, result) in decoded {
            at.done += 1;
            match result {
                Ok(pcm) => {
                    at.seconds += SampleRate::HZ_16000.seconds(pcm.pcm.len() / 2);
                    report.decoded += 1;
                    writer.append(pcm)?;
                }
                Err(reason) => {
                    at.failed += 1;
                    report.failed.push((path.clone(), reason));
                }
            }
            progress(at);
        }
        report.failed.sort();
        writer.save()?;
        Ok(std::mem::take(&mut writer.entries))
    })
}

fn decode_one(path: &Path, decode: &Decode<'_>) -> Result<Decoded, String> {
    let said = |e: std::io::Error| Error::io(path, e).to_string();
    let stamp = stamp(path).map_err(said)?;
    let content = file_checksum(path).map_err(said)?;
    let samples =
        catch_unwind(AssertUnwindSafe(|| decode(path))).map_err(|_| "the decoder panicked".to_string())?.map_err(|e| e.to_string())?;
    if samples.is_empty() {
        return Err("no audio in it".into());
    }
    let pcm = samples.iter().flat_map(|x| ((x * 32_768.0).round() as i16).to_le_bytes()).collect();
    Ok(Decoded { path: path.to_path_buf(), stamp, content, pcm })
}
