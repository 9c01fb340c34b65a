//! Recordings of any length in windows: what the encoder sees at once, and which part of it counts.
//!
//! ```text
//! region   |-------------------------------------------------------------|   speech between two silences
//! cores    |---------------------|----------------------|----------------|   every sample belongs to one core
//! window 1             |-context-|-------- core --------|-context-|          what the encoder reads for core 2
//! ```
//!
//! The log-probabilities of neighbouring cores are joined, so a word that lies across a cut is decoded whole. A region no longer than
//! [`ChunkConfig::longest_seconds`] is one window without context: exactly the one-pass result.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::units::SampleRate;

/// How regions are cut into windows. Times in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChunkConfig {
    /// A region up to this long is one window; no window is longer. Models are trained on utterances up to about this long.
    pub longest_seconds: f64,
    /// Neighbouring audio on each side of a core that the encoder reads but whose output is dropped.
    pub context_seconds: f64,
}

/// Stitched dev speech (`benchmarks/results/long.json`): less context costs words at the cuts, more costs only time.
impl Default for ChunkConfig {
    fn default() -> Self {
        Self { longest_seconds: 20.0, context_seconds: 2.0 }
    }
}

/// The cut is in the middle of the quietest stretch of this length.
const QUIET_SECONDS: f64 = 0.2;
/// A cut is looked for in this last part of the longest possible core.
const SEARCHED: f64 = 0.4;

/// A stretch of audio for the encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Mono samples at 16 kHz in [-1, 1], context included.
    pub samples: Vec<f32>,
    /// The part of `samples` whose output counts; starts (and, but for the last window of a region, ends) between two steps.
    pub core: Range<usize>,
    /// Where the core lies in the recording, in samples.
    pub position: usize,
    /// Whether the region ends with this window.
    pub last: bool,
}

/// Cuts one region after the other into [`Window`]s as its samples arrive; holds at most one longest window of audio.
#[derive(Debug, Clone)]
pub struct Chunker {
    step_samples: usize,
    longest: usize,
    context: usize,
    quiet: usize,
    /// Samples from `base` (in the recording) on; `region` is where the region began, `core` where the next core begins.
    pending: Vec<f32>,
    base: usize,
    core: usize,
}

impl Chunker {
    /// `step_samples`: samples per encoder step, cores begin at multiples of it (from the region's start).
    ///
    /// # Errors
    /// [`Error::Config`] where a core shorter than a second would be left between the contexts.
    pub fn new(config: &ChunkConfig, step_samples: usize) -> Result<Self> {
        let rate = SampleRate::HZ_16000;
        let whole_steps = |seconds: f64| rate.samples(seconds) / step_samples * step_samples;
        let (longest, context) = (whole_steps(config.longest_seconds), whole_steps(config.context_seconds));
        if longest < 2 * context + rate.samples(1.0) {
            let reason =
                format!("{} s with {} s of context on each side leave less than 1 s", config.longest_seconds, config.context_seconds);
            return Err(Error::config("chunk", reason));
        }
        Ok(Self { step_samples, longest, context, quiet: rate.samples(QUIET_SECONDS), pending: Vec::new(), base: 0, core: 0 })
    }

    /// Begins a region at sample `position` of the recording.
    ///
    /// # Panics
    /// If the region before was not ended by [`flush`](Self::flush).
    pub fn start(&mut self, position: usize) {
        assert!(self.pending.is_empty(), "the region before is open");
        self.base = position;
        self.core = position;
    }

    /// Takes the region's next samples and appends the windows that are complete.
    pub fn step(&mut self, samples: &[f32], out: &mut Vec<Window>) {
        let mut rest = samples;
        while !rest.is_empty() {
            // One sample more than the longest window says that the region does not end with it.
            let room = (self.longest + 1).saturating_sub(self.pending.len());
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.pending.extend_from_slice(now);
            rest = later;
            if self.pending.len() > self.longest {
                out.push(self.cut());
            }
        }
    }

    /// Ends the region: its last window, if it has any samples.
    pub fn flush(&mut self, out: &mut Vec<Window>) {
        if self.pending.is_empty() {
            return;
        }
        let start = self.core - self.base;
        let samples = std::mem::take(&mut self.pending);
        out.push(Window { core: start..samples.len(), samples, position: self.core, last: true });
    }

    /// Forgets the open region.
    pub fn reset(&mut self) {
        self.pending.clear();
    }

    /// Samples that may be held back.
    pub fn delay(&self) -> usize {
        self.longest
    }

    /// A window that ends in a cut: its core at the quietest place, the context after it stays pending.
    fn cut(&mut self) -> Window {
        let start = self.core - self.base;
        let latest = self.longest - self.context;
        let searched = ((latest - start) as f64 * SEARCHED) as usize;
        let quietest = latest - searched + quietest(&self.pending[latest - searched..latest], self.quiet);
        let end = start + (quietest - start) / self.step_samples * self.step_samples;
        let window = Window { samples: self.pending[..end + self.context].to_vec(), core: start..end, position: self.core, last: false };
        let forgotten = end - self.context.min(end);
        self.core += end - start;
        self.base += forgotten;
        self.pending.drain(..forgotten);
        window
    }
}

/// Middle of the stretch of `width` samples with the least energy; the first one at a tie; the middle of all where there is no such stretch.
fn quietest(samples: &[f32], width: usize) -> usize {
    if samples.len() < width || width < 4 {
        return samples.len() / 2;
    }
    let energy = |i: usize| samples[i..i + width].iter().map(|s| f64::from(*s) * f64::from(*s)).sum::<f64>();
    let starts = (0..=samples.len() - width).step_by(width / 4);
    let best = starts.min_by(|&a, &b| energy(a).total_cmp(&energy(b)));
    best.unwrap_or(0) + width / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STEP: usize = 640;

    fn noise(samples: usize) -> Vec<f32> {
        let mut rng = crate::kernel::rng::SplitMix::new(1);
        (0..samples).map(|_| rng.next_f32() - 0.5).collect()
    }

    fn windows(samples: &[f32], position: usize, blocks: &[usize]) -> Vec<Window> {
        let mut chunker = Chunker::new(&ChunkConfig::default(), STEP).unwrap();
        let (mut out, mut rest) = (Vec::new(), samples);
        chunker.start(position);
        for &block in blocks.iter().cycle() {
            let (now, later) = rest.split_at(block.min(rest.len()));
            chunker.step(now, &mut out);
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        chunker.flush(&mut out);
        out
    }

    #[test]
    fn short_regions_stay_whole() {
        assert!(windows(&[], 7, &[100]).is_empty());
        for n in [1, 16_000, 320_000] {
            let samples = noise(n);
            assert_eq!(windows(&samples, 7, &[1000]), [Window { core: 0..n, samples, position: 7, last: true }]);
        }
    }

    #[test]
    fn the_cut_is_in_the_pause() {
        let mut samples = noise(16_000 * 65);
        let pause = 16_000 * 13..16_000 * 13 + 8_000;
        samples[pause.clone()].fill(0.0);
        let first = &windows(&samples, 0, &[4096])[0];
        assert!(pause.contains(&first.core.end), "{:?}", first.core);
        assert_eq!(first.samples.len(), first.core.end + 32_000);
    }

    #[test]
    fn no_room_for_a_core_is_refused() {
        let config = ChunkConfig { longest_seconds: 4.0, context_seconds: 1.6 };
        assert!(Chunker::new(&config, STEP).unwrap_err().to_string().contains("less than 1 s"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn cores_cover_the_region_once(n in 1usize..1_600_000, blocks in proptest::collection::vec(1usize..50_000, 1..5)) {
            let samples = noise(n);
            let all = windows(&samples, 1000, &blocks);
            prop_assert_eq!(&all, &windows(&samples, 1000, &[n]));
            let mut next = 1000;
            for (i, window) in all.iter().enumerate() {
                prop_assert_eq!(window.position, next);
                let start = next - 1000;
                prop_assert_eq!(start % STEP, 0);
                prop_assert!(window.samples.len() <= 320_000);
                prop_assert_eq!(&window.samples[..], &samples[start - window.core.start..][..window.samples.len()]);
                prop_assert_eq!(window.core.start, if i == 0 { 0 } else { 32_000 });
                prop_assert_eq!(window.last, i + 1 == all.len());
                next += window.core.len();
            }
            prop_assert_eq!(next, 1000 + n);
        }
    }
}
