//! One inference after another on one arena.

use crate::heat::Kept;
use crate::isa::Isa;
use crate::model::Model;
#[cfg(feature = "float")]
use crate::ops::cast;
use crate::ops::{Context, affine, columns, conv2d, fill_pad, gate, lookup, pool2d};
use crate::workers::{Inline, Workers};
use artifact::layout::ALIGN;
use artifact::{Dtype, Op, Place, Quant, known};
use core::fmt;

/// Why a session cannot start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionError {
    /// The arena is shorter than [`Model::arena_len`].
    ArenaTooSmall {
        /// Bytes wanted.
        needed: usize,
        /// Bytes given.
        have: usize,
    },
    /// The arena does not start at a multiple of 64.
    ArenaMisaligned,
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ArenaTooSmall { needed, have } => {
                write!(f, "arena of {have} bytes, the model needs {needed}")
            }
            Self::ArenaMisaligned => {
                write!(f, "arena does not start at a multiple of 64; use Arena or AlignedBuf")
            }
        }
    }
}

impl core::error::Error for SessionError {}

/// A model bound to memory, an instruction set and workers.
#[derive(Clone, Copy)]
pub(crate) struct Plan<'a> {
    pub(crate) model: Model<'a>,
    isa: Isa,
    workers: &'a dyn Workers,
    /// Multiply-accumulates of a run, for [`Workers::begin`]; 0 for [`Inline`], which ignores it.
    macs: u64,
    /// The map that heat maps are made of, where it is kept.
    pub(crate) kept: Option<Kept>,
}

/// Runs a model; nothing here fails or allocates once it exists.
pub struct Session<'a> {
    pub(crate) plan: Plan<'a>,
    pub(crate) arena: &'a mut [u8],
}

impl fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let model = self.plan.model.meta().name;
        f.debug_struct("Session").field("model", &model).field("isa", &self.plan.isa).finish()
    }
}

impl<'a> Session<'a> {
    /// Binds a model to activation memory, with the best instruction set and one thread.
    ///
    /// # Errors
    /// An arena that is too small or misaligned.
    pub fn new(model: &Model<'a>, arena: &'a mut [u8]) -> Result<Self, SessionError> {
        let (needed, have) = (model.arena_len(), arena.len());
        if have < needed {
            return Err(SessionError::ArenaTooSmall { needed, have });
        }
        if !arena.as_ptr().addr().is_multiple_of(ALIGN) {
            return Err(SessionError::ArenaMisaligned);
        }
        let plan =
            Plan { model: *model, isa: Isa::detect(), workers: &Inline, macs: 0, kept: None };
        Ok(Self { plan, arena })
    }

    /// Uses another instruction set.
    #[must_use]
    pub fn with_isa(mut self, isa: Isa) -> Self {
        self.plan.isa = isa;
        self
    }

    /// Uses other workers.
    #[must_use]
    pub fn with_workers(mut self, workers: &'a dyn Workers) -> Self {
        self.plan.workers = workers;
        let macs = self.plan.model.ops().map(|op| op.macs());
        self.plan.macs = macs.fold(0, u64::saturating_add);
        self
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.plan.isa
    }

    /// How an operator of the model is computed: the kernel's name, and how many of the output's
    /// pixels it computes at a time. Empty for what is no convolution.
    #[cfg(feature = "std")]
    pub fn kernel(&self, op: &Op) -> std::string::String {
        let convolution = op.grouped();
        convolution
            .map(|conv| conv2d::describe(&Self::context(&self.plan), &conv))
            .unwrap_or_default()
    }

    pub(crate) fn context<'c>(plan: &'c Plan<'a>) -> Context<'c> {
        // `plan` is borrowed, not `self`, so that the arena stays free for writing.
        Context { artifact: plan.artifact(), isa: plan.isa, workers: plan.workers }
    }

    /// The input, to be written before each [`Self::run`], which reuses its memory.
    pub fn input_mut(&mut self) -> InputMut<'_> {
        let cx = Self::context(&self.plan);
        let place = cx.artifact.meta().input;
        let (dtype, flip) = (cx.dtype(place), cx.flip());
        let bytes = &mut self.arena[cx.range(place)];
        InputMut {
            bytes: &mut bytes[..place.shape.len() * dtype.activation_bytes()],
            place,
            dtype,
            flip,
        }
    }

    /// Computes the logits of the input.
    pub fn run(&mut self) -> Logits<'_> {
        self.run_observed(|_| ())
    }

    /// As [`Self::run`]; `observe` sees the input and then each operator's output (calibration,
    /// reports). It may cost time, but changes no result.
    pub fn run_observed(&mut self, mut observe: impl FnMut(Observation<'_>)) -> Logits<'_> {
        let cx = Self::context(&self.plan);
        let flip = cx.flip();
        let input = cx.artifact.meta().input;
        cx.workers.begin(self.plan.macs);
        fill_pad(&mut self.arena[cx.range(input)], input, cx.dtype(input), flip);
        let mut show = |index, place: Place, arena: &[u8]| {
            let dtype = cx.dtype(place);
            let bytes = &arena[cx.range(place)][..place.shape.len() * dtype.activation_bytes()];
            observe(Observation {
                index,
                place,
                values: Values { bytes, dtype, flip, quant: place.quant },
            });
        };
        show(0, input, self.arena);
        let mut waiting = [None; 2];
        for (index, op) in cx.artifact.ops().enumerate() {
            if let Some(conv) = op.grouped() {
                // Only some lines of its output will ever be in memory: there is nothing to show.
                if conv.conv.lines > 0 {
                    waiting = [waiting[1], Some(conv)];
                    continue;
                }
                match waiting[1] {
                    Some(_) => {
                        columns::run_turns(&cx, core::mem::take(&mut waiting), &conv, self.arena);
                    }
                    None => conv2d::run(&cx, &conv, self.arena),
                }
            }
            match &op {
                Op::Conv2d(_) | Op::Grouped(_) => {}
                Op::Pool2d(op) => pool2d::run(&cx, op, self.arena),
                Op::Affine(op) => affine::run(&cx, op, self.arena),
                Op::Gate(op) => gate::run(&cx, op, self.arena),
                Op::Lookup(op) => lookup::run(&cx, op, self.arena),
                #[cfg(feature = "float")]
                Op::Cast(op) => cast::run(&cx, op, self.arena),
                #[cfg(not(feature = "float"))]
                Op::Cast(_) => {} // refused by `Model::new`
            }
            if let Some(kept) = &self.plan.kept {
                kept.keep(index, self.arena);
            }
            show(index + 1, op.output(), self.arena);
        }
        let output = cx.artifact.meta().output;
        let dtype = cx.dtype(output);
        let bytes = &mut self.arena[cx.range(output)];
        let bytes = &mut bytes[..output.shape.len() * dtype.activation_bytes()];
        if dtype == Dtype::I8 {
            for b in bytes.iter_mut() {
                *b ^= flip as u8;
            }
        }
        Logits { values: Values { bytes, dtype, flip: 0, quant: output.quant } }
    }

    /// How far the picture of the last [`Self::run`] lies from those that the model knows; `None` where the
    /// model was converted without `--unknown`.
    ///
    /// Before a run, and after the input was written anew, it is that of whatever the memory holds.
    pub fn distance(&self) -> Option<Distance> {
        let cx = Self::context(&self.plan);
        let known = cx.artifact.known()?;
        let features = &self.arena[cx.range(known.features)];
        let features = &features[..usize::from(known.features.shape.c).min(features.len())];
        let [means, weights] = [known.means, known.weights].map(|span| cx.artifact.span(span));
        let value = known::distance(features, cx.flip(), means, weights);
        Some(Distance { value, threshold: known.threshold, usual: known.usual })
    }
}

/// How far a picture lies from those that the model knows, in units of the model's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Distance {
    /// The picture's, below 2^41: the same number on every device.
    pub value: u64,
    /// The largest of what is known, at least 1.
    pub threshold: u64,
    /// The mean of pictures like those that the model was calibrated on, at least 1.
    pub usual: u64,
}

impl Distance {
    /// Whether the picture is like those of the calibration.
    pub const fn is_known(&self) -> bool {
        self.value <= self.threshold
    }

    /// The distance as a share of the threshold: above 1, the picture is unknown.
    pub fn ratio(&self) -> f32 {
        self.value as f32 / self.threshold as f32
    }
}

impl<'a> Plan<'a> {
    fn artifact(&self) -> &artifact::Artifact<'a> {
        &self.model.artifact
    }
}

/// The input activation; takes real (normalized) values and quantizes them.
#[derive(Debug)]
pub struct InputMut<'a> {
    bytes: &'a mut [u8],
    place: Place,
    dtype: Dtype,
    flip: i8,
}

impl InputMut<'_> {
    /// Number of elements, `h · w · c`.
    pub fn len(&self) -> usize {
        self.place.shape.len()
    }

    /// True for an empty input, which no checked model has.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sets element `index` (NHWC order); ignored past the end.
    pub fn set(&mut self, index: usize, value: f32) {
        match self.dtype {
            Dtype::I8 => {
                if let Some(b) = self.bytes.get_mut(index) {
                    *b = (self.place.quant.quantize(value) ^ self.flip) as u8;
                }
            }
            Dtype::F32 | Dtype::F16 | Dtype::Bf16 => {
                if let Some(b) = self.bytes.get_mut(index * 4..index * 4 + 4) {
                    b.copy_from_slice(&value.to_le_bytes());
                }
            }
        }
    }

    /// Sets the channels of pixel `index` (`y · width + x`); a grey input takes the first one.
    pub fn set_pixel(&mut self, index: usize, rgb: [f32; 3]) {
        let channels = usize::from(self.place.shape.c);
        for (c, v) in rgb.into_iter().take(channels).enumerate() {
            self.set(index * channels + c, v);
        }
    }
}

/// Numbers of an activation.
#[derive(Debug, Clone, Copy)]
struct Values<'a> {
    bytes: &'a [u8],
    dtype: Dtype,
    flip: i8,
    quant: Quant,
}

impl<'a> Values<'a> {
    fn iter(self) -> impl Iterator<Item = f32> + Clone + 'a {
        let size = self.dtype.activation_bytes();
        self.bytes.chunks_exact(size).map(move |b| match *b {
            [b] => self.quant.dequantize(b as i8 ^ self.flip),
            [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
            _ => 0.0,
        })
    }
}

/// An activation as [`Session::run_observed`] shows it.
#[derive(Debug, Clone, Copy)]
pub struct Observation<'a> {
    /// 0 for the input, `i + 1` for the output of operator `i`.
    pub index: usize,
    /// Where it lies, its shape and quantization.
    pub place: Place,
    values: Values<'a>,
}

impl<'a> Observation<'a> {
    /// Its real values, NHWC.
    pub fn iter(&self) -> impl Iterator<Item = f32> + Clone + 'a {
        self.values.iter()
    }

    /// The f32 numbers as they lie in memory; `None` for int8.
    pub fn as_f32(&self) -> Option<&'a [f32]> {
        match self.values.dtype {
            Dtype::I8 => None,
            Dtype::F32 | Dtype::F16 | Dtype::Bf16 => {
                bytemuck::try_cast_slice(self.values.bytes).ok()
            }
        }
    }
}

/// The scores of the classes, before softmax.
#[derive(Debug, Clone, Copy)]
pub struct Logits<'a> {
    values: Values<'a>,
}

impl<'a> Logits<'a> {
    /// Number of classes.
    pub fn len(&self) -> usize {
        self.values.bytes.len() / self.values.dtype.activation_bytes()
    }

    /// True without classes, which no checked model has.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Score of class `index`; `None` past the last.
    pub fn get(&self, index: usize) -> Option<f32> {
        self.iter().nth(index)
    }

    /// Scores in class order.
    pub fn iter(&self) -> impl Iterator<Item = f32> + Clone + 'a {
        self.values.iter()
    }

    /// The quantized scores; `None` unless the last layer is int8.
    pub fn as_i8(&self) -> Option<&'a [i8]> {
        (self.values.dtype == Dtype::I8).then(|| bytemuck::cast_slice(self.values.bytes))
    }

    /// Meaning of [`Self::as_i8`].
    pub fn quant(&self) -> Quant {
        self.values.quant
    }
}
