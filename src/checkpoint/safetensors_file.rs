//! Named f32 tensors in a safetensors file of ours, stored as f32, bf16, f16 or int8.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, View};

use crate::checkpoint::own::Own;
pub use crate::checkpoint::storage::Storage;
use crate::checkpoint::storage::{Encoding, SCALES, Stored};
use crate::checkpoint::tensor_file::{TensorFile, broken};
use crate::checkpoint::weights::Source;
use crate::error::{Error, Result};

/// A tensor on the host.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// Sizes of the dimensions.
    pub shape: Vec<usize>,
    /// Row-major elements.
    pub values: Vec<f32>,
}

/// Tensors by name.
pub type HostTensors = BTreeMap<String, HostTensor>;

/// Writes `bytes` under a temporary name in the folder of `path`, syncs, and renames: a kill leaves the old file or the new one.
///
/// # Errors
/// [`Error::Io`]
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = temporary_beside(path)?;
    let write = || {
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|e| {
        // The first error is the one to report; the leftover may not exist.
        let _ = std::fs::remove_file(&temporary);
        Error::io(path, e)
    })
}

/// A name beside `path`, whose folder is made if it is not there.
fn temporary_beside(path: &Path) -> Result<PathBuf> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    Ok(folder.join(name))
}

/// Saves `tensors` with `metadata`.
///
/// # Errors
/// [`Error::Io`]; [`Error::Checkpoint`] for values that f16 does not hold
pub fn save(path: &Path, tensors: &HostTensors, storage: Storage, metadata: HashMap<String, String>) -> Result<()> {
    let parts = tensors.iter().map(|(name, t)| (name.clone(), t.shape.clone())).collect();
    save_parts(path, parts, |name| Cow::Borrowed(&tensors[name].values), storage, metadata)
}

/// Saves tensors whose values are made one at a time, while the file is written.
///
/// # Errors
/// As [`save`].
pub fn save_parts<'a>(
    path: &Path,
    parts: Vec<(String, Vec<usize>)>,
    values: impl Fn(&str) -> Cow<'a, [f32]>,
    storage: Storage,
    metadata: HashMap<String, String>,
) -> Result<()> {
    let overflow = Cell::new(false);
    let mut stored = Vec::new();
    for (name, shape) in &parts {
        let encoding = Encoding::of(shape, storage);
        stored.push((name.clone(), Part { name, shape: shape.clone(), whole: shape, encoding, values: &values, overflow: &overflow }));
        if encoding == Encoding::Int8 {
            let scales = [&shape[..shape.len() - 2], &shape[shape.len() - 1..]].concat();
            let part = Part { name, shape: scales, whole: shape, encoding: Encoding::Scales, values: &values, overflow: &overflow };
            stored.push((format!("{name}{SCALES}"), part));
        }
    }
    let check = || match overflow.get() {
        true => Err(broken(path, "values over 65504, which f16 does not hold: store bf16")),
        false => Ok(()),
    };
    serialize(path, stored, metadata, check)
}

/// Saves tensors whose bytes are made already.
///
/// # Errors
/// [`Error::Io`]
pub(super) fn save_stored(path: &Path, tensors: Vec<(String, Stored)>, metadata: HashMap<String, String>) -> Result<()> {
    serialize(path, tensors, metadata, || Ok(()))
}

/// Writes tensors under a temporary name, and renames it once `check` agrees.
fn serialize<V: View>(
    path: &Path,
    tensors: Vec<(String, V)>,
    metadata: HashMap<String, String>,
    check: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let temporary = temporary_beside(path)?;
    let write = || {
        safetensors::serialize_to_file(tensors, Some(metadata), &temporary).map_err(|e| Error::io(path, std::io::Error::other(e)))?;
        check()?;
        let sync = || {
            std::fs::File::open(&temporary)?.sync_all()?;
            std::fs::rename(&temporary, path)
        };
        sync().map_err(|e| Error::io(path, e))
    };
    write().inspect_err(|_| {
        // The first error is the one to report; the leftover may not exist.
        let _ = std::fs::remove_file(&temporary);
    })
}

/// A tensor as it goes to the file; its bytes are made when they are written.
struct Part<'p, F> {
    name: &'p str,
    shape: Vec<usize>,
    whole: &'p [usize],
    encoding: Encoding,
    values: &'p F,
    overflow: &'p Cell<bool>,
}

impl<'a, F: Fn(&str) -> Cow<'a, [f32]>> View for Part<'_, F> {
    fn dtype(&self) -> Dtype {
        self.encoding.dtype()
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let (bytes, fits) = self.encoding.encode(&(self.values)(self.name), self.whole);
        if !fits {
            self.overflow.set(true);
        }
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.encoding.bytes()
    }
}

/// Reads every tensor of a file of ours, widened to f32, and the file's metadata.
///
/// # Errors
/// - [`Error::Io`]
/// - [`Error::Checkpoint`]: not a safetensors file, or a tensor of a type that is none of [`Storage`]
pub fn load(path: &Path) -> Result<(HostTensors, HashMap<String, String>)> {
    let file = TensorFile::open(path)?;
    let own = Own::new(&file);
    let mut tensors = HostTensors::new();
    for name in own.parameters() {
        let shape = file.get(name).map(|view| view.shape.to_vec()).unwrap_or_default();
        let values = own.take(name, &shape).map_err(|fault| broken(path, fault.into_text()))?;
        tensors.insert(name.to_string(), HostTensor { shape, values });
    }
    Ok((tensors, file.metadata().clone().into_iter().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> HostTensors {
        let tensor = HostTensor { shape: vec![2, 2], values: vec![1.0, -0.5, 3.25, 1e-3] };
        HostTensors::from([("a.b".to_string(), tensor)])
    }

    #[test]
    fn f32_round_trip_is_exact_and_bf16_is_close() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let metadata = HashMap::from([("k".to_string(), "v".to_string())]);
        save(&path, &sample(), Storage::F32, metadata.clone()).unwrap();
        assert_eq!(load(&path).unwrap(), (sample(), metadata.clone()));
        save(&path, &sample(), Storage::Bf16, metadata).unwrap();
        let (read, _) = load(&path).unwrap();
        for (a, b) in read["a.b"].values.iter().zip(&sample()["a.b"].values) {
            assert!((a - b).abs() <= b.abs() / 256.0);
        }
    }

    #[test]
    fn broken_files_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        save(&path, &sample(), Storage::F32, HashMap::new()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in [0, 4, 20, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = load(&path).unwrap_err().to_string();
            let why = if length == 0 { "the file is empty" } else { "not a safetensors file" };
            assert!(error.contains("w.safetensors") && error.contains(why), "{error}");
        }
        std::fs::write(&path, [0xff; 64]).unwrap();
        assert!(load(&path).is_err());
        assert!(matches!(load(&folder.path().join("none")), Err(Error::Io { .. })));
    }
}
