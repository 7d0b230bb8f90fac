//! Sums and products, with maps and with constants.

use super::call::Call;
use super::constant::{Constant, Values};
use super::view::View;
use super::{Importer, Map, Value};
use artifact::Shape;
use network::activation::Activation;
use network::graph::{NodeOp, ValueId};
use std::rc::Rc;

/// Relative difference of constants that mean the same: files write a sixth with few digits.
const NEAR: f32 = 1e-3;

impl Importer<'_> {
    /// A sum of maps, a product of two, or one number a channel added, subtracted, multiplied or divided by.
    pub(super) fn arithmetic(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let operator = call.node.op_type.as_str();
        if operator == "Sum" && call.operands.len() != 2 {
            let mut sum = call.map(0)?;
            for i in 1..call.operands.len() {
                sum = self.sum(call, sum, call.map(i)?)?;
            }
            return Ok(Value::Map(sum));
        }
        if call.operands.len() != 2 {
            return Err(format!("{} operands, but two are read", call.operands.len()));
        }
        let are_maps = [0, 1].map(|i| matches!(call.operand(i), Some(Value::Map(_))));
        if are_maps == [true; 2] {
            return match operator {
                "Mul" => self.gate(call),
                "Add" | "Sum" => Ok(Value::Map(self.sum(call, call.map(0)?, call.map(1)?)?)),
                _ => Err("combines two maps; only their sum or product is read".into()),
            };
        }
        let (x, constant) =
            (call.map(usize::from(!are_maps[0]))?, call.constant(are_maps[0].into())?);
        let swapped = are_maps[1];
        let shape = self.shape(&x);
        // Shortcuts get their channels of zeros from the map's own shape.
        let is_zero = constant.to_floats().iter().all(|&v| v == 0.0);
        if operator == "Mul" && is_zero && x.id > 0 {
            let dims = self.dims(&x);
            let zeros = self.zeros(&dims)?;
            return Ok(Value::Constant(Rc::new(Constant::new(dims, Values::Float(zeros)))));
        }
        let c = usize::from(x.view.seen(shape).c);
        let values = per_channel(constant, &x.view, shape).ok_or_else(|| {
            format!(
                "a constant of shape {:?} and a map of {:?}, but one number a channel ({c}) is read",
                constant.dims,
                self.dims(&x)
            )
        })?;
        let x = if x.view.has_every_channel(shape) { x } else { self.settled(call, &x)? };
        let values = in_order(&x.view, values);
        let (ones, zeros) = (vec![1.0; c], vec![0.0; c]);
        let (gamma, beta) = match (operator, swapped) {
            ("Add" | "Sum", _) => (ones, values),
            ("Sub", false) => (ones, values.iter().map(|v| -v).collect()),
            ("Sub", true) => (vec![-1.0; c], values),
            ("Mul", _) => (values, zeros),
            ("Div", false) => (values.iter().map(|v| 1.0 / v).collect(), zeros),
            _ => return Err("divides by a map".into()),
        };
        if gamma.iter().chain(&beta).any(|v| !v.is_finite()) {
            return Err("a constant that is not finite, or a division by zero".into());
        }
        Ok(Value::Map(self.scaled(call, &x, gamma, beta)?))
    }

    fn sum(&mut self, call: &Call<'_>, mut a: Map, mut b: Map) -> Result<Map, String> {
        if a.view.channels() != b.view.channels() {
            (a, b) = (self.settled(call, &a)?, self.settled(call, &b)?);
        }
        let view = a.view.aligned(&b.view).filter(|_| self.shape(&a) == self.shape(&b));
        let view = view
            .ok_or_else(|| format!("adds maps of {:?} and {:?}", self.dims(&a), self.dims(&b)))?;
        self.push(call, NodeOp::Add, &[&a, &b], view)
    }

    /// A map times one of a single pixel, number by number of its channels.
    fn gate(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let (mut x, mut gate) = (call.map(0)?, call.map(1)?);
        if x.view.channels() != gate.view.channels() {
            (x, gate) = (self.settled(call, &x)?, self.settled(call, &gate)?);
        }
        for (x, share) in [(&x, &gate), (&gate, &x)] {
            if let Some(product) = self.with_share(call, x, share)? {
                return Ok(Value::Map(product));
            }
        }
        if self.shape(&gate).pixels() > 1 {
            core::mem::swap(&mut x, &mut gate);
        }
        // Dimensions are aligned at their ends.
        let channel = |map: &Map| map.view.channel_axis().map(|axis| map.view.rank() - axis);
        let is_pixel = self.shape(&gate) == (Shape { h: 1, w: 1, ..self.shape(&x) });
        if !is_pixel || channel(&x) != channel(&gate) || x.view.rank() < gate.view.rank() {
            return Err(format!(
                "multiplies maps of {:?} and {:?}; only a factor for each channel is read",
                self.dims(&x),
                self.dims(&gate)
            ));
        }
        let op = NodeOp::Gate { activation: Activation::None };
        Ok(Value::Map(self.push(call, op, &[&x, &gate], x.view.clone())?))
    }

    /// The product of a map and of a function of the same map, where that has a name.
    fn with_share(&mut self, call: &Call<'_>, x: &Map, share: &Map) -> Result<Option<Map>, String> {
        if x.view != share.view {
            return Ok(None);
        }
        let node = &self.graph.nodes[share.id];
        let (product, factor) = match node.op {
            NodeOp::Activation(Activation::SIGMOID) if node.inputs == [x.id] => {
                (Activation::SILU, 1.0)
            }
            NodeOp::Activation(Activation::HARD_SIGMOID) if node.inputs == [x.id] => {
                (Activation::HARD_SWISH, 1.0)
            }
            _ => match self.hard_sigmoid_of(x.id, share.id) {
                Some(factor) => (Activation::HARD_SWISH, factor),
                None => return Ok(None),
            },
        };
        let product = self.push(call, NodeOp::Activation(product), &[x], x.view.clone())?;
        if (factor - 1.0).abs() < NEAR {
            return Ok(Some(product));
        }
        let c = usize::from(self.shape(&product).c);
        self.scaled(call, &product, vec![factor; c], vec![0.0; c]).map(Some)
    }

    /// `k` where value `share` is `k · min(max(x / 6 + ½, 0), 1)`, written as sums, bounds and products:
    /// `relu6(x + 3)`, which files divide by 6 before the product or after it.
    fn hard_sigmoid_of(&self, x: ValueId, share: ValueId) -> Option<f32> {
        let nodes = &self.graph.nodes;
        let (factor, bounded) = match self.line(share) {
            Some([factor, 0.0]) => (factor, nodes[share].inputs[0]),
            Some(_) => return None,
            None => (1.0, share),
        };
        let NodeOp::Activation(Activation::Clamp { low: 0.0, high }) = nodes[bounded].op else {
            return None;
        };
        let line = nodes[bounded].inputs[0];
        let [slope, start] = self.line(line)?;
        let is_near = |value: f32| (value / high - 1.0).abs() < NEAR;
        let is_hard = nodes[line].inputs == [x] && is_near(slope * 6.0) && is_near(start * 2.0);
        is_hard.then_some(factor * high)
    }

    /// `[a, b]` where a value is `a · x + b`, the same in all channels.
    fn line(&self, value: ValueId) -> Option<[f32; 2]> {
        let NodeOp::BatchNorm { gamma, beta, mean, variance, epsilon: 0.0 } =
            &self.graph.nodes[value].op
        else {
            return None;
        };
        let all = |numbers: &[f32]| {
            let first = *numbers.first()?;
            numbers.iter().all(|&n| n == first).then_some(first)
        };
        let is_plain = (all(mean)?, all(variance)?) == (0.0, 1.0);
        is_plain.then_some([all(gamma)?, all(beta)?])
    }

    /// `x · factor + addend`, of each channel of the map.
    pub(super) fn scaled(
        &mut self,
        call: &Call<'_>,
        x: &Map,
        gamma: Vec<f32>,
        beta: Vec<f32>,
    ) -> Result<Map, String> {
        let (zeros, ones) = (vec![0.0; gamma.len()], vec![1.0; gamma.len()]);
        let op = NodeOp::BatchNorm { gamma, beta, mean: zeros, variance: ones, epsilon: 0.0 };
        self.push(call, op, &[x], x.view.clone())
    }
}

/// Numbers of the channels that a file means, which are all, in the map's own order.
pub(super) fn in_order(view: &View, values: Vec<f32>) -> Vec<f32> {
    if view.channels().is_empty() {
        return values;
    }
    let mut ordered = vec![0.0; values.len()];
    for (value, &channel) in values.iter().zip(view.channels()) {
        ordered[usize::from(channel)] = *value;
    }
    ordered
}

/// A constant that is broadcast over a map, one number a channel.
fn per_channel(constant: &Constant, view: &View, shape: Shape) -> Option<Vec<f32>> {
    let (dims, channels) = (view.dims(shape), usize::from(view.seen(shape).c));
    // Dimensions are aligned at their ends.
    let more = dims.len().checked_sub(constant.dims.len())?;
    let ones = |at: Option<usize>| {
        constant.dims.iter().enumerate().all(|(i, &d)| d == 1 || Some(i + more) == at)
    };
    let values = constant.to_floats();
    if values.len() == 1 {
        return Some(vec![values[0]; channels]);
    }
    let axis = view.channel_axis()?;
    (values.len() == channels && ones(Some(axis))).then_some(values)
}
