//! Operator records, in execution order.

use crate::{Dtype, Padding, Quant, Requant, Shape};
use serde::{Deserialize, Serialize};

/// An activation: where in the arena, which shape, what its numbers mean.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// Byte offset in the arena, a multiple of [`crate::layout::ALIGN`].
    pub offset: u32,
    /// Shape.
    pub shape: Shape,
    /// Meaning of int8 values; [`Quant::NONE`] in f32 models.
    pub quant: Quant,
}

impl Place {
    /// Number format of the activation, and of the weights of what computes it, in a model of
    /// `model`: of [`Quant::FLOAT`] in int8 models, f32 with f16 weights.
    pub const fn dtype(&self, model: Dtype) -> Dtype {
        match model {
            Dtype::I8 if self.quant.is_float() => Dtype::F16,
            _ => model,
        }
    }
}

/// A byte range of the weight blob or the arena; starts at a multiple of
/// [`crate::layout::ALIGN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// First byte.
    pub offset: u32,
    /// Bytes.
    pub len: u32,
}

/// A second activation added to a convolution before its clamp.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Residual {
    /// The activation; its shape is the output's.
    pub input: Place,
    /// Int8: `acc += ((r − zero_point) · factor[c] + 2^(shift−1)) >> shift` (0: no rounding).
    pub shift: u8,
}

/// `y[o] = clamp(rq(b[o] + Σ x·w[o] + residual))`; a dense layer is a 1×1 convolution of a 1×1 map.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Conv2d {
    /// Input.
    pub input: Place,
    /// Output; may lie exactly on the residual.
    pub output: Place,
    /// Filter rows and columns.
    pub filter: [u16; 2],
    /// Vertical and horizontal stride.
    pub stride: [u16; 2],
    /// Padding.
    pub padding: Padding,
    /// 0 where the output is a whole map in memory. Else that many lines of it are, and this runs
    /// in turns with the next convolution whose output is whole, see [`crate::stripes`].
    pub lines: u16,
    /// Packed weights.
    pub weights: Span,
    /// A range of the arena to work in. Floats with some are computed by Winograd's algorithm as
    /// [`crate::winograd`] says, int8 may be, as [`crate::winograd_i8`] says; where
    /// [`crate::layout::has_columns`], it is the column and never missing.
    pub scratch: Option<Span>,
    /// Whether [`crate::layout::pairs_fit`] them; false in f32 models.
    pub pairs_fit: bool,
    /// Per-channel parameters, [`crate::layout::conv_planes`] planes a panel.
    pub params: Span,
    /// Added activation.
    pub residual: Option<Residual>,
    /// Clamp at zero.
    pub relu: bool,
}

/// What a pooling window computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PoolKind {
    /// Largest value; taps outside the map are skipped.
    Max,
    /// Mean over the real pixels of the window.
    Average,
}

/// Pooling; a global pool is a window of the whole map.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pool2d {
    /// Maximum or mean.
    pub kind: PoolKind,
    /// Input.
    pub input: Place,
    /// Output.
    pub output: Place,
    /// Window rows and columns.
    pub filter: [u16; 2],
    /// Vertical and horizontal stride.
    pub stride: [u16; 2],
    /// Padding.
    pub padding: Padding,
    /// Int8 mean: factor from the sum of a full window to the output.
    pub requant: Requant,
}

/// `y[c] = clamp(x[c]·a[c] + b[c])`: a batch-norm that cannot be folded (pre-activation nets).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Affine {
    /// Input.
    pub input: Place,
    /// Output; may lie exactly on the input.
    pub output: Place,
    /// Per panel of NR channels: factors, then addends. Int8: i32 in steps of `2^−shift` of
    /// the output's scale, `y = zero_point + ((x − zero_point_x)·a + b + 2^(shift−1)) >> shift`.
    pub params: Span,
    /// Fractional bits of the int8 parameters, `1..=24`.
    pub shift: u8,
    /// Clamp at zero.
    pub relu: bool,
}

/// `y[h, w, c] = clamp(x[h, w, c] · s[c])`, as squeeze-and-excitation weighs channels. Int8:
/// `y = zero_point + rq((x − zero_point_x) · (s − zero_point_s))`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// Input.
    pub input: Place,
    /// The factors: one pixel, of as many channels.
    pub gate: Place,
    /// Output; may lie exactly on the input.
    pub output: Place,
    /// Int8: factor from products to the output.
    pub requant: Requant,
    /// Clamp at zero.
    pub relu: bool,
}

/// A function of one number that is no clamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Curve {
    /// `x · min(max(x + 3, 0), 6) / 6`
    HardSwish,
    /// `min(max(x + 3, 0), 6) / 6`
    HardSigmoid,
    /// `σ(x) = 1 / (1 + e⁻ˣ)`
    Sigmoid,
    /// `x · σ(x)`
    Silu,
    /// `x · Φ(x)`, with the normal distribution function Φ
    Gelu,
}

impl Curve {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::HardSwish, Self::HardSigmoid, Self::Sigmoid, Self::Silu, Self::Gelu];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HardSwish => "hard_swish",
            Self::HardSigmoid => "hard_sigmoid",
            Self::Sigmoid => "sigmoid",
            Self::Silu => "silu",
            Self::Gelu => "gelu",
        }
    }
}

/// The same numbers in the output's number format: to int8 as [`Quant::quantize`] does, to floats as
/// [`Quant::dequantize`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cast {
    /// Input.
    pub input: Place,
    /// Output.
    pub output: Place,
}

/// One operator.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// Convolution or dense layer.
    Conv2d(Conv2d),
    /// Pooling.
    Pool2d(Pool2d),
    /// Per-channel affine.
    Affine(Affine),
    /// Change of the number format.
    Cast(Cast),
    /// Per-channel product with another activation.
    Gate(Gate),
}

impl Op {
    /// The activation that it reads first, and that which it writes.
    const fn places(&self) -> [Place; 2] {
        match self {
            Self::Conv2d(o) => [o.input, o.output],
            Self::Pool2d(o) => [o.input, o.output],
            Self::Affine(o) => [o.input, o.output],
            Self::Cast(o) => [o.input, o.output],
            Self::Gate(o) => [o.input, o.output],
        }
    }

    /// The activation it reads (a residual apart).
    pub const fn input(&self) -> Place {
        self.places()[0]
    }

    /// The activation it writes.
    pub const fn output(&self) -> Place {
        self.places()[1]
    }

    /// The activation it adds, if any.
    pub const fn residual(&self) -> Option<Place> {
        match self {
            Self::Conv2d(Conv2d { residual: Some(r), .. }) => Some(r.input),
            _ => None,
        }
    }

    /// All activations that it reads.
    pub const fn operands(&self) -> [Option<Place>; 2] {
        match self {
            Self::Gate(o) => [Some(o.input), Some(o.gate)],
            _ => [Some(self.input()), self.residual()],
        }
    }

    /// Which of its [`Self::operands`] its output may lie exactly on.
    pub const fn reusable(&self) -> Option<usize> {
        match self {
            Self::Conv2d(_) => Some(1),
            Self::Affine(_) | Self::Gate(_) => Some(0),
            _ => None,
        }
    }

    /// The part of the arena that it writes beside its output, if any.
    pub const fn scratch(&self) -> Option<Span> {
        match self {
            Self::Conv2d(o) => o.scratch,
            _ => None,
        }
    }

    /// See [`Conv2d::lines`]; 0 for other operators.
    pub const fn lines(&self) -> u16 {
        match self {
            Self::Conv2d(o) => o.lines,
            _ => 0,
        }
    }

    /// Name of the operator.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Conv2d(o) if o.input.shape.pixels() == 1 => "dense",
            Self::Conv2d(_) => "conv2d",
            Self::Pool2d(Pool2d { kind: PoolKind::Max, .. }) => "max_pool2d",
            Self::Pool2d(_) => "avg_pool2d",
            Self::Affine(_) => "affine",
            Self::Cast(o) if o.output.quant.is_float() => "dequantize",
            Self::Cast(_) => "quantize",
            Self::Gate(_) => "gate",
        }
    }

    /// Rows and columns of its window, and their strides, if it has one.
    pub const fn window(&self) -> Option<[[u16; 2]; 2]> {
        match self {
            Self::Conv2d(o) => Some([o.filter, o.stride]),
            Self::Pool2d(o) => Some([o.filter, o.stride]),
            _ => None,
        }
    }

    /// Whether it clamps at zero.
    pub const fn relu(&self) -> bool {
        match self {
            Self::Conv2d(o) => o.relu,
            Self::Affine(o) => o.relu,
            Self::Gate(o) => o.relu,
            _ => false,
        }
    }

    /// Bytes of its weights and parameters.
    pub const fn weight_bytes(&self) -> u32 {
        match self {
            Self::Conv2d(o) => o.weights.len + o.params.len,
            Self::Affine(o) => o.params.len,
            _ => 0,
        }
    }

    /// Multiply-accumulates of one run.
    pub const fn macs(&self) -> u64 {
        match self {
            Self::Conv2d(o) => {
                o.output.shape.len() as u64
                    * o.filter[0] as u64
                    * o.filter[1] as u64
                    * o.input.shape.c as u64
            }
            Self::Affine(_) | Self::Gate(_) => self.output().shape.len() as u64,
            _ => 0,
        }
    }
}
