//! Named f32 tensors in a safetensors file, stored as f32 or bf16.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use serde::{Deserialize, Serialize};

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

/// How elements are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Storage {
    /// 32-bit floats.
    F32,
    /// bfloat16: half the size, 8 bits of precision.
    Bf16,
}

/// Writes `bytes` under a temporary name in the folder of `path`, syncs, and renames: a kill leaves the old file or the new one.
///
/// # Errors
/// [`Error::Io`]
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = folder.join(name);
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

/// Saves `tensors` with `metadata`.
///
/// # Errors
/// [`Error::Io`]
pub fn save(path: &Path, tensors: &HostTensors, storage: Storage, metadata: HashMap<String, String>) -> Result<()> {
    let encoded: Vec<(&String, &[usize], Vec<u8>)> = tensors
        .iter()
        .map(|(name, t)| {
            let bytes = match storage {
                Storage::F32 => t.values.iter().flat_map(|v| v.to_le_bytes()).collect(),
                Storage::Bf16 => t.values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
            };
            (name, t.shape.as_slice(), bytes)
        })
        .collect();
    let dtype = match storage {
        Storage::F32 => Dtype::F32,
        Storage::Bf16 => Dtype::BF16,
    };
    let invalid = |e: safetensors::SafeTensorError| Error::io(path, std::io::Error::other(e));
    let views = encoded.iter().map(|(name, shape, bytes)| TensorView::new(dtype, shape.to_vec(), bytes).map(|v| (name.as_str(), v)));
    let views: Vec<_> = views.collect::<std::result::Result<_, _>>().map_err(invalid)?;
    let bytes = serialize(views, Some(metadata)).map_err(invalid)?;
    write_atomically(path, &bytes)
}

/// Reads every tensor of a file, widened to f32, and the file's metadata. Accepts f32, bf16 and f16.
///
/// # Errors
/// - [`Error::Io`]
/// - [`Error::Checkpoint`]: not a safetensors file, or a tensor of another type
pub fn load(path: &Path) -> Result<(HostTensors, HashMap<String, String>)> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let broken = |what: String| Error::Checkpoint { path: path.into(), missing: vec![], unused: vec![], mismatched: vec![what] };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| broken(format!("not a safetensors file: {e}")))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| broken(format!("not a safetensors file: {e}")))?;
    let mut tensors = HostTensors::new();
    for (name, view) in file.iter() {
        let data = view.data();
        let values = match view.dtype() {
            Dtype::F32 => data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Dtype::BF16 => data.as_chunks::<2>().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
            Dtype::F16 => data.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            other => return Err(broken(format!("{name}: element type {other:?}, want F32, BF16 or F16"))),
        };
        tensors.insert(name.to_string(), HostTensor { shape: view.shape().to_vec(), values });
    }
    Ok((tensors, header.metadata().clone().unwrap_or_default()))
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
            assert!(error.contains("w.safetensors") && error.contains("not a safetensors file"), "{error}");
        }
        std::fs::write(&path, [0xff; 64]).unwrap();
        assert!(load(&path).is_err());
        assert!(matches!(load(&folder.path().join("none")), Err(Error::Io { .. })));
    }
}
