//! From the logits of frames to stretches of speech: hysteresis, pauses, padding, longest length.

use std::collections::VecDeque;
use std::ops::Range;

use super::VadOptions;
use super::features::HOP;
use crate::units::SampleRate;

/// Frames on each side of the place a long stretch is cut at: 0.2 s.
const QUIET: usize = 6;
/// How far the logit falls below the threshold before speech may be over.
const HYSTERESIS: f32 = 1.0;

/// The stretch being heard and what is wanted of it.
pub(super) struct Stretch {
    on: f32,
    /// Frames; padding in samples.
    min_speech: usize,
    min_silence: usize,
    max_speech: usize,
    padding: usize,
    /// First frame of the stretch being heard and the last that was speech.
    start: Option<usize>,
    last: usize,
    /// Levels from `start` on, where a longest length asks for them.
    levels: VecDeque<f32>,
    /// Where the last stretch was cut: the next starts there.
    cut: usize,
}

impl Stretch {
    pub fn new(options: &VadOptions) -> Self {
        let samples = |seconds: f64| SampleRate::HZ_16000.samples(seconds);
        // Padding comes to the frames of a stretch on both sides.
        let most = options.max_speech - 2.0 * options.padding;
        Self {
            on: options.threshold,
            min_speech: samples(options.min_speech).div_ceil(HOP),
            min_silence: samples(options.min_silence).div_ceil(HOP),
            max_speech: if most.is_finite() { (samples(most) / HOP).max(4 * QUIET) } else { usize::MAX },
            padding: samples(options.padding),
            start: None,
            last: 0,
            levels: VecDeque::new(),
            cut: 0,
        }
    }

    pub fn reset(&mut self) {
        self.start = None;
        self.levels.clear();
        (self.last, self.cut) = (0, 0);
    }

    /// Frame `t` with the mean logit around it.
    pub fn step(&mut self, t: usize, logit: f32, level: f32, stretches: &mut Vec<Range<usize>>) {
        if self.start.is_none() && logit > self.on {
            self.start = Some(t);
            self.last = t;
        }
        let Some(start) = self.start else { return };
        if logit > self.on - HYSTERESIS {
            self.last = t;
        } else if t - self.last >= self.min_silence {
            self.end(stretches);
            return;
        }
        if self.max_speech < usize::MAX {
            self.levels.push_back(level);
            if t + 1 - start >= self.max_speech {
                self.cut_long(start, stretches);
            }
        }
    }

    /// Ends the stretch being heard, where there is one.
    pub fn end(&mut self, stretches: &mut Vec<Range<usize>>) {
        let Some(start) = self.start.take() else { return };
        self.levels.clear();
        let from = self.first_sample(start);
        let frames = (self.last + 1).saturating_sub(start);
        // What follows a cut is speech however short; nothing may follow it but silence.
        if frames >= self.min_speech || (frames > 0 && self.cut > 0 && from == self.cut) {
            stretches.push(from..(self.last + 1) * HOP + self.padding);
        }
    }

    /// Where a stretch that starts with frame `start` starts.
    fn first_sample(&self, start: usize) -> usize {
        (start * HOP).saturating_sub(self.padding).max(self.cut)
    }

    /// The first sample of the stretch being heard, or of one that starts with frame `next`.
    pub fn pending_from(&self, next: usize) -> usize {
        self.first_sample(self.start.unwrap_or(next))
    }

    /// Most frames from the end of a stretch until it is given.
    pub fn delay(&self) -> usize {
        let cut = if self.max_speech == usize::MAX { 0 } else { self.max_speech.div_ceil(2) };
        self.min_silence.max(cut)
    }

    /// Gives a stretch that is too long up to its quietest place and goes on behind it.
    fn cut_long(&mut self, start: usize, stretches: &mut Vec<Range<usize>>) {
        let power: Vec<f32> = self.levels.iter().map(|level| 10f32.powf(level / 10.0)).collect();
        let loudness = |i: usize| power[i - QUIET..=i + QUIET].iter().sum::<f32>();
        let places = power.len() / 2..power.len() - QUIET;
        let quietest = places.min_by(|&a, &b| loudness(a).total_cmp(&loudness(b))).unwrap_or(power.len() / 2);
        let cut = (start + quietest) * HOP;
        stretches.push(self.first_sample(start)..cut);
        self.levels.drain(..quietest);
        self.start = Some(start + quietest);
        self.cut = cut;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stretches, in frames, of logits that are speech where `speech` says so.
    fn stretches(options: &VadOptions, frames: usize, speech: impl Fn(usize) -> bool, level: impl Fn(usize) -> f32) -> Vec<(usize, usize)> {
        let (mut stretch, mut found) = (Stretch::new(options), Vec::new());
        for t in 0..frames {
            stretch.step(t, if speech(t) { 3.0 } else { -5.0 }, level(t), &mut found);
        }
        stretch.end(&mut found);
        found.into_iter().map(|s| (s.start / HOP, s.end / HOP)).collect()
    }

    /// Ten frames of pause, five of speech, no padding.
    const PLAIN: VadOptions = VadOptions { threshold: 0.0, min_speech: 0.08, min_silence: 0.16, padding: 0.0, max_speech: f64::INFINITY };

    #[test]
    fn short_pauses_are_kept_and_short_speech_is_not() {
        let level = |_| -20.0;
        assert_eq!(stretches(&PLAIN, 100, |t| (20..40).contains(&t), level), [(20, 40)]);
        assert_eq!(stretches(&PLAIN, 100, |t| (20..30).contains(&t) || (39..50).contains(&t), level), [(20, 50)]);
        assert_eq!(stretches(&PLAIN, 100, |t| (20..30).contains(&t) || (41..50).contains(&t), level), [(20, 30), (41, 50)]);
        assert_eq!(stretches(&PLAIN, 100, |t| (20..24).contains(&t), level), []);
        assert_eq!(stretches(&PLAIN, 100, |t| t >= 95, level), [(95, 100)]);
    }

    #[test]
    fn padding_stops_at_the_start_and_never_meets_the_neighbour() {
        let options = VadOptions { padding: 0.08, ..PLAIN };
        let found = stretches(&options, 100, |t| t < 20 || (31..40).contains(&t), |_| -20.0);
        assert_eq!(found, [(0, 25), (26, 45)]);
    }

    #[test]
    fn a_long_stretch_is_cut_where_it_is_quiet() {
        let options = VadOptions { max_speech: 1.6, ..PLAIN };
        let found = stretches(&options, 300, |t| t >= 10, |t| if (80..95).contains(&t) { -60.0 } else { -20.0 });
        assert_eq!(found[0].0, 10);
        assert!((80..95).contains(&found[0].1), "{found:?}");
        assert!(found.windows(2).all(|f| f[0].1 == f[1].0) && found.iter().all(|f| f.1 - f.0 <= 100), "{found:?}");
        assert_eq!(found[found.len() - 1].1, 300);
        // Silence behind the cut is no stretch.
        let found = stretches(&options, 300, |t| (10..109).contains(&t), |t| if t > 95 { -60.0 } else { -20.0 });
        assert!(found.len() <= 2 && found[found.len() - 1].1 <= 110, "{found:?}");
    }
}
