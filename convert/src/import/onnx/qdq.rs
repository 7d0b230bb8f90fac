//! QuantizeLinear and DequantizeLinear: how int8 stores values.

use super::call::Call;
use super::constant::{Constant, Values};
use super::{Importer, Value};
use crate::graph::NodeOp;
use artifact::Quant;

impl Importer<'_> {
    /// Keeps how int8 stores a value; what is dequantized again is that value.
    pub(super) fn quantize(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let mut x = call.bordered(0)?;
        if x.border.is_some() {
            // A border is stored as what it surrounds is.
            return Ok(Value::Map(x));
        }
        let scale = call.constant(1)?.to_floats();
        let (zero, is_unsigned) = match call.optional(2)? {
            Some(zero) => (zero.to_floats(), zero.is_unsigned),
            None => (vec![0.0], true),
        };
        let ([scale], [zero]) = (&scale[..], &zero[..]) else {
            return Err("several scales for a map; one is read".into());
        };
        let zero_point = if is_unsigned { zero - 128.0 } else { *zero };
        if !(-128.0..=127.0).contains(&zero_point) {
            return Err(format!("the zero point {zero}; 8 bits are read"));
        }
        let quant = Quant { scale: *scale, zero_point: zero_point as i8 };
        if !quant.is_valid() {
            return Err(format!("the scale {scale}"));
        }
        // Exporters leave away a ReLU where nothing below zero can be stored.
        let sum = matches!(
            self.graph.nodes[x.id].op,
            NodeOp::Conv2d(_) | NodeOp::BatchNorm { .. } | NodeOp::Add
        );
        let clamps = sum && quant.zero_point == -128 && self.graph.nodes[x.id].quant.is_none();
        if clamps && let Value::Map(map) = self.push(call, NodeOp::Relu, &[x], x.layout)? {
            x = map;
        }
        // A second one would round a value that is stored already.
        self.graph.nodes[x.id].quant.get_or_insert(quant);
        Ok(Value::Map(x))
    }
}

/// `(x − zero_point) · scale`, for each of the axis' places by itself where there are several.
pub(super) fn dequantized(call: &Call<'_>) -> Result<Constant, String> {
    let x = call.constant(0)?;
    let scale = call.constant(1)?.to_floats();
    let zero = call.optional(2)?.map_or(vec![0.0], Constant::to_floats);
    let axis = call.int("axis", 1);
    let axis = if axis < 0 { axis + x.dims.len() as i64 } else { axis };
    let (places, inner) = match scale.len() {
        1 => (1, x.dims.iter().product()),
        places => {
            let at = usize::try_from(axis).ok().filter(|&at| x.dims.get(at) == Some(&places));
            let at = at.ok_or_else(|| format!("{places} scales for a shape {:?}", x.dims))?;
            (places, x.dims[at + 1..].iter().product::<usize>())
        }
    };
    if zero.len() != 1 && zero.len() != places {
        return Err(format!("{} zero points for {places} scales", zero.len()));
    }
    let values = x.to_floats();
    let values = values.iter().enumerate().map(|(i, v)| {
        let place = i / inner.max(1) % places;
        (v - zero[place.min(zero.len() - 1)]) * scale[place]
    });
    let values = Values::Float(values.collect());
    // Of int8 without a zero point, what is multiplied is what is stored.
    let plain = zero.iter().all(|&z| z == 0.0) && !x.is_unsigned;
    let kept = plain && (scale.len() == 1 || axis == 0);
    let scales = if kept { scale } else { Vec::new() };
    Ok(Constant { scales, ..Constant::new(x.dims.clone(), values) })
}
