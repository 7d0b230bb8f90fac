//! What every way to compute a convolution reads and writes.

use super::{Context, float_bounds};
use crate::kernels::conv::{Conv, ResidualSource};
use crate::kernels::{Finish, Number};
use artifact::params::ParamsForm;
use artifact::scale::{Rounded, residual_ratio};
use artifact::{Conv2d, Grouped, Span};
use core::ops::Range;

/// A convolution's operands in the arena.
pub(super) struct Operands<'a, E> {
    pub(super) x: &'a [E],
    pub(super) residual: ResidualSource<'a, E>,
    pub(super) scratch: &'a mut [u8],
    pub(super) out: &'a mut [u8],
}

/// Borrows them. The reader proved that they are disjoint and in bounds; `None` would be its bug.
pub(super) fn operands<'a, E: Number>(
    cx: &Context<'_>,
    op: &Conv2d,
    arena: &'a mut [u8],
) -> Option<Operands<'a, E>> {
    let residual = op.residual.map(|r| cx.range(r.input));
    borrow(arena, op.scratch, [cx.range(op.input), cx.range(op.output)], residual)
}

/// As [`operands`], in ranges of the arena.
pub(super) fn borrow<E: Number>(
    arena: &mut [u8],
    scratch: Option<Span>,
    [input, output]: [Range<usize>; 2],
    residual: Option<Range<usize>>,
) -> Option<Operands<'_, E>> {
    let scratch = scratch.map_or(0..0, |s| {
        let start = s.offset as usize;
        start..start + s.len as usize
    });
    let (x, residual, scratch, out) = match residual {
        Some(r) if r != output && r != input => {
            let ranges = [input, r, scratch, output];
            let [x, r, scratch, out] = arena.get_disjoint_mut(ranges).ok()?;
            (&*x, ResidualSource::Other(bytemuck::cast_slice(r)), scratch, out)
        }
        residual => {
            let is_in_place = residual.as_ref() == Some(&output);
            let [x, scratch, out] = arena.get_disjoint_mut([input, scratch, output]).ok()?;
            let x = &*x;
            let residual = match residual {
                None => ResidualSource::None,
                Some(_) if is_in_place => ResidualSource::InPlace,
                Some(_) => ResidualSource::Other(bytemuck::cast_slice(x)),
            };
            (x, residual, scratch, out)
        }
    };
    Some(Operands { x: bytemuck::cast_slice(x), residual, scratch, out })
}

/// A convolution as kernels of panels of NR take it.
pub(super) fn conv<'a, E: Number, W: bytemuck::Pod, const NR: usize>(
    cx: &Context<'a>,
    &Grouped { groups, conv: ref op }: &Grouped,
    x: &'a [E],
    residual: ResidualSource<'a, E>,
) -> Conv<'a, E, W> {
    let dtype = cx.dtype(op.output);
    let [low, high] = op.clamp.bytes(op.output.quant);
    let zero_point = i32::from(op.output.quant.zero_point);
    let params_form = op.params_form(NR, dtype).unwrap_or(ParamsForm::Planes);
    let mut params: &[E::Param] = bytemuck::cast_slice(cx.artifact.span(op.params));
    let mut rounded = None;
    if NR == 16
        && params_form == ParamsForm::RoundedScales
        && let Some((planes, rest)) = params.split_last_chunk::<2>()
    {
        (params, rounded) = (planes, Rounded::read(bytemuck::cast(*rest)));
    }
    Conv {
        x,
        input: op.input.shape,
        output: op.output.shape,
        filter: op.filter_layout(groups, NR, dtype),
        groups: op.groups(groups, NR, dtype),
        stride: op.stride,
        padding: op.padding,
        pairs_fit: op.pairs_fit,
        weights: bytemuck::cast_slice(cx.artifact.span(op.weights)),
        params,
        params_form,
        residual,
        finish: Finish {
            zero_point,
            low: low.into(),
            high,
            bounds: float_bounds(op.clamp),
            residual_zero_point: op.residual.map_or(0, |r| r.input.quant.zero_point.into()),
            residual_shift: op.residual.map_or(0, |r| r.shift.into()),
            residual_ratio: op.residual.map_or(0.0, |r| match NR {
                // Microcontrollers, which may have no floats, have no such rule.
                16 => residual_ratio(r.input.quant, op.output.quant),
                _ => 0.0,
            }),
            rounded,
        },
    }
}
