//! An estimated model as a compact file (the layout is in the reader's page).

use std::io::{BufWriter, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::super::bytes::bits_for;
use super::super::compact::{BITS, MAGIC, SPLIT_LIMIT, VERSION};
use super::super::trie::{ARRAY_PADDING, split};
use super::Estimate;
use super::arpa::log10;
use super::interpolate::NO_CONTEXT;
use super::rows::{Row, Spool};
use crate::error::{Error, Result};

/// Rounds of moving representatives.
const ROUNDS: usize = 30;

/// Writes what it passes on into a checksum too.
struct Checked<'a> {
    out: BufWriter<&'a mut dyn Write>,
    checksum: Sha256,
    path: &'a Path,
}

impl Checked<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.checksum.update(bytes);
        self.out.write_all(bytes).map_err(|e| Error::io(self.path, e))
    }
}

pub(super) fn write(estimate: &mut Estimate, bits: u32, path: &Path, out: &mut dyn Write) -> Result<()> {
    if !BITS.contains(&bits) {
        return Err(Error::config(path, format!("bits = {bits}: must be {} to {}", BITS.start(), BITS.end())));
    }
    let mut out = Checked { out: BufWriter::with_capacity(1 << 16, out), checksum: Sha256::new(), path };
    let Estimate { lexicon, orders, .. } = estimate;
    out.put(MAGIC)?;
    for number in [VERSION, orders.len() as u32, bits, 0] {
        out.put(&number.to_le_bytes())?;
    }
    let mut spelled = Vec::new();
    // Ids without gaps; in the order of the old ones, so that sorted rows stay sorted.
    let mut ids = Vec::with_capacity(lexicon.texts.len());
    let mut next = 0;
    for (word, &keep) in lexicon.texts.iter().zip(&lexicon.keep) {
        ids.push(next);
        if keep {
            spelled.extend_from_slice(word.as_bytes());
            spelled.push(0);
            next += 1;
        }
    }
    for number in orders.iter().map(Spool::len).chain([spelled.len() as u64]) {
        out.put(&number.to_le_bytes())?;
    }
    out.put(&spelled)?;
    let word_bits = bits_for(orders[0].len() - 1);
    for i in 0..orders.len() {
        let (this, longer) = orders.split_at_mut(i + 1);
        let (this, longer) = (&mut this[i], longer.first_mut());
        if i == 0 {
            unigrams(this, longer, &mut out)?;
        } else {
            array(this, longer, i + 1, bits, word_bits, &ids, &mut out)?;
        }
    }
    let checksum = out.checksum.finalize_reset();
    out.put(&checksum)?;
    out.out.flush().map_err(|e| Error::io(path, e))
}

/// log10 probability and backoff as they are stored.
fn stored(row: &Row) -> (f32, f32) {
    let [prob, backoff] = row.values();
    (log10(prob), if backoff == NO_CONTEXT { -0.0 } else { log10(backoff) + 0.0 })
}

/// Where the children of rows start among the rows of the next order, asked for in order.
struct Children<I> {
    longer: Option<I>,
    ahead: Option<Row>,
    passed: u64,
    width: usize,
}

impl Children<()> {
    fn new(longer: Option<&mut Spool>, width: usize) -> Result<Children<impl Iterator<Item = Result<Row>>>> {
        let mut longer = longer.map(Spool::rows).transpose()?;
        let ahead = longer.as_mut().and_then(Iterator::next).transpose()?;
        Ok(Children { longer, ahead, passed: 0, width })
    }
}

impl<I: Iterator<Item = Result<Row>>> Children<I> {
    fn start(&mut self, row: &Row) -> Result<u64> {
        while let (Some(longer), Some(found)) = (&mut self.longer, self.ahead) {
            if found.words[..self.width] >= row.words[..self.width] {
                break;
            }
            self.ahead = longer.next().transpose()?;
            self.passed += 1;
        }
        Ok(self.passed)
    }
}

fn unigrams(this: &mut Spool, longer: Option<&mut Spool>, out: &mut Checked) -> Result<()> {
    let end = longer.as_ref().map_or(0, |longer| longer.len());
    let mut children = Children::new(longer, 1)?;
    let mut put = |prob: f32, backoff: f32, start: u64| {
        out.put(&prob.to_le_bytes())?;
        out.put(&backoff.to_le_bytes())?;
        out.put(&start.to_le_bytes())
    };
    for row in this.rows()? {
        let row = row?;
        let (prob, backoff) = stored(&row);
        put(prob, backoff, children.start(&row)?)?;
    }
    put(0.0, 0.0, end)
}

fn array(
    this: &mut Spool,
    longer: Option<&mut Spool>,
    order: usize,
    bits: u32,
    word_bits: u32,
    ids: &[u32],
    out: &mut Checked,
) -> Result<()> {
    let middle = longer.is_some();
    let mut values = Vec::with_capacity(this.len() as usize);
    for row in this.rows()? {
        values.push(stored(&row?).0);
    }
    let probs = table(&mut values, 1 << bits);
    let mut backoffs = Vec::new();
    if middle {
        values.clear();
        for row in this.rows()? {
            values.extend(Some(stored(&row?).1).filter(|&backoff| backoff != 0.0));
        }
        // Numbers 0 and 1 are zeros: without and with longer n-grams.
        backoffs = [vec![-0.0, 0.0], table(&mut values, (1 << bits) - 2)].concat();
    }
    drop(values);
    for value in probs.iter().chain(&backoffs) {
        out.put(&value.to_le_bytes())?;
    }

    let max = longer.as_ref().map_or(0, |longer| longer.len());
    let (low, table_len) = split(this.len() + 1, max, SPLIT_LIMIT);
    let mut starts: Vec<u64> = if middle { vec![0] } else { Vec::new() };
    let mut children = Children::new(longer, order)?;
    let mut packer = Packer { out, bits: 0, filled: 0 };
    let mut pointer = |packer: &mut Packer, record: u64, start: u64| {
        while (starts.len() as u64) <= start >> low {
            starts.push(record);
        }
        packer.put(start & ((1 << low) - 1), low)
    };
    for (row, record) in this.rows()?.zip(0..) {
        let row = row?;
        let (prob, backoff) = stored(&row);
        packer.put(u64::from(ids[row.words[order - 1] as usize]), word_bits)?;
        if middle {
            let number = match backoff {
                zero if zero == 0.0 => u64::from(zero.is_sign_positive()),
                _ => 2 + nearest(&backoffs[2..], backoff),
            };
            packer.put(number, bits)?;
        }
        packer.put(nearest(&probs, prob), bits)?;
        if middle {
            pointer(&mut packer, record, children.start(&row)?)?;
        }
    }
    // One record more: where the last children end.
    packer.put(0, word_bits)?;
    packer.put(0, if middle { 2 * bits } else { bits })?;
    if middle {
        pointer(&mut packer, this.len(), max)?;
    }
    packer.finish()?;
    if middle {
        starts.resize(table_len as usize, u64::MAX);
        for start in starts {
            out.put(&start.to_le_bytes())?;
        }
    }
    Ok(())
}

/// `len` ascending representatives of some values: the values themselves where they are no more, else even steps moved to the means of the
/// values closest to each (Lloyd 1982). Even steps spare rare values the error of a crowd's mean.
fn table(values: &mut [f32], len: usize) -> Vec<f32> {
    values.sort_unstable_by(f32::total_cmp);
    let mut distinct: Vec<f32> = values.chunk_by(|a, b| a == b).map(|same| same[0]).take(len + 1).collect();
    let (first, last) = (values.first().copied().unwrap_or_default(), values.last().copied().unwrap_or_default());
    if distinct.len() <= len {
        // A number twice does no harm.
        distinct.resize(len, last);
        return distinct;
    }
    let step = (last - first) / (len - 1) as f32;
    let mut table: Vec<f32> = (0..len).map(|i| first + step * i as f32).collect();
    for _ in 0..ROUNDS {
        let mut rest = &*values;
        for i in 0..len {
            let end = table.get(i + 1).map_or(rest.len(), |&above| rest.partition_point(|&value| value - table[i] <= above - value));
            let (part, after) = rest.split_at(end);
            if !part.is_empty() {
                table[i] = (part.iter().map(|&value| f64::from(value)).sum::<f64>() / part.len() as f64) as f32;
            }
            rest = after;
        }
    }
    table
}

/// Place of the closest number in an ascending table.
fn nearest(table: &[f32], value: f32) -> u64 {
    let above = table.partition_point(|&entry| entry < value);
    let closer_below = |above: &usize| *above == table.len() || value - table[above - 1] < table[*above] - value;
    (if above > 0 && closer_below(&above) { above - 1 } else { above }) as u64
}

/// Numbers of any bits, one after the other, least significant bit first.
struct Packer<'a, 'b> {
    out: &'a mut Checked<'b>,
    bits: u128,
    filled: u32,
}

impl Packer<'_, '_> {
    fn put(&mut self, number: u64, bits: u32) -> Result<()> {
        self.bits |= u128::from(number) << self.filled;
        self.filled += bits;
        if self.filled >= 64 {
            self.out.put(&(self.bits as u64).to_le_bytes())?;
            self.bits >>= 64;
            self.filled -= 64;
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        let bytes = self.bits.to_le_bytes();
        self.out.put(&bytes[..self.filled.div_ceil(8) as usize])?;
        self.out.put(&[0; ARRAY_PADDING as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_represent_values() {
        let mut values: Vec<f32> = (0..1000).map(|i| -(i as f32) / 100.0).chain([-30.0, -29.0]).collect();
        let table = table(&mut values, 32);
        assert!(table.is_sorted() && table.len() == 32);
        for value in values {
            let chosen = table[nearest(&table, value) as usize];
            assert!(table.iter().all(|other| (other - value).abs() >= (chosen - value).abs()), "{value}");
            assert!((chosen - value).abs() <= 0.5, "{value}: {chosen}");
        }
        assert_eq!(super::table(&mut [-1.0, -2.0, -1.0], 4), [-2.0, -1.0, -1.0, -1.0]);
        assert_eq!(super::table(&mut [-9.0, -1.2, -1.0, -0.8], 2), [-9.0, -1.0]);
        assert_eq!(super::table(&mut [], 2), [0.0, 0.0]);
    }
}
