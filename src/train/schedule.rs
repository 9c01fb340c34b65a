//! Learning rate over a run.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Linear warm-up, then a decay over the run's audio hours.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// Shape after the warm-up.
    pub kind: ScheduleKind,
    /// Steps from 0 to the peak.
    pub warmup_steps: u64,
    /// Share of the peak that the decay ends at.
    pub floor: f64,
}

/// Shape of the decay; `p` is the share of the run that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// 1.
    Constant,
    /// `1 - p`.
    Linear,
    /// `(1 + cos(pi p)) / 2`.
    Cosine,
    /// `sqrt(warmup / step)` (Vaswani et al. 2017).
    InverseSqrt,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self { kind: ScheduleKind::Cosine, warmup_steps: 1000, floor: 0.01 }
    }
}

impl ScheduleConfig {
    /// # Errors
    /// [`Error::Config`]
    pub fn validate(&self) -> Result<()> {
        if (0.0..=1.0).contains(&self.floor) {
            Ok(())
        } else {
            Err(Error::config("run configuration", format!("schedule.floor = {}: must lie in 0..=1", self.floor)))
        }
    }

    /// Factor on the peak rate at `step` (from 0) when `progress` (0 to 1) of the run is done.
    pub fn factor(&self, step: u64, progress: f64) -> f64 {
        let warm = (step + 1) as f64 / self.warmup_steps.max(1) as f64;
        let p = progress.clamp(0.0, 1.0);
        let decay = match self.kind {
            ScheduleKind::Constant => 1.0,
            ScheduleKind::Linear => 1.0 - p,
            ScheduleKind::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * p).cos()),
            ScheduleKind::InverseSqrt => (self.warmup_steps.max(1) as f64 / (step + 1).max(self.warmup_steps) as f64).sqrt(),
        };
        warm.min(self.floor + (1.0 - self.floor) * decay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warms_up_peaks_and_decays() {
        for kind in [ScheduleKind::Constant, ScheduleKind::Linear, ScheduleKind::Cosine, ScheduleKind::InverseSqrt] {
            let s = ScheduleConfig { kind, warmup_steps: 10, floor: 0.1 };
            assert!((s.factor(0, 0.0) - 0.1).abs() < 1e-12);
            assert!((s.factor(9, 0.0) - 1.0).abs() < 1e-12);
        }
        let s = ScheduleConfig { kind: ScheduleKind::Cosine, warmup_steps: 10, floor: 0.1 };
        assert!((s.factor(1000, 1.0) - 0.1).abs() < 1e-12);
        assert!((s.factor(1000, 0.5) - 0.55).abs() < 1e-12);
        let s = ScheduleConfig { kind: ScheduleKind::InverseSqrt, warmup_steps: 100, floor: 0.0 };
        assert!((s.factor(399, 0.9) - 0.5).abs() < 1e-12);
    }
}
