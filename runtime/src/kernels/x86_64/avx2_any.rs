//! Int8 with AVX2 and weights of which some pairs are too large for VPMADDUBSW, as those of networks
//! that were quantized elsewhere: which way is taken.
//!
//! Large windows go by [`super::avx2_mixed`], others by [`super::avx2_widened`], both of which
//! prepare activations for four panels at a time and look at weights first. What is too little for
//! that is [`Signed`].

use super::avx2_i8::{Fast, Magnitudes, Scale, add_products};
use super::{Avx2, avx2_mixed, avx2_widened};
use crate::kernels::conv::Conv;
use crate::kernels::{Finish, Lanes, Rows};
use artifact::layout::KR_I8;
use core::arch::x86_64::*;

const NR: usize = 16;
/// Bytes of a group of weights.
pub(super) const GROUP: usize = NR * KR_I8;
/// Rows of a tile.
pub(super) const MR: usize = 4;
/// Panels whose tiles share prepared activations.
const NP: usize = 4;
/// Fewest pixels for which weights are looked at: five tiles take longer.
pub(super) const LEAST_PIXELS: usize = 20;
/// Fewest groups of a panel, or of a filter row, which are worth preparing.
const LEAST_GROUPS: usize = 16;
/// Sums of nothing.
// SAFETY: a register is eight i32 of any value.
pub(super) const ZERO: __m256i = unsafe { core::mem::transmute::<[i32; 8], __m256i>([0; 8]) };

/// [`Lanes::conv`] of any weights, for shifts of at least 32.
pub(super) fn run(isa: Avx2, conv: &Conv<'_, i8, i8>, first_pixel: usize, out: &mut [i8]) {
    #[target_feature(enable = "avx2")]
    fn enabled(isa: Avx2, conv: &Conv<'_, i8, i8>, first: usize, out: &mut [i8]) {
        let panels = usize::from(conv.output.c).div_ceil(NR);
        let row = conv.filter.groups() * conv.filter.taps().0;
        let pixels = out.len() / usize::from(conv.output.c);
        let groups = conv.filter.panel_len() / GROUP;
        let is_small = (LEAST_GROUPS..=avx2_widened::GROUPS).contains(&groups);
        let is_widened = is_small && pixels >= LEAST_PIXELS && panels > 1;
        if !is_widened && (row < LEAST_GROUPS || pixels <= MR) {
            for panel in 0..panels {
                // 8 accumulators, 2 weights, 2 of an activation, its products, 2 constants of 16
                // registers.
                conv.panels::<_, NR, MR, 1>(Signed(isa), panel, first, out);
            }
            return;
        }
        let mut panel = 0;
        while panel + NP <= panels && conv.groups.count == 1 {
            if is_widened {
                avx2_widened::some::<NP>(isa, conv, panel, first, out);
            } else {
                avx2_mixed::some::<NP>(isa, conv, panel, first, out);
            }
            panel += NP;
        }
        while is_widened && panel + 2 <= panels && conv.groups.count == 1 {
            avx2_widened::some::<2>(isa, conv, panel, first, out);
            panel += 2;
        }
        for panel in panel..panels {
            if is_widened {
                avx2_widened::some::<1>(isa, conv, panel, first, out);
            } else {
                avx2_mixed::some::<1>(isa, conv, panel, first, out);
            }
        }
    }
    // SAFETY: the token proves the feature.
    unsafe { enabled(isa, conv, first_pixel, out) }
}

/// As [`Fast`], for any weights: activations are taken apart as they are read.
#[derive(Clone, Copy)]
struct Signed(Avx2);

impl Lanes<NR, i8, i8> for Signed {
    type Acc = [__m256i; 2];
    type Scale = Scale;

    #[inline(always)]
    fn start(self, params: &[i32]) -> [__m256i; 2] {
        Lanes::<NR, i8, i8>::start(self.0, params)
    }

    #[inline(always)]
    fn scale(self, params: &[i32], finish: &Finish) -> Scale {
        Fast::<false>(self.0).scale(params, finish)
    }

    #[inline(always)]
    fn dot<const MR: usize, const NP: usize>(
        self,
        acc: &mut [[[__m256i; 2]; NP]; MR],
        x: [&[i8]; MR],
        rows: Rows,
        w: [&[i8]; NP],
    ) {
        add_products::<Magnitudes, MR, NP>(self.0, acc, x, rows, w);
    }

    #[inline(always)]
    fn finish(
        self,
        acc: [__m256i; 2],
        scale: &Scale,
        finish: &Finish,
        residual: Option<&[i8; NR]>,
    ) -> [i8; NR] {
        Fast::<false>(self.0).finish(acc, scale, finish, residual)
    }

    fn conv(self, conv: &Conv<'_, i8, i8>, first_pixel: usize, out: &mut [i8]) {
        run(self.0, conv, first_pixel, out);
    }

    fn peak(self, rounds: usize) -> u64 {
        Fast::<false>(self.0).peak(rounds)
    }
}
