//! One epoch of training.

use super::loss::{argmax, cross_entropy, distillation, target_rows};
use super::{DIVERGED, Figures, Optimizer, Progress, Run, Schedule, interrupted};
use crate::data::{Batch, Batches, Pictures};
use crate::distributed;
use crate::net::Network;
use anyhow::{Context, ensure};
use burn::tensor::{Device, Tensor, TensorData};
use core::sync::atomic::Ordering;
use network::random::{Rng, fnv1a};
use std::io::Write;
use std::sync::Arc;

/// One epoch.
pub(super) struct Pass<'a> {
    pub(super) run: &'a Run<'a>,
    pub(super) schedule: Schedule,
    /// Batches of the epoch.
    pub(super) batches: usize,
    /// From 0.
    pub(super) epoch: u32,
    /// Number of the first step.
    pub(super) first: u64,
    /// Weight of each class in the loss.
    pub(super) weights: &'a [f32],
    /// What a teacher says of each picture, logits `[pictures, classes]`.
    pub(super) lesson: Option<&'a [f32]>,
}

impl Pass<'_> {
    /// Trains; returns mean loss and accuracy, both before each step's update.
    pub(super) fn run(
        &self,
        net: &mut Network,
        optimizer: &mut Optimizer,
        train: &Arc<Pictures>,
        progress: &mut Progress,
        out: &mut dyn Write,
    ) -> anyhow::Result<(f64, f64)> {
        let (run, recipe) = (self.run, &self.run.recipe);
        let classes = run.config.classes;
        let device = run.device.clone().autodiff();
        let share = distributed::share();
        let (mut sum, mut right, mut seen) = (0.0, 0.0, 0);
        let mut labelled = 0.0;
        let mut rate = 0.0;
        let mut batches = Batches::start(train.clone(), run.loading(self.epoch));
        for (number, batch) in batches.by_ref().enumerate() {
            let mut batch = batch.with_context(|| format!("epoch {}", self.epoch + 1))?;
            let count = batch.labels.len();
            let pixels = TensorData::new(core::mem::take(&mut batch.pixels), batch.shape);
            let x = Tensor::<4>::from_data(pixels, &device);
            let whole = recipe.batch.min(train.len() - seen);
            let forward = net.forward_pass(x, run.checkpointing);
            let features = self.drop_out(forward.features(), number, whole, &device);
            let logits = net.classify(features);
            let target = TensorData::new(self.targets(&batch), [count, classes]);
            let cost = cross_entropy(logits.clone(), Tensor::from_data(target, &device));
            let cost = self.taught(cost, &logits, &batch);
            let computed = share.computed(whole) as f64;
            // This process's part of the mean over the whole batch.
            let mut gradients = cost.clone().mul_scalar(count as f64 / computed).backward();
            for part in forward.backward(net, &mut gradients) {
                optimizer.gather(net, part);
            }
            rate = self
                .schedule
                .at(self.first + (number as u64) / u64::from(recipe.optimizer.accumulate));
            optimizer.step(net, gradients, rate);
            let cost = f64::from(cost.into_scalar::<f32>());
            ensure!(cost.is_finite(), "epoch {}: the loss is {cost}; {DIVERGED}", self.epoch + 1);
            let scores: Vec<f32> = logits.into_data().iter::<f32>().collect();
            let pairs = scores.chunks_exact(classes).zip(&batch.labels);
            let own = pairs.filter(|(s, label)| argmax(s) == **label as usize).count();
            let known = batch.labels.iter().filter(|label| (**label as usize) < classes).count();
            let mut totals = [cost * count as f64, own as f64, known as f64];
            distributed::world().sum(&mut totals);
            let [cost, own, known] = totals.map(|v| v * (whole as f64 / computed));
            (sum, right, seen) = (sum + cost, right + own, seen + whole);
            labelled += known.round();
            let figures = Figures {
                epoch: self.epoch + 1,
                epochs: recipe.epochs,
                step: number + 1,
                steps: self.batches,
                loss: sum / seen as f64,
                accuracy: right / f64::max(labelled, 1.0),
                pictures: seen,
            };
            progress.step(&figures, out)?;
            if run.stop.load(Ordering::Relaxed) {
                progress.line("", out)?;
                return Err(interrupted(self.epoch, recipe.epochs));
            }
        }
        ensure!(seen > 0, "no training pictures");
        ensure!(
            train.len() - seen <= 1,
            "epoch {}: {seen} of {} training pictures came; the loader has failed",
            self.epoch + 1,
            train.len()
        );
        optimizer.finish(net, rate);
        progress.add_waiting(batches.waited());
        Ok((sum / seen as f64, right / f64::max(labelled, 1.0)))
    }

    /// The loss of a batch: `cost` is that by its labels, of which the teacher takes its part.
    fn taught(&self, cost: Tensor<1>, logits: &Tensor<2>, batch: &Batch) -> Tensor<1> {
        let (Some(lesson), Some(teaching)) = (self.lesson, self.run.teaching) else { return cost };
        let classes = self.run.config.classes;
        let rows =
            batch.pictures.iter().flat_map(|picture| &lesson[picture * classes..][..classes]);
        let rows: Vec<f32> = rows.copied().collect();
        let taught = distillation(logits.clone(), &rows, teaching.temperature);
        cost.mul_scalar(1.0 - teaching.weight) + taught.mul_scalar(teaching.weight)
    }

    /// Targets `[N, classes]`: smoothed, mixed as the pictures are, times the class's weight.
    fn targets(&self, batch: &Batch) -> Vec<f32> {
        let (classes, smoothing) = (self.run.config.classes, self.run.recipe.label_smoothing);
        let mut rows = target_rows(&batch.labels, classes, smoothing);
        for (row, label) in rows.chunks_exact_mut(classes).zip(&batch.labels) {
            row.iter_mut().for_each(|v| *v *= self.weights[*label as usize]);
        }
        if batch.own < 1.0 {
            let partners = rows.clone();
            let partners = partners.chunks_exact(classes).rev();
            for (row, partner) in rows.chunks_exact_mut(classes).zip(partners) {
                for (a, b) in row.iter_mut().zip(partner) {
                    *a = batch.own * *a + (1.0 - batch.own) * b;
                }
            }
        }
        rows
    }

    /// Zeroes the configured share of features and lifts the others by as much (inverted
    /// dropout, Srivastava et al. 2014), as drawn for the `whole` pictures of the batch.
    fn drop_out(
        &self,
        features: Tensor<2>,
        batch: usize,
        whole: usize,
        device: &Device,
    ) -> Tensor<2> {
        let rate = self.run.config.dropout;
        if rate == 0.0 {
            return features;
        }
        let shape = features.dims();
        let keys = [self.run.recipe.seed, u64::from(self.epoch), fnv1a(b"dropout"), batch as u64];
        let mut rng = Rng::keyed(&keys);
        let kept = (1.0 / (1.0 - rate)) as f32;
        let draw = |_| if rng.unit() < rate { 0.0 } else { kept };
        let all: Vec<f32> = (0..whole * shape[1]).map(draw).collect();
        let places = distributed::share().places(whole).into_iter();
        let mask: Vec<f32> =
            places.flat_map(|place| &all[place * shape[1]..][..shape[1]]).copied().collect();
        features * Tensor::from_data(TensorData::new(mask, shape), device)
    }
}
