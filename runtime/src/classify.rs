//! From logits to the likeliest classes: `softmax(z)ᵢ = exp(zᵢ − max z) / Σⱼ exp(zⱼ − max z)`.

use heapless::Vec;

/// One class and how likely it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Class index, as in the model's labels.
    pub index: usize,
    /// Softmax over all classes, in 0..=1; never NaN.
    pub probability: f32,
    /// The model's output.
    pub logit: f32,
}

/// The `k` (at most `K`) likeliest classes, likeliest first; of equal ones the lower index first.
///
/// NaN logits count as impossible (probability 0) and come last; infinite ones share
/// the probability among themselves.
pub fn top_k<const K: usize>(logits: impl Iterator<Item = f32> + Clone, k: usize) -> Vec<Score, K> {
    let mut top: Vec<Score, K> = Vec::new();
    let k = k.min(K);
    for (index, logit) in logits.clone().enumerate() {
        let place = top.iter().take_while(|s| !is_above(logit, s.logit)).count();
        if place >= k {
            continue;
        }
        if top.len() == k {
            top.pop();
        }
        // There is room: `k` is at most `K`, and a full list has just lost its last.
        let _ = top.push(Score { index, probability: 0.0, logit });
        for at in (place + 1..top.len()).rev() {
            top.swap(at - 1, at);
        }
    }
    let max = logits.clone().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = logits.map(|logit| share(logit, max)).sum();
    if sum > 0.0 {
        for score in &mut top {
            score.probability = share(score.logit, max) / sum;
        }
    }
    top
}

/// Whether `a` ranks before `b`: larger, or a number where `b` is none.
fn is_above(a: f32, b: f32) -> bool {
    a > b || (b.is_nan() && !a.is_nan())
}

/// `exp(logit − max)`, where the largest is 1 also when it is infinite.
fn share(logit: f32, max: f32) -> f32 {
    if logit == max {
        1.0
    } else if logit.is_nan() {
        0.0
    } else {
        libm::expf(logit - max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indices(logits: &[f32], k: usize) -> heapless::Vec<usize, 4> {
        top_k::<4>(logits.iter().copied(), k).iter().map(|s| s.index).collect()
    }

    #[test]
    fn order_and_ties() {
        assert_eq!(indices(&[1.0, 3.0, 2.0, 3.0, 0.0], 3), [1, 3, 2]);
        assert_eq!(indices(&[0.0; 6], 9), [0, 1, 2, 3]);
        assert_eq!(indices(&[1.0, 2.0], 0), []);
        assert_eq!(indices(&[], 2), []);
    }

    #[test]
    fn probabilities() {
        let top = top_k::<3>([0.0, 1.0, 2.0].into_iter(), 3);
        assert_eq!(top[0].index, 2);
        assert!((top[0].probability - 0.665_241).abs() < 1e-6);
        assert!((top.iter().map(|s| s.probability).sum::<f32>() - 1.0).abs() < 1e-6);
        let large = top_k::<1>([1e38, -1e38].into_iter(), 1);
        assert_eq!(large[0].probability, 1.0);
    }

    #[test]
    fn not_numbers() {
        assert_eq!(indices(&[f32::NAN, 1.0, f32::NEG_INFINITY], 3), [1, 2, 0]);
        let inf = f32::INFINITY;
        for (logits, want) in [
            ([f32::NAN, 1.0, 1.0], [0.5, 0.5, 0.0]),
            ([inf, 0.0, inf], [0.5, 0.5, 0.0]),
            ([f32::NAN; 3], [0.0; 3]),
            ([-inf; 3], [1.0 / 3.0; 3]),
        ] {
            let top = top_k::<3>(logits.into_iter(), 3);
            let got: heapless::Vec<f32, 3> = top.iter().map(|s| s.probability).collect();
            assert_eq!(got, want);
        }
    }
}
