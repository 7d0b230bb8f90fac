//! Max-pooling of a normalized map, and the mean over pixels.

use crate::dispatch::{Kernel, Level, Simd, WHOLE};
use crate::element::{Element, LANES, Line};
use crate::frame::{Planes, Transform};
use crate::norm::Extent;
use crate::recycle::{self, Numbers};
use rayon::prelude::*;

/// A window that slides over a map; what lies outside of the map is never the largest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) filter: usize,
    pub(super) stride: usize,
    /// Rows and columns before the first pixel.
    pub(super) pad: [usize; 2],
    /// Height and width of the result.
    pub(super) out: [usize; 2],
}

impl Window {
    /// A picture of the result.
    pub(super) fn planes(&self, input: &Planes) -> Planes {
        Planes { blocks: input.blocks, height: self.out[0], width: self.out[1] }
    }

    /// Pixels of the input below the window at an output pixel: the window's first row or column
    /// that is one, that pixel, and their number.
    fn span(&self, axis: usize, at: usize, size: usize) -> (usize, usize, usize) {
        let start = at * self.stride;
        let skip = self.pad[axis].saturating_sub(start);
        let first = start + skip - self.pad[axis];
        let len = self.filter.saturating_sub(skip).min(size.saturating_sub(first));
        (skip, first, len)
    }
}

/// Largest `act(norm(x))` in each window, and where in the window it is.
pub(super) fn max<E: Element>(
    level: Level,
    extent: &Extent,
    window: &Window,
    transform: Transform<'_>,
    x: &[E],
) -> (Numbers<E>, Vec<u8>) {
    let (input, output) = (extent.planes, window.planes(&extent.planes));
    let (len, out_len) = (input.lines() * LANES, output.lines() * LANES);
    let mut y = recycle::take(extent.images * out_len);
    let mut places = vec![0; y.len()];
    if extent.is_empty() || y.is_empty() {
        return (y, places);
    }
    let results = y.par_chunks_mut(out_len).zip(places.par_chunks_mut(out_len));
    results.zip(x.par_chunks(len)).for_each(|((y, places), x)| {
        level.run(Max {
            window,
            planes: input,
            transform,
            x: x.as_chunks().0,
            y: y.as_chunks_mut().0,
            places: places.as_chunks_mut().0,
        });
    });
    (y, places)
}

struct Max<'a, E: Element> {
    window: &'a Window,
    planes: Planes,
    transform: Transform<'a>,
    x: &'a [Line<E>],
    y: &'a mut [Line<E>],
    places: &'a mut [Line<u8>],
}

impl<E: Element> Kernel for Max<'_, E> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { window, planes, transform, x, y, places } = self;
        let Transform { affine, activation } = transform;
        let [height, width] = window.out;
        let results = y.chunks_exact_mut(height * width);
        let results = results.zip(places.chunks_exact_mut(height * width));
        for ((x, affine), (y, places)) in x.chunks_exact(planes.pixels()).zip(affine).zip(results) {
            for (i, (y, place)) in y.iter_mut().zip(places).enumerate() {
                let (top, row, rows) = window.span(0, i / width, planes.height);
                let (left, col, cols) = window.span(1, i % width, planes.width);
                // Pixels are normalized for each of the few windows that they are in: that is
                // quicker than to keep them. Taps are counted in f32, which has 24 bits.
                let mut best = [simd.load(&[f32::NEG_INFINITY; LANES]), simd.load(&[0.0; LANES])];
                for r in 0..rows {
                    let pixels = &x[(row + r) * planes.width + col..][..cols];
                    let first = (top + r) * window.filter + left;
                    for (c, x) in pixels.iter().enumerate() {
                        let normalized = affine.apply(simd, E::load(simd, x));
                        let value = activation.apply(simd, normalized);
                        let tap = simd.load(&[(first + c) as f32; LANES]);
                        best = simd.larger(best, [value, tap]);
                    }
                }
                *y = E::store(simd, best[0]);
                let taps = simd.store(simd.add(best[1], simd.load(&[WHOLE; LANES])));
                for l in 0..LANES {
                    place[l] = taps[l].to_bits() as u8;
                }
            }
        }
    }
}

/// Gradient of [`max`] with respect to the normalized values, of one picture.
pub(super) struct MaxGradient<'a, E: Element> {
    pub(super) window: &'a Window,
    pub(super) planes: Planes,
    pub(super) dy: &'a [Line<E>],
    pub(super) places: &'a [Line<u8>],
    /// A block of the input.
    pub(super) scratch: &'a mut [Line],
    pub(super) dx: &'a mut [Line<E>],
}

impl<E: Element> Kernel for MaxGradient<'_, E> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { window, planes, dy, places, scratch, dx } = self;
        let [height, width] = window.out;
        let gradients = dy.chunks_exact(height * width).zip(places.chunks_exact(height * width));
        for (dx, (dy, places)) in dx.chunks_exact_mut(planes.pixels()).zip(gradients) {
            scratch.fill([0.0; LANES]);
            for (i, (dy, place)) in dy.iter().zip(places).enumerate() {
                let (top, row, rows) = window.span(0, i / width, planes.height);
                let (left, col, cols) = window.span(1, i % width, planes.width);
                let dy = E::load(simd, dy);
                let mut taps = [0.0; LANES];
                for l in 0..LANES {
                    taps[l] = f32::from(place[l]);
                }
                let taps = simd.load(&taps);
                for r in 0..rows {
                    let sums = &mut scratch[(row + r) * planes.width + col..][..cols];
                    for (c, sum) in sums.iter_mut().enumerate() {
                        let tap = ((top + r) * window.filter + left + c) as f32;
                        let own = simd.where_between([tap - 0.5, tap + 0.5], taps, dy);
                        *sum = simd.store(simd.add(simd.load(sum), own));
                    }
                }
            }
            for (dx, sum) in dx.iter_mut().zip(&*scratch) {
                *dx = E::store(simd, simd.load(sum));
            }
        }
    }
}

/// Mean over the pixels of each channel, `[N, C]`.
pub(super) fn mean<E: Element>(extent: &Extent, x: &[E]) -> Vec<f32> {
    let (pixels, lines) = (extent.planes.pixels(), extent.planes.lines());
    let mut y = vec![0.0; extent.images * extent.channels];
    if extent.is_empty() {
        return y;
    }
    let pictures: &[Line<E>] = x.as_chunks().0;
    y.par_chunks_mut(extent.channels).zip(pictures.par_chunks(lines)).for_each(|(y, picture)| {
        for (y, block) in y.chunks_mut(LANES).zip(picture.chunks_exact(pixels)) {
            let mut sum = [0.0_f32; LANES];
            for x in block {
                for (sum, x) in sum.iter_mut().zip(x) {
                    *sum += x.value();
                }
            }
            for (y, sum) in y.iter_mut().zip(sum) {
                *y = sum / pixels as f32;
            }
        }
    });
    y
}

/// Gradient of [`mean`].
pub(super) fn mean_gradient<E: Element>(extent: &Extent, dy: &[f32]) -> Numbers<E> {
    let (pixels, lines) = (extent.planes.pixels(), extent.planes.lines());
    let mut dx = recycle::take(extent.images * lines * LANES);
    if extent.is_empty() {
        return dx;
    }
    let pictures = dx.as_chunks_mut::<LANES>().0.par_chunks_mut(lines);
    pictures.zip(dy.par_chunks(extent.channels)).for_each(|(picture, dy)| {
        for (block, dy) in picture.chunks_exact_mut(pixels).zip(dy.chunks(LANES)) {
            let mut share = [0.0; LANES];
            for (share, dy) in share.iter_mut().zip(dy) {
                *share = dy / pixels as f32;
            }
            block.fill(share.map(E::number));
        }
    });
    dx
}
