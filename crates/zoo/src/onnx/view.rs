//! How a file speaks of a map: which of its sides each dimension counts.
//!
//! Here a map is a map, of rows, columns and channels. A file may have it as NCHW, as NHWC, as a row,
//! or with dimensions of one in between; Transpose, Reshape, Squeeze and their kin only change that,
//! and compute nothing. Nor does a Slice or Gather of channels: it changes which channels are meant.

use artifact::Shape;

/// Most dimensions of a map.
const MAX_RANK: usize = 8;

/// One of the sides of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Row,
    Column,
    Channel,
}

use Side::{Channel, Column, Row};

/// The dimensions of a map, as the file has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    /// The sides that each dimension counts, the slowest first. Sides of one are left out.
    axes: Vec<Vec<Side>>,
    /// The map's channels that the file means, in its order; empty for all in theirs.
    channels: Vec<u16>,
}

impl View {
    /// A view of dimensions that count one side each, or nothing, of a map of this shape.
    pub(super) fn new(sides: &[Option<Side>], shape: Shape) -> Self {
        let axes = sides.iter().map(|side| side.iter().copied().collect()).collect();
        Self { axes, channels: Vec::new() }.of(shape)
    }

    /// `[1, channels, rows, columns]`.
    pub(super) fn nchw(shape: Shape) -> Self {
        Self::new(&[None, Some(Channel), Some(Row), Some(Column)], shape)
    }

    /// `[1, rows, columns, channels]`.
    pub(super) fn nhwc(shape: Shape) -> Self {
        Self::new(&[None, Some(Row), Some(Column), Some(Channel)], shape)
    }

    /// The same view of a map whose sides have become shorter.
    pub(super) fn of(mut self, shape: Shape) -> Self {
        let shape = self.seen(shape);
        for axis in &mut self.axes {
            axis.retain(|&side| len(side, shape) > 1);
        }
        self
    }

    /// The same dimensions, where dimension `axis` counts the given channels of a map of this shape,
    /// or all of them where none are given.
    pub(super) fn counting(mut self, axis: usize, channels: Vec<u16>, shape: Shape) -> Self {
        let is_whole = channels.iter().copied().eq(0..shape.c);
        self.channels = if is_whole { Vec::new() } else { channels };
        self.axes[axis] = vec![Channel];
        self.of(shape)
    }

    /// The shape that the file sees of a map: with the channels that it means.
    pub(super) fn seen(&self, shape: Shape) -> Shape {
        match u16::try_from(self.channels.len()) {
            Ok(0) | Err(_) => shape,
            Ok(c) => Shape { c, ..shape },
        }
    }

    pub(super) const fn rank(&self) -> usize {
        self.axes.len()
    }

    pub(super) fn channels(&self) -> &[u16] {
        &self.channels
    }

    /// Whether the channels that are meant are all channels of a map, in whatever order.
    pub(super) fn has_every_channel(&self, shape: Shape) -> bool {
        let mut sorted = self.channels.clone();
        sorted.sort_unstable();
        sorted.is_empty() || sorted.into_iter().eq(0..shape.c)
    }

    /// The same view of the channels `picked`, as the file counts them.
    pub(super) fn pick(&self, picked: &[usize], shape: Shape) -> Option<Self> {
        let every = || (0..shape.c).collect::<Vec<_>>();
        let channels = if self.channels.is_empty() { every() } else { self.channels.clone() };
        let picked: Option<Vec<u16>> = picked.iter().map(|&i| channels.get(i).copied()).collect();
        let mut picked = picked.filter(|p| !p.is_empty() && p.len() <= usize::from(u16::MAX))?;
        if picked.iter().copied().eq(0..shape.c) {
            picked.clear();
        }
        Some(Self { axes: self.axes.clone(), channels: picked }.of(shape))
    }

    /// The same view of a map that has the channels that are meant, in their order.
    pub(super) fn settled(&self) -> Self {
        Self { axes: self.axes.clone(), channels: Vec::new() }
    }

    /// Its dimensions.
    pub(super) fn dims(&self, shape: Shape) -> Vec<usize> {
        let shape = self.seen(shape);
        self.axes.iter().map(|axis| axis.iter().map(|&side| len(side, shape)).product()).collect()
    }

    /// The sides that dimension `axis` counts.
    pub(super) fn sides(&self, axis: usize) -> &[Side] {
        &self.axes[axis]
    }

    /// The one side that dimension `axis` counts. Where that is one long, the usual order tells.
    pub(super) fn side(&self, axis: usize, shape: Shape) -> Option<Side> {
        match self.axes.get(axis)?[..] {
            [side] => Some(side),
            [] if self.is_nchw(shape) => [None, Some(Channel), Some(Row), Some(Column)][axis],
            [] if *self == self.like(Self::nhwc(self.seen(shape))) => {
                [None, Some(Row), Some(Column), Some(Channel)][axis]
            }
            _ => None,
        }
    }

    /// Another view, of the same channels.
    fn like(&self, other: Self) -> Self {
        Self { channels: self.channels.clone(), ..other }
    }

    /// `[1, channels, rows, columns]`, with the channels that this view means.
    pub(super) fn as_nchw(&self, shape: Shape) -> Self {
        self.like(Self::nchw(self.seen(shape)))
    }

    /// Whether this is `[1, channels, rows, columns]`.
    pub(super) fn is_nchw(&self, shape: Shape) -> bool {
        *self == self.as_nchw(shape)
    }

    /// The sides of the last dimension, where no other counts any.
    pub(super) fn row(&self) -> Option<&[Side]> {
        let (last, others) = self.axes.split_last()?;
        others.iter().all(Vec::is_empty).then_some(last)
    }

    /// The dimension that counts channels, and nothing else.
    pub(super) fn channel_axis(&self) -> Option<usize> {
        self.axes.iter().position(|axis| axis[..] == [Channel])
    }

    /// Dimension `i` is the old `order[i]`.
    pub(super) fn transposed(&self, order: &[usize]) -> Option<Self> {
        let mut sorted = order.to_vec();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..self.rank()) {
            return None;
        }
        let axes = order.iter().map(|&i| self.axes[i].clone()).collect();
        Some(Self { axes, channels: self.channels.clone() })
    }

    /// The same numbers in other dimensions, where each of those counts whole sides.
    pub(super) fn reshaped(&self, dims: &[usize], shape: Shape) -> Option<Self> {
        if dims.len() > MAX_RANK {
            return None;
        }
        let shape = self.seen(shape);
        let mut sides = self.axes.iter().flatten().copied();
        let mut axes = Vec::with_capacity(dims.len());
        for &dim in dims {
            let (mut axis, mut counted) = (Vec::new(), 1);
            while counted < dim {
                let side = sides.next()?;
                counted *= len(side, shape);
                axis.push(side);
            }
            if counted != dim {
                return None;
            }
            axes.push(axis);
        }
        sides.next().is_none().then(|| Self { axes, channels: self.channels.clone() })
    }

    /// Without the dimensions `axes`, which count nothing.
    pub(super) fn without(&self, removed: &[usize]) -> Option<Self> {
        let fits = removed.iter().all(|&i| self.axes.get(i).is_some_and(Vec::is_empty));
        let kept = self.axes.iter().enumerate().filter(|(i, _)| !removed.contains(i));
        let axes = kept.map(|(_, axis)| axis.clone()).collect();
        fits.then(|| Self { axes, channels: self.channels.clone() })
    }

    /// With dimensions of one, which then are the dimensions `added`, in rising order.
    pub(super) fn with_ones(&self, added: &[usize]) -> Option<Self> {
        let mut axes = self.axes.clone();
        for &i in added {
            if i > axes.len() || axes.len() >= MAX_RANK {
                return None;
            }
            axes.insert(i, Vec::new());
        }
        Some(Self { axes, channels: self.channels.clone() })
    }

    /// The dimensions before `axis` as one, and the others as another.
    pub(super) fn flattened(&self, axis: usize) -> Self {
        let (rows, columns) = self.axes.split_at(axis.min(self.rank()));
        Self { axes: vec![rows.concat(), columns.concat()], channels: self.channels.clone() }
    }

    /// The view of the result of an operator that computes number by number: that with more
    /// dimensions, where all that both have count the same.
    pub(super) fn aligned(&self, other: &Self) -> Option<Self> {
        let (long, short) = if self.rank() >= other.rank() { (self, other) } else { (other, self) };
        let (more, rest) = long.axes.split_at(long.rank() - short.rank());
        let fits = more.iter().all(Vec::is_empty) && *rest == short.axes[..];
        (fits && long.channels == short.channels).then(|| long.clone())
    }
}

/// How long a side is.
pub(super) const fn len(side: Side, shape: Shape) -> usize {
    match side {
        Row => shape.h as usize,
        Column => shape.w as usize,
        Channel => shape.c as usize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_count_sides() {
        let shape = Shape::new(4, 5, 6);
        let nchw = View::nchw(shape);
        assert_eq!(nchw.dims(shape), [1, 6, 4, 5]);
        let nhwc = nchw.transposed(&[0, 2, 3, 1]).unwrap();
        assert_eq!(nhwc, View::nhwc(shape));
        // Rows, columns and channels of any grouping, but never a part of a side.
        for dims in [&[1, 6, 20][..], &[24, 5], &[1, 1, 120], &[6, 1, 4, 1, 5]] {
            assert_eq!(nchw.reshaped(dims, shape).unwrap().dims(shape), dims);
        }
        for dims in [&[1, 3, 2, 4, 5][..], &[1, 6, 4], &[1, 6, 5, 4], &[1, 6, 4, 5, 2], &[0]] {
            assert_eq!(nchw.reshaped(dims, shape), None, "{dims:?}");
        }
        assert_eq!(nchw.flattened(1).row(), Some(&[Channel, Row, Column][..]));
        assert_eq!(nhwc.flattened(1).row(), Some(&[Row, Column, Channel][..]));
        assert_eq!(nchw.row(), None);
        // Of a pooled map nothing but channels is left.
        let pooled = Shape::new(1, 1, 6);
        let view = nchw.clone().of(pooled);
        assert_eq!(view.dims(pooled), [1, 6, 1, 1]);
        assert_eq!(view.without(&[0, 2, 3]).unwrap().dims(pooled), [6]);
        assert_eq!(view.without(&[1]), None);
        assert_eq!(view.with_ones(&[0, 5]).unwrap().dims(pooled), [1, 1, 6, 1, 1, 1]);
        assert_eq!(
            [0, 1, 2, 3].map(|i| view.side(i, pooled)),
            [None, Some(Channel), Some(Row), Some(Column)]
        );
    }

    #[test]
    fn channels_are_picked() {
        let shape = Shape::new(2, 2, 3);
        let view = View::nchw(shape);
        let reversed = view.pick(&[2, 1, 0], shape).unwrap();
        assert_eq!(
            (reversed.channels(), reversed.has_every_channel(shape)),
            (&[2, 1, 0][..], true)
        );
        assert_eq!(reversed.pick(&[2, 1, 0], shape), Some(view.clone()));
        let two = reversed.pick(&[0, 2], shape).unwrap();
        assert_eq!((two.channels(), two.dims(shape)), (&[2, 0][..], vec![1, 2, 2, 2]));
        assert!(!two.has_every_channel(shape));
        assert_eq!(view.pick(&[3], shape), None);
        assert_eq!(view.aligned(&reversed), None);
        let bare = view.without(&[0]).unwrap();
        assert_eq!(bare.aligned(&view), Some(view));
    }
}
