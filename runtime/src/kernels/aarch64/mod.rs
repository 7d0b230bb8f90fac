//! aarch64: NEON, which every such CPU has, its dot product, and arithmetic of halves.

#![expect(clippy::needless_range_loop, reason = "indices keep accumulators in registers")]

mod dotprod;
mod fp16;
mod neon;

pub(crate) use dotprod::DotProd;
use fp16::Fp16;
pub(crate) use neon::Neon;

/// True where the CPU and the operating system have the feature; without std, only what
/// the build was compiled for.
macro_rules! has {
    ($feature:tt) => {{
        #[cfg(feature = "std")]
        let has = std::arch::is_aarch64_feature_detected!($feature);
        #[cfg(not(feature = "std"))]
        let has = cfg!(target_feature = $feature);
        has
    }};
}
use has;
