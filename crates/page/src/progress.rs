//! What a user sees while waiting, for downloads above all: one line that changes on a terminal,
//! few lines in a log.

use core::fmt;
use core::time::Duration;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::Instant;

/// Between two lines in a log.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// Between two changes of the line on a terminal.
const TERMINAL_INTERVAL: Duration = Duration::from_millis(200);

/// Least time between two reports of progress: on a terminal, where one line changes, or in a log.
pub fn interval(terminal: bool) -> Duration {
    if terminal { TERMINAL_INTERVAL } else { LOG_INTERVAL }
}

/// Prints how far a download is.
///
/// An output that cannot be written to is no reason to end a download: its errors are ignored.
pub struct Progress<'a> {
    out: &'a mut dyn Write,
    terminal: bool,
    /// A line on the terminal has no end yet.
    open: bool,
    transfer: Transfer,
}

/// The file under way.
struct Transfer {
    name: String,
    /// Bytes that lay there when it started.
    before: u64,
    done: u64,
    total: Option<u64>,
    started: Instant,
    shown: Instant,
}

impl fmt::Debug for Progress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").field("terminal", &self.terminal).finish_non_exhaustive()
    }
}

impl<'a> Progress<'a> {
    /// `terminal`: whether a line may be overwritten.
    pub fn new(out: &'a mut dyn Write, terminal: bool) -> Self {
        let now = Instant::now();
        let name = String::new();
        let transfer = Transfer { name, before: 0, done: 0, total: None, started: now, shown: now };
        Self { out, terminal, open: false, transfer }
    }

    /// Prints a line that stays.
    pub fn note(&mut self, text: &str) {
        self.stop();
        let _ = writeln!(self.out, "{text}");
    }

    /// A file of `total` bytes, where that is known, starts with `before` of them present.
    pub fn start(&mut self, name: &str, before: u64, total: Option<u64>) {
        let now = Instant::now();
        let name = name.to_owned();
        self.transfer = Transfer { name, before, done: before, total, started: now, shown: now };
    }

    /// More bytes have come; shows it if it is time to.
    pub fn advance(&mut self, bytes: u64) {
        self.transfer.done += bytes;
        if self.transfer.shown.elapsed() < interval(self.terminal) {
            return;
        }
        self.transfer.shown = Instant::now();
        let line = self.transfer.line();
        self.open = self.terminal;
        let _ = match self.terminal {
            true => write!(self.out, "\r{line}\x1b[K"),
            false => writeln!(self.out, "{line}"),
        };
        let _ = self.out.flush();
    }

    /// The file will not come: what is printed next starts on its own line.
    pub fn stop(&mut self) {
        if core::mem::take(&mut self.open) {
            let _ = writeln!(self.out);
        }
    }

    /// The file is there.
    pub fn finish(&mut self) {
        let t = &self.transfer;
        let time = duration(t.started.elapsed().as_secs_f64());
        let erase = if core::mem::take(&mut self.open) { "\r\x1b[K" } else { "" };
        let _ = writeln!(self.out, "{erase}{}: {} in {time}", t.name, size(t.done));
    }
}

impl Transfer {
    /// `model.weights.h5 45 % of 94.4 MB, 8.1 MB/s, 6 s left`.
    fn line(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-9);
        let rate = (self.done - self.before) as f64 / seconds;
        let speed = size(rate.round() as u64);
        match self.total {
            Some(total) => {
                let percent = 100.0 * self.done as f64 / total.max(1) as f64;
                let left = duration(total.saturating_sub(self.done) as f64 / rate.max(1.0));
                format!("{} {percent:.0} % of {}, {speed}/s, {left} left", self.name, size(total))
            }
            None => format!("{} {}, {speed}/s", self.name, size(self.done)),
        }
    }
}

/// Counts on stderr what is done of something slow, by any number of threads: in a line that changes
/// and goes away on a terminal, once in a log.
#[derive(Debug)]
pub struct Counter {
    what: &'static str,
    terminal: bool,
    started: Instant,
    /// When it was shown last.
    shown: Mutex<Option<Instant>>,
}

impl Counter {
    /// Of `what` is done, such as `reading pictures`.
    pub fn new(what: &'static str) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { what, terminal, started: Instant::now(), shown: Mutex::new(None) }
    }

    /// Shows how many are done, if it is time to.
    pub fn show(&self, done: usize, total: usize) {
        let Ok(mut shown) = self.shown.try_lock() else { return };
        let is_time = match *shown {
            Some(time) => self.terminal && time.elapsed() >= interval(true),
            None => done > 0 && (!self.terminal || self.started.elapsed() >= interval(true)),
        };
        if is_time {
            *shown = Some(Instant::now());
            let seconds = self.started.elapsed().as_secs_f64();
            let line = counted(self.what, done, total, seconds, self.terminal);
            let _ = match self.terminal {
                true => write!(std::io::stderr(), "\r{line}\x1b[K"),
                false => writeln!(std::io::stderr(), "{line}"),
            };
        }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        if self.terminal && self.shown.get_mut().is_ok_and(|shown| shown.is_some()) {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// `reading pictures: 30 of 90, 4 s left`.
fn counted(what: &str, done: usize, total: usize, seconds: f64, terminal: bool) -> String {
    if !terminal {
        return format!("{what}: {total}");
    }
    let left = seconds / done.max(1) as f64 * total.saturating_sub(done) as f64;
    format!("{what}: {done} of {total}, {} left", duration(left))
}

/// Seconds as `1 h 02 min`, `3 min 04 s` or `5 s`.
pub fn duration(seconds: f64) -> String {
    let s = seconds.max(0.0).round() as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} min", s / 3600, s / 60 % 60),
    }
}

/// Bytes as `512 B`, `23.7 kB` or `94.4 MB`.
fn size(bytes: u64) -> String {
    match bytes {
        0..1000 => format!("{bytes} B"),
        1000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_read_well() {
        assert_eq!(counted("reading", 30, 90, 2.0, true), "reading: 30 of 90, 4 s left");
        assert_eq!(counted("reading", 0, 90, 0.0, true), "reading: 0 of 90, 0 s left");
        assert_eq!(counted("reading", 1, 90, 2.0, false), "reading: 90");
    }

    #[test]
    fn durations_and_sizes_read_well() {
        assert_eq!(duration(4.6), "5 s");
        assert_eq!(duration(184.0), "3 min 04 s");
        assert_eq!(duration(3720.0), "1 h 02 min");
        assert_eq!([size(999), size(23_672), size(94_400_000)], ["999 B", "23.7 kB", "94.4 MB"]);
    }

    #[test]
    fn a_terminal_has_one_line_and_a_log_has_whole_lines() {
        for terminal in [true, false] {
            let mut out = Vec::new();
            let mut progress = Progress::new(&mut out, terminal);
            progress.start("weights", 50, Some(200));
            progress.transfer.shown -= LOG_INTERVAL;
            progress.transfer.started -= Duration::from_secs(10);
            progress.advance(100);
            progress.finish();
            let text = String::from_utf8(out).unwrap();
            let line = "weights 75 % of 200 B, 10 B/s, 5 s left";
            let end = "weights: 150 B in 10 s";
            assert_eq!(
                text,
                match terminal {
                    true => format!("\r{line}\x1b[K\r\x1b[K{end}\n"),
                    false => format!("{line}\n{end}\n"),
                }
            );
        }
    }
}
