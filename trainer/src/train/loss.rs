//! Cross-entropy, what a teacher adds to it, and the counts that accuracy is made of.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor, TensorData};

/// Keras' `epsilon`.
const CLIP: f64 = 1e-7;

/// Targets `[N, classes]` of labels, flat: `y·(1 − ε) + ε/classes`. A label beyond the classes
/// has no `y`, as Keras' one-hot makes of it.
pub fn target_rows(labels: &[u32], classes: usize, smoothing: f64) -> Vec<f32> {
    let rest = (smoothing / classes as f64) as f32;
    let mut values = vec![rest; labels.len() * classes];
    for (row, label) in values.chunks_exact_mut(classes).zip(labels) {
        if let Some(target) = row.get_mut(*label as usize) {
            *target += (1.0 - smoothing) as f32;
        }
    }
    values
}

/// [`target_rows`] as a tensor.
pub fn targets(labels: &[u32], classes: usize, smoothing: f64, device: &Device) -> Tensor<2> {
    let rows = target_rows(labels, classes, smoothing);
    Tensor::from_data(TensorData::new(rows, [labels.len(), classes]), device)
}

/// `−Σ y·ln softmax(z) / N`, a scalar in `[1]`.
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    let count = logits.dims()[0];
    (log_softmax(logits, 1) * targets).sum().div_scalar(-(count as f64))
}

/// `softmax(z/T)` of each row of logits, `[N, classes]`.
pub(super) fn softmax(logits: &[f32], classes: usize, temperature: f64) -> Vec<f32> {
    let mut shares = Vec::with_capacity(logits.len());
    for row in logits.chunks_exact(classes.max(1)) {
        let scaled = row.iter().map(|z| f64::from(*z) / temperature);
        let highest = scaled.clone().fold(f64::MIN, f64::max);
        let sum: f64 = scaled.clone().map(|z| (z - highest).exp()).sum();
        shares.extend(scaled.map(|z| ((z - highest).exp() / sum) as f32));
    }
    shares
}

/// `T²·Σ p·(ln p − ln q) / N`, the divergence of the student's `q = softmax(z/T)` from the teacher's
/// `p = softmax(t/T)`, a scalar in `[1]`. `teacher` has its logits `t`, `[N, classes]`. By `T²`, gradients are
/// about as long at any temperature.
pub fn distillation(logits: Tensor<2>, teacher: &[f32], temperature: f64) -> Tensor<1> {
    let [count, classes] = logits.dims();
    let p = softmax(teacher, classes, temperature);
    let of = |share: &f32| f64::from(*share) * f64::from(share.max(f32::MIN_POSITIVE)).ln();
    let entropy = -p.iter().map(of).sum::<f64>();
    let p = Tensor::from_data(TensorData::new(p, [count, classes]), &logits.device());
    let crossed = cross_entropy(logits.div_scalar(temperature), p);
    (crossed - entropy / count.max(1) as f64).mul_scalar(temperature * temperature)
}

/// `−Σ y·ln p / N` of probabilities, as Keras computes it behind a softmax layer: rows are
/// divided by their sum and clipped to `1e-7..=1 − 1e-7`.
///
/// Beyond the clip the gradient is zero, and a confident mistake teaches nothing; fed with
/// logits it is nonsense without an error. Training takes [`cross_entropy`].
pub fn cross_entropy_of_probabilities(scores: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    let count = scores.dims()[0];
    let p = scores.clone() / scores.sum_dim(1);
    let p = p.clamp(CLIP, 1.0 - CLIP);
    (p.log() * targets).sum().div_scalar(-(count as f64))
}

/// Weight of each class, `N / (classes · count)`: all classes weigh the same, a picture 1 on
/// average. A class without pictures weighs 0.
pub fn balanced_weights(counts: &[usize]) -> Vec<f32> {
    let total: usize = counts.iter().sum();
    let share = total as f64 / counts.len() as f64;
    counts.iter().map(|n| if *n == 0 { 0.0 } else { (share / *n as f64) as f32 }).collect()
}

/// Place of the label among the scores: how many are strictly greater. 0 means right; ties
/// favor the label, as in Keras' top-k metric; a NaN score is never right.
pub fn rank(scores: &[f32], label: u32) -> usize {
    match scores.get(label as usize) {
        Some(own) if !own.is_nan() => scores.iter().filter(|s| *s > own).count(),
        _ => scores.len(),
    }
}

/// Index of the largest score, the first of equals.
pub fn argmax(scores: &[f32]) -> usize {
    let mut best = 0;
    for (i, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = i;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_favor_the_label_in_ties() {
        assert_eq!(rank(&[0.5, 0.5, 0.1], 1), 0);
        assert_eq!(rank(&[0.5, 0.4, 0.1], 2), 2);
        assert_eq!(rank(&[f32::NAN, 0.4], 0), 2);
        assert_eq!(rank(&[0.4], 3), 1);
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), 1);
    }

    #[test]
    fn balanced_classes_weigh_the_same() {
        let counts = [10, 30, 0, 40];
        let weights = balanced_weights(&counts);
        assert_eq!(weights, [2.0, 2.0 / 3.0, 0.0, 0.5]);
        assert_eq!(balanced_weights(&[7, 7]), [1.0, 1.0]);
    }

    #[test]
    fn the_gradient_of_a_lesson_is_that_of_its_loss() {
        let device = Device::flex().autodiff();
        let (student, teacher) =
            ([0.3f32, -1.2, 2.0, 0.1, 0.0, -0.4], [1.5f32, 0.2, -0.7, -3.0, 4.0, 0.5]);
        let logits = |values: [f32; 6], device: &Device| {
            Tensor::<2>::from_data(TensorData::new(values.to_vec(), [2, 3]), device)
        };
        // In f64, so that differences are exact enough.
        let loss = |student: [f64; 6], temperature: f64| -> f64 {
            let softmax = |row: &[f64]| -> Vec<f64> {
                let sum: f64 = row.iter().map(|z| (z / temperature).exp()).sum();
                row.iter().map(|z| (z / temperature).exp() / sum).collect()
            };
            let rows = teacher.map(f64::from);
            let pairs = rows.chunks_exact(3).zip(student.chunks_exact(3));
            let of_row = |(t, z): (&[f64], &[f64])| -> f64 {
                let (p, q) = (softmax(t), softmax(z));
                p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum()
            };
            temperature * temperature * pairs.map(of_row).sum::<f64>() / 2.0
        };
        for temperature in [0.5, 1.0, 4.0] {
            let z = logits(student, &device).require_grad();
            let cost = distillation(z.clone(), &teacher, temperature);
            let gradient = z.grad(&cost.backward()).unwrap().into_data();
            let gradient: Vec<f32> = gradient.iter::<f32>().collect();
            let cost = f64::from(cost.into_scalar::<f32>());
            let at = student.map(f64::from);
            assert!((cost - loss(at, temperature)).abs() < 1e-5 * cost.max(1.0), "{temperature}");
            for (i, gradient) in gradient.iter().enumerate() {
                let moved = |by: f64| {
                    let mut at = at;
                    at[i] += by;
                    loss(at, temperature)
                };
                let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert!((slope - f64::from(*gradient)).abs() < 1e-5, "{i}: {gradient}, {slope}");
            }
        }
        let same = distillation(logits(teacher, &Device::flex()), &teacher, 2.0);
        assert!(same.into_scalar::<f32>().abs() < 1e-6);
    }

    #[test]
    fn uniform_logits_cost_the_log_of_the_classes() {
        let device = Device::flex();
        let logits = Tensor::<2>::from_data(TensorData::new(vec![0f32; 8], [2, 4]), &device);
        let loss = cross_entropy(logits, targets(&[0, 3], 4, 0.1, &device));
        assert!((loss.into_scalar::<f32>() - 4f32.ln()).abs() < 1e-6);
    }
}
