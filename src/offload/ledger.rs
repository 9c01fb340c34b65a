//! The book of a memory budget.

/// Counts bytes that are taken and given back; more than the budget is never taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    budget: u64,
    resident: u64,
    peak: u64,
    moves: u64,
}

impl Ledger {
    /// An empty book.
    pub fn new(budget: u64) -> Self {
        Self { budget, resident: 0, peak: 0, moves: 0 }
    }

    /// Whether `bytes` more fit.
    pub fn fits(&self, bytes: u64) -> bool {
        self.resident + bytes <= self.budget
    }

    /// Takes `bytes`.
    ///
    /// # Panics
    /// If they do not fit: whoever takes memory asks first and evicts before loading.
    pub fn take(&mut self, bytes: u64) {
        assert!(self.fits(bytes), "{} bytes of experts and {bytes} more pass the budget of {}", self.resident, self.budget);
        self.resident += bytes;
        self.peak = self.peak.max(self.resident);
        self.moves += 1;
    }

    /// Gives `bytes` back.
    ///
    /// # Panics
    /// If they were not taken.
    pub fn give_back(&mut self, bytes: u64) {
        assert!(bytes <= self.resident, "{bytes} bytes given back of {} taken", self.resident);
        self.resident -= bytes;
        self.moves += 1;
    }

    /// Bytes taken now.
    pub fn resident(&self) -> u64 {
        self.resident
    }

    /// The most that was ever taken.
    pub fn peak(&self) -> u64 {
        self.peak
    }

    /// Bytes that may be taken.
    pub fn budget(&self) -> u64 {
        self.budget
    }

    /// Takings and givings so far.
    pub fn moves(&self) -> u64 {
        self.moves
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_count() {
        let mut ledger = Ledger::new(10);
        ledger.take(4);
        ledger.take(6);
        assert!(!ledger.fits(1) && ledger.fits(0));
        ledger.give_back(4);
        assert_eq!((ledger.resident(), ledger.peak(), ledger.moves()), (6, 10, 3));
    }

    #[test]
    #[should_panic(expected = "pass the budget of 10")]
    fn a_move_over_the_budget_is_caught() {
        let mut ledger = Ledger::new(10);
        ledger.take(7);
        ledger.take(4);
    }
}
