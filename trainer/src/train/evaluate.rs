//! Accuracy on pictures that the network does not learn from.

use super::loss;
use crate::data::{Batches, Order, Pictures};
use crate::resnet::ResNet;
use artifact::Preprocess;
use burn::tensor::{Device, Tensor, TensorData};
use serde::Serialize;
use std::sync::Arc;

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
}

/// Runs `net` over `pictures`; `device` must be without autodiff.
pub fn evaluate(
    net: &ResNet,
    pictures: &Arc<Pictures>,
    p: &Preprocess,
    classes: usize,
    options: (usize, usize),
    device: &Device,
) -> Evaluation {
    let (batch, top_k) = options;
    let mut sum = 0.0;
    let (mut right, mut near) = (0, 0);
    let mut confusion = vec![vec![0; classes]; classes];
    for batch in Batches::start(pictures.clone(), *p, batch, Order::Sequential) {
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
            near += usize::from(loss::rank(scores, *label) < top_k);
            if let Some(row) = confusion.get_mut(*label as usize) {
                row[answer] += 1;
            }
        }
    }
    let n = pictures.len().max(1) as f64;
    Evaluation {
        pictures: pictures.len(),
        loss: sum / n,
        accuracy: right as f64 / n,
        top_k,
        top_k_accuracy: near as f64 / n,
        confusion,
    }
}
