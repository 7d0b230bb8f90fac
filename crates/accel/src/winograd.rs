//! Convolutions with 3×3 filters in a quarter of the multiplications (Winograd 1980; Lavin and Gray
//! 2016, F(4×4, 3×3)).
//!
//! An output of 4×4 pixels, a tile, needs a patch of 6×6 of the input. Patch and filter are seen as
//! polynomials and evaluated at 6 points in each direction, `V = Bᵀ·d·B` and `U = G·g·Gᵀ`; at each of
//! the 36 points a product of matrices sums over channels, `M = V·U`, and the tile is interpolated from
//! the products, `Aᵀ·M·A`. The input gradient is the same with filters turned around; the gradient of the
//! weights is `Gᵀ·(Σ V·(A·dy·Aᵀ))·G`, a quarter of the multiplications, too.
//!
//! Points are 0, ±5/8, ±3/2 and ∞: with the usual 0, ±1, ±2 and ∞, the largest error is three times as
//! large, here about twice that of sums over taps. All coefficients of the pictures' side are exact.

use crate::conv::{Correlation, Source};
use crate::dispatch::{Kernel, Level, Simd, unroll};
use crate::element::{Element, LANES, Line};
use crate::frame::{Fill, Frame, Planes, Transform};
use crate::geometry::{Geometry, Pixels};
use crate::recycle::{self, Numbers};
use crate::weight::{Block, Products, Segment};
use core::ops::Range;
use rayon::prelude::*;

/// Pixels of a tile in each direction.
const TILE: usize = 4;
/// Of the patch that it is computed from.
const PATCH: usize = TILE + 2;
const POINTS: usize = PATCH * PATCH;
const TAPS: usize = 9;

/// A point between 0 and ∞; its negative is one, too.
const P: f32 = 0.625;
/// Another.
const Q: f32 = 1.5;
const P2: f32 = P * P;
const Q2: f32 = Q * Q;

/// Whether a convolution can be computed so and is worth it: it must have enough products to pay for
/// evaluation and interpolation, and maps not much smaller than their tiles.
pub(super) fn suits(g: &Geometry) -> bool {
    /// Channels.
    const LEAST: usize = 32;

    let covered = g.out.map(|size| size.next_multiple_of(TILE));
    g.filter == 3
        && g.stride == 1
        && !g.planar
        && !g.depthwise
        && !g.is_empty()
        && g.pad.iter().all(|pad| *pad <= 2)
        && g.c_in.min(g.c_out) >= LEAST
        && 3 * g.out[0] * g.out[1] >= 2 * covered[0] * covered[1]
}

/// [`suits`], where products of this number type are not faster by themselves: values at points are
/// f32, of which AVX-512 BF16 multiplies half as many.
pub(super) fn suits_products<E: Element>(level: Level, g: &Geometry) -> bool {
    /// Channels up to which filters at points are in the second-level cache.
    const MOST: usize = 128;

    suits(g) && (E::DEPTH == 1 || !level.has_bf16() || g.c_in.max(g.c_out) <= MOST)
}

/// The same of the gradient of the weights.
pub(super) fn suits_weights<E: Element>(level: Level, g: &Geometry) -> bool {
    suits(g) && (E::DEPTH == 1 || !level.has_bf16())
}

/// `source ∗ w`, as [`conv::forward`](crate::conv::forward).
pub(super) fn forward<E: Element, P: Send>(
    level: Level,
    g: &Geometry,
    source: Source<'_, E>,
    w: &[f32],
    parts: &mut [P],
    after: impl Fn(&mut [Line<E>], &mut [P]) + Sync,
) -> Numbers<E> {
    let filters = Filters { w, channels: [g.c_out, g.c_in], strides: [g.c_in * TAPS, TAPS] };
    let pictures = match source {
        Source::Map { values, transform } => {
            Pictures { planes: g.input(), pad: g.pad, values, transform }
        }
        Source::Pictures(_) => unreachable!("pictures are convolved by their windows"),
    };
    correlate(level, pictures, g.output(), filters, parts, after)
}

/// Gradient with respect to the input, as [`conv::input_gradient`](crate::conv::input_gradient).
pub(super) fn input_gradient<E: Element, P: Send>(
    level: Level,
    g: &Geometry,
    w: &[f32],
    dy: &[E],
    parts: &mut [P],
    after: impl Fn(&mut [Line<E>], &mut [P]) + Sync,
) -> Numbers<E> {
    let filters = Filters { w, channels: [g.c_in, g.c_out], strides: [TAPS, g.c_in * TAPS] };
    let pad = g.pad.map(|pad| 2 - pad);
    let pictures = Pictures { planes: g.output(), pad, values: dy, transform: None };
    correlate(level, pictures, g.input(), filters, parts, after)
}

/// What is evaluated.
#[derive(Clone, Copy)]
struct Pictures<'a, E> {
    planes: Planes,
    pad: [usize; 2],
    values: &'a [E],
    transform: Option<Transform<'a>>,
}

impl<E: Element> Pictures<'_, E> {
    fn lines(&self) -> &[Line<E>] {
        self.values.as_chunks().0
    }

    /// Evaluates the patches of tiles of a block of a picture; `frame` is memory for it.
    fn evaluate(
        &self,
        level: Level,
        [image, block]: [usize; 2],
        tiles: &Tiles,
        frame: &mut Vec<Line<E>>,
        out: &mut [Line],
    ) {
        let planes = Planes { blocks: 1, ..self.planes };
        let picture = &self.lines()[(image * self.planes.blocks + block) * planes.pixels()..];
        let picture = &picture[..planes.pixels()];
        let transform = self.transform.map(|t| Transform { affine: &t.affine[block..], ..t });
        let (rows, pitch) = (tiles.rows.len() * TILE + 2, tiles.across * TILE + 2);
        let shape = Frame { stride: 1, pad: self.pad, phases: 1, rows, pitch };
        frame.resize(rows * pitch, [E::default(); LANES]);
        let first = tiles.rows.start * TILE;
        level.run(Fill { frame: &shape, planes, picture, first, transform, out: &mut frame[..] });
        level.run(Evaluate { frame, tiles, out });
    }
}

/// Rows of tiles of a picture, and where their values at points are: `[POINTS, pitch]` lines from
/// the first one's on.
struct Tiles {
    rows: Range<usize>,
    across: usize,
    pitch: usize,
}

impl Tiles {
    fn count(&self) -> usize {
        self.rows.len() * self.across
    }
}

/// Lines of each point for `tiles` tiles: an odd number, so that points do not meet in the cache.
fn pitch(tiles: usize) -> usize {
    tiles | 1
}

/// `[results, sources, 3, 3]` in any order.
#[derive(Clone, Copy)]
struct Filters<'a> {
    w: &'a [f32],
    /// Results and sources.
    channels: [usize; 2],
    /// Weights from one to the next.
    strides: [usize; 2],
}

impl Filters<'_> {
    /// At all points, for each group of `together` blocks of results:
    /// `[POINTS, sources, together, LANES]`.
    fn evaluated(self, level: Level, together: usize, is_turned: bool) -> Numbers<f32> {
        let [results, sources] = self.channels.map(|c| c.div_ceil(LANES));
        let per_block = POINTS * sources * LANES * LANES;
        let mut values = recycle::take::<f32>(results * per_block);
        values.par_chunks_mut(together * per_block).enumerate().for_each(|(group, values)| {
            let (together, first) = (values.len() / per_block, group * together);
            let out = values.as_chunks_mut().0;
            level.run(EvaluateFilters { filters: self, first, together, is_turned, out });
        });
        values
    }
}

/// The correlation of pictures with 3×3 filters.
fn correlate<E: Element, P: Send>(
    level: Level,
    pictures: Pictures<'_, E>,
    result: Planes,
    filters: Filters<'_>,
    parts: &mut [P],
    after: impl Fn(&mut [Line<E>], &mut [P]) + Sync,
) -> Numbers<E> {
    /// Tiles that share a reading of the filters: values at points stay in the second-level cache,
    /// or the filters are read from the third one not more often than it can.
    const TOGETHER: usize = 56;

    let source = pictures.planes;
    let images = pictures.lines().len() / source.lines();
    let is_turned = filters.strides[0] < filters.strides[1];
    let most = level.tile().blocks;
    let weights = filters.evaluated(level, most, is_turned);
    let [down, across] = [result.height, result.width].map(|size| size.div_ceil(TILE));
    // A power of two: then jobs are rarely one more than threads share evenly.
    let chunk = (TOGETHER / (down * across)).next_power_of_two().clamp(1, images.div_ceil(4));
    let strip = down.div_ceil(down.div_ceil((TOGETHER / across).max(1)));
    let lines = result.lines();
    let mut y = recycle::take::<E>(images * lines * LANES);
    let results = y.as_chunks_mut().0.par_chunks_mut(chunk * lines);
    let per_picture = parts.len() / images;
    let jobs = results.zip(parts.par_chunks_mut(chunk * per_picture)).enumerate();
    let memory = || (Vec::new(), Vec::new(), Vec::new());
    jobs.for_each_init(memory, |(frame, v, m), (job, (y, parts))| {
        let here = y.len() / lines;
        for first in (0..down).step_by(strip) {
            let rows = first..(first + strip).min(down);
            let own = Tiles { rows, across, pitch: pitch(here * strip * across) };
            let all = here * own.count();
            let plane = POINTS * own.pitch;
            v.resize(source.blocks * plane, [0.0; LANES]);
            m.resize(result.blocks * plane, [0.0; LANES]);
            for image in 0..here {
                for (block, v) in v.chunks_exact_mut(plane).enumerate() {
                    let out = &mut v[image * own.count()..];
                    pictures.evaluate(level, [job * chunk + image, block], &own, frame, out);
                }
            }
            let correlation = Correlation {
                frame: Frame { stride: 1, pad: [0; 2], phases: 1, rows: 1, pitch: all },
                blocks: source.blocks,
                strip: 1,
                rows: 1,
                result: Planes { blocks: result.blocks, height: 1, width: plane },
                by_strip: false,
            };
            let taps: Vec<usize> = (0..source.blocks).map(|block| block * plane).collect();
            let per_block = POINTS * source.blocks * LANES * LANES;
            for point in 0..POINTS {
                for (group, weights) in weights.chunks(most * per_block).enumerate() {
                    let len = weights.len() / POINTS;
                    let weights = &weights[point * len..][..len];
                    let at = point * own.pitch;
                    let m = &mut m[group * most * plane + at..];
                    let pixels = Pixels::all([1, all]);
                    correlation.strip::<f32>(level, (weights, pixels, &taps), &v[at..], [0, 1], m);
                }
            }
            for (image, y) in y.chunks_exact_mut(lines).enumerate() {
                let blocks = m.chunks_exact(plane).zip(y.chunks_exact_mut(result.pixels()));
                for (m, y) in blocks {
                    let (m, tiles) = (&m[image * own.count()..], &own);
                    level.run(Interpolate { m, tiles, width: result.width, y });
                }
            }
        }
        for (y, parts) in y.chunks_exact_mut(lines).zip(parts.chunks_mut(per_picture.max(1))) {
            after(y, parts);
        }
    });
    y
}

/// Gradient with respect to the weights, as
/// [`weight::weight_gradient`](crate::weight::weight_gradient).
pub(super) fn weight_gradient<E: Element>(
    level: Level,
    g: &Geometry,
    (x, transform): (&[E], Option<Transform<'_>>),
    dy: &[E],
) -> Numbers<f32> {
    /// Bytes at points that are kept at a time, at least.
    const BYTES: usize = 4 << 20;

    let (input, output) = (g.input(), g.output());
    let x = Pictures { planes: input, pad: g.pad, values: x, transform };
    let dy: &[Line<E>] = dy.as_chunks().0;
    let [down, across] = g.out.map(|size| size.div_ceil(TILE));
    let tiles = down * across;
    let products = output.blocks * input.blocks;
    let mut sums = recycle::take::<f32>(POINTS * products * LANES * LANES);
    sums.fill(0.0);
    // Sums are read and written for each group of pictures: more of them where there are many.
    let bytes = BYTES.max(size_of_val(&*sums) / 2);
    let per_picture = (input.blocks + output.blocks) * POINTS * tiles * size_of::<Line>();
    let group = (bytes / per_picture).clamp(1, g.images);
    let plane = POINTS * pitch(group * tiles);
    let mut v = vec![[0.0; LANES]; input.blocks * plane];
    let mut d = vec![[0.0; LANES]; output.blocks * plane];
    for start in (0..g.images).step_by(group) {
        let here = group.min(g.images - start);
        let own = Tiles { rows: 0..down, across, pitch: plane / POINTS };
        let evaluate = |frame: &mut Vec<Line<E>>, (block, v): (usize, &mut [Line])| {
            for image in 0..here {
                let out = &mut v[image * tiles..];
                x.evaluate(level, [start + image, block], &own, frame, out);
            }
        };
        let spread = |(block, d): (usize, &mut [Line])| {
            for image in 0..here {
                let at = ((start + image) * output.blocks + block) * output.pixels();
                let (dy, out) = (&dy[at..][..output.pixels()], &mut d[image * tiles..]);
                level.run(Spread { dy, tiles: &own, width: output.width, out });
            }
        };
        rayon::join(
            || v.par_chunks_mut(plane).enumerate().for_each_init(Vec::new, evaluate),
            || d.par_chunks_mut(plane).enumerate().for_each(spread),
        );
        let sums: &mut [Block] = bytemuck::cast_slice_mut(&mut sums);
        let taps: Vec<usize> = (0..input.blocks).map(|block| block * plane).collect();
        let segments = [Segment { x: 0, d: 0, len: here * tiles }];
        sums.par_chunks_mut(products).enumerate().for_each(|(point, sums)| {
            let at = point * own.pitch;
            for (block, sums) in sums.chunks_exact_mut(input.blocks).enumerate() {
                let d = &d[block * plane + at..];
                level.run(Products::<f32> {
                    x: &v[at..],
                    d,
                    segments: &segments,
                    taps: &taps,
                    sums,
                });
            }
        });
    }
    let per_filter = g.per_filter();
    let mut dw = recycle::take_parameters(g.c_out * per_filter);
    let sums: &[Block] = bytemuck::cast_slice(&sums);
    dw.par_chunks_mut(LANES * per_filter).enumerate().for_each(|(block, dw)| {
        let sums = &sums[block * input.blocks..];
        level.run(Gather { sums, products, channels: g.c_in, dw });
    });
    dw
}

/// A number in every lane.
#[inline(always)]
fn splat<S: Simd>(simd: S, value: f32) -> S::Vector {
    simd.load(&[value; LANES])
}

/// `a·x + b·y`
#[inline(always)]
fn sum<S: Simd>(simd: S, [a, b]: [f32; 2], [x, y]: [S::Vector; 2]) -> S::Vector {
    simd.fma(x, splat(simd, a), simd.mul(y, splat(simd, b)))
}

/// `Bᵀ·d`
#[inline(always)]
fn evaluate<S: Simd>(simd: S, d: [S::Vector; PATCH]) -> [S::Vector; PATCH] {
    let squares = (splat(simd, -P2), splat(simd, -Q2));
    let (even_p, odd_p) = (simd.fma(d[2], squares.1, d[4]), simd.fma(d[1], squares.1, d[3]));
    let (even_q, odd_q) = (simd.fma(d[2], squares.0, d[4]), simd.fma(d[1], squares.0, d[3]));
    let (p, q) = (splat(simd, P), splat(simd, Q));
    let (minus_p, minus_q) = (splat(simd, -P), splat(simd, -Q));
    let (ends, between) = (splat(simd, P2 * Q2), splat(simd, -(P2 + Q2)));
    [
        simd.fma(d[0], ends, simd.fma(d[2], between, d[4])),
        simd.fma(odd_p, p, even_p),
        simd.fma(odd_p, minus_p, even_p),
        simd.fma(odd_q, q, even_q),
        simd.fma(odd_q, minus_q, even_q),
        simd.fma(d[1], ends, simd.fma(d[3], between, d[5])),
    ]
}

/// `Aᵀ·m`
#[inline(always)]
fn interpolate<S: Simd>(simd: S, m: [S::Vector; PATCH]) -> [S::Vector; TILE] {
    let (even_p, odd_p) = (simd.add(m[1], m[2]), simd.sub(m[1], m[2]));
    let (even_q, odd_q) = (simd.add(m[3], m[4]), simd.sub(m[3], m[4]));
    let (even, odd) = ([even_p, even_q], [odd_p, odd_q]);
    [
        simd.add(simd.add(m[0], even_p), even_q),
        sum(simd, [P, Q], odd),
        sum(simd, [P2, Q2], even),
        simd.add(sum(simd, [P2 * P, Q2 * Q], odd), m[5]),
    ]
}

/// `A·d`
#[inline(always)]
fn spread<S: Simd>(simd: S, d: [S::Vector; TILE]) -> [S::Vector; PATCH] {
    let even_p = simd.fma(d[2], splat(simd, P2), d[0]);
    let even_q = simd.fma(d[2], splat(simd, Q2), d[0]);
    let odd_p = sum(simd, [P, P2 * P], [d[1], d[3]]);
    let odd_q = sum(simd, [Q, Q2 * Q], [d[1], d[3]]);
    [
        d[0],
        simd.add(even_p, odd_p),
        simd.sub(even_p, odd_p),
        simd.add(even_q, odd_q),
        simd.sub(even_q, odd_q),
        d[3],
    ]
}

/// What filters are divided by at points ±[`P`] and ±[`Q`].
const DIVISORS: [f32; 2] = [2.0 * P2 * (P2 - Q2), 2.0 * Q2 * (Q2 - P2)];

/// `G·g`
#[inline(always)]
fn evaluate_filter<S: Simd>(simd: S, g: [S::Vector; 3]) -> [S::Vector; PATCH] {
    let [p, q] = DIVISORS;
    let even_p = sum(simd, [1.0 / p, P2 / p], [g[0], g[2]]);
    let even_q = sum(simd, [1.0 / q, Q2 / q], [g[0], g[2]]);
    let odd_p = simd.mul(g[1], splat(simd, P / p));
    let odd_q = simd.mul(g[1], splat(simd, Q / q));
    [
        simd.mul(g[0], splat(simd, 1.0 / (P2 * Q2))),
        simd.add(even_p, odd_p),
        simd.sub(even_p, odd_p),
        simd.add(even_q, odd_q),
        simd.sub(even_q, odd_q),
        g[2],
    ]
}

/// `Gᵀ·u`
#[inline(always)]
fn gather<S: Simd>(simd: S, u: [S::Vector; PATCH]) -> [S::Vector; 3] {
    let [p, q] = DIVISORS;
    let even = [simd.add(u[1], u[2]), simd.add(u[3], u[4])];
    let odd = [simd.sub(u[1], u[2]), simd.sub(u[3], u[4])];
    let first = sum(simd, [1.0 / p, 1.0 / q], even);
    [
        simd.fma(u[0], splat(simd, 1.0 / (P2 * Q2)), first),
        sum(simd, [P / p, Q / q], odd),
        simd.add(sum(simd, [P2 / p, Q2 / q], even), u[5]),
    ]
}

/// The patches of a frame at all points.
struct Evaluate<'a, E: Element> {
    frame: &'a [Line<E>],
    tiles: &'a Tiles,
    out: &'a mut [Line],
}

impl<E: Element> Kernel for Evaluate<'_, E> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { frame, tiles, out } = self;
        let pitch = tiles.across * TILE + 2;
        for tile in 0..tiles.count() {
            let (row, col) = (tile / tiles.across, tile % tiles.across);
            let patch = &frame[(row * pitch + col) * TILE..][..(PATCH - 1) * pitch + PATCH];
            let zero = simd.load(&[0.0; LANES]);
            let mut columns = [[zero; PATCH]; PATCH];
            unroll!(c < PATCH, {
                let mut d = [zero; PATCH];
                unroll!(r < PATCH, { d[r] = E::load(simd, &patch[r * pitch + c]) });
                columns[c] = evaluate(simd, d);
            });
            unroll!(r < PATCH, {
                let mut d = [zero; PATCH];
                unroll!(c < PATCH, { d[c] = columns[c][r] });
                let d = evaluate(simd, d);
                let out = &mut out[r * PATCH * tiles.pitch + tile..];
                unroll!(c < PATCH, { out[c * tiles.pitch] = simd.store(d[c]) });
            });
        }
    }
}

/// Tiles of a block of a picture from their values at points.
struct Interpolate<'a, E: Element> {
    m: &'a [Line],
    tiles: &'a Tiles,
    width: usize,
    y: &'a mut [Line<E>],
}

impl<E: Element> Kernel for Interpolate<'_, E> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { m, tiles, width, y } = self;
        let height = y.len() / width;
        for tile in 0..tiles.count() {
            let (row, col) = (tile / tiles.across, tile % tiles.across);
            let (row, col) = ((tiles.rows.start + row) * TILE, col * TILE);
            let zero = simd.load(&[0.0; LANES]);
            let mut columns = [[zero; TILE]; PATCH];
            unroll!(c < PATCH, {
                let m = &m[c * tiles.pitch + tile..];
                let mut own = [zero; PATCH];
                unroll!(r < PATCH, { own[r] = simd.load(&m[r * PATCH * tiles.pitch]) });
                columns[c] = interpolate(simd, own);
            });
            let cols = TILE.min(width - col);
            unroll!(r < TILE, {
                if row + r < height {
                    let mut own = [zero; PATCH];
                    unroll!(c < PATCH, { own[c] = columns[c][r] });
                    let values = interpolate(simd, own);
                    let y = &mut y[(row + r) * width + col..][..cols];
                    if let Some(y) = y.first_chunk_mut::<TILE>() {
                        unroll!(c < TILE, { y[c] = E::store(simd, values[c]) });
                    } else {
                        unroll!(c < TILE, {
                            if c < cols {
                                y[c] = E::store(simd, values[c]);
                            }
                        });
                    }
                }
            });
        }
    }
}

/// The other way round, the gradient of [`Interpolate`]: values at points of a block of a picture.
struct Spread<'a, E: Element> {
    dy: &'a [Line<E>],
    tiles: &'a Tiles,
    width: usize,
    out: &'a mut [Line],
}

impl<E: Element> Kernel for Spread<'_, E> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { dy, tiles, width, out } = self;
        let height = dy.len() / width;
        for tile in 0..tiles.count() {
            let (row, col) = (tile / tiles.across, tile % tiles.across);
            let (row, col) = ((tiles.rows.start + row) * TILE, col * TILE);
            let zero = simd.load(&[0.0; LANES]);
            let mut rows = [[zero; PATCH]; TILE];
            let cols = TILE.min(width - col);
            unroll!(r < TILE, {
                if row + r < height {
                    let dy = &dy[(row + r) * width + col..][..cols];
                    let mut own = [zero; TILE];
                    unroll!(c < TILE, {
                        if c < cols {
                            own[c] = E::load(simd, &dy[c]);
                        }
                    });
                    rows[r] = spread(simd, own);
                }
            });
            unroll!(c < PATCH, {
                let mut own = [zero; TILE];
                unroll!(r < TILE, { own[r] = rows[r][c] });
                let values = spread(simd, own);
                let out = &mut out[c * tiles.pitch + tile..];
                unroll!(r < PATCH, {
                    out[r * PATCH * tiles.pitch] = simd.store(values[r]);
                });
            });
        }
    }
}

/// Filters of `together` blocks of results from `first` on at all points.
struct EvaluateFilters<'a> {
    filters: Filters<'a>,
    first: usize,
    together: usize,
    /// By half a turn.
    is_turned: bool,
    out: &'a mut [Line],
}

impl Kernel for EvaluateFilters<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { filters, first, together, is_turned, out } = self;
        let Filters { w, channels, strides } = filters;
        let point = out.len() / POINTS;
        for i in 0..point {
            let (source, block) = (i / together, i % together);
            let mut taps = [[0.0; LANES]; TAPS];
            for lane in 0..LANES.min(channels[0] - (first + block) * LANES) {
                let result = (first + block) * LANES + lane;
                if source < channels[1] {
                    let w = &w[result * strides[0] + source * strides[1]..][..TAPS];
                    for (tap, line) in taps.iter_mut().enumerate() {
                        line[lane] = w[if is_turned { TAPS - 1 - tap } else { tap }];
                    }
                }
            }
            let zero = simd.load(&[0.0; LANES]);
            let mut columns = [[zero; PATCH]; 3];
            unroll!(c < 3, {
                let mut own = [zero; 3];
                unroll!(r < 3, { own[r] = simd.load(&taps[r * 3 + c]) });
                columns[c] = evaluate_filter(simd, own);
            });
            unroll!(r < PATCH, {
                let mut own = [zero; 3];
                unroll!(c < 3, { own[c] = columns[c][r] });
                let values = evaluate_filter(simd, own);
                let out = &mut out[r * PATCH * point + i..];
                unroll!(c < PATCH, { out[c * point] = simd.store(values[c]) });
            });
        }
    }
}

/// The gradient of [`EvaluateFilters`]: of the filters of a block of output channels, `[O, I, 3, 3]`.
struct Gather<'a> {
    /// From the first one of the output channels on.
    sums: &'a [Block],
    /// Blocks from one point to the next.
    products: usize,
    /// Of the input.
    channels: usize,
    dw: &'a mut [f32],
}

impl Kernel for Gather<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { sums, products, channels, dw } = self;
        for channel in 0..channels {
            let (block, lane) = (channel / LANES, channel % LANES);
            let zero = simd.load(&[0.0; LANES]);
            let mut columns = [[zero; 3]; PATCH];
            unroll!(c < PATCH, {
                let mut own = [zero; PATCH];
                unroll!(r < PATCH, {
                    own[r] = simd.load(&sums[(r * PATCH + c) * products + block][lane]);
                });
                columns[c] = gather(simd, own);
            });
            let mut taps = [[0.0; LANES]; TAPS];
            unroll!(r < 3, {
                let mut own = [zero; PATCH];
                unroll!(c < PATCH, { own[c] = columns[c][r] });
                let values = gather(simd, own);
                unroll!(c < 3, { taps[r * 3 + c] = simd.store(values[c]) });
            });
            for (lane, dw) in dw.chunks_exact_mut(channels * TAPS).enumerate() {
                let dw = &mut dw[channel * TAPS..][..TAPS];
                for (dw, tap) in dw.iter_mut().zip(&taps) {
                    *dw = tap[lane];
                }
            }
        }
    }
}
