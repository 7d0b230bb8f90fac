//! Functions by which layers end, and their slopes, of whole vectors.

use crate::dispatch::{LANES, Simd, WHOLE};
use artifact::Curve;

/// A function of each number of a map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// The nearest number within bounds: the least and the largest, which may be infinite. At a
    /// bound, no gradient passes.
    Clamp([f32; 2]),
    /// Another function.
    Curve(Curve),
}

impl Activation {
    /// The number itself.
    pub const NONE: Self = Self::Clamp([f32::NEG_INFINITY, f32::INFINITY]);
    /// `max(x, 0)`.
    pub const RELU: Self = Self::Clamp([0.0, f32::INFINITY]);

    /// Whether it leaves every number as it is.
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }

    /// The results for `x`.
    #[inline(always)]
    pub(super) fn apply<S: Simd>(self, simd: S, x: S::Vector) -> S::Vector {
        match self {
            Self::Clamp(bounds) => simd.within(bounds, x),
            Self::Curve(Curve::HardSwish) => simd.mul(x, step(simd, x)),
            Self::Curve(Curve::HardSigmoid) => step(simd, x),
            Self::Curve(Curve::Sigmoid) => sigmoid(simd, x),
            Self::Curve(Curve::Silu) => simd.mul(x, sigmoid(simd, x)),
            Self::Curve(Curve::Gelu) => simd.mul(x, normal(simd, x)[0]),
        }
    }

    /// `d` times the slopes at `x`.
    #[inline(always)]
    pub(super) fn slope<S: Simd>(self, simd: S, x: S::Vector, d: S::Vector) -> S::Vector {
        let one = splat(simd, 1.0);
        match self {
            Self::Clamp(bounds) => simd.where_between(bounds, x, d),
            Self::Curve(Curve::HardSwish) => {
                let rise = simd.mul(x, splat(simd, 1.0 / 6.0));
                let rise = simd.where_between(RAMP, x, rise);
                simd.mul(d, simd.add(step(simd, x), rise))
            }
            Self::Curve(Curve::HardSigmoid) => {
                simd.where_between(RAMP, x, simd.mul(d, splat(simd, 1.0 / 6.0)))
            }
            Self::Curve(Curve::Sigmoid) => {
                let y = sigmoid(simd, x);
                simd.mul(d, simd.mul(y, simd.sub(one, y)))
            }
            Self::Curve(Curve::Silu) => {
                let y = sigmoid(simd, x);
                let rise = simd.fma(x, simd.sub(one, y), one);
                simd.mul(d, simd.mul(y, rise))
            }
            Self::Curve(Curve::Gelu) => {
                let [share, density] = normal(simd, x);
                simd.mul(d, simd.fma(x, density, share))
            }
        }
    }
}

/// Where the hard curves rise.
const RAMP: [f32; 2] = [-3.0, 3.0];

#[inline(always)]
fn splat<S: Simd>(simd: S, value: f32) -> S::Vector {
    simd.load(&[value; LANES])
}

/// `c₀ + x·(c₁ + x·(c₂ + …))`
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(simd: S, x: S::Vector, c: [f32; N]) -> S::Vector {
    let mut y = splat(simd, c[N - 1]);
    for i in (0..N - 1).rev() {
        y = simd.fma(y, x, splat(simd, c[i]));
    }
    y
}

/// `min(max(x + 3, 0), 6) / 6`
#[inline(always)]
fn step<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    let shifted = simd.add(x, splat(simd, 3.0));
    simd.mul(simd.within([0.0, 6.0], shifted), splat(simd, 1.0 / 6.0))
}

/// `eˣ`, of numbers beyond ±87 that of ±87: `2ⁿ·eʳ` with the series of `eʳ`.
#[inline(always)]
fn exp<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    use core::f32::consts::LOG2_E;

    /// The logarithm of 2 in two parts, of which the first times `n` is exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];

    let x = simd.within([-87.0, 87.0], x);
    let whole = splat(simd, WHOLE);
    let n = simd.sub(simd.fma(x, splat(simd, LOG2_E), whole), whole);
    let r = simd.fma(n, splat(simd, -LN_2[0]), x);
    let r = simd.fma(n, splat(simd, -LN_2[1]), r);
    let series = [1.0, 1.0, 0.5, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0];
    simd.mul(polynomial(simd, r, series), simd.power_of_two(n))
}

/// `1 / (1 + e⁻ˣ)`
#[inline(always)]
fn sigmoid<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    let one = splat(simd, 1.0);
    let minus = simd.sub(splat(simd, 0.0), x);
    simd.div(one, simd.add(one, exp(simd, minus)))
}

/// The normal distribution's function and density.
#[inline(always)]
fn normal<S: Simd>(simd: S, x: S::Vector) -> [S::Vector; 2] {
    use core::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

    /// Abramowitz and Stegun (1964), 7.1.26, for half of `erfc`.
    const TAIL: [f32; 6] =
        [0.0, 0.127_414_8, -0.142_248_37, 0.710_706_9, -0.726_576_01, 0.530_702_7];

    let one = splat(simd, 1.0);
    let below = simd.within([f32::NEG_INFINITY, 0.0], x);
    let above = simd.within([0.0, f32::INFINITY], x);
    let distance = simd.sub(above, below);
    let exponent = simd.mul(simd.mul(x, x), splat(simd, -0.5));
    let bell = exp(simd, exponent);
    let t = simd.fma(distance, splat(simd, 0.327_591_1 * FRAC_1_SQRT_2), one);
    let tail = simd.mul(polynomial(simd, simd.div(one, t), TAIL), bell);
    // What lies on the other side of the mean.
    let rest = simd.fma(tail, splat(simd, -2.0), one);
    let share = simd.add(tail, simd.where_between([0.0, f32::INFINITY], x, rest));
    [share, simd.mul(bell, splat(simd, FRAC_2_SQRT_PI * FRAC_1_SQRT_2 * 0.5))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::{Kernel, Level, Line};
    use network::activation::Activation as Exact;

    /// Results and slopes.
    struct Both<'a>(Activation, Line, &'a mut [Line; 2]);

    impl Kernel for Both<'_> {
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            let x = simd.load(&self.1);
            let slopes = self.0.slope(simd, x, splat(simd, 2.0));
            *self.2 = [simd.store(self.0.apply(simd, x)), simd.store(slopes)];
        }
    }

    #[test]
    fn curves_and_slopes_are_right_at_every_level() {
        let curves = Curve::ALL.map(|curve| (Activation::Curve(curve), Exact::Curve(curve)));
        let clamps = [(Activation::RELU, Exact::RELU), (Activation::NONE, Exact::None)];
        for (activation, exact) in curves.into_iter().chain(clamps) {
            for level in Level::available() {
                for start in -60..60 {
                    let x: Line =
                        core::array::from_fn(|l| ((start * 16 + l as i32) as f32 + 0.37) / 47.0);
                    let mut found = [[0.0; LANES]; 2];
                    level.run(Both(activation, x, &mut found));
                    for l in 0..LANES {
                        let at = f64::from(x[l]);
                        let y = exact.apply(at);
                        let slope = (exact.apply(at + 1e-5) - exact.apply(at - 1e-5)) / 1e-5;
                        let errors = [f64::from(found[0][l]) - y, f64::from(found[1][l]) - slope];
                        let most = errors.map(|e| e.abs() / y.abs().max(1.0));
                        assert!(
                            most[0] < 1e-6 && most[1] < 1e-5,
                            "{activation:?} at {at}: {errors:?} at {level:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn curves_end_well() {
        let ends = [-1e4, 1e4, -200.0, 200.0, f32::NAN];
        let mut x = [0.0; LANES];
        x[..5].copy_from_slice(&ends);
        for level in Level::available() {
            for curve in Curve::ALL {
                let mut found = [[0.0; LANES]; 2];
                level.run(Both(Activation::Curve(curve), x, &mut found));
                let [y, slope] = found;
                assert!(y[..4].iter().chain(&slope[..4]).all(|v| v.is_finite()), "{curve:?}");
                assert!(y[0].abs() < 1e-6 && y[2].abs() < 1e-6, "{curve:?}: {y:?}");
                assert!(y[4].is_nan(), "{curve:?} loses NaN at {level:?}");
            }
        }
    }
}
