//! The same numbers in another order or with other dimensions.

use super::call::Call;
use super::fold::positive_product;
use super::{Importer, Layout, Map, Value};
use artifact::Shape;

impl Layout {
    /// The dimensions of a map as the file has them.
    pub(super) fn dims(self, shape: Shape) -> Vec<i64> {
        let [h, w, c] = [shape.h, shape.w, shape.c].map(i64::from);
        match self {
            Self::Nchw => vec![1, c, h, w],
            Self::Nhwc => vec![1, h, w, c],
            Self::FlatChw | Self::FlatHwc => vec![1, h * w * c],
        }
    }

    /// Which dimension counts channels.
    pub(super) const fn channel_axis(self) -> usize {
        match self {
            Self::Nhwc => 3,
            Self::Nchw | Self::FlatChw | Self::FlatHwc => 1,
        }
    }

    pub(super) const fn rank(self) -> usize {
        match self {
            Self::Nchw | Self::Nhwc => 4,
            Self::FlatChw | Self::FlatHwc => 2,
        }
    }
}

impl Importer<'_> {
    pub(super) fn transpose(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let x = call.bordered(0)?;
        let order = call.ints("perm").ok_or("without an order")?;
        let layout = match (x.layout, order) {
            (layout, order) if order.iter().copied().eq(0..layout.rank() as i64) => layout,
            (Layout::Nchw, [0, 2, 3, 1]) => Layout::Nhwc,
            (Layout::Nhwc, [0, 3, 1, 2]) => Layout::Nchw,
            _ => return Err(format!("the order {order:?}, but only NCHW and NHWC are read")),
        };
        Ok(Value::Map(Map { layout, ..x }))
    }

    /// `x` as one row.
    pub(super) fn row(&self, x: Map) -> Value {
        let layout = match x.layout {
            Layout::Nchw | Layout::FlatChw => Layout::FlatChw,
            Layout::Nhwc | Layout::FlatHwc => Layout::FlatHwc,
        };
        Value::Map(Map { layout, ..x })
    }

    pub(super) fn flatten(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let x = call.map(0)?;
        match call.int("axis", 1) {
            1 => Ok(self.row(x)),
            axis if axis < 0 && axis + x.layout.rank() as i64 == 1 => Ok(self.row(x)),
            axis => Err(format!("flattens from axis {axis}, but 1 is read")),
        }
    }

    pub(super) fn reshape(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let x = call.map(0)?;
        let wanted = call.numbers("shape", 1)?.ok_or("without a shape")?;
        let (shape, dims) = (self.shape(x), x.layout.dims(self.shape(x)));
        // A zero stands for the same dimension, −1 for what is left.
        let mut wanted: Vec<i64> = (wanted.iter().enumerate())
            .map(|(i, &d)| if d == 0 { dims.get(i).copied().unwrap_or(0) } else { d })
            .collect();
        let len = shape.len() as i64;
        let known = positive_product(&wanted);
        if let Some(open) = wanted.iter_mut().find(|d| **d == -1) {
            *open = len / known.max(1);
        }
        self.view(x, &wanted)
    }

    pub(super) fn squeeze(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let x = call.map(0)?;
        let mut dims = x.layout.dims(self.shape(x));
        let axes = call.numbers("axes", 1)?;
        let rank = dims.len() as i64;
        if call.node.op_type == "Unsqueeze" {
            let axes = axes.ok_or("without axes")?;
            let rank = rank + axes.len() as i64;
            let mut axes: Vec<i64> =
                axes.iter().map(|&a| if a < 0 { a + rank } else { a }).collect();
            axes.sort_unstable();
            for axis in axes {
                let at = usize::try_from(axis).ok().filter(|&at| at <= dims.len());
                dims.insert(at.ok_or_else(|| format!("axis {axis}"))?, 1);
            }
        } else {
            let axes = axes.ok_or("without axes, which would lose the picture's too")?;
            let mut axes: Vec<i64> =
                axes.iter().map(|&a| if a < 0 { a + rank } else { a }).collect();
            axes.sort_unstable();
            for axis in axes.into_iter().rev() {
                let at = usize::try_from(axis).ok().filter(|&at| dims.get(at) == Some(&1));
                dims.remove(at.ok_or_else(|| format!("axis {axis}"))?);
            }
        }
        self.view(x, &dims)
    }

    /// The same numbers with other dimensions: a row, or a map with nothing but channels.
    pub(super) fn view(&self, x: Map, dims: &[i64]) -> Result<Value, String> {
        let (shape, len) = (self.shape(x), self.shape(x).len() as i64);
        if dims == x.layout.dims(shape) {
            return Ok(Value::Map(x));
        }
        let pixel = shape.pixels() == 1;
        let layout = match *dims {
            [1, n] if n == len => return Ok(self.row(x)),
            [1, n, 1, 1] if n == len && pixel => Layout::Nchw,
            [1, 1, 1, n] if n == len && pixel => Layout::Nhwc,
            _ => {
                let from = x.layout.dims(shape);
                return Err(format!("makes {dims:?} of {from:?}, but only a row is read"));
            }
        };
        Ok(Value::Map(Map { layout, ..x }))
    }
}
