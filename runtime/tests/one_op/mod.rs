//! Builds models of one operator (and the global pool that a model must end with).
#![allow(dead_code, reason = "each test uses a part")]
#[path = "../../../crates/artifact/tests/noise/mod.rs"]
mod noise;

use artifact::layout::{
    ConvPlane, SCALE_PLANES, ScalePlane, activation_bytes, align_up, conv_planes, has_columns,
    pairs_fit,
};
use artifact::params::shorten;
use artifact::writer::{Blob, Contents, write};
use artifact::{
    Affine, Cast, Clamp, Conv2d, Curve, Dtype, Gate, Grouped, Lookup, Meta, Op, Padding, Place,
    Pool2d, PoolKind, Preprocess, Quant, Requant, Residual, Shape, Span, output_len, winograd_i8,
};
pub(crate) use noise::Noise;

/// Numbers that fill activations and weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fill {
    Random,
    Lowest,
    Highest,
}

impl Fill {
    pub(crate) const ALL: [Self; 3] = [Self::Random, Self::Lowest, Self::Highest];

    pub(crate) fn i8(self, noise: &mut Noise) -> i8 {
        match self {
            Self::Random => noise.i8(),
            Self::Lowest => -128,
            Self::Highest => 127,
        }
    }
}

/// Of [`Form::RoundedScales`]: what a step is in those of the output, and the zero point.
const ROUNDED: (f32, i32) = (0.81, -17);

/// Geometry of a convolution under test.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) input: [u16; 3],
    pub(crate) c_out: u16,
    pub(crate) filter: [u16; 2],
    pub(crate) stride: [u16; 2],
    pub(crate) padding: [u8; 4],
    pub(crate) residual: bool,
    pub(crate) groups: u16,
    pub(crate) clamp: Clamp,
    /// Weights of at most ±64, so that pairs fit, and no large factors: what `convert` writes.
    pub(crate) small: bool,
    /// As networks that were quantized elsewhere, unless 0: no large factors, and of so many
    /// neighbouring four weights one that may be larger than ±64.
    pub(crate) elsewhere: usize,
    /// With weights of either sign in turn.
    pub(crate) opposed: bool,
    /// With scratch for Winograd's algorithm, where panels have 16 outputs.
    pub(crate) winograd: bool,
    pub(crate) form: Form,
}

/// How parameters lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// In planes.
    Planes,
    /// In the short form, where panels have 4 outputs and all of them fit.
    Short,
    /// With factors in floats, where panels have 16 outputs.
    Scales,
    /// The same, and rounded before a residual is added.
    RoundedScales,
}

impl Case {
    /// A 3×3 convolution of a small map.
    pub(crate) const BASE: Self = Self {
        input: [5, 7, 16],
        c_out: 16,
        filter: [3, 3],
        stride: [1, 1],
        padding: [1; 4],
        residual: false,
        groups: 1,
        clamp: Clamp::None,
        small: false,
        elsewhere: 0,
        opposed: false,
        winograd: false,
        form: Form::Planes,
    };

    pub(crate) fn output(&self) -> Shape {
        let [h, w, _] = self.input;
        let [top, left, bottom, right] = self.padding;
        Shape::new(
            output_len(h, top, bottom, self.filter[0], self.stride[0]).unwrap(),
            output_len(w, left, right, self.filter[1], self.stride[1]).unwrap(),
            self.c_out,
        )
    }

    /// Channels that an output sees.
    pub(crate) fn inputs(&self) -> usize {
        usize::from(self.input[2] / self.groups)
    }

    /// Weights of an output.
    pub(crate) fn per_output(&self) -> usize {
        usize::from(self.filter[0]) * usize::from(self.filter[1]) * self.inputs()
    }

    /// The record, without weights, of values nowhere.
    fn record(&self) -> Grouped {
        let [h, w, c] = self.input;
        let nowhere = |shape| Place { offset: 0, shape, quant: Quant::NONE };
        let [x, y] = [Shape::new(h, w, c), self.output()].map(nowhere);
        let conv = self.conv(x, y, 0, [&[], &[]], &mut Blob::new());
        Grouped { groups: self.groups, conv }
    }

    /// The operator.
    fn op(&self, conv: Conv2d) -> Op {
        match self.groups {
            1 => Op::Conv2d(conv),
            groups => Op::Grouped(Grouped { groups, conv }),
        }
    }

    /// With weights and parameters as they are packed, and without scratch.
    fn conv(&self, x: Place, y: Place, shift: u8, packed: [&[u8]; 2], blob: &mut Blob) -> Conv2d {
        let [weights, params] = packed.map(|bytes| blob.push(bytes).unwrap());
        Conv2d {
            input: x,
            output: y,
            filter: self.filter,
            stride: self.stride,
            padding: self.padding(),
            lines: 0,
            scratch: None,
            pairs_fit: false,
            weights,
            params,
            residual: self.residual.then_some(Residual { input: x, shift }),
            clamp: self.clamp,
        }
    }

    pub(crate) fn padding(&self) -> Padding {
        let [top, left, bottom, right] = self.padding;
        Padding { top, left, bottom, right }
    }
}

/// Weights in OHWI as they are packed.
fn pack<T: Copy + Default>(record: &Grouped, nr: usize, dtype: Dtype, weights: &[T]) -> Vec<T> {
    let mut packed = vec![T::default(); record.packed_len(nr, dtype)];
    record.for_each_weight(nr, dtype, |from, to| packed[to] = weights[from]);
    packed
}

/// A quantized convolution: the file, and the numbers it was made from.
pub(crate) struct ConvModel {
    pub(crate) file: Vec<u8>,
    pub(crate) weights: Vec<i8>, // OHWI
    pub(crate) bias: Vec<i32>,
    pub(crate) requant: Vec<Requant>,
    /// Of [`Form::Scales`].
    pub(crate) scales: Vec<f32>,
    pub(crate) residual_factor: Vec<i32>,
    pub(crate) residual_shift: u8,
    pub(crate) input: Quant,
    pub(crate) output: Quant,
}

fn place(offset: &mut usize, shape: Shape, quant: Quant, dtype: Dtype, nr: usize) -> Place {
    let place = Place { offset: *offset as u32, shape, quant };
    *offset += activation_bytes(shape, dtype, nr).unwrap();
    place
}

/// Wraps operators into a file; the last value is pooled to one pixel per channel.
pub(crate) fn model(
    input: Place,
    mut ops: Vec<Op>,
    mut arena: usize,
    dtype: Dtype,
    nr: usize,
    blob: Blob,
) -> Vec<u8> {
    let last = ops.last().unwrap().output();
    let output = place(&mut arena, Shape::new(1, 1, last.shape.c), last.quant, dtype, nr);
    let labels: Vec<String> = (0..last.shape.c).map(|i| format!("class {i}")).collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    ops.push(Op::Pool2d(Pool2d {
        kind: PoolKind::Max,
        input: last,
        output,
        filter: [last.shape.h, last.shape.w],
        stride: [1, 1],
        padding: Padding::default(),
        requant: Requant { multiplier: 0, shift: 1 },
    }));
    let meta = Meta {
        name: "one operator",
        input,
        output,
        preprocess: Preprocess::normalized(input.shape.h, input.shape.w, [0.0; 3], [1.0; 3]),
        dataset: "",
        metrics: "",
        tool: "",
        label_count: 0,
    };
    write(Contents { dtype, nr, arena_len: arena, meta, labels: &labels, ops: &ops, blob }).unwrap()
}

/// Planes of parameters; `each` is given a channel, also of those that do not exist, and what sets a plane.
pub(crate) fn planes(
    c_out: usize,
    nr: usize,
    planes: usize,
    each: impl Fn(usize, &mut dyn FnMut(usize, i32)),
) -> Vec<i32> {
    let outputs = c_out.next_multiple_of(nr);
    let mut params = vec![0; outputs * planes];
    for o in 0..outputs {
        each(o, &mut |plane, value| params[(o / nr * planes + plane) * nr + o % nr] = value);
    }
    params
}

/// Factors in floats.
fn random_scales(c_out: usize, noise: &mut Noise) -> Vec<f32> {
    // Powers of two give ties.
    (0..c_out)
        .map(|_| match noise.below(2) {
            0 => 0.5f32.powi(noise.below(14) as i32 + 2),
            _ => (noise.below(1000) + 1) as f32 * 1e-5,
        })
        .collect()
}

/// Weights in OHWI.
fn weights_i8(case: &Case, fill: Fill, noise: &mut Noise) -> Vec<i8> {
    let mut limit = if case.small { 64 } else { 127 };
    let mut weight = |i: usize| {
        if case.elsewhere > 0 && i.is_multiple_of(4) {
            limit = if noise.below(case.elsewhere) == 0 { 127 } else { 64 };
        }
        let weight = fill.i8(noise).clamp(-limit, limit);
        if case.opposed && i % 2 == 1 { -weight } else { weight }
    };
    (0..case.per_output() * usize::from(case.c_out)).map(&mut weight).collect()
}

/// Scale of one everywhere but at the input, so that observed values are the int8 numbers themselves.
pub(crate) fn conv_i8(case: &Case, nr: usize, fill: Fill, noise: &mut Noise) -> ConvModel {
    let is_scaled = matches!(case.form, Form::Scales | Form::RoundedScales) && nr == 16;
    let input = Quant { scale: if is_scaled { 0.37 } else { 1.0 }, zero_point: noise.i8() };
    let output = Quant { scale: 1.0, zero_point: noise.byte().cast_signed() };
    let [h, w, c] = case.input;
    let mut arena = 0;
    let x = place(&mut arena, Shape::new(h, w, c), input, Dtype::I8, nr);
    let y = place(&mut arena, case.output(), output, Dtype::I8, nr);
    let (record, per_output) = (case.record(), case.per_output());
    let c_out = usize::from(case.c_out);
    let weights = weights_i8(case, fill, noise);
    let packed: Vec<u8> =
        pack(&record, nr, Dtype::I8, &weights).into_iter().map(i8::cast_unsigned).collect();
    let bias: Vec<i32> = (0..c_out).map(|_| noise.below(200_001) as i32 - 100_000).collect();
    let requant: Vec<Requant> = (0..c_out)
        .map(|_| {
            // Few networks have factors above a half, which shift by less than 32.
            let is_usual = case.small || case.winograd || case.elsewhere > 0;
            let one = if !is_usual && noise.below(64) == 0 { 1e-3 } else { 1e-6 };
            Requant::new(f64::from(noise.below(1000) as u32 + 1) * one).unwrap()
        })
        .collect();
    let scales = random_scales(c_out, noise);
    let residual_shift = if is_scaled { 0 } else { noise.below(12) as u8 };
    let residual_factor: Vec<i32> = (0..c_out).map(|_| noise.below(1 << 21) as i32).collect();
    let sums: Vec<i32> =
        weights.chunks_exact(per_output).map(|w| w.iter().map(|w| i32::from(*w)).sum()).collect();
    let folded = |o: usize| bias[o] - i32::from(input.zero_point) * sums[o];
    let mut params = match is_scaled {
        true => planes(c_out, nr, SCALE_PLANES, |o, set| {
            if o < c_out {
                set(ScalePlane::Bias as usize, folded(o));
                set(ScalePlane::Scale as usize, scales[o].to_bits().cast_signed());
                set(ScalePlane::WeightSum as usize, sums[o]);
            }
        }),
        false => planes(c_out, nr, conv_planes(Dtype::I8, nr), |o, set| {
            let requant = requant.get(o).copied().unwrap_or(Requant { multiplier: 0, shift: 1 });
            set(ConvPlane::Shift as usize, requant.shift.into());
            if o < c_out {
                set(ConvPlane::Bias as usize, folded(o));
                set(ConvPlane::Multiplier as usize, requant.multiplier);
                set(ConvPlane::Residual as usize, residual_factor[o]);
                if nr == 16 {
                    set(ConvPlane::WeightSum as usize, sums[o]);
                }
            }
        }),
    };
    if case.form == Form::RoundedScales && case.residual {
        params.extend([ROUNDED.0.to_bits().cast_signed(), ROUNDED.1]);
    }
    let mut blob = Blob::new();
    if case.form == Form::Short && nr == 4 {
        params = shorten(&params, c_out, case.residual).unwrap_or(params);
    }
    let params: Vec<u8> = params.iter().flat_map(|p| p.to_le_bytes()).collect();
    let pairs_fit = nr == 16 && !record.is_depthwise() && pairs_fit(&packed);
    assert!(pairs_fit || !case.small || nr == 4 || record.is_depthwise());
    let has_columns = has_columns(Dtype::I8, nr);
    let scratch = (case.winograd || has_columns).then(|| {
        let len = if has_columns && record.is_depthwise() {
            record.conv.planes().bytes()
        } else if has_columns {
            record.conv.filter_layout(case.groups, nr, Dtype::I8).column_bytes()
        } else {
            winograd_i8::scratch_bytes(c, case.output())
        };
        arena += align_up(len);
        Span { offset: (arena - align_up(len)) as u32, len: len as u32 }
    });
    let op = Conv2d {
        scratch,
        pairs_fit,
        ..case.conv(x, y, residual_shift, [&packed, &params], &mut blob)
    };
    let file = model(x, vec![case.op(op)], arena, Dtype::I8, nr, blob);
    ConvModel {
        file,
        weights,
        bias,
        requant,
        scales,
        residual_factor,
        residual_shift,
        input,
        output,
    }
}

/// A convolution of floats with `weights` in OHWI, which `dtype` holds.
pub(crate) fn conv_float(
    case: &Case,
    nr: usize,
    dtype: Dtype,
    weights: &[f32],
    bias: &[f32],
) -> Vec<u8> {
    let [h, w, c] = case.input;
    let mut arena = 0;
    let x = place(&mut arena, Shape::new(h, w, c), Quant::NONE, dtype, nr);
    let y = place(&mut arena, case.output(), Quant::NONE, dtype, nr);
    let record = case.record();
    let bytes = |w: f32| match dtype {
        _ if record.is_depthwise() => w.to_le_bytes().to_vec(),
        Dtype::F16 => half::f16::from_f32(w).to_le_bytes().to_vec(),
        Dtype::Bf16 => half::bf16::from_f32(w).to_le_bytes().to_vec(),
        Dtype::F32 | Dtype::I8 => w.to_le_bytes().to_vec(),
    };
    let packed: Vec<u8> = pack(&record, nr, dtype, weights).into_iter().flat_map(bytes).collect();
    let mut params = bias.to_vec();
    params.resize(bias.len().next_multiple_of(nr), 0.0);
    let params: Vec<u8> = params.into_iter().flat_map(f32::to_le_bytes).collect();
    let mut blob = Blob::new();
    let op = case.op(case.conv(x, y, 0, [&packed, &params], &mut blob));
    model(x, vec![op], arena, dtype, nr, blob)
}

/// Calls `tap(input, weight)` for each product of the output `[row, column, channel]`; indices in
/// NHWC and OHWI.
pub(crate) fn for_each_tap(
    case: &Case,
    [oy, ox, o]: [usize; 3],
    mut tap: impl FnMut(usize, usize),
) {
    let [h, w, c] = case.input.map(usize::from);
    let [kh, kw] = case.filter.map(usize::from);
    let inputs = case.inputs();
    let first = o / usize::from(case.c_out / case.groups) * inputs;
    for ky in 0..kh {
        for kx in 0..kw {
            let iy = (oy * usize::from(case.stride[0]) + ky).wrapping_sub(case.padding[0].into());
            let ix = (ox * usize::from(case.stride[1]) + kx).wrapping_sub(case.padding[1].into());
            if iy >= h || ix >= w {
                continue;
            }
            for ci in 0..inputs {
                let weight = ((o * kh + ky) * kw + kx) * inputs + ci;
                tap((iy * w + ix) * c + first + ci, weight);
            }
        }
    }
}

/// `clamp(zero_point + rq(b + Σ (x − zero_point_x)·w + residual))`, straight from the formula, or of
/// [`Form::Scales`] `clamp(zero_point + ⌊(b + Σ (x − zero_point_x)·w)·scale + residual⌉)`.
pub(crate) fn reference_conv_i8(case: &Case, m: &ConvModel, x: &[i8]) -> Vec<i8> {
    let out = case.output();
    let mut y = Vec::with_capacity(out.len());
    let zero_in = i32::from(m.input.zero_point);
    let zero_out = i32::from(m.output.zero_point);
    for oy in 0..usize::from(out.h) {
        for ox in 0..usize::from(out.w) {
            for o in 0..usize::from(out.c) {
                let mut acc = m.bias[o];
                for_each_tap(case, [oy, ox, o], |at, weight| {
                    acc += (i32::from(x[at]) - zero_in) * i32::from(m.weights[weight]);
                });
                let [low, high] = case.clamp.bytes(m.output).map(i32::from);
                let at = (oy * usize::from(out.w) + ox) * usize::from(out.c) + o;
                if matches!(case.form, Form::Scales | Form::RoundedScales) {
                    let mut steps = acc as f32 * m.scales[o];
                    if case.residual {
                        if case.form == Form::RoundedScales {
                            let (ratio, zero_point) = ROUNDED;
                            let stored =
                                (steps.round_ties_even() as i32 + zero_point).clamp(-128, 127);
                            steps = (stored - zero_point) as f32 * ratio;
                        }
                        steps += (i32::from(x[at]) - zero_in) as f32 * m.input.scale;
                    }
                    let steps = steps.round_ties_even() as i32;
                    y.push((steps + zero_out).max(low).min(high) as i8);
                    continue;
                }
                if case.residual {
                    let lifted = (i32::from(x[at]) - zero_in) * m.residual_factor[o];
                    acc += (lifted + ((1 << m.residual_shift) >> 1)) >> m.residual_shift;
                }
                y.push((m.requant[o].apply(acc) + zero_out).max(low).min(high) as i8);
            }
        }
    }
    y
}

/// A per-channel affine of small numbers.
pub(crate) fn affine_i8(
    shape: Shape,
    nr: usize,
    clamp: Clamp,
    noise: &mut Noise,
) -> (Vec<u8>, Affine, Vec<[i32; 2]>) {
    let mut arena = 0;
    let quant = |zero_point| Quant { scale: 1.0, zero_point };
    let input = place(&mut arena, shape, quant(noise.i8()), Dtype::I8, nr);
    let output = place(&mut arena, shape, quant(noise.i8()), Dtype::I8, nr);
    let c = usize::from(shape.c);
    let values: Vec<[i32; 2]> = (0..c)
        .map(|_| [noise.below(1 << 14) as i32 - (1 << 13), noise.below(1 << 20) as i32 - (1 << 19)])
        .collect();
    let mut params = vec![0i32; c.div_ceil(nr) * 2 * nr];
    for (i, v) in values.iter().enumerate() {
        params[i / nr * 2 * nr + i % nr] = v[0];
        params[(i / nr * 2 + 1) * nr + i % nr] = v[1];
    }
    let mut blob = Blob::new();
    let params: Vec<u8> = params.iter().flat_map(|p| p.to_le_bytes()).collect();
    let op = Affine { input, output, params: blob.push(&params).unwrap(), shift: 12, clamp };
    (model(input, vec![Op::Affine(op)], arena, Dtype::I8, nr, blob), op, values)
}

/// A map whose channels are multiplied by their largest numbers, or, where it is one pixel, by
/// themselves; the gate is operator 1 or 0.
pub(crate) fn gated(
    shape: Shape,
    nr: usize,
    dtype: Dtype,
    [input, output]: [Quant; 2],
    in_place: bool,
    clamp: Clamp,
) -> (Vec<u8>, Gate) {
    let mut arena = 0;
    let x = place(&mut arena, shape, input, dtype, nr);
    let y = if in_place {
        Place { quant: output, ..x }
    } else {
        place(&mut arena, shape, output, dtype, nr)
    };
    let mut ops = Vec::new();
    let mut gate = x;
    if shape.pixels() > 1 {
        gate = place(&mut arena, Shape { h: 1, w: 1, ..shape }, input, dtype, nr);
        ops.push(Op::Pool2d(Pool2d {
            kind: PoolKind::Max,
            input: x,
            output: gate,
            filter: [shape.h, shape.w],
            stride: [1, 1],
            padding: Padding::default(),
            requant: Requant { multiplier: 0, shift: 1 },
        }));
    }
    let op = Gate { input: x, gate, output: y, requant: Requant::new(0.011).unwrap(), clamp };
    ops.push(Op::Gate(op));
    (model(x, ops, arena, dtype, nr, Blob::new()), op)
}

/// To floats and back, to other steps than before.
pub(crate) fn casts(shape: Shape, nr: usize, quants: [Quant; 2]) -> Vec<u8> {
    let mut arena = 0;
    let [input, output] = quants.map(|quant| place(&mut arena, shape, quant, Dtype::I8, nr));
    let real = place(&mut arena, shape, Quant::FLOAT, Dtype::F16, nr);
    let ops = vec![Op::Cast(Cast { input, output: real }), Op::Cast(Cast { input: real, output })];
    model(input, ops, arena, Dtype::I8, nr, Blob::new())
}

/// A function of each number, in place or not; in int8 by a table of any bytes.
pub(crate) fn lookup(
    shape: Shape,
    nr: usize,
    dtype: Dtype,
    curve: Curve,
    table: &[u8],
    in_place: bool,
) -> Vec<u8> {
    let mut arena = 0;
    let quant = Quant { scale: 1.0, zero_point: 0 };
    let x = place(&mut arena, shape, quant, dtype, nr);
    let y = if in_place { x } else { place(&mut arena, shape, quant, dtype, nr) };
    let mut blob = Blob::new();
    let op = Lookup { input: x, output: y, curve, table: blob.push(table).unwrap() };
    model(x, vec![Op::Lookup(op)], arena, dtype, nr, blob)
}
