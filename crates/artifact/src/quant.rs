//! Quantization parameters and the one rounding rule.

use serde::{Deserialize, Serialize};

/// Affine quantization of an activation: `real = scale · (q − zero_point)`, q in −128..=127.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quant {
    /// Real size of one step; positive and normal.
    pub scale: f32,
    /// The q that means zero.
    pub zero_point: i8,
}

impl Quant {
    /// For activations that are not quantized (f32 models).
    pub const NONE: Self = Self { scale: 1.0, zero_point: 0 };

    /// Of a value that an int8 model keeps in floats.
    pub const FLOAT: Self = Self { scale: 0.0, zero_point: 0 };

    /// Whether this is [`Self::FLOAT`].
    pub const fn is_float(self) -> bool {
        self.scale == 0.0
    }

    /// Whether the scale is a positive normal number.
    pub fn is_valid(self) -> bool {
        self.scale.is_normal() && self.scale > 0.0
    }

    /// Nearest q of a real value, ties away from zero; NaN becomes the zero point.
    pub fn quantize(self, real: f32) -> i8 {
        let steps = real / self.scale;
        // `as` saturates and maps NaN to 0. `f32::round` needs std, hence the half.
        let rounded = (steps + if steps < 0.0 { -0.5 } else { 0.5 }) as i32;
        rounded.saturating_add(i32::from(self.zero_point)).clamp(-128, 127) as i8
    }

    /// The real value of q.
    pub fn dequantize(self, q: i8) -> f32 {
        (i32::from(q) - i32::from(self.zero_point)) as f32 * self.scale
    }
}

/// A positive real factor as a fixed-point number, `multiplier / 2^shift`.
///
/// The multiplier is 0 or in `2^30..2^31`, the shift in `1..=62`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requant {
    /// Mantissa.
    pub multiplier: i32,
    /// Right shift in bits.
    pub shift: u8,
}

impl Requant {
    /// Largest shift.
    pub const MAX_SHIFT: u8 = 62;

    /// The nearest fixed-point form of `factor`; `None` unless it is in `(0, 2^30)`.
    /// Factors too small for the format become zero.
    pub fn new(factor: f64) -> Option<Self> {
        if !(factor > 0.0 && factor < f64::from(1u32 << 30)) {
            return None;
        }
        // factor = mantissa · 2^exponent with mantissa in [1, 2)
        let bits = factor.to_bits();
        let exponent = ((bits >> 52) & 0x7ff) as i32 - 1023;
        if exponent < -32 {
            return Some(Self { multiplier: 0, shift: Self::MAX_SHIFT });
        }
        let mantissa = (bits & ((1 << 52) - 1)) | (1 << 52);
        // 53 bits to 31 bits, rounded half up; 2^31 itself moves to the next exponent.
        let (mut multiplier, mut shift) = ((mantissa + (1 << 21)) >> 22, 30 - exponent);
        if multiplier == 1 << 31 {
            multiplier >>= 1;
            shift -= 1;
        }
        if shift < 1 {
            return None;
        }
        if shift > i32::from(Self::MAX_SHIFT) {
            return Some(Self { multiplier: 0, shift: Self::MAX_SHIFT });
        }
        Some(Self { multiplier: multiplier as i32, shift: shift as u8 })
    }

    /// Whether both fields are in range.
    pub const fn is_valid(self) -> bool {
        self.multiplier >= 0 && self.shift >= 1 && self.shift <= Self::MAX_SHIFT
    }

    /// `⌊(acc · multiplier + 2^(shift−1)) / 2^shift⌋`: THE rounding rule (ties towards +∞).
    ///
    /// Chosen because each instruction set has it exactly: a widening multiply, one
    /// addition and an arithmetic shift (NEON `SRSHL` rounds the same way).
    #[inline(always)]
    pub const fn apply(self, acc: i32) -> i32 {
        let product = acc as i64 * self.multiplier as i64;
        ((product + (1i64 << (self.shift - 1))) >> self.shift) as i32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requant_is_close_and_rounds_half_up() {
        for factor in [1e-9, 0.000_123, 0.25, 0.5, 0.999_999_999_9, 1.0, 3.7, 1000.0] {
            let r = Requant::new(factor).unwrap();
            assert!(r.is_valid());
            for acc in [-1_000_000, -3, -1, 0, 1, 3, 77, 1_000_000] {
                let exact = f64::from(acc) * factor;
                if exact.abs() < 1e9 {
                    assert!((f64::from(r.apply(acc)) - exact).abs() <= 0.51, "{factor} {acc}");
                }
            }
        }
        let half = Requant::new(0.5).unwrap();
        assert_eq!([-3, -1, 1, 3].map(|a| half.apply(a)), [-1, 0, 1, 2]);
    }

    #[test]
    fn requant_refuses_nonsense() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 2e9] {
            assert_eq!(Requant::new(bad), None);
        }
        assert_eq!(Requant::new(1e-300).unwrap().multiplier, 0);
    }

    #[test]
    fn quantize_saturates() {
        let q = Quant { scale: 0.5, zero_point: -3 };
        assert_eq!(q.quantize(f32::NAN), -3);
        assert_eq!(q.quantize(f32::INFINITY), 127);
        assert_eq!(q.quantize(f32::NEG_INFINITY), -128);
        assert_eq!(q.quantize(1.0), -1);
        assert_eq!(q.dequantize(q.quantize(1.0)), 1.0);
    }
}
