//! From float ranges to int8: activations asymmetric per tensor, weights symmetric per
//! output channel.

mod calibrate;

pub(crate) use calibrate::set_input;
pub use calibrate::{CalibrationError, Histogram, Method, calibrate};

use artifact::Quant;

/// The quantization of a value that spans `low..=high`.
///
/// Zero is always representable exactly (padding and ReLU need it), hence the range is
/// widened to contain it; an empty range gets a scale of one.
pub fn quant_of_range(low: f32, high: f32) -> Quant {
    let (low, high) = (low.min(0.0), high.max(0.0));
    let scale = (high - low) / 255.0;
    if !scale.is_normal() {
        return Quant { scale: 1.0, zero_point: 0 };
    }
    let zero_point = (-128.0 - low / scale).round().clamp(-128.0, 127.0) as i8;
    Quant { scale, zero_point }
}

/// Int8 weights of one output channel and their scale: `w ≈ scale · q`, q in −127..=127.
///
/// `min_scale` keeps the accumulator's unit coarse enough for the bias and the residual.
pub fn quantize_channel(weights: &[f32], min_scale: f32) -> (Vec<i8>, f32) {
    let largest = weights.iter().fold(0.0f32, |m, w| m.max(w.abs()));
    let scale = (largest / 127.0).max(min_scale).max(f32::MIN_POSITIVE * 128.0);
    let q = weights.iter().map(|w| (w / scale).round().clamp(-127.0, 127.0) as i8).collect();
    (q, scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_exact_and_the_ends_are_reached() {
        for (low, high) in [(-1.0, 3.0), (0.0, 6.0), (0.5, 2.0), (-4.0, -1.0), (-1e-3, 1e3)] {
            let q = quant_of_range(low, high);
            assert_eq!(q.dequantize(q.quantize(0.0)), 0.0);
            for end in [low.min(0.0), high.max(0.0)] {
                assert!((q.dequantize(q.quantize(end)) - end).abs() <= q.scale, "{low} {high}");
            }
        }
    }

    #[test]
    fn empty_and_infinite_ranges_give_a_valid_scale() {
        for (low, high) in [(0.0, 0.0), (f32::NAN, f32::NAN), (0.0, f32::INFINITY)] {
            assert!(quant_of_range(low, high).is_valid());
        }
    }

    #[test]
    fn dead_channels_have_a_scale() {
        let (q, scale) = quantize_channel(&[0.0; 4], 0.0);
        assert_eq!(q, [0; 4]);
        assert!(scale.is_normal());
    }
}
