//! Where a class comes from: the share of each pixel of the last map in its score.
//!
//! Of a network that ends with an average over a whole map `a: [h, w, C]` and a dense layer, the share of pixel
//! `(y, x)` in the score of class `k` is `Σ_c w[k, c] · a[y, x, c] / (h · w)`, exactly; all shares and the
//! bias are the score, see [`artifact::head`].
//!
//! The likeliest class is known once the dense layer has run, which may have overwritten the map by
//! then. So a session that was asked to keeps it: where something is written to the map's place, it is moved to one
//! that is free, which there nearly always is, since the first maps of a network are its largest. Weights are read as they
//! lie in the file. Any class may be asked for, after any run.

use crate::ops::Context;
use crate::{Model, Session};
use artifact::layout::{activation_bytes, align_up};
use artifact::{Artifact, Dtype, Head, Op, Place};
use core::fmt;
use core::ops::{Add, Mul, Range};

/// Most rows and columns of [`Cells`].
pub const SIDE: usize = 8;
/// Channels whose weights are unpacked at once, on the stack.
const BLOCK: usize = 64;

/// Why there are no heat maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeatError {
    /// The scores of the network are no sums over the pixels of a map.
    OtherHead,
    /// The arena has no room for the map.
    ArenaTooSmall {
        /// Bytes wanted.
        needed: usize,
        /// Bytes given.
        have: usize,
    },
}

impl fmt::Display for HeatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::OtherHead => write!(
                f,
                "the model has no heat maps: its last operators must be an average over a whole map and one dense \
                 layer"
            ),
            Self::ArenaTooSmall { needed, have } => {
                write!(f, "arena of {have} bytes, the model with its heat maps needs {needed}")
            }
        }
    }
}

impl core::error::Error for HeatError {}

/// Bytes of activation memory that a session with heat maps needs, mostly [`Model::arena_len`].
///
/// # Errors
/// [`HeatError::OtherHead`].
pub fn arena_len(model: &Model<'_>) -> Result<usize, HeatError> {
    let kept = Kept::new(&model.artifact).ok_or(HeatError::OtherHead)?;
    Ok(model.arena_len().max(kept.to + kept.len()))
}

/// Where a session keeps the map.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept {
    /// The operator that averages it.
    index: usize,
    from: [usize; 2],
    to: usize,
}

impl Kept {
    /// `None` for a network of another end.
    fn new(artifact: &Artifact<'_>) -> Option<Self> {
        let head = artifact.head()?;
        let model = artifact.header();
        let range = |place: Place| {
            let len =
                activation_bytes(place.shape, place.dtype(model.dtype), model.nr).unwrap_or(0);
            place.offset as usize..place.offset as usize + len
        };
        let map = range(head.map());
        // The end of what is written from the average on, or read then, and lies in the way.
        let in_the_way = |start: usize| {
            let overlaps = |r: &Range<usize>| r.start < start + map.len() && start < r.end;
            artifact.ops().skip(head.index).find_map(|op: Op| {
                let scratch = op.scratch().map_or(0..0, |s| {
                    s.offset as usize..align_up(s.offset as usize + s.len as usize)
                });
                [range(op.output()), scratch].into_iter().find(overlaps).map(|r| r.end)
            })
        };
        let mut to = map.start;
        if in_the_way(to).is_some() {
            to = 0;
            while let Some(end) = in_the_way(to) {
                to = end;
            }
        }
        Some(Self { index: head.index, from: [map.start, map.end], to })
    }

    const fn len(&self) -> usize {
        self.from[1] - self.from[0]
    }

    /// Called behind each operator; `index` is its own.
    pub(crate) fn keep(&self, index: usize, arena: &mut [u8]) {
        let [start, end] = self.from;
        // Checked when the session was made.
        if index == self.index && end <= arena.len() && self.to + self.len() <= arena.len() {
            arena.copy_within(start..end, self.to);
        }
    }
}

/// Shares in a score, of at most 8×8 parts of the map, in integers: the same on every device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cells {
    sums: [i32; SIDE * SIDE],
    shape: [usize; 2],
}

impl Cells {
    /// Rows and columns.
    pub const fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// `Σ w · (a − zero point)` over the pixels and channels of each cell, row by row: `[rows, columns]`. What a
    /// step is worth depends on the class; above zero speaks for it, below against it.
    pub fn sums(&self) -> &[i32] {
        &self.sums[..self.shape[0] * self.shape[1]]
    }
}

impl Session<'_> {
    /// Keeps the map that heat maps are made of, for [`Self::heat`] and [`Self::heat_cells`]. Scores stay the
    /// same; a run takes longer by a copy of the map at most.
    ///
    /// # Errors
    /// A network whose last operators are not an average over a whole map and a dense layer; an arena that is
    /// shorter than [`arena_len`].
    pub fn with_heat(mut self) -> Result<Self, HeatError> {
        let (needed, have) = (arena_len(&self.plan.model)?, self.arena.len());
        if have < needed {
            return Err(HeatError::ArenaTooSmall { needed, have });
        }
        self.plan.kept = Kept::new(&self.plan.model.artifact);
        Ok(self)
    }

    /// Rows and columns of [`Self::heat`]; `None` without [`Self::with_heat`].
    pub fn heat_shape(&self) -> Option<[usize; 2]> {
        let shape = self.head()?.map().shape;
        Some([shape.h, shape.w].map(usize::from))
    }

    /// Writes the share of each pixel of the map in the score of class `class` in the last run, in the unit of
    /// scores, to `out: [h, w]` of [`Self::heat_shape`]; with the bias of the class, their sum is the score, but for
    /// what int8 rounds. `None` without [`Self::with_heat`], for a class that there is not, or where `out` has
    /// another length.
    pub fn heat(&self, class: usize, out: &mut [f32]) -> Option<()> {
        let head = self.head()?;
        let row = self.plan.model.artifact.dense_row(&head.dense, class)?;
        self.weighted(&head, |c| row.f32(c), out)
    }

    /// As [`Self::heat`], with any weights of the channels.
    fn weighted(&self, head: &Head, weight: impl Fn(usize) -> f32, out: &mut [f32]) -> Option<()> {
        let cx = Self::context(&self.plan);
        let (place, map) = (head.map(), self.kept(head, &cx)?);
        if out.len() != place.shape.pixels() {
            return None;
        }
        out.fill(0.0);
        let share = 1.0 / out.len() as f32;
        let add = |pixel: usize, sum: f32| out[pixel] += sum * share;
        match cx.dtype(place) {
            Dtype::I8 => {
                let value = |[byte]: [u8; 1]| place.quant.dequantize(byte as i8 ^ cx.flip());
                sum(&map, weight, value, add);
            }
            Dtype::F32 | Dtype::F16 | Dtype::Bf16 => sum(&map, weight, f32::from_le_bytes, add),
        }
        Some(())
    }

    /// The shares of at most 8×8 parts of the map in the score of class `class` in the last run, of a network
    /// whose last map and dense layer are int8: each the sum of as many rows and columns as that takes, the last of them
    /// maybe of fewer. `None` for another network, without [`Self::with_heat`], or for a class that there is not.
    pub fn heat_cells(&self, class: usize) -> Option<Cells> {
        let head = self.head()?;
        let cx = Self::context(&self.plan);
        let row = cx.artifact.dense_row(&head.dense, class)?;
        let place = head.map();
        if cx.dtype(place) != Dtype::I8 || row.dtype() != Dtype::I8 {
            return None;
        }
        let [h, w] = [place.shape.h, place.shape.w].map(usize::from);
        let [rows, columns] = [h, w].map(|len| len.div_ceil(SIDE));
        let shape = [h.div_ceil(rows), w.div_ceil(columns)];
        let mut sums = [0i32; SIDE * SIDE];
        let zero_point = i32::from(place.quant.zero_point);
        let value = |[byte]: [u8; 1]| i32::from(byte as i8 ^ cx.flip()) - zero_point;
        // The products of a pixel fit into 32 bits: there are less than 2^16, none larger than 127 · 255.
        let add = |pixel: usize, sum: i32| {
            let cell = &mut sums[pixel / w / rows * shape[1] + pixel % w / columns];
            *cell = cell.saturating_add(sum);
        };
        sum(&self.kept(&head, &cx)?, |c| i32::from(row.i8(c)), value, add);
        Some(Cells { sums, shape })
    }

    fn head(&self) -> Option<Head> {
        self.plan.kept.and_then(|_| self.plan.model.artifact.head())
    }

    /// The bytes of the map.
    fn kept(&self, head: &Head, cx: &Context<'_>) -> Option<Map<'_>> {
        let kept = self.plan.kept?;
        let shape = head.map().shape;
        let len = shape.len() * cx.dtype(head.map()).activation_bytes();
        let bytes = self.arena.get(kept.to..kept.to + len)?;
        Some(Map { bytes, channels: shape.c.into() })
    }
}

/// Heat maps as people want them: what speaks for a class more than for the others.
///
/// A probability depends on differences of scores alone: what adds the same to all changes no answer, but every map
/// of [`Session::heat`], and of two classes one may have all of its weight in what speaks against it. So shares are those in
/// the score less the mean of all scores.
#[cfg(feature = "alloc")]
#[derive(Debug)]
pub struct Contrast {
    /// Of the weights of all classes, `[C]`.
    means: alloc::vec::Vec<f32>,
}

#[cfg(feature = "alloc")]
impl Contrast {
    /// Reads the weights of all classes.
    ///
    /// # Errors
    /// [`HeatError::OtherHead`].
    pub fn new(model: &Model<'_>) -> Result<Self, HeatError> {
        let head = model.artifact.head().ok_or(HeatError::OtherHead)?;
        let mut means = alloc::vec![0.0; head.map().shape.c.into()];
        let classes = model.classes();
        for row in (0..classes).filter_map(|class| model.artifact.dense_row(&head.dense, class)) {
            for (c, mean) in means.iter_mut().enumerate() {
                *mean += row.f32(c);
            }
        }
        for mean in &mut means {
            *mean /= classes as f32;
        }
        Ok(Self { means })
    }

    /// The shares of the pixels of the map in the score of class `class` less the mean of all, in the last run of a
    /// session of the same model: `[h, w]` of [`Session::heat_shape`]. `None` without [`Session::with_heat`] and for a class
    /// that there is not.
    pub fn shares(&self, session: &Session<'_>, class: usize) -> Option<alloc::vec::Vec<f32>> {
        let head = session.head()?;
        let row = session.plan.model.artifact.dense_row(&head.dense, class)?;
        let mut out = alloc::vec![0.0; head.map().shape.pixels()];
        let mean = |c| self.means.get(c).copied().unwrap_or(0.0);
        session.weighted(&head, |c| row.f32(c) - mean(c), &mut out)?;
        Some(out)
    }
}

/// Numbers of a map, `[pixels, channels]`.
struct Map<'a> {
    bytes: &'a [u8],
    channels: usize,
}

/// Calls `add(pixel, Σ_c weight(c) · value(a[pixel, c]))`, of [`BLOCK`] channels `c` at a time.
fn sum<T: Copy + Default + Add<Output = T> + Mul<Output = T>, const N: usize>(
    map: &Map<'_>,
    weight: impl Fn(usize) -> T,
    value: impl Fn([u8; N]) -> T,
    mut add: impl FnMut(usize, T),
) {
    for first in (0..map.channels).step_by(BLOCK) {
        let mut weights = [T::default(); BLOCK];
        let weights = &mut weights[..BLOCK.min(map.channels - first)];
        for (i, w) in weights.iter_mut().enumerate() {
            *w = weight(first + i);
        }
        for (pixel, row) in map.bytes.chunks_exact(map.channels * N).enumerate() {
            let values = row[first * N..].as_chunks().0;
            let products = values.iter().zip(&*weights).map(|(x, w)| value(*x) * *w);
            add(pixel, products.fold(T::default(), |a, b| a + b));
        }
    }
}
