//! Files over HTTP: resumed where they were cut off, and checked before they count.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::http::{self, Answer};
use crate::checkpoint::limits;
use crate::error::{Error, Result};

/// Attempts at one file, each going on where the last one ended.
const ATTEMPTS: u32 = 5;
/// Bytes between two looks at the progress.
const PIECE: usize = 1 << 20;

/// What a file must hash to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hash {
    /// Of the bytes (large files).
    Sha256(String),
    /// Of git's form of the file (small ones).
    GitSha1(String),
}

impl Hash {
    /// A hash in hexadecimal digits; its length tells which.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim_start_matches("W/").trim_matches('"');
        let hexadecimal = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        match text.len() {
            64 if hexadecimal => Some(Self::Sha256(text.into())),
            40 if hexadecimal => Some(Self::GitSha1(text.into())),
            _ => None,
        }
    }

    /// Its digits.
    pub fn hex(&self) -> &str {
        let (Self::Sha256(hex) | Self::GitSha1(hex)) = self;
        hex
    }

    fn hasher(&self, size: u64) -> Hasher {
        match self {
            Self::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Self::GitSha1(_) => Hasher::Sha1(Sha1::new_with_prefix(format!("blob {size}\0"))),
        }
    }
}

enum Hasher {
    Sha256(Sha256),
    Sha1(Sha1),
}

impl Hasher {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(h) => h.update(bytes),
            Self::Sha1(h) => h.update(bytes),
        }
    }

    fn hex(self) -> String {
        let digest = match self {
            Self::Sha256(h) => h.finalize().to_vec(),
            Self::Sha1(h) => h.finalize().to_vec(),
        };
        digest.iter().map(|b| format!("{b:02x}")).collect()
    }
}

/// A client with a token for one server; a redirect to another server does not get it.
pub(super) struct Client {
    secret: Vec<(&'static str, String)>,
}

impl Client {
    pub fn new(token: Option<&str>) -> Self {
        Self { secret: token.map(|t| ("Authorization", format!("Bearer {t}"))).into_iter().collect() }
    }

    fn send(&self, method: &str, url: &str, range: Option<u64>, redirects: bool) -> Result<Answer> {
        let mut headers = vec![("User-Agent", concat!("omniscribe/", env!("CARGO_PKG_VERSION")).to_string())];
        headers.extend(range.map(|from| ("Range", format!("bytes={from}-"))));
        http::send(method, url, &headers, &self.secret, redirects).map_err(|e| failed(url, e))
    }

    /// A small JSON document.
    pub fn json(&self, url: &str) -> Result<Value> {
        let answer = self.send("GET", url, None, true)?;
        check_status(url, answer.status)?;
        let mut text = Vec::new();
        answer.take(limits::TEXT).read_to_end(&mut text).map_err(|e| failed(url, e))?;
        serde_json::from_slice(&text).map_err(|e| failed(url, e))
    }

    /// Hash and size of a file, from the headers of its address.
    pub fn describe(&self, url: &str) -> Result<(Hash, u64)> {
        let answer = self.send("HEAD", url, None, false)?;
        if answer.status >= 400 {
            check_status(url, answer.status)?;
        }
        let hash = ["x-linked-etag", "etag"].iter().find_map(|n| answer.header(n)).and_then(Hash::parse);
        let size = ["x-linked-size", "content-length"].iter().find_map(|n| answer.header(n)).and_then(|n| n.parse().ok());
        hash.zip(size).ok_or_else(|| failed(url, "the server states no hash of the file, so it cannot be checked"))
    }

    /// Fetches `url` to `blob`; gives the number of bytes that came over the network.
    pub fn fetch(&self, url: &str, blob: &Path, hash: &Hash, size: u64, mut progress: impl FnMut(u64)) -> Result<u64> {
        let partial = partial_of(blob);
        let io = |e| Error::io(&partial, e);
        std::fs::create_dir_all(blob.parent().unwrap_or(Path::new(""))).map_err(io)?;
        let mut file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&partial).map_err(io)?;
        let mut fetched = 0;
        let mut attempt = 1;
        loop {
            match self.go_on(url, &mut file, &partial, size, &mut fetched, &mut progress) {
                Ok(()) => break,
                // What broke off may go on; what was refused will be refused again.
                Err(Error::Download { .. }) if attempt < ATTEMPTS => {}
                Err(error) => return Err(error),
            }
            std::thread::sleep(Duration::from_millis(200 << attempt.min(4)));
            attempt += 1;
        }
        let found = digest(&mut file, hash, size).map_err(io)?;
        if found != hash.hex() {
            // A wrong file is of no use to the next attempt.
            let _ = std::fs::remove_file(&partial);
            return Err(failed(url, format!("the file's hash is {found}, the server states {}", hash.hex())));
        }
        file.sync_all().map_err(io)?;
        std::fs::rename(&partial, blob).map_err(io)?;
        Ok(fetched)
    }

    /// One attempt at what is missing of `file`.
    fn go_on(
        &self,
        url: &str,
        file: &mut File,
        partial: &Path,
        size: u64,
        fetched: &mut u64,
        progress: &mut impl FnMut(u64),
    ) -> Result<()> {
        let io = |e| Error::io(partial, e);
        let mut have = file.metadata().map_err(io)?.len();
        if have > size {
            file.set_len(0).map_err(io)?;
            have = 0;
        }
        progress(have);
        if have == size {
            return Ok(());
        }
        let mut answer = self.send("GET", url, (have > 0).then_some(have), true)?;
        match answer.status {
            206 if have > 0 => {
                let range = answer.header("content-range").and_then(|h| h.strip_prefix("bytes "));
                if range.and_then(|h| h.split('-').next()?.parse::<u64>().ok()) != Some(have) {
                    return Err(failed(url, "the server sends another part of the file than was asked for"));
                }
            }
            // The whole file: the server does not know ranges.
            200 => {
                file.set_len(0).map_err(io)?;
                have = 0;
            }
            status => check_status(url, status).and_then(|()| Err(failed(url, format!("an unexpected answer: {status}"))))?,
        }
        file.seek(std::io::SeekFrom::Start(have)).map_err(io)?;
        let mut piece = vec![0; PIECE];
        while have < size {
            let wanted = piece.len().min((size - have).try_into().unwrap_or(usize::MAX));
            let count = answer.read(&mut piece[..wanted]).map_err(|e| failed(url, e))?;
            if count == 0 {
                return Err(failed(url, format!("the connection ended at byte {have} of {size}")));
            }
            file.write_all(&piece[..count]).map_err(io)?;
            have += count as u64;
            *fetched += count as u64;
            progress(have);
        }
        Ok(())
    }
}

fn partial_of(blob: &Path) -> PathBuf {
    let mut name = blob.as_os_str().to_owned();
    name.push(".incomplete");
    name.into()
}

fn digest(file: &mut File, hash: &Hash, size: u64) -> std::io::Result<String> {
    let mut hasher = hash.hasher(size);
    file.rewind()?;
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hasher.hex()),
            count => hasher.update(&piece[..count]),
        }
    }
}

fn check_status(url: &str, status: u16) -> Result<()> {
    match status {
        200..300 => Ok(()),
        status => Err(Error::Refused { url: url.into(), status }),
    }
}

fn failed(url: &str, reason: impl std::fmt::Display) -> Error {
    Error::Download { what: url.into(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_of_both_kinds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, "hello\n").unwrap();
        // `sha256sum` and `git hash-object` of the same file.
        for hex in ["5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03", "ce013625030ba8dba906f756967f9e9ca394464a"] {
            let hash = Hash::parse(&format!("\"{hex}\"")).unwrap();
            assert_eq!(digest(&mut File::open(&path).unwrap(), &hash, 6).unwrap(), hex);
        }
        assert!(Hash::parse("W/\"abc\"").is_none() && Hash::parse(&"Z".repeat(64)).is_none());
    }
}
