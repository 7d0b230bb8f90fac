//! Maximum and average pooling; a global pool is a window of the whole map.

use super::{Context, fill_pad};
use crate::kernels::{Kernel, Number, requantize};
use artifact::layout::window_start;
use artifact::{Dtype, Pool2d, PoolKind};

/// Channels whose accumulators are kept at once, on the stack.
const BLOCK: usize = 64;

/// Runs one pooling on the arena.
pub(crate) fn run(cx: &Context<'_>, op: &Pool2d, arena: &mut [u8]) {
    let dtype = cx.dtype(op.output);
    let flip = cx.flip();
    let Ok([x, out]) = arena.get_disjoint_mut([cx.range(op.input), cx.range(op.output)]) else {
        return;
    };
    let pixels = op.output.shape.pixels();
    let pixel_bytes = usize::from(op.output.shape.c) * dtype.activation_bytes();
    let taps = u64::from(op.filter[0]) * u64::from(op.filter[1]);
    let chunk_pixels = cx.chunk_pixels(pixels, op.output.shape.len() as u64 * taps, dtype);
    let (data, _) = out.split_at_mut(pixels * pixel_bytes);
    let x = &*x;
    cx.workers.for_each_chunk(data, chunk_pixels * pixel_bytes, &|i, chunk| {
        let first = i * chunk_pixels;
        match dtype {
            Dtype::I8 => {
                let (x, out) = (bytemuck::cast_slice(x), bytemuck::cast_slice_mut(chunk));
                match op.kind {
                    PoolKind::Max => cx.run(Pool { op, x, first, out, rule: LargestI8 { flip } }),
                    PoolKind::Average => {
                        cx.run(Pool { op, x, first, out, rule: MeanI8 { op, flip } });
                    }
                }
            }
            #[cfg(feature = "float")]
            Dtype::F32 | Dtype::F16 | Dtype::Bf16 => {
                let (x, out) = (bytemuck::cast_slice(x), bytemuck::cast_slice_mut(chunk));
                match op.kind {
                    PoolKind::Max => cx.run(Pool { op, x, first, out, rule: LargestF32 }),
                    PoolKind::Average => cx.run(Pool { op, x, first, out, rule: MeanF32 }),
                }
            }
            #[cfg(not(feature = "float"))]
            _ => {} // refused by `Model::new`
        }
    });
    fill_pad(out, op.output, dtype, flip);
}

/// How a window's numbers become one.
trait Rule<E> {
    type Acc: Copy;
    fn start(&self) -> Self::Acc;
    fn add(&self, acc: Self::Acc, x: E) -> Self::Acc;
    /// `count` is the number of real pixels, `full` that of a whole window.
    fn finish(&self, acc: Self::Acc, count: usize, full: usize) -> E;
}

struct LargestI8 {
    flip: i8,
}

impl Rule<i8> for LargestI8 {
    type Acc = i8;

    #[inline(always)]
    fn start(&self) -> i8 {
        i8::MIN
    }

    #[inline(always)]
    fn add(&self, acc: i8, x: i8) -> i8 {
        acc.max(x ^ self.flip)
    }

    #[inline(always)]
    fn finish(&self, acc: i8, _: usize, _: usize) -> i8 {
        acc ^ self.flip
    }
}

struct MeanI8<'a> {
    op: &'a Pool2d,
    flip: i8,
}

impl Rule<i8> for MeanI8<'_> {
    type Acc = i32;

    #[inline(always)]
    fn start(&self) -> i32 {
        0
    }

    #[inline(always)]
    fn add(&self, acc: i32, x: i8) -> i32 {
        acc + i32::from(x ^ self.flip)
    }

    #[inline(always)]
    fn finish(&self, acc: i32, count: usize, full: usize) -> i8 {
        let zero_points = count as i32 * i32::from(self.op.input.quant.zero_point);
        // A window at the border counts as if it were full: its sum is scaled up. Quotient and
        // remainder apart, for a sum over a large window times its size leaves 32 bits.
        let (sum, count, full) = (acc - zero_points, count.max(1) as i32, full as i32);
        let sum = sum / count * full + sum % count * full / count;
        let zero_point = self.op.output.quant.zero_point.into();
        requantize(sum, self.op.requant, zero_point, -128) ^ self.flip
    }
}

struct LargestF32;

impl Rule<f32> for LargestF32 {
    type Acc = f32;

    #[inline(always)]
    fn start(&self) -> f32 {
        f32::NEG_INFINITY
    }

    #[inline(always)]
    fn add(&self, acc: f32, x: f32) -> f32 {
        acc.max(x)
    }

    #[inline(always)]
    fn finish(&self, acc: f32, _: usize, _: usize) -> f32 {
        acc
    }
}

struct MeanF32;

impl Rule<f32> for MeanF32 {
    type Acc = f32;

    #[inline(always)]
    fn start(&self) -> f32 {
        0.0
    }

    #[inline(always)]
    fn add(&self, acc: f32, x: f32) -> f32 {
        acc + x
    }

    #[inline(always)]
    fn finish(&self, acc: f32, count: usize, _: usize) -> f32 {
        acc / count.max(1) as f32
    }
}

struct Pool<'a, E, R> {
    op: &'a Pool2d,
    x: &'a [E],
    first: usize,
    out: &'a mut [E],
    rule: R,
}

impl<E: Number, R: Rule<E>> Kernel for Pool<'_, E, R> {
    #[inline(always)]
    fn eval(self) {
        let (input, c) = (self.op.input.shape, usize::from(self.op.input.shape.c));
        let (h, w) = (usize::from(input.h), usize::from(input.w));
        let w_out = usize::from(self.op.output.shape.w);
        let [kh, kw] = self.op.filter.map(usize::from);
        for (i, out) in self.out.chunks_exact_mut(c).enumerate() {
            let at = self.first + i;
            let y0 = window_start(at / w_out, self.op.stride[0], self.op.padding.top);
            let x0 = window_start(at % w_out, self.op.stride[1], self.op.padding.left);
            let clip = |start: isize, len: usize, size: usize| {
                let end = (start + len as isize).clamp(0, size as isize) as usize;
                start.clamp(0, size as isize) as usize..end
            };
            let (rows, columns) = (clip(y0, kh, h), clip(x0, kw, w));
            for (block, out) in out.chunks_mut(BLOCK).enumerate() {
                let mut acc = [self.rule.start(); BLOCK];
                for y in rows.clone() {
                    for x in columns.clone() {
                        let at = (y * w + x) * c + block * BLOCK;
                        let pixel = &self.x[at..at + out.len()];
                        for (acc, x) in acc.iter_mut().zip(pixel) {
                            *acc = self.rule.add(*acc, *x);
                        }
                    }
                }
                let count = rows.len() * columns.len();
                for (out, acc) in out.iter_mut().zip(acc) {
                    *out = self.rule.finish(acc, count, kh * kw);
                }
            }
        }
    }
}
