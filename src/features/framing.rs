//! Which samples make frame `f`, and how many frames there are: the only place that knows.

use serde::{Deserialize, Serialize};

/// Where frames lie over the waveform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Framing {
    /// Whole windows only, the first at sample 0 (Kaldi `snip_edges=true`): `1 + (samples - window) / hop` frames.
    Inside,
    /// Frame `f` is centred at `(f + 1/2) hop`, edges mirrored with the edge sample repeated (Kaldi `snip_edges=false`):
    /// `(samples + hop / 2) / hop` frames.
    HopCentred,
    /// Frame `f` is centred at `f hop` (`torch.stft(center=True)`): `samples / hop + 1` frames, the last as `last` says.
    Centred {
        /// What lies beyond the ends.
        padding: Padding,
        /// What becomes of frame `samples / hop`, more than half of which may lie past the end.
        last: LastFrame,
    },
}

/// What lies beyond the ends of the waveform (after pre-emphasis of the waveform, where there is one).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// Silence.
    Zeros,
    /// The waveform mirrored, the edge sample not repeated.
    Reflect,
}

/// What becomes of the last centred frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LastFrame {
    /// A frame like the others.
    Keep,
    /// Not computed (Whisper).
    Drop,
    /// Computed but not valid: no part in the statistics, zero after normalisation (NeMo).
    Mask,
}

/// Frame arithmetic of one configuration.
#[derive(Debug, Clone)]
pub(super) struct Grid {
    pub framing: Framing,
    pub window: usize,
    pub hop: usize,
    pub n_fft: usize,
}

impl Grid {
    /// Number of frames of a waveform of `samples` samples.
    pub fn num_frames(&self, samples: usize) -> usize {
        match self.framing {
            _ if samples == 0 => 0,
            Framing::Inside => samples.checked_sub(self.window).map_or(0, |rest| rest / self.hop + 1),
            Framing::HopCentred => (samples + self.hop / 2) / self.hop,
            Framing::Centred { last: LastFrame::Drop, .. } => samples / self.hop,
            Framing::Centred { last: LastFrame::Keep | LastFrame::Mask, .. } => samples / self.hop + 1,
        }
    }

    /// Number of frames that count; those after them are padding.
    pub fn valid_frames(&self, samples: usize) -> usize {
        match self.framing {
            Framing::Centred { last: LastFrame::Mask, .. } => samples / self.hop,
            _ => self.num_frames(samples),
        }
    }

    /// Position of the first sample under the window of `frame`; negative before the waveform.
    pub fn start(&self, frame: usize) -> isize {
        let before = match self.framing {
            Framing::Inside => 0,
            Framing::HopCentred => (self.window / 2) as isize - (self.hop / 2) as isize,
            Framing::Centred { .. } => (self.n_fft / 2 - (self.n_fft - self.window) / 2) as isize,
        };
        (frame * self.hop) as isize - before
    }

    /// Frame `f` no longer depends on what follows once `f * hop + delay` samples are in.
    pub fn delay(&self) -> usize {
        let first = self.start(0);
        let covered = (self.window as isize + first).max(1) as usize;
        let mirrored = (-first).max(0) as usize;
        match self.framing {
            Framing::Inside => covered,
            Framing::HopCentred => covered.max(mirrored),
            Framing::Centred { padding, last } => {
                let mirrored = if padding == Padding::Reflect { mirrored + 1 } else { 0 };
                covered.max(mirrored).max(if last == LastFrame::Drop { self.hop } else { 1 })
            }
        }
    }

    /// The sample that stands at `position` of a waveform of `samples`; `None` is silence.
    pub fn source(&self, position: isize, samples: usize) -> Option<usize> {
        let n = samples as isize;
        let edge = match self.framing {
            _ if (0..n).contains(&position) => return Some(position as usize),
            Framing::Inside | Framing::Centred { padding: Padding::Zeros, .. } => return None,
            Framing::HopCentred => 1,
            Framing::Centred { padding: Padding::Reflect, .. } => 0,
        };
        // Mirrored ends make a periodic signal: 2n samples with the edge samples repeated, 2n - 2 without.
        let period = (2 * n - 2 + 2 * edge).max(1);
        let phase = position.rem_euclid(period);
        (n > 0).then(|| if phase < n { phase } else { period - edge - phase } as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFLECT: Framing = Framing::Centred { padding: Padding::Reflect, last: LastFrame::Drop };
    const NEMO: Framing = Framing::Centred { padding: Padding::Zeros, last: LastFrame::Mask };

    fn grid(framing: Framing) -> Grid {
        Grid { framing, window: 400, hop: 160, n_fft: 512 }
    }

    #[test]
    fn frame_counts_at_the_edges() {
        for (framing, counts) in [
            (Framing::Inside, [(0, 0), (1, 0), (399, 0), (400, 1), (559, 1), (560, 2)]),
            (Framing::HopCentred, [(0, 0), (1, 0), (79, 0), (80, 1), (239, 1), (240, 2)]),
            (REFLECT, [(0, 0), (1, 0), (159, 0), (160, 1), (399, 2), (480, 3)]),
            (NEMO, [(0, 0), (1, 1), (159, 1), (160, 2), (399, 3), (480, 4)]),
        ] {
            for (samples, frames) in counts {
                assert_eq!(grid(framing).num_frames(samples), frames, "{framing:?} {samples}");
            }
        }
        assert_eq!(grid(NEMO).valid_frames(1), 0);
        assert_eq!(grid(NEMO).valid_frames(480), 3);
    }

    #[test]
    fn first_sample_and_delay() {
        for (framing, start, delay) in
            [(Framing::Inside, 0, 400), (Framing::HopCentred, -120, 280), (REFLECT, -200, 201), (NEMO, -200, 200)]
        {
            assert_eq!(grid(framing).start(0), start, "{framing:?}");
            assert_eq!(grid(framing).start(3), start + 480, "{framing:?}");
            assert_eq!(grid(framing).delay(), delay, "{framing:?}");
        }
    }

    #[test]
    fn mirrors_repeat_the_edge_or_not() {
        let at = |framing, n| (-4..7).map(|p| grid(framing).source(p, n).map_or(9, |i| i)).collect::<Vec<_>>();
        assert_eq!(at(Framing::HopCentred, 3), [2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0]);
        assert_eq!(at(REFLECT, 3), [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]);
        assert_eq!(at(NEMO, 3), [9, 9, 9, 9, 0, 1, 2, 9, 9, 9, 9]);
        assert_eq!(at(REFLECT, 1), [0; 11]);
        assert_eq!(at(Framing::HopCentred, 1), [0; 11]);
    }
}
