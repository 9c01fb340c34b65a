//! Long recordings in pieces: cut where it is quiet.

use std::ops::Range;

use crate::units::SampleRate;

/// A recording longer than this is cut. Models are trained on utterances up to about this long.
const LONGEST_SECONDS: f64 = 20.0;
/// A piece is at least this long, where the recording goes on.
const SHORTEST_SECONDS: f64 = 12.0;
/// The cut is in the middle of the quietest stretch of this length.
const QUIET_SECONDS: f64 = 0.2;

/// Neighbouring pieces that cover all samples at 16 kHz, each at most 20 s long and cut at the quietest place after its first 12 s.
pub fn pieces(samples: &[f32]) -> Vec<Range<usize>> {
    let rate = SampleRate::HZ_16000;
    let [longest, shortest, quiet] = [LONGEST_SECONDS, SHORTEST_SECONDS, QUIET_SECONDS].map(|s| rate.samples(s));
    let mut pieces = Vec::new();
    let mut start = 0;
    while samples.len() - start > longest {
        let end = start + shortest + quietest(&samples[start + shortest..start + longest], quiet);
        pieces.push(start..end);
        start = end;
    }
    pieces.push(start..samples.len());
    pieces
}

/// Middle of the stretch of `width` samples with the least energy; the first one at a tie.
fn quietest(samples: &[f32], width: usize) -> usize {
    let hop = width / 4;
    let energy = |i: usize| samples[i..i + width].iter().map(|s| f64::from(*s) * f64::from(*s)).sum::<f64>();
    let starts = (0..=samples.len() - width).step_by(hop);
    let best = starts.min_by(|&a, &b| energy(a).total_cmp(&energy(b)));
    best.unwrap_or(0) + width / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(samples: usize) -> Vec<f32> {
        let mut rng = crate::kernel::rng::SplitMix::new(1);
        (0..samples).map(|_| rng.next_f32() - 0.5).collect()
    }

    #[test]
    fn short_recordings_stay_whole() {
        for n in [0, 1, 16_000, 320_000] {
            assert_eq!(pieces(&vec![0.1; n]), std::slice::from_ref(&(0..n)));
        }
    }

    #[test]
    fn pieces_cover_everything_and_cut_in_the_pause() {
        let mut samples = noise(16_000 * 65);
        let pause = 16_000 * 15..16_000 * 15 + 8_000;
        samples[pause.clone()].fill(0.0);
        let cut = pieces(&samples);
        assert!(pause.contains(&cut[0].end), "{cut:?}");
        assert_eq!((cut[0].start, cut[cut.len() - 1].end), (0, samples.len()));
        assert!(cut.windows(2).all(|w| w[0].end == w[1].start));
        assert!(cut.iter().all(|c| c.len() <= 320_000));
    }
}
