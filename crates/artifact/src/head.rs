//! The end of a classifier whose scores are sums over the pixels of a map.
//!
//! Where a map `a: [h, w, C]` is averaged as a whole and a dense layer `w, b` follows, the score of class
//! `k` is `b[k] + Σ_yx (Σ_c w[k, c] · a[y, x, c]) / (h · w)`, so that each pixel has a share in it: the class
//! activation map of Zhou et al., *Learning Deep Features for Discriminative Localization*, 2016.

use crate::layout::FilterLayout;
use crate::{Artifact, Conv2d, Dtype, Op, Padding, Place, Pool2d, PoolKind};

/// An average over a whole map, and the dense layer that follows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Head {
    /// Which operator averages.
    pub index: usize,
    /// The average; its input is the map.
    pub pool: Pool2d,
    /// The dense layer, whose outputs are the scores.
    pub dense: Conv2d,
}

impl Head {
    /// The map, `[h, w, C]`.
    pub const fn map(&self) -> Place {
        self.pool.input
    }
}

impl<'a> Artifact<'a> {
    /// The last operators, if they are an average over a whole map and a dense layer; casts may stand
    /// between them and behind.
    pub fn head(&self) -> Option<Head> {
        let (mut pool, mut dense, mut value) = (None, None, self.meta().input);
        for (index, op) in self.ops().enumerate() {
            match op {
                Op::Pool2d(o) if is_whole(&o) => (pool, dense) = (Some((index, o)), None),
                Op::Cast(o) if o.input == value => {}
                Op::Conv2d(o) if dense.is_none() && o.input == value && is_linear(&o) => {
                    dense = Some(o);
                }
                _ => (pool, dense) = (None, None),
            }
            value = op.output();
        }
        let ((index, pool), dense) = (pool?, dense?);
        Some(Head { index, pool, dense })
    }

    /// The weights of output `output` of a dense layer of this model; `None` for an output that there is not.
    pub fn dense_row(&self, dense: &Conv2d, output: usize) -> Option<Row<'a>> {
        let nr = self.header().nr;
        let layout = dense.filter_layout(1, nr, dense.output.dtype(self.header().dtype));
        let step = match layout.dtype {
            Dtype::I8 => self.dense_step(dense, output) / dense.input.quant.scale,
            Dtype::F32 | Dtype::F16 | Dtype::Bf16 => 1.0,
        };
        let bytes = self.span(dense.weights);
        (output < layout.c_out).then_some(Row { bytes, layout, output, step })
    }

    /// What a step of the sums of an int8 dense layer's output is worth: the product of the scales of its
    /// input and of the output's weights.
    fn dense_step(&self, dense: &Conv2d, output: usize) -> f32 {
        let nr = self.header().nr;
        let Some(form) = dense.params_form(nr, Dtype::I8) else { return 0.0 };
        let params = self.span(dense.params);
        let word = |i: usize| {
            let bytes = params.get(i * 4..).and_then(|rest| rest.first_chunk());
            bytes.map_or(0, |bytes| i32::from_le_bytes(*bytes))
        };
        let [multiplier, shift] = form.channel(nr, output, false, word).requant;
        let factor = match shift {
            // A factor in floats, see `ChannelParams::requant`.
            0 => f32::from_bits(multiplier as u32),
            _ => multiplier as f32 / (1u64 << shift.clamp(0, 63)) as f32,
        };
        factor * dense.output.quant.scale
    }
}

/// The weights of an output of a dense layer, as they lie in the file.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    bytes: &'a [u8],
    layout: FilterLayout,
    output: usize,
    step: f32,
}

impl Row<'_> {
    /// How they are stored.
    pub const fn dtype(&self) -> Dtype {
        self.layout.dtype
    }

    /// Weight of input `input` in int8 as it is stored; 0 where there is none.
    pub fn i8(&self, input: usize) -> i8 {
        self.packed::<1>(input)[0] as i8
    }

    /// The real weight of input `input`; 0 where there is none.
    pub fn f32(&self, input: usize) -> f32 {
        match self.layout.dtype {
            Dtype::I8 => f32::from(self.i8(input)) * self.step,
            Dtype::F32 => f32::from_le_bytes(self.packed(input)),
            Dtype::F16 => half::f16::from_le_bytes(self.packed(input)).to_f32(),
            Dtype::Bf16 => half::bf16::from_le_bytes(self.packed(input)).to_f32(),
        }
    }

    /// The bytes of a weight; zeros where there is none.
    fn packed<const N: usize>(&self, input: usize) -> [u8; N] {
        if input >= self.layout.c_in {
            return [0; N];
        }
        let at = self.layout.index(self.output, 0, 0, input) * N;
        let bytes = self.bytes.get(at..).and_then(|rest| rest.first_chunk());
        bytes.copied().unwrap_or([0; N])
    }
}

/// Whether a pool averages all pixels of its input.
fn is_whole(pool: &Pool2d) -> bool {
    let Pool2d { kind, input, output, filter, padding, .. } = *pool;
    kind == PoolKind::Average
        && filter == [input.shape.h, input.shape.w]
        && padding == Padding::default()
        && output.shape.pixels() == 1
}

/// Whether a convolution is a dense layer without an activation.
fn is_linear(conv: &Conv2d) -> bool {
    conv.input.shape.pixels() == 1
        && conv.filter == [1, 1]
        && conv.output.shape.pixels() == 1
        && conv.residual.is_none()
        && conv.clamp == crate::Clamp::None
}
