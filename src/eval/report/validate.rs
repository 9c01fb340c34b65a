//! What the numbers of a result must keep to, whoever wrote them.

use std::collections::BTreeSet;

use super::result::{ExpertUsage, RunResult, Shares, mean_over, rtfx};
use crate::eval::bootstrap::Interval;

/// Numbers that say the same thing twice may differ by this share: the decimals of a hand-made file.
const ROUNDING: f64 = 1e-4;
/// No corpus has more words or characters; sums of such counts do not overflow.
const MOST_WORDS: usize = 1 << 48;

impl RunResult {
    /// Refuses numbers that contradict each other: field, value, rule.
    pub(super) fn validate(&self) -> Result<(), String> {
        let p = &self.provenance;
        if self.run != p.run_id() {
            return Err(format!("run {:?} is not the id of its provenance, {:?}: edited by hand?", self.run, p.run_id()));
        }
        let names: Vec<&str> = self.sets.iter().map(|s| s.name.as_str()).collect();
        if names.iter().collect::<BTreeSet<_>>().len() != names.len() {
            return Err(format!("sets {names:?}: a name stands twice"));
        }
        if names != p.corpora.iter().map(|c| c.set.as_str()).collect::<Vec<_>>() {
            return Err(format!("sets {names:?} are not those of provenance.corpora"));
        }
        for set in &self.sets {
            let at = |field: &str| format!("set {:?}: {field}", set.name);
            for (field, errors, rate) in [("wer", set.words, set.wer), ("cer", set.characters, set.cer)] {
                if [errors.substitutions, errors.insertions, errors.deletions, errors.reference_words].iter().any(|&n| n > MOST_WORDS) {
                    return Err(format!("{}: {errors:?}: over the limit of {MOST_WORDS}", at(field)));
                }
                if errors.substitutions + errors.deletions > errors.reference_words {
                    return Err(format!("{}: more substitutions and deletions than the reference has", at(field)));
                }
                agree(&at(field), rate, errors.wer())?;
            }
            positive(&at("hours"), set.hours)?;
            if let Some(Interval { low, high, .. }) = set.interval.filter(|i| !(0.0 <= i.low && i.low <= i.high && i.high.is_finite())) {
                return Err(format!("{}: {low} to {high}", at("interval")));
            }
        }
        agree("mean.wer", self.mean.wer, mean_over(&self.sets, |s| s.wer))?;
        agree("mean.cer", self.mean.cer, mean_over(&self.sets, |s| s.cer))?;
        let speed = &self.speed;
        for (field, value) in [
            ("speed.audio_seconds", speed.audio_seconds),
            ("speed.compute_seconds", speed.compute_seconds),
            ("speed.wall_seconds", speed.wall_seconds),
            ("speed.first_transcript_seconds", speed.first_transcript_seconds),
        ] {
            positive(field, value)?;
        }
        agree("speed.rtfx_compute", speed.rtfx_compute, rtfx(speed.audio_seconds, speed.compute_seconds))?;
        agree("speed.rtfx_end_to_end", speed.rtfx_end_to_end, rtfx(speed.audio_seconds, speed.wall_seconds))?;
        let Shares { audio, features, encoder, decoder } = speed.shares;
        distribution("speed.shares", &[audio, features, encoder, decoder])?;
        if let Some(c) = &self.confidence {
            let qualities = [Some(c.raw), Some(c.calibrated), c.held_out].into_iter().flatten();
            if c.right > c.words || qualities.into_iter().any(|q| !((0.0..=1.0).contains(&q.ece) && q.nce <= 1.0 && q.nce.is_finite())) {
                return Err(format!("confidence: {c:?}: right is at most words, ece lies in [0, 1], nce is at most 1"));
            }
        }
        self.experts.as_ref().map_or(Ok(()), ExpertUsage::validate)
    }
}

impl ExpertUsage {
    fn validate(&self) -> Result<(), String> {
        let experts = self.layers.first().map_or(0, Vec::len);
        let binned = !self.over_time.is_empty();
        if binned && self.over_time.len() != self.layers.len() {
            return Err(format!("experts.over_time: {} layers, want {}", self.over_time.len(), self.layers.len()));
        }
        let bins = self.over_time.first().map_or(0, Vec::len);
        for (layer, usage) in self.layers.iter().enumerate() {
            let over_time = if binned { self.over_time[layer].as_slice() } else { &[] };
            if over_time.len() != bins {
                return Err(format!("experts.over_time: layer {layer} has {} bins, the first {bins}", over_time.len()));
            }
            for row in std::iter::once(usage).chain(over_time) {
                if row.len() != experts {
                    return Err(format!("experts: layer {layer} has {} experts, the first {experts}", row.len()));
                }
                distribution(&format!("experts: layer {layer}"), row)?;
            }
        }
        for trace in &self.traces {
            positive("experts.traces: seconds", trace.seconds)?;
            let steps = trace.choices.first().map_or(0, Vec::len);
            let fits = |row: &Vec<u16>| row.len() == steps && row.iter().all(|&e| usize::from(e) < experts);
            if trace.choices.len() != self.layers.len() || !trace.choices.iter().all(fits) {
                return Err(format!("experts.traces: {:?} is not {} layers of {steps} experts", trace.utterance.1, self.layers.len()));
            }
        }
        Ok(())
    }
}

fn positive(field: &str, value: f64) -> Result<(), String> {
    if value.is_finite() && value >= 0.0 { Ok(()) } else { Err(format!("{field} is {value}: want 0 or more")) }
}

fn agree(field: &str, given: f64, computed: f64) -> Result<(), String> {
    let near = (given - computed).abs() <= ROUNDING * computed.abs().max(ROUNDING);
    if near { Ok(()) } else { Err(format!("{field} is {given}, the counts beside it give {computed}")) }
}

fn distribution(field: &str, shares: &[f64]) -> Result<(), String> {
    let sum: f64 = shares.iter().sum();
    let fits = shares.iter().all(|s| *s >= 0.0) && (sum == 0.0 || (sum - 1.0).abs() <= 100.0 * ROUNDING);
    if fits { Ok(()) } else { Err(format!("{field}: {shares:?} are not shares that sum to 1")) }
}
