//! Shapes that are made: how large they may be, and how they are stretched to fit others.

/// Most dimensions of a pub(super) constant.
pub(super) const MAX_RANK: usize = 8;
/// Most numbers of a pub(super) constant that is made of fewer.
pub(super) const MAX_NUMBERS: usize = 1 << 26;

/// The dimensions that all of these are broadcast to.
pub(super) fn broadcast(all: &[&[usize]]) -> Result<Vec<usize>, String> {
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
    let len = result.iter().try_fold(1usize, |len, &d| len.checked_mul(d));
    len.filter(|&len| len <= MAX_NUMBERS).ok_or_else(|| format!("makes {result:?}"))?;
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
