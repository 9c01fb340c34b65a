//! What a predictor learns from: the router's logits for the same step.

/// Weight of the cross-entropy against the router's first choice.
const CROSS_ENTROPY: f32 = 0.005;
/// Of the router's logits the largest so many count in the distance.
pub const MOST_EXPERTS: usize = 30;

/// The loss of one step and layer, and its gradient by the student's logits.
#[derive(Debug, Clone, PartialEq)]
pub struct Distilled {
    /// `0.005 * cross-entropy + distance`.
    pub loss: f32,
    /// Mean absolute difference of the probabilities of the teacher's `top` largest logits, renormalised among these.
    pub distance: f32,
    /// Negative log-probability of the teacher's first choice.
    pub cross_entropy: f32,
    /// `d loss / d student`.
    pub gradient: Vec<f32>,
}

/// Compares a student with its teacher.
///
/// # Shapes
/// `student`, `teacher`: `[experts]`, logits
///
/// # Reference
/// SiDA-MoE, arXiv:2310.18859, its code: `0.005 CE(argmax teacher) + L1mean(softmax(student[top]), softmax(teacher[top]))`.
pub fn distill(student: &[f32], teacher: &[f32], top: usize) -> Distilled {
    let mut order: Vec<usize> = (0..teacher.len()).collect();
    order.sort_by(|&a, &b| teacher[b].total_cmp(&teacher[a]));
    let best = order[0];
    order.truncate(top);
    let pick = |logits: &[f32]| softmax(&order.iter().map(|&e| logits[e]).collect::<Vec<f32>>());
    let (p, q) = (pick(student), pick(teacher));
    let n = order.len() as f32;
    let distance = p.iter().zip(&q).map(|(p, q)| (p - q).abs()).sum::<f32>() / n;
    let slope: Vec<f32> = p.iter().zip(&q).map(|(p, q)| if p == q { 0.0 } else { (p - q).signum() / n }).collect();
    let mean: f32 = p.iter().zip(&slope).map(|(p, s)| p * s).sum();
    let all = softmax(student);
    let cross_entropy = -all[best].max(f32::MIN_POSITIVE).ln();
    let mut gradient: Vec<f32> = all.iter().map(|p| CROSS_ENTROPY * p).collect();
    gradient[best] -= CROSS_ENTROPY;
    for ((&e, p), s) in order.iter().zip(&p).zip(&slope) {
        gradient[e] += p * (s - mean);
    }
    Distilled { loss: CROSS_ENTROPY * cross_entropy + distance, distance, cross_entropy, gradient }
}

/// Probabilities of logits.
pub fn softmax(logits: &[f32]) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = logits.iter().map(|v| (v - most).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.into_iter().map(|v| v / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STUDENT: [f32; 4] = [0.2, 1.0, -0.5, 0.1];
    const TEACHER: [f32; 4] = [0.0, 2.0, 1.0, -1.0];

    #[test]
    fn figures_of_the_authors_code() {
        let Distilled { loss, distance, cross_entropy, .. } = distill(&STUDENT, &TEACHER, 3);
        assert!((distance - 0.119_088_71).abs() < 1e-7, "{distance}");
        assert!((cross_entropy - 0.731_900_9).abs() < 1e-7, "{cross_entropy}");
        assert!((loss - 0.122_748_22).abs() < 1e-7, "{loss}");
        assert!(distill(&TEACHER, &TEACHER, 4).distance == 0.0);
    }

    #[test]
    fn gradient_is_that_of_differences() {
        for top in [2, 3, 4] {
            let gradient = distill(&STUDENT, &TEACHER, top).gradient;
            for e in 0..4 {
                let at = |d: f32| {
                    let mut moved = STUDENT;
                    moved[e] += d;
                    f64::from(distill(&moved, &TEACHER, top).loss)
                };
                let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
                assert!((slope - f64::from(gradient[e])).abs() < 2e-4, "top {top}, expert {e}: {slope}, {}", gradient[e]);
            }
        }
    }
}
