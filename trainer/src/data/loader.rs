//! Batches, assembled one ahead of the training step on a thread of their own.

use super::{Augment, Pictures};
use artifact::Preprocess;
use convert::random::Rng;
use rayon::prelude::*;
use runtime::preprocess::{RgbView, for_each_pixel};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

/// Input of one step.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Preprocessed pictures `[N, 3, height, width]`.
    pub pixels: Vec<f32>,
    /// `[N, 3, height, width]`.
    pub shape: [usize; 4],
    /// Class of each picture.
    pub labels: Vec<u32>,
}

/// Which pictures come when.
#[derive(Debug, Clone, Copy)]
pub enum Order {
    /// As stored, unchanged, the last batch smaller: for measuring.
    Sequential,
    /// Shuffled and augmented by seed and epoch; a last batch of one picture is left out,
    /// for its batch statistics would be degenerate.
    Shuffled {
        /// Seed of the run.
        seed: u64,
        /// Epoch, from 0.
        epoch: u32,
        /// Random changes.
        augment: Augment,
    },
}

/// The batches of one pass over the pictures.
#[derive(Debug)]
pub struct Batches {
    receiver: Receiver<Batch>,
}

/// Number of batches in one pass over `count` pictures in batches of `size`.
pub fn batch_count(count: usize, size: usize, shuffled: bool) -> usize {
    let whole = count.div_ceil(size.max(1));
    if shuffled && count % size.max(1) == 1 && whole > 1 { whole - 1 } else { whole }
}

impl Batches {
    /// Starts assembling batches of `size` pictures.
    pub fn start(pictures: Arc<Pictures>, p: Preprocess, size: usize, order: Order) -> Self {
        let size = size.max(1);
        // One batch waits while the next is being made; more would only cost memory.
        let (sender, receiver) = sync_channel(1);
        std::thread::spawn(move || {
            let mut indices: Vec<usize> = (0..pictures.len()).collect();
            let shuffled = matches!(order, Order::Shuffled { .. });
            if let Order::Shuffled { seed, epoch, .. } = order {
                Rng::keyed(&[seed, u64::from(epoch)]).shuffle(&mut indices);
            }
            let count = batch_count(indices.len(), size, shuffled);
            for chunk in indices.chunks(size).take(count) {
                // The receiver is gone when the epoch was cut short.
                if sender.send(assemble(&pictures, &p, chunk, order)).is_err() {
                    return;
                }
            }
        });
        Self { receiver }
    }
}

impl Iterator for Batches {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        self.receiver.recv().ok()
    }
}

fn assemble(pictures: &Pictures, p: &Preprocess, indices: &[usize], order: Order) -> Batch {
    let (height, width) = (usize::from(p.height), usize::from(p.width));
    let len = 3 * height * width;
    let mut pixels = vec![0.0; indices.len() * len];
    pixels.par_chunks_mut(len).zip(indices).for_each(|(out, &i)| match order {
        Order::Sequential => normalize(pictures.get(i), p, out),
        Order::Shuffled { seed, epoch, augment } => {
            let mut rng = Rng::keyed(&[seed, u64::from(epoch), i as u64]);
            let mut changed = vec![0; len];
            augment.apply(pictures.get(i), height, width, &mut rng, &mut changed);
            normalize(&changed, p, out);
        }
    });
    let labels = indices.iter().map(|&i| pictures.labels[i]).collect();
    Batch { pixels, shape: [indices.len(), 3, height, width], labels }
}

/// RGB bytes `[height, width, 3]` to preprocessed planes `[3, height, width]`, through the
/// one function that devices use too.
fn normalize(rgb: &[u8], p: &Preprocess, out: &mut [f32]) {
    let (height, width) = (usize::from(p.height), usize::from(p.width));
    // `Pictures` only holds pictures of the model's size, so the view always exists.
    let Ok(view) = RgbView::new(rgb, width, height, width * 3) else { return };
    to_planes(p, view, out);
}

/// A picture of any size to preprocessed planes, `out: [3, p.height, p.width]`.
pub(crate) fn to_planes(p: &Preprocess, view: RgbView<'_>, out: &mut [f32]) {
    let plane = usize::from(p.height) * usize::from(p.width);
    for_each_pixel(p, view, |i, value| {
        for (c, v) in value.into_iter().enumerate() {
            out[c * plane + i] = v;
        }
    });
}
