//! How well a network will tell classes apart, before it is trained: by heads for what it sees already.

use crate::data::{Batches, Loading, Order, Pictures};
use crate::net::{self, Init, Network};
use crate::train::probe::{Fitting, Probe};
use crate::train::{argmax, balanced_weights};
use burn::tensor::{Device, Tensor, TensorData};
use network::checkpoint::Draft;
use network::random::{Rng, fnv1a};
use std::sync::Arc;

/// Pictures that are looked at, at most.
pub(super) const MOST: usize = 1200;
/// Pictures of a batch.
const BATCH: usize = 32;
/// Parts, each of which is asked about by a head that was fitted to the others.
const FOLDS: usize = 5;
/// As the examination of data sets has it: a strict head, which does not explain each picture.
const FITTING: Fitting = Fitting { decay: 1e-3, steps: 60 };

/// Share of `pictures` that heads get right which were not fitted to them, and their cross-entropy.
///
/// # Errors
/// Pictures that cannot be read again.
pub(super) fn guess(
    draft: &Draft,
    pictures: &Pictures,
    seed: u64,
    device: &Device,
) -> anyhow::Result<(f64, f64)> {
    let features = features(draft, pictures, device)?;
    Ok(ask(&features, &pictures.labels, draft.labels.len(), seed))
}

/// What a network sees in pictures of its size, `[pictures, width]`.
///
/// # Errors
/// Pictures that cannot be read again.
pub(crate) fn features(
    draft: &Draft,
    pictures: &Pictures,
    device: &Device,
) -> anyhow::Result<Vec<f32>> {
    let mut net = Network::new(&draft.config, Init::he(0), device).map_err(anyhow::Error::msg)?;
    net::load_tensors(&mut net, &draft.tensors, false)?;
    let (preprocess, pictures) = (draft.preprocess, Arc::new(pictures.clone()));
    let loading =
        Loading { preprocess, batch: BATCH, side: None, frame: None, order: Order::Sequential };
    let mut features = Vec::new();
    for batch in Batches::start(pictures, loading) {
        let batch = batch?;
        let x = Tensor::<4>::from_data(TensorData::new(batch.pixels, batch.shape), device);
        features.extend(net.features(x).into_data().iter::<f32>());
    }
    Ok(features)
}

/// Share right by heads that were not fitted to a picture, and their cross-entropy, of features `[pictures, width]`.
pub(crate) fn ask(features: &[f32], labels: &[u32], classes: usize, seed: u64) -> (f64, f64) {
    let width = features.len() / labels.len().max(1);
    // Each class is dealt evenly.
    let mut order: Vec<usize> = (0..labels.len()).collect();
    Rng::keyed(&[seed, fnv1a(b"guess")]).shuffle(&mut order);
    order.sort_by_key(|i| labels[*i]);
    let mut fold = vec![0; labels.len()];
    order.iter().enumerate().for_each(|(at, i)| fold[*i] = at % FOLDS);
    let row = |i: usize| &features[i * width..(i + 1) * width];
    let (mut right, mut loss) = (0, 0.0);
    for asked in 0..FOLDS {
        let (mut probe, mut counts) = (Probe::default(), vec![0; classes]);
        for i in (0..labels.len()).filter(|i| fold[*i] != asked) {
            probe.add(row(i), &labels[i..=i]);
            counts[labels[i] as usize] += 1;
        }
        if probe.len() == 0 {
            continue;
        }
        let head = probe.solve(&balanced_weights(&counts), FITTING);
        for i in (0..labels.len()).filter(|i| fold[*i] == asked) {
            let logits = head.logits(row(i));
            let highest = logits.iter().copied().fold(f32::MIN, f32::max);
            let sum: f32 = logits.iter().map(|logit| (logit - highest).exp()).sum();
            right += usize::from(argmax(&logits) == labels[i] as usize);
            loss += f64::from(sum.ln() + highest - logits[labels[i] as usize]);
        }
    }
    let count = labels.len().max(1) as f64;
    (right as f64 / count, loss / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_that_tell_classes_apart_are_found_out() {
        let labels: Vec<u32> = (0..120).map(|i| i % 3).collect();
        let mut rng = Rng::keyed(&[3]);
        let mut noise = |scale: f64| (scale * rng.normal()) as f32;
        let told: Vec<f32> =
            labels.iter().flat_map(|l| [*l as f32 + noise(0.1), noise(1.0)]).collect();
        let untold: Vec<f32> = labels.iter().flat_map(|_| [noise(1.0), noise(1.0)]).collect();
        let (accuracy, loss) = ask(&told, &labels, 3, 0);
        assert!(accuracy > 0.9 && loss < 0.6, "{accuracy} {loss}");
        let (accuracy, loss) = ask(&untold, &labels, 3, 0);
        assert!(accuracy < 0.5 && loss > 1.0, "{accuracy} {loss}");
    }
}
