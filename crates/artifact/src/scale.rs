//! Requantization in floats: the rule of [`crate::params::ParamsForm::Scales`].
//!
//! Of a sum `acc`, and of what a residual adds, `y = ⌊f32(acc) · scale + (r − zero_r) · ratio⌉`, where
//! `ratio` is the residual's scale over the output's. Conversion to f32, each product and the sum of
//! both are rounded once, and `⌊·⌉` goes to the nearest integer, all with ties to even, as IEEE 754 has it:
//! no step may be fused with another. So every CPU that has floats, and software, gives the same bytes.

/// `⌊x⌉`, of numbers beyond ±1,024 those: whatever the zero point, they are clamped.
#[inline(always)]
pub fn round(x: f32) -> i32 {
    /// Floats of its size have no fractions.
    const ROUND: f32 = (3 << 22) as f32;
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
