//! Samples from a driver's callback to whoever listens, without a lock and without waiting: what does not fit is lost, and counted.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What both ends share.
struct Ring {
    /// Bits of the samples; sample `n` is in cell `n % cells.len()`.
    cells: Box<[AtomicU32]>,
    /// Samples ever written and ever read.
    written: AtomicU64,
    read: AtomicU64,
    /// Samples that found no room, and how often that happened.
    lost: AtomicU64,
    overruns: AtomicU64,
    ended: AtomicBool,
    /// Why, where it was not the listener's wish.
    reason: Mutex<Option<String>>,
}

/// The writing end: a driver's callback.
pub struct Writer {
    ring: Arc<Ring>,
}

/// The reading end.
pub struct RingReader {
    ring: Arc<Ring>,
    /// Lost samples that were made good for.
    repaired: u64,
}

/// Both ends of a ring for `capacity` samples.
pub fn ring(capacity: usize) -> (Writer, RingReader) {
    let ring = Arc::new(Ring {
        cells: (0..capacity.max(1)).map(|_| AtomicU32::new(0)).collect(),
        written: AtomicU64::new(0),
        read: AtomicU64::new(0),
        lost: AtomicU64::new(0),
        overruns: AtomicU64::new(0),
        ended: AtomicBool::new(false),
        reason: Mutex::new(None),
    });
    (Writer { ring: ring.clone() }, RingReader { ring, repaired: 0 })
}

impl Writer {
    /// Appends the mean of the channels of whole interleaved frames. Neither waits nor takes memory.
    pub fn write(&mut self, interleaved: impl ExactSizeIterator<Item = f32>, channels: usize) {
        let ring = &*self.ring;
        let channels = channels.max(1);
        let frames = interleaved.len() / channels;
        let capacity = ring.cells.len() as u64;
        let at = ring.written.load(Ordering::Relaxed);
        let room = capacity - (at - ring.read.load(Ordering::Acquire));
        let fits = frames.min(usize::try_from(room).unwrap_or(usize::MAX));
        let mut samples = interleaved;
        for n in 0..fits {
            let sum: f32 = samples.by_ref().take(channels).sum();
            let mean = sum / channels as f32;
            // A driver's NaN is silence.
            let sample = if mean.is_finite() { mean.clamp(-1.0, 1.0) } else { 0.0 };
            ring.cells[((at + n as u64) % capacity) as usize].store(sample.to_bits(), Ordering::Relaxed);
        }
        if fits < frames {
            ring.lost.fetch_add((frames - fits) as u64, Ordering::Relaxed);
            ring.overruns.fetch_add(1, Ordering::Relaxed);
        }
        ring.written.store(at + fits as u64, Ordering::Release);
    }

    /// Counts samples that the driver itself says it lost; how many it does not say.
    pub fn overrun(&self) {
        self.ring.overruns.fetch_add(1, Ordering::Relaxed);
    }

    /// Nothing comes any more, for `reason` where that is a failure. The first reason counts.
    pub fn end(&self, reason: Option<String>) {
        let mut known = self.ring.reason.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.ring.ended.load(Ordering::Relaxed) {
            *known = reason;
        }
        self.ring.ended.store(true, Ordering::Release);
    }

    /// A second handle to say [`Self::end`] and [`Self::overrun`] from another callback.
    pub fn teller(&self) -> Teller {
        Teller(Self { ring: self.ring.clone() })
    }
}

/// Says what happened to a ring's source; cannot write samples.
pub struct Teller(Writer);

impl Teller {
    /// As [`Writer::overrun`].
    pub fn overrun(&self) {
        self.0.overrun();
    }

    /// As [`Writer::end`].
    pub fn end(&self, reason: Option<String>) {
        self.0.end(reason);
    }
}

/// What [`RingReader::read`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Samples.
    Samples,
    /// None yet.
    Nothing,
    /// None any more; why, where the source failed.
    End(Option<String>),
}

impl RingReader {
    /// Appends what is there. Lost samples are silence, so that time stays true.
    pub fn read(&mut self, out: &mut Vec<f32>) -> Heard {
        let ring = &*self.ring;
        // Before the samples: what is written before the end is read before the end is told.
        let ended = ring.ended.load(Ordering::Acquire);
        let lost = ring.lost.load(Ordering::Relaxed);
        let (from, to) = (ring.read.load(Ordering::Relaxed), ring.written.load(Ordering::Acquire));
        let capacity = ring.cells.len() as u64;
        out.extend((from..to).map(|n| f32::from_bits(ring.cells[(n % capacity) as usize].load(Ordering::Relaxed))));
        ring.read.store(to, Ordering::Release);
        let silence = usize::try_from(lost - self.repaired).unwrap_or(0);
        out.resize(out.len() + silence, 0.0);
        self.repaired = lost;
        match (to > from || silence > 0, ended) {
            (true, _) => Heard::Samples,
            (false, false) => Heard::Nothing,
            (false, true) => Heard::End(ring.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()),
        }
    }

    /// Samples that were lost because nobody read them in time, and how often samples were lost, the driver's own losses included.
    pub fn lost(&self) -> (u64, u64) {
        (self.ring.lost.load(Ordering::Relaxed), self.ring.overruns.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_pass_in_order_and_channels_are_averaged() {
        let (mut writer, mut reader) = ring(8);
        let mut out = Vec::new();
        assert_eq!(reader.read(&mut out), Heard::Nothing);
        for round in 0..5 {
            let base = round as f32 * 0.1;
            // Three frames of two channels and half a frame, as no driver sends it.
            writer.write([base, base + 0.2, 0.5, -0.5, f32::NAN, 0.0, 0.9].into_iter(), 2);
            assert_eq!(reader.read(&mut out), Heard::Samples);
            assert!((out[0] - base - 0.1).abs() < 1e-6 && out[1..] == [0.0, 0.0], "{out:?}");
            out.clear();
        }
        assert_eq!(reader.lost(), (0, 0));
    }

    #[test]
    fn what_does_not_fit_is_counted_and_becomes_silence() {
        let (mut writer, mut reader) = ring(4);
        writer.write([0.1f32; 3].into_iter(), 1);
        writer.write([0.2f32; 3].into_iter(), 1);
        writer.overrun();
        let mut out = Vec::new();
        assert_eq!(reader.read(&mut out), Heard::Samples);
        assert_eq!(out, [0.1, 0.1, 0.1, 0.2, 0.0, 0.0]);
        assert_eq!(reader.lost(), (2, 2));
        writer.write([0.3f32].into_iter(), 1);
        writer.end(Some("unplugged".into()));
        writer.end(None);
        out.clear();
        assert_eq!(reader.read(&mut out), Heard::Samples);
        assert_eq!(out, [0.3]);
        assert_eq!(reader.read(&mut out), Heard::End(Some("unplugged".into())));
    }

    #[test]
    fn two_threads_lose_nothing_that_fits() {
        let (mut writer, mut reader) = ring(1000);
        let total = 200_000u32;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut next = 0u32;
                while next < total {
                    let n = (next % 97 + 1).min(total - next);
                    // As a driver would, but it waits for room, so that nothing is lost.
                    while writer.ring.written.load(Ordering::Relaxed) - writer.ring.read.load(Ordering::Acquire) + u64::from(n) > 1000 {
                        std::thread::yield_now();
                    }
                    writer.write((next..next + n).map(|x| x as f32 / total as f32).collect::<Vec<_>>().into_iter(), 1);
                    next += n;
                }
                writer.end(None);
            });
            let mut out = Vec::new();
            while !matches!(reader.read(&mut out), Heard::End(_)) {
                std::thread::yield_now();
            }
            assert_eq!(out.len(), total as usize);
            assert!(out.iter().zip(0u32..).all(|(&x, n)| x == n as f32 / total as f32));
        });
    }
}
