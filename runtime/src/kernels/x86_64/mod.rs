//! x86-64: SSSE3, AVX2, AVX-512 VNNI and AVX-512 BF16.

mod avx2;
mod avx2_any;
mod avx2_i8;
mod avx2_mixed;
mod avx2_widened;
pub(crate) mod avx2_winograd;
mod avx512;
mod avx512_bf16;
mod avx512_depthwise;
mod ssse3;

pub(crate) use avx2::Avx2;
pub(crate) use avx2_i8::all_shifts_are_large;
pub(crate) use avx512::Avx512Vnni;
pub(crate) use ssse3::Ssse3;

/// True where the CPU and the operating system have the feature; without std, only what
/// the build was compiled for.
macro_rules! has {
    ($feature:tt) => {{
        #[cfg(feature = "std")]
        let has = std::arch::is_x86_feature_detected!($feature);
        #[cfg(not(feature = "std"))]
        let has = cfg!(target_feature = $feature);
        has
    }};
}
pub(crate) use has;
