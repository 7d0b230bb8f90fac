//! Sums and products, with maps and with constants.

use super::call::Call;
use super::constant::{Constant, Values};
use super::view::View;
use super::{Importer, Map, Value};
use artifact::Shape;
use network::activation::Activation;
use network::graph::NodeOp;
use std::rc::Rc;

impl Importer<'_> {
    /// A sum or product of two maps, or one number a channel added, subtracted, multiplied or divided by.
    pub(super) fn arithmetic(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let operator = call.node.op_type.as_str();
        if call.operands.len() != 2 {
            return Err(format!("{} operands, but two are read", call.operands.len()));
        }
        let are_maps = [0, 1].map(|i| matches!(call.operand(i), Some(Value::Map(_))));
        if are_maps == [true; 2] {
            return if operator == "Mul" { self.gate(call) } else { self.sum(call, operator) };
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

    fn sum(&mut self, call: &Call<'_>, operator: &str) -> Result<Value, String> {
        if !matches!(operator, "Add" | "Sum") {
            return Err("combines two maps; only their sum or product is read".into());
        }
        let (mut a, mut b) = (call.map(0)?, call.map(1)?);
        if a.view.channels() != b.view.channels() {
            (a, b) = (self.settled(call, &a)?, self.settled(call, &b)?);
        }
        let view = a.view.aligned(&b.view).filter(|_| self.shape(&a) == self.shape(&b));
        let view = view
            .ok_or_else(|| format!("adds maps of {:?} and {:?}", self.dims(&a), self.dims(&b)))?;
        Ok(Value::Map(self.push(call, NodeOp::Add, &[&a, &b], view)?))
    }

    /// A map times one of a single pixel, number by number of its channels.
    fn gate(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let (mut x, mut gate) = (call.map(0)?, call.map(1)?);
        for (x, share) in [(&x, &gate), (&gate, &x)] {
            if let Some(product) = self.with_share(call, x, share)? {
                return Ok(Value::Map(product));
            }
        }
        if self.shape(&gate).pixels() > 1 {
            core::mem::swap(&mut x, &mut gate);
        }
        if x.view.channels() != gate.view.channels() {
            (x, gate) = (self.settled(call, &x)?, self.settled(call, &gate)?);
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
        let node = &self.graph.nodes[share.id];
        let product = match node.op {
            _ if node.inputs != [x.id] || x.view != share.view => return Ok(None),
            NodeOp::Activation(Activation::SIGMOID) => Activation::SILU,
            NodeOp::Activation(Activation::HARD_SIGMOID) => Activation::HARD_SWISH,
            _ => return Ok(None),
        };
        self.push(call, NodeOp::Activation(product), &[x], x.view.clone()).map(Some)
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
