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
