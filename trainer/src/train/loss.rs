//! Cross-entropy and the counts that accuracy is made of.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor, TensorData};

/// Targets `[N, classes]` from labels, `y·(1 − ε) + ε/classes`.
pub fn targets(labels: &[u32], classes: usize, smoothing: f64, device: &Device) -> Tensor<2> {
    let rest = (smoothing / classes as f64) as f32;
    let mut values = vec![rest; labels.len() * classes];
    for (row, label) in values.chunks_exact_mut(classes).zip(labels) {
        if let Some(target) = row.get_mut(*label as usize) {
            *target += (1.0 - smoothing) as f32;
        }
    }
    Tensor::from_data(TensorData::new(values, [labels.len(), classes]), device)
}

/// `−Σ y·ln softmax(z) / N`, a scalar in `[1]`.
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    let count = logits.dims()[0];
    (log_softmax(logits, 1) * targets).sum().div_scalar(-(count as f64))
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
    fn uniform_logits_cost_the_log_of_the_classes() {
        let device = Device::flex();
        let logits = Tensor::<2>::from_data(TensorData::new(vec![0f32; 8], [2, 4]), &device);
        let loss = cross_entropy(logits, targets(&[0, 3], 4, 0.1, &device));
        assert!((loss.into_scalar::<f32>() - 4f32.ln()).abs() < 1e-6);
    }
}
