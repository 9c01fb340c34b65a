//! Models from the Hugging Face hub, or a server that speaks its protocol: into the cache that other programs share.
//!
//! Only configuration, tokenizer, licence text and weights are fetched, by name; nothing of a repository is ever run. Every file is checked
//! against the hash that the hub states before it gets its name.

mod http;
mod transfer;

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::checkpoint::limits::is_plain_name;
use crate::error::{Error, Result};
use transfer::{Client, Hash};

/// The hub, unless `HF_ENDPOINT` names another server.
const ENDPOINT: &str = "https://huggingface.co";

/// What is fetched beside the weights, where it is there.
const SMALL_FILES: [&str; 12] = [
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "decoding.json",
    "calibration.json",
    "manifest.json",
    "README.md",
    "LICENSE",
];

/// A server and a cache.
#[derive(Debug, Clone)]
pub struct Hub {
    endpoint: String,
    token: Option<String>,
    cache: PathBuf,
}

/// Where a download stands.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// File of the repository.
    pub file: &'a str,
    /// Bytes that are there.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// A repository in the cache.
#[derive(Debug, Clone, PartialEq)]
pub struct Pulled {
    /// The folder of this revision.
    pub path: PathBuf,
    /// The commit it is.
    pub commit: String,
    /// Licence as the repository states it.
    pub licence: Option<String>,
    /// Files in the folder.
    pub files: Vec<String>,
    /// Bytes that had to be fetched.
    pub fetched: u64,
}

/// A file as the hub lists it.
#[derive(Debug, Clone)]
struct Listed {
    name: String,
    size: Option<u64>,
    hash: Option<Hash>,
}

impl Hub {
    /// The server of `HF_ENDPOINT`, the token of `HF_TOKEN`, the cache folder of `HF_HUB_CACHE`, `HF_HOME` or `XDG_CACHE_HOME`, else below the
    /// home folder.
    ///
    /// # Errors
    /// [`Error::Config`] if there is no home folder either.
    pub fn from_environment() -> Result<Self> {
        let set = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let folder = |name: &str, below: &str| set(name).map(|v| Path::new(&v).join(below));
        let cache = folder("HF_HUB_CACHE", "")
            .or_else(|| folder("HUGGINGFACE_HUB_CACHE", ""))
            .or_else(|| folder("HF_HOME", "hub"))
            .or_else(|| folder("XDG_CACHE_HOME", "huggingface/hub"))
            .or_else(|| folder("HOME", ".cache/huggingface/hub"));
        let cache = cache.ok_or_else(|| Error::config("HF_HOME", "no folder for the cache: set it"))?;
        Ok(Self::new(set("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.into()), set("HF_TOKEN"), cache))
    }

    /// A server, a token for it and a cache folder.
    pub fn new(endpoint: impl Into<String>, token: Option<String>, cache: impl Into<PathBuf>) -> Self {
        Self { endpoint: endpoint.into().trim_end_matches('/').to_string(), token, cache: cache.into() }
    }

    /// The cache folder.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// The folder of a repository's revision if it is in the cache.
    pub fn cached(&self, repository: &str, revision: &str) -> Option<PathBuf> {
        let folder = self.folder(repository).ok()?;
        let commit = std::fs::read_to_string(folder.join("refs").join(plain(revision).ok()?))
            .map_or_else(|_| revision.to_string(), |c| c.trim().to_string());
        let snapshot = folder.join("snapshots").join(plain(&commit).ok()?);
        snapshot.is_dir().then_some(snapshot)
    }

    /// Every repository in the cache with the folder of its latest revision.
    pub fn all_cached(&self) -> Vec<(String, PathBuf)> {
        let entries = std::fs::read_dir(&self.cache).into_iter().flatten().flatten();
        let names = entries.filter_map(|e| e.file_name().to_str()?.strip_prefix("models--").map(|n| n.replacen("--", "/", 1)));
        let mut found: Vec<_> = names.filter_map(|name| self.cached(&name, "main").map(|path| (name, path))).collect();
        found.sort();
        found
    }

    fn folder(&self, repository: &str) -> Result<PathBuf> {
        let parts: Vec<&str> = repository.split('/').collect();
        if parts.len() > 2 || !parts.iter().all(|p| is_plain_name(p) && !p.starts_with('.') && !p.contains("--")) {
            return Err(Error::config("model", format!("{repository:?}: must be the name of a repository, owner/name")));
        }
        Ok(self.cache.join(format!("models--{}", parts.join("--"))))
    }

    /// Brings a repository's model into the cache; what is there already is not fetched again, what was cut off goes on.
    ///
    /// # Errors
    /// [`Error::Download`], [`Error::Config`] for a name that is none, [`Error::Io`]
    pub fn pull(&self, repository: &str, revision: &str, mut progress: impl FnMut(Progress<'_>)) -> Result<Pulled> {
        let folder = self.folder(repository)?;
        plain(revision)?;
        let client = Client::new(self.token.as_deref());
        let url = format!("{}/api/models/{repository}/revision/{revision}?blobs=true", self.endpoint);
        let info = client.json(&url)?;
        let commit = info["sha"].as_str().unwrap_or_default().to_string();
        plain(&commit)?;
        let chosen = choose(&list(&info)).map_err(|reason| Error::Download { what: url, reason })?;
        let snapshot = folder.join("snapshots").join(&commit);
        let mut pulled = Pulled { path: snapshot.clone(), commit: commit.clone(), licence: licence(&info), files: vec![], fetched: 0 };
        for file in chosen {
            let url = format!("{}/{repository}/resolve/{commit}/{}", self.endpoint, file.name);
            let (hash, size) = match (file.hash, file.size) {
                (Some(hash), Some(size)) => (hash, size),
                _ => client.describe(&url)?,
            };
            let blob = folder.join("blobs").join(hash.hex());
            if !blob.is_file() {
                let report = |done| progress(Progress { file: &file.name, done, total: size });
                pulled.fetched += client.fetch(&url, &blob, &hash, size, report)?;
            }
            link(&blob, &snapshot.join(&file.name), hash.hex())?;
            pulled.files.push(file.name);
        }
        let reference = folder.join("refs").join(revision);
        crate::checkpoint::safetensors_file::write_atomically(&reference, commit.as_bytes())?;
        Ok(pulled)
    }
}

/// A revision or commit that is one plain name.
fn plain(name: &str) -> Result<&str> {
    let good = is_plain_name(name) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if good { Ok(name) } else { Err(Error::config("revision", format!("{name:?}: must be a branch, tag or commit"))) }
}

/// What the hub says of a repository's files.
fn list(info: &Value) -> Vec<Listed> {
    let files = info["siblings"].as_array().into_iter().flatten();
    let listed = files.filter_map(|file| {
        let hash = file["lfs"]["sha256"].as_str().or_else(|| file["blobId"].as_str());
        Some(Listed { name: file["rfilename"].as_str()?.to_string(), size: file["size"].as_u64(), hash: hash.and_then(Hash::parse) })
    });
    listed.filter(|file| is_plain_name(&file.name)).collect()
}

/// The files of a model: small ones, and its weights in the best form there is.
fn choose(listed: &[Listed]) -> std::result::Result<Vec<Listed>, String> {
    let has = |name: &str| listed.iter().any(|f| f.name == name);
    let nemo: Vec<&str> = listed.iter().map(|f| f.name.as_str()).filter(|n| n.ends_with(".nemo")).collect();
    let weights: Box<dyn Fn(&str) -> bool> = if has("model.safetensors") {
        Box::new(|name| name == "model.safetensors")
    } else if has("model.safetensors.index.json") {
        Box::new(|name| name == "model.safetensors.index.json" || name.starts_with("model-") && name.ends_with(".safetensors"))
    } else if let [only] = nemo[..] {
        Box::new(move |name| name == only)
    } else if let Some(torch) = ["pytorch_model.bin", "model.pth"].into_iter().find(|name| has(name)) {
        Box::new(move |name| name == torch)
    } else {
        return Err("the repository has no weights that this build reads (safetensors, .nemo, torch archives)".into());
    };
    // The language model that `decoding.json` names lies beside it.
    let language = |name: &str| has("decoding.json") && name.ends_with(".lm");
    Ok(listed.iter().filter(|f| SMALL_FILES.contains(&f.name.as_str()) || weights(&f.name) || language(&f.name)).cloned().collect())
}

fn licence(info: &Value) -> Option<String> {
    let card = &info["cardData"];
    let named = card["license_name"].as_str().or_else(|| card["license"].as_str());
    named.map(str::to_string)
}

/// Gives a blob its name in a snapshot.
fn link(blob: &Path, name: &Path, hash: &str) -> Result<()> {
    let io = |e| Error::io(name, e);
    let folder = name.parent().unwrap_or(Path::new(""));
    std::fs::create_dir_all(folder).map_err(io)?;
    if name.exists() {
        return Ok(());
    }
    // A link to a blob that was removed.
    let _ = std::fs::remove_file(name);
    #[cfg(unix)]
    let made = std::os::unix::fs::symlink(Path::new("../../blobs").join(hash), name);
    #[cfg(not(unix))]
    let made = std::fs::hard_link(blob, name).map(|()| drop(hash));
    let _ = blob;
    made.map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(files: &[&str]) -> std::result::Result<Vec<String>, String> {
        let listed: Vec<Listed> = files.iter().map(|n| Listed { name: n.to_string(), size: None, hash: None }).collect();
        choose(&listed).map(|files| files.into_iter().map(|f| f.name).collect())
    }

    #[test]
    fn one_form_of_the_weights_and_no_code() {
        let all = ["config.json", "model.safetensors", "model.nemo", "pytorch_model.bin", "modeling.py", "README.md"];
        assert_eq!(names(&all).unwrap(), ["config.json", "model.safetensors", "README.md"]);
        let shards =
            ["model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "x.safetensors"];
        assert_eq!(names(&shards).unwrap(), shards[..3]);
        assert_eq!(names(&["a.nemo", "train.py"]).unwrap(), ["a.nemo"]);
        assert!(names(&["train.py", "config.json"]).is_err());
        let ours = ["config.json", "decoding.json", "calibration.json", "language.lm", "model.safetensors"];
        assert_eq!(names(&ours).unwrap(), ours);
        assert_eq!(names(&["language.lm", "model.safetensors"]).unwrap(), ["model.safetensors"]);
    }

    #[test]
    fn names_cannot_leave_the_cache() {
        let hub = Hub::new("http://localhost/", None, "cache");
        assert_eq!(hub.folder("a/b").unwrap(), Path::new("cache/models--a--b"));
        for bad in ["", "a/b/c", "../x", "a/..", "/a", "a//b", ".a/b"] {
            assert!(hub.folder(bad).is_err(), "{bad}");
        }
        for bad in ["", "..", "a/b", "x y", "x?y"] {
            assert!(plain(bad).is_err(), "{bad}");
        }
    }
}
