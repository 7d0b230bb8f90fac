//! Depthwise convolution: each channel has a filter of its own.
//!
//! Channels of a block lie in the lanes of a vector, so that nothing is broadcast: a block of a
//! picture is filtered by itself, in strips whose frame stays in the cache. Both gradients are made
//! of one strip before the next, so that maps are read once. Memory bounds it, not multiplication.

use crate::dispatch::{Kernel, Level, Simd, unroll};
use crate::element::{Element, LANES, Line};
use crate::frame::{Fill, Frame, Planes, Transform};
use crate::geometry::{Column, Geometry, Pass, Pixels, with_width};
use crate::norm::{self, Mask, MaskedSums, Part, PictureMoments};
use crate::recycle::{self, Numbers};
use core::slice;
use rayon::prelude::*;

/// Bytes of a strip's frame, of which the gradients need two.
const FRAME_BYTES: usize = 128 << 10;
/// Widest tile: as many sums as hide the latency of a multiplication.
const WIDEST: usize = 8;

/// A map and what is done with it while it is read.
pub(super) type Input<'a, E> = (&'a [E], Option<Transform<'a>>);

/// What is done with a block alone.
fn of_block(transform: Transform<'_>, block: usize) -> Transform<'_> {
    Transform { affine: &transform.affine[block..=block], ..transform }
}

/// The same convolution with every block of a picture as a picture.
fn by_block(g: &Geometry) -> Geometry {
    Geometry { images: g.images * g.input().blocks, c_in: LANES, c_out: LANES, ..*g }
}

/// Weights of some taps, a line for each block and tap; zero where there is no channel.
fn pack(g: &Geometry, w: &[f32], taps: &[usize]) -> Vec<Line> {
    let mut packed = vec![[0.0; LANES]; g.input().blocks * taps.len()];
    for (channel, w) in w.chunks_exact(g.per_filter()).enumerate() {
        let lines = &mut packed[channel / LANES * taps.len()..];
        for (line, tap) in lines.iter_mut().zip(taps) {
            line[channel % LANES] = w[*tap];
        }
    }
    packed
}

/// The convolution `[N, blocks, H', W', LANES]`; with `parts`, moments of each block of a picture.
pub(super) fn forward<E: Element>(
    level: Level,
    g: &Geometry,
    (x, transform): Input<'_, E>,
    w: &[f32],
    parts: Option<&mut [Part]>,
) -> Numbers<E> {
    let mut y = recycle::take(g.images * g.output().lines() * LANES);
    if g.is_empty() {
        y.fill(E::default());
        return y;
    }
    let (blocks, own) = (g.input().blocks, by_block(g));
    let (input, output) = (own.input(), own.output());
    let strip = own.strip::<E>(FRAME_BYTES);
    let frame = own.frame(strip);
    let (k, taps) = (g.filter, (0..g.per_filter()).collect::<Vec<_>>());
    let pass = Pass {
        weights: pack(g, w, &taps),
        taps: taps.iter().map(|t| frame.tap(t / k, t % k)).collect(),
        pixels: Pixels::all(g.out),
    };
    let mut none = vec![[[0.0; LANES]; 2]; own.images];
    let moments = parts.is_some();
    let planes = y.par_chunks_mut(output.lines() * LANES).zip(x.par_chunks(input.lines() * LANES));
    let planes = planes.zip(parts.unwrap_or(&mut none)).enumerate();
    planes.for_each_init(Vec::new, |buffer, (i, ((y, x), part))| {
        buffer.resize(frame.block(), [E::default(); LANES]);
        let (y, picture) = (y.as_chunks_mut().0, x.as_chunks().0);
        let transform = transform.map(|t| of_block(t, i % blocks));
        for first in (0..output.height).step_by(strip) {
            let out = &mut buffer[..];
            level.run(Fill { frame: &frame, planes: input, picture, first, transform, out });
            filter(level, &frame, (&pass, i % blocks), buffer, ([first, strip], output), y);
            if moments {
                let done = first * output.width;
                let end = (first + strip).min(output.height) * output.width;
                let mut own = [[[0.0; LANES]; 2]];
                let (picture, pixels) = (&y[done..end], end - done);
                level.run(PictureMoments { picture, pixels, parts: &mut own });
                norm::merge_moments(part, done, &own[0], pixels);
            }
        }
    });
    y
}

/// Gradients with respect to the normalized input, times its activation's slope, and to the weights,
/// `[C, 1, k, k]`; where the input is normalized, `parts` are what [`MaskedSums`] sums of the former.
pub(super) fn gradients<E: Element>(
    level: Level,
    g: &Geometry,
    input: Input<'_, E>,
    w: &[f32],
    dy: &[E],
    parts: &mut [Part],
) -> (Numbers<E>, Numbers<f32>) {
    let per_filter = g.per_filter();
    let mut dx = recycle::take(g.images * g.input().lines() * LANES);
    let mut dw = recycle::take_parameters(g.c_in * per_filter);
    if g.is_empty() {
        dx.fill(E::default());
        dw.fill(0.0);
        return (dx, dw);
    }
    let (blocks, own) = (g.input().blocks, by_block(g));
    let job = Job::new(level, g, &own, w);
    let (x, transform) = input;
    let (lines, out) = (own.input().lines() * LANES, own.output().lines() * LANES);
    let mut sums = vec![[0.0; LANES]; own.images * per_filter];
    let planes = dx.par_chunks_mut(lines).zip(x.par_chunks(lines)).zip(dy.par_chunks(out));
    let results = sums.par_chunks_mut(per_filter).zip(parts);
    planes.zip(results).enumerate().for_each_init(
        || [Vec::new(), Vec::new()],
        |frames, (i, (((dx, x), dy), (sums, part)))| {
            let block = i % blocks;
            let transform = transform.map(|t| of_block(t, block));
            let maps = (x.as_chunks().0, dy.as_chunks().0, dx.as_chunks_mut().0);
            job.run(block, frames, (maps, transform), (sums, part));
        },
    );
    let sum = |i: usize| {
        let (channel, tap) = (i / per_filter, i % per_filter);
        let line = |image: usize| (image * blocks + channel / LANES) * per_filter + tap;
        let each = (0..g.images).map(|image| f64::from(sums[line(image)][channel % LANES]));
        each.sum::<f64>() as f32
    };
    dw.iter_mut().enumerate().for_each(|(i, dw)| *dw = sum(i));
    (dx, dw)
}

/// What the gradients of all blocks share.
struct Job<'a> {
    level: Level,
    g: &'a Geometry,
    /// Rows of cells of a strip.
    strip: usize,
    /// Of the input and of the output's gradient.
    frames: [Frame; 2],
    /// Of the input.
    taps: Vec<usize>,
    passes: Vec<Pass<Vec<Line>>>,
}

/// Input, gradient of the output and, to be computed, of the input, of one block.
type Maps<'a, E> = (&'a [Line<E>], &'a [Line<E>], &'a mut [Line<E>]);

impl<'a> Job<'a> {
    fn new(level: Level, all: &Geometry, g: &'a Geometry, w: &[f32]) -> Self {
        // Frames of f32, so that strips are those of all number types.
        let strip = g.gradient_strip::<f32>(FRAME_BYTES);
        let frames = [g.frame(strip), g.gradient_frame(strip)];
        let (k, per_filter) = (g.filter, all.per_filter());
        Self {
            level,
            g,
            strip,
            frames,
            taps: (0..per_filter).map(|t| frames[0].tap(t / k, t % k)).collect(),
            passes: g.gradient_passes(&frames[1], |taps| pack(all, w, taps)),
        }
    }

    fn run<E: Element>(
        &self,
        block: usize,
        buffers: &mut [Vec<Line<E>>; 2],
        ((x, dy, dx), transform): (Maps<'_, E>, Option<Transform<'_>>),
        (sums, part): (&mut [Line], &mut Part),
    ) {
        let Self { level, g, strip, frames, .. } = self;
        let (input, output) = (g.input(), g.output());
        for (buffer, frame) in buffers.iter_mut().zip(frames) {
            buffer.resize(frame.block(), [E::default(); LANES]);
        }
        let [x_buffer, d_buffer] = buffers;
        *part = [[0.0; LANES]; 2];
        if g.filter < g.stride {
            // Pixels between the windows have no gradient.
            dx.fill([E::default(); LANES]);
        }
        let row = |cell: usize| (cell * g.stride).saturating_sub(g.pad[0]).min(input.height);
        for first in (0..g.cells(0)).step_by(*strip) {
            let (frame, picture, out) = (&frames[1], dy, &mut d_buffer[..]);
            level.run(Fill { frame, planes: output, picture, first, transform: None, out });
            for pass in &self.passes {
                filter(*level, frame, (pass, block), d_buffer, ([first, *strip], input), dx);
            }
            let done = row(first) * input.width..row(first + strip) * input.width;
            if let Some(Transform { affine, activation }) = transform
                && !done.is_empty()
            {
                let (x, dy, pixels) = (&x[done.clone()], &mut dx[done.clone()], done.len());
                let (mask, parts) = (Mask::of(affine, activation), slice::from_mut(part));
                level.run(MaskedSums { x, mask, centers: affine, pixels, dy, parts });
            }
            let rows = output.height.saturating_sub(first).min(*strip);
            if rows > 0 {
                let (frame, picture, out) = (&frames[0], x, &mut x_buffer[..]);
                level.run(Fill { frame, planes: input, picture, first, transform, out });
                self.products(x_buffer, d_buffer, rows, sums);
            }
        }
    }

    /// Adds the products of both frames for the first `rows` rows of output.
    fn products<E: Element>(&self, x: &[Line<E>], d: &[Line<E>], rows: usize, sums: &mut [Line]) {
        let pitches = self.frames.map(|frame| frame.pitch);
        let [down, across] = self.frames[1].pad;
        let d = &d[down * pitches[1] + across..];
        let size = [rows, self.g.out[1]];
        let mut start = 0;
        while start < self.taps.len() {
            let left = self.taps.len() - start;
            let most = if self.level.tile().blocks > 1 { 9 } else { 5 };
            let count = [9, 5, 4, 1].into_iter().find(|n| *n <= most.min(left)).unwrap_or(1);
            let taps = &self.taps[start..][..count];
            let sums = &mut sums[start..][..count];
            match count {
                9 => self.level.run(Products::<E, 9> { x, d, taps, pitches, size, sums }),
                5 => self.level.run(Products::<E, 5> { x, d, taps, pitches, size, sums }),
                4 => self.level.run(Products::<E, 4> { x, d, taps, pitches, size, sums }),
                _ => self.level.run(Products::<E, 1> { x, d, taps, pitches, size, sums }),
            }
            start += count;
        }
    }
}

/// The pixels of a pass over `block` whose cells are in a strip of rows, to a block of a result.
fn filter<E: Element>(
    level: Level,
    frame: &Frame,
    (pass, block): (&Pass<Vec<Line>>, usize),
    cells: &[Line<E>],
    (strip, result): ([usize; 2], Planes),
    y: &mut [Line<E>],
) {
    let taps = &pass.taps[..];
    let weights = &pass.weights[block * taps.len()..][..taps.len()];
    let (pitch, most) = (frame.pitch, level.tile().pixels.min(WIDEST));
    for column in pass.pixels.columns(frame, strip, result.width, most) {
        let tiles = Tiles { cells, taps, weights, pitch, column, y };
        with_width!(column.pixels, P => level.run(Tile::<E, P>(tiles)));
    }
}

/// A column of tiles.
struct Tiles<'a, E: Element> {
    cells: &'a [Line<E>],
    taps: &'a [usize],
    /// Of each tap.
    weights: &'a [Line],
    /// Cells of a row.
    pitch: usize,
    column: Column,
    y: &'a mut [Line<E>],
}

/// [`Tiles`], `P` pixels wide.
struct Tile<'a, E: Element, const P: usize>(Tiles<'a, E>);

impl<E: Element, const P: usize> Kernel for Tile<'_, E, P> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Tiles { cells, taps, weights, pitch, column, y } = self.0;
        let Column { from, rows, to, step, down, .. } = column;
        for row in 0..rows {
            let mut sums = [simd.load(&[0.0; LANES]); P];
            let start = from + row * pitch;
            for (w, tap) in weights.iter().zip(taps) {
                let Some(x) = cells[start + tap..].first_chunk::<P>() else {
                    panic!("a tile at {start} overruns a frame of {} cells", cells.len())
                };
                let w = simd.load(w);
                unroll!(p < P, { sums[p] = simd.fma(E::load(simd, &x[p]), w, sums[p]) });
            }
            let to = to + row * down;
            unroll!(p < P, { y[to + p * step] = E::store(simd, sums[p]) });
        }
    }
}

/// `sums[t] += Σ_q x[q + t]·d[q]` over rows and columns `size`.
struct Products<'a, E: Element, const T: usize> {
    x: &'a [Line<E>],
    d: &'a [Line<E>],
    taps: &'a [usize],
    /// Cells of a row of both.
    pitches: [usize; 2],
    size: [usize; 2],
    sums: &'a mut [Line],
}

impl<E: Element, const T: usize> Kernel for Products<'_, E, T> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { x, d, taps, pitches, size, sums } = self;
        let mut total = [simd.load(&[0.0; LANES]); T];
        for row in 0..size[0] {
            let d = &d[row * pitches[1]..][..size[1]];
            let x = &x[row * pitches[0]..];
            for (col, d) in d.iter().enumerate() {
                let d = E::load(simd, d);
                unroll!(t < T, {
                    total[t] = simd.fma(E::load(simd, &x[col + taps[t]]), d, total[t]);
                });
            }
        }
        unroll!(t < T, { sums[t] = simd.store(simd.add(simd.load(&sums[t]), total[t])) });
    }
}
