//! Channels in another order, some of them, or those of several maps side by side.

use super::call::{Call, place};
use super::constant::Constant;
use super::shapes::{one_pixel_stride, part_lens, unbordered};
use super::view::{Side, View};
use super::{Importer, Map, Value};
use network::graph::{Conv, NodeOp};

/// Most channels of a map that is made of maps side by side, where they are more than a pixel: each
/// takes a convolution.
const MAX_JOINED: usize = 32;

impl Importer<'_> {
    /// Picks channels by their numbers. What picks all numbers in their order, as some exporters write
    /// another layout in memory, computes nothing.
    pub(super) fn gather(&self, call: &Call<'_>) -> Result<Value, String> {
        let x = unbordered(call)?;
        let (dims, shape) = (self.dims(&x), self.shape(&x));
        let indices = call.constant(1)?;
        let mut wanted = indices.dims.clone();
        let axis = if call.node.op_type == "GatherND" {
            // Of the first dimension alone: a Gather.
            if wanted.pop() != Some(1) || call.int("batch_dims", 0) != 0 {
                return Err("picks by several dimensions at once".into());
            }
            0
        } else {
            call.axis("axis", 0, dims.len())?
        };
        let len = *dims.get(axis).ok_or("picks of a single number")?;
        let picked = indices.to_ints().ok_or("indices that are no integers")?;
        let picked: Result<Vec<usize>, String> = picked.iter().map(|&i| place(i, len)).collect();
        let picked = picked?;
        let mut shaped = dims.clone();
        shaped.splice(axis..=axis, wanted.iter().copied());
        let view = if picked.iter().copied().eq(0..len) {
            x.view.reshaped(&shaped, shape)
        } else if x.view.side(axis, shape) == Some(Side::Channel) && !x.is_softmax {
            let view = x.view.pick(&picked, shape);
            view.and_then(|view| view.reshaped(&shaped, shape))
        } else {
            None
        };
        let what = format!("picks {} places of dimension {axis}", picked.len());
        self.viewed(x, view, &what)
    }

    /// Groups of channels, each for itself.
    pub(super) fn split(&self, call: &Call<'_>) -> Result<Vec<Value>, String> {
        let x = call.map(0)?;
        let (dims, shape) = (self.dims(&x), self.shape(&x));
        let axis = call.axis("axis", 0, dims.len())?;
        if x.view.side(axis, shape) != Some(Side::Channel) {
            return Err(format!("splits dimension {axis} of {dims:?}; only channels are split"));
        }
        let mut start = 0;
        let part = |len: usize| {
            let picked: Vec<usize> = (start..start + len).collect();
            start += len;
            let view = x.view.pick(&picked, shape).ok_or("parts that do not fit")?;
            Ok(Value::Map(Map { view, ..x.clone() }))
        };
        part_lens(call, dims[axis])?.into_iter().map(part).collect()
    }

    /// Maps side by side: channels of one map in another order, or a sum of convolutions, each of which
    /// puts its channels at their place.
    pub(super) fn concat(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let of = |i| call.map(i).ok();
        let maps: Vec<Option<Map>> = (0..call.operands.len()).map(of).collect();
        let first = maps.iter().flatten().next().ok_or("reads a padded map or probabilities")?;
        let (rank, shape, dims) = (first.view.rank(), self.shape(first), self.dims(first));
        let axis = call.axis("axis", 1, rank)?;
        let fits = |other: &[usize]| {
            other.len() == rank && (0..rank).all(|i| i == axis || other[i] == dims[i])
        };
        let mut parts = Vec::with_capacity(maps.len());
        for (i, map) in maps.iter().enumerate() {
            let part = match map {
                Some(map) => {
                    let side = map.view.side(axis, self.shape(map));
                    (self.dims(map), side == Some(Side::Channel))
                }
                None => (call.constant(i)?.dims.clone(), true),
            };
            if !fits(&part.0) || !part.1 {
                return Err(format!(
                    "joins {:?} and {dims:?} along dimension {axis}; only channels are joined",
                    part.0
                ));
            }
            parts.push(part.0[axis]);
        }
        let view = first.view.clone();
        if maps.iter().all(|map| map.as_ref().is_some_and(|map| map.id == first.id)) {
            let every = |map: &Map| match map.view.channels() {
                [] => (0..shape.c).collect(),
                picked => picked.to_vec(),
            };
            let count: usize = parts.iter().sum();
            if count > usize::from(u16::MAX) {
                return Err(format!("joins {count} channels"));
            }
            let channels: Vec<u16> = maps.iter().flatten().flat_map(every).collect();
            let view = view.counting(axis, channels, shape);
            return Ok(Value::Map(Map { view, ..first.clone() }));
        }
        let total = parts.iter().fold(0usize, |sum, &part| sum.saturating_add(part));
        let count = maps.iter().flatten().count();
        if count > 1 && shape.pixels() > 1 && total > MAX_JOINED {
            return Err(
                "joins maps side by side, as DenseNets and Inceptions do, which is not read; \
                        take a network that adds them, such as a ResNet"
                    .into(),
            );
        }
        let mut bias = vec![0.0; total.min(1 << 16)];
        let mut start = 0usize;
        let mut starts = Vec::with_capacity(parts.len());
        for (i, &part) in parts.iter().enumerate() {
            if maps[i].is_none() {
                let values = each_channel(call.constant(i)?, axis);
                let values =
                    values.ok_or("joins a map and a constant that is no number a channel")?;
                let end = start.saturating_add(part);
                let place = bias.get_mut(start..end).ok_or("joins too many channels")?;
                place.copy_from_slice(&values);
            }
            starts.push(start);
            start = start.saturating_add(part);
        }
        let mut joined: Option<Map> = None;
        for (i, map) in maps.iter().enumerate() {
            let Some(map) = map else { continue };
            let places: Vec<usize> = (starts[i]..).take(parts[i]).collect();
            // The constants once.
            let zeros = vec![0.0; bias.len()];
            let bias = if joined.is_none() { core::mem::replace(&mut bias, zeros) } else { zeros };
            let placed = self.placed(call, map, axis, &places, bias)?;
            self.graph.nodes[placed.id].name.push_str(&format!(".{i}"));
            joined = Some(match joined {
                Some(before) => {
                    let view = placed.view.clone();
                    self.push(call, NodeOp::Add, &[&before, &placed], view)?
                }
                None => placed,
            });
        }
        joined.map(Value::Map).ok_or_else(|| "joins nothing".into())
    }

    /// `x` between channels of zeros: a convolution of one pixel, strided as a pool of one pixel
    /// before it, which shortcuts without parameters have.
    pub(super) fn more_channels(
        &mut self,
        call: &Call<'_>,
        x: &Map,
        [before, after]: [usize; 2],
    ) -> Result<Value, String> {
        let axis = x.view.channel_axis().or_else(|| x.view.is_nchw(self.shape(x)).then_some(1));
        let axis = axis.ok_or("pads channels of no map")?;
        let c = usize::from(x.view.seen(self.shape(x)).c);
        let c_out = before.saturating_add(c).saturating_add(after);
        let places: Vec<usize> = (before..before.saturating_add(c)).collect();
        let map = self.placed(call, x, axis, &places, vec![0.0; c_out.min(1 << 16)])?;
        Ok(Value::Map(map))
    }

    /// A map whose channels `places` are those of `x`, and the others are constants: `bias`.
    pub(super) fn placed(
        &mut self,
        call: &Call<'_>,
        x: &Map,
        axis: usize,
        places: &[usize],
        bias: Vec<f32>,
    ) -> Result<Map, String> {
        let node = &self.graph.nodes[x.id];
        let (from, stride) = match (one_pixel_stride(&node.op), node.quant) {
            (Some(stride), None) => (node.inputs[0], stride),
            _ => (x.id, [1, 1]),
        };
        let c = usize::from(self.shape(x).c);
        let mut weights = self.zeros(&[bias.len(), c])?;
        for (i, &place) in places.iter().enumerate() {
            let channel = x.view.channels().get(i).map_or(i, |&channel| channel.into());
            let at = place.checked_mul(c).and_then(|at| weights.get_mut(at + channel));
            *at.ok_or("more channels than are read")? = 1.0;
        }
        let weight_scales = vec![0.0; bias.len()];
        let conv = Conv { stride, weight_scales, ..Conv::new(weights, bias, [1; 2]) };
        let map = self.push_on(call, NodeOp::Conv2d(conv), &[from], View::settled(&x.view))?;
        let view = map.view.clone().counting(axis, Vec::new(), self.shape(&map));
        Ok(Map { view, ..map })
    }

    /// `x` with the channels that the file means, in its order; a border stays around it.
    pub(super) fn settled(&mut self, call: &Call<'_>, x: &Map) -> Result<Map, String> {
        let count = x.view.channels().len();
        if count == 0 {
            return Ok(x.clone());
        }
        let shape = self.shape(x);
        let axis = (0..x.view.rank()).find(|&i| x.view.side(i, shape) == Some(Side::Channel));
        let axis = axis.ok_or("picks channels of no map")?;
        let key = (x.id, x.view.channels().to_vec());
        // Once, however many read them.
        if let Some(&id) = self.settled.get(&key) {
            let view = x.view.settled().counting(axis, Vec::new(), self.graph.nodes[id].shape);
            return Ok(Map { id, view, border: x.border, is_softmax: false });
        }
        let places: Vec<usize> = (0..count).collect();
        let map = self.placed(call, x, axis, &places, vec![0.0; count])?;
        let node = &mut self.graph.nodes[map.id];
        node.name.push_str(".channels");
        self.settled.insert(key, map.id);
        Ok(Map { border: x.border, ..map })
    }
}

/// A constant's numbers along a dimension, where they do not change along the others.
fn each_channel(constant: &Constant, axis: usize) -> Option<Vec<f32>> {
    let values = constant.to_floats();
    let inner: usize = constant.dims[axis + 1..].iter().product();
    let count = constant.dims[axis];
    let each: Vec<f32> =
        (0..count).map(|c| values.get(c * inner).copied()).collect::<Option<_>>()?;
    let same = values.iter().enumerate().all(|(i, v)| *v == each[i / inner.max(1) % count]);
    same.then_some(each)
}
