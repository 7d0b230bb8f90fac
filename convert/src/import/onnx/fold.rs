//! Operators on constants alone.

use super::call::Call;
use super::constant::{Constant, Values};
use super::qdq::{dequantized, quantized};
use crate::onnx_proto as proto;

/// The product of the dimensions that are known.
pub(super) fn positive_product(dims: &[i64]) -> i64 {
    dims.iter().filter(|&&d| d > 0).fold(1, |product: i64, &d| product.saturating_mul(d))
}

/// An operator on constants alone.
pub(super) fn folded(call: &Call<'_>) -> Result<Constant, String> {
    let first = || call.constant(0).cloned();
    let index = |i: i64, len: usize| -> Result<usize, String> {
        let i = if i < 0 { i + len as i64 } else { i };
        usize::try_from(i).ok().filter(|&i| i < len).ok_or_else(|| format!("index {i} of {len}"))
    };
    let ints = |i: usize| -> Result<Vec<i64>, String> {
        let constant = call.constant(i)?;
        Ok(constant.to_ints().ok_or("a constant that is computed of no integers")?.to_vec())
    };
    Ok(match call.node.op_type.as_str() {
        "Constant" => {
            let whole = |a: &proto::Attribute| a.t.as_ref().map(|t| Constant::read(t, "".as_ref()));
            match call.node.attribute.first() {
                Some(a) if a.name == "value" => whole(a).ok_or("without a value")??,
                Some(a) if a.name == "value_int" => {
                    Constant::new(vec![], Values::Int(vec![a.i.unwrap_or_default()]))
                }
                Some(a) if a.name == "value_float" => {
                    Constant::new(vec![], Values::Float(vec![a.f.unwrap_or_default()]))
                }
                Some(a) if a.name == "value_ints" => Constant::ints(a.ints.clone()),
                Some(a) if a.name == "value_floats" => {
                    Constant::new(vec![a.floats.len()], Values::Float(a.floats.clone()))
                }
                _ => return Err("a constant of a kind that is not read".into()),
            }
        }
        "Identity" | "Dropout" => first()?,
        "Cast" => first()?.cast(call.int("to", 0) as i32),
        "Transpose" => {
            let constant = first()?;
            let order: Option<Vec<usize>> = match call.ints("perm") {
                Some(order) => order.iter().map(|&i| usize::try_from(i).ok()).collect(),
                None => Some((0..constant.dims.len()).rev().collect()),
            };
            order
                .and_then(|order| constant.transposed(&order))
                .ok_or("an order that does not fit")?
        }
        "Reshape" => {
            let constant = first()?;
            let len = constant.dims.iter().product::<usize>();
            let mut dims = ints(1)?;
            let known = positive_product(&dims);
            if let Some(open) = dims.iter_mut().find(|d| **d == -1) {
                *open = len as i64 / known.max(1);
            }
            let dims: Vec<usize> = dims.iter().map(|&d| usize::try_from(d).unwrap_or(0)).collect();
            if dims.iter().try_fold(1usize, |p, &d| p.checked_mul(d)) != Some(len) {
                return Err(format!("makes {dims:?} of {:?}", constant.dims));
            }
            constant.reshaped(dims)
        }
        "Shape" => Constant::ints(first()?.dims.iter().map(|&d| d as i64).collect()),
        "Gather" => {
            let (data, indices) = (ints(0)?, ints(1)?);
            let picked: Result<Vec<i64>, String> =
                indices.iter().map(|&i| Ok(data[index(i, data.len())?])).collect();
            Constant::new(call.constant(1)?.dims.clone(), Values::Int(picked?))
        }
        "Unsqueeze" | "Squeeze" => Constant::ints(ints(0)?),
        "Concat" => {
            let mut all = Vec::new();
            for i in 0..call.operands.len() {
                all.extend(ints(i)?);
            }
            Constant::ints(all)
        }
        "Slice" => {
            let data = ints(0)?;
            let [start, end] = [("starts", 1), ("ends", 2)].map(|(name, i)| call.numbers(name, i));
            let (start, end) = (start?.ok_or("without starts")?, end?.ok_or("without ends")?);
            let clamp = |i: i64| {
                let len = data.len() as i64;
                (if i < 0 { i + len } else { i }).clamp(0, len) as usize
            };
            let one = |ends: &[i64]| ends.first().map_or(0, |&i| clamp(i));
            let (start, end) = (one(&start), one(&end));
            Constant::ints(data.get(start..end).unwrap_or(&[]).to_vec())
        }
        "QuantizeLinear" => quantized(call)?,
        "DequantizeLinear" => dequantized(call)?,
        _ => return Err("computes with constants in a way that is not read".into()),
    })
}
