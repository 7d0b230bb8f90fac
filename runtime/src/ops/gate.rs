//! Per-channel `y = x·s` with factors that are computed, too.

use super::{Context, fill_pad, float_bounds};
use crate::kernels::{Kernel, requantize};
use artifact::{Dtype, Gate};

/// Runs one gate on the arena; it may work in place.
pub(crate) fn run(cx: &Context<'_>, op: &Gate, arena: &mut [u8]) {
    let dtype = cx.dtype(op.output);
    let [input, gate, output] = [op.input, op.gate, op.output].map(|place| cx.range(place));
    if input != output {
        arena.copy_within(input, output.start);
    }
    let Ok([gate, out]) = arena.get_disjoint_mut([gate, output]) else { return };
    let flip = cx.flip();
    let pixels = op.input.shape.pixels();
    let pixel_bytes = usize::from(op.input.shape.c) * dtype.activation_bytes();
    let (gate, _) = gate.split_at(pixel_bytes);
    let (data, _) = out.split_at_mut(pixels * pixel_bytes);
    cx.workers.for_each_chunk(
        data,
        cx.chunk_pixels(pixels, op.output.shape.len() as u64, dtype) * pixel_bytes,
        &|_, chunk| match dtype {
            Dtype::I8 => cx.run(Int8 {
                op,
                gate: bytemuck::cast_slice(gate),
                data: bytemuck::cast_slice_mut(chunk),
                flip,
            }),
            #[cfg(feature = "float")]
            Dtype::F32 | Dtype::F16 | Dtype::Bf16 => cx.run(Float {
                op,
                gate: bytemuck::cast_slice(gate),
                data: bytemuck::cast_slice_mut(chunk),
            }),
            #[cfg(not(feature = "float"))]
            _ => {} // refused by `Model::new`
        },
    );
    fill_pad(out, op.output, dtype, flip);
}

struct Int8<'a> {
    op: &'a Gate,
    gate: &'a [i8],
    data: &'a mut [i8],
    flip: i8,
}

impl Kernel for Int8<'_> {
    #[inline(always)]
    fn eval(self) {
        let zero_point = |place: artifact::Place| i32::from(place.quant.zero_point);
        let [zero_x, zero_s] = [zero_point(self.op.input), zero_point(self.op.gate)];
        let zero_y = zero_point(self.op.output);
        let [low, high] = self.op.clamp.bytes(self.op.output.quant).map(i32::from);
        for pixel in self.data.chunks_exact_mut(self.gate.len()) {
            for (x, s) in pixel.iter_mut().zip(self.gate) {
                let factor = i32::from(*s ^ self.flip) - zero_s;
                let product = (i32::from(*x ^ self.flip) - zero_x) * factor;
                let y = i32::from(requantize(product, self.op.requant, zero_y, low));
                *x = y.min(high) as i8 ^ self.flip;
            }
        }
    }
}

struct Float<'a> {
    op: &'a Gate,
    gate: &'a [f32],
    data: &'a mut [f32],
}

impl Kernel for Float<'_> {
    #[inline(always)]
    fn eval(self) {
        let bounds = float_bounds(self.op.clamp);
        for pixel in self.data.chunks_exact_mut(self.gate.len()) {
            for (x, s) in pixel.iter_mut().zip(self.gate) {
                let y = *x * s;
                *x = bounds.map_or(y, |[low, high]| y.max(low).min(high));
            }
        }
    }
}
