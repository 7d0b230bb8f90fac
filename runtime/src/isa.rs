//! Instruction sets by name.

use crate::kernels::Lanes;
#[cfg(target_arch = "aarch64")]
use crate::kernels::aarch64::{DotProd, Neon};
use crate::kernels::scalar::Scalar;
#[cfg(edge_simd128)]
use crate::kernels::wasm32::Simd128;
#[cfg(target_arch = "x86_64")]
use crate::kernels::x86_64::{Avx2, Avx512Vnni, Ssse3};
use artifact::Dtype;
use core::fmt;
use half::bf16;

/// An instruction set that this CPU has; a value can only be had where it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isa(pub(crate) Token);

/// Proofs of the instruction sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    Scalar(Scalar),
    #[cfg(target_arch = "x86_64")]
    Ssse3(Ssse3),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Avx512Vnni),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
    #[cfg(target_arch = "aarch64")]
    DotProd(DotProd),
    #[cfg(edge_simd128)]
    Simd128(Simd128),
}

/// `body` with `t` the token of an instruction set, whatever its type.
macro_rules! with_token {
    ($isa:expr, $t:ident => $body:expr) => {
        match $isa.0 {
            $crate::isa::Token::Scalar($t) => $body,
            #[cfg(target_arch = "x86_64")]
            $crate::isa::Token::Ssse3($t) => $body,
            #[cfg(target_arch = "x86_64")]
            $crate::isa::Token::Avx2($t) => $body,
            #[cfg(target_arch = "x86_64")]
            $crate::isa::Token::Avx512Vnni($t) => $body,
            #[cfg(target_arch = "aarch64")]
            $crate::isa::Token::Neon($t) => $body,
            #[cfg(target_arch = "aarch64")]
            $crate::isa::Token::DotProd($t) => $body,
            #[cfg(edge_simd128)]
            $crate::isa::Token::Simd128($t) => $body,
        }
    };
}
pub(crate) use with_token;

impl Isa {
    /// Plain Rust, on every CPU.
    pub const SCALAR: Self = Self(Token::Scalar(Scalar));

    /// Instruction sets of this CPU, best first; scalar is always the last.
    pub fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let (plain, bf16) = (Avx512Vnni::new(), Avx512Vnni::with_bf16());
        #[cfg(target_arch = "x86_64")]
        let is_first = bf16.is_some() && Avx512Vnni::prefers_bf16();
        #[cfg(target_arch = "x86_64")]
        let avx512 = if is_first { [bf16, plain] } else { [plain, bf16] };
        #[cfg(target_arch = "x86_64")]
        let special = [
            avx512[0].map(|t| Self(Token::Avx512Vnni(t))),
            avx512[1].map(|t| Self(Token::Avx512Vnni(t))),
            Avx2::with_vnni().map(|t| Self(Token::Avx2(t))),
            Avx2::new().map(|t| Self(Token::Avx2(t))),
            Ssse3::new().map(|t| Self(Token::Ssse3(t))),
        ];
        #[cfg(target_arch = "aarch64")]
        let special = [
            DotProd::new().map(|t| Self(Token::DotProd(t))),
            Neon::new().map(|t| Self(Token::Neon(t))),
        ];
        #[cfg(edge_simd128)]
        let special = [Some(Self(Token::Simd128(Simd128)))];
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", edge_simd128)))]
        let special = [None::<Self>; 0];
        special.into_iter().flatten().chain([Self::SCALAR])
    }

    /// The best of [`Self::available`].
    pub fn detect() -> Self {
        Self::available().next().unwrap_or(Self::SCALAR)
    }

    /// Runs the inner loop of convolutions `rounds` times on operands in the nearest cache, for a
    /// model of `dtype` on a host; returns how many multiply-accumulates that were. Timed, it is
    /// the rate that no convolution exceeds.
    pub fn peak(self, dtype: Dtype, rounds: usize) -> u64 {
        with_token!(self, t => peak(t, dtype, rounds))
    }

    /// Pixels that its convolutions take at a time, of which chunks should be multiples.
    pub(crate) const fn tile(self, dtype: Dtype) -> usize {
        match (self.0, dtype) {
            (Token::Scalar(_), _) => 1,
            #[cfg(target_arch = "x86_64")]
            (Token::Ssse3(_), _) => 2,
            #[cfg(target_arch = "x86_64")]
            (Token::Avx2(t), Dtype::I8) if !t.has_vnni() => 4,
            #[cfg(target_arch = "x86_64")]
            (Token::Avx2(_) | Token::Avx512Vnni(_), _) => 6,
            #[cfg(target_arch = "aarch64")]
            (Token::Neon(_), Dtype::I8) => 2,
            #[cfg(target_arch = "aarch64")]
            (Token::DotProd(t), Dtype::F16) if t.fp16().is_some() => 4,
            #[cfg(target_arch = "aarch64")]
            (Token::Neon(_) | Token::DotProd(_), _) => 5,
            #[cfg(edge_simd128)]
            (Token::Simd128(_), _) => 2,
        }
    }

    /// Whether it multiplies bf16 as they are. [`Self::detect`] gives such a one only where that is
    /// faster than making f32 of them.
    pub const fn multiplies_bf16(self) -> bool {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Token::Avx512Vnni(t) => t.has_bf16(),
            _ => false,
        }
    }

    /// Its name, as `--isa` takes it.
    pub const fn name(self) -> &'static str {
        match self.0 {
            Token::Scalar(_) => "scalar",
            #[cfg(target_arch = "x86_64")]
            Token::Ssse3(_) => "ssse3",
            #[cfg(target_arch = "x86_64")]
            Token::Avx2(t) if t.has_vnni() => "avx-vnni",
            #[cfg(target_arch = "x86_64")]
            Token::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Token::Avx512Vnni(t) if t.has_bf16() => "avx512-bf16",
            #[cfg(target_arch = "x86_64")]
            Token::Avx512Vnni(_) => "avx512-vnni",
            #[cfg(target_arch = "aarch64")]
            Token::Neon(_) => "neon",
            #[cfg(target_arch = "aarch64")]
            Token::DotProd(_) => "dotprod",
            #[cfg(edge_simd128)]
            Token::Simd128(_) => "simd128",
        }
    }
}

fn peak<T>(isa: T, dtype: Dtype, rounds: usize) -> u64
where
    T: Lanes<16, i8, i8> + Lanes<16, f32, f32> + Lanes<16, f32, u16> + Lanes<16, f32, bf16>,
{
    match dtype {
        Dtype::I8 => Lanes::<16, i8, i8>::peak(isa, rounds),
        Dtype::F32 => Lanes::<16, f32, f32>::peak(isa, rounds),
        Dtype::F16 => Lanes::<16, f32, u16>::peak(isa, rounds),
        Dtype::Bf16 => Lanes::<16, f32, bf16>::peak(isa, rounds),
    }
}

/// A name that is no instruction set of this CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownIsa;

impl fmt::Display for UnknownIsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not an instruction set of this CPU; it has")?;
        Isa::available().try_for_each(|isa| write!(f, " {}", isa.name()))
    }
}

impl core::error::Error for UnknownIsa {}

impl core::str::FromStr for Isa {
    type Err = UnknownIsa;

    fn from_str(name: &str) -> Result<Self, UnknownIsa> {
        Self::available().find(|isa| isa.name() == name).ok_or(UnknownIsa)
    }
}
