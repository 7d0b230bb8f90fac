//! What a layer does with each of its sums.

/// A function of one number, by which layers end.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
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
}

impl Activation {
    /// `max(x, 0)`.
    pub const RELU: Self = Self::Clamp { low: 0.0, high: f32::INFINITY };
    /// `min(max(x, 0), 6)`: MobileNets'.
    pub const RELU6: Self = Self::Clamp { low: 0.0, high: 6.0 };

    /// Between which numbers all results lie.
    pub const fn bounds(self) -> [f32; 2] {
        match self {
            Self::None => [f32::NEG_INFINITY, f32::INFINITY],
            Self::Clamp { low, high } => [low, high],
        }
    }

    /// Whether it leaves every number as it is.
    pub fn is_none(self) -> bool {
        self == Self::None
    }

    /// What both are, one after the other.
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        match next {
            Self::None => self,
            Self::Clamp { low, high } => {
                let [least, most] = self.bounds().map(|bound| bound.max(low).min(high));
                Self::Clamp { low: least, high: most }
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
        }
    }

    /// The result for one number.
    pub fn apply(self, x: f64) -> f64 {
        let [low, high] = self.bounds().map(f64::from);
        // NaN becomes the least number, as in the kernels; of no bounds it stays.
        match self {
            Self::None => x,
            Self::Clamp { .. } => x.max(low).min(high),
        }
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
            (clamp(-1.0, 1.0), clamp(2.0, 3.0)),
            (clamp(-3.0, -2.0), Activation::RELU),
        ] {
            for x in [-4.0, -2.5, -0.5, 0.0, 0.5, 2.5, 7.0] {
                assert_eq!(first.then(next).apply(x), next.apply(first.apply(x)), "{first:?} {x}");
            }
        }
        assert_eq!(Activation::RELU.then(Activation::RELU), Activation::RELU);
    }
}
