//! Tensors of published files, memory-mapped: one safetensors file, a sharded set of them, or a torch archive.
//!
//! Nothing is copied until a tensor is asked for. Every length and offset is checked against the file before it is used, and nothing is
//! allocated that is larger than what the file holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::tensor::Dtype as SafeDtype;
use safetensors::{SafeTensorError, SafeTensors};

use crate::checkpoint::limits::{self, read_json};
use crate::error::{Error, Result};
use crate::kernel::mapping::{Mapping, map};

/// Type of the elements of a tensor in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Dtype {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

impl Dtype {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// Whether weights may be stored so.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::Bf16)
    }

    fn of_safetensors(dtype: SafeDtype) -> Option<Self> {
        Some(match dtype {
            SafeDtype::F64 => Self::F64,
            SafeDtype::F32 => Self::F32,
            SafeDtype::F16 => Self::F16,
            SafeDtype::BF16 => Self::Bf16,
            SafeDtype::I64 => Self::I64,
            SafeDtype::I32 => Self::I32,
            SafeDtype::I16 => Self::I16,
            SafeDtype::I8 => Self::I8,
            SafeDtype::U8 => Self::U8,
            SafeDtype::BOOL => Self::Bool,
            _ => return None,
        })
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F64 => "f64",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::I64 => "i64",
            Self::I32 => "i32",
            Self::I16 => "i16",
            Self::I8 => "i8",
            Self::U8 => "u8",
            Self::Bool => "bool",
        })
    }
}

/// A tensor where it lies in its file, row-major.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Type of its elements.
    pub dtype: Dtype,
    /// Sizes of the dimensions.
    pub shape: &'a [usize],
    /// Little-endian elements.
    pub bytes: &'a [u8],
}

impl View<'_> {
    /// Number of elements.
    pub fn count(&self) -> usize {
        self.bytes.len() / self.dtype.size()
    }
}

#[derive(Debug, Clone)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    map: usize,
    bytes: Range<usize>,
}

/// Named tensors of one file or of a set.
#[derive(Debug, Clone)]
pub struct TensorFile {
    path: PathBuf,
    maps: Vec<Arc<Mapping>>,
    entries: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
}

/// A tensor that an archive reader found: name, type, shape and place in the map.
pub(super) type Found = (String, Dtype, Vec<usize>, Range<usize>);

impl TensorFile {
    /// Maps a file of any kind that is known: `.safetensors`, an `.index.json` of shards, else a torch archive.
    ///
    /// # Errors
    /// - [`Error::Io`]
    /// - [`Error::Checkpoint`]: not such a file, or damaged
    /// - [`Error::LimitExceeded`]
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".index.json") {
            return Self::open_shards(path);
        }
        let bytes = Arc::new(map(path).map_err(|e| Error::io(path, e))?);
        if bytes.starts_with(b"PK") {
            let whole = 0..bytes.len();
            return Self::from_archive(path, bytes, whole);
        }
        let mut file = Self { path: path.into(), maps: Vec::new(), entries: BTreeMap::new(), metadata: BTreeMap::new() };
        file.add_safetensors(path, bytes)?;
        Ok(file)
    }

    /// The torch archive that lies at `range` of a mapped file.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) fn from_archive(path: &Path, bytes: Arc<Mapping>, range: Range<usize>) -> Result<Self> {
        let found = crate::checkpoint::torch_archive::read(&bytes[range.clone()]).map_err(|reason| broken(path, reason))?;
        let mut entries = BTreeMap::new();
        for (name, dtype, shape, place) in found {
            let bytes = place.start + range.start..place.end + range.start;
            if entries.insert(name.clone(), Entry { dtype, shape, map: 0, bytes }).is_some() {
                return Err(broken(path, format!("tensor {name} appears twice")));
            }
        }
        Ok(Self { path: path.into(), maps: vec![bytes], entries, metadata: BTreeMap::new() })
    }

    fn open_shards(index: &Path) -> Result<Self> {
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let Index { weight_map } = serde_json::from_value(read_json(index)?).map_err(|e| Error::config(index, e.to_string()))?;
        let folder = index.parent().unwrap_or(Path::new(""));
        let mut file = Self { path: index.into(), maps: Vec::new(), entries: BTreeMap::new(), metadata: BTreeMap::new() };
        let shards: BTreeSet<&String> = weight_map.values().collect();
        if shards.len() > limits::MOST_SHARDS {
            let (limit, got) = (limits::MOST_SHARDS as u64, shards.len() as u64);
            return Err(Error::LimitExceeded { what: format!("{}: shards", index.display()), limit, got });
        }
        for shard in shards {
            if !limits::is_plain_name(shard) {
                return Err(broken(index, format!("shard {shard:?}: not a plain file name")));
            }
            let path = folder.join(shard);
            let bytes = Arc::new(map(&path).map_err(|e| Error::io(&path, e))?);
            file.add_safetensors(&path, bytes)?;
        }
        let listed: BTreeSet<&String> = weight_map.keys().collect();
        let held: BTreeSet<&String> = file.entries.keys().collect();
        if listed != held {
            let missing = listed.difference(&held).map(|s| s.to_string()).collect();
            let unused = held.difference(&listed).map(|s| s.to_string()).collect();
            return Err(Error::Checkpoint { path: index.into(), missing, unused, mismatched: vec![] });
        }
        Ok(file)
    }

    fn add_safetensors(&mut self, path: &Path, bytes: Arc<Mapping>) -> Result<()> {
        let refuse = |e: SafeTensorError| broken(path, format!("not a safetensors file: {e}"));
        let header = bytes.first_chunk::<8>().map_or(0, |n| u64::from_le_bytes(*n));
        if header > limits::SAFETENSORS_HEADER {
            // What is no safetensors file at all has a random length here: that is not called a limit.
            let reason = format!("not a safetensors file: a header of {header} bytes (limit {})", limits::SAFETENSORS_HEADER);
            return Err(broken(path, reason));
        }
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(refuse)?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(refuse)?;
        let start = bytes.as_ptr() as usize;
        for (name, view) in tensors.iter() {
            let Some(dtype) = Dtype::of_safetensors(view.dtype()) else {
                return Err(broken(path, format!("{name}: element type {:?} is not known here", view.dtype())));
            };
            let from = view.data().as_ptr() as usize - start;
            let entry = Entry { dtype, shape: view.shape().to_vec(), map: self.maps.len(), bytes: from..from + view.data().len() };
            if self.entries.insert(name.to_string(), entry).is_some() {
                return Err(broken(path, format!("tensor {name} is in two shards")));
            }
        }
        self.metadata.extend(header.metadata().clone().unwrap_or_default());
        self.maps.push(bytes);
        Ok(())
    }

    /// The file, or the index of the set.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Text beside the tensors.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// A tensor by name.
    pub fn get(&self, name: &str) -> Option<View<'_>> {
        let entry = self.entries.get(name)?;
        Some(View { dtype: entry.dtype, shape: &entry.shape, bytes: &self.maps[entry.map][entry.bytes.clone()] })
    }

    /// Elements of all tensors together.
    pub fn elements(&self) -> usize {
        self.entries.values().map(|e| e.bytes.len() / e.dtype.size()).sum()
    }
}

/// A file that is damaged or not what it should be.
pub(super) fn broken(path: &Path, reason: impl Into<String>) -> Error {
    Error::Checkpoint { path: path.into(), missing: vec![], unused: vec![], mismatched: vec![reason.into()] }
}
