//! The end of a classifier whose scores are sums over the pixels of a map.
//!
//! Where a map `a: [h, w, C]` is averaged as a whole and a dense layer `w, b` follows, the score of class
//! `k` is `b[k] + Σ_yx (Σ_c w[k, c] · a[y, x, c]) / (h · w)`, so that each pixel has a share in it: the class
//! activation map of Zhou et al., *Learning Deep Features for Discriminative Localization*, 2016.

use crate::params::ChannelParams;
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

impl Artifact<'_> {
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

    /// How the weights of a dense layer are stored.
    pub fn dense_dtype(&self, dense: &Conv2d) -> Dtype {
        dense.output.dtype(self.header().dtype)
    }

    /// Weight `[output, input]` of an int8 dense layer of this model as it is stored; 0 for what is no
    /// such layer's.
    pub fn dense_i8(&self, dense: &Conv2d, output: usize, input: usize) -> i8 {
        self.packed::<1>(dense, Dtype::I8, output, input)[0] as i8
    }

    /// The real weight `[output, input]` of a dense layer of this model; 0 for what is no such layer's.
    pub fn dense_f32(&self, dense: &Conv2d, output: usize, input: usize) -> f32 {
        match self.dense_dtype(dense) {
            Dtype::I8 => {
                let weight = f32::from(self.dense_i8(dense, output, input));
                weight * self.dense_step(dense, output) / dense.input.quant.scale
            }
            Dtype::F32 => f32::from_le_bytes(self.packed(dense, Dtype::F32, output, input)),
            Dtype::F16 => {
                let bytes = self.packed(dense, Dtype::F16, output, input);
                half::f16::from_le_bytes(bytes).to_f32()
            }
            Dtype::Bf16 => {
                let bytes = self.packed(dense, Dtype::Bf16, output, input);
                half::bf16::from_le_bytes(bytes).to_f32()
            }
        }
    }

    /// What a step of the sums of an int8 dense layer's output is worth: the product of the scales of its
    /// input and of the output's weights.
    pub fn dense_step(&self, dense: &Conv2d, output: usize) -> f32 {
        let nr = self.header().nr;
        let Some(form) = dense.params_form(nr, Dtype::I8) else { return 0.0 };
        let params = self.span(dense.params);
        let word = |i: usize| {
            let bytes = params.get(i * 4..).and_then(|rest| rest.first_chunk());
            bytes.map_or(0, |bytes| i32::from_le_bytes(*bytes))
        };
        let ChannelParams { requant: [multiplier, shift], .. } =
            form.channel(nr, output, false, word);
        let factor = match shift {
            // A factor in floats, see `ChannelParams::requant`.
            0 => f32::from_bits(multiplier as u32),
            _ => multiplier as f32 / (1u64 << shift.clamp(0, 63)) as f32,
        };
        factor * dense.output.quant.scale
    }

    /// The bytes of a weight of a dense layer in the number format `dtype`; zeros where there is none.
    fn packed<const N: usize>(
        &self,
        dense: &Conv2d,
        dtype: Dtype,
        output: usize,
        input: usize,
    ) -> [u8; N] {
        let layout = dense.filter_layout(1, self.header().nr, dtype);
        if output >= layout.c_out || input >= layout.c_in {
            return [0; N];
        }
        let at = layout.index(output, 0, 0, input) * N;
        let bytes = self.span(dense.weights).get(at..).and_then(|rest| rest.first_chunk());
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
