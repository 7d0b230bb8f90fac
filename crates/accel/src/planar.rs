//! Feature maps from and to the layout that Burn's own operations take.

use crate::element::{Element, LANES, Line};
use crate::norm::Extent;
use crate::recycle::{self, Numbers};
use rayon::prelude::*;

/// `[N, C, H, W]` to `[N, blocks, H, W, LANES]`; lanes without a channel are zero.
pub(super) fn to_blocks<E: Element>(extent: &Extent, x: &[f32]) -> Numbers<E> {
    let (pixels, lines) = (extent.planes.pixels(), extent.planes.lines());
    let mut y = recycle::take(extent.images * lines * LANES);
    if extent.is_empty() {
        return y;
    }
    let pictures = y.as_chunks_mut::<LANES>().0.par_chunks_mut(lines);
    pictures.zip(x.par_chunks(extent.channels * pixels)).for_each(|(y, x)| {
        for (i, line) in y.iter_mut().enumerate() {
            let (block, pixel) = (i / pixels, i % pixels);
            let channels = (block * LANES..extent.channels).take(LANES);
            *line = [E::default(); LANES];
            for (l, channel) in channels.enumerate() {
                line[l] = E::number(x[channel * pixels + pixel]);
            }
        }
    });
    y
}

/// `[N, blocks, H, W, LANES]` to `[N, C, H, W]`.
pub(super) fn from_blocks<E: Element>(extent: &Extent, x: &[E]) -> Vec<f32> {
    let (pixels, lines) = (extent.planes.pixels(), extent.planes.lines());
    let mut y = vec![0.0; extent.images * extent.channels * pixels];
    if extent.is_empty() {
        return y;
    }
    let pictures: &[Line<E>] = x.as_chunks().0;
    let planar = y.par_chunks_mut(extent.channels * pixels);
    planar.zip(pictures.par_chunks(lines)).for_each(|(y, x)| {
        for (channel, y) in y.chunks_exact_mut(pixels).enumerate() {
            let block = &x[channel / LANES * pixels..][..pixels];
            for (y, line) in y.iter_mut().zip(block) {
                *y = line[channel % LANES].value();
            }
        }
    });
    y
}
