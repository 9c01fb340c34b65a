//! Samples to windows: what is no speech is dropped, each stretch of speech is a region.

use std::ops::Range;

use crate::audio::vad::{Vad, VadOptions};
use crate::error::Result;
use crate::pipeline::chunk::{Chunker, Window};

/// Samples that are no longer wanted are dropped once there are this many: moving the rest costs time.
const STALE: usize = 1 << 16;

/// Cuts one track into windows as its samples arrive; holds a minute of audio at most.
pub struct Gate {
    vad: Option<Vad>,
    chunker: Chunker,
    /// Samples from `base` (of the recording) on that may still turn out to be speech.
    pending: Vec<f32>,
    base: usize,
    /// End of the region that is open.
    open_to: Option<usize>,
    stretches: Vec<Range<usize>>,
}

impl Gate {
    /// Speech as [`VadOptions`] find it, or everything as one region.
    ///
    /// # Errors
    /// As [`Vad::new`].
    pub fn new(voice_activity: Option<&VadOptions>, chunker: Chunker) -> Result<Self> {
        let vad = voice_activity.map(Vad::new).transpose()?;
        Ok(Self { vad, chunker, pending: Vec::new(), base: 0, open_to: None, stretches: Vec::new() })
    }

    /// Takes samples at 16 kHz and appends the windows that are complete.
    pub fn step(&mut self, samples: &[f32], out: &mut Vec<Window>) {
        let Some(vad) = &mut self.vad else {
            if self.open_to.is_none() {
                self.chunker.start(0);
            }
            self.open_to = Some(self.open_to.unwrap_or(0) + samples.len());
            return self.chunker.step(samples, out);
        };
        self.pending.extend_from_slice(samples);
        vad.step(samples, &mut self.stretches);
        let wanted = vad.pending_from();
        self.pass_on(out);
        // Silence has come between this region and whatever follows.
        if self.open_to.is_some_and(|end| end < wanted) {
            self.close(out);
        }
        let stale = wanted.saturating_sub(self.base).min(self.pending.len());
        if stale >= STALE {
            self.pending.drain(..stale);
            self.base += stale;
        }
    }

    /// Ends the track and starts anew.
    pub fn flush(&mut self, out: &mut Vec<Window>) {
        if let Some(vad) = &mut self.vad {
            vad.flush(&mut self.stretches);
        }
        self.pass_on(out);
        self.close(out);
        self.pending.clear();
        self.base = 0;
    }

    /// Forgets the track.
    pub fn reset(&mut self) {
        if let Some(vad) = &mut self.vad {
            vad.reset();
        }
        self.chunker.reset();
        self.pending.clear();
        self.stretches.clear();
        (self.base, self.open_to) = (0, None);
    }

    /// Samples that may be held back, where speech ends within a minute.
    pub fn delay(&self) -> usize {
        self.vad.as_ref().map_or(0, Vad::delay) + self.chunker.delay()
    }

    /// Hands stretches to the chunker; one that begins where the last one ended was cut there, and goes on.
    fn pass_on(&mut self, out: &mut Vec<Window>) {
        for stretch in std::mem::take(&mut self.stretches) {
            if self.open_to != Some(stretch.start) {
                self.close(out);
                self.chunker.start(stretch.start);
            }
            self.chunker.step(&self.pending[stretch.start - self.base..stretch.end - self.base], out);
            self.open_to = Some(stretch.end);
        }
    }

    fn close(&mut self, out: &mut Vec<Window>) {
        self.chunker.flush(out);
        self.open_to = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::chunk::ChunkConfig;

    /// Bursts of a buzz with formants, silence elsewhere: what any detector takes for speech.
    fn speech(seconds: f64, on: impl Fn(f64) -> bool) -> Vec<f32> {
        let mut rng = crate::kernel::rng::SplitMix::new(1);
        let n = (seconds * 16_000.0) as usize;
        (0..n)
            .map(|i| {
                let t = i as f64 / 16_000.0;
                let noise = 1e-3 * (rng.next_f32() - 0.5);
                if !on(t) {
                    return noise;
                }
                let syllable = (std::f64::consts::TAU * 4.0 * t).sin().abs();
                let pitch = 120.0 + 20.0 * (t * 3.0).sin();
                let voice: f64 = (1..30).map(|k| (std::f64::consts::TAU * pitch * f64::from(k) * t).sin() / f64::from(k)).sum();
                noise + (0.15 * syllable * voice) as f32
            })
            .collect()
    }

    fn windows(samples: &[f32], options: Option<&VadOptions>, block: usize) -> Vec<Window> {
        let chunker = Chunker::new(&ChunkConfig::default(), 640).unwrap();
        let mut gate = Gate::new(options, chunker).unwrap();
        let mut out = Vec::new();
        samples.chunks(block).for_each(|block| gate.step(block, &mut out));
        gate.flush(&mut out);
        out
    }

    #[test]
    fn silence_is_dropped_and_everything_else_is_covered_once() {
        let samples = speech(30.0, |t| (3.0..8.0).contains(&t) || (15.0..22.0).contains(&t));
        let options = VadOptions { max_speech: 60.0, ..VadOptions::default() };
        let found = windows(&samples, Some(&options), 4096);
        assert_eq!(found.len(), 2, "{:?}", found.iter().map(|w| (w.position, w.core.len())).collect::<Vec<_>>());
        for (window, (start, end)) in found.iter().zip([(3.0, 8.0), (15.0, 22.0)]) {
            let seconds = |n: usize| n as f64 / 16_000.0;
            let (from, to) = (seconds(window.position), seconds(window.position + window.core.len()));
            assert!((start - 1.0..=start).contains(&from) && (end..end + 1.0).contains(&to), "{from} to {to}");
            assert_eq!(window.samples, samples[window.position..window.position + window.samples.len()]);
            assert!(window.last);
        }
        assert_eq!(windows(&samples, Some(&options), 777), found, "however it is cut");
    }

    #[test]
    fn speech_without_an_end_is_one_region() {
        let samples = speech(200.0, |_| true);
        // Everything passes for speech: what is tested is how stretches that were cut go on.
        let found = windows(&samples, Some(&VadOptions { threshold: -50.0, max_speech: 40.0, ..VadOptions::default() }), 5000);
        assert_eq!(found.iter().filter(|w| w.last).count(), 1, "{}", found.len());
        assert!(found.windows(2).all(|w| w[0].position + w[0].core.len() == w[1].position));
        let all = windows(&samples, None, 5000);
        assert_eq!((all[0].position, all.iter().map(|w| w.core.len()).sum::<usize>()), (0, samples.len()));
    }

    #[test]
    fn nothing_in_nothing_out() {
        assert!(windows(&[], Some(&VadOptions::default()), 100).is_empty());
        assert!(windows(&[], None, 100).is_empty());
        assert!(windows(&vec![0.0; 160_000], Some(&VadOptions::default()), 100).is_empty());
    }
}
