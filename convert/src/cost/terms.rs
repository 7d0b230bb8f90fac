//! How often the loops of an operator run on a microcontroller (`runtime::ops::{columns, planes}`).

use artifact::layout::{DEPTHWISE_CHANNELS, WINDOWS, window_start};
use artifact::params::ParamsForm;
use artifact::stripes::{input_rows, turns};
use artifact::{Artifact, Dtype, Grouped, Op};
use core::ops::Range;

/// What is counted of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Term {
    /// A call of a convolution.
    Convolution,
    /// Columns of three windows.
    Column,
    /// Numbers of windows that are widened as they lie in the map.
    Widened,
    /// Windows that are copied one by one, with padding.
    Window,
    /// Their numbers.
    Copied,
    /// Products of columns.
    Product,
    /// Pairs of outputs of a column.
    Pair,
    /// Outputs that something is added to.
    Residual,
    /// Outputs of a layer whose channels fall into groups, but not each into its own.
    Grouped,
    /// Bytes of lines that a turn moves.
    Moved,
    /// A call of a depthwise convolution.
    Depthwise,
    /// Bands of rows of four channels.
    Band,
    /// Numbers that are copied into planes.
    Plane,
    /// Output rows of a channel.
    Row,
    /// Pairs of outputs of 3×3 filters of stride 1.
    Stride1,
    /// Pairs of outputs of 3×3 filters of stride 2.
    Stride2,
    /// Outputs of other filters.
    Output,
    /// Their products.
    Tap,
    /// A call of any other operator.
    Other,
    /// Outputs of pools.
    Pooled,
    /// Numbers that pools read.
    Read,
    /// Numbers of an affine.
    Affine,
    /// Numbers of a gate.
    Gated,
    /// Numbers that are looked up.
    LookedUp,
}

/// All terms, in the order of [`Terms`].
pub const TERMS: [Term; 24] = [
    Term::Convolution,
    Term::Column,
    Term::Widened,
    Term::Window,
    Term::Copied,
    Term::Product,
    Term::Pair,
    Term::Residual,
    Term::Grouped,
    Term::Moved,
    Term::Depthwise,
    Term::Band,
    Term::Plane,
    Term::Row,
    Term::Stride1,
    Term::Stride2,
    Term::Output,
    Term::Tap,
    Term::Other,
    Term::Pooled,
    Term::Read,
    Term::Affine,
    Term::Gated,
    Term::LookedUp,
];

/// A number for each term.
pub type Terms = [f64; TERMS.len()];

/// Adds to a term.
fn add(terms: &mut Terms, term: Term, count: usize) {
    terms[term as usize] += count as f64;
}

/// The terms of each operator, or of those that take turns together, with the index of the last of them.
pub fn counted(artifact: &Artifact<'_>) -> Vec<(usize, Terms)> {
    let nr = artifact.header().nr;
    let mut waiting: Vec<Grouped> = Vec::new();
    let mut counted = Vec::new();
    for (index, op) in artifact.ops().enumerate() {
        let mut terms = [0.0; TERMS.len()];
        match op.grouped() {
            Some(conv) if conv.conv.lines > 0 => {
                waiting.push(conv);
                continue;
            }
            Some(conv) => {
                let before = core::mem::take(&mut waiting);
                let first = before.iter().find(|op| op.conv.output == conv.conv.input);
                match first {
                    Some(first) => in_turns(&mut terms, first, &before, &conv, nr),
                    None => convolution(&mut terms, &conv, whole(&conv), nr),
                }
            }
            None => other(&mut terms, &op),
        }
        counted.push((index, terms));
    }
    counted
}

fn whole(op: &Grouped) -> Range<usize> {
    0..op.conv.output.shape.h.into()
}

/// As `columns::run_turns` calls them.
fn in_turns(terms: &mut Terms, first: &Grouped, waiting: &[Grouped], last: &Grouped, nr: usize) {
    let shape = first.conv.output.shape;
    let line = usize::from(shape.w) * usize::from(shape.c);
    for turn in turns(&first.conv, &last.conv) {
        add(terms, Term::Moved, turn.kept * line);
        convolution(terms, first, turn.lines.start + turn.kept..turn.lines.end, nr);
        for shortcut in waiting.iter().filter(|op| op.conv.output != first.conv.output) {
            convolution(terms, shortcut, turn.rows.clone(), nr);
        }
        convolution(terms, last, turn.rows, nr);
    }
}

/// One call for some rows of an output.
fn convolution(terms: &mut Terms, op: &Grouped, rows: Range<usize>, nr: usize) {
    if rows.is_empty() {
        return;
    }
    if op.is_depthwise() {
        return depthwise(terms, op, &rows, nr);
    }
    let conv = &op.conv;
    let filter = conv.filter_layout(op.groups, nr, Dtype::I8);
    let (w, c) = (usize::from(conv.output.shape.w), usize::from(conv.output.shape.c));
    let pixels = rows.len() * w;
    add(terms, Term::Convolution, 1);
    if conv.residual.is_some() {
        add(terms, Term::Residual, pixels * c);
    }
    let numbers = filter.kh * filter.taps().0 * filter.groups() * filter.dtype.kr();
    if op.groups > 1 {
        let panels = c.div_ceil(nr);
        add(terms, Term::Window, pixels * panels);
        add(terms, Term::Copied, pixels * panels * numbers);
        add(terms, Term::Product, pixels * WINDOWS * c * numbers);
        return add(terms, Term::Grouped, pixels * c);
    }
    let columns = pixels.div_ceil(WINDOWS);
    let slow = slow_windows(op, &rows, filter.packs_rows());
    add(terms, Term::Column, columns);
    add(terms, Term::Widened, (pixels - slow) * numbers);
    add(terms, Term::Window, slow);
    add(terms, Term::Copied, slow * numbers);
    add(terms, Term::Product, columns * WINDOWS * c.next_multiple_of(2) * numbers);
    add(terms, Term::Pair, columns * c.div_ceil(2));
}

/// Windows of columns that do not lie in the map one beside the other.
fn slow_windows(op: &Grouped, rows: &Range<usize>, packs_rows: bool) -> usize {
    let conv = &op.conv;
    let (w, pixels) =
        (usize::from(conv.output.shape.w), rows.len() * usize::from(conv.output.shape.w));
    let [kh, kw] = conv.filter.map(|n| n as isize);
    let c = usize::from(conv.input.shape.c);
    let is_whole = packs_rows || c.is_multiple_of(artifact::layout::KR_I8);
    let full = pixels / WINDOWS * WINDOWS;
    if kh == 1 && kw == 1 && conv.stride == [1, 1] && is_whole {
        return pixels - full;
    }
    let (height, width) = (conv.input.shape.h as isize, conv.input.shape.w as isize);
    let fast = (0..full).step_by(WINDOWS).filter(|first| {
        let (row, column) = (rows.start + first / w, first % w);
        let y = window_start(row, conv.stride[0], conv.padding.top);
        let x = window_start(column, conv.stride[1], conv.padding.left);
        let last = x + ((WINDOWS - 1) * usize::from(conv.stride[1])) as isize;
        is_whole && y >= 0 && x >= 0 && y + kh <= height && last + kw <= width
    });
    pixels - fast.count() * WINDOWS
}

fn depthwise(terms: &mut Terms, op: &Grouped, rows: &Range<usize>, nr: usize) {
    let conv = &op.conv;
    let planes = conv.planes();
    let (w, c) = (usize::from(conv.output.shape.w), usize::from(conv.output.shape.c));
    add(terms, Term::Depthwise, 1);
    for start in rows.clone().step_by(planes.band.max(1)) {
        let band = start..rows.end.min(start + planes.band.max(1));
        let read = input_rows(conv, &band).len();
        add(terms, Term::Band, c.div_ceil(DEPTHWISE_CHANNELS));
        add(terms, Term::Plane, read * usize::from(conv.input.shape.w) * c);
        add(terms, Term::Row, band.len() * c);
        // Others are plain Rust.
        let has_kernel = conv.filter == [3, 3]
            && conv.stride[0] == conv.stride[1]
            && c.is_multiple_of(DEPTHWISE_CHANNELS)
            && matches!(conv.params_form(nr, Dtype::I8), Some(ParamsForm::Short(_)))
            && conv.residual.is_none();
        match (has_kernel, conv.stride[0]) {
            (true, 1) => add(terms, Term::Stride1, band.len() * c * w.div_ceil(2)),
            (true, 2) => add(terms, Term::Stride2, band.len() * c * w.div_ceil(2)),
            _ => {
                let outputs = band.len() * c * w;
                let [kh, kw] = conv.filter.map(usize::from);
                add(terms, Term::Output, outputs);
                add(terms, Term::Tap, outputs * kh * kw);
            }
        }
    }
}

fn other(terms: &mut Terms, op: &Op) {
    let written = op.output().shape.len();
    add(terms, Term::Other, 1);
    match op {
        Op::Pool2d(pool) => {
            let [kh, kw] = pool.filter.map(usize::from);
            add(terms, Term::Pooled, written);
            add(terms, Term::Read, written * kh * kw);
        }
        Op::Affine(_) => add(terms, Term::Affine, written),
        Op::Gate(_) => add(terms, Term::Gated, written),
        Op::Lookup(_) => add(terms, Term::LookedUp, written),
        Op::Conv2d(_) | Op::Grouped(_) | Op::Cast(_) => {}
    }
}
