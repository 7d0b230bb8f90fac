//! QuantizeLinear and DequantizeLinear: how int8 stores values.

use super::call::Call;
use super::constant::{Constant, Values, type_name};
use super::{Importer, Map, Value};
use artifact::Quant;
use formats::onnx as proto;
use network::activation::Activation;
use network::graph::NodeOp;

/// What to do about a file with other integers than those of 8 bits.
pub(super) const REMEDY: &str = "quantize it to 8 bits (onnxruntime: activation_type=QuantType.QInt8), or export \
                      it in floats";

/// Our attribute of a QuantizeLinear: the least number that is stored.
pub(super) const LEAST: &str = "least";

impl Importer<'_> {
    /// Keeps how int8 stores a value; what is dequantized again is that value.
    pub(super) fn quantize(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let mut x = call.any(0)?;
        if x.border.is_some() || x.is_softmax {
            // A border is stored as what it surrounds is; stored probabilities say nothing of logits.
            return Ok(Value::Map(x));
        }
        let quant = quant_of(call)?;
        // Exporters leave away a ReLU where nothing below zero can be stored.
        let sum = matches!(
            self.graph.nodes[x.id].op,
            NodeOp::Conv2d(_) | NodeOp::BatchNorm { .. } | NodeOp::Add
        );
        let is_least = i64::from(quant.zero_point) == call.int(LEAST, i8::MIN.into());
        if sum && is_least && self.graph.nodes[x.id].quant.is_none() {
            // One for all that read it, each of which may have a QuantizeLinear of its own.
            let id = match self.clamped.get(&x.id) {
                Some(id) => *id,
                None => {
                    let relu = self.push(
                        call,
                        NodeOp::Activation(Activation::RELU),
                        &[&x],
                        x.view.clone(),
                    )?;
                    *self.clamped.entry(x.id).or_insert(relu.id)
                }
            };
            x = Map { id, ..x };
        }
        // A second one would round a value that is stored already.
        self.graph.nodes[x.id].quant.get_or_insert(quant);
        Ok(Value::Map(x))
    }

    /// What is stored is the value that it stands for; a picture that is given in integers is stored
    /// as they say.
    pub(super) fn dequantize(&mut self, call: &Call<'_>) -> Result<Value, String> {
        let x = call.any(0)?;
        if x.id == 0 && x.border.is_none() && self.graph.nodes[0].quant.is_none() {
            self.graph.nodes[0].quant = Some(quant_of(call)?);
        }
        Ok(Value::Map(x))
    }
}

/// How a node's operands say that a map is stored.
fn quant_of(call: &Call<'_>) -> Result<Quant, String> {
    let Steps { scale, zero, data_type, .. } = Steps::of(call, &[])?;
    let ([scale], [zero]) = (&scale[..], &zero[..]) else {
        return Err("several scales for a map; one is read".into());
    };
    let zero_point = match data_type {
        proto::UINT8 => zero - 128.0,
        proto::INT8 => *zero,
        other => return Err(format!("stores values in {}; {REMEDY}", type_name(other))),
    };
    if !(-128.0..=127.0).contains(&zero_point) {
        return Err(format!("the zero point {zero}; 8 bits are read"));
    }
    let quant = Quant { scale: *scale, zero_point: zero_point as i8 };
    if quant.is_valid() { Ok(quant) } else { Err(format!("the scale {scale}")) }
}

/// Scales and zero points, one of all or one for each place along an axis.
struct Steps {
    scale: Vec<f32>,
    zero: Vec<f32>,
    /// Type of what is stored.
    data_type: i32,
    axis: usize,
    /// How many numbers of a place lie side by side.
    inner: usize,
}

impl Steps {
    /// Those of what has these dimensions.
    fn of(call: &Call<'_>, dims: &[usize]) -> Result<Self, String> {
        if call.int("block_size", 0) != 0 {
            return Err(format!("is quantized in blocks, which int8 has not; {REMEDY}"));
        }
        let scale = call.constant(1)?.to_floats();
        let zero = call.optional(2)?;
        let data_type = match zero {
            Some(zero) => zero.data_type,
            None => call.int("output_dtype", proto::UINT8.into()) as i32,
        };
        let zero = zero.map_or(vec![0.0], Constant::to_floats);
        if scale.is_empty() || (zero.len() != 1 && zero.len() != scale.len()) {
            return Err(format!("{} zero points for {} scales", zero.len(), scale.len()));
        }
        let axis = call.int("axis", 1);
        let axis = match (axis, dims.len()) {
            // One dimension leaves no choice, whatever is the default.
            (_, 1) => 0,
            (axis, rank) if axis < 0 => axis + rank as i64,
            (axis, _) => axis,
        };
        let axis = usize::try_from(axis).unwrap_or(usize::MAX);
        let one = scale.len() == 1 || dims.is_empty();
        if !one && dims.get(axis) != Some(&scale.len()) {
            return Err(format!("{} scales for a shape {dims:?}", scale.len()));
        }
        let inner = if one { usize::MAX } else { dims[axis + 1..].iter().product() };
        Ok(Self { scale, zero, data_type, axis: if one { 0 } else { axis }, inner: inner.max(1) })
    }

    /// Scale and zero point of number `i`.
    fn at(&self, i: usize) -> (f32, f32) {
        let place = i / self.inner % self.scale.len().max(1);
        (self.scale[place], self.zero[place.min(self.zero.len() - 1)])
    }
}

/// `x / scale + zero_point`, rounded to what is stored.
pub(super) fn quantized(call: &Call<'_>) -> Result<Constant, String> {
    let x = call.constant(0)?;
    let steps = Steps::of(call, &x.dims)?;
    let (low, high) = match steps.data_type {
        proto::UINT8 => (0.0, 255.0),
        proto::INT8 => (-128.0, 127.0),
        proto::UINT16 => (0.0, 65_535.0),
        proto::INT16 => (-32_768.0, 32_767.0),
        other => return Err(format!("stores values in {}; {REMEDY}", type_name(other))),
    };
    let quantize = |(i, v): (usize, f32)| {
        let (scale, zero) = steps.at(i);
        // What is no number becomes zero, as casts make it.
        ((v / scale).round_ties_even() + zero).clamp(low, high) as i64
    };
    let values = x.to_floats().into_iter().enumerate().map(quantize).collect();
    Ok(Constant {
        data_type: steps.data_type,
        ..Constant::new(x.dims.clone(), Values::Int(values))
    })
}

/// `(x − zero_point) · scale`.
pub(super) fn dequantized(call: &Call<'_>) -> Result<Constant, String> {
    let x = call.constant(0)?;
    let steps = Steps::of(call, &x.dims)?;
    // Weights of more than 8 bits are as good as floats.
    let is_int8 = matches!(x.data_type, proto::INT8 | proto::UINT8);
    let scales = if is_int8 { steps.scale.clone() } else { Vec::new() };
    let dequantize = |(i, v): (usize, f32)| {
        let (scale, zero) = steps.at(i);
        (v - zero) * scale
    };
    let values = x.to_floats().into_iter().enumerate().map(dequantize).collect();
    let values = Values::Float(values);
    Ok(Constant { scales, axis: steps.axis, ..Constant::new(x.dims.clone(), values) })
}
