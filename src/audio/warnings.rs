//! What was lost or altered while reading: counted, not listed, so that memory stays flat on long damaged files.

/// Counters behind [`Reader::warnings`](super::Reader::warnings).
#[derive(Debug, Default)]
pub(super) struct Warnings {
    /// Packets that could not be decoded and became silence, with the time of the first, in seconds.
    pub undecodable: u64,
    pub first_undecodable: Option<f64>,
    /// NaN or infinite samples, set to 0.
    pub not_finite: u64,
    /// Samples far over full scale, clipped.
    pub clipped: u64,
    /// Why reading ended before the end of the data.
    pub stopped: Option<String>,
    /// Seconds the header promised and the data does not hold.
    pub missing_seconds: Option<f64>,
}

/// Overshoot up to here is normal for lossy codecs and loud float masters and is clipped without a word.
const FAR_OVER_FULL_SCALE: f32 = 4.0;

impl Warnings {
    /// Notes one undecodable packet `at` seconds from the start.
    pub fn undecodable_at(&mut self, at: f64) {
        self.undecodable += 1;
        self.first_undecodable.get_or_insert(at);
    }

    /// Makes every sample finite and in [-1, 1].
    pub fn sanitise(&mut self, samples: &mut [f32]) {
        // The common case in one branch-free pass: NaN and infinities fail the comparison.
        if samples.iter().fold(true, |ok, x| ok & (x.abs() <= 1.0)) {
            return;
        }
        for x in samples {
            if !x.is_finite() {
                self.not_finite += 1;
                *x = 0.0;
            } else if x.abs() > 1.0 {
                self.clipped += u64::from(x.abs() > FAR_OVER_FULL_SCALE);
                *x = x.clamp(-1.0, 1.0);
            }
        }
    }

    /// One line per kind of loss.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.undecodable > 0 {
            let at = self.first_undecodable.unwrap_or_default();
            lines.push(format!("{} damaged packet(s) replaced by silence, the first at {at:.2} s", self.undecodable));
        }
        if self.not_finite > 0 {
            lines.push(format!("{} sample(s) that are not finite set to 0", self.not_finite));
        }
        if self.clipped > 0 {
            lines.push(format!("{} sample(s) far over full scale clipped", self.clipped));
        }
        if let Some(reason) = &self.stopped {
            lines.push(format!("reading stopped early: {reason}"));
        }
        if let Some(seconds) = self.missing_seconds {
            lines.push(format!("the file holds {seconds:.2} s less than its header says"));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_become_finite_and_bounded() {
        let mut w = Warnings::default();
        let mut x = [0.5, f32::NAN, f32::INFINITY, -1.2, 1e30, -1.0];
        w.sanitise(&mut x);
        assert_eq!(x, [0.5, 0.0, 0.0, -1.0, 1.0, -1.0]);
        assert_eq!((w.not_finite, w.clipped), (2, 1));
        assert_eq!(w.lines().len(), 2);
    }

    #[test]
    fn nothing_lost_nothing_said() {
        let mut w = Warnings::default();
        w.sanitise(&mut [0.0, 1.0, -1.0]);
        assert!(w.lines().is_empty());
    }
}
