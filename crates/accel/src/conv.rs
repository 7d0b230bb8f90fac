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
use crate::recycle::{self, Numbers};
use bytemuck::Zeroable;
use rayon::prelude::*;

/// Bytes of a frame: a good part of a core's second-level cache, leaving room for weights.
pub(super) const FRAME_BYTES: usize = 256 << 10;

/// Sizes of a convolution with a square filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) images: usize,
    pub(super) c_in: usize,
    pub(super) c_out: usize,
    /// Height and width of the input.
    pub(super) size: [usize; 2],
    /// Height and width of the output.
    pub(super) out: [usize; 2],
    pub(super) filter: usize,
    pub(super) stride: usize,
    /// Zeros before the first row and column.
    pub(super) pad: [usize; 2],
    /// The input is planar, `[N, C, H, W]`, not in blocks.
    pub(super) planar: bool,
}

impl Geometry {
    /// Weights of one output channel.
    pub(super) fn per_filter(&self) -> usize {
        self.c_in * self.filter * self.filter
    }

    /// A picture of the input in blocks.
    pub(super) fn input(&self) -> Planes {
        let [height, width] = self.size;
        Planes { blocks: self.c_in.div_ceil(LANES), height, width }
    }

    /// A picture of the output.
    pub(super) fn output(&self) -> Planes {
        let [height, width] = self.out;
        Planes { blocks: self.c_out.div_ceil(LANES), height, width }
    }

    pub(super) fn is_empty(&self) -> bool {
        let [height, width] = self.size;
        self.images * self.c_in * self.c_out * height * width * self.out[0] * self.out[1] == 0
    }

    /// What an output pixel's window becomes in a frame: blocks, and taps in each direction.
    pub(super) fn window(&self) -> (usize, usize) {
        if self.planar {
            (self.per_filter().div_ceil(LANES), 1)
        } else {
            (self.input().blocks, self.filter)
        }
    }

    /// Channels of that window.
    pub(super) fn window_channels(&self) -> usize {
        if self.planar { self.per_filter() } else { self.c_in }
    }

    /// The frame of `rows` rows of output.
    pub(super) fn frame(&self, rows: usize) -> Frame {
        let (_, taps) = self.window();
        let (stride, pad) = if self.planar { (1, [0; 2]) } else { (self.stride, self.pad) };
        let reach = (taps - 1) / stride;
        Frame {
            stride,
            pad,
            phases: stride.min(taps),
            rows: rows + reach,
            pitch: self.out[1] + reach,
        }
    }

    /// Rows of output whose frame fits the cache; all strips about the same.
    pub(super) fn strip<E: Element>(&self) -> usize {
        let (blocks, taps) = self.window();
        let frame = self.frame(1);
        let row = blocks * frame.block() / frame.rows * size_of::<E::Cell>();
        even_strip(self.out[0], FRAME_BYTES / row.max(1), (taps - 1) / frame.stride)
    }

    /// Pixels of the input are the frame's cells as they are.
    pub(super) fn is_pointwise(&self) -> bool {
        !self.planar
            && self.filter == 1
            && self.stride == 1
            && self.pad == [0; 2]
            && self.size == self.out
    }
}

/// Rows of equal strips of `all` rows that need at most `fit` rows, `reach` more than they have.
fn even_strip(all: usize, fit: usize, reach: usize) -> usize {
    let most = fit.saturating_sub(reach).max(1);
    all.div_ceil(all.div_ceil(most).max(1)).max(1)
}

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

/// `source ∗ w`, `[N, blocks, H', W', LANES]`, with `after` applied to each picture of it and the
/// picture's part of `parts` while it is in the cache.
pub(super) fn forward<E: Element, P: Send>(
    level: Level,
    g: &Geometry,
    source: Source<'_, E>,
    w: &[f32],
    parts: &mut [P],
    after: impl Fn(&mut [Line<E>], &mut [P]) + Sync,
) -> Numbers<E> {
    let result = g.output();
    let mut y = recycle::take(g.images * result.lines() * LANES);
    if g.is_empty() {
        y.fill(E::default());
        return y;
    }
    let in_place = source.is_direct(g);
    let strip = if in_place { result.height } else { g.strip::<E>() };
    let frame = g.frame(strip);
    let (blocks, taps) = g.window();
    let (k, per_filter) = (g.filter, g.per_filter());
    let planar = g.planar;
    let at = |o: usize, i: usize, t: usize| {
        if planar { w[o * per_filter + i] } else { w[o * per_filter + i * k * k + t] }
    };
    let pass = Pass {
        taps: (0..taps * taps).map(|t| frame.tap(t / taps, t % taps)).collect(),
        weights: pack::<E>(level, [g.c_out, g.window_channels(), taps * taps], at),
        cell: [0; 2],
        rows: result.height,
        cols: result.width,
        pixel: [0; 2],
        step: 1,
    };
    let correlation = Correlation { frame, blocks, strip, rows: result.height, result };
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
    let (source, result) = (g.output(), g.input());
    let mut dx = recycle::take(g.images * result.lines() * LANES);
    let (k, s, pad) = (g.filter, g.stride, g.pad);
    if g.is_empty() || k < s {
        // Pixels between the windows have no gradient.
        dx.fill(E::default());
    }
    if g.is_empty() {
        return dx;
    }
    // Pixel i of dx is remainder + s·cell − pad and gets dy[cell − t]·w[remainder + s·t].
    let depth = (k - 1) / s;
    let cells = |axis: usize| (g.size[axis] - 1 + pad[axis]) / s + 1;
    let pointwise = g.is_pointwise();
    let row = source.blocks * (cells(1) + depth) * LANES * size_of::<E>();
    let strip = if pointwise { cells(0) } else { even_strip(cells(0), FRAME_BYTES / row, depth) };
    let frame = Frame {
        stride: 1,
        pad: [depth; 2],
        phases: 1,
        rows: strip + depth,
        pitch: cells(1) + depth,
    };
    let classes = (0..s * s).map(|class| [class / s, class % s]);
    let passes: Vec<_> = classes
        .filter(|remainder| remainder.iter().all(|r| *r < k))
        .map(|remainder| {
            let [down, across] = remainder.map(|first| (k - 1 - first) / s + 1);
            let taps = (0..down * across).map(|t| [t / across, t % across]);
            let at = |i: usize, o: usize, t: usize| {
                let row = remainder[0] + t / across * s;
                let col = remainder[1] + t % across * s;
                w[((o * g.c_in + i) * k + row) * k + col]
            };
            let cell = [0, 1].map(|a| pad[a].saturating_sub(remainder[a]).div_ceil(s));
            let pixel = [0, 1].map(|a| cell[a] * s + remainder[a] - pad[a]);
            let count = |a: usize| g.size[a].saturating_sub(pixel[a]).div_ceil(s);
            Pass {
                taps: taps.map(|[r, c]| frame.tap(depth - r, depth - c)).collect(),
                weights: pack::<E>(level, [g.c_in, g.c_out, down * across], at),
                cell,
                rows: count(0),
                cols: count(1),
                pixel,
                step: s,
            }
        })
        .collect();
    let pictures: &[Line<E>] = dy.as_chunks().0;
    let picture = |image: usize| &pictures[image * source.lines()..][..source.lines()];
    let read = |image, first, out: &mut [Line<E>]| {
        let (frame, planes, picture) = (&frame, source, picture(image));
        level.run(Fill { frame, planes, picture, first, transform: None, out });
    };
    let direct = |image| pointwise.then(|| as_cells::<E>(picture(image))).flatten();
    let correlation = Correlation { frame, blocks: source.blocks, strip, rows: cells(0), result };
    correlation.run(level, &passes, (direct, read), (&mut dx, parts), after);
    dx
}

/// One set of taps, its packed weights and the pixels that they make.
struct Pass<E: Element> {
    /// Distances in the frame.
    taps: Vec<usize>,
    weights: Numbers<E::Operand>,
    /// Row and column of the first cell that is a pixel.
    cell: [usize; 2],
    rows: usize,
    cols: usize,
    /// Row and column of that pixel in the result.
    pixel: [usize; 2],
    /// Pixels from one to the next.
    step: usize,
}

/// A correlation of every picture.
struct Correlation {
    frame: Frame,
    /// Blocks of the source.
    blocks: usize,
    /// Rows of cells computed from one frame.
    strip: usize,
    /// Rows of cells in all.
    rows: usize,
    result: Planes,
}

impl Correlation {
    /// `direct` gives a picture that is its own frame, `read` fills a frame.
    fn run<'a, E: Element, P: Send>(
        &self,
        level: Level,
        passes: &[Pass<E>],
        (direct, read): (
            impl Fn(usize) -> Option<&'a [E::Cell]> + Sync,
            impl Fn(usize, usize, &mut [Line<E>]) + Sync,
        ),
        (y, parts): (&mut [E], &mut [P]),
        after: impl Fn(&mut [Line<E>], &mut [P]) + Sync,
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
            let strip = if whole.is_some() { self.rows } else { self.strip };
            for first in (0..self.rows).step_by(strip) {
                let frame = match whole {
                    Some(lines) => lines,
                    None => {
                        read(image, first, lines_mut::<E>(buffer));
                        &*buffer
                    }
                };
                for (pass, taps) in passes.iter().zip(&taps) {
                    let from = first.max(pass.cell[0]);
                    self.strip(level, (pass, taps), frame, [first, from, first + strip], y);
                }
            }
            after(y, parts);
        });
    }

    /// The pixels of a pass whose cells are in rows `from..to`, where the frame starts at `first`.
    fn strip<E: Element>(
        &self,
        level: Level,
        (pass, taps): (&Pass<E>, &[usize]),
        frame: &[E::Cell],
        [first, from, to]: [usize; 3],
        y: &mut [Line<E>],
    ) {
        let rows = to.min(pass.cell[0] + pass.rows).saturating_sub(from);
        if rows == 0 {
            return;
        }
        let Planes { blocks, width, .. } = self.result;
        let most = level.tile();
        let row = pass.pixel[0] + (from - pass.cell[0]) * pass.step;
        let per_block = taps.len() * E::STEPS;
        for group in (0..blocks).step_by(most.blocks) {
            let together = most.blocks.min(blocks - group);
            let weights =
                &pass.weights[group * per_block * LANES..][..together * per_block * LANES];
            let weights: &[Line<E::Operand>] = weights.as_chunks().0;
            let mut col = 0;
            while col < pass.cols {
                let pixels = tile_width(pass.cols - col, most.pixels);
                let tiles = Tiles {
                    frame,
                    taps,
                    weights,
                    from: (from - first) * self.frame.pitch + pass.cell[1] + col,
                    pitch: self.frame.pitch,
                    rows,
                    to: group * self.result.pixels()
                        + row * width
                        + pass.pixel[1]
                        + col * pass.step,
                    step: pass.step,
                    width,
                    plane: self.result.pixels(),
                    y,
                };
                if together == 2 {
                    tiles.dispatch::<2>(level, pixels);
                } else {
                    tiles.dispatch::<1>(level, pixels);
                }
                col += pixels;
            }
        }
    }
}

/// Widths of tiles there are, widest first.
const TILES: [usize; 8] = [14, 8, 7, 6, 4, 3, 2, 1];

/// Pixels of the next tile where `left` remain: one that divides them if it is not much smaller
/// than the widest, for the sums of a narrow tile wait for each other.
fn tile_width(left: usize, most: usize) -> usize {
    let fits = || TILES.into_iter().filter(|t| *t <= most.min(left));
    let even = fits().find(|t| left.is_multiple_of(*t) && 2 * t >= most);
    even.or_else(|| fits().next()).unwrap_or(1)
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
    /// Cell of the first pixel.
    from: usize,
    pitch: usize,
    rows: usize,
    /// Line of the first pixel in `y`, lines to the next pixel, pixels of a row, lines to the next
    /// block.
    to: usize,
    step: usize,
    width: usize,
    plane: usize,
    y: &'a mut [Line<E>],
}

impl<E: Element> Tiles<'_, E> {
    fn dispatch<const B: usize>(self, level: Level, pixels: usize) {
        match pixels {
            14 => level.run(Tile::<E, 14, B>(self)),
            8 => level.run(Tile::<E, 8, B>(self)),
            7 => level.run(Tile::<E, 7, B>(self)),
            6 => level.run(Tile::<E, 6, B>(self)),
            4 => level.run(Tile::<E, 4, B>(self)),
            3 => level.run(Tile::<E, 3, B>(self)),
            2 => level.run(Tile::<E, 2, B>(self)),
            _ => level.run(Tile::<E, 1, B>(self)),
        }
    }
}

/// [`Tiles`] of a known size.
struct Tile<'a, E: Element, const P: usize, const B: usize>(Tiles<'a, E>);

impl<E: Element, const P: usize, const B: usize> Kernel for Tile<'_, E, P, B> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Tiles { frame, taps, weights, from, pitch, rows, to, step, width, plane, y } = self.0;
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
            let to = to + row * step * width;
            unroll!(b < B, {
                unroll!(p < P, {
                    y[to + b * plane + p * step] = E::store(simd, sums[p][b]);
                });
            });
        }
    }
}
