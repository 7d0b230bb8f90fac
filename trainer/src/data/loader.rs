//! Batches of one pass over the pictures, made ahead of the training step by threads of their
//! own: the pool that trains is not kept from its operators by a picture that takes long.

use super::augment::{Augment, Draws, Raster};
use super::prefetch::{Prefetch, Work};
use super::{DataError, Pictures, Share};
use artifact::Preprocess;
use core::time::Duration;
use network::random::{Rng, fnv1a};
use rayon::prelude::*;
use runtime::preprocess::{RgbView, for_each_pixel};
use std::sync::Arc;

/// Most batches that wait for their step, or are under way; enough for pictures that take longer
/// than others.
const MAX_AHEAD: usize = 8;
/// Bytes of those batches, unless two are more.
const MAX_AHEAD_BYTES: usize = 256 << 20;

/// Input of one step.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Preprocessed pictures `[N, channels, height, width]`.
    pub pixels: Vec<f32>,
    /// `[N, channels, height, width]`.
    pub shape: [usize; 4],
    /// Class of each picture.
    pub labels: Vec<u32>,
    /// Number of each picture among all.
    pub pictures: Vec<usize>,
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

/// How pictures become batches.
#[derive(Debug, Clone)]
pub struct Loading {
    /// What the pictures undergo.
    pub preprocess: Preprocess,
    /// Pictures of a batch.
    pub batch: usize,
    /// Height and width of the batches where it is not that of `preprocess`, to which the pictures
    /// are brought after all random changes.
    pub side: Option<u16>,
    /// Whose random changes these are, where not of pictures and batches of just this size: a teacher's
    /// are those of its student.
    pub frame: Option<Frame>,
    /// Which pictures come when.
    pub order: Order,
}

/// The sizes for which random changes are drawn, height and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Of pictures before any change.
    pub pictures: [usize; 2],
    /// Of batches.
    pub batches: [usize; 2],
}

impl Loading {
    /// The sizes for which its random changes are drawn.
    pub fn frame(&self) -> Frame {
        let p = &self.preprocess;
        self.frame.unwrap_or_else(|| {
            let pictures = [p.height, p.width];
            let batches = self.side.map_or(pictures, |side| [side; 2]);
            Frame { pictures: pictures.map(usize::from), batches: batches.map(usize::from) }
        })
    }
}

/// The batches of one pass over the pictures.
#[derive(Debug)]
pub struct Batches(Prefetch<Pass>);

/// Number of batches in one pass over `count` pictures in batches of `size`.
pub fn batch_count(count: usize, size: usize, shuffled: bool) -> usize {
    let whole = count.div_ceil(size.max(1));
    if shuffled && count % size.max(1) == 1 && whole > 1 { whole - 1 } else { whole }
}

impl Batches {
    /// Starts making batches, on as many threads as there are in the pool of the caller.
    pub fn start(pictures: Arc<Pictures>, loading: Loading) -> Self {
        Self::on_threads(pictures, loading, rayon::current_num_threads())
    }

    pub(super) fn on_threads(pictures: Arc<Pictures>, loading: Loading, threads: usize) -> Self {
        let pass = Pass::new(pictures, loading);
        let [_, channels, height, width] = pass.shape(0);
        let bytes = pass.loading.batch * channels * height * width * size_of::<f32>();
        let ahead = (MAX_AHEAD_BYTES / bytes.max(1)).clamp(2, MAX_AHEAD);
        Self(Prefetch::start(pass, ahead, threads))
    }

    /// How long was waited for batches that were not ready.
    pub fn waited(&self) -> Duration {
        self.0.waited()
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, DataError>;

    /// The next batch; none after an error.
    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

/// The planes of one augmented batch of the first epoch, flat.
///
/// # Errors
/// Pictures that cannot be read again.
pub(crate) fn batch(
    pictures: &Arc<Pictures>,
    p: &Preprocess,
    indices: &[usize],
    augment: &Augment,
    seed: u64,
) -> Result<Vec<f32>, DataError> {
    let order = Order::Shuffled { seed, epoch: 0, augment: augment.clone(), share: Share::WHOLE };
    let loading = Loading { preprocess: *p, batch: indices.len(), side: None, frame: None, order };
    let pass = Pass { pictures: pictures.clone(), loading, chunks: vec![indices.to_vec()] };
    let items = (0..indices.len()).into_par_iter().map(|i| pass.item(0, i));
    let items = items.collect::<Result<_, _>>()?;
    Ok(pass.finish(0, items).pixels)
}

/// One pass over the pictures.
#[derive(Debug)]
struct Pass {
    pictures: Arc<Pictures>,
    loading: Loading,
    /// The wanted pictures of each batch, in their order.
    chunks: Vec<Vec<usize>>,
}

impl Pass {
    fn new(pictures: Arc<Pictures>, mut loading: Loading) -> Self {
        loading.batch = loading.batch.max(1);
        let mut indices: Vec<usize> = (0..pictures.len()).collect();
        let shuffled = matches!(loading.order, Order::Shuffled { .. });
        if let Order::Shuffled { seed, epoch, .. } = loading.order {
            Rng::keyed(&[seed, u64::from(epoch)]).shuffle(&mut indices);
        }
        let share = loading.order.share();
        let wanted =
            |batch: &[usize]| share.places(batch.len()).into_iter().map(|p| batch[p]).collect();
        let count = batch_count(indices.len(), loading.batch, shuffled);
        let chunks = indices.chunks(loading.batch).take(count).map(wanted).collect();
        Self { pictures, loading, chunks }
    }

    /// The wanted pictures of a batch.
    fn chunk(&self, number: usize) -> &[usize] {
        self.chunks.get(number).map_or(&[], Vec::as_slice)
    }

    /// `[N, channels, height, width]` of a batch.
    fn shape(&self, number: usize) -> [usize; 4] {
        let Loading { preprocess: p, side, .. } = &self.loading;
        let [height, width] = side.map_or([p.height, p.width], |s| [s; 2]).map(usize::from);
        [self.chunk(number).len(), p.channels(), height, width]
    }
}

impl Work for Pass {
    type Item = Vec<f32>;
    type Group = Batch;
    type Error = DataError;

    fn groups(&self) -> usize {
        self.chunks.len()
    }

    fn items(&self, number: usize) -> usize {
        self.chunk(number).len()
    }

    /// A picture's planes `[channels, height, width]`.
    fn item(&self, number: usize, place: usize) -> Result<Vec<f32>, DataError> {
        let [_, channels, height, width] = self.shape(number);
        let p = &self.loading.preprocess;
        let i = self.chunk(number)[place];
        let pixels = self.pictures.get(i)?;
        let mut raster = Raster::from_rgb8(&pixels, p.height.into(), p.width.into());
        if let Order::Shuffled { seed, epoch, augment, .. } = &self.loading.order {
            let epoch = u64::from(*epoch);
            let picture = Rng::keyed(&[*seed, epoch, i as u64]);
            let batch = Rng::keyed(&[*seed, epoch, fnv1a(b"batch"), number as u64]);
            let frame = self.loading.frame().pictures;
            raster = augment.apply_in(frame, raster, Draws { picture, batch });
        }
        let mut planes = vec![0.0; channels * height * width];
        normalize(&raster.resize_cropped(height, width), p, &mut planes);
        Ok(planes)
    }

    fn finish(&self, number: usize, planes: Vec<Vec<f32>>) -> Batch {
        let shape = self.shape(number);
        let mut pixels = planes.concat();
        let mut own = 1.0;
        if let Order::Shuffled { seed, epoch, augment, .. } = &self.loading.order {
            let mut rng = Rng::keyed(&[*seed, u64::from(*epoch), fnv1a(b"mix"), number as u64]);
            own = augment.mix.apply(&mut pixels, shape, self.loading.frame().batches, &mut rng);
        }
        let chunk = self.chunk(number);
        let labels = chunk.iter().map(|&i| self.pictures.labels[i]).collect();
        Batch { pixels, shape, labels, pictures: chunk.to_vec(), own }
    }
}

/// A picture of a batch's size to preprocessed planes `[channels, height, width]`.
fn normalize(raster: &Raster, p: &Preprocess, out: &mut [f32]) {
    for (i, pixel) in raster.pixels.as_chunks::<3>().0.iter().enumerate() {
        set_pixel(p, i, p.normalize(*pixel), out);
    }
}

/// Writes a pixel's channels into planes.
fn set_pixel(p: &Preprocess, index: usize, rgb: [f32; 3], planes: &mut [f32]) {
    let plane = planes.len() / p.channels();
    for (plane, v) in planes.chunks_exact_mut(plane).zip(rgb) {
        plane[index] = v;
    }
}

/// A picture of any size to preprocessed planes, `out: [channels, p.height, p.width]`.
pub(crate) fn to_planes(p: &Preprocess, view: RgbView<'_>, out: &mut [f32]) {
    for_each_pixel(p, view, |i, rgb| set_pixel(p, i, rgb, out));
}
