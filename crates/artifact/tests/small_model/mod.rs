//! A small model with every kind of operator, in parts that a test can spoil.
#![allow(dead_code, reason = "each test uses a part")]

#[path = "../noise/mod.rs"]
mod noise;

use artifact::layout::{
    ConvPlane, FilterLayout, activation_bytes, conv_planes, has_columns, pairs_fit,
};
use artifact::writer::{Blob, Contents, Statistics, with_known, write};
use artifact::{
    Affine, ArtifactError, Cast, Clamp, Conv2d, Dtype, Gate, Meta, Op, Padding, Place, Pool2d,
    PoolKind, Preprocess, Quant, Requant, Residual, Shape, Span,
};
pub(crate) use noise::Noise;

/// Operators of [`Parts::sound`] by what they do.
pub(crate) const STEM: usize = 0;
pub(crate) const OTHER_RESIDUAL: usize = 1;
pub(crate) const IN_PLACE_RESIDUAL: usize = 2;
pub(crate) const AFFINE: usize = 3;
pub(crate) const MAX_POOL: usize = 4;
pub(crate) const AVERAGE_POOL: usize = 5;
pub(crate) const DENSE: usize = 6;

/// What a file is written from.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) dtype: Dtype,
    pub(crate) nr: usize,
    pub(crate) arena_len: usize,
    pub(crate) input: Place,
    pub(crate) output: Place,
    pub(crate) preprocess: Preprocess,
    pub(crate) labels: Vec<String>,
    pub(crate) ops: Vec<Op>,
    pub(crate) blob: Vec<u8>,
    /// Added to the file when it is written.
    pub(crate) known: Option<Statistics>,
}

/// Bytes of the largest column.
const COLUMN: u32 = 3 * 3 * 4 * 3 * 2;

/// Weights and parameters as they come.
struct Weights {
    dtype: Dtype,
    nr: usize,
    blob: Vec<u8>,
    noise: Noise,
    /// Where columns lie.
    column: u32,
}

impl Weights {
    fn push(&mut self, bytes: &[u8]) -> Span {
        let span = Span { offset: self.blob.len() as u32, len: bytes.len() as u32 };
        self.blob.extend_from_slice(bytes);
        self.blob.resize(self.blob.len().next_multiple_of(64), 0);
        span
    }

    fn weight(&mut self) -> Vec<u8> {
        match self.dtype {
            Dtype::I8 => vec![self.noise.byte().cast_signed().max(-127).cast_unsigned()],
            // 1 to 2 with all mantissas
            Dtype::F16 => (0x3c00 | self.noise.below(0x400) as u16).to_le_bytes().to_vec(),
            Dtype::Bf16 => (0x3f80 | self.noise.below(0x80) as u16).to_le_bytes().to_vec(),
            Dtype::F32 => (0x3f80_0000 | self.noise.below(0x80_0000) as u32).to_le_bytes().to_vec(),
        }
    }

    fn conv(&mut self, input: Place, output: Place, filter: u16, residual: Option<Place>) -> Op {
        let Self { dtype, nr, .. } = *self;
        let layout = FilterLayout {
            kh: filter.into(),
            kw: filter.into(),
            c_in: input.shape.c.into(),
            c_out: output.shape.c.into(),
            nr,
            dtype,
        };
        let mut weights = vec![0; layout.len() * dtype.weight_bytes()];
        let mut params = vec![0u8; layout.panels() * conv_planes(dtype, nr) * nr * 4];
        for channel in 0..layout.panels() * nr {
            let mut sum = 0i32;
            let taps = (0..layout.kh).flat_map(|y| (0..layout.kw).map(move |x| (y, x)));
            for (y, x) in taps.filter(|_| channel < layout.c_out) {
                for c in 0..layout.c_in {
                    let value = self.weight();
                    sum += i32::from(value[0] as i8);
                    let at = layout.index(channel, y, x, c) * value.len();
                    weights[at..at + value.len()].copy_from_slice(&value);
                }
            }
            let mut set = |plane: ConvPlane, v: i32| {
                let panel = channel / nr * conv_planes(dtype, nr) + plane as usize;
                let at = (panel * nr + channel % nr) * 4;
                params[at..at + 4].copy_from_slice(&v.to_le_bytes());
            };
            if dtype == Dtype::I8 {
                set(ConvPlane::Bias, 1000 - i32::from(input.quant.zero_point) * sum);
                if nr == 16 {
                    set(ConvPlane::WeightSum, sum);
                }
                set(ConvPlane::Multiplier, 1 << 30);
                set(ConvPlane::Shift, 39);
                set(ConvPlane::Residual, 1 << 16);
            }
        }
        let padding = Padding::same((filter / 2) as u8);
        let pairs_fit = self.dtype == Dtype::I8 && pairs_fit(&weights);
        let scratch = has_columns(dtype, nr)
            .then(|| Span { offset: self.column, len: layout.column_bytes() as u32 });
        let (weights, params) = (self.push(&weights), self.push(&params));
        let residual = residual.map(|input| Residual { input, shift: 8 });
        let (filter, stride, clamp) = ([filter; 2], [1; 2], Clamp::Relu);
        Op::Conv2d(Conv2d {
            input,
            output,
            filter,
            stride,
            padding,
            lines: 0,
            scratch,
            pairs_fit,
            weights,
            params,
            residual,
            clamp,
        })
    }
}

impl Parts {
    /// Four convolutions (plain, with a residual beside and under its output, dense), an
    /// affine in place and both poolings; every file written from it is valid.
    pub(crate) fn sound(dtype: Dtype, nr: usize) -> Self {
        let size = |shape| activation_bytes(shape, dtype, nr).unwrap() as u32;
        let (picture, map) = (Shape::new(4, 4, 3), Shape::new(4, 4, 4));
        let (half, pixel, scores) = (Shape::new(2, 2, 4), Shape::new(1, 1, 4), Shape::new(1, 1, 2));
        let (at_a, at_b) = (size(picture), size(picture) + size(map));
        let column = at_b + size(map);
        let mut weights = Weights { dtype, nr, blob: Vec::new(), noise: Noise(7), column };
        let quant = |zero_point| match dtype {
            Dtype::I8 => Quant { scale: 0.5, zero_point },
            Dtype::F32 | Dtype::F16 | Dtype::Bf16 => Quant::NONE,
        };
        let place = |offset, shape, zero_point| Place { offset, shape, quant: quant(zero_point) };
        let x = place(0, picture, -3);
        let a = place(at_a, map, 5);
        let b = place(at_b, map, 0);
        let joined = place(at_a, map, -128);
        let scaled = place(at_a, map, 1);
        let pooled = place(at_b, half, 1);
        let mean = place(0, pixel, 2);
        let logits = place(at_a, scores, 0);

        let pool = |kind, input, output, filter| {
            let requant = Requant::new(0.25).unwrap();
            let (filter, stride, padding) = ([filter; 2], [2; 2], Padding::default());
            Op::Pool2d(Pool2d { kind, input, output, filter, stride, padding, requant })
        };
        let stem = weights.conv(x, a, 3, None);
        let beside = weights.conv(a, b, 3, Some(a));
        let under = weights.conv(b, joined, 3, Some(a));
        let [factor, addend] = match dtype {
            Dtype::I8 => [1200i32, 77].map(i32::to_le_bytes),
            Dtype::F32 | Dtype::F16 | Dtype::Bf16 => [0.5f32, -1.0].map(f32::to_le_bytes),
        };
        let params = weights.push(&[vec![factor; nr], vec![addend; nr]].concat().concat());
        let affine =
            Affine { input: joined, output: scaled, params, shift: 10, clamp: Clamp::None };
        let max = pool(PoolKind::Max, scaled, pooled, 2);
        let average = pool(PoolKind::Average, pooled, mean, 2);
        let dense = weights.conv(mean, logits, 1, None);
        Self {
            dtype,
            nr,
            arena_len: (column + if has_columns(dtype, nr) { COLUMN } else { 0 }) as usize,
            input: x,
            output: logits,
            preprocess: Preprocess::normalized(4, 4, [0.5; 3], [0.25; 3]),
            labels: vec!["cat".into(), "dog".into()],
            ops: vec![stem, beside, under, Op::Affine(affine), max, average, dense],
            blob: weights.blob,
            known: None,
        }
    }

    /// An int8 model with a convolution, an affine and a pooling in floats, casts before and behind.
    pub(crate) fn mixed(nr: usize) -> Self {
        let dtype = Dtype::I8;
        let mut end = 0;
        let mut place = |shape, quant| {
            let place = Place { offset: end, shape, quant };
            end += activation_bytes(shape, place.dtype(dtype), nr).unwrap() as u32;
            place
        };
        let (map, half) = (Shape::new(4, 4, 4), Shape::new(2, 2, 4));
        let int8 = |zero_point| Quant { scale: 0.5, zero_point };
        let x = place(Shape::new(4, 4, 3), int8(-3));
        let [stem, pooled] = [map, half].map(|shape| place(shape, int8(5)));
        let [read, summed] = [map, map].map(|shape| place(shape, Quant::FLOAT));
        let largest = place(half, Quant::FLOAT);
        let mean = place(Shape::new(1, 1, 4), int8(2));
        let logits = place(Shape::new(1, 1, 2), int8(0));
        let mut weights = Weights { dtype, nr, blob: Vec::new(), noise: Noise(9), column: end };
        let pool = |kind, input, output| {
            let requant = Requant::new(0.25).unwrap();
            let (filter, stride, padding) = ([2; 2], [2; 2], Padding::default());
            Op::Pool2d(Pool2d { kind, input, output, filter, stride, padding, requant })
        };
        let mut ops = vec![weights.conv(x, stem, 3, None)];
        ops.push(Op::Cast(Cast { input: stem, output: read }));
        weights.dtype = Dtype::F16;
        ops.push(weights.conv(read, summed, 3, Some(read)));
        weights.dtype = dtype;
        let [factor, addend] = [0.5f32, -1.0].map(f32::to_le_bytes);
        let params = weights.push(&[vec![factor; nr], vec![addend; nr]].concat().concat());
        let (input, output) = (summed, summed);
        ops.push(Op::Affine(Affine { input, output, params, shift: 1, clamp: Clamp::None }));
        ops.push(pool(PoolKind::Max, summed, largest));
        ops.push(Op::Cast(Cast { input: largest, output: pooled }));
        ops.push(pool(PoolKind::Average, pooled, mean));
        ops.push(weights.conv(mean, logits, 1, None));
        let sound = Self::sound(dtype, nr);
        Self {
            arena_len: (end + if has_columns(dtype, nr) { COLUMN } else { 0 }) as usize,
            input: x,
            output: logits,
            ops,
            blob: weights.blob,
            ..sound
        }
    }

    /// A convolution whose channels are weighed by their means, in place, and a dense layer.
    pub(crate) fn gated(dtype: Dtype, nr: usize) -> Self {
        let sound = Self::sound(dtype, nr);
        let [x, map] = [sound.input, sound.ops[STEM].output()];
        let [mean, scores] = [sound.ops[AVERAGE_POOL].output(), sound.output];
        let column = sound.arena_len.next_multiple_of(64) as u32;
        let mut weights = Weights { dtype, nr, blob: Vec::new(), noise: Noise(11), column };
        let quant = match dtype {
            Dtype::I8 => Quant { scale: 0.25, zero_point: -7 },
            Dtype::F32 | Dtype::F16 | Dtype::Bf16 => Quant::NONE,
        };
        let weighed = Place { quant, ..map };
        let requant = Requant::new(0.5).unwrap();
        let pool = |input: Place, output| {
            let (filter, stride, padding) = ([4; 2], [4; 2], Padding::default());
            let kind = PoolKind::Average;
            Op::Pool2d(Pool2d { kind, input, output, filter, stride, padding, requant })
        };
        let (input, output) = (map, weighed);
        let ops = vec![
            weights.conv(x, map, 3, None),
            pool(map, mean),
            Op::Gate(Gate { input, gate: mean, output, requant, clamp: Clamp::None }),
            pool(weighed, mean),
            weights.conv(mean, scores, 1, None),
        ];
        let arena_len = (column + COLUMN) as usize;
        Self { ops, arena_len, blob: weights.blob, ..sound }
    }

    /// An int8 model that tells unknown pictures.
    pub(crate) fn with_known(nr: usize) -> Self {
        let known = Statistics {
            means: vec![1, -2, 3, -4, 50, 60, -70, -128],
            weights: vec![255, 0, 7, 1],
            threshold: 300_000,
            usual: 1000,
        };
        Self { known: Some(known), ..Self::sound(Dtype::I8, nr) }
    }

    /// Every number format and panel width.
    pub(crate) fn all() -> Vec<Self> {
        [Dtype::I8, Dtype::F32, Dtype::F16, Dtype::Bf16]
            .into_iter()
            .flat_map(|dtype| {
                [Self::sound, Self::gated]
                    .map(|of| [4, 16].map(|nr| of(dtype, nr)))
                    .into_iter()
                    .flatten()
            })
            .chain([4, 16].map(Self::mixed))
            .chain([4, 16].map(Self::with_known))
            .collect()
    }

    /// The file; its error is that of the reader, which the writer asks.
    pub(crate) fn file(&self) -> Result<Vec<u8>, ArtifactError> {
        let labels: Vec<&str> = self.labels.iter().map(String::as_str).collect();
        let mut blob = Blob::new();
        blob.push(&self.blob);
        let file = write(Contents {
            dtype: self.dtype,
            nr: self.nr,
            arena_len: self.arena_len,
            meta: Meta {
                name: "small",
                input: self.input,
                output: self.output,
                preprocess: self.preprocess,
                dataset: "none",
                metrics: "",
                tool: "test",
                label_count: 0,
            },
            labels: &labels,
            ops: &self.ops,
            blob,
        })?;
        self.known.as_ref().map_or(Ok(file.clone()), |known| with_known(&file, known))
    }

    pub(crate) fn conv(&mut self, op: usize) -> &mut Conv2d {
        match &mut self.ops[op] {
            Op::Conv2d(o) => o,
            other => panic!("operator {op} is {}", other.name()),
        }
    }

    pub(crate) fn pool(&mut self, op: usize) -> &mut Pool2d {
        match &mut self.ops[op] {
            Op::Pool2d(o) => o,
            other => panic!("operator {op} is {}", other.name()),
        }
    }

    pub(crate) fn affine(&mut self, op: usize) -> &mut Affine {
        match &mut self.ops[op] {
            Op::Affine(o) => o,
            other => panic!("operator {op} is {}", other.name()),
        }
    }

    /// Overwrites one i32 parameter of an operator.
    pub(crate) fn set_param(&mut self, params: Span, plane: usize, channel: usize, value: i32) {
        let at = params.offset as usize + (plane * self.nr + channel) * 4;
        self.blob[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
}
