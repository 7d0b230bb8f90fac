//! AVX-512 with VNNI: 16 output channels a register.
//!
//! VPDPBUSD multiplies *unsigned* activations, so they are stored XORed with 0x80 (that is,
//! plus 128) and the accumulators start at `bias − 128 · Σ w`. Its sums wrap, they do not
//! saturate, hence the same result as any other order of addition.

use super::{avx512_depthwise, has};
use crate::kernels::conv::Conv;
use crate::kernels::depthwise::{Channels, Lines};
use crate::kernels::scalar::{FloatWeight, plane};
use crate::kernels::winograd::{Block, Multiply, Products};
use crate::kernels::{Finish, Kernel, Lanes, Number, Rows, Tile, is_scaled, peak};
use artifact::layout::{ConvPlane, DEPTHWISE_ROWS, KR_I8, ScalePlane};
use core::arch::x86_64::*;

const NR: usize = 16;

/// AVX-512 F, BW, VL and VNNI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx512Vnni {
    /// AVX-512 BF16, too.
    bf16: bool,
}

impl Avx512Vnni {
    /// What stored int8 activations are XORed with: the instruction multiplies unsigned ones.
    pub(crate) const FLIP: i8 = -128;

    /// `None` unless the CPU has them.
    pub(crate) fn new() -> Option<Self> {
        (has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512vnni"))
            .then_some(Self { bf16: false })
    }

    /// `None` unless the CPU has them and BF16.
    pub(crate) fn with_bf16() -> Option<Self> {
        Self::new().filter(|_| has!("avx512bf16")).map(|_| Self { bf16: true })
    }

    /// Whether BF16 is worth it: AMD's CPUs multiply twice as many of them at a time as of f32, while
    /// Intel's (measured: Emerald Rapids) take four times as long for such an instruction, so that
    /// weights are better made f32 as they are loaded.
    pub(crate) fn prefers_bf16() -> bool {
        // "AuthenticAMD" in three registers.
        let maker = __cpuid(0);
        (maker.ebx, maker.edx, maker.ecx) == (0x6874_7541, 0x6974_6e65, 0x444d_4163)
    }

    /// Whether it stands for BF16, too.
    pub(crate) const fn has_bf16(self) -> bool {
        self.bf16
    }

    /// Runs a kernel compiled for these instructions.
    pub(crate) fn run(self, kernel: impl Kernel) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
        fn enabled(kernel: impl Kernel) {
            kernel.eval();
        }
        // SAFETY: `self` proves the features.
        unsafe { enabled(kernel) }
    }
}

/// Sixteen i32 of plane `p`.
#[inline(always)]
fn load_plane(params: &[i32], p: usize) -> __m512i {
    let plane = plane::<_, NR>(params, p);
    // SAFETY: AVX-512 is proven by the callers' token; `plane` holds 16 numbers.
    unsafe { _mm512_loadu_si512(plane.as_ptr().cast()) }
}

/// A panel's requantization.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::large_enum_variant, reason = "a heap there is not, and they live for a panel")]
pub(crate) enum Scale {
    /// With integers.
    Fixed(Fixed),
    /// See [`artifact::scale`].
    Float(__m512),
}

/// A panel's requantization with integers, the even and the odd outputs apart: their products have 64 bits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fixed {
    multiplier: [__m512i; 2],
    shift: [__m512i; 2],
    /// `2^(shift−1)`.
    rounding: [__m512i; 2],
    /// Where no shift is below 32, those beyond, all 16 in order: of a product, only the upper half
    /// counts then.
    beyond: Option<__m512i>,
    /// Of the residual, all 16 in order.
    factor: __m512i,
    /// What the residual's zero point (as it is stored) and rounding add to its product.
    addend: __m512i,
}

impl Fixed {
    /// Sums and residual in steps of the output, from its zero point.
    #[inline(always)]
    fn steps(&self, acc: __m512i, finish: &Finish, residual: Option<&[i8; NR]>) -> __m512i {
        // SAFETY: who made this proved AVX-512; the residual is 16 bytes long.
        unsafe {
            let mut acc = acc;
            if let Some(r) = residual {
                let r = _mm512_cvtepu8_epi32(_mm_loadu_si128(r.as_ptr().cast()));
                let r = _mm512_add_epi32(_mm512_mullo_epi32(r, self.factor), self.addend);
                let count = _mm_cvtsi32_si128(finish.residual_shift as i32);
                acc = _mm512_add_epi32(acc, _mm512_sra_epi32(r, count));
            }
            let even = _mm512_mul_epi32(acc, self.multiplier[0]);
            let even = _mm512_add_epi64(even, self.rounding[0]);
            let odd = _mm512_mul_epi32(_mm512_srli_epi64(acc, 32), self.multiplier[1]);
            let odd = _mm512_add_epi64(odd, self.rounding[1]);
            match self.beyond {
                Some(beyond) => {
                    // The upper halves, those of the even products moved to the even places.
                    let upper = _mm512_mask_shuffle_epi32::<0b11_11_01_01>(odd, 0x5555, even);
                    _mm512_srav_epi32(upper, beyond)
                }
                None => {
                    let even = _mm512_srav_epi64(even, self.shift[0]);
                    let odd = _mm512_srav_epi64(odd, self.shift[1]);
                    _mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32))
                }
            }
        }
    }
}

/// Sums and residuals in steps of the output, from its zero point: see [`artifact::scale`]. All of them step by
/// step, which takes few registers more.
#[expect(clippy::needless_range_loop, reason = "indices keep sums in registers")]
#[inline(always)]
pub(super) fn steps<const MR: usize, const NP: usize>(
    _: Avx512Vnni,
    acc: [[__m512i; NP]; MR],
    scale: [__m512; NP],
    finish: &Finish,
    residual: Option<&Tile<i8, NR, MR, NP>>,
) -> [[__m512i; NP]; MR] {
    // SAFETY: the token proves AVX-512; a residual is 16 bytes long.
    unsafe {
        let mut y = [scale; MR];
        for m in 0..MR {
            for p in 0..NP {
                y[m][p] = _mm512_mul_ps(_mm512_cvtepi32_ps(acc[m][p]), scale[p]);
            }
        }
        if let Some(residual) = residual {
            if let Some(rounded) = finish.rounded {
                let [low, high] = [_mm512_set1_ps(rounded.low), _mm512_set1_ps(rounded.high)];
                let ratio = _mm512_set1_ps(rounded.ratio);
                for m in 0..MR {
                    for p in 0..NP {
                        let steps = _mm512_min_ps(_mm512_max_ps(y[m][p], low), high);
                        let steps = _mm512_roundscale_ps::<_MM_FROUND_TO_NEAREST_INT>(steps);
                        y[m][p] = _mm512_mul_ps(steps, ratio);
                    }
                }
            }
            let stored = finish.residual_zero_point - i32::from(Avx512Vnni::FLIP);
            let zero = _mm512_set1_epi32(stored);
            let ratio = _mm512_set1_ps(finish.residual_ratio);
            for m in 0..MR {
                for p in 0..NP {
                    let r = _mm_loadu_si128(residual[m][p].as_ptr().cast());
                    let r = _mm512_sub_epi32(_mm512_cvtepu8_epi32(r), zero);
                    let r = _mm512_mul_ps(_mm512_cvtepi32_ps(r), ratio);
                    y[m][p] = _mm512_add_ps(y[m][p], r);
                }
            }
        }
        let mut steps = acc;
        for m in 0..MR {
            for p in 0..NP {
                steps[m][p] = _mm512_cvtps_epi32(y[m][p]);
            }
        }
        steps
    }
}

/// Four times sixteen steps as they are stored; the four quads of each follow each other by 16 bytes.
#[inline(always)]
pub(super) fn pack(_: Avx512Vnni, y: [__m512i; 4], finish: &Finish) -> __m512i {
    let stored = |q: i32| q - i32::from(Avx512Vnni::FLIP);
    // SAFETY: the token proves AVX-512; registers only.
    unsafe {
        // Packs saturate, which is the clamp at both ends. A number that 16 bits cannot hold is clamped
        // whatever the zero point.
        let zero_point = _mm512_set1_epi16(stored(finish.zero_point) as i16);
        let low = _mm512_adds_epi16(_mm512_packs_epi32(y[0], y[1]), zero_point);
        let high = _mm512_adds_epi16(_mm512_packs_epi32(y[2], y[3]), zero_point);
        let y = _mm512_packus_epi16(low, high);
        _mm512_max_epu8(y, _mm512_set1_epi8(stored(finish.low) as i8))
    }
}

impl Lanes<NR, i8, i8> for Avx512Vnni {
    type Acc = __m512i;
    type Scale = Scale;

    #[inline(always)]
    fn start(self, params: &[i32]) -> __m512i {
        let sum = if is_scaled::<NR>(params) {
            ScalePlane::WeightSum as usize
        } else {
            ConvPlane::WeightSum as usize
        };
        let (bias, sum) = (load_plane(params, ConvPlane::Bias as usize), load_plane(params, sum));
        // SAFETY: `self` proves AVX-512; registers only.
        unsafe { _mm512_sub_epi32(bias, _mm512_slli_epi32(sum, 7)) }
    }

    #[inline(always)]
    fn scale(self, params: &[i32], finish: &Finish) -> Scale {
        if is_scaled::<NR>(params) {
            let scale = load_plane(params, ScalePlane::Scale as usize);
            // SAFETY: `self` proves AVX-512; registers only.
            return Scale::Float(unsafe { _mm512_castsi512_ps(scale) });
        }
        let multiplier = load_plane(params, ConvPlane::Multiplier as usize);
        let shift = load_plane(params, ConvPlane::Shift as usize);
        // SAFETY: `self` proves AVX-512; registers only.
        unsafe {
            let one = _mm512_set1_epi64(1);
            let half = _mm512_set1_epi32(32);
            let beyond =
                (_mm512_cmplt_epi32_mask(shift, half) == 0).then(|| _mm512_sub_epi32(shift, half));
            let shift = [
                _mm512_and_si512(shift, _mm512_set1_epi64(0xffff_ffff)),
                _mm512_srli_epi64(shift, 32),
            ];
            let factor = load_plane(params, ConvPlane::Residual as usize);
            let stored = finish.residual_zero_point - i32::from(Self::FLIP);
            let zero = _mm512_mullo_epi32(factor, _mm512_set1_epi32(stored));
            let rounding = _mm512_set1_epi32((1 << finish.residual_shift) >> 1);
            Scale::Fixed(Fixed {
                multiplier: [multiplier, _mm512_srli_epi64(multiplier, 32)],
                shift,
                rounding: [
                    _mm512_sllv_epi64(one, _mm512_sub_epi64(shift[0], one)),
                    _mm512_sllv_epi64(one, _mm512_sub_epi64(shift[1], one)),
                ],
                beyond,
                factor,
                addend: _mm512_sub_epi32(rounding, zero),
            })
        }
    }

    #[inline(always)]
    fn dot<const MR: usize, const NP: usize>(
        self,
        acc: &mut [[__m512i; NP]; MR],
        x: [&[i8]; MR],
        rows: Rows,
        w: [&[i8]; NP],
    ) {
        let groups = rows.check(&x, &w, [KR_I8, NR]);
        // A copy, which stays in registers through both loops.
        let mut sums = *acc;
        let (mut x_at, mut w_at) = (0, 0);
        for _ in 0..rows.count {
            for g in 0..groups {
                // SAFETY: `self` proves AVX-512 VNNI; row and group are in bounds, as
                // just asserted, and the loads are unaligned.
                unsafe {
                    let mut weights = [_mm512_setzero_si512(); NP];
                    for p in 0..NP {
                        weights[p] =
                            _mm512_loadu_si512(w[p].as_ptr().add(w_at + g * KR_I8 * NR).cast());
                    }
                    for m in 0..MR {
                        let x = x[m].as_ptr().add(x_at + g * KR_I8).cast::<i32>().read_unaligned();
                        let x = _mm512_set1_epi32(x);
                        for p in 0..NP {
                            sums[m][p] = _mm512_dpbusd_epi32(sums[m][p], x, weights[p]);
                        }
                    }
                }
            }
            x_at += rows.stride;
            w_at += rows.len * NR;
        }
        *acc = sums;
    }

    #[inline(always)]
    fn finish(
        self,
        acc: __m512i,
        scale: &Scale,
        finish: &Finish,
        residual: Option<&[i8; NR]>,
    ) -> [i8; NR] {
        let mut out = [0; NR];
        let y = match scale {
            Scale::Fixed(scale) => scale.steps(acc, finish, residual),
            Scale::Float(scale) => {
                let residual = residual.map(|r| [[*r]]);
                let [[y]] = steps(self, [[acc]], [*scale], finish, residual.as_ref());
                y
            }
        };
        // SAFETY: `self` proves AVX-512; `out` is 16 bytes long.
        unsafe {
            // As it is stored, plus 128: never negative, so that 255 is the clamp at 127.
            let stored = |q: i32| _mm512_set1_epi32(q - i32::from(Self::FLIP));
            let y = _mm512_add_epi32(y, stored(finish.zero_point));
            let y = _mm512_cvtusepi32_epi8(_mm512_max_epi32(y, stored(finish.low)));
            _mm_storeu_si128(out.as_mut_ptr().cast(), y);
        }
        out
    }

    #[inline(always)]
    fn finish_tile<const MR: usize, const NP: usize>(
        self,
        acc: &[[__m512i; NP]; MR],
        scale: &[Scale; NP],
        finish: &Finish,
        residual: Option<&Tile<i8, NR, MR, NP>>,
    ) -> Tile<i8, NR, MR, NP> {
        // SAFETY: `self` proves AVX-512; registers only.
        let mut floats = [unsafe { _mm512_setzero_ps() }; NP];
        let mut is_fixed = false;
        for p in 0..NP {
            match scale[p] {
                Scale::Float(scale) => floats[p] = scale,
                Scale::Fixed(_) => is_fixed = true,
            }
        }
        if !is_fixed {
            let mut out = [[[0; NR]; NP]; MR];
            let y = steps(self, *acc, floats, finish, residual);
            let (fours, rest) = y.as_flattened().as_chunks::<4>();
            // SAFETY: `self` proves AVX-512; four panels are 64 bytes, one is 16.
            unsafe {
                let (to, last) = out.as_flattened_mut().as_chunks_mut::<4>();
                // Of as many panels or pixels.
                let quads = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
                for (to, four) in to.iter_mut().zip(fours) {
                    let y = _mm512_permutexvar_epi32(quads, pack(self, *four, finish));
                    _mm512_storeu_si512(to.as_mut_ptr().cast(), y);
                }
                for (to, one) in last.iter_mut().zip(rest) {
                    let y = _mm512_permutexvar_epi32(quads, pack(self, [*one; 4], finish));
                    _mm_storeu_si128(to.as_mut_ptr().cast(), _mm512_castsi512_si128(y));
                }
            }
            return out;
        }
        // What older files need stays out of the others' way.
        #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
        #[inline(never)]
        fn fixed_tile<const MR: usize, const NP: usize>(
            isa: Avx512Vnni,
            acc: &[[__m512i; NP]; MR],
            scale: &[Scale; NP],
            finish: &Finish,
            residual: Option<&Tile<i8, NR, MR, NP>>,
        ) -> Tile<i8, NR, MR, NP> {
            let mut out = [[[0; NR]; NP]; MR];
            for m in 0..MR {
                for p in 0..NP {
                    let residual = residual.map(|r| &r[m][p]);
                    out[m][p] = isa.finish(acc[m][p], &scale[p], finish, residual);
                }
            }
            out
        }
        // A copy, for what has an address is not kept in registers.
        let acc = *acc;
        // SAFETY: `self` proves the features.
        unsafe { fixed_tile(self, &acc, scale, finish, residual) }
    }

    fn conv(self, conv: &Conv<'_, i8, i8>, first_pixel: usize, out: &mut [i8]) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
        fn enabled(isa: Avx512Vnni, conv: &Conv<'_, i8, i8>, first: usize, out: &mut [i8]) {
            tiles(isa, conv, first, out);
        }
        // SAFETY: `self` proves the features.
        unsafe { enabled(self, conv, first_pixel, out) }
    }

    fn peak(self, rounds: usize) -> u64 {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
        fn enabled(isa: Avx512Vnni, rounds: usize) -> u64 {
            peak::<_, i8, i8, NR, 6, 4>(isa, rounds)
        }
        // SAFETY: `self` proves the features.
        unsafe { enabled(self, rounds) }
    }
}

/// 24 accumulators of 32 registers where there are four panels; enough of them to cover the
/// latency of four cycles where there are fewer.
#[inline(always)]
pub(super) fn tiles<I: Lanes<NR, E, W>, E: Number, W>(
    isa: I,
    conv: &Conv<'_, E, W>,
    first: usize,
    out: &mut [E],
) {
    let panels = usize::from(conv.output.c).div_ceil(NR);
    let is_dense = conv.groups.count == 1;
    let mut panel = 0;
    while panel < panels {
        panel += match panels - panel {
            4.. if is_dense => {
                conv.panels::<_, NR, 6, 4>(isa, panel, first, out);
                4
            }
            2.. if is_dense => {
                conv.panels::<_, NR, 8, 2>(isa, panel, first, out);
                2
            }
            _ => {
                conv.panels::<_, NR, 8, 1>(isa, panel, first, out);
                1
            }
        };
    }
}

/// A stored weight that AVX-512 loads as 16 f32.
pub(super) trait Load16: FloatWeight {
    /// Instructions that multiply it as it is.
    type Native: Lanes<NR, f32, Self>;

    /// Where the CPU has them.
    fn native(_: Avx512Vnni) -> Option<Self::Native> {
        None
    }

    /// Sixteen outputs' weights for input `k` of a group, which starts at `from`.
    ///
    /// # Safety
    /// The CPU has AVX-512 F; `from` points at 16 · KR readable weights, aligned or not.
    unsafe fn load(from: *const Self, k: usize) -> __m512;
}

impl Load16 for f32 {
    type Native = Avx512Vnni;

    #[inline(always)]
    unsafe fn load(from: *const Self, _: usize) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_loadu_ps(from) }
    }
}

impl Load16 for u16 {
    type Native = Avx512Vnni;

    #[inline(always)]
    unsafe fn load(from: *const Self, _: usize) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }
}

impl<W: Load16> Lanes<NR, f32, W> for Avx512Vnni {
    type Acc = __m512;
    type Scale = ();

    #[inline(always)]
    fn start(self, params: &[f32]) -> __m512 {
        let bias = plane::<_, NR>(params, 0);
        // SAFETY: `self` proves AVX-512; `bias` holds 16 numbers.
        unsafe { _mm512_loadu_ps(bias.as_ptr()) }
    }

    #[inline(always)]
    fn scale(self, _: &[f32], _: &Finish) {}

    #[inline(always)]
    fn dot<const MR: usize, const NP: usize>(
        self,
        acc: &mut [[__m512; NP]; MR],
        x: [&[f32]; MR],
        rows: Rows,
        w: [&[W]; NP],
    ) {
        let groups = rows.check(&x, &w, [W::KR, NR]);
        // A copy, which stays in registers through both loops.
        let mut sums = *acc;
        let (mut x_at, mut w_at) = (0, 0);
        for _ in 0..rows.count {
            for c in 0..groups * W::KR {
                let (group, k) = (c / W::KR, c % W::KR);
                // SAFETY: `self` proves AVX-512; row and group are in bounds, as just asserted.
                unsafe {
                    let mut weights = [_mm512_setzero_ps(); NP];
                    for p in 0..NP {
                        weights[p] = W::load(w[p].as_ptr().add(w_at + group * W::KR * NR), k);
                    }
                    for m in 0..MR {
                        let x = _mm512_set1_ps(*x[m].get_unchecked(x_at + c));
                        for p in 0..NP {
                            sums[m][p] = _mm512_fmadd_ps(x, weights[p], sums[m][p]);
                        }
                    }
                }
            }
            x_at += rows.stride;
            w_at += rows.len * NR;
        }
        *acc = sums;
    }

    #[inline(always)]
    fn finish(
        self,
        acc: __m512,
        (): &(),
        finish: &Finish,
        residual: Option<&[f32; NR]>,
    ) -> [f32; NR] {
        let mut out = [0.0; NR];
        // SAFETY: `self` proves AVX-512; the residual and `out` hold 16 numbers.
        unsafe {
            let mut y = acc;
            if let Some(r) = residual {
                y = _mm512_add_ps(y, _mm512_loadu_ps(r.as_ptr()));
            }
            if let Some([low, high]) = finish.bounds {
                y = _mm512_min_ps(_mm512_max_ps(y, _mm512_set1_ps(low)), _mm512_set1_ps(high));
            }
            _mm512_storeu_ps(out.as_mut_ptr(), y);
        }
        out
    }

    fn conv(self, conv: &Conv<'_, f32, W>, first_pixel: usize, out: &mut [f32]) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
        fn enabled<W: Load16>(
            isa: Avx512Vnni,
            conv: &Conv<'_, f32, W>,
            first: usize,
            out: &mut [f32],
        ) {
            tiles(isa, conv, first, out);
        }
        if let Some(native) = W::native(self) {
            return native.conv(conv, first_pixel, out);
        }
        // SAFETY: `self` proves the features.
        unsafe { enabled(self, conv, first_pixel, out) }
    }

    fn peak(self, rounds: usize) -> u64 {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
        fn enabled<W: Load16>(isa: Avx512Vnni, rounds: usize) -> u64 {
            peak::<_, f32, W, NR, 6, 4>(isa, rounds)
        }
        if let Some(native) = W::native(self) {
            return native.peak(rounds);
        }
        // SAFETY: `self` proves the features.
        unsafe { enabled::<W>(self, rounds) }
    }
}

impl Channels<NR, i8> for Avx512Vnni {
    const ROWS: usize = DEPTHWISE_ROWS;
    /// Four rows of each channel side by side.
    type Column = __m512i;
    type Weights = __m512i;

    #[inline(always)]
    fn column(self, x: &[i8], at: usize, lines: Lines) -> __m512i {
        let [a, b, c, d] = lines.check::<_, NR>(x, at);
        // SAFETY: `self` proves AVX-512; 16 bytes of each line are in bounds, as just checked.
        unsafe {
            let x = x.as_ptr();
            let rows = _mm512_castsi128_si512(_mm_loadu_si128(x.add(a).cast()));
            let rows = _mm512_inserti32x4::<1>(rows, _mm_loadu_si128(x.add(b).cast()));
            let rows = _mm512_inserti32x4::<2>(rows, _mm_loadu_si128(x.add(c).cast()));
            let rows = _mm512_inserti32x4::<3>(rows, _mm_loadu_si128(x.add(d).cast()));
            // Four channels of all rows to each quarter, then the rows of each channel together.
            let quarters = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            let rows = _mm512_permutexvar_epi32(quarters, rows);
            let order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            _mm512_shuffle_epi8(rows, _mm512_broadcast_i32x4(order))
        }
    }

    #[inline(always)]
    fn weights(self, w: &[i8]) -> __m512i {
        let (all, _) = w.as_chunks::<64>();
        // SAFETY: `self` proves AVX-512; the weights are 64 bytes.
        unsafe { _mm512_loadu_si512(all[0].as_ptr().cast()) }
    }

    #[inline(always)]
    fn accumulate(self, acc: __m512i, x: __m512i, w: __m512i) -> __m512i {
        // SAFETY: `self` proves AVX-512 VNNI; registers only.
        unsafe { _mm512_dpbusd_epi32(acc, x, w) }
    }

    fn depthwise(self, conv: &Conv<'_, i8, i8>, first_row: usize, out: &mut [i8]) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
        fn enabled(isa: Avx512Vnni, conv: &Conv<'_, i8, i8>, first: usize, out: &mut [i8]) {
            let done = avx512_depthwise::run(isa, conv, first, out);
            conv.channels_from::<_, NR, 4>(isa, done, first, out);
        }
        // SAFETY: `self` proves the features.
        unsafe { enabled(self, conv, first_row, out) }
    }
}

impl Channels<NR, f32> for Avx512Vnni {
    const ROWS: usize = 1;
    type Column = __m512;
    type Weights = __m512;

    #[inline(always)]
    fn column(self, x: &[f32], at: usize, _: Lines) -> __m512 {
        Channels::<NR, f32>::weights(self, &x[at..at + NR])
    }

    #[inline(always)]
    fn weights(self, w: &[f32]) -> __m512 {
        let (all, _) = w.as_chunks::<NR>();
        // SAFETY: `self` proves AVX-512; there are 16 weights.
        unsafe { _mm512_loadu_ps(all[0].as_ptr()) }
    }

    #[inline(always)]
    fn accumulate(self, acc: __m512, x: __m512, w: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512; registers only.
        unsafe { _mm512_fmadd_ps(x, w, acc) }
    }

    fn depthwise(self, conv: &Conv<'_, f32, f32>, first_row: usize, out: &mut [f32]) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
        fn enabled(isa: Avx512Vnni, conv: &Conv<'_, f32, f32>, first: usize, out: &mut [f32]) {
            conv.channels::<_, NR, 4>(isa, first, out);
        }
        // SAFETY: `self` proves the features.
        unsafe { enabled(self, conv, first_row, out) }
    }
}

impl Multiply for Avx512Vnni {
    fn multiply(self, products: &Products<'_>, out: &mut Block) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
        fn enabled(isa: Avx512Vnni, products: &Products<'_>, out: &mut Block) {
            // Even groups of tiles, of which a last one that is partly empty takes as long as a whole one.
            let groups = products.tiles.div_ceil(12).max(1);
            match products.tiles.div_ceil(groups) {
                ..=8 => products.eval::<_, 8>(isa, out),
                9..=10 => products.eval::<_, 10>(isa, out),
                _ => products.eval::<_, 12>(isa, out),
            }
        }
        // SAFETY: `self` proves the features.
        unsafe { enabled(self, products, out) }
    }
}
