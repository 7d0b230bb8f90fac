//! What computes other numbers.

use super::broadcast::{broadcast, places};
use crate::onnx::call::Call;
use crate::onnx::constant::{Constant, Values, count};

/// Of each two numbers the one that the first operand chooses.
pub(super) fn choice(call: &Call<'_>) -> Result<Constant, String> {
    let (x, a, b) = (call.constant(0)?, call.constant(1)?, call.constant(2)?);
    let condition = x.to_floats();
    let dims = broadcast(&[&x.dims, &a.dims, &b.dims], call.room)?;
    let (at, of_a, of_b) = (places(&x.dims, &dims), places(&a.dims, &dims), places(&b.dims, &dims));
    let len: usize = dims.iter().product();
    let from_a = |i: &usize| condition[at(*i)] != 0.0;
    let values = match (&a.values, &b.values) {
        (Values::Int(a), Values::Int(b)) => {
            let pick = |i| if from_a(&i) { a[of_a(i)] } else { b[of_b(i)] };
            Values::Int((0..len).map(pick).collect())
        }
        _ => {
            let (a, b) = (a.to_floats(), b.to_floats());
            let pick = |i| if from_a(&i) { a[of_a(i)] } else { b[of_b(i)] };
            Values::Float((0..len).map(pick).collect())
        }
    };
    Ok(Constant::new(dims.clone(), values))
}

pub(super) fn range(call: &Call<'_>) -> Result<Constant, String> {
    let number = |i: usize| -> Result<f64, String> {
        call.constant(i)?.numbers().next().ok_or_else(|| "a range of nothing".into())
    };
    let (start, limit, step) = (number(0)?, number(1)?, number(2)?);
    let count = ((limit - start) / step).ceil().max(0.0);
    if count.is_nan() || count > call.room as f64 {
        return Err(format!("a range from {start} to {limit} by {step}"));
    }
    let count = count as usize;
    let values = (0..count).map(|i| start + step * i as f64);
    Ok(call.constant(0)?.like(vec![count], values))
}

pub(super) fn reduced(call: &Call<'_>) -> Result<Constant, String> {
    let x = call.constant(0)?;
    let axes = call.axes("axes", 1, x.dims.len())?;
    let axes = match axes {
        Some(axes) if !axes.is_empty() => axes,
        _ if call.int("noop_with_empty_axes", 0) != 0 => return Ok(x.clone()),
        _ => (0..x.dims.len()).collect(),
    };
    let kept: Vec<usize> =
        (x.dims.iter().enumerate()).map(|(i, &d)| if axes.contains(&i) { 1 } else { d }).collect();
    // Of nothing, too, there is a sum.
    let len = count(&kept, call.room).ok_or_else(|| format!("makes {kept:?}"))?;
    let count = (x.len() / len.max(1)) as f64;
    let operator = call.node.op_type.as_str();
    let start = match operator {
        "ReduceProd" => 1.0,
        "ReduceMax" => f64::NEG_INFINITY,
        "ReduceMin" => f64::INFINITY,
        _ => 0.0,
    };
    let mut result = vec![start; len];
    let at = places(&kept, &x.dims);
    for (i, value) in x.numbers().enumerate() {
        let sum = &mut result[at(i)];
        *sum = match operator {
            "ReduceProd" => *sum * value,
            "ReduceMax" => sum.max(value),
            "ReduceMin" => sum.min(value),
            "ReduceL2" => *sum + value * value,
            _ => *sum + value,
        };
    }
    drop(at);
    for value in &mut result {
        match operator {
            "ReduceMean" => *value /= count,
            "ReduceL2" => *value = value.sqrt(),
            _ => {}
        }
    }
    let dims = match call.int("keepdims", 1) {
        0 => (0..kept.len()).filter(|i| !axes.contains(i)).map(|i| kept[i]).collect(),
        _ => kept,
    };
    Ok(x.like(dims, result.into_iter()))
}

/// An operator on each number, or on each two.
pub(super) fn computed(call: &Call<'_>) -> Result<Constant, String> {
    match (one_operand(&call.node.op_type), call.operands.len()) {
        (Some(compute), 1) => {
            let x = call.constant(0)?;
            Ok(x.like(x.dims.clone(), x.numbers().map(compute)))
        }
        _ => two_operands(call),
    }
}

/// Operators on each number.
fn one_operand(operator: &str) -> Option<fn(f64) -> f64> {
    Some(match operator {
        "Neg" => |x| -x,
        "Abs" => f64::abs,
        "Sqrt" => f64::sqrt,
        "Floor" => f64::floor,
        "Ceil" => f64::ceil,
        "Reciprocal" => |x| 1.0 / x,
        "Exp" => f64::exp,
        "Log" => f64::ln,
        "Not" => |x| f64::from(x == 0.0),
        _ => return None,
    })
}

/// Operators on each two numbers.
fn two_operands(call: &Call<'_>) -> Result<Constant, String> {
    let operator = call.node.op_type.as_str();
    let bool = |holds: bool| f64::from(holds);
    let (a, b) = (call.constant(0), call.constant(1));
    let are_ints = [&a, &b].iter().all(|c| c.as_ref().is_ok_and(|c| c.to_ints().is_some()));
    let compute = |a: f64, b: f64| -> Option<f64> {
        Some(match operator {
            "Add" | "Sum" => a + b,
            "Sub" => a - b,
            "Mul" => a * b,
            "Div" if are_ints => (a / b).trunc(),
            "Div" => a / b,
            "Mod" => a - b * (a / b).floor(),
            "Pow" => a.powf(b),
            "Min" => a.min(b),
            "Max" => a.max(b),
            "Equal" => bool(a == b),
            "Less" => bool(a < b),
            "LessOrEqual" => bool(a <= b),
            "Greater" => bool(a > b),
            "GreaterOrEqual" => bool(a >= b),
            "And" => bool(a != 0.0 && b != 0.0),
            "Or" => bool(a != 0.0 || b != 0.0),
            _ => return None,
        })
    };
    if compute(1.0, 1.0).is_none() || call.operands.len() != 2 {
        return Err("computes with constants in a way that is not read".into());
    }
    let (a, b) = (a?, b?);
    let dims = broadcast(&[&a.dims, &b.dims], call.room)?;
    let len: usize = dims.iter().product();
    let (of_a, of_b) = (places(&a.dims, &dims), places(&b.dims, &dims));
    let value = |i| compute(a.number(of_a(i)), b.number(of_b(i))).unwrap_or(f64::NAN);
    let values = (0..len).map(value);
    let truth = matches!(
        operator,
        "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" | "And" | "Or"
    );
    if truth {
        let values = Values::Int(values.map(|v| v as i64).collect());
        return Ok(Constant::new(dims.clone(), values));
    }
    let like = if are_ints || a.to_ints().is_none() { a } else { b };
    Ok(like.like(dims.clone(), values))
}
