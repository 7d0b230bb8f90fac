//! Requantization in floats: the rule of [`crate::params::ParamsForm::Scales`].
//!
//! Of a sum `acc`, and of what a residual adds, `y = ⌊f32(acc) · scale + (r − zero_r) · ratio⌉`, where
//! `ratio` is the residual's scale over the output's. Conversion to f32, each product and the sum of
//! both are rounded once, and `⌊·⌉` goes to the nearest integer, all with ties to even, as IEEE 754 has it:
//! no step may be fused with another. So every CPU that has floats, and software, gives the same bytes.

/// Added and taken off again, it leaves the nearest integer of what is small: floats of its size have no
/// fractions.
const ROUND: f32 = (3 << 22) as f32;

/// What a sum is rounded to before a residual is added, where a quantized source does so:
/// `clamp(⌊f32(acc) · scale⌉, low, high) · ratio` is added to then.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rounded {
    /// What its steps are in those of the output.
    pub ratio: f32,
    /// Steps that −128 is from the zero point.
    pub low: f32,
    /// Steps that 127 is from the zero point.
    pub high: f32,
}

/// Bytes that follow the planes of parameters: the ratio and the zero point.
pub const ROUNDED_LEN: usize = 8;

impl Rounded {
    /// Of a ratio and a zero point.
    pub const fn new(ratio: f32, zero_point: i8) -> Self {
        Self { ratio, low: -128.0 - zero_point as f32, high: 127.0 - zero_point as f32 }
    }

    /// Of the two words that follow the planes; `None` unless they are a positive factor below 2^21 and a
    /// zero point.
    pub fn read(words: [i32; 2]) -> Option<Self> {
        let ratio = f32::from_bits(words[0] as u32);
        let zero_point = i8::try_from(words[1]).ok()?;
        // Compared as integers: microcontrollers may have no floats.
        (words[0] > 0 && words[0] < 148 << 23).then(|| Self::new(ratio, zero_point))
    }

    /// In steps of the output.
    #[inline(always)]
    pub fn apply(self, x: f32) -> f32 {
        (x.clamp(self.low, self.high) + ROUND - ROUND) * self.ratio
    }
}

/// `⌊x⌉`, of numbers beyond ±1,024 those: whatever the zero point, they are clamped.
#[inline(always)]
pub fn round(x: f32) -> i32 {
    (x.clamp(-1024.0, 1024.0) + ROUND).to_bits() as i32 - ROUND.to_bits() as i32
}

/// What the residual's steps are in those of the output.
#[inline(always)]
pub fn residual_ratio(residual: crate::Quant, output: crate::Quant) -> f32 {
    residual.scale / output.scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_even() {
        for (x, y) in [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (-2.5, -2), (0.0, 0)] {
            assert_eq!(round(x), y, "{x}");
        }
        for (x, y) in [(2.501, 3), (-127.49, -127), (1e9, 1024), (-1e9, -1024), (1023.6, 1024)] {
            assert_eq!(round(x), y, "{x}");
        }
    }
}
