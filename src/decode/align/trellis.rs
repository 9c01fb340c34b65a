//! The states an alignment passes through and the best path through them, with scores kept at few steps only.
//!
//! A blank, the first token, a blank, the second token, ..., a blank: states `0..=2 * tokens`, as in CTC. In a loose fit the blanks at the
//! edges of words also stand for any other token, at a price, and there is a *lane* from the front of each word to the front of every
//! later one that takes no step and costs the tokens in between.

use std::ops::Range;

use super::corridor::Corridor;
use super::row::{NONE, Row};
use super::{Emissions, Fit, Options};
use crate::error::Result;

/// Up to this many cells every way back is kept at once, in bytes.
const KEPT_WHOLE: usize = 16 << 20;
/// Steps that are read together when nothing has to be kept.
const READ_AT_ONCE: usize = 1024;

/// Where a state stands.
pub(super) enum Place {
    /// A token of this word.
    Word(usize),
    /// A separator, or the blank beside it, before this word (after the last: the number of words).
    Gap(usize),
    /// A blank between two tokens of a word.
    InWord,
}

/// One step of a path.
#[derive(Debug, Clone, Copy)]
pub(super) struct PathStep {
    pub state: u32,
    /// Of what the step was taken for.
    pub log_prob: f32,
    /// Of the blank.
    pub blank: f32,
    /// Other speech than the text's.
    pub passed_over: bool,
}

/// How a cell was reached. A lane cell's code is about the step before; see [`Lane`].
mod from {
    pub const SAME: u8 = 0;
    pub const ONE_BACK: u8 = 1;
    pub const TWO_BACK: u8 = 2;
    pub const LANE: u8 = 3;
}

/// The states of a text.
pub(super) struct Trellis {
    /// Tokens of all words with separators between.
    tokens: Vec<u32>,
    /// Column of a [`Row`] that each state takes its log-probability from.
    columns: Vec<u32>,
    /// 0 where the blank before a token may be left out, minus infinity elsewhere.
    jumps: Vec<f64>,
    /// State of each word's first token.
    firsts: Vec<usize>,
    /// Price of passing over each word, in a loose fit.
    skips: Option<Vec<f64>>,
    blank: usize,
    vocab: usize,
    has_separators: bool,
    missing: f64,
    extra: f64,
}

/// Scores of the states `start..start + values.len()` at one step.
#[derive(Debug, Clone, Default)]
struct Scores {
    start: usize,
    values: Vec<f64>,
}

impl Scores {
    fn get(&self, state: usize) -> f64 {
        state.checked_sub(self.start).and_then(|i| self.values.get(i)).copied().unwrap_or(NONE)
    }

    /// Scores from two states before `start`, `length` of them; those outside are [`NONE`].
    fn copy_into(&self, start: usize, length: usize, out: &mut Vec<f64>) {
        out.clear();
        out.resize(length, NONE);
        // Positions are shifted by two so that none is negative.
        let (from, to) = (start.max(self.start + 2), (start + length).min(self.start + 2 + self.values.len()));
        if from < to {
            out[from - start..to - start].copy_from_slice(&self.values[from - 2 - self.start..to - 2 - self.start]);
        }
    }
}

/// Scores at the front of words, before their first token, from the step before. The codes tell where the best came from: the front of
/// the word before (`SAME`), the blank or the separator before that word (`ONE_BACK`, `TWO_BACK` from its first token), or, for one
/// token's price, the blank before this word's own separator (`LANE`).
#[derive(Debug, Default)]
struct Lane {
    start: usize,
    values: Vec<f64>,
    codes: Vec<u8>,
}

/// How every cell of a few steps was reached.
#[derive(Default)]
struct WayBack {
    cells: Vec<u8>,
    lanes: Vec<u8>,
    /// For each step: first state, first front, and where their codes begin.
    steps: Vec<(usize, usize, usize, usize)>,
}

impl Trellis {
    pub(super) fn new(words: &[Vec<u32>], vocab: usize, options: &Options) -> Self {
        let mut tokens = Vec::with_capacity(words.iter().map(|w| w.len() + 1).sum());
        let mut firsts = Vec::with_capacity(words.len());
        let mut edges = vec![];
        for (i, word) in words.iter().enumerate() {
            if let Some(separator) = options.separator.filter(|_| i > 0) {
                edges.push(2 * tokens.len());
                tokens.push(separator);
            }
            edges.push(2 * tokens.len());
            firsts.push(2 * tokens.len() + 1);
            tokens.extend_from_slice(word);
        }
        edges.push(2 * tokens.len());
        let mut columns = vec![options.blank; 2 * tokens.len() + 1];
        let mut jumps = vec![NONE; columns.len()];
        for (i, &token) in tokens.iter().enumerate() {
            columns[2 * i + 1] = token;
            if i > 0 && tokens[i - 1] != token {
                jumps[2 * i + 1] = 0.0;
            }
        }
        edges.iter().for_each(|&edge| columns[edge] = vocab as u32);
        let with_separator = f64::from(u8::from(options.separator.is_some()));
        let (missing, extra, skips) = match options.fit {
            Fit::Exact => (0.0, f64::INFINITY, None),
            Fit::Loose(c) => (c.missing, c.extra, Some(words.iter().map(|w| c.missing * (w.len() as f64 + with_separator)).collect())),
        };
        let has_separators = options.separator.is_some();
        Self { tokens, columns, jumps, firsts, skips, blank: options.blank as usize, vocab, has_separators, missing, extra }
    }

    pub(super) fn states(&self) -> usize {
        self.columns.len()
    }

    pub(super) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Token of a state, `None` for blanks.
    pub(super) fn token(&self, state: usize) -> Option<u32> {
        (!state.is_multiple_of(2)).then(|| self.tokens[state / 2])
    }

    pub(super) fn place(&self, state: usize) -> Place {
        let begun = self.firsts.partition_point(|&first| first <= state);
        let end = self.firsts.get(begun).map_or(self.states() - 1, |next| next - if self.has_separators { 3 } else { 1 });
        match begun.checked_sub(1) {
            Some(word) if state < end => {
                if state.is_multiple_of(2) {
                    Place::InWord
                } else {
                    Place::Word(word)
                }
            }
            _ => Place::Gap(begun),
        }
    }

    /// Steps that a path through every token takes: one for each, and a blank between equal neighbours.
    pub(super) fn least_steps(&self) -> usize {
        self.tokens.len() + self.tokens.windows(2).filter(|pair| pair[0] == pair[1]).count()
    }

    /// The best path within the corridor, `None` if all have probability zero. There must be a step.
    pub(super) fn best_path(&self, emissions: &mut impl Emissions, corridor: &Corridor) -> Result<Option<Vec<PathStep>>> {
        let steps = emissions.steps();
        let most = (0..steps).map(|step| corridor.at(step).len()).max().unwrap_or(0);
        let segment =
            if steps.saturating_mul(most.max(self.vocab)) <= KEPT_WHOLE { steps } else { (8.0 * steps as f64).sqrt() as usize + 1 };
        let starts: Vec<usize> = (0..steps).step_by(segment).collect();
        let mut kept: Vec<Scores> = vec![];
        let mut scores = Scores::default();
        let mut path = vec![];
        let mut rows = vec![];
        for (i, &start) in starts.iter().enumerate() {
            kept.push(scores.clone());
            if i + 1 < starts.len() {
                let end = start + segment;
                for from in (start..end).step_by(READ_AT_ONCE) {
                    let piece = from..end.min(from + READ_AT_ONCE);
                    emissions.read(piece.clone(), &mut rows)?;
                    self.forward(&rows, piece, corridor, &mut scores, None);
                }
            }
        }
        let mut state = 0;
        for &start in starts.iter().rev() {
            let piece = start..steps.min(start + segment);
            let mut scores = kept.pop().unwrap_or_default();
            let mut back = WayBack::default();
            emissions.read(piece.clone(), &mut rows)?;
            self.forward(&rows, piece.clone(), corridor, &mut scores, Some(&mut back));
            if piece.end == steps {
                match self.best_end(&scores) {
                    Some(end) => state = end,
                    None => return Ok(None),
                }
            }
            self.walk_back(&rows, piece, &back, &mut state, &mut path);
        }
        path.reverse();
        Ok(Some(path))
    }

    /// Moves `scores` over the steps `piece`, of which `rows` holds the log-probabilities. Scores of no states are those before the start.
    fn forward(&self, rows: &[f32], piece: Range<usize>, corridor: &Corridor, scores: &mut Scores, mut back: Option<&mut WayBack>) {
        let mut row = Row::default();
        let mut lane = Lane::default();
        let mut before = Scores::default();
        let (mut codes, mut old) = (vec![], vec![]);
        for (step, log_probs) in piece.zip(rows.chunks_exact(self.vocab)) {
            row.fill(log_probs, self.blank, self.extra);
            let band = corridor.at(step);
            let first_state = band.start;
            std::mem::swap(scores, &mut before);
            codes.clear();
            if step == 0 {
                self.start(&row, band, scores, &mut lane, &mut codes);
            } else {
                self.fill_lane(&before, band.end, &mut lane);
                self.advance(&row, band, &before, scores, &mut codes, &mut old);
                self.enter_from_lane(&row, &lane, scores, &mut codes);
            }
            if let Some(back) = &mut back {
                back.steps.push((first_state, lane.start, back.cells.len(), back.lanes.len()));
                back.cells.extend_from_slice(&codes);
                back.lanes.extend_from_slice(&lane.codes);
            }
        }
    }

    /// Scores of the first step.
    fn start(&self, row: &Row, band: Range<usize>, scores: &mut Scores, lane: &mut Lane, codes: &mut Vec<u8>) {
        scores.start = band.start;
        scores.values.clear();
        scores.values.extend(band.map(|state| if state < 2 { row.values[self.columns[state] as usize] } else { NONE }));
        codes.resize(scores.values.len(), from::SAME);
        *lane = Lane::default();
        if let Some(skips) = &self.skips {
            let passed = skips.iter().scan(0.0, |sum, price| Some(std::mem::replace(sum, *sum - price)));
            lane.values.extend(passed);
            lane.codes.resize(lane.values.len(), from::SAME);
            self.enter_from_lane(row, lane, scores, codes);
        }
    }

    /// One step of CTC: stay, go on by one state, or leave out the blank between different tokens. `old` is room to work in.
    fn advance(&self, row: &Row, band: Range<usize>, before: &Scores, scores: &mut Scores, codes: &mut Vec<u8>, old: &mut Vec<f64>) {
        before.copy_into(band.start, band.len() + 2, old);
        scores.start = band.start;
        scores.values.clear();
        let states = self.columns[band.clone()].iter().zip(&self.jumps[band]);
        for (near, (&column, &jump)) in old.windows(3).zip(states) {
            let (mut best, mut code) = (near[2], from::SAME);
            if near[1] > best {
                (best, code) = (near[1], from::ONE_BACK);
            }
            let jumped = near[0] + jump;
            if jumped > best {
                (best, code) = (jumped, from::TWO_BACK);
            }
            scores.values.push(best + row.values[column as usize]);
            codes.push(code);
        }
    }

    /// Fronts of words that can be reached from `before` and lie in states below `end`.
    fn fill_lane(&self, before: &Scores, end: usize, lane: &mut Lane) {
        lane.values.clear();
        lane.codes.clear();
        let Some(skips) = &self.skips else { return };
        lane.start = self.firsts.partition_point(|&first| first <= before.start);
        let last = self.firsts.partition_point(|&first| first < end);
        let (mut value, mut code) = (NONE, from::SAME);
        for (&first, skip) in self.firsts.iter().zip(skips).take(last).skip(lane.start) {
            let separated = self.has_separators && first > 1;
            if separated && before.get(first - 3) - self.missing > value {
                (value, code) = (before.get(first - 3) - self.missing, from::LANE);
            }
            lane.values.push(value);
            lane.codes.push(code);
            (value, code) = self.pass_over(before, first, value, *skip);
        }
    }

    /// Best score and code at the front of the word after the one whose first token is in state `first`.
    fn pass_over(&self, before: &Scores, first: usize, front: f64, skip: f64) -> (f64, u8) {
        let (mut value, mut code) = (front, from::SAME);
        if before.get(first - 1) > value {
            (value, code) = (before.get(first - 1), from::ONE_BACK);
        }
        if self.has_separators && first > 1 && before.get(first - 2) > value {
            (value, code) = (before.get(first - 2), from::TWO_BACK);
        }
        (value - skip, code)
    }

    fn enter_from_lane(&self, row: &Row, lane: &Lane, scores: &mut Scores, codes: &mut [u8]) {
        for (&first, &value) in self.firsts[lane.start..].iter().zip(&lane.values) {
            let Some(i) = first.checked_sub(scores.start).filter(|&i| i < scores.values.len()) else { continue };
            let entered = value + row.values[self.columns[first] as usize];
            if entered > scores.values[i] {
                scores.values[i] = entered;
                codes[i] = from::LANE;
            }
        }
    }

    /// State in which the best path ends.
    fn best_end(&self, scores: &Scores) -> Option<usize> {
        let last = self.states() - 1;
        let mut best = (scores.get(last), last);
        if last > 0 && scores.get(last - 1) > best.0 {
            best = (scores.get(last - 1), last - 1);
        }
        // Words at the end may be passed over from the front of any.
        let mut lane = Lane::default();
        self.fill_lane(scores, self.states(), &mut lane);
        if let (Some(skips), Some((&front, front_word))) = (&self.skips, lane.values.last().zip(self.firsts.len().checked_sub(1))) {
            let first = self.firsts[front_word];
            let (value, code) = self.pass_over(scores, first, front, skips[front_word]);
            if value > best.0 {
                best = (value, self.leave_lane(&lane.codes, lane.start, front_word + 1, code));
            }
        }
        (best.0 > NONE).then_some(best.1)
    }

    /// State at the step before from which the front of `word` was reached.
    fn leave_lane(&self, codes: &[u8], start: usize, mut word: usize, mut code: u8) -> usize {
        loop {
            match code {
                from::SAME if word > start => {
                    word -= 1;
                    code = codes[word - start];
                }
                from::ONE_BACK => return self.firsts[word - 1] - 1,
                from::TWO_BACK => return self.firsts[word - 1] - 2,
                // The first front has no other way in: the code of a cell that no path reaches.
                _ => return self.firsts[word] - 3,
            }
        }
    }

    /// Appends the steps of `piece` from the last to the first; `state` is the one at the last, then the one before the first.
    fn walk_back(&self, rows: &[f32], piece: Range<usize>, back: &WayBack, state: &mut usize, path: &mut Vec<PathStep>) {
        let mut row = Row::default();
        for (i, step) in piece.enumerate().rev() {
            row.fill(&rows[i * self.vocab..][..self.vocab], self.blank, self.extra);
            let column = self.columns[*state] as usize;
            let edge = column == self.vocab;
            let passed_over = edge && row.passed_over;
            let price = if passed_over { self.extra } else { 0.0 };
            let log_prob = (row.values[column] + price) as f32;
            path.push(PathStep { state: *state as u32, log_prob, blank: row.values[self.blank] as f32, passed_over });
            if step == 0 {
                return;
            }
            let (first_state, first_front, cells, lanes) = back.steps[i];
            *state = match back.cells[cells + *state - first_state] {
                from::LANE => {
                    let word = self.firsts.partition_point(|first| first < state);
                    let codes = &back.lanes[lanes..back.steps.get(i + 1).map_or(back.lanes.len(), |next| next.3)];
                    self.leave_lane(codes, first_front, word, codes[word - first_front])
                }
                code => *state - usize::from(code),
            };
        }
    }
}
