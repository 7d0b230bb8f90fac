//! What only gives numbers other dimensions, repeats them, or picks some of them.

use super::broadcast::{broadcast, places};
use crate::onnx::call::{Call, place};
use crate::onnx::constant::{Constant, MAX_RANK, Outside, Values, count};
use crate::onnx::shapes::{part_lens, ranges};

/// Dimensions of something that is made.
fn sizes(dims: &[i64], most: usize) -> Result<Vec<usize>, String> {
    let wrong = || format!("makes {dims:?}, which is negative or too large");
    let sizes: Option<Vec<usize>> = dims.iter().map(|&d| usize::try_from(d).ok()).collect();
    let sizes = sizes.filter(|sizes| sizes.len() <= MAX_RANK).ok_or_else(wrong)?;
    count(&sizes, most).ok_or_else(wrong)?;
    Ok(sizes)
}

/// One number as often as the first operand says.
pub(super) fn filled(call: &Call<'_>) -> Result<Constant, String> {
    let value = match call.attribute("value").and_then(|a| a.t.as_ref()) {
        Some(tensor) => Constant::read(tensor, &Outside::default())?,
        None => Constant::new(vec![1], Values::Float(vec![0.0])),
    };
    if value.len() != 1 {
        return Err(format!("{} numbers for one value", value.len()));
    }
    let value = Constant { dims: Vec::new(), ..value };
    expanded(&value, &sizes(call.constant_ints(0)?, call.room)?, call.room)
}

/// As many numbers as both dimensions have places.
pub(super) fn expand(call: &Call<'_>) -> Result<Constant, String> {
    expanded(call.constant(0)?, &sizes(call.constant_ints(1)?, call.room)?, call.room)
}

/// As many numbers as `dims` has places.
fn expanded(x: &Constant, dims: &[usize], most: usize) -> Result<Constant, String> {
    let dims = broadcast(&[&x.dims, dims], most)?;
    let values = x.values.picked((0..dims.iter().product()).map(places(&x.dims, &dims)));
    Ok(Constant::new(dims, values))
}

pub(super) fn flatten(call: &Call<'_>) -> Result<Constant, String> {
    let x = call.constant(0)?;
    let (dims, axis) = (&x.dims, call.int("axis", 1));
    let axis = place(axis, dims.len() + 1).or_else(|_| place(axis, dims.len()))?;
    let (rows, columns) = dims.split_at(axis);
    Ok(x.clone().reshaped(vec![rows.iter().product(), columns.iter().product()]))
}

pub(super) fn squeeze(call: &Call<'_>) -> Result<Constant, String> {
    let x = call.constant(0)?;
    let dims = &x.dims;
    let axes = call.axes("axes", 1, dims.len())?;
    let is_left = |i: usize| axes.as_ref().map_or(dims[i] != 1, |axes| !axes.contains(&i));
    let kept: Vec<usize> = (0..dims.len()).filter(|&i| is_left(i)).map(|i| dims[i]).collect();
    if kept.iter().product::<usize>() != x.len() {
        return Err(format!("leaves away dimensions of {dims:?} that are not one"));
    }
    Ok(x.clone().reshaped(kept))
}

pub(super) fn unsqueeze(call: &Call<'_>) -> Result<Constant, String> {
    let count = call.numbers("axes", 1)?.ok_or("without axes")?.len();
    let x = call.constant(0)?;
    let mut dims = x.dims.clone();
    let rank = dims.len() + count;
    if rank > MAX_RANK {
        return Err(format!("makes {rank} dimensions"));
    }
    for axis in call.axes("axes", 1, rank)?.unwrap_or_default() {
        dims.insert(axis.min(dims.len()), 1);
    }
    Ok(x.clone().reshaped(dims))
}

pub(super) fn gather(call: &Call<'_>) -> Result<Constant, String> {
    let x = call.constant(0)?;
    let axis = call.axis("axis", 0, x.dims.len())?;
    let indices = call.constant(1)?;
    let picked: Result<Vec<usize>, String> =
        call.constant_ints(1)?.iter().map(|&i| place(i, x.dims[axis])).collect();
    let mut picked = picked_along(x, axis, &picked?, call.room)?;
    picked.dims.splice(axis..=axis, indices.dims.iter().copied());
    Ok(picked)
}

pub(super) fn slice(call: &Call<'_>) -> Result<Constant, String> {
    let mut sliced = call.constant(0)?.clone();
    for range in ranges(call, &call.constant(0)?.dims)? {
        let at = |i: i64| (range.start + range.step * i) as usize;
        let picked: Vec<usize> = (0..range.count as i64).map(at).collect();
        sliced = picked_along(&sliced, range.axis, &picked, call.room)?;
    }
    Ok(sliced)
}

pub(super) fn split(call: &Call<'_>) -> Result<Vec<Constant>, String> {
    let x = call.constant(0)?;
    let axis = call.axis("axis", 0, x.dims.len())?;
    let mut start = 0;
    let part = |len: usize| {
        let picked: Vec<usize> = (start..start + len).collect();
        start += len;
        picked_along(x, axis, &picked, call.room)
    };
    part_lens(call, x.dims[axis])?.into_iter().map(part).collect()
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
    let row = |o: usize, i: usize| (o * count + i) * inner..(o * count + i + 1) * inner;
    let places = (0..outer).flat_map(|o| picked.iter().flat_map(move |&i| row(o, i)));
    Ok(Constant::new(dims, x.values.picked(places)))
}

pub(super) fn concat(call: &Call<'_>) -> Result<Constant, String> {
    let parts: Result<Vec<&Constant>, String> =
        (0..call.operands.len()).map(|i| call.constant(i)).collect();
    let parts = parts?;
    let axis = call.axis("axis", 0, call.constant(0)?.dims.len())?;
    let mut dims = parts[0].dims.clone();
    let fits = |part: &&Constant| {
        part.dims.len() == dims.len()
            && (0..dims.len()).all(|i| i == axis || part.dims[i] == dims[i])
    };
    if !parts.iter().all(fits) {
        return Err("joins shapes that do not fit".into());
    }
    dims[axis] = parts.iter().fold(0, |sum, part| part.dims[axis].saturating_add(sum));
    count(&dims, call.room)
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
