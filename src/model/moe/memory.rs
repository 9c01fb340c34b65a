//! Product-key memory: a large table of which each step reads a few rows, found through two short lists of keys.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, TensorData, activation};

use crate::model::config::MemoryWeighting;
use crate::model::init::Init;

/// A memory of `subkeys^2` rows in the place of a feed-forward.
#[derive(Module, Debug)]
pub struct ProductKeyMemory {
    /// `[d_model, heads * query]`
    pub query: Param<Tensor<2>>,
    /// `[heads * query]`
    pub query_bias: Param<Tensor<1>>,
    /// Keys for the first half of a query, `[heads, query / 2, subkeys]`.
    pub first: Param<Tensor<3>>,
    /// Keys for the second half, `[heads, query / 2, subkeys]`.
    pub second: Param<Tensor<3>>,
    /// Row `i * subkeys + j` answers to first key `i` with second key `j`: `[subkeys^2, d_model]`.
    pub values: Param<Tensor<2>>,
    top_k: usize,
    #[module(skip)]
    weighting: MemoryWeighting,
}

/// Sizes of a memory.
#[derive(Debug, Clone, Copy)]
pub struct MemorySizes {
    /// Keys of each half.
    pub subkeys: usize,
    /// Width of a query.
    pub query: usize,
    /// Queries per step.
    pub heads: usize,
    /// Rows read by each query.
    pub top_k: usize,
}

/// The rows read.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Numbers of rows, best first, `[heads, rows, top_k]` in this order.
    pub rows: Vec<usize>,
    /// Their weights, `[heads, rows, top_k]`.
    pub weights: Tensor<3>,
}

impl ProductKeyMemory {
    /// A memory with fresh weights.
    pub fn new(d_model: usize, sizes: MemorySizes, weighting: MemoryWeighting, init: &mut Init) -> Self {
        let MemorySizes { subkeys, query, heads, top_k } = sizes;
        Self {
            query: init.fan_in([d_model, heads * query], d_model),
            query_bias: init.constant([heads * query], 0.0),
            first: init.fan_in([heads, query / 2, subkeys], query / 2),
            second: init.fan_in([heads, query / 2, subkeys], query / 2),
            values: init.fan_in([subkeys * subkeys, d_model], d_model),
            top_k,
            weighting,
        }
    }

    /// Parameters of rows that a step does not read, at the least.
    pub fn idle_params(&self) -> usize {
        let [rows, d_model] = self.values.dims();
        let [heads, ..] = self.first.dims();
        rows.saturating_sub(heads * self.top_k) * d_model
    }

    /// The rows that each query of `x` `[rows, d_model]` reads, out of all `subkeys^2` sums of a first and a second score.
    ///
    /// Exact: a row among the best sums has both its keys among the best `top_k` of their halves.
    pub fn read(&self, x: Tensor<2>) -> Reading {
        let device = x.device();
        let [rows, _] = x.dims();
        let [heads, half, subkeys] = self.first.dims();
        let query = x.matmul(self.query.val()) + self.query_bias.val().unsqueeze();
        let query = query.reshape([rows, heads, 2 * half]).swap_dims(0, 1);
        let scores = |from: usize, keys: &Param<Tensor<3>>| query.clone().narrow(2, from, half).matmul(keys.val());
        let (first, second) = (scores(0, &self.first), scores(half, &self.second));
        let host = |t: &Tensor<3>| t.clone().detach().into_data();
        let (a, b) = (host(&first), host(&second));
        let (a, b) = (a.as_slice::<f32>().expect("scores are f32"), b.as_slice::<f32>().expect("scores are f32"));
        let pairs: Vec<(usize, usize)> =
            a.chunks_exact(subkeys).zip(b.chunks_exact(subkeys)).flat_map(|(a, b)| best_sums(a, b, self.top_k)).collect();
        let pick = |of: &dyn Fn(&(usize, usize)) -> usize| {
            let index: Vec<i64> = pairs.iter().map(|p| of(p) as i64).collect();
            Tensor::<3, Int>::from_data(TensorData::new(index, [heads, rows, self.top_k]), &device)
        };
        let scores = first.gather(2, pick(&|p| p.0)) + second.gather(2, pick(&|p| p.1));
        let weights = match self.weighting {
            MemoryWeighting::Softmax => activation::softmax(scores, 2),
            MemoryWeighting::Relu => activation::relu(scores),
        };
        Reading { rows: pairs.into_iter().map(|(i, j)| i * subkeys + j).collect(), weights }
    }

    /// `y_t = sum_heads sum_k w_{t,k} V_{row_k}`.
    ///
    /// # Shapes
    /// `x`, returns: `[batch, steps, d_model]`
    ///
    /// # Reference
    /// Lample et al. 2019, arXiv:1907.05242; with ReLU in the place of softmax: Csordás et al. 2023, arXiv:2310.10837.
    /// Differs: no batch norm on queries, which would make a step depend on its batch.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, steps, d_model] = x.dims();
        let rows = batch * steps;
        let device = x.device();
        let reading = self.read(x.reshape([rows, d_model]));
        let [heads, _, top_k] = reading.weights.dims();
        let index: Vec<i64> = reading.rows.iter().map(|&r| r as i64).collect();
        let index = Tensor::<1, Int>::from_data(TensorData::new(index, [heads * rows * top_k]), &device);
        let read = self.values.val().select(0, index).reshape([heads * rows, top_k, d_model]);
        let sums = reading.weights.reshape([heads * rows, 1, top_k]).matmul(read).reshape([heads, rows, d_model]);
        sums.sum_dim(0).reshape([batch, steps, d_model])
    }
}

/// Numbers of the `k` largest values, largest first, the lower number first at a tie.
fn best(values: &[f32], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    order.truncate(k);
    order
}

/// The `k` pairs with the largest `a[i] + b[j]`, largest first.
fn best_sums(a: &[f32], b: &[f32], k: usize) -> Vec<(usize, usize)> {
    let right = best(b, k);
    let pairs: Vec<(usize, usize)> = best(a, k).into_iter().flat_map(|i| right.iter().map(move |&j| (i, j))).collect();
    let sums: Vec<f32> = pairs.iter().map(|&(i, j)| a[i] + b[j]).collect();
    best(&sums, k).into_iter().map(|p| pairs[p]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::rng::SplitMix;

    #[test]
    fn best_sums_are_those_of_all_pairs() {
        let mut rng = SplitMix::new(5);
        for (n, k) in [(1, 1), (3, 2), (7, 5), (6, 6), (12, 3)] {
            let draw = |rng: &mut SplitMix| (0..n).map(|_| rng.next_normal()).collect::<Vec<f32>>();
            let (a, b) = (draw(&mut rng), draw(&mut rng));
            let mut all: Vec<f32> = a.iter().flat_map(|x| b.iter().map(move |y| x + y)).collect();
            all.sort_by(|x, y| y.total_cmp(x));
            let found: Vec<f32> = best_sums(&a, &b, k).into_iter().map(|(i, j)| a[i] + b[j]).collect();
            assert_eq!(found, all[..k], "n {n}, k {k}");
        }
    }
}
