//! Average precision of a score for a label.

/// Average precision of `scores` for `labels` and for their opposite, by weight: `(AP(y), AP(1 - y))`, both for high scores first. Steps with
/// equal scores share one threshold. 0 where nothing is to be found.
///
/// # Shapes
/// `order`: numbers of steps by falling score; `scores`, `labels`, `weights`: `[steps]`
pub fn average_precisions(order: &[u32], scores: &[f32], labels: &[bool], weights: &[u32]) -> (f64, f64) {
    let total = |wanted: bool| labels.iter().zip(weights).filter(|(y, _)| **y == wanted).map(|(_, w)| f64::from(*w)).sum::<f64>();
    let (positive, negative) = (total(true), total(false));
    let (mut found, mut passed) = ([0.0f64; 2], [0.0f64; 2]);
    let mut precision = [0.0f64; 2];
    let mut at = 0;
    while at < order.len() {
        let score = scores[order[at] as usize];
        while at < order.len() && scores[order[at] as usize] == score {
            let step = order[at] as usize;
            found[usize::from(!labels[step])] += f64::from(weights[step]);
            at += 1;
        }
        let all = found[0] + found[1];
        for side in 0..2 {
            if found[side] > passed[side] {
                precision[side] += (found[side] - passed[side]) * found[side] / all;
                passed[side] = found[side];
            }
        }
    }
    (precision[0] / positive.max(f64::MIN_POSITIVE), precision[1] / negative.max(f64::MIN_POSITIVE))
}

/// Numbers of steps by falling score.
pub fn falling(scores: &[f32]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    order.sort_unstable_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_scikit_learn() {
        let scores = [0.9, 0.8, 0.8, 0.1, 0.0];
        let (plain, inverted) = average_precisions(&falling(&scores), &scores, &[true, false, true, false, false], &[1; 5]);
        assert!((plain - 0.833_333_333).abs() < 1e-9, "{plain}");
        assert!((inverted - 0.477_777_778).abs() < 1e-9, "{inverted}");
    }

    #[test]
    fn weights_are_repetitions() {
        let scores = [0.3f32, 0.9, -0.2, 0.3, 0.7, 0.1];
        let labels = [true, false, true, false, true, false];
        let weights = [2u32, 0, 1, 3, 1, 1];
        let repeated: Vec<usize> = (0..6).flat_map(|i| std::iter::repeat_n(i, weights[i] as usize)).collect();
        let (s, l): (Vec<f32>, Vec<bool>) = repeated.iter().map(|&i| (scores[i], labels[i])).unzip();
        let weighted = average_precisions(&falling(&scores), &scores, &labels, &weights);
        let plain = average_precisions(&falling(&s), &s, &l, &vec![1; s.len()]);
        assert!((weighted.0 - plain.0).abs() < 1e-12 && (weighted.1 - plain.1).abs() < 1e-12, "{weighted:?} {plain:?}");
    }

    #[test]
    fn a_planted_neuron_is_perfect() {
        let labels: Vec<bool> = (0..50).map(|i| i % 7 == 0).collect();
        let scores: Vec<f32> = labels.iter().enumerate().map(|(i, y)| if *y { 5.0 + i as f32 } else { -(i as f32) }).collect();
        assert_eq!(average_precisions(&falling(&scores), &scores, &labels, &[1; 50]).0, 1.0);
        assert_eq!(average_precisions(&falling(&scores), &scores, &[false; 50], &[1; 50]), (0.0, 1.0));
    }
}
