//! What columns are made of: pairs of numbers of 16 bits, see [`super::columns`].

use artifact::Dtype;
use artifact::layout::{KR_I8, WINDOWS, conv_planes};

/// Panel width.
pub(crate) const NR: usize = 4;
/// Planes of a panel's parameters.
pub(crate) const PLANES: usize = conv_planes(Dtype::I8, NR);

/// Two numbers of 16 bits, the first in the lower half.
pub(crate) type Pair = u32;

/// [`Pair`]s of a group of channels.
pub(crate) const GROUP: usize = WINDOWS * KR_I8 / 2;

/// Accumulators of two outputs for each window.
pub(crate) type Sums = [[i32; WINDOWS]; 2];
