//! The front end for audio that arrives in pieces.

use super::log_mel::{FrontEnd, LogMel};
use super::stft::{Scratch, Stretch};

/// Computes the frames of [`FrontEnd::log_mel`] from pieces of any size, bit for bit.
///
/// The frames are those before normalisation, which is the caller's: take [`FrontEnd::statistics`], add each piece to it, then apply
/// the normalisation to the piece. That equals the offline result where nothing of the utterance is needed (none, global), and is a
/// running normalisation, which has seen only the past, for the others.
#[derive(Debug, Clone)]
pub struct FrontEndStream {
    front_end: FrontEnd,
    scratch: Scratch,
    /// Samples from `base` on that later frames need.
    pending: Vec<f32>,
    base: usize,
    /// Number of frames handed out.
    frames: usize,
}

impl FrontEndStream {
    /// A stream at the start of a waveform.
    pub fn new(front_end: &FrontEnd) -> Self {
        Self { front_end: front_end.clone(), scratch: front_end.scratch(), pending: Vec::new(), base: 0, frames: 0 }
    }

    /// Takes in samples and returns the frames that became final: frame `f` with sample `f * hop + delay`.
    pub fn step(&mut self, samples: &[f32]) -> LogMel {
        self.pending.extend_from_slice(samples);
        let received = self.base + self.pending.len();
        let hop = self.front_end.config().hop;
        let frames = received.checked_sub(self.delay()).map_or(0, |past| past / hop + 1);
        let out = self.frames_until(frames);
        self.forget();
        out
    }

    /// Ends the waveform, returns its last frames and starts the next one.
    pub fn flush(&mut self) -> LogMel {
        let out = self.frames_until(self.front_end.num_frames(self.base + self.pending.len()));
        self.reset();
        out
    }

    /// Forgets the waveform so far and starts the next one.
    pub fn reset(&mut self) {
        self.pending.clear();
        self.base = 0;
        self.frames = 0;
    }

    /// Samples after the start of a frame's hop until the frame is final.
    pub fn delay(&self) -> usize {
        self.front_end.delay()
    }

    fn frames_until(&mut self, end: usize) -> LogMel {
        let mels = self.front_end.config().mels;
        let frames = end.saturating_sub(self.frames);
        let mut values = vec![0.0; frames * mels];
        let stretch = Stretch { samples: &self.pending, base: self.base, total: self.base + self.pending.len() };
        self.front_end.frames_into(stretch, self.frames, &mut self.scratch, &mut values);
        self.frames += frames;
        LogMel { values, frames, mels }
    }

    /// Drops the samples before the next frame's, but for the one before them (pre-emphasis). What the next frames may mirror at
    /// the end lies under their own windows.
    fn forget(&mut self) {
        let next = self.front_end.start(self.frames);
        let keep_from = usize::try_from(next - 1).unwrap_or(0).max(self.base);
        let stale = (keep_from - self.base).min(self.pending.len());
        self.pending.drain(..stale);
        self.base += stale;
    }
}
