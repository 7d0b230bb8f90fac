//! Run-time choice of vector instructions, and nearly all of the crate's unsafe code.
//!
//! Kernels are plain safe loops over fixed-width arrays; compiled once per instruction set,
//! inside a function that enables it, they become that set's vector code.
#![expect(unsafe_code, reason = "calling a function that enables instructions is unsafe")]

#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;
use std::sync::OnceLock;

/// Channels of a block: a vector of f32 of AVX-512, whole vectors of smaller ones.
pub(super) const LANES: usize = 16;

/// One value for each channel of a block.
pub(super) type Line<E = f32> = [E; LANES];

/// Repeats a statement for each `m` below `M ≤ 16`. A loop would do the same, but not every
/// loop of this size is unrolled by the compiler, and only then do sums stay in registers.
macro_rules! unroll {
    ($m:ident < $M:expr, $body:block) => {
        unroll!(@ $m ($M) $body 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $m:ident ($M:expr) $body:block $($n:literal)*) => {
        $(if $n < $M {
            let $m = $n;
            $body
        })*
    };
}
pub(super) use unroll;

/// Added to a small number, it leaves the nearest whole one in the sum's lowest bits.
pub(super) const WHOLE: f32 = 12_582_912.0;

/// A loop nest to be compiled for each instruction set.
///
/// `run` must be `#[inline(always)]`, as must everything it calls: code that stays outside the
/// enabling function is compiled for the baseline. Closures, also those of `map` of arrays, do so
/// at the compiler's whim.
pub(super) trait Kernel {
    fn run<S: Simd>(self, simd: S);
}

/// What instruction sets do differently; a value is proof that the processor has them.
pub(super) trait Simd: Copy {
    /// Fused multiply-add is an instruction; without it `f32::mul_add` is a library call.
    const FMA: bool;

    /// Lines of sums that registers hold beside what is added to them.
    const LINES: usize;

    /// A line in registers. What becomes of loops over lines in memory depends on the compiler's
    /// mood: it may keep sums in memory, or gather what lies side by side.
    type Vector: Copy;

    /// To registers.
    fn load(self, line: &Line) -> Self::Vector;

    /// To memory.
    fn store(self, v: Self::Vector) -> Line;

    /// `a + b`
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// `a − b`
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// `a·b + c`
    fn fma(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;

    /// `a·b`
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// `a / b`
    fn div(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// Lane by lane, the nearest number within bounds; NaN stays NaN.
    fn within(self, bounds: [f32; 2], v: Self::Vector) -> Self::Vector;

    /// Lanes of `d` where `y` lies between bounds and is neither, zero elsewhere.
    fn where_between(self, bounds: [f32; 2], y: Self::Vector, d: Self::Vector) -> Self::Vector;

    /// Lane by lane, the larger of `best` and `v` and what belongs to it: `own` or, of `v`, `other`.
    /// Nothing is larger than NaN, so that it cannot be lost.
    #[inline(always)]
    fn larger(
        self,
        [best, own]: [Self::Vector; 2],
        [v, other]: [Self::Vector; 2],
    ) -> [Self::Vector; 2] {
        let (mut best, mut own) = (self.store(best), self.store(own));
        let (v, other) = (self.store(v), self.store(other));
        for l in 0..LANES {
            let larger = v[l] > best[l] || v[l].is_nan();
            best[l] = if larger { v[l] } else { best[l] };
            own[l] = if larger { other[l] } else { own[l] };
        }
        [self.load(&best), self.load(&own)]
    }

    /// `2ⁿ` of whole numbers from −126 to 127.
    #[inline(always)]
    fn power_of_two(self, n: Self::Vector) -> Self::Vector {
        let mut line = self.store(self.add(n, self.load(&[WHOLE; LANES])));
        for value in &mut line {
            *value = f32::from_bits(value.to_bits().wrapping_add(127) << 23);
        }
        self.load(&line)
    }

    /// `sums + x·w`
    fn add_product(self, sums: Self::Vector, x: f32, w: &Line) -> Self::Vector;

    /// `sums[l] + x₀·w[l]₀ + x₁·w[l]₁`, where an operand holds two bf16 numbers, the first in its
    /// low half.
    #[inline(always)]
    fn add_pairs(self, sums: Self::Vector, x: u32, w: &[u32; LANES]) -> Self::Vector {
        let (mut low, mut high) = ([0.0; LANES], [0.0; LANES]);
        for l in 0..LANES {
            [low[l], high[l]] = halves(w[l]);
        }
        let [x_low, x_high] = halves(x);
        self.add_product(self.add_product(sums, x_high, &high), x_low, &low)
    }

    /// bf16 numbers, as their bits, to f32.
    #[inline(always)]
    fn widen(self, bits: &Line<u16>) -> Self::Vector {
        let mut line = [0.0; LANES];
        for l in 0..LANES {
            line[l] = f32::from_bits(u32::from(bits[l]) << 16);
        }
        self.load(&line)
    }

    /// The bits of the nearest bf16 numbers, of equally near ones the even.
    #[inline(always)]
    fn narrow(self, v: Self::Vector) -> Line<u16> {
        let line = self.store(v);
        let mut bits = [0; LANES];
        for l in 0..LANES {
            bits[l] = to_bf16(line[l]);
        }
        bits
    }

    /// `a·b + c`, fused where that is one instruction.
    #[inline(always)]
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        if Self::FMA { a.mul_add(b, c) } else { a * b + c }
    }
}

/// The two bf16 numbers of an operand.
#[inline(always)]
fn halves(operand: u32) -> [f32; 2] {
    [f32::from_bits(operand << 16), f32::from_bits(operand & 0xffff_0000)]
}

/// The bits of the nearest bf16 number, of equally near ones the even. `half`'s own conversion is
/// the same, but not made of vector instructions.
#[inline(always)]
pub(super) fn to_bf16(v: f32) -> u16 {
    let bits = v.to_bits();
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    // A NaN whose payload is all ones would be carried over to zero.
    let quiet = bits >> 16 | 0x40;
    (if v.is_nan() { quiet } else { nearest }) as u16
}

/// An instruction set that this processor has; only detection makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Level(Set);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    Neon,
    Portable,
}

static CHOSEN: OnceLock<Level> = OnceLock::new();

/// Largest tile of a convolution: its sums and one vector of weights stay in registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TileSize {
    /// Pixels.
    pub(super) pixels: usize,
    /// Blocks of channels.
    pub(super) blocks: usize,
}

impl Level {
    /// Sets this processor can run, best first.
    pub(super) fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("fma");
        #[cfg(target_arch = "x86_64")]
        let mut avx512_sets = [
            (Set::Avx512Bf16, avx512 && is_x86_feature_detected!("avx512bf16")),
            (Set::Avx512, avx512),
        ];
        // Some CPUs take longer for BF16 than for the same products of f32.
        #[cfg(target_arch = "x86_64")]
        if !runtime::Isa::detect().multiplies_bf16() {
            avx512_sets.reverse();
        }
        let sets = [
            #[cfg(target_arch = "x86_64")]
            avx512_sets[0],
            #[cfg(target_arch = "x86_64")]
            avx512_sets[1],
            #[cfg(target_arch = "x86_64")]
            (Set::Avx2, is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")),
            #[cfg(target_arch = "aarch64")]
            (Set::Neon, true),
            (Set::Portable, true),
        ];
        sets.into_iter().filter_map(|(set, present)| present.then_some(Self(set)))
    }

    /// What `--isa` of a program calls it.
    pub(super) fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Set::Avx512Bf16 => "avx512-bf16",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => "avx2",
            #[cfg(target_arch = "aarch64")]
            Set::Neon => "neon",
            Set::Portable => "scalar",
        }
    }

    /// Makes it what [`Self::detect`] finds; whether it is.
    pub(super) fn choose(self) -> bool {
        *CHOSEN.get_or_init(|| self) == self
    }

    /// The set that was chosen, or the best, looked for once: every operator asks.
    pub(super) fn detect() -> Self {
        *CHOSEN.get_or_init(|| Self::available().next().unwrap_or(Self(Set::Portable)))
    }

    /// Whether two bf16 products are one instruction.
    pub(super) fn has_bf16(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        let has = self.0 == Set::Avx512Bf16;
        #[cfg(not(target_arch = "x86_64"))]
        let has = false;
        has
    }

    pub(super) fn tile(self) -> TileSize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Set::Avx512Bf16 | Set::Avx512 => TileSize { pixels: 14, blocks: 2 },
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => TileSize { pixels: 6, blocks: 1 },
            #[cfg(target_arch = "aarch64")]
            Set::Neon => TileSize { pixels: 6, blocks: 1 },
            Set::Portable => TileSize { pixels: 3, blocks: 1 },
        }
    }

    /// Runs the kernel compiled for this level.
    pub(super) fn run<K: Kernel>(self, kernel: K) {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `available` makes this value only after detecting the five features.
            Set::Avx512Bf16 => unsafe { avx512_bf16(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `available` makes this value only after detecting the four features.
            Set::Avx512 => unsafe { avx512(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `available` makes this value only after detecting both features.
            Set::Avx2 => unsafe { avx2(kernel) },
            #[cfg(target_arch = "aarch64")]
            Set::Neon => kernel.run(Fused),
            Set::Portable => kernel.run(Separate),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,fma")]
fn avx512_bf16<K: Kernel>(kernel: K) {
    kernel.run(Pairs(()));
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,fma")]
fn avx512<K: Kernel>(kernel: K) {
    kernel.run(Wide(()));
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2<K: Kernel>(kernel: K) {
    kernel.run(Halves(()));
}

/// Lines of a processor whose registers the compiler is left to choose.
macro_rules! plain_vector {
    () => {
        type Vector = Line;

        #[inline(always)]
        fn load(self, line: &Line) -> Line {
            *line
        }

        #[inline(always)]
        fn store(self, v: Line) -> Line {
            v
        }

        #[inline(always)]
        fn add(self, mut a: Line, b: Line) -> Line {
            for l in 0..LANES {
                a[l] += b[l];
            }
            a
        }

        #[inline(always)]
        fn sub(self, mut a: Line, b: Line) -> Line {
            for l in 0..LANES {
                a[l] -= b[l];
            }
            a
        }

        #[inline(always)]
        fn fma(self, mut a: Line, b: Line, c: Line) -> Line {
            for l in 0..LANES {
                a[l] = self.mul_add(a[l], b[l], c[l]);
            }
            a
        }

        #[inline(always)]
        fn mul(self, mut a: Line, b: Line) -> Line {
            for l in 0..LANES {
                a[l] *= b[l];
            }
            a
        }

        #[inline(always)]
        fn div(self, mut a: Line, b: Line) -> Line {
            for l in 0..LANES {
                a[l] /= b[l];
            }
            a
        }

        #[inline(always)]
        fn within(self, [low, high]: [f32; 2], mut v: Line) -> Line {
            for l in 0..LANES {
                v[l] = if v[l] < low { low } else { v[l] };
                v[l] = if v[l] > high { high } else { v[l] };
            }
            v
        }

        #[inline(always)]
        fn where_between(self, [low, high]: [f32; 2], y: Line, mut d: Line) -> Line {
            for l in 0..LANES {
                d[l] = if y[l] > low && y[l] < high { d[l] } else { 0.0 };
            }
            d
        }

        #[inline(always)]
        fn add_product(self, mut sums: Line, x: f32, w: &Line) -> Line {
            for l in 0..LANES {
                sums[l] = self.mul_add(x, w[l], sums[l]);
            }
            sums
        }
    };
}

/// Fused multiply-add.
#[cfg(target_arch = "aarch64")]
#[derive(Debug, Clone, Copy)]
struct Fused;

#[cfg(target_arch = "aarch64")]
impl Simd for Fused {
    const FMA: bool = true;
    const LINES: usize = 6;
    plain_vector!();
}

/// Multiplication and addition apart.
#[derive(Debug, Clone, Copy)]
struct Separate;

impl Simd for Separate {
    const FMA: bool = false;
    const LINES: usize = 3;
    plain_vector!();
}

/// AVX2 and FMA; only `avx2` makes one.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy)]
struct Halves(());

#[cfg(target_arch = "x86_64")]
impl Simd for Halves {
    const FMA: bool = true;
    const LINES: usize = 6;
    type Vector = [__m256; 2];

    #[inline(always)]
    fn load(self, line: &Line) -> [__m256; 2] {
        // SAFETY: `self` proves the features; the array holds the values of two registers.
        unsafe { [_mm256_loadu_ps(line.as_ptr()), _mm256_loadu_ps(line[8..].as_ptr())] }
    }

    #[inline(always)]
    fn store(self, v: [__m256; 2]) -> Line {
        let mut line = [0.0; LANES];
        // SAFETY: `self` proves the features; the array holds the values of two registers.
        unsafe {
            _mm256_storeu_ps(line.as_mut_ptr(), v[0]);
            _mm256_storeu_ps(line[8..].as_mut_ptr(), v[1]);
        }
        line
    }

    #[inline(always)]
    fn add(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: `self` proves the features.
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn sub(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: `self` proves the features.
        unsafe { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn fma(self, a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: `self` proves the features.
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }

    #[inline(always)]
    fn mul(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: `self` proves the features.
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn div(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: `self` proves the features.
        unsafe { [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn within(self, [low, high]: [f32; 2], v: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: `self` proves the features. Of a NaN and a number, the second is the result.
        unsafe {
            let (low, high) = (_mm256_set1_ps(low), _mm256_set1_ps(high));
            let v = [_mm256_max_ps(low, v[0]), _mm256_max_ps(low, v[1])];
            [_mm256_min_ps(high, v[0]), _mm256_min_ps(high, v[1])]
        }
    }

    #[inline(always)]
    fn where_between(self, [low, high]: [f32; 2], y: [__m256; 2], d: [__m256; 2]) -> [__m256; 2] {
        let mut kept = d;
        for half in 0..2 {
            // SAFETY: `self` proves the features.
            kept[half] = unsafe {
                let above = _mm256_cmp_ps::<_CMP_GT_OQ>(y[half], _mm256_set1_ps(low));
                let below = _mm256_cmp_ps::<_CMP_LT_OQ>(y[half], _mm256_set1_ps(high));
                _mm256_and_ps(_mm256_and_ps(above, below), d[half])
            };
        }
        kept
    }

    #[inline(always)]
    fn larger(
        self,
        [best, own]: [[__m256; 2]; 2],
        [v, other]: [[__m256; 2]; 2],
    ) -> [[__m256; 2]; 2] {
        let mut found = [best, own];
        for half in 0..2 {
            // SAFETY: `self` proves the features.
            unsafe {
                let above = _mm256_cmp_ps::<_CMP_GT_OQ>(v[half], best[half]);
                let is_nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(v[half], v[half]);
                let larger = _mm256_or_ps(above, is_nan);
                found[0][half] = _mm256_blendv_ps(best[half], v[half], larger);
                found[1][half] = _mm256_blendv_ps(own[half], other[half], larger);
            }
        }
        found
    }

    #[inline(always)]
    fn add_product(self, sums: [__m256; 2], x: f32, w: &Line) -> [__m256; 2] {
        // SAFETY: `self` proves the features.
        let x = unsafe { _mm256_set1_ps(x) };
        self.fma([x, x], self.load(w), sums)
    }
}

/// Lines in one register of AVX-512.
#[cfg(target_arch = "x86_64")]
macro_rules! wide_vector {
    () => {
        type Vector = __m512;

        #[inline(always)]
        fn load(self, line: &Line) -> __m512 {
            // SAFETY: `self` proves the features; the array holds the 16 values of a register.
            unsafe { _mm512_loadu_ps(line.as_ptr()) }
        }

        #[inline(always)]
        fn store(self, v: __m512) -> Line {
            let mut line = [0.0; LANES];
            // SAFETY: `self` proves the features; the array holds the 16 values of a register.
            unsafe { _mm512_storeu_ps(line.as_mut_ptr(), v) };
            line
        }

        #[inline(always)]
        fn add(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: `self` proves the features.
            unsafe { _mm512_add_ps(a, b) }
        }

        #[inline(always)]
        fn sub(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: `self` proves the features.
            unsafe { _mm512_sub_ps(a, b) }
        }

        #[inline(always)]
        fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
            // SAFETY: `self` proves the features.
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        fn mul(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: `self` proves the features.
            unsafe { _mm512_mul_ps(a, b) }
        }

        #[inline(always)]
        fn div(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: `self` proves the features.
            unsafe { _mm512_div_ps(a, b) }
        }

        #[inline(always)]
        fn within(self, [low, high]: [f32; 2], v: __m512) -> __m512 {
            // SAFETY: `self` proves the features. Of a NaN and a number, the second is the result.
            unsafe { _mm512_min_ps(_mm512_set1_ps(high), _mm512_max_ps(_mm512_set1_ps(low), v)) }
        }

        #[inline(always)]
        fn where_between(self, [low, high]: [f32; 2], y: __m512, d: __m512) -> __m512 {
            // SAFETY: `self` proves the features.
            unsafe {
                let above = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(y, _mm512_set1_ps(low));
                let both = _mm512_mask_cmp_ps_mask::<_CMP_LT_OQ>(above, y, _mm512_set1_ps(high));
                _mm512_maskz_mov_ps(both, d)
            }
        }

        #[inline(always)]
        fn larger(self, [best, own]: [__m512; 2], [v, other]: [__m512; 2]) -> [__m512; 2] {
            // SAFETY: `self` proves the features.
            unsafe {
                let larger = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(v, best)
                    | _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
                let best = _mm512_mask_blend_ps(larger, best, v);
                [best, _mm512_mask_blend_ps(larger, own, other)]
            }
        }

        #[inline(always)]
        fn power_of_two(self, n: __m512) -> __m512 {
            // SAFETY: `self` proves the features.
            unsafe { _mm512_scalef_ps(_mm512_set1_ps(1.0), n) }
        }

        #[inline(always)]
        fn add_product(self, sums: __m512, x: f32, w: &Line) -> __m512 {
            // SAFETY: `self` proves the features.
            let x = unsafe { _mm512_set1_ps(x) };
            self.fma(x, self.load(w), sums)
        }
    };
}

/// AVX-512 and FMA; only `avx512` makes one.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy)]
struct Wide(());

#[cfg(target_arch = "x86_64")]
impl Simd for Wide {
    const FMA: bool = true;
    const LINES: usize = 24;
    wide_vector!();
}

/// AVX-512 BF16; only `avx512_bf16` makes one.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy)]
struct Pairs(());

#[cfg(target_arch = "x86_64")]
impl Simd for Pairs {
    const FMA: bool = true;
    const LINES: usize = 24;
    wide_vector!();

    #[inline(always)]
    fn add_pairs(self, sums: __m512, x: u32, w: &[u32; LANES]) -> __m512 {
        // SAFETY: `self` proves the features; the array holds the 16 values of a register, and
        // `__m512i` and `__m512bh` are names of the same 64 bytes.
        unsafe {
            let x: __m512bh = core::mem::transmute(_mm512_set1_epi32(x.cast_signed()));
            let w: __m512bh = core::mem::transmute(_mm512_loadu_si512(w.as_ptr().cast()));
            _mm512_dpbf16_ps(sums, x, w)
        }
    }

    #[inline(always)]
    fn widen(self, bits: &Line<u16>) -> __m512 {
        // SAFETY: `self` proves the features; the array holds the 16 values of a register.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(bits.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }
    }

    /// Numbers below the smallest normal one become zero.
    #[inline(always)]
    fn narrow(self, v: __m512) -> Line<u16> {
        // SAFETY: `self` proves the features; `__m256bh` is 32 bytes of any value.
        unsafe { core::mem::transmute::<__m256bh, Line<u16>>(_mm512_cvtneps_pbh(v)) }
    }
}
