//! A function of each number: in int8 a table of 256 bytes, which is the same everywhere, in floats
//! the formula.

use super::Context;
use super::pixelwise::{self, Pixelwise};
use crate::kernels::Kernel;
use artifact::{Curve, Lookup};

/// Runs one on the arena; it may work in place.
pub(crate) fn run(cx: &Context<'_>, op: &Lookup, arena: &mut [u8]) {
    pixelwise::run(cx, op, [op.input, op.output], None, arena);
}

impl Pixelwise for Lookup {
    fn int8(&self, cx: &Context<'_>, _: &[u8], data: &mut [i8]) {
        cx.run(Int8 { table: cx.artifact.span(self.table), data, flip: cx.flip() });
    }

    #[cfg(feature = "float")]
    fn float(&self, cx: &Context<'_>, _: &[u8], data: &mut [f32]) {
        cx.run(Float { curve: self.curve, data });
    }
}

struct Int8<'a> {
    table: &'a [u8],
    data: &'a mut [i8],
    flip: i8,
}

impl Kernel for Int8<'_> {
    #[inline(always)]
    fn eval(self) {
        let Some(table) = self.table.first_chunk::<256>() else { return };
        // As values are stored, so that looking up is all.
        let mut stored = [0i8; 256];
        for (q, y) in table.iter().enumerate() {
            stored[usize::from(q as u8 ^ self.flip as u8)] = *y as i8 ^ self.flip;
        }
        self.data.iter_mut().for_each(|x| *x = stored[usize::from(*x as u8)]);
    }
}

struct Float<'a> {
    curve: Curve,
    data: &'a mut [f32],
}

impl Kernel for Float<'_> {
    #[inline(always)]
    fn eval(self) {
        let step = |x: f32| (x + 3.0).clamp(0.0, 6.0) / 6.0;
        // Each loop by itself, so that compilers can use vectors.
        match self.curve {
            Curve::HardSwish => self.data.iter_mut().for_each(|x| *x *= step(*x)),
            Curve::HardSigmoid => self.data.iter_mut().for_each(|x| *x = step(*x)),
            Curve::Sigmoid => self.data.iter_mut().for_each(|x| *x = sigmoid(*x)),
            Curve::Silu => self.data.iter_mut().for_each(|x| *x *= sigmoid(*x)),
            Curve::Gelu => {
                let half = |x: f32| 0.5 * libm::erfcf(-x * core::f32::consts::FRAC_1_SQRT_2);
                self.data.iter_mut().for_each(|x| *x *= half(*x));
            }
        }
    }
}

/// `1 / (1 + e⁻ˣ)`, within 2⁻²² of it.
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `eˣ` within a few units of the last place, by `2ⁿ · e^r` with |r| ≤ ln 2 / 2 and the polynomial of
/// Cephes' `expf`; without branches, so that compilers can use vectors.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: adding it rounds to an integer
    // Beyond, results have no exponent.
    let x = x.clamp(-87.0, 88.0);
    let n = (x * core::f32::consts::LOG2_E + ROUND) - ROUND;
    // ln 2 in two parts, the first of which has few digits.
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let e = p * r * r + r + 1.0;
    e * f32::from_bits(((n as i32 + 127) as u32) << 23)
}
