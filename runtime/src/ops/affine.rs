//! Per-channel `y = x·a + b`, for batch-norms that no convolution can take in.

use super::pixelwise::{self, Pixelwise};
use super::{Context, float_bounds};
use crate::kernels::Kernel;
use artifact::Affine;
use artifact::layout::AFFINE_PLANES;

/// Runs one affine on the arena; it may work in place.
pub(crate) fn run(cx: &Context<'_>, op: &Affine, arena: &mut [u8]) {
    pixelwise::run(cx, op, [op.input, op.output], None, arena);
}

impl Pixelwise for Affine {
    fn int8(&self, cx: &Context<'_>, _: &[u8], data: &mut [i8]) {
        let params = bytemuck::cast_slice(cx.artifact.span(self.params));
        cx.run(Int8 { op: self, params, nr: cx.nr(), data, flip: cx.flip() });
    }

    #[cfg(feature = "float")]
    fn float(&self, cx: &Context<'_>, _: &[u8], data: &mut [f32]) {
        let params = bytemuck::cast_slice(cx.artifact.span(self.params));
        cx.run(Float { op: self, params, nr: cx.nr(), data });
    }
}

struct Int8<'a> {
    op: &'a Affine,
    params: &'a [i32],
    nr: usize,
    data: &'a mut [i8],
    flip: i8,
}

impl Kernel for Int8<'_> {
    #[inline(always)]
    fn eval(self) {
        let zero_in = i32::from(self.op.input.quant.zero_point);
        let zero_out = i32::from(self.op.output.quant.zero_point);
        let [low, high] = self.op.clamp.bytes(self.op.output.quant).map(i32::from);
        let half = 1 << (self.op.shift - 1);
        for pixel in self.data.chunks_exact_mut(self.op.input.shape.c.into()) {
            let panels = self.params.chunks_exact(AFFINE_PLANES * self.nr);
            for (x, panel) in pixel.chunks_mut(self.nr).zip(panels) {
                let (factors, addends) = panel.split_at(self.nr);
                for ((x, a), b) in x.iter_mut().zip(factors).zip(addends) {
                    let steps = (i32::from(*x ^ self.flip) - zero_in) * a + b + half;
                    let y = (zero_out + (steps >> self.op.shift)).max(low).min(high);
                    *x = y as i8 ^ self.flip;
                }
            }
        }
    }
}

struct Float<'a> {
    op: &'a Affine,
    params: &'a [f32],
    nr: usize,
    data: &'a mut [f32],
}

impl Kernel for Float<'_> {
    #[inline(always)]
    fn eval(self) {
        let bounds = float_bounds(self.op.clamp);
        for pixel in self.data.chunks_exact_mut(self.op.input.shape.c.into()) {
            let panels = self.params.chunks_exact(AFFINE_PLANES * self.nr);
            for (x, panel) in pixel.chunks_mut(self.nr).zip(panels) {
                let (factors, addends) = panel.split_at(self.nr);
                for ((x, a), b) in x.iter_mut().zip(factors).zip(addends) {
                    let y = *x * a + b;
                    *x = bounds.map_or(y, |[low, high]| y.max(low).min(high));
                }
            }
        }
    }
}
