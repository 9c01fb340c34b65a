//! The f32 product: the `gemm` crate, then the epilogue.

use rayon::prelude::*;

use super::activation::Activation;
use super::cpu::Tier;
use super::epilogue::{Epilogue, activate};
use super::gemm::{Parallel, Write};
use super::gemm_bf16::{Job, Output, Right};

/// `job` cut into blocks of rows for threads to share.
pub(super) fn row_blocks<'j>(job: &'j Job<'j>) -> impl Iterator<Item = Job<'j>> {
    const ROWS: usize = 96;
    (0..job.a.rows).step_by(ROWS).map(move |first| {
        let c = Output { data: job.c.data.wrapping_add(first * job.c.row_stride), ..job.c };
        Job { a: job.a.rows(first..(first + ROWS).min(job.a.rows)), c, ..*job }
    })
}

/// One product by the `gemm` crate, then its epilogue.
///
/// # Safety
/// The output is writable for the job's rows and columns and not touched by others; the right operand is a view.
pub(super) unsafe fn run(job: &Job<'_>, tier: Tier, parallel: Parallel) {
    let Right::View(b) = job.right else { unreachable!("packed operands are bfloat16") };
    let (m, n, k) = (job.a.rows, job.columns, job.a.columns);
    let stride = job.c.row_stride;
    let threads = if parallel == Parallel::Rayon { ::gemm::Parallelism::Rayon(0) } else { ::gemm::Parallelism::None };
    let old = if job.write == Write::Accumulate { 1.0 } else { 0.0 };
    if k > 0 && m > 0 && n > 0 {
        // SAFETY: views were checked against their slices when made, the output is the caller's promise; strides are in elements.
        unsafe {
            ::gemm::gemm(
                m,
                n,
                k,
                job.c.data,
                1,
                stride as isize,
                old != 0.0,
                job.a.pointer(0, 0),
                job.a.column_stride as isize,
                job.a.row_stride as isize,
                b.pointer(0, 0),
                b.column_stride as isize,
                b.row_stride as isize,
                old,
                1.0,
                false,
                false,
                false,
                threads,
            );
        }
    }
    let Epilogue { bias, activation } = job.epilogue;
    let empty = k == 0 && job.write == Write::Overwrite;
    if n == 0 || !(empty || bias.is_some() || activation != Activation::Identity) {
        return;
    }
    let c = job.c;
    let finish = move |row: usize| {
        let c = c;
        // SAFETY: one row of the output, each visited once.
        let row = unsafe { std::slice::from_raw_parts_mut(c.data.add(row * stride), n) };
        if empty {
            row.fill(0.0);
        }
        if let Some(bias) = bias {
            row.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
        }
        activate(activation, row, tier);
    };
    match parallel {
        Parallel::Rayon if m * n > 1 << 16 => (0..m).into_par_iter().with_min_len(16).for_each(finish),
        _ => (0..m).for_each(finish),
    }
}
