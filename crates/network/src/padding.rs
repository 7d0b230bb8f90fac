//! How windows are padded: THE rules, for graphs, modules and exports.

use serde::{Deserialize, Serialize};

/// How a network pads its convolutions and the pool of its stem.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConvPadding {
    /// `(filter − 1) / 2` on each side: KerasHub and PyTorch.
    #[default]
    Symmetric,
    /// [`same_padding`]: TensorFlow and Keras with `padding="same"`.
    Same,
}

impl ConvPadding {
    /// Pixels before and after an axis of `input` pixels.
    pub const fn sides(self, input: usize, filter: usize, stride: usize) -> (usize, usize) {
        match self {
            Self::Symmetric => (filter.saturating_sub(1) / 2, filter.saturating_sub(1) / 2),
            Self::Same => same_padding(input, filter, stride),
        }
    }
}

/// TensorFlow's "same": as many pixels as `⌈input/stride⌉` windows lack, half of them before the
/// axis and, where they are odd, one more after it.
pub const fn same_padding(input: usize, filter: usize, stride: usize) -> (usize, usize) {
    let last = input.div_ceil(stride).saturating_sub(1) * stride;
    let lacking = (last + filter).saturating_sub(input);
    (lacking / 2, lacking - lacking / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_padding_is_tensorflows() {
        for (input, filter, stride, sides) in [
            (32, 3, 1, (1, 1)),
            (32, 3, 2, (0, 1)),
            (33, 3, 2, (1, 1)),
            (224, 7, 2, (2, 3)),
            (32, 1, 2, (0, 0)),
            (33, 2, 2, (0, 1)),
            (1, 3, 2, (1, 1)),
        ] {
            assert_eq!(ConvPadding::Same.sides(input, filter, stride), sides);
        }
        assert_eq!(ConvPadding::Symmetric.sides(32, 3, 2), (1, 1));
    }
}
