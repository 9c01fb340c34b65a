//! Where golden data comes from: `OMNISCRIBE_ORACLES`, else `../shared/oracles`, else the copies in `tests/golden`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};

/// Path of one oracle file, e.g. `find("04_ctc_loss/ctc_loss.safetensors")`.
///
/// Panics with the places looked at when there is none: a missing oracle is a failure, never a silent pass.
pub fn find(relative: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = match std::env::var_os("OMNISCRIBE_ORACLES") {
        Some(dir) => vec![PathBuf::from(dir)],
        None => vec![root.join("../shared/oracles"), root.join("tests/golden")],
    };
    let found = places.iter().map(|p| p.join(relative)).find(|p| p.exists());
    found.unwrap_or_else(|| panic!("no oracle {relative} under {places:?}"))
}

/// One tensor of a golden file, widened to f64.
#[derive(Debug, Clone)]
pub struct Golden {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

impl Golden {
    pub fn f32(&self) -> Vec<f32> {
        self.values.iter().map(|&v| v as f32).collect()
    }

    pub fn indices(&self) -> Vec<usize> {
        self.values.iter().map(|&v| v as usize).collect()
    }
}

/// All tensors of a safetensors file by name.
pub fn tensors(relative: &str) -> BTreeMap<String, Golden> {
    let path = find(relative);
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    file.iter()
        .map(|(name, view)| {
            let data = view.data();
            fn each<const N: usize>(data: &[u8], f: impl Fn([u8; N]) -> f64) -> Vec<f64> {
                data.chunks_exact(N).map(|c| f(c.try_into().expect("chunk of N"))).collect()
            }
            let values = match view.dtype() {
                Dtype::F64 => each(data, f64::from_le_bytes),
                Dtype::F32 => each(data, |b| f64::from(f32::from_le_bytes(b))),
                Dtype::I64 => each(data, |b| i64::from_le_bytes(b) as f64),
                Dtype::I32 => each(data, |b| f64::from(i32::from_le_bytes(b))),
                Dtype::I16 => each(data, |b| f64::from(i16::from_le_bytes(b))),
                Dtype::U8 | Dtype::BOOL => each(data, |[b]: [u8; 1]| f64::from(b)),
                other => panic!("{name}: dtype {other:?} not handled"),
            };
            (name.to_string(), Golden { shape: view.shape().to_vec(), values })
        })
        .collect()
}

/// A JSON golden file.
pub fn json(relative: &str) -> serde_json::Value {
    let path = find(relative);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A JSON-lines golden file.
pub fn json_lines(relative: &str) -> Vec<serde_json::Value> {
    let path = find(relative);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines()
        .filter(|l| !l.trim().is_empty())
        .map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
        .collect()
}

/// Asserts that every element lies within `tolerance` (absolute); prints the largest difference and where it is.
pub fn assert_close(what: &str, ours: &[f64], golden: &[f64], tolerance: f64) {
    assert_eq!(ours.len(), golden.len(), "{what}: length");
    let worst =
        ours.iter().zip(golden).enumerate().map(|(i, (a, b))| (if a == b { 0.0 } else { (a - b).abs() }, i)).max_by(|a, b| {
            a.0.partial_cmp(&b.0).unwrap_or(if a.0.is_nan() { std::cmp::Ordering::Greater } else { std::cmp::Ordering::Less })
        });
    if let Some((difference, i)) = worst {
        assert!(
            difference <= tolerance,
            "{what}: largest difference {difference:e} at {i} (ours {}, golden {}), limit {tolerance:e}",
            ours[i],
            golden[i]
        );
    }
}
