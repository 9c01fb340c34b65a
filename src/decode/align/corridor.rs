//! Which states are looked at: all, or a corridor around places that are sure.
//!
//! Sure places are runs of tokens that occur once in the text and once in what the recording sounds like step by step. Between two of
//! them a rectangle is open; where it is large, shorter runs are looked for inside it, as in patience diff (Cohen 2003).

use std::collections::HashMap;
use std::ops::Range;

use super::Emissions;
use crate::decode::ctc::greedy;
use crate::error::Result;

/// Lengths of the runs looked for, in turn.
const RUNS: [usize; 5] = [16, 12, 8, 6, 4];
/// Steps read at once.
const READ_AT_ONCE: usize = 1024;
/// Steps by which the lower wall comes late and the upper one early. A word boundary that both sides have may belong, in the text, to words
/// that are missing: the best path is at another one in that step and jumps in the next.
const SLACK: usize = 16;
/// A path this many states from a wall might have gone beyond it.
const NEAR: usize = 8;

/// For each step the states that are looked at; neither wall ever goes back.
pub(super) enum Corridor {
    Everything { states: usize },
    Walls { states: usize, at: Vec<Range<u32>> },
}

impl Corridor {
    /// The corridor that keeps `margin` tokens to either side of the sure places, and how many of its steps only a straight line guides:
    /// those between two sure places with more than `open` steps times tokens.
    pub(super) fn around(sure: &[(usize, usize)], steps: usize, tokens: usize, margin: usize, open: usize) -> (Self, usize) {
        let mut tight: Vec<Range<u32>> = Vec::with_capacity(steps);
        let mut unguided = 0;
        let mut from = (0, 0);
        for &to in sure.iter().chain([&(steps, tokens)]) {
            let (long, high) = (to.0 - from.0, to.1 - from.1);
            let straight = long.saturating_mul(high) > open;
            unguided += if straight { long } else { 0 };
            for step in 0..long {
                let (low, top) = if straight {
                    let (center, half) = (from.1 + high * step / long, margin + open / long / 2);
                    (center.saturating_sub(half).max(from.1.saturating_sub(margin)), (center + half).min(to.1 + margin))
                } else {
                    (from.1.saturating_sub(margin), to.1 + margin)
                };
                tight.push(2 * low as u32..2 * top.min(tokens) as u32 + 1);
            }
            from = to;
        }
        let low = |step: usize| tight[step.saturating_sub(SLACK)].start;
        let top = |step: usize| tight[(step + SLACK).min(steps - 1)].end;
        let at = (0..steps).map(|step| low(step)..top(step)).collect();
        (Self::Walls { states: 2 * tokens + 1, at }, unguided)
    }

    /// States looked at in this step.
    pub(super) fn at(&self, step: usize) -> Range<usize> {
        match self {
            Self::Everything { states } => 0..*states,
            Self::Walls { at, .. } => at[step].start as usize..at[step].end as usize,
        }
    }

    /// Whether a path comes so near a wall that a better one might lie beyond.
    pub(super) fn is_near_wall(&self, path: impl Iterator<Item = usize>) -> bool {
        let Self::Walls { states, at } = self else { return false };
        path.zip(at).any(|(state, band)| {
            let (start, end) = (band.start as usize, band.end as usize);
            start > 0 && state < start + NEAR || end < *states && state + NEAR >= end
        })
    }
}

/// Places `(step, token of the text)` that are sure, both rising, so dense where possible that between two of them there are no more
/// than `open` steps times tokens.
pub(super) fn sure_places(emissions: &mut impl Emissions, text: &[u32], blank: u32, open: usize) -> Result<Vec<(usize, usize)>> {
    let mut heard = Heard::default();
    let mut rows = vec![];
    let (steps, vocab) = (emissions.steps(), emissions.vocab());
    for start in (0..steps).step_by(READ_AT_ONCE) {
        let piece = start..steps.min(start + READ_AT_ONCE);
        emissions.read(piece.clone(), &mut rows)?;
        // A token across the edge of two pieces is heard twice: one run of tokens is not found, its neighbours are.
        heard.append(&rows, piece, vocab, blank);
    }
    let mut sure = vec![];
    heard.compare(0..heard.tokens.len(), text, 0..text.len(), &RUNS, open, &mut sure);
    Ok(sure)
}

/// The most probable tokens with their first steps.
#[derive(Default)]
struct Heard {
    tokens: Vec<u32>,
    steps: Vec<usize>,
}

impl Heard {
    fn append(&mut self, rows: &[f32], piece: Range<usize>, vocab: usize, blank: u32) {
        let best = greedy(rows, piece.len(), vocab, blank);
        self.tokens.extend(best.tokens);
        self.steps.extend(best.steps.into_iter().map(|step| piece.start + step));
    }

    /// Appends the sure places of a rectangle, found with runs of the first of these lengths that occurs.
    fn compare(&self, heard: Range<usize>, text: &[u32], place: Range<usize>, runs: &[usize], open: usize, sure: &mut Vec<(usize, usize)>) {
        let long = heard.clone().last().map_or(0, |last| self.steps[last] - self.steps[heard.start]);
        let Some((&run, shorter)) = runs.split_first().filter(|_| long.saturating_mul(place.len()) > open) else { return };
        let chain = rising(common_once(&self.tokens[heard.clone()], &text[place.clone()], run));
        let mut from = (heard.start, place.start);
        for (h, p) in chain {
            let to = (heard.start + h, place.start + p);
            // Runs overlap; only what lies between two that do not is open.
            if to.0 >= from.0 && to.1 >= from.1 {
                self.compare(from.0..to.0, text, from.1..to.1, shorter, open, sure);
            }
            sure.push((self.steps[to.0], to.1));
            from = (to.0 + run, to.1 + run);
        }
        if from.0 <= heard.end && from.1 <= place.end {
            self.compare(from.0..heard.end, text, from.1..place.end, shorter, open, sure);
        }
    }
}

/// Places of the runs of `length` that occur once in both sequences, in the order of the first.
fn common_once(first: &[u32], second: &[u32], length: usize) -> Vec<(usize, usize)> {
    let once = |tokens| {
        let mut places: HashMap<&[u32], Option<usize>> = HashMap::new();
        for (at, run) in <[u32]>::windows(tokens, length).enumerate() {
            places.entry(run).and_modify(|place| *place = None).or_insert(Some(at));
        }
        places
    };
    let (in_first, in_second) = (once(first), once(second));
    let mut common: Vec<_> = in_first.iter().filter_map(|(run, place)| Some(((*place)?, (*in_second.get(run)?)?))).collect();
    common.sort_unstable();
    common
}

/// A longest chain of places that rise on both sides.
fn rising(places: Vec<(usize, usize)>) -> Vec<(usize, usize)> {
    // Patience sorting: the end of the best chain of every length, and each place's predecessor.
    let mut ends: Vec<usize> = vec![];
    let mut before = vec![None; places.len()];
    for (i, place) in places.iter().enumerate() {
        let length = ends.partition_point(|&end| places[end].1 < place.1);
        before[i] = length.checked_sub(1).map(|shorter| ends[shorter]);
        if length == ends.len() {
            ends.push(i);
        } else {
            ends[length] = i;
        }
    }
    let mut chain: Vec<_> = std::iter::successors(ends.last().copied(), |&i| before[i]).map(|i| places[i]).collect();
    chain.reverse();
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_rise_on_both_sides() {
        assert_eq!(rising(vec![(0, 5), (1, 1), (2, 9), (3, 2), (4, 3), (5, 0)]), [(1, 1), (3, 2), (4, 3)]);
        assert_eq!(rising(vec![]), []);
    }

    #[test]
    fn runs_that_repeat_are_not_sure() {
        assert_eq!(common_once(&[1, 2, 3, 1, 2, 4], &[9, 2, 3, 1, 2], 2), [(1, 1), (2, 2)]);
        assert_eq!(common_once(&[1], &[1, 2], 2), []);
    }

    #[test]
    fn walls_never_go_back_and_hold_the_sure_places() {
        let sure = [(10_000, 100), (10_001, 101), (20_000, 9_000), (29_000, 9_010)];
        let (corridor, unguided) = Corridor::around(&sure, 30_000, 10_000, 50, 20_000_000);
        let bands: Vec<_> = (0..30_000).map(|step| corridor.at(step)).collect();
        assert!(bands.windows(2).all(|w| w[0].start <= w[1].start && w[0].end <= w[1].end));
        assert!(sure.iter().all(|&(step, token)| bands[step].contains(&(2 * token + 1 - 100)) && bands[step].contains(&(2 * token + 100))));
        assert_eq!((bands[0].start, bands[29_999].end), (0, 20_001));
        // Only the step from 101 to 9000 is too large to be open as a whole.
        assert_eq!(unguided, 9_999);
        assert!(bands[10_001..20_000].iter().all(|band| band.len() < 4_400));
    }
}
