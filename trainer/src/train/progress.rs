//! What a waiting user sees: one line that changes on a terminal, few lines in a log.

use core::time::Duration;
use page::progress::{duration, interval};
use std::io::Write;
use std::time::Instant;

/// Until the first line: nobody should wonder for longer whether anything happens.
const SOON: Duration = Duration::from_secs(1);

/// Figures of the epoch so far.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// Epoch, from 1.
    pub epoch: u32,
    /// All epochs.
    pub epochs: u32,
    /// Steps done in this epoch.
    pub step: usize,
    /// Steps of an epoch.
    pub steps: usize,
    /// Mean loss.
    pub loss: f64,
    /// Share of pictures right.
    pub accuracy: f64,
    /// Pictures seen in this epoch.
    pub pictures: usize,
}

/// Prints progress to a terminal or a log.
#[derive(Debug)]
pub struct Progress {
    terminal: bool,
    started: Instant,
    waited: Duration,
    next: Instant,
    open_line: bool,
}

impl Progress {
    /// `terminal`: whether a line may be overwritten.
    pub fn new(terminal: bool) -> Self {
        let now = Instant::now();
        let next = now + SOON;
        Self { terminal, started: now, waited: Duration::ZERO, next, open_line: false }
    }

    /// Starts the clock of an epoch.
    pub fn start_epoch(&mut self) {
        self.started = Instant::now();
        self.waited = Duration::ZERO;
    }

    /// Counts time of the epoch in which nothing could be done for want of pictures.
    pub fn add_waiting(&mut self, time: Duration) {
        self.waited += time;
    }

    /// That time.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Time since the epoch's start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Shows the figures if it is time to.
    ///
    /// # Errors
    /// A closed output.
    pub fn step(&mut self, f: &Figures, out: &mut dyn Write) -> std::io::Result<()> {
        if Instant::now() < self.next {
            return Ok(());
        }
        self.next = Instant::now() + interval(self.terminal);
        let seconds = self.started.elapsed().as_secs_f64().max(1e-9);
        let left = seconds / f.step.max(1) as f64
            * (f.steps.saturating_sub(f.step) + f.steps * (f.epochs - f.epoch) as usize) as f64;
        let line = format!(
            "epoch {}/{} step {}/{}, {} left, loss {:.4} acc {:.1} % {:.0} images/s",
            f.epoch,
            f.epochs,
            f.step,
            f.steps,
            duration(left),
            f.loss,
            100.0 * f.accuracy,
            f.pictures as f64 / seconds
        );
        if self.terminal {
            self.open_line = true;
            write!(out, "\r{line}\x1b[K")?;
        } else {
            writeln!(out, "{line}")?;
        }
        out.flush()
    }

    /// Prints a line that stays.
    ///
    /// # Errors
    /// A closed output.
    pub fn line(&mut self, text: &str, out: &mut dyn Write) -> std::io::Result<()> {
        if core::mem::take(&mut self.open_line) {
            write!(out, "\r\x1b[K")?;
        }
        writeln!(out, "{text}")?;
        out.flush()
    }
}
