//! The same numbers in another format, where an int8 model has layers of floats.

use super::{Context, fill_pad};
use crate::kernels::Kernel;
use artifact::{Cast, Dtype};

/// Runs one cast on the arena.
pub(crate) fn run(cx: &Context<'_>, op: &Cast, arena: &mut [u8]) {
    let [from, to] = [op.input, op.output].map(|place| cx.dtype(place));
    let Ok([x, out]) = arena.get_disjoint_mut([cx.range(op.input), cx.range(op.output)]) else {
        return;
    };
    let len = op.output.shape.len();
    let (x, _) = x.split_at(len * from.activation_bytes());
    let (data, _) = out.split_at_mut(len * to.activation_bytes());
    let flip = cx.flip();
    match (from, to) {
        (Dtype::I8, Dtype::F32 | Dtype::F16 | Dtype::Bf16) => {
            let chunk = cx.chunk_pixels(len, len as u64, to);
            cx.workers.for_each_chunk(data, chunk * to.activation_bytes(), &|i, out| {
                let out: &mut [f32] = bytemuck::cast_slice_mut(out);
                let x: &[i8] = bytemuck::cast_slice(&x[i * chunk..][..out.len()]);
                cx.run(Each { x, out, f: |q: i8| op.input.quant.dequantize(q ^ flip) });
            });
        }
        (Dtype::F32 | Dtype::F16 | Dtype::Bf16, Dtype::I8) => {
            let x: &[f32] = bytemuck::cast_slice(x);
            let chunk = cx.chunk_pixels(len, len as u64, to);
            cx.workers.for_each_chunk(data, chunk, &|i, out| {
                let x = &x[i * chunk..][..out.len()];
                let out: &mut [i8] = bytemuck::cast_slice_mut(out);
                cx.run(Each { x, out, f: |v| op.output.quant.quantize(v) ^ flip });
            });
        }
        // Of one format, and then with one meaning.
        _ => data.copy_from_slice(x),
    }
    fill_pad(out, op.output, to, flip);
}

/// `out[i] = f(x[i])`.
struct Each<'a, X, Y, F> {
    x: &'a [X],
    out: &'a mut [Y],
    f: F,
}

impl<X: Copy, Y, F: Fn(X) -> Y> Kernel for Each<'_, X, Y, F> {
    #[inline(always)]
    fn eval(self) {
        for (out, x) in self.out.iter_mut().zip(self.x) {
            *out = (self.f)(*x);
        }
    }
}
