//! Run-time choice of vector instructions, and the crate's only unsafe code.
//!
//! Kernels are plain safe loops over fixed-width arrays; compiled once per instruction set,
//! inside a function that enables it, they become that set's vector code.
#![expect(unsafe_code, reason = "calling a function that enables instructions is unsafe")]

/// A loop nest to be compiled for each instruction set.
///
/// `run` must be `#[inline(always)]`, as must everything it calls: code that stays outside the
/// enabling function is compiled for the baseline.
pub(super) trait Kernel {
    /// `FMA`: fused multiply-add is an instruction (without it `f32::mul_add` is a library
    /// call); `L`: floats in a vector; `M`: rows of three vectors that fit in registers.
    fn run<const FMA: bool, const L: usize, const M: usize>(self);
}

/// An instruction set that this processor has; only detection makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Level(Set);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    Neon,
    Portable,
}

impl Level {
    /// Sets this processor can run, best first.
    pub(super) fn available() -> impl Iterator<Item = Self> {
        let sets = [
            #[cfg(target_arch = "x86_64")]
            (
                Set::Avx512,
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("fma"),
            ),
            #[cfg(target_arch = "x86_64")]
            (Set::Avx2, is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")),
            #[cfg(target_arch = "aarch64")]
            (Set::Neon, true),
            (Set::Portable, true),
        ];
        sets.into_iter().filter_map(|(set, present)| present.then_some(Self(set)))
    }

    /// The best set.
    pub(super) fn detect() -> Self {
        Self::available().next().unwrap_or(Self(Set::Portable))
    }

    /// `L` of the kernels this level runs.
    pub(super) fn lanes(self) -> usize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => 16,
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => 8,
            #[cfg(target_arch = "aarch64")]
            Set::Neon => 4,
            Set::Portable => 4,
        }
    }

    /// `M` of the kernels this level runs.
    pub(super) fn rows(self) -> usize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => 8,
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => 4,
            #[cfg(target_arch = "aarch64")]
            Set::Neon => 8,
            Set::Portable => 4,
        }
    }

    /// Runs the kernel compiled for this level.
    pub(super) fn run<K: Kernel>(self, kernel: K) {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `available` makes this value only after detecting the four features.
            Set::Avx512 => unsafe { avx512(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `available` makes this value only after detecting both features.
            Set::Avx2 => unsafe { avx2(kernel) },
            #[cfg(target_arch = "aarch64")]
            Set::Neon => kernel.run::<true, 4, 8>(),
            Set::Portable => kernel.run::<false, 4, 4>(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,fma")]
fn avx512<K: Kernel>(kernel: K) {
    kernel.run::<true, 16, 8>();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2<K: Kernel>(kernel: K) {
    kernel.run::<true, 8, 4>();
}

/// `a·b + c`, fused where that is one instruction.
#[inline(always)]
pub(super) fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// The `L` floats at `at`.
#[inline(always)]
pub(super) fn lanes<const L: usize>(values: &[f32], at: usize) -> &[f32; L] {
    match values[at..].first_chunk() {
        Some(lanes) => lanes,
        None => panic!("vector at {at} overruns a buffer of {} floats", values.len()),
    }
}

/// Writes `L` floats at `at`.
#[inline(always)]
pub(super) fn store<const L: usize>(values: &mut [f32], at: usize, lanes: &[f32; L]) {
    values[at..][..L].copy_from_slice(lanes);
}

/// `sum + a·b`, lane by lane.
#[inline(always)]
pub(super) fn accumulate<const FMA: bool, const L: usize>(
    sum: &mut [f32; L],
    a: &[f32; L],
    b: &[f32; L],
) {
    for l in 0..L {
        sum[l] = mul_add::<FMA>(a[l], b[l], sum[l]);
    }
}

/// Sum of the lanes, pairwise so that rounding stays small and vector shuffles suffice.
#[inline(always)]
pub(super) fn total<const L: usize>(mut lanes: [f32; L]) -> f32 {
    let mut half = L / 2;
    while half > 0 {
        for l in 0..half {
            lanes[l] += lanes[l + half];
        }
        half /= 2;
    }
    lanes[0]
}
