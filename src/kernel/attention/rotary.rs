//! Rotary positions: cosines and sines, and the rotation of a head's two halves.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::kernel::matrix::Matrix;

/// Base of the angles (arXiv:2104.09864).
const BASE: f64 = 10_000.0;

/// Cosines and sines of `step * BASE^(-2 i / d_head)`, `[steps, d_head / 2]` each.
pub(super) struct Table {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

/// The table for heads of width `d_head` (even) with at least `steps` steps; shared and kept for the next call.
pub(super) fn table(d_head: usize, steps: usize) -> Arc<Table> {
    static TABLES: Mutex<Option<HashMap<usize, Arc<Table>>>> = Mutex::new(None);
    let mut tables = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
    let tables = tables.get_or_insert_with(HashMap::new);
    match tables.get(&d_head) {
        Some(table) if table.cos.len() >= steps * table.half => table.clone(),
        _ => {
            let table = Arc::new(Table::new(d_head, steps.next_power_of_two()));
            tables.insert(d_head, table.clone());
            table
        }
    }
}

impl Table {
    fn new(d_head: usize, steps: usize) -> Self {
        let half = d_head / 2;
        let angle = |i: usize| (i / half) as f64 * BASE.powf(-2.0 * (i % half) as f64 / d_head as f64);
        let all = |f: fn(f64) -> f64| (0..steps * half).map(|i| f(angle(i)) as f32).collect();
        Self { half, cos: all(f64::cos), sin: all(f64::sin) }
    }

    /// Rotates row `t` of `x` `[steps, d_head]` by the angles of step `t` into the contiguous `out`.
    pub fn rotate(&self, x: Matrix<'_>, out: &mut [f32]) {
        for (step, out) in out.chunks_exact_mut(2 * self.half).enumerate() {
            self.turn(step, x.row(step), out, 1.0);
        }
    }

    /// Undoes [`Table::rotate`] for the row of `step`: the gradient of a rotation is the rotation back.
    pub fn rotate_back(&self, step: usize, x: &[f32], out: &mut [f32]) {
        self.turn(step, x, out, -1.0);
    }

    fn turn(&self, step: usize, x: &[f32], out: &mut [f32], sign: f32) {
        let (cos, sin) = (&self.cos[step * self.half..][..self.half], &self.sin[step * self.half..][..self.half]);
        let (x1, x2) = x.split_at(self.half);
        let (out1, out2) = out.split_at_mut(self.half);
        for i in 0..self.half {
            out1[i] = x1[i] * cos[i] - sign * sin[i] * x2[i];
            out2[i] = x2[i] * cos[i] + sign * sin[i] * x1[i];
        }
    }
}
