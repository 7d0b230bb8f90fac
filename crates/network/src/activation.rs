//! What a layer does with each of its sums.

use artifact::Curve;
use serde::{Deserialize, Serialize};

/// A function of one number, by which layers end.
///
/// In files it stands as its name ([`Self::by_name`]).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum Activation {
    /// The number itself.
    #[default]
    None,
    /// The nearest number within bounds.
    Clamp {
        /// The least.
        low: f32,
        /// The largest, or infinity.
        high: f32,
    },
    /// Another function.
    Curve(Curve),
}

impl Activation {
    /// `max(x, 0)`.
    pub const RELU: Self = Self::Clamp { low: 0.0, high: f32::INFINITY };
    /// `min(max(x, 0), 6)`: MobileNets'.
    pub const RELU6: Self = Self::Clamp { low: 0.0, high: 6.0 };
    /// `x · σ(x)`: EfficientNets'.
    pub const SILU: Self = Self::Curve(Curve::Silu);
    /// `x · min(max(x + 3, 0), 6) / 6`: MobileNetV3's.
    pub const HARD_SWISH: Self = Self::Curve(Curve::HardSwish);
    /// `min(max(x + 3, 0), 6) / 6`: MobileNetV3's gates'.
    pub const HARD_SIGMOID: Self = Self::Curve(Curve::HardSigmoid);
    /// `σ(x) = 1 / (1 + e⁻ˣ)`: EfficientNets' gates'.
    pub const SIGMOID: Self = Self::Curve(Curve::Sigmoid);

    /// The bounds of one that does nothing else than to keep them; of none, infinite ones.
    pub const fn clamp(self) -> Option<[f32; 2]> {
        match self {
            Self::None => Some([f32::NEG_INFINITY, f32::INFINITY]),
            Self::Clamp { low, high } => Some([low, high]),
            Self::Curve(_) => None,
        }
    }

    /// Whether it leaves every number as it is.
    pub fn is_none(self) -> bool {
        self == Self::None
    }

    /// The one that does what both do, one after the other; `None` where there is no such.
    #[must_use]
    pub fn then(self, next: Self) -> Option<Self> {
        match (self, next) {
            (first, Self::None) => Some(first),
            (Self::None, next) => Some(next),
            _ => {
                let ([least, most], [low, high]) = (self.clamp()?, next.clamp()?);
                let [low, high] = [least, most].map(|bound| bound.max(low).min(high));
                Some(Self::Clamp { low, high })
            }
        }
    }

    /// Name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "identity",
            _ if self == Self::RELU => "relu",
            _ if self == Self::RELU6 => "relu6",
            Self::Clamp { .. } => "clamp",
            Self::Curve(curve) => curve.name(),
        }
    }

    /// The one of a [`name`](Self::name); none of those that do nothing or have bounds of their own.
    pub fn by_name(name: &str) -> Option<Self> {
        let mut named = [Self::RELU, Self::RELU6].into_iter().chain(Curve::ALL.map(Self::Curve));
        named.find(|activation| activation.name() == name)
    }

    /// The result for one number.
    pub fn apply(self, x: f64) -> f64 {
        match self {
            Self::None => x,
            // NaN becomes the least number, as in the kernels; of no bounds it stays.
            Self::Clamp { low, high } => x.max(low.into()).min(high.into()),
            Self::Curve(curve) => {
                let step = (x + 3.0).clamp(0.0, 6.0) / 6.0;
                let sigmoid = 1.0 / (1.0 + (-x).exp());
                match curve {
                    Curve::HardSwish => x * step,
                    Curve::HardSigmoid => step,
                    Curve::Sigmoid => sigmoid,
                    Curve::Silu => x * sigmoid,
                    Curve::Gelu => x * 0.5 * libm::erfc(-x * core::f64::consts::FRAC_1_SQRT_2),
                }
            }
        }
    }
}

impl From<Activation> for &'static str {
    fn from(activation: Activation) -> Self {
        activation.name()
    }
}

impl TryFrom<String> for Activation {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Self::by_name(&name)
            .ok_or_else(|| format!("activation `{name}`, which this build does not know"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clamps_join() {
        let clamp = |low, high| Activation::Clamp { low, high };
        for (first, next) in [
            (Activation::None, Activation::RELU6),
            (Activation::RELU6, Activation::RELU),
            (Activation::RELU, Activation::RELU6),
            (Activation::RELU6, Activation::None),
            (Activation::None, Activation::SILU),
            (Activation::SILU, Activation::None),
            (clamp(-1.0, 1.0), clamp(2.0, 3.0)),
            (clamp(-3.0, -2.0), Activation::RELU),
        ] {
            for x in [-4.0, -2.5, -0.5, 0.0, 0.5, 2.5, 7.0] {
                let both = first.then(next).unwrap().apply(x);
                assert_eq!(both, next.apply(first.apply(x)), "{first:?} {x}");
            }
        }
        assert_eq!(Activation::RELU.then(Activation::RELU), Some(Activation::RELU));
        assert_eq!(Activation::SILU.then(Activation::RELU), None);
    }

    #[test]
    fn names_lead_back() {
        for activation in [Activation::RELU, Activation::RELU6, Activation::HARD_SWISH] {
            let written = serde_json::to_string(&activation).unwrap();
            assert_eq!(written, format!("\"{}\"", activation.name()));
            assert_eq!(serde_json::from_str::<Activation>(&written).unwrap(), activation);
        }
        for unknown in ["\"identity\"", "\"clamp\"", "\"\"", "6"] {
            assert!(serde_json::from_str::<Activation>(unknown).is_err(), "{unknown}");
        }
    }

    /// Right values: of PyTorch 2's `hardswish`, `hardsigmoid`, `sigmoid`, `silu` and `gelu`.
    #[test]
    fn curves_are_the_published_ones() {
        for (curve, expected) in [
            (Curve::HardSwish, [0.0, -0.333_333_333, 0.666_666_667, 4.0]),
            (Curve::HardSigmoid, [0.0, 0.333_333_333, 0.666_666_667, 1.0]),
            (Curve::Sigmoid, [0.017_986_210, 0.268_941_421, 0.731_058_579, 0.982_013_790]),
            (Curve::Silu, [-0.071_944_840, -0.268_941_421, 0.731_058_579, 3.928_055_160]),
            (Curve::Gelu, [-0.000_126_685, -0.158_655_254, 0.841_344_746, 3.999_873_315]),
        ] {
            for (x, expected) in [-4.0, -1.0, 1.0, 4.0].into_iter().zip(expected) {
                let y = Activation::Curve(curve).apply(x);
                assert!((y - expected).abs() < 1e-6, "{curve:?}({x}) = {y}");
            }
        }
    }
}
