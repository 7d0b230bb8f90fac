//! Depthwise 3×3 convolutions with the DSP instructions of Armv7E-M and Armv8-M Mainline, see
//! [`crate::ops::planes`].

use super::conv::{Conv, ResidualSource};
use super::dsp::cpu;
use artifact::layout::{DEPTHWISE_CHANNELS, DepthwisePlanes};
use artifact::params::ParamsForm;

/// A layer whose planes [`Self::band`] can convolve.
#[derive(Debug)]
pub(crate) struct Layer<'a> {
    conv: &'a Conv<'a, i8, i8>,
    planes: DepthwisePlanes,
    /// Operands of one plane after another.
    plane: Plane,
    /// Operands of four channels after others.
    copy: Copy,
    /// Rows of the map.
    map_rows: usize,
    /// Numbers of a line of the map, and of a row of outputs.
    lines: [usize; 2],
    stride: usize,
}

/// Rows and columns of the filter.
const FILTER: usize = 3;

/// The operands of [`convolve_one`] and [`convolve_two`], which know where they lie.
#[derive(Debug)]
#[repr(C)]
struct Plane {
    multiplier: i32,
    /// Half of the last bit that is kept, and the zero point.
    rounding: i32,
    /// One less.
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
#[derive(Debug)]
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
    /// `None` where plain Rust must do, or of a file that nobody checked.
    pub(crate) fn new(
        conv: &'a Conv<'a, i8, i8>,
        planes: DepthwisePlanes,
        pad: i8,
    ) -> Option<Self> {
        let (filter, c) = (conv.filter, usize::from(conv.output.c));
        let (left, stride) = (usize::from(conv.padding.left), usize::from(conv.stride[0]));
        let fits = filter.kh == FILTER
            && filter.kw == FILTER
            && (stride == 1 || stride == 2)
            && conv.stride[1] == conv.stride[0]
            && matches!(conv.params_form, ParamsForm::Short(outputs) if outputs == c)
            && matches!(conv.residual, ResidualSource::None)
            && left <= 1
            && conv.input.w > 0
            && conv.output.w > 0
            && c.is_multiple_of(DEPTHWISE_CHANNELS)
            && conv.input.c == conv.output.c;
        if !fits {
            return None;
        }
        let (w, out_w) = (usize::from(conv.input.w), usize::from(conv.output.w));
        let DepthwisePlanes { columns, rows, .. } = planes;
        // What windows read: padding, pixels, padding.
        let read = (out_w - 1) * stride + FILTER;
        let pixels = w.min(read - left);
        let single = 1 - left;
        let (twos, rest) = ((pixels - single) / 2, (pixels - single) % 2);
        let words = read.div_ceil(2);
        // The last, odd output of a row is computed as one of two.
        let read_by_twos = (out_w.next_multiple_of(2) - 1) * stride + FILTER;
        assert!(2 * words <= columns && read_by_twos.next_multiple_of(2) <= columns);
        assert!(conv.params.len() >= 2 * c && conv.weights.len() >= c * FILTER * FILTER);
        let (none, plane_len) = (core::ptr::null_mut(), columns * rows);
        let copy = Copy {
            pad: u32::from_ne_bytes([pad.cast_unsigned(); 4]),
            twos,
            has_rest: rest,
            after: words - (twos + 1),
            advance: [w * c - (single + 2 * twos) * c, (columns / 2 - words) * 4],
            rows: 0,
            starts_inside: single,
            x: none,
            channels: c,
            to: none.cast(),
            planes: [2 * plane_len, 6 * plane_len],
        };
        let row_len = out_w / 2 * 2 * c;
        let plane = Plane {
            multiplier: 0,
            rounding: 0,
            shift: 0,
            channels: c,
            end: none,
            bias: 0,
            last: 0,
            rows: 0,
            advance: 2 * stride * (columns - out_w.next_multiple_of(2)),
            row_len,
            odd: out_w % 2 * c,
            x: [none.cast_const().cast(); FILTER],
            out: none,
            weights: [0; 5],
        };
        let map_rows = conv.x.len() / (w * c);
        Some(Self { conv, planes, plane, copy, map_rows, lines: [w * c, out_w * c], stride })
    }

    /// Copies `rows` of the map from row `from` on, of four channels from `channel` on, into rows of four
    /// planes from `to` on; then convolves them into `count` rows at `out`. Outputs are kept within eight
    /// bits, not above the layer's smallest.
    pub(crate) fn band(
        &mut self,
        channel: usize,
        [from, rows, to]: [usize; 3],
        scratch: &mut [i16],
        count: usize,
        out: &mut [i8],
    ) {
        let DepthwisePlanes { columns, rows: plane_rows, .. } = self.planes;
        let plane_len = columns * plane_rows;
        let ([line, row_len], c) = (self.lines, self.plane.channels);
        assert!(rows == 0 || from < self.map_rows && rows <= self.map_rows - from);
        assert!(channel + DEPTHWISE_CHANNELS <= c && to + rows <= plane_rows);
        assert!(scratch.len() >= DEPTHWISE_CHANNELS * plane_len && out.len() >= count * row_len);
        assert!(count > 0 && (count - 1) * self.stride + FILTER <= plane_rows);
        let planes = scratch.as_mut_ptr();
        if rows > 0 {
            self.copy.rows = rows;
            self.copy.x = self.conv.x.as_ptr().wrapping_add(from * line + channel);
            self.copy.to = planes.wrapping_add(to * columns);
            // SAFETY: the build's target has the instructions; rows lie in the map and in the planes, as
            // just asserted, a row's pixels in its line and its words in that of a plane, as `new` has.
            unsafe { copy_rows(&self.copy) }
        }
        for index in 0..DEPTHWISE_CHANNELS {
            let channel = channel + index;
            let params = &self.conv.params[channel / 2 * 4 + channel % 2..];
            let (bias, multiplier) = (params[0], params[2]);
            let shift = bias & 0xff;
            let plane = &mut self.plane;
            plane.multiplier = multiplier;
            plane.rounding = (2 * self.conv.finish.zero_point + 1) << shift;
            plane.shift = shift;
            plane.bias = bias >> 8;
            plane.rows = count;
            let first = planes.wrapping_add(index * plane_len).cast_const();
            plane.x = [first, first.wrapping_add(columns), first.wrapping_add(2 * columns)];
            plane.out = out.as_mut_ptr().wrapping_add(channel);
            plane.end = plane.out.wrapping_add(plane.row_len);
            let weights = &self.conv.weights[channel * FILTER * FILTER..][..FILTER * FILTER];
            let pair = |i: usize, j: usize| {
                i32::from(weights[i]) as u32 & 0xffff | (i32::from(weights[j]) as u32) << 16
            };
            let [a, b, c] = [pair(0, 1), pair(3, 4), pair(6, 7)];
            if self.stride == 1 {
                plane.weights = [a, pair(1, 2), b, pair(4, 5), c];
                plane.last = pair(7, 8);
            } else {
                plane.weights = [a, b, c, pair(2, 5), i32::from(weights[8]) as u32];
            }
            // SAFETY: the build's target has the instructions; planes have what the windows of all rows
            // read, as `new` has seen, and `out` has the rows, as just asserted.
            unsafe { if self.stride == 1 { convolve_one(plane) } else { convolve_two(plane) } }
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
            "ssat r6, #8, r6, asr #1",
            "ssat r7, #8, r7, asr #1",
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
