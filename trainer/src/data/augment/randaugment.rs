//! RandAugment (Cubuk et al. 2019): a few operations drawn from a fixed list, all at one
//! strength.

use super::Raster;
use super::raster::{Affine, Fill, Sampling, about_center, rotation};
use network::random::Rng;

/// Strength that stands for the paper's largest changes.
pub(super) const MAX_MAGNITUDE: f64 = 10.0;
/// What lies outside of a moved picture: mid grey.
const OUTSIDE: Fill = Fill::Constant(128.0);

#[derive(Debug, Clone, Copy)]
enum Operation {
    Identity,
    AutoContrast,
    Equalize,
    Rotate,
    Solarize,
    Saturation,
    Posterize,
    Contrast,
    Brightness,
    Sharpness,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
}

/// The paper's list.
const OPERATIONS: [Operation; 14] = [
    Operation::Identity,
    Operation::AutoContrast,
    Operation::Equalize,
    Operation::Rotate,
    Operation::Solarize,
    Operation::Saturation,
    Operation::Posterize,
    Operation::Contrast,
    Operation::Brightness,
    Operation::Sharpness,
    Operation::ShearX,
    Operation::ShearY,
    Operation::TranslateX,
    Operation::TranslateY,
];

/// Applies `count` operations at `magnitude`, 0..=[`MAX_MAGNITUDE`].
pub(super) fn apply(raster: &mut Raster, count: u32, magnitude: f64, rng: &mut Rng) {
    for _ in 0..count {
        let operation = OPERATIONS[rng.below(OPERATIONS.len())];
        // Symmetric changes go either way; drawn always, so that every operation takes as
        // many numbers.
        let sign = if rng.unit() < 0.5 { 1.0 } else { -1.0 };
        operation.apply(raster, magnitude / MAX_MAGNITUDE, sign);
    }
}

impl Operation {
    /// `strength` in 0..=1; the largest changes are those of the reference implementations.
    fn apply(self, raster: &mut Raster, strength: f64, sign: f64) {
        let factor = (1.0 + sign * 0.9 * strength) as f32;
        let (height, width) = (raster.height, raster.width);
        let about = |linear| about_center(linear, height, width);
        match self {
            Self::Identity => {}
            Self::AutoContrast => raster.auto_contrast(),
            Self::Equalize => raster.equalize(),
            Self::Rotate => {
                let angle = sign * (30.0 * strength).to_radians();
                warp(raster, rotation(angle, height, width));
            }
            Self::Solarize => raster.solarize((256.0 * (1.0 - strength)) as f32),
            Self::Saturation => raster.saturation(factor),
            Self::Posterize => raster.posterize(8 - (4.0 * strength).round() as u32),
            Self::Contrast => raster.contrast(factor),
            Self::Brightness => raster.brightness(factor),
            Self::Sharpness => raster.sharpness(factor),
            Self::ShearX => warp(raster, about([1.0, sign * 0.3 * strength, 0.0, 1.0])),
            Self::ShearY => warp(raster, about([1.0, 0.0, sign * 0.3 * strength, 1.0])),
            Self::TranslateX => {
                let by = sign * 0.45 * strength * width as f64;
                warp(raster, [1.0, 0.0, by, 0.0, 1.0, 0.0]);
            }
            Self::TranslateY => {
                let by = sign * 0.45 * strength * height as f64;
                warp(raster, [1.0, 0.0, 0.0, 0.0, 1.0, by]);
            }
        }
    }
}

fn warp(raster: &mut Raster, map: Affine) {
    *raster = raster.transform(map, OUTSIDE, Sampling::Bilinear);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_keeps_size_and_range() {
        let pixels: Vec<f32> = (0..5 * 4 * 3).map(|i| (i * 53 % 256) as f32).collect();
        let picture = Raster { height: 5, width: 4, pixels };
        for operation in OPERATIONS {
            for sign in [-1.0, 1.0] {
                let mut raster = picture.clone();
                operation.apply(&mut raster, 1.0, sign);
                assert_eq!(raster.pixels.len(), picture.pixels.len());
                assert!(raster.pixels.iter().all(|v| (0.0..=255.0).contains(v)), "{operation:?}");
                let same = raster == picture;
                assert_eq!(same, matches!(operation, Operation::Identity), "{operation:?}");
            }
        }
    }
}
