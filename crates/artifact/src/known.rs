//! How far a picture lies from those that a model knows.
//!
//! The last operator reads features `x` of one pixel. Of the pictures that the model was calibrated on, a file
//! may hold mean features `m[r]`, one row for each class or one for all, and the inverse variances `w` around
//! them, which all rows share: Mahalanobis' distance with a diagonal covariance,
//! `min over r of Σ w[c] · (x[c] − m[r][c])²` (Lee et al. 2018). All of it is integers, so that it is the same
//! number on every device. Pictures beyond [`Known::threshold`] show something else.

use crate::{Place, Span};
use serde::{Deserialize, Serialize};

/// The record, which stands before those of the operators where the header says that there is one. Since
/// version 9.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// What the last operator reads: int8, one pixel of `c` channels.
    pub features: Place,
    /// Mean features, `1..=classes` of them.
    pub rows: u16,
    /// Means of the stored features, i8 `[rows, c]`.
    pub means: Span,
    /// Inverse variances in any unit, u8 `[c]`; not all zero.
    pub weights: Span,
    /// The largest distance of what is known; not 0.
    pub threshold: u64,
    /// Mean distance of pictures like those of the calibration; not 0.
    pub usual: u64,
}

/// The distance of `features`, which are stored XORed with `flip`, to the nearest row of `means`.
///
/// At most 65,535 channels · 255 · 255² is less than 2^41. `u64::MAX` without a whole row, which no checked
/// model has.
pub fn distance(features: &[u8], flip: i8, means: &[u8], weights: &[u8]) -> u64 {
    /// Products that a sum of 32 bits holds: `256 · 255 · 255² < 2^32`.
    const RUN: usize = 256;
    let row = |means: &[u8]| -> u64 {
        let parts = features.chunks(RUN).zip(means.chunks(RUN)).zip(weights.chunks(RUN));
        let part = |((x, means), weights): ((&[u8], &[u8]), &[u8])| -> u64 {
            let terms = x.iter().zip(means).zip(weights).map(|((&x, &mean), &weight)| {
                let apart = i32::from(x as i8 ^ flip) - i32::from(mean as i8);
                (apart * apart) as u32 * u32::from(weight)
            });
            terms.sum::<u32>().into()
        };
        parts.map(part).sum()
    };
    means.chunks_exact(features.len().max(1)).map(row).min().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_row_counts_whatever_memory_is_flipped_by() {
        let features = [5i8, -128, 127].map(i8::cast_unsigned);
        let means = [5i8, -127, 127, 0, 0, 0].map(i8::cast_unsigned);
        let weights = [255, 3, 1];
        assert_eq!(distance(&features, 0, &means, &weights), 3);
        assert_eq!(distance(&features.map(|x| x ^ 0x80), -128, &means, &weights), 3);
        let far = 25 * 255 + 128 * 128 * 3 + 127 * 127;
        assert_eq!(distance(&features, 0, &means[3..], &weights), far);
    }

    #[test]
    fn the_largest_sums_are_exact() {
        const LEN: usize = 65_535;
        let (low, high, weights) = ([0x80; LEN], [0x7f; LEN], [255; LEN]);
        let largest = LEN as u64 * 255 * 255 * 255;
        assert_eq!(distance(&low, 0, &high, &weights), largest);
        assert!(largest < 1 << 41);
        assert_eq!(distance(&low, 0, &high[1..], &weights), u64::MAX);
        assert_eq!(distance(&[], 0, &[], &[]), u64::MAX);
    }
}
