//! The log-probabilities of one step, and what passing it over would give.

/// No path.
pub(super) const NONE: f64 = f64::NEG_INFINITY;

/// A step's log-probabilities, with one more column: what a blank at the edge of a word scores.
#[derive(Default)]
pub(super) struct Row {
    pub values: Vec<f64>,
    pub passed_over: bool,
}

impl Row {
    /// Takes over a step's log-probabilities; NaN and plus infinity count as probability zero.
    pub fn fill(&mut self, log_probs: &[f32], blank: usize, extra: f64) {
        self.values.clear();
        self.values.extend(log_probs.iter().map(|&p| if p < f32::INFINITY { f64::from(p) } else { NONE }));
        let others = self.values.iter().enumerate().filter(|(token, _)| *token != blank);
        let best = others.map(|(_, &p)| p).fold(NONE, f64::max) - extra;
        self.passed_over = best > self.values[blank];
        self.values.push(best.max(self.values[blank]));
    }
}
