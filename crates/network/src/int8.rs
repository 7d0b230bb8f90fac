//! Numbers of int8: activations asymmetric per tensor, weights symmetric per output channel.

use artifact::Quant;
use artifact::layout::MAX_PAIR;

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
/// `run` weights lie side by side once packed; pairs of them are kept within [`MAX_PAIR`], for
/// speed where instructions saturate. Most channels have a larger pair somewhere; there, a coarser
/// scale and clipped pairs are weighed by their squared error.
/// `min_scale` keeps the accumulator's unit coarse enough for the bias and the residual.
pub fn quantize_channel(weights: &[f32], run: usize, min_scale: f32) -> (Vec<i8>, f32) {
    const COARSER: f32 = 1.04;
    let largest = weights.iter().fold(0.0f32, |m, w| m.max(w.abs()));
    let mut scale = (largest / 127.0).max(min_scale).max(f32::MIN_POSITIVE * 128.0);
    let mut best = quantize_at(weights, run, scale);
    let mut best_scale = scale;
    let mut clips = best.clips;
    // Beyond a scale that clips nothing, errors only grow.
    while clips {
        scale *= COARSER;
        let next = quantize_at(weights, run, scale);
        clips = next.clips;
        if next.error < best.error {
            (best, best_scale) = (next, scale);
        }
    }
    (best.values, best_scale)
}

/// As [`quantize_channel`], of any pairs, but rounded so that errors add up to nothing: what inputs have
/// in common then causes none.
pub fn quantize_balanced(weights: &[f32], min_scale: f32) -> (Vec<i8>, f32) {
    let (mut values, scale) = quantize_channel(weights, 1, min_scale);
    let errors = |values: &[i8]| -> Vec<f32> {
        weights.iter().zip(values).map(|(w, q)| w / scale - f32::from(*q)).collect()
    };
    let error = errors(&values);
    let sum = error.iter().sum::<f32>().round();
    // Those that were rounded farthest the other way.
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| (error[b] * sum).total_cmp(&(error[a] * sum)));
    for i in order.into_iter().take(sum.abs() as usize) {
        values[i] = (f32::from(values[i]) + sum.signum()).clamp(-127.0, 127.0) as i8;
    }
    (values, scale)
}

/// Int8 weights of one output channel whose `scale` is decided.
pub fn quantize_at_scale(weights: &[f32], scale: f32) -> Vec<i8> {
    /// Added and taken off again, it leaves the nearest integer of what is small: floats of its
    /// size have no fractions. `f32::round` would be a call for each weight.
    const ROUND: f32 = (3 << 22) as f32;
    let quantize = |w: &f32| ((w / scale).clamp(-127.0, 127.0) + ROUND - ROUND) as i8;
    weights.iter().map(quantize).collect()
}

/// Int8 weights of an output channel.
#[derive(Debug)]
pub struct Channel {
    /// Weights.
    pub values: Vec<i8>,
    /// Sum of squares.
    pub error: f64,
    /// Whether some pair was too large.
    pub clips: bool,
}

/// Int8 weights of a channel at `scale`, whose pairs are kept small.
pub fn quantize_at(weights: &[f32], run: usize, scale: f32) -> Channel {
    let mut values = quantize_at_scale(weights, scale);
    let mut clips = false;
    for pair in values.chunks_mut(run.max(1)).flat_map(|run| run.as_chunks_mut().0) {
        let [a, b]: &mut [i8; 2] = pair;
        let sum = i16::from(*a) + i16::from(*b);
        let over = sum.abs() - MAX_PAIR;
        if over > 0 {
            // Both have the sign of the sum and are larger than half of what is too much.
            let (first, sign) = ((over / 2) as i8, sum.signum() as i8);
            *a -= sign * first;
            *b -= sign * (over as i8 - first);
            clips = true;
        }
    }
    // Independent sums, so that the compiler may vectorize.
    const LANES: usize = 8;
    let mut sums = [0f64; LANES];
    let error = |w: f32, q: i8| f64::from(w - scale * f32::from(q));
    let (w, w_rest) = weights.as_chunks::<LANES>();
    let (q, q_rest) = values.as_chunks::<LANES>();
    for (w, q) in w.iter().zip(q) {
        for lane in 0..LANES {
            sums[lane] += error(w[lane], q[lane]).powi(2);
        }
    }
    let rest = w_rest.iter().zip(q_rest).map(|(w, q)| error(*w, *q).powi(2));
    let error = rest.chain(sums).sum();
    Channel { values, error, clips }
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
        let (q, scale) = quantize_channel(&[0.0; 4], 4, 0.0);
        assert_eq!(q, [0; 4]);
        assert!(scale.is_normal());
    }

    #[test]
    fn errors_of_balanced_weights_add_up_to_nothing() {
        let many: Vec<f32> = (0..99).map(|i| (i as f32 * 0.7).sin() * 0.1 + 0.003).collect();
        let nine = [2.03f32, 0.15, 0.09, 0.2, 0.31, 0.11, 0.07, 0.25, 0.18];
        for weights in [&many[..], &nine, &[0.0; 4]] {
            let (q, scale) = quantize_balanced(weights, 0.0);
            assert_eq!(scale, quantize_channel(weights, 1, 0.0).1);
            let errors = weights.iter().zip(&q).map(|(w, q)| w / scale - f32::from(*q));
            let (sum, worst) = errors.fold((0f32, 0f32), |(s, m), e| (s + e, m.max(e.abs())));
            assert!(sum.abs() <= 0.501 && worst <= 1.0, "{sum} {worst}");
        }
    }

    #[test]
    fn pairs_are_kept_small_at_little_cost() {
        // All large; one pair of many; none; three a row, whose third has no neighbour.
        let many: Vec<f32> = (0..99).map(|i| (i as f32 * 0.7).sin() * 0.1).collect();
        let one: Vec<f32> = many.iter().copied().chain([0.09, 0.1]).collect();
        let spread: Vec<f32> = (0..98).map(|i| if i % 2 == 0 { 1.0 } else { 0.001 }).collect();
        for (weights, run) in
            [(&[-1.0; 8][..], 8), (&many, 99), (&one, 101), (&spread, 98), (&many, 3)]
        {
            let (q, scale) = quantize_channel(weights, run, 0.0);
            for pair in q.chunks(run).flat_map(|run| run.as_chunks::<2>().0) {
                assert!((i16::from(pair[0]) + i16::from(pair[1])).abs() <= MAX_PAIR, "{pair:?}");
            }
            let largest = weights.iter().fold(0.0f32, |m, w| m.max(w.abs()));
            for (w, q) in weights.iter().zip(q) {
                assert!((w - scale * f32::from(q)).abs() <= largest / 64.0, "{w} {q}");
            }
        }
        // Nothing to keep small, nothing lost.
        assert_eq!(quantize_channel(&spread, 98, 0.0).1, 1.0 / 127.0);
    }
}
