//! Int8 convolutions on microcontrollers: three windows at a time, copied into a column.
//!
//! Registers are few there, and multiply instructions take pairs of 16 bits. So windows are widened
//! once for all outputs, three side by side, and two outputs of the three are computed at a time,
//! see [`crate::kernels::columns`]. Copying also pads, so that maps need no pad pixel and rows of
//! one may be taken for a map.

use super::operands::{Operands, borrow, conv};
use super::{Context, planes};
use crate::kernels::columns::{dot, fill, widen};
use crate::kernels::conv::{Conv, ResidualSource};
#[cfg(edge_dsp)]
use crate::kernels::dsp;
use crate::kernels::pairs::{GROUP, NR, Pair, Sums};
use crate::kernels::{Finish, lift_residual, limit, requantize};
use artifact::layout::{KR_I8, MAX_PACKED_ROW, WINDOWS, window_start};
use artifact::params::ChannelParams;
#[cfg(edge_dsp)]
use artifact::params::{ParamsForm, shorten_into};
use artifact::stripes::{input_rows, turns};
use artifact::{Conv2d, Grouped, Place};
use core::ops::Range;

/// Runs one convolution on the arena.
#[inline(never)]
pub(super) fn run(cx: &Context<'_>, op: &Grouped, arena: &mut [u8]) {
    let Conv2d { input, output, residual, .. } = op.conv;
    let residual = residual.map(|r| Lines::whole(r.input));
    let all = 0..usize::from(output.shape.h);
    rows(cx, op, all, [Lines::whole(input), Lines::whole(output)], residual, arena);
}

/// Runs convolutions that take turns, see [`artifact::stripes`]: those that wait, and the last.
pub(crate) fn run_turns(
    cx: &Context<'_>,
    waiting: [Option<Grouped>; 2],
    last: &Grouped,
    arena: &mut [u8],
) {
    let is_first = |op: &Grouped| op.conv.output == last.conv.input;
    let (first, shortcut) = match waiting {
        [Some(a), b] if is_first(&a) => (a, b),
        [b, Some(a)] => (a, b),
        // The reader lets nothing else through.
        _ => return,
    };
    let input = Lines::whole(first.conv.input);
    let line = Lines::len(first.conv.output);
    for turn in turns(&first.conv, &last.conv) {
        let start = first.conv.output.offset as usize;
        // A line at a time, which overlaps no other: `copy_within` is another 1.5 KiB of flash.
        for to in (0..turn.kept).map(|i| start + i * line) {
            let from = to + turn.moved * line;
            if let Ok([from, to]) = arena.get_disjoint_mut([from..from + line, to..to + line]) {
                to.copy_from_slice(from);
            }
        }
        let between = Lines { place: first.conv.output, first: turn.lines.start };
        let new = turn.lines.start + turn.kept..turn.lines.end;
        rows(cx, &first, new, [input, between], None, arena);
        let mut residual = last.conv.residual.map(|r| Lines::whole(r.input));
        if let Some(shortcut) = &shortcut {
            let added = Lines { place: shortcut.conv.output, first: turn.rows.start };
            rows(cx, shortcut, turn.rows.clone(), [input, added], None, arena);
            residual = Some(added);
        }
        rows(cx, last, turn.rows, [between, Lines::whole(last.conv.output)], residual, arena);
    }
}

/// A map of which the arena holds the lines from `first` on.
#[derive(Clone, Copy)]
struct Lines {
    place: Place,
    first: usize,
}

impl Lines {
    fn whole(place: Place) -> Self {
        Self { place, first: 0 }
    }

    /// Bytes of a line.
    fn len(place: Place) -> usize {
        usize::from(place.shape.w) * usize::from(place.shape.c)
    }

    /// Where `rows` lie.
    fn range(self, rows: &Range<usize>) -> Range<usize> {
        let (start, line) = (self.place.offset as usize, Self::len(self.place));
        start + (rows.start - self.first) * line..start + (rows.end - self.first) * line
    }
}

/// Computes `rows` of a convolution's output. Once in the program, which saves flash.
#[inline(never)]
fn rows(
    cx: &Context<'_>,
    grouped: &Grouped,
    rows: Range<usize>,
    [input, output]: [Lines; 2],
    residual: Option<Lines>,
    arena: &mut [u8],
) {
    if rows.is_empty() {
        return;
    }
    let op = &grouped.conv;
    let read = input_rows(op, &rows);
    let ranges = [input.range(&read), output.range(&rows)];
    let residual = residual.map(|r| r.range(&rows));
    let Some(Operands { x, residual, scratch, out }) =
        borrow::<i8>(arena, op.scratch, ranges, residual)
    else {
        return;
    };
    let mut conv = conv::<i8, i8, NR>(cx, grouped, x, residual);
    // The rows that are read are its map now; above them, only the first has padding.
    conv.padding.top =
        (read.start + usize::from(op.padding.top) - rows.start * usize::from(op.stride[0])) as u8;
    (conv.input.h, conv.output.h) = (read.len() as u16, rows.len() as u16);
    let (pad, out) = (op.input.quant.zero_point, bytemuck::cast_slice_mut(out));
    let scratch: &mut [Pair] = bytemuck::cast_slice_mut(scratch);
    if grouped.is_depthwise() {
        // Planes are read by twos.
        planes::rows(&conv, pad, op.planes(), bytemuck::cast_slice_mut(scratch), out);
    } else if grouped.groups > 1 {
        for panel in 0..usize::from(op.output.shape.c).div_ceil(NR) {
            grouped_pixels(&conv, panel, pad, scratch, out);
        }
    } else {
        pixels(&conv, pad, scratch, out);
    }
    limit(out, conv.finish.high, 0);
}

/// What belongs to a channel.
#[inline(always)]
pub(super) fn channel_params(conv: &Conv<'_, i8, i8>, channel: usize) -> ChannelParams {
    let residual = !matches!(conv.residual, ResidualSource::None);
    conv.params_form.channel(NR, channel, residual, |i| conv.params[i])
}

/// Computes a panel of a map whose channels fall into groups.
fn grouped_pixels(
    conv: &Conv<'_, i8, i8>,
    panel: usize,
    pad: i8,
    column: &mut [Pair],
    out: &mut [i8],
) {
    let (w, c) = (usize::from(conv.output.w), usize::from(conv.output.c));
    let part = panel * NR..c.min((panel + 1) * NR);
    let windows = Windows::new(conv, panel, pad);
    for (i, out) in out.chunks_mut(c).enumerate() {
        // One pixel at a time: other windows stay as they were.
        windows.copy([i / w, i % w], 0, column);
        outputs(conv, part.clone(), column, out, conv.residual.skip(i * c));
    }
}

/// Computes a map, or rows that are taken for one.
fn pixels(conv: &Conv<'_, i8, i8>, pad: i8, column: &mut [Pair], out: &mut [i8]) {
    let windows = Windows::new(conv, 0, pad);
    let all = 0..usize::from(conv.output.c);
    #[cfg(edge_dsp)]
    {
        match conv.params_form {
            ParamsForm::Short(_) => part_pixels(&windows, all, conv.params, column, out),
            _ => shortened_pixels(&windows, column, out),
        }
        raise(out, conv.finish.low);
    }
    #[cfg(not(edge_dsp))]
    plain_pixels(&windows, all, column, out);
}

/// Computes a `part` of the outputs.
#[inline(never)]
fn plain_pixels(windows: &Windows<'_>, part: Range<usize>, column: &mut [Pair], out: &mut [i8]) {
    let conv = windows.conv;
    let c = usize::from(conv.output.c);
    let mut walk = [0, 0];
    for (i, out) in out.chunks_mut(WINDOWS * c).enumerate() {
        // Of a last, partial column, windows beyond the map stay as they were: nobody looks.
        for m in 0..out.len() / c {
            windows.copy(walk, m, column);
            windows.step(&mut walk);
        }
        outputs(conv, part.clone(), column, out, conv.residual.skip(i * WINDOWS * c));
    }
}

/// Computes the outputs of a layer whose parameters are in planes: some at a time, whose parameters
/// are brought to the short form on the stack. Files of before version 7 have no others.
#[cfg(edge_dsp)]
#[inline(never)]
fn shortened_pixels(windows: &Windows<'_>, column: &mut [Pair], out: &mut [i8]) {
    /// Windows are copied again for each part: many outputs save instructions, few save stack.
    const PART: usize = 32;
    let conv = windows.conv;
    let c = usize::from(conv.output.c);
    let has_residual = !matches!(conv.residual, ResidualSource::None);
    for start in (0..c).step_by(PART) {
        let part = start..c.min(start + PART);
        let mut short = [0; PART * 3];
        match shorten_into(conv.params, c, part.clone(), has_residual, &mut short) {
            Some(()) => part_pixels(windows, part, &short, column, out),
            None => plain_pixels(windows, part, column, out),
        }
    }
}

/// Computes a `part` of the outputs by the kernel for short parameters, where that can.
#[cfg(edge_dsp)]
#[inline(never)]
fn part_pixels(
    windows: &Windows<'_>,
    part: Range<usize>,
    params: &[i32],
    column: &mut [Pair],
    out: &mut [i8],
) {
    match dsp::Layer::new(windows.conv, part.clone(), params, column) {
        Some(layer) => dsp_pixels(windows, layer, part.end, out),
        None => plain_pixels(windows, part, column, out),
    }
}

/// Computes the outputs of a layer's part, which ends with `end`.
#[cfg(edge_dsp)]
fn dsp_pixels(windows: &Windows<'_>, mut layer: dsp::Layer<'_>, end: usize, out: &mut [i8]) {
    let conv = windows.conv;
    let c = usize::from(conv.output.c);
    let mut walk = [0, 0];
    for (i, out) in out.chunks_mut(WINDOWS * c).enumerate() {
        let count = out.len() / c;
        let starts = if count < WINDOWS { None } else { windows.starts(i, walk) };
        match starts {
            Some(starts) => {
                layer.widen(starts, windows.line);
                walk[1] += WINDOWS;
                while walk[1] >= windows.out_w {
                    walk = [walk[0] + 1, walk[1] - windows.out_w];
                }
            }
            None => {
                for m in 0..count {
                    windows.copy(walk, m, layer.column());
                    windows.step(&mut walk);
                }
            }
        }
        let residual = conv.residual.skip(i * WINDOWS * c);
        layer.outputs(count, out, residual);
        if layer.end() < end {
            outputs(conv, layer.end()..end, layer.column(), out, residual);
        }
    }
}

/// Keeps outputs at or above `low`, which is -128 for nearly all layers.
#[cfg(edge_dsp)]
pub(super) fn raise(out: &mut [i8], low: i32) {
    if low > i8::MIN.into() {
        out.iter_mut().for_each(|y| *y = (*y).max(low as i8));
    }
}

/// Computes a `part` of the outputs of a column's windows, which begins with an even one; `out` and
/// `residual` start at the first window's.
fn outputs(
    conv: &Conv<'_, i8, i8>,
    part: Range<usize>,
    column: &[Pair],
    out: &mut [i8],
    residual: ResidualSource<'_, i8>,
) {
    let (c, end) = (usize::from(conv.output.c), part.end);
    let pair_len = conv.filter.panel_len() / 2;
    let pairs = conv.weights[part.start / 2 * pair_len..].chunks_exact(pair_len);
    for (channel, weights) in part.step_by(2).zip(pairs) {
        // The last pair of an odd number has one output.
        let both = [channel, (channel + 1).min(end - 1)].map(|c| channel_params(conv, c));
        let mut sums: Sums = both.map(|params| [params.bias; WINDOWS]);
        dot(&mut sums, column, weights);
        for (o, sums) in sums.iter_mut().enumerate().take(end - channel) {
            let scale = Scale { params: both[o], finish: &conv.finish };
            let out = &mut out[channel + o..];
            match residual {
                ResidualSource::None => {}
                ResidualSource::InPlace => scale.add(sums, out, c),
                ResidualSource::Other(r) => scale.add(sums, &r[channel + o..], c),
            }
            scale.finish(sums, out, c);
        }
    }
}

/// What finishing an output takes.
struct Scale<'a> {
    params: ChannelParams,
    finish: &'a Finish,
}

impl Scale<'_> {
    /// Adds residuals, every `c`th of `from`.
    #[inline(never)]
    fn add(&self, sums: &mut [i32; WINDOWS], from: &[i8], c: usize) {
        for (sum, r) in sums.iter_mut().zip(from.iter().step_by(c)) {
            *sum = sum.wrapping_add(lift_residual(*r, self.params.residual, self.finish));
        }
    }

    /// Requantizes and clamps into every `c`th of `out`.
    #[inline(never)]
    fn finish(&self, sums: &[i32; WINDOWS], out: &mut [i8], c: usize) {
        let out = out.iter_mut().step_by(c);
        match Quick::new(&self.params, self.finish) {
            Some(quick) => sums.iter().zip(out).for_each(|(sum, out)| *out = quick.apply(*sum)),
            None => {
                let Finish { zero_point, low, .. } = *self.finish;
                let requant = self.params.requant();
                for (sum, out) in sums.iter().zip(out) {
                    *out = requantize(*sum, requant, zero_point, low);
                }
            }
        }
    }
}

/// Requantization in few steps on a core of 32 bits, where the lower half of a product decides nothing:
/// where shifts are above 32, as nearly always.
#[derive(Clone, Copy)]
pub(super) struct Quick {
    multiplier: i32,
    shift: i32,
    /// Half of the last bit that is kept of the upper half of a product.
    half: i32,
    zero_point: i32,
    low: i32,
}

impl Quick {
    #[inline(always)]
    pub(super) fn new(params: &ChannelParams, finish: &Finish) -> Option<Self> {
        let [multiplier, shift] = params.requant;
        let Finish { zero_point, low, .. } = *finish;
        let shift = shift - 32;
        (shift > 0).then(|| Self { multiplier, shift, half: 1 << (shift - 1), zero_point, low })
    }

    /// As [`requantize`].
    #[inline(always)]
    pub(super) fn apply(self, sum: i32) -> i8 {
        let upper = ((i64::from(sum) * i64::from(self.multiplier)) >> 32) as i32;
        let y = (upper.wrapping_add(self.half) >> self.shift).wrapping_add(self.zero_point);
        y.clamp(-128, 127).max(self.low) as i8
    }
}

/// Where windows lie; what all of them share is computed once.
struct Windows<'a> {
    conv: &'a Conv<'a, i8, i8>,
    /// The value beyond the map.
    pad: i8,
    h: usize,
    w: usize,
    c: usize,
    /// First channel that is read.
    first: usize,
    /// Numbers of a filter row.
    row: usize,
    /// [`Pair`]s of a tap and of a filter row in a column.
    pairs: [usize; 2],
    /// Whether a filter row can be widened at once.
    is_whole: bool,
    /// Whether windows are pixels that follow each other.
    #[cfg(edge_dsp)]
    is_pixel: bool,
    /// Numbers of a line of the map.
    #[cfg(edge_dsp)]
    line: usize,
    /// Columns of the output.
    out_w: usize,
}

impl<'a> Windows<'a> {
    /// Of what a panel reads.
    fn new(conv: &'a Conv<'a, i8, i8>, panel: usize, pad: i8) -> Self {
        let filter = conv.filter;
        let (taps, channels) = filter.taps();
        let tap = filter.groups() * GROUP;
        let c = usize::from(conv.input.c);
        let is_whole = filter.c_in == c && (filter.packs_rows() || channels.is_multiple_of(KR_I8));
        Self {
            conv,
            pad,
            h: conv.input.h.into(),
            w: conv.input.w.into(),
            c,
            first: conv.groups.first(panel, filter.c_in),
            row: filter.kw * c,
            pairs: [tap, taps * tap],
            is_whole,
            #[cfg(edge_dsp)]
            is_pixel: c.is_multiple_of(KR_I8)
                && is_whole
                && filter.kh == 1
                && filter.kw == 1
                && conv.stride[0] == 1
                && conv.stride[1] == 1,
            #[cfg(edge_dsp)]
            line: usize::from(conv.input.w) * c,
            out_w: conv.output.w.into(),
        }
    }

    /// The next pixel of the output.
    fn step(&self, walk: &mut [usize; 2]) {
        walk[1] += 1;
        if walk[1] == self.out_w {
            *walk = [walk[0] + 1, 0];
        }
    }

    /// Where the windows of column `i` start, the first of which is that of the output's pixel at
    /// `[row, column]`, if their rows can be widened as they lie in the map.
    #[cfg(edge_dsp)]
    fn starts(&self, i: usize, [row, column]: [usize; 2]) -> Option<[usize; WINDOWS]> {
        let (conv, c) = (self.conv, self.c);
        if self.is_pixel {
            return Some([i * WINDOWS * c, (i * WINDOWS + 1) * c, (i * WINDOWS + 2) * c]);
        }
        let step = usize::from(conv.stride[1]);
        let y0 = window_start(row, conv.stride[0], conv.padding.top);
        let x0 = window_start(column, conv.stride[1], conv.padding.left);
        // Negative numbers are huge as unsigned.
        let is_inside = self.is_whole
            && y0 as usize <= self.h.wrapping_sub(conv.filter.kh)
            && x0 as usize <= self.w.wrapping_sub(conv.filter.kw + (WINDOWS - 1) * step)
            && self.w >= conv.filter.kw + (WINDOWS - 1) * step
            && self.h >= conv.filter.kh;
        if !is_inside {
            return None;
        }
        let start = (y0 as usize * self.w + x0 as usize) * c;
        let starts = [start, start + step * c, start + 2 * step * c];
        // A group that is not full reads behind it, where weights are zero.
        let last = starts[2] + (conv.filter.kh - 1) * self.line + self.row.next_multiple_of(KR_I8);
        (last <= conv.x.len()).then_some(starts)
    }

    /// Copies window `m` of a column, that of the output's pixel at `[row, column]`.
    fn copy(&self, [row, column]: [usize; 2], m: usize, to: &mut [Pair]) {
        let Self { conv, h, w, c, pairs: [tap_pairs, row_pairs], .. } = *self;
        let filter = conv.filter;
        let y0 = window_start(row, conv.stride[0], conv.padding.top);
        let x0 = window_start(column, conv.stride[1], conv.padding.left);
        let row_is_inside = x0 >= 0 && x0 as usize + filter.kw <= w;
        let rows = to.chunks_exact_mut(row_pairs);
        if self.is_whole && row_is_inside && y0 >= 0 && y0 as usize + filter.kh <= h {
            let lines = conv.x[(y0 as usize * w + x0 as usize) * c..].chunks(w * c);
            for (to, line) in rows.zip(lines) {
                widen(to, m, &line[..self.row]);
            }
            return;
        }
        for (ky, to) in rows.enumerate() {
            // Wraps around above the map.
            let y = (y0 + ky as isize) as usize;
            let line = conv.x.get(y.wrapping_mul(w * c)..).filter(|_| y < h);
            let line = line.and_then(|line| line.get(..w * c));
            match line {
                Some(line) if row_is_inside && self.is_whole => {
                    widen(to, m, &line[x0 as usize * c..][..self.row]);
                }
                _ if filter.packs_rows() => {
                    let mut packed = [self.pad; MAX_PACKED_ROW];
                    for (kx, packed) in packed[..self.row].chunks_exact_mut(c).enumerate() {
                        if let Some(tap) = tap(line, x0 + kx as isize, c) {
                            packed.copy_from_slice(tap);
                        }
                    }
                    widen(to, m, &packed[..self.row]);
                }
                _ => {
                    for (kx, to) in to.chunks_exact_mut(tap_pairs).enumerate() {
                        match tap(line, x0 + kx as isize, c) {
                            Some(tap) => widen(to, m, &tap[self.first..][..filter.c_in]),
                            None => fill(to, m, self.pad),
                        }
                    }
                }
            }
        }
    }
}

/// Pixel `x` of a line of the map; `None` beyond it, or where there is no line.
fn tap(line: Option<&[i8]>, x: isize, c: usize) -> Option<&[i8]> {
    line?.chunks_exact(c).nth(usize::try_from(x).ok()?)
}
