//! The same numbers in another order or with other dimensions.

use super::call::{Call, place};
use super::constant::MAX_RANK;
use super::groups::Groups;
use super::view::{Side, View};
use super::{Importer, Map, Value};
use artifact::{Padding, PoolKind};
use network::graph::NodeOp;

impl Importer<'_> {
    /// `x` with the dimensions that `view` gives it.
    pub(super) fn viewed(&self, x: Map, view: Option<View>, what: &str) -> Result<Value, String> {
        match view {
            Some(view) => Ok(Value::Map(Map { view, ..x })),
            None => Err(format!("{what} of {:?}, which no layout of maps is", self.dims(&x))),
        }
    }

    pub(super) fn transpose(&self, call: &Call<'_>) -> Result<Value, String> {
        if let Some(groups) = call.groups() {
            let order = call.order(groups.dims().len())?;
            let groups = groups.transposed(&order);
            return Ok(Value::Groups(groups.ok_or_else(|| format!("the order {order:?}"))?));
        }
        let x = call.any(0)?;
        let order = call.order(x.view.rank())?;
        let view = x.view.transposed(&order);
        self.viewed(x, view, &format!("makes the order {order:?}"))
    }

    pub(super) fn flatten(&self, call: &Call<'_>) -> Result<Value, String> {
        let x = unbordered(call)?;
        let rank = x.view.rank();
        // The axis may be the one behind the last, too.
        let axis = place(call.int("axis", 1), rank + 1).or_else(|_| call.axis("axis", 1, rank))?;
        let view = x.view.flattened(axis);
        self.viewed(x, Some(view), "flattens")
    }

    pub(super) fn reshape(&self, call: &Call<'_>) -> Result<Value, String> {
        let (x, dims) = match call.groups() {
            Some(groups) => {
                let dims = groups.dims();
                let x = groups.joined(&self.graph);
                let apart = || format!("reads channels apart from each other, of {dims:?}");
                (x.ok_or_else(apart)?, call.shape(&dims)?)
            }
            None => {
                let x = unbordered(call)?;
                let dims = call.shape(&self.dims(&x))?;
                (x, dims)
            }
        };
        let shape = self.shape(&x);
        let view = x.view.reshaped(&dims, shape);
        if let (None, Some(groups)) = (&view, Groups::of(&x, shape, &dims)) {
            return Ok(Value::Groups(groups));
        }
        self.viewed(x, view, &format!("makes {dims:?}"))
    }

    pub(super) fn unsqueeze(&self, call: &Call<'_>) -> Result<Value, String> {
        let x = unbordered(call)?;
        let count = call.numbers("axes", 1)?.ok_or("without axes")?.len();
        let axes = call.axes("axes", 1, x.view.rank() + count)?.unwrap_or_default();
        let view = x.view.with_ones(&axes);
        self.viewed(x, view, &format!("adds the dimensions {axes:?}"))
    }

    /// Without axes, all dimensions of one; also the pictures', of which there is one here.
    pub(super) fn squeeze(&self, call: &Call<'_>) -> Result<Value, String> {
        let x = unbordered(call)?;
        let dims = self.dims(&x);
        let axes = match call.axes("axes", 1, dims.len())? {
            Some(axes) => axes,
            None => (0..dims.len()).filter(|&i| dims[i] == 1).collect(),
        };
        let view = x.view.without(&axes);
        self.viewed(x, view, &format!("leaves away the dimensions {axes:?}"))
    }

    /// Some of the channels, or every so many pixels.
    pub(super) fn slice(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let mut x = call.map(0)?;
        let dims = self.dims(&x);
        for Range { axis, start, step, count } in ranges(call, &dims)? {
            if count == 0 {
                return Err(format!("picks nothing of dimension {axis} of {dims:?}"));
            }
            let whole = (start, step, count) == (0, 1, dims[axis]);
            let shape = self.shape(&x);
            let last = start + step * (count as i64 - 1);
            match x.view.side(axis, shape) {
                _ if whole => {}
                Some(Side::Channel) => {
                    let picked: Vec<usize> =
                        (0..count as i64).map(|i| (start + step * i) as usize).collect();
                    let view = x.view.pick(&picked, shape);
                    x.view = view.ok_or("picks no channel")?;
                }
                // As many as a pool of one pixel gives.
                Some(side) if start == 0 && last + step >= dims[axis] as i64 => {
                    let step = u16::try_from(step).map_err(|_| format!("the step {step}"))?;
                    let stride = if side == Side::Row { [step, 1] } else { [1, step] };
                    x = self.strided(call, &x, stride)?;
                }
                _ => {
                    return Err(format!(
                        "takes a part of dimension {axis} of {dims:?}; channels and every so many \
                         pixels are read; cut pictures out before the network"
                    ));
                }
            }
        }
        Ok(Value::Map(x))
    }

    /// Every so many pixels: a pool of one.
    fn strided(&mut self, call: &Call<'_>, x: &Map, stride: [u16; 2]) -> Result<Map, String> {
        let node = &self.graph.nodes[x.id];
        let (mut from, mut stride) = (x.id, stride);
        // Rows are often picked by one node, and columns by the next.
        if let (Some(before), None) = (one_pixel_stride(&node.op), node.quant) {
            from = node.inputs[0];
            stride = [0, 1].map(|i| stride[i].saturating_mul(before[i]));
        }
        let op = NodeOp::Pool2d {
            kind: PoolKind::Max,
            filter: [1; 2],
            stride,
            padding: Padding::default(),
        };
        self.push_on(call, op, &[from], x.view.clone())
    }
}

/// Strides of a pool that only picks pixels.
pub(super) fn one_pixel_stride(op: &NodeOp) -> Option<[u16; 2]> {
    match op {
        NodeOp::Pool2d { kind: PoolKind::Max, filter: [1, 1], stride, .. } => Some(*stride),
        _ => None,
    }
}

/// Operand 0, without a border; also probabilities.
pub(super) fn unbordered(call: &Call<'_>) -> Result<Map, String> {
    match call.any(0)? {
        Map { border: Some(_), .. } => Err("reads a padded map, which only windows do".into()),
        map => Ok(map),
    }
}

/// The lengths of the parts that a Split makes of `len` places.
pub(super) fn part_lens(call: &Call<'_>, len: usize) -> Result<Vec<usize>, String> {
    let lens: Vec<usize> = match call.numbers("split", 1)? {
        Some(lens) => lens.iter().map(|&l| usize::try_from(l).unwrap_or(usize::MAX)).collect(),
        None => {
            // All alike; the last has what is left.
            let parts = call.node.output.len().max(1);
            let each = len.div_ceil(parts).max(1);
            (0..parts).map(|i| len.saturating_sub(i * each).min(each)).collect()
        }
    };
    let sum = lens.iter().try_fold(0usize, |sum, &l| sum.checked_add(l));
    if sum != Some(len) || lens.len() != call.node.output.len() {
        return Err(format!("splits {len} into {lens:?}"));
    }
    Ok(lens)
}

/// What a Slice takes of one dimension.
pub(super) struct Range {
    pub(super) axis: usize,
    pub(super) start: i64,
    pub(super) step: i64,
    pub(super) count: usize,
}

/// What a Slice takes of a tensor of these dimensions.
pub(super) fn ranges(call: &Call<'_>, dims: &[usize]) -> Result<Vec<Range>, String> {
    let starts = call.numbers("starts", 1)?.ok_or("without starts")?;
    let ends = call.numbers("ends", 2)?.ok_or("without ends")?;
    let axes = call.numbers("axes", 3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = call.numbers("steps", 4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if starts.len() > MAX_RANK || [&ends, &axes, &steps].iter().any(|o| o.len() != starts.len()) {
        return Err(format!("{} starts, but {} ends", starts.len(), ends.len()));
    }
    let range = |i: usize| {
        let (axis, step) = (place(axes[i], dims.len())?, steps[i]);
        let len = dims[axis] as i64;
        let (least, most) = if step > 0 { (0, len) } else { (-1, len - 1) };
        let clamp = |at: i64| (if at < 0 { at.saturating_add(len) } else { at }).clamp(least, most);
        let (start, end) = (clamp(starts[i]), clamp(ends[i]));
        let count = match step {
            0 => return Err("a step of zero".into()),
            1.. => (end - start).max(0).unsigned_abs().div_ceil(step.unsigned_abs()),
            _ => (start - end).max(0).unsigned_abs().div_ceil(step.unsigned_abs()),
        };
        Ok(Range { axis, start, step, count: count as usize })
    };
    (0..starts.len()).map(range).collect()
}
