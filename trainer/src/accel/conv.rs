//! Convolution, its input gradient and its weight gradient, as sums of shifted planes.
//!
//! The input is copied once into a zero-padded buffer where row follows row. There the pixel
//! that a filter tap needs lies at a fixed distance from the output pixel, so that
//! `y[o, q] = Σ_t w[o, t]·buffer[tap_t + q]` over runs of consecutive `q`, without bounds to
//! observe. Rows share their padding with their neighbors. A stride `s > 1` splits the buffer
//! into `s × s` planes, one per remainder of row and column, after which the same sum holds.
//!
//! Work is split by shape alone, never by thread count, and partial sums are added in a fixed
//! order: results are the same bits on any number of threads.

use super::dispatch::{Kernel, Level, accumulate, lanes, store, total};
use rayon::prelude::*;

/// Repeats a statement for each `m` below `M ≤ 8`. A loop would do the same, but not every
/// loop of this size is unrolled by the compiler, and only then do sums stay in registers.
macro_rules! unroll {
    ($m:ident < $M:ident, $body:block) => {
        unroll!(@ $m $M $body 0 1 2 3 4 5 6 7)
    };
    (@ $m:ident $M:ident $body:block $($n:literal)*) => {
        $(if $n < $M {
            let $m = $n;
            $body
        })*
    };
}

/// Vectors computed together for each output channel.
const SPAN: usize = 3;

/// Sizes of a convolution: NCHW input, OIHW square filter, zero padding on every side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) images: usize,
    pub(super) c_in: usize,
    pub(super) c_out: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) filter: usize,
    pub(super) stride: usize,
    pub(super) pad: usize,
}

impl Geometry {
    /// Output height and width.
    pub(super) fn output(&self) -> (usize, usize) {
        let size = |n: usize| (n + 2 * self.pad - self.filter) / self.stride + 1;
        (size(self.height), size(self.width))
    }

    /// Multiply-adds have nothing to work on.
    fn is_empty(&self) -> bool {
        self.images == 0 || self.c_in == 0 || self.c_out == 0 || self.height * self.width == 0
    }
}

/// `x ∗ w`: `[N, O, H', W']`.
pub(super) fn forward(level: Level, g: &Geometry, x: &[f32], w: &[f32]) -> Vec<f32> {
    let (height, width) = g.output();
    let mut y = vec![0.0; g.images * g.c_out * height * width];
    if g.is_empty() {
        return y;
    }
    let grid = Grid::correlation(g.filter, g.stride, g.pad.cast_signed(), height, width);
    let per_filter = g.c_in * g.filter * g.filter;
    let pass = Pass {
        taps: |plane| grid.taps(g.c_in, g.filter, plane),
        weights: pack(level, g.c_out, per_filter, |o, t| w[o * per_filter + t]),
        target: Target { height, width, top: 0, left: 0, first: (0, 0), step: 1 },
    };
    let shape = Correlation {
        grid,
        images: g.images,
        source: Planes { channels: g.c_in, height: g.height, width: g.width },
        result: Planes { channels: g.c_out, height, width },
    };
    shape.run(level, x, &mut y, &[pass]);
    y
}

/// Gradient with respect to `x`, of `x`'s shape, from `dy: [N, O, H', W']`.
pub(super) fn input_gradient(level: Level, g: &Geometry, w: &[f32], dy: &[f32]) -> Vec<f32> {
    let mut dx = vec![0.0; g.images * g.c_in * g.height * g.width];
    if g.is_empty() {
        return dx;
    }
    let (height, width) = g.output();
    let (k, s) = (g.filter, g.stride);
    let source = Planes { channels: g.c_out, height, width };
    let result = Planes { channels: g.c_in, height: g.height, width: g.width };
    let at = |i: usize, o: usize, row: usize, col: usize| w[((o * g.c_in + i) * k + row) * k + col];
    // Pixels of dx with the same remainder (row, col) of the padded position by the stride
    // meet the same filter taps; each such class is a correlation of dy with stride one.
    let depth = (k - 1) / s;
    let grid = if s == 1 {
        let pad = k.cast_signed() - 1 - g.pad.cast_signed();
        Grid::correlation(k, 1, pad, g.height, g.width)
    } else {
        let rows = ((g.height - 1 + g.pad) / s + 1).max(height) + depth;
        let cols = ((g.width - 1 + g.pad) / s + 1).max(width) + depth;
        Grid {
            stride: 1,
            pad: depth.cast_signed(),
            phases: 1,
            rows,
            cols,
            image: rows,
            pitch: cols,
        }
    };
    let classes = (0..s * s).map(|class| (class / s, class % s));
    let passes: Vec<_> = classes
        .filter(|&(row, col)| row < k && col < k)
        .map(|(row, col)| {
            let steps = |first: usize| (k - 1 - first) / s + 1;
            let (down, across) = (steps(row), steps(col));
            let taps = down * across;
            let weights = pack(level, g.c_in, g.c_out * taps, |i, t| {
                let (o, t) = (t / taps, t % taps);
                at(i, o, row + t / across * s, col + t % across * s)
            });
            // Distances in the buffer for output position r·s + remainder − pad.
            let taps = move |plane: usize| -> Vec<usize> {
                let tap = |o: usize, t: usize| {
                    o * plane + (depth - t / across) * grid.pitch + depth - t % across
                };
                (0..source.channels)
                    .flat_map(|o| (0..taps).map(move |t| (o, t)))
                    .map(|(o, t)| tap(o, t))
                    .collect()
            };
            // With stride one the buffer's origin is the first pixel of dx itself.
            let first = |remainder: usize| {
                if s == 1 { 0 } else { g.pad.saturating_sub(remainder).div_ceil(s) }
            };
            let (top, left) = (first(row), first(col));
            let origin = |n: usize, remainder: usize| {
                if s == 1 { 0 } else { n * s + remainder - g.pad }
            };
            let first = (origin(top, row), origin(left, col));
            let target = Target {
                height: g.height.saturating_sub(first.0).div_ceil(s),
                width: g.width.saturating_sub(first.1).div_ceil(s),
                top,
                left,
                first,
                step: s,
            };
            Pass { taps, weights, target }
        })
        .collect();
    let shape = Correlation { grid, images: g.images, source, result };
    shape.run(level, dy, &mut dx, &passes);
    dx
}

/// Gradient with respect to `w`, `[O, I, k, k]`.
pub(super) fn weight_gradient(level: Level, g: &Geometry, x: &[f32], dy: &[f32]) -> Vec<f32> {
    /// Partial results, which bounds both the parallelism and the memory they take.
    const CHUNKS: usize = 16;
    /// Buffer positions that make summing the lanes at the end of a group cheap.
    const POSITIONS: usize = 2048;

    let per_filter = g.c_in * g.filter * g.filter;
    let mut dw = vec![0.0; g.c_out * per_filter];
    if g.is_empty() {
        return dw;
    }
    let (height, width) = g.output();
    let grid = Grid::correlation(g.filter, g.stride, g.pad.cast_signed(), height, width);
    let source = Planes { channels: g.c_in, height: g.height, width: g.width };
    let gradient = Planes { channels: g.c_out, height, width };
    let group = grid.group(g.images, POSITIONS, CHUNKS);
    let plane = grid.plane(group);
    let taps = grid.taps(g.c_in, g.filter, plane);
    // Rows of whole vectors are read where they lie; others go through a copy whose gaps are
    // zero, so that a vector may run across them.
    let in_place = width.is_multiple_of(level.lanes());
    let copied = plane.next_multiple_of(level.lanes());
    let flat = Grid { stride: 1, pad: 0, phases: 1, rows: height, cols: width, ..grid };
    let chunk = g.images.div_ceil(CHUNKS).next_multiple_of(group);

    let partial = |(x, dy): (&[f32], &[f32])| {
        let mut sum = vec![0.0; g.c_out * per_filter];
        let mut buffer = vec![0.0; grid.buffer(level, g.c_in, group)];
        let mut copy = if in_place { Vec::new() } else { vec![0.0; g.c_out * copied] };
        let mut packed = Vec::new();
        let groups = x.chunks(group * source.image()).zip(dy.chunks(group * gradient.image()));
        for (x, dy) in groups {
            let images = x.len() / source.image();
            if images < group {
                buffer.fill(0.0);
                copy.fill(0.0);
            }
            grid.fill(&mut buffer, plane, x, &source);
            let (dy, dy_plane, spots) = if in_place {
                (dy, height * width, grid.rows_in_place(level, images, &gradient))
            } else {
                flat.fill(&mut copy, copied, dy, &gradient);
                (&copy[..], copied, grid.flat(level, images))
            };
            pack_spots(level, dy, dy_plane, g.c_out, &spots, &mut packed);
            level.run(Products {
                buffer: &buffer,
                taps: &taps,
                dy: &packed,
                spots: &spots,
                sum: &mut sum,
            });
        }
        sum
    };
    let chunks = x.par_chunks(chunk * source.image()).zip(dy.par_chunks(chunk * gradient.image()));
    let partials: Vec<Vec<f32>> = chunks.map(partial).collect();
    for partial in &partials {
        for (sum, value) in dw.iter_mut().zip(partial) {
            *sum += value;
        }
    }
    dw
}

/// Channels of images and their size.
#[derive(Debug, Clone, Copy)]
struct Planes {
    channels: usize,
    height: usize,
    width: usize,
}

impl Planes {
    /// Floats in one image.
    fn image(&self) -> usize {
        self.channels * self.height * self.width
    }
}

/// Where pixels lie in the padded buffer.
///
/// A plane holds a group of images below each other. Positions count from the plane's start:
/// image `b`, row `r`, column `c` is at `(b·image + r)·pitch + c`.
#[derive(Debug, Clone, Copy)]
struct Grid {
    stride: usize,
    /// Zeros before the first pixel in both directions; negative where pixels are left out.
    pad: isize,
    /// Planes per direction and channel.
    phases: usize,
    /// Rows and columns that outputs read, of which the last ones may be shared padding.
    rows: usize,
    cols: usize,
    /// Rows from one image to the next.
    image: usize,
    /// Positions from one row to the next.
    pitch: usize,
}

impl Grid {
    /// The grid in which outputs `height × width` of a correlation have their positions.
    fn correlation(k: usize, stride: usize, pad: isize, height: usize, width: usize) -> Self {
        let reach = (k - 1) / stride;
        let (rows, cols) = (height + reach, width + reach);
        // Zeros that end a row can be those that start the next. With a stride, not every
        // plane has both.
        let shared = if stride == 1 { usize::try_from(pad).unwrap_or(0).min(k - 1) } else { 0 };
        let (image, pitch) = (rows - shared, cols - shared);
        Self { stride, pad, phases: stride.min(k), rows, cols, image, pitch }
    }

    /// Images to put in a plane, for about `positions` in all, leaving at least `parts`
    /// groups where there are so many images.
    fn group(&self, images: usize, positions: usize, parts: usize) -> usize {
        (positions / (self.image * self.pitch)).min(images / parts).clamp(1, 16)
    }

    fn plane(&self, group: usize) -> usize {
        group * self.image * self.pitch
    }

    /// Floats in the buffer; beyond the planes there is room for what the last vectors and
    /// taps read and nobody uses.
    fn buffer(&self, level: Level, channels: usize, group: usize) -> usize {
        let reach = (self.rows + 1) * (self.pitch + 1);
        let planes = channels * self.phases * self.phases;
        planes * self.plane(group) + reach + SPAN * level.lanes()
    }

    /// Distance of each filter tap `(channel, row, column)` from the output position.
    fn taps(&self, channels: usize, k: usize, plane: usize) -> Vec<usize> {
        let s = self.stride;
        let tap = |t: usize| {
            let (c, row, col) = (t / (k * k), t / k % k, t % k);
            let phase = (c * self.phases + row % s) * self.phases + col % s;
            phase * plane + row / s * self.pitch + col / s
        };
        (0..channels * k * k).map(tap).collect()
    }

    /// Copies images into a buffer of zeros, or one that this grid filled before.
    fn fill(&self, buffer: &mut [f32], plane: usize, x: &[f32], shape: &Planes) {
        let Planes { height, width, .. } = *shape;
        let phases = self.phases * self.phases;
        for (b, image) in x.chunks_exact(shape.image()).enumerate() {
            for (c, source) in image.chunks_exact(height * width).enumerate() {
                for phase in 0..phases {
                    let start = (c * phases + phase) * plane + b * self.image * self.pitch;
                    self.fill_plane(&mut buffer[start..], phase, source, height, width);
                }
            }
        }
    }

    fn fill_plane(&self, out: &mut [f32], phase: usize, x: &[f32], height: usize, width: usize) {
        let rows = self.overlap(phase / self.phases, self.rows, height);
        let cols = self.overlap(phase % self.phases, self.cols, width);
        if cols.len == 0 {
            return;
        }
        for r in 0..rows.len {
            let source = &x[(rows.pixel + r * self.stride) * width + cols.pixel..];
            let target = &mut out[(rows.cell + r) * self.pitch + cols.cell..][..cols.len];
            if self.stride == 1 {
                target.copy_from_slice(&source[..cols.len]);
            } else {
                for (target, value) in target.iter_mut().zip(source.iter().step_by(self.stride)) {
                    *target = *value;
                }
            }
        }
    }

    /// Cells of a phase, of `cells` in all, that hold one of `pixels`.
    fn overlap(&self, phase: usize, cells: usize, pixels: usize) -> Overlap {
        let (stride, offset) = (self.stride, phase.cast_signed() - self.pad);
        let cell = usize::try_from(-offset).unwrap_or(0).div_ceil(stride);
        let pixel = (cell * stride).saturating_add_signed(offset);
        let len = pixels.saturating_sub(pixel).div_ceil(stride).min(cells.saturating_sub(cell));
        Overlap { cell, pixel, len }
    }

    /// Every position of `images` images, a vector at a time.
    fn flat(&self, level: Level, images: usize) -> Vec<Spot> {
        let positions = (0..self.plane(images)).step_by(level.lanes());
        positions.map(|q| Spot { buffer: q, outside: q }).collect()
    }

    /// Positions of pixels only, a vector at a time, with their place in a tensor whose rows
    /// are whole vectors.
    fn rows_in_place(&self, level: Level, images: usize, shape: &Planes) -> Vec<Spot> {
        let vectors = (0..shape.width).step_by(level.lanes());
        let rows = (0..images).flat_map(|b| (0..shape.height).map(move |r| (b, r)));
        rows.flat_map(|(b, r)| {
            vectors.clone().map(move |c| Spot {
                buffer: (b * self.image + r) * self.pitch + c,
                outside: b * shape.image() + r * shape.width + c,
            })
        })
        .collect()
    }
}

/// A run of cells and the pixel that the first one holds.
#[derive(Debug, Clone, Copy)]
struct Overlap {
    cell: usize,
    pixel: usize,
    len: usize,
}

/// A vector's place in the padded buffer and in the output (or gradient) of channel zero.
#[derive(Debug, Clone, Copy)]
struct Spot {
    buffer: usize,
    outside: usize,
}

/// Which positions of the grid become which pixels of the result.
#[derive(Debug, Clone, Copy)]
struct Target {
    height: usize,
    width: usize,
    /// Grid row and column of the first pixel.
    top: usize,
    left: usize,
    /// Row and column of the first pixel in the result.
    first: (usize, usize),
    /// Pixels from one to the next.
    step: usize,
}

/// One set of taps, its packed weights and the pixels that they make.
struct Pass<T> {
    taps: T,
    weights: Vec<f32>,
    target: Target,
}

/// A correlation of every image of `source` into every image of `result`.
struct Correlation {
    grid: Grid,
    images: usize,
    source: Planes,
    result: Planes,
}

impl Correlation {
    fn run<T>(&self, level: Level, x: &[f32], y: &mut [f32], passes: &[Pass<T>])
    where
        T: Fn(usize) -> Vec<usize> + Sync,
    {
        /// Positions that keep a group's buffer in the cache and its last, partial vector rare.
        const POSITIONS: usize = 1024;
        /// Groups to leave for threads to share.
        const PARTS: usize = 32;

        let Self { grid, source, result, .. } = self;
        let group = grid.group(self.images, POSITIONS, PARTS);
        let plane = grid.plane(group);
        let taps: Vec<_> = passes.iter().map(|pass| (pass.taps)(plane)).collect();
        let whole = passes.iter().all(|pass| pass.target.step == 1);
        let in_place = whole && result.width.is_multiple_of(level.lanes());
        let spots = |images| {
            let mut spots = if in_place {
                grid.rows_in_place(level, images, result)
            } else {
                grid.flat(level, images)
            };
            // Computing the last vector again is simpler than a shorter loop.
            if let Some(last) = spots.last().copied() {
                spots.resize(spots.len().next_multiple_of(SPAN), last);
            }
            spots
        };
        let full = spots(group);
        let scratch = plane.next_multiple_of(level.lanes());
        let buffers = || {
            let flat = if in_place { 0 } else { result.channels * scratch };
            (vec![0.0; grid.buffer(level, source.channels, group)], vec![0.0; flat])
        };
        x.par_chunks(group * source.image())
            .zip(y.par_chunks_mut(group * result.image()))
            .for_each_init(buffers, |(buffer, flat), (x, y)| {
                let images = x.len() / source.image();
                let partial;
                let spots = if images == group {
                    &full
                } else {
                    partial = spots(images);
                    &partial
                };
                grid.fill(buffer, plane, x, source);
                for (pass, taps) in passes.iter().zip(&taps) {
                    let (out, plane) = if in_place {
                        (&mut *y, result.height * result.width)
                    } else {
                        (&mut flat[..], scratch)
                    };
                    level.run(Correlate {
                        buffer,
                        taps,
                        weights: &pass.weights,
                        spots,
                        out,
                        plane,
                        channels: result.channels,
                    });
                    if !in_place {
                        self.scatter(flat, scratch, &pass.target, y);
                    }
                }
            });
    }

    /// Copies the pixels of `target` from grid positions to the result.
    fn scatter(&self, flat: &[f32], plane: usize, target: &Target, y: &mut [f32]) {
        let Planes { channels, height, width } = self.result;
        if target.width == 0 {
            return;
        }
        for (b, y) in y.chunks_exact_mut(self.result.image()).enumerate() {
            let channel = y.chunks_exact_mut(height * width).zip(flat.chunks_exact(plane));
            for (y, flat) in channel.take(channels) {
                for r in 0..target.height {
                    let row = (b * self.grid.image + target.top + r) * self.grid.pitch;
                    let source = &flat[row + target.left..][..target.width];
                    let start = (target.first.0 + r * target.step) * width + target.first.1;
                    let y = &mut y[start..];
                    if target.step == 1 {
                        y[..target.width].copy_from_slice(source);
                    } else {
                        for (y, value) in y.iter_mut().step_by(target.step).zip(source) {
                            *y = *value;
                        }
                    }
                }
            }
        }
    }
}

/// Weights in the order that [`Correlate`] reads them: for each block of `M` channels, for
/// each tap, the block's weights; absent channels are zero.
fn pack(level: Level, channels: usize, taps: usize, at: impl Fn(usize, usize) -> f32) -> Vec<f32> {
    let m = level.rows();
    let mut packed = vec![0.0; channels.next_multiple_of(m) * taps];
    for channel in 0..channels {
        for tap in 0..taps {
            packed[(channel / m * taps + tap) * m + channel % m] = at(channel, tap);
        }
    }
    packed
}

/// Gradients in the order that [`Products`] reads them: for each block of `M` channels, for each
/// spot, the block's vectors; those of absent channels hold anything.
fn pack_spots(
    level: Level,
    dy: &[f32],
    plane: usize,
    channels: usize,
    spots: &[Spot],
    packed: &mut Vec<f32>,
) {
    let (l, m) = (level.lanes(), level.rows());
    packed.resize(channels.next_multiple_of(m) * spots.len() * l, 0.0);
    for channel in 0..channels {
        let start = (channel / m * spots.len() * m + channel % m) * l;
        let vectors = packed[start..].chunks_mut(m * l);
        for (vector, spot) in vectors.zip(spots) {
            let source = channel * plane + spot.outside;
            vector[..l].copy_from_slice(&dy[source..][..l]);
        }
    }
}

/// `out[o, outside] = Σ_t w[o, t]·buffer[tap_t + position]` for every spot.
struct Correlate<'a> {
    buffer: &'a [f32],
    taps: &'a [usize],
    weights: &'a [f32],
    /// A multiple of [`SPAN`].
    spots: &'a [Spot],
    out: &'a mut [f32],
    /// Floats from one output channel to the next.
    plane: usize,
    channels: usize,
}

impl Kernel for Correlate<'_> {
    #[inline(always)]
    fn run<const FMA: bool, const L: usize, const M: usize>(self) {
        let Self { buffer, taps, weights, spots, out, plane, channels } = self;
        for (block, weights) in weights.chunks_exact(taps.len() * M).enumerate() {
            let first = block * M;
            let (weights, _) = weights.as_chunks::<M>();
            let (spans, _) = spots.as_chunks::<SPAN>();
            for span in spans {
                let mut sums = [[[0.0; L]; SPAN]; M];
                for (weights, &tap) in weights.iter().zip(taps) {
                    let v = [
                        *lanes(buffer, span[0].buffer + tap),
                        *lanes(buffer, span[1].buffer + tap),
                        *lanes(buffer, span[2].buffer + tap),
                    ];
                    unroll!(m < M, {
                        let w = [weights[m]; L];
                        accumulate::<FMA, L>(&mut sums[m][0], &w, &v[0]);
                        accumulate::<FMA, L>(&mut sums[m][1], &w, &v[1]);
                        accumulate::<FMA, L>(&mut sums[m][2], &w, &v[2]);
                    });
                }
                unroll!(m < M, {
                    if first + m < channels {
                        let row = &mut out[(first + m) * plane..];
                        store(row, span[0].outside, &sums[m][0]);
                        store(row, span[1].outside, &sums[m][1]);
                        store(row, span[2].outside, &sums[m][2]);
                    }
                });
            }
        }
    }
}

/// `sum[o, t] += Σ_spots dy[o, outside]·buffer[tap_t + position]`.
struct Products<'a> {
    buffer: &'a [f32],
    taps: &'a [usize],
    /// Packed by [`pack_spots`].
    dy: &'a [f32],
    spots: &'a [Spot],
    sum: &'a mut [f32],
}

impl Kernel for Products<'_> {
    #[inline(always)]
    fn run<const FMA: bool, const L: usize, const M: usize>(self) {
        let Self { buffer, taps, dy, spots, sum } = self;
        for (block, dy) in dy.chunks_exact(spots.len() * M * L).enumerate() {
            let first = block * M;
            let (dy, _) = dy.as_chunks::<L>();
            let (dy, _) = dy.as_chunks::<M>();
            for (t, tap) in taps.chunks(SPAN).enumerate() {
                // Taps that do not fill the tile are computed again and dropped.
                let last = tap.len() - 1;
                let [a, b, c] = [tap[0], tap[last.min(1)], tap[last]];
                let mut sums = [[[0.0; L]; SPAN]; M];
                for (spot, d) in spots.iter().zip(dy) {
                    let v = [
                        *lanes(buffer, spot.buffer + a),
                        *lanes(buffer, spot.buffer + b),
                        *lanes(buffer, spot.buffer + c),
                    ];
                    unroll!(m < M, {
                        accumulate::<FMA, L>(&mut sums[m][0], &d[m], &v[0]);
                        accumulate::<FMA, L>(&mut sums[m][1], &d[m], &v[1]);
                        accumulate::<FMA, L>(&mut sums[m][2], &d[m], &v[2]);
                    });
                }
                let tile = sums;
                let rows = sum[first * taps.len()..].chunks_exact_mut(taps.len());
                add_totals(&tile, rows.map(|row| &mut row[t * SPAN..][..tap.len()]));
            }
        }
    }
}

/// Adds the totals of a tile's lanes to each row's sums.
///
/// Out of line: where the lanes are taken apart next to the loop that makes them, the compiler
/// keeps them apart in the loop as well.
#[inline(never)]
fn add_totals<'a, const L: usize, const M: usize>(
    tile: &[[[f32; L]; SPAN]; M],
    rows: impl Iterator<Item = &'a mut [f32]>,
) {
    for (row, lanes) in rows.zip(tile) {
        for (sum, lanes) in row.iter_mut().zip(lanes) {
            *sum += total(*lanes);
        }
    }
}
