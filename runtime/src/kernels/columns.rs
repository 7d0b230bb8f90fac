//! Products of columns, the inner loop of int8 on microcontrollers, see [`crate::ops::columns`].
//!
//! A column holds [`WINDOWS`] windows side by side: of each four channels the pair 0 and 2 of each
//! window, then the pair 1 and 3, sign-extended to 16 bits. Weights lie as
//! [`artifact::layout`] says. With Armv7E-M's DSP instructions (Cortex-M4, M7; M33 where the build
//! names it), SXTB16 takes a word of weights apart and SMLAD multiplies pairs; other cores multiply
//! one at a time.

#[cfg(not(edge_thumb2))]
use super::pairs::Sums;
use super::pairs::{GROUP, Pair};
use artifact::layout::{KR_I8, WINDOWS};

/// Writes channels into window `m` of a column, zeros where the last group is not full.
pub(crate) fn widen(column: &mut [Pair], m: usize, channels: &[i8]) {
    let (words, rest) = channels.as_chunks::<KR_I8>();
    let (groups, _) = column.as_chunks_mut::<GROUP>();
    // Two at a time, so that a loop costs half as much.
    let (twos, last) = words.as_chunks::<2>();
    for (groups, words) in groups.as_chunks_mut::<2>().0.iter_mut().zip(twos) {
        set(&mut groups[0], m, words[0]);
        set(&mut groups[1], m, words[1]);
    }
    if let (Some(group), [word]) = (groups.get_mut(twos.len() * 2), last) {
        set(group, m, *word);
    }
    if let Some(group) = groups.get_mut(words.len())
        && !rest.is_empty()
    {
        let mut word = [0; KR_I8];
        word[..rest.len()].copy_from_slice(rest);
        set(group, m, word);
    }
}

/// Fills window `m` of a column.
pub(crate) fn fill(column: &mut [Pair], m: usize, pad: i8) {
    for group in column.as_chunks_mut::<GROUP>().0 {
        set(group, m, [pad; KR_I8]);
    }
}

#[inline(always)]
fn set(group: &mut [Pair; GROUP], m: usize, channels: [i8; KR_I8]) {
    let word = u32::from_le_bytes(channels.map(i8::cast_unsigned));
    [group[m], group[WINDOWS + m]] = sign_extend(word);
}

#[cfg(edge_dsp)]
use super::dsp::sign_extend;

/// Bytes 0 and 2 as a pair, and bytes 1 and 3.
#[cfg(not(edge_dsp))]
#[inline(always)]
fn sign_extend(word: u32) -> [Pair; 2] {
    let wide = |byte: u32| u32::from(i16::from((word >> (8 * byte)) as i8).cast_unsigned());
    [wide(0) | wide(2) << 16, wide(1) | wide(3) << 16]
}

/// Adds the products of a column and the weights of two outputs.
#[cfg(edge_thumb2)]
pub(crate) use super::thumb::dot;

/// Adds the products of a column and the weights of two outputs.
#[cfg(not(edge_thumb2))]
pub(crate) fn dot(sums: &mut Sums, column: &[Pair], weights: &[i8]) {
    let (columns, _) = bytemuck::cast_slice::<_, i16>(column).as_chunks::<{ 2 * WINDOWS }>();
    let (weights, _) = weights.as_chunks::<4>();
    assert!(columns.len() >= weights.len());
    let mut all = *sums;
    for (x, w) in columns.iter().zip(weights) {
        for m in 0..WINDOWS {
            for o in 0..2 {
                let first = i32::from(x[2 * m]) * i32::from(w[o]);
                let second = i32::from(x[2 * m + 1]) * i32::from(w[2 + o]);
                all[o][m] = all[o][m].wrapping_add(first).wrapping_add(second);
            }
        }
    }
    *sums = all;
}
