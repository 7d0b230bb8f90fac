//! Classes that a device learns from some pictures, in integers: the same bytes on every device.
//!
//! The last operator reads features `x` of one pixel, `c` channels of int8. A [`Teacher`] adds up those of the pictures of
//! a class; their rounded mean is the class's prototype `p`, which a [`Patch`] keeps with a label. The model's file stays as
//! it is, and so do the scores of its classes.
//!
//! [`Taught`] puts both together. A model that was converted with `--unknown` has means of the features of what it
//! knows and inverse variances, and with them the distance `d` of a picture to that ([`artifact::known`]). With
//! the same variances, the picture is `e = d(x, p) · n / (n + 1)` from a class that was learned from `n`: a mean of `n`
//! pictures is off by an `n`-th of a variance by itself. It is of the taught class where it is nearer to that,
//! `e < d`, and the class's score says so in the unit of all others:
//!
//! ```text
//! score = the best of the model's scores + SHARPNESS · (d − e) / usual distance
//! ```
//!
//! so that what follows (top classes, softmax, thresholds) needs to know nothing of it. The rule is a classifier by the
//! nearest mean (Mensink et al., *Distance-Based Image Classification*, 2013) where a taught class is involved,
//! and the network's own everywhere else. A row of weights in the direction of the prototype (Qi et al., *Low-Shot
//! Learning with Imprinted Weights*, 2018) was tried, too; `docs/teach.md` has the figures.
//!
//! A class that replaces one of the model's takes its index, and the model's own score and mean are left out; classes that are
//! added follow the model's in the order of the patch.

use crate::{Distance, Model, Session};
use artifact::{Dtype, Quant, known};
use core::fmt;
use core::ops::Range;
use heapless::Vec;

pub use artifact::patch::{Class, MAX_CLASSES, PATCH_HEADER_LEN, Patch, PatchError, PatchWriter};

/// How many units of the scores (natural logarithms of odds) a picture is worth that lies nearer to a taught class than to
/// all others by the usual distance. Of 2, 4, 8, … the one with the likeliest held-out pictures.
const SHARPNESS: f32 = 8.0;
/// Most steps of a score that the usual distance is worth, so that products stay in 64 bits.
const MAX_STEPS: f32 = 32_767.0;
/// Largest score in steps: all up to it differ in f32, too.
const MAX_SCORE: i64 = 1 << 24;

/// Why a class cannot be taught, or a patch not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TeachError {
    /// The model has no statistics of what it knows.
    NoStatistics,
    /// The scores of the model are floats.
    FloatScores,
    /// The memory for sums is of another length than the features.
    Memory {
        /// Numbers wanted.
        needed: usize,
        /// Numbers given.
        have: usize,
    },
    /// 65,535 pictures were added already.
    TooManyFrames,
    /// No picture was added.
    NoFrames,
    /// The session's model has other features.
    OtherSession,
    /// The patch belongs to another model.
    OtherModel,
    /// A class of the patch replaces one that the model does not have.
    NoSuchClass {
        /// Index of the class that it would replace.
        index: usize,
    },
    /// The statistics are not one mean of all pictures nor one of each class, so that nobody knows which is that of a class
    /// that is replaced.
    MissingMeans,
    /// Every class of the model is replaced.
    NothingLeft,
}

impl fmt::Display for TeachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoStatistics => write!(
                f,
                "the model has no statistics of what it knows; convert it with --unknown 1%"
            ),
            Self::FloatScores => {
                write!(f, "the model's scores are floats; convert it with its last layer in int8")
            }
            Self::Memory { needed, have } => {
                write!(f, "memory for {have} sums, the model has {needed} features")
            }
            Self::TooManyFrames => {
                write!(f, "a class is learned from at most {} pictures", u16::MAX)
            }
            Self::NoFrames => write!(f, "no picture to learn from"),
            Self::OtherSession => write!(f, "the session runs another model"),
            Self::OtherModel => {
                write!(f, "the patch belongs to another model; teach this one, or use that one")
            }
            Self::NoSuchClass { index } => {
                write!(f, "the patch replaces class {index}, which the model does not have")
            }
            Self::MissingMeans => write!(
                f,
                "the model's statistics lack some of its classes, so that none can be replaced; convert it with \
                 calibration pictures of each class, or add a class instead"
            ),
            Self::NothingLeft => {
                write!(f, "the patch would replace every class of the model; leave one of them")
            }
        }
    }
}

impl core::error::Error for TeachError {}

impl Model<'_> {
    /// Channels of the features that classes are learned in; `None` where the model was converted without `--unknown`.
    pub fn features(&self) -> Option<usize> {
        Some(self.artifact.known()?.features.shape.c.into())
    }

    /// What tells this model from others, whatever its signature: a patch belongs to one model.
    pub fn identity(&self) -> u64 {
        self.artifact.identity()
    }
}

/// Learns one class, in memory that is the caller's.
#[derive(Debug)]
pub struct Teacher<'m> {
    /// Of the features of all pictures so far, `[c]`: less than 2^16 of at most 2^7.
    sums: &'m mut [i32],
    frames: u16,
}

impl<'m> Teacher<'m> {
    /// Begins a class of a model; `memory` has a number for each of [`Model::features`].
    ///
    /// # Errors
    /// [`TeachError::NoStatistics`], [`TeachError::FloatScores`], [`TeachError::Memory`].
    pub fn new(model: &Model<'_>, memory: &'m mut [i32]) -> Result<Self, TeachError> {
        let needed = model.features().ok_or(TeachError::NoStatistics)?;
        if !has_i8_scores(model) {
            return Err(TeachError::FloatScores);
        }
        if memory.len() != needed {
            return Err(TeachError::Memory { needed, have: memory.len() });
        }
        memory.fill(0);
        Ok(Self { sums: memory, frames: 0 })
    }

    /// Adds the picture of the session's last run.
    ///
    /// # Errors
    /// [`TeachError::TooManyFrames`], [`TeachError::OtherSession`].
    pub fn add(&mut self, session: &Session<'_>) -> Result<(), TeachError> {
        let seen = session.features().filter(|seen| seen.bytes.len() == self.sums.len());
        let Features { bytes, flip } = seen.ok_or(TeachError::OtherSession)?;
        self.frames = self.frames.checked_add(1).ok_or(TeachError::TooManyFrames)?;
        for (sum, &byte) in self.sums.iter_mut().zip(bytes) {
            *sum += i32::from(byte as i8 ^ flip);
        }
        Ok(())
    }

    /// Pictures so far.
    pub const fn frames(&self) -> u16 {
        self.frames
    }

    /// The class: the mean of each feature, rounded to the nearest integer, halves up. It lies where the sums were.
    ///
    /// # Errors
    /// [`TeachError::NoFrames`].
    pub fn finish<'c>(self, label: &'c str, replaces: Option<u16>) -> Result<Class<'c>, TeachError>
    where
        'm: 'c,
    {
        let frames = i32::from(self.frames);
        if frames == 0 {
            return Err(TeachError::NoFrames);
        }
        let channels = self.sums.len();
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(self.sums);
        for c in 0..channels {
            // Byte c lies in a sum that was read before, or in this one.
            let sum = bytes[c * 4..].first_chunk().map_or(0, |sum| i32::from_ne_bytes(*sum));
            bytes[c] = (2 * sum + frames).div_euclid(2 * frames) as u8;
        }
        Ok(Class { label, replaces, frames: self.frames, prototype: &bytes[..channels] })
    }
}

/// A model with the classes of a patch.
#[derive(Debug, Clone)]
pub struct Taught<'a> {
    model: Model<'a>,
    classes: Vec<Class<'a>, MAX_CLASSES>,
    /// What the usual distance is worth in steps of the scores.
    steps: i32,
}

impl<'a> Taught<'a> {
    /// Puts a patch and its model together.
    ///
    /// # Errors
    /// [`TeachError::OtherModel`] and what else does not fit.
    pub fn new(model: &Model<'a>, patch: &Patch<'a>) -> Result<Self, TeachError> {
        let known = model.artifact.known().ok_or(TeachError::NoStatistics)?;
        if !has_i8_scores(model) {
            return Err(TeachError::FloatScores);
        }
        let features = usize::from(known.features.shape.c);
        let has_features = |class: Class<'_>| class.prototype.len() == features;
        if patch.model() != model.identity() || !patch.classes().all(has_features) {
            return Err(TeachError::OtherModel);
        }
        let replaced = || patch.classes().filter_map(|class| class.replaces);
        if let Some(index) = replaced().map(usize::from).find(|index| *index >= model.classes()) {
            return Err(TeachError::NoSuchClass { index });
        }
        let rows = usize::from(known.rows);
        if replaced().count() > 0 && rows > 1 && rows != model.classes() {
            return Err(TeachError::MissingMeans);
        }
        // They differ, as the patch's reader knows.
        if replaced().count() == model.classes() {
            return Err(TeachError::NothingLeft);
        }
        let steps = SHARPNESS / model.meta().output.quant.scale + 0.5;
        Ok(Self {
            model: *model,
            classes: patch.classes().collect(),
            steps: steps.clamp(1.0, MAX_STEPS) as i32,
        })
    }

    /// The model.
    pub const fn model(&self) -> &Model<'a> {
        &self.model
    }

    /// Number of classes, the model's and the added ones.
    pub fn len(&self) -> usize {
        self.model.classes() + self.added().count()
    }

    /// True without classes, which no checked model has.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Name of class `index`; `""` past the last.
    pub fn label(&self, index: usize) -> &'a str {
        match self.place(index) {
            Some(at) => self.classes[at].label,
            None => self.model.label(index),
        }
    }

    /// Which classes of the patch are added.
    fn added(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.classes.len()).filter(|at| self.classes[*at].replaces.is_none())
    }

    /// Which class of the patch has index `index`.
    fn place(&self, index: usize) -> Option<usize> {
        match index.checked_sub(self.model.classes()) {
            Some(after) => self.added().nth(after),
            None => self.classes.iter().position(|class| is_replaced(class, index)),
        }
    }

    /// Whether class `index` of the model is not replaced.
    fn is_left(&self, index: usize) -> bool {
        !self.classes.iter().any(|class| is_replaced(class, index))
    }
}

/// The features of the last run, as they lie in memory.
struct Features<'s> {
    bytes: &'s [u8],
    flip: i8,
}

impl Session<'_> {
    /// The scores of the last [`Self::run`] with those of the classes that were taught; `None` where the session runs another
    /// model.
    ///
    /// Before a run, and after the input was written anew, they are those of whatever the memory holds.
    pub fn taught<'s>(&'s self, taught: &'s Taught<'_>) -> Option<TaughtScores<'s>> {
        let cx = Self::context(&self.plan);
        let Features { bytes, flip } = self.features()?;
        let (known, output) = (cx.artifact.known()?, cx.artifact.meta().output);
        let scores = self.arena.get(cx.range(output))?.get(..output.shape.len())?;
        let scores: &[i8] = bytemuck::cast_slice(scores);
        let has_features = |class: &Class<'_>| class.prototype.len() == bytes.len();
        if scores.len() != taught.model.classes() || !taught.classes.iter().all(has_features) {
            return None;
        }
        let [means, weights] = [known.means, known.weights].map(|span| cx.artifact.span(span));
        let of_rows = usize::from(known.rows) == scores.len();
        let rows = means.chunks_exact(bytes.len().max(1)).enumerate();
        let rows = rows.filter(|(row, _)| !of_rows || taught.is_left(*row));
        let rest = rows.map(|(_, row)| known::distance(bytes, flip, row, weights)).min();
        let rest = rest.unwrap_or(u64::MAX);
        let best = scores.iter().enumerate().filter(|(index, _)| taught.is_left(*index));
        let best = best.map(|(_, score)| i32::from(*score)).max().unwrap_or(0);
        let (mut value, mut values) = (rest, [0; MAX_CLASSES]);
        for (class, score) in taught.classes.iter().zip(&mut values) {
            let apart = known::distance(bytes, flip, class.prototype, weights);
            // · n / (n + 1), without a product that might not fit.
            let apart = apart - apart.div_ceil(u64::from(class.frames) + 1);
            value = value.min(apart);
            // Less than 2^41 each, so that the product has less than 2^57.
            let nearer = rest as i64 - apart as i64;
            let usual = i64::try_from(known.usual).unwrap_or(i64::MAX);
            let steps = (nearer * i64::from(taught.steps)).div_euclid(usual.max(1));
            // However little it is nearer, it is.
            let steps = if nearer > 0 { steps.max(1) } else { steps };
            *score = (i64::from(best) + steps).clamp(-MAX_SCORE, MAX_SCORE) as i32;
        }
        let distance = Distance { value, threshold: known.threshold, usual: known.usual };
        Some(TaughtScores { scores, values, taught, quant: output.quant, distance })
    }

    /// What the last operator read; `None` where nothing says that it is still there.
    fn features(&self) -> Option<Features<'_>> {
        let cx = Self::context(&self.plan);
        let place = cx.artifact.known()?.features;
        let range: Range<usize> = cx.range(place);
        let bytes = self.arena.get(range)?.get(..place.shape.c.into())?;
        Some(Features { bytes, flip: cx.flip() })
    }
}

/// Scores of the model's classes and of those that it was taught, in steps of the model's output.
#[derive(Debug, Clone)]
pub struct TaughtScores<'s> {
    scores: &'s [i8],
    /// In the order of the patch.
    values: [i32; MAX_CLASSES],
    taught: &'s Taught<'s>,
    quant: Quant,
    distance: Distance,
}

impl TaughtScores<'_> {
    /// Quantized scores in class order, −2^24 to 2^24; those of classes that were not taught are the model's.
    pub fn steps(&self) -> impl Iterator<Item = i32> + Clone + '_ {
        (0..self.taught.len()).map(|index| match self.taught.place(index) {
            Some(at) => self.values[at],
            None => self.scores.get(index).map_or(0, |score| i32::from(*score)),
        })
    }

    /// Scores in class order, as those of [`crate::Logits::iter`].
    pub fn iter(&self) -> impl Iterator<Item = f32> + Clone + '_ {
        let zero_point = i32::from(self.quant.zero_point);
        self.steps().map(move |q| (q - zero_point) as f32 * self.quant.scale)
    }

    /// How far the picture lies from all that the model knows, what it was taught included; compare
    /// [`Session::distance`].
    pub const fn distance(&self) -> Distance {
        self.distance
    }
}

fn has_i8_scores(model: &Model<'_>) -> bool {
    model.meta().output.dtype(model.dtype()) == Dtype::I8
}

fn is_replaced(class: &Class<'_>, index: usize) -> bool {
    class.replaces.is_some_and(|replaced| usize::from(replaced) == index)
}
