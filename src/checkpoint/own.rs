//! Weights in our own layout: a tensor for each parameter, under its name.

use std::cell::RefCell;
use std::collections::BTreeSet;

use crate::checkpoint::storage::{SCALES, rescale};
use crate::checkpoint::tensor_file::{Dtype, TensorFile};
use crate::checkpoint::weights::{Fault, Source};
use crate::checkpoint::{arrange, factored};

/// The tensors of a file of ours.
#[derive(Debug)]
pub struct Own<'a> {
    file: &'a TensorFile,
    used: RefCell<BTreeSet<String>>,
}

impl<'a> Own<'a> {
    /// The tensors of `file`.
    pub fn new(file: &'a TensorFile) -> Self {
        Self { file, used: RefCell::default() }
    }

    /// Names of its parameters: of all tensors but the scales of int8 ones.
    pub fn parameters(&self) -> impl Iterator<Item = &'a str> {
        let file = self.file;
        let scales = move |name: &str| name.strip_suffix(SCALES).and_then(|n| file.get(n)).is_some_and(|v| v.dtype == Dtype::I8);
        file.names().filter(move |name| !scales(name))
    }

    /// The file.
    pub fn file(&self) -> &TensorFile {
        self.file
    }

    /// The bytes of tensor `name`, which must be of `shape` and `dtype`.
    pub(super) fn raw(&self, name: &str, shape: &[usize], dtype: Dtype) -> Result<&[u8], Fault> {
        let view = self.file.get(name).ok_or_else(|| Fault::Missing(name.to_string()))?;
        self.used.borrow_mut().insert(name.to_string());
        if view.shape != shape || view.dtype != dtype {
            return Err(Fault::Mismatched(format!("{name}: {} {:?} in the file, want {dtype} {shape:?}", view.dtype, view.shape)));
        }
        Ok(view.bytes)
    }

    /// The values of tensor `name` as they stand in the file.
    pub(super) fn plain(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Fault> {
        let view = self.file.get(name).ok_or_else(|| Fault::Missing(name.to_string()))?;
        self.used.borrow_mut().insert(name.to_string());
        if view.shape != shape {
            return Err(Fault::Mismatched(format!("{name}: {:?} in the file, {shape:?} in the model", view.shape)));
        }
        if !view.dtype.is_float() && view.dtype != Dtype::I8 {
            return Err(Fault::Mismatched(format!("{name}: {} elements, want f32, bf16, f16 or i8 with scales", view.dtype)));
        }
        let mut values = vec![0.0; view.count()];
        arrange::copy(&view, &mut values);
        if view.dtype == Dtype::I8 {
            let scales_name = format!("{name}{SCALES}");
            let scales = self.file.get(&scales_name).ok_or_else(|| Fault::Missing(scales_name.clone()))?;
            let wanted = match shape {
                [before @ .., _, width] => [before, &[*width]].concat(),
                _ => return Err(Fault::Mismatched(format!("{name}: int8 elements in a tensor that is no matrix"))),
            };
            if scales.shape != wanted || !scales.dtype.is_float() {
                return Err(Fault::Mismatched(format!("{scales_name}: {:?} in the file, {wanted:?} in the model", scales.shape)));
            }
            let mut factors = vec![0.0; scales.count()];
            arrange::copy(&scales, &mut factors);
            rescale(&mut values, &factors, shape);
            self.used.borrow_mut().insert(scales_name);
        }
        Ok(values)
    }
}

impl Source for Own<'_> {
    fn take(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Fault> {
        match factored::find(self.file, name) {
            Some((prefix, part)) => factored::restore(self, prefix, part, shape),
            None => self.plain(name, shape),
        }
    }

    fn unused(&self) -> Vec<String> {
        let used = self.used.borrow();
        self.file.names().filter(|name| !used.contains(*name)).map(str::to_string).collect()
    }
}
