//! Batches, assembled one ahead of the training step on a thread of their own.

use super::augment::{Augment, Draws, Raster};
use super::{Pictures, Share};
use artifact::Preprocess;
use convert::random::{Rng, fnv1a};
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
    /// How much of each picture is its own; the rest is of its partner, the picture as far
    /// from the batch's end. 1 where pictures are not mixed.
    pub own: f32,
}

/// Which pictures come when.
#[derive(Debug, Clone)]
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
        /// The pictures of each batch that are wanted.
        share: Share,
    },
}

impl Order {
    fn share(&self) -> Share {
        match self {
            Self::Sequential => Share::WHOLE,
            Self::Shuffled { share, .. } => *share,
        }
    }
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
            for (i, chunk) in indices.chunks(size).take(count).enumerate() {
                let places = order.share().places(chunk.len());
                let own: Vec<usize> = places.into_iter().map(|place| chunk[place]).collect();
                // The receiver is gone when the epoch was cut short.
                if sender.send(assemble(&pictures, &p, &own, i, &order)).is_err() {
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

/// The planes of one augmented batch of the first epoch, flat.
pub(crate) fn batch(
    pictures: &Pictures,
    p: &Preprocess,
    indices: &[usize],
    augment: &Augment,
    seed: u64,
) -> Vec<f32> {
    let order = Order::Shuffled { seed, epoch: 0, augment: augment.clone(), share: Share::WHOLE };
    assemble(pictures, p, indices, 0, &order).pixels
}

fn assemble(
    pictures: &Pictures,
    p: &Preprocess,
    indices: &[usize],
    number: usize,
    order: &Order,
) -> Batch {
    let (height, width) = (usize::from(p.height), usize::from(p.width));
    let shape = [indices.len(), 3, height, width];
    let len = 3 * height * width;
    let mut pixels = vec![0.0; indices.len() * len];
    let mut own = 1.0;
    let raster = |i: usize| Raster::from_rgb8(pictures.get(i), height, width);
    let places = pixels.par_chunks_mut(len).zip(indices);
    match order {
        Order::Sequential => places.for_each(|(out, &i)| normalize(&raster(i), p, out)),
        Order::Shuffled { seed, epoch, augment, .. } => {
            let epoch = u64::from(*epoch);
            let batch = Rng::keyed(&[*seed, epoch, fnv1a(b"batch"), number as u64]);
            places.for_each(|(out, &i)| {
                let picture = Rng::keyed(&[*seed, epoch, i as u64]);
                let changed = augment.apply(raster(i), Draws { picture, batch: batch.clone() });
                normalize(&changed.resize_cropped(height, width), p, out);
            });
            let mut rng = Rng::keyed(&[*seed, epoch, fnv1a(b"mix"), number as u64]);
            own = augment.mix.apply(&mut pixels, shape, &mut rng);
        }
    }
    let labels = indices.iter().map(|&i| pictures.labels[i]).collect();
    Batch { pixels, shape, labels, own }
}

/// A picture of the model's size to preprocessed planes `[3, height, width]`.
fn normalize(raster: &Raster, p: &Preprocess, out: &mut [f32]) {
    let plane = raster.height * raster.width;
    for (i, pixel) in raster.pixels.as_chunks::<3>().0.iter().enumerate() {
        for (c, v) in p.normalize(*pixel).into_iter().enumerate() {
            out[c * plane + i] = v;
        }
    }
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
