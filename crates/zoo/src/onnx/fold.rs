//! Operators on constants alone: what exporters leave to be computed of shapes, and of weights.

use super::call::{Call, place};
use super::constant::{Constant, MAX_RANK, Outside, Values, count};
use super::qdq::{dequantized, quantized};
use super::shapes::{part_lens, ranges};

/// What a node computes of constants; no more numbers than it has room for.
pub(super) fn folded(call: &Call<'_>) -> Result<Vec<Constant>, String> {
    let x = || call.constant(0);
    let operator = call.node.op_type.as_str();
    let one = match operator {
        "Constant" => constant(call)?,
        "ConstantOfShape" => {
            let value = match call.attribute("value").and_then(|a| a.t.as_ref()) {
                Some(tensor) => Constant::read(tensor, &Outside::default())?,
                None => Constant::new(vec![1], Values::Float(vec![0.0])),
            };
            if value.len() != 1 {
                return Err(format!("{} numbers for one value", value.len()));
            }
            let value = Constant { dims: Vec::new(), ..value };
            expanded(&value, &sizes(&ints(call, 0)?, call.room)?, call.room)?
        }
        "Expand" => expanded(x()?, &sizes(&ints(call, 1)?, call.room)?, call.room)?,
        "Identity" | "Dropout" => x()?.clone(),
        "Cast" => x()?.clone().cast(call.int("to", 0) as i32),
        "Transpose" => {
            let order = call.order(x()?.dims.len())?;
            x()?.transposed(&order).ok_or("an order that does not fit")?
        }
        "Reshape" => x()?.clone().reshaped(call.shape(&x()?.dims)?),
        "Flatten" => {
            let dims = &x()?.dims;
            let axis = call.int("axis", 1);
            let axis = place(axis, dims.len() + 1).or_else(|_| place(axis, dims.len()))?;
            let (rows, columns) = dims.split_at(axis);
            x()?.clone().reshaped(vec![rows.iter().product(), columns.iter().product()])
        }
        "Squeeze" => {
            let dims = &x()?.dims;
            let axes = call.axes("axes", 1, dims.len())?;
            let is_left = |i: usize| axes.as_ref().map_or(dims[i] != 1, |axes| !axes.contains(&i));
            let kept: Vec<usize> =
                (0..dims.len()).filter(|&i| is_left(i)).map(|i| dims[i]).collect();
            if kept.iter().product::<usize>() != x()?.len() {
                return Err(format!("leaves away dimensions of {dims:?} that are not one"));
            }
            x()?.clone().reshaped(kept)
        }
        "Unsqueeze" => {
            let count = call.numbers("axes", 1)?.ok_or("without axes")?.len();
            let mut dims = x()?.dims.clone();
            let rank = dims.len() + count;
            if rank > MAX_RANK {
                return Err(format!("makes {rank} dimensions"));
            }
            for axis in call.axes("axes", 1, rank)?.unwrap_or_default() {
                dims.insert(axis.min(dims.len()), 1);
            }
            x()?.clone().reshaped(dims)
        }
        "Shape" => part_of_shape(call, x()?.dims.iter().map(|&d| d as i64).collect())?,
        "Size" => Constant::new(Vec::new(), Values::Int(vec![x()?.len() as i64])),
        "Gather" => {
            let axis = call.axis("axis", 0, x()?.dims.len())?;
            let indices = call.constant(1)?;
            let len = x()?.dims[axis];
            let picked: Result<Vec<usize>, String> =
                ints(call, 1)?.iter().map(|&i| place(i, len)).collect();
            let mut picked = picked_along(x()?, axis, &picked?, call.room)?;
            picked.dims.splice(axis..=axis, indices.dims.iter().copied());
            picked
        }
        "Slice" => {
            let mut sliced = x()?.clone();
            for range in ranges(call, &x()?.dims)? {
                let at = |i: i64| (range.start + range.step * i) as usize;
                let picked: Vec<usize> = (0..range.count as i64).map(at).collect();
                sliced = picked_along(&sliced, range.axis, &picked, call.room)?;
            }
            sliced
        }
        "Split" => {
            let axis = call.axis("axis", 0, x()?.dims.len())?;
            let mut start = 0;
            let part = |len: usize| {
                let picked: Vec<usize> = (start..start + len).collect();
                start += len;
                picked_along(x()?, axis, &picked, call.room)
            };
            return part_lens(call, x()?.dims[axis])?.into_iter().map(part).collect();
        }
        "Concat" => {
            let parts: Result<Vec<&Constant>, String> =
                (0..call.operands.len()).map(|i| call.constant(i)).collect();
            concat(&parts?, call.axis("axis", 0, x()?.dims.len())?, call.room)?
        }
        "Range" => range(call)?,
        "Where" => {
            let condition = x()?.to_floats();
            let (a, b) = (call.constant(1)?, call.constant(2)?);
            let dims = broadcast(&[&x()?.dims, &a.dims, &b.dims], call.room)?;
            let (at, of_a, of_b) =
                (places(&x()?.dims, &dims), places(&a.dims, &dims), places(&b.dims, &dims));
            let len: usize = dims.iter().product();
            let from_a = |i: &usize| condition[at(*i)] != 0.0;
            match (&a.values, &b.values) {
                (Values::Int(a), Values::Int(b)) => {
                    let pick = |i| if from_a(&i) { a[of_a(i)] } else { b[of_b(i)] };
                    Constant::new(dims.clone(), Values::Int((0..len).map(pick).collect()))
                }
                _ => {
                    let (a, b) = (a.to_floats(), b.to_floats());
                    let pick = |i| if from_a(&i) { a[of_a(i)] } else { b[of_b(i)] };
                    Constant::new(dims.clone(), Values::Float((0..len).map(pick).collect()))
                }
            }
        }
        "QuantizeLinear" => quantized(call)?,
        "DequantizeLinear" => dequantized(call)?,
        "ReduceMean" | "ReduceSum" | "ReduceProd" | "ReduceMax" | "ReduceMin" | "ReduceL2" => {
            reduced(call)?
        }
        _ => match (one_operand(operator), call.operands.len()) {
            (Some(compute), 1) => x()?.like(x()?.dims.clone(), x()?.numbers().map(compute)),
            _ => two_operands(call)?,
        },
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

fn ints(call: &Call<'_>, i: usize) -> Result<Vec<i64>, String> {
    let constant = call.constant(i)?;
    Ok(constant.to_ints().ok_or("a constant that is computed of no integers")?.to_vec())
}

/// Dimensions of something that is made.
fn sizes(dims: &[i64], most: usize) -> Result<Vec<usize>, String> {
    let wrong =
        || format!("makes {dims:?}, which is negative or far more numbers than the file has");
    let sizes: Option<Vec<usize>> = dims.iter().map(|&d| usize::try_from(d).ok()).collect();
    let sizes = sizes.filter(|sizes| sizes.len() <= MAX_RANK).ok_or_else(wrong)?;
    count(&sizes, most).ok_or_else(wrong)?;
    Ok(sizes)
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

/// The dimensions that all of these are broadcast to, of at most so many numbers.
fn broadcast(all: &[&[usize]], most: usize) -> Result<Vec<usize>, String> {
    let rank = all.iter().map(|dims| dims.len()).max().unwrap_or(0);
    let mut result = vec![1; rank];
    for dims in all {
        for (wide, &d) in result[rank - dims.len()..].iter_mut().zip(*dims) {
            match (*wide, d) {
                (_, 1) => {}
                (1, d) => *wide = d,
                (a, b) if a == b => {}
                _ => return Err(format!("shapes {all:?} that do not fit")),
            }
        }
    }
    count(&result, most)
        .ok_or_else(|| format!("makes {result:?}, far more numbers than the file has"))?;
    Ok(result)
}

/// From a place in an array of dimensions `wide` to that in one of dimensions `dims`, which is
/// broadcast.
fn places<'a>(dims: &'a [usize], wide: &'a [usize]) -> impl Fn(usize) -> usize + 'a {
    let more = wide.len() - dims.len();
    move |mut i| {
        let (mut place, mut stride) = (0, 1);
        for (axis, &len) in wide.iter().enumerate().rev() {
            if let Some(at) = axis.checked_sub(more) {
                if dims[at] > 1 {
                    place += i % len * stride;
                }
                stride *= dims[at];
            }
            i /= len.max(1);
        }
        place
    }
}

/// As many numbers as `dims` has places.
fn expanded(x: &Constant, dims: &[usize], most: usize) -> Result<Constant, String> {
    let dims = broadcast(&[&x.dims, dims], most)?;
    let (len, at) = (dims.iter().product(), places(&x.dims, &dims));
    let values = match &x.values {
        Values::Float(v) => Values::Float((0..len).map(|i| v[at(i)]).collect()),
        Values::Int(v) => Values::Int((0..len).map(|i| v[at(i)]).collect()),
    };
    drop(at);
    Ok(Constant::new(dims, values))
}

/// The places `picked` of a dimension.
fn picked_along(
    x: &Constant,
    axis: usize,
    picked: &[usize],
    most: usize,
) -> Result<Constant, String> {
    let mut dims = x.dims.clone();
    dims[axis] = picked.len();
    count(&dims, most).ok_or_else(|| {
        format!("picks {} of {:?}, far more numbers than the file has", picked.len(), x.dims)
    })?;
    let inner: usize = x.dims[axis + 1..].iter().product();
    let (outer, count) = (x.dims[..axis].iter().product::<usize>(), x.dims[axis]);
    fn copied<T: Copy>(
        from: &[T],
        (outer, count, inner): (usize, usize, usize),
        at: &[usize],
    ) -> Vec<T> {
        let place = |o: usize, i: usize| (o * count + i) * inner;
        (0..outer)
            .flat_map(|o| at.iter().flat_map(move |&i| &from[place(o, i)..place(o, i) + inner]))
            .copied()
            .collect()
    }
    let sizes = (outer, count, inner);
    let values = match &x.values {
        Values::Float(v) => Values::Float(copied(v, sizes, picked)),
        Values::Int(v) => Values::Int(copied(v, sizes, picked)),
    };
    Ok(Constant::new(dims, values))
}

fn concat(parts: &[&Constant], axis: usize, most: usize) -> Result<Constant, String> {
    let mut dims = parts[0].dims.clone();
    let fits = |part: &&Constant| {
        part.dims.len() == dims.len()
            && (0..dims.len()).all(|i| i == axis || part.dims[i] == dims[i])
    };
    if !parts.iter().all(fits) {
        return Err("joins shapes that do not fit".into());
    }
    dims[axis] = parts.iter().fold(0, |sum, part| part.dims[axis].saturating_add(sum));
    count(&dims, most)
        .ok_or_else(|| format!("makes {dims:?}, far more numbers than the file has"))?;
    let outer: usize = dims[..axis].iter().product();
    let chunk = |part: &Constant| part.dims[axis..].iter().product::<usize>();
    let values = if parts.iter().all(|part| part.to_ints().is_some()) {
        let rows = (0..outer).flat_map(|o| {
            parts.iter().flat_map(move |part| {
                part.to_ints().into_iter().flatten().skip(o * chunk(part)).take(chunk(part))
            })
        });
        Values::Int(rows.copied().collect())
    } else {
        let floats: Vec<Vec<f32>> = parts.iter().map(|part| part.to_floats()).collect();
        let rows = (0..outer).flat_map(|o| {
            parts.iter().zip(&floats).flat_map(move |(part, values)| {
                values.iter().skip(o * chunk(part)).take(chunk(part))
            })
        });
        Values::Float(rows.copied().collect())
    };
    Ok(Constant::new(dims, values))
}

fn range(call: &Call<'_>) -> Result<Constant, String> {
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

fn reduced(call: &Call<'_>) -> Result<Constant, String> {
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
