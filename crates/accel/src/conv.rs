//! Convolution and its input gradient, as sums over taps of shifted rows.
//!
//! `y[q, o] = Σ_t Σ_i frame[q + t, i]·w[t, i, o]`: a tile of neighboring output pixels and one or
//! two blocks of output channels stays in registers while the taps `t` and input channels `i` of
//! all pixels stream by. The input gradient is the same sum with input and output exchanged; with
//! a stride `s`, its pixels fall into `s × s` classes by their remainder, and each class meets
//! other taps.
//!
//! Work is split by shape alone, never by thread count, and sums are added in a fixed order:
//! results are the same bits on any number of threads.

use crate::dispatch::{Kernel, Level, Simd, unroll};
use crate::element::{Element, LANES, Line, as_cells, lines_mut};
use crate::frame::{Fill, FillWindows, Frame, Planes, Transform};
use crate::geometry::{Column, FRAME_BYTES, Geometry, Pass, Pixels, with_width};
use crate::recycle::{self, Numbers};
use bytemuck::Zeroable;
use core::ops::Range;
use rayon::prelude::*;

/// What a convolution reads.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a, E> {
    /// A feature map `[N, blocks, H, W, LANES]`.
    Map { values: &'a [E], transform: Option<Transform<'a>> },
    /// Pictures `[N, C, H, W]`.
    Pictures(&'a [f32]),
}

impl<E: Element> Source<'_, E> {
    /// Whether pictures are their own frames.
    fn is_direct(&self, g: &Geometry) -> bool {
        matches!(self, Self::Map { transform: None, .. }) && g.is_pointwise()
    }

    /// Picture `image` as a frame, unless its alignment forbids it.
    fn direct(&self, g: &Geometry, image: usize) -> Option<&[E::Cell]> {
        match self {
            Self::Map { values, .. } => {
                let len = g.input().lines() * LANES;
                as_cells::<E>(values[image * len..][..len].as_chunks().0)
            }
            Self::Pictures(_) => None,
        }
    }

    /// Fills a frame with rows of picture `image` from `first` on.
    pub(super) fn fill(
        &self,
        level: Level,
        g: &Geometry,
        frame: &Frame,
        [image, first]: [usize; 2],
        out: &mut [Line<E>],
    ) {
        match *self {
            Self::Map { values, transform } => {
                let planes = g.input();
                let picture = &values.as_chunks().0[image * planes.lines()..][..planes.lines()];
                level.run(Fill { frame, planes, picture, first, transform, out });
            }
            Self::Pictures(values) => {
                let size = [g.c_in, g.size[0], g.size[1]];
                let len = size.iter().product::<usize>();
                let picture = &values[image * len..][..len];
                let (stride, pad, filter) = (g.stride, g.pad, g.filter);
                level.run(FillWindows { frame, stride, pad, filter, size, picture, first, out });
            }
        }
    }
}

/// `source ∗ w`, `[N, blocks, H', W', LANES]`, with `after` applied to each picture of it, the
/// picture's part of `parts` and the rows that were made, while they are in the cache.
pub(super) fn forward<E: Element, P: Send>(
    level: Level,
    g: &Geometry,
    source: Source<'_, E>,
    w: &[f32],
    parts: &mut [P],
    after: impl Fn(&mut [Line<E>], &mut [P], Range<usize>) + Sync,
) -> Numbers<E> {
    let result = g.output();
    let mut y = recycle::take(g.images * result.lines() * LANES);
    if g.is_empty() {
        y.fill(E::default());
        return y;
    }
    let in_place = source.is_direct(g);
    let strip = if in_place { g.direct_strip::<E>() } else { g.strip::<E>(FRAME_BYTES) };
    let frame = g.frame(if in_place { result.height } else { strip });
    let (blocks, taps) = g.window();
    let (k, per_filter) = (g.filter, g.per_filter());
    let planar = g.planar;
    let at = |o: usize, i: usize, t: usize| {
        if planar { w[o * per_filter + i] } else { w[o * per_filter + i * k * k + t] }
    };
    let pass = Pass {
        taps: (0..taps * taps).map(|t| frame.tap(t / taps, t % taps)).collect(),
        weights: pack::<E>(level, [g.c_out, g.window_channels(), taps * taps], at),
        pixels: Pixels::all(g.out),
    };
    let by_strip = true;
    let correlation = Correlation { frame, blocks, strip, rows: result.height, result, by_strip };
    let read = |image, first, buffer: &mut [Line<E>]| {
        source.fill(level, g, &frame, [image, first], buffer);
    };
    let direct = |image| in_place.then(|| source.direct(g, image)).flatten();
    correlation.run(level, &[pass], (direct, read), (&mut y, parts), after);
    y
}

/// Gradient with respect to the input in blocks, from `dy` in blocks, with `after` applied as by
/// [`forward`].
pub(super) fn input_gradient<E: Element, P: Send>(
    level: Level,
    g: &Geometry,
    w: &[f32],
    dy: &[E],
    parts: &mut [P],
    after: impl Fn(&mut [Line<E>], &mut [P]) + Sync,
) -> Numbers<E> {
    let mut dx = recycle::take(g.images * g.input().lines() * LANES);
    if g.is_empty() || g.filter < g.stride {
        // Pixels between the windows have no gradient.
        dx.fill(E::default());
    }
    if g.is_empty() {
        return dx;
    }
    let InputGradient { correlation, passes, .. } = InputGradient::<E>::new(level, g, w);
    let source = g.output();
    let pictures: &[Line<E>] = dy.as_chunks().0;
    let picture = |image: usize| &pictures[image * source.lines()..][..source.lines()];
    let read = |image, first, out: &mut [Line<E>]| {
        let (frame, planes, picture) = (&correlation.frame, source, picture(image));
        level.run(Fill { frame, planes, picture, first, transform: None, out });
    };
    let direct = |image| g.is_pointwise().then(|| as_cells::<E>(picture(image))).flatten();
    let whole = |dx: &mut [Line<E>], parts: &mut [P], _: Range<usize>| after(dx, parts);
    correlation.run(level, &passes, (direct, read), (&mut dx, parts), whole);
    dx
}

/// What makes an input gradient.
pub(super) struct InputGradient<E: Element> {
    level: Level,
    correlation: Correlation,
    passes: Vec<Pass<Numbers<E::Operand>>>,
}

impl<E: Element> InputGradient<E> {
    pub(super) fn new(level: Level, g: &Geometry, w: &[f32]) -> Self {
        let (blocks, rows) = (g.output().blocks, g.cells(0));
        let strip = if g.is_pointwise() { rows } else { g.gradient_strip::<E>(FRAME_BYTES) };
        let frame = g.gradient_frame(strip);
        let per_filter = g.filter * g.filter;
        let passes = g.gradient_passes(&frame, |taps| {
            let at = |i: usize, o: usize, t: usize| w[(o * g.c_in + i) * per_filter + taps[t]];
            pack::<E>(level, [g.c_in, g.c_out, taps.len()], at)
        });
        let result = g.input();
        let correlation = Correlation { frame, blocks, strip, rows, result, by_strip: false };
        Self { level, correlation, passes }
    }

    /// Rows `first..first + rows` of a picture of a pointwise convolution, from its gradient.
    pub(super) fn rows(&self, dy: &[E::Cell], [first, rows]: [usize; 2], dx: &mut [Line<E>]) {
        let Correlation { blocks, frame, .. } = self.correlation;
        let taps: Vec<usize> = (0..blocks).map(|block| block * frame.block()).collect();
        for Pass { weights, pixels, .. } in &self.passes {
            let (pass, dy) = ((&weights[..], *pixels, &taps[..]), &dy[first * frame.pitch..]);
            self.correlation.strip(self.level, pass, dy, [first, rows], dx);
        }
    }
}

/// A correlation of every picture.
pub(super) struct Correlation {
    pub(super) frame: Frame,
    /// Blocks of the source.
    pub(super) blocks: usize,
    /// Rows of cells computed from one frame.
    pub(super) strip: usize,
    /// Rows of cells in all.
    pub(super) rows: usize,
    pub(super) result: Planes,
    /// Rows of cells are rows of the result, which are done with their strip.
    pub(super) by_strip: bool,
}

impl Correlation {
    /// `direct` gives a picture that is its own frame, `read` fills a frame.
    fn run<'a, E: Element, P: Send>(
        &self,
        level: Level,
        passes: &[Pass<Numbers<E::Operand>>],
        (direct, read): (
            impl Fn(usize) -> Option<&'a [E::Cell]> + Sync,
            impl Fn(usize, usize, &mut [Line<E>]) + Sync,
        ),
        (y, parts): (&mut [E], &mut [P]),
        after: impl Fn(&mut [Line<E>], &mut [P], Range<usize>) + Sync,
    ) {
        let lines = self.result.lines();
        let pictures = y.as_chunks_mut::<LANES>().0.par_chunks_mut(lines);
        let images = pictures.len();
        let parts = parts.par_chunks_mut(parts.len() / images.max(1));
        let block = self.frame.block();
        let taps: Vec<Vec<usize>> = passes
            .iter()
            .map(|pass| {
                let blocks = 0..self.blocks;
                blocks.flat_map(|b| pass.taps.iter().map(move |t| b * block + t)).collect()
            })
            .collect();
        let buffer = Vec::<E::Cell>::new;
        pictures.zip(parts).enumerate().for_each_init(buffer, |buffer, (image, (y, parts))| {
            let whole = direct(image);
            if whole.is_none() && buffer.is_empty() {
                *buffer = vec![E::Cell::zeroed(); self.blocks * block];
            }
            for first in (0..self.rows).step_by(self.strip) {
                let frame = match whole {
                    Some(lines) => &lines[first * self.frame.pitch..],
                    None => {
                        read(image, first, lines_mut::<E>(buffer));
                        &*buffer
                    }
                };
                for (Pass { weights, pixels, .. }, taps) in passes.iter().zip(&taps) {
                    self.strip(level, (weights, *pixels, taps), frame, [first, self.strip], y);
                }
                if self.by_strip {
                    after(y, parts, first..(first + self.strip).min(self.rows));
                }
            }
            if !self.by_strip {
                after(y, parts, 0..self.result.height);
            }
        });
    }

    /// The pixels of a pass whose cells are in rows `first..first + strip`, of packed weights and taps
    /// of every block.
    pub(super) fn strip<E: Element>(
        &self,
        level: Level,
        (weights, pixels, taps): (&[E::Operand], Pixels, &[usize]),
        frame: &[E::Cell],
        strip: [usize; 2],
        y: &mut [Line<E>],
    ) {
        let (plane, width) = (self.result.pixels(), self.result.width);
        let most = level.tile();
        let per_block = taps.len() * E::STEPS * LANES;
        for (group, weights) in weights.chunks(most.blocks * per_block).enumerate() {
            let y = &mut y[group * most.blocks * plane..];
            let together = weights.len() / per_block;
            let weights: &[Line<E::Operand>] = weights.as_chunks().0;
            for column in pixels.columns(&self.frame, strip, width, most.pixels) {
                let pitch = self.frame.pitch;
                let tiles = Tiles { frame, taps, weights, column, pitch, plane, y };
                if together == 2 {
                    tiles.dispatch::<2>(level);
                } else {
                    tiles.dispatch::<1>(level);
                }
            }
        }
    }
}

/// Weights in the order that [`Tiles`] reads them: for each group of as many blocks of results as
/// a tile has, for each block of sources, tap and operand, a line for each block of the group.
/// Absent channels are zero. `at(result, source, tap)` is a weight.
fn pack<E: Element>(
    level: Level,
    [results, sources, taps]: [usize; 3],
    at: impl Fn(usize, usize, usize) -> f32 + Sync,
) -> Numbers<E::Operand> {
    let (blocks, depth) = (results.div_ceil(LANES), sources.div_ceil(LANES));
    let most = level.tile().blocks;
    let per_block = depth * taps * E::STEPS * LANES;
    let mut packed = recycle::take::<E::Operand>(blocks * per_block);
    packed.par_chunks_mut(most * per_block).enumerate().for_each(|(group, packed)| {
        let together = packed.len() / per_block;
        let lines: &mut [Line<E::Operand>] = packed.as_chunks_mut().0;
        // Taps innermost: they lie together in the weights.
        for step in 0..depth * E::STEPS {
            let source = step * E::DEPTH;
            let first = (source / LANES * taps * E::STEPS + step % E::STEPS) * together;
            for lane in 0..together * LANES {
                let (block, lane) = (lane / LANES, lane % LANES);
                let result = (group * most + block) * LANES + lane;
                for tap in 0..taps {
                    let weight = |source: usize| match result < results && source < sources {
                        true => at(result, source, tap),
                        false => 0.0,
                    };
                    let operand = E::operand([weight(source), weight(source + E::DEPTH - 1)]);
                    lines[first + tap * E::STEPS * together + block][lane] = operand;
                }
            }
        }
    });
    packed
}

/// A column of tiles, `P` pixels wide and `B` blocks deep.
struct Tiles<'a, E: Element> {
    frame: &'a [E::Cell],
    /// Of every block of the source.
    taps: &'a [usize],
    weights: &'a [Line<E::Operand>],
    column: Column,
    /// Cells of a row.
    pitch: usize,
    /// Lines of a block of `y`.
    plane: usize,
    y: &'a mut [Line<E>],
}

impl<E: Element> Tiles<'_, E> {
    fn dispatch<const B: usize>(self, level: Level) {
        with_width!(self.column.pixels, P => level.run(Tile::<E, P, B>(self)));
    }
}

/// [`Tiles`] of a known size.
struct Tile<'a, E: Element, const P: usize, const B: usize>(Tiles<'a, E>);

impl<E: Element, const P: usize, const B: usize> Kernel for Tile<'_, E, P, B> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Tiles { frame, taps, weights, column, pitch, plane, y } = self.0;
        let Column { from, rows, to, step, down, .. } = column;
        for row in 0..rows {
            let mut sums = [[simd.load(&[0.0; LANES]); B]; P];
            let start = from + row * pitch;
            for (weights, tap) in weights.as_chunks::<B>().0.chunks_exact(E::STEPS).zip(taps) {
                let Some(x) = frame[start + tap..].first_chunk::<P>() else {
                    panic!("a tile at {start} overruns a frame of {} cells", frame.len())
                };
                for (i, w) in weights.iter().enumerate().take(E::STEPS) {
                    unroll!(p < P, {
                        let x = x[p][i];
                        unroll!(b < B, { sums[p][b] = E::dot(simd, sums[p][b], x, &w[b]) });
                    });
                }
            }
            let to = to + row * down;
            unroll!(b < B, {
                unroll!(p < P, {
                    y[to + b * plane + p * step] = E::store(simd, sums[p][b]);
                });
            });
        }
    }
}
