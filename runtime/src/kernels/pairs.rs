//! What columns are made of: pairs of numbers of 16 bits, see [`super::columns`].

use artifact::layout::{KR_I8, WINDOWS};

/// Panel width.
pub(crate) const NR: usize = 4;

/// Two numbers of 16 bits, the first in the lower half.
pub(crate) type Pair = u32;

/// [`Pair`]s of a group of channels.
pub(crate) const GROUP: usize = WINDOWS * KR_I8 / 2;

/// Accumulators of two outputs for each window.
pub(crate) type Sums = [[i32; WINDOWS]; 2];
