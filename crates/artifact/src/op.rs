//! Operator records, in execution order.

use crate::header::OLDEST_VERSION;
use crate::layout::{DepthwiseLayout, DepthwisePlanes, FilterLayout, Groups};
use crate::params::ParamsForm;
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

/// Between which numbers results are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub enum Clamp {
    /// Any.
    #[default]
    None,
    /// Zero and above.
    Relu,
    /// Bounds; int8 has the nearest bytes of them. Since version 7.
    Bounds {
        /// The least.
        low: f32,
        /// The largest.
        high: f32,
    },
}

impl Clamp {
    /// The bounds, infinite where there are none.
    pub const fn bounds(self) -> [f32; 2] {
        match self {
            Self::None => [f32::NEG_INFINITY, f32::INFINITY],
            Self::Relu => [0.0, f32::INFINITY],
            Self::Bounds { low, high } => [low, high],
        }
    }

    /// The bounds of stored int8 values.
    pub fn bytes(self, quant: Quant) -> [i8; 2] {
        match self {
            Self::None => [-128, 127],
            Self::Relu => [quant.zero_point, 127],
            Self::Bounds { low, high } => [low, high].map(|bound| quant.quantize(bound)),
        }
    }

    /// Whether there are numbers between the bounds.
    pub fn is_valid(self) -> bool {
        let [low, high] = self.bounds();
        low <= high && low < f32::INFINITY && high > f32::NEG_INFINITY
    }
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
    /// Per-channel parameters, [`crate::layout::conv_planes`] planes a panel or as [`crate::params`]
    /// says.
    pub params: Span,
    /// Added activation.
    pub residual: Option<Residual>,
    /// Of each number, at the end.
    pub clamp: Clamp,
}

impl Conv2d {
    /// Which input channels the panels of `groups` groups read.
    pub const fn groups(&self, groups: u16, nr: usize, dtype: Dtype) -> Groups {
        let (c_in, c_out) = (self.input.shape.c as usize, self.output.shape.c as usize);
        Groups { c_in, c_out, count: groups as usize, nr, dtype }
    }

    /// How its parameters lie, `None` where they have no such length.
    pub const fn params_form(&self, nr: usize, dtype: Dtype) -> Option<ParamsForm> {
        let outputs = self.output.shape.c as usize;
        ParamsForm::of(self.params.len as usize, outputs, self.residual.is_some(), dtype, nr)
    }

    /// How its weights are packed unless it is depthwise.
    pub const fn filter_layout(&self, groups: u16, nr: usize, dtype: Dtype) -> FilterLayout {
        let Groups { c_out, .. } = self.groups(groups, nr, dtype);
        let c_in = self.groups(groups, nr, dtype).span();
        let [kh, kw] = [self.filter[0] as usize, self.filter[1] as usize];
        FilterLayout { kh, kw, c_in, c_out, nr, dtype }
    }

    /// How its weights are packed if it is depthwise.
    pub const fn depthwise_layout(&self, nr: usize, dtype: Dtype) -> DepthwiseLayout {
        let [kh, kw] = [self.filter[0] as usize, self.filter[1] as usize];
        DepthwiseLayout { kh, kw, channels: self.output.shape.c as usize, nr, dtype }
    }

    /// Where a microcontroller copies its windows if it is depthwise.
    pub const fn planes(&self) -> DepthwisePlanes {
        DepthwisePlanes::new(self.filter, self.stride, [self.output.shape.h, self.output.shape.w])
    }
}

/// A convolution whose channels fall into parts that do not see each other, see
/// [`FilterLayout`] and [`DepthwiseLayout`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Grouped {
    /// Parts; in files at least 2.
    pub groups: u16,
    /// All else.
    pub conv: Conv2d,
}

impl Grouped {
    /// Whether each channel is a part of its own, and the weights are packed as those of
    /// [`DepthwiseLayout`].
    pub const fn is_depthwise(&self) -> bool {
        let Conv2d { input, output, filter: [kh, kw], .. } = self.conv;
        self.groups > 1
            && self.groups == input.shape.c
            && self.groups == output.shape.c
            && DepthwiseLayout::fits(kh as usize, kw as usize)
    }

    /// How many weights are packed, of which some may be zeros that fill up.
    pub const fn packed_len(&self, nr: usize, dtype: Dtype) -> usize {
        match self.is_depthwise() {
            true => self.conv.depthwise_layout(nr, dtype).len(),
            false => self.conv.filter_layout(self.groups, nr, dtype).len(),
        }
    }

    /// Calls `f` with the place of every weight in OHWI, where I counts the channels of a group, and
    /// as it is packed.
    pub fn for_each_weight(&self, nr: usize, dtype: Dtype, mut f: impl FnMut(usize, usize)) {
        let groups = self.conv.groups(self.groups, nr, dtype);
        let (depthwise, filter) = (
            self.conv.depthwise_layout(nr, dtype),
            self.conv.filter_layout(self.groups, nr, dtype),
        );
        let mut from = 0;
        for o in 0..filter.c_out {
            let [start, inputs] = groups.inputs_of(o);
            let first = start - groups.first(o / nr, filter.c_in);
            for tap in 0..filter.kh * filter.kw {
                let (y, x) = (tap / filter.kw, tap % filter.kw);
                for c in 0..inputs {
                    let to = match self.is_depthwise() {
                        true => depthwise.index(o, y, x),
                        false => filter.index(o, y, x, first + c),
                    };
                    f(from, to);
                    from += 1;
                }
            }
        }
    }
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
    /// Of each number, at the end.
    pub clamp: Clamp,
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
    /// Of each number, at the end.
    pub clamp: Clamp,
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

/// `y = f(x)` for each number.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Lookup {
    /// Input.
    pub input: Place,
    /// Output; may lie exactly on the input.
    pub output: Place,
    /// The function, which floats are computed by.
    pub curve: Curve,
    /// Int8: the result for each of the 256 bytes, in the order of `x as u8`; else empty.
    pub table: Span,
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
    /// Grouped or depthwise convolution.
    Grouped(Grouped),
    /// Function of each number.
    Lookup(Lookup),
}

impl Op {
    /// The activation that it reads first, and that which it writes.
    const fn places(&self) -> [Place; 2] {
        match self {
            Self::Conv2d(o) | Self::Grouped(Grouped { conv: o, .. }) => [o.input, o.output],
            Self::Pool2d(o) => [o.input, o.output],
            Self::Affine(o) => [o.input, o.output],
            Self::Cast(o) => [o.input, o.output],
            Self::Gate(o) => [o.input, o.output],
            Self::Lookup(o) => [o.input, o.output],
        }
    }

    /// The convolution that it is, of any number of groups.
    pub const fn conv(&self) -> Option<&Conv2d> {
        match self {
            Self::Conv2d(o) | Self::Grouped(Grouped { conv: o, .. }) => Some(o),
            _ => None,
        }
    }

    /// As [`Self::conv`], with its groups.
    pub const fn grouped(&self) -> Option<Grouped> {
        match self {
            Self::Conv2d(conv) => Some(Grouped { groups: 1, conv: *conv }),
            Self::Grouped(o) => Some(*o),
            _ => None,
        }
    }

    /// The oldest version that has it of files of `dtype` in panels of `nr`.
    pub const fn version(&self, dtype: Dtype, nr: usize) -> u16 {
        if let Some(conv) = self.conv() {
            match conv.params_form(nr, conv.output.dtype(dtype)) {
                Some(ParamsForm::Scales | ParamsForm::RoundedScales) => return 8,
                Some(ParamsForm::Short(_)) => return 7,
                _ => {}
            }
        }
        match (self, self.clamp()) {
            (Self::Gate(_) | Self::Grouped(_) | Self::Lookup(_), _) => 7,
            (_, Clamp::Bounds { .. }) => 7,
            (Self::Cast(_), _) => 6,
            _ => OLDEST_VERSION,
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
        match self.conv() {
            Some(Conv2d { residual: Some(r), .. }) => Some(r.input),
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
            Self::Conv2d(_) | Self::Grouped(_) => Some(1),
            Self::Affine(_) | Self::Gate(_) | Self::Lookup(_) => Some(0),
            Self::Pool2d(_) | Self::Cast(_) => None,
        }
    }

    /// The part of the arena that it writes beside its output, if any.
    pub const fn scratch(&self) -> Option<Span> {
        match self.conv() {
            Some(o) => o.scratch,
            None => None,
        }
    }

    /// See [`Conv2d::lines`]; 0 for other operators.
    pub const fn lines(&self) -> u16 {
        match self.conv() {
            Some(o) => o.lines,
            None => 0,
        }
    }

    /// Name of the operator.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Conv2d(o) if o.input.shape.pixels() == 1 => "dense",
            Self::Conv2d(_) => "conv2d",
            Self::Grouped(o) if o.is_depthwise() => "depthwise_conv2d",
            Self::Grouped(_) => "grouped_conv2d",
            Self::Pool2d(Pool2d { kind: PoolKind::Max, .. }) => "max_pool2d",
            Self::Pool2d(_) => "avg_pool2d",
            Self::Affine(_) => "affine",
            Self::Cast(o) if o.output.quant.is_float() => "dequantize",
            Self::Cast(_) => "quantize",
            Self::Gate(_) => "gate",
            Self::Lookup(o) => o.curve.name(),
        }
    }

    /// Rows and columns of its window, and their strides, if it has one.
    pub const fn window(&self) -> Option<[[u16; 2]; 2]> {
        match (self, self.conv()) {
            (_, Some(o)) => Some([o.filter, o.stride]),
            (Self::Pool2d(o), _) => Some([o.filter, o.stride]),
            _ => None,
        }
    }

    /// What its results are kept between.
    pub const fn clamp(&self) -> Clamp {
        match (self, self.conv()) {
            (_, Some(o)) => o.clamp,
            (Self::Affine(o), _) => o.clamp,
            (Self::Gate(o), _) => o.clamp,
            _ => Clamp::None,
        }
    }

    /// Bytes of its weights and parameters.
    pub const fn weight_bytes(&self) -> u32 {
        match (self, self.conv()) {
            (_, Some(o)) => o.weights.len + o.params.len,
            (Self::Affine(o), _) => o.params.len,
            (Self::Lookup(o), _) => o.table.len,
            _ => 0,
        }
    }

    /// Multiply-accumulates of one run.
    pub const fn macs(&self) -> u64 {
        let groups = match self {
            Self::Grouped(o) => o.groups as u64,
            _ => 1,
        };
        match (self, self.conv()) {
            (_, Some(o)) => {
                let inputs = o.input.shape.c as u64 / if groups == 0 { 1 } else { groups };
                o.output.shape.len() as u64 * o.filter[0] as u64 * o.filter[1] as u64 * inputs
            }
            (Self::Affine(_) | Self::Gate(_), _) => self.output().shape.len() as u64,
            _ => 0,
        }
    }
}
