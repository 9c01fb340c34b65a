//! The log-probabilities of one region of speech, gathered window by window, then decoded together.

/// A region that goes on for longer is decoded up to its last pause, so that memory stays flat whatever the recording.
const LONGEST_STEPS: usize = 6000;
/// Steps whose blanks are summed to find a pause.
const PAUSE_STEPS: usize = 5;

/// Natural log-probabilities of consecutive steps.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Stretch {
    /// `[steps, vocab]`, row after row.
    pub log_probs: Vec<f32>,
    /// Tokens per row.
    pub vocab: usize,
    /// Expert of every step, `[MoE layers][steps]`.
    pub experts: Vec<Vec<u16>>,
    /// Sample of the recording at which the first step begins.
    pub position: usize,
}

impl Stretch {
    /// Number of steps.
    pub fn steps(&self) -> usize {
        self.log_probs.len() / self.vocab.max(1)
    }
}

/// Joins the cores of a region's windows into [`Stretch`]es to decode: one per region, more where it is very long.
#[derive(Debug, Clone)]
pub struct Region {
    open: Stretch,
    blank: usize,
    step_samples: usize,
}

impl Region {
    /// An empty region; `step_samples`: samples per step.
    pub fn new(vocab: usize, blank: u32, step_samples: usize) -> Self {
        Self { open: Stretch { vocab, ..Stretch::default() }, blank: blank as usize, step_samples }
    }

    /// Appends the output of a core that begins at sample `position`: `log_probs` `[steps, vocab]`, `experts` `[MoE layers][steps]`. Gives what is
    /// ready to be decoded.
    pub fn step(&mut self, log_probs: &[f32], experts: &[Vec<u16>], position: usize) -> Option<Stretch> {
        if self.open.log_probs.is_empty() {
            self.open.position = position;
        }
        self.open.log_probs.extend_from_slice(log_probs);
        self.open.experts.resize(experts.len(), Vec::new());
        self.open.experts.iter_mut().zip(experts).for_each(|(all, new)| all.extend_from_slice(new));
        (self.open.steps() > LONGEST_STEPS).then(|| self.split_at_pause())
    }

    /// Ends the region: what is left of it.
    pub fn flush(&mut self) -> Option<Stretch> {
        let empty = Stretch { vocab: self.open.vocab, ..Stretch::default() };
        let rest = std::mem::replace(&mut self.open, empty);
        (!rest.log_probs.is_empty()).then_some(rest)
    }

    /// Everything up to the surest pause of the second half.
    fn split_at_pause(&mut self) -> Stretch {
        let Stretch { vocab, position, .. } = self.open;
        let steps = self.open.steps();
        let blanks: Vec<f64> = self.open.log_probs.chunks_exact(vocab).map(|row| f64::from(row[self.blank])).collect();
        let surest = |from: usize| blanks[from..from + PAUSE_STEPS].iter().sum::<f64>();
        let best = (steps / 2..steps - PAUSE_STEPS).max_by(|&a, &b| surest(a).total_cmp(&surest(b))).unwrap_or(steps / 2);
        let cut = best + PAUSE_STEPS / 2;
        let rest = self.open.log_probs.split_off(cut * vocab);
        let experts = self.open.experts.iter_mut().map(|layer| layer.split_off(cut)).collect();
        let rest = Stretch { log_probs: rest, vocab, experts, position: position + cut * self.step_samples };
        std::mem::replace(&mut self.open, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::ctc::greedy;

    /// Steps of blank (token 0), but for a word of three tokens at each of `words`.
    fn speech(steps: usize, words: &[usize]) -> Vec<f32> {
        let mut path = vec![0usize; steps];
        words.iter().for_each(|&at| (0..3).for_each(|i| path[at + i] = 1 + i));
        path.iter().flat_map(|&token| (0..4).map(move |t| if t == token { -0.1 } else { -3.0 })).collect()
    }

    #[test]
    fn one_region_is_one_stretch() {
        let all = speech(500, &[20, 200]);
        let mut region = Region::new(4, 0, 640);
        for (i, part) in all.chunks(4 * 125).enumerate() {
            assert!(region.step(part, &[vec![i as u16; 125]], 64_000 + i * 125 * 640).is_none());
        }
        assert_eq!(
            region.flush(),
            Some(Stretch { log_probs: all, vocab: 4, experts: vec![(0..4).flat_map(|i| vec![i; 125]).collect()], position: 64_000 })
        );
        assert_eq!(region.flush(), None);
    }

    #[test]
    fn an_endless_region_is_cut_between_words() {
        let steps = 40_000;
        let words: Vec<usize> = (0..steps - 20).step_by(9).collect();
        let all = speech(steps, &words);
        let mut region = Region::new(4, 0, 640);
        let mut parts: Vec<Stretch> =
            all.chunks(4 * 400).enumerate().filter_map(|(i, part)| region.step(part, &[vec![i as u16; 400]], i * 400 * 640)).collect();
        parts.extend(region.flush());
        assert!(parts.len() > 6 && parts.iter().all(|p| p.steps() <= LONGEST_STEPS + 400));
        let joined: Vec<u32> = parts.iter().flat_map(|p| greedy(&p.log_probs, p.steps(), 4, 0).tokens).collect();
        assert_eq!(joined, greedy(&all, steps, 4, 0).tokens);
        let mut next = 0;
        for part in &parts {
            assert_eq!((part.position, part.experts[0].len()), (next, part.steps()));
            assert_eq!(usize::from(part.experts[0][0]), next / 640 / 400);
            next += part.steps() * 640;
        }
        assert_eq!(next, steps * 640);
    }
}
