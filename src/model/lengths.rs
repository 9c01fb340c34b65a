//! Valid positions per row of a padded batch: the only source of masks.

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Valid positions of every row of a batch padded to a common size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lengths {
    valid: Arc<[usize]>,
    padded: usize,
}

impl Lengths {
    /// Lengths of rows padded to `padded` positions.
    ///
    /// # Panics
    /// If a row is longer than the padding: a bug of the caller.
    pub fn new(valid: impl Into<Arc<[usize]>>, padded: usize) -> Self {
        let valid = valid.into();
        assert!(valid.iter().all(|&n| n <= padded), "lengths {valid:?} over the padded size {padded}");
        Self { valid, padded }
    }

    /// Rows without padding.
    pub fn full(batch: usize, padded: usize) -> Self {
        Self::new(vec![padded; batch], padded)
    }

    /// Valid positions per row.
    pub fn valid(&self) -> &[usize] {
        &self.valid
    }

    /// The same, shared.
    pub fn shared(&self) -> Arc<[usize]> {
        self.valid.clone()
    }

    /// Positions per row with padding.
    pub fn padded(&self) -> usize {
        self.padded
    }

    /// Rows in the batch.
    pub fn batch(&self) -> usize {
        self.valid.len()
    }

    /// Valid positions of all rows together.
    pub fn total(&self) -> usize {
        self.valid.iter().sum()
    }

    /// Whether any row is padded.
    pub fn has_padding(&self) -> bool {
        self.valid.iter().any(|&n| n < self.padded)
    }

    /// The lengths after a stage that turns `n` positions into `rule(n)`.
    pub fn map(&self, rule: impl Fn(usize) -> usize) -> Self {
        Self::new(self.valid.iter().map(|&n| rule(n)).collect::<Vec<_>>(), rule(self.padded))
    }

    /// 1 where a position is valid, 0 in the padding: `[batch, padded]`.
    pub fn live(&self, device: &Device) -> Tensor<2> {
        let values: Vec<f32> = self.valid.iter().flat_map(|&n| (0..self.padded).map(move |t| if t < n { 1.0 } else { 0.0 })).collect();
        Tensor::from_data(TensorData::new(values, [self.batch(), self.padded]), device)
    }

    /// The lengths as an integer tensor `[batch]`.
    pub fn tensor(&self, device: &Device) -> Tensor<1, Int> {
        let values: Vec<i64> = self.valid.iter().map(|&n| n as i64).collect();
        Tensor::from_data(TensorData::new(values, [self.batch()]), device)
    }

    /// Zeroes the padding of `x` `[batch, padded, channels]`, whatever it holds, NaN included.
    pub fn clear_padding(&self, x: Tensor<3>) -> Tensor<3> {
        if !self.has_padding() {
            return x;
        }
        let device = x.device();
        let [batch, padded, _] = x.dims();
        let dead = self.live(&device).equal_elem(0.0).reshape([batch, padded, 1]);
        let shape = x.dims();
        x.mask_fill(dead.expand(shape), 0.0)
    }
}
