//! [`super::columns`] with the DSP instructions of Armv7E-M and Armv8-M Mainline.

use super::conv::{Conv, ResidualSource};
use super::pairs::{GROUP, Pair};
use artifact::layout::{KR_I8, WINDOWS};
use core::ops::Range;

/// Names a core that has the instructions: assembly outside of functions knows the architecture only.
#[cfg(not(edge_armv8m))]
macro_rules! cpu {
    () => {
        ".cpu cortex-m4"
    };
}
#[cfg(edge_armv8m)]
macro_rules! cpu {
    () => {
        ".cpu cortex-m33"
    };
}
pub(super) use cpu;

/// A convolution whose columns [`Self::outputs`] can compute.
#[derive(Debug)]
pub(crate) struct Layer<'a> {
    /// Operands of one column after another.
    call: Call,
    x: &'a [i8],
    weights: &'a [i8],
    column: &'a mut [Pair],
    /// The first output that is computed.
    first: usize,
    /// Outputs of a pixel, and those of them that are computed: pairs.
    channels: [usize; 2],
    /// Groups of a filter row in a column, and filter rows.
    row: [usize; 2],
    has_residual: bool,
}

/// The operands of [`column_outputs`], which knows where they lie.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Call {
    params: *const i32,
    column: *const Pair,
    /// Twice the zero point, plus one: half a step more than it.
    rounding: i32,
    out: *mut i8,
    /// Where the second and third window's outputs lie behind the first one's.
    windows: [usize; 2],
    /// Bytes of a pair's weights behind its first four.
    rest: usize,
    groups: usize,
    params_end: *const i32,
    /// What is added to the first window's outputs, or null.
    residual: *const i8,
    factors: *const i32,
    residual_zero_point: i32,
    /// Half of what its last bit stands for.
    residual_rounding: i32,
    residual_shift: u32,
}

impl<'a> Layer<'a> {
    /// Of a `part` of the outputs, which begins with an even one and whose parameters are `params`, in
    /// their short form. `None` where there is no pair of outputs, or of a file that nobody checked.
    pub(crate) fn new(
        conv: &Conv<'a, i8, i8>,
        part: Range<usize>,
        params: &'a [i32],
        column: &'a mut [Pair],
    ) -> Option<Self> {
        let filter = conv.filter;
        let row = [filter.taps().0 * filter.groups(), filter.kh];
        let groups = row[0].checked_mul(row[1]).filter(|n| *n > 0 && *n <= column.len() / GROUP)?;
        let pair_len = groups * 2 * KR_I8;
        let pairs = part.len() / 2;
        let weights = conv.weights.get(part.start / 2 * pair_len..)?;
        let factors = part.len().div_ceil(2) * 4;
        let has_residual = !matches!(conv.residual, ResidualSource::None);
        let params_len = factors + if has_residual { pairs * 2 } else { 0 };
        if pairs == 0 || weights.len() / pair_len < pairs || params.len() < params_len {
            return None;
        }
        let finish = &conv.finish;
        let params = params.as_ptr();
        let call = Call {
            params,
            column: core::ptr::null(),
            rounding: 2 * finish.zero_point + 1,
            out: core::ptr::null_mut(),
            windows: [0; 2],
            rest: pair_len - 4,
            groups,
            params_end: params.wrapping_add(pairs * 4),
            residual: core::ptr::null(),
            factors: params.wrapping_add(factors),
            residual_zero_point: finish.residual_zero_point,
            residual_rounding: (1 << finish.residual_shift) >> 1,
            residual_shift: finish.residual_shift,
        };
        let first = part.start;
        let channels = [usize::from(conv.output.c), pairs * 2];
        Some(Self { call, x: conv.x, weights, column, first, channels, row, has_residual })
    }

    /// The end of the outputs that are computed: all of the part, but for the last one of an odd number.
    /// They are kept within eight bits, not above the layer's smallest output.
    #[inline(always)]
    pub(crate) fn end(&self) -> usize {
        self.first + self.channels[1]
    }

    /// The column, to be filled with windows.
    #[inline(always)]
    pub(crate) fn column(&mut self) -> &mut [Pair] {
        self.column
    }

    /// Widens three windows of the map into the column, from where they start; their rows are `line`
    /// numbers apart.
    #[inline(always)]
    pub(crate) fn widen(&mut self, starts: [usize; WINDOWS], line: usize) {
        let [groups, rows] = self.row;
        let last = starts[0].max(starts[1]).max(starts[2]);
        let end = (rows - 1).saturating_mul(line).saturating_add(groups * KR_I8);
        assert!(self.x.len() >= end.saturating_add(last));
        let [a, b, c] = starts.map(|start| self.x.as_ptr().wrapping_add(start));
        let (to, gap) = (self.column.as_mut_ptr(), line.wrapping_sub(groups * KR_I8));
        // SAFETY: the build's target has the instructions; the rows of each window lie in the map, as
        // just asserted, and all of them in the column, as `new` has seen.
        unsafe { widen_rows(to, a, b, c, groups, rows, gap) }
    }

    /// Computes the outputs of the column's windows, of which `count` are wanted. `out` starts at the
    /// first window's, `residual` at what is added to them.
    #[inline(always)]
    pub(crate) fn outputs(
        &mut self,
        count: usize,
        out: &mut [i8],
        residual: ResidualSource<'_, i8>,
    ) {
        let [channels, computed] = self.channels;
        let (out, residual) = (&mut out[self.first..], residual.skip(self.first));
        // Windows that nobody wants are stored first, and then stored over.
        let [second, third] = [1, 2].map(|m: usize| if m < count { m * channels } else { 0 });
        let windows = if count == 2 { [second; 2] } else { [second, third] };
        let end = windows[1] + computed;
        assert!(out.len() >= end);
        self.call.residual = match residual {
            ResidualSource::None => core::ptr::null(),
            ResidualSource::InPlace => out.as_ptr(),
            ResidualSource::Other(r) => {
                assert!(r.len() >= end);
                r.as_ptr()
            }
        };
        assert!(self.call.residual.is_null() != self.has_residual);
        self.call.windows = windows;
        self.call.column = self.column.as_ptr();
        self.call.out = out.as_mut_ptr();
        // SAFETY: the build's target has the instructions; the outputs and what is added are as long as
        // just asserted, column, weights and parameters as `new` has seen.
        unsafe { column_outputs(&self.call, self.weights.as_ptr()) }
    }
}

/// Computes two outputs of three windows at a time, until all are.
///
/// Twelve products take one load of six activations, one of four weights, two SXTB16 and six SMLAD.
/// All fourteen registers are in use there, so the rest lies on the stack. To requantize, only the
/// upper half of a product decides, to which one addition rounds and adds the zero point.
///
/// # Safety
/// The operands of `call` are readable, `out` writable: as many parameters as it says, of each pair of
/// them as many weights, a column; two bytes of `out` for each pair, there and behind it where
/// `windows` says, and unless it is null those of `residual`. Words are aligned.
#[unsafe(naked)]
unsafe extern "C" fn column_outputs(call: &Call, weights: *const i8) {
    core::arch::naked_asm!(
        cpu!(),
        ".macro edge_load",
        "ldmia r1!, {{r3, r10, r11}}",
        "ldr r12, [r2], #4",
        "sxtb16 lr, r12",
        "sxtb16 r12, r12, ror #8",
        ".endm",
        // Forty bytes.
        ".macro edge_products",
        "edge_load",
        "smlad r4, lr, r3, r4",
        "smlad r5, lr, r10, r5",
        "smlad r6, lr, r11, r6",
        "smlad r7, r12, r3, r7",
        "smlad r8, r12, r10, r8",
        "smlad r9, r12, r11, r9",
        ".endm",
        // Adds the residual of one output: ((r - zero point) * factor + rounding) >> shift.
        ".macro edge_residual first, second, third",
        "ldr r0, [sp, #40]",
        "ldr r12, [r0], #4",
        "str r0, [sp, #40]",
        "ldrd lr, r0, [sp, #44]",
        "mls lr, lr, r12, r0",
        "ldrsb r0, [r3, r10]",
        "mla r0, r0, r12, lr",
        "asr r0, r0, r1",
        "add \\second, r0",
        "ldrsb r0, [r3, r11]",
        "mla r0, r0, r12, lr",
        "asr r0, r0, r1",
        "add \\third, r0",
        "ldrsb r0, [r3], #1",
        "mla r0, r0, r12, lr",
        "asr r0, r0, r1",
        "add \\first, r0",
        ".endm",
        // Requantizes one output. The lowest byte of the register `shift` counts, which is one less.
        ".macro edge_requantize first, second, third, multiplier, shift",
        "lsl r0, r3, \\shift",
        "smmla \\first, \\first, \\multiplier, r0",
        "smmla \\second, \\second, \\multiplier, r0",
        "smmla \\third, \\third, \\multiplier, r0",
        "asr \\first, \\first, \\shift",
        "asr \\second, \\second, \\shift",
        "asr \\third, \\third, \\shift",
        "ssat \\first, #8, \\first, asr #1",
        "ssat \\second, #8, \\second, asr #1",
        "ssat \\third, #8, \\third, asr #1",
        ".endm",
        "push {{r4-r11, lr}}",
        "mov r2, r1",
        "add r1, r0, #32",
        "ldmia r1, {{r3-r8}}",
        "push {{r3-r8}}",
        "ldmia r0, {{r3-r10}}",
        "mov r1, r4",
        "mov r0, r3",
        // Of 2 * groups products of a pair, the first is apart, and the loop is entered where the
        // others, an odd number, leave a multiple of eight.
        "lsl r10, r10, #1",
        "sub r10, r10, #1",
        "and r10, r10, #7",
        "movs r11, #40",
        "adr.w r12, 3f",
        "mls r10, r10, r11, r12",
        "orr r10, r10, #1",
        "push {{r3-r10}}",
        // A pair: parameters at r0, the column at r1, weights at r2.
        "1:",
        "ldrd r4, r7, [r0]",
        "asr r4, r4, #8",
        "asr r7, r7, #8",
        "edge_load",
        "smlad r5, lr, r10, r4",
        "smlad r6, lr, r11, r4",
        "smlad r4, lr, r3, r4",
        "smlad r8, r12, r10, r7",
        "smlad r9, r12, r11, r7",
        "smlad r7, r12, r3, r7",
        "ldr r0, [sp, #24]",
        "add r0, r2",
        "ldr pc, [sp, #28]",
        "2:",
        "edge_products",
        "edge_products",
        "edge_products",
        "edge_products",
        "edge_products",
        "edge_products",
        "edge_products",
        "edge_products",
        "3:",
        "cmp r2, r0",
        "bne 2b",
        "ldr r3, [sp, #36]",
        "cbz r3, 4f",
        "b 5f",
        "4:",
        "ldm sp, {{r0, r1, r3}}",
        "ldmia r0!, {{r10, r11, r12, lr}}",
        "str r0, [sp]",
        "edge_requantize r4, r5, r6, r12, r10",
        "edge_requantize r7, r8, r9, lr, r11",
        "ldr r0, [sp, #12]",
        "ldrd r10, r11, [sp, #16]",
        "bfi r6, r9, #8, #8",
        "bfi r5, r8, #8, #8",
        "bfi r4, r7, #8, #8",
        "strh r6, [r0, r11]",
        "strh r5, [r0, r10]",
        "strh r4, [r0], #2",
        "str r0, [sp, #12]",
        "ldr r0, [sp]",
        "ldr r3, [sp, #32]",
        "cmp r0, r3",
        "bne 1b",
        "add sp, #56",
        "pop {{r4-r11, pc}}",
        "5:",
        "ldrd r10, r11, [sp, #16]",
        "ldr r1, [sp, #52]",
        "edge_residual r4, r5, r6",
        "edge_residual r7, r8, r9",
        "str r3, [sp, #36]",
        "b 4b",
        ".purgem edge_load",
        ".purgem edge_products",
        ".purgem edge_residual",
        ".purgem edge_requantize",
    )
}

/// Widens three windows into a column.
///
/// # Safety
/// Of each window are `rows` rows (at least one) of `groups` groups (at least one) readable, `gap` apart,
/// and all are writable at `column`.
#[unsafe(naked)]
unsafe extern "C" fn widen_rows(
    column: *mut Pair,
    first: *const i8,
    second: *const i8,
    third: *const i8,
    groups: usize,
    rows: usize,
    gap: usize,
) {
    core::arch::naked_asm!(
        cpu!(),
        "push {{r4-r11, lr}}",
        "1:",
        "ldr r12, [sp, #36]",
        "2:",
        "ldr r4, [r1], #4",
        "ldr r5, [r2], #4",
        "ldr r6, [r3], #4",
        "subs r12, #1",
        "sxtb16 r7, r4",
        "sxtb16 r8, r5",
        "sxtb16 r9, r6",
        "sxtb16 r10, r4, ror #8",
        "sxtb16 r11, r5, ror #8",
        "sxtb16 lr, r6, ror #8",
        "stmia r0!, {{r7-r11, lr}}",
        "bne 2b",
        "ldrd r4, r5, [sp, #40]",
        "subs r4, #1",
        "str r4, [sp, #40]",
        "add r1, r5",
        "add r2, r5",
        "add r3, r5",
        "bne 1b",
        "pop {{r4-r11, pc}}",
    )
}

/// Bytes 0 and 2 as a pair, and bytes 1 and 3.
#[inline(always)]
pub(super) fn sign_extend(word: u32) -> [Pair; 2] {
    let (even, odd): (Pair, Pair);
    // SAFETY: the build's target has the instruction; registers only.
    unsafe {
        core::arch::asm!(
            "sxtb16 {even}, {word}",
            "sxtb16 {odd}, {word}, ror #8",
            even = out(reg) even,
            odd = lateout(reg) odd,
            word = in(reg) word,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    [even, odd]
}
