//! The weight gradient of a convolution.
//!
//! `dw[t, i, o] = Σ_q frame[q + t, i]·dy[q, o]`: for a block of input and one of output channels,
//! all products stay in registers while the pixels stream by. bf16 multiplies pairs of numbers,
//! so there two pictures are taken together.

use crate::conv::{FRAME_BYTES, Geometry, Source};
use crate::dispatch::{Kernel, Level, Simd, unroll};
use crate::element::{Element, LANES, Line};
use crate::frame::{Fill, Frame, Planes};
use crate::recycle::{self, Numbers};
use core::ops::Range;
use rayon::prelude::*;

/// Products of a block of input and one of output channels, `[input][output]`.
type Block = [Line; LANES];

/// Gradient with respect to the weights, `[O, I, k, k]`, from `dy` in blocks.
pub(super) fn weight_gradient<E: Element>(
    level: Level,
    g: &Geometry,
    source: Source<'_, E>,
    dy: &[E],
) -> Numbers<f32> {
    /// Partial results of a small gradient.
    const CHUNKS: usize = 16;
    /// Weights of a gradient that is small enough to be summed in parts.
    const SMALL: usize = 1 << 16;

    let per_filter = g.per_filter();
    let mut dw = recycle::take::<f32>(g.c_out * per_filter);
    if g.is_empty() {
        dw.fill(0.0);
        return dw;
    }
    let job = Job::new(level, g, source, dy);
    let (blocks, taps) = (job.blocks, job.taps.len());
    let outputs = g.output().blocks;
    let mut sums = recycle::take::<f32>(outputs * blocks * taps * LANES * LANES);
    let sums: &mut [Block] = bytemuck::cast_slice_mut(&mut sums);
    if g.c_out * per_filter <= SMALL {
        // Pictures are shared out, always in the same parts.
        let chunk = g.images.div_ceil(CHUNKS).next_multiple_of(job.together);
        let chunks: Vec<Range<usize>> = (0..g.images)
            .step_by(chunk)
            .map(|start| start..(start + chunk).min(g.images))
            .collect();
        let parts: Vec<_> = chunks
            .into_par_iter()
            .map(|images| {
                let mut sums = vec![[[0.0; LANES]; LANES]; outputs * blocks * taps];
                job.add(images, 0..outputs, &mut sums);
                sums
            })
            .collect();
        sums.fill([[0.0; LANES]; LANES]);
        for part in parts {
            for (sum, value) in sums
                .as_flattened_mut()
                .as_flattened_mut()
                .iter_mut()
                .zip(part.as_flattened().as_flattened())
            {
                *sum += value;
            }
        }
    } else {
        // Output channels are shared out: each thread sums what it gets over all pictures.
        let share = outputs.div_ceil(rayon::current_num_threads().min(outputs));
        sums.par_chunks_mut(share * blocks * taps).enumerate().for_each(|(part, sums)| {
            let first = part * share;
            sums.fill([[0.0; LANES]; LANES]);
            job.add(0..g.images, first..(first + share).min(outputs), sums);
        });
    }
    let results = dw.par_chunks_mut(LANES * per_filter);
    results.zip(sums.par_chunks(blocks * taps)).for_each(|(dw, sums)| {
        unpack(sums, [g.window_channels(), taps], dw);
    });
    dw
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
}

impl<'a, E: Element> Job<'a, E> {
    fn new(level: Level, g: &'a Geometry, source: Source<'a, E>, dy: &'a [E]) -> Self {
        /// Pixels that make loading and storing a block of products cheap.
        const PIXELS: usize = 256;

        let strip = g.strip::<E>(FRAME_BYTES);
        let frame = g.frame(strip);
        let (blocks, taps) = g.window();
        let bytes = blocks * frame.block() * LANES * size_of::<E>();
        let most = (2 * FRAME_BYTES / bytes.max(1)).max(1);
        let wanted = PIXELS.div_ceil(strip * g.out[1]);
        let together =
            if strip < g.out[0] { 1 } else { wanted.min(most) }.next_multiple_of(E::DEPTH);
        let taps = (0..taps * taps).map(|t| frame.tap(t / taps, t % taps)).collect();
        Self { level, g, source, dy, blocks, taps, frame, strip, together }
    }

    /// Adds the products of `images` with blocks `outputs` of their gradients.
    fn add(&self, images: Range<usize>, outputs: Range<usize>, sums: &mut [Block]) {
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
struct Segment {
    x: usize,
    d: usize,
    len: usize,
}

/// `sums[tap][i][o] += Σ_q x[q + tap, i]·d[q, o]`.
struct Products<'a, E: Element> {
    x: &'a [Line<E::Operand>],
    d: &'a [Line<E::Operand>],
    segments: &'a [Segment],
    taps: &'a [usize],
    sums: &'a mut [Block],
}

impl<E: Element> Kernel for Products<'_, E> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { x, d, segments, taps, sums } = self;
        for (sums, tap) in sums.iter_mut().zip(taps) {
            let mut block = [simd.load(&[0.0; LANES]); LANES];
            unroll!(i < LANES, { block[i] = simd.load(&sums[i]) });
            for segment in segments {
                let x = &x[segment.x + tap..][..segment.len];
                let d = &d[segment.d..][..segment.len];
                for (x, d) in x.iter().zip(d) {
                    unroll!(i < LANES, { block[i] = E::dot(simd, block[i], x[i], d) });
                }
            }
            unroll!(i < LANES, { sums[i] = simd.store(block[i]) });
        }
    }
}
