//! Accuracy on pictures that the network does not learn from.

use super::{calibration, counter, loss};
use crate::data::{Batches, DataError, Loading, Order, Pictures};
use crate::net::Network;
use artifact::Preprocess;
use burn::tensor::{Device, Tensor, TensorData};
use runtime::classify::top_k;
use serde::Serialize;
use std::sync::Arc;

/// Most pixels of a batch.
const MAX_PIXELS: usize = 8 << 20;

/// What a network says of one picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// Class of the picture.
    pub label: u32,
    /// Class that the network finds likeliest.
    pub class: u32,
    /// Softmax of that class, 0..=1.
    pub probability: f32,
}

impl Answer {
    /// Whether the network is right.
    pub fn is_right(&self) -> bool {
        self.label == self.class
    }
}

/// Result of [`evaluate`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    /// Pictures measured.
    pub pictures: usize,
    /// Mean cross-entropy without smoothing.
    pub loss: f64,
    /// Share right, 0..=1.
    pub accuracy: f64,
    /// The `k` of `top_k_accuracy`.
    pub top_k: usize,
    /// Share whose class is among the `k` best, 0..=1.
    pub top_k_accuracy: f64,
    /// `confusion[class][answer]`: number of pictures.
    pub confusion: Vec<Vec<usize>>,
    /// Expected calibration error, see [`calibration`](super::calibration()).
    pub ece: f64,
    /// One for each picture, in their order.
    #[serde(skip)]
    pub answers: Vec<Answer>,
}

impl Evaluation {
    /// Where the accuracy on other such pictures lies, see [`dataset::interval`].
    pub fn interval(&self) -> [f64; 2] {
        dataset::interval(self.accuracy, self.pictures)
    }

    /// Half of that in words.
    pub fn margin(&self) -> String {
        dataset::margin(self.accuracy, self.pictures)
    }

    /// Accuracy in words; top-k only where it says more.
    pub fn summary(&self) -> String {
        let near = match self.top_k {
            ..=1 => String::new(),
            k => format!(", top-{k} {:.2} %", 100.0 * self.top_k_accuracy),
        };
        format!("accuracy {:.2} %{near}", 100.0 * self.accuracy)
    }
}

/// Runs `net` over `pictures`; `device` must be without autodiff.
///
/// # Errors
/// Pictures that cannot be read again.
pub fn evaluate(
    net: &Network,
    pictures: &Arc<Pictures>,
    p: &Preprocess,
    classes: usize,
    options: (usize, usize),
    device: &Device,
) -> Result<Evaluation, DataError> {
    let (batch, k) = options;
    // Maps of larger pictures take more memory; answers do not depend on it.
    let batch =
        batch.min(MAX_PIXELS / (usize::from(p.width) * usize::from(p.height)).max(1)).max(1);
    let mut sum = 0.0;
    let (mut right, mut near) = (0, 0);
    let mut confusion = vec![vec![0; classes]; classes];
    let mut answers = Vec::with_capacity(pictures.len());
    let loading =
        Loading { preprocess: *p, batch, side: None, frame: None, order: Order::Sequential };
    let counter = counter("measuring on pictures");
    for batch in Batches::start(pictures.clone(), loading) {
        let batch = batch?;
        let count = batch.labels.len();
        let x = Tensor::<4>::from_data(TensorData::new(batch.pixels, batch.shape), device);
        let logits = net.forward(x);
        let targets = loss::targets(&batch.labels, classes, 0.0, device);
        let cost = loss::cross_entropy(logits.clone(), targets).into_scalar::<f32>();
        sum += f64::from(cost) * count as f64;
        let scores: Vec<f32> = logits.into_data().iter::<f32>().collect();
        for (scores, label) in scores.chunks_exact(classes).zip(&batch.labels) {
            let answer = loss::argmax(scores);
            right += usize::from(answer == *label as usize);
            near += usize::from(loss::rank(scores, *label) < k);
            if let Some(row) = confusion.get_mut(*label as usize) {
                row[answer] += 1;
            }
            let best = top_k::<1>(scores.iter().copied(), 1);
            let probability = best.first().map_or(0.0, |s| s.probability);
            answers.push(Answer { label: *label, class: answer as u32, probability });
        }
        if let Some(counter) = &counter {
            counter.show(answers.len(), pictures.len());
        }
    }
    let n = pictures.len().max(1) as f64;
    Ok(Evaluation {
        pictures: pictures.len(),
        loss: sum / n,
        accuracy: right as f64 / n,
        top_k: k,
        top_k_accuracy: near as f64 / n,
        confusion,
        ece: calibration::ece(&calibration::calibration(&answers)),
        answers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluation(pictures: usize, accuracy: f64) -> Evaluation {
        Evaluation {
            pictures,
            loss: 0.0,
            accuracy,
            top_k: 1,
            top_k_accuracy: accuracy,
            confusion: Vec::new(),
            ece: 0.0,
            answers: Vec::new(),
        }
    }

    #[test]
    fn places_are_counted_where_they_say_more() {
        let one = evaluation(200, 0.925);
        assert_eq!(one.summary(), "accuracy 92.50 %");
        let five = Evaluation { top_k: 5, top_k_accuracy: 1.0, ..one };
        assert_eq!(five.summary(), "accuracy 92.50 %, top-5 100.00 %");
    }

    #[test]
    fn few_pictures_tell_little() {
        let interval = |pictures, accuracy| {
            let m = evaluation(pictures, accuracy);
            m.interval().map(|share| (share * 1000.0).round() / 10.0)
        };
        // 185 of 200, as statsmodels' proportion_confint(method="wilson") has it.
        assert_eq!(interval(200, 0.925), [88.0, 95.4]);
        assert_eq!(interval(10, 1.0), [72.2, 100.0]);
        assert_eq!(interval(10_000, 0.92), [91.5, 92.5]);
    }
}
