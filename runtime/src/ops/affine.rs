//! Per-channel `y = x·a + b`, for batch-norms that no convolution can take in.

use super::{Context, fill_pad, float_bounds};
use crate::kernels::Kernel;
use artifact::layout::AFFINE_PLANES;
use artifact::{Affine, Dtype};

/// Runs one affine on the arena; it may work in place.
pub(crate) fn run(cx: &Context<'_>, op: &Affine, arena: &mut [u8]) {
    let dtype = cx.dtype(op.output);
    let (input, output) = (cx.range(op.input), cx.range(op.output));
    let out = if op.input.offset == op.output.offset {
        match arena.get_mut(output) {
            Some(out) => out,
            None => return,
        }
    } else {
        let Ok([x, out]) = arena.get_disjoint_mut([input, output]) else { return };
        out.copy_from_slice(x);
        out
    };
    let flip = cx.flip();
    let params = cx.artifact.span(op.params);
    let c = usize::from(op.input.shape.c);
    let pixels = op.input.shape.pixels();
    let pixel_bytes = c * dtype.activation_bytes();
    let (data, _) = out.split_at_mut(pixels * pixel_bytes);
    cx.workers.for_each_chunk(
        data,
        cx.chunk_pixels(pixels, op.output.shape.len() as u64, dtype) * pixel_bytes,
        &|_, chunk| match dtype {
            Dtype::I8 => cx.run(Int8 {
                op,
                params: bytemuck::cast_slice(params),
                nr: cx.nr(),
                data: bytemuck::cast_slice_mut(chunk),
                flip,
            }),
            #[cfg(feature = "float")]
            Dtype::F32 | Dtype::F16 | Dtype::Bf16 => cx.run(Float {
                op,
                params: bytemuck::cast_slice(params),
                nr: cx.nr(),
                data: bytemuck::cast_slice_mut(chunk),
            }),
            #[cfg(not(feature = "float"))]
            _ => {} // refused by `Model::new`
        },
    );
    fill_pad(out, op.output, dtype, flip);
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
