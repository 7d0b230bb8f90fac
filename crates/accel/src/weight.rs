//! The weight gradient of a convolution.
//!
//! `dw[t, i, o] = Σ_q frame[q + t, i]·dy[q, o]`: for a block of input and one of output channels,
//! all products stay in registers while the pixels stream by. bf16 multiplies pairs of numbers,
//! so there two pictures are taken together.

use crate::conv::{InputGradient, Source};
use crate::dispatch::{Kernel, Level, Simd, unroll};
use crate::element::{Element, LANES, Line, as_cells};
use crate::frame::{Fill, Frame, Planes, Transform};
use crate::geometry::{FRAME_BYTES, Geometry};
use crate::norm::{Mask, MaskedSums, Part, RUN};
use crate::recycle::{self, Numbers};
use core::ops::Range;
use rayon::prelude::*;

/// Products of a block of input and one of output channels, `[input][output]`.
pub(super) type Block = [Line; LANES];

/// Weights of a gradient that is small enough to be summed in parts.
const SMALL: usize = 1 << 16;

/// Gradient with respect to the weights, `[O, I, k, k]`, from `dy` in blocks.
pub(super) fn weight_gradient<E: Element>(
    level: Level,
    g: &Geometry,
    source: Source<'_, E>,
    dy: &[E],
) -> Numbers<f32> {
    let per_filter = g.per_filter();
    if g.is_empty() {
        let mut dw = recycle::take_parameters(g.c_out * per_filter);
        dw.fill(0.0);
        return dw;
    }
    let job = Job::new(level, g, source, dy);
    if g.c_out * per_filter <= SMALL {
        let chunks = vec![(); g.images.div_ceil(job.chunk)];
        return job.unpacked(&job.sum(chunks.into_par_iter(), |(), _, _| ()));
    }
    let (outputs, per_output) = (g.output().blocks, job.blocks * job.taps.len());
    let mut sums = recycle::take::<f32>(outputs * per_output * LANES * LANES);
    let sums: &mut [Block] = bytemuck::cast_slice_mut(&mut sums);
    // Output channels are shared out: each thread sums what it gets over all pictures.
    let share = outputs.div_ceil(rayon::current_num_threads().min(outputs));
    sums.par_chunks_mut(share * per_output).enumerate().for_each(|(part, sums)| {
        let first = part * share;
        sums.fill([[0.0; LANES]; LANES]);
        job.add(0..g.images, first..(first + share).min(outputs), sums, |_, _| ());
    });
    job.unpacked(sums)
}

/// Both gradients of a pointwise convolution, made of one strip of rows before the next: with
/// respect to the input, masked and added to `parts` as by [`MaskedSums`] where the input is
/// transformed, and to the weights, as [`weight_gradient`]. `None` for other convolutions.
pub(super) fn both_gradients<E: Element>(
    level: Level,
    g: &Geometry,
    (x, transform): (&[E], Option<Transform<'_>>),
    w: &[f32],
    dy: &[E],
    parts: &mut [Part],
) -> Option<(Numbers<E>, Numbers<f32>)> {
    /// Bytes of all maps of a strip: most of a core's second-level cache.
    const STRIP_BYTES: usize = 512 << 10;

    let cells = as_cells::<E>(dy.as_chunks().0)?;
    if !g.is_pointwise() || g.is_empty() || g.c_out * g.c_in > SMALL {
        return None;
    }
    let (input, output) = (g.input(), g.output());
    let (blocks, width, lines) = (input.blocks, input.width, input.lines());
    // Runs of the sums end where strips do.
    let unit = RUN >> width.trailing_zeros().min(RUN.trailing_zeros());
    let row = (2 * blocks + output.blocks) * width * LANES * size_of::<E>() * E::DEPTH;
    let strip = (STRIP_BYTES / row / unit).max(1) * unit;
    let job = Job::new(level, g, Source::Map { values: x, transform }, dy).with_strips(strip);
    let back = InputGradient::<E>::new(level, g, w);
    let mut dx = recycle::take::<E>(g.images * lines * LANES);
    let x: &[Line<E>] = x.as_chunks().0;
    let maps = dx.as_chunks_mut().0.par_chunks_mut(job.chunk * lines).enumerate();
    let chunks = maps.zip(parts.par_chunks_mut(job.chunk * blocks));
    let sums = job.sum(chunks, |((chunk, dx), parts), image, [first, rows]| {
        let own = image - *chunk * job.chunk;
        let dx = &mut dx[own * lines..][..lines];
        back.rows(&cells[image * output.lines()..], [first, rows], dx);
        let Some(Transform { affine, activation }) = transform else { return };
        let pixels = rows * width;
        for (block, centers) in affine.chunks(1).enumerate() {
            let at = block * input.pixels() + first * width;
            let x = &x[image * lines + at..][..pixels];
            let (dy, parts) = (&mut dx[at..][..pixels], &mut parts[own * blocks + block..][..1]);
            let mask = Mask::of(centers, activation);
            level.run(MaskedSums { x, mask, centers, pixels, dy, parts });
        }
    });
    Some((dx, job.unpacked(&sums)))
}

/// Products of all blocks of input with one of output channels, to `[o, channels, taps]`.
fn unpack(sums: &[Block], [channels, taps]: [usize; 2], dw: &mut [f32]) {
    for channel in 0..channels {
        // All output channels of an input channel at once: their lines are read only once.
        for tap in 0..taps {
            let line = &sums[channel / LANES * taps + tap][channel % LANES];
            for (dw, value) in dw.chunks_exact_mut(channels * taps).zip(line) {
                dw[channel * taps + tap] = *value;
            }
        }
    }
}

/// What all parts of a gradient share.
struct Job<'a, E: Element> {
    level: Level,
    g: &'a Geometry,
    source: Source<'a, E>,
    dy: &'a [E],
    /// Blocks of a frame.
    blocks: usize,
    /// Distances in the frame.
    taps: Vec<usize>,
    frame: Frame,
    /// Rows of output of a frame.
    strip: usize,
    /// Pictures whose frames are read together, a multiple of [`Element::DEPTH`].
    together: usize,
    /// Pictures of a part of a small gradient, a multiple of those.
    chunk: usize,
}

impl<'a, E: Element> Job<'a, E> {
    fn new(level: Level, g: &'a Geometry, source: Source<'a, E>, dy: &'a [E]) -> Self {
        /// Pixels that make loading and storing a block of products cheap.
        const PIXELS: usize = 256;
        /// Partial results of a small gradient.
        const CHUNKS: usize = 16;

        let strip = g.strip::<E>(FRAME_BYTES);
        let frame = g.frame(strip);
        let (blocks, taps) = g.window();
        let bytes = blocks * frame.block() * LANES * size_of::<E>();
        let most = (2 * FRAME_BYTES / bytes.max(1)).max(1);
        let wanted = PIXELS.div_ceil(strip * g.out[1]);
        let together =
            if strip < g.out[0] { 1 } else { wanted.min(most) }.next_multiple_of(E::DEPTH);
        let taps = (0..taps * taps).map(|t| frame.tap(t / taps, t % taps)).collect();
        let chunk = g.images.div_ceil(CHUNKS).next_multiple_of(together);
        Self { level, g, source, dy, blocks, taps, frame, strip, together, chunk }
    }

    /// The same sums of a pointwise convolution from strips of `strip` rows of as few pictures as can
    /// be read together.
    fn with_strips(self, strip: usize) -> Self {
        let strip = strip.min(self.g.out[0]);
        Self { strip, frame: self.g.frame(strip), together: E::DEPTH, ..self }
    }

    /// Sums of a small gradient: pictures are shared out, always in the same parts. For each of them
    /// there is one of `chunks`, with which `after` is called for the rows of a picture (first and
    /// number) that were read.
    fn sum<C: Send>(
        &self,
        chunks: impl IndexedParallelIterator<Item = C>,
        after: impl Fn(&mut C, usize, [usize; 2]) + Sync,
    ) -> Vec<Block> {
        let outputs = self.g.output().blocks;
        let none = || vec![[[0.0; LANES]; LANES]; outputs * self.blocks * self.taps.len()];
        let part = |(chunk, mut own): (usize, C)| {
            let mut sums = none();
            let start = chunk * self.chunk;
            let images = start..(start + self.chunk).min(self.g.images);
            self.add(images, 0..outputs, &mut sums, |image, rows| after(&mut own, image, rows));
            sums
        };
        let parts: Vec<_> = chunks.enumerate().map(part).collect();
        let mut sums = none();
        for part in parts {
            let values = part.as_flattened().as_flattened();
            let sums = sums.as_flattened_mut().as_flattened_mut();
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
        sums
    }

    /// Sums as weights.
    fn unpacked(&self, sums: &[Block]) -> Numbers<f32> {
        let (per_filter, taps) = (self.g.per_filter(), self.taps.len());
        let mut dw = recycle::take_parameters(self.g.c_out * per_filter);
        let results = dw.par_chunks_mut(LANES * per_filter);
        results.zip(sums.par_chunks(self.blocks * taps)).for_each(|(dw, sums)| {
            unpack(sums, [self.g.window_channels(), taps], dw);
        });
        dw
    }

    /// Adds the products of `images` with blocks `outputs` of their gradients; `after` is called with
    /// each picture and the rows of it that were read.
    fn add(
        &self,
        images: Range<usize>,
        outputs: Range<usize>,
        sums: &mut [Block],
        mut after: impl FnMut(usize, [usize; 2]),
    ) {
        let Self { level, g, frame, strip, together, blocks, .. } = *self;
        let (lines, taps) = (blocks * frame.block(), self.taps.len());
        let output = g.output();
        let width = output.width;
        let mut x = Operands::<E>::new(together, lines);
        // Without pairs to be made, the gradient is read where it lies.
        let pictures: &[Line<E>] = self.dy.as_chunks().0;
        let whole: Option<&[Line<E::Operand>]> = match E::DEPTH {
            1 => bytemuck::try_cast_slice(pictures).ok(),
            _ => None,
        };
        let gradient_frame = Frame { stride: 1, pad: [0; 2], phases: 1, rows: strip, pitch: width };
        let copied = if whole.is_some() { 0 } else { outputs.len() * strip * width };
        let mut d = Operands::<E>::new(together, copied);
        let all_taps: Vec<usize> = (0..blocks)
            .flat_map(|b| self.taps.iter().map(move |t| b * frame.block() + t))
            .collect();
        for start in images.clone().step_by(together) {
            let here = together.min(images.end - start);
            for first in (0..output.height).step_by(strip) {
                let rows = strip.min(output.height - first);
                x.fill(here, |i, out| {
                    self.source.fill(level, g, &frame, [start + i, first], out);
                });
                let (d, d_block, d_slot) = match whole {
                    Some(lines) => {
                        let at = start * output.lines() + outputs.start * output.pixels();
                        (&lines[at + first * width..], output.pixels(), output.lines())
                    }
                    None => {
                        d.fill(here, |i, out| {
                            let picture = &pictures[(start + i) * output.lines()..];
                            let picture = &picture[outputs.start * output.pixels()..];
                            let planes = Planes { blocks: outputs.len(), ..output };
                            let frame = &gradient_frame;
                            level.run(Fill { frame, planes, picture, first, transform: None, out });
                        });
                        (&d.lines[..], strip * width, copied)
                    }
                };
                let slots = 0..here.div_ceil(E::DEPTH);
                let segments: Vec<Segment> = if frame.pitch == width {
                    let len = rows * width;
                    slots.map(|s| Segment { x: s * lines, d: s * d_slot, len }).collect()
                } else {
                    let segment = |slot: usize, row: usize| Segment {
                        x: slot * lines + row * frame.pitch,
                        d: slot * d_slot + row * width,
                        len: width,
                    };
                    slots.flat_map(|s| (0..rows).map(move |row| segment(s, row))).collect()
                };
                for (block, sums) in sums.chunks_exact_mut(blocks * taps).enumerate() {
                    level.run(Products::<E> {
                        x: &x.lines,
                        d: &d[block * d_block..],
                        segments: &segments,
                        taps: &all_taps,
                        sums,
                    });
                }
                (start..start + here).for_each(|image| after(image, [first, rows]));
            }
        }
    }
}

/// Lines of operands whose numbers are those of [`Element::DEPTH`] pictures.
struct Operands<E: Element> {
    lines: Vec<Line<E::Operand>>,
    per_slot: usize,
    numbers: [Vec<Line<E>>; 2],
}

impl<E: Element> Operands<E> {
    /// For up to `pictures` pictures of `per_slot` lines.
    fn new(pictures: usize, per_slot: usize) -> Self {
        let slots = pictures.div_ceil(E::DEPTH);
        let numbers = || vec![[E::default(); LANES]; per_slot];
        Self {
            lines: vec![[E::Operand::default(); LANES]; slots * per_slot],
            per_slot,
            numbers: if E::DEPTH > 1 { [numbers(), numbers()] } else { [Vec::new(), Vec::new()] },
        }
    }

    /// Takes the lines that `read` makes of each of `images` pictures.
    fn fill(&mut self, images: usize, read: impl Fn(usize, &mut [Line<E>])) {
        let slots = self.lines.chunks_exact_mut(self.per_slot.max(1));
        for (slot, lines) in slots.take(images.div_ceil(E::DEPTH)).enumerate() {
            if E::DEPTH == 1
                && let Ok(lines) = bytemuck::try_cast_slice_mut(lines)
            {
                read(slot, lines);
                continue;
            }
            for (i, numbers) in self.numbers.iter_mut().take(E::DEPTH).enumerate() {
                if slot * E::DEPTH + i < images {
                    read(slot * E::DEPTH + i, numbers);
                } else {
                    numbers.fill([E::default(); LANES]);
                }
            }
            let [first, second] = &self.numbers;
            for (i, line) in lines.iter_mut().enumerate() {
                *line = E::join(&first[i], second.get(i).unwrap_or(&first[i]));
            }
        }
    }
}

/// Pixels side by side in both inputs of a product.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) x: usize,
    pub(super) d: usize,
    pub(super) len: usize,
}

/// `sums[tap][i][o] += Σ_q x[q + tap, i]·d[q, o]`.
pub(super) struct Products<'a, E: Element> {
    pub(super) x: &'a [Line<E::Operand>],
    pub(super) d: &'a [Line<E::Operand>],
    pub(super) segments: &'a [Segment],
    pub(super) taps: &'a [usize],
    pub(super) sums: &'a mut [Block],
}

impl<E: Element> Kernel for Products<'_, E> {
    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        if S::LINES >= LANES {
            self.add::<S, 0, 16>(simd);
        } else {
            // Again and again over the pixels, each time as many sums as registers hold.
            self.add::<S, 0, 6>(simd);
            self.add::<S, 6, 5>(simd);
            self.add::<S, 11, 5>(simd);
        }
    }
}

impl<E: Element> Products<'_, E> {
    /// The products of `N` input channels of a block.
    #[inline(always)]
    fn add<S: Simd, const FIRST: usize, const N: usize>(&mut self, simd: S) {
        let Self { x, d, segments, taps, sums } = self;
        for (sums, tap) in sums.iter_mut().zip(*taps) {
            let mut block = [simd.load(&[0.0; LANES]); N];
            unroll!(i < N, { block[i] = simd.load(&sums[FIRST + i]) });
            for segment in *segments {
                let x = &x[segment.x + tap..][..segment.len];
                let d = &d[segment.d..][..segment.len];
                for (x, d) in x.iter().zip(d) {
                    unroll!(i < N, { block[i] = E::dot(simd, block[i], x[FIRST + i], d) });
                }
            }
            unroll!(i < N, { sums[FIRST + i] = simd.store(block[i]) });
        }
    }
}
