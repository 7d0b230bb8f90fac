//! Shapes that are stretched to fit others.

use crate::onnx::constant::count;

/// The dimensions that all of these are broadcast to, of at most so many numbers.
pub(super) fn broadcast(all: &[&[usize]], most: usize) -> Result<Vec<usize>, String> {
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
pub(super) fn places<'a>(dims: &'a [usize], wide: &'a [usize]) -> impl Fn(usize) -> usize + 'a {
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
