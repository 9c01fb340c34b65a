//! How kernels walk `[rows, width]` arrays: which rows are padding, and how rows are shared out to threads.

use rayon::prelude::*;

/// Elements one task should touch: 64 KiB of f32 a slice, large against the cost of handing a task over.
pub(crate) const TASK: usize = 16 * 1024;

/// Rows that exist only because a batch is as long as its longest member.
#[derive(Debug, Clone, Copy)]
pub struct Padding<'a> {
    /// Rows of each batch member.
    pub steps: usize,
    /// Valid rows of each member, `[batch]`.
    pub lengths: &'a [usize],
}

impl Padding<'_> {
    /// Whether row `row` of `[batch * steps, ..]` is valid.
    #[inline]
    pub fn is_live(&self, row: usize) -> bool {
        row % self.steps < self.lengths[row / self.steps]
    }
}

/// Rows of `width` elements that make one task.
pub(crate) fn per_task(width: usize) -> usize {
    (TASK / width.max(1)).max(1)
}

/// Calls `f(index, chunk)` for every `chunk` elements of `out`, on several threads where there is enough to do.
pub(crate) fn for_chunks<T: Send>(out: &mut [T], chunk: usize, f: impl Fn(usize, &mut [T]) + Send + Sync) {
    if out.len() <= 2 * TASK {
        out.chunks_mut(chunk).enumerate().for_each(|(i, c)| f(i, c));
    } else {
        out.par_chunks_mut(chunk).enumerate().for_each(|(i, c)| f(i, c));
    }
}

/// As [`for_chunks`] over two slices cut in step.
pub(crate) fn for_chunks2<A: Send, B: Send>(
    a: &mut [A],
    chunk_a: usize,
    b: &mut [B],
    chunk_b: usize,
    f: impl Fn(usize, &mut [A], &mut [B]) + Send + Sync,
) {
    debug_assert_eq!(a.len().div_ceil(chunk_a), b.len().div_ceil(chunk_b));
    if a.len().max(b.len()) <= 2 * TASK {
        a.chunks_mut(chunk_a).zip(b.chunks_mut(chunk_b)).enumerate().for_each(|(i, (a, b))| f(i, a, b));
    } else {
        a.par_chunks_mut(chunk_a).zip(b.par_chunks_mut(chunk_b)).enumerate().for_each(|(i, (a, b))| f(i, a, b));
    }
}

/// The part of `x` that belongs to chunk `index` of size `chunk`, `len` elements long.
#[inline]
pub(crate) fn part(x: &[f32], index: usize, chunk: usize, len: usize) -> &[f32] {
    &x[index * chunk..index * chunk + len]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_follows_the_lengths() {
        let padding = Padding { steps: 3, lengths: &[2, 0, 3] };
        let live: Vec<bool> = (0..9).map(|row| padding.is_live(row)).collect();
        assert_eq!(live, [true, true, false, false, false, false, true, true, true]);
    }

    #[test]
    fn every_chunk_is_visited_once() {
        for len in [0, 1, 5, 3 * TASK + 1] {
            let mut out = vec![0usize; len];
            for_chunks(&mut out, 7, |i, c| c.iter_mut().for_each(|v| *v += i + 1));
            assert!(out.iter().enumerate().all(|(i, &v)| v == i / 7 + 1));
            let mut pairs = vec![0usize; len * 2];
            for_chunks2(&mut out, 7, &mut pairs, 14, |i, a, b| {
                a.fill(i);
                b.fill(i);
            });
            assert!(pairs.iter().enumerate().all(|(i, &v)| v == i / 14 && v == out[i / 2]));
        }
    }
}
