//! Two convolutions that take turns, so that the map between them is never whole in memory.
//!
//! The first one's [`Conv2d::lines`] says how many lines of its output are kept: as many as the
//! second one, the *last* of the two, reads for the rows that it computes in a turn. Lines that the
//! next turn reads again are kept, so that nothing is computed twice. A third convolution, of the
//! same input, may stand between them if its output is what the last one adds; it then computes the
//! rows of each turn. The last one's output may lie over the input, where its rows are written only
//! after those of the input have been read.

use crate::{Conv2d, Place};
use core::ops::Range;

/// One turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Rows of the map between that are in memory after this turn's have been computed.
    pub lines: Range<usize>,
    /// Of these, those that the turn before left, `moved` lines further back.
    pub kept: usize,
    /// See [`Self::kept`].
    pub moved: usize,
    /// Rows of the last one's output.
    pub rows: Range<usize>,
}

/// Rows of a convolution's input that `rows` of its output read.
pub fn input_rows(conv: &Conv2d, rows: &Range<usize>) -> Range<usize> {
    let (top, stride) = (usize::from(conv.padding.top), usize::from(conv.stride[0]));
    let end = rows.end.saturating_sub(1) * stride + usize::from(conv.filter[0]);
    let end = end.saturating_sub(top).min(conv.input.shape.h.into());
    (rows.start * stride).saturating_sub(top)..end
}

/// Rows of a turn where the convolution before `last` keeps `lines`; 0 where they are too few.
pub fn rows_of_turn(last: &Conv2d, lines: u16) -> usize {
    match lines.checked_sub(last.filter[0]) {
        Some(more) => usize::from(more / last.stride[0].max(1)) + 1,
        None => 0,
    }
}

/// The turns of two convolutions.
pub fn turns(first: &Conv2d, last: &Conv2d) -> impl Iterator<Item = Turn> {
    let step = rows_of_turn(last, first.lines).max(1);
    let height = usize::from(last.output.shape.h);
    let last = *last;
    let mut before = 0..0usize;
    (0..height).step_by(step).map(move |start| {
        let rows = start..height.min(start + step);
        let lines = input_rows(&last, &rows);
        let kept = before.end.saturating_sub(lines.start.max(before.start));
        let moved = if kept > 0 { lines.start - before.start } else { 0 };
        before = lines.clone();
        Turn { lines, kept, moved, rows }
    })
}

/// Whether the last one's `output` may lie where it does, though the first one's `input` lies there
/// too: no row is written before it has been read. The last one may add the input itself.
pub fn follows(first: &Conv2d, last: &Conv2d) -> bool {
    let line = |place: Place| usize::from(place.shape.w) * usize::from(place.shape.c);
    let (input, output) = (first.input, last.output);
    turns(first, last).zip(turns(first, last).skip(1)).all(|(turn, next)| {
        let written = output.offset as usize + turn.rows.end * line(output);
        // What the next turn reads first, be it for its new lines, or for the rows it computes.
        let new = next.lines.start + next.kept..next.lines.end;
        let mut unread = if new.is_empty() { usize::MAX } else { input_rows(first, &new).start };
        if last.residual.is_some_and(|r| r.input == input) {
            unread = unread.min(next.rows.start);
        }
        // A shortcut of a filter's one row reads as many rows apart as the first one steps.
        unread = unread.min(next.rows.start * usize::from(first.stride[0]));
        unread == usize::MAX || written <= input.offset as usize + unread * line(input)
    })
}
