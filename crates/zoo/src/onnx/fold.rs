//! Operators on constants alone: what exporters leave to be computed of shapes, and of weights.

mod arrange;
mod broadcast;
mod compute;

use super::call::Call;
use super::constant::{Constant, Outside, Values};
use super::qdq::{dequantized, quantized};
use arrange::{concat, expand, filled, flatten, gather, slice, split, squeeze, unsqueeze};
use compute::{choice, computed, range, reduced};

/// What a node computes of constants; no more numbers than it has room for.
pub(super) fn folded(call: &Call<'_>) -> Result<Vec<Constant>, String> {
    let x = || call.constant(0);
    let one = match call.node.op_type.as_str() {
        "Constant" => constant(call)?,
        "ConstantOfShape" => filled(call)?,
        "Expand" => expand(call)?,
        "Identity" | "Dropout" => x()?.clone(),
        "Cast" => x()?.clone().cast(call.int("to", 0) as i32),
        "Transpose" => {
            let order = call.order(x()?.dims.len())?;
            x()?.transposed(&order).ok_or("an order that does not fit")?
        }
        "Reshape" => x()?.clone().reshaped(call.shape(&x()?.dims)?),
        "Flatten" => flatten(call)?,
        "Squeeze" => squeeze(call)?,
        "Unsqueeze" => unsqueeze(call)?,
        "Shape" => part_of_shape(call, x()?.dims.iter().map(|&d| d as i64).collect())?,
        "Size" => Constant::new(Vec::new(), Values::Int(vec![x()?.len() as i64])),
        "Gather" => gather(call)?,
        "Slice" => slice(call)?,
        "Split" => return split(call),
        "Concat" => concat(call)?,
        "Range" => range(call)?,
        "Where" => choice(call)?,
        "QuantizeLinear" => quantized(call)?,
        "DequantizeLinear" => dequantized(call)?,
        "ReduceMean" | "ReduceSum" | "ReduceProd" | "ReduceMax" | "ReduceMin" | "ReduceL2" => {
            reduced(call)?
        }
        _ => computed(call)?,
    };
    Ok(vec![one])
}

/// The dimensions that attributes `start` and `end` leave of a Shape.
pub(super) fn part_of_shape(call: &Call<'_>, dims: Vec<i64>) -> Result<Constant, String> {
    let len = dims.len() as i64;
    let at = |i: i64| (if i < 0 { i.saturating_add(len) } else { i }).clamp(0, len) as usize;
    let (start, end) = (at(call.int("start", 0)), at(call.int("end", len)));
    Ok(Constant::ints(dims.get(start..end).unwrap_or(&[]).to_vec()))
}

fn constant(call: &Call<'_>) -> Result<Constant, String> {
    let attribute = call.node.attribute.first();
    Ok(match attribute.map(|a| (a.name.as_str(), a)) {
        Some(("value", a)) => {
            Constant::read(a.t.as_ref().ok_or("without a value")?, &Outside::default())?
        }
        Some(("value_int", a)) => Constant::new(vec![], Values::Int(vec![a.i.unwrap_or_default()])),
        Some(("value_float", a)) => {
            Constant::new(vec![], Values::Float(vec![a.f.unwrap_or_default()]))
        }
        Some(("value_ints", a)) => Constant::ints(a.ints.clone()),
        Some(("value_floats", a)) => {
            Constant::new(vec![a.floats.len()], Values::Float(a.floats.clone()))
        }
        _ => return Err("a constant of a kind that is not read".into()),
    })
}
