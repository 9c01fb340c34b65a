//! N-grams as rows, sorted and kept within a bound of memory: what does not fit goes to temporary files.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::{MAX_ORDER, WordId};
use crate::error::{Error, Result};

/// An n-gram in some arrangement of its words (the rest is zeros), and what is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    pub(super) words: [WordId; MAX_ORDER],
    payload: [u32; 2],
}

impl Row {
    pub(super) fn counted(words: [WordId; MAX_ORDER], count: u64) -> Self {
        Self { words, payload: [count as u32, (count >> 32) as u32] }
    }

    pub(super) fn valued(words: [WordId; MAX_ORDER], values: [f32; 2]) -> Self {
        Self { words, payload: values.map(f32::to_bits) }
    }

    pub(super) fn count(&self) -> u64 {
        u64::from(self.payload[0]) | u64::from(self.payload[1]) << 32
    }

    pub(super) fn values(&self) -> [f32; 2] {
        self.payload.map(f32::from_bits)
    }

    fn write(&self, width: usize, out: &mut impl Write) -> std::io::Result<()> {
        let mut bytes = [0; 4 * (MAX_ORDER + 2)];
        for (four, number) in bytes.chunks_exact_mut(4).zip(self.words[..width].iter().chain(&self.payload)) {
            four.copy_from_slice(&number.to_le_bytes());
        }
        out.write_all(&bytes[..4 * (width + 2)])
    }

    fn read(width: usize, from: &mut impl Read) -> std::io::Result<Self> {
        let mut bytes = [0; 4 * (MAX_ORDER + 2)];
        let bytes = &mut bytes[..4 * (width + 2)];
        from.read_exact(bytes)?;
        let mut numbers = bytes.as_chunks::<4>().0.iter().map(|&four| u32::from_le_bytes(four));
        let mut row = Self { words: [0; MAX_ORDER], payload: [0; 2] };
        row.words[..width].iter_mut().chain(&mut row.payload).zip(&mut numbers).for_each(|(to, number)| *to = number);
        Ok(row)
    }
}

/// Bytes of memory a row takes.
pub(super) const ROW_BYTES: usize = size_of::<Row>();
/// Bytes of the buffer of each temporary file that is read or written.
const BUFFER_BYTES: usize = 1 << 18;
/// Rows of the smallest store: with less, files would be opened for nothing.
const MIN_ROWS: usize = 1 << 10;

/// A file in the system's folder for temporary files that goes away with its last user.
#[derive(Debug)]
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    fn create() -> Result<(Self, BufWriter<File>)> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("omniscribe-{}-{}.rows", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(|e| Error::io(&path, e))?;
        Ok((Self { path }, BufWriter::with_capacity(BUFFER_BYTES, file)))
    }

    fn error(&self, e: std::io::Error) -> Error {
        Error::io(&self.path, e)
    }

    fn open(&self) -> Result<BufReader<File>> {
        Ok(BufReader::with_capacity(BUFFER_BYTES, File::open(&self.path).map_err(|e| self.error(e))?))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Nothing can be done about a file that will not go.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Rows in the order they were put in, for reading as often as needed.
#[derive(Debug)]
pub(super) struct Spool {
    width: usize,
    limit: usize,
    rows: Vec<Row>,
    /// The rows after those in memory.
    file: Option<(Temporary, BufWriter<File>)>,
    len: u64,
}

impl Spool {
    /// Rows of `width` words; `bytes` of them stay in memory.
    pub(super) fn new(width: usize, bytes: usize) -> Self {
        Self { width, limit: (bytes / ROW_BYTES).max(MIN_ROWS), rows: Vec::new(), file: None, len: 0 }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn push(&mut self, row: Row) -> Result<()> {
        self.len += 1;
        if self.rows.len() < self.limit {
            self.rows.push(row);
            return Ok(());
        }
        if self.file.is_none() {
            self.file = Some(Temporary::create()?);
        }
        match &mut self.file {
            Some((temporary, out)) => row.write(self.width, out).map_err(|e| temporary.error(e)),
            None => Ok(()),
        }
    }

    /// All rows, from the first.
    pub(super) fn rows(&mut self) -> Result<impl Iterator<Item = Result<Row>>> {
        let (width, on_disk) = (self.width, self.len - self.rows.len() as u64);
        let mut reader = match &mut self.file {
            Some((temporary, out)) => {
                out.flush().map_err(|e| temporary.error(e))?;
                Some((temporary.open()?, &*temporary))
            }
            None => None,
        };
        let stored = (0..on_disk)
            .filter_map(move |_| reader.as_mut().map(|(file, temporary)| Row::read(width, file).map_err(|e| temporary.error(e))));
        Ok(self.rows.iter().map(|&row| Ok(row)).chain(stored))
    }
}

/// What becomes of rows with the same words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Same {
    /// Their counts are added.
    Sum,
    /// There are none.
    Never,
}

/// Sorts rows by their words.
#[derive(Debug)]
pub(super) struct Sorter {
    width: usize,
    limit: usize,
    same: Same,
    rows: Vec<Row>,
    runs: Vec<(Temporary, u64)>,
}

impl Sorter {
    /// For rows of `width` words, with `bytes` of memory.
    pub(super) fn new(width: usize, bytes: usize, same: Same) -> Self {
        Self { width, limit: (bytes / ROW_BYTES).max(MIN_ROWS), same, rows: Vec::new(), runs: Vec::new() }
    }

    pub(super) fn push(&mut self, row: Row) -> Result<()> {
        if self.rows.len() == self.limit {
            self.order();
            // Where adding up made little room, sorting again soon would not either.
            if self.rows.len() > self.limit / 2 {
                self.spill()?;
            }
        }
        if self.rows.len() == self.rows.capacity() {
            let more = self.rows.len().max(MIN_ROWS).min(self.limit - self.rows.len());
            self.rows.reserve_exact(more);
        }
        self.rows.push(row);
        Ok(())
    }

    /// Sorts what is in memory and adds up what is the same.
    fn order(&mut self) {
        self.rows.sort_unstable_by_key(|row| row.words);
        if self.same == Same::Sum {
            self.rows.dedup_by(|later, first| {
                let same = later.words == first.words;
                if same {
                    *first = Row::counted(first.words, first.count() + later.count());
                }
                same
            });
        }
    }

    fn spill(&mut self) -> Result<()> {
        let (temporary, mut out) = Temporary::create()?;
        let written = self.rows.iter().try_for_each(|row| row.write(self.width, &mut out)).and_then(|()| out.flush());
        written.map_err(|e| temporary.error(e))?;
        self.runs.push((temporary, self.rows.len() as u64));
        self.rows.clear();
        Ok(())
    }

    /// The rows in order.
    pub(super) fn finish(mut self) -> Result<Sorted> {
        self.order();
        if self.runs.is_empty() {
            return Ok(Sorted {
                same: self.same,
                width: self.width,
                memory: self.rows.into_iter(),
                runs: Vec::new(),
                heap: BinaryHeap::new(),
                ahead: None,
            });
        }
        self.spill()?;
        let mut runs = Vec::with_capacity(self.runs.len());
        for (temporary, rows) in self.runs {
            runs.push((temporary.open()?, temporary, rows));
        }
        let mut sorted =
            Sorted { same: self.same, width: self.width, memory: Vec::new().into_iter(), runs, heap: BinaryHeap::new(), ahead: None };
        (0..sorted.runs.len()).try_for_each(|run| sorted.refill(run))?;
        sorted.ahead = sorted.smallest()?;
        Ok(sorted)
    }
}

/// Rows in order of their words.
pub(super) struct Sorted {
    same: Same,
    width: usize,
    memory: std::vec::IntoIter<Row>,
    /// Sorted files, with the rows left in each.
    runs: Vec<(BufReader<File>, Temporary, u64)>,
    heap: BinaryHeap<Reverse<(Row, usize)>>,
    ahead: Option<Row>,
}

impl Sorted {
    fn refill(&mut self, run: usize) -> Result<()> {
        let (reader, temporary, left) = &mut self.runs[run];
        if let Some(rest) = left.checked_sub(1) {
            *left = rest;
            let row = Row::read(self.width, reader).map_err(|e| temporary.error(e))?;
            self.heap.push(Reverse((row, run)));
        }
        Ok(())
    }

    fn smallest(&mut self) -> Result<Option<Row>> {
        let Some(Reverse((row, run))) = self.heap.pop() else { return Ok(None) };
        self.refill(run)?;
        Ok(Some(row))
    }

    /// The next row.
    pub(super) fn next(&mut self) -> Result<Option<Row>> {
        if self.runs.is_empty() {
            return Ok(self.memory.next());
        }
        let Some(mut row) = self.ahead.take() else { return Ok(None) };
        self.ahead = self.smallest()?;
        while let Some(same) = self.ahead.filter(|next| self.same == Same::Sum && next.words == row.words) {
            row = Row::counted(row.words, row.count() + same.count());
            self.ahead = self.smallest()?;
        }
        Ok(Some(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(a: u32, b: u32, count: u64) -> Row {
        Row::counted([a, b, 0, 0, 0, 0, 0], count)
    }

    #[test]
    fn spilled_rows_come_back_sorted_and_added_up() {
        for bytes in [0, 1 << 24] {
            let mut sorter = Sorter::new(2, bytes, Same::Sum);
            let mut expected = std::collections::BTreeMap::new();
            for i in 0..20_000u32 {
                let (a, b) = (i.wrapping_mul(2_654_435_761) % 97, i % 61);
                sorter.push(row(a, b, u64::from(i) << 20)).unwrap();
                *expected.entry((a, b)).or_insert(0) += u64::from(i) << 20;
            }
            assert_eq!(sorter.runs.is_empty(), bytes > 0, "{bytes}");
            let mut sorted = sorter.finish().unwrap();
            let rows: Vec<Row> = std::iter::from_fn(|| sorted.next().unwrap()).collect();
            let expected: Vec<Row> = expected.into_iter().map(|((a, b), count)| row(a, b, count)).collect();
            assert!(rows == expected);
        }
    }

    #[test]
    fn spools_are_read_twice() {
        let mut spool = Spool::new(2, 0);
        let rows: Vec<Row> = (0..3000).map(|i| Row::valued([i, 1, 0, 0, 0, 0, 0], [i as f32, -0.5])).collect();
        rows.iter().for_each(|&row| spool.push(row).unwrap());
        let file = spool.file.as_ref().unwrap().0.path.clone();
        for _ in 0..2 {
            let read: Vec<Row> = spool.rows().unwrap().collect::<Result<_>>().unwrap();
            assert!(read == rows && spool.len() == 3000);
        }
        assert!(file.exists());
        drop(spool);
        assert!(!file.exists());
    }
}
