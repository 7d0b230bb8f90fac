//! Geometry of each operator: operands out of the arena, chunks out to the workers.

pub(crate) mod affine;
#[cfg(feature = "float")]
pub(crate) mod cast;
pub(crate) mod columns;
pub(crate) mod conv2d;
#[cfg(feature = "float")]
pub(crate) mod depthwise;
pub(crate) mod gate;
pub(crate) mod lookup;
mod operands;
mod pixelwise;
mod planes;
pub(crate) mod pool2d;
pub(crate) mod winograd;
#[cfg(target_arch = "x86_64")]
pub(crate) mod winograd_i8;

#[cfg(target_arch = "x86_64")]
use crate::isa::Token;
use crate::isa::{Isa, with_token};
use crate::kernels::Kernel;
#[cfg(target_arch = "x86_64")]
use crate::kernels::x86_64::{Avx2, Avx512Vnni};
use crate::workers::Workers;
use artifact::{Artifact, Clamp, Dtype, Place, layout};
use core::ops::Range;

/// What every operator needs beside its record and its operands.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub artifact: &'a Artifact<'a>,
    pub isa: Isa,
    pub workers: &'a dyn Workers,
}

impl Context<'_> {
    /// What stored int8 activations are XORed with.
    pub(crate) fn flip(&self) -> i8 {
        match self.isa.0 {
            #[cfg(target_arch = "x86_64")]
            Token::Avx512Vnni(_) if self.nr() == 16 => Avx512Vnni::FLIP,
            #[cfg(target_arch = "x86_64")]
            Token::Avx2(_) if self.nr() == 16 => Avx2::FLIP,
            _ => 0,
        }
    }

    /// Number format of an activation, and of the weights of what computes it.
    pub(crate) fn dtype(&self, place: Place) -> Dtype {
        match cfg!(feature = "float") {
            true => place.dtype(self.artifact.header().dtype),
            // `Model::new` lets nothing else through: a constant saves flash.
            false => Dtype::I8,
        }
    }

    /// Panel width.
    pub(crate) fn nr(&self) -> usize {
        if cfg!(feature = "host") { self.artifact.header().nr } else { 4 }
    }

    /// The arena bytes of an activation. Once in the program, which saves flash.
    #[inline(never)]
    pub(crate) fn range(&self, place: Place) -> Range<usize> {
        let start = place.offset as usize;
        let len = layout::activation_bytes(place.shape, self.dtype(place), self.nr());
        start..start + len.unwrap_or(0)
    }

    /// Parts that `macs` multiply-accumulates are worth cutting into: one for one thread or little
    /// work, one for each thread for some, else several, so that they even out where a core is slower.
    pub(crate) fn parts(&self, macs: u64) -> usize {
        const PER_THREAD: usize = 8;
        const MANY: usize = 32;
        match self.workers.threads() {
            0 | 1 => 1,
            // What is left beside convolutions is worth no division of 64 bits in flash.
            _ if cfg!(not(feature = "host")) => 1,
            n => {
                let worth = macs / self.workers.grain().max(1);
                let worth = usize::try_from(worth).unwrap_or(usize::MAX);
                // What a part costs to begin with is little only beside that much.
                (worth / MANY).max(n).min(worth).clamp(1, n * PER_THREAD)
            }
        }
    }

    /// Threads for an operator that does `macs` multiply-accumulates: one, or all.
    pub(crate) fn threads(&self, macs: u64) -> usize {
        if self.parts(macs) == 1 { 1 } else { self.workers.threads() }
    }

    /// Pixels per chunk of an operator that does `macs` multiply-accumulates in `dtype`: whole tiles.
    pub(crate) fn chunk_pixels(&self, pixels: usize, macs: u64, dtype: Dtype) -> usize {
        let parts = self.parts(macs);
        let tile = self.isa.tile(dtype);
        let tiles = pixels.div_ceil(tile);
        // As many parts as threads where rounding would leave more of them uneven.
        let parts = if tiles < parts * 4 { parts.min(self.workers.threads()) } else { parts };
        tiles.div_ceil(parts.max(1)) * tile
    }

    /// Runs simple loops compiled for the session's instruction set.
    pub(crate) fn run(&self, kernel: impl Kernel) {
        with_token!(self.isa, t => t.run(kernel));
    }
}

/// Bounds that floats are kept between, where there are some.
pub(crate) fn float_bounds(clamp: Clamp) -> Option<[f32; 2]> {
    (clamp != Clamp::None).then(|| clamp.bounds())
}

/// Fills the pad pixel and slack that follow an activation's data.
pub(crate) fn fill_pad(bytes: &mut [u8], place: Place, dtype: Dtype, flip: i8) {
    let data = place.shape.len() * dtype.activation_bytes();
    let pad = match dtype {
        Dtype::I8 => (place.quant.zero_point ^ flip) as u8,
        Dtype::F32 | Dtype::F16 | Dtype::Bf16 => 0,
    };
    if let Some(tail) = bytes.get_mut(data..) {
        tail.fill(pad);
    }
}
