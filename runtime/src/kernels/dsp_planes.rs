//! Depthwise 3×3 convolutions with the DSP instructions of Armv7E-M and Armv8-M Mainline, see
//! [`crate::ops::planes`].

use super::conv::{Conv, ResidualSource};
use super::dsp::cpu;
use artifact::layout::{DEPTHWISE_CHANNELS, DepthwisePlanes};
use artifact::params::ParamsForm;

/// A layer whose planes [`Self::convolve`] can convolve.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layer<'a> {
    conv: Conv<'a, i8, i8>,
    planes: DepthwisePlanes,
    stride: Stride,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stride {
    One,
    Two,
}

/// Rows and columns of the filter.
const FILTER: usize = 3;

/// The operands of [`convolve_one`] and [`convolve_two`], which know where they lie.
#[repr(C)]
struct Plane {
    multiplier: i32,
    /// Half of the last bit that is kept, and the zero point.
    rounding: i32,
    shift: i32,
    /// Channels: as far apart outputs lie.
    channels: usize,
    /// Where the outputs of a row end that are computed by twos.
    end: *mut i8,
    bias: i32,
    /// The last pair of weights that [`convolve_one`] takes.
    last: u32,
    rows: usize,
    /// From where the outputs of a row were read to the next one.
    advance: usize,
    /// Between the ends of rows.
    row_len: usize,
    /// `channels`, where a row ends with a single output, else 0.
    odd: usize,
    x: [*const i16; FILTER],
    out: *mut i8,
    weights: [u32; 5],
}

/// The operands of [`copy_rows`], which knows where they lie.
#[repr(C)]
struct Copy {
    /// Four bytes of padding.
    pad: u32,
    /// Twos of pixels that are copied.
    twos: usize,
    /// Whether another pixel follows; else padding.
    has_rest: usize,
    /// Pairs of padding behind that.
    after: usize,
    /// From where a row ends to the next one.
    advance: [usize; 2],
    rows: usize,
    /// Whether a row starts with a pixel; else with padding.
    starts_inside: usize,
    x: *const i8,
    channels: usize,
    to: *mut i16,
    /// Bytes of a plane, and of three.
    planes: [usize; 2],
}

impl<'a> Layer<'a> {
    /// `None` where plain Rust must do.
    pub(crate) fn new(conv: &Conv<'a, i8, i8>, planes: DepthwisePlanes) -> Option<Self> {
        let stride = match conv.stride {
            [1, 1] => Stride::One,
            [2, 2] => Stride::Two,
            _ => return None,
        };
        let (filter, channels) = (conv.filter, usize::from(conv.output.c));
        let fits = [filter.kh, filter.kw] == [FILTER; 2]
            && matches!(conv.params_form, ParamsForm::Short(c) if c == channels)
            && matches!(conv.residual, ResidualSource::None)
            && conv.padding.left <= 1
            && channels.is_multiple_of(DEPTHWISE_CHANNELS)
            && conv.input.c == conv.output.c;
        fits.then_some(Self { conv: *conv, planes, stride })
    }

    /// Copies `rows` of the map from row `from` on, of four channels from `channel` on, into rows of four
    /// planes from `to` on.
    pub(crate) fn copy(
        &self,
        [from, rows]: [usize; 2],
        channel: usize,
        pad: i8,
        to: usize,
        scratch: &mut [i16],
    ) {
        let conv = &self.conv;
        let (w, c) = (usize::from(conv.input.w), usize::from(conv.input.c));
        let DepthwisePlanes { columns, rows: plane_rows, .. } = self.planes;
        let step = self.step();
        // What windows read: padding, pixels, padding.
        let read = (usize::from(conv.output.w) - 1) * step + FILTER;
        let left = usize::from(conv.padding.left);
        let pixels = w.min(read - left);
        let single = 1 - left;
        let (twos, rest) = ((pixels - single) / 2, (pixels - single) % 2);
        let words = read.div_ceil(2);
        let after = words - (twos + 1);
        let taken = (single + 2 * twos) * c;
        let plane_len = columns * plane_rows;
        assert!(rows > 0 && channel + DEPTHWISE_CHANNELS <= c && 2 * words <= columns);
        assert!(conv.x.len() >= (from + rows) * w * c && to + rows <= plane_rows);
        assert!(scratch.len() >= DEPTHWISE_CHANNELS * plane_len);
        let copy = Copy {
            pad: u32::from_ne_bytes([pad.cast_unsigned(); 4]),
            twos,
            has_rest: rest,
            after,
            advance: [w * c - taken, (columns / 2 - words) * 4],
            rows,
            starts_inside: single,
            x: conv.x[from * w * c + channel..].as_ptr(),
            channels: c,
            to: scratch[to * columns..].as_mut_ptr(),
            planes: [2 * plane_len, 6 * plane_len],
        };
        // SAFETY: the build's target has the instructions; rows lie in the map and in the planes, as just
        // asserted, a row's pixels in its line and its words in that of a plane.
        unsafe { copy_rows(&copy) }
    }

    /// Convolves plane `index` into channel `channel` of `rows` rows at `out`. Outputs are kept within
    /// eight bits, not above the layer's smallest.
    pub(crate) fn convolve(
        &self,
        scratch: &[i16],
        index: usize,
        channel: usize,
        rows: usize,
        out: &mut [i8],
    ) {
        let conv = &self.conv;
        let (w, c) = (usize::from(conv.output.w), usize::from(conv.output.c));
        let DepthwisePlanes { columns, rows: plane_rows, .. } = self.planes;
        let (step, twos) = (self.step(), w / 2);
        let plane_len = columns * plane_rows;
        // The last, odd output of a row is computed as one of two.
        let read = (w.next_multiple_of(2) - 1) * step + FILTER;
        assert!(rows > 0 && w > 0 && channel < c && out.len() >= rows * w * c);
        assert!(read.next_multiple_of(2) <= columns && (rows - 1) * step + FILTER <= plane_rows);
        let plane = &scratch[index * plane_len..][..plane_len];
        let params = &conv.params[channel / 2 * 4..][..4];
        let (first, multiplier) = (params[channel % 2], params[channel % 2 + 2]);
        let shift = first & 0xff;
        let weights = conv.weights[channel * FILTER * FILTER..].as_chunks::<FILTER>().0;
        let (pairs, last) = self.pair(&[weights[0], weights[1], weights[2]]);
        let out = out[channel..].as_mut_ptr();
        let x = plane.as_ptr();
        let call = Plane {
            multiplier,
            rounding: ((2 * conv.finish.zero_point + 1) << shift) >> 1,
            shift,
            channels: c,
            end: out.wrapping_add(2 * twos * c),
            bias: first >> 8,
            last,
            rows,
            advance: 2 * step * (columns - w.div_ceil(2) * 2),
            row_len: 2 * twos * c,
            odd: w % 2 * c,
            x: [0, 1, 2].map(|row| x.wrapping_add(row * columns)),
            out,
            weights: pairs,
        };
        // SAFETY: the build's target has the instructions; the plane has what the windows of all rows
        // read, and `out` has the rows, as just asserted.
        unsafe {
            match self.stride {
                Stride::One => convolve_one(&call),
                Stride::Two => convolve_two(&call),
            }
        }
    }

    fn step(&self) -> usize {
        match self.stride {
            Stride::One => 1,
            Stride::Two => 2,
        }
    }

    /// Weights as the assembly takes them.
    fn pair(&self, rows: &[[i8; FILTER]; FILTER]) -> ([u32; 5], u32) {
        let pair = |a: i8, b: i8| {
            u32::from(i16::from(a).cast_unsigned()) | u32::from(i16::from(b).cast_unsigned()) << 16
        };
        let [a, b, c] = rows.map(|[a, b, _]| pair(a, b));
        match self.stride {
            Stride::One => {
                let [d, e, last] = rows.map(|[_, b, c]| pair(b, c));
                ([a, d, b, e, c], last)
            }
            Stride::Two => ([a, b, c, pair(rows[0][2], rows[1][2]), pair(rows[2][2], 0)], 0),
        }
    }
}

/// What both strides have in common, around the products of two outputs in r6 and r7 (of numbers at r0,
/// r1 and r2, weights in r8 to r12, with r4, r5 and lr to work in), and between them.
macro_rules! convolve {
    ($products:literal, $($lines:literal),*) => {
        core::arch::naked_asm!(
            cpu!(),
            $($lines,)*
            "push {{r4-r11, lr}}",
            "ldmia r0!, {{r1-r11}}",
            "push {{r1-r11}}",
            "ldm r0, {{r0-r3, r8-r12}}",
            "ldr r5, [sp, #16]",
            "cmp r3, r5",
            "beq 2f",
            "1:",
            $products,
            "ldm sp, {{r4, r5, lr}}",
            "smmla r6, r6, r4, r5",
            "smmla r7, r7, r4, r5",
            "ldrd r4, r5, [sp, #12]",
            "asr r6, r6, lr",
            "asr r7, r7, lr",
            "ssat r6, #8, r6",
            "ssat r7, #8, r7",
            "strb r7, [r3, r4]",
            "strb r6, [r3]",
            "add r3, r3, r4, lsl #1",
            "cmp r3, r5",
            "bne 1b",
            // A single output at the end of the row: once more, as if channels were none.
            "2:",
            "ldr r5, [sp, #40]",
            "cbz r5, 4f",
            "ldr r4, [sp, #12]",
            "cbz r4, 3f",
            "movs r4, #0",
            "strd r4, r3, [sp, #12]",
            "b 1b",
            "3:",
            "str r5, [sp, #12]",
            "add r3, r5",
            "4:",
            "ldr r4, [sp, #28]",
            "subs r4, #1",
            "str r4, [sp, #28]",
            "beq 5f",
            "ldrd r4, r5, [sp, #32]",
            "add r0, r4",
            "add r1, r4",
            "add r2, r4",
            "add r5, r3",
            "str r5, [sp, #16]",
            "cmp r3, r5",
            "bne 1b",
            "b 2b",
            "5:",
            "add sp, #44",
            "pop {{r4-r11, pc}}",
            ".purgem edge_row",
            ".purgem edge_plane",
        )
    };
}

/// Two outputs take of each row a load of four numbers, two SMLAD and two SMLA.
///
/// # Safety
/// What `plane` names is there: the numbers of all rows' windows, and outputs.
#[unsafe(naked)]
unsafe extern "C" fn convolve_one(plane: &Plane) {
    convolve!(
        "edge_plane",
        // The first and second weight in \\a, the second and third in \\b.
        ".macro edge_row x, a, b, bias",
        "ldrd r4, r5, [\\x], #4",
        "smlatb r7, r4, \\a, \\bias",
        "smlad r6, r4, \\a, r6",
        "smlad r7, r5, \\b, r7",
        "smlabt r6, r5, \\b, r6",
        ".endm",
        ".macro edge_plane",
        "ldrd r6, lr, [sp, #20]",
        "edge_row r0, r8, r9, r6",
        "edge_row r1, r10, r11, r7",
        "edge_row r2, r12, lr, r7",
        ".endm"
    )
}

/// Two outputs take of each row two loads of five numbers, two SMLAD and two SMLA.
///
/// # Safety
/// What `plane` names is there: the numbers of all rows' windows, and outputs.
#[unsafe(naked)]
unsafe extern "C" fn convolve_two(plane: &Plane) {
    convolve!(
        "edge_plane",
        // The first and second weight in \\a, the third in a half of \\b.
        ".macro edge_row x, a, b, half, bias",
        "ldrd r4, r5, [\\x], #8",
        "ldr lr, [\\x]",
        "smlad r7, r5, \\a, \\bias",
        "smlad r6, r4, \\a, r6",
        "smlab\\half r7, lr, \\b, r7",
        "smlab\\half r6, r5, \\b, r6",
        ".endm",
        ".macro edge_plane",
        "ldr r6, [sp, #20]",
        "edge_row r0, r8, r11, b, r6",
        "edge_row r1, r9, r11, t, r7",
        "edge_row r2, r10, r12, b, r7",
        ".endm"
    )
}

/// Copies rows of four channels into planes: of two pixels, two loads, four SXTB16, four PKH that pair
/// their channels, and four stores. Pairs may start with padding, so the pixel before is kept.
///
/// # Safety
/// What `copy` names is there: pixels of all rows, and pairs of planes.
#[unsafe(naked)]
unsafe extern "C" fn copy_rows(copy: &Copy) {
    core::arch::naked_asm!(
        cpu!(),
        // Pairs the pixel before, in r10 and r11, with that in r4.
        ".macro edge_pair",
        "sxtb16 r6, r4",
        "sxtb16 r7, r4, ror #8",
        "pkhbt r8, r10, r6, lsl #16",
        "pkhtb r6, r6, r10, asr #16",
        "pkhbt r9, r11, r7, lsl #16",
        "pkhtb r7, r7, r11, asr #16",
        ".endm",
        ".macro edge_store first, second, third, fourth",
        "str \\second, [r2, r3]",
        "str \\third, [r2, r3, lsl #1]",
        "str \\fourth, [r2, r12]",
        "str \\first, [r2], #4",
        ".endm",
        "push {{r4-r11, lr}}",
        "ldmia r0!, {{r1-r8}}",
        "push {{r1-r8}}",
        "ldm r0, {{r0-r3, r12}}",
        "1:",
        "ldr r5, [sp, #28]",
        "ldr r4, [sp]",
        "cbz r5, 2f",
        "ldr r4, [r0]",
        "add r0, r1",
        "2:",
        "sxtb16 r10, r4",
        "sxtb16 r11, r4, ror #8",
        "ldr lr, [sp, #4]",
        "cmp lr, #0",
        "beq 4f",
        "3:",
        "ldr r4, [r0]",
        "ldr r5, [r0, r1]",
        "add r0, r0, r1, lsl #1",
        "edge_pair",
        "sxtb16 r10, r5",
        "sxtb16 r11, r5, ror #8",
        "edge_store r8, r9, r6, r7",
        "subs lr, #1",
        "bne 3b",
        "4:",
        "ldrd r5, lr, [sp, #8]",
        "ldr r4, [sp]",
        "cbz r5, 5f",
        "ldr r4, [r0]",
        "5:",
        "edge_pair",
        "edge_store r8, r9, r6, r7",
        "cmp lr, #0",
        "beq 7f",
        "ldr r4, [sp]",
        "sxtb16 r4, r4",
        "6:",
        "edge_store r4, r4, r4, r4",
        "subs lr, #1",
        "bne 6b",
        "7:",
        "ldrd r4, r5, [sp, #16]",
        "add r0, r4",
        "add r2, r5",
        "ldr r4, [sp, #24]",
        "subs r4, #1",
        "str r4, [sp, #24]",
        "bne 1b",
        "add sp, #32",
        "pop {{r4-r11, pc}}",
        ".purgem edge_pair",
        ".purgem edge_store",
    )
}
