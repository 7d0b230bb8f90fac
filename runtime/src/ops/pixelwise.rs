//! Operators that change each number by itself, or by what belongs to its channel.

use super::{Context, fill_pad};
use artifact::{Dtype, Place};

/// What such an operator does to whole pixels.
pub(super) trait Pixelwise: Sync {
    /// To stored int8 numbers; `second` is what [`run`] was given.
    fn int8(&self, cx: &Context<'_>, second: &[u8], pixels: &mut [i8]);

    /// To floats.
    #[cfg(feature = "float")]
    fn float(&self, cx: &Context<'_>, second: &[u8], pixels: &mut [f32]);
}

/// Changes a copy of `input` at `output`, which may be the same place. `second` is read beside, and
/// is an activation of one pixel. Once in the program, which saves flash.
#[inline(never)]
pub(super) fn run(
    cx: &Context<'_>,
    op: &dyn Pixelwise,
    [input, output]: [Place; 2],
    second: Option<Place>,
    arena: &mut [u8],
) {
    let dtype = cx.dtype(output);
    let [from, to] = [input, output].map(|place| cx.range(place));
    // The reader lets nothing else overlap.
    if let Ok([from, to]) = arena.get_disjoint_mut([from, to.clone()]) {
        to.copy_from_slice(from);
    }
    let second = second.map_or(0..0, |place| cx.range(place));
    let Ok([second, out]) = arena.get_disjoint_mut([second, to]) else { return };
    let pixels = output.shape.pixels();
    let pixel_bytes = usize::from(output.shape.c) * dtype.activation_bytes();
    let second = second.get(..pixel_bytes).unwrap_or_default();
    let (data, _) = out.split_at_mut(pixels * pixel_bytes);
    cx.workers.for_each_chunk(
        data,
        cx.chunk_pixels(pixels, output.shape.len() as u64, dtype) * pixel_bytes,
        &|_, chunk| match dtype {
            Dtype::I8 => op.int8(cx, second, bytemuck::cast_slice_mut(chunk)),
            #[cfg(feature = "float")]
            Dtype::F32 | Dtype::F16 | Dtype::Bf16 => {
                op.float(cx, second, bytemuck::cast_slice_mut(chunk));
            }
            #[cfg(not(feature = "float"))]
            _ => {} // refused by `Model::new`
        },
    );
    fill_pad(out, output, dtype, cx.flip());
}
