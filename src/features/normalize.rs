//! Normalisation of log-mel features, apart from their computation: the chunks of a long recording share its statistics.

use std::fmt::Debug;

use serde::{Deserialize, Serialize};

/// What is done to the log-mel values. Statistics are per mel bin, over valid frames.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Normalization {
    /// Nothing (Kaldi, icefall).
    None,
    /// `(max(x, maximum of the utterance - 8) + 4) / 4`, for decimal logarithms (Whisper).
    WhisperClamp,
    /// `(x - mean) / (deviation + epsilon)` with mean and deviation of the utterance (NeMo).
    PerUtterance {
        /// Delta degrees of freedom of the deviation: 1 divides by `frames - 1`.
        ddof: usize,
        /// Added to the deviation.
        epsilon: f32,
    },
    /// `(x - mean) / std` with statistics of a corpus.
    Global {
        /// Mean per mel bin.
        mean: Vec<f32>,
        /// Standard deviation per mel bin.
        std: Vec<f32>,
    },
    /// `(x - weight * mean of the utterance - (1 - weight) * mean) / std`: mostly free of the channel, yet defined for short clips.
    Blend {
        /// Share of the utterance's mean, 0 to 1.
        weight: f32,
        /// Mean per mel bin over a corpus.
        mean: Vec<f32>,
        /// Standard deviation per mel bin over a corpus.
        std: Vec<f32>,
    },
}

/// What a [`Normalization`] needs to know of an utterance, gathered over any number of pieces.
///
/// Gathered over the frames so far it gives a running normalisation for streams, equal to the offline one at the last frame.
#[derive(Debug, Clone)]
pub struct Statistics {
    needs: Needs,
    mels: usize,
    frames: usize,
    maximum: f32,
    /// Sums are taken about the first frame, so that constant bins have variance 0 exactly.
    origin: Vec<f64>,
    sum: Vec<f64>,
    sum_of_squares: Vec<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    Maximum,
    Mean,
    Variance,
}

impl Statistics {
    /// Takes in valid frames: `rows` is `[frames, mels]`, before normalisation.
    pub fn add(&mut self, rows: &[f32]) {
        debug_assert_eq!(rows.len() % self.mels, 0);
        match self.needs {
            Needs::Nothing => {}
            Needs::Maximum => self.maximum = maximum(rows).max(self.maximum),
            Needs::Mean | Needs::Variance => self.add_moments(rows),
        }
        self.frames += rows.len() / self.mels;
    }

    /// Number of frames taken in.
    pub fn frames(&self) -> usize {
        self.frames
    }

    fn add_moments(&mut self, rows: &[f32]) {
        if self.frames == 0 {
            self.origin = rows.iter().take(self.mels).map(|&x| f64::from(x)).collect();
        }
        for row in rows.chunks_exact(self.mels) {
            let sums = self.origin.iter().zip(&mut self.sum);
            if self.needs == Needs::Mean {
                sums.zip(row).for_each(|((origin, sum), &x)| *sum += f64::from(x) - origin);
            } else {
                sums.zip(&mut self.sum_of_squares).zip(row).for_each(|(((origin, sum), squares), &x)| {
                    let d = f64::from(x) - origin;
                    *sum += d;
                    *squares += d * d;
                });
            }
        }
    }

    /// Mean of bin `mel` over the frames taken in; 0 before the first.
    fn mean(&self, mel: usize) -> f64 {
        if self.frames == 0 { 0.0 } else { self.origin[mel] + self.sum[mel] / self.frames as f64 }
    }

    /// Standard deviation of bin `mel`; 0 where `frames <= ddof` leaves it undefined.
    fn deviation(&self, mel: usize, ddof: usize) -> f64 {
        if self.frames <= ddof {
            return 0.0;
        }
        let about_mean = self.sum_of_squares[mel] - self.sum[mel] * self.sum[mel] / self.frames as f64;
        (about_mean.max(0.0) / (self.frames - ddof) as f64).sqrt()
    }
}

impl Normalization {
    /// Empty statistics of what this normalisation needs, for features of `mels` bins.
    pub fn statistics(&self, mels: usize) -> Statistics {
        let needs = match self {
            Self::None | Self::Global { .. } => Needs::Nothing,
            Self::WhisperClamp => Needs::Maximum,
            Self::Blend { .. } => Needs::Mean,
            Self::PerUtterance { .. } => Needs::Variance,
        };
        let zeros = vec![0.0; mels];
        Statistics { needs, mels, frames: 0, maximum: f32::NEG_INFINITY, origin: zeros.clone(), sum: zeros.clone(), sum_of_squares: zeros }
    }

    /// Normalises `rows` (`[frames, mels]`) in place with the statistics of their utterance.
    ///
    /// `statistics` comes from [`statistics`](Self::statistics) of the same normalisation. A bin without variation becomes 0 under
    /// [`Normalization::PerUtterance`], also when a single frame leaves its deviation undefined.
    pub fn apply(&self, rows: &mut [f32], statistics: &Statistics) {
        match self {
            Self::None => {}
            Self::WhisperClamp => {
                let floor = statistics.maximum - 8.0;
                rows.iter_mut().for_each(|x| *x = (x.max(floor) + 4.0) * 0.25);
            }
            Self::PerUtterance { ddof, epsilon } => {
                affine(rows, statistics.mels, |mel| (statistics.mean(mel), 1.0 / (statistics.deviation(mel, *ddof) + f64::from(*epsilon))))
            }
            Self::Global { mean, std } => affine(rows, statistics.mels, |mel| (f64::from(mean[mel]), 1.0 / f64::from(std[mel]))),
            Self::Blend { weight, mean, std } => affine(rows, statistics.mels, |mel| {
                let weight = f64::from(*weight);
                (weight * statistics.mean(mel) + (1.0 - weight) * f64::from(mean[mel]), 1.0 / f64::from(std[mel]))
            }),
        }
    }
}

/// Frames of the corpus's mean that a running mean starts from: 1 s of hops of 10 ms.
const PRIOR_FRAMES: f64 = 100.0;

/// A normalisation in which every frame knows only what came before it: the same for a stream and for a whole waveform.
///
/// The mean of the utterance is replaced by that of its frames so far, the frame itself included, drawn towards the corpus's mean as if
/// the utterance had begun with 100 frames of it.
#[derive(Debug, Clone)]
pub struct Running {
    normalization: Normalization,
    statistics: Statistics,
}

impl Running {
    /// Normalises the next frames, `rows` `[frames, mels]`, in place.
    pub fn step(&mut self, rows: &mut [f32]) {
        let Normalization::Blend { weight, mean, std } = &self.normalization else {
            return self.normalization.apply(rows, &self.statistics);
        };
        for row in rows.chunks_exact_mut(self.statistics.mels) {
            self.statistics.add(row);
            let seen = self.statistics.frames as f64;
            let share = f64::from(*weight) * seen / (seen + PRIOR_FRAMES);
            for (mel, x) in row.iter_mut().enumerate() {
                let centre = share * self.statistics.mean(mel) + (1.0 - share) * f64::from(mean[mel]);
                *x = ((f64::from(*x) - centre) / f64::from(std[mel])) as f32;
            }
        }
    }

    /// Forgets the utterance so far.
    pub fn reset(&mut self) {
        self.statistics = self.normalization.statistics(self.statistics.mels);
    }
}

impl Normalization {
    /// This normalisation for features that arrive frame by frame; `None` where it needs the whole utterance.
    pub fn running(&self, mels: usize) -> Option<Running> {
        match self {
            Self::None | Self::Global { .. } | Self::Blend { .. } => {
                Some(Running { normalization: self.clone(), statistics: self.statistics(mels) })
            }
            Self::WhisperClamp | Self::PerUtterance { .. } => None,
        }
    }

    /// Field, value and rule of the first that is broken, for features of `mels` bins.
    pub(super) fn first_broken_rule(&self, mels: usize) -> Option<(&'static str, String, String)> {
        let (mean, std) = match self {
            Self::None | Self::WhisperClamp => return None,
            Self::PerUtterance { ddof, .. } if *ddof > 1 => return broken("normalization.ddof", ddof, "0 or 1"),
            Self::PerUtterance { epsilon, .. } if epsilon.is_finite() && *epsilon > 0.0 => return None,
            Self::PerUtterance { epsilon, .. } => return broken("normalization.epsilon", epsilon, "finite and above 0"),
            Self::Blend { weight, .. } if !(0.0..=1.0).contains(weight) => return broken("normalization.weight", weight, "0 to 1"),
            Self::Global { mean, std } | Self::Blend { mean, std, .. } => (mean, std),
        };
        if mean.len() != mels {
            return broken("normalization.mean", &format_args!("{} values", mean.len()), format!("{mels} values, one per mel"));
        }
        if std.len() != mels {
            return broken("normalization.std", &format_args!("{} values", std.len()), format!("{mels} values, one per mel"));
        }
        if let Some(x) = mean.iter().find(|x| !x.is_finite()) {
            return broken("normalization.mean", x, "finite");
        }
        let bad = std.iter().find(|&&x| !x.is_finite() || x <= 0.0)?;
        broken("normalization.std", bad, "finite and above 0")
    }
}

fn broken(field: &'static str, value: &dyn Debug, rule: impl Into<String>) -> Option<(&'static str, String, String)> {
    Some((field, format!("{value:?}"), rule.into()))
}

/// `(x - offset) * factor` per bin. The offset is kept in two f32 parts: bins of nearly constant value have a factor of 1e5.
fn affine(rows: &mut [f32], mels: usize, parameters: impl Fn(usize) -> (f64, f64)) {
    let (offsets, factors): (Vec<f64>, Vec<f64>) = (0..mels).map(parameters).unzip();
    let high: Vec<f32> = offsets.iter().map(|&o| o as f32).collect();
    let low: Vec<f32> = offsets.iter().zip(&high).map(|(&o, &h)| (o - f64::from(h)) as f32).collect();
    let factors: Vec<f32> = factors.iter().map(|&f| f as f32).collect();
    for row in rows.chunks_exact_mut(mels) {
        for (((x, high), low), factor) in row.iter_mut().zip(&high).zip(&low).zip(&factors) {
            *x = ((*x - high) - low) * factor;
        }
    }
}

fn maximum(values: &[f32]) -> f32 {
    let (lanes, rest) = values.as_chunks::<8>();
    let mut best = [f32::NEG_INFINITY; 8];
    for chunk in lanes {
        for (b, &x) in best.iter_mut().zip(chunk) {
            *b = if x > *b { x } else { *b };
        }
    }
    best.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// Brings a waveform to mean 0 and variance 1 in place: `(x - mean) / sqrt(variance + 1e-7)`, population variance (wav2vec 2.0).
///
/// Padding of a batch is added afterwards, as zeros.
pub fn normalize_waveform(samples: &mut [f32]) {
    /// From wav2vec 2.0's published feature extractor.
    const VARIANCE_FLOOR: f64 = 1e-7;
    let n = samples.len().max(1) as f64;
    let mean = samples.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let variance = samples.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
    let factor = 1.0 / (variance + VARIANCE_FLOOR).sqrt();
    samples.iter_mut().for_each(|x| *x = ((f64::from(*x) - mean) * factor) as f32);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalized(normalization: &Normalization, rows: &[f32], mels: usize) -> Vec<f32> {
        let mut statistics = normalization.statistics(mels);
        rows.chunks(mels).for_each(|row| statistics.add(row));
        let mut out = rows.to_vec();
        normalization.apply(&mut out, &statistics);
        out
    }

    fn close(ours: &[f32], exact: &[f32]) {
        assert!(ours.iter().zip(exact).all(|(a, b)| (a - b).abs() < 1e-5), "{ours:?} for {exact:?}");
    }

    #[test]
    fn each_kind_on_two_bins() {
        let rows = [1.0, 10.0, 3.0, 10.0, 5.0, 10.0];
        let per_utterance = Normalization::PerUtterance { ddof: 1, epsilon: 1e-5 };
        close(&normalized(&per_utterance, &rows, 2), &[-1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
        let population = Normalization::PerUtterance { ddof: 0, epsilon: 1.0 };
        let d = 2.0 / (1.0 + (8f32 / 3.0).sqrt());
        close(&normalized(&population, &rows, 2), &[-d, 0.0, 0.0, 0.0, d, 0.0]);
        let global = Normalization::Global { mean: vec![1.0, 0.0], std: vec![2.0, 10.0] };
        close(&normalized(&global, &rows, 2), &[0.0, 1.0, 1.0, 1.0, 2.0, 1.0]);
        let blend = Normalization::Blend { weight: 0.7, mean: vec![0.0, 20.0], std: vec![2.0, 0.5] };
        close(&normalized(&blend, &rows, 2), &[-0.55, -6.0, 0.45, -6.0, 1.45, -6.0]);
        close(&normalized(&Normalization::WhisperClamp, &rows, 2), &[1.5, 3.5, 1.75, 3.5, 2.25, 3.5]);
        assert_eq!(normalized(&Normalization::None, &rows, 2), rows);
    }

    #[test]
    fn a_running_mean_knows_the_past_alone() {
        let blend = Normalization::Blend { weight: 0.5, mean: vec![2.0], std: vec![4.0] };
        let rows: Vec<f32> = (0..300).map(|i| 10.0 + (i % 7) as f32).collect();
        let mut whole = rows.clone();
        blend.running(1).unwrap().step(&mut whole);
        let mut running = blend.running(1).unwrap();
        let mut pieces = rows.clone();
        let (first, rest) = pieces.split_at_mut(123);
        running.step(first);
        running.step(rest);
        assert_eq!(pieces, whole);
        // After n frames: (n * their mean + 100 * 2) / (n + 100), half of it, and half of the corpus's.
        for n in [1, 50, 300] {
            let sum: f32 = rows[..n].iter().sum();
            let centre = 0.5 * (sum + 200.0) / (n as f32 + 100.0) + 0.5 * 2.0;
            assert!((whole[n - 1] - (rows[n - 1] - centre) / 4.0).abs() < 1e-5, "{n}");
        }
        running.reset();
        let mut again = rows.clone();
        running.step(&mut again);
        assert_eq!(again, whole);
        assert!(Normalization::WhisperClamp.running(1).is_none());
        let global = Normalization::Global { mean: vec![2.0], std: vec![4.0] };
        let mut one = [6.0];
        global.running(1).unwrap().step(&mut one);
        assert_eq!(one, [1.0]);
    }

    #[test]
    fn one_frame_and_no_frame_stay_finite() {
        let per_utterance = Normalization::PerUtterance { ddof: 1, epsilon: 1e-5 };
        assert_eq!(normalized(&per_utterance, &[3.0, -16.6], 2), [0.0, 0.0]);
        assert!(normalized(&per_utterance, &[], 2).is_empty());
        assert_eq!(per_utterance.statistics(2).frames(), 0);
    }

    #[test]
    fn waveforms_have_mean_zero_and_variance_one() {
        let mut samples: Vec<f32> = (0..1000).map(|i| 3.0 + (i % 17) as f32).collect();
        normalize_waveform(&mut samples);
        let mean: f32 = samples.iter().sum::<f32>() / 1000.0;
        let variance: f32 = samples.iter().map(|x| x * x).sum::<f32>() / 1000.0;
        assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-5);
        let mut silence = [0.0; 3];
        normalize_waveform(&mut silence);
        assert_eq!(silence, [0.0; 3]);
        normalize_waveform(&mut []);
    }
}
