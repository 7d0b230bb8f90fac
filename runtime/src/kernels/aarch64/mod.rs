//! aarch64: NEON, which every such CPU has, and its dot product.

#![expect(clippy::needless_range_loop, reason = "indices keep accumulators in registers")]

mod dotprod;
mod neon;

pub(crate) use dotprod::DotProd;
pub(crate) use neon::Neon;
