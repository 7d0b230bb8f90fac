//! Where the parameters of an int8 convolution's channels lie.
//!
//! All files may have them in planes of a panel, see [`ConvPlane`]. Microcontrollers, where flash is
//! short, mostly have half as many bytes. Of each two outputs: two words of a bias, times 256, plus
//! the shift less 33; two multipliers. Then, behind those of all outputs and only where a residual is
//! added, the factor of each. Outputs that do not exist have a shift of 33 and are zero else. Shifts
//! of 33 to [`MAX_SHORT_SHIFT`] fit, which those of nearly all layers are. Such files have version 7.
//!
//! Panels of 16 mostly have [`ScalePlane`]s: sums are requantized in floats, see [`crate::scale`], which
//! takes half of the instructions. Such files have version 8. Of layers that a quantized source rounds before a
//! residual is added, two numbers follow: see [`crate::scale::Rounded`].

use crate::layout::{ConvPlane, SCALE_PLANES, ScalePlane, conv_planes, has_columns};
use crate::scale::ROUNDED_LEN;
use crate::{Dtype, Requant};
use core::ops::Range;

/// The largest shift of the short form: half a step and the zero point fit into what is added to the
/// upper half of a product.
pub const MAX_SHORT_SHIFT: u8 = 55;

/// How parameters lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamsForm {
    /// In planes of a panel.
    Planes,
    /// In the short form, of so many outputs.
    Short(usize),
    /// In planes of a panel, with a factor in floats.
    Scales,
    /// The same, and what sums are rounded to before a residual is added.
    RoundedScales,
}

/// What belongs to an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelParams {
    /// See [`ConvPlane::Bias`].
    pub bias: i32,
    /// See [`ConvPlane::Multiplier`] and [`ConvPlane::Shift`], which may be out of range; of
    /// [`ParamsForm::Scales`], the bits of [`ScalePlane::Scale`] and 0.
    pub requant: [i32; 2],
    /// See [`ConvPlane::Residual`].
    pub residual: i32,
}

impl ChannelParams {
    /// Multiplier and shift of a checked file.
    #[inline(always)]
    pub const fn requant(&self) -> Requant {
        Requant { multiplier: self.requant[0], shift: self.requant[1] as u8 }
    }
}

impl ParamsForm {
    /// That of parameters of `len` bytes, if there is one.
    pub const fn of(
        len: usize,
        outputs: usize,
        residual: bool,
        dtype: Dtype,
        nr: usize,
    ) -> Option<Self> {
        if has_columns(dtype, nr) && len == short_words(outputs, residual) * 4 {
            Some(Self::Short(outputs))
        } else if len == scales_len(outputs) && matches!((dtype, nr), (Dtype::I8, 16)) {
            Some(Self::Scales)
        } else if len == scales_len(outputs) + ROUNDED_LEN
            && matches!((dtype, nr), (Dtype::I8, 16))
            && residual
        {
            Some(Self::RoundedScales)
        } else if len == outputs.div_ceil(nr) * conv_planes(dtype, nr) * nr * 4 {
            Some(Self::Planes)
        } else {
            None
        }
    }

    /// What belongs to output `o`, of int8 in panels of `nr`; `word` gives a number of the
    /// parameters. The residual is 0 where `residual` is not set.
    #[inline(always)]
    pub fn channel(
        self,
        nr: usize,
        o: usize,
        residual: bool,
        word: impl Fn(usize) -> i32,
    ) -> ChannelParams {
        match self {
            Self::Planes => {
                let panel = o / nr * conv_planes(Dtype::I8, nr);
                let plane = |p: ConvPlane| word((panel + p as usize) * nr + o % nr);
                ChannelParams {
                    bias: plane(ConvPlane::Bias),
                    requant: [plane(ConvPlane::Multiplier), plane(ConvPlane::Shift)],
                    residual: if residual { plane(ConvPlane::Residual) } else { 0 },
                }
            }
            Self::Short(outputs) => {
                let pair = o / 2 * 4 + o % 2;
                let first = word(pair);
                ChannelParams {
                    bias: first >> 8,
                    requant: [word(pair + 2), 33 + (first & 0xff)],
                    residual: if residual { word(short_words(outputs, false) + o) } else { 0 },
                }
            }
            Self::Scales | Self::RoundedScales => {
                let plane =
                    |p: ScalePlane| word((o / nr * SCALE_PLANES + p as usize) * nr + o % nr);
                let requant = [plane(ScalePlane::Scale), 0];
                ChannelParams { bias: plane(ScalePlane::Bias), requant, residual: 0 }
            }
        }
    }

    /// `Σ w` of output `o`, see [`ConvPlane::WeightSum`]; none where panels are not of sixteen.
    pub(crate) fn weight_sum(self, o: usize, word: impl Fn(usize) -> i32) -> Option<i32> {
        const NR: usize = 16;
        let (planes, plane) = match self {
            Self::Planes => (conv_planes(Dtype::I8, NR), ConvPlane::WeightSum as usize),
            Self::Scales | Self::RoundedScales => (SCALE_PLANES, ScalePlane::WeightSum as usize),
            Self::Short(_) => return None,
        };
        Some(word((o / NR * planes + plane) * NR + o % NR))
    }

    /// Whether a shift is one that the form can have.
    pub const fn has_shift(self, shift: i32) -> bool {
        match self {
            Self::Planes => shift >= 1 && shift <= Requant::MAX_SHIFT as i32,
            Self::Short(_) => shift >= 33 && shift <= MAX_SHORT_SHIFT as i32,
            Self::Scales | Self::RoundedScales => shift == 0,
        }
    }
}

/// Bytes of [`ParamsForm::Scales`].
const fn scales_len(outputs: usize) -> usize {
    outputs.div_ceil(16) * 16 * SCALE_PLANES * 4
}

/// Words of the short form.
const fn short_words(outputs: usize, residual: bool) -> usize {
    outputs.div_ceil(2) * if residual { 6 } else { 4 }
}

/// The short form of parameters in planes of panels of 4; `None` where a number does not fit.
#[cfg(feature = "alloc")]
pub fn shorten(planes: &[i32], outputs: usize, residual: bool) -> Option<alloc::vec::Vec<i32>> {
    let mut short = alloc::vec![0; short_words(outputs, residual)];
    shorten_into(planes, outputs, 0..outputs, residual, &mut short)?;
    Some(short)
}

/// As [`shorten`], of a `part` of the outputs, as if they were all of a layer. It begins with an even
/// one; `short` has three words for each, and for one more of an odd number.
pub fn shorten_into(
    planes: &[i32],
    outputs: usize,
    part: Range<usize>,
    residual: bool,
    short: &mut [i32],
) -> Option<()> {
    const NR: usize = 4;
    let form = ParamsForm::Short(part.len());
    for (at, o) in (part.start..part.end.next_multiple_of(2)).enumerate() {
        let mut channel = ParamsForm::Planes.channel(NR, o, residual, |i| planes[i]);
        if o >= outputs || channel.requant[0] == 0 {
            // A product of zero is zero, however it is shifted.
            channel.requant = [0, 33];
        }
        let [multiplier, shift] = channel.requant;
        let bias = channel.bias.checked_mul(256)?;
        if !form.has_shift(shift) {
            return None;
        }
        let pair = at / 2 * 4 + at % 2;
        short[pair] = bias | (shift - 33);
        short[pair + 2] = multiplier;
        if residual {
            short[short_words(part.len(), false) + at] = channel.residual;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_form_says_the_same() {
        let planes = |panel: usize, shift: i32| {
            (0..16).map(move |i| match i / 4 {
                0 => (panel as i32 * 4 + i - 5) * 700_001,
                1 => (1 << 30) + i,
                2 => shift + i % 4,
                _ => i * 1000,
            })
        };
        for (outputs, residual) in [(1usize, true), (2, false), (5, true), (8, false)] {
            let all: alloc::vec::Vec<i32> =
                (0..outputs.div_ceil(4)).flat_map(|p| planes(p, 40)).collect();
            let short = shorten(&all, outputs, residual).unwrap();
            let form = ParamsForm::of(short.len() * 4, outputs, residual, Dtype::I8, 4).unwrap();
            assert_eq!(form, ParamsForm::Short(outputs));
            for o in 0..outputs {
                let [a, b] = [(ParamsForm::Planes, &all), (form, &short)]
                    .map(|(form, words)| form.channel(4, o, residual, |i| words[i]));
                assert_eq!(a, b);
            }
            let part = outputs / 4 * 2..outputs;
            let mut words = alloc::vec![0; short_words(part.len(), residual)];
            shorten_into(&all, outputs, part.clone(), residual, &mut words).unwrap();
            for (at, o) in part.clone().enumerate() {
                let [a, b] = [(form, o, &short), (ParamsForm::Short(part.len()), at, &words)]
                    .map(|(form, o, words)| form.channel(4, o, residual, |i| words[i]));
                assert_eq!(a, b);
            }
        }
        let refused = |shift, bias| {
            let mut all: alloc::vec::Vec<i32> = planes(0, shift).collect();
            all[0] = bias;
            shorten(&all, 4, false).is_none()
        };
        assert!(!refused(33, 1) && !refused(52, -(1 << 23)));
        assert!(refused(32, 1) && refused(53, 1) && refused(40, 1 << 23));
    }
}
