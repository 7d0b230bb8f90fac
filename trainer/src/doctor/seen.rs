//! What networks see in pictures, and small grey copies of them, in one pass.
//!
//! Photos are seen by the network that fine-tuning would start from. Tiny pictures, of which that one
//! knows little beyond CIFAR-10's classes, are also seen by that of photos where they are few, and their
//! own pixels count: of 500 pictures of clothes with 10 wrong labels, 6 to 7 of these are among the
//! first 15 by ResNet-20's features alone, 8 by all three. Each of them is put about its mean and has the
//! length 1 in each picture, which finds more than lengths as they are.

use super::similar::SIDE;
use crate::builtin::{Builtin, ICON_SIDE, Target};
use crate::data::{DataError, Pictures, to_planes};
use crate::net::Network;
use crate::train;
use artifact::Preprocess;
use burn::tensor::{Device, Tensor, TensorData};
use network::checkpoint::Checkpoint;
use page::progress::Counter;
use rayon::prelude::*;
use runtime::preprocess::RgbView;

/// Pictures of a batch.
const BATCH: usize = 32;
/// Tiny pictures that the network of photos looks at, at most: some 150 a second.
const MOST_TWICE: usize = 5000;

/// Of each picture, in their order.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Features `[pictures, width]`, about their mean, those of each network of length 1.
    pub(super) features: Vec<f32>,
    /// Features of a picture.
    pub(super) width: usize,
    /// Luma `[pictures, SIDE, SIDE]`, 0..=255, means over the pixels that the network sees.
    pub(super) greys: Vec<u8>,
}

/// A network and what it sees, `[pictures, width]`.
struct Viewer {
    net: Network,
    preprocess: Preprocess,
    features: Vec<f32>,
}

impl Viewer {
    fn new(checkpoint: &Checkpoint, device: &Device) -> anyhow::Result<Self> {
        let net = train::network(checkpoint, device)?;
        Ok(Self { net, preprocess: checkpoint.preprocess, features: Vec::new() })
    }

    /// Adds what it sees in pictures of `p`'s size.
    fn look(&mut self, batch: &[Vec<u8>], p: &Preprocess, device: &Device) -> anyhow::Result<()> {
        let own = &self.preprocess;
        let shape = [batch.len(), own.channels(), own.height.into(), own.width.into()];
        let planes = |pixels: &Vec<u8>| -> anyhow::Result<Vec<f32>> {
            let mut planes = vec![0.0; shape[1..].iter().product()];
            let (width, height) = (usize::from(p.width), usize::from(p.height));
            to_planes(own, RgbView::new(pixels, width, height, 3 * width)?, &mut planes);
            Ok(planes)
        };
        let planes = batch.par_iter().map(planes).collect::<anyhow::Result<Vec<_>>>()?;
        let x = Tensor::<4>::from_data(TensorData::new(planes.concat(), shape), device);
        let features = self.net.features(x).into_data();
        self.features.extend(features.convert::<f32>().try_to_vec::<f32>()?);
        Ok(())
    }
}

impl Seen {
    /// Looks at pictures of the size that `checkpoint` sees.
    ///
    /// # Errors
    /// Pictures that cannot be read again.
    pub(super) fn by(
        checkpoint: &Checkpoint,
        pictures: &Pictures,
        device: &Device,
    ) -> anyhow::Result<Self> {
        let p = checkpoint.preprocess;
        let is_tiny = usize::from(p.width) <= ICON_SIDE;
        let mut viewers = vec![Viewer::new(checkpoint, device)?];
        if is_tiny && pictures.len() <= MOST_TWICE {
            let of_photos = Builtin::for_pictures(None, Target::Host).open()?;
            viewers.push(Viewer::new(&of_photos, device)?);
        }
        let counter = Counter::new("looking at pictures");
        let mut greys = Vec::with_capacity(pictures.len() * SIDE * SIDE);
        for start in (0..pictures.len()).step_by(BATCH) {
            let end = (start + BATCH).min(pictures.len());
            let read = (start..end).into_par_iter().map(|i| Ok(pictures.get(i)?.into_owned()));
            let batch: Vec<Vec<u8>> = read.collect::<Result<_, DataError>>()?;
            greys.par_extend(batch.par_iter().flat_map_iter(|pixels| grey(pixels, &p)));
            for viewer in &mut viewers {
                viewer.look(&batch, &p, device)?;
            }
            counter.show(end, pictures.len());
        }
        let mut blocks: Vec<Vec<f32>> = viewers.into_iter().map(|viewer| viewer.features).collect();
        if is_tiny {
            blocks.push(halved(&greys));
        }
        let count = pictures.len();
        blocks.iter_mut().for_each(|block| center(block, count));
        let widths: Vec<usize> = blocks.iter().map(|block| block.len() / count.max(1)).collect();
        let row = |i: usize| {
            let parts = blocks.iter().zip(&widths);
            parts.flat_map(move |(block, width)| &block[i * width..(i + 1) * width]).copied()
        };
        Ok(Self { features: (0..count).flat_map(row).collect(), width: widths.iter().sum(), greys })
    }

    /// Features of picture `i`, `[width]`.
    pub(super) fn of(&self, i: usize) -> &[f32] {
        &self.features[i * self.width..(i + 1) * self.width]
    }
}

/// Puts rows of numbers about their mean, and gives each the length 1.
fn center(block: &mut [f32], count: usize) {
    let width = (block.len() / count.max(1)).max(1);
    let mut mean = vec![0.0f64; width];
    for row in block.chunks_exact(width) {
        mean.iter_mut().zip(row).for_each(|(mean, v)| *mean += f64::from(*v) / count as f64);
    }
    for row in block.chunks_exact_mut(width) {
        row.iter_mut().zip(&mean).for_each(|(v, mean)| *v -= *mean as f32);
        let length = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        row.iter_mut().for_each(|v| *v /= length.max(f32::MIN_POSITIVE));
    }
}

/// Half as many pixels along each axis of pictures `[pictures, SIDE, SIDE]`.
fn halved(greys: &[u8]) -> Vec<f32> {
    let rows = greys.chunks_exact(2 * SIDE).flat_map(|rows| {
        let (above, below) = rows.split_at(SIDE);
        let pairs = above.as_chunks::<2>().0.iter().zip(below.as_chunks::<2>().0);
        pairs.map(|(a, b)| [a, b].iter().flat_map(|p| *p).map(|v| f32::from(*v)).sum::<f32>() / 4.0)
    });
    rows.collect()
}

/// RGB `[height, width, 3]`, not smaller than `SIDE`, to luma `[SIDE, SIDE]`, each the mean over its part.
fn grey(pixels: &[u8], p: &Preprocess) -> Vec<u8> {
    /// ITU-R BT.601, in thousandths.
    const LUMA: [u32; 3] = [299, 587, 114];
    let (height, width) = (usize::from(p.height), usize::from(p.width));
    let (mut sums, mut counts) = (vec![0u32; SIDE * SIDE], vec![0u32; SIDE * SIDE]);
    for (at, rgb) in pixels.as_chunks::<3>().0.iter().enumerate() {
        let cell = at / width * SIDE / height * SIDE + at % width * SIDE / width;
        sums[cell] += LUMA.iter().zip(rgb).map(|(weight, v)| weight * u32::from(*v)).sum::<u32>();
        counts[cell] += 1000;
    }
    sums.iter().zip(&counts).map(|(sum, count)| (sum / (*count).max(1)) as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greys_are_means() {
        let p = Preprocess::raw(64, 96);
        let pixels: Vec<u8> = (0..64 * 96).flat_map(|i| [(i % 96 * 2) as u8; 3]).collect();
        let grey = grey(&pixels, &p);
        assert_eq!(grey.len(), SIDE * SIDE);
        // Of columns 3, 4 and 5.
        assert_eq!((grey[1], grey[SIDE + 1]), (8, 8));
        assert_eq!(halved(&grey).len(), SIDE * SIDE / 4);
        assert_eq!(halved(&grey)[0], f32::from(grey[0] + grey[1]) / 2.0);
    }

    #[test]
    fn blocks_have_one_length_about_one_point() {
        let mut block = vec![1.0, 5.0, 3.0, 5.0, 5.0, 14.0, 3.0, 8.0];
        center(&mut block, 4);
        // About 3 and 8.
        let want = [-0.5547, -0.83205, 0.0, -1.0, 0.31623, 0.94868, 0.0, 0.0];
        assert!(block.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-4), "{block:?}");
        center(&mut [], 0);
    }
}
