//! [`super::columns::dot`] for Thumb-2 without DSP instructions (Cortex-M3; M33 without them).

use super::pairs::{GROUP, Pair, Sums};
use artifact::layout::KR_I8;

/// Adds the products of a column and the weights of two outputs.
pub(crate) fn dot(sums: &mut Sums, column: &[Pair], weights: &[i8]) {
    let groups = weights.len() / (2 * KR_I8);
    assert!(groups > 0 && column.len() >= groups * GROUP);
    // SAFETY: the build's target has the instructions; `groups` groups are readable of both.
    unsafe { dot_groups(sums, column.as_ptr(), weights.as_ptr(), groups) }
}

/// Twelve products take ten loads and twelve MLA. Compilers keep half of the sums in memory.
///
/// # Safety
/// `groups` groups of channels (at least one) are readable at `column` and `weights`.
#[unsafe(naked)]
unsafe extern "C" fn dot_groups(
    sums: &mut Sums,
    column: *const Pair,
    weights: *const i8,
    groups: usize,
) {
    core::arch::naked_asm!(
        // One channel: where it lies in its pairs, and in its word of weights.
        ".macro edge_channel x, w",
        "ldrsh r3, [r1, #\\x]",
        "ldrsh r10, [r1, #\\x + 4]",
        "ldrsh r11, [r1, #\\x + 8]",
        "ldrsb r12, [r2, #\\w]",
        "ldrsb lr, [r2, #\\w + 1]",
        "mla r4, r12, r3, r4",
        "mla r5, r12, r10, r5",
        "mla r6, r12, r11, r6",
        "mla r7, lr, r3, r7",
        "mla r8, lr, r10, r8",
        "mla r9, lr, r11, r9",
        ".endm",
        "push {{r0, r4-r11, lr}}",
        "ldmia r0, {{r4-r9}}",
        "add r0, r2, r3, lsl #3",
        "2:",
        "edge_channel 0, 0",
        "edge_channel 2, 2",
        "edge_channel 12, 4",
        "edge_channel 14, 6",
        "adds r1, #24",
        "adds r2, #8",
        "cmp r2, r0",
        "bne 2b",
        "pop {{r0}}",
        "stmia r0, {{r4-r9}}",
        "pop {{r4-r11, pc}}",
        ".purgem edge_channel",
    )
}
