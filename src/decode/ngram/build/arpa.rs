//! An estimated model as ARPA text.

use std::io::{BufWriter, Write};
use std::path::Path;

use super::Estimate;
use super::interpolate::NO_CONTEXT;
use super::rows::Row;
use crate::error::{Error, Result};

/// log10 of a probability or weight, as written.
pub(super) fn log10(value: f32) -> f32 {
    f64::from(value).log10() as f32
}

pub(super) fn write(estimate: &mut Estimate, path: &Path, out: &mut dyn Write) -> Result<()> {
    let mut out = BufWriter::with_capacity(1 << 16, out);
    let failed = |e| Error::io(path, e);
    writeln!(out, "\\data\\").map_err(failed)?;
    for (spool, order) in estimate.orders.iter().zip(1..) {
        writeln!(out, "ngram {order}={}", spool.len()).map_err(failed)?;
    }
    let highest = estimate.orders.len();
    for (i, spool) in estimate.orders.iter_mut().enumerate() {
        writeln!(out, "\n\\{}-grams:", i + 1).map_err(failed)?;
        for row in spool.rows()? {
            line(&row?, i + 1, highest, &estimate.lexicon.texts, &mut out).map_err(failed)?;
        }
    }
    writeln!(out, "\n\\end\\").and_then(|()| out.flush()).map_err(failed)
}

fn line(row: &Row, order: usize, highest: usize, words: &[String], out: &mut impl Write) -> std::io::Result<()> {
    let [prob, backoff] = row.values();
    write!(out, "{}", log10(prob))?;
    let mut between = '\t';
    for &word in row.words[..order].iter().rev() {
        write!(out, "{between}{}", words[word as usize])?;
        between = ' ';
    }
    match backoff {
        _ if order == highest => writeln!(out),
        _ if backoff == NO_CONTEXT => writeln!(out, "\t0"),
        _ => writeln!(out, "\t{}", log10(backoff)),
    }
}
