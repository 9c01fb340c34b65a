//! Chunks of steps that see nothing past their own end.

use std::ops::Range;

/// Which input steps an output step may use, besides those its taps reach.
#[derive(Clone, Copy)]
pub(super) enum Sees {
    /// All.
    All,
    /// Those before the end of its chunk of so many steps (values).
    UntilChunkEnd(usize),
    /// Those from the start of its chunk on (gradients of the input).
    FromChunkStart(usize),
}

impl Sees {
    fn chunk(self) -> Option<usize> {
        match self {
            Self::All => None,
            Self::UntilChunkEnd(chunk) | Self::FromChunkStart(chunk) => Some(chunk),
        }
    }

    /// What the output steps from `first` on, all of one chunk, see of `live` steps.
    pub(super) fn steps(self, first: usize, live: usize) -> Range<usize> {
        match self {
            Self::All => 0..live,
            Self::UntilChunkEnd(chunk) => 0..live.min((first / chunk + 1).saturating_mul(chunk)),
            Self::FromChunkStart(chunk) => (first / chunk * chunk).min(live)..live,
        }
    }

    /// Output steps `range` in pieces of one chunk each.
    pub(super) fn pieces(self, range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let mut first = range.start;
        std::iter::from_fn(move || {
            let end = self.chunk().map_or(range.end, |chunk| range.end.min((first / chunk + 1).saturating_mul(chunk)));
            let piece = first..end;
            first = end;
            (!piece.is_empty()).then_some(piece)
        })
    }
}
