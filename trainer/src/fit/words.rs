//! What a search says on the way.

use super::candidates::{Candidate, Milliseconds};
use super::journal::{Journal, Trained};
use super::{Finished, Wanted};
use crate::train::duration;
use artifact::text::AsPlain;
use convert::budget::Bytes;
use core::fmt::Write as _;
use dataset::Dataset;
use page::terminal::{Output, Role};
use std::io::{self, Write};
use std::path::Path;

/// A board and its limits in words.
pub(crate) fn describe(wanted: &Wanted) -> String {
    let kib = |bytes: Bytes| format!("{} KiB", bytes.0 / 1024);
    let mut text =
        format!("{}: {} at {} MHz", wanted.name, wanted.board.core.name(), wanted.board.mhz);
    for (limit, what) in [(wanted.limits.ram, "RAM"), (wanted.limits.flash, "flash")] {
        if let Some(limit) = limit {
            let _ = write!(text, ", {} of {what}", kib(limit));
        }
    }
    if let Some(latency) = wanted.limits.latency {
        let _ = write!(text, ", at most {}", Milliseconds(latency.as_secs_f64()));
    }
    text
}

/// How many candidates there are.
pub(super) fn candidates(
    wanted: &Wanted,
    fitting: &[Candidate],
    out: &mut Output<'_>,
) -> io::Result<()> {
    writeln!(out, "{}", describe(wanted).plain())?;
    writeln!(out, "{} networks fit", fitting.len())
}

/// What a search still has to do.
pub(super) struct Work {
    /// Pictures that each candidate looks at.
    pub(super) looked_at: usize,
    /// Multiply-accumulates a second.
    pub(super) rate: f64,
    /// Of fine-tuning.
    pub(super) epochs: u32,
}

/// How long it will take, about.
pub(super) fn duration_of(
    candidates: &[Candidate],
    data: &Dataset,
    finalists: usize,
    work: &Work,
    out: &mut Output<'_>,
) -> io::Result<()> {
    /// Forward and backward.
    const STEP: f64 = 3.0;
    let macs = candidates.iter().map(|c| c.takes.macs as f64);
    let largest = candidates.iter().map(|c| c.takes.macs).max().unwrap_or(0) as f64;
    let looking = macs.sum::<f64>() * work.looked_at as f64;
    let passes = STEP * data.train.len() as f64 + data.val.len() as f64;
    let training = finalists as f64 * largest * passes * f64::from(work.epochs);
    let text = format!("about {} in all", duration((looking + training) / work.rate.max(1.0)));
    writeln!(out, "{}", Role::Dim.paint(text))
}

/// Which candidates are trained.
pub(super) fn finalists(
    finalists: &[Candidate],
    journal: &Journal,
    out: &mut Output<'_>,
) -> io::Result<()> {
    writeln!(out, "the most promising, by heads on what they see already:")?;
    for candidate in finalists {
        let accuracy = journal.guessed(&candidate.name).map_or(0.0, |guess| guess.accuracy);
        writeln!(
            out,
            "  {} {:.1} %, {}",
            candidate.name.plain(),
            100.0 * accuracy,
            candidate.takes
        )?;
    }
    Ok(())
}

/// What came of training.
pub(super) fn trained(trained: &Trained, out: &mut Output<'_>) -> io::Result<()> {
    writeln!(
        out,
        "{}: {:.2} % in floats, {:.2} % in int8, {}",
        trained.name.plain(),
        100.0 * trained.float,
        100.0 * trained.int8,
        trained.takes
    )
}

/// The answer.
pub(super) fn end(
    wanted: &Wanted,
    best: &Trained,
    [model, edge, page]: [&Path; 3],
    finished: &Finished,
    out: &mut Output<'_>,
) -> io::Result<()> {
    let (accuracy, pictures) = (best.int8, best.pictures);
    let figures = format!("{:.2} %", 100.0 * accuracy);
    writeln!(
        out.answer(),
        "{}: {} in int8 on {pictures} validation pictures ({}), which chose it, {}",
        best.name.plain(),
        Role::Good.paint(figures),
        finished.validation.plain(),
        dataset::margin(accuracy, pictures)
    )?;
    if let Some((accuracy, pictures)) = finished.test {
        let figures = format!("{:.2} %", 100.0 * accuracy);
        writeln!(
            out.answer(),
            "{} on {pictures} test pictures, which chose nothing, {}",
            Role::Good.paint(figures),
            dataset::margin(accuracy, pictures)
        )?;
    }
    writeln!(out.answer(), "{}: {}", wanted.name.plain(), best.takes)?;
    for (path, what) in [(model, "the checkpoint"), (edge, "the device file"), (page, "the page")] {
        writeln!(out, "{}: {what}", path.display().to_string().plain())?;
    }
    Ok(())
}
