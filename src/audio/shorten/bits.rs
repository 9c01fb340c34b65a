//! The bits of a shorten stream: Rice codes.

use std::io::{ErrorKind, Read};

/// Longest run of zeros in a code: a 17-bit residual with no low bits, eight times over.
const MOST_ZEROS: u32 = 1 << 20;

/// Why decoding stopped.
#[derive(Debug)]
pub(super) enum Stop {
    Io(std::io::Error),
    Damaged(&'static str),
    End,
}

/// A decoded value, or why there is none.
pub(super) type Step<T> = std::result::Result<T, Stop>;

/// Bits from the most significant of each byte.
pub(super) struct Bits<R> {
    from: R,
    bytes: Vec<u8>,
    next: usize,
    /// The next `count` bits, left-aligned; zeros behind them.
    window: u64,
    count: u32,
}

impl<R: Read> Bits<R> {
    /// Bits of what `from` gives.
    pub(super) fn new(from: R) -> Self {
        Self { from, bytes: Vec::new(), next: 0, window: 0, count: 0 }
    }

    /// Makes at least `wanted` (up to 32) bits ready.
    pub(super) fn need(&mut self, wanted: u32) -> Step<()> {
        while self.count < wanted {
            if self.next == self.bytes.len() {
                self.bytes.clear();
                self.next = 0;
                self.from.by_ref().take(4096).read_to_end(&mut self.bytes).map_err(Stop::Io)?;
                if self.bytes.is_empty() {
                    return Err(Stop::Io(ErrorKind::UnexpectedEof.into()));
                }
            }
            while self.count <= 56 && self.next < self.bytes.len() {
                self.window |= u64::from(self.bytes[self.next]) << (56 - self.count);
                self.count += 8;
                self.next += 1;
            }
        }
        Ok(())
    }

    /// The next `n` (up to 32) bits.
    pub(super) fn take(&mut self, n: u32) -> Step<u32> {
        if n == 0 {
            return Ok(0);
        }
        self.need(n)?;
        let value = (self.window >> (64 - n)) as u32;
        self.window <<= n;
        self.count -= n;
        Ok(value)
    }

    /// `u(n)` with `n` up to 31.
    pub(super) fn unsigned(&mut self, n: u32) -> Step<u32> {
        let mut zeros = 0;
        loop {
            self.need(1)?;
            let run = self.window.leading_zeros().min(self.count);
            zeros += run;
            if zeros > MOST_ZEROS {
                return Err(Stop::Damaged("an endless code"));
            }
            if run < self.count {
                // Past the zeros and the closing one; a shift by 64 in two halves.
                self.window = self.window << run << 1;
                self.count -= run + 1;
                break;
            }
            (self.window, self.count) = (0, 0);
        }
        let value = (u64::from(zeros) << n) | u64::from(self.take(n)?);
        u32::try_from(value).map_err(|_| Stop::Damaged("a code over 32 bits"))
    }

    /// `s(n)`: zero, minus one, one, minus two, ...
    pub(super) fn signed(&mut self, n: u32) -> Step<i32> {
        let folded = self.unsigned(n + 1)?;
        let half = (folded >> 1) as i32;
        Ok(if folded & 1 == 1 { !half } else { half })
    }

    /// `U`.
    pub(super) fn header_field(&mut self) -> Step<u32> {
        match self.unsigned(2)? {
            n @ 0..=31 => self.unsigned(n),
            _ => Err(Stop::Damaged("an impossible header field")),
        }
    }
}
