//! Per-channel `y = x·s` with factors that are computed, too.

use super::pixelwise::{self, Pixelwise};
use super::{Context, float_bounds};
use crate::kernels::{Kernel, requantize};
use artifact::Gate;

/// Runs one gate on the arena; it may work in place.
pub(crate) fn run(cx: &Context<'_>, op: &Gate, arena: &mut [u8]) {
    pixelwise::run(cx, op, [op.input, op.output], Some(op.gate), arena);
}

impl Pixelwise for Gate {
    fn int8(&self, cx: &Context<'_>, gate: &[u8], data: &mut [i8]) {
        cx.run(Int8 { op: self, gate: bytemuck::cast_slice(gate), data, flip: cx.flip() });
    }

    #[cfg(feature = "float")]
    fn float(&self, cx: &Context<'_>, gate: &[u8], data: &mut [f32]) {
        cx.run(Float { op: self, gate: bytemuck::cast_slice(gate), data });
    }
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
