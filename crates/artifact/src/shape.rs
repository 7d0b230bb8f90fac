//! Shapes and the one output-size rule.

use serde::{Deserialize, Serialize};

/// Height, width and channels of one NHWC activation (batch is always one).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Rows.
    pub h: u16,
    /// Columns.
    pub w: u16,
    /// Channels.
    pub c: u16,
}

impl Shape {
    /// `[h, w, c]`.
    pub const fn new(h: u16, w: u16, c: u16) -> Self {
        Self { h, w, c }
    }

    /// Number of pixels, `h · w`.
    pub const fn pixels(self) -> usize {
        self.h as usize * self.w as usize
    }

    /// Number of elements, `h · w · c`; `None` where it leaves `u32`.
    pub const fn checked_len(self) -> Option<usize> {
        let len = self.h as u64 * self.w as u64 * self.c as u64;
        if len <= u32::MAX as u64 && len <= usize::MAX as u64 { Some(len as usize) } else { None }
    }

    /// Number of elements, `h · w · c`, of a shape that [`Self::checked_len`] accepted.
    pub const fn len(self) -> usize {
        self.pixels() * self.c as usize
    }

    /// True where a dimension is zero.
    pub const fn is_empty(self) -> bool {
        self.h == 0 || self.w == 0 || self.c == 0
    }
}

/// Zero-pixels added on each side of a map.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Padding {
    /// Rows above.
    pub top: u8,
    /// Columns to the left.
    pub left: u8,
    /// Rows below.
    pub bottom: u8,
    /// Columns to the right.
    pub right: u8,
}

impl Padding {
    /// The same number of pixels on every side.
    pub const fn same(p: u8) -> Self {
        Self { top: p, left: p, bottom: p, right: p }
    }
}

/// `⌊(input + before + after − filter) / stride⌋ + 1`: THE output-size rule.
///
/// `None` where the filter is empty or larger than the padded input, or the stride is zero.
pub const fn output_len(
    input: u16,
    before: u8,
    after: u8,
    filter: u16,
    stride: u16,
) -> Option<u16> {
    let padded = input as u32 + before as u32 + after as u32;
    if filter == 0 || stride == 0 || filter as u32 > padded {
        return None;
    }
    let out = (padded - filter as u32) / stride as u32 + 1;
    if out <= u16::MAX as u32 { Some(out as u16) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_sizes() {
        for (input, before, after, filter, stride, want) in [
            (224, 3, 3, 7, 2, Some(112)),
            (112, 1, 1, 3, 2, Some(56)),
            (32, 1, 1, 3, 1, Some(32)),
            (7, 0, 0, 7, 1, Some(1)),
            (2, 0, 0, 3, 1, None),
            (5, 0, 0, 0, 1, None),
            (5, 0, 0, 1, 0, None),
            (u16::MAX, 255, 255, 1, 1, None),
        ] {
            assert_eq!(output_len(input, before, after, filter, stride), want);
        }
    }

    #[test]
    fn products_do_not_wrap() {
        assert_eq!(Shape::new(u16::MAX, u16::MAX, u16::MAX).checked_len(), None);
        assert_eq!(Shape::new(2, 3, 4).checked_len(), Some(24));
    }
}
