//! [`super::columns`] with the DSP instructions of Armv7E-M and Armv8-M Mainline.

use super::Finish;
use super::conv::ResidualSource;
use super::pairs::{GROUP, NR, PLANES, Pair};
use artifact::layout::KR_I8;

/// What all outputs of a column share.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Layer {
    zero_point: i32,
    /// The smallest output, in each byte.
    low: u32,
    /// Where the second and third window's outputs lie behind the first one's.
    windows: [usize; 2],
    residual_zero_point: i32,
    residual_shift: u32,
    /// Half of what its last bit stands for.
    residual_rounding: i32,
}

impl Layer {
    /// Outputs have `channels`; of a last, partial column `count` windows are wanted.
    pub(crate) fn new(finish: &Finish, channels: usize, count: usize) -> Self {
        Self {
            zero_point: finish.zero_point,
            low: u32::from_ne_bytes([finish.low as u8; 4]),
            // Windows that nobody wants are stored first, and then stored over.
            windows: [1, 2].map(|m| channels * m.min(count - 1)),
            residual_zero_point: finish.residual_zero_point,
            residual_shift: finish.residual_shift,
            residual_rounding: (1 << finish.residual_shift) >> 1,
        }
    }
}

/// Computes the `channels` outputs of a column's windows, whole panels. `out` starts at the first
/// window's, `residual` at what is added to them.
///
/// Shifts must be above 32, see [`super::columns::shifts_are_large`]; else results are wrong.
pub(crate) fn outputs(
    layer: &Layer,
    channels: usize,
    params: &[i32],
    column: &[Pair],
    weights: &[i8],
    out: &mut [i8],
    residual: ResidualSource<'_, i8>,
) {
    let panels = channels / NR;
    let half_len = weights.len() / (2 * panels).max(1);
    let groups = half_len / (2 * KR_I8);
    let params_len = PLANES * NR;
    let end = layer.windows[1] + channels;
    assert!(groups > 0 && column.len() >= groups * GROUP && params.len() >= panels * params_len);
    assert!(channels == panels * NR && out.len() >= end);
    let residual = match residual {
        ResidualSource::None => None,
        ResidualSource::InPlace => Some(out.as_ptr()),
        ResidualSource::Other(r) => {
            assert!(r.len() >= end);
            Some(r.as_ptr())
        }
    };
    for panel in 0..panels {
        for half in 0..2 {
            let (at, pair) = (panel * NR + half * 2, panel * 2 + half);
            let residual = residual.map_or(core::ptr::null(), |r| r.wrapping_add(at));
            // SAFETY: the build's target has the instructions; all operands are as long as just
            // asserted.
            unsafe {
                let params = params.as_ptr().add(panel * params_len + half * 2);
                let weights = weights.as_ptr().add(pair * half_len);
                let out = out.as_mut_ptr().add(at);
                two_outputs(params, column.as_ptr(), weights, groups, layer, out, residual);
            }
        }
    }
}

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

/// Twelve products take one load of six activations, one of four weights, two SXTB16 and six
/// SMLAD. All fourteen registers are in use, hence not inline.
///
/// # Safety
/// Readable are two values of each [`artifact::layout::ConvPlane`] at `params`, `groups` groups of channels (at least
/// one) at `column` and `weights`, and unless it is null two bytes at `residual` and behind it where
/// `layer` says; those of `out` are writable. Words are aligned.
#[unsafe(naked)]
unsafe extern "C" fn two_outputs(
    params: *const i32,
    column: *const Pair,
    weights: *const i8,
    groups: usize,
    layer: &Layer,
    out: *mut i8,
    residual: *const i8,
) {
    core::arch::naked_asm!(
        cpu!(),
        ".macro edge_products",
        "ldmia r1!, {{r3, r10, r11}}",
        "ldr r12, [r2], #4",
        "sxtb16 lr, r12",
        "sxtb16 r12, r12, ror #8",
        "smlad r4, lr, r3, r4",
        "smlad r5, lr, r10, r5",
        "smlad r6, lr, r11, r6",
        "smlad r7, r12, r3, r7",
        "smlad r8, r12, r10, r8",
        "smlad r9, r12, r11, r9",
        ".endm",
        // Adds the residual of one output: ((r - zero point) * factor + rounding) >> shift.
        ".macro edge_residual first, second, third, factor",
        "ldr r12, [r0, #\\factor]",
        "ldr lr, [r1, #16]",
        "ldr r0, [r1, #24]",
        "mls lr, lr, r12, r0",
        "ldr r1, [r1, #20]",
        "ldrsb r0, [r3]",
        "mla r0, r0, r12, lr",
        "asrs r0, r1",
        "add \\first, r0",
        "ldrsb r0, [r3, r10]",
        "mla r0, r0, r12, lr",
        "asrs r0, r1",
        "add \\second, r0",
        "ldrsb r0, [r3, r11]",
        "mla r0, r0, r12, lr",
        "asrs r0, r1",
        "add \\third, r0",
        ".endm",
        // Requantizes one output. Only the upper half of the product decides.
        ".macro edge_requantize first, second, third, multiplier, shift",
        "ldr r12, [r0, #\\shift]",
        "ldr r3, [r0, #\\multiplier]",
        "subs r12, #32",
        "mov lr, #1",
        "lsl lr, lr, r12",
        "asr lr, lr, #1",
        "smmla \\first, \\first, r3, lr",
        "smmla \\second, \\second, r3, lr",
        "smmla \\third, \\third, r3, lr",
        "asr \\first, \\first, r12",
        "asr \\second, \\second, r12",
        "asr \\third, \\third, r12",
        ".endm",
        // Clamps both outputs of a window into the lower half of the first.
        ".macro edge_clamp first, second",
        "add \\first, r3",
        "add \\second, r3",
        "ssat \\first, #8, \\first",
        "ssat \\second, #8, \\second",
        "bfi \\first, \\second, #8, #8",
        "ssub8 \\second, \\first, r12",
        "sel \\first, \\first, r12",
        ".endm",
        "push {{r0, r4-r11, lr}}",
        "ldrd r4, r7, [r0]",
        "mov r5, r4",
        "mov r6, r4",
        "mov r8, r7",
        "mov r9, r7",
        // One group, where their number is odd.
        "add r0, r2, r3, lsl #3",
        "lsls r3, r3, #31",
        "beq 2f",
        "edge_products",
        "edge_products",
        "cmp r2, r0",
        "beq 3f",
        "2:",
        "edge_products",
        "edge_products",
        "edge_products",
        "edge_products",
        "cmp r2, r0",
        "bne 2b",
        "3:",
        "ldr r0, [sp]",
        "ldrd r1, r2, [sp, #40]",
        "ldr r3, [sp, #48]",
        "ldrd r10, r11, [r1, #8]",
        "cbz r3, 4f",
        "edge_residual r4, r5, r6, 48",
        "ldr r0, [sp]",
        "ldr r1, [sp, #40]",
        "adds r3, #1",
        "edge_residual r7, r8, r9, 52",
        "ldr r0, [sp]",
        "ldr r1, [sp, #40]",
        "4:",
        "edge_requantize r4, r5, r6, 16, 32",
        "edge_requantize r7, r8, r9, 20, 36",
        "ldrd r3, r12, [r1]",
        "edge_clamp r6, r9",
        "edge_clamp r5, r8",
        "edge_clamp r4, r7",
        "strh r6, [r2, r11]",
        "strh r5, [r2, r10]",
        "strh r4, [r2]",
        "pop {{r0, r4-r11, pc}}",
        ".purgem edge_products",
        ".purgem edge_residual",
        ".purgem edge_requantize",
        ".purgem edge_clamp",
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
