//! Counter-based random numbers: a stream is named by what it is for, so neither data order nor thread count can change a draw.

use super::Span;

/// What a stream of random numbers decides; streams of different purposes are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Order of rows and batches in an epoch.
    Order = 1,
    /// How often an utterance is repeated in an epoch.
    Repeat = 2,
    /// Speed of a row.
    Speed = 3,
    /// Waveform augmentation of a row.
    Wave = 4,
    /// Feature augmentation of a row.
    Features = 5,
}

/// Names the randomness of one row of an epoch: everything drawn for the row depends on these four numbers and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowKey {
    /// Seed of the run.
    pub seed: u64,
    /// Epoch, from 0.
    pub epoch: u64,
    /// Index of the utterance in the corpus.
    pub utterance: usize,
    /// Which copy of the utterance within the epoch, from 0.
    pub repeat: u32,
}

impl RowKey {
    /// The row's stream for one purpose.
    pub fn rng(self, purpose: Purpose) -> Rng {
        Rng::new(self.seed, &[purpose as u64, self.epoch, self.utterance as u64, u64::from(self.repeat)])
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014, doi:10.1145/2714064.2660195): the i-th output is a hash of `key + i * GOLDEN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rng {
    state: u64,
}

/// 2^64 divided by the golden ratio, odd: the increment of SplitMix64.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Rng {
    /// The stream named by `seed` and `path`; any other seed or path gives an unrelated stream.
    pub fn new(seed: u64, path: &[u64]) -> Self {
        let start = mix(seed.wrapping_add(GOLDEN));
        Self { state: path.iter().fold(start, |key, &part| mix(mix(key).wrapping_add(part.wrapping_mul(GOLDEN)).wrapping_add(GOLDEN))) }
    }

    /// An unrelated stream that depends on this one's position and on `tag`; this stream does not move.
    pub fn fork(&self, tag: u64) -> Self {
        Self::new(self.state, &[tag])
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// Uniform in `[0, 1)`.
    pub fn uniform(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / 16_777_216.0
    }

    /// Uniform between the two ends of `span`.
    pub fn within(&mut self, span: Span) -> f32 {
        span[0] + (span[1] - span[0]) * self.uniform()
    }

    /// `true` with `probability`; always draws, so that what follows does not depend on the probability.
    pub fn chance(&mut self, probability: f32) -> bool {
        self.uniform() < probability
    }

    /// Uniform in `0..n`, 0 for `n = 0`. The bias is below n / 2^64.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// Index drawn in proportion to `shares` (not negative); `None` where they sum to 0.
    pub fn pick(&mut self, shares: &[f32]) -> Option<usize> {
        let mut at = self.uniform() * shares.iter().sum::<f32>();
        for (i, &share) in shares.iter().enumerate() {
            if at < share {
                return Some(i);
            }
            at -= share;
        }
        shares.iter().rposition(|&share| share > 0.0)
    }

    /// Fisher-Yates shuffle.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = self.below(i + 1);
            items.swap(i, j);
        }
    }

    /// Mean 0, variance 1, nearly normal: the sum of four 16-bit uniforms (no value beyond 3.47, kurtosis 2.7); one draw a value, no logarithm.
    pub fn normal(&mut self) -> f32 {
        let b = self.bits();
        let sum = (b & 0xffff) as i32 + ((b >> 16) & 0xffff) as i32 + ((b >> 32) & 0xffff) as i32 + (b >> 48) as i32;
        // Variance of one uniform over 0..65535 is (65536^2 - 1) / 12.
        (sum - 2 * 65_535) as f32 * (1.0 / 37_837.228)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_every_part_of_their_name() {
        let key = RowKey { seed: 1, epoch: 2, utterance: 3, repeat: 4 };
        let names = [
            key.rng(Purpose::Wave),
            key.rng(Purpose::Features),
            RowKey { seed: 2, ..key }.rng(Purpose::Wave),
            RowKey { epoch: 3, ..key }.rng(Purpose::Wave),
            RowKey { utterance: 4, ..key }.rng(Purpose::Wave),
            RowKey { repeat: 5, ..key }.rng(Purpose::Wave),
            key.rng(Purpose::Wave).fork(0),
            key.rng(Purpose::Wave).fork(1),
        ];
        for (i, a) in names.iter().enumerate() {
            assert_eq!(a.clone().bits(), a.clone().bits());
            for b in &names[..i] {
                assert_ne!(a.clone().bits(), b.clone().bits());
            }
        }
        assert_ne!(Rng::new(0, &[1, 2]).bits(), Rng::new(0, &[2, 1]).bits());
    }

    #[test]
    fn splitmix64_gives_the_published_sequence() {
        // First outputs for seed 1234567 (Rosetta Code, "Pseudo-random numbers/Splitmix64").
        let mut rng = Rng { state: 1_234_567 };
        assert_eq!([rng.bits(), rng.bits(), rng.bits()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn moments_are_those_promised() {
        let mut rng = Rng::new(7, &[]);
        let n = 200_000;
        let (mut mean, mut square, mut fourth, mut uniform) = (0.0, 0.0, 0.0, 0.0);
        for _ in 0..n {
            let x = f64::from(rng.normal());
            (mean, square, fourth) = (mean + x, square + x * x, fourth + x.powi(4));
            uniform += f64::from(rng.uniform());
        }
        let n = f64::from(n);
        assert!(
            (mean / n).abs() < 0.01 && (square / n - 1.0).abs() < 0.01 && (fourth / n - 2.7).abs() < 0.05,
            "{} {} {}",
            mean / n,
            square / n,
            fourth / n
        );
        assert!((uniform / n - 0.5).abs() < 0.005);
    }

    #[test]
    fn picks_follow_their_shares() {
        let mut rng = Rng::new(3, &[]);
        let mut counts = [0; 3];
        (0..30_000).for_each(|_| counts[rng.pick(&[1.0, 0.0, 2.0]).unwrap()] += 1);
        assert!(counts[1] == 0 && (counts[0] - 10_000_i32).abs() < 400, "{counts:?}");
        assert_eq!(rng.pick(&[0.0, 0.0]), None);
        assert_eq!(rng.pick(&[]), None);
    }
}
